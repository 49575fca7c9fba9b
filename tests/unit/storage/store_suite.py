"""What every store promises: one suite, which each implementation passes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from heartbeat_service.core.changes import Change, Life, Reason
from heartbeat_service.core.states import ClientState
from heartbeat_service.storage.store import KEPT_LIVES, Store


def life(incarnation: int, reason: Reason = Reason.TIMEBOMB, **more: Any) -> Life:
    """A life that has ended."""
    return Life(
        **{
            "incarnation": incarnation,
            "registered_at": 1000.0 + incarnation,
            "ended_at": 2000.5 + incarnation,
            "reason": reason,
            "last_state": ClientState.RUNNING,
            "beats": 17,
            "longest_gap_seconds": 2.25,
            **more,
        }
    )


def registration(client_id: str, incarnation: int) -> Change:
    """A client's life begins."""
    return Change(
        client_id=client_id,
        state=ClientState.UNCALIBRATED,
        previous_state=ClientState.DISCONNECTED,
        reason=Reason.HEARTBEAT,
        sequence=1,
        incarnation=incarnation,
    )


def entry(client_id: str, incarnation: int, sequence: int) -> Change:
    """A client enters another state."""
    return Change(
        client_id=client_id,
        state=ClientState.CALIBRATED,
        previous_state=ClientState.UNCALIBRATED,
        reason=Reason.CLIENT,
        sequence=sequence,
        incarnation=incarnation,
    )


def death(client_id: str, ended: Life, sequence: int = 2) -> Change:
    """A client's life ends."""
    return Change(
        client_id=client_id,
        state=ClientState.DISCONNECTED,
        previous_state=ended.last_state,
        reason=ended.reason or Reason.TIMEBOMB,
        sequence=sequence,
        incarnation=ended.incarnation,
        ended=ended,
    )


def reconnect(client_id: str, ended: Life, incarnation: int) -> Change:
    """A client's next life begins, and with it its former one ends."""
    return Change(
        client_id=client_id,
        state=ClientState.UNCALIBRATED,
        previous_state=ended.last_state,
        reason=Reason.RECONNECT,
        sequence=1,
        incarnation=incarnation,
        ended=ended,
    )


if TYPE_CHECKING:
    _Mixin = SynchronousTestCase
else:  # so that no runner takes the suite itself for a test
    _Mixin = object


class StoreSuite(_Mixin):
    """Mix this into a ``SynchronousTestCase``, and say how the store is made.

    Whatever a store does in another thread, :meth:`wait_for` brings back.
    """

    def make_store(self) -> Store:
        """A store that is not open: the same place each time within a test.

        Only a store that keeps something across restarts has a place at all.
        """
        raise NotImplementedError

    def wait_for(self, waiting: Deferred[Any]) -> Any:
        """The result of ``waiting``; overridden where that takes time."""
        return self.successResultOf(waiting)

    def pass_time(self) -> None:
        """Time passes between two openings; overridden where a store needs it."""

    def open_store(self) -> Store:
        """An open store, closed at the end of the test."""
        store = self.make_store()
        self.wait_for(store.open())
        self.addCleanup(lambda: self.wait_for(store.close()))
        return store

    def commit(self, store: Store, *changes: Change) -> None:
        """Hand changes over and wait until they are durable."""
        for change in changes:
            self.wait_for(store.commit(change))

    def test_commit_fires(self) -> None:
        store = self.open_store()
        for change in (
            registration("1", 101),
            entry("1", 101, 2),
            reconnect("1", life(101, Reason.RECONNECT), 102),
            death("1", life(102)),
        ):
            self.assertIsNone(self.wait_for(store.commit(change)))

    def test_incarnations_grow_from_one_opening_to_the_next(self) -> None:
        handed_out = 0
        for _ in range(3):
            store = self.make_store()
            last = self.wait_for(store.open())
            self.assertIsInstance(last, int)
            self.assertGreaterEqual(last, handed_out)
            for handed_out in range(last + 1, last + 4):
                self.commit(store, registration(f"client {handed_out}", handed_out))
            self.wait_for(store.close())
            self.pass_time()

    def test_opening_tells_of_the_incarnation_of_a_dead_client_too(self) -> None:
        store = self.make_store()
        last = self.wait_for(store.open()) + 1
        ended = life(last)
        self.commit(store, registration("1", last), death("1", ended))
        self.wait_for(store.close())
        self.pass_time()
        self.assertGreaterEqual(self.wait_for(self.make_store().open()), last)

    def test_former_life_is_kept_with_all_that_it_says(self) -> None:
        store = self.open_store()
        for number, reason in enumerate(
            (Reason.TIMEBOMB, Reason.GOODBYE, Reason.KICK), start=1
        ):
            for state in ClientState:
                ended = life(
                    number,
                    reason,
                    registered_at=1648549285.153292,
                    ended_at=1648549290.5,
                    last_state=state,
                    beats=2**40,
                    longest_gap_seconds=0.1,
                )
                client_id = f"{reason.value}-{state.value}"
                self.commit(
                    store, registration(client_id, number), death(client_id, ended)
                )
                self.assertEqual(self.wait_for(store.former_lives(client_id)), [ended])

    def test_life_that_lasts_is_no_former_life(self) -> None:
        store = self.open_store()
        self.commit(store, registration("1", 101), entry("1", 101, 2))
        self.assertEqual(self.wait_for(store.former_lives("1")), [])

    def test_former_lives_are_told_newest_first(self) -> None:
        store = self.open_store()
        self.commit(
            store,
            registration("1", 101),
            reconnect("1", life(101, Reason.RECONNECT), 102),
            death("1", life(102, Reason.KICK)),
            registration("1", 103),
            death("1", life(103, Reason.GOODBYE)),
        )
        self.assertEqual(
            self.wait_for(store.former_lives("1")),
            [
                life(103, Reason.GOODBYE),
                life(102, Reason.KICK),
                life(101, Reason.RECONNECT),
            ],
        )

    def test_former_lives_are_bounded(self) -> None:
        store = self.open_store()
        total = KEPT_LIVES + 5
        for incarnation in range(1, total + 1):
            self.commit(
                store, registration("1", incarnation), death("1", life(incarnation))
            )
        newest = [life(number) for number in range(total, total - KEPT_LIVES, -1)]
        self.assertEqual(self.wait_for(store.former_lives("1")), newest)

    def test_lives_of_one_client_are_not_those_of_another(self) -> None:
        store = self.open_store()
        self.commit(
            store,
            registration("1", 101),
            registration("10", 102),
            death("10", life(102)),
            death("1", life(101)),
        )
        self.assertEqual(self.wait_for(store.former_lives("1")), [life(101)])
        self.assertEqual(self.wait_for(store.former_lives("10")), [life(102)])

    def test_unknown_client_has_no_former_life(self) -> None:
        store = self.open_store()
        self.commit(store, registration("1", 101), death("1", life(101)))
        self.assertEqual(self.wait_for(store.former_lives("2")), [])

    def test_what_was_told_stays_as_it_was(self) -> None:
        store = self.open_store()
        self.commit(store, registration("1", 101), death("1", life(101)))
        told = self.wait_for(store.former_lives("1"))
        told.clear()
        self.assertEqual(self.wait_for(store.former_lives("1")), [life(101)])

    def test_store_that_works_has_no_trouble(self) -> None:
        store = self.open_store()
        self.assertIsNone(store.trouble())
        self.commit(store, registration("1", 101))
        self.assertIsNone(store.trouble())
