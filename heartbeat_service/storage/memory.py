"""A store that forgets everything at the end of the process: ``memory:``."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence

from twisted.internet.defer import Deferred, succeed
from typing_extensions import override

from heartbeat_service.core.changes import Change, Fact, Life, StoredState
from heartbeat_service.storage.store import (
    KEPT_LIVES,
    MOST_LIVES,
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
        # In the order of their ends.
        self._ends: OrderedDict[tuple[str, int], None] = OrderedDict()

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
        # The same one may come twice: a commit may be repeated.
        lives = self._lives.setdefault(client_id, {})
        lives[life.incarnation] = life
        self._ends[client_id, life.incarnation] = None
        if len(lives) > KEPT_LIVES:
            for number in _too_old(lives):
                self._forget(client_id, number)
        if len(self._ends) > MOST_LIVES:
            self._forget(*next(iter(self._ends)))

    def _forget(self, client_id: str, incarnation: int) -> None:
        del self._ends[client_id, incarnation]
        del self._lives[client_id][incarnation]
        if not self._lives[client_id]:
            del self._lives[client_id]


def _too_old(lives: Mapping[int, Life]) -> Collection[int]:
    """Which of one client's lives are kept no longer."""
    newest = sorted(lives, reverse=True)
    beyond = [number for number in newest if lives[number].left_uncalibrated]
    return set(newest).difference(newest[:KEPT_LIVES], beyond[:KEPT_LIVES])
