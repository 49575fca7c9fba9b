"""An answer is sent at once where the socket takes it, and in its order where not."""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import Any

from twisted.internet.address import UNIXAddress
from twisted.internet.tcp import Connection
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers
from twisted.web.resource import Resource

from heartbeat_service.web import channel
from heartbeat_service.web.site import HeartbeatSite

MUCH = b"x" * 1_000_000


class Pair(Connection):
    """One end of a pair of local sockets."""

    def setTcpNoDelay(self, enabled: bool) -> None:
        """They have no such option."""

    def getPeer(self) -> UNIXAddress:
        return UNIXAddress(None)

    getHost = getPeer


class TestSending(SynchronousTestCase):
    def setUp(self) -> None:
        """A connection to the site, whose reactor is turned by hand."""
        reactor: Any = MemoryReactorClock()
        ours, self.peer = socket.socketpair()
        for end in (ours, self.peer):
            end.setblocking(False)
            self.addCleanup(end.close)
        site = HeartbeatSite(Resource(), reactor, 10, reactor, lambda _: None)
        self.channel: Any = site.buildProtocol(None)
        self.transport: Any = Pair(ours, self.channel, reactor)
        self.transport.connected = True
        self.channel.makeConnection(self.transport)

    def answer(self, body: bytes) -> None:
        """Write an answer."""
        self.channel.writeHeaders(b"HTTP/1.1", b"200", b"OK", Headers(), body)

    def received(self) -> bytes:
        """What has come to the peer."""
        pieces = []
        try:
            while piece := self.peer.recv(2**20):
                pieces.append(piece)
        except BlockingIOError:
            pass
        return b"".join(pieces)

    def test_an_answer_is_there_before_the_reactor_turns(self) -> None:
        self.answer(b"at once")
        self.assertEqual(self.received().partition(b"\r\n\r\n")[2], b"at once")

    def test_a_head_whose_body_comes_later_leaves_with_it(self) -> None:
        self.answer(b"")
        self.assertEqual(self.received(), b"")
        self.channel.write(b"later")
        self.transport.doWrite()
        self.assertTrue(self.received().endswith(b"\r\n\r\nlater"))

    def test_what_the_socket_does_not_take_follows_in_its_order(self) -> None:
        self.answer(MUCH)
        self.answer(b"behind it")
        received = self.received()
        self.assertLess(len(received), len(MUCH))
        for _ in range(100):
            self.transport.doWrite()
            received += self.received()
        first, _, rest = received.partition(b"\r\n\r\n")[2].partition(b"HTTP/1.1 ")
        self.assertEqual(first, MUCH)
        self.assertTrue(rest.endswith(b"\r\n\r\nbehind it"))

    def test_an_answer_has_the_date_of_its_second(self) -> None:
        for now, second in ((0.0, 0), (0.9, 0), (1.0, 1)):
            self.patch(channel, "time", SimpleNamespace(time=lambda now=now: now))
            self.answer(b"x")
            date = b"\r\nDate: Thu, 01 Jan 1970 00:00:0%d GMT\r\n" % second
            self.assertIn(date, self.received())

    def test_a_refusal_has_a_date_too(self) -> None:
        self.channel.dataReceived(b"no request\r\n")
        head = self.received().partition(b"\r\n\r\n")[0]
        self.assertTrue(head.startswith(b"HTTP/1.1 400 "), head)
        self.assertIn(b"\r\nDate: ", head)

    def test_a_peer_that_is_gone_is_left_to_the_reactor(self) -> None:
        self.peer.close()
        self.answer(b"to nobody")
        self.assertIsInstance(self.transport.doWrite(), Exception)
