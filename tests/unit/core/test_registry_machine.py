"""The registry against a model of the contract's section 2, in any order of events.

Hypothesis drives a registry over a ``Clock`` with beats, silence, goodbyes,
restarts of clients and of the service, takeovers, orders, planned silences, losses of
many at once and stale messages, and
holds each fact and notice that it tells to what a plain dictionary expects. Times are
multiples of a power of two, so that no deadline is missed by rounding.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count, pairwise
from math import inf

from attrs import Factory, define, evolve
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from msgspec import Raw
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from heartbeat_service.core.changes import (
    Change,
    Fact,
    Life,
    Reason,
    SilenceEnd,
    Snapshot,
    StoredState,
)
from heartbeat_service.core.dead import KEPT_FOR, DeadClients
from heartbeat_service.core.errors import (
    HeartbeatError,
    IllegalTransition,
    InstanceSuperseded,
    StaleIncarnation,
    UnknownClient,
)
from heartbeat_service.core.heartbeat import Stage
from heartbeat_service.core.instances import Instances
from heartbeat_service.core.notices import (
    Held,
    HoldEnd,
    LabelsChanged,
    Late,
    MassLossBegun,
    MassLossOver,
    Notice,
    Recovered,
    Reported,
    Silence,
)
from heartbeat_service.core.registry import MOST_LIVES_A_SECOND, Registry
from heartbeat_service.core.states import ClientState
from tests.unit.fakes import stored_state

CLIENTS = ("1", "10", "a", "b")
DEFAULT_FUSE = 2.0
INTERVAL = 0.5
SHARE, HOLD = 0.75, 3.0
MOST_DEAD = 1
TICK = 0.25
HAIR = 2**-10
EPOCH = 2.0**30

#: The contract's table, by hand.
CLIENT_MAY = {
    (ClientState.UNCALIBRATED, ClientState.CALIBRATED),
    (ClientState.CALIBRATED, ClientState.RUNNING),
    (ClientState.CALIBRATED, ClientState.UNCALIBRATED),
    (ClientState.RUNNING, ClientState.CALIBRATED),
    (ClientState.RUNNING, ClientState.UNCALIBRATED),
}

SOME_CLIENT = st.sampled_from(CLIENTS)
SOME_STATE = st.sampled_from(ClientState)
SOME_STATES = st.lists(SOME_STATE, min_size=1, max_size=6)
SOME_FUSE = st.none() | st.integers(1, 16).map(lambda ticks: ticks * TICK)
SOME_OF_MANY = st.integers(0, 999)
SOME_LABELS = st.none() | st.sampled_from([{}, {"room": "A"}, {"room": "B"}])
SOME_OPERATOR = st.sampled_from([None, "ada", "grace"])


@define
class Expected:
    """What the model holds of a living client."""

    incarnation: int
    instance: str | None
    reported: ClientState
    fuse: float
    values: bytes
    last_beat: float
    registered_at: float
    state_since: float
    has_reported: bool
    former: tuple[str, ...] = ()
    state: ClientState = ClientState.UNCALIBRATED
    sequence: int = 1
    beats: int = 1
    longest_gap: float = 0.0
    has_left_uncalibrated: bool = False
    labels: dict[str, str] = Factory(dict)
    silent_until: float = 0.0


@define
class Quiet:
    """What the model holds of a living client that doesn't beat.

    :ivar lit_at: when its fuse was lit.
    :ivar silent_to: when its planned silence ends; None without one.
    :ivar held_to: when it dies that is held; None if it isn't.
    """

    lit_at: float
    is_late: bool = False
    silent_to: float | None = None
    held_to: float | None = None

    @property
    def stage(self) -> Stage:
        """How far its timebomb has burnt."""
        if self.held_to is not None:
            return Stage.HELD
        if self.silent_to is not None:
            return Stage.SILENT
        return Stage.LATE if self.is_late else Stage.PUNCTUAL

    def late_from(self, fuse: float) -> float:
        """When it is late, if it stays silent: two beats are missing."""
        told = INTERVAL if fuse > INTERVAL else fuse / 2
        return self.lit_at + min(2 * told, 0.75 * fuse)

    def deadline(self, fuse: float) -> float:
        """When its fuse has burnt down, or its silence or the hold is over."""
        ends = (self.held_to, self.silent_to, self.lit_at + fuse)
        return next(end for end in ends if end is not None)

    def due(self, fuse: float) -> float:
        """When its timer goes off next."""
        is_punctual = self.stage is Stage.PUNCTUAL
        return self.late_from(fuse) if is_punctual else self.deadline(fuse)


class RegistryMachine(RuleBasedStateMachine):
    """One registry, and what must be true of it."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.heard: list[Fact | Notice] = []
        self.facts: list[Fact] = []
        self.holds: list[tuple[type, float]] = []
        self.registry = self._new_registry()
        self.registry.last_incarnation = 41
        self.living: dict[str, Expected] = {}
        self.quiet: dict[str, Quiet] = {}
        self.hold: tuple[str, float] | None = None
        self.rests_until = 0.0
        self.incarnations: dict[str, list[int]] = {name: [] for name in CLIENTS}
        self.latest_instance: dict[str, str | None] = dict.fromkeys(CLIENTS)
        self.instances: dict[str, list[str]] = {name: [] for name in CLIENTS}
        self.begun: list[tuple[str, float]] = []
        self.died_at: dict[str, float] = {}
        self.numbers = count()

    def wall_clock(self) -> float:
        """What people's clocks show."""
        return EPOCH + self.clock.seconds()

    # What happens

    @rule(
        name=SOME_CLIENT,
        reported=SOME_STATE,
        fuse=SOME_FUSE,
        names_itself=st.booleans(),
        labels=SOME_LABELS,
    )
    def beats(
        self,
        name: str,
        reported: ClientState,
        fuse: float | None,
        names_itself: bool,
        labels: dict[str, str] | None,
    ) -> None:
        instance = self.latest_instance[name] if names_itself else None
        self._beat(name, reported, instance, fuse, labels)

    @precondition(lambda self: self.living)
    @rule(
        pick=SOME_OF_MANY,
        fuse=SOME_FUSE,
        names_itself=st.booleans(),
        labels=SOME_LABELS,
    )
    def beats_in_time(
        self,
        pick: int,
        fuse: float | None,
        names_itself: bool,
        labels: dict[str, str] | None,
    ) -> None:
        name = self._some_living(pick)
        life = self.living[name]
        reported = life.state if life.has_reported else ClientState.DISCONNECTED
        instance = life.instance if names_itself else None
        self._beat(name, reported, instance, fuse, labels)
        assert self.living[name] is life, "an ordinary beat begins no life"

    @precondition(lambda self: self.living)
    @rule(pick=SOME_OF_MANY)
    def restarts(self, pick: int) -> None:
        name = self._some_living(pick)
        instance = self.living[name].instance
        self._beat(name, ClientState.RUNNING, instance, None)
        self._beat(name, ClientState.DISCONNECTED, instance, None)

    @rule(name=SOME_CLIENT, reported=SOME_STATE, fuse=SOME_FUSE)
    def another_instance_comes(
        self, name: str, reported: ClientState, fuse: float | None
    ) -> None:
        self._beat(name, reported, f"process {next(self.numbers)}", fuse)

    @rule(beating=st.integers(0, len(CLIENTS)))
    def network_is_lost(self, beating: int) -> None:
        """All beat, and then most of them don't, for a whole fuse."""
        for name in CLIENTS:
            self._beat(name, ClientState.RUNNING, None, DEFAULT_FUSE)
        for _ in range(4):
            self._live_until(self.clock.seconds() + DEFAULT_FUSE / 4)
            for name in CLIENTS[:beating]:
                self._beat(name, ClientState.RUNNING, None, None)

    @rule(ticks=st.integers(1, 4))
    def time_passes(self, ticks: int) -> None:
        self._live_until(self.clock.seconds() + ticks * TICK)

    @rule()
    def day_passes(self) -> None:
        self._live_until(self.clock.seconds() + KEPT_FOR)

    @precondition(lambda self: self.living)
    @rule(before=st.sampled_from([HAIR, 0.0]))
    def time_passes_to_a_deadline_or_just_before_it(self, before: float) -> None:
        self._live_until(max(self.clock.seconds(), self._next_moment() - before))

    @precondition(lambda self: self.living)
    @rule(
        pick=SOME_OF_MANY,
        states=SOME_STATES,
        names_life=st.booleans(),
        names_itself=st.booleans(),
    )
    def client_sets_its_state(
        self,
        pick: int,
        states: list[ClientState],
        names_life: bool,
        names_itself: bool,
    ) -> None:
        name = self._some_living(pick)
        life = self.living[name]
        for state in states:
            legal = state is life.state or (life.state, state) in CLIENT_MAY
            with self._refused(None if legal else IllegalTransition):
                self.registry.set_state(
                    name,
                    state,
                    life.incarnation if names_life else None,
                    life.instance if names_itself else None,
                )
            self._expect(*self._entered(name, state, Reason.CLIENT) if legal else ())

    @precondition(lambda self: self.living)
    @rule(pick=SOME_OF_MANY, states=SOME_STATES, by=SOME_OPERATOR)
    def operator_sets_a_state(
        self, pick: int, states: list[ClientState], by: str | None
    ) -> None:
        name = self._some_living(pick)
        for state in states:
            legal = state is not ClientState.DISCONNECTED
            with self._refused(None if legal else IllegalTransition):
                self.registry.steer(name, state, by=by)
            entered = self._entered(name, state, Reason.OPERATOR, by) if legal else ()
            self._expect(*entered)

    @precondition(lambda self: self.living)
    @rule(pick=SOME_OF_MANY, ticks=st.integers(1, 40), by=SOME_OPERATOR)
    def operator_grants_a_silence(self, pick: int, ticks: int, by: str | None) -> None:
        name = self._some_living(pick)
        self.registry.silence(name, ticks * TICK, by=by)
        life, quiet, now = self.living[name], self.quiet[name], self.clock.seconds()
        left = quiet.deadline(life.fuse) - now
        if quiet.stage is Stage.HELD:
            left = 0.0
        left = max(left, ticks * TICK)
        self.quiet[name] = Quiet(now, silent_to=now + left)
        life.silent_until = self.wall_clock() + left
        self._expect(
            self._snapshot(name, ordered=True),
            self._notice(Silence, name, seconds=left, by=by),
            *self._forgotten(),
        )

    @precondition(lambda self: self.living)
    @rule(pick=SOME_OF_MANY, by=SOME_OPERATOR)
    def operator_takes_a_silence_back(self, pick: int, by: str | None) -> None:
        name = self._some_living(pick)
        self.registry.silence(name, 0, by=by)
        if self.quiet[name].stage is not Stage.SILENT:
            self._expect()
            return
        self.living[name].silent_until = 0.0
        self.quiet[name] = Quiet(self.clock.seconds())
        self._expect(
            self._snapshot(name, ordered=True, silence_end=SilenceEnd.OPERATOR),
            self._silence_over(name, SilenceEnd.OPERATOR, by),
        )

    @rule()
    def operator_ends_the_hold(self) -> None:
        list(self.registry.end_mass_loss())
        now = self.clock.seconds()
        expected = list(self._hold_over(HoldEnd.OPERATOR))
        for quiet in self.quiet.values() if expected else ():
            if quiet.held_to is not None:
                quiet.held_to = now
        self._expect(*expected)
        self._live_until(now)

    @precondition(lambda self: self.living)
    @rule(
        pick=SOME_OF_MANY,
        reason=st.sampled_from([Reason.GOODBYE, Reason.KICK]),
        names_life=st.booleans(),
        names_itself=st.booleans(),
        by=SOME_OPERATOR,
    )
    def client_leaves_or_is_kicked(
        self,
        pick: int,
        reason: Reason,
        names_life: bool,
        names_itself: bool,
        by: str | None,
    ) -> None:
        name = self._some_living(pick)
        life = self.living[name]
        if reason is Reason.KICK:
            self.registry.kick(name, by=by)
        else:
            by = None
            self.registry.goodbye(
                name,
                life.incarnation if names_life else None,
                life.instance if names_itself else None,
            )
        self._expect(*self._died(name, reason, by))

    @precondition(lambda self: self.living)
    @rule(
        pick=SOME_OF_MANY,
        other=SOME_OF_MANY,
        state=SOME_STATE,
        names_itself=st.booleans(),
    )
    def message_of_another_incarnation_comes(
        self, pick: int, other: int, state: ClientState, names_itself: bool
    ) -> None:
        name = self._some_living(pick)
        life = self.living[name]
        others = [*self.incarnations[name][:-1], 0, life.incarnation + 1]
        incarnation = others[other % len(others)]
        instance = life.instance if names_itself else None
        with self._refused(StaleIncarnation):
            self.registry.set_state(name, state, incarnation, instance)
        with self._refused(StaleIncarnation):
            self.registry.goodbye(name, incarnation, instance)
        self._expect()

    @precondition(lambda self: self._superseded())
    @rule(pick=SOME_OF_MANY, state=SOME_STATE)
    def message_of_a_former_instance_comes(self, pick: int, state: ClientState) -> None:
        superseded = self._superseded()
        name, instance = superseded[pick % len(superseded)]
        life = self.living.get(name)
        present = None if life is None else life.incarnation
        for incarnation in (None, present):
            with self._refused(InstanceSuperseded):
                self.registry.set_state(name, state, incarnation, instance)
            with self._refused(InstanceSuperseded):
                self.registry.goodbye(name, incarnation, instance)
        with self._refused(InstanceSuperseded):
            self.registry.beat(name, state, instance, TICK, Raw(b'{"stale":1}'))
        self._expect()

    @precondition(lambda self: len(self.living) < len(CLIENTS))
    @rule(pick=SOME_OF_MANY, state=SOME_STATE)
    def message_to_a_dead_client_comes(self, pick: int, state: ClientState) -> None:
        dead = [name for name in CLIENTS if name not in self.living]
        name = dead[pick % len(dead)]
        former = self.incarnations[name][-1:]
        for incarnation in (None, *former):
            with self._refused(UnknownClient):
                self.registry.set_state(name, state, incarnation)
            with self._refused(UnknownClient):
                self.registry.goodbye(name, incarnation)
        for act in (self.registry.kick, self.registry.get):
            with self._refused(UnknownClient):
                act(name)
        with self._refused(UnknownClient):
            self.registry.steer(name, state)
        self._expect()

    @rule(ticks=st.integers(0, 16), killed=st.booleans())
    def service_restarts(self, ticks: int, killed: bool) -> None:
        """Who lived, lives, with a full fuse or what is left of a silence.

        A hold is over. Of beats that made no fact, one that is stopped tells at its
        end; one that is killed has no time to.
        """
        stopped_at = self.clock.seconds()
        list(self.registry.defuse_all())
        told = [fact for fact in self.heard if isinstance(fact, Snapshot)]
        assert len(told) == len(self.heard)
        assert {fact.client_id for fact in told} == set(self.living)
        assert not self.clock.getDelayedCalls()
        self.facts += [] if killed else told
        self.heard.clear()
        self.hold, self.rests_until = None, 0.0
        self.holds.clear()
        self.clock.advance(ticks * TICK)
        self.registry = self._new_registry()
        kept = self._kept_dead(stored_state(self.facts, last_incarnation=41))
        list(self.registry.restore(kept))
        assert {client.client_id for client in kept.clients} == set(self.living)
        for client in kept.clients:
            life = self.living[client.client_id]
            counted = client.reported_state, client.beats, client.longest_gap_seconds
            gap = max(life.longest_gap, stopped_at - life.last_beat)
            assert killed or counted == (life.reported, life.beats, gap)
            life.last_beat = now = self.clock.seconds()
            left = life.silent_until - self.wall_clock()
            silent_to = None if left <= 0 else now + max(left, life.fuse)
            life.silent_until = 0.0 if silent_to is None else life.silent_until
            self.quiet[client.client_id] = Quiet(now, silent_to=silent_to)
            life.values = b"{}"
            life.reported = client.reported_state
            life.beats = client.beats
            life.longest_gap = client.longest_gap_seconds
        self._expect()

    # What must be true

    @invariant()
    def each_client_is_as_the_model_says(self) -> None:
        assert {
            client.client_id: Expected(
                incarnation=client.incarnation,
                instance=client.instances.present,
                former=client.instances.former,
                reported=client.reported_state,
                fuse=client.heartbeat.fuse,
                values=bytes(client.heartbeat.values),
                last_beat=self.clock.seconds() - client.heartbeat.seconds_since(),
                registered_at=client.registered_at,
                state_since=client.state_since,
                has_reported=client.has_reported,
                state=client.state,
                sequence=client.sequence,
                beats=client.heartbeat.beats,
                longest_gap=client.heartbeat.longest_gap,
                has_left_uncalibrated=client.life().left_uncalibrated,
                labels=client.labels,
                silent_until=client.silent_until,
            )
            for client in self.registry
        } == self.living

    @invariant()
    def nobody_outlives_the_deadline(self) -> None:
        now = self.clock.seconds()
        for name, life in self.living.items():
            left = self.registry.get(name).heartbeat.seconds_left()
            quiet = self.quiet[name]
            is_held = quiet.held_to is not None
            assert quiet.deadline(life.fuse) > now
            assert left == (0.0 if is_held else quiet.deadline(life.fuse) - now)

    @invariant()
    def one_timebomb_burns_for_each_living_client(self) -> None:
        due = [call.getTime() for call in self.clock.getDelayedCalls()]
        hold = [] if self.hold is None else [self.hold[1]]
        assert sorted(due) == sorted([*map(self._due, self.living), *hold])
        assert len(self.registry) == len(self.living) == len(self.quiet)

    @invariant()
    def who_is_late_held_or_silent_is_as_the_model_says(self) -> None:
        stages = {name: quiet.stage for name, quiet in self.quiet.items()}
        assert stages == {
            client.client_id: client.heartbeat.stage for client in self.registry
        }
        mass_loss = self.registry.mass_loss
        held = {name for name, stage in stages.items() if stage is Stage.HELD}
        assert set(mass_loss.held) == held
        assert mass_loss.late == self._late()
        assert (mass_loss.hold is None) == (self.hold is None)
        assert self.hold is not None or not held

    @invariant()
    def a_hold_always_ends_and_rests_as_long(self) -> None:
        assert self.hold is None or self.clock.seconds() < self.hold[1]
        begun = [t for what, t in self.holds if what is MassLossBegun]
        over = [t for what, t in self.holds if what is MassLossOver]
        assert all(end - start <= HOLD for start, end in zip(begun, over, strict=False))
        assert all(
            start - end >= HOLD for end, start in zip(over, begun[1:], strict=False)
        )

    @invariant()
    def incarnation_and_sequence_never_repeat_or_go_back(self) -> None:
        for name in CLIENTS:
            pairs = [
                (fact.incarnation, fact.sequence)
                for fact in self._changes()
                if fact.client_id == name
            ]
            assert all(earlier < later for earlier, later in pairwise(pairs))

    @invariant()
    def each_life_begins_once_and_ends_once(self) -> None:
        begun = Counter(
            (fact.client_id, fact.incarnation)
            for fact in self._changes()
            if fact.reason in {Reason.HEARTBEAT, Reason.RECONNECT}
        )
        ended = Counter(
            (fact.client_id, fact.ended.incarnation)
            for fact in self._changes()
            if fact.ended is not None
        )
        alive = Counter((name, life.incarnation) for name, life in self.living.items())
        assert set(begun.values()) <= {1}
        assert begun == ended + alive

    def teardown(self) -> None:
        """Let all who still live fall silent: each dies in its time."""
        while self.living:
            self._live_until(self._next_moment())
        if self.hold is not None:
            self._live_until(self.hold[1])
        assert not self.clock.getDelayedCalls()

    # How the model follows

    def _some_living(self, pick: int) -> str:
        return list(self.living)[pick % len(self.living)]

    def _superseded(self) -> list[tuple[str, str]]:
        """Each client with each instance that must be refused."""
        return [
            (name, instance)
            for name, instances in self.instances.items()
            for instance in instances[-8:]
        ]

    def _due(self, name: str) -> float:
        return self.quiet[name].due(self.living[name].fuse)

    def _next_moment(self) -> float:
        hold = [] if self.hold is None else [self.hold[1]]
        return min([*map(self._due, self.living), *hold], default=inf)

    def _live_until(self, end: float) -> None:
        """Let time pass, and stop just before and at each timer on the way."""
        while (moment := self._next_moment()) <= end:
            if moment - HAIR > self.clock.seconds():
                self._turn_to(moment - HAIR)
                self._expect()
            self._turn_to(moment)
            self._timers_go_off(moment)
        self._turn_to(end)
        self._expect()

    def _timers_go_off(self, moment: float) -> None:
        """Those of one moment go off in any order: in that in which they were told."""
        expected: list[Fact | Notice] = []

        def place(name: str | None) -> int:
            """Where something of a client, or of the hold's end, is told next."""
            for place, told in enumerate(self.heard[len(expected) :]):
                if name is None and isinstance(told, MassLossOver):
                    return place
                if name is not None and getattr(told, "client_id", None) == name:
                    return place
            return len(self.heard)

        while True:
            due: list[str | None] = [n for n in self.living if self._due(n) <= moment]
            due += [None] if self.hold is not None and self.hold[1] <= moment else []
            if not due:
                break
            name = min(due, key=place)
            expected += self._goes_off(name)
        self._expect(*expected)

    def _goes_off(self, name: str | None) -> Iterator[Fact | Notice]:
        if name is None:
            yield from self._hold_over(HoldEnd.TIME)
            return
        life, quiet, now = self.living[name], self.quiet[name], self.clock.seconds()
        since = now - life.last_beat
        if quiet.stage is Stage.PUNCTUAL:
            quiet.is_late = True
            yield self._notice(
                Late,
                name,
                seconds_since_heartbeat=since,
                seconds_to_timebomb=quiet.deadline(life.fuse) - now,
                timebomb_seconds=life.fuse,
            )
        elif quiet.stage is Stage.HELD:
            yield from self._hold_over(HoldEnd.TIME)
            yield from self._died(name, Reason.TIMEBOMB)
        elif not self._begins_or_goes_on():
            yield from self._died(name, Reason.TIMEBOMB)
        else:
            was_silent = quiet.stage is Stage.SILENT
            if self.hold is None:
                self.hold = (str(int(self.wall_clock() * 1e6)), now + HOLD)
                yield MassLossBegun(self.hold[0], 1, HOLD)
            self.quiet[name] = Quiet(now, held_to=self.hold[1])
            if was_silent:
                life.silent_until = 0.0
                yield self._snapshot(name, silence_end=SilenceEnd.ENDED)
                yield self._silence_over(name, SilenceEnd.ENDED)
            yield self._notice(Held, name, seconds_since_heartbeat=since)

    def _begins_or_goes_on(self) -> bool:
        late = len(self._late())
        is_mass = late >= 3 and late >= SHARE * len(self.living)
        rests = self.clock.seconds() < self.rests_until
        return self.hold is not None or (is_mass and not rests)

    def _late(self) -> set[str]:
        stages = (Stage.LATE, Stage.HELD)
        return {name for name, quiet in self.quiet.items() if quiet.stage in stages}

    def _hold_over(self, reason: HoldEnd) -> Iterator[Notice]:
        if self.hold is not None:
            name, until = self.hold
            now = self.clock.seconds()
            self.hold, self.rests_until = None, now + HOLD
            held = sum(quiet.held_to is not None for quiet in self.quiet.values())
            yield MassLossOver(name, held, until - now, reason)

    def _forgotten(self) -> Iterator[Notice]:
        """Somebody isn't late any more; if nobody is, a hold is over."""
        if not self._late():
            yield from self._hold_over(HoldEnd.RECOVERED)

    def _silence_over(
        self, name: str, reason: SilenceEnd, by: str | None = None
    ) -> Notice:
        return self._notice(Silence, name, seconds=0.0, reason=reason, by=by)

    def _notice(self, kind: Callable[..., Notice], name: str, **what: object) -> Notice:
        incarnation = self.living[name].incarnation
        return kind(client_id=name, incarnation=incarnation, **what)

    def _awakes(self, name: str) -> Iterator[Notice]:
        """It has beaten."""
        stage = self.quiet[name].stage
        if stage is Stage.SILENT:
            yield self._silence_over(name, SilenceEnd.BEAT)
        elif stage is not Stage.PUNCTUAL:
            yield self._notice(Recovered, name)

    def _turn_to(self, moment: float) -> None:
        self.clock.advance(max(0.0, moment - self.clock.seconds()))

    def _beat(
        self,
        name: str,
        reported: ClientState,
        instance: str | None,
        fuse: float | None,
        labels: dict[str, str] | None = None,
    ) -> None:
        values = b'{"beat":%d}' % next(self.numbers)
        former = self.living.get(name)
        has_reported = reported is not ClientState.DISCONNECTED
        taken_over = former is not None and instance not in {None, former.instance}
        restarted = former is not None and former.has_reported and not has_reported
        goes_on = former is not None and not taken_over and not restarted
        if not goes_on:
            self._leave_time_between_lives(name)
            former = self.living.get(name)
        client = self.registry.beat(name, reported, instance, fuse, Raw(values), labels)
        assert client.client_id == name
        if goes_on:
            assert former is not None
            self._goes_on(name, former, reported, fuse, values, labels)
            return
        self._retire(name, instance)
        reason, previous = Reason.HEARTBEAT, ClientState.DISCONNECTED
        ended, snapshot = None, None
        awakes: list[Notice] = []
        if former is not None:
            reason, previous = Reason.RECONNECT, former.state
            ended, snapshot = self._end_of(former, reason), self._snapshot(name)
            awakes += self._awakes(name)
            labels = former.labels if labels is None else labels
        past = self.incarnations[name]
        assert client.incarnation > max(past, default=41), "incarnations grow"
        past.append(client.incarnation)
        self.latest_instance[name] = instance
        self.died_at.pop(name, None)
        self.living[name] = Expected(
            incarnation=client.incarnation,
            instance=instance,
            reported=reported,
            fuse=DEFAULT_FUSE if fuse is None else fuse,
            values=values,
            last_beat=self.clock.seconds(),
            registered_at=self.wall_clock(),
            state_since=self.wall_clock(),
            has_reported=has_reported,
            former=tuple(self.instances[name][-8:]),
            labels=labels or {},
        )
        self.quiet[name] = Quiet(self.clock.seconds())
        fact = self._fact(name, previous, reason, ended, snapshot)
        self._expect(fact, *awakes, *(self._forgotten() if former else ()))

    def _goes_on(
        self,
        name: str,
        life: Expected,
        reported: ClientState,
        fuse: float | None,
        values: bytes,
        labels: dict[str, str] | None,
    ) -> None:
        known = life.has_reported, life.fuse, life.labels, life.silent_until
        reported_before = life.reported
        self._beaten(life, reported, fuse, values)
        life.labels = life.labels if labels is None else labels
        life.silent_until = 0.0
        told: list[Fact | Notice] = []
        if known != (life.has_reported, life.fuse, life.labels, life.silent_until):
            told.append(self._snapshot(name))
        told += self._awakes(name)
        self.quiet[name] = Quiet(self.clock.seconds())
        told += self._forgotten()
        if reported is not reported_before:
            told.append(self._notice(Reported, name, reported_state=reported))
        if life.labels != known[2]:
            told.append(self._notice(LabelsChanged, name, labels=life.labels))
        self._expect(*told)

    def _leave_time_between_lives(self, name: str) -> None:
        second_ago = self.clock.seconds() - 1
        self.begun = [life for life in self.begun if life[1] > second_ago]
        if sum(life[0] == name for life in self.begun) == MOST_LIVES_A_SECOND:
            self._live_until(self.clock.seconds() + 1)
        self.begun.append((name, self.clock.seconds()))

    def _beaten(
        self, life: Expected, reported: ClientState, fuse: float | None, values: bytes
    ) -> None:
        now = self.clock.seconds()
        life.longest_gap = max(life.longest_gap, now - life.last_beat)
        life.last_beat = now
        life.beats += 1
        life.reported = reported
        life.values = values
        life.has_reported |= reported is not ClientState.DISCONNECTED
        if fuse is not None:
            life.fuse = fuse

    def _retire(self, name: str, by: str | None) -> None:
        latest = self.latest_instance[name]
        if latest not in {None, by}:
            assert latest is not None
            self.instances[name].append(latest)

    def _entered(
        self, name: str, state: ClientState, reason: Reason, by: str | None = None
    ) -> Iterator[Change]:
        life = self.living[name]
        if state is not life.state:
            previous, life.state = life.state, state
            since, life.state_since = life.state_since, self.wall_clock()
            life.sequence += 1
            life.has_left_uncalibrated = True
            yield self._fact(name, previous, reason, by=by, since=since)

    def _died(
        self, name: str, reason: Reason, by: str | None = None
    ) -> Iterator[Fact | Notice]:
        life = self.living[name]
        ended = self._end_of(life, reason, by)
        life.state = ClientState.DISCONNECTED
        life.sequence += 1
        since, life.state_since = life.state_since, self.wall_clock()
        yield self._fact(name, ended.last_state, reason, ended, by=by, since=since)
        if self.quiet[name].stage is Stage.SILENT:
            is_kicked = reason is Reason.KICK
            end = SilenceEnd.OPERATOR if is_kicked else SilenceEnd.ENDED
            yield self._silence_over(name, end, by)
        del self.living[name], self.quiet[name]
        yield from self._forgotten()
        if self.latest_instance[name] is not None or self.instances[name]:
            self.died_at[name] = self.clock.seconds()
            self._forget_one_too_many(newest=name)

    def _forget_one_too_many(self, newest: str) -> None:
        """One who superseded nobody; else the oldest after a day; else the newest."""
        if len(self.died_at) <= MOST_DEAD:
            return
        in_order = list(self.died_at)
        superseded_nobody = [name for name in in_order if not self.instances[name]]
        is_old = self.clock.seconds() - self.died_at[in_order[0]] > KEPT_FOR
        goes = [*superseded_nobody, in_order[0] if is_old else newest][0]
        del self.died_at[goes]
        self.instances[goes], self.latest_instance[goes] = [], None

    def _kept_dead(self, stored: StoredState) -> StoredState:
        """What a store tells that keeps as many dead as a registry."""
        of_dead = {
            name: dead
            for name, dead in stored.instances_of_dead.items()
            if name in self.died_at
        }
        assert list(of_dead) == list(self.died_at)
        return evolve(stored, instances_of_dead=of_dead)

    def _end_of(self, life: Expected, reason: Reason, by: str | None = None) -> Life:
        return Life(
            incarnation=life.incarnation,
            registered_at=life.registered_at,
            ended_at=self.wall_clock(),
            reason=reason,
            last_state=life.state,
            beats=life.beats,
            longest_gap_seconds=max(
                life.longest_gap, self.clock.seconds() - life.last_beat
            ),
            left_uncalibrated=life.has_left_uncalibrated,
            labels=life.labels,
            by=by,
        )

    def _fact(
        self,
        name: str,
        previous: ClientState,
        reason: Reason,
        ended: Life | None = None,
        former: Snapshot | None = None,
        by: str | None = None,
        since: float = 0.0,
    ) -> Change:
        client = self._snapshot(name)
        return Change(client, previous, reason, ended, former, by, since)

    def _snapshot(
        self, name: str, ordered: bool = False, silence_end: SilenceEnd | None = None
    ) -> Snapshot:
        life = self.living[name]
        return Snapshot(
            client_id=name,
            incarnation=life.incarnation,
            sequence=life.sequence,
            state=life.state,
            instances=Instances(life.instance, life.former),
            fuse=life.fuse,
            registered_at=life.registered_at,
            reported_state=life.reported,
            has_reported=life.has_reported,
            beats=life.beats,
            longest_gap_seconds=life.longest_gap,
            state_since=life.state_since,
            labels=life.labels,
            silent_until=life.silent_until,
            ordered=ordered,
            silence_end=silence_end,
        )

    def _changes(self) -> list[Change]:
        return [fact for fact in self.facts if isinstance(fact, Change)]

    def _new_registry(self) -> Registry:
        registry = Registry(
            clock=self.clock,
            wall_clock=self.wall_clock,
            listener=self.heard.append,
            default_fuse=DEFAULT_FUSE,
            interval=INTERVAL,
            tell=self.heard.append,
            mass_loss_share=SHARE,
            mass_loss_hold=HOLD,
        )
        # As many as the clients that may live; for these few, fewer.
        registry._dead = DeadClients(MOST_DEAD)
        return registry

    def _expect(self, *expected: Fact | Notice) -> None:
        """The registry has told these since the last time, and nothing else."""
        assert self.heard == list(expected)
        for told in self.heard:
            if isinstance(told, Change | Snapshot):
                self.facts.append(told)
            elif isinstance(told, MassLossBegun | MassLossOver):
                self.holds.append((type(told), self.clock.seconds()))
        self.heard.clear()

    @contextmanager
    def _refused(self, error: type[HeartbeatError] | None) -> Iterator[None]:
        """What is done in here raises ``error``; without one, it succeeds."""
        raised: HeartbeatError | None = None
        try:
            yield
        except HeartbeatError as problem:
            raised = problem
        assert error is (None if raised is None else type(raised))
        assert raised is None or raised.client_id in CLIENTS


class TestRegistry(SynchronousTestCase):
    # Not RegistryMachine.TestCase: trial finds no test in it.
    def test_any_order_of_events_is_as_the_contract_says(self) -> None:
        run_state_machine_as_test(
            RegistryMachine,
            settings=settings(
                max_examples=100,
                stateful_step_count=40,
                deadline=None,
                suppress_health_check=[HealthCheck.too_slow],
            ),
        )
