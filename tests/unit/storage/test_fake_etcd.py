"""The fake etcd: what the port promises, and what it lets go wrong."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from heartbeat_service.storage.etcd.port import (
    Compare,
    Etcd,
    EtcdAway,
    EtcdError,
    Get,
    Put,
    Transaction,
)
from tests.unit.storage.etcd_suite import Ear, EtcdSuite
from tests.unit.storage.fake_etcd import PATIENCE, SIGN, SILENT, FakeClient, FakeEtcd

STEP = 0.01


class TestFakeEtcd(EtcdSuite, SynchronousTestCase):
    random: Random | None = None

    def setUp(self) -> None:
        """Begin with an etcd in which nothing is."""
        self.clock = Clock()
        self.server = FakeEtcd(self.clock, random=self.random)
        super().setUp()

    def make_etcd(self) -> Etcd:
        """One more line to it."""
        return self.server.client()

    def compact(self, revision: int) -> None:
        """Forget at once."""
        self.server.compact(revision)

    def wait_for(self, waiting: Deferred[Any]) -> Any:
        """The result, as soon as it is there."""
        results: list[Any] = []
        waiting.addBoth(results.append)
        self.wait_until(lambda: results)
        if isinstance(results[0], Failure):
            results[0].raiseException()
        return results[0]

    def wait_until(self, predicate: Callable[[], object]) -> None:
        """Let time pass in small steps."""
        for _ in range(int(10 / STEP)):
            if predicate():
                return
            self.clock.advance(STEP)
        self.fail("it didn't happen")


class TestSlowFakeEtcd(TestFakeEtcd):
    """Promises hold whatever the order in which answers and events come."""

    def setUp(self) -> None:
        """Begin with one whose ways take differently long."""
        self.random = Random(1)  # noqa: S311 - so that it is the same each time
        super().setUp()


class TestWhatGoesWrong(SynchronousTestCase):
    def setUp(self) -> None:
        """Begin with two who ask."""
        self.clock = Clock()
        self.server = FakeEtcd(self.clock)
        self.one, self.other = self.server.client("one"), self.server.client("other")

    def put(self, client: FakeClient, value: bytes = b"") -> Deferred[Any]:
        """Ask for a put."""
        return client.transact(Transaction((), [Put(b"k", value)]))

    def listen(self, client: FakeClient) -> Ear:
        """Watch everything from now on."""
        ear = Ear()
        client.watch(b"", self.server.revision + 1, ear.hear, ear.lost.append)
        self.pass_time(STEP)
        return ear

    def pass_time(self, seconds: float) -> None:
        """In small steps."""
        self.clock.pump([STEP] * round(seconds / STEP))

    def value(self) -> bytes | None:
        """What is in etcd."""
        key = self.server.get(b"k")
        return None if key is None else key.value

    def assert_away(self, answer: Deferred[Any]) -> None:
        """It wasn't answered in time, not sooner and not later."""
        self.pass_time(PATIENCE - 2 * STEP)
        self.assertNoResult(answer)
        self.pass_time(3 * STEP)
        self.failureResultOf(answer, EtcdAway)

    def test_nothing_is_answered_within_the_call(self) -> None:
        self.server.latency = 0
        answers = [self.put(self.one), self.one.grant(60), self.one.scan(b"")]
        for answer in answers:
            self.assertNoResult(answer)
        self.clock.advance(0)
        self.clock.advance(0)
        self.assertEqual([answer.called for answer in answers], [True] * 3)

    def test_what_is_cut_before_etcd_is_not_done(self) -> None:
        self.one.cut()
        self.assert_away(self.put(self.one))
        self.assertIsNone(self.value())
        self.one.heal()
        self.pass_time(1)
        self.assertIsNone(self.value())

    def test_what_is_cut_before_etcd_may_be_done_late(self) -> None:
        self.one.cut()
        self.assert_away(self.put(self.one, b"1"))
        self.one.heal(late=True)
        self.pass_time(1)
        self.assertEqual(self.value(), b"1")

    def test_what_is_cut_on_the_way_back_is_done(self) -> None:
        self.one.cut(requests=False)
        self.assert_away(self.put(self.one, b"1"))
        self.assertEqual(self.value(), b"1")

    def test_cut_of_one_is_not_felt_by_others(self) -> None:
        self.one.cut()
        answer = self.put(self.other)
        self.pass_time(0.1)
        self.assertTrue(self.successResultOf(answer).held)

    def test_watch_that_is_cut_is_lost_after_some_time(self) -> None:
        for direction in ({"requests": False}, {"answers": False}):
            ear = self.listen(self.one)
            self.one.cut(**direction)
            self.pass_time(SIGN * (SILENT - 1))
            self.assertEqual(ear.lost, [])
            self.pass_time(SIGN * 2)
            self.assertIsInstance(ear.lost[0], EtcdAway)
            self.one.heal()

    def test_watch_that_is_cut_briefly_goes_on_and_has_missed_nothing(self) -> None:
        ear = self.listen(self.one)
        self.one.cut()
        self.put(self.other, b"1")
        self.put(self.other, b"2")
        self.pass_time(1)
        self.assertEqual(ear.events, [])
        self.one.heal()
        self.put(self.other, b"3")
        self.pass_time(SIGN * SILENT * 2)
        self.assertEqual([value for _, value in ear.told], [b"1", b"2", b"3"])
        self.assertEqual(ear.lost, [])

    def test_watch_that_lags_is_alive_and_hears_later(self) -> None:
        ear = self.listen(self.one)
        self.one.delay_watch(7)
        self.put(self.one)
        self.pass_time(6.9)
        self.assertEqual(ear.events, [])
        self.assertGreater(ear.signs, 5)
        self.one.delay_watch(0)
        self.put(self.one)
        self.pass_time(0.2)
        self.assertEqual(len(ear.events), 2)

    def test_watch_that_is_lost_hears_nothing_any_more(self) -> None:
        ear = self.listen(self.one)
        self.one.lose_watch()
        self.put(self.other)
        self.pass_time(0.1)
        self.assertEqual((ear.events, len(ear.lost)), ([], 1))
        self.pass_time(SIGN * SILENT * 2)
        self.assertEqual(len(ear.lost), 1)

    def test_etcd_that_is_stopped_answers_nobody_and_its_leases_begin_anew(self):
        lease = self.server.grant(5)
        ear = self.listen(self.one)
        self.pass_time(4)
        self.server.stop()
        self.assert_away(self.put(self.one))
        self.pass_time(60)
        self.assertIsInstance(ear.lost[0], EtcdAway)
        self.server.start()
        self.pass_time(4.9)
        self.assertEqual(self.server.keep_alive(lease), 5)
        self.pass_time(5.1)
        self.assertEqual(self.server.keep_alive(lease), 0)
        self.assertIsNone(self.value())

    def test_who_is_stalled_hears_in_order_when_it_is_woken(self) -> None:
        heard: list[object] = []

        def lost(_: EtcdError) -> None:
            heard.append("lost")

        self.one.watch(b"", self.server.revision + 1, heard.extend, lost)
        self.pass_time(STEP)
        self.one.stall()
        self.put(self.one, b"1").addCallback(heard.append)
        self.put(self.other, b"2")
        self.pass_time(60)
        self.assertEqual((heard, self.value()), ([], b"2"))
        self.one.wake()
        self.assertEqual(len(heard), 3)
        self.pass_time(60)
        self.assertEqual(len(heard), 3)

    def test_who_may_not_wait_asks_again_and_finds_what_was_done(self) -> None:
        follow = Transaction([Compare(b"k", 0)], [Put(b"k", b"1")], [Get(b"k")])
        self.one.cut(requests=False)
        self.assert_away(self.one.transact(follow))
        self.one.heal()
        again = self.one.transact(follow)
        self.pass_time(0.1)
        outcome = self.successResultOf(again)
        self.assertEqual((outcome.held, self.value()), (False, b"1"))
