"""Facts: what the registry tells the rest of the program, and what it is told back.

Frozen, so that a listener can keep one; and kept from the collector, as they hold
nothing but values, and a hundred thousand may wait for the store at once. They know
nothing of who listens.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from enum import Enum
from typing import Annotated

from attrs import field, frozen
from msgspec import Meta, Struct
from msgspec.structs import replace

from heartbeat_service.core.heartbeat import LONGEST_FUSE
from heartbeat_service.core.instances import Instances
from heartbeat_service.core.labels import NO_LABELS, Labels
from heartbeat_service.core.states import ClientState

# The bounds below are looked at where a fact is read from a store, and nowhere else.

#: Seconds since the epoch, as far as a date can show them: to the end of the year 9999.
Moment = Annotated[float, Meta(ge=0, lt=253_402_300_799)]

#: Any time that can have passed, in seconds.
Seconds = Annotated[float, Meta(ge=0, lt=253_402_300_799)]

#: Any count. It has to be able to grow before the integers of SQLite end.
Number = Annotated[int, Meta(ge=0, le=2**62)]

#: The most characters of an operator's name.
LONGEST_NAME = 64

#: What an operator is called, by the operators' token file.
Name = Annotated[str, Meta(min_length=1, max_length=LONGEST_NAME)]


class Reason(str, Enum):
    """Why a client changed (contract, section 1)."""

    HEARTBEAT = "heartbeat"
    RECONNECT = "reconnect"
    CLIENT = "client"
    OPERATOR = "operator"
    TIMEBOMB = "timebomb"
    GOODBYE = "goodbye"
    KICK = "kick"


class SilenceEnd(str, Enum):
    """What has ended a planned silence."""

    BEAT = "beat"
    OPERATOR = "operator"
    ENDED = "ended"


class Life(Struct, frozen=True, gc=False):
    """One incarnation of a client, from its registration to its end.

    :ivar registered_at: seconds since the epoch, for people.
    :ivar ended_at: the same, or None while it lasts.
    :ivar reason: why it ended, or None while it lasts.
    :ivar longest_gap_seconds: the longest time between two of its beats, or from the
        last one to its end, in which the service listened.
    :ivar left_uncalibrated: whether it was ever in another state than its first.
    :ivar labels: those that its client had when it ended.
    :ivar by: which operator ended it; None where that isn't known, or nobody did.
    """

    incarnation: Number
    registered_at: Moment
    ended_at: Moment | None
    reason: Reason | None
    last_state: ClientState
    beats: Number
    longest_gap_seconds: Seconds
    left_uncalibrated: bool
    labels: Labels = NO_LABELS
    by: Name | None = None


class DeadClient(Struct, frozen=True, gc=False):
    """What outlives a client: its instances, so that no late word passes for its own.

    :ivar ended_at: when it died, in seconds since the epoch.
    """

    instances: Instances
    ended_at: Moment


class GoneClient(Struct, frozen=True, gc=False):
    """A client that was here and is not, and the life after which it went.

    :ivar number: grows with each life that ends, of whichever client.
    """

    number: int
    client_id: str
    life: Life

    @property
    def ended_at(self) -> float:
        """When it went, in seconds since the epoch."""
        return self.life.ended_at or 0.0


class Snapshot(Struct, frozen=True, gc=False):
    """What of a client outlives the service.

    :ivar fuse: seconds from a beat to the timebomb.
    :ivar has_reported: whether it has reported anything but DISCONNECTED.
    :ivar beats: how many there were when the snapshot was taken; the same holds
        for ``reported_state`` and ``longest_gap_seconds``. An ordinary beat makes
        no new one.
    :ivar state_since: when it entered its state, in seconds since the epoch.
    :ivar silent_until: when a planned silence ends; 0 without one.
    :ivar ordered: whether somebody waits for it to be kept; is not kept itself.
    :ivar arrived: whether its client beats at this node from now on, and did at another
        one before (contract, section 7); is not kept itself.
    :ivar silence_end: what has ended a planned silence just now, unless a beat has: for
        other nodes, and kept for them alone.
    """

    client_id: str
    incarnation: Number
    sequence: Number
    state: ClientState
    instances: Instances
    fuse: Annotated[float, Meta(gt=0, le=LONGEST_FUSE)]
    registered_at: Moment
    reported_state: ClientState
    has_reported: bool
    beats: Number
    longest_gap_seconds: Seconds
    labels: Labels = NO_LABELS
    state_since: Moment = 0.0
    silent_until: Moment = 0.0
    ordered: bool = False
    arrived: bool = False
    silence_end: SilenceEnd | None = None

    @property
    def holds_answers_up(self) -> bool:
        """Whether answers to its client wait until it is kept, as for a change.

        Nobody may be told of a state beyond the first who was told of it in a former
        life; and only what is kept can tell which life that was.
        """
        return self.ordered or self.state is not ClientState.UNCALIBRATED

    def life(self) -> Life:
        """The life that it is a picture of, as one that still lasts."""
        return Life(
            incarnation=self.incarnation,
            registered_at=self.registered_at,
            ended_at=None,
            reason=None,
            last_state=self.state,
            beats=self.beats,
            longest_gap_seconds=self.longest_gap_seconds,
            left_uncalibrated=self.sequence > 1,
            labels=self.labels,
        )


class Change(Struct, frozen=True, gc=False):
    """One client changed its state, once.

    (``incarnation``, ``sequence``) names the change: it never stands for two.

    :ivar client: the client as the change has left it.
    :ivar ended: the life that this change ended, if it ended one.
    :ivar former: the client in that life, if another one follows at once.
    :ivar by: which operator did it; None where that isn't known, or nobody did.
    :ivar previous_since: when the client had entered its previous state of this life,
        in seconds since the epoch; 0 if it had none.
    """

    client: Snapshot
    previous_state: ClientState
    reason: Reason
    ended: Life | None = None
    former: Snapshot | None = None
    by: str | None = None
    previous_since: float = 0.0

    def before(self) -> Snapshot | None:
        """The client as it was before this change; None if it didn't live."""
        if self.former is not None or self.previous_state is ClientState.DISCONNECTED:
            return self.former
        return replace(
            self.client,
            state=self.previous_state,
            sequence=self.sequence - 1,
            state_since=self.previous_since,
        )

    @property
    def client_id(self) -> str:
        """Whose state it is."""
        return self.client.client_id

    @property
    def state(self) -> ClientState:
        """The state that was entered."""
        return self.client.state

    @property
    def incarnation(self) -> int:
        """The life that it belongs to."""
        return self.client.incarnation

    @property
    def sequence(self) -> int:
        """Its number within that life."""
        return self.client.sequence

    @property
    def at(self) -> float:
        """When it happened, in seconds since the epoch."""
        return self.client.state_since


