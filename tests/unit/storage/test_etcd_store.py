"""The store of many machines, on a fake etcd: what stores promise, and two nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import count
from typing import Any, cast

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from heartbeat_service.core.changes import Fact, Lockout, Reason, Snapshot
from heartbeat_service.core.errors import IllegalTransition
from heartbeat_service.core.instances import Instances
from heartbeat_service.core.states import ClientState
from heartbeat_service.storage import lives
from heartbeat_service.storage.etcd import loading
from heartbeat_service.storage.etcd import store as store_module
from heartbeat_service.storage.etcd.keys import Keys
from heartbeat_service.storage.etcd.membership import TIME_TO_LIVE
from heartbeat_service.storage.etcd.port import (
    Delete,
    KeyValue,
    Outcome,
    Put,
    Transaction,
)
from heartbeat_service.storage.etcd.records import Record, encode
from heartbeat_service.storage.etcd.store import EtcdStore
from heartbeat_service.storage.nodes import WORD_HOLDS, Standing
from heartbeat_service.storage.store import Hearer, Store, StoreTrouble
from tests.unit.storage.fake_etcd import FakeClient, FakeEtcd
from tests.unit.storage.store_suite import (
    LastingStoreSuite,
    SharedStoreSuite,
    death,
    entry,
    life,
    registration,
    snapshot,
)

DISCONNECTED, UNCALIBRATED, CALIBRATED, RUNNING = ClientState
NOON = 1648549285.0
DAY = 86_400.0


@define(eq=False)
class Ear(Hearer):
    """What a store tells of other nodes, and where each client beat then."""

    beats_here: Callable[[str], bool]
    facts: list[tuple[Fact, bool]] = field(factory=list)
    places: list[tuple[list[str], bool]] = field(factory=list)
    troubles: list[str | None] = field(factory=list)
    losses: int = 0

    def changed(self, fact: Fact) -> None:
        self.facts.append((fact, self.beats_here(fact.client_id)))

    def placed(self, client_ids: Iterable[str], here: bool) -> None:
        if who := list(client_ids):
            self.places.append((who, here))

    def lost(self, kept: Callable[[str], Snapshot | None]) -> None:  # noqa: ARG002 - counted only
        self.losses += 1

    def in_touch(self, trouble: str | None) -> None:
        self.troubles.append(trouble)


class EtcdStoreTestCase(SynchronousTestCase):
    """Stores on one etcd."""

    bounds = loading

    def setUp(self) -> None:
        """Begin with an etcd in which nothing is."""
        self.clock = Clock()
        self.wall = NOON
        self.server = FakeEtcd(self.clock)
        self.sessions = map("session-{}".format, count(1))

    def make_store(self) -> EtcdStore:
        """A node's store."""
        self.standing = Standing(self.clock)
        store = EtcdStore(
            self.clock,
            self.connect,
            "t",
            "a",
            lambda: self.wall,
            self.standing,
            lambda: next(self.sessions),
        )
        store.listen(Ear(store.beats_here))
        return store

    def connect(self) -> FakeClient:
        """A line to etcd; the last one of them is ``line``."""
        self.line = self.server.client()
        return self.line

    def wait_for(self, waiting: Deferred[Any]) -> Any:
        """The result, as soon as it is there."""
        results: list[Any] = []
        waiting.addBoth(results.append)
        for _ in range(5_000):
            if results:
                break
            self.clock.advance(0.001)
        if isinstance(results[0], Failure):
            results[0].raiseException()
        return results[0]

    def pass_time(self) -> None:
        """As little as it takes to start a service."""
        self.wall += 0.001

    def now(self) -> float:
        """The store's time."""
        return self.wall


class TestEtcdStore(EtcdStoreTestCase, LastingStoreSuite, SharedStoreSuite):
    def bound(self, lives: int, most: int) -> None:
        """As the suite's, where the bounds are."""
        self.patch(lives_module, "KEPT_LIVES", lives)
        self.patch(lives_module, "MOST_LIVES", most)

    def refuse(self, _store: Store, client_id: str, record: Snapshot | None) -> None:
        """Another node has written, and the watch hasn't told it yet."""
        client = record or snapshot(client_id, 999, state=DISCONNECTED)
        theirs = Record("other", "other.1", client, UNCALIBRATED, Reason.OPERATOR)
        put = Put(Keys("t").client(client_id), encode(theirs))
        self.server.transact(Transaction([], [put]))


lives_module = lives


