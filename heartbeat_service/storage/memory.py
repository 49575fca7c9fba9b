"""A store that forgets everything at the end of the process: ``memory:``."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.defer import Deferred, succeed
from typing_extensions import override

from heartbeat_service.core.changes import Change, Fact, Life, StoredState
from heartbeat_service.storage.lives import KeptLives
from heartbeat_service.storage.store import (
    NO_REFUSALS,
    Refusals,
    Store,
    incarnations_so_far,
)


class MemoryStore(Store):
    """Durable as long as the process lives.

    :param wall_clock: seconds since the epoch.
    """

    def __init__(self, wall_clock: Callable[[], float]) -> None:
        self._wall_clock = wall_clock
        self._lives: dict[str, dict[int, Life]] = {}
        self._kept = KeptLives()

    @override
    def open(self) -> Deferred[StoredState]:
        return succeed(StoredState(incarnations_so_far(self._wall_clock)))

    @override
    def commit(self, facts: Sequence[Fact]) -> Deferred[Refusals]:
        for fact in facts:
            if isinstance(fact, Change) and fact.ended is not None:
                self._keep(fact.client_id, fact.ended)
        return succeed(NO_REFUSALS)

    @override
    def former_lives(self, client_id: str) -> Deferred[list[Life]]:
        lives = self._lives.get(client_id, {})
        return succeed([lives[number] for number in sorted(lives, reverse=True)])

    @override
    def close(self) -> Deferred[None]:
        return succeed(None)

    def _keep(self, client_id: str, life: Life) -> None:
        self._lives.setdefault(client_id, {})[life.incarnation] = life
        for which in self._kept.add(
            client_id, life.incarnation, life.left_uncalibrated
        ):
            self._forget(*which)

    def _forget(self, client_id: str, incarnation: int) -> None:
        self._kept.remove(client_id, incarnation)
        del self._lives[client_id][incarnation]
        if not self._lives[client_id]:
            del self._lives[client_id]
