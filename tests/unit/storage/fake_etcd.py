"""An etcd in memory, on a clock that a test moves, and all that can go wrong with it.

:class:`FakeEtcd` is the whole cluster of etcd as one: what it has done it never
forgets. Each :class:`FakeClient` has a line of its own to it, which can be cut in
either direction; what it asks and hears takes its time, so nothing is ever answered
within the call. Where etcd has a choice, its worst one for a client is taken: a lease
ends as soon as it may, and a request that found no way may be done much later. Knows
no records of clients.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import count
from random import Random
from typing import Any, TypeVar

from attrs import Factory, define, evolve, field, frozen
from twisted.internet.defer import Deferred, fail
from typing_extensions import override

from heartbeat_service.core.clock import Clock, Timer
from heartbeat_service.storage.etcd.port import (
    Compacted,
    Compare,
    Delete,
    Etcd,
    EtcdAway,
    EtcdError,
    EtcdRefuses,
    Event,
    Get,
    KeyValue,
    Operation,
    Outcome,
    Page,
    Put,
    Transaction,
    UnknownLease,
    Watch,
)

T = TypeVar("T")

#: etcd's own limit (``--max-txn-ops``).
MOST_OPERATIONS = 128

#: How long a request and an answer take, in seconds, each.
LATENCY = 0.001

#: How long a client waits for an answer, in seconds.
PATIENCE = 2.0

#: How often a watch shows that it is alive, in seconds, and after how many of them
#: without a word it is given up.
SIGN = 1.0
SILENT = 3


@define(eq=False)
class FakeEtcd:
    """What all clients ask: keys with their history, leases, watches.

    :ivar latency: how long each way takes, in seconds.
    :ivar random: with it, each way takes from nothing to twice that, and now and then
        a hundred times as long.
    :ivar revision: how many changes there were.
    :ivar is_up: whether it answers anybody, and its leases burn.
    """

    clock: Clock
    latency: float = LATENCY
    random: Random | None = None
    revision: int = field(default=1, init=False)
    is_up: bool = field(default=True, init=False)
    _log: list[Sequence[Event]] = field(factory=list, init=False)  # from revision 2 on
    _history: dict[bytes, list[Event]] = field(factory=dict, init=False)
    _compacted: int = field(default=0, init=False)
    _leases: dict[int, _Lease] = field(factory=dict, init=False)
    _lease_ids: Iterator[int] = field(factory=partial(count, 7001), init=False)
    _watches: list[_FakeWatch] = field(factory=list, init=False)

    def client(self, name: str = "client") -> FakeClient:
        """Somebody who asks, over a line of his own."""
        return FakeClient(self, name)

    def delay(self) -> float:
        """How long something is on its way, in seconds."""
        if self.random is None:
            return self.latency
        slow = 100 if self.random.random() < 0.02 else 1
        return self.random.uniform(0, 2 * self.latency) * slow

    def stop(self) -> None:
        """Answer nobody. No lease burns; the watches are silent for ever."""
        self.is_up = False
        for lease in self._leases.values():
            lease.end.cancel()
        for watch in self._watches:
            watch.is_broken = True
        self._watches.clear()

    def start(self) -> None:
        """Answer again. Each lease begins anew, as it does with a new leader."""
        self.is_up = True
        for lease_id, lease in self._leases.items():
            lease.end = self.clock.callLater(lease.seconds, self.revoke, lease_id)

    def compact(self, revision: int) -> None:
        """Forget how it was, and what happened, before that revision."""
        self._compacted = revision

    # What is asked of it, done at once.

    def get(self, key: bytes, revision: int = 0) -> KeyValue | None:
        """A key as it is, or was at a revision."""
        for event in reversed(self._history.get(key, ())):
            if not revision or event.key.mod_revision <= revision:
                return None if event.deleted else event.key
        return None

    def keys(self, prefix: bytes, revision: int = 0) -> Mapping[bytes, KeyValue]:
        """All keys that begin so, in order, as they are, or were at a revision."""
        names = sorted(name for name in self._history if name.startswith(prefix))
        found = ((name, self.get(name, revision)) for name in names)
        return {name: key for name, key in found if key is not None}

    def scan(self, prefix: bytes, after: bytes, revision: int, limit: int) -> Page:
        """As :meth:`Etcd.scan`."""
        if revision > self.revision:
            raise EtcdRefuses("required revision is a future revision")
        if revision and revision < self._compacted:
            raise Compacted("required revision has been compacted")
        found = [
            key for name, key in self.keys(prefix, revision).items() if name > after
        ]
        page = found[: limit or None]
        return Page(page, revision or self.revision, len(page) == len(found))

    def transact(self, transaction: Transaction) -> Outcome:
        """As :meth:`Etcd.transact`."""
        _check_size(transaction, MOST_OPERATIONS)
        _written(transaction.then)
        _written(transaction.otherwise)
        decided = self._decide(transaction)
        events: list[Event] = []
        outcome = self._do(decided, events)
        self._commit(events)
        return _at(outcome, self.revision)

    def grant(self, seconds: int) -> int:
        """As :meth:`Etcd.grant`."""
        lease_id = next(self._lease_ids)
        end = self.clock.callLater(seconds, self.revoke, lease_id)
        self._leases[lease_id] = _Lease(seconds, end)
        return lease_id

    def keep_alive(self, lease_id: int) -> int:
        """As :meth:`Etcd.keep_alive`."""
        lease = self._leases.get(lease_id)
        if lease is None:
            return 0
        lease.end.reset(lease.seconds)
        return lease.seconds

    def revoke(self, lease_id: int) -> None:
        """As :meth:`Etcd.revoke`; also called when the lease's time is over."""
        lease = self._leases.pop(lease_id, None)
        if lease is None:
            return
        if lease.end.active():
            lease.end.cancel()
        events: list[Event] = []
        for name, key in self.keys(b"").items():
            if key.lease == lease_id:
                self._delete(name, events)
        self._commit(events)

    def since(self, revision: int, prefix: bytes) -> Sequence[Event]:
        """What a watch is told of these keys, from that revision on."""
        if revision < self._compacted:
            raise Compacted(f"compacted at {self._compacted}")
        happened = self.happened_since(revision)
        return [event for event in happened if event.key.key.startswith(prefix)]

    def happened_since(self, revision: int) -> Sequence[Event]:
        """All that has happened from that revision on, for whoever may see all."""
        happened = self._log[max(revision - 2, 0) :]
        return [event for events in happened for event in events]

    @property
    def is_compacted(self) -> bool:
        """Whether it has forgotten anything."""
        return self._compacted > 0

    def add_watch(self, watch: _FakeWatch) -> None:
        """Let a watch hear of what happens."""
        self._watches.append(watch)

    def remove_watch(self, watch: _FakeWatch) -> None:
        """Forget a watch, if it is known."""
        if watch in self._watches:
            self._watches.remove(watch)

    def _decide(self, transaction: Transaction) -> _Decided:
        """All conditions are looked at before anything is done, as etcd does."""
        held = all(self._holds(each) for each in transaction.conditions)
        operations = transaction.then if held else transaction.otherwise
        for each in operations:
            if isinstance(each, Put) and each.lease and each.lease not in self._leases:
                raise UnknownLease("requested lease not found")
        return _Decided(
            held,
            [
                self._decide(each) if isinstance(each, Transaction) else each
                for each in operations
            ],
        )

    def _holds(self, condition: Compare) -> bool:
        key = self.get(condition.key)
        if key is None:
            return condition.revision == 0
        of_creation = condition.of_creation
        present = key.create_revision if of_creation else key.mod_revision
        return present == condition.revision

    def _do(self, decided: _Decided, events: list[Event]) -> Outcome:
        results: list[KeyValue | Outcome | None] = []
        for each in decided.operations:
            result: KeyValue | Outcome | None = None
            match each:
                case Put():
                    self._put(each, events)
                case Delete(name):
                    self._delete(name, events)
                case Get(name):
                    result = self.get(name)
                case _Decided():
                    result = self._do(each, events)
            results.append(result)
        return Outcome(decided.held, results, self.revision)

    def _put(self, put: Put, events: list[Event]) -> None:
        revision = self.revision + 1
        present = self.get(put.key)
        created = revision if present is None else present.create_revision
        key = KeyValue(put.key, put.value, created, revision, put.lease)
        self._write(Event(key), events)

    def _delete(self, name: bytes, events: list[Event]) -> None:
        if self.get(name) is not None:
            key = KeyValue(name, b"", 0, self.revision + 1)
            self._write(Event(key, deleted=True), events)

    def _write(self, event: Event, events: list[Event]) -> None:
        self._history.setdefault(event.key.key, []).append(event)
        events.append(event)

    def _commit(self, events: Sequence[Event]) -> None:
        if not events:
            return
        self._log.append(events)
        self.revision += 1
        for watch in list(self._watches):
            watch.send()


