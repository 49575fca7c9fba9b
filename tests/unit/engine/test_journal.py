"""The way of a change: the store first, then all who listen, in order."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from heartbeat_service.core.changes import Change, Fact, Life, Snapshot, StoredState
from heartbeat_service.core.errors import Overloaded
from heartbeat_service.core.states import ClientState
from heartbeat_service.engine.availability import PATIENCE, PAUSE
from heartbeat_service.engine.journal import GOOD_FOR, ChangeJournal, Refused
from heartbeat_service.storage.store import StoreTrouble
from tests.unit.fakes import HandStore
from tests.unit.storage.store_suite import death, entry, life, registration, snapshot

T = TypeVar("T")

CALIBRATED = ClientState.CALIBRATED


class Defect(Exception):
    """What a store must keep to itself."""


class JournalTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        """Begin with an open journal that one listens to."""
        self.clock = Clock()
        self.store = HandStore()
        self.heard: list[Change] = []
        self.replaced: list[tuple[str, Snapshot | None]] = []
        self.journal = self.new_journal(self.heard.append)
        self.open()

    def new_journal(self, *listeners: Callable[[Change], None]) -> ChangeJournal:
        """A journal that isn't open."""
        return ChangeJournal(
            self.store, self.clock, self.clock, listeners, self.replace
        )

    def replace(self, client_id: str, record: Snapshot | None) -> None:
        """The store has another record of a client."""
        self.replaced.append((client_id, record))

    def open(self) -> None:
        """Open the journal."""
        self.successResultOf(self.run_(self.journal.open()))

    def run_(self, coroutine: Coroutine[Deferred[Any], Any, T]) -> Deferred[T]:
        """What one of the journal's coroutines comes to."""
        return Deferred.fromCoroutine(coroutine)

    def record(self, *facts: Fact) -> None:
        """The registry has made these."""
        for fact in facts:
            self.journal.record(fact)

    def break_down(self) -> None:
        """A change is recorded, and can't be kept."""
        self.record(registration("unlucky", 100))
        self.store.break_down()

    def assert_in_trouble(self, reason: str) -> None:
        """Nothing is accepted, and it is said why."""
        self.assertIn(reason, str(self.journal.trouble))
        error = self.assertRaises(Overloaded, self.journal.admit)
        self.assertIn(reason, str(error))

    def assert_well(self) -> None:
        """Changes are accepted."""
        self.assertIsNone(self.journal.trouble)
        self.journal.admit()


