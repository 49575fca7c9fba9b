"""Peers that never read, say nothing or are dead: the others are served.

What a single message may look like is in ``test_bad_input.py``; here are those who
mean harm. They are processes or plain TCP connections that speak ZMTP by hand. How
soon the others are served while somebody floods is in ``tests/faults``.
"""

from __future__ import annotations

import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
import zmq
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPullProducer
from zope.interface import implementer

from heartbeat_service.zeromq import connection, socket_options
from heartbeat_service.zeromq.connection import MAX_FRAMES
from heartbeat_service.zeromq.router import LONGEST_ROUTE, RequestRouter
from heartbeat_service.zeromq.socket_options import MAX_FRAME
from tests.integration.conftest import Running, Serve, Wire, port_of
from tests.integration.processes import BIN, LOOPBACK, READY, Process
from tests.integration.test_bad_input import LIMIT, stranger, zmtp_frame, zmtp_greeting
from tests.integration.waiting import PATIENCE, pause, reactor, until
from tests.messages import heartbeat


@implementer(IPullProducer)
class Pump:
    """Sends one longest frame after the other, as the other side takes them."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self.sent = 0
        wire.transport.registerProducer(self, streaming=False)

    def resumeProducing(self) -> None:
        """The last one has left."""
        self.sent += 1
        self._wire.send(zmtp_frame(bytes(MAX_FRAME)))

    def stopProducing(self) -> None:
        """The connection is gone."""

    def stop(self) -> None:
        """Send no more."""
        self._wire.transport.unregisterProducer()


@pytest_twisted.ensureDeferred
async def test_what_nobody_reads_stays_with_the_peer_and_is_not_lost(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    router = RequestRouter(running.factory, lambda _: Deferred())
    # Else the kernel lets its buffers grow, and takes tens of MiB.
    router.socket.set(zmq.RCVBUF, LIMIT)
    address = router.bind("tcp://127.0.0.1:0")
    await pause(0.01)
    reactor.removeReader(router)  # the service is too busy to read
    wire = await stranger(running, address, b"DEALER")
    wire.transport.getHandle().setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LIMIT)
    pump = Pump(wire)
    before = -1
    while before < pump.sent:  # until it is stuck for long
        before = pump.sent
        await pause(0.5)
    # 25 are in the queue, one is on its way to it, and one is about to leave the peer.
    assert pump.sent <= 30
    pump.stop()

    heard: list[bytes] = []
    monkeypatch.setattr(router, "messageReceived", lambda it: heard.append(it[-1]))
    reactor.addReader(router)
    router.doRead()

    await until(lambda: len(heard) == pump.sent)
    assert set(map(len, heard)) == {MAX_FRAME}


@pytest_twisted.ensureDeferred
async def test_a_message_that_was_cut_is_no_request_whatever_is_left_of_it(
    running: Running,
) -> None:
    dealer = running.dealer()
    # Behind its sender's name, this many frames more are looked at.
    for routes in range(MAX_FRAMES - 4, MAX_FRAMES + 1):
        looks_good = [*[b"a"] * routes, b"", heartbeat("1")]
        reply = await dealer.ask(*looks_good, b"")
        assert reply["body"]["code"] == "BAD_MESSAGE", routes
    assert (await running.get("/clients"))["clients"] == []
    looks_good = [*[b"a"] * (MAX_FRAMES - 3), b"", heartbeat("1")]
    assert (await dealer.ask(*looks_good))["messageType"] == "ClientState"


@pytest_twisted.ensureDeferred
async def test_routes_that_no_zeromq_socket_writes_are_not_echoed(
    running: Running,
) -> None:
    dealer = running.dealer()
    for length, echoed in ((LONGEST_ROUTE, True), (LONGEST_ROUTE + 1, False)):
        route = b"r" * length
        assert dealer.send_multipart([route, b"", heartbeat("1")])
        *envelope, content = await dealer.receive()
        assert envelope == ([route, b""] if echoed else [])
        assert (b"BAD_MESSAGE" in content) is not echoed


HALF_HANDSHAKES: dict[str, bytes] = {
    "nothing": b"",
    "half a greeting": zmtp_greeting()[:32],
    "no more than a greeting": zmtp_greeting(),
}


@pytest.mark.parametrize("said", HALF_HANDSHAKES.values(), ids=HALF_HANDSHAKES.keys())
@pytest_twisted.ensureDeferred
async def test_who_never_finishes_its_handshake_is_dropped(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    monkeypatch.setattr(socket_options, "HANDSHAKE_MILLISECONDS", 200)
    running = await serve()
    for address in (running.service.router, running.service.pub):
        wire = await running.wire(port_of(address))
        wire.send(said)
        await wire.until(lambda wire=wire: wire.ended)  # type: ignore[misc]  # mypy#2608
    assert (await running.beat("1"))["clientState"] == "UNCALIBRATED"


def ping(seconds: float) -> bytes:
    """ZMTP's PING, which asks to be dropped after so many seconds of silence."""
    body = b"\x04PING" + int(seconds * 10).to_bytes(2, "big")
    return bytes([4, len(body)]) + body


