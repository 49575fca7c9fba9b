"""The order of changes: registry, then store, then listeners.

Each change waits in one queue until the store has it; then whoever listens hears of it,
and whoever waits for it goes on. So nobody hears of a change before the store has it
(contract, section 2, "Applied means durable"). Knows the store's port only.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any, TypeVar

from attrs import define
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from heartbeat_service.core.changes import (
    Change,
    Fact,
    Life,
    Lockout,
    Snapshot,
    StoredState,
)
from heartbeat_service.core.errors import Overloaded
from heartbeat_service.core.notices import ClientNotice, News, Notice, StoreNotice
from heartbeat_service.core.states import ClientState
from heartbeat_service.engine.availability import Availability
from heartbeat_service.engine.slices import in_slices
from heartbeat_service.storage.store import Refusals, Store, StoreTrouble

T = TypeVar("T")

#: How long it holds that the store could write, in seconds: anybody may ask, and each
#: time that it is found out costs a write to the disk.
GOOD_FOR = 1.0


class Refused(Exception):
    """The store has another record of the client than the one that was changed."""


@define(eq=False)
class _Entry:
    """A fact that waits for the store, or None where a commit of nothing is wanted.

    :ivar waiters: who waits for it; most often nobody does.
    :ivar notices: what is told right after it: of each kind the latest.
    :ivar given_up: whether another node was first; it keeps its place until its turn.
    """

    fact: Fact | None
    waiters: list[Deferred[None]] | None = None
    notices: dict[type, Notice] | None = None
    given_up: bool = False

    def wait(self) -> Deferred[None]:
        """Fires once it is durable and was heard."""
        waiter: Deferred[None] = Deferred()
        if self.waiters is None:
            self.waiters = []
        self.waiters.append(waiter)
        return waiter

    def tell_after(self, notice: Notice) -> None:
        """Have a notice told once it is durable and was heard."""
        if self.notices is None:
            self.notices = {}
        self.notices.pop(type(notice), None)
        self.notices[type(notice)] = notice

    def waits_for(self, client_id: str) -> bool:
        """Whether it is a fact of that client, and was not given up."""
        fact = self.fact
        return fact is not None and fact.client_id == client_id and not self.given_up

    def succeed(self) -> None:
        """Let all who wait go on."""
        for waiter in self.waiters or ():
            waiter.callback(None)

    def fail(self, error: Exception) -> None:
        """Let nobody wait for it any longer."""
        waiters, self.waiters = self.waiters, None
        for waiter in waiters or ():
            waiter.errback(error)


class ChangeJournal:
    """Leads each change through the store, and lets the listeners hear it in order.

    What waits while a commit is under way shares the next one. A commit that fails
    is tried again until it succeeds.

    :param clock: for patience with the store: a :class:`ListeningClock`, or any other.
    :param reactor: takes the slices in which many changes are announced.
    :param listeners: each hears every durable change, once.
    :param watchers: each hears of all that operators are told, once it is durable.
    :param on_refusal: is told which client's facts were refused, and the record that
        the store has in their place; the journal still holds the one that it had.
    :param on_commit: is told after how many seconds how many facts were durable.
    """

    _log = Logger()

    def __init__(
        self,
        store: Store,
        clock: Any,
        reactor: Any,
        listeners: Iterable[Callable[[Change], None]],
        on_refusal: Callable[[str, Snapshot | None], None],
        watchers: Iterable[Callable[[News], None]] = (),
        on_commit: Callable[[float, int], None] = lambda _seconds, _facts: None,
    ) -> None:
        self._store = store
        self._reactor = reactor
        self._listeners = tuple(listeners)
        self._watchers = tuple(watchers)
        self._on_refusal = on_refusal
        self._on_commit = on_commit
        self._availability = Availability(clock, self._fail_waiters, self._tell_store)
        self._opened = False
        self._pending: deque[_Entry] = deque()
        self._latest: dict[str, _Entry] = {}
        self._last_of: dict[str, _Entry] = {}
        self._held: dict[str, Snapshot | None] = {}
        self._check: _Entry | None = None
        self._good_until = -math.inf
        self._snapshots: dict[str, _Entry] = {}
        self._writing = False
        self._announcing = False
        self._foreign: deque[tuple[Fact, Callable[[], Iterable[News]]]] = deque()
        self._lost: Callable[[str], Snapshot | None] | None = None
        self._behind: list[Deferred[None]] = []
        self._writer: Deferred[None] = succeed(None)

    @property
    def trouble(self) -> str | None:
        """Why no change can be made durable now; None if it can."""
        return self._availability.trouble

    @property
    def is_shared(self) -> bool:
        """Whether other nodes write to the store as well."""
        return self._store.is_shared

    @property
    def pending(self) -> int:
        """How many facts wait for the store, those of the present commit among them."""
        return len(self._pending)

    async def open(self) -> StoredState:
        """Open the store; what it has kept.

        :raises StoreTrouble: if it can't be opened now; ask again.
        """
        stored = await self._availability.attempt(self._store.open)
        self._opened = True
        return stored

    def admit(self) -> None:
        """Pass if a change can be made durable now.

        :raises Overloaded: if it can't.
        """
        self._availability.admit()

    def record(self, fact: Fact) -> None:
        """Take what has just happened in the registry."""
        if isinstance(fact, Snapshot):
            self._record_snapshot(fact)
            return
        entry = _Entry(fact)
        if isinstance(fact, Change) and fact.client_id not in self._held:
            self._held[fact.client_id] = fact.before()
        self._latest[fact.client_id] = entry
        self._snapshots.pop(fact.client_id, None)
        self._append(entry)

    def tell(self, notice: Notice) -> None:
        """Let operators hear of what isn't kept, behind what waits of its client."""
        waits = None
        if isinstance(notice, ClientNotice):
            waits = self._last_of.get(notice.client_id)
        if waits is None:
            self._let_watch(notice)
        else:
            waits.tell_after(notice)

    def hear(self, fact: Fact, apply: Callable[[], Iterable[News]]) -> None:
        """Another node has changed a client: let it be heard, in the store's order.

        What waits of that client follows from what is no more, so it is given up.

        :param apply: changes the registry; what operators are told besides.
        """
        self._foreign.append((fact, apply))
        if not self._announcing:
            self._hear_foreign()

    def give_up_all(self, kept: Callable[[str], Snapshot | None]) -> None:
        """Give up all that waits: this node has decided it without the right to.

        What the store has by now is announced before.

        :param kept: what the store has of a client.
        """
        self._lost = kept
        if not self._announcing:
            self._give_up_lost()

    async def catch_up(self) -> None:
        """Wait until all is heard that other nodes had kept when it was asked.

        :raises Overloaded: if that can't be had now.
        """
        try:
            await self._store.catch_up()
        except StoreTrouble as error:
            raise Overloaded(str(error)) from None
        if self._foreign:
            heard: Deferred[None] = Deferred()
            self._behind.append(heard)
            await heard

    def set_trouble(self, trouble: str | None) -> None:
        """The store says by itself why it can keep nothing; None if it can again."""
        self._availability.set(trouble)

    def held(self) -> Mapping[str, Snapshot | None]:
        """Whose changes wait for the store, each with the record that the store has.

        It is None for a client that doesn't live there.

        :raises Overloaded: if the store isn't open.
        """
        if not self._opened:
            raise self._availability.overloaded()
        return self._held

    def is_settled(self, client_id: str) -> bool:
        """Whether nothing of that client that holds answers up waits for the store."""
        return self._opened and client_id not in self._latest

    def settled(self, client_id: str) -> Deferred[None]:
        """Fires once :meth:`is_settled`.

        Fails with :class:`Overloaded` while a fact can't be made durable, and with
        :class:`Refused` if the store has another record of the client.
        """
        return self._wait_for(self._latest.get(client_id))

    def all_settled(self) -> Deferred[None]:
        """Fires once no change, of anybody, waits for the store.

        Fails as :meth:`settled` does.
        """
        changes = (
            entry
            for entry in reversed(self._pending)
            if isinstance(entry.fact, Change) and not entry.given_up
        )

        def again(failure: Failure) -> Deferred[None]:
            failure.trap(Refused)
            return self.all_settled()

        return self._wait_for(next(changes, None)).addErrback(again)

    async def check(self) -> str | None:
        """Let the store write something, which can be nothing; its trouble, if any.

        All who ask share one such write, whose success holds for :data:`GOOD_FOR`.
        """
        if self.trouble is None and self._reactor.seconds() >= self._good_until:
            entry = self._check
            if is_new := entry is None:
                self._check = entry = _Entry(None)
            answer = self._wait_for(entry)
            if is_new:
                self._append(entry)
            await answer.addErrback(_ignore, Overloaded)
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
        last = next((one for one in reversed(self._pending) if not one.given_up), None)
        await self._wait_for(last).addErrback(_ignore, Overloaded, Refused)

    async def close(self) -> None:
        """Let the store go. What it has not kept by now is lost, and was never told."""
        await self.flush()
        self._opened = False
        self._availability.close()
        behind, self._behind = self._behind, []
        for waiter in behind:
            waiter.errback(self._availability.overloaded())
        self._writer.cancel()
        lost = sum(
            isinstance(entry.fact, Change) and not entry.given_up
            for entry in self._pending
        )
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
        if entry.fact is not None:
            self._last_of[entry.fact.client_id] = entry
        self._go_on_writing()

    def _go_on_writing(self) -> None:
        # Nothing is written that doesn't follow from all that the store has told.
        if self._pending and not self._writing and not self._foreign:
            self._writer = Deferred.fromCoroutine(self._write())
            self._writer.addErrback(_ignore, CancelledError)

    async def _write(self) -> None:
        self._writing = True
        try:
            while self._pending:
                batch = self._next_batch()
                commit = partial(self._commit, batch)
                began = self._reactor.seconds()
                refusals = await self._availability.insist(commit)
                self._announcing = True
                facts = sum(one.fact is not None for one in batch)
                self._on_commit(self._reactor.seconds() - began, facts)
                self._refuse(refusals, batch)
                await in_slices(self._reactor, self._announce(len(batch)))
                self._announcing = False
                self._give_up_lost()
                self._hear_foreign()
        finally:
            self._writing = self._announcing = False

    def _next_batch(self) -> list[_Entry]:
        """As many of those that wait as the store takes at once, in their order."""
        batch: list[_Entry] = []
        clients: set[str] = set()
        for entry in islice(self._pending, self._store.largest_batch):
            if self._store.is_shared and entry.fact is not None:
                if entry.fact.client_id in clients and not entry.given_up:
                    break
                clients.add(entry.fact.client_id)
            batch.append(entry)
        return batch

    def _commit(self, batch: Sequence[_Entry]) -> Deferred[Refusals]:
        # Asked again, it has less in it if something was given up meanwhile.
        return self._store.commit(self._hand_over(batch))

    def _hand_over(self, batch: Sequence[_Entry]) -> list[Fact]:
        """The facts of a batch, which no later snapshot may take the place of."""
        facts: list[Fact] = []
        for entry in batch:
            fact = entry.fact
            if fact is None or entry.given_up:
                continue
            facts.append(fact)
            if self._snapshots.get(fact.client_id) is entry:
                del self._snapshots[fact.client_id]
        return facts

    def _refuse(self, refusals: Refusals, batch: Sequence[_Entry]) -> None:
        """Give up all that waits for clients of which the store knows better.

        Nobody has seen it: replies and listeners wait for the store. What was given up
        before the store refused it isn't in the way of what came after.
        """
        done = {one.fact.client_id for one in batch if one.fact and one.given_up}
        done -= {one.fact.client_id for one in batch if one.fact and not one.given_up}
        given_up: list[_Entry] = []
        for client_id in [one for one in refusals if one not in done]:
            replace = partial(self._on_refusal, client_id, refusals[client_id])
            given_up += self._give_up(client_id, replace)[0]
        _fail(given_up, Refused())

    def _give_up(
        self, client_id: str, replace: Callable[[], T]
    ) -> tuple[list[_Entry], T]:
        """Let nothing that waits of a client be kept; it keeps its place in the queue.

        :param replace: brings the client to what the store has.
        :return: what was given up, whose waiters have to be told; what that answers.
        """
        given_up: list[_Entry] = []
        if client_id in self._last_of:
            given_up = [entry for entry in self._pending if entry.waits_for(client_id)]
        for entry in given_up:
            entry.given_up = True
        answer = replace()
        for waits in (self._latest, self._held, self._snapshots, self._last_of):
            waits.pop(client_id, None)
        return given_up, answer

    def _hear_lockout(
        self, client_id: str, apply: Callable[[], Iterable[News]]
    ) -> tuple[list[_Entry], Iterable[News]]:
        """Another node has had a word on a lock-out.

        An end of ours that waits is none any more; but an operator's order that waits
        will be the last word, so that the registry stays as it is.

        :return: what was given up, whose waiters have to be told; what else is told.
        """
        waits = [
            (entry, entry.fact.until)
            for entry in (self._pending if client_id in self._last_of else ())
            if entry.waits_for(client_id) and isinstance(entry.fact, Lockout)
        ]
        given_up = [entry for entry, until in waits if not until]
        for entry in given_up:
            entry.given_up = True
        if given_up:
            self._point_at_what_waits(client_id)
        return given_up, () if len(waits) > len(given_up) else apply()

    def _point_at_what_waits(self, client_id: str) -> None:
        """Some of what waits of a client was given up; the rest still waits."""
        rest = [entry for entry in self._pending if entry.waits_for(client_id)]
        holding = [entry for entry in rest if _holds_answers_up(entry)]
        for latest, entries in ((self._last_of, rest), (self._latest, holding)):
            if entries:
                latest[client_id] = entries[-1]
            else:
                latest.pop(client_id, None)

    def _give_up_lost(self) -> None:
        kept, self._lost = self._lost, None
        if kept is None:
            return
        given_up: list[_Entry] = []
        for client_id in list(self._last_of):
            replace = partial(self._on_refusal, client_id, kept(client_id))
            given_up += self._give_up(client_id, replace)[0]
        _fail(given_up, Refused())

    def _hear_foreign(self) -> None:
        while self._foreign and self._opened:  # what is told may let it be closed
            fact, apply = self._foreign.popleft()
            if isinstance(fact, Lockout):  # nothing of the client follows from it
                given_up, news = self._hear_lockout(fact.client_id, apply)
            else:
                given_up, news = self._give_up(fact.client_id, apply)
            if isinstance(fact, Change):
                self._let_hear(fact)
            if isinstance(fact, Change | Lockout):
                self._let_watch(fact)
            for one in news:
                self._let_watch(one)
            _fail(given_up, Refused())
        behind, self._behind = self._behind, []
        for waiter in behind:
            waiter.callback(None)
        if self._opened:
            self._go_on_writing()

    def _announce(self, count: int) -> Iterator[None]:
        """Let the first ``count`` that wait be heard: they are durable."""
        for _ in range(count):
            entry = self._pending.popleft()
            fact = entry.fact
            if entry.given_up:
                continue
            if fact is None:
                self._check = None
                self._good_until = self._reactor.seconds() + GOOD_FOR
            else:
                self._let_go(entry, fact)
            if isinstance(fact, Change):
                self._let_hear(fact)
            if isinstance(fact, Change | Lockout):
                self._let_watch(fact)
            for notice in (entry.notices or {}).values():
                self._let_watch(notice)
            entry.succeed()
            yield

    def _let_go(self, entry: _Entry, fact: Fact) -> None:
        client_id = fact.client_id
        if self._last_of.get(client_id) is entry:
            del self._last_of[client_id]
        if self._latest.get(client_id) is entry:
            del self._latest[client_id]
            self._held.pop(client_id, None)
        elif isinstance(fact, Change):  # and others wait behind it
            lives = fact.state is not ClientState.DISCONNECTED
            self._held[client_id] = fact.client if lives else None

    def _let_hear(self, change: Change) -> None:
        for listener in self._listeners:
            try:
                listener(change)
            except Exception:  # noqa: BLE001 - one deaf listener must not silence the others
                self._log.failure("A listener failed on {change}", change=change)

    def _let_watch(self, news: News) -> None:
        for watcher in self._watchers:
            try:
                watcher(news)
            except Exception:  # noqa: BLE001 - as a listener's
                self._log.failure("A watcher failed on {news}", news=news)

    def _tell_store(self, trouble: str | None) -> None:
        self.tell(StoreNotice(trouble))

    def _wait_for(self, entry: _Entry | None) -> Deferred[None]:
        if not self._opened or (entry is not None and self.trouble is not None):
            return fail(self._availability.overloaded())
        if entry is None:
            return succeed(None)
        return entry.wait()

    def _fail_waiters(self) -> None:
        for entry in list(self._pending):
            entry.fail(self._availability.overloaded())


def _holds_answers_up(entry: _Entry) -> bool:
    fact = entry.fact
    return fact.holds_answers_up if isinstance(fact, Snapshot) else fact is not None


def _fail(entries: Iterable[_Entry], error: Exception) -> None:
    for entry in entries:
        entry.fail(error)


def _ignore(failure: Failure, *expected: type[Exception]) -> None:
    failure.trap(*expected)
