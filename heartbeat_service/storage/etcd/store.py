"""The store of many machines: ``etcd://…``.

A batch of facts is one transaction: outside, that this node's session isn't over; and
inside, for each fact, that its client's record is still the one that it follows from.
So a conflict costs one fact, and a node that others have taken over can write nothing.

What has become of a batch, the watch tells: it brings this node's own writes, too, each
known by its nonce. Nothing that comes after them is told before the journal has
announced them. So on every node, changes are told in etcd's order.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import groupby
from typing import Any

from attrs import define, evolve, field
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from typing_extensions import override

from heartbeat_service.core.changes import (
    Change,
    DeadClient,
    Fact,
    GoneClient,
    Life,
    Lockout,
    Reason,
    Snapshot,
    StoredState,
)
from heartbeat_service.core.errors import IllegalTransition
from heartbeat_service.storage.etcd.keys import Key, Keys, Kind
from heartbeat_service.storage.etcd.membership import Membership, NodeSession
from heartbeat_service.storage.etcd.port import (
    Compacted,
    Compare,
    Delete,
    Etcd,
    EtcdAway,
    EtcdError,
    Event,
    Get,
    KeyValue,
    Outcome,
    Put,
    Transaction,
    Watch,
)
from heartbeat_service.storage.etcd.records import (
    HeirsRecord,
    LockoutRecord,
    NodeRecord,
    Record,
    decode,
    encode,
    of_change,
    of_snapshot,
)
from heartbeat_service.storage.etcd.replica import Known, Replica
from heartbeat_service.storage.nodes import WORD_HOLDS, Node, Nodes, Standing
from heartbeat_service.storage.store import (
    LATELY,
    MOST_GONE,
    MOST_LATELY,
    NO_REFUSALS,
    Hearer,
    Refusals,
    Store,
    StoreTrouble,
    incarnations_so_far,
)

#: The most facts in one transaction: etcd takes 128 operations, those of a fact among
#: them.
LARGEST_TRANSACTION = 100

#: How many keys are read at once.
PAGE = 2_000

#: How long it is until what has failed is tried again, in seconds.
PAUSE = 0.2

#: How often it is looked whether clients have nobody, in seconds. Each node waits one
#: time longer than the one before it in the list of nodes, so that one of them writes.
TICK = 0.5

#: How often it is looked whose heirs nobody has to know any more, in seconds.
TIDYING = 600.0

#: How long the dead are remembered at least, and lock-outs that are over, in seconds;
#: etcd forgets them by a lease that lives twice as long.
REMEMBERED = 3600.0


@define(eq=False)
class _Flight:
    """A transaction under way.

    :ivar nonces: of all its writes.
    :ivar kept: of those that the watch has brought.
    :ivar until: the revision up to which the watch has to be heard, once that is known.
    :ivar decided: fires once it is known what was kept.
    """

    nonces: dict[str, Fact] = field(factory=dict)
    kept: set[str] = field(factory=set)
    until: int | None = None
    decided: Deferred[None] = field(factory=Deferred)

    def decide(self) -> None:
        """What was kept is known."""
        if not self.decided.called:
            self.decided.callback(None)

    def fail(self, failure: Failure) -> None:
        """Nothing was kept."""
        if not failure.check(CancelledError) and not self.decided.called:
            self.decided.errback(failure)


class EtcdStore(Store, Nodes):
    """Keeps facts in etcd, which other nodes do as well.

    :param clock: the reactor, or a ``task.Clock``.
    :param connect: makes what etcd is asked through, with each opening.
    :param prefix: what all keys begin with.
    :param name: how people know this node.
    :param wall_clock: seconds since the epoch.
    :param standing: is told whether this node may speak for the service.
    :param token: makes names that nobody has used.
    """

    _log = Logger()
    largest_batch = LARGEST_TRANSACTION
    is_shared = True

    def __init__(
        self,
        clock: Any,
        connect: Callable[[], Etcd],
        prefix: str,
        name: str,
        wall_clock: Callable[[], float],
        standing: Standing,
        token: Callable[[], str] = lambda: secrets.token_hex(8),
    ) -> None:
        self._clock = clock
        self._connect = connect
        self._keys = Keys(prefix)
        self._wall_clock = wall_clock
        self._standing = standing
        self._token = token
        self._own = Node("", name, wall_clock())
        self._hearer: Hearer | None = None
        self._tasks: set[Deferred[Any]] = set()
        self._is_open = False
        self._written = 0
        self._forget_all()

    def _forget_all(self) -> None:
        self._replica = Replica()
        self._watch: Watch | None = None
        self._groups: deque[Sequence[Event]] = deque()
        self._holds = False
        self._flight: _Flight | None = None
        self._revision = 0  # up to which all was told
        self._heard = 0  # up to which all has come in
        self._leaving = False
        self._orphaned_since: dict[str, float] = {}
        self._waiters: list[tuple[int, Deferred[None]]] = []
        self._tomb, self._tomb_since = 0, 0.0
        self._tidied = self._clock.seconds()
        self._watches = 0

    @override
    def listen(self, hearer: Hearer) -> None:
        self._hearer = hearer

    @override
    def beats_here(self, client_id: str) -> bool:
        session = self._member.session  # without one, nobody does
        return session is not None and self._replica.place(client_id) == session.name

    # Opening and closing

    @override
    def open(self) -> Deferred[StoredState]:
        return Deferred.fromCoroutine(self._open())

    async def _open(self) -> StoredState:
        self._forget_all()
        self._etcd = self._connect()
        self._member = Membership(
            self._clock, self._etcd, self._standing, self._lose, self._touched
        )
        try:
            await self._renew_tomb()
            await self._begin_session()
            found = await self._scan()
            stored = self._load(found)
        except (EtcdError, StoreTrouble) as error:
            await self._let_go()
            raise StoreTrouble(f"etcd: {error}") from error
        self._is_open = True
        self._watch_on()
        # What the scan has found is what a watch would have told by then.
        self._member.watched()
        self._member.caught_up()
        self._spawn(self._tick())
        return stored

    @override
    def close(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._close())

    async def _close(self) -> None:
        if not self._is_open:
            return
        self._is_open = False
        session = self._member.session
        if session is not None:
            try:
                await self._bequeath_own(session)
                await self._etcd.revoke(session.lease)
            except EtcdError as error:
                self._log.warn("etcd was not told that we go: {error}", error=error)
        await self._let_go()

    async def _let_go(self) -> None:
        self._is_open = False
        for task in list(self._tasks):
            task.cancel()
        if self._watch is not None:
            self._watch.stop()
        self._member.end()
        await self._etcd.close()

    async def _begin_session(self) -> None:
        own = evolve(self._own, session=self._token())
        key = self._keys.node(own.session)
        await self._member.begin(own.session, key, encode(_node_record(own)))
        self._own = own

    async def _scan(self) -> list[KeyValue]:
        """All keys of ours, as they are at one revision."""
        found: list[KeyValue] = []
        after, revision = b"", 0
        while True:
            page = await self._etcd.scan(self._keys.all, after, revision, PAGE)
            found += page.keys
            revision = page.revision
            if page.is_last or not page.keys:
                self._heard = revision
                return found
            after = page.keys[-1].key

    def _load(self, found: Iterable[KeyValue]) -> StoredState:
        loaded = _Loaded(self._wall_clock())
        parsed = [(self._keys.parse(each.key), each) for each in found]
        # Heirs first: at which node a client beats follows from them.
        parsed.sort(key=lambda one: one[0] is None or one[0].kind is not Kind.HEIRS)
        for key, each in parsed:
            if key is None:
                continue
            try:
                self._load_one(key, each, loaded)
            except ValueError as error:
                raise StoreTrouble(f"{each.key!r} holds no record: {error}") from error
        self._revision = self._heard
        for client_id, life in loaded.lives_by_end():
            self._trim(client_id, life)
        elsewhere = [one for one in loaded.clients if not self.beats_here(one)]
        return loaded.stored(incarnations_so_far(self._wall_clock), elsewhere)

    def _load_one(self, key: Key, each: KeyValue, loaded: _Loaded) -> None:
        match key.kind:
            case Kind.CLIENT:
                record = decode(Record, each.value)
                known = Known(each.mod_revision, record.owner, each.value)
                self._replica.put(key.name, known, record.lives)
                loaded.add(record)
            case Kind.LIFE:
                loaded.lives.append((key.name, decode(Life, each.value)))
            case Kind.LOCKOUT:
                self._replica.lockouts[key.name] = each.mod_revision
                loaded.lockouts.append(decode(LockoutRecord, each.value).lockout)
            case Kind.NODE:
                self._replica.nodes[key.name] = _node(key.name, each.value)
            case Kind.HEIRS:
                heirs = decode(HeirsRecord, each.value).heirs
                self._replica.bequeath(key.name, heirs)

    # Commits

    @override
    def commit(self, facts: Sequence[Fact]) -> Deferred[Refusals]:
        return Deferred.fromCoroutine(self._commit(facts))

    async def _commit(self, facts: Sequence[Fact]) -> Refusals:
        if not self._is_open:
            raise StoreTrouble("the store is not open")
        refusals: dict[str, Snapshot | None] = {}
        if not facts and not self._standing.in_touch:
            raise StoreTrouble("etcd does not answer")
        for batch in _once_each(facts):
            refusals.update(await self._commit_once_each(batch))
        return refusals or NO_REFUSALS

    async def _commit_once_each(self, facts: Sequence[Fact]) -> Refusals:
        session = self._member.session
        if session is None or self._leaving or not self._tomb:
            raise StoreTrouble("this node has no session with etcd")
        # Nothing may be waited for until it is written what the facts follow from.
        flight = self._flight = _Flight()
        writes = [self._write(fact, session, flight) for fact in facts]
        transaction = Transaction(
            [session.lives(), Compare(self._keys.heirs(session.name), 0)],
            writes,
            [each.otherwise[0] for each in writes],
        )
        asking = Deferred.fromCoroutine(self._ask(transaction, session, flight))
        asking.addErrback(flight.fail)
        try:
            await flight.decided
        finally:
            asking.cancel()
            self._flight = None
        refused = [
            fact.client_id
            for nonce, fact in flight.nonces.items()
            if nonce not in flight.kept and not isinstance(fact, Lockout)
        ]
        return {client_id: self._kept(client_id) for client_id in refused}

    def _write(self, fact: Fact, session: NodeSession, flight: _Flight) -> Transaction:
        """What keeps a fact if nobody was first, and reads the present record else."""
        self._written += 1
        nonce = f"{session.name}.{self._written}"
        flight.nonces[nonce] = fact
        lease = self._tomb if _is_forgotten(fact) else 0
        if isinstance(fact, Lockout):
            key = self._keys.lockout(fact.client_id)
            revision = self._replica.lockouts.get(fact.client_id, 0)
            puts = [Put(key, encode(LockoutRecord(nonce, fact)), lease)]
        else:
            key = self._keys.client(fact.client_id)
            known = self._replica.clients.get(fact.client_id)
            revision = 0 if known is None else known.revision
            owner = self._owner(fact, known, session)
            if isinstance(fact, Change):
                record = of_change(fact, owner, nonce)
            else:
                former = None if known is None else known.record()
                record = of_snapshot(fact, former, owner, nonce)
            puts = [Put(key, encode(record), lease)]
            if isinstance(fact, Change) and fact.ended is not None:
                ended = fact.ended
                life = self._keys.life(fact.client_id, ended.incarnation)
                puts.append(Put(life, encode(ended)))
        return Transaction([Compare(key, revision)], puts, [Get(key)])

    def _owner(
        self, fact: Change | Snapshot, known: Known | None, session: NodeSession
    ) -> str:
        """At which session a client beats after a fact."""
        if isinstance(fact, Change):
            came = fact.reason in (Reason.HEARTBEAT, Reason.RECONNECT)
        else:
            came = fact.arrived
        if came or known is None or self.beats_here(fact.client_id):
            return session.name
        return known.owner

    async def _ask(
        self, transaction: Transaction, session: NodeSession, flight: _Flight
    ) -> None:
        """Find out up to which revision the watch must be heard to know what was kept.

        Asked again where nobody knows: what was done is not done twice, as every
        record has another revision then.
        """
        while True:
            try:
                outcome = await self._etcd.transact(transaction)
                break
            except EtcdAway:
                await deferLater(self._clock, PAUSE)
            except EtcdError as error:
                self._tomb = 0  # it may be that lease that etcd doesn't know
                raise StoreTrouble(f"etcd: {error}") from error
        if not outcome.held and self._member.session is session:
            self._lose(session)
        flight.until = _last_write(outcome)
        self._decide()

    async def _renew_tomb(self) -> None:
        """Have a lease with which the dead are forgotten, in an hour at the soonest.

        :raises EtcdError: if it can't be had now.
        """
        now = self._clock.seconds()
        if not self._tomb or now - self._tomb_since > REMEMBERED:
            self._tomb = await self._etcd.grant(int(2 * REMEMBERED))
            self._tomb_since = now

    @override
    def former_lives(self, client_id: str) -> Deferred[list[Life]]:
        return Deferred.fromCoroutine(self._former_lives(client_id))

    async def _former_lives(self, client_id: str) -> list[Life]:
        try:
            page = await self._etcd.scan(self._keys.lives(client_id))
        except EtcdError as error:
            raise StoreTrouble(f"etcd: {error}") from error
        lives = [decode(Life, each.value) for each in reversed(page.keys)]
        kept = self._replica.lives
        return [life for life in lives if kept.has(client_id, life.incarnation)]

    def _kept(self, client_id: str) -> Snapshot | None:
        """A client as the watch has told it; None if it doesn't live."""
        known = self._replica.clients.get(client_id)
        record = None if known is None else known.record()
        return record.client if record is not None and record.lives else None

    # The watch

    def _watch_on(self) -> None:
        self._watch = self._etcd.watch(
            self._keys.all, self._heard + 1, self._hear, self._watch_lost
        )

    def _watch_lost(self, error: EtcdError) -> None:
        self._watches += 1
        self._member.watch_lost(error)
        self._spawn(self._watch_anew(isinstance(error, Compacted)))

    async def _watch_anew(self, compacted: bool) -> None:
        """Go on where the watch was lost; if that is gone, with what is there now."""
        if compacted:
            found = await self._insist(self._scan)
            self._queue(self._differences(found))
        await deferLater(self._clock, PAUSE)
        self._watch_on()
        await self._catch_up()

    def _differences(self, found: Sequence[KeyValue]) -> list[Event]:
        """What must have happened between what was told and what is there."""
        there = {each.key for each in found}
        replica, keys = self._replica, self._keys
        known = [
            *map(keys.client, replica.clients),
            *map(keys.node, replica.nodes),
            *map(keys.lockout, replica.lockouts),
        ]
        gone = [
            Event(KeyValue(key, b"", 0, self._heard), deleted=True)
            for key in known
            if key not in there
        ]
        news = [Event(each) for each in found if each.mod_revision > self._revision]
        return sorted((*news, *gone), key=lambda event: event.key.mod_revision)

    def _hear(self, events: Sequence[Event]) -> None:
        if not self._is_open:
            return
        self._member.watched()
        if events:
            self._heard = events[-1].key.mod_revision
            self._queue(events)

    def _queue(self, events: Sequence[Event]) -> None:
        for _, group in groupby(events, lambda event: event.key.mod_revision):
            self._groups.append(tuple(group))
        self._go_on()

    def _go_on(self) -> None:
        while self._groups and not self._holds and self._is_open:
            self._take(self._groups.popleft())

    def _take(self, group: Sequence[Event]) -> None:
        """All that has happened at one revision."""
        flight, is_own = self._flight, False
        for event in group:
            key = self._keys.parse(event.key.key)
            if key is None:
                continue
            try:
                is_own |= self._take_one(key, event)
            except ValueError as error:
                self._log.error(
                    "{key} holds what this version can't read: {error}",
                    key=event.key.key,
                    error=error,
                )
        self._revision = group[-1].key.mod_revision
        if flight is not None and is_own:
            # What comes after it waits until the journal has announced it.
            self._holds = True
            flight.decide()
            self._clock.callLater(0, self._release)
        self._decide()
        self._let_wait_no_more()

    def _release(self) -> None:
        self._holds = False
        self._go_on()

    def _decide(self) -> None:
        flight = self._flight
        if flight is None or flight.until is None:
            return
        if self._revision >= flight.until:
            flight.decide()

    def _take_one(self, key: Key, event: Event) -> bool:
        """Something has happened to a key; whether it is of the flight under way."""
        match key.kind:
            case Kind.CLIENT:
                return self._take_client(key.name, event)
            case Kind.LOCKOUT:
                return self._take_lockout(key.name, event)
            case Kind.LIFE:
                self._take_life(key, event)
            case Kind.NODE:
                self._take_node(key.name, event)
            case Kind.HEIRS:
                self._take_heirs(key.name, event)
        return False

    def _take_client(self, client_id: str, event: Event) -> bool:
        known = self._replica.clients.get(client_id)
        if event.deleted:
            self._replica.remove(client_id)
            return False
        record = decode(Record, event.key.value)
        present = Known(event.key.mod_revision, record.owner, event.key.value)
        self._replica.put(client_id, present, record.lives)
        if self._is_of_flight(record.nonce):
            return True
        former = None if known is None else known.record()
        is_change = former is None or record.point > former.point
        fact = record.change() if is_change else record.client
        self._tell.changed(fact, self.beats_here(client_id))
        return False

    def _take_lockout(self, client_id: str, event: Event) -> bool:
        if event.deleted:
            self._replica.lockouts.pop(client_id, None)
            return False
        record = decode(LockoutRecord, event.key.value)
        self._replica.lockouts[client_id] = event.key.mod_revision
        if self._is_of_flight(record.nonce):
            return True
        self._tell.changed(record.lockout, here=False)
        return False

    def _is_of_flight(self, nonce: str) -> bool:
        flight = self._flight
        if flight is None or nonce not in flight.nonces:
            return False
        flight.kept.add(nonce)
        return True

    def _take_life(self, key: Key, event: Event) -> None:
        if event.deleted:
            self._replica.lives.remove(key.name, key.incarnation)
        else:
            self._trim(key.name, decode(Life, event.key.value))

    def _trim(self, client_id: str, life: Life) -> None:
        """Know of a former life, and forget those that are too old."""
        lives = self._replica.lives
        too_old = lives.add(client_id, life.incarnation, life.left_uncalibrated)
        for which in too_old:
            lives.remove(*which)
        # Every node knows which; that each deletes them costs no more than to agree.
        if too_old and self._is_first():
            deletes = [Delete(self._keys.life(*which)) for which in too_old]
            self._spawn(self._once(Transaction([], deletes)))

    def _take_node(self, session: str, event: Event) -> None:
        if not event.deleted:
            self._replica.nodes[session] = _node(session, event.key.value)
            return
        self._replica.nodes.pop(session, None)
        own = self._member.session
        if own is not None and own.name == session:
            self._lose(own)

    def _take_heirs(self, session: str, event: Event) -> None:
        if event.deleted:
            self._replica.heirs.pop(session, None)
            return
        own = self._member.session
        if own is not None and own.name == session and not self._leaving:
            self._lose(own)
        heirs = decode(HeirsRecord, event.key.value).heirs
        moved = self._replica.bequeath(session, heirs)
        here = [one for one in moved if self.beats_here(one)]
        if session == self._own.session:
            self._tell.placed(moved, here=False)
        self._tell.placed(here, here=True)

    # The session, and those of others

    @property
    def _tell(self) -> Hearer:
        assert self._hearer is not None, "somebody must listen"
        return self._hearer

    def _touched(self, trouble: str | None) -> None:
        if self._is_open:
            self._tell.in_touch(None if trouble is None else f"etcd: {trouble}")

    def _lose(self, session: NodeSession) -> None:
        """This node's session is over: what it hasn't kept, it may not keep."""
        self._log.warn("the session with etcd is over: other nodes have our clients")
        self._member.end()
        if not self._is_open:
            return
        self._tell.placed(self._replica.at(session.name), here=False)
        self._tell.lost(self._kept)
        self._spawn(self._rejoin())

    def _is_first(self) -> bool:
        living = self._replica.living()
        return bool(living) and living[0] == self._own.session

    async def _tick(self) -> None:
        while True:
            await deferLater(self._clock, TICK)
            now = self._clock.seconds()
            if not self._standing.may_kill() or self._leaving:
                continue
            try:
                await self._renew_tomb()
            except EtcdError:
                continue
            await self._look_after_orphans(now)
            if now - self._tidied > TIDYING and self._is_first():
                self._tidied = now
                for session in self._replica.needless_heirs():
                    await self._once(
                        Transaction([], [Delete(self._keys.heirs(session))])
                    )

    async def _look_after_orphans(self, now: float) -> None:
        """Write the heirs of sessions that ended without any."""
        orphanages = self._replica.orphanages()
        seen = {one: self._orphaned_since.get(one, now) for one in orphanages}
        self._orphaned_since = seen
        living, session = self._replica.living(), self._member.session
        if session is None or session.name not in living:
            return
        # Until then, a node that has lost etcd may rely on our word that we had, too.
        if self._lost_before and now - self._member.since < WORD_HOLDS:
            return
        rank = living.index(session.name)
        for one, since in seen.items():
            if now - since >= rank * TICK:
                await self._once(self._bequest(session, one, living))

    @property
    def _lost_before(self) -> bool:
        return self._member.times > 1

    def _bequest(
        self, session: NodeSession, dead: str, living: Sequence[str]
    ) -> Transaction:
        heirs = self._keys.heirs(dead)
        return Transaction(
            [
                session.lives(),
                Compare(self._keys.heirs(session.name), 0),
                Compare(self._keys.node(dead), 0),
                Compare(heirs, 0),
            ],
            [Put(heirs, encode(HeirsRecord(tuple(living))))],
        )

    async def _bequeath_own(self, session: NodeSession) -> None:
        """Let the other nodes have this one's clients; from then on it writes nothing.

        :raises EtcdError: if it can't be done now.
        """
        self._leaving = True
        others = [one for one in self._replica.living() if one != session.name]
        if not others:
            return
        heirs = self._keys.heirs(session.name)
        outcome = await self._etcd.transact(
            Transaction(
                [session.lives(), Compare(heirs, 0)],
                [Put(heirs, encode(HeirsRecord(tuple(others))))],
            )
        )
        if self._is_open and outcome.held:
            await self._told(outcome.revision)

    # Nodes

    @property
    @override
    def own(self) -> Node:
        return self._own

    @override
    def introduce(self, own: Node) -> None:
        self._own = evolve(own, session=self._own.session)
        if self._is_open:
            self._spawn(self._catch_up())

    async def _catch_up(self) -> None:
        """Say that this node is there, and wait until the watch has brought that.

        All that happened before was told then. So it is said again, too, whenever the
        watch was lost.
        """
        session, watches = self._member.session, self._watches
        if session is None:
            return  # who begins one comes here
        put = Put(session.key, encode(_node_record(self._own)), session.lease)
        transaction = Transaction([session.lives()], [put])
        outcome = await self._insist(partial(self._etcd.transact, transaction))
        if not outcome.held:
            if self._member.session is session:
                self._lose(session)
            return
        await self._told(outcome.revision)
        if self._watches == watches and self._member.session is session:
            self._member.caught_up()

    async def _rejoin(self) -> None:
        await self._insist(self._begin_session)
        await self._catch_up()

    @override
    def all(self) -> Sequence[Node]:
        nodes = self._replica.nodes.values()
        return sorted(nodes, key=lambda node: (node.since, node.session))

    @override
    def clients_at(self, session: str) -> int:
        return self._replica.count_at(session)

    @override
    def node_of(self, client_id: str) -> Node | None:
        return self._replica.nodes.get(self._replica.place(client_id) or "")

    @override
    def leave(self) -> Deferred[None]:
        if not self._is_open or self._member.session is None:
            return succeed(None)
        return Deferred.fromCoroutine(self._leave(self._member.session))

    async def _leave(self, session: Session) -> None:
        if not any(one != session.name for one in self._replica.living()):
            raise IllegalTransition(
                "No other node can take its clients: each is being emptied, too"
            )
        try:
            await self._bequeath_own(session)
        except EtcdError as error:
            raise StoreTrouble(f"etcd: {error}") from error

    # Whatever is tried until it is done

    async def _insist(self, ask: Callable[[], Any]) -> Any:
        while True:
            try:
                return await ask()
            except EtcdError:
                await deferLater(self._clock, PAUSE)

    async def _once(self, transaction: Transaction) -> Outcome | None:
        try:
            return await self._etcd.transact(transaction)
        except EtcdError:
            return None  # what it was for is looked at again

    def _spawn(self, work: Any) -> None:
        task: Deferred[Any] = Deferred.fromCoroutine(work)
        self._tasks.add(task)

        def done(outcome: Any) -> None:
            self._tasks.discard(task)
            if isinstance(outcome, Failure) and not outcome.check(CancelledError):
                self._log.failure("The store failed", outcome)

        task.addBoth(done)

    def _told(self, revision: int) -> Deferred[None]:
        """Fires once the watch has told all up to a revision."""
        if self._revision >= revision:
            return succeed(None)
        waiter: Deferred[None] = Deferred()
        self._waiters.append((revision, waiter))
        return waiter

    def _let_wait_no_more(self) -> None:
        due = [one for revision, one in self._waiters if revision <= self._revision]
        self._waiters = [one for one in self._waiters if one[0] > self._revision]
        for waiter in due:
            waiter.callback(None)


