"""Facts: what the registry tells the rest of the program.

Frozen, so that a listener can keep one. They know nothing of who listens.
"""

from __future__ import annotations

from enum import Enum

from attrs import frozen

from heartbeat_service.core.states import ClientState


class Reason(str, Enum):
    """Why a client changed (contract, section 1)."""

    HEARTBEAT = "heartbeat"
    RECONNECT = "reconnect"
    CLIENT = "client"
    OPERATOR = "operator"
    TIMEBOMB = "timebomb"
    GOODBYE = "goodbye"
    KICK = "kick"


@frozen
class Life:
    """One incarnation of a client, from its registration to its end.

    :ivar registered_at: seconds since the epoch, for people.
    :ivar ended_at: the same, or None while it lasts.
    :ivar reason: why it ended, or None while it lasts.
    :ivar longest_gap_seconds: the longest time between two of its beats.
    """

    incarnation: int
    registered_at: float
    ended_at: float | None
    reason: Reason | None
    last_state: ClientState
    beats: int
    longest_gap_seconds: float


@frozen
class Change:
    """One client changed its state, once.

    (``incarnation``, ``sequence``) names the change: it never stands for two.

    :ivar ended: the life that this change ended, if it ended one.
    """

    client_id: str
    state: ClientState
    previous_state: ClientState
    reason: Reason
    sequence: int
    incarnation: int
    ended: Life | None = None
