"""Peers that flood, never read, say nothing or are dead: the others are served.

What a single message may look like is in ``test_bad_input.py``; here are those who
mean harm. They are processes or plain TCP connections that speak ZMTP by hand.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
import zmq
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPullProducer
from twisted.logger import LogEvent, capturedLogs
from zope.interface import implementer

from heartbeat_service.zeromq import connection
from heartbeat_service.zeromq.connection import MAX_FRAME, MAX_FRAMES
from heartbeat_service.zeromq.router import LONGEST_ROUTE, RequestRouter
from tests.integration.conftest import Running, Serve, Wire, port_of
from tests.integration.processes import BIN, LOOPBACK, READY, Process, Spawn
from tests.integration.test_bad_input import (
    assert_it_goes_on,
    stranger,
    zmtp_frame,
    zmtp_greeting,
    zmtp_ready,
)
from tests.integration.waiting import pause, reactor, until
from tests.messages import heartbeat

#: How long anything may keep the service from answering, in seconds: far above
#: what it takes, and below what a client would notice.
PROMPT = 1.0

# Connects, shakes hands, and sends numbered frames of one length for ever; it never
# reads. A process of its own, since it must go on while the service is busy.
FLOOD = """
import socket, struct, sys
port, length, greeting, ready, start = int(sys.argv[1]), int(sys.argv[2]), *map(
    bytes.fromhex, sys.argv[3:])
peer = socket.create_connection(("127.0.0.1", port))
peer.sendall(greeting)
peer.recv(64, socket.MSG_WAITALL)
peer.sendall(ready)
print("it floods", flush=True)
number = 0
while True:
    frames = []
    for number in range(number, number + max(1, 50_000 // length)):
        frame = (start + b"%d-" % number).ljust(length, b"x")
        frames.append(b"\\2" + struct.pack(">Q", length) + frame)
    peer.sendall(b"".join(frames))
"""


@asynccontextmanager
async def flood(
    folder: Path, address: str, socket_type: bytes, length: int, start: bytes = b""
) -> AsyncIterator[None]:
    """While it lasts, a process floods the address."""
    flooder = Process(
        *(sys.executable, "-c", FLOOD, str(port_of(address)), str(length)),
        *(data.hex() for data in (zmtp_greeting(), zmtp_ready(socket_type), start)),
        folder=folder,
    )
    try:
        await flooder.says("it floods")
        yield
        assert flooder.status is None, flooder.output
    finally:
        await flooder.ends("KILL")


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


async def slowest_answer(running: Running, seconds: float = 2.0) -> float:
    """The longest that HTTP took for an answer, asked again and again for a while."""
    slowest, end = 0.0, reactor.seconds() + seconds
    while reactor.seconds() < end:
        asked = reactor.seconds()
        await running.get("/clients/1")
        slowest = max(slowest, reactor.seconds() - asked)
        await pause(0.01)
    return slowest


@pytest.mark.parametrize("length", [10, 1000, MAX_FRAME // 4])
@pytest_twisted.ensureDeferred
async def test_a_peer_that_floods_and_never_reads_delays_nobody(
    running: Running, tracebacks: list[LogEvent], tmp_path: Path, length: int
) -> None:
    dealer = running.dealer()
    present = (await dealer.ask(heartbeat("1")))["body"]

    def drops() -> list[int]:
        return [event["count"] for event in log if "count" in event]

    async def are_many() -> bool:
        return len(drops()) > 4

    with capturedLogs() as log:
        async with flood(tmp_path, running.service.router, b"DEALER", length):
            assert await slowest_answer(running) < PROMPT
            assert (await dealer.ask(heartbeat("1")))["body"] == present
            await until(are_many)
        await assert_it_goes_on(running)
    # However many are dropped, few lines tell of it.
    assert drops() == [2**n for n in range(len(drops()))]
    assert tracebacks == []


@pytest_twisted.ensureDeferred
async def test_a_flood_of_the_longest_frames_delays_nobody(
    running: Running, tracebacks: list[LogEvent], tmp_path: Path
) -> None:
    dealer = running.dealer()
    present = (await dealer.ask(heartbeat("1")))["body"]
    async with flood(tmp_path, running.service.router, b"DEALER", MAX_FRAME):
        assert await slowest_answer(running) < PROMPT
        assert (await dealer.ask(heartbeat("1")))["body"] == present
    await assert_it_goes_on(running)
    assert tracebacks == []


@pytest_twisted.ensureDeferred
async def test_a_peer_that_never_stops_subscribing_delays_nobody(
    running: Running, tracebacks: list[LogEvent], tmp_path: Path
) -> None:
    await running.beat("1")
    subscriber = await running.subscriber(b"OnStateChange/1/")
    async with flood(tmp_path, running.service.pub, b"SUB", 80, b"\1"):
        assert await slowest_answer(running) < PROMPT
        await running.kick("1")
        assert (await subscriber.change())["reason"] == "kick"
    assert tracebacks == []


@pytest_twisted.ensureDeferred
async def test_what_nobody_reads_stays_with_the_peer_and_is_not_lost(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    router = RequestRouter(running.factory, lambda _: Deferred())
    address = router.bind("tcp://127.0.0.1:0")
    await pause(0.01)
    reactor.removeReader(router)  # the service is too busy to read
    pump = Pump(await stranger(running, address, b"DEALER"))
    before = -1
    while before < pump.sent:  # until it is stuck for long
        before = pump.sent
        await pause(0.5)
    # 25 are in the queue, and as many as go into 15 MiB in the kernel.
    assert pump.sent <= 60
    pump.stop()

    heard: list[bytes] = []
    monkeypatch.setattr(router, "messageReceived", lambda it: heard.append(it[-1]))
    reactor.addReader(router)
    router.doRead()

    async def all_came() -> bool:
        return len(heard) == pump.sent

    await until(all_came)
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
    assert await running.get("/clients") == {"clients": []}
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
    monkeypatch.setattr(connection, "HANDSHAKE_TIMEOUT", 200)
    running = await serve()
    for address in (running.service.router, running.service.pub):
        wire = await running.wire(port_of(address))
        wire.send(said)
        await wire.until(lambda wire=wire: wire.ended)  # type: ignore[misc]  # mypy#2608


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


# A ROUTER that reads nothing, and a peer that fills its queue and then resets the
# connection; after that, time enough for a ping to be due.
HANG_UP = """
import socket, struct, sys, time
from twisted.internet import reactor
from heartbeat_service.zeromq import connection, router
greeting, ready, frame = map(bytes.fromhex, sys.argv[1:])
factory = connection.make_factory(reactor)
address = router.RequestRouter(factory, None).bind("tcp://127.0.0.1:0")
peer = socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])))
peer.sendall(greeting)
peer.recv(64, socket.MSG_WAITALL)
peer.sendall(ready)
peer.settimeout(1)
try:
    while True:
        peer.sendall(frame)