@define
class _Loaded:
    """What a scan has found, on the way to what the service is told."""

    now: float
    clients: dict[str, Snapshot] = field(factory=dict)
    dead: list[Record] = field(factory=list)
    lives: list[tuple[str, Life]] = field(factory=list)
    lockouts: list[Lockout] = field(factory=list)
    newest: int = 0

    def add(self, record: Record) -> None:
        """A client's record."""
        client = record.client
        self.newest = max(self.newest, client.incarnation)
        if record.lives:
            self.clients[client.client_id] = client
        else:
            self.dead.append(record)

    def lives_by_end(self) -> list[tuple[str, Life]]:
        """The lives that ended, each with whose it was."""
        return sorted(self.lives, key=lambda one: one[1].ended_at or 0.0)

    def stored(self, least: int, elsewhere: Sequence[str]) -> StoredState:
        """All of it.

        :param least: an incarnation that nobody has reached, by the clock.
        """
        self.dead.sort(key=lambda record: record.client.state_since)
        lately = [
            one
            for one in self.lives_by_end()
            if (one[1].ended_at or 0.0) >= self.now - LATELY
        ]
        gone = [
            GoneClient(number, record.client.client_id, record.ended)
            for number, record in enumerate(self.dead, start=1)
            if record.ended is not None
        ]
        births = sorted(
            self.clients.values(), key=lambda one: (one.incarnation, one.client_id)
        )
        return StoredState(
            last_incarnation=max(least, self.newest),
            clients=births,
            instances_of_dead={
                record.client.client_id: DeadClient(
                    record.client.instances, record.client.state_since
                )
                for record in self.dead
            },
            lockouts=[one for one in self.lockouts if one.until > self.now],
            gone=gone[-MOST_GONE:],
            lives_ended=len(self.dead),
            ended_lately=lately[-MOST_LATELY:],
            elsewhere=frozenset(elsewhere),
        )