class TestListening(JournalTestCase):
    def test_change_is_heard_after_its_commit_only(self) -> None:
        change = registration("1", 101)
        self.record(change)
        self.assertEqual(self.heard, [])
        self.store.finish()
        self.assertEqual(self.heard, [change])

    def test_first_change_reaches_the_store_at_once(self) -> None:
        change = registration("1", 101)
        self.record(change)
        self.assertEqual(self.store.waiting, [change])

    def test_what_waits_while_a_commit_is_under_way_shares_the_next(self) -> None:
        facts: list[Fact] = [
            registration("1", 101),
            entry("1", 101, 2),
            registration("2", 102),
            snapshot("2", 102, has_reported=True),
            entry("1", 101, 3),
        ]
        self.record(*facts)
        self.assertEqual(self.store.waiting, facts[:1])
        self.store.finish()
        self.assertEqual(self.store.waiting, facts[1:])
        self.store.finish()
        self.assertIsNone(self.store.waiting)
        self.assertEqual((self.store.kept, self.store.commits), (facts, 2))

    def test_one_commit_is_never_too_long(self) -> None:
        self.store.largest_batch = 3
        changes = [registration(str(number), number) for number in range(8)]
        self.record(*changes)
        self.store.finish()
        for batch in (changes[1:4], changes[4:7], changes[7:]):
            self.assertEqual(self.store.waiting, batch)
            self.store.finish()
        self.assertEqual(self.heard, changes)

    def test_changes_are_heard_in_the_order_in_which_they_were_made(self) -> None:
        changes = [registration(name, 1) for name in ("3", "1", "2")]
        self.record(*changes)
        self.store.finish()
        self.assertEqual(self.heard, changes[:1])
        self.store.finish()
        self.assertEqual(self.heard, changes)

    def test_snapshot_is_kept_and_told_to_nobody(self) -> None:
        change, news = registration("1", 101), snapshot("1", 101, fuse=2.0)
        self.record(change, news)
        self.store.finish_all()
        self.assertEqual(self.store.kept, [change, news])
        self.assertEqual(self.heard, [change])

    def test_every_listener_hears_every_change_once(self) -> None:
        others: list[Change] = []
        self.journal = self.new_journal(self.heard.append, others.append)
        self.open()
        changes = [registration("1", 101), entry("1", 101, 2)]
        self.record(*changes)
        self.store.finish_all()
        self.assertEqual(self.heard, changes)
        self.assertEqual(others, changes)

    def test_listener_that_raises_does_not_silence_the_others(self) -> None:
        def deaf(_: Change) -> None:
            raise ZeroDivisionError

        self.journal = self.new_journal(deaf, self.heard.append)
        self.open()
        changes = [registration("1", 101), entry("1", 101, 2)]
        self.record(*changes)
        waiter = self.journal.settled("1")
        self.store.finish_all()
        self.assertEqual(self.heard, changes)
        self.successResultOf(waiter)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)

    def test_what_a_listener_brings_about_comes_after_what_it_heard(self) -> None:
        def restless(change: Change) -> None:
            if change.sequence < 3:
                self.record(entry("1", 101, change.sequence + 1))

        self.journal = self.new_journal(restless, self.heard.append)
        self.open()
        self.record(registration("1", 101))
        self.store.finish_all()
        self.assertEqual([change.sequence for change in self.heard], [1, 2, 3])


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

    def test_snapshot_is_not_waited_for(self) -> None:
        self.record(registration("1", 101))
        self.store.finish()
        self.record(snapshot("1", 101, has_reported=True))
        self.successResultOf(self.journal.settled("1"))

    def test_snapshot_of_a_client_beyond_the_first_state_is_waited_for(self) -> None:
        self.record(registration("1", 101), registration("2", 102))
        self.store.finish_all()
        self.record(snapshot("1", 101, state=CALIBRATED, has_reported=True))
        waiter = self.journal.settled("1")
        self.successResultOf(self.journal.settled("2"))
        self.successResultOf(self.journal.all_settled())
        self.assert_waits_until(waiter, self.store.finish)
        self.successResultOf(self.journal.settled("1"))

    def test_nobody_waits_for_what_holds_no_answers_up(self) -> None:
        self.record(registration("1", 101))
        self.store.finish()
        self.record(snapshot("1", 101, has_reported=True))
        checking = self.run_(self.journal.check())
        self.store.break_down()
        self.assertIsNotNone(self.journal.trouble)
        self.successResultOf(self.journal.all_settled())
        self.successResultOf(checking)

    def test_settled_no_sooner_than_it_was_heard(self) -> None:
        self.record(registration("1", 101), registration("2", 102))
        waiter = self.journal.settled("2")
        heard: list[int] = []
        waiter.addCallback(lambda _: heard.append(len(self.heard)))
        self.store.finish_all()
        self.assertEqual(heard, [2])

    def test_all_settled_waits_for_everybody(self) -> None:
        self.record(registration("1", 101), registration("2", 102))
        waiter = self.journal.all_settled()
        self.store.finish()
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

    def test_former_lives_that_the_store_cannot_tell_are_refused(self) -> None:
        def stumble(*_: object) -> Deferred[list[Life]]:
            return fail(StoreTrouble("the disk is gone"))

        self.patch(HandStore, "former_lives", stumble)
        failure = self.failureResultOf(self.journal.former_lives("1"), Overloaded)
        self.assertIn("the disk is gone", failure.getErrorMessage())


