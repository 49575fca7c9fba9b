"""Virtual time passes as ``task.Clock`` has it, and waits for who is stalled."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.internet.error import AlreadyCalled, AlreadyCancelled
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from heartbeat_service.simulator.virtual_clock import Stallable, VirtualClock

if TYPE_CHECKING:
    _Mixin = SynchronousTestCase
else:  # so that no runner takes the suite itself for a test
    _Mixin = object


class ClockSuite(_Mixin):
    """What all of them have to keep: mix it into a ``SynchronousTestCase``.

    :ivar clock: the one that is tried.
    :ivar heard: what was called, in order.
    """

    clock: Any

    def setUp(self) -> None:
        self.heard: list[object] = []

    def pass_time(self, seconds: float) -> None:
        raise NotImplementedError

    def later(self, seconds: float, name: object) -> Any:
        return self.clock.callLater(seconds, self.heard.append, name)

    def test_order(self) -> None:
        for seconds in (3, 1, 2):
            self.later(seconds, seconds)
        self.pass_time(2)
        self.assertEqual(self.heard, [1, 2])
        self.assertEqual(self.clock.seconds(), 2)

    def test_equal_times(self) -> None:
        for name in "first", "second", "third":
            self.later(1, name)
        self.pass_time(1)
        self.assertEqual(self.heard, ["first", "second", "third"])

    def test_cancel(self) -> None:
        call = self.later(1, "cancelled")
        call.cancel()
        self.pass_time(2)
        self.assertEqual(self.heard, [])
        self.assertFalse(call.active())
        for again in call.cancel, partial(call.reset, 1), partial(call.delay, 1):
            self.assertRaises(AlreadyCancelled, again)

    def test_called(self) -> None:
        call = self.later(1, "called")
        self.assertTrue(call.active())
        self.pass_time(1)
        self.assertEqual(self.heard, ["called"])
        self.assertFalse(call.active())
        for again in call.cancel, partial(call.reset, 1), partial(call.delay, 1):
            self.assertRaises(AlreadyCalled, again)

    def test_moves(self) -> None:
        sooner, later, delayed = (self.later(4, name) for name in "abc")
        self.pass_time(1)
        sooner.reset(1)
        later.reset(5)
        delayed.delay(1)
        due = [call.getTime() for call in (sooner, later, delayed)]
        self.assertEqual(due, [2, 6, 5])
        self.pass_time(1)
        self.assertEqual(self.heard, ["a"])
        self.pass_time(3)
        self.assertEqual(self.heard, ["a", "c"])
        self.pass_time(1)
        self.assertEqual(self.heard, ["a", "c", "b"])

    def test_back_and_forth(self) -> None:
        call = self.later(4, "once")
        call.reset(1)
        call.reset(4)
        call.reset(2)
        self.pass_time(5)
        self.assertEqual(self.heard, ["once"])

    def test_calls_that_make_calls(self) -> None:
        def again(left: int) -> None:
            self.heard.append(self.clock.seconds())
            if left:
                self.clock.callLater(1, again, left - 1)

        self.clock.callLater(1, again, 3)
        for _ in range(10):  # a task.Clock is at its new time when its calls run
            self.pass_time(1)
        self.assertEqual(self.heard, [1, 2, 3, 4])


class TestTaskClock(ClockSuite, SynchronousTestCase):
    """Whose behaviour the others have."""

    def setUp(self) -> None:
        super().setUp()
        self.clock = Clock()

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)


class TestVirtualClock(ClockSuite, SynchronousTestCase):
    """The one with a heap."""

    def setUp(self) -> None:
        super().setUp()
        self.clock = VirtualClock()

    def pass_time(self, seconds: float) -> None:
        self.clock.run_until(self.clock.seconds() + seconds)

    def test_each_call_runs_at_its_own_time(self) -> None:
        times = [3.5, 0.25, 99.0, 41.0, 3.75, 7.0]
        for seconds in times:
            self.clock.callLater(
                seconds, lambda: self.heard.append(self.clock.seconds())
            )
        self.pass_time(100)
        self.assertEqual(self.heard, sorted(times))

    def test_what_was_sent_comes_in_its_turn(self) -> None:
        self.later(1, "timer")
        self.clock.send(1, self.heard.append, "message")
        self.pass_time(1)
        self.assertEqual(self.heard, ["timer", "message"])


class TestStallable(ClockSuite, SynchronousTestCase):
    """A clock whose owner is kept from running now and then."""

    def setUp(self) -> None:
        super().setUp()
        self.time = VirtualClock()
        self.clock = Stallable(self.time)

    def pass_time(self, seconds: float) -> None:
        self.time.run_until(self.time.seconds() + seconds)

    def test_what_falls_due_in_a_stall_runs_at_its_end(self) -> None:
        self.later(1, "first")
        self.later(2, "second")
        self.later(9, "later")
        self.clock.stall()
        self.pass_time(5)
        self.assertEqual(self.heard, [])
        self.clock.go_on()
        self.assertEqual(self.heard, ["first", "second"])
        self.pass_time(4)
        self.assertEqual(self.heard, ["first", "second", "later"])

    def test_a_call_that_waits_can_be_taken_back(self) -> None:
        call = self.later(1, "taken back")
        self.clock.stall()
        self.pass_time(5)
        self.assertTrue(call.active())
        call.cancel()
        self.clock.go_on()
        self.assertEqual(self.heard, [])
        self.assertFalse(call.active())

    def test_a_call_that_waits_can_be_put_off(self) -> None:
        calls: list[Any] = []
        self.clock.callLater(1, lambda: calls[0].reset(3))
        calls.append(self.later(2, "put off"))
        self.clock.stall()
        self.pass_time(5)
        self.clock.go_on()
        self.assertEqual((self.heard, calls[0].getTime()), ([], 8))
        self.pass_time(3)
        self.assertEqual(self.heard, ["put off"])
