"""A clock that stands still while the service can't listen (contract, section 2).

Each timebomb is a ``DelayedCall`` in this clock's own heap, and one call of the reactor
is aimed at the head of it. After a stall a reactor runs the timers that are due before
it reads the sockets in which the beats are waiting. So this clock counts no stall, goes
on only once everything that had piled up was read, and reads once more before it runs
what is due. No timer has to know of stalls: they don't happen on its clock.

Knows nothing of clients, and of sockets only whether one of them has more to read.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush, heapreplace
from typing import Any

from attrs import define
from twisted.internet.base import DelayedCall
from twisted.logger import Logger

from heartbeat_service.core.clock import Clock

#: The clock looks at itself at least that often, in seconds. A power of two, so that no
#: rounding adds up.
TICK = 0.125

#: A turn of the reactor that took longer than a tick and this, in seconds, and was not
#: spent on work of our own, was a stall. What is less would add up to deadlines that
#: are never kept.
TOLERANCE = 0.05

#: Being kept from listening for this long is worth telling of, in seconds. TCP's own
#: first pause between two tries to connect is as long.
STALL = 1.0

#: A turn that came later than this, in seconds, may have found ZeroMQ's thread not yet
#: back at work ...
PUNCTUAL = 0.01

#: ... and then nothing has piled up only if nothing comes for so long, in seconds.
SETTLING = 0.05

#: Turns of the reactor in which nothing is left: one to take a connection that was
#: waiting, one to read it, and one for what another part hands on.
TURNS = 3

#: What is due waits no longer than this for everything to be read, in seconds: a peer
#: that never stops sending must not keep the silent alive.
LATEST = 1.0

#: How long what is due may keep the reactor from its sockets, in seconds.
SLICE = 0.01

#: A call that was reset keeps its old place in the heap until that comes up. Then those
#: that come up within this time, in seconds, are moved with it, to wake up less often.
AHEAD = 0.01

#: What is due within this time, in seconds, is due: floats are rounded.
ROUNDING = 1e-6

#: How long to wait, in seconds, before it is asked again whether all was read.
PAUSE = 0.001

#: Cancelled calls stay in the heap until they are more than this, and than a quarter.
MOST_CANCELLED = 50

_NO_KEYWORDS: dict[str, object] = {}


class ListeningClock:
    """Time in which the service was able to listen.

    :param clock: the reactor, or any other clock that only goes forward.
    :param on_stall: told once after each stall how long it was, in seconds; of
        what is shorter than :data:`STALL`, nothing is told.
    :param worked: how long this thread has used a processor, in seconds: work of the
        service's own is no stall.
    :ivar unread: whether something has come in that nobody has read yet.
    :ivar on_turn: hears in each turn how much later it comes than it was aimed at, in
        seconds.
    """

    _log = Logger()

    def __init__(
        self,
        clock: Clock,
        on_stall: Callable[[float], None],
        worked: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.unread: Callable[[], bool] = lambda: False
        self.on_turn: Callable[[float], None] = lambda _: None
        self._clock = clock
        self._on_stall = on_stall
        self._worked = worked
        self._worked_before = worked()
        self._turned_at = self._listened = clock.seconds()
        self._stands = self._runs = self._stopped = False
        self._backlog: _Backlog | None = None
        self._due_by = 0.0  # what is due by then runs once the backlog is read
        self._heap: list[DelayedCall] = []
        self._cancelled = 0
        # One object for all calls, instead of one for each.
        self._hooks = (self._count_cancelled, self._move_sooner, self.seconds)
        self._aim = self._turned_at + TICK
        self._next_turn = clock.callLater(TICK, self._turn)

    def seconds(self) -> float:
        """How much time was listened, all in all."""
        if self._stands:
            return self._listened
        return self._listened + self._heard(self._clock.seconds())

    def callLater(
        self, delay: float, what: Callable[..., Any], /, *args: object
    ) -> DelayedCall:
        """Call ``what`` after ``delay`` seconds of listening."""
        call = DelayedCall(
            self.seconds() + delay, what, args, _NO_KEYWORDS, *self._hooks
        )
        heappush(self._heap, call)
        if self._heap[0] is call:
            self._aim_sooner()
        return call

    def getDelayedCalls(self) -> list[DelayedCall]:
        """The calls that are still to come, as a reactor tells them."""
        return [call for call in self._heap if call.active()]

    def stop(self) -> None:
        """Stand still for good."""
        self._stopped = True
        if self._next_turn.active():
            self._next_turn.cancel()

    def _turn(self) -> None:
        """Go on by what was heard, read what has piled up, then run what is due."""
        now = self._clock.seconds()
        missed, punctual = self._take_account()
        if self._backlog is not None:
            if not punctual and not self._stands:
                self._backlog.settle(now)
            if self._backlog.is_read(now, self.unread()):
                self._backlog = None
                self._runs = True
                if self._stands:  # what was due when the stall began was read, too
                    self._stands, self._due_by = False, self._listened + ROUNDING
                    # Else stall after stall nobody would ever die.
                    self._listened += TICK if missed > 0 else 0.0
        if missed > 0 and not self._stands:
            self._stand_still(now, missed)
        if self._runs:
            self._runs = not self._run_due()
        due_by = self.seconds() + ROUNDING
        if not self._runs and not self._backlog and self._is_due(due_by, now + SLICE):
            self._due_by, self._backlog = due_by, _Backlog(now + LATEST)
            if not punctual:
                self._backlog.settle(now)
        if not self._stopped:
            delay = self._delay()
            self._aim = self._clock.seconds() + delay
            self._next_turn = self._clock.callLater(delay, self._turn)

    def _heard(self, now: float) -> float:
        """How much of the time from the last turn to that moment was listened."""
        elapsed = now - self._turned_at
        if elapsed <= TICK + TOLERANCE:
            return elapsed
        return min(elapsed, TICK + TOLERANCE + self._worked() - self._worked_before)

    def _take_account(self) -> tuple[float, bool]:
        """Add what was heard since the last turn.

        :return: seconds that were missed, and whether this turn came in time.
        """
        # One moment for all: what passes between two looks at the clock would count
        # twice, in each turn, and a fuse that is thousands of turns long end early.
        now = self._clock.seconds()
        heard, worked = self._heard(now), self._worked()
        missed = now - self._turned_at - heard
        late = now - self._aim - (worked - self._worked_before)
        self.on_turn(max(0.0, now - self._aim))
        self._turned_at, self._worked_before = now, worked
        if not self._stands:
            self._listened += heard
        if missed >= STALL:
            self._on_stall(missed)
        return missed, late <= PUNCTUAL

    def _stand_still(self, now: float, missed: float) -> None:
        """After a stall, stand until what has piled up is read.

        At most for as long as the stall and a second: TCP doubles its pauses, so a
        client's next try to connect may be as far off as its first was. That is fixed
        when the stall ends; another stall meanwhile doesn't put it off, else stall
        after stall nobody would ever die.
        """
        self._stands = True
        self._backlog = _Backlog(now + missed + STALL)
        self._backlog.settle(now)

    def _is_due(self, by: float, end: float) -> bool:
        """Whether a call is due by then, on this clock's scale.

        Puts the heap's head in order on the way.

        :param end: when to leave the rest to the next turn, on the reactor's scale.
        """
        heap = self._heap
        while heap and heap[0].time <= by + AHEAD and self._clock.seconds() < end:
            call = heap[0]
            if call.cancelled:
                heappop(heap)
                self._cancelled -= 1
            elif call.delayed_time:
                call.activate_delay()
                heapreplace(heap, call)
            else:
                return call.time <= by
        return False

    def _run_due(self) -> bool:
        """Run a slice of what is due; whether that was all."""
        end = self._clock.seconds() + SLICE
        while self._is_due(self._due_by, end):
            call = heappop(self._heap)
            call.called = 1
            try:
                call.func(*call.args)
            except Exception:  # noqa: BLE001 - as a reactor does: the others are due, too
                self._log.failure("A delayed call failed")
        return self._clock.seconds() < end

    def _delay(self) -> float:
        """Seconds until the next turn."""
        if self._runs:
            return 0.0
        if self._backlog is not None:
            return self._backlog.pause
        if not self._heap:
            return TICK
        return min(TICK, max(0.0, self._heap[0].time - self.seconds()))

    def _aim_sooner(self) -> None:
        # In the midst of a turn there is no next one yet; its end will look.
        if self._next_turn.active() and not self._backlog and not self._runs:
            aim = self._clock.seconds() + self._delay()
            if aim < self._aim:
                self._aim = aim
                self._next_turn.reset(self._delay())

    def _move_sooner(self, call: DelayedCall) -> None:
        # Slow, and rare: a Heartbeat whose fuse gets shorter makes a new call.
        heapify(self._heap)
        if self._heap[0] is call:
            self._aim_sooner()

    def _count_cancelled(self, _: DelayedCall) -> None:
        self._cancelled += 1
        if self._cancelled > max(MOST_CANCELLED, len(self._heap) // 4):
            # The one that is being cancelled isn't marked yet; its turn comes.
            self._heap = [call for call in self._heap if not call.cancelled]
            heapify(self._heap)
            self._cancelled = 1


@define
class _Backlog:
    """What had come in by some moment, and may not have been read yet.

    :ivar latest: when it counts as read, whatever comes in.
    :ivar pause: seconds until it may be worth while to ask again.
    """

    latest: float
    pause: float = 0.0
    _turns: int = TURNS
    _settled_at: float = 0.0

    def settle(self, now: float) -> None:
        """ZeroMQ's thread, too, may have been kept from its sockets up to now."""
        self._turns = TURNS
        self._settled_at = now + SETTLING

    def is_read(self, now: float, unread: bool) -> bool:
        """Whether all of it was read, as far as can be told."""
        if unread:
            self._turns = TURNS
            if self._settled_at:
                self._settled_at = now + SETTLING
        else:
            self._turns -= 1
        read = self._turns <= 0 and now >= self._settled_at
        read |= now >= self.latest
        self.pause = PAUSE if not read and (unread or self._turns <= 0) else 0.0
        return read
