"""What is counted, and that no number is ahead of the store."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from heartbeat_service.core.changes import Reason, StoredState
from heartbeat_service.core.errors import Overloaded, UnknownClient
from heartbeat_service.core.registry import GAPS_SAMPLED
from heartbeat_service.core.states import ClientState
from heartbeat_service.engine.availability import PATIENCE
from heartbeat_service.engine.counters import Histogram
from heartbeat_service.engine.engine import Engine
from tests.unit.engine.test_dispatch import FUSE, INTERVAL, NOON, House
from tests.unit.fakes import HandStore, listen
from tests.unit.storage.store_suite import snapshot

DISCONNECTED, UNCALIBRATED, CALIBRATED, RUNNING = ClientState

INFINITE = float("inf")


def count(histogram: Histogram) -> int:
    """How many values there were."""
    return dict(histogram)[INFINITE]


def buckets(histogram: Histogram) -> dict[float, int]:
    """How many values each bound was the first that was no lower for."""
    counts, below = {}, 0
    for bound, up_to in histogram:
        if up_to > below:
            counts[bound] = up_to - below
        below = up_to
    return counts


class TestHistogram(SynchronousTestCase):
    def test_a_bound_belongs_to_what_is_below_it(self) -> None:
        histogram = Histogram((1.0, 2.0))
        for value in (0.5, 1.0, 1.5, 7.0):
            histogram.add(value)
        self.assertEqual(list(histogram), [(1.0, 2), (2.0, 3), (INFINITE, 4)])
        self.assertEqual(histogram.total, 10.0)

    def test_a_value_may_stand_for_many(self) -> None:
        histogram = Histogram((1.0,))
        histogram.add(0.5, 16)
        self.assertEqual((count(histogram), histogram.total), (16, 8.0))


class CountersTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        """A house with nobody in it, whose store is moved by hand."""
        self.house = House()
        self.counters = self.house.engine.counters

    def states(self) -> dict[ClientState, int]:
        """How many are counted in each state in which anybody is."""
        return {state: n for state, n in self.counters.states.items() if n}

    def beat(
        self, client_id: str = "1", pause: float = INTERVAL, times: int = 1
    ) -> None:
        """A client beats so often, with a pause before each beat."""
        for _ in range(times):
            self.house.listen(pause)
            self.successResultOf(self.house.beat(client_id))


class TestStates(CountersTestCase):
    def test_nobody_is_counted_before_the_store_has_it(self) -> None:
        self.house.beat("1")
        self.assertEqual(self.states(), {})
        self.house.store.finish()
        self.assertEqual(self.states(), {UNCALIBRATED: 1})
        self.house.set(CALIBRATED)
        self.assertEqual(self.states(), {UNCALIBRATED: 1})
        self.house.store.finish()
        self.assertEqual(self.states(), {CALIBRATED: 1})
        self.house.leave()
        self.assertEqual(self.states(), {CALIBRATED: 1})
        self.house.store.finish()
        self.assertEqual(self.states(), {})

    def test_who_is_restored_counts(self) -> None:
        states = [RUNNING, UNCALIBRATED, RUNNING]
        clients = [snapshot(f"{n}", n, state=state) for n, state in enumerate(states)]
        engine = Engine(Clock(), HandStore(StoredState(100, clients)))
        self.successResultOf(Deferred.fromCoroutine(engine.open()))
        counted = {state: n for state, n in engine.counters.states.items() if n}
        self.assertEqual(counted, {RUNNING: 2, UNCALIBRATED: 1})

    def test_what_the_store_refuses_moves_nobody_but_by_its_own_record(self) -> None:
        self.house.register("1", "2", "3")
        self.house.set(CALIBRATED, "1")
        self.house.store.finish({"1": snapshot("1", 500, state=RUNNING)})
        self.assertEqual(self.states(), {UNCALIBRATED: 2, RUNNING: 1})
        self.house.store.finish()  # asked for again, of the store's record
        self.assertEqual(self.states(), {UNCALIBRATED: 2, CALIBRATED: 1})
        gone = self.house.leave("2")
        self.house.store.finish({"2": None})
        self.failureResultOf(gone, UnknownClient)
        self.assertEqual(self.states(), {UNCALIBRATED: 1, CALIBRATED: 1})
        self.house.beat("3", RUNNING)  # a snapshot waits, no change
        self.house.store.finish({"3": snapshot("3", 600, state=RUNNING)})
        self.assertEqual(self.states(), {CALIBRATED: 1, RUNNING: 1})

    @settings(
        max_examples=50,
        deadline=None,
        suppress_health_check=[HealthCheck.differing_executors],
    )
    @given(
        st.lists(
            st.one_of(
                st.tuples(
                    st.sampled_from(["beat", "set", "steer", "leave", "kick"]),
                    st.sampled_from(["1", "2", "3"]),
                    st.sampled_from(list(ClientState)),
                ),
                st.tuples(st.just("wait"), st.floats(0, FUSE), st.none()),
            ),
            max_size=40,
        )
    )
    def test_after_anything_the_counts_are_those_of_the_registry(
        self, steps: list[tuple[str, Any, Any]]
    ) -> None:
        house = House()
        house.beat("0")
        house.store.be_quick()
        for what, how, state in steps:
            if what == "wait":
                house.listen(how)
            else:
                house.request(what, how, state).addErrback(lambda _: None)
        living = Counter(client.state for client in house.registry)
        counted = {s: n for s, n in house.engine.counters.states.items() if n}
        self.assertEqual(counted, dict(living))

    def test_who_is_silent_as_planned_is_known(self) -> None:
        self.house.register("1", "2", "3")
        for client_id in ("1", "2", "3", "1"):
            self.house.registry.silence(client_id, 60.0)
        self.house.store.finish_all()
        self.assertEqual(self.counters.silent, {"1", "2", "3"})
        self.beat("1")
        self.house.registry.silence("2", 0.0)
        self.house.store.finish_all()
        self.assertEqual(self.counters.silent, {"3"})
        self.house.listen(61.0)
        self.house.store.finish_all()
        self.assertEqual(self.counters.silent, set())

    def test_and_after_a_restart_if_it_lasts(self) -> None:
        clients = [
            snapshot("1", 1, silent_until=NOON + 5),
            snapshot("2", 2, silent_until=NOON - 5),
            snapshot("3", 3),
        ]
        house = House(StoredState(100, clients))
        self.assertEqual(house.engine.counters.silent, {"1"})


class TestRhythm(CountersTestCase):
    def test_of_punctual_beats_one_in_so_many_is_looked_at_and_stands_for_all(
        self,
    ) -> None:
        self.house.register("1")
        self.beat(times=GAPS_SAMPLED - 1)
        self.assertEqual(count(self.counters.gaps), 0)
        self.beat(times=1)
        self.assertEqual(buckets(self.counters.gaps), {2.0: GAPS_SAMPLED})
        self.assertAlmostEqual(self.counters.gaps.total, GAPS_SAMPLED * INTERVAL)
        self.beat(times=2 * GAPS_SAMPLED)
        self.assertEqual(buckets(self.counters.gaps), {2.0: 3 * GAPS_SAMPLED})

    def test_each_gap_of_who_was_late_counts_once(self) -> None:
        self.house.register("1")
        for _ in range(GAPS_SAMPLED + 1):
            self.beat(pause=7.0)
        self.assertEqual(buckets(self.counters.gaps), {8.0: GAPS_SAMPLED + 1})
        self.assertEqual(self.counters.late, GAPS_SAMPLED + 1)

    def test_a_planned_silence_is_no_gap(self) -> None:
        self.house.register("1")
        self.house.registry.silence("1", 60.0)
        self.house.store.finish_all()
        self.beat(pause=30.0)
        self.assertEqual(count(self.counters.gaps), 0)

    def test_a_death_is_late_until_it_is_told(self) -> None:
        self.house.register("1", "2")
        self.house.listen(FUSE)
        self.assertEqual(count(self.counters.lateness), 0)
        self.house.listen(0.75)  # the store takes its time
        self.house.store.finish_all()
        self.assertEqual(buckets(self.counters.lateness), {1.0: 2})
        self.assertEqual(self.counters.changes[Reason.TIMEBOMB], 2)

    def test_only_a_timebomb_can_be_late(self) -> None:
        self.house.register("1", "2")
        self.house.leave("1")
        self.house.kick("2")
        self.house.store.finish_all()
        self.assertEqual(count(self.counters.lateness), 0)
        self.assertEqual(
            {reason.value: n for reason, n in self.counters.changes.items() if n},
            {"heartbeat": 2, "goodbye": 1, "kick": 1},
        )

    def test_a_death_that_the_store_refuses_is_forgotten(self) -> None:
        self.house.register("1")
        self.house.listen(FUSE + 1.0)
        self.house.store.finish({"1": None})
        self.assertEqual(self.counters._due, {})
        self.assertEqual(count(self.counters.lateness), 0)


class TestMachine(CountersTestCase):
    def test_commits_are_timed_until_they_are_durable(self) -> None:
        self.house.beat("1")
        self.house.beat("2")
        self.house.beat("3")
        self.assertEqual(self.house.journal.pending, 3)
        self.house.listen(0.2)
        self.house.store.finish()
        self.assertEqual(buckets(self.counters.commits), {0.25: 1})
        self.house.store.finish()
        self.assertEqual(self.house.journal.pending, 0)
        self.assertEqual(buckets(self.counters.batches), {1: 1, 2: 1})

    def test_a_store_in_trouble_counts_once_until_it_is_well(self) -> None:
        first = self.house.beat("1")
        self.house.listen(PATIENCE + 1.0)
        self.house.store.break_down()
        self.failureResultOf(first, Overloaded)
        self.assertEqual(self.counters.troubles, 1)
        self.house.calm_down()
        self.assertEqual(self.counters.troubles, 1)
        second = self.house.beat("2")
        self.house.store.break_down()
        self.failureResultOf(second, Overloaded)
        self.assertEqual(self.counters.troubles, 2)

    def test_a_stall_and_how_late_the_reactor_was(self) -> None:
        listen(self.house.clock, 1.0)
        self.assertEqual(set(buckets(self.counters.lags)), {0.001})
        self.house.clock.advance(3.0)
        self.assertEqual(self.counters.stalls, 1)
        self.assertTrue(2.7 < self.counters.stalled <= 3.0, self.counters.stalled)
        self.assertEqual(buckets(self.counters.lags)[5.0], 1)

    def test_a_mass_loss_is_counted_once(self) -> None:
        engine = Engine(
            self.house.clock,
            HandStore(),
            timebomb=FUSE,
            interval=INTERVAL,
            mass_loss_share=0.5,
        )
        self.successResultOf(Deferred.fromCoroutine(engine.open()))
        for number in range(5):
            engine.registry.beat(f"{number}", UNCALIBRATED)
        self.house.listen(FUSE + 1.0)
        self.assertEqual(len(engine.registry.mass_loss.held), 5)
        self.assertEqual(engine.counters.mass_losses, 1)