class TestTrouble(JournalTestCase):
    def test_store_that_fails_is_trouble_and_nothing_is_told(self) -> None:
        self.record(registration("1", 101))
        waiter, for_all = self.journal.settled("1"), self.journal.all_settled()
        self.store.break_down("the disk is full")
        self.assert_in_trouble("the disk is full")
        for waiting in (waiter, for_all):
            failure = self.failureResultOf(waiting, Overloaded)
            self.assertIn("the disk is full", failure.getErrorMessage())
        self.assertEqual(self.heard, [])

    def test_in_trouble_what_has_nothing_pending_is_settled(self) -> None:
        self.break_down()
        self.successResultOf(self.journal.settled("1"))
        self.failureResultOf(self.journal.settled("unlucky"), Overloaded)
        self.failureResultOf(self.journal.all_settled(), Overloaded)

    def test_same_facts_are_tried_again_until_they_are_kept(self) -> None:
        changes = [registration("1", 101), registration("2", 102), entry("1", 101, 2)]
        self.record(*changes)
        self.store.finish()
        for _ in range(3):
            self.assertEqual(self.store.waiting, changes[1:])
            self.store.break_down()
            self.clock.advance(PAUSE * 0.9)
            self.assertIsNone(self.store.waiting)
            self.clock.advance(PAUSE * 0.1)
        self.assertEqual(self.heard, changes[:1])
        self.store.finish()
        self.assert_well()
        self.assertEqual(self.heard, changes)
        self.assertEqual(self.store.kept, changes)

    def test_deaths_in_trouble_are_told_after_what_was_before(self) -> None:
        first, last = registration("1", 101), death("1", life(101))
        self.record(first)
        self.store.break_down()
        self.record(last)
        self.clock.advance(PAUSE)
        self.store.finish_all()
        self.assertEqual(self.heard, [first, last])

    def test_trouble_is_over_with_the_next_commit(self) -> None:
        self.break_down()
        self.clock.advance(PAUSE)
        waiter = self.journal.settled("unlucky")
        self.failureResultOf(waiter, Overloaded)
        self.store.finish()
        self.assert_well()
        self.successResultOf(self.journal.settled("unlucky"))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_newest_reason_is_told(self) -> None:
        self.break_down()
        self.clock.advance(PAUSE)
        self.store.break_down("the disk is gone")
        self.assert_in_trouble("the disk is gone")

    def test_store_that_does_not_answer_is_in_trouble(self) -> None:
        self.record(registration("1", 101))
        waiter = self.journal.settled("1")
        self.clock.advance(PATIENCE - 0.001)
        self.assertNoResult(waiter)
        self.assert_well()
        self.clock.advance(0.001)
        self.assert_in_trouble("no answer")
        self.failureResultOf(waiter, Overloaded)

    def test_store_that_answers_late_is_well_again(self) -> None:
        change = registration("1", 101)
        self.record(change)
        self.clock.advance(PATIENCE * 10)
        self.assertEqual(self.store.commits, 1, "it is asked once")
        self.store.finish()
        self.assert_well()
        self.assertEqual(self.heard, [change])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_defect_of_the_store_is_logged_once_and_outlived(self) -> None:
        change = registration("1", 101)
        self.record(change)
        for _ in range(3):
            self.store.break_down(Defect("what now?"))
            self.assert_in_trouble("what now?")
            self.clock.advance(PAUSE)
        self.assertEqual(len(self.flushLoggedErrors(Defect)), 1)
        self.store.finish()
        self.assert_well()
        self.assertEqual(self.heard, [change])

    def test_waiter_that_records_when_it_fails_does_no_harm(self) -> None:
        self.record(registration("1", 101))
        waiter = self.journal.settled("1")
        waiter.addErrback(lambda _: self.record(registration("2", 102)))
        self.store.break_down()
        self.successResultOf(waiter)
        self.clock.advance(PAUSE)
        self.store.finish_all()
        self.assertEqual([change.client_id for change in self.heard], ["1", "2"])

    def test_beats_in_trouble_take_no_more_place_than_clients(self) -> None:
        """However often a client changes its fuse, the store must know the last."""
        self.record(registration("1", 101), registration("2", 102))
        self.store.finish_all()
        self.break_down()
        for number in range(1, 100):
            for name, incarnation in (("1", 101), ("2", 102)):
                self.record(snapshot(name, incarnation, fuse=float(number)))
        last = death("1", life(101))
        self.record(last, snapshot("2", 102, fuse=0.5))
        self.clock.advance(PAUSE)
        self.store.finish()
        self.assertEqual(
            self.store.waiting,
            [snapshot("1", 101, fuse=99.0), snapshot("2", 102, fuse=0.5), last],
        )

    def test_snapshot_stays_between_the_changes_around_it(self) -> None:
        facts: list[Fact] = [
            registration("1", 101),
            snapshot("1", 101, fuse=1.0),
            entry("1", 101, 2),
            snapshot("1", 101, sequence=2, state=ClientState.CALIBRATED, fuse=2.0),
        ]
        self.record(*facts)
        self.store.finish_all()
        self.assertEqual(self.store.kept, facts)

    def test_snapshot_that_comes_while_another_is_written_is_written_too(self) -> None:
        older, newer = snapshot("1", 101, fuse=1.0), snapshot("1", 101, fuse=2.0)
        self.record(older, newer)
        self.assertEqual(self.store.waiting, [older])
        self.store.finish_all()
        self.assertEqual(self.store.kept, [older, newer])


