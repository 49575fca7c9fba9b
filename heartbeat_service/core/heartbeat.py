"""A client's heartbeat: its values, its rhythm, and the timebomb that it holds.

The timebomb is one call of the clock, and goes off twice: first as a warning, when the
client is late, then for good. Most clients never get as far as the warning. Knows one
clock and its two delegates; nothing of states, registries or messages.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from functools import lru_cache

from msgspec import Raw

from heartbeat_service.core.clock import Clock, Timer

#: The bounds of a fuse, in seconds (contract, section 2, "Timebomb").
SHORTEST_FUSE = 0.1
LONGEST_FUSE = 3600.0

NO_VALUES = Raw(b"{}")


def clamp_fuse(seconds: float, longest: float) -> float:
    """Bring a fuse that a client asked for within the contract's bounds.

    :param longest: the longest that is granted, in seconds.
    """
    return min(max(seconds, SHORTEST_FUSE), longest)


def told_interval(fuse: float, interval: float) -> float:
    """Seconds between two beats, as a client with that fuse is told.

    Who asks for a fuse as short as the interval has to beat faster.
    """
    return interval if interval < fuse else fuse / 2


# One number for all that have the same fuse, instead of one for each.
@lru_cache(maxsize=1_000)
def late_after(fuse: float, interval: float) -> float:
    """Seconds without a beat after which a client is late (contract, section 2)."""
    return min(2 * told_interval(fuse, interval), 0.75 * fuse)


class Stage(Enum):
    """How far a timebomb has burnt, or why it doesn't burn as ever."""

    PUNCTUAL = auto()
    LATE = auto()
    HELD = auto()
    SILENT = auto()
    ELSEWHERE = auto()  # another node has the timebomb (contract, section 7)


_PUNCTUAL = Stage.PUNCTUAL

#: Hears whose heartbeat it is.
Delegate = Callable[[str], None]


class _NoTimebomb:
    """In the place of a timebomb that another node has."""

    def reset(self, seconds: float, /) -> None:
        pass

    def delay(self, seconds: float, /) -> None:
        pass

    def cancel(self) -> None:
        pass

    def getTime(self) -> float:
        return 0.0

    def active(self) -> bool:
        return False


_NO_TIMEBOMB = _NoTimebomb()


class Heartbeat:
    """The latest values of one client, and the timebomb that each beat resets.

    Lit when it is made; fires ``delegate(client_id)`` once, ``fuse`` seconds
    after the last beat, unless it is defused, and ``warn(client_id)`` before. One whose
    client beats at another node has no timebomb until the client comes here.

    :param fuse: seconds from a beat to the timebomb.
    :param late_after: seconds from a beat to the warning.
    :param values: the telemetry of the first beat, a JSON object.
    :param here: whether its client beats at this node.
    :ivar stage: what is to come: the warning or the end, and why it isn't as ever.
    """

    __slots__ = (
        "_clock",
        "_delegate",
        "_timebomb",
        "_warn",
        "beats",
        "client_id",
        "fuse",
        "last_beat",
        "late_after",
        "longest_gap",
        "stage",
        "values",
    )

    def __init__(
        self,
        client_id: str,
        delegate: Delegate,
        warn: Delegate,
        clock: Clock,
        fuse: float,
        late_after: float,
        values: Raw = NO_VALUES,
        here: bool = True,
    ) -> None:
        self.client_id = client_id
        self.values = values
        self.fuse = fuse
        self.late_after = late_after
        self.beats = 1
        self.longest_gap = 0.0
        self.last_beat = clock.seconds()
        self._clock = clock
        self._delegate = delegate
        self._warn = warn
        self.stage = _PUNCTUAL if here else Stage.ELSEWHERE
        self._timebomb: Timer = (
            clock.callLater(late_after, warn, client_id) if here else _NO_TIMEBOMB
        )

    def update(self, values: Raw) -> None:
        """Take the values of a beat and reset the timebomb."""
        now = self._clock.seconds()
        if now > self.last_beat + self.longest_gap:
            self.longest_gap = now - self.last_beat
        self.last_beat = now
        self.beats += 1
        self.values = values
        self.reset_timebomb(now)

    def reset_timebomb(self, now: float) -> None:
        """Start the countdown anew, with the warning before it.

        :param now: how late it is, on the clock's scale.
        """
        later = now + self.late_after - self._timebomb.getTime()
        if later >= 0 and self.stage is _PUNCTUAL:
            self._timebomb.delay(later)  # as reset does, which would ask the clock
            return
        # To bring a DelayedCall nearer costs a look at all of them.
        self._timebomb.cancel()
        self.stage = _PUNCTUAL
        self._timebomb = self._clock.callLater(
            self.late_after, self._warn, self.client_id
        )

    def fall_late(self) -> None:
        """The warning has come: what is left of the fuse burns on."""
        left = self._timebomb.getTime() + self.fuse - self.late_after
        self._light(Stage.LATE, left - self._clock.seconds())

    def hold(self, seconds: float) -> None:
        """Burn so many seconds more, though the fuse has run out."""
        self._relight(Stage.HELD, seconds)

    def silence(self, seconds: float) -> float:
        """Burn so many seconds from now, at least what is left, and don't be late.

        :return: how many.
        """
        seconds = max(seconds, self.seconds_left())
        self._relight(Stage.SILENT, seconds)
        return seconds

    def renew(self) -> None:
        """Burn from now on for a whole fuse, or for what was granted beyond.

        Whatever stage it was in: nobody was there to hear its client.
        """
        left = max(self.fuse, self.seconds_left())
        if self.stage is _PUNCTUAL:
            self.reset_timebomb(self._clock.seconds())
        else:
            self._relight(self.stage, left)

    def burn_on(self, seconds: float) -> None:
        """Burn so many seconds more, in whatever stage it is."""
        self._relight(self.stage, seconds)

    def arrive(self) -> None:
        """The client of another node beats here from now on."""
        self.last_beat = self._clock.seconds()
        self.reset_timebomb(self.last_beat)

    def leave(self) -> None:
        """The client beats at another node from now on."""
        if self._timebomb.active():
            self._timebomb.cancel()
        self._timebomb = _NO_TIMEBOMB
        self.stage = Stage.ELSEWHERE
        self.values = NO_VALUES

    def defuse(self) -> None:
        """Put the timebomb out for good. Must not be called once it has fired."""
        self._timebomb.cancel()

    def seconds_since(self) -> float:
        """Seconds since the last beat."""
        return self._clock.seconds() - self.last_beat

    def due(self) -> float:
        """When the timebomb goes off, or went off, on the clock's scale.

        While the warning is to come, that is meant.
        """
        return self._timebomb.getTime()

    def longest_silence(self) -> float:
        """The longest time without a beat, in seconds: the present one counts, too."""
        return max(self.longest_gap, self.seconds_since())

    def seconds_left(self) -> float:
        """Seconds until the timebomb, never negative; 0 for who is held."""
        if self.stage is Stage.HELD:
            return 0.0
        warning = self.fuse - self.late_after if self.stage is _PUNCTUAL else 0.0
        return max(0.0, self._timebomb.getTime() + warning - self._clock.seconds())

    def _relight(self, stage: Stage, seconds: float) -> None:
        if self._timebomb.active():
            self._timebomb.cancel()
        self._light(stage, seconds)

    def _light(self, stage: Stage, seconds: float) -> None:
        self.stage = stage
        self._timebomb = self._clock.callLater(
            max(0.0, seconds), self._delegate, self.client_id
        )
