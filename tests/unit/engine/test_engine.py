"""What the engine says of how full it is, and how it fails to begin."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from heartbeat_service.core.changes import Lockout, StoredState
from heartbeat_service.core.states import ClientState
from heartbeat_service.engine.engine import Engine, NotRestored
from heartbeat_service.protocol.messages import ClientID, Goodbye, HeartbeatMessage
from heartbeat_service.storage.memory import MemoryStore
from heartbeat_service.storage.store import StoreTrouble
from tests.unit.fakes import HandStore, listen
from tests.unit.storage.store_suite import snapshot

_, UNCALIBRATED, CALIBRATED, RUNNING = ClientState


class TestRoom(SynchronousTestCase):
    """An engine for ten clients."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.engine = Engine(
            self.clock, MemoryStore(self.clock.seconds), max_clients=10
        )
        self.successResultOf(Deferred.fromCoroutine(self.engine.open()))

    def told(self, request: Any, *numbers: int) -> list[str]:
        """The warnings when these clients ask for that."""
        with capturedLogs() as log:
            for number in numbers:
                dispatch: Any = self.engine.dispatcher.dispatch
                answer = maybeDeferred(dispatch, request(ClientID(f"{number}")))
                listen(self.clock, 0.1)
                self.successResultOf(answer)
        lines = [formatEvent(event) or "" for event in log]
        return [line for line in lines if "--max-clients" in line]

    @staticmethod
    def beat(client_id: ClientID) -> HeartbeatMessage:
        """A client beats."""
        return HeartbeatMessage(client_id, ClientState.DISCONNECTED)

    def test_nine_tenths_are_warned_of_once(self) -> None:
        self.assertEqual(self.told(self.beat, *range(8)), [])
        warning = "9 clients live, and no more than 10 may: see --max-clients"
        self.assertEqual(self.told(self.beat, 8), [warning])
        self.assertEqual(self.told(self.beat, 9, 1), [])

    def test_and_again_only_after_there_was_room_for_two_tenths(self) -> None:
        self.told(self.beat, *range(10))
        self.assertEqual(self.told(Goodbye, 9, 8), [])
        self.assertEqual(self.told(self.beat, 8, 9), [])
        self.assertEqual(self.told(Goodbye, 9, 8, 7), [])
        self.assertEqual(len(self.told(self.beat, 7, 8, 9)), 1)


class TestOpening(SynchronousTestCase):
    def test_who_comes_back_nearly_fills_it_too(self) -> None:
        stored = StoredState(
            100, [snapshot(f"{number}", number + 1) for number in range(9)]
        )
        engine = Engine(Clock(), HandStore(stored), max_clients=10)
        with capturedLogs() as log:
            self.successResultOf(Deferred.fromCoroutine(engine.open()))
        lines = [formatEvent(event) or "" for event in log]
        self.assertEqual(len([line for line in lines if "--max-clients" in line]), 1)

    def restored(self, store: HandStore) -> list[str]:
        """What the log says of those who came back."""
        engine = Engine(Clock(), store, wall_clock=lambda: 1000.0)
        with capturedLogs() as log:
            self.successResultOf(Deferred.fromCoroutine(engine.open()))
        lines = [formatEvent(event) or "" for event in log]
        return [line for line in lines if "restored" in line]

    def test_one_line_tells_how_many_came_back_and_in_which_states(self) -> None:
        states = [RUNNING, UNCALIBRATED, RUNNING, CALIBRATED, RUNNING, UNCALIBRATED]
        clients = [snapshot(f"{n}", n, state=state) for n, state in enumerate(states)]
        self.assertEqual(
            self.restored(HandStore(StoredState(100, clients))),
            ["restored 6 clients: 2 UNCALIBRATED, 1 CALIBRATED, 3 RUNNING"],
        )
        self.assertEqual(
            self.restored(HandStore(StoredState(100, clients[:1]))),
            ["restored 1 client: 1 RUNNING"],
        )
        self.assertEqual(self.restored(HandStore()), ["restored 0 clients"])

    def test_and_how_many_are_still_locked_out(self) -> None:
        kept = [Lockout("1", 1001.0), Lockout("2", 2000.0), Lockout("3", 999.0)]
        for lockouts, told in (
            (kept, "restored 0 clients; 2 client IDs locked out"),
            (kept[1:], "restored 0 clients; 1 client ID locked out"),
            (kept[2:], "restored 0 clients"),
        ):
            stored = StoredState(100, lockouts=lockouts)
            self.assertEqual(self.restored(HandStore(stored)), [told])

    def test_store_that_could_only_be_opened_later_is_told_of_then(self) -> None:
        class Locked(HandStore):
            tries = 0

            def open(self) -> Deferred[StoredState]:
                self.tries += 1
                return (
                    fail(StoreTrouble("locked")) if self.tries < 3 else super().open()
                )

        clock = Clock()
        engine = Engine(clock, Locked(StoredState(100, [snapshot("1", 1)])))
        with capturedLogs() as log:
            self.successResultOf(Deferred.fromCoroutine(engine.open()))
            Deferred.fromCoroutine(engine.keep_opening())
            listen(clock, 5)
        lines = [formatEvent(event) or "" for event in log]
        self.assertEqual(
            [line for line in lines if "restored" in line],
            ["restored 1 client: 1 UNCALIBRATED"],
        )

    def test_what_cannot_be_restored_is_told_and_nothing_is_written_back(self) -> None:
        bad: Any = "no client"
        store = HandStore(StoredState(100, [snapshot("1", 1), bad]))
        clock = Clock()
        engine = Engine(clock, store)
        opening = Deferred.fromCoroutine(engine.open())
        error = self.failureResultOf(opening, NotRestored)
        self.assertIn("what it holds can't be restored", error.getErrorMessage())
        listen(clock, 60)  # nor is anybody dead who was taken in before it came to that
        closing = Deferred.fromCoroutine(engine.close())
        self.assertEqual((store.waiting, store.commits), (None, 0))
        self.successResultOf(closing)
