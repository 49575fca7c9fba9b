"""Real sockets for integration tests: a running service, and peers of it.

Whatever a fixture starts, it stops, and ``nothing_left_behind`` sees to it that
this is so. Ports are chosen by the system.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Sequence,
)
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
import treq
import zmq
from attrs import define, field, frozen
from twisted.internet.defer import Deferred, DeferredQueue
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.web.client import Agent, HTTPConnectionPool
from twisted.web.http_headers import Headers
from typing_extensions import override
from zope.interface import implementer

from heartbeat_service.engine import refusals
from heartbeat_service.engine.engine import STALLED
from heartbeat_service.service import HeartbeatService
from heartbeat_service.settings import Settings
from heartbeat_service.zeromq.connection import HardenedConnection, make_factory
from tests.integration.etcd import EtcdCluster, StartEtcd, begin_etcd
from tests.integration.processes import Process, Spawn
from tests.integration.waiting import PATIENCE, patiently, reactor, until
from tests.messages import heartbeat

#: The client whose life tells a subscriber that it has been heard of.
PROBE = "probe"


class Peer(HardenedConnection):
    """A ZeroMQ socket of a client that follows the contract alone."""

    def __init__(self, factory: Any, socket_type: int) -> None:
        self.socketType = socket_type
        self.inbox: DeferredQueue[list[bytes]] = DeferredQueue()
        super().__init__(factory)

    @override
    def messageReceived(self, message: list[bytes]) -> None:
        """Keep it until a test asks for it."""
        self.inbox.put(message)

    async def receive(self) -> list[bytes]:
        """The next message's frames."""
        return await patiently(self.inbox.get())

    async def ask(self, *frames: bytes) -> dict[str, Any]:
        """Send a request; the reply's envelope."""
        assert self.send_multipart(frames)
        reply: dict[str, Any] = json.loads((await self.receive())[-1])
        return reply


class Subscriber(Peer):
    """A SUB socket; hears nothing of the probe, except whether it was heard."""

    def __init__(self, factory: Any, topics: Sequence[bytes]) -> None:
        self.arrived = False
        super().__init__(factory, zmq.SUB)
        for topic in (*topics, b"OnStateChange/%s/" % PROBE.encode()):
            self.socket.set(zmq.SUBSCRIBE, topic)

    @override
    def messageReceived(self, message: list[bytes]) -> None:
        """Keep it, unless it is of the probe."""
        if message[0] == b"OnStateChange/%s/" % PROBE.encode():
            self.arrived = True
        else:
            super().messageReceived(message)

    async def change(self) -> dict[str, Any]:
        """The body of the next publication, which must be an OnStateChange."""
        topic, content = await self.receive()
        published = json.loads(content)
        assert published["messageType"] == "OnStateChange"
        body: dict[str, Any] = published["body"]
        assert topic == b"OnStateChange/%s/" % body["clientID"].encode()
        return body


@frozen
class Answer:
    """An HTTP response, as it came over the wire; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """What the body says."""
        return json.loads(self.body)


@implementer(IHalfCloseableProtocol)
class Wire(Protocol):
    """A plain TCP connection, for what no decent client would send."""

    transport: Any

    def __init__(self) -> None:
        self._received = bytearray()  # bytes would be copied with each piece that comes
        self.ended = False
        self.lost = False
        self.flushed = False
        self._stirred: list[Deferred[None]] = []

    @property
    def received(self) -> bytes:
        """What has come in and was not taken yet."""
        return bytes(self._received)

    @override
    def dataReceived(self, data: bytes) -> None:
        self._received += data
        self._stir()

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.ended = self.lost = True
        self._stir()

    def readConnectionLost(self) -> None:
        """The other side has said its last word."""
        self.ended = True
        self._stir()

    def writeConnectionLost(self) -> None:
        """This side has: all that it sent has left."""
        self.flushed = True
        self._stir()

    def send(self, data: bytes) -> None:
        """Write raw bytes."""
        self.transport.write(data)

    async def all_sent(self) -> None:
        """Send no more, and wait until all has left this side."""
        self.transport.loseWriteConnection()
        await self.until(lambda: self.flushed or self.lost)
        assert self.flushed, "cut off while sending"

    async def leave(self) -> None:
        """Close once all is sent, without waiting for an answer."""
        self.transport.loseConnection()
        await self.until(lambda: self.lost)

    def abort(self) -> None:
        """Vanish, without a word."""
        if not self.lost:  # TLS does it once only
            self.transport.abortConnection()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait for what incoming bytes, or their end, make true."""
        while not holds():
            stir: Deferred[None] = Deferred()
            self._stirred.append(stir)
            await patiently(stir)

    async def at_least(self, count: int) -> bytes:
        """Take that many of the bytes that come in."""
        await self.until(lambda: len(self._received) >= count or self.ended)
        assert len(self._received) >= count, f"it ended after {self.received!r}"
        taken = bytes(self._received[:count])
        del self._received[:count]
        return taken

    async def answer(self, *, to_head: bool = False) -> Answer:
        """Take one HTTP response, which must say how long it is, or its chunks."""
        await self.until(lambda: b"\r\n\r\n" in self._received or self.ended)
        head, blank, _ = self._received.partition(b"\r\n\r\n")
        assert blank, f"no answer, but {self.received!r}"
        await self.at_least(len(head + blank))
        first, *lines = head.decode("ascii").split("\r\n")
        version, status, _ = first.split(" ", 2)
        assert version == "HTTP/1.1"
        pairs = [line.split(": ", 1) for line in lines]
        headers = {name.lower(): value for name, value in pairs}
        assert len(headers) == len(pairs), f"a header came twice in {head!r}"
        if "transfer-encoding" in headers and not to_head:
            return Answer(int(status), headers, await self._chunks())
        length = 0 if to_head else int(headers.get("content-length", 0))
        return Answer(int(status), headers, await self.at_least(length))

    async def _chunks(self) -> bytes:
        body = b""
        while True:
            await self.until(lambda: b"\r\n" in self.received or self.ended)
            size, _, _ = self.received.partition(b"\r\n")
            chunk = await self.at_least(len(size) + 2 + int(size, 16) + 2)
            if not int(size, 16):
                return body
            body += chunk[len(size) + 2 : -2]

    async def end(self) -> None:
        """Wait until the other side has closed; nothing more may have come."""
        await self.until(lambda: self.ended)
        assert self.received == b""

    def _stir(self) -> None:
        stirred, self._stirred = self._stirred, []
        for waiting in stirred:
            waiting.callback(None)


