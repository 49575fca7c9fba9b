"""A clock that jumps from one call to the next, in a heap.

Twisted's ``task.Clock`` sorts all of its calls with each new one; ten thousand clients
for a day make tens of millions of them. This one has the same methods. Calls that fall
due at one moment run in the order in which they were made, so a run can be repeated.

:class:`Stallable` is the same clock as a process sees it that is kept from running now
and then. Knows no client and no engine.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from heapq import heappop, heappush
from typing import Any

from twisted.internet.error import AlreadyCalled, AlreadyCancelled

from heartbeat_service.core.clock import Clock


class VirtualTimer:
    """A call that is to come; what Twisted's ``DelayedCall`` is to a reactor."""

    __slots__ = ("_args", "_clock", "_due", "_is_active", "_what")

    def __init__(
        self,
        clock: VirtualClock,
        due: float,
        what: Callable[..., Any],
        args: tuple[object, ...],
    ) -> None:
        self._clock = clock
        self._due = due
        self._is_active = True
        self._what = what
        self._args = args
        clock.push(due, self._come_up, (due,))

    def getTime(self) -> float:
        """When it falls due, on the clock's scale."""
        return self._due

    def active(self) -> bool:
        """Whether it is still to come."""
        return self._is_active

    def cancel(self) -> None:
        """Never fall due.

        :raises AlreadyCalled: if it did; so with the other two.
        :raises AlreadyCancelled: if it was cancelled before; so with the other two.
        """
        self._check()
        self._is_active = False

    def reset(self, seconds: float, /) -> None:
        """Fall due that many seconds from now."""
        self._move(self._clock.seconds() + seconds)

    def delay(self, seconds: float, /) -> None:
        """Fall due that many seconds later than it would."""
        self._move(self._due + seconds)

    def _move(self, due: float) -> None:
        self._check()
        sooner, self._due = due < self._due, due
        if sooner:  # else it is put back when its old place comes up
            self._clock.push(due, self._come_up, (due,))

    def _check(self) -> None:
        if not self._is_active:
            raise AlreadyCancelled if self._what is not _called else AlreadyCalled

    def _come_up(self, place: float) -> None:
        """Its place in the heap has come up: run, or go to a later one."""
        if not self._is_active or place > self._due:
            return  # or it was moved to a sooner one, and has run there
        if place < self._due:
            self._clock.push(self._due, self._come_up, (self._due,))
            return
        self._is_active = False
        what, self._what = self._what, _called
        what(*self._args)


def _called() -> None:
    """Stands where a timer had its call, once that was made."""


class VirtualClock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self._now = 0.0
        self._heap: list[tuple[float, int, Callable[..., Any], tuple[object, ...]]] = []
        self._pushed = 0

    def seconds(self) -> float:
        """How late it is."""
        return self._now

    def callLater(
        self, delay: float, what: Callable[..., Any], /, *args: object
    ) -> VirtualTimer:
        """Call ``what`` in ``delay`` seconds."""
        return VirtualTimer(self, self._now + delay, what, args)

    def send(self, delay: float, what: Callable[..., Any], /, *args: object) -> None:
        """As :meth:`callLater`, for good: what is on its way can't be called back."""
        self.push(self._now + delay, what, args)

    def push(
        self, due: float, what: Callable[..., Any], args: tuple[object, ...]
    ) -> None:
        """Call it at that moment, after what was to be called then before."""
        self._pushed += 1
        heappush(self._heap, (due, self._pushed, what, args))

    def run_until(self, end: float) -> None:
        """Run all that falls due by that moment, then be there."""
        heap = self._heap
        while heap and heap[0][0] <= end:
            place, _, what, args = heappop(heap)
            self._now = max(self._now, place)
            what(*args)
        self._now = end


class Stallable:
    """A clock whose calls wait while the one whom they are for is stalled.

    :ivar stalled: whether it is.
    """

    def __init__(self, clock: Clock) -> None:
        self.stalled = False
        self._clock = clock
        self._waiting: list[Callable[[], None]] = []

    def seconds(self) -> float:
        """How late it is: that goes on."""
        return self._clock.seconds()

    def callLater(
        self, delay: float, what: Callable[..., Any], /, *args: object
    ) -> StallableTimer:
        """Call ``what`` in ``delay`` seconds, or once the stall is over."""
        return StallableTimer(self, self._clock, delay, what, args)

    def stall(self) -> None:
        """Nothing runs from now on."""
        self.stalled = True

    def go_on(self) -> None:
        """What fell due meanwhile runs at once, in its order, as a reactor does it."""
        self.stalled = False
        waiting, self._waiting = self._waiting, []
        for call in waiting:
            call()

    def run(self, what: Callable[..., Any], /, *args: object) -> None:
        """Call ``what`` now, or once the stall is over."""
        if self.stalled:
            self.wait(partial(what, *args))
        else:
            what(*args)

    def wait(self, call: Callable[[], None]) -> None:
        """Have it called once the stall is over."""
        self._waiting.append(call)


class StallableTimer:
    """A call on a :class:`Stallable`: still to come while it waits for the end."""

    __slots__ = ("_args", "_clock", "_stallable", "_timer", "_waits", "_what")

    def __init__(
        self,
        stallable: Stallable,
        clock: Clock,
        delay: float,
        what: Callable[..., Any],
        args: tuple[object, ...],
    ) -> None:
        self._stallable = stallable
        self._clock = clock
        self._what = what
        self._args = args
        self._waits = False
        self._timer = clock.callLater(delay, self._come_up)

    def getTime(self) -> float:
        """When it falls due, or fell due."""
        return self._timer.getTime()

    def active(self) -> bool:
        """Whether it is still to come."""
        return self._waits or self._timer.active()

    def cancel(self) -> None:
        """Never fall due, or not run though it did."""
        if self._waits:
            self._waits = False
        else:
            self._timer.cancel()

    def delay(self, seconds: float, /) -> None:
        """Fall due that many seconds later than it would."""
        self.reset(self.getTime() - self._clock.seconds() + seconds)

    def reset(self, seconds: float, /) -> None:
        """Fall due that many seconds from now."""
        if self._waits:
            self._waits = False
            self._timer = self._clock.callLater(seconds, self._come_up)
        else:
            self._timer.reset(seconds)

    def _come_up(self) -> None:
        if self._stallable.stalled:
            self._waits = True
            self._stallable.wait(self._go_on)
        else:
            self._what(*self._args)

    def _go_on(self) -> None:
        if self._waits:  # else another call that was due took it back
            self._waits = False
            self._what(*self._args)
