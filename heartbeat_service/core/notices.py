"""Notices: what operators are told at once, beside changes (contract, section 3a).

No store keeps them. A notice of a client comes after what waits for the store of that
client, so that nobody hears of a life before the store has it. They know nothing of who
listens.
"""

from __future__ import annotations

from enum import Enum

from msgspec import Struct

from heartbeat_service.core.changes import Change, Lockout, SilenceEnd
from heartbeat_service.core.labels import Labels
from heartbeat_service.core.states import ClientState


class ClientNotice(Struct, frozen=True, gc=False, kw_only=True):
    """Something of one client, in one life."""

    client_id: str
    incarnation: int


class Late(ClientNotice, frozen=True, gc=False, kw_only=True):
    """It has missed two of the intervals that it was told."""

    seconds_since_heartbeat: float
    seconds_to_timebomb: float
    timebomb_seconds: float


class Recovered(ClientNotice, frozen=True, gc=False, kw_only=True):
    """It has beaten again, after it was late or held."""


class Held(ClientNotice, frozen=True, gc=False, kw_only=True):
    """Its fuse has run out, and it lives, as so many are late."""

    seconds_since_heartbeat: float


class Silence(ClientNotice, frozen=True, gc=False, kw_only=True):
    """A planned silence has begun, or is over.

    :ivar seconds: that are left; 0 when it is over.
    :ivar reason: what has ended it; None when it begins.
    :ivar by: which operator did it; None where that isn't known, or nobody did.
    """

    seconds: float
    reason: SilenceEnd | None = None
    by: str | None = None


class LabelsChanged(ClientNotice, frozen=True, gc=False, kw_only=True):
    """A beat has brought other labels."""

    labels: Labels


class Reported(ClientNotice, frozen=True, gc=False, kw_only=True):
    """A beat has reported another state."""

    reported_state: ClientState


class HoldEnd(str, Enum):
    """What has ended a hold."""

    RECOVERED = "recovered"
    TIME = "time"
    OPERATOR = "operator"


class MassLossBegun(Struct, frozen=True, gc=False):
    """So many are late at once that nobody dies of it.

    :ivar hold: names this hold.
    :ivar held: how many are held.
    :ivar seconds_left: until it ends, whatever happens.
    """

    hold: str
    held: int
    seconds_left: float


class MassLossOver(Struct, frozen=True, gc=False):
    """The hold of that name is over.

    :ivar held: how many were still held.
    :ivar seconds_left: that it could have lasted.
    :ivar by: which operator ended it; None where that isn't known, or nobody did.
    """

    hold: str
    held: int
    seconds_left: float
    reason: HoldEnd
    by: str | None = None


class StoreNotice(Struct, frozen=True, gc=False):
    """The store is in trouble, or no longer.

    :ivar trouble: why nothing can be kept; None when it is over.
    """

    trouble: str | None


class Stalled(Struct, frozen=True, gc=False):
    """The service could not listen for that long; it is over."""

    seconds: float


#: What is told and not kept.
Notice = (
    Late
    | Recovered
    | Held
    | Silence
    | LabelsChanged
    | Reported
    | MassLossBegun
    | MassLossOver
    | StoreNotice
    | Stalled
)

#: All that operators hear of.
News = Change | Lockout | Notice
