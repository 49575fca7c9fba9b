"""What operators are told: durable first, and in order for each client."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from heartbeat_service.core.changes import Fact, Lockout, SilenceEnd
from heartbeat_service.core.notices import (
    Held,
    HoldEnd,
    Late,
    MassLossBegun,
    MassLossOver,
    News,
    Notice,
    Recovered,
    Silence,
    StoreNotice,
)
from heartbeat_service.engine.availability import PATIENCE, PAUSE
from heartbeat_service.engine.journal import ChangeJournal
from tests.unit.fakes import HandStore
from tests.unit.storage.store_suite import death, entry, life, registration, snapshot


def late(client_id: str = "1", incarnation: int = 101) -> Late:
    """It has missed two beats."""
    return Late(
        client_id=client_id,
        incarnation=incarnation,
        seconds_since_heartbeat=4.0,
        seconds_to_timebomb=6.0,
        timebomb_seconds=10.0,
    )


def recovered(client_id: str = "1", incarnation: int = 101) -> Recovered:
    """It has beaten again."""
    return Recovered(client_id=client_id, incarnation=incarnation)


def silence(seconds: float, reason: SilenceEnd | None = None) -> Silence:
    """It may be silent, or no longer."""
    return Silence(client_id="1", incarnation=101, seconds=seconds, reason=reason)


class NoticesTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        """Begin with an open journal that one watches."""
        self.clock = Clock()
        self.store = HandStore()
        self.told: list[News] = []
        self.journal = self.new_journal(self.told.append)

    def new_journal(self, *watchers: Callable[[News], None]) -> ChangeJournal:
        """A journal that is open."""
        journal = ChangeJournal(
            self.store, self.clock, self.clock, [], lambda *_: None, watchers
        )
        self.successResultOf(Deferred.fromCoroutine(journal.open()))
        return journal

    def tell(self, *notices: Notice) -> None:
        """The registry tells these."""
        for notice in notices:
            self.journal.tell(notice)


class TestOrder(NoticesTestCase):
    def test_a_notice_is_told_at_once_if_nothing_of_its_client_waits(self) -> None:
        self.tell(late())
        self.assertEqual(self.told, [late()])

    def test_a_notice_comes_after_the_change_that_waits_and_not_before(self) -> None:
        birth = registration("1", 101)
        self.journal.record(birth)
        self.tell(late())
        self.assertEqual(self.told, [])
        self.store.finish()
        self.assertEqual(self.told, [birth, late()])

    def test_a_notice_waits_for_what_is_kept_and_not_told_too(self) -> None:
        self.journal.record(snapshot("1", 101, silent_until=300.0, ordered=True))
        self.tell(silence(300.0))
        self.assertEqual(self.told, [])
        self.store.finish()
        self.assertEqual(self.told, [silence(300.0)])

    def test_a_notice_waits_for_the_snapshot_that_takes_anothers_place(self) -> None:
        self.journal.record(registration("0", 100))
        self.journal.record(snapshot("1", 101, fuse=1.0))
        self.journal.record(snapshot("1", 101, fuse=2.0))
        self.tell(late())
        self.store.finish()
        self.assertEqual(self.told, [registration("0", 100)])
        self.store.finish()
        self.assertEqual(self.told, [registration("0", 100), late()])

    def test_no_client_waits_for_another(self) -> None:
        self.journal.record(registration("1", 101))
        self.tell(late("2"), MassLossBegun("1", 1, 60.0))
        self.assertEqual(self.told, [late("2"), MassLossBegun("1", 1, 60.0)])

    def test_notices_stay_between_the_changes_around_them(self) -> None:
        birth, entered, end = (
            registration("1", 101),
            entry("1", 101, 2),
            death("1", life(101)),
        )
        self.journal.record(birth)
        self.tell(late())
        self.journal.record(entered)
        self.tell(recovered())
        self.journal.record(end)
        self.tell(silence(0.0, SilenceEnd.ENDED))
        self.store.finish_all()
        self.assertEqual(
            self.told,
            [birth, late(), entered, recovered(), end, silence(0.0, SilenceEnd.ENDED)],
        )

    def test_notices_of_different_kinds_keep_their_order(self) -> None:
        notices: list[Notice] = [
            late(),
            Held(client_id="1", incarnation=101, seconds_since_heartbeat=10.0),
            recovered(),
        ]
        self.journal.record(registration("1", 101))
        self.tell(*notices)
        self.store.finish()
        self.assertEqual(self.told[1:], notices)

    def test_changes_and_lockouts_are_told_and_snapshots_are_not(self) -> None:
        facts: list[Fact] = [
            registration("1", 101),
            Lockout("2", 600.0, "ada", None, 60.0),
        ]
        for fact in facts:
            self.journal.record(fact)
        self.journal.record(snapshot("1", 101, fuse=1.0))
        self.store.finish_all()
        self.assertEqual(self.told, facts)

    def test_a_notice_that_comes_while_its_change_is_announced_comes_after_it(
        self,
    ) -> None:
        told: list[News] = []

        def watch(news: News) -> None:
            told.append(news)
            if news == registration("0", 100):
                self.journal.tell(late())

        self.journal = self.new_journal(watch)
        self.journal.record(registration("9", 99))
        self.journal.record(registration("0", 100))
        self.journal.record(registration("1", 101))
        self.store.finish_all()
        self.assertEqual(
            told[1:], [registration("0", 100), registration("1", 101), late()]
        )

    def test_a_watcher_that_raises_does_not_silence_the_others(self) -> None:
        def deaf(_: News) -> None:
            raise ZeroDivisionError

        told: list[News] = []
        self.journal = self.new_journal(deaf, told.append)
        self.tell(late())
        self.journal.record(registration("1", 101))
        self.store.finish()
        self.assertEqual(told, [late(), registration("1", 101)])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)


class TestTrouble(NoticesTestCase):
    def setUp(self) -> None:
        """A client's registration can't be kept."""
        super().setUp()
        self.journal.record(registration("1", 101))
        self.store.break_down()
        self.told.clear()

    def recover(self) -> None:
        """The store can keep it after all."""
        self.clock.advance(PAUSE)
        self.store.finish()

    def test_of_each_kind_the_latest_waits(self) -> None:
        for _ in range(1_000):
            self.tell(late(), recovered())
        self.tell(late())
        self.assertEqual(self.told, [])
        self.recover()
        over = StoreNotice(None)
        self.assertEqual(self.told, [over, registration("1", 101), recovered(), late()])

    def test_who_has_nothing_waiting_is_told_of_meanwhile(self) -> None:
        over = MassLossOver("1", 0, 5.0, HoldEnd.RECOVERED)
        self.tell(late("2"), over)
        self.assertEqual(self.told, [late("2"), over])

    def test_what_is_refused_takes_its_notices_along(self) -> None:
        self.tell(late())
        self.clock.advance(PAUSE)
        self.store.finish({"1": None})
        self.assertEqual(self.told, [StoreNotice(None)])
        self.tell(late())
        self.assertEqual(self.told[1:], [late()])


class TestStore(NoticesTestCase):
    def test_trouble_and_its_end_are_told_once_each(self) -> None:
        for _ in range(2):
            self.told.clear()
            self.journal.record(registration("1", 101))
            self.store.break_down()
            reason = self.journal.trouble
            self.assertIsNotNone(reason)
            self.clock.advance(PAUSE)
            self.store.break_down()
            self.assertEqual(self.told, [StoreNotice(reason)])
            self.clock.advance(PAUSE)
            self.store.finish()
            self.assertEqual(
                self.told,
                [StoreNotice(reason), StoreNotice(None), registration("1", 101)],
            )

    def test_who_is_told_of_trouble_finds_the_journal_in_it(self) -> None:
        found: list[tuple[str | None, str | None]] = []

        def watch(news: News) -> None:
            if isinstance(news, StoreNotice):
                found.append((news.trouble, self.journal.trouble))

        self.journal = self.new_journal(watch)
        self.journal.record(registration("1", 101))
        self.clock.advance(PATIENCE)
        self.store.finish()
        told, trouble = found[0]
        self.assertIsNotNone(told)
        self.assertEqual((trouble, found[1:]), (told, [(None, None)]))
