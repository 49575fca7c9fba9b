"""A store that forgets everything at the end of the process: ``memory:``."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable

from twisted.internet.defer import Deferred, succeed
from typing_extensions import override

from heartbeat_service.core.changes import Change, Life
from heartbeat_service.storage.store import KEPT_LIVES, Store

#: How many clients' former lives are kept, those that ended last.
KEPT_CLIENTS = 10_000


class MemoryStore(Store):
    """Durable as long as the process lives.

    :param wall_clock: seconds since the epoch. Incarnations begin at its
        microseconds, so that they grow across restarts too, as far as the
        machine's clock goes forward and fewer than a million clients register
        a second.
    """

    def __init__(self, wall_clock: Callable[[], float]) -> None:
        self._wall_clock = wall_clock
        self._lives: OrderedDict[str, deque[Life]] = OrderedDict()

    @override
    def open(self) -> Deferred[int]:
        return succeed(int(self._wall_clock() * 1_000_000))

    @override
    def commit(self, change: Change) -> Deferred[None]:
        if change.ended is not None:
            lives = self._lives.setdefault(change.client_id, deque(maxlen=KEPT_LIVES))
            lives.appendleft(change.ended)
            self._lives.move_to_end(change.client_id)
            if len(self._lives) > KEPT_CLIENTS:
                self._lives.popitem(last=False)
        return succeed(None)

    @override
    def former_lives(self, client_id: str) -> Deferred[list[Life]]:
        return succeed(list(self._lives.get(client_id, ())))

    @override
    def trouble(self) -> str | None:
        return None

    @override
    def close(self) -> Deferred[None]:
        return succeed(None)
