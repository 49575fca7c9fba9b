"""A server that answers as a case says: HTTP, events, ROUTER and PUB on loopback.

It has one client. What the server knows of it is :attr:`ScriptedServer.life`, the body
of a ``ClientState``; sane answers tell that, and publications go both ways, by ZeroMQ
and as events, so that one case fits every client. It keeps all that comes in.

Knows no rule of the real service: it has no timebomb, and refuses nothing by itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from socket import SO_SNDBUF, SOL_SOCKET
from typing import Any

import zmq
from attrs import define
from twisted.internet.interfaces import IPullProducer
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure
from typing_extensions import override
from zope.interface import implementer

from heartbeat_service.web.problem import STATUS
from heartbeat_service.zeromq.connection import HardenedConnection, make_factory
from tests.integration.processes import free_ports
from tests.integration.waiting import patiently, reactor, until
from tests.messages import envelope

#: What the server tells its client, in seconds: short, so that nothing waits for long.
INTERVAL = 0.05
FUSE = 1.0

#: The client that it has, and one whose ID begins with the same letters.
CLIENT = "1"
ANOTHER = "10"

#: Two-frame publications of ZeroMQ begin with it.
TOPIC = f"OnStateChange/{CLIENT}/".encode()

#: The run of the server in its events' ids.
RUN = "scripted"

#: When all of it happens.
NOON = "2026-01-01 12:00:00.000000"

#: How often a comment shows that a stream of events is alive, in seconds.
COMMENT_EVERY = 1.0

#: A page of another origin may ask here: some clients are such pages.
FOR_PAGES = (
    "Access-Control-Allow-Origin: *",
    "Access-Control-Allow-Headers: *, Authorization",
    "Access-Control-Allow-Methods: GET, POST",
)

#: A connection that both sides hold, as the kernel's table calls it.
ESTABLISHED = "01"


@define(eq=False)
class Request:
    """What the client has sent, and the way to answer it.

    :ivar at: when it came, in the reactor's seconds.
    :ivar message: its envelope.
    :ivar headers: those of HTTP, names in lower case; None by ZeroMQ.
    """

    server: ScriptedServer
    at: float
    message: dict[str, Any]
    headers: dict[str, str] | None
    _send: Callable[[str, bytes, tuple[str, ...]], None]
    connection: Connection | None = None

    @property
    def kind(self) -> str:
        """The type of its message."""
        kind: str = self.message["messageType"]
        return kind

    @property
    def body(self) -> dict[str, Any]:
        """The body of its message."""
        body: dict[str, Any] = self.message["body"]
        return body

    @property
    def sent(self) -> float:
        """When it was sent by the client's own words, in seconds."""
        text = self.message["timestamp"]
        written = datetime.strptime(text, "%Y-%m-%d %H:%M:%S.%f")  # noqa: DTZ007 - local
        return written.timestamp()

    def reply(self, **fields: Any) -> None:
        """Answer as the contract says, but for these fields."""
        body = {**self.server.life, **fields}
        self.say("200 OK", self._envelope("ClientState", body))

    def refuse(self, code: str, detail: str = "no", **more: Any) -> None:
        """Answer with an error."""
        fields = {"code": code, "detail": detail, "clientID": CLIENT, **more}
        if self.headers is None:
            self.say("", self._envelope("Error", fields))
        else:
            status = STATUS[code]
            self.say(f"{status:d} {status.phrase}", json.dumps(fields).encode())

    def say(self, status: str, body: bytes, *headers: str) -> None:
        """Answer with this; by ZeroMQ, with the body alone."""
        self._send(status, body, headers)

    def hang_up(self) -> None:
        """Close its connection without an answer."""
        assert self.connection is not None, "only a request by HTTP has one"
        self.connection.transport.abortConnection()

    def write(self, data: bytes, flood: bytes = b"") -> None:
        """Send the one on its connection, then the other for ever, and nothing else."""
        assert self.connection is not None, "only a request by HTTP has one"
        self.connection.transport.write(data)
        if flood:
            self.connection.flood(flood)

    def _envelope(self, kind: str, body: dict[str, Any]) -> bytes:
        ids = {key: self.message[key] for key in ("requestID",) if key in self.message}
        return envelope(messageType=kind, body=body, **ids)


