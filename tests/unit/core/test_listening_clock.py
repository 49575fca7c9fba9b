"""The fuse burns only while the server is able to listen (contract, section 2).

``Clock.advance`` by a long step is a stall: like a reactor, it runs all the timers
that are due before anybody reads a socket.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from heartbeat_service.core.changes import Fact
from heartbeat_service.core.listening_clock import STALL, TICK, ListeningClock
from heartbeat_service.core.registry import Registry
from heartbeat_service.core.states import ClientState

#: A step in which no tick is late.
STEP = TICK / 4
FUSE = 10.0


class House:
    """A registry on a listening clock."""

    def __init__(self) -> None:
        self.raw = Clock()
        self.stalls: list[float] = []
        self.clock = ListeningClock(self.raw, self.stalls.append)
        self.facts: list[Fact] = []
        self.registry = Registry(self.clock, self.raw.seconds, self.facts.append, FUSE)

    def listen(self, seconds: float) -> None:
        """Let time pass while the service listens."""
        end = self.raw.seconds() + seconds
        while self.raw.seconds() < end - STEP:
            self.raw.advance(STEP)
        self.raw.advance(end - self.raw.seconds())

    def stall(self, seconds: float) -> None:
        """Let time pass while it can't."""
        self.raw.advance(seconds)

    def beat(self, client_id: str = "1", fuse: float | None = None) -> None:
        """A heartbeat comes in."""
        self.registry.beat(client_id, ClientState.DISCONNECTED, fuse=fuse)

    def lives(self, client_id: str = "1") -> bool:
        """Whether a client does."""
        return self.registry.find(client_id) is not None


