"""An endpoint is called once, by the shorter way or by Klein, with the same answer."""

from __future__ import annotations

from typing import Any

from treq.testing import StubTreq
from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.iweb import IRequest

from heartbeat_service.web.problem import Problem
from heartbeat_service.web.routing import MOST_HOSTS, HeartbeatKlein, HeartbeatResource


class Odd(Exception):
    """What the endpoint of these tests may raise."""


class App:
    """One endpoint, which answers with whatever a test puts into ``answer``."""

    app = HeartbeatKlein()

    def __init__(self) -> None:
        self.answer: Any = b"at once"
        self.calls = 0

    @app.route("/it", methods=["POST"])
    def it(self, _: IRequest) -> Any:
        """The endpoint."""
        self.calls += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    @app.handle_errors(Odd)
    def odd(self, request: IRequest, failure: Failure) -> bytes:
        """An error is formatted here, and nowhere else."""
        request.setResponseCode(418)
        return type(failure.value).__name__.encode()


class TestRouting(SynchronousTestCase):
    def setUp(self) -> None:
        """The app by both ways, and what is asked of Klein itself."""
        self.app = App()
        self.refused: list[Problem] = []
        self.asked_klein = 0
        execute = HeartbeatKlein.execute_endpoint

        def ask(app: HeartbeatKlein, *args: Any, **path: Any) -> Any:
            self.asked_klein += 1
            return execute(app, *args, **path)

        self.patch(HeartbeatKlein, "execute_endpoint", ask)
        # Its endpoint is found when it is asked for: it is the one that Klein holds.
        endpoints = self.app.app.endpoints
        self.resource = HeartbeatResource(
            self.app.app,
            {(b"POST", b"/it"): lambda request: endpoints["it"](self.app, request)},
            self.refused.append,
        )
        self.web: Any = StubTreq(self.resource)

    def ask(self, host: str = "localhost") -> tuple[int, bytes]:
        """Ask the endpoint: its status and its body."""
        response = self.successResultOf(
            self.web.post("http://localhost/it", headers={"Host": host})
        )
        return response.code, self.successResultOf(response.content())

    def test_klein_binds_its_map_to_a_host_once(self) -> None:
        for _ in range(3):
            self.assertEqual(self.ask(), (200, b"at once"))
        self.assertEqual((self.app.calls, self.asked_klein), (3, 1))
        self.assertEqual(self.ask("another"), (200, b"at once"))
        self.assertEqual((self.app.calls, self.asked_klein), (4, 2))

    def test_what_it_raises_is_formatted_by_kleins_handlers(self) -> None:
        for _ in range(2):
            self.app.answer = Odd()
            self.assertEqual(self.ask(), (418, b"Odd"))
        self.assertEqual((self.app.calls, self.asked_klein), (2, 2))

    def test_what_it_fails_with_later_is_formatted_by_kleins_handlers(self) -> None:
        self.ask()
        self.app.answer = waiting = Deferred[bytes]()
        asked = self.web.post("http://localhost/it")
        waiting.errback(Odd())
        self.web.flush()
        self.assertEqual(self.successResultOf(asked).code, 418)
        self.assertEqual(self.app.calls, 2)

    def test_what_it_answers_later_is_answered_by_klein(self) -> None:
        self.ask()
        self.app.answer = succeed(b"later")
        self.assertEqual(self.ask(), (200, b"later"))
        self.assertEqual((self.app.calls, self.asked_klein), (2, 2))

    def test_a_host_that_makes_no_sense_is_refused_each_time(self) -> None:
        self.ask()
        for number in range(1, 3):
            self.assertEqual(self.ask("a..b")[0], 400)
            self.assertEqual(len(self.refused), number)
        self.assertEqual(self.app.calls, 1)

    def test_no_more_hosts_are_remembered_than_fit(self) -> None:
        for number in range(MOST_HOSTS + 5):
            self.ask(f"host{number}")
            self.assertLessEqual(len(self.resource._hosts), MOST_HOSTS)
        self.assertEqual(self.app.calls, MOST_HOSTS + 5)
