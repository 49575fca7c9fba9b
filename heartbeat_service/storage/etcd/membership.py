"""This node's session with etcd: a lease, kept alive, and a key that ends with it.

A node is sure of its session for the lease's time to live after it last *asked* etcd to
keep it alive, and was answered; and only while its watch is alive, and has told what
happened before it began: it must know what others do. All of that is told to its
``Standing``. Knows no clients.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from attrs import define, frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from heartbeat_service.core.registry import ARRIVAL
from heartbeat_service.storage.etcd.port import (
    Compare,
    Etcd,
    EtcdError,
    Put,
    Transaction,
)
from heartbeat_service.storage.nodes import Standing

#: How long a session outlives its node, in seconds.
TIME_TO_LIVE = 5

#: How long it is until a failed request is tried again, in seconds.
PAUSE = 0.3

#: For how long it holds that the watch was alive, in seconds. Others count on it.
WATCH_HOLDS = ARRIVAL


_BEHIND = "it doesn't know yet what has happened"


@frozen
class NodeSession:
    """One run of a node, as etcd knows it.

    :ivar name: names it, and no other.
    :ivar key: what ends with it.
    :ivar made_at: the revision that made the key; if it has another one, it is over.
    """

    name: str
    key: bytes
    lease: int
    made_at: int

    def lives(self) -> Compare:
        """The condition that it isn't over."""
        return Compare(self.key, self.made_at, of_creation=True)


@define(eq=False)
class Membership:
    """Begins a session, and keeps it as long as it can.

    :ivar clock: the reactor.
    :ivar lost: is told of a session that is over.
    :ivar touched: is told why etcd can't be asked now, and None once it can again, and
        whenever this node wasn't sure of its session in between.
    :ivar since: when it came in touch last.
    """

    clock: Any
    etcd: Etcd
    standing: Standing
    lost: Callable[[NodeSession], object]
    touched: Callable[[str | None], object]
    session: NodeSession | None = None
    since: float = math.inf
    _session_until: float = -math.inf
    _watched_until: float = -math.inf
    _no_session: str | None = "it has no session"
    _no_watch: str | None = "it has no watch"
    _behind: str | None = _BEHIND
    _told: str | None = "it was never in touch"
    _keeping: Deferred[None] | None = None

    def __attrs_post_init__(self) -> None:
        self._reckon()

    async def begin(self, name: str, key: bytes, value: bytes) -> None:
        """Begin a session.

        :param name: of the session; never used before.
        :raises EtcdError: if that can't be done now, or nobody knows whether it was.
        """
        asked_at = self.clock.seconds()
        lease = await self.etcd.grant(TIME_TO_LIVE)
        made = await self.etcd.transact(
            Transaction([Compare(key, 0)], [Put(key, value, lease)])
        )
        self.session = NodeSession(name, key, lease, made.revision)
        self._no_session = None
        self._reckon(session_until=asked_at + TIME_TO_LIVE)
        self._keeping = Deferred.fromCoroutine(self._keep_alive(self.session))
        self._keeping.addErrback(Failure.trap, CancelledError)

    def end(self) -> None:
        """Nobody keeps the session alive any more, and this node isn't sure of it."""
        self.session = None
        self._no_session = "its session has ended"
        self._behind = _BEHIND
        if self._keeping is not None:
            self._keeping.cancel()
        self._reckon(session_until=-math.inf)

    def caught_up(self) -> None:
        """All was told that happened before the session and the watch began."""
        self._behind = None
        self._reckon()

    def watched(self) -> None:
        """The watch is alive."""
        self._no_watch = None
        self._reckon(watched_until=self.clock.seconds() + WATCH_HOLDS)

    def watch_lost(self, error: EtcdError) -> None:
        """There is no watch now."""
        self._no_watch, self._behind = str(error), _BEHIND
        self._reckon()

    async def _keep_alive(self, session: NodeSession) -> None:
        while self.session is session:
            await deferLater(self.clock, TIME_TO_LIVE / 3)
            while not await self._keeps(session):
                await deferLater(self.clock, PAUSE)

    async def _keeps(self, session: NodeSession) -> bool:
        """Ask once that the session goes on; whether there was an answer."""
        asked_at = self.clock.seconds()
        try:
            left = await self.etcd.keep_alive(session.lease)
        except EtcdError as error:
            self._no_session = str(error)
            self._reckon()
            return False
        if self.session is not session:
            return True
        if left <= 0:
            self._keeping = None  # it is what runs here, and ends by itself
            self.lost(session)
            return True
        self._no_session = None
        self._reckon(session_until=asked_at + TIME_TO_LIVE)
        return True

    def _reckon(
        self, session_until: float | None = None, watched_until: float | None = None
    ) -> None:
        standing, now = self.standing, self.clock.seconds()
        was_sure = standing.may_kill()
        if session_until is not None:
            self._session_until = session_until
        if watched_until is not None:
            self._watched_until = watched_until
        until = min(self._session_until, self._watched_until)
        trouble = self._no_session or self._no_watch or self._behind
        standing.reckon(None if self._behind else until, trouble is None)
        if trouble is None and not was_sure and standing.may_kill():
            self.since = now
            self._told = None
            self.touched(None)
        elif trouble is not None and self._told is None:
            self.since = math.inf
            self._told = trouble
            self.touched(trouble)
