"""A limit on how often something may happen.

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
