"""Real ways to a real service: HTTP by each client's own connection, ZeroMQ by a few.

A client of HTTP has a connection. Clients of ZeroMQ share DEALERs,
as a process may have no more than some thousand sockets: ids of requests tell their
answers apart. Their first beat goes by HTTP, as its answer names the endpoints. One SUB
hears all publications, for the whole fleet. Knows no behaviour.
"""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Any, ClassVar

import zmq
from txzmq import ZmqFactory
from typing_extensions import override

from heartbeat_service.core.clock import Timer
from heartbeat_service.core.errors import HeartbeatError
from heartbeat_service.game_client.credentials import Credentials
from heartbeat_service.game_client.link import EVENTS, Link
from heartbeat_service.protocol.codec import (
    decode_from_server,
    decode_problem,
    encode,
    request_id_of,
)
from heartbeat_service.protocol.messages import (
    ClientStateMessage,
    ErrorMessage,
    OnStateChange,
    Reply,
    Request,
)
from heartbeat_service.simulator.http_line import HTTPLine, Server
from heartbeat_service.simulator.transport import Answered, NoAnswer, Transport
from heartbeat_service.zeromq.connection import HardenedConnection, make_factory
from heartbeat_service.zeromq.monitor import Monitor

#: How many clients share a DEALER.
SHARED_BY = 100

IN_TIME = NoAnswer("There was no answer in time")
NO_SENSE = NoAnswer("The answer made no sense")


class _Dealer(HardenedConnection):
    socketType = zmq.DEALER
    options: ClassVar[dict[int, int]] = {zmq.SNDHWM: 100_000, zmq.RCVHWM: 100_000}

    def __init__(
        self, factory: ZmqFactory, received: Callable[[list[bytes]], None]
    ) -> None:
        self._received = received
        super().__init__(factory)

    @override
    def messageReceived(self, message: list[bytes]) -> None:
        self._received(message)


class _Ear(_Dealer):
    socketType = zmq.SUB
    options: ClassVar[dict[int, int]] = {zmq.RCVHWM: 0}  # a lost one looks like a lie


class Sockets:
    """All sockets of a fleet.

    :param server: the base URL of the service.
    :param heard: told of each publication.
    :param deaf: told whenever publications may have been missed.
    :param hears: told once they are heard.
    """

    def __init__(
        self,
        reactor: Any,
        server: str,
        credentials: Credentials,
        heard: Callable[[OnStateChange], None],
        deaf: Callable[[], None],
        hears: Callable[[], None],
    ) -> None:
        self._reactor = reactor
        self._server = Server.of(reactor, server, credentials)
        self._heard = heard
        self._deaf = deaf
        self._hears = hears
        self._factory = make_factory(reactor)
        self._ear: Link | None = None
        self._did_hear = False
        self._requests: list[_Requests] = []
        self._lines: list[HTTPLine] = []
        self._endpoint = ""

    def way_of(self, number: int, by_zeromq: bool) -> Transport:
        """A way for the client of that number."""
        line = HTTPLine(self._reactor, self._server)
        self._lines.append(line)
        by_http = _ByHTTP(line, self._learn)
        return _ByZeroMQ(self, number, by_http) if by_zeromq else by_http

    def requests_of(self, number: int) -> _Requests | None:
        """The DEALER of that client; None until the endpoint is known."""
        place = number // SHARED_BY
        while len(self._requests) <= place and self._endpoint:
            requests = _Requests(self._reactor, self._factory)
            requests.connect(self._endpoint)
            self._requests.append(requests)
        return self._requests[place] if place < len(self._requests) else None

    def close(self) -> None:
        """Close all."""
        self._factory.shutdown()
        for line in self._lines:
            line.cut()

    def _learn(self, reply: ClientStateMessage) -> None:
        self._endpoint = reply.request_endpoint
        if self._ear is None:
            ear = _Ear(self._factory, self._published)
            ear.socket.set(zmq.SUBSCRIBE, b"OnStateChange/")
            self._ear = Link(reply.state_change_endpoint, False, self._changed)
            Monitor(ear, EVENTS, self._ear.heard)
            ear.connect(reply.state_change_endpoint)

    def _changed(self) -> None:
        assert self._ear is not None
        if self._ear.connected:
            self._did_hear = True
            self._hears()
        elif self._did_hear:
            self._deaf()

    def _published(self, frames: list[bytes]) -> None:
        message = decode_from_server(frames[-1])
        if isinstance(message, OnStateChange):
            self._heard(message)


class _ByHTTP:
    """One client's connection."""

    def __init__(
        self, line: HTTPLine, learn: Callable[[ClientStateMessage], None]
    ) -> None:
        self._line = line
        self._learn = learn

    def send(
        self, request: Request, request_id: str, patience: float, answered: Answered
    ) -> None:
        """POST it."""

        def heard(status: int, body: bytes) -> None:
            reply = _reply(status, body)
            if isinstance(reply, ClientStateMessage):
                self._learn(reply)
            answered(reply)

        def failed(why: str) -> None:
            answered(NoAnswer(why))

        self._line.post(encode(request, request_id or None), patience, heard, failed)


class _ByZeroMQ:
    """One client's part of a DEALER."""

    def __init__(self, sockets: Sockets, number: int, first: _ByHTTP) -> None:
        self._sockets = sockets
        self._number = number
        self._first: _ByHTTP | None = first

    def send(
        self, request: Request, request_id: str, patience: float, answered: Answered
    ) -> None:
        """Send it; the first by HTTP."""
        requests = self._sockets.requests_of(self._number)
        if self._first is not None or requests is None:
            assert self._first is not None
            self._first.send(request, request_id, patience, answered)
            if requests is not None:
                self._first = None
        else:
            requests.send(request, patience, answered)


class _Requests:
    """A DEALER and who waits for answers of it."""

    def __init__(self, reactor: Any, factory: ZmqFactory) -> None:
        self._reactor = reactor
        self._dealer = _Dealer(factory, self._received)
        self._waiting: dict[str, tuple[Answered, Timer]] = {}
        self._sent = 0

    def connect(self, endpoint: str) -> None:
        """Connect it."""
        self._dealer.connect(endpoint)

    def send(self, request: Request, patience: float, answered: Answered) -> None:
        """Send a request with an id of its own."""
        self._sent += 1
        request_id = str(self._sent)
        timer = self._reactor.callLater(patience, self._give_up, request_id)
        self._waiting[request_id] = answered, timer
        self._dealer.send_multipart([b"", encode(request, request_id)])

    def _give_up(self, request_id: str) -> None:
        answered, _ = self._waiting.pop(request_id)
        answered(IN_TIME)

    def _received(self, frames: list[bytes]) -> None:
        waiting = self._waiting.pop(request_id_of(frames[-1]) or "", None)
        if waiting is not None:  # else it comes too late
            answered, timer = waiting
            timer.cancel()
            answered(_reply(HTTPStatus.OK, frames[-1]))


def _reply(status: int, body: bytes) -> Reply | NoAnswer:
    try:
        if status != HTTPStatus.OK:
            return decode_problem(body)
        reply = decode_from_server(body)
    except HeartbeatError:
        return NO_SENSE
    return reply if isinstance(reply, ClientStateMessage | ErrorMessage) else NO_SENSE
