"""The watch: hears of all that happens under the prefix, one revision after the other.

A watch that is lost is taken up where it was; where that is gone, all is read anew, and
the difference is told as if it had been heard. Between two turns of the reactor no more
is told once it was this node's own write, which others are to hear of first. Knows no
records, only revisions.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import Any

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from heartbeat_service.storage.etcd.loading import scan
from heartbeat_service.storage.etcd.port import (
    Compacted,
    Etcd,
    EtcdError,
    Event,
    KeyValue,
    Watch,
)

#: How long it is until what has failed is tried again, in seconds.
PAUSE = 0.2


@define(eq=False)
class Watching:
    """Follows what happens, from a revision on.

    :ivar take: takes all that has happened at one revision; whether this node has
        written it.
    :ivar alive: is called whenever the watch shows that it lives.
    :ivar lost: is told why it has no watch, for now.
    :ivar begun: is called when there is a watch again.
    :ivar known: the keys that may have been deleted while nothing was heard.
    :ivar revision: up to which all was told.
    :ivar losses: how often the watch was lost.
    """

    clock: Any
    etcd: Etcd
    prefix: bytes
    take: Callable[[Sequence[Event]], bool]
    alive: Callable[[], object]
    lost: Callable[[EtcdError], object]
    begun: Callable[[], object]
    known: Callable[[], Iterable[bytes]]
    revision: int = 0
    losses: int = 0
    _heard: int = 0
    _watch: Watch | None = None
    _beginning: Deferred[None] | None = None
    _is_stopped: bool = False
    _holds: bool = False
    _groups: deque[Sequence[Event]] = field(factory=deque)
    _waiters: list[tuple[int, Deferred[None]]] = field(factory=list)

    def start(self, revision: int) -> None:
        """Follow what happens after that revision."""
        self.revision = self._heard = revision
        self._begin()

    def stop(self) -> None:
        """Tell nothing any more."""
        self._is_stopped = True
        if self._beginning is not None:
            self._beginning.cancel()
        if self._watch is not None:
            self._watch.stop()

    def told(self, revision: int) -> Deferred[None]:
        """Fires once all up to a revision was told."""
        if self.revision >= revision:
            return succeed(None)
        waiter: Deferred[None] = Deferred()
        self._waiters.append((revision, waiter))
        return waiter

    def _begin(self) -> None:
        self._watch = self.etcd.watch(
            self.prefix, self._heard + 1, self._hear, self._lose
        )

    def _lose(self, error: EtcdError) -> None:
        self.losses += 1
        self.lost(error)
        compacted = isinstance(error, Compacted)
        self._beginning = Deferred.fromCoroutine(self._begin_anew(compacted))
        self._beginning.addErrback(Failure.trap, CancelledError)

    async def _begin_anew(self, compacted: bool) -> None:
        await deferLater(self.clock, PAUSE)
        while compacted:
            try:
                found, revision = await scan(self.etcd, self.prefix)
            except EtcdError:
                await deferLater(self.clock, PAUSE)
            else:
                compacted, self._heard = False, revision
                self._queue(self._differences(found, revision))
        self._begin()
        self.begun()

    def _differences(self, found: Sequence[KeyValue], revision: int) -> list[Event]:
        """What must have happened between what was told and what is there."""
        there = {each.key for each in found}
        gone = [
            Event(KeyValue(key, b"", 0, revision), deleted=True)
            for key in self.known()
            if key not in there
        ]
        # A backup that was restored has rewound the revisions: then all may be other.
        since = self.revision if revision >= self.revision else 0
        news = [Event(each) for each in found if each.mod_revision > since]
        return sorted((*news, *gone), key=_revision)

    def _hear(self, events: Sequence[Event]) -> None:
        if self._is_stopped:
            return
        self.alive()
        if events:
            self._heard = _revision(events[-1])
            self._queue(events)

    def _queue(self, events: Sequence[Event]) -> None:
        for _, group in groupby(events, _revision):
            self._groups.append(tuple(group))
        self._go_on()

    def _go_on(self) -> None:
        while self._groups and not self._holds and not self._is_stopped:
            group = self._groups.popleft()
            # Before it is taken: who is told of it may ask how far all was told.
            self.revision = _revision(group[-1])
            self._holds = self.take(group)
            if self._holds:
                self.clock.callLater(0, self._release)
            self._fire()

    def _release(self) -> None:
        self._holds = False
        self._go_on()

    def _fire(self) -> None:
        due = [
            waiter for revision, waiter in self._waiters if revision <= self.revision
        ]
        self._waiters = [one for one in self._waiters if one[0] > self.revision]
        for waiter in due:
            waiter.callback(None)


def _revision(event: Event) -> int:
    return event.key.mod_revision
