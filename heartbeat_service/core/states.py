"""The client's states, and the one table of who may change what into what.

Knows nothing of clients, messages or time.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from heartbeat_service.core.errors import IllegalTransition


class ClientState(str, Enum):
    """The state of a game client, by its name on the wire (contract, section 1)."""

    DISCONNECTED = "DISCONNECTED"
    UNCALIBRATED = "UNCALIBRATED"
    CALIBRATED = "CALIBRATED"
    RUNNING = "RUNNING"


class Party(Enum):
    """Who asks for a change of state."""

    CLIENT = "client"
    OPERATOR = "operator"


_DISCONNECTED = ClientState.DISCONNECTED
_UNCALIBRATED = ClientState.UNCALIBRATED
_CALIBRATED = ClientState.CALIBRATED
_RUNNING = ClientState.RUNNING
_LIVING = frozenset({_UNCALIBRATED, _CALIBRATED, _RUNNING})

#: Contract, section 2, "Client transitions". To stay in a state is always
#: legal; DISCONNECTED is reached by a death only, never by asking for it.
TRANSITIONS: Mapping[Party, Mapping[ClientState, frozenset[ClientState]]] = {
    Party.CLIENT: {
        _DISCONNECTED: frozenset(),
        _UNCALIBRATED: frozenset({_UNCALIBRATED, _CALIBRATED}),
        _CALIBRATED: frozenset({_UNCALIBRATED, _CALIBRATED, _RUNNING}),
        _RUNNING: frozenset({_UNCALIBRATED, _CALIBRATED, _RUNNING}),
    },
    Party.OPERATOR: {
        _DISCONNECTED: frozenset(),
        _UNCALIBRATED: _LIVING,
        _CALIBRATED: _LIVING,
        _RUNNING: _LIVING,
    },
}

_KICK = ": a kick is `DELETE /clients/{id}`, for many `POST /clients/kick`"


def check_transition(party: Party, current: ClientState, wanted: ClientState) -> None:
    """Pass if ``party`` may change ``current`` into ``wanted``.

    :raises IllegalTransition: if the table does not hold the pair.
    """
    if wanted not in TRANSITIONS[party][current]:
        hint = "" if party is Party.CLIENT else _KICK
        raise IllegalTransition(
            f"{party.value} may not change {current.value} into {wanted.value}{hint}"
        )
