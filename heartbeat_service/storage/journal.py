"""The way of a change: registry, store, listeners, in that order.

Nobody hears of a change before the store has it (contract, section 2, "Applied
means durable"). Knows the store's interface only.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from attrs import define, field
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from heartbeat_service.core.changes import Change, Life
from heartbeat_service.storage.store import Store


@define(eq=False)
class _Entry:
    change: Change
    durable: bool = False
    waiters: list[Deferred[None]] = field(factory=list)


class ChangeJournal:
    """Leads each change through the store, and tells the listeners in order.

    :param listeners: each hears every durable change, once.
    """

    _log = Logger()

    def __init__(
        self, store: Store, listeners: Iterable[Callable[[Change], None]]
    ) -> None:
        self._store = store
        self._listeners = tuple(listeners)
        self._pending: deque[_Entry] = deque()
        self._latest: dict[str, _Entry] = {}
        self._announcing = False

    def record(self, change: Change) -> None:
        """Take a change that the registry has just made."""
        entry = _Entry(change)
        self._pending.append(entry)
        self._latest[change.client_id] = entry
        self._store.commit(change).addCallback(self._committed, entry).addErrback(
            lambda failure: self._log.failure("A store broke its promise", failure)
        )

    def settled(self, client_id: str) -> Deferred[None]:
        """Fires once nothing of that client waits for the store."""
        return self._wait_for(self._latest.get(client_id))

    def all_settled(self) -> Deferred[None]:
        """Fires once nothing that waits for the store now waits any longer."""
        return self._wait_for(self._pending[-1] if self._pending else None)

    def former_lives(self, client_id: str) -> Deferred[list[Life]]:
        """The lives of a client that have ended, newest first."""
        return self._store.former_lives(client_id)

    @staticmethod
    def _wait_for(entry: _Entry | None) -> Deferred[None]:
        if entry is None:
            return succeed(None)
        waiter: Deferred[None] = Deferred()
        entry.waiters.append(waiter)
        return waiter

    def _committed(self, _: None, entry: _Entry) -> None:
        entry.durable = True
        if self._announcing:  # a listener has caused it: after what it hears now
            return
        self._announcing = True
        try:
            while self._pending and self._pending[0].durable:
                self._announce(self._pending.popleft())
        finally:
            self._announcing = False

    def _announce(self, entry: _Entry) -> None:
        change = entry.change
        if self._latest.get(change.client_id) is entry:
            del self._latest[change.client_id]
        for listener in self._listeners:
            try:
                listener(change)
            except Exception:  # noqa: BLE001 - one deaf listener must not silence the others
                self._log.failure("A listener failed on {change}", change=change)
        for waiter in entry.waiters:
            waiter.callback(None)
