"""The way of a change: registry, store, listeners, in that order.

Nobody hears of a change before the store has it (contract, section 2, "Applied
means durable"); while the store is in trouble, no change is accepted. Knows the
store's interface only.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice
from typing import Any, TypeVar

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from heartbeat_service.core.changes import Change, Fact, Life, Remembered, Snapshot
from heartbeat_service.core.errors import Overloaded
from heartbeat_service.storage.store import Store, StoreTrouble

T = TypeVar("T")

#: A store that takes longer than this to answer is in trouble, in seconds.
PATIENCE = 5.0

#: How long a store in trouble is left alone before it is asked again, in seconds.
PAUSE = 0.5

#: The most facts in one commit. More would be written no faster, but to tell of
#: them all would keep the reactor from listening.
LARGEST_BATCH = 1_000


@define(eq=False)
class _Entry:
    fact: Fact | None
    waiters: list[Deferred[None]] = field(factory=list)


class ChangeJournal:
    """Leads each change through the store, and tells the listeners in order.

    What waits while a commit is under way shares the next one. A commit that fails
    is tried again until it succeeds.

    :param clock: for patience and pauses: a :class:`ListeningClock`, so that a store
        isn't blamed for a stall, or any other with ``callLater``.
    :param listeners: each hears every durable change, once.
    :ivar trouble: why no change can be made durable now; None if it can.
    """

    _log = Logger()

    def __init__(
        self,
        store: Store,
        clock: Any,
        listeners: Iterable[Callable[[Change], None]],
    ) -> None:
        self.trouble: str | None = "the store is not open yet"
        self._store = store
        self._clock = clock
        self._listeners = tuple(listeners)
        self._opened = False
        self._pending: deque[_Entry] = deque()
        self._latest: dict[str, _Entry] = {}
        self._snapshots: dict[str, _Entry] = {}
        self._writing = False
        self._writer: Deferred[None] = succeed(None)
        self._troubled_since: float | None = None

    async def open(self) -> Remembered:
        """Open the store; what it remembers.

        :raises StoreTrouble: if it can't be opened now; ask again.
        """
        remembered = await self._attempt(self._store.open)
        self._opened = True
        return remembered

    def admit(self) -> None:
        """Pass if a change can be made durable now.

        :raises Overloaded: if it can't.
        """
        if self.trouble is not None:
            raise self._overloaded()

    def record(self, fact: Fact) -> None:
        """Take what has just happened in the registry."""
        if isinstance(fact, Snapshot):
            self._record_snapshot(fact)
            return
        entry = _Entry(fact)
        self._latest[fact.client_id] = entry
        self._snapshots.pop(fact.client_id, None)
        self._append(entry)

    def settled(self, client_id: str) -> Deferred[None]:
        """Fires once nothing of that client that holds answers up waits for the store.

        Fails with :class:`Overloaded` while one can't be made durable.
        """
        return self._wait_for(self._latest.get(client_id))

    def all_settled(self) -> Deferred[None]:
        """Fires once no change, of anybody, waits for the store.

        Fails as :meth:`settled` does.
        """
        changes = (
            entry for entry in reversed(self._pending) if isinstance(entry.fact, Change)
        )
        return self._wait_for(next(changes, None))

    async def check(self) -> str | None:
        """Let the store write something, which can be nothing; its trouble, if any."""
        if self.trouble is None:
            entry = _Entry(None)
            answer = self._wait_for(entry)
            self._append(entry)
            await answer.addErrback(_only, Overloaded)
        return self.trouble

    def former_lives(self, client_id: str) -> Deferred[list[Life]]:
        """The lives of a client that have ended, newest first.

        Fails with :class:`Overloaded` if the store can't tell.
        """

        def refuse(failure: Failure) -> list[Life]:
            failure.trap(StoreTrouble)
            raise Overloaded(failure.getErrorMessage())

        return self._store.former_lives(client_id).addErrback(refuse)

    async def flush(self) -> None:
        """Wait for what is under way, unless the store is in trouble."""
        last = self._pending[-1] if self._pending else None
        await self._wait_for(last).addErrback(_only, Overloaded)

    async def close(self) -> None:
        """Let the store go. What it has not kept by now is lost, and was never told."""
        await self.flush()
        self._opened = False
        self.trouble = "the store is closed"
        self._writer.cancel()
        lost = sum(isinstance(entry.fact, Change) for entry in self._pending)
        if lost:
            self._log.error("changes that were neither kept nor told: {n}", n=lost)
        await self._store.close()

    def _record_snapshot(self, snapshot: Snapshot) -> None:
        """Take a snapshot in place of an older one that waits.

        So what waits is bounded, however long the store is in trouble: beats are
        taken meanwhile, and a client may change its fuse with each.
        """
        client_id = snapshot.client_id
        entry = self._snapshots.get(client_id)
        if is_new := entry is None:
            self._snapshots[client_id] = entry = _Entry(snapshot)
        entry.fact = snapshot
        if snapshot.holds_answers_up:
            self._latest[client_id] = entry
        if is_new:
            self._append(entry)

    def _append(self, entry: _Entry) -> None:
        self._pending.append(entry)
        if not self._writing:
            self._writer = Deferred.fromCoroutine(self._write())
            self._writer.addErrback(_only, CancelledError)

    async def _write(self) -> None:
        self._writing = True
        try:
            while self._pending:
                batch = list(islice(self._pending, LARGEST_BATCH))
                for entry in batch:
                    self._fix(entry)
                facts = [entry.fact for entry in batch if entry.fact is not None]
                while not await self._commit(facts):
                    await deferLater(self._clock, PAUSE)
                for _ in batch:
                    self._announce(self._pending.popleft())
        finally:
            self._writing = False

    def _fix(self, entry: _Entry) -> None:
        """From now on its fact is in the store's hands."""
        fact = entry.fact
        if fact is not None and self._snapshots.get(fact.client_id) is entry:
            del self._snapshots[fact.client_id]

    async def _commit(self, facts: list[Fact]) -> bool:
        try:
            await self._attempt(partial(self._store.commit, facts))
        except StoreTrouble:
            return False
        return True

    async def _attempt(self, ask: Callable[[], Deferred[T]]) -> T:
        slow = self._clock.callLater(
            PATIENCE, self._enter_trouble, f"no answer from the store in {PATIENCE:g} s"
        )
        try:
            answer = await ask()
        except CancelledError:
            raise
        except StoreTrouble as error:
            self._enter_trouble(str(error))
            raise
        except Exception as error:  # a defect of the store must not end the service
            if self._troubled_since is None:
                self._log.failure("The store failed")
            self._enter_trouble(f"the store failed: {error!r}")
            raise StoreTrouble(self.trouble) from error
        finally:
            if slow.active():
                slow.cancel()
        self._leave_trouble()
        return answer

    def _announce(self, entry: _Entry) -> None:
        fact = entry.fact
        if fact is not None and self._latest.get(fact.client_id) is entry:
            del self._latest[fact.client_id]
        if isinstance(fact, Change):
            self._tell(fact)
        for waiter in entry.waiters:
            waiter.callback(None)

    def _tell(self, change: Change) -> None:
        for listener in self._listeners:
            try:
                listener(change)
            except Exception:  # noqa: BLE001 - one deaf listener must not silence the others
                self._log.failure("A listener failed on {change}", change=change)

    def _wait_for(self, entry: _Entry | None) -> Deferred[None]:
        if not self._opened or (entry is not None and self.trouble is not None):
            return fail(self._overloaded())
        if entry is None:
            return succeed(None)
        waiter: Deferred[None] = Deferred()
        entry.waiters.append(waiter)
        return waiter

    def _enter_trouble(self, reason: str) -> None:
        if self._troubled_since is None:
            self._troubled_since = self._clock.seconds()
            self._log.error(
                "No change is accepted until the store can keep it: {reason}",
                reason=reason,
            )
        self.trouble = reason
        for entry in list(self._pending):
            waiters, entry.waiters = entry.waiters, []
            for waiter in waiters:
                waiter.errback(self._overloaded())

    def _leave_trouble(self) -> None:
        self.trouble = None
        if self._troubled_since is not None:
            seconds = self._clock.seconds() - self._troubled_since
            self._troubled_since = None
            self._log.info(
                "The store keeps changes again, after {seconds:.1f} s", seconds=seconds
            )

    def _overloaded(self) -> Overloaded:
        return Overloaded(f"Nothing can be kept now: {self.trouble}")


def _only(failure: Failure, expected: type[Exception]) -> None:
    failure.trap(expected)
