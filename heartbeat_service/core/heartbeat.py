"""A client's heartbeat: its values, its rhythm, and the timebomb that it holds.

Knows one clock and one delegate; nothing of states, registries or messages.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Raw

from heartbeat_service.core.clock import Clock

#: The bounds of a fuse, in seconds (contract, section 2, "Timebomb").
SHORTEST_FUSE = 0.1
LONGEST_FUSE = 3600.0

NO_VALUES = Raw(b"{}")


def clamp_fuse(seconds: float, longest: float) -> float:
    """Bring a fuse that a client asked for within the contract's bounds.

    :param longest: the longest that is granted, in seconds.
    """
    return min(max(seconds, SHORTEST_FUSE), longest)


class Heartbeat:
    """The latest values of one client, and the timebomb that each beat resets.

    Lit when it is made; fires ``delegate(client_id)`` once, ``fuse`` seconds
    after the last beat, unless it is defused.

    :param fuse: seconds from a beat to the timebomb.
    :param values: the telemetry of the first beat, a JSON object.
    """

    __slots__ = (
        "_clock",
        "_delegate",
        "_timebomb",
        "beats",
        "client_id",
        "fuse",
        "last_beat",
        "longest_gap",
        "values",
    )

    def __init__(
        self,
        client_id: str,
        delegate: Callable[[str], None],
        clock: Clock,
        fuse: float,
        values: Raw = NO_VALUES,
    ) -> None:
        self.client_id = client_id
        self.values = values
        self.fuse = fuse
        self.beats = 1
        self.longest_gap = 0.0
        self.last_beat = clock.seconds()
        self._clock = clock
        self._delegate = delegate
        self._timebomb = clock.callLater(fuse, delegate, client_id)

    def update(self, values: Raw, fuse: float) -> None:
        """Take the values of a beat and reset the timebomb.

        :param fuse: seconds until the timebomb, from now.
        """
        now = self._clock.seconds()
        if now > self.last_beat + self.longest_gap:
            self.longest_gap = now - self.last_beat
        self.last_beat = now
        self.beats += 1
        self.values = values
        self.fuse = fuse
        self.reset_timebomb(now)

    def reset_timebomb(self, now: float) -> None:
        """Start the countdown anew.

        :param now: how late it is, on the clock's scale.
        """
        later = now + self.fuse - self._timebomb.getTime()
        if later >= 0:
            self._timebomb.delay(later)  # as reset does, which would ask the clock
        else:
            # To bring a DelayedCall nearer costs a look at all of them.
            self._timebomb.cancel()
            self._timebomb = self._clock.callLater(
                self.fuse, self._delegate, self.client_id
            )

    def defuse(self) -> None:
        """Put the timebomb out for good. Must not be called once it has fired."""
        self._timebomb.cancel()

    def seconds_since(self) -> float:
        """Seconds since the last beat."""
        return self._clock.seconds() - self.last_beat

    def longest_silence(self) -> float:
        """The longest time without a beat, in seconds: the present one counts, too."""
        return max(self.longest_gap, self.seconds_since())

    def seconds_left(self) -> float:
        """Seconds until the timebomb, never negative."""
        return max(0.0, self._timebomb.getTime() - self._clock.seconds())