class FakeClient(Etcd):
    """Fills the port. What it hears waits while it is stalled.

    :ivar patience: how long it waits for an answer, in seconds.
    :ivar watch_delay: how much later than others its watches hear what has happened.
    """

    def __init__(self, server: FakeEtcd, name: str) -> None:
        self.name = name
        self.server = server
        self.patience = PATIENCE
        self.watch_delay = 0.0
        self._requests_cut = False
        self._answers_cut = False
        self._stalled = False
        self._closed = False
        self._inbox: list[Callable[[], object]] = []
        self._asked_in_vain: list[Callable[[], object]] = []
        self._waiting: dict[Deferred[Any], Timer] = {}
        self._watches: list[_FakeWatch] = []

    def __repr__(self) -> str:
        return f"<{self.name}>"

    # What goes wrong.

    def cut(self, *, requests: bool = True, answers: bool = True) -> None:
        """Let nothing through, or nothing in one direction.

        Without ``requests`` what is asked is done, and nobody hears of it; without
        ``answers`` it isn't done, but watches hear on, if anything happens.
        """
        self._requests_cut = self._requests_cut or requests
        self._answers_cut = self._answers_cut or answers

    def heal(self, *, late: bool = False) -> None:
        """Let all through. The watches that weren't given up yet go on.

        :param late: whether what was asked in vain is done now.
        """
        self._requests_cut = self._answers_cut = False
        in_vain, self._asked_in_vain = self._asked_in_vain, []
        if late:
            for arrive in in_vain:
                self.server.clock.callLater(self.server.delay(), arrive)
        for watch in list(self._watches):
            watch.send()
            watch.arrive()

    def delay_watch(self, seconds: float) -> None:
        """Let the watches hear what happens so much later, their signs of life not.

        So it is at a member that lags behind.
        """
        self.watch_delay = seconds

    def lose_watch(self) -> None:
        """End all watches, as a member does that goes."""
        for watch in list(self._watches):
            watch.lose(EtcdAway("the member has gone"))

    def stall(self) -> None:
        """Hear nothing, until it is woken: its process is stopped."""
        self._stalled = True

    def wake(self) -> None:
        """Hear what has come meanwhile, in its order."""
        self._stalled = False
        inbox, self._inbox = self._inbox, []
        for heard in inbox:
            self.hear(heard)

    # The port.

    @override
    def scan(
        self, prefix: bytes, after: bytes = b"", revision: int = 0, limit: int = 0
    ) -> Deferred[Page]:
        return self._ask(lambda: self.server.scan(prefix, after, revision, limit))

    @override
    def transact(self, transaction: Transaction) -> Deferred[Outcome]:
        return self._ask(lambda: self.server.transact(transaction))

    @override
    def grant(self, seconds: int) -> Deferred[int]:
        return self._ask(lambda: self.server.grant(seconds))

    @override
    def keep_alive(self, lease: int) -> Deferred[int]:
        return self._ask(lambda: self.server.keep_alive(lease))

    @override
    def revoke(self, lease: int) -> Deferred[None]:
        return self._ask(lambda: self.server.revoke(lease))

    @override
    def watch(
        self,
        prefix: bytes,
        revision: int,
        hear: Callable[[Sequence[Event]], object],
        lost: Callable[[EtcdError], object],
    ) -> Watch:
        watch = _FakeWatch(self, prefix, revision, hear, lost)
        self._watches.append(watch)
        watch.begin()
        return watch

    @override
    def close(self) -> Deferred[None]:
        self._closed = True
        for watch in list(self._watches):
            watch.stop()
        for waiting in list(self._waiting):
            self._tell(waiting, EtcdAway("etcd isn't asked any more"))
        closed: Deferred[None] = Deferred()
        self.server.clock.callLater(0, closed.callback, None)
        return closed

    # The line.

    @property
    def reaches(self) -> bool:
        """Whether what is sent arrives."""
        return self.server.is_up and not self._requests_cut

    @property
    def hears(self) -> bool:
        """Whether what etcd sends arrives."""
        return self.server.is_up and not self._answers_cut

    @property
    def is_stalled(self) -> bool:
        """Whether its process is stopped."""
        return self._stalled

    def hear(self, heard: Callable[[], object]) -> None:
        """Do what is done when something has come."""
        if self._stalled:
            self._inbox.append(heard)
        else:
            heard()

    def forget(self, watch: _FakeWatch) -> None:
        """A watch has ended."""
        if watch in self._watches:
            self._watches.remove(watch)

    def _ask(self, do: Callable[[], T]) -> Deferred[T]:
        if self._closed:
            return fail(EtcdAway("etcd isn't asked any more"))
        clock, server = self.server.clock, self.server
        answer: Deferred[T] = Deferred()

        def arrive() -> None:
            if not self.reaches:
                self._asked_in_vain.append(arrive)
                return
            result: T | EtcdError
            try:
                result = do()
            except EtcdError as error:
                result = error
            clock.callLater(server.delay(), come_back, result)

        def come_back(result: T | EtcdError) -> None:
            if self.hears:
                self.hear(lambda: self._tell(answer, result))

        def lose_patience() -> None:
            error = EtcdAway(f"no answer within {self.patience} s")
            self.hear(lambda: self._tell(answer, error))

        self._waiting[answer] = clock.callLater(self.patience, lose_patience)
        clock.callLater(server.delay(), arrive)
        return answer

    def _tell(self, answer: Deferred[Any], result: object) -> None:
        """Let who waits go on, unless he has done so already."""
        patience = self._waiting.pop(answer, None)
        if patience is None:
            return
        if patience.active():
            patience.cancel()
        if answer.called:  # he has cancelled it
            return
        if isinstance(result, EtcdError):
            answer.errback(result)
        else:
            answer.callback(result)


