"""Mass loss: when so many are late at once, nobody dies of it for a while.

The fault is more likely the network's than theirs then (contract, section 2, "Mass
loss"). A hold begins with the first whose fuse runs out. It ends when nobody is late
any more, when an operator says so, or after a fixed time, and begins anew only after as
much time without one. Knows client IDs and one clock; what becomes of a client is the
registry's part.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field, frozen

from heartbeat_service.core.clock import Clock, Timer
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
    :ivar end: ends it at the latest.
    """

    name: str
    since: float
    end: Timer


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
        return max(0.0, self.hold.end.getTime() - self.clock.seconds())

    def takes(self, client_id: str, alive: int) -> bool:
        """Whether the hold takes a client whose fuse has run out; else it dies.

        :param alive: how many live, this one among them.
        """
        begins = self.hold is None and self._is_mass(alive)
        if self.hold is None and not begins:
            return False
        self.late.add(client_id)
        self.held[client_id] = None
        if begins:
            self._begin()
        return True

    def forget(self, client_id: str) -> None:
        """A client isn't late any more: it has beaten, is gone, or may be silent.

        With the last of them the hold ends, and not as soon as nobody is held: those
        that are late may have lost the same network, and be about to beat.
        """
        self.late.discard(client_id)
        self.held.pop(client_id, None)
        if not self.late:
            self.end(HoldEnd.RECOVERED)

    def expire(self) -> None:
        """The time of the present hold is up, if there is one."""
        self.end(HoldEnd.TIME)

    def end(self, reason: HoldEnd, by: str | None = None) -> None:
        """End the present hold, if there is one.

        Who is still held dies once its timebomb goes off.

        :param by: which operator did it, if one did.
        """
        hold, left = self.hold, self.seconds_left()
        if hold is None:
            return
        self.stop()
        self._rests_until = self.clock.seconds() + self.longest
        self.tell(MassLossOver(hold.name, len(self.held), left, reason, by))

    def stop(self) -> None:
        """Let the present hold be none, and tell nobody: the service stops."""
        hold, self.hold = self.hold, None
        if hold is not None and hold.end.active():
            hold.end.cancel()

    def _is_mass(self, alive: int) -> bool:
        if self.share is None or self.clock.seconds() < self._rests_until:
            return False
        late = len(self.late)
        # A product of the two would be rounded to more than so many.
        return late >= FEWEST and late / alive >= self.share

    def _begin(self) -> None:
        since = self.wall_clock()
        end = self.clock.callLater(self.longest, self.expire)
        self.hold = Hold(str(int(since * 1e6)), since, end)
        self.tell(MassLossBegun(self.hold.name, len(self.held), self.longest))
