"""The fleet's line of HTTP: one request at a time, and plain answers alone."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import connectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from heartbeat_service.simulator.http_line import HTTPLine, Server

ANSWER = b"HTTP/1.1 200 OK\r\n%bContent-Length: 2\r\n\r\n{}"
HEAD = b"POST /heartbeat HTTP/1.1\r\nContent-Length: "


class Endpoint:
    """Connects when a test wants it to."""

    def __init__(self) -> None:
        self.asked: list[Deferred[Any]] = []

    def connect(self, _: object) -> Deferred[Any]:
        """Somebody wants a connection."""
        self.asked.append(Deferred())
        return self.asked[-1]


class TestHTTPLine(SynchronousTestCase):
    """What a line sends, and what it takes for an answer."""

    def setUp(self) -> None:
        """Ask for something, and connect."""
        self.clock = Clock()
        endpoint: Any = Endpoint()
        self.endpoint = endpoint
        self.line = HTTPLine(self.clock, Server(endpoint, HEAD))
        self.heard: list[tuple[int, bytes]] = []
        self.failed: list[str] = []
        self.post(b"1")
        self.connect()

    def post(self, body: bytes) -> None:
        """Ask for something."""
        self.line.post(body, 2, lambda *one: self.heard.append(one), self.failed.append)

    def connect(self) -> None:
        """The connection that it waits for is made."""
        self.wire = StringTransport()
        self.line.makeConnection(self.wire)

    def lose(self) -> None:
        """The connection is gone."""
        self.line.connectionLost(Failure(connectionDone.value))

    def test_a_request_waits_for_the_answer_of_the_one_before(self) -> None:
        self.post(b"22")
        self.assertEqual(self.wire.value(), HEAD + b"1\r\n\r\n1")
        self.line.dataReceived(ANSWER % b"")
        self.assertEqual(self.heard, [(200, b"{}")])
        self.assertTrue(self.wire.value().endswith(HEAD + b"2\r\n\r\n22"))

    def test_an_answer_may_come_byte_by_byte(self) -> None:
        for byte in ANSWER % b"Server: a\r\n":
            self.line.dataReceived(bytes([byte]))
        self.assertEqual((self.heard, self.failed), ([(200, b"{}")], []))
        self.assertFalse(self.wire.disconnecting)

    def test_what_has_no_length_or_is_no_answer_ends_the_connection(self) -> None:
        for data in (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
            b"HTTP/1.1 100 Continue\r\n\r\n",
            b"SSH-2.0\r\n\r\n",
        ):
            self.line.dataReceived(data)
            self.assertTrue(self.wire.disconnecting, data)
            self.lose()
            self.assertEqual((self.heard, self.failed.pop()), ([], LOST))
            self.post(b"1")
            self.connect()

    def test_after_connection_close_the_next_goes_by_another_connection(self) -> None:
        self.post(b"22")
        self.line.dataReceived(ANSWER % b"Connection: close\r\n")
        self.assertEqual(self.heard, [(200, b"{}")])
        self.assertTrue(self.wire.disconnecting)
        self.assertNotIn(b"22", self.wire.value())
        self.lose()
        self.connect()
        self.assertEqual(self.wire.value(), HEAD + b"2\r\n\r\n22")
        self.assertEqual(self.failed, [])

    def test_bytes_that_nobody_asked_for_are_no_part_of_the_next_answer(self) -> None:
        self.line.dataReceived(ANSWER % b"" + b"HTTP/1.1 500 Lie\r\n")
        self.assertEqual(self.heard, [(200, b"{}")])
        self.assertTrue(self.wire.disconnecting)

    def test_nothing_is_sent_on_a_connection_that_was_cut_for_its_silence(self) -> None:
        self.clock.advance(2)
        self.assertEqual(self.failed, ["There was no answer in time"])
        self.post(b"22")
        self.assertNotIn(b"22", self.wire.value())
        self.lose()
        self.connect()
        self.assertEqual(self.wire.value(), HEAD + b"2\r\n\r\n22")
        self.assertEqual(len(self.failed), 1)

    def test_who_cannot_connect_is_told(self) -> None:
        self.lose()
        self.failed.clear()
        self.post(b"1")
        self.post(b"2")
        self.endpoint.asked[-1].errback(Failure(OSError("refused")))
        self.assertEqual(self.failed, ["refused", "refused"])


LOST = "The connection was lost"
