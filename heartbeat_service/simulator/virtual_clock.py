"""A clock that jumps from one call to the next, in a heap.

Twisted's ``task.Clock`` sorts all of its calls with each new one; ten thousand clients
for a day make tens of millions of them. This one has the same methods. Calls that fall
due at one moment run in the order in which they were made, so a run can be repeated.

:class:`Stallable` is the same clock as a process sees it that is kept from running now
and then. Knows no client and no engine.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

from heartbeat_service.core.clock import Clock, Timer


class VirtualTimer:
    """A call that is to come; what Twisted's ``DelayedCall`` is to a reactor."""

    __slots__ = ("_clock", "_due", "_is_active", "args", "what")

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
        self.what = what
        self.args = args

    def getTime(self) -> float:
        """When it falls due, on the clock's scale."""
        return self._due

    def active(self) -> bool:
        """Whether it is still to come."""
        return self._is_active

    def cancel(self) -> None:
        """Never fall due."""
        self._is_active = False

    def reset(self, seconds: float, /) -> None:
        """Fall due that many seconds from now."""
        self._move(self._clock.seconds() + seconds)

    def delay(self, seconds: float, /) -> None:
        """Fall due that many seconds later than it would."""
        self._move(self._due + seconds)

    def _move(self, due: float) -> None:
        sooner, self._due = due < self._due, due
        if sooner:  # else it is put back when its old place comes up
            self._clock.push(self)

    def run_if_due(self, place: float) -> None:
        """Its place in the heap has come up: run, or go to a later one."""
        if not self._is_active or place > self._due:
            return  # or it was moved to a sooner one, and has run there
        if place < self._due:
            self._clock.push(self)
            return
        self._is_active = False
        self.what(*self.args)


class VirtualClock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self._now = 0.0
        self._heap: list[tuple[float, int, VirtualTimer]] = []
        self._pushed = 0

    def seconds(self) -> float:
        """How late it is."""
        return self._now

    def callLater(
        self, delay: float, what: Callable[..., Any], /, *args: object
    ) -> VirtualTimer:
        """Call ``what`` in ``delay`` seconds."""
        timer = VirtualTimer(self, self._now + delay, what, args)
        self.push(timer)
        return timer

    def push(self, timer: VirtualTimer) -> None:
        """Give a timer a place in the heap."""
        self._pushed += 1
        heappush(self._heap, (timer.getTime(), self._pushed, timer))

    def run_until(self, end: float) -> None:
        """Run all that falls due by that moment, then be there."""
        heap = self._heap
        while heap and heap[0][0] <= end:
            place, _, timer = heappop(heap)
            self._now = max(self._now, place)
            timer.run_if_due(place)
        self._now = end


class Stallable:
    """A clock whose calls wait while the one whom they are for is stalled.

    :ivar stalled: whether it is.
    """

    def __init__(self, clock: Clock) -> None:
        self.stalled = False
        self._clock = clock
        self._waiting: list[tuple[Callable[..., Any], tuple[object, ...]]] = []

    def seconds(self) -> float:
        """How late it is: that goes on."""
        return self._clock.seconds()

    def callLater(
        self, delay: float, what: Callable[..., Any], /, *args: object
    ) -> Timer:
        """Call ``what`` in ``delay`` seconds, or once the stall is over."""
        return self._clock.callLater(delay, self.run, what, *args)

    def stall(self) -> None:
        """Nothing runs from now on."""
        self.stalled = True

    def go_on(self) -> None:
        """What fell due meanwhile runs at once, as a reactor does it."""
        self.stalled = False
        waiting, self._waiting = self._waiting, []
        for what, args in waiting:
            what(*args)

    def run(self, what: Callable[..., Any], /, *args: object) -> None:
        """Call ``what`` now, or once the stall is over."""
        if self.stalled:
            self._waiting.append((what, args))
        else:
            what(*args)
