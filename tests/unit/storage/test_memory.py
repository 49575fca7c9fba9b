"""The store that forgets everything: what each store promises, and its own bound."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from heartbeat_service.core.changes import Snapshot
from heartbeat_service.storage import lives
from heartbeat_service.storage.memory import MemoryStore
from heartbeat_service.storage.store import Store
from tests.unit.fakes import RefusingStore
from tests.unit.storage.store_suite import (
    SharedStoreSuite,
    StoreSuite,
    death,
    life,
    registration,
)


class TestMemoryStore(StoreSuite, SynchronousTestCase):
    bounds = lives

    def setUp(self) -> None:
        """Begin at some time after the epoch."""
        self.clock = Clock()
        self.clock.advance(1648549285)

    def make_store(self) -> Store:
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


class TestRefusingStore(SharedStoreSuite, TestMemoryStore):
    """The stand-in for a store that others write to keeps a store's promises."""

    def make_store(self) -> Store:
        """One that refuses nothing yet."""
        return RefusingStore(self.clock.seconds)

    def refuse(self, store: Store, client_id: str, record: Snapshot | None) -> None:
        """Let the next commit refuse that client."""
        assert isinstance(store, RefusingStore)
        store.refuses[client_id] = record
