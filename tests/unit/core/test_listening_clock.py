"""The fuse burns only while the server is able to listen (contract, section 2).

:class:`House` turns like a reactor: first all timers that are due, then the sockets.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from heartbeat_service.core.changes import Fact
from heartbeat_service.core.listening_clock import (
    LATEST,
    MOST_CANCELLED,
    SETTLING,
    SLICE,
    STALL,
    TICK,
    TOLERANCE,
    ListeningClock,
)
from heartbeat_service.core.notices import Late, Notice
from heartbeat_service.core.registry import Registry
from heartbeat_service.core.states import ClientState
from heartbeat_service.engine.slices import in_slices

#: A turn of the reactor in which nothing is late, in seconds.
STEP = 0.01
FUSE = 10.0
HOLD = 60.0

#: When who has that fuse is late: the interval of two seconds, missed twice.
LATE = 4.0

#: How long it takes to see that nothing has piled up, in seconds.
LOOKING = SETTLING + 5 * STEP

#: What a stall can burn of a fuse before it is one, in seconds.
UNSEEN = TICK + TOLERANCE


class House:
    """A registry on a listening clock, and a socket.

    :ivar socket: who has sent a beat that nobody has read yet.
    :ivar budget: how many are read in one turn.
    :ivar cost: seconds of work that each of them takes.
    :ivar hearing: seconds of work that each thing that is told takes.
    :ivar longest_turn: seconds, of work alone.
    """

    def __init__(self, budget: int = 1_000, cost: float = 0.0) -> None:
        self.raw = Clock()
        self.worked = 0.0
        self.stalls: list[float] = []
        self.clock = ListeningClock(self.raw, self.stalls.append, lambda: self.worked)
        self.clock.unread = lambda: bool(self.socket)
        self.facts: list[Fact] = []
        self.told: list[Notice] = []
        self.registry = Registry(
            self.clock,
            self.raw.seconds,
            partial(self.hear, self.facts),
            FUSE,
            tell=partial(self.hear, self.told),
            mass_loss_hold=HOLD,
        )
        self.socket: deque[str] = deque()
        self.budget = budget
        self.cost = cost
        self.hearing = 0.0
        self.longest_turn = 0.0

    def hear(self, heard: list[Any], one: object) -> None:
        """The registry tells something."""
        heard.append(one)
        self.work(self.hearing)

    def work(self, seconds: float) -> None:
        """The service is busy."""
        self.worked += seconds
        self.raw.rightNow += seconds

    def turn(self, seconds: float) -> None:
        """One turn of the reactor, after so much time."""
        self.raw.rightNow += seconds
        before = self.worked
        due = [one for one in self.raw.calls if one.getTime() <= self.raw.rightNow]
        for call in due:
            if call.active():
                self.raw.calls.remove(call)
                call.called = 1
                call.func(*call.args, **call.kw)
        for _ in range(min(self.budget, len(self.socket))):
            self.work(self.cost)
            self.beat(self.socket.popleft())
        self.longest_turn = max(self.longest_turn, self.worked - before)

    def stall(self, seconds: float) -> None:
        """Let time pass while it can't listen; then the reactor turns."""
        self.turn(seconds)

    def listen(self, seconds: float) -> None:
        """Let time pass while it listens."""
        end = self.raw.seconds() + seconds
        while (left := end - self.raw.seconds()) > 0:
            due = [one.getTime() - self.raw.seconds() for one in self.raw.calls]
            self.turn(max(0.0, min(left, STEP, *due)))

    def until(self, holds: Callable[[], bool]) -> float:
        """Listen until it is so; how long that took, in seconds."""
        start = self.raw.seconds()
        while not holds():
            assert self.raw.seconds() < start + 10_000, "it never came true"
            self.listen(STEP)
        return self.raw.seconds() - start

    def beat(self, client_id: str = "1", fuse: float | None = None) -> None:
        """A heartbeat is read."""
        self.registry.beat(client_id, ClientState.DISCONNECTED, fuse=fuse)

    def lives(self, client_id: str = "1") -> bool:
        """Whether a client does."""
        return self.registry.find(client_id) is not None

    def late(self) -> list[str]:
        """Of whom it was told that they are late."""
        return [one.client_id for one in self.told if isinstance(one, Late)]

    def is_dead(self) -> bool:
        """Whether nobody lives."""
        return len(self.registry) == 0