except TimeoutError:
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()
time.sleep(6)
print("it is alive")
"""


@pytest_twisted.ensureDeferred
async def test_a_peer_that_fills_its_queue_and_hangs_up_does_not_end_the_service(
    spawn: Spawn,
) -> None:
    # libzmq aborts at the first ping that is due to such a peer.
    said = (zmtp_greeting(), zmtp_ready(b"DEALER"), zmtp_frame(b"x" * 1000))
    program = spawn(sys.executable, "-c", HANG_UP, *(part.hex() for part in said))
    await program.says("it is alive")


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
async def test_out_of_descriptors_it_serves_whom_it_has_and_recovers(
    running: Running, tmp_path: Path
) -> None:
    process = Process(
        *("prlimit", "--nofile=48", BIN / "twistd", "-n", "--pidfile="),
        *("heartbeat", *LOOPBACK, "--store", "memory:"),
        folder=tmp_path,
    )
    try:
        ready = await process.says(READY)
        dealer = running.peer(zmq.DEALER, ready[2])
        await dealer.ask(heartbeat("1"))
        with ExitStack() as stack:
            for _ in range(100):
                crowd = socket.create_connection(("127.0.0.1", port_of(ready[2])))
                stack.enter_context(crowd)
            descriptors = Path(f"/proc/{process.pid}/fd")

            async def exhausted() -> bool:
                return len(list(descriptors.iterdir())) >= 48

            await until(exhausted)
            assert (await dealer.ask(heartbeat("1")))["messageType"] == "ClientState"
        late = running.peer(zmq.DEALER, ready[2])
        assert (await late.ask(heartbeat("2")))["messageType"] == "ClientState"
        assert process.status is None
        assert "Traceback" not in process.output
    finally:
        await process.ends("TERM")