class TestRefusals(JournalTestCase):
    """A store that others write to may have another record than the one changed."""

    def test_what_is_refused_is_heard_by_nobody_and_the_rest_is(self) -> None:
        self.record(registration("0", 100))
        one, other = registration("1", 101), registration("2", 102)
        self.record(one, other)
        self.store.finish()
        theirs = snapshot("1", 200)
        self.store.finish({"1": theirs})
        self.assertEqual([change.client_id for change in self.heard], ["0", "2"])
        self.assertEqual(self.replaced, [("1", theirs)])

    def test_who_waits_for_what_is_refused_is_told_so(self) -> None:
        self.record(registration("1", 101), registration("2", 102))
        waiter = self.journal.settled("1")
        other = self.journal.settled("2")
        self.store.finish({"1": None})
        self.failureResultOf(waiter, Refused)
        self.assertNoResult(other)
        self.store.finish()
        self.successResultOf(other)
        self.successResultOf(self.journal.settled("1"))

    def test_what_follows_from_what_is_refused_never_reaches_the_store(self) -> None:
        self.record(registration("1", 101))
        self.record(
            entry("1", 101, 2),
            registration("2", 102),
            snapshot("1", 101, state=CALIBRATED, sequence=2, has_reported=True),
        )
        waiter = self.journal.settled("1")
        self.store.finish({"1": None})
        self.failureResultOf(waiter, Refused)
        self.assertEqual(self.store.waiting, [registration("2", 102)])
        self.store.finish()
        self.assertIsNone(self.store.waiting)


class TestOpening(JournalTestCase):
    def setUp(self) -> None:
        """Begin before the store is open."""
        super().setUp()
        self.journal = self.new_journal(self.heard.append)
        self.answers: list[Deferred[StoredState]] = []
        self.patch(HandStore, "open", lambda _: self.answers.pop(0))

    def test_what_the_store_remembers_is_told(self) -> None:
        remembered = StoredState(7, [snapshot("1", 7)])
        self.answers = [succeed(remembered)]
        told = self.successResultOf(self.run_(self.journal.open()))
        self.assertEqual(told, remembered)
        self.assert_well()

    def test_before_it_is_open_everything_is_refused(self) -> None:
        self.assert_in_trouble("not open")
        self.failureResultOf(self.journal.settled("1"), Overloaded)
        self.failureResultOf(self.journal.all_settled(), Overloaded)
        trouble = self.successResultOf(self.run_(self.journal.check()))
        self.assertIn("not open", str(trouble))
        self.assertEqual(self.store.commits, 0)

    def test_store_that_cannot_be_opened_may_be_asked_again(self) -> None:
        self.answers = [fail(StoreTrouble("it is locked")), succeed(StoredState(7))]
        self.failureResultOf(self.run_(self.journal.open()), StoreTrouble)
        self.assert_in_trouble("it is locked")
        self.failureResultOf(self.journal.settled("1"), Overloaded)
        self.open()
        self.assert_well()
        self.successResultOf(self.journal.settled("1"))

    def test_store_that_takes_its_time_to_open_is_in_trouble_meanwhile(self) -> None:
        answer: Deferred[StoredState] = Deferred()
        self.answers = [answer]
        opening = self.run_(self.journal.open())
        self.clock.advance(PATIENCE)
        self.assert_in_trouble("no answer")
        answer.callback(StoredState(7))
        self.successResultOf(opening)
        self.assert_well()

    def test_defect_of_the_store_is_told_as_trouble(self) -> None:
        self.answers = [fail(Defect("what now?"))]
        self.failureResultOf(self.run_(self.journal.open()), StoreTrouble)
        self.assert_in_trouble("what now?")
        self.assertEqual(len(self.flushLoggedErrors(Defect)), 1)


