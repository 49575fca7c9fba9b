"""Which client IDs an operator keeps out, and for how long (contract, section 2).

Each lock-out is one call of the clock, and ends with it. Knows no client that lives;
to kick who is locked out is the registry's part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from attrs import define, field

from heartbeat_service.core.changes import Lockout
from heartbeat_service.core.clock import Clock, Timer
from heartbeat_service.core.errors import LockedOut, Overloaded


@define(eq=False)
class Lockouts:
    """``{client id: when it may come back}``.

    :ivar clock: tells how time passes.
    :ivar wall_clock: seconds since the epoch, which a restart doesn't set back.
    :ivar listener: hears of each that begins, is changed, or ends.
    :ivar most: how many may be kept out at once.
    """

    clock: Clock
    wall_clock: Callable[[], float]
    listener: Callable[[Lockout], None]
    most: int
    _ends: dict[str, Timer] = field(factory=dict, init=False)
    _begun: dict[str, Lockout] = field(factory=dict, init=False)

    def __len__(self) -> int:
        """How many are kept out."""
        return len(self._ends)

    def check(self, client_id: str) -> None:
        """Let pass who is not kept out.

        :raises LockedOut: if the client is.
        """
        if client_id in self._ends:
            seconds = self.seconds_left(client_id)
            raise LockedOut(
                f"an operator keeps this client out for {seconds:.0f} s more", client_id
            )

    def admit(self, client_id: str) -> None:
        """Pass if there is room for this one, or if it is kept out already.

        :raises Overloaded: if there isn't.
        """
        if client_id not in self._ends and len(self._ends) >= self.most:
            raise Overloaded(f"{self.most} clients are kept out already", client_id)

    def client_ids(self) -> list[str]:
        """Who is kept out."""
        return list(self._ends)

    def seconds_left(self, client_id: str) -> float | None:
        """For how much longer a client is kept out; None if it isn't."""
        end = self._ends.get(client_id)
        return None if end is None else max(0.0, end.getTime() - self.clock.seconds())

    def set(
        self,
        client_id: str,
        seconds: float,
        by: str | None = None,
        incarnation: int | None = None,
    ) -> None:
        """Keep a client out for so many seconds from now; with 0, no longer.

        :param by: which operator wants it, if that is known.
        :param incarnation: the life that it ends, if it ends one.
        """
        client_id = str(client_id)  # a route's own kind of string can't be written down
        if seconds:
            until = self.wall_clock() + seconds
            if incarnation is None:
                incarnation = self._ended_life(client_id)
            lockout = Lockout(client_id, until, by, incarnation, seconds)
            self._keep_out(lockout, seconds)
            self.listener(lockout)
        elif client_id in self._ends:
            self._let_in(client_id, by)

    def restore(self, stored: Iterable[Lockout]) -> None:
        """Go on after a restart."""
        now = self.wall_clock()
        for lockout in stored:
            self._keep_out(lockout, max(0.0, lockout.until - now))

    def take(self, lockout: Lockout) -> None:
        """Keep out, or let in, whom another node does. Nobody is told."""
        left = lockout.until - self.wall_clock()
        if left > 0:
            self._keep_out(lockout, left)
        else:
            self._forget(lockout.client_id)

    def by(self, client_id: str) -> str | None:
        """Which operator keeps a client out, if that is known."""
        begun = self._begun.get(client_id)
        return None if begun is None else begun.by

    def _keep_out(self, lockout: Lockout, seconds: float) -> None:
        client_id = lockout.client_id
        self._forget(client_id)
        self._ends[client_id] = self.clock.callLater(seconds, self._let_in, client_id)
        self._begun[client_id] = lockout

    def _let_in(self, client_id: str, by: str | None = None) -> None:
        incarnation = self._ended_life(client_id)
        self._forget(client_id)
        self.listener(Lockout(client_id, 0.0, by, incarnation))

    def _ended_life(self, client_id: str) -> int | None:
        begun = self._begun.get(client_id)
        return None if begun is None else begun.incarnation

    def _forget(self, client_id: str) -> None:
        self._begun.pop(client_id, None)
        former = self._ends.pop(client_id, None)
        if former is not None and former.active():
            former.cancel()
