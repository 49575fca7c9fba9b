"""Time in which the service was able to listen (contract, section 2, "Timebomb").

After a stall a reactor runs the timers that are due before it reads the sockets in
which the beats are waiting. So this clock watches how late its own ticks are, and
lets every deadline wait for what was missed. Knows nothing of clients.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from heartbeat_service.core.clock import Clock, Timer

#: How often the clock looks at itself, in seconds.
TICK = 0.1

#: A tick that is later than this was kept from listening, in seconds. What is less
#: is ordinary, and not counted: it would add up to deadlines that are never kept.
TOLERANCE = 0.05

#: Being late for this long is a stall worth telling of, in seconds. TCP's own first
#: pause between two tries to connect is as long.
STALL = 1.0

#: Turns of the reactor between a deadline and its timer: one to take a connection that
#: was waiting, one to read it, and one for what another part hands on. So what has come
#: in by the deadline counts, also after a stall too short to be noticed.
TURNS = 3


class ListeningClock:
    """A clock whose timers don't count the time in which nobody listened.

    :param clock: the reactor, or any other clock that only goes forward.
    :param on_stall: told once after each stall how long it was, in seconds; of
        what is shorter than :data:`STALL`, nothing is told.
    :ivar missed: seconds in which nobody listened, all in all.
    :ivar resumed_at: when that was last so.
    :ivar backlog: seconds that what has piled up in the last stall may take.
    :ivar stalled_at: when that stall ended.
    """

    def __init__(self, clock: Clock, on_stall: Callable[[float], None]) -> None:
        self.missed = 0.0
        self.resumed_at = 0.0
        self.backlog = 0.0
        self.stalled_at = -math.inf
        self._clock = clock
        self._on_stall = on_stall
        self._last_tick = clock.seconds()
        self._ticking = clock.callLater(TICK, self._tick)

    def seconds(self) -> float:
        """How late it is on the clock that this one watches."""
        return self._clock.seconds()

    def callLater(
        self, delay: float, what: Callable[..., Any], /, *args: object
    ) -> ListeningTimer:
        """Call ``what`` after ``delay`` seconds of listening."""
        return ListeningTimer(self, self._clock, delay, what, args)

    def stop(self) -> None:
        """Watch no longer."""
        self._ticking.cancel()

    def notice(self) -> None:
        """Look whether the service has been stalled up to this moment."""
        now = self._clock.seconds()
        late = now - self._last_tick - TICK
        if late > TOLERANCE:
            self._last_tick = now
            self.missed += late
            self.resumed_at = now
            if late >= STALL:
                # TCP doubles its pauses, so a client's next try may be as far off as
                # its first one is.
                self.backlog, self.stalled_at = late + STALL, now
                self._on_stall(late)

    def _tick(self) -> None:
        self.notice()
        self._last_tick = self._clock.seconds()
        self._ticking = self._clock.callLater(TICK, self._tick)


class ListeningTimer:
    """A timer of a :class:`ListeningClock`."""

    __slots__ = (
        "_args",
        "_call",
        "_clock",
        "_delay",
        "_lit_at",
        "_missed",
        "_raw",
        "_turns",
        "_what",
    )

    def __init__(
        self,
        clock: ListeningClock,
        raw: Clock,
        delay: float,
        what: Callable[..., Any],
        args: tuple[object, ...],
    ) -> None:
        self._clock = clock
        self._raw = raw
        self._what = what
        self._args = args
        self._light(delay)
        self._call: Timer = raw.callLater(delay, self._fall_due)

    def reset(self, seconds: float, /) -> None:
        """Fall due after that many seconds of listening, from now."""
        self._light(seconds)
        self._call.reset(seconds)

    def cancel(self) -> None:
        """Never fall due."""
        self._call.cancel()

    def active(self) -> bool:
        """Whether it is still to come."""
        return self._call.active()

    def getTime(self) -> float:
        """When it falls due, if there is no further stall.

        Later by what was missed since it was lit, and by the last stall's backlog; but
        never by more than its whole delay after the end of the last stall.
        """
        clock = self._clock
        due = self._lit_at + self._delay
        wait = clock.missed - self._missed
        if wait > 0:
            wait += TICK  # a stall can be longer than it was late by up to a tick
        if clock.stalled_at > self._lit_at:
            wait += clock.backlog  # once: else stall after stall nobody would ever die
        return min(due + wait, max(due, clock.resumed_at + self._delay))

    def _light(self, delay: float) -> None:
        self._delay = delay
        self._turns = TURNS
        self._lit_at = self._clock.seconds()
        self._missed = self._clock.missed

    def _fall_due(self) -> None:
        self._clock.notice()
        left = self.getTime() - self._clock.seconds()
        if left > 0:
            self._call = self._raw.callLater(left, self._fall_due)
        elif self._turns > 0:
            self._turns -= 1
            self._call = self._raw.callLater(0, self._fall_due)
        else:
            self._what(*self._args)
