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
from collections.abc import Callable, Collection, Coroutine, Iterable, Sequence
from contextlib import suppress
from typing import Any

from attrs import evolve
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from typing_extensions import override

from heartbeat_service.core.changes import Fact, Life, Snapshot, StoredState
from heartbeat_service.core.dead import KEPT_FOR
from heartbeat_service.core.errors import IllegalTransition
from heartbeat_service.storage.etcd.keys import Key, Keys, Kind
from heartbeat_service.storage.etcd.loading import Loaded, scan
from heartbeat_service.storage.etcd.membership import Membership, NodeSession
from heartbeat_service.storage.etcd.port import (
    Compare,
    Delete,
    Etcd,
    EtcdAway,
    EtcdError,
    Event,
    KeyValue,
    Outcome,
    Put,
    Transaction,
    UnknownLease,
)
from heartbeat_service.storage.etcd.records import (
    EndedRecord,
    HeirsRecord,
    LockoutRecord,
    Record,
    decode,
    decode_node,
    encode_node,
)
from heartbeat_service.storage.etcd.replica import Known, Replica
from heartbeat_service.storage.etcd.succession import Succession
from heartbeat_service.storage.etcd.watching import PAUSE, Watching
from heartbeat_service.storage.etcd.writes import (
    LARGEST_TRANSACTION,
    Flight,
    last_write,
    once_each,
    write,
)
from heartbeat_service.storage.lives import Which
from heartbeat_service.storage.nodes import Node, Nodes, Standing
from heartbeat_service.storage.store import (
    NO_REFUSALS,
    Hearer,
    Refusals,
    Store,
    StoreTrouble,
    incarnations_so_far,
)

#: How often it is looked whether clients have nobody, in seconds.
TICK = 0.5

#: How long the dead are remembered at least, and lock-outs that are over, in seconds:
#: as long as each node keeps whom they have superseded. etcd forgets them by a lease
#: that lives twice as long.
REMEMBERED = KEPT_FOR


#: How long an order waits to be told what was written before it, in seconds.
NEWS_TIME = 3.0

