"""How a session is run: when beats go out, and how a client leaves."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from heartbeat_service.core.states import ClientState
from heartbeat_service.game_client import runner
from heartbeat_service.game_client.actions import Event, StateChanged, ZmqLost
from heartbeat_service.game_client.ports import Listener
from heartbeat_service.game_client.runner import Runner, new_session
from tests.messages import envelope

INTERVAL, FUSE = 1.0, 5.0

#: What a server tells of client 1, unless something else is said.
STATE = {
    "clientID": "1",
    "clientState": "UNCALIBRATED",
    "stateNumber": 1,
    "incarnation": 1,
    "sequence": 1,
    "heartbeatIntervalSeconds": INTERVAL,
    "timebombSeconds": FUSE,
    "requestEndpoint": "tcp://10.0.0.1:1",
    "stateChangeEndpoint": "tcp://10.0.0.1:2",
}


class Transports:
    """Both of them, moved by hand: what was sent, in order, and what waits."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.patience = 0.0
        self.waiting: list[tuple[Callable[[int, bytes], None], Callable[[str], None]]]
        self.waiting = []
        self.opened: list[tuple[str, str, bytes]] = []
        self.last_request: dict[str, Any] = {}
        self.fault: OSError | None = None

    def post(
        self,
        body: bytes,
        patience: float,
        answered: Callable[[int, bytes], None],
        failed: Callable[[str], None],
    ) -> None:
        self.sent.append(json.loads(body)["messageType"])
        self.patience = patience
        self.waiting.append((answered, failed))

    def open(self, request: str, change: str, topic: bytes, _: Listener) -> None:
        if self.fault is not None:
            raise self.fault
        self.opened.append((request, change, topic))

    def send(self, message: bytes) -> None:
        self.last_request = json.loads(message)
        self.sent.append(self.last_request["messageType"])

    def close(self, closed: Callable[[], None]) -> None:
        self.sent.append("close")
        closed()


class Log:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def warn(self, text: str) -> None:
        self.told.append(text)

    def failed(self, text: str, error: Exception) -> None:
        self.told.append(f"{text}: {error}")


class TestRunner(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock, self.transports, self.log = Clock(), Transports(), Log()
        self.events: list[Event] = []
        self.left: list[float] = []
        self.runner = Runner(
            new_session("1"),
            self.clock,
            self.transports,
            self.transports,
            self.events.append,
            None,
            self.log,
        )

    def begin(self) -> None:
        """It beats, is answered, and knows its state."""
        self.runner.start()
        self.answer()
        self.reply()

    def answer(self, **fields: Any) -> None:
        """The server answers a beat."""
        body = {**STATE, **fields}
        answered, _ = self.transports.waiting.pop(0)
        answered(200, envelope(messageType="ClientState", body=body))

    def reply(self, **fields: Any) -> None:
        """The server answers the last request."""
        request_id = self.transports.last_request["requestID"]
        body = {**STATE, **fields}
        data = envelope(messageType="ClientState", requestID=request_id, body=body)
        self.runner.received(data)

    def leave(self) -> None:
        self.transports.sent.clear()
        self.runner.leave(lambda: self.left.append(self.clock.seconds()))

    def test_beats_are_an_interval_apart_however_late_their_answers_are(self) -> None:
        self.begin()
        self.transports.sent.clear()
        self.clock.advance(INTERVAL)
        self.clock.advance(INTERVAL * 0.75)  # the answer takes its time
        self.answer()
        self.assertEqual(self.transports.sent, ["HEARTBEAT"])
        self.clock.advance(INTERVAL * 0.25)
        self.assertEqual(self.transports.sent, ["HEARTBEAT"] * 2)

    def test_no_beat_is_sent_while_one_is_under_way(self) -> None:
        self.begin()
        self.clock.pump([INTERVAL] * 10)
        self.assertEqual(len(self.transports.waiting), 1)
        self.assertEqual(self.transports.patience, FUSE / 2)

    def test_it_opens_what_the_server_names(self) -> None:
        self.begin()
        topic = b"OnStateChange/1/"
        expected = [("tcp://10.0.0.1:1", "tcp://10.0.0.1:2", topic)]
        self.assertEqual(self.transports.opened, expected)
        self.assertEqual(self.events, [StateChanged(ClientState.UNCALIBRATED, 1, 1)])

    def test_endpoints_that_cannot_be_opened_are_told_in_a_sentence(self) -> None:
        for fault, endpoint in (
            (OSError("no descriptors"), "tcp://10.0.0.1:1"),
            (None, "ipc:///tmp/socket"),
        ):
            with self.subTest(endpoint):
                self.setUp()
                self.transports.fault = fault
                self.runner.start()
                for _ in range(5):
                    self.answer(requestEndpoint=endpoint)
                    self.clock.advance(INTERVAL)
                lost = [one for one in self.events if isinstance(one, ZmqLost)]
                self.assertEqual(len(lost), 1)
                self.assertIn(f"can't connect to {endpoint} and", lost[0].detail)
                self.assertEqual(self.transports.opened, [])

    def test_it_says_goodbye_and_closes_once_that_is_answered(self) -> None:
        self.begin()
        self.leave()
        self.assertEqual(self.transports.sent, ["close", "Goodbye"])
        self.reply(clientState="DISCONNECTED", sequence=2)
        self.assertEqual(self.transports.sent, ["close", "Goodbye", "close"])
        self.assertEqual(self.left, [0.0])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_no_goodbye_overtakes_a_beat(self) -> None:
        self.begin()
        self.clock.advance(INTERVAL)
        self.leave()
        self.assertEqual(self.transports.sent, [])
        self.answer()
        self.assertEqual(self.transports.sent, ["close", "Goodbye"])

    def test_it_waits_for_each_last_answer_for_a_second(self) -> None:
        self.begin()
        self.clock.advance(INTERVAL)
        since = self.clock.seconds()
        self.leave()
        self.clock.advance(runner.FAREWELL)
        self.assertEqual(self.transports.sent, ["close", "Goodbye"])
        self.clock.advance(runner.FAREWELL)
        self.assertEqual(self.left, [since + 2 * runner.FAREWELL])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_in_a_hurry_it_waits_for_nothing_and_yet_says_goodbye(self) -> None:
        self.begin()
        self.clock.advance(INTERVAL)
        since = self.clock.seconds()
        self.leave()
        self.runner.hurry()
        self.clock.advance(0)
        self.assertEqual(self.transports.sent, ["close", "Goodbye", "close"])
        self.assertEqual(self.left, [since])

    def test_to_a_server_that_never_answered_it_says_nothing(self) -> None:
        self.runner.start()
        self.transports.waiting.pop()[1]("refused")
        self.leave()
        self.assertEqual(self.transports.sent, ["close", "close"])
        self.assertEqual(len(self.left), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_game_that_fails_is_logged_and_the_heart_goes_on(self) -> None:
        def fail(_: Event) -> None:
            raise ValueError("the game's own fault")

        self.runner._on_event = fail
        self.begin()
        self.transports.sent.clear()
        self.clock.advance(INTERVAL)
        self.assertEqual(self.transports.sent, ["HEARTBEAT"])
        (told,) = self.log.told
        self.assertIn("The game failed on StateChanged", told)

    def test_messages_that_make_no_sense_are_told_of_now_and_then(self) -> None:
        self.begin()
        for _ in range(100):
            self.runner.received(b"[]")
        self.assertEqual(len(self.log.told), 7)
