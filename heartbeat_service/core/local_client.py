"""The server's picture of one living client.

Changes only in the registry's hands; knows nothing of transports or stores.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from attrs import define, evolve
from msgspec import Raw

from heartbeat_service.core.changes import (
    Change,
    Fact,
    Life,
    Reason,
    SilenceEnd,
    Snapshot,
)
from heartbeat_service.core.heartbeat import Heartbeat, Stage
from heartbeat_service.core.instances import Instances
from heartbeat_service.core.labels import NO_LABELS, Labels
from heartbeat_service.core.notices import ClientNotice
from heartbeat_service.core.states import ClientState

# Every beat asks for them, and an Enum takes its time to find a member.
_DISCONNECTED = ClientState.DISCONNECTED
_PUNCTUAL = Stage.PUNCTUAL

Told = TypeVar("Told", bound=ClientNotice)


@define(eq=False)
class LocalClient:
    """One life of one client, from its registration to its death.

    :ivar record: tells the world of a change, and the store of what else it
        has to know; called after it happened.
    :ivar reported_state: what the client last said of itself; it decides nothing.
    :ivar has_reported: whether it has reported anything but DISCONNECTED.
    :ivar instances: which process it is, and which it was before.
    :ivar registered_at: seconds since the epoch, for people.
    :ivar labels: where it is, and what it is.
    :ivar state_since: when it entered its state, in seconds since the epoch.
    :ivar silent_until: when a planned silence ends, on that scale; 0 without one.
    """

    client_id: str
    incarnation: int
    heartbeat: Heartbeat
    record: Callable[[Fact], None]
    registered_at: float
    reported_state: ClientState
    instances: Instances
    labels: Labels = NO_LABELS
    state_since: float = 0.0
    silent_until: float = 0.0
    state: ClientState = ClientState.UNCALIBRATED
    sequence: int = 1
    has_reported: bool = False

    def begins_anew(self, reported: ClientState, instance_id: str | None) -> bool:
        """Whether a beat that says so begins a new life (contract, section 2)."""
        taken_over = instance_id is not None and instance_id != self.instances.present
        restarted = self.has_reported and reported is _DISCONNECTED
        return taken_over or restarted

    def is_as_before(
        self, reported: ClientState, fuse: float | None, labels: Labels | None
    ) -> bool:
        """Whether a beat that says so brings nothing new but its values."""
        heartbeat = self.heartbeat
        return (
            reported is self.reported_state
            and heartbeat.stage is _PUNCTUAL
            and (fuse is None or fuse == heartbeat.fuse)
            and (labels is None or labels == self.labels)
        )

    def beat(
        self,
        reported: ClientState,
        fuse: float,
        late_after: float,
        values: Raw,
        labels: Labels,
    ) -> None:
        """Take a beat of this life, and record what is new and has to be kept.

        :param reported: what the client says of itself.
        :param fuse: seconds to the timebomb, from now on.
        :param late_after: seconds to the warning before it.
        """
        before = self._kept_of_beats()
        arrived = self.heartbeat.stage is Stage.ELSEWHERE
        if arrived:
            self.heartbeat.arrive()
        self.heartbeat.fuse = fuse
        self.heartbeat.late_after = late_after
        self.heartbeat.update(values)
        self.reported_state = reported
        self.has_reported |= reported is not _DISCONNECTED
        self.labels = labels
        self.silent_until = 0.0
        if arrived or self._kept_of_beats() != before:
            self.record(self.snapshot(ordered=arrived, arrived=arrived))

    def _kept_of_beats(self) -> tuple[object, ...]:
        return self.heartbeat.fuse, self.has_reported, self.labels, self.silent_until

    def picture(self) -> LocalClient:
        """The client as it is now; what is done to it, nobody hears of."""
        return evolve(self, record=lambda _: None)

    def take(self, kept: Snapshot) -> None:
        """Be as the store has this life: another node has written it, or refused ours.

        What this node alone knows of its beats stays as it is.
        """
        if self.heartbeat.stage is Stage.ELSEWHERE:
            self.heartbeat.beats = kept.beats
            self.heartbeat.longest_gap = kept.longest_gap_seconds
        if self.has_reported != kept.has_reported or (
            self.heartbeat.stage is Stage.ELSEWHERE
        ):
            self.reported_state = kept.reported_state
        self.has_reported = kept.has_reported
        self.state, self.sequence = kept.state, kept.sequence
        self.state_since = kept.state_since
        self.instances, self.labels = kept.instances, kept.labels

    def snapshot(
        self,
        ordered: bool = False,
        arrived: bool = False,
        silence_end: SilenceEnd | None = None,
    ) -> Snapshot:
        """What a restarted service has to know of this life.

        :param ordered: whether somebody waits for it to be kept.
        :param arrived: whether its client beat at another node before.
        :param silence_end: what has ended its silence, unless a beat has.
        """
        return Snapshot(
            client_id=self.client_id,
            incarnation=self.incarnation,
            sequence=self.sequence,
            state=self.state,
            instances=self.instances,
            fuse=self.heartbeat.fuse,
            registered_at=self.registered_at,
            reported_state=self.reported_state,
            has_reported=self.has_reported,
            beats=self.heartbeat.beats,
            longest_gap_seconds=self.heartbeat.longest_gap,
            labels=self.labels,
            state_since=self.state_since,
            silent_until=self.silent_until,
            ordered=ordered,
            arrived=arrived,
            silence_end=silence_end,
        )

    def set_state(
        self, state: ClientState, reason: Reason, now: float, by: str | None = None
    ) -> None:
        """Enter another state of this life, and say so.

        :param now: seconds since the epoch, for people.
        :param by: which operator did it, if one did.
        """
        previous, since = self.state, self.state_since
        self.state = state
        self.sequence += 1
        self.state_since = now
        self.record(self._change(previous, reason, by=by, since=since))

    def register(self, reason: Reason, now: float, former: LocalClient | None) -> None:
        """Say that this life has begun.

        :param now: seconds since the epoch, for people.
        :param former: the same client in the life that ended with it.
        """
        if former is None:
            self.record(self._change(ClientState.DISCONNECTED, reason))
            return
        ended, snapshot = former.life(reason, now), former.snapshot()
        self.record(self._change(former.state, reason, ended, snapshot))

    def die(self, reason: Reason, now: float, by: str | None = None) -> None:
        """End this life, and say so.

        :param now: seconds since the epoch, for people.
        :param by: which operator did it, if one did.
        """
        life, since = self.life(reason, now, by), self.state_since
        self.state = ClientState.DISCONNECTED
        self.sequence += 1
        self.state_since = now
        self.record(self._change(life.last_state, reason, life, by=by, since=since))

    def life(
        self,
        reason: Reason | None = None,
        ended_at: float | None = None,
        by: str | None = None,
    ) -> Life:
        """This life as a fact; without arguments, as one that still lasts.

        The silence that it ended with counts among its gaps; one that may still end
        with a beat doesn't.
        """
        heartbeat = self.heartbeat
        lasts = reason is None
        return Life(
            incarnation=self.incarnation,
            registered_at=self.registered_at,
            ended_at=ended_at,
            reason=reason,
            last_state=self.state,
            beats=heartbeat.beats,
            longest_gap_seconds=(
                heartbeat.longest_gap if lasts else heartbeat.longest_silence()
            ),
            left_uncalibrated=self.sequence > 1,
            labels=self.labels,
            by=by,
        )

    def notice(self, kind: Callable[..., Told], **what: object) -> Told:
        """What operators are told of this life."""
        return kind(client_id=self.client_id, incarnation=self.incarnation, **what)

    def _change(
        self,
        previous: ClientState,
        reason: Reason,
        ended: Life | None = None,
        former: Snapshot | None = None,
        by: str | None = None,
        since: float = 0.0,
    ) -> Change:
        return Change(self.snapshot(), previous, reason, ended, former, by, since)