class Lockout(Struct, frozen=True, gc=False):
    """An operator keeps a client out, or no longer.

    :ivar until: seconds since the epoch; 0 if it may come back now.
    :ivar by: which operator did it; None where that isn't known, or nobody did.
    :ivar incarnation: the life that it ended; None if the client wasn't here. It is
        not kept, nor is ``seconds``.
    :ivar seconds: for how long, as it was ordered.
    """

    client_id: str
    until: Moment
    by: Name | None = None
    incarnation: int | None = None
    seconds: float = 0.0


#: What a store keeps: a change, or something else of a client that a restarted
#: service must know, and that nobody else is told of.
Fact = Change | Snapshot | Lockout


@frozen
class StoredState:
    """What a store knows of the service's former runs.

    :ivar last_incarnation: no lower than the highest that was ever handed out.
    :ivar clients: those that live, in the order of their registration.
    :ivar instances_of_dead: what is kept of those that died, latest last.
    :ivar lockouts: who is kept out; some may be over by now.
    :ivar gone: those that went last and didn't come back, latest last.
    :ivar lives_ended: the number of the life that ended last, as in ``gone``.
    :ivar ended_lately: the lives that ended within the last hour, each with whose it
        was, latest last.
    :ivar elsewhere: which of the living beat at other nodes.
    """

    last_incarnation: int
    clients: Sequence[Snapshot] = ()
    instances_of_dead: Mapping[str, DeadClient] = field(factory=dict)
    lockouts: Sequence[Lockout] = ()
    gone: Sequence[GoneClient] = ()
    lives_ended: int = 0
    ended_lately: Sequence[tuple[str, Life]] = ()
    elsewhere: Collection[str] = ()