@define
class Running:
    """A service that runs, and ways to talk to it."""

    service: HeartbeatService
    agent: Agent
    factory: Any
    wires: list[Wire] = field(factory=list)

    @property
    def url(self) -> str:
        """The base URL of HTTP."""
        return f"http://{self.service.http[0]}"

    @property
    def port(self) -> int:
        """The port of HTTP on 127.0.0.1."""
        return port_of(self.service.http[0])

    async def http(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, Any, Any]:
        """One request; its status, its JSON (None if empty) and its headers."""
        response = await patiently(
            treq.request(
                method,
                self.url + path,
                data=body,
                headers=Headers({name: [value] for name, value in headers.items()}),
                agent=self.agent,
            )
        )
        content = await patiently(response.content())
        return response.code, json.loads(content or b"null"), response.headers

    async def get(self, path: str) -> Any:
        """GET what must be there; its JSON."""
        status, content, _ = await self.http("GET", path)
        assert status == 200, content
        return content

    async def beat(
        self, client_id: Any, state: Any = "DISCONNECTED", **more: Any
    ) -> Any:
        """POST a heartbeat that must be accepted; the reply's body."""
        status, reply, _ = await self.http(
            "POST", "/heartbeat", heartbeat(client_id, state, **more)
        )
        assert status == 200, reply
        assert reply["messageType"] == "ClientState"
        return reply["body"]

    async def steer(self, client_id: str, state: str) -> Any:
        """Set a client's state as an operator, who must be obeyed; the body."""
        status, reply, _ = await self.http(
            "PUT",
            f"/clients/{client_id}/state",
            json.dumps({"clientState": state}).encode(),
        )
        assert status == 200, reply
        return reply["body"]

    async def kick(self, client_id: str) -> None:
        """Remove a client as an operator, who must be obeyed."""
        status, content, _ = await self.http("DELETE", f"/clients/{client_id}")
        assert (status, content) == (204, None)

    def peer(self, socket_type: int, address: str) -> Peer:
        """A ZeroMQ socket, connected to ``address``."""
        peer = Peer(self.factory, socket_type)
        peer.connect(address)
        return peer

    def dealer(self) -> Peer:
        """A DEALER socket for requests."""
        return self.peer(zmq.DEALER, self.service.router)

    async def subscriber(self, *topics: bytes) -> Subscriber:
        """A SUB socket whose subscriptions are known to have arrived.

        Subscriptions arrive in order, the probe's last: once it is heard, all
        have. It is told of with every other, and kept from the test.
        """
        peer = Subscriber(self.factory, topics or [b"OnStateChange/"])
        peer.connect(self.service.pub)

        async def heard() -> bool:
            await self.beat(PROBE)
            await self.kick(PROBE)
            return peer.arrived

        await until(heard)
        return peer

    async def wire(self, port: int | None = None) -> Wire:
        """A plain TCP connection, to HTTP if nothing else is said."""
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port or self.port)
        wire: Wire = await patiently(connectProtocol(endpoint, Wire()))
        self.wires.append(wire)
        return wire

    async def stop(self) -> None:
        """End it all; to end it again does nothing."""
        for wire in self.wires:
            wire.abort()
        if self.factory.context is not None:
            self.factory.shutdown()
        await patiently(self.service.stopService())


def port_of(address: str) -> int:
    """The port of ``HOST:PORT`` or of a ZeroMQ address."""
    return int(address.rpartition(":")[2])


#: The fuse of clients that a test doesn't let die, in seconds: a busy machine may need
#: longer than a client's default for what a test does with them.
FUSE = 120.0

