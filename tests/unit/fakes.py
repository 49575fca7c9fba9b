"""Parts that a test moves by hand, and places that it has for itself."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from attrs import define, field
from msgspec.structs import replace
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from heartbeat_service.core.changes import (
    Change,
    DeadClient,
    Fact,
    GoneClient,
    Life,
    Lockout,
    Snapshot,
    StoredState,
)
from heartbeat_service.core.instances import Instances
from heartbeat_service.core.listening_clock import TICK
from heartbeat_service.core.states import ClientState
from heartbeat_service.storage.memory import MemoryStore
from heartbeat_service.storage.store import NO_REFUSALS, Refusals, Store, StoreTrouble


def listen(clock: Clock, seconds: float) -> None:
    """Let time pass as it does while a service listens: in no turn much of it."""
    turns = int(seconds / TICK)
    clock.pump([TICK] * turns + [seconds - turns * TICK])


def folder_for(test: SynchronousTestCase) -> Path:
    """An empty folder, gone at the end of the test."""
    folder = TemporaryDirectory(prefix="heartbeat-")
    test.addCleanup(folder.cleanup)
    return Path(folder.name)


def stored_state(facts: Iterable[Fact], last_incarnation: int = 0) -> StoredState:
    """What a store that has kept these facts must tell when it is opened again.

    All lives are taken to have ended lately.
    """
    clients: dict[str, Snapshot] = {}
    of_dead: dict[str, DeadClient] = {}
    lockouts: dict[str, Lockout] = {}
    gone: dict[str, GoneClient] = {}
    ended: list[tuple[str, Life]] = []
    for fact in facts:
        if isinstance(fact, Lockout):
            lockouts.pop(fact.client_id, None)
            if fact.until:
                kept = replace(fact, incarnation=None, seconds=0.0)
                lockouts[fact.client_id] = kept
            continue
        client = fact.client if isinstance(fact, Change) else fact
        name = client.client_id
        last_incarnation = max(last_incarnation, client.incarnation)
        life = fact.ended if isinstance(fact, Change) else None
        if life is not None:
            ended.append((name, life))
        of_dead.pop(name, None)
        gone.pop(name, None)
        if client.state is not ClientState.DISCONNECTED:
            clients[name] = replace(client, ordered=False)
            continue
        del clients[name]
        if life is not None:
            gone[name] = GoneClient(len(ended), name, life)
        if client.instances != Instances():
            assert life is not None
            assert life.ended_at is not None
            of_dead[name] = DeadClient(client.instances, life.ended_at)
    return StoredState(
        last_incarnation=last_incarnation,
        clients=list(clients.values()),
        instances_of_dead=of_dead,
        lockouts=list(lockouts.values()),
        gone=list(gone.values()),
        lives_ended=len(ended),
        ended_lately=ended,
    )


@define(eq=False)
class HandStore(Store):
    """A store whose commits become durable, or fail, when a test says so.

    :ivar stored: what it tells when it is opened.
    :ivar waiting: the facts of the commit under way; None if there is none.
    :ivar kept: all that became durable, in order.
    :ivar commits: how many it was ever asked for.
    """

    stored: StoredState = field(factory=lambda: StoredState(0))
    waiting: list[Fact] | None = None
    kept: list[Fact] = field(factory=list)
    commits: int = 0
    closed: bool = False
    _quick: bool = False
    _done: Deferred[Refusals] = field(factory=Deferred)
    _lives: dict[str, list[Life]] = field(factory=lambda: defaultdict(list))

    def open(self) -> Deferred[StoredState]:
        """It opens at once."""
        return succeed(self.stored)

    def commit(self, facts: Sequence[Fact]) -> Deferred[Refusals]:
        """Keep them waiting."""
        assert self.waiting is None, "one commit at a time"
        self.waiting = list(facts)
        self.commits += 1
        done: Deferred[Refusals] = Deferred()
        self._done = done
        if self._quick:
            self.finish()
        return done

    def finish(self, refusals: Refusals = NO_REFUSALS) -> None:
        """Make the commit under way durable, but for what it refuses."""
        waiting, self.waiting = self.waiting, None
        assert waiting is not None, "nothing is under way"
        facts = [fact for fact in waiting if fact.client_id not in refusals]
        self.kept += facts
        for fact in facts:
            if isinstance(fact, Change) and fact.ended is not None:
                self._lives[fact.client_id].insert(0, fact.ended)
        self._done.callback(refusals)

    def finish_all(self) -> None:
        """Make everything durable, in order."""
        while self.waiting is not None:
            self.finish()

    def be_quick(self) -> None:
        """Make everything durable, and from now on at once."""
        self._quick = True
        self.finish_all()

    def break_down(self, reason: Exception | str = "the disk is full") -> None:
        """Let the commit under way fail."""
        assert self.waiting is not None, "nothing is under way"
        self.waiting = None
        self._done.errback(StoreTrouble(reason) if isinstance(reason, str) else reason)

    def former_lives(self, client_id: str) -> Deferred[list[Life]]:
        """All that ended, newest first."""
        return succeed(list(self._lives[client_id]))

    def close(self) -> Deferred[None]:
        """Nothing is left to do."""
        self.closed = True
        return succeed(None)


class RefusingStore(MemoryStore):
    """A store in memory that refuses what a test tells it to, once."""

    def __init__(self, wall_clock: Callable[[], float]) -> None:
        super().__init__(wall_clock)
        self.refuses: dict[str, Snapshot | None] = {}

    def commit(self, facts: Sequence[Fact]) -> Deferred[Refusals]:
        """Keep all facts, but those of clients in ``refuses``."""
        refused = self.refuses.keys() & {fact.client_id for fact in facts}
        refusals = {client_id: self.refuses.pop(client_id) for client_id in refused}
        kept = [fact for fact in facts if fact.client_id not in refusals]
        return super().commit(kept).addCallback(lambda _: refusals)