#: What a case does with what comes in.
Answer = Callable[[Request], None]


def sanely(request: Request) -> None:
    """Answer as the contract says."""
    if request.kind == "Goodbye":
        sequence = request.server.life["sequence"] + 1
        request.reply(clientState="DISCONNECTED", sequence=sequence)
    else:
        request.reply()


def silently(_: Request) -> None:
    """Don't answer."""


def refusing(code: str, detail: str = "no", **more: Any) -> Answer:
    """Answers with that error."""
    return lambda request: request.refuse(code, detail, **more)


def saying(body: bytes, status: str = "200 OK", *headers: str) -> Answer:
    """Answers by HTTP with that."""
    return lambda request: request.say(status, body, *headers)


@implementer(IPullProducer)
class Connection(Protocol):
    """A connection of HTTP/1.1: beats and other requests, or a stream of events.

    :ivar flooded: how many bytes of a flood it has taken.
    """

    transport: Any
    factory: ScriptedServer

    def __init__(self) -> None:
        self._received = b""
        self._flood = b""
        self.flooded = 0
        self.is_open = False
        self.is_stream = False

    @override
    def connectionMade(self) -> None:
        self.is_open = True
        self.factory.connections.append(self)

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.is_open = False

    @override
    def dataReceived(self, data: bytes) -> None:
        self._received += data
        while (blank := self._received.find(b"\r\n\r\n")) >= 0:
            first, *lines = self._received[:blank].decode("latin-1").split("\r\n")
            pairs = [line.partition(":") for line in lines]
            headers = {name.lower(): value.strip() for name, _, value in pairs}
            end = blank + 4 + int(headers.get("content-length", 0))
            if len(self._received) < end:
                return
            body, self._received = self._received[blank + 4 : end], self._received[end:]
            method, path, _ = first.split(" ", 2)
            self._requested(method, path, headers, body)

    def say(self, status: str, body: bytes, headers: tuple[str, ...] = ()) -> None:
        """Send a complete response."""
        length = f"Content-Length: {len(body)}"
        self._start(status, length, "Content-Type: application/json", *headers)
        self.transport.write(body)

    def flood(self, data: bytes) -> None:
        """Send it again and again, as fast as it is read."""
        self._flood = data * (64 * 1024 // len(data))
        self.transport.registerProducer(self, False)

    def resumeProducing(self) -> None:
        """All of it was taken: send more."""
        self.flooded += len(self._flood)
        self.transport.write(self._flood)

    def stopProducing(self) -> None:
        """Nobody takes it any more."""

    def _requested(
        self, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> None:
        server = self.factory
        server.paths.append(f"{method} {path}")
        if method == "OPTIONS":
            self._start("204 No Content")
        elif method == "GET" and path == f"/clients/{CLIENT}/events":
            server.event_requests.append((reactor.seconds(), headers))
            server.on_events(self, headers)
        elif method == "POST" and path == "/heartbeat":
            at, message = reactor.seconds(), json.loads(body)
            server.received(Request(server, at, message, headers, self.say, self))
        else:
            self.say("404 Not Found", b"{}")

    def stream(self, headers: dict[str, str]) -> None:
        """Send events from now on, and first those that the client has missed."""
        self.is_stream = True
        self._start(
            "200 OK", "Content-Type: text/event-stream", "Transfer-Encoding: chunked"
        )
        run, _, number = headers.get("last-event-id", "").rpartition("-")
        events = self.factory.events
        if run == RUN:
            for event in events[int(number) :]:
                self.chunk(event)
        else:
            reset = json.dumps({"run": RUN, "serverTime": NOON}).encode()
            self.chunk(_event("Reset", len(events), reset))

    def refuse_events(self, _: dict[str, str]) -> None:
        """Have no events for anyone."""
        self.say("404 Not Found", b'{"code": "UNKNOWN_CLIENT", "detail": "no events"}')

    def chunk(self, data: bytes) -> None:
        """Send a piece of the stream."""
        self.transport.write(b"%x\r\n%s\r\n" % (len(data), data))

    def _start(self, status: str, *headers: str) -> None:
        lines = (f"HTTP/1.1 {status}", *FOR_PAGES, *headers)
        self.transport.write("\r\n".join((*lines, "", "")).encode())


def stream_events(connection: Connection, headers: dict[str, str]) -> None:
    """Answer a request for events as the contract says."""
    connection.stream(headers)


class _Router(HardenedConnection):
    socketType = zmq.ROUTER

    def __init__(self, server: ScriptedServer) -> None:
        self._server = server
        super().__init__(server.zeromq)

    @override
    def messageReceived(self, message: list[bytes]) -> None:
        *route, content = message

        def send(_: str, body: bytes, __: tuple[str, ...]) -> None:
            self.send_multipart([*route, body])

        at, said = reactor.seconds(), json.loads(content)
        self._server.received(Request(self._server, at, said, None, send))


class _Publisher(HardenedConnection):
    socketType = zmq.XPUB

    def __init__(self, server: ScriptedServer) -> None:
        self._server = server
        super().__init__(server.zeromq)

    @override
    def messageReceived(self, message: list[bytes]) -> None:
        self._server.subscriptions.append(message[0])


class ScriptedServer(Factory):
    """Answers its client as a case says, and keeps what came from it.

    :ivar life: what it knows of its client: the body of a ``ClientState``.
    :ivar publishes: whether changes are published; if not, publications get lost.
    :ivar on_beat: answers a HEARTBEAT.
    :ivar on_request: answers any other request, whichever way it comes.
    :ivar on_events: answers a request for events.
    :ivar beats: all HEARTBEATs.
    :ivar requests: all others.
    :ivar subscriptions: what SUB sockets said: 1 or 0, and the topic.
    :ivar event_requests: when events were asked for, and the headers of that.
    :ivar paths: the method and path of each request by HTTP.
    :ivar connections: all of HTTP that were ever opened.
    :ivar events: all that were told, as they go over a stream.
    """

    protocol = Connection  # type: ignore[assignment]  # Twisted types it as a callable
    noisy = False

    def __init__(self) -> None:
        (self.http_port,) = free_ports(1)
        self.zeromq = make_factory(reactor)
        self.zeromq.lingerPeriod = 0
        self.router = _Router(self)
        self.publisher = _Publisher(self)
        self.request_endpoint = self.router.bind("tcp://127.0.0.1:0")
        self.state_change_endpoint = self.publisher.bind("tcp://127.0.0.1:0")
        self.life: dict[str, Any] = {"clientState": "UNCALIBRATED"}
        self.life |= {"sequence": 1, "incarnation": 7}
        self.beats: list[Request] = []
        self.requests: list[Request] = []
        self.subscriptions: list[bytes] = []
        self.event_requests: list[tuple[float, dict[str, str]]] = []
        self.paths: list[str] = []
        self.connections: list[Connection] = []
        self.events: list[bytes] = []
        self.be_sane()
        self._port: Any = None
        self._comments = LoopingCall(self._comment)

    @property
    def url(self) -> str:
        """The base URL of HTTP."""
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def streams(self) -> list[Connection]:
        """The streams of events that are open."""
        return [one for one in self.connections if one.is_open and one.is_stream]

    @property
    def is_followed(self) -> bool:
        """Whether somebody hears what is published."""
        return bool(self.streams) or self.subscriptions[-1:] == [b"\1" + TOPIC]

    def be_sane(self) -> None:
        """Answer as the contract says from now on."""
        self.publishes = True
        self.on_beat: Answer = sanely
        self.on_request: Answer = sanely
        self.on_events: Callable[[Connection, dict[str, str]], None] = stream_events
        self.life |= {
            "clientID": CLIENT,
            "timebombSeconds": FUSE,
            "heartbeatIntervalSeconds": INTERVAL,
            "requestEndpoint": self.request_endpoint,
            "stateChangeEndpoint": self.state_change_endpoint,
        }

    def listen(self) -> None:
        """Serve HTTP, on the same port each time."""
        self._port = reactor.listenTCP(self.http_port, self, interface="127.0.0.1")
        # What a client doesn't read is to wait here, not in the kernel.
        self._port.socket.setsockopt(SOL_SOCKET, SO_SNDBUF, 64 * 1024)
        self._comments.start(COMMENT_EVERY)

    async def go_away(self) -> None:
        """Serve HTTP no more, and cut who is here."""
        if self._port is None:
            return
        self._comments.stop()
        port, self._port = self._port, None
        await patiently(port.stopListening())
        self.cut(self.connections)

    def cut(self, connections: list[Connection]) -> None:
        """End these connections."""
        for connection in connections:
            if connection.is_open:
                connection.transport.abortConnection()

    async def stop(self) -> None:
        """End it all."""
        await self.go_away()
        self.zeromq.shutdown()

    def received(self, request: Request) -> None:
        """Keep a request, and answer it as the case says."""
        if request.kind == "HEARTBEAT":
            self.beats.append(request)
            self.on_beat(request)
        else:
            self.requests.append(request)
            self.on_request(request)

    def becomes(self, state: str, sequence: int | None = None) -> None:
        """Change the client's state, as an operator would."""
        previous = self.life["clientState"]
        number = self.life["sequence"] + 1 if sequence is None else sequence
        self.life |= {"clientState": state, "sequence": number}
        if self.publishes:
            self.publish(previousState=previous)

    def begin_life(self) -> None:
        """The client is registered anew."""
        self.life["incarnation"] += 1
        self.life |= {"clientState": "UNCALIBRATED", "sequence": 1}

    def publish(self, topic: bytes = TOPIC, **fields: Any) -> None:
        """Publish an OnStateChange of these fields, both ways; the rest is as it is."""
        known = ("clientID", "clientState", "sequence", "incarnation")
        body: dict[str, Any] = {name: self.life[name] for name in known}
        body |= {"previousState": "UNCALIBRATED", "reason": "operator", **fields}
        data = envelope(messageType="OnStateChange", body=body)
        self.publisher.send_multipart([topic, data])
        self.tell("OnStateChange", json.dumps({"at": NOON, **body}).encode())

    def tell(self, name: str, data: bytes) -> None:
        """Tell an event of that name to those who follow events."""
        self.events.append(_event(name, len(self.events) + 1, data))
        for stream in self.streams:
            stream.chunk(self.events[-1])

    async def break_zeromq(self) -> None:
        """Lose all connections of ZeroMQ, and listen again."""
        self.subscriptions.append(b"\0" + TOPIC)
        for old in (self.router, self.publisher):
            old.shutdown()

        def rebound(kind: type[Any], endpoint: str) -> bool:
            socket = kind(self)
            try:
                socket.bind(endpoint)
            except zmq.ZMQError:  # libzmq closes the former one in its own time
                return False
            name = "router" if kind is _Router else "publisher"
            setattr(self, name, socket)
            return True

        await until(lambda: rebound(_Router, self.request_endpoint))
        await until(lambda: rebound(_Publisher, self.state_change_endpoint))

    def publish_raw(self, data: bytes) -> None:
        """Publish this, whatever it is, both ways."""
        self.publisher.send_multipart([TOPIC, data])
        self.tell("OnStateChange", data)

    def open_connections(self) -> dict[str, int]:
        """How many its client holds, of each kind, by the kernel's table."""
        ports = {
            "http": self.http_port,
            "router": _port_of(self.request_endpoint),
            "pub": _port_of(self.state_change_endpoint),
        }
        lines = Path("/proc/net/tcp").read_text("ascii").splitlines()[1:]
        held = [line.split()[1:4] for line in lines]
        here = [here for here, _, state in held if state == ESTABLISHED]
        return {
            kind: sum(one.endswith(f":{port:04X}") for one in here)
            for kind, port in ports.items()
        }

    def _comment(self) -> None:
        for stream in self.streams:
            stream.chunk(b":\n\n")


def _event(name: str, number: int, data: bytes) -> bytes:
    head = f"id: {RUN}-{number}\nevent: {name}\ndata: "
    return head.encode() + data + b"\n\n"


def _port_of(endpoint: str) -> int:
    found = re.search(r":(\d+)$", endpoint)
    assert found is not None
    return int(found[1])