@define(eq=False)
class _FakeWatch(Watch):
    """One stream, from etcd to a client.

    :ivar is_broken: whether nothing comes any more; the client finds out by itself.
    """

    _client: FakeClient
    _prefix: bytes
    _next: int  # the first revision that isn't sent yet
    _hear: Callable[[Sequence[Event]], object]
    _lost: Callable[[EtcdError], object]
    is_broken: bool = False
    _ended: bool = False
    _silent: int = 0  # ticks without a word
    _sent: deque[tuple[Sequence[Event], Timer]] = Factory(deque)
    _ticking: Timer | None = None

    def begin(self) -> None:
        """Ask for it."""
        self._ticking = self._clock.callLater(SIGN, self._tick)
        self._clock.callLater(self._client.server.delay(), self._reach)

    def send(self) -> None:
        """Etcd sends what it hasn't sent yet, if the line is whole."""
        if self.is_broken or self._ended or not self._client.hears:
            return
        server = self._client.server
        try:
            events = server.since(self._next, self._prefix)
        except Compacted as error:
            self.lose(error)
            return
        self._next = max(self._next, server.revision + 1)
        if events:
            delay = server.delay() + self._client.watch_delay
            if self._sent:  # it overtakes nothing
                last = self._sent[-1][1].getTime()
                delay = max(delay, last - self._clock.seconds())
            self._sent.append((events, self._clock.callLater(delay, self.arrive)))

    def arrive(self) -> None:
        """What was sent and had the time to come is heard, if the line is whole."""
        while self._sent and not self.is_broken and self._client.hears:
            events, due = self._sent[0]
            if due.getTime() > self._clock.seconds():
                return
            self._sent.popleft()
            self._client.hear(partial(self._tell, events))

    def lose(self, error: EtcdError) -> None:
        """Etcd ends it."""
        if not self.is_broken:
            self.is_broken = True
            self._clock.callLater(
                self._client.server.delay(),
                self._client.hear,
                partial(self._end, error),
            )

    @override
    def stop(self) -> None:
        self._ended = True
        self._client.server.remove_watch(self)
        self._client.forget(self)
        if self._ticking is not None and self._ticking.active():
            self._ticking.cancel()

    @property
    def _clock(self) -> Clock:
        return self._client.server.clock

    def _reach(self) -> None:
        """The request for it is at etcd, or lost."""
        if self._ended or self.is_broken:
            return
        if not self._client.reaches:
            self.is_broken = True
            return
        self._client.server.add_watch(self)
        self.send()
        self._show_life()

    def _tick(self) -> None:
        self._ticking = self._clock.callLater(SIGN, self._tick)
        if self._client.is_stalled:
            return
        self._silent += 1
        if self._silent >= SILENT:
            self._end(EtcdAway("the member is silent"))
        elif self._client.reaches:
            self._show_life()

    def _show_life(self) -> None:
        if self._client.hears and not self.is_broken:
            self._clock.callLater(self._client.server.delay(), self._live)

    def _live(self) -> None:
        if self._client.hears and not self.is_broken:
            self._client.hear(partial(self._tell, ()))

    def _tell(self, events: Sequence[Event]) -> None:
        if not self._ended:
            self._silent = 0
            self._hear(events)

    def _end(self, error: EtcdError) -> None:
        if not self._ended:
            self.stop()
            self._lost(error)