class SlowClock(Clock):
    """One that goes on whenever somebody looks at it."""

    def seconds(self) -> float:
        self.rightNow += 2**-20
        return self.rightNow


class ListeningClockTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        """Begin without a stall."""
        self.house = House()

    def assert_dies_after(self, least: float, most: float) -> None:
        """The one who lives dies in that time, in seconds."""
        took = self.house.until(self.house.is_dead)
        self.assertGreaterEqual(took, least - STEP)
        self.assertLessEqual(took, most + STEP)


class TestWithoutAStall(ListeningClockTestCase):
    def test_a_client_dies_at_its_deadline(self) -> None:
        self.house.beat()
        self.house.listen(FUSE - 0.001)
        self.assertTrue(self.house.lives())
        self.house.listen(0.002)
        self.assertFalse(self.house.lives())
        self.assertEqual(self.house.stalls, [])

    def test_a_timebomb_is_a_delayed_call_that_beats_reset(self) -> None:
        self.house.beat()
        [timebomb] = self.house.clock.getDelayedCalls()
        self.house.listen(4.0)
        self.house.beat()
        self.assertEqual(self.house.clock.getDelayedCalls(), [timebomb])
        now = self.house.clock.seconds()
        self.assertAlmostEqual(timebomb.getTime() - now, LATE)
        self.house.listen(LATE + STEP)
        [timebomb] = self.house.clock.getDelayedCalls()
        self.assertAlmostEqual(timebomb.getTime() - now, FUSE)

    def test_a_shorter_fuse_is_kept_as_well(self) -> None:
        for number in range(10):
            self.house.beat(str(number))
        self.house.beat("1", fuse=0.5)
        self.house.listen(0.5 + STEP)
        self.assertFalse(self.house.lives("1"))
        self.assertEqual(len(self.house.registry), 9)

    def test_a_call_that_is_cancelled_is_never_made(self) -> None:
        made: list[str] = []
        calls = [
            self.house.clock.callLater(1.0, made.append, str(number))
            for number in range(3 * MOST_CANCELLED)
        ]
        for call in calls[1:]:
            call.cancel()
        self.assertEqual(self.house.clock.getDelayedCalls(), calls[:1])
        self.house.listen(2.0)
        self.assertEqual(made, ["0"])

    def test_a_call_that_fails_keeps_no_other_from_being_made(self) -> None:
        made: list[str] = []
        self.house.clock.callLater(0.5, lambda: 1 / 0)
        self.house.clock.callLater(0.5, made.append, "other")
        self.house.listen(1.0)
        self.assertEqual(made, ["other"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_calls_are_made_in_the_order_in_which_they_are_due(self) -> None:
        made: list[float] = []
        for delay in (0.3, 0.1, 0.2, 0.25, 0.15):
            self.house.clock.callLater(delay, made.append, delay)
        self.house.listen(0.5)
        self.assertEqual(made, sorted(made))
        self.assertEqual(len(made), 5)

    def test_what_has_come_in_counts_before_what_is_due(self) -> None:
        self.house.budget = 1
        self.house.beat()
        self.house.listen(FUSE - STEP)
        for name in ("crowd", "crowd", "crowd", "crowd", "1"):
            self.house.socket.append(name)  # one is read in each turn
        self.house.listen(FUSE / 2)
        self.assertTrue(self.house.lives())

    def test_who_never_stops_sending_keeps_no_silent_client_alive(self) -> None:
        self.house.budget = 1
        self.house.beat()
        self.house.socket.extend(["flood"] * 10_000)
        self.house.beat("flood")

        def dead() -> bool:
            return not self.house.lives("1")

        self.assertLessEqual(self.house.until(dead), FUSE + LATEST + 2 * STEP)
        self.assertTrue(self.house.socket)

    def test_it_never_gets_ahead_of_the_clock_that_it_is_made_from(self) -> None:
        raw = SlowClock()
        clock = ListeningClock(raw, lambda _: None)
        ahead = clock.seconds() - raw.rightNow
        for _ in range(1_000):
            raw.advance(STEP)
        self.assertLessEqual(clock.seconds() - raw.rightNow, ahead)

    def test_stopped_it_leaves_no_timer(self) -> None:
        self.house.beat()
        self.house.stall(100.0)
        list(self.house.registry.defuse_all())
        self.house.clock.stop()
        self.assertEqual(self.house.raw.getDelayedCalls(), [])

    def test_it_may_be_stopped_by_what_is_due(self) -> None:
        self.house.clock.callLater(0.5, self.house.clock.stop)
        self.house.listen(1.0)
        self.assertEqual(self.house.raw.getDelayedCalls(), [])


class TestStalls(ListeningClockTestCase):
    def test_no_beating_client_dies_of_a_stall_of_any_length(self) -> None:
        for stall in (0.2, 0.3, 1.0, FUSE, 3 * FUSE, 86_400.0):
            self.house.beat()
            self.house.listen(FUSE - UNSEEN - STEP)  # it is about to beat again
            self.house.stall(stall)
            self.assertTrue(self.house.lives(), stall)
            self.house.listen(SETTLING - STEP)  # its beat is on its way
            self.assertTrue(self.house.lives(), stall)

    def test_what_waits_in_a_socket_counts_whatever_was_left_of_the_fuse(self) -> None:
        for fuse in (0.1, 0.25, 0.4, FUSE):
            for stall in (0.05, 0.12, 0.2, 0.5, 3.0, 600.0):
                self.house.beat(fuse=fuse)
                self.house.listen(fuse - 0.001)
                self.house.socket.append("1")
                self.house.stall(stall)
                self.house.listen(STEP)
                self.assertTrue(self.house.lives(), (fuse, stall))

    def test_short_fuses_outlive_a_stall_behind_a_crowd(self) -> None:
        fuses = (0.1, 0.2, 0.4)
        for stall in (0.15, 0.5, 2.0, 10.0):
            house = House(budget=60, cost=100e-6)
            for fuse in fuses:
                house.beat(str(fuse), fuse)
            for number in range(3_000):
                house.socket.append(f"crowd {number}")
            house.socket.extend(map(str, fuses))
            house.stall(stall)
            while house.socket:
                house.turn(0.0)
            self.assertEqual(len(house.registry), 3_003, stall)
            self.assertEqual(len(house.facts), 3_003, "nobody died and came back")

    def test_a_silent_client_dies_at_most_one_timebomb_after_the_stall(self) -> None:
        for spent in (0.0, 5.0, FUSE - UNSEEN - STEP):
            for stall in (0.5, FUSE, 100 * FUSE):
                self.house.beat()
                self.house.listen(spent)
                self.house.stall(stall)
                left = FUSE - spent
                self.assert_dies_after(left - UNSEEN, left + LOOKING)

    def test_hiccups_after_a_stall_do_not_put_death_off(self) -> None:
        for stall in (12.0, 600.0):
            self.house.beat(fuse=3.0)
            self.house.stall(stall)
            start = self.house.raw.seconds()
            while self.house.lives():
                self.house.listen(2.0)
                self.house.stall(0.2)
                self.assertLess(self.house.raw.seconds(), start + 4.5, stall)

    def test_many_hiccups_cost_what_they_take_and_a_look_each(self) -> None:
        self.house.beat()
        start = self.house.raw.seconds()
        hiccups = 0
        while self.house.lives():
            self.house.listen(0.5)
            self.house.stall(0.3)
            hiccups += 1
        took = self.house.raw.seconds() - start
        self.assertLessEqual(took, FUSE + hiccups * (0.3 + LOOKING) + 0.5)

    def test_a_server_that_is_always_late_still_buries_the_silent(self) -> None:
        for late in (0.06, 0.2, 0.9, 1.1, 2.0):
            self.house.beat()
            turns = 0
            while self.house.lives():
                self.house.stall(TICK + late)
                turns += 1
                # In a few turns together, one tick's worth of its fuse burns.
                self.assertLessEqual(turns, 6 * FUSE / TICK, late)

    def test_a_stall_while_the_last_one_is_read_ends_nobody(self) -> None:
        self.house.beat()
        self.house.listen(FUSE - 2 * UNSEEN)
        for _ in range(3):
            self.house.stall(30.0)
            self.house.listen(2 * STEP)
        self.house.socket.append("1")
        self.house.listen(STEP)
        self.assertTrue(self.house.lives())
        self.house.listen(FUSE - STEP)
        self.assertTrue(self.house.lives())

    def test_a_backlog_is_waited_for_as_long_as_the_stall_was_and_a_second(
        self,
    ) -> None:
        self.house.budget = 1
        self.house.beat("silent", fuse=0.5)
        self.house.beat("flood", fuse=3600)
        self.house.socket.extend(["flood"] * 10_000)
        self.house.stall(3.0)

        def late() -> bool:
            return "silent" in self.house.registry.mass_loss.late

        def dead() -> bool:
            return not self.house.lives("silent")

        took = self.house.until(late)
        self.assertGreaterEqual(took, 3.0 + STALL - UNSEEN - STEP)
        self.assertLessEqual(took, 3.0 + STALL + 0.375 + LATEST + 2 * STEP)
        took = self.house.until(dead)
        self.assertLessEqual(took, 0.125 + LATEST + 2 * STEP)

    def test_nobody_is_late_because_the_service_was_stalled(self) -> None:
        for stall in (0.2, 1.0, LATE, FUSE, 86_400.0):
            self.house.beat()
            self.house.listen(LATE - UNSEEN - STEP)
            self.house.stall(stall)
            self.house.listen(SETTLING - STEP)  # its beat is on its way
            self.assertEqual(self.house.late(), [], stall)

    def test_what_waits_in_a_socket_counts_before_a_warning(self) -> None:
        for stall in (0.05, 0.12, 0.5, 600.0):
            self.house.beat()
            self.house.listen(LATE - 0.001)
            self.house.socket.append("1")
            self.house.stall(stall)
            self.house.listen(STEP)
            self.assertEqual(self.house.late(), [], stall)

    def test_after_a_stall_the_late_are_told_of_in_time(self) -> None:
        self.house.beat()
        self.house.stall(600.0)
        took = self.house.until(lambda: bool(self.house.late()))
        self.assertLessEqual(took, LATE + LOOKING + STEP)
        self.assert_dies_after(FUSE - LATE - LOOKING, FUSE - LATE)

    def test_a_hold_lasts_no_shorter_for_a_stall(self) -> None:
        self.house.registry.mass_loss.share = 1.0
        for name in "123":
            self.house.beat(name)
        self.house.listen(FUSE + STEP)
        self.house.stall(10 * HOLD)
        self.house.listen(HOLD - UNSEEN - 2 * STEP)
        self.assertEqual(len(self.house.registry.mass_loss.held), 3)
        self.house.listen(UNSEEN + LOOKING)
        self.assertTrue(self.house.is_dead())

    def test_what_was_missed_before_a_beat_does_not_count_for_it(self) -> None:
        self.house.stall(100.0)
        self.house.listen(LOOKING)
        self.house.beat()
        self.assert_dies_after(FUSE, FUSE + STEP)

    def test_each_stall_is_told_once(self) -> None:
        for number in range(5):
            self.house.beat(str(number))
        self.house.listen(1)
        self.house.stall(7.0)
        self.house.listen(3)
        self.house.stall(2.0)
        self.house.listen(3)
        self.house.stall(0.9)  # not worth telling
        self.assertEqual([round(stall) for stall in self.house.stalls], [7, 2])

    def test_it_says_how_much_of_a_fuse_is_left_after_a_stall(self) -> None:
        self.house.beat()
        self.house.listen(5)
        self.house.stall(2 * FUSE)
        left = self.house.registry.get("1").heartbeat.seconds_left()
        self.assertLessEqual(left, 5)
        self.assertGreaterEqual(left, 5 - UNSEEN)

    def test_it_never_goes_back(self) -> None:
        last = self.house.clock.seconds()
        for number in range(200):
            self.house.raw.rightNow += (0.01, 0.14, 0.16, 0.4, 3.0)[number % 5]
            for _ in range(2):
                now = self.house.clock.seconds()
                self.assertGreaterEqual(now, last)
                last = now
                self.house.turn(0.0)


class TestOwnWork(ListeningClockTestCase):
    def test_work_of_its_own_is_no_stall(self) -> None:
        self.house.beat()
        for _ in range(10):
            self.house.work(2.0)
            self.house.turn(0.0)
        self.house.listen(LOOKING)
        self.assertEqual(self.house.stalls, [])
        self.assertFalse(self.house.lives())

    def test_a_crowd_that_dies_at_once_holds_nobody_up(self) -> None:
        crowd, cost = 5_000, 50e-6
        house = self.crowd(crowd)
        house.listen(FUSE - 2 * TICK)
        house.hearing = cost
        begun = len(house.facts)
        while len(house.facts) == begun:
            house.listen(STEP)
        late = house.registry.client_ids()[-1]
        house.socket.append(late)  # before its turn has come
        house.until(lambda: len(house.registry) <= 1)
        self.assertLess(house.longest_turn, SLICE + 10 * cost)
        self.assertEqual(house.stalls, [])
        self.assertTrue(house.lives(late))
        dead = {fact.client_id for fact in house.facts[crowd:]}
        self.assertEqual(len(dead), crowd - 1)

    def test_a_crowd_that_is_late_at_once_holds_nobody_up(self) -> None:
        crowd, cost = 5_000, 50e-6
        house = self.crowd(crowd)
        house.beat("last")
        house.hearing = cost
        house.until(lambda: bool(house.told))
        house.socket.append("last")  # before its turn has come
        house.until(lambda: len(house.told) == crowd)
        house.listen(FUSE / 4)
        self.assertLess(house.longest_turn, SLICE + 10 * cost)
        self.assertEqual(house.stalls, [])
        self.assertEqual(sorted(house.late()), sorted(map(str, range(crowd))))

    def test_a_crowd_that_an_operator_lets_go_holds_nobody_up(self) -> None:
        crowd, cost = 5_000, 50e-6
        house = self.crowd(crowd)
        house.registry.mass_loss.share = 1.0
        mass_loss = house.registry.mass_loss
        house.until(lambda: len(mass_loss.held) == crowd)
        begun = house.raw.seconds()
        house.longest_turn, house.hearing = 0.0, cost
        ending = in_slices(house.raw, house.registry.end_mass_loss())
        done = Deferred.fromCoroutine(ending)
        house.listen(STEP)
        saved = list(mass_loss.held)[-1]
        house.socket.append(saved)  # before its turn has come
        house.until(lambda: len(house.registry) <= 1)
        self.successResultOf(done)
        self.assertLess(house.longest_turn, SLICE + 10 * cost)
        self.assertLess(house.raw.seconds(), begun + 2.0)
        self.assertTrue(house.lives(saved))

    def crowd(self, size: int) -> House:
        """A house in which so many have just registered."""
        house = self.house
        for number in range(size):
            house.beat(str(number))
        house.longest_turn = 0.0
        house.raw.rightNow += TICK  # what its registration took is no stall
        house.turn(0.0)
        return house


class TestAnyTroubles(SynchronousTestCase):
    @settings(
        max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    @given(
        st.sampled_from([0.1, 0.25, 1.0, 3.0]),
        st.lists(
            st.tuples(
                st.floats(0.0, 2.0),
                st.sampled_from([0.02, 0.06, 0.14, 0.2, 0.5, 1.5]) | st.floats(0, 50),
                st.sampled_from([0, 3, 300]),
            ),
            max_size=8,
        ),
    )
    def test_who_sends_in_time_lives_and_who_does_not_dies(
        self, fuse: float, happenings: list[tuple[float, float, int]]
    ) -> None:
        """Clients send on while the service is stalled; a crowd sends with them."""
        house = House(budget=30, cost=100e-6)
        house.beat("beating", fuse)
        house.beat("silent", fuse)
        next_beat = 0.0
        listened = 0.0

        def send() -> None:
            nonlocal next_beat
            while next_beat <= house.raw.seconds():
                house.socket.append("beating")
                next_beat += fuse / 2

        def listen(seconds: float) -> None:
            nonlocal listened
            end = house.raw.seconds() + seconds
            while house.raw.seconds() < end:
                send()
                house.turn(0.0 if house.socket else 0.005)
            listened += seconds

        for seconds, stall, crowd in happenings:
            listen(seconds)
            house.raw.rightNow += stall
            send()
            house.socket.extend(f"crowd {number}" for number in range(crowd))
            house.turn(0.0)
            listen(LOOKING)
        born = {fact.client_id: fact for fact in house.facts}
        self.assertTrue(house.lives("beating"))
        self.assertNotIn("beating", house.late())
        self.assertEqual(house.registry.get("beating").sequence, 1)
        self.assertIn("beating", born)
        stalls = len(happenings) * (LOOKING + UNSEEN)
        listen(max(0.0, fuse + stalls + 0.1 - listened))
        self.assertFalse(house.lives("silent"))
