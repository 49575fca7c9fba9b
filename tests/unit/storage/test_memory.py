"""The store that forgets everything: what each store promises, and its own bound."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from heartbeat_service.storage import memory
from heartbeat_service.storage.memory import MemoryStore
from tests.unit.storage.store_suite import StoreSuite, death, life, registration


class TestMemoryStore(StoreSuite, SynchronousTestCase):
    bounds = memory

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

    def test_it_remembers_nobody(self) -> None:
        store = self.open_store()
        self.commit(store, registration("1", 101))
        told = self.successResultOf(self.make_store().open())
        self.assertEqual((list(told.clients), dict(told.instances_of_dead)), ([], {}))

    def test_living_clients_take_no_place(self) -> None:
        self.bound(lives=2, most=3)
        store = self.open_store()
        self.commit(store, death("1", life(1)))
        for number in range(2, 9):
            self.commit(store, registration(str(number), number))
        self.assertEqual(self.lives(store, "1"), [life(1)])
