"""A store that forgets everything at the end of the process: ``memory:``."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

from twisted.internet.defer import Deferred, succeed
from typing_extensions import override

from heartbeat_service.core.changes import Change, Fact, Life, Remembered
from heartbeat_service.storage.store import (
    KEPT_CLIENTS,
    KEPT_LIVES,
    Store,
    incarnations_so_far,
)


class MemoryStore(Store):
    """Durable as long as the process lives.

    :param wall_clock: seconds since the epoch.
    """

    def __init__(self, wall_clock: Callable[[], float]) -> None:
        self._wall_clock = wall_clock
        self._lives: OrderedDict[str, list[Life]] = OrderedDict()

    @override
    def open(self) -> Deferred[Remembered]:
        return succeed(Remembered(incarnations_so_far(self._wall_clock)))

    @override
    def commit(self, facts: Sequence[Fact]) -> Deferred[None]:
        for fact in facts:
            if isinstance(fact, Change) and fact.ended is not None:
                self._keep(fact.client_id, fact.ended)
        return succeed(None)

    @override
    def former_lives(self, client_id: str) -> Deferred[list[Life]]:
        return succeed(list(self._lives.get(client_id, [])))

    @override
    def close(self) -> Deferred[None]:
        return succeed(None)

    def _keep(self, client_id: str, life: Life) -> None:
        lives = self._lives.get(client_id, [])
        # The same one may come twice: a commit may be repeated.
        kept = {life.incarnation: life for life in (*lives, life)}
        newest = sorted(kept, reverse=True)[:KEPT_LIVES]
        self._lives[client_id] = [kept[number] for number in newest]
        self._lives.move_to_end(client_id)
        if len(self._lives) > KEPT_CLIENTS:
            self._lives.popitem(last=False)