@define
class _Lease:
    seconds: int
    end: Timer


@frozen
class _Decided:
    """A transaction of which is known whether its conditions hold."""

    held: bool
    operations: Sequence[Put | Delete | Get | _Decided]


def _check_size(transaction: Transaction, most: int) -> None:
    """As etcd counts: the longest part, and within it what is nested."""
    parts = transaction.conditions, transaction.then, transaction.otherwise
    longest = max(map(len, parts))
    if longest > most:
        raise EtcdRefuses("too many operations in txn request")
    for each in (*transaction.then, *transaction.otherwise):
        if isinstance(each, Transaction):
            _check_size(each, most - longest)


def _written(part: Sequence[Operation]) -> tuple[set[bytes], set[bytes]]:
    """The keys that a part may put and delete: none twice, none both ways."""
    deleted = {each.key for each in part if isinstance(each, Delete)}
    deeper: set[bytes] = set()
    put: set[bytes] = set()
    for each in part:
        if isinstance(each, Transaction):
            put_then, deleted_then = _written(each.then)
            put_else, deleted_else = _written(each.otherwise)
            _check_twice((put | deleted) & (put_then | put_else))
            put |= put_then | put_else
            deeper |= deleted_then | deleted_else
    deleted |= deeper
    for each in part:
        if isinstance(each, Put):
            _check_twice((put | deleted) & {each.key})
            put.add(each.key)
    return put, deleted


def _check_twice(keys: set[bytes]) -> None:
    if keys:
        raise EtcdRefuses("duplicate key given in txn request")


def _at(outcome: Outcome, revision: int) -> Outcome:
    """An outcome, and those in it, at that revision."""
    results = [
        _at(each, revision) if isinstance(each, Outcome) else each
        for each in outcome.results
    ]
    return evolve(outcome, results=results, revision=revision)