def _is_forgotten(fact: Fact) -> bool:
    """Whether what is written of it may be forgotten after some hours."""
    if isinstance(fact, Lockout):
        return not fact.until
    return fact.state.value == "DISCONNECTED"


def _once_each(facts: Sequence[Fact]) -> Iterable[Sequence[Fact]]:
    """Facts in batches that have no client twice, and are not too large."""
    batch: list[Fact] = []
    clients: set[str] = set()
    for fact in facts:
        if fact.client_id in clients or len(batch) >= LARGEST_TRANSACTION:
            yield batch
            batch, clients = [], set()
        batch.append(fact)
        clients.add(fact.client_id)
    if batch:
        yield batch


def _last_write(outcome: Outcome) -> int:
    """The revision that the watch must have told for all of a batch to be known."""
    present = 0
    for result in outcome.results:
        if isinstance(result, Outcome):
            if result.held:
                return outcome.revision
            present = max(present, _last_write(result))
        elif result is not None:
            present = max(present, result.mod_revision)
    return present


def _node(session: str, value: bytes) -> Node:
    record = decode(NodeRecord, value)
    return Node(
        session,
        record.name,
        record.since,
        record.http,
        record.url,
        record.request_endpoint,
        record.state_change_endpoint,
    )


def _node_record(node: Node) -> NodeRecord:
    return NodeRecord(
        node.name,
        node.since,
        node.http,
        node.url,
        node.request_endpoint,
        node.state_change_endpoint,
    )
