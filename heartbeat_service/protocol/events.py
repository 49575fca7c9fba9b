"""What each event carries, as typed structs (contract, section 3a).

An event's name is its class's ``event``. What isn't known in one of them is null; what
makes sense in some cases only is left out in the others. Knows what an event looks
like, not who hears it.
"""

from __future__ import annotations

from typing import ClassVar

from msgspec import UNSET, UnsetType

from heartbeat_service.core.changes import Reason, SilenceEnd
from heartbeat_service.core.notices import HoldEnd
from heartbeat_service.core.states import ClientState
from heartbeat_service.protocol.messages import Body, Moment


class Event(Body, frozen=True, kw_only=True):
    """What happened, as operators and clients are told."""

    event: ClassVar[str]


class ClientEvent(Event, frozen=True, kw_only=True):
    """Something of one client, in one life."""

    client_id: str
    incarnation: int


class StateChanged(ClientEvent, frozen=True, kw_only=True):
    """A client has changed its state: what is published, and what is known besides.

    :ivar at: when, as people read it.
    :ivar labels: those that it has registered with; left out with any other change.
    :ivar by: which operator did it; left out where that isn't known, or nobody did.
    """

    event = "OnStateChange"

    client_state: ClientState
    previous_state: ClientState
    reason: Reason
    sequence: int
    instance_id: str | UnsetType = UNSET
    at: Moment
    labels: dict[str, str] | UnsetType = UNSET
    by: str | UnsetType = UNSET


class LateEvent(ClientEvent, frozen=True, kw_only=True):
    """It has missed two of the intervals that it was told."""

    event = "Late"

    seconds_since_heartbeat: float
    seconds_to_timebomb: float
    timebomb_seconds: float


class RecoveredEvent(ClientEvent, frozen=True, kw_only=True):
    """It has beaten again, after it was late or held."""

    event = "Recovered"


class HeldEvent(ClientEvent, frozen=True, kw_only=True):
    """Its fuse has run out, and it lives, as so many are late."""

    event = "Held"

    seconds_since_heartbeat: float


class SilenceEvent(ClientEvent, frozen=True, kw_only=True):
    """A planned silence has begun, or is over.

    :ivar seconds: that are left; 0 when it is over.
    :ivar reason: what has ended it; left out when it begins.
    :ivar by: which operator did it; left out where that isn't known, or nobody did.
    """

    event = "Silence"

    seconds: float
    reason: SilenceEnd | UnsetType = UNSET
    by: str | UnsetType = UNSET


class LockedOutEvent(Event, frozen=True, kw_only=True):
    """An operator keeps a client ID out, or no longer.

    :ivar incarnation: the life that it ended; null if none was here, or if the service
        has restarted since.
    :ivar seconds: for how long; 0 when it is over.
    :ivar by: which operator did it; null where that isn't known, or nobody did.
    """

    event = "LockedOut"

    client_id: str
    incarnation: int | None
    seconds: float
    by: str | None


class LabelsEvent(ClientEvent, frozen=True, kw_only=True):
    """A beat has brought other labels."""

    event = "Labels"

    labels: dict[str, str]


class ReportedEvent(ClientEvent, frozen=True, kw_only=True):
    """A beat has reported another state."""

    event = "Reported"

    reported_state: ClientState


class MassLossEvent(Event, frozen=True, kw_only=True):
    """So many are late at once that nobody dies of it.

    :ivar hold: names this hold.
    :ivar held: how many are held.
    :ivar seconds_left: until it ends, whatever happens.
    """

    event = "MassLoss"

    hold: str
    held: int
    seconds_left: float


class MassLossOverEvent(Event, frozen=True, kw_only=True):
    """The hold of that name is over.

    :ivar held: how many were still held.
    :ivar seconds_left: that it could have lasted.
    :ivar by: which operator ended it; left out where that isn't known, or nobody did.
    """

    event = "MassLossOver"

    hold: str
    held: int
    seconds_left: float
    reason: HoldEnd
    by: str | UnsetType = UNSET


class StoreEvent(Event, frozen=True, kw_only=True):
    """The store is in trouble, or no longer.

    :ivar trouble: why nothing can be kept; null when it is over.
    """

    event = "Store"

    trouble: str | None


class ResetEvent(Event, frozen=True, kw_only=True):
    """What was shown before may be wrong: list anew.

    :ivar run: the run of the service that tells this, and all that follows.
    :ivar server_time: the service's own time, as people read it.
    """

    event = "Reset"

    run: str
    server_time: Moment


#: All kinds of events.
EVENTS: tuple[type[Event], ...] = (
    *ClientEvent.__subclasses__(),
    *(kind for kind in Event.__subclasses__() if kind is not ClientEvent),
)
