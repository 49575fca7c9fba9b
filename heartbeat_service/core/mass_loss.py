"""Mass loss: when so many are late at once, nobody dies of it for a while.

The fault is more likely the network's than theirs then (contract, section 2, "Mass
loss"). A hold begins with the first whose fuse runs out, ends after a fixed time at the
latest, and doesn't begin again before as much time has passed without one. Knows client
IDs and one clock; what becomes of a client is the registry's part.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field, frozen

from heartbeat_service.core.clock import Clock
from heartbeat_service.core.notices import (
    HoldEnd,
    MassLossBegun,
    MassLossOver,
    Notice,
)

#: A mass are so many that are late, at least.
FEWEST = 3


@frozen
class Hold:
    """A time in which nobody dies.

    :ivar name: names this one, and no other, of any run.
    :ivar since: when it began, in seconds since the epoch.
    :ivar until: when it ends at the latest, on the clock's scale.
    """

    name: str
    since: float
    until: float


@define(eq=False)
class MassLoss:
    """Who is late, who is held, and whether there is a hold.

    :ivar share: how many of all must be late, from 0 to 1; None for no hold ever.
    :ivar longest: how long a hold lasts at the most, in seconds.
    :ivar late: who is late, those that are held among them.
    :ivar held: who is held, in the order in which their fuses ran out.
    :ivar hold: the present one.
    """

    clock: Clock
    wall_clock: Callable[[], float]
    tell: Callable[[Notice], None]
    share: float | None = None
    longest: float = 60.0
    late: set[str] = field(factory=set, init=False)
    held: dict[str, None] = field(factory=dict, init=False)
    hold: Hold | None = field(default=None, init=False)
    _rests_until: float = field(default=0.0, init=False)

    def seconds_left(self) -> float:
        """For how much longer the present hold can last; 0 without one."""
        if self.hold is None:
            return 0.0
        return max(0.0, self.hold.until - self.clock.seconds())

    def takes(self, client_id: str, alive: int) -> bool:
        """Whether the hold takes a client whose fuse has run out; else it dies.

        :param alive: how many live, this one among them.
        """
        if self.hold is not None and not self.seconds_left():
            self.expire()
        begins = self.hold is None and self._begins(alive)
        if self.hold is None:
            return False
        self.late.add(client_id)
        self.held[client_id] = None
        if begins:
            left = self.seconds_left()
            self.tell(MassLossBegun(self.hold.name, len(self.held), left))
        return True

    def expire(self) -> None:
        """The time of the present hold is up, if there is one."""
        if self.hold is not None:
            self.end(HoldEnd.TIME)

    def forget(self, client_id: str) -> bool:
        """A client has beaten, or is gone; whether it was late or held."""
        if client_id not in self.late:
            return False
        self.late.remove(client_id)
        if client_id in self.held:
            del self.held[client_id]
            if not self.held and self.hold is not None:
                self.end(HoldEnd.RECOVERED)
        return True

    def end(self, reason: HoldEnd) -> None:
        """End the present hold; who is still held dies once its timebomb is lit."""
        hold, left = self.hold, self.seconds_left()
        assert hold is not None
        self.hold = None
        self._rests_until = self.clock.seconds() + self.longest
        self.tell(MassLossOver(hold.name, len(self.held), left, reason))

    def _begins(self, alive: int) -> bool:
        now = self.clock.seconds()
        if self.share is None or now < self._rests_until:
            return False
        if len(self.late) < max(FEWEST, self.share * alive):
            return False
        since = self.wall_clock()
        self.hold = Hold(str(int(since * 1e6)), since, now + self.longest)
        return True