class ListeningClockTests(SynchronousTestCase):
    """Deadlines wait for what was missed."""

    def setUp(self) -> None:
        """Begin without a stall."""
        self.house = House()

    def test_without_a_stall_a_client_dies_at_its_deadline(self) -> None:
        self.house.beat()
        self.house.listen(FUSE - 0.001)
        self.assertTrue(self.house.lives())
        self.house.listen(0.001)
        self.assertFalse(self.house.lives())
        self.assertEqual(self.house.stalls, [])

    def test_no_beating_client_dies_of_a_stall_of_any_length(self) -> None:
        for stall in (0.3, 1.0, FUSE, 3 * FUSE, 86_400.0):
            self.house.beat()
            self.house.listen(FUSE - 2 * STEP)  # it is about to beat again
            self.house.stall(stall)
            self.house.listen(STEP)  # its beat waits in a socket
            self.assertTrue(self.house.lives(), stall)

    def test_a_stall_that_begins_just_before_the_deadline_kills_nobody(self) -> None:
        self.house.listen(0.9 * TICK)
        self.house.beat(fuse=0.25)
        self.house.listen(0.24)
        self.house.stall(5.0)
        self.assertTrue(self.house.lives())

    def test_a_backlog_may_take_longer_than_the_rest_of_the_fuses(self) -> None:
        for number in range(100):
            self.house.beat(str(number))
        self.house.listen(FUSE - STEP)
        self.house.stall(30.0)
        for number in range(100):  # one after the other, for twenty seconds
            self.house.stall(0.2)
            self.house.beat(str(number))
        self.assertEqual(len(self.house.registry), 100)
        self.assertEqual(len(self.house.facts), 100)

    def test_a_silent_client_dies_at_most_one_timebomb_after_the_stall(self) -> None:
        for spent in (0.0, 5.0, FUSE - STEP):
            for stall in (0.5, FUSE, 100 * FUSE):
                self.house.beat()
                self.house.listen(spent)
                self.house.stall(stall)
                self.house.listen(FUSE + STEP)
                self.assertFalse(self.house.lives(), (spent, stall))

    def test_a_short_stall_does_not_give_a_whole_new_fuse(self) -> None:
        self.house.beat()
        self.house.listen(FUSE - 1)
        self.house.stall(0.5)
        self.house.listen(0.5 + 2 * 0.5)
        self.assertFalse(self.house.lives())

    def test_what_was_missed_before_a_beat_does_not_count_for_it(self) -> None:
        self.house.stall(100.0)
        self.house.beat()
        self.house.listen(FUSE - 1)
        self.house.stall(0.5)
        self.house.listen(0.5 + 2 * 0.5)
        self.assertFalse(self.house.lives())

    def test_a_stall_that_many_timers_notice_is_told_once(self) -> None:
        for number in range(5):
            self.house.beat(str(number))
        self.house.listen(FUSE - STEP)
        self.house.stall(7.0)
        self.assertEqual([round(stall) for stall in self.house.stalls], [7])
        self.assertEqual(len(self.house.registry), 5)

    def test_a_server_that_is_often_late_still_buries_the_silent(self) -> None:
        self.house.beat()
        for _ in range(20):
            self.house.listen(0.8)
            self.house.stall(0.3)
        self.assertFalse(self.house.lives())
        self.assertEqual(self.house.stalls, [])

    def test_a_server_that_is_always_late_still_buries_the_silent(self) -> None:
        for late in (0.06, 0.2, 0.9, 1.1, 2.0):
            self.house.beat()
            turns = 0
            while self.house.lives() and turns < 1000:
                self.house.stall(TICK + late)
                turns += 1
            # In each turn, one tick's worth of its fuse burns; the last stall's
            # backlog comes on top.
            self.assertLessEqual(turns, (FUSE + late + STALL) / TICK + 5)

    def test_stalls_that_never_end_do_not_let_the_silent_live_for_ever(self) -> None:
        for fuse, stall, listened in (
            *((2.0, 1.2, 1.2), (10.0, 1.5, 2.0)),
            *((10.0, 1.2, 1.2), (1.0, 1.1, 0.9)),
        ):
            self.house.beat(fuse=fuse)
            burnt = 0.0
            while self.house.lives() and burnt < 10 * FUSE:
                self.house.stall(stall)
                self.house.listen(listened)
                burnt += listened
            self.assertLessEqual(burnt, 2 * fuse + 3 * listened + stall)

    def test_what_came_in_during_a_stall_too_short_to_notice_counts(self) -> None:
        raw = self.house.raw
        self.house.beat(fuse=0.15)
        self.house.listen(TICK + 0.01)
        # The reactor's order: all timers that are due, then the sockets, in which a
        # beat waits behind a connection that has to be taken first.
        raw.rightNow += TICK + 0.03
        for turn in range(2):
            for call in [call for call in raw.calls if call.getTime() <= raw.rightNow]:
                raw.calls.remove(call)
                call.called = 1
                call.func(*call.args, **call.kw)
            if turn == 1:
                self.house.beat(fuse=0.15)
        self.assertEqual(len(self.house.facts), 1)
        self.house.listen(0.15)
        self.assertFalse(self.house.lives())

    def test_each_stall_is_told_once(self) -> None:
        self.house.beat()
        self.house.listen(1)
        self.house.stall(7.0)
        self.house.listen(3)
        self.house.stall(2.0)
        self.house.listen(3)
        self.assertEqual([round(stall) for stall in self.house.stalls], [7, 2])

    def test_a_beat_after_a_stall_gives_the_fuse_it_always_gives(self) -> None:
        self.house.beat()
        self.house.stall(100.0)
        self.house.beat()
        heartbeat = self.house.registry.get("1").heartbeat
        self.assertEqual(heartbeat.seconds_left(), FUSE)
        self.house.listen(FUSE - 0.001)
        self.assertTrue(self.house.lives())
        self.house.listen(0.001)
        self.assertFalse(self.house.lives())

    def test_it_says_how_much_of_a_fuse_is_left_after_a_stall(self) -> None:
        self.house.beat()
        self.house.listen(5)
        self.house.stall(2 * FUSE)
        self.assertEqual(self.house.registry.get("1").heartbeat.seconds_left(), FUSE)

    def test_stopped_it_leaves_no_timer(self) -> None:
        self.house.beat()
        self.house.stall(100.0)
        self.house.registry.defuse_all()
        self.house.clock.stop()
        self.assertEqual(self.house.raw.getDelayedCalls(), [])

    @given(
        st.lists(
            st.tuples(st.floats(0, 0.9 * FUSE), st.floats(0, 50 * FUSE)), max_size=8
        )
    )
    def test_who_beats_in_time_survives_any_stalls(
        self, happenings: list[tuple[float, float]]
    ) -> None:
        house = House()
        for listened, stalled in happenings:
            house.beat()
            house.listen(listened)
            house.stall(stalled)
            self.assertTrue(house.lives())
        house.listen(FUSE + STEP)
        self.assertFalse(house.lives())