_NOBODY_ELSE = "No other node can take its clients: each is being emptied, too"


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
        self._tomb, self._tomb_since = 0, 0.0
        self._forget_all()

    def _forget_all(self) -> None:
        self._replica = Replica()
        self._flight: Flight | None = None
        self._leaving = False
        self._catching_up: Deferred[Any] = succeed(None)
        self._rejoining: Deferred[Any] = succeed(None)

    @override
    def listen(self, hearer: Hearer) -> None:
        self._hearer = hearer

    @override
    def beats_here(self, client_id: str) -> bool:
        session = self._member.session if self._is_open else None
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
        self._succession = Succession(
            self._clock, self._etcd, self._keys, self._replica, self._member
        )
        self._watching = Watching(
            self._clock,
            self._etcd,
            self._keys.all,
            self._take,
            self._member.watched,
            self._member.watch_lost,
            self._catch_up_anew,
            self._known_keys,
        )
        loaded = Loaded(self._keys, self._replica)
        try:
            await self._renew_tomb()
            await self._begin_session()
            revision = await self._read_all(loaded)
        except CancelledError:
            await self._let_go()
            raise
        except (EtcdError, StoreTrouble) as error:
            await self._revoke()  # or others would take this node for one that runs
            await self._let_go()
            raise StoreTrouble(f"etcd: {error}") from error
        self._is_open = True
        self._standing.stir()
        self._watching.start(revision)
        # What the scan has found is what a watch would have told by then.
        self._member.watched()
        self._member.caught_up()
        self._forget_lives(loaded.too_old)
        self._spawn(self._tick())
        return loaded.stored(
            self._wall_clock(),
            incarnations_so_far(self._wall_clock),
            [one for one in loaded.living() if not self.beats_here(one)],
        )

    async def _read_all(self, loaded: Loaded) -> int:
        """Read what there is, as it was at one revision; that revision."""
        found, revision = await scan(self._etcd, self._keys.all)
        loaded.take(found)
        if self._member.session is None:
            raise StoreTrouble("the session has ended meanwhile")
        return revision

    @override
    def close(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._close())

    async def _close(self) -> None:
        if not self._is_open:
            return
        self._is_open, self._leaving = False, True
        self._watching.stop()
        session = self._member.session
        if session is not None:
            try:
                await self._succession.bequeath_own(session)
            except EtcdError as error:
                self._log.warn("etcd was not told that we go: {error}", error=error)
            else:
                await self._revoke()
        await self._let_go()

    async def _revoke(self) -> None:
        """End this node's session at once; else it ends by itself, a little later."""
        session = self._member.session
        if session is not None:
            with suppress(EtcdError):
                await self._etcd.revoke(session.lease)

    async def _let_go(self) -> None:
        self._is_open = False
        for task in list(self._tasks):
            task.cancel()
        self._watching.stop()
        self._member.end()
        await self._etcd.close()

    async def _begin_session(self) -> None:
        own = evolve(self._own, session=self._token())
        key = self._keys.node(own.session)
        await self._member.begin(own.session, key, encode_node(own))
        self._own = own

    async def _renew_tomb(self) -> None:
        """Have a lease with which the dead are forgotten, in a day at the soonest.

        :raises EtcdError: if it can't be had now.
        """
        now = self._clock.seconds()
        if not self._tomb or now - self._tomb_since > REMEMBERED:
            self._tomb = await self._etcd.grant(int(2 * REMEMBERED))
            self._tomb_since = now

    async def _tick(self) -> None:
        while True:
            await deferLater(self._clock, TICK)
            if not self._standing.may_kill() or self._leaving:
                continue
            try:
                await self._renew_tomb()
            except EtcdError:
                continue
            await self._succession.look()

    # Commits

    @override
    def commit(self, facts: Sequence[Fact]) -> Deferred[Refusals]:
        return Deferred.fromCoroutine(self._commit(facts))

    async def _commit(self, facts: Sequence[Fact]) -> Refusals:
        if not self._is_open:
            raise StoreTrouble("the store is not open")
        if not facts and not self._standing.in_touch:
            raise StoreTrouble("etcd does not answer")
        refusals: dict[str, Snapshot | None] = {}
        for batch in once_each(facts):
            # What comes after a fact that was refused, follows from it.
            rest = [fact for fact in batch if fact.client_id not in refusals]
            for client_id in await self._commit_once_each(rest):
                refusals[client_id] = self._kept(client_id)
        return refusals or NO_REFUSALS

    async def _commit_once_each(self, facts: Sequence[Fact]) -> Sequence[str]:
        """Keep a batch; whose facts were refused."""
        session, tomb = self._member.session, self._tomb
        self._check_stays()
        if session is None or not tomb:
            raise StoreTrouble("this node has no session with etcd")
        # Nothing may be waited for until it is written what the facts follow from.
        flight, writes = Flight(), []
        for fact in facts:
            self._written += 1
            nonce = f"{session.name}.{self._written}"
            flight.add(nonce, fact)
            writes.append(
                write(fact, nonce, self._keys, self._replica, session.name, tomb)
            )
        transaction = Transaction(
            [session.lives(), Compare(self._keys.heirs(session.name), 0)],
            writes,
            [each.otherwise[0] for each in writes],
        )
        self._flight = flight
        asking = Deferred.fromCoroutine(self._ask(transaction))
        # What follows from the answer may cancel who has asked, so it is over by then.
        asking.addCallbacks(self._answered, flight.fail, (session, flight))
        try:
            await flight.decided
        finally:
            asking.cancel()
            self._flight = None
        return flight.refused()

    def _check_stays(self) -> None:
        if self._leaving:
            raise StoreTrouble("this node is being emptied: its clients go to others")

    async def _ask(self, transaction: Transaction) -> Outcome:
        """Ask until it is known what has become of a transaction.

        What was done is not done twice, as every record has another revision then.
        """
        while True:
            try:
                return await self._etcd.transact(transaction)
            except EtcdAway:
                await deferLater(self._clock, PAUSE)
            except EtcdError as error:
                if isinstance(error, UnknownLease):
                    self._tomb = 0
                raise StoreTrouble(f"etcd: {error}") from error

    def _answered(self, outcome: Outcome, session: NodeSession, flight: Flight) -> None:
        """Know up to which revision the watch must be heard to know what was kept."""
        if not outcome.held and self._member.session is session:
            self._lose(session)
        flight.until = last_write(outcome)
        self._decide()

    def _decide(self) -> None:
        flight = self._flight
        if flight is None or flight.until is None:
            return
        if self._watching.revision >= flight.until:
            flight.decide()

    @override
    def catch_up(self) -> Deferred[None]:
        told = Deferred.fromCoroutine(self._hear_all())
        return told.addTimeout(NEWS_TIME, self._clock, _no_news)

    async def _hear_all(self) -> None:
        self._check_stays()
        session = self._member.session if self._is_open else None
        if session is None:
            raise StoreTrouble("this node has no session with etcd")
        try:
            outcome = await self._etcd.transact(self._sign_of_life(session))
        except EtcdError as error:
            raise StoreTrouble(f"etcd: {error}") from error
        if not outcome.held:
            raise StoreTrouble("this node has lost its session with etcd")
        await self._watching.told(outcome.revision)

    @override
    def former_lives(self, client_id: str) -> Deferred[list[Life]]:
        return Deferred.fromCoroutine(self._former_lives(client_id))

    async def _former_lives(self, client_id: str) -> list[Life]:
        try:
            page = await self._etcd.scan(self._keys.lives(client_id))
        except EtcdError as error:
            raise StoreTrouble(f"etcd: {error}") from error
        lives = [life for each in reversed(page.keys) if (life := self._life(each))]
        kept = self._replica.lives
        return [life for life in lives if kept.has(client_id, life.incarnation)]

    def _life(self, each: KeyValue) -> Life | None:
        """What a key says of a life that ended; None if it can't be read."""
        try:
            return decode(EndedRecord, each.value).life
        except ValueError as error:
            self._cannot_read(each.key, error)
            return None

    def _cannot_read(self, key: bytes, error: ValueError) -> None:
        self._log.error(
            "{key} holds what this version can't read: {error}", key=key, error=error
        )

    def _kept(self, client_id: str) -> Snapshot | None:
        """A client as the watch has told it; None if it doesn't live."""
        known = self._replica.clients.get(client_id)
        record = None if known is None else known.record()
        return record.client if record is not None and record.lives else None

    # What the watch tells

    def _known_keys(self) -> Iterable[bytes]:
        yield from map(self._keys.client, self._replica.clients)
        yield from map(self._keys.node, self._replica.nodes)
        yield from map(self._keys.lockout, self._replica.lockouts)

    def _take(self, group: Sequence[Event]) -> bool:
        """All that has happened at one revision; whether this node waits for it."""
        flight, is_own = self._flight, False
        self._standing.stir()
        for event in group:
            key = self._keys.parse(event.key.key)
            if key is None:
                continue
            try:
                is_own |= self._take_one(key, event)
            except ValueError as error:
                self._cannot_read(event.key.key, error)
        if flight is not None and is_own:
            flight.decide()
        self._decide()
        return is_own

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
        was_here = self.beats_here(client_id)
        self._replica.put(client_id, present, record.lives)
        if self._flight is not None and self._flight.has(record.nonce):
            if not was_here and self.beats_here(client_id):
                self._tell.placed([client_id], here=True)
            return True
        former = None if known is None else known.record()
        is_change = former is None or record.point > former.point
        fact = record.change() if is_change else record.client
        self._tell.changed(fact)
        return False

    def _take_lockout(self, client_id: str, event: Event) -> bool:
        if event.deleted:
            self._replica.lockouts.pop(client_id, None)
            return False
        record = decode(LockoutRecord, event.key.value)
        self._replica.lockouts[client_id] = event.key.mod_revision
        if self._flight is not None and self._flight.has(record.nonce):
            return True
        self._tell.changed(record.lockout)
        return False

    def _take_life(self, key: Key, event: Event) -> None:
        if event.deleted:
            self._replica.lives.remove(key.name, key.incarnation)
        else:
            life = decode(EndedRecord, event.key.value).life
            self._forget_lives(self._replica.add_life(key.name, life))

    def _forget_lives(self, too_old: Collection[Which]) -> None:
        """Every node knows which are too old; the first of them deletes them."""
        if too_old and self._succession.is_first():
            lives = [Delete(self._keys.life(*which)) for which in too_old]
            for start in range(0, len(lives), LARGEST_TRANSACTION):
                some = lives[start : start + LARGEST_TRANSACTION]
                self._spawn(self._insist(Transaction([], some)))

    def _take_node(self, session: str, event: Event) -> None:
        if not event.deleted:
            self._replica.nodes[session] = decode_node(session, event.key.value)
            return
        self._replica.remove_node(session, self._clock.seconds())
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
        if self._flight is not None:
            self._flight.is_disowned = True
        self._tell.placed(self._replica.at(session.name), here=False)
        self._tell.lost(self._kept)
        if not self._leaving:  # else nobody is to come here any more
            self._rejoining = self._spawn(self._rejoin())

    # Nodes

    @property
    @override
    def own(self) -> Node:
        return self._own

    @override
    def introduce(self, own: Node) -> None:
        self._own = evolve(own, session=self._own.session)
        if self._is_open:
            self._catch_up_anew()

    def _catch_up_anew(self) -> None:
        """There is something new to be caught up with: one try at a time is enough."""
        self._catching_up.cancel()
        self._catching_up = self._spawn(self._catch_up())

    async def _catch_up(self) -> None:
        """Say that this node is there, and wait until the watch has brought that.

        All that happened before was told then. So it is said again, too, whenever the
        watch was lost.
        """
        session, losses = self._member.session, self._watching.losses
        if session is None:
            return  # who begins one comes here
        outcome = await self._insist(self._sign_of_life(session))
        if not outcome.held:
            if self._member.session is session:
                self._lose(session)
            return
        await self._watching.told(outcome.revision)
        if self._watching.losses == losses and self._member.session is session:
            self._member.caught_up()

    def _sign_of_life(self, session: NodeSession) -> Transaction:
        """What the watch brings behind all that was written before it."""
        put = Put(session.key, encode_node(self._own), session.lease)
        return Transaction([session.lives()], [put])

    async def _rejoin(self) -> None:
        while self._member.session is None:
            try:
                await self._begin_session()
            except EtcdError:
                await deferLater(self._clock, PAUSE)
        self._catch_up_anew()

    @override
    def all(self) -> Sequence[Node]:
        nodes = self._replica.nodes.values()
        return sorted(nodes, key=lambda node: (node.since, node.session))

    @override
    def departed(self) -> Sequence[Node]:
        departed = self._replica.departed(self._clock.seconds())
        return [node for node in departed if node.name != self._own.name]

    @override
    def clients_at(self, session: str) -> int:
        return self._replica.count_at(session)

    @override
    def node_of(self, client_id: str) -> Node | None:
        return self._replica.nodes.get(self._replica.place(client_id) or "")

    @override
    def leave(self) -> Deferred[None]:
        if not self._is_open:
            return succeed(None)
        return Deferred.fromCoroutine(self._leave(self._member.session))

    async def _leave(self, session: NodeSession | None) -> None:
        own = self._own.session
        if not any(one != own for one in self._replica.living()):
            raise IllegalTransition(_NOBODY_ELSE)
        self._leaving = True
        if session is None:  # others have its clients; it only mustn't come back
            self._rejoining.cancel()
            return
        try:
            revision = await self._succession.bequeath_own(session)
        except EtcdError as error:
            raise StoreTrouble(f"etcd: {error}") from error
        if revision is None:
            self._stay()
            raise IllegalTransition(_NOBODY_ELSE)
        await self._watching.told(revision)

    def _stay(self) -> None:
        self._leaving = False
        if self._member.session is None:
            self._rejoining = self._spawn(self._rejoin())

    # Whatever is tried until it is done

    async def _insist(self, transaction: Transaction) -> Outcome:
        while True:
            try:
                return await self._etcd.transact(transaction)
            except EtcdError:
                await deferLater(self._clock, PAUSE)

    def _spawn(
        self, work: Coroutine[Any, Any, None] | Coroutine[Any, Any, Outcome]
    ) -> Deferred[Any]:
        task: Deferred[Any] = Deferred.fromCoroutine(work)
        self._tasks.add(task)

        def done(outcome: Any) -> None:
            self._tasks.discard(task)
            if isinstance(outcome, Failure) and not outcome.check(CancelledError):
                self._log.failure("The store failed", outcome)

        return task.addBoth(done)


def _no_news(_: object, seconds: float) -> None:
    raise StoreTrouble(f"etcd has told nothing new for {seconds:.0f} s")
