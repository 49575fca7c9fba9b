"""Tests of what counts as an answer."""

from __future__ import annotations

import json
import socket

from twisted.trial.unittest import SynchronousTestCase

from bench.drivers import Line, heartbeat, posted

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 11\r\nServer: x\r\n\r\nhello world"


class TestLine(SynchronousTestCase):
    def setUp(self) -> None:
        ours, self.server = socket.socketpair()
        self.addCleanup(ours.close)
        self.addCleanup(self.server.close)
        self.line = Line(ours)

    def test_an_answer_is_whole_with_its_last_byte(self) -> None:
        for _ in range(2):  # the connection is kept
            for byte in ANSWER[:-1]:
                self.server.sendall(bytes([byte]))
                self.assertFalse(self.line.answered())
            self.server.sendall(ANSWER[-1:])
            self.assertTrue(self.line.answered())

    def test_any_status_but_200_ends_the_measurement(self) -> None:
        self.server.sendall(ANSWER.replace(b"200 OK", b"503 No"))
        with self.assertRaisesRegex(RuntimeError, "503 No"):
            self.line.answered()

    def test_an_answer_that_breaks_off_ends_the_measurement(self) -> None:
        self.server.sendall(ANSWER[:-1])
        self.assertFalse(self.line.answered())
        self.server.close()
        with self.assertRaisesRegex(RuntimeError, "hello worl"):
            self.line.answered()

    def test_a_request_carries_the_beat(self) -> None:
        self.line.send(posted(heartbeat(7)))
        head, _, body = self.server.recv(65_536).partition(b"\r\n\r\n")
        self.assertIn(b"\r\nContent-Length: %d" % len(body), head)
        self.assertEqual(json.loads(body)["body"]["clientID"], "headset-000007")
