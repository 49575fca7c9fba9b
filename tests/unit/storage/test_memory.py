"""The store that forgets everything: what each store promises, and its own bound."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from heartbeat_service.storage.memory import KEPT_CLIENTS, MemoryStore
from tests.unit.storage.store_suite import StoreSuite, death, life, registration


class TestMemoryStore(StoreSuite, SynchronousTestCase):
    def setUp(self) -> None:
        """Begin at some time after the epoch."""
        self.clock = Clock()
        self.clock.advance(1648549285)

    def make_store(self) -> MemoryStore:
        """A store that has only the clock in common with the one before."""
        return MemoryStore(self.clock.seconds)

    def pass_time(self) -> None:
        """As little as it takes to start a service."""
        self.clock.advance(0.001)

    def test_clients_whose_lives_are_kept_are_bounded(self) -> None:
        store = self.open_store()
        for number in range(KEPT_CLIENTS + 3):
            self.commit(store, death(str(number), life(number)))
        kept = [
            number
            for number in range(KEPT_CLIENTS + 3)
            if self.successResultOf(store.former_lives(str(number)))
        ]
        self.assertEqual(kept, list(range(3, KEPT_CLIENTS + 3)))

    def test_client_that_died_again_is_kept_longer(self) -> None:
        store = self.open_store()
        for number in range(KEPT_CLIENTS):
            self.commit(store, death(str(number), life(number)))
        self.commit(store, death("0", life(KEPT_CLIENTS)))
        self.commit(store, death("newcomer", life(KEPT_CLIENTS + 1)))
        self.assertEqual(
            self.successResultOf(store.former_lives("0")),
            [life(KEPT_CLIENTS), life(0)],
        )
        self.assertEqual(self.successResultOf(store.former_lives("1")), [])

    def test_living_clients_take_no_place(self) -> None:
        store = self.open_store()
        self.commit(store, death("1", life(1)))
        for number in range(2, KEPT_CLIENTS + 5):
            self.commit(store, registration(str(number), number))
        self.assertEqual(self.successResultOf(store.former_lives("1")), [life(1)])
