"""Who takes over the clients of a session that ended.

Its heirs are written once, by whoever is first; every node knows from them which has
which client. The first in the list of nodes writes at once, each other one later, and
not at all if it is done by then. Knows sessions and their heirs; no clients.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from attrs import define, evolve, field
from twisted.logger import Logger

from heartbeat_service.storage.etcd.keys import Keys
from heartbeat_service.storage.etcd.membership import Membership, NodeSession
from heartbeat_service.storage.etcd.port import (
    Compare,
    Delete,
    Etcd,
    EtcdError,
    EtcdRefuses,
    Get,
    Put,
    Transaction,
)
from heartbeat_service.storage.etcd.records import HeirsRecord, encode
from heartbeat_service.storage.etcd.replica import Replica
from heartbeat_service.storage.nodes import WORD_HOLDS

#: How much longer each node waits than the one before it in the list, in seconds.
TURN = 0.5

#: The most heirs of one session: etcd takes 128 conditions.
MOST_HEIRS = 100

#: How often it is looked whose heirs nobody has to know any more, in seconds.
TIDYING = 600.0


@define(eq=False)
class Succession:
    """Sees to it that every client has a node.

    :ivar clock: the reactor.
    """

    clock: Any
    etcd: Etcd
    keys: Keys
    replica: Replica
    member: Membership
    _log: ClassVar[Logger] = Logger()
    _orphaned_since: dict[str, float] = field(factory=dict)
    _is_refusal_told: bool = field(default=False, init=False)
    _tidied_at: float = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._tidied_at = self.clock.seconds()

    def is_first(self) -> bool:
        """Whether this node does what one of them has to do."""
        living, session = self.replica.living(), self.member.session
        return bool(living) and session is not None and living[0] == session.name

    async def look(self) -> None:
        """Write the heirs of sessions that ended without any, if it is our turn."""
        now, orphanages = self.clock.seconds(), self.replica.orphanages()
        seen = {one: self._orphaned_since.get(one, now) for one in orphanages}
        self._orphaned_since = seen
        living, session = self.replica.living(), self.member.session
        if session is None or session.name not in living:
            return
        # Until then, a node that has lost etcd may rely on our word that we had, too.
        if now - self.member.since < WORD_HOLDS:
            return
        turn = living.index(session.name) * TURN
        for dead in [one for one, since in seen.items() if now - since >= turn]:
            self.member.standing.stir()  # also if it isn't heard that it was done
            gone = Compare(self.keys.node(dead), 0)
            await self._try(self._bequest(dead, living, session, gone))
        await self._tidy(now)

    async def bequeath_own(self, session: NodeSession) -> int | None:
        """Let other nodes have this one's clients; from then on it writes nothing.

        :return: the revision at which that was written, or 0 if others have them
            because the session is over; None if nobody is there to have them.
        :raises EtcdError: if it can't be done now.
        """
        others = [one for one in self.replica.living() if one != session.name]
        while others:
            heirs = others[:MOST_HEIRS]
            outcome = await self.etcd.transact(
                evolve(
                    self._bequest(session.name, heirs, session),
                    otherwise=[Get(self.keys.heirs(one)) for one in heirs],
                )
            )
            if outcome.held:
                return outcome.revision
            gone = [one for one, key in zip(heirs, outcome.results, strict=True) if key]
            if not gone:  # our own session is over
                return 0
            others = [one for one in others if one not in gone]
        return None

    def _bequest(
        self, dead: str, living: Sequence[str], session: NodeSession, *more: Compare
    ) -> Transaction:
        """Write the heirs of a session.

        None of them may have heirs itself: they could go in a ring then.
        """
        heirs = tuple(living[:MOST_HEIRS])
        names = dict.fromkeys((dead, session.name, *heirs))
        return Transaction(
            [
                session.lives(),
                *(Compare(self.keys.heirs(one), 0) for one in names),
                *more,
            ],
            [Put(self.keys.heirs(dead), encode(HeirsRecord(heirs)))],
        )

    async def _tidy(self, now: float) -> None:
        if now - self._tidied_at < TIDYING or not self.is_first():
            return
        self._tidied_at = now
        for session in self.replica.needless_heirs()[:MOST_HEIRS]:
            await self._try(Transaction([], [Delete(self.keys.heirs(session))]))

    async def _try(self, transaction: Transaction) -> None:
        """Ask once; what it is for is looked at again."""
        try:
            await self.etcd.transact(transaction)
        except EtcdRefuses as error:
            if not self._is_refusal_told:
                self._log.error("no node can take clients over: {error}", error=error)
            self._is_refusal_told = True
        except EtcdError:
            return
        else:
            self._is_refusal_told = False
