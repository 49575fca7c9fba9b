"""Parts that a test moves by hand."""

from __future__ import annotations

from collections import defaultdict

from attrs import define, field
from twisted.internet.defer import Deferred, succeed

from heartbeat_service.core.changes import Change, Life
from heartbeat_service.storage.store import Store


@define(eq=False)
class HandStore(Store):
    """A store whose commits become durable when a test says so.

    :ivar waiting: the changes that are not durable yet, in the order they came.
    :ivar commits: how many changes it was ever handed.
    """

    waiting: list[tuple[Change, Deferred[None]]] = field(factory=list)
    commits: int = 0
    _lives: dict[str, list[Life]] = field(factory=lambda: defaultdict(list))

    def open(self) -> Deferred[int]:
        """Nothing was ever handed out."""
        return succeed(0)

    def commit(self, change: Change) -> Deferred[None]:
        """Keep it waiting."""
        done: Deferred[None] = Deferred()
        self.waiting.append((change, done))
        self.commits += 1
        return done

    def finish(self, index: int = 0) -> None:
        """Make one change durable: the one that has waited longest, by default."""
        change, done = self.waiting.pop(index)
        if change.ended is not None:
            self._lives[change.client_id].insert(0, change.ended)
        done.callback(None)

    def finish_all(self) -> None:
        """Make everything durable, in order."""
        while self.waiting:
            self.finish()

    def former_lives(self, client_id: str) -> Deferred[list[Life]]:
        """All that ended, newest first."""
        return succeed(list(self._lives[client_id]))

    def trouble(self) -> str | None:
        """None: to be slow is no trouble."""
        return None

    def close(self) -> Deferred[None]:
        """Nothing is left to do."""
        return succeed(None)
