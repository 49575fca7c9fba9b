"""Limits on how often something may happen: in all, or for each of many.

Knows one clock; nothing of what happens.
"""

from __future__ import annotations

from attrs import define, field

from heartbeat_service.core.clock import Clock


@define(eq=False)
class RateLimit:
    """A token bucket: so many a second, and as many at once after a quiet second.

    :ivar per_second: how many.
    """

    clock: Clock
    per_second: int
    _left: float = field(init=False)
    _filled_at: float = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._left = self.per_second
        self._filled_at = self.clock.seconds()

    def take(self) -> bool:
        """Whether it may happen once more, now."""
        now = self.clock.seconds()
        gained = (now - self._filled_at) * self.per_second
        self._left = min(self.per_second, self._left + gained)
        self._filled_at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


@define(eq=False)
class RateLimitEach:
    """So many in any second, for each of any number of names.

    Remembers nobody for longer than two seconds.

    :ivar per_second: how many.
    """

    clock: Clock
    per_second: int
    _recent: dict[str, list[float]] = field(factory=dict, init=False)
    _before: dict[str, list[float]] = field(factory=dict, init=False)
    _since: float = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._since = self.clock.seconds()

    def take(self, name: str) -> bool:
        """Whether it may happen once more for that name, now."""
        now = self.clock.seconds()
        self._forget(now)
        times = self._before.pop(name, None) or self._recent.get(name) or []
        times = [time for time in times if time > now - 1]
        self._recent[name] = times
        if len(times) >= self.per_second:
            return False
        times.append(now)
        return True

    def _forget(self, now: float) -> None:
        if now >= self._since + 1:
            self._before = self._recent if now < self._since + 2 else {}
            self._recent = {}
            self._since = now
