"""The way of a change: the store first, then all who listen, in order."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail
from twisted.trial.unittest import SynchronousTestCase
from typing_extensions import override

from heartbeat_service.core.changes import Change
from heartbeat_service.storage.journal import ChangeJournal
from tests.unit.fakes import HandStore
from tests.unit.storage.store_suite import death, entry, life, registration


class DiskFull(Exception):
    """What a store must keep to itself."""


class FailingStore(HandStore):
    """A store that breaks its promise."""

    @override
    def commit(self, change: Change) -> Deferred[None]:
        return fail(DiskFull())


class JournalTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        """Begin with a journal that one listens to."""
        self.store = HandStore()
        self.heard: list[Change] = []
        self.journal = ChangeJournal(self.store, [self.heard.append])

    def record(self, *changes: Change) -> None:
        """The registry has made these."""
        for change in changes:
            self.journal.record(change)


class TestListening(JournalTestCase):
    def test_change_is_heard_after_its_commit_only(self) -> None:
        change = registration("1", 101)
        self.record(change)
        self.assertEqual(self.heard, [])
        self.store.finish()
        self.assertEqual(self.heard, [change])

    def test_every_change_reaches_the_store_at_once(self) -> None:
        changes = [registration("1", 101), entry("1", 101, 2), entry("1", 101, 3)]
        self.record(*changes)
        self.assertEqual([change for change, _ in self.store.waiting], changes)

    def test_changes_are_heard_in_order_though_commits_finish_in_another(self):
        first, second, third = (registration(name, 1) for name in ("1", "2", "3"))
        self.record(first, second, third)
        self.store.finish(2)
        self.assertEqual(self.heard, [])
        self.store.finish(0)
        self.assertEqual(self.heard, [first])
        self.store.finish(0)
        self.assertEqual(self.heard, [first, second, third])

    def test_every_listener_hears_every_change_once(self) -> None:
        others: list[Change] = []
        self.journal = ChangeJournal(self.store, [self.heard.append, others.append])
        changes = [registration("1", 101), entry("1", 101, 2)]
        self.record(*changes)
        self.store.finish_all()
        self.assertEqual(self.heard, changes)
        self.assertEqual(others, changes)

    def test_listener_that_raises_does_not_silence_the_others(self) -> None:
        def deaf(_: Change) -> None:
            raise ZeroDivisionError

        self.journal = ChangeJournal(self.store, [deaf, self.heard.append])
        changes = [registration("1", 101), entry("1", 101, 2)]
        self.record(*changes)
        waiter = self.journal.settled("1")
        self.store.finish_all()
        self.assertEqual(self.heard, changes)
        self.successResultOf(waiter)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)

    def test_store_that_fails_is_logged_and_nothing_is_told(self) -> None:
        self.journal = ChangeJournal(FailingStore(), [self.heard.append])
        self.record(registration("1", 101))
        self.assertEqual(self.heard, [])
        self.assertNoResult(self.journal.settled("1"))
        self.assertEqual(len(self.flushLoggedErrors(DiskFull)), 1)

    @settings(
        max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    @given(st.lists(st.integers(0, 99) | st.sampled_from(["1", "2", "10"])))
    def test_order_holds_for_any_order_of_commits(self, happenings):
        self.setUp()
        recorded: list[Change] = []
        durable: list[Change] = []
        for happening in happenings:
            if isinstance(happening, str):
                recorded.append(registration(happening, len(recorded)))
                self.record(recorded[-1])
            elif self.store.waiting:
                index = happening % len(self.store.waiting)
                durable.append(self.store.waiting[index][0])
                self.store.finish(index)
            self.assertEqual(self.heard, recorded[: len(self.heard)])
            self.assertTrue(all(change in durable for change in self.heard))
        self.store.finish_all()
        self.assertEqual(self.heard, recorded)


class TestWaiting(JournalTestCase):
    def assert_waits_until(
        self, waiter: Deferred[None], happens: Callable[[], None]
    ) -> None:
        """``waiter`` fires by what ``happens``, and not before."""
        self.assertNoResult(waiter)
        happens()
        self.successResultOf(waiter)

    def test_nothing_pending_is_settled(self) -> None:
        self.successResultOf(self.journal.settled("1"))
        self.successResultOf(self.journal.all_settled())

    def test_settled_once_its_change_is_durable(self) -> None:
        self.record(registration("1", 101))
        self.assert_waits_until(self.journal.settled("1"), self.store.finish)
        self.successResultOf(self.journal.settled("1"))

    def test_settled_with_the_latest_of_its_changes(self) -> None:
        self.record(registration("1", 101), entry("1", 101, 2))
        waiter = self.journal.settled("1")
        self.store.finish()
        self.assert_waits_until(waiter, self.store.finish)

    def test_what_comes_later_is_not_waited_for(self) -> None:
        self.record(registration("1", 101))
        waiter, for_all = self.journal.settled("1"), self.journal.all_settled()
        self.record(entry("1", 101, 2))
        self.store.finish()
        self.successResultOf(waiter)
        self.successResultOf(for_all)
        self.assertNoResult(self.journal.settled("1"))

    def test_one_client_does_not_wait_for_another(self) -> None:
        self.record(registration("1", 101), registration("10", 102))
        self.successResultOf(self.journal.settled("2"))
        self.store.finish()
        self.successResultOf(self.journal.settled("1"))
        self.assertNoResult(self.journal.settled("10"))

    def test_settled_no_sooner_than_it_was_heard(self) -> None:
        self.record(registration("1", 101), registration("2", 102))
        waiter = self.journal.settled("2")
        self.store.finish(1)
        self.assertNoResult(waiter)
        heard: list[int] = []
        waiter.addCallback(lambda _: heard.append(len(self.heard)))
        self.store.finish()
        self.assertEqual(heard, [2])

    def test_all_settled_waits_for_everybody(self) -> None:
        for first in (0, 1):
            self.record(registration("1", 101), registration("2", 102))
            waiter = self.journal.all_settled()
            self.store.finish(first)
            self.assert_waits_until(waiter, self.store.finish)

    def test_everyone_who_waits_is_told(self) -> None:
        self.record(registration("1", 101))
        waiters = [self.journal.settled("1") for _ in range(3)]
        self.store.finish()
        for waiter in waiters:
            self.successResultOf(waiter)

    def test_one_who_gave_up_waiting_holds_up_nobody(self) -> None:
        self.record(registration("1", 101))
        gone, waiter = self.journal.settled("1"), self.journal.settled("1")
        gone.addErrback(lambda _: None).cancel()
        self.assert_waits_until(waiter, self.store.finish)

    def test_former_lives_come_from_the_store(self) -> None:
        self.record(registration("1", 101), death("1", life(101)))
        self.store.finish_all()
        self.assertEqual(
            self.successResultOf(self.journal.former_lives("1")), [life(101)]
        )
