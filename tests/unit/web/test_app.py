"""What the routes answer when something behind them is out of order."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from treq.testing import StubTreq
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from heartbeat_service.engine.dispatch import Dispatcher
from heartbeat_service.engine.engine import Engine
from heartbeat_service.storage.memory import MemoryStore
from heartbeat_service.web.access import Door
from heartbeat_service.web.app import HeartbeatApp
from heartbeat_service.web.events import EventStreams
from heartbeat_service.web.names import Names
from heartbeat_service.web.peers import Peers
from tests.messages import envelope


class BrokenStore(MemoryStore):
    """A store whose lives can't be read."""

    def former_lives(self, client_id: str) -> Deferred[Any]:
        """Fail in a way that nobody foresaw."""
        raise OSError(f"the disk is on fire, and {client_id} with it")


class TestApp(SynchronousTestCase):
    """The app, without a network."""

    def setUp(self) -> None:
        """A service whose store says what ``trouble`` holds."""
        self.trouble: str | None = None
        clock = Clock()
        engine = Engine(clock, BrokenStore(clock.seconds))
        self.successResultOf(Deferred.fromCoroutine(engine.open()))
        self.dispatcher = engine.dispatcher
        self.app: Any = HeartbeatApp(
            engine.dispatcher,
            engine.orders,
            self.find_trouble,
            Door(),
            Door(),
            Names([]),
            EventStreams(engine.events, clock, 1),
            Peers(clock, engine.nodes, engine.standing, bytes),
        )
        self.web: Any = StubTreq(self.app.resource())  # its methods have no types

    async def find_trouble(self) -> str | None:
        """What the service says of itself."""
        return self.trouble

    def ask(
        self, path: str, method: str = "GET", data: bytes | None = None
    ) -> tuple[int, Any, Callable[[str], list[str] | None]]:
        """One request: its status, its JSON and a look at its headers."""
        response = self.successResultOf(
            self.web.request(method, f"http://127.0.0.1{path}", data=data)
        )
        body = self.successResultOf(response.content())
        return response.code, json.loads(body), response.headers.getRawHeaders

    def test_a_beats_endpoint_is_the_one_that_klein_holds(self) -> None:
        resource = self.app.resource()
        for path in (b"/heartbeat", b"/Heartbeat/Update"):
            endpoint = resource._endpoints[(b"POST", path)]
            self.assertIs(endpoint.func, self.app.app.endpoints["heartbeat"])
            self.assertEqual(endpoint.args, (self.app,))
        self.assertEqual(len(resource._endpoints), 2)

    def test_a_service_in_trouble_is_alive_but_not_ready(self) -> None:
        self.trouble = "the disk is full"
        self.assertEqual(self.ask("/healthz")[0], 200)
        status, problem, header = self.ask("/readyz")
        self.assertEqual((status, problem["code"]), (503, "OVERLOADED"))
        self.assertEqual(problem["detail"], "the disk is full")
        self.assertEqual(header("Retry-After"), ["1"])
        self.assertEqual(problem["retryAfterSeconds"], 1)
        self.assertEqual(header("Content-Type"), ["application/problem+json"])
        self.trouble = None
        self.assertEqual(self.ask("/readyz")[0], 200)

    def test_a_fault_of_the_service_is_logged_and_told_without_its_traceback(
        self,
    ) -> None:
        status, problem, header = self.ask("/clients/1/history")
        [failure] = self.flushLoggedErrors(OSError)
        self.assertIn("on fire", str(failure))
        self.assertEqual((status, problem["code"]), (503, "OVERLOADED"))
        self.assertNotIn("fire", json.dumps(problem))
        self.assertEqual(header("Retry-After"), ["1"])
        self.assertEqual(problem["retryAfterSeconds"], 1)

    def test_an_error_names_the_heartbeat_that_it_answers(self) -> None:
        def beat(path: str, **body: Any) -> tuple[int, str | None]:
            data = envelope(messageType="HEARTBEAT", requestID="r", body=body)
            status, answer, _ = self.ask(path, "POST", data)
            return status, answer.get("requestID")

        good = {"clientID": "1", "clientState": 0}
        for path in ("/heartbeat", "/Heartbeat/Update", "/%68eartbeat"):
            self.assertEqual(beat(path, **good), (200, "r"))
            self.assertEqual(beat(path, clientID="1"), (400, "r"))
        self.dispatcher.registry.lockouts.set("1", 60)
        self.assertEqual(beat("/heartbeat", **good), (403, "r"))
        self.patch(Dispatcher, "dispatch", lambda *_: 1 // 0)
        self.assertEqual(beat("/heartbeat", **good), (503, "r"))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_an_operators_order_has_no_envelope_to_name_it(self) -> None:
        order = b'{"clientState": 9, "requestID": "r"}'
        status, problem, _ = self.ask("/clients/1/state", "PUT", order)
        self.assertEqual((status, problem.get("requestID")), (400, None))

    def test_only_overloaded_says_when_to_try_again(self) -> None:
        status, problem, header = self.ask("/clients/1")
        self.assertEqual((status, problem.get("retryAfterSeconds")), (404, None))
        self.assertIsNone(header("Retry-After"))