class TestTwoNodes(EtcdStoreTestCase):
    def setUp(self) -> None:
        """Two nodes that run."""
        super().setUp()
        self.ears: dict[str, Ear] = {}
        self.lines: dict[str, FakeClient] = {}
        self.a, self.a_stands = self.node("a"), self.standing
        self.b = self.node("b")

    def node(self, name: str) -> EtcdStore:
        """One more node; ``ears`` has what it hears."""
        store = self.make_store()
        self.ears[name] = ear = Ear(store.beats_here)
        store.listen(ear)
        self.wait_for(store.open())
        self.lines[name] = self.line
        self.addCleanup(lambda: self.wait_for(store.close()))
        return store

    def end_session(self, store: EtcdStore) -> None:
        """A node's session ends, whatever the node thinks."""
        key = self.server.get(Keys("t").node(store.own.session))
        self.assertIsNotNone(key)
        self.server.revoke(cast("KeyValue", key).lease)

    def sessions_there(self) -> set[str]:
        """The sessions that etcd has."""
        keys = map(Keys("t").parse, self.server.keys(Keys("t").node("")))
        return {key.name for key in keys if key is not None}

    def heard(self, name: str) -> list[tuple[Fact, bool]]:
        """What a node has heard of the others since it was asked last."""
        self.clock.advance(0.01)
        heard, self.ears[name].facts = self.ears[name].facts, []
        return heard

    def keep(self, store: EtcdStore, *facts: Fact) -> None:
        """Commit each; none is refused."""
        for fact in facts:
            self.assertEqual(dict(self.wait_for(store.commit([fact]))), {})

    def test_the_other_node_hears_each_change_whole_and_nobody_hears_his_own(self):
        changes = [
            registration("1", 101, labels={"room": "a"}),
            entry("1", 101, 2),
            death("1", life(101), sequence=3),
        ]
        self.keep(self.a, *changes)
        self.assertEqual(self.heard("b"), [(change, False) for change in changes])
        self.assertEqual(self.heard("a"), [])

    def test_who_changes_without_a_change_of_state_is_told_as_it_is(self) -> None:
        self.keep(self.a, registration("1", 101), snapshot("1", 101, fuse=3.0))
        self.assertEqual(self.heard("b")[1], (snapshot("1", 101, fuse=3.0), False))

    def test_a_client_beats_where_it_has_come_last(self) -> None:
        self.keep(self.a, registration("1", 101))
        self.assertTrue(self.a.beats_here("1"))
        self.keep(self.b, snapshot("1", 101, arrived=True, ordered=True))
        self.clock.advance(0.01)
        self.assertEqual(
            (self.a.beats_here("1"), self.b.beats_here("1")), (False, True)
        )
        self.assertEqual(self.heard("a"), [(snapshot("1", 101), False)])

    def test_an_operator_at_another_node_lets_a_client_beat_where_it_does(self) -> None:
        self.keep(self.a, registration("1", 101))
        self.clock.advance(0.01)
        self.keep(self.b, entry("1", 101, 2))
        self.assertEqual(self.heard("a"), [(entry("1", 101, 2), True)])

    def test_of_two_that_change_a_client_at_once_one_is_refused(self) -> None:
        self.keep(self.a, registration("1", 101))
        self.clock.advance(0.01)
        commits = [
            self.a.commit([entry("1", 101, 2)]),
            self.b.commit([entry("1", 101, 2, state=RUNNING)]),
        ]
        told = [dict(self.wait_for(commit)) for commit in commits]
        self.assertEqual(sorted(map(len, told)), [0, 1])
        kept = next(one["1"] for one in told if one)
        winner = entry("1", 101, 2, state=CALIBRATED if not told[0] else RUNNING)
        self.assertEqual(kept, winner.client)

    def test_what_is_refused_was_heard_before(self) -> None:
        self.keep(self.a, registration("1", 101))
        self.clock.advance(0.01)
        self.ears["b"].facts.clear()
        first = self.a.commit([entry("1", 101, 2)])
        second = self.b.commit([entry("1", 101, 2, state=RUNNING)])
        heard: list[list[tuple[Fact, bool]]] = []
        second.addCallback(lambda _: heard.append(list(self.ears["b"].facts)))
        self.wait_for(first)
        self.clock.advance(0.01)
        self.assertEqual(heard, [[(entry("1", 101, 2), False)]])

    def test_lockouts_are_heard_and_their_end(self) -> None:
        begun = Lockout("1", NOON + 60, "Anna", None, 60.0)
        self.keep(self.a, begun)
        self.keep(self.b, Lockout("1", 0.0))
        self.assertEqual(self.heard("b"), [(begun, False)])
        self.assertEqual(self.heard("a"), [(Lockout("1", 0.0), False)])

    def test_a_dead_nodes_clients_are_taken_over(self) -> None:
        self.keep(self.a, *(registration(str(n), 100 + n) for n in range(4)))
        self.clock.advance(0.01)
        self.lines["a"].cut()
        for _ in range(80):
            self.clock.advance(0.1)
        self.assertEqual(self.ears["b"].places, [(list("0123"), True)])
        self.assertTrue(all(self.b.beats_here(one) for one in "0123"))
        self.lines["a"].heal()

    def test_who_was_taken_over_can_write_nothing(self) -> None:
        self.keep(self.a, registration("1", 101))
        self.lines["a"].cut()
        for _ in range(80):
            self.clock.advance(0.1)
        commit = self.a.commit([death("1", life(101))])
        self.lines["a"].heal()
        self.assertEqual(list(self.wait_for(commit)), ["1"])
        self.assertEqual(self.ears["a"].losses, 1)
        self.assertIn("1", [one.client_id for one in self.restored().clients])

    def test_a_node_that_goes_leaves_its_clients_at_once(self) -> None:
        self.keep(self.a, registration("1", 101))
        self.wait_for(self.a.close())
        self.clock.advance(0.01)
        self.assertEqual(self.ears["b"].places, [(["1"], True)])

    def test_a_node_that_begins_alone_has_the_clients_of_former_ones(self) -> None:
        self.keep(self.a, registration("1", 101))
        for store in (self.a, self.b):
            self.wait_for(store.close())
        alone = self.node("c")
        self.assertFalse(alone.beats_here("1"))
        self.clock.pump([0.1] * 30)
        self.assertEqual(self.ears["c"].places, [(["1"], True)])

    def test_a_node_that_begins_may_be_one_on_whose_word_others_rely(self) -> None:
        self.keep(self.a, registration("1", 101))
        self.wait_for(self.b.close())
        self.lines["a"].cut()
        self.end_session(self.a)
        again = self.node("b")
        began = self.clock.seconds()
        while not again.beats_here("1"):
            self.clock.advance(0.1)
        self.assertGreaterEqual(self.clock.seconds() - began, WORD_HOLDS)

    def test_while_etcd_is_away_one_word_at_a_time_is_kept_for_it(self) -> None:
        self.a.introduce(self.a.own)
        asked: list[Transaction] = []
        transact = self.lines["a"].transact

        def counting(transaction: Transaction) -> Deferred[Outcome]:
            asked.append(transaction)
            return transact(transaction)

        self.patch(self.lines["a"], "transact", counting)
        self.server.stop()
        for _ in range(2):
            asked.clear()
            self.clock.pump([0.1] * 600)
            self.assertLess(len(asked), 60)
        self.server.start()
        self.clock.pump([0.1] * 100)
        written = self.server.revision
        self.clock.pump([0.1] * 100)
        self.assertEqual(self.server.revision, written)
        self.assertTrue(self.a_stands.may_kill())

    def test_a_node_whose_session_ends_while_all_is_read_does_not_begin(self) -> None:
        self.patch(loading, "PAGE", 1)
        self.patch(self.server, "latency", 0.4)
        self.keep(self.a, *(registration(str(number), 101) for number in range(10)))
        store = self.make_store()
        outcome = store.open()
        while store.own.session not in self.sessions_there():
            self.clock.advance(0.1)
        self.end_session(store)
        self.clock.pump([0.1] * 100)
        with self.assertRaises(StoreTrouble):
            self.wait_for(outcome)

    def test_a_node_that_cannot_begin_leaves_nothing_behind(self) -> None:
        bad = Keys("t").client("bad")
        self.server.transact(Transaction([], [Put(bad, b"what nobody can read")]))
        there, granted = self.sessions_there(), list[int]()
        grant = FakeEtcd.grant

        def counting(server: FakeEtcd, seconds: int) -> int:
            granted.append(seconds)
            return grant(server, seconds)

        self.patch(FakeEtcd, "grant", counting)
        store = self.make_store()
        for _ in range(10):
            with self.assertRaises(StoreTrouble):
                self.wait_for(store.open())
            self.assertEqual(self.sessions_there(), there)
        self.assertEqual(granted, [granted[0], *[TIME_TO_LIVE] * 10])

    def test_of_two_that_are_drained_at_once_one_stays(self) -> None:
        self.keep(self.a, registration("1", 101))
        self.keep(self.b, registration("2", 102))
        outcomes: list[Failure | None] = []
        for store in (self.a, self.b):
            store.leave().addBoth(outcomes.append)
        self.clock.pump([0.1] * 10)
        [refusal] = [one for one in outcomes if one is not None]
        self.assertEqual(len(outcomes), 2)
        self.assertIsInstance(refusal.value, IllegalTransition)
        [stays] = [one for one in (self.a, self.b) if one.beats_here("1")]
        self.assertTrue(stays.beats_here("2"))
        self.keep(stays, entry("1", 101, 2))

    def test_who_is_drained_keeps_nothing_more_and_says_why(self) -> None:
        self.keep(self.a, registration("1", 101))
        self.wait_for(self.a.leave())
        for ask in (self.a.catch_up, lambda: self.a.commit([entry("1", 101, 2)])):
            with self.assertRaisesRegex(StoreTrouble, "this node is being emptied"):
                self.wait_for(ask())
        self.keep(self.b, entry("1", 101, 2))

    def test_who_is_drained_without_a_session_does_not_come_back(self) -> None:
        self.keep(self.a, registration("1", 101))
        self.lines["a"].cut()
        self.clock.pump([0.1] * 100)
        self.lines["a"].heal()
        while not self.ears["a"].losses:
            self.clock.advance(0.001)
        self.wait_for(self.a.leave())
        self.clock.pump([0.1] * 100)
        self.assertEqual([node.session for node in self.b.all()], [self.b.own.session])
        self.assertTrue(self.b.beats_here("1"))

    def test_what_was_compacted_away_is_told_as_a_difference(self) -> None:
        self.keep(self.a, registration("1", 101), registration("2", 102))
        self.heard("b")
        self.lines["b"].lose_watch()
        self.keep(self.a, entry("1", 101, 2), entry("1", 101, 3, state=RUNNING))
        self.server.compact(self.server.revision)
        for _ in range(20):
            self.clock.advance(0.1)
        self.assertEqual(self.heard("b"), [(entry("1", 101, 3, state=RUNNING), False)])

    def test_the_dead_are_remembered_for_a_day_and_not_for_ever(self) -> None:
        instances = Instances("two", ("one",))
        born = registration("1", 101, instances=instances)
        self.keep(self.a, born, death("1", life(101), instances=instances))
        for store in (self.a, self.b):
            self.wait_for(store.close())
        self.clock.advance(DAY)
        self.assertEqual(self.restored().instances_of_dead["1"].instances, instances)
        self.clock.advance(2 * DAY)
        self.assertEqual(self.restored().instances_of_dead, {})

    def test_no_incarnation_comes_again_of_which_only_its_end_is_kept(self) -> None:
        late = int(NOON * 2_000_000)
        self.keep(self.a, registration("1", late), death("1", life(late)))
        self.server.transact(Transaction([], [Delete(Keys("t").client("1"))]))
        self.assertEqual(self.restored().last_incarnation, late)

    def test_a_former_life_that_cannot_be_read_is_logged_and_left_out(self) -> None:
        self.keep(self.a, registration("1", 101), death("1", life(101)))
        self.keep(self.a, registration("1", 102), death("1", life(102)))
        key = Keys("t").life("1", 101)
        self.server.transact(Transaction([], [Put(key, b'{"nonce": 1}')]))
        logged: list[LogEvent] = []
        observer = cast(ILogObserver, logged.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        lives = self.wait_for(self.a.former_lives("1"))
        self.assertEqual([one.incarnation for one in lives], [102])
        self.assertIn("can't read", formatEvent(logged[-1]))

    def test_who_dies_as_late_as_can_be_is_remembered_as_long(self) -> None:
        self.patch(store_module, "REMEMBERED", 60.0)
        node, key = self.node("c"), Keys("t").client("1")
        self.clock.pump([1.0] * 59)  # the lease of the dead is as old as can be
        self.keep(node, registration("1", 101), death("1", life(101)))
        self.clock.pump([1.0] * 60)
        self.assertIsNotNone(self.server.get(key))
        self.clock.pump([1.0] * 61)
        self.assertIsNone(self.server.get(key))

    def restored(self) -> Any:
        """What a node that begins is told."""
        store = self.make_store()
        told = self.wait_for(store.open())
        self.wait_for(store.close())
        return told