class TestChecking(JournalTestCase):
    def check(self) -> Deferred[str | None]:
        """What :meth:`ChangeJournal.check` comes to."""
        return self.run_(self.journal.check())

    def test_store_that_can_write_nothing_is_well(self) -> None:
        answer = self.check()
        self.assertEqual(self.store.waiting, [])
        self.assertNoResult(answer)
        self.store.finish()
        self.assertIsNone(self.successResultOf(answer))
        self.assertEqual(self.heard, [])

    def test_store_that_cannot_write_even_nothing_is_in_trouble(self) -> None:
        answer = self.check()
        self.store.break_down("the disk is full")
        self.assertEqual(self.successResultOf(answer), "the disk is full")
        self.assert_in_trouble("the disk is full")

    def test_store_that_does_not_answer_is_in_trouble(self) -> None:
        answer = self.check()
        self.clock.advance(PATIENCE)
        self.assertIn("no answer", str(self.successResultOf(answer)))

    def test_in_trouble_the_answer_comes_at_once(self) -> None:
        self.break_down()
        commits = self.store.commits
        for _ in range(3):
            self.assertEqual(self.successResultOf(self.check()), "the disk is full")
        self.assertEqual(self.store.commits, commits)

    def test_check_finds_out_by_itself_that_the_store_is_well_again(self) -> None:
        answer = self.check()
        self.store.break_down()
        self.successResultOf(answer)
        self.clock.advance(PAUSE)
        self.store.finish()
        self.assert_well()

    def test_checks_share_a_commit(self) -> None:
        answers = [self.check() for _ in range(4)]
        self.store.finish_all()
        self.assertEqual(self.store.commits, 1)
        for answer in answers:
            self.assertIsNone(self.successResultOf(answer))

    def test_checks_behind_other_commits_share_one(self) -> None:
        self.record(registration("1", 101))
        answers = [self.check() for _ in range(4)]
        self.store.finish()
        answers += [self.check() for _ in range(4)]
        self.store.finish_all()
        self.assertEqual(self.store.commits, 2)
        for answer in answers:
            self.assertIsNone(self.successResultOf(answer))

    def test_answer_is_good_for_a_second(self) -> None:
        self.store.be_quick()
        for number in range(1, 4):
            for _ in range(100):
                self.assertIsNone(self.successResultOf(self.check()))
                self.clock.advance(GOOD_FOR / 101)
            self.assertEqual(self.store.commits, number)
            self.clock.advance(GOOD_FOR)

    def test_trouble_is_told_though_the_last_answer_was_good(self) -> None:
        answer = self.check()
        self.store.finish()
        self.assertIsNone(self.successResultOf(answer))
        self.break_down()
        self.assertEqual(self.successResultOf(self.check()), "the disk is full")

    def test_store_that_has_recovered_is_checked_anew(self) -> None:
        answer = self.check()
        self.store.break_down()
        self.successResultOf(answer)
        self.clock.advance(PAUSE)
        self.store.finish()
        self.clock.advance(GOOD_FOR)
        again = self.check()
        self.assertEqual(self.store.waiting, [])
        self.store.finish()
        self.assertIsNone(self.successResultOf(again))

    def test_one_who_gave_up_keeps_the_check_from_nobody(self) -> None:
        gone, answer = self.check(), self.check()
        gone.addErrback(lambda _: None).cancel()
        self.store.finish()
        self.assertIsNone(self.successResultOf(answer))
        self.assertEqual(self.store.commits, 1)