@pytest.mark.parametrize("socket_type", [b"DEALER", b"SUB"])
@pytest_twisted.ensureDeferred
async def test_a_peer_that_pinged_and_fell_silent_is_dropped(
    running: Running, socket_type: bytes
) -> None:
    service = running.service
    wire = await stranger(
        running, service.pub if socket_type == b"SUB" else service.router, socket_type
    )
    wire.send(ping(0.3))
    await wire.until(lambda: b"PONG" in wire.received)
    await wire.until(lambda: wire.ended)
    assert (await running.beat("1"))["clientState"] == "UNCALIBRATED"


def test_a_peer_whose_machine_is_gone_is_dropped_by_the_kernel() -> None:
    factory = connection.make_factory(reactor)
    try:
        router = RequestRouter(factory, lambda _request: Deferred())
        router.bind("tcp://127.0.0.1:0")
        option: Any = router.socket.get
        idle = option(zmq.TCP_KEEPALIVE_IDLE)
        probes = option(zmq.TCP_KEEPALIVE_INTVL) * option(zmq.TCP_KEEPALIVE_CNT)
        assert option(zmq.TCP_KEEPALIVE) == 1
        assert idle + probes <= 15
        assert option(zmq.TCP_MAXRT) == 15_000
    finally:
        factory.shutdown()


@pytest_twisted.ensureDeferred
async def test_a_silent_crowd_takes_no_more_than_its_share_and_recovers(
    running: Running, tmp_path: Path
) -> None:
    process = Process(
        *("prlimit", "--nofile=64", BIN / "twistd", "-n", "--pidfile="),
        *("heartbeat", *LOOPBACK, "--store", "memory:"),
        folder=tmp_path,
    )
    try:
        ready = await process.says(READY)
        descriptors = Path(f"/proc/{process.pid}/fd")
        alone = len(list(descriptors.iterdir()))
        dealer = running.peer(zmq.DEALER, ready[2])
        await dealer.ask(heartbeat("1"))
        with ExitStack() as stack:
            for number in range(100):
                port = port_of(ready[2 + number % 2])
                crowd = socket.create_connection(("127.0.0.1", port))
                stack.enter_context(crowd)
            late = running.peer(zmq.DEALER, ready[2])
            await process.says("as many ZeroMQ peers as may be, 16: ")

            await until(lambda: len(list(descriptors.iterdir())) <= alone + 16)
            assert (await dealer.ask(heartbeat("1")))["messageType"] == "ClientState"
            with socket.create_connection(("127.0.0.1", port_of(ready[1]))) as http:
                http.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
                http.settimeout(PATIENCE)
                assert http.recv(100).startswith(b"HTTP/1.1 200 ")
            assert late.send_multipart([heartbeat("2")])
        # It tries again by itself, as all ZeroMQ clients do.
        assert b"ClientState" in (await late.receive())[-1]
        assert process.output.count("ZeroMQ peers") == 1
        assert process.status is None
        assert "Traceback" not in process.output
    finally:
        await process.ends("TERM")