#: ``await serve(timebomb=…)`` starts a service on loopback.
Serve = Callable[..., Awaitable[Running]]


@pytest.fixture(autouse=True)
def nothing_left_behind(tracebacks: list[LogEvent]) -> Iterator[None]:
    """No test leaves a delayed call, an open socket or an unread traceback."""
    pytest_twisted.blockon(deferLater(reactor, 0))  # its own readers are in then
    readers, calls = set(reactor.getReaders()), set(reactor.getDelayedCalls())
    yield
    deadline = reactor.seconds() + PATIENCE
    while reactor.seconds() < deadline:
        left = [
            *(set(reactor.getReaders()) - readers),
            *(set(reactor.getDelayedCalls()) - calls),
        ]
        if not left:
            break
        pytest_twisted.blockon(deferLater(reactor, 0.005))
    assert left == []
    assert [str(event["log_failure"]) for event in tracebacks] == []


@pytest.fixture
def spawn(tmp_path: Path) -> Iterator[Spawn]:
    """``spawn(command, …)`` starts a process, and ends it after the test."""
    started: list[Process] = []

    def start(*command: str | Path, **environment: str) -> Process:
        process = Process(*command, folder=tmp_path, **environment)
        started.append(process)
        return process

    yield start
    for process in reversed(started):
        if process.status is None:
            pytest_twisted.blockon(Deferred.fromCoroutine(process.ends("TERM")))


@pytest.fixture
def start_etcd(spawn: Spawn, tmp_path: Path) -> Iterator[StartEtcd]:
    """Starts clusters of etcd, with so many members, and ends them after the test."""
    clusters: list[EtcdCluster] = []

    async def start(members: int = 1, *options: str | Path) -> EtcdCluster:
        cluster = begin_etcd(spawn, tmp_path / "etcd", members, *options)
        clusters.append(cluster)
        await cluster.ready()
        return cluster

    yield start
    for cluster in clusters:
        pytest_twisted.blockon(Deferred.fromCoroutine(cluster.kill()))


async def start_service(
    begun: Callable[[Running], None] = lambda _: None, **settings: Any
) -> Running:
    """A service on loopback, which whoever asks for it stops.

    :param begun: hears of it before it has started; it must be stopped from then on.
    """
    service = HeartbeatService(
        reactor,
        Settings(
            **{
                "http": "tcp:0:interface=127.0.0.1",
                "router": "tcp://127.0.0.1:0",
                "pub": "tcp://127.0.0.1:0",
                **settings,
            }
        ),
    )
    service.startService()
    pool = HTTPConnectionPool(reactor, persistent=False)
    factory = make_factory(reactor)
    factory.lingerPeriod = 0  # what a test no longer asks for needn't get out
    running = Running(service, Agent(reactor, pool=pool), factory)
    begun(running)
    await patiently(service.started)
    return running


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """A way to start services on loopback; they are stopped at the end.

    Each has a store of its own, in a file.
    """
    started: list[Running] = []

    async def start(**settings: Any) -> Running:
        store = f"sqlite:{tmp_path}/{len(started)}.sqlite"
        least = {"store": store, "timebomb": FUSE}
        return await start_service(started.append, **{**least, **settings})

    yield start
    for running in reversed(started):
        pytest_twisted.blockon(Deferred.fromCoroutine(running.stop()))


@pytest_twisted.async_yield_fixture
async def running(serve: Serve) -> AsyncIterator[Running]:
    """A service with the default settings, but for its ports."""
    yield await serve()


@pytest.fixture
def logged() -> Iterator[list[LogEvent]]:
    """All that is logged during the test, but for what clients' endpoints tell."""
    with _kept(lambda event: "endpoints" not in event["log_namespace"]) as events:
        yield events


def odd_lines(logged: Iterable[LogEvent]) -> list[str]:
    """What was told besides changes, and refusals at each doubling of their number.

    Nor is a stall odd: on a busy machine the test's own process gets no turn for a
    second. It is told once, and says nothing of what a peer did.
    """
    counts: Counter[str] = Counter()
    odd: list[str] = []
    for event in logged:
        if event["log_namespace"].startswith(refusals.__name__):
            assert event["count"] == max(2 * counts[event["code"]], 1)
            counts[event["code"]] = event["count"]
        elif "change" not in event and event.get("log_format") != STALLED:
            odd.append(formatEvent(event))
    return odd


@pytest.fixture
def tracebacks() -> Iterator[list[LogEvent]]:
    """What was logged with a traceback during the test.

    A test that expects some reads them and clears the list.
    """
    with _kept(lambda event: event.get("log_failure") is not None) as events:
        yield events


@contextmanager
def _kept(which: Callable[[LogEvent], bool]) -> Iterator[list[LogEvent]]:
    events: list[LogEvent] = []

    def keep(event: LogEvent) -> None:
        if which(event):
            events.append(event)

    observer: Any = keep
    globalLogPublisher.addObserver(observer)
    yield events
    globalLogPublisher.removeObserver(observer)
