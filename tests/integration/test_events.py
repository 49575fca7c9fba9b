"""Streams of events over real sockets (contract, section 3a)."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from socket import (
    IPPROTO_TCP,
    SHUT_WR,
    SO_RCVBUF,
    SOL_SOCKET,
    TCP_USER_TIMEOUT,
    socket,
)
from typing import Any

import pytest
import pytest_twisted
from attrs import define, field

from heartbeat_service import service as service_module
from heartbeat_service.core.notices import StoreNotice
from heartbeat_service.engine.engine import Engine
from heartbeat_service.storage.memory import MemoryStore
from heartbeat_service.web.access import Door
from heartbeat_service.web.app import HeartbeatApp
from heartbeat_service.web.channel import IDLE, LINGER
from heartbeat_service.web.events import MOST_WAITING, EventStreams
from heartbeat_service.web.names import Names
from heartbeat_service.web.peers import Peers
from heartbeat_service.web.port import BACKLOG
from heartbeat_service.web.site import HeartbeatSite
from tests.event_stream import Event, EventReader
from tests.integration.conftest import Running, Serve, Wire, port_of
from tests.integration.test_bad_input import assert_problem
from tests.integration.test_tls import Papers, papers, secure
from tests.integration.waiting import patiently, reactor, until
from tests.messages import heartbeat, over_http

__all__ = ["papers"]

PAGE = "https://console.example"


@define
class Stream:
    """A connection that reads events as they come.

    :ivar head: the status line and the headers, once they are there.
    """

    wire: Wire
    head: str = ""
    reader: EventReader = field(factory=EventReader)

    async def begin(self) -> None:
        """Wait for the head."""
        await self.wire.until(lambda: b"\r\n\r\n" in self.wire.received)
        head = self.wire.received.partition(b"\r\n\r\n")[0]
        self.head = (await self.wire.at_least(len(head) + 4)).decode()

    async def read(self, count: int) -> list[Event]:
        """Wait until so many were told in all; these, without what is of no client."""
        while len(self.reader.events) < count:
            self.reader.feed(await self._piece())
        return self.reader.events

    async def _piece(self) -> bytes:
        if "chunked" not in self.head:
            await self.wire.until(lambda: bool(self.wire.received))
            return await self.wire.at_least(len(self.wire.received))
        await self.wire.until(lambda: b"\r\n" in self.wire.received)
        size, _, _ = self.wire.received.partition(b"\r\n")
        chunk = await self.wire.at_least(len(size) + 2 + int(size, 16) + 2)
        assert int(size, 16), "it has ended"
        return chunk[len(size) + 2 : -2]


async def follow(
    running: Running,
    path: str = "/events",
    *headers: str,
    version: str = "1.1",
    wire: Wire | None = None,
) -> Stream:
    """Ask for events; what was let in."""
    wire = wire or await running.wire()
    request = over_http(f"GET {path}", *headers)
    wire.send(request.replace(b"HTTP/1.1", f"HTTP/{version}".encode()))
    stream = Stream(wire)
    await stream.begin()
    assert " 200 OK" in stream.head
    return stream


@pytest_twisted.ensureDeferred
async def test_operators_hear_of_everything_and_a_client_of_itself(
    running: Running,
) -> None:
    operator = await follow(running)
    client = await follow(running, "/clients/1/events")
    await running.beat("1", labels={"room": "A"})
    await running.beat("2", "CALIBRATED")
    await running.beat("1", "CALIBRATED")
    await running.steer("1", "RUNNING")
    await running.kick("1")
    told = await operator.read(6)
    assert [event.name for event in told] == [
        "Reset",
        "OnStateChange",
        "OnStateChange",
        "Reported",
        "OnStateChange",
        "OnStateChange",
    ]
    assert told[1].data["labels"] == {"room": "A"}
    assert [event.number for event in told] == list(range(6))
    assert (await client.read(4))[1:] == [told[1], told[4], told[5]]


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest_twisted.ensureDeferred
async def test_each_version_of_http_can_read_on_where_it_was(
    running: Running, version: str
) -> None:
    stream = await follow(running, version=version)
    assert ("chunked" in stream.head) == (version == "1.1")
    await running.beat("1")
    [_, registered] = await stream.read(2)
    stream.wire.abort()
    await running.beat("2")
    again = await follow(
        running,
        "/events",
        "Connection: close",
        f"Last-Event-ID: {registered.id}",
        version=version,
    )
    await running.beat("3")
    told = await again.read(2)
    assert [event.data["clientID"] for event in told] == ["2", "3"]


@pytest_twisted.ensureDeferred
async def test_restarted_service_resets_who_comes_back(serve: Serve) -> None:
    running = await serve()
    await running.beat("1")
    stream = await follow(running)
    last = (await stream.read(1))[-1]
    await running.stop()
    assert stream.wire.ended
    await patiently(running.service.stopService())
    running.service.startService()
    await patiently(running.service.started)
    again = await follow(running, "/events", f"Last-Event-ID: {last.id}")
    [reset] = await again.read(1)
    assert reset.name == "Reset"
    assert reset.run != last.run


@pytest_twisted.ensureDeferred
async def test_page_of_an_allowed_origin_may_read_and_no_other(
    serve: Serve, tmp_path: Path
) -> None:
    tokens = tmp_path / "operators"
    tokens.write_text("operator-token-1 Ada\n")
    tokens.chmod(0o600)
    running = await serve(allow_origin=[PAGE], operator_token_file=str(tokens))
    shown = "Authorization: Bearer operator-token-1"
    stream = await follow(running, "/events", f"Origin: {PAGE}", shown)
    assert f"Access-Control-Allow-Origin: {PAGE}" in stream.head
    for headers, status, code in (
        (["Origin: https://evil.example", shown], 403, "FORBIDDEN"),
        ([f"Origin: {PAGE}"], 401, "UNAUTHORIZED"),
    ):
        wire = await running.wire()
        wire.send(over_http("GET /events", *headers))
        assert_problem(await wire.answer(), status, code)


@pytest_twisted.ensureDeferred
async def test_place_of_a_reader_that_hangs_up_is_free_at_once(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "MOST_STREAMS", 1)
    running = await serve()
    first = await follow(running)
    refused = await running.wire()
    refused.send(over_http("GET /events"))
    problem = assert_problem(await refused.answer(), 503, "OVERLOADED")
    assert problem["retryAfterSeconds"] > 0
    await first.wire.leave()  # as a program does that ends: its kernel says it has

    async def has_room() -> bool:
        wire = await running.wire()
        wire.send(over_http("GET /events"))
        await wire.until(lambda: b"\r\n" in wire.received)
        return b" 200 OK" in wire.received

    assert await until(has_room) < 2.0


@pytest_twisted.ensureDeferred
async def test_reader_that_sends_no_more_still_reads(running: Running) -> None:
    stream = await follow(running)
    await stream.wire.all_sent()
    await running.beat("1")
    assert [event.name for event in await stream.read(2)] == ["Reset", "OnStateChange"]


@pytest_twisted.ensureDeferred
async def test_streams_do_not_delay_a_stop(running: Running) -> None:
    streams = [await follow(running) for _ in range(5)]
    streams.append(await follow(running, "/clients/1/events"))
    began = reactor.seconds()
    await patiently(running.service.stopService())
    assert reactor.seconds() - began < LINGER
    for stream in streams:
        await stream.wire.until(lambda one=stream.wire: one.ended)  # type: ignore[misc]  # a default of a lambda
        assert stream.wire.received.endswith(b"0\r\n\r\n")  # it is whole


@pytest_twisted.ensureDeferred
async def test_inside_tls_it_is_the_same(serve: Serve, papers: Papers) -> None:
    running = await serve(http=[papers.endpoint, "tcp:0:interface=127.0.0.1"])
    stream = await follow(running, wire=await secure(running, papers))
    port = port_of(running.service.http[1])
    wire = await running.wire(port)
    wire.send(over_http("POST /heartbeat", body=heartbeat("1")))
    assert (await wire.answer()).status == 200
    assert [event.name for event in await stream.read(2)] == ["Reset", "OnStateChange"]
    began = reactor.seconds()
    await patiently(running.service.stopService())
    assert reactor.seconds() - began < LINGER
    assert stream.wire.ended


@define
class House:
    """A log of events whose news the test makes, and those who read it."""

    engine: Engine
    streams: EventStreams
    port: int
    readers: list[socket] = field(factory=list)

    def happen(self, count: int) -> None:
        """So many long things happen."""
        for _ in range(count):
            self.engine.events.hear(StoreNotice("x" * 8000))

    def read_by(self, last_id: str = "") -> socket:
        """A reader whose kernel takes little by itself."""
        one = socket()
        self.readers.append(one)
        one.setsockopt(SOL_SOCKET, SO_RCVBUF, 16 * 1024)
        one.connect(("127.0.0.1", self.port))
        one.setblocking(False)
        one.send(over_http("GET /events", f"Last-Event-ID: {last_id}"))
        return one


@pytest_twisted.async_yield_fixture
async def house() -> AsyncIterator[House]:
    """Everything but ZeroMQ and a store on a disk."""
    engine = Engine(reactor, MemoryStore(time.time))
    await engine.open()
    streams = EventStreams(engine.events, reactor, 10)
    app = HeartbeatApp(
        engine.dispatcher,
        engine.orders,
        engine.trouble,
        Door(),
        Door(),
        Names([]),
        streams,
        Peers(reactor, engine.nodes, engine.standing, bytes),
    )
    site = HeartbeatSite(app.resource(), reactor, 100, engine.clock, app.gate)
    port = reactor.listenTCP(0, site, BACKLOG, "127.0.0.1")
    house = House(engine, streams, port.getHost().port)
    yield house
    for one in house.readers:
        one.close()
    await patiently(port.stopListening())
    streams.stop()
    await patiently(site.disconnect_all())
    await engine.close()


async def read_all(one: socket, enough: bytes) -> bytes:
    """What comes, up to these bytes or its end."""
    received = b""
    while enough not in received:
        piece: Any = None

        def came() -> bool:
            nonlocal piece
            try:
                piece = one.recv(1024 * 1024)
            except BlockingIOError:
                return False
            except ConnectionResetError:
                piece = b""
            return True

        await until(came)
        if not piece:
            break
        received += piece
    return received


@pytest_twisted.ensureDeferred
async def test_reader_that_does_not_read_is_cut_off_and_comes_back(
    house: House,
) -> None:
    slow = house.read_by()
    await until(lambda: len(house.streams) == 1)
    house.happen(40)  # more than its kernel and ours take
    [stream] = house.streams
    await until(lambda: stream.channel.waiting() > 0)
    most = stream.channel.waiting()
    house.happen(MOST_WAITING // 8000 // 2)
    await until(lambda: stream.owed > MOST_WAITING // 3)
    assert len(house.streams) == 1
    assert stream.channel.waiting() <= most  # the rest waits in the log alone
    house.happen(MOST_WAITING // 8000)
    await until(lambda: len(house.streams) == 0)
    received = await read_all(slow, b"never")
    *_, last = received.split(b"\n\n")[:-1]
    last_id = last.partition(b"id: ")[2].partition(b"\n")[0].decode()
    again = house.read_by(last_id)
    number = int(last_id.rpartition("-")[2])
    received = await read_all(again, house.engine.events.last_id.encode())
    assert b"Reset" not in received
    assert b"id: %s-%d\n" % (house.engine.events.run.encode(), number + 1) in received


@pytest_twisted.ensureDeferred
async def test_reader_that_does_not_read_does_not_delay_a_stop(house: House) -> None:
    house.read_by()
    await until(lambda: len(house.streams) == 1)
    house.happen(40)
    [stream] = house.streams
    await until(lambda: stream.channel.waiting() > 0)
    house.streams.stop()
    assert await until(lambda: len(house.streams) == 0) < LINGER


@pytest_twisted.ensureDeferred
async def test_many_readers_hear_of_each_change_once_and_beats_do_not_wait(
    serve: Serve,
) -> None:
    running = await serve(interval=30.0)  # nobody is late, however busy the machine is
    streams = [await follow(running) for _ in range(30)]
    names = [f"c{number}" for number in range(50)]
    for name in names:
        await running.beat(name)
    slowest = 0.0
    for state in ("CALIBRATED", "RUNNING", "CALIBRATED"):
        order = json.dumps({"clientState": state, "clientIDs": names}).encode()
        done = running.http("PUT", "/clients/state", order)
        began = reactor.seconds()
        await running.beat(names[0])
        slowest = max(slowest, reactor.seconds() - began)
        assert (await done)[0] == 200
    assert slowest < 1.0  # a machine may be slow
    for stream in streams:
        told = await stream.read(1 + 50 + 150)
        assert [event.number for event in told] == list(range(201))


@pytest_twisted.ensureDeferred
async def test_kernel_finds_out_whose_machine_is_gone(house: House) -> None:
    house.read_by()
    await until(lambda: len(house.streams) == 1)
    [stream] = house.streams
    transport: Any = stream.channel.transport
    # Nothing tells of a cable that was pulled: what is sent must be acknowledged.
    bound = transport.socket.getsockopt(IPPROTO_TCP, TCP_USER_TIMEOUT)
    assert bound == 1000 * IDLE


@pytest_twisted.ensureDeferred
async def test_half_closed_reader_that_is_gone_is_found_out(house: House) -> None:
    one = house.read_by()
    await until(lambda: len(house.streams) == 1)
    one.shutdown(SHUT_WR)
    one.close()
    assert await until(lambda: len(house.streams) == 0) < 2.0