class TestClosing(JournalTestCase):
    def close(self) -> Deferred[None]:
        """What :meth:`ChangeJournal.close` comes to."""
        return self.run_(self.journal.close())

    def test_flush_waits_for_what_is_under_way(self) -> None:
        self.record(registration("1", 101), registration("2", 102))
        flushed = self.run_(self.journal.flush())
        self.store.finish()
        self.assertNoResult(flushed)
        self.store.finish()
        self.successResultOf(flushed)

    def test_flush_does_not_wait_for_a_store_in_trouble(self) -> None:
        self.record(registration("1", 101))
        flushed = self.run_(self.journal.flush())
        self.store.break_down()
        self.successResultOf(flushed)
        self.successResultOf(self.run_(self.journal.flush()))

    def test_close_waits_for_what_is_under_way(self) -> None:
        change = registration("1", 101)
        self.record(change)
        closed = self.close()
        self.assertFalse(self.store.closed)
        self.store.finish()
        self.successResultOf(closed)
        self.assertTrue(self.store.closed)
        self.assertEqual(self.heard, [change])

    def test_close_in_trouble_gives_up_and_tells_nobody(self) -> None:
        self.break_down()
        self.successResultOf(self.close())
        self.assertTrue(self.store.closed)
        self.clock.advance(PAUSE * 10)
        self.assertIsNone(self.store.waiting)
        self.assertEqual(self.heard, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_close_while_the_store_does_not_answer_gives_up_at_last(self) -> None:
        self.record(registration("1", 101))
        closed = self.close()
        self.clock.advance(PATIENCE)
        self.successResultOf(closed)
        self.assertTrue(self.store.closed)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_closed_journal_accepts_nothing_and_asks_the_store_for_nothing(self):
        self.successResultOf(self.close())
        self.assert_in_trouble("closed")
        self.failureResultOf(self.journal.settled("1"), Overloaded)
        trouble = self.successResultOf(self.run_(self.journal.check()))
        self.assertIn("closed", str(trouble))
        self.assertEqual(self.store.commits, 0)

    def test_journal_that_was_never_opened_can_be_closed(self) -> None:
        self.journal = self.new_journal()
        self.successResultOf(self.close())


HAPPENINGS = st.lists(
    st.sampled_from(["1", "2", "10", "snapshot", "check"])
    | st.sampled_from(["finish", "finish", "break down", "defect", "time"]),
    max_size=60,
)


class TestAnyOrder(JournalTestCase):
    @settings(
        max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    @given(HAPPENINGS, st.integers(1, 4))
    def test_listeners_hear_what_is_kept_in_order_and_once(self, happenings, largest):
        self.store.largest_batch = largest
        self.setUp()
        recorded: list[Change] = []
        for number, happening in enumerate(happenings):
            match happening:
                case "finish" if self.store.waiting is not None:
                    self.store.finish()
                case "break down" if self.store.waiting is not None:
                    self.store.break_down()
                case "defect" if self.store.waiting is not None:
                    self.store.break_down(Defect())
                case "time":
                    self.clock.advance(PAUSE)
                case "snapshot":
                    self.record(snapshot("1", 1, beats=number))
                case "check":
                    self.run_(self.journal.check())
                case "1" | "2" | "10":
                    recorded.append(registration(happening, number))
                    self.record(recorded[-1])
                    self.journal.settled(happening).addErrback(
                        lambda failure: failure.trap(Overloaded)
                    )
            self.assert_kept_is_heard()
        while self.store.waiting is not None or self.journal.trouble is not None:
            self.store.finish_all()
            self.clock.advance(PAUSE)
        self.assert_kept_is_heard()
        self.assertEqual(self.heard, recorded)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.flushLoggedErrors(Defect)

    def assert_kept_is_heard(self) -> None:
        """What was heard is what is kept: nothing else, and nothing less."""
        kept = [fact for fact in self.store.kept if isinstance(fact, Change)]
        self.assertEqual(self.heard, kept)
