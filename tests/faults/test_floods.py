"""Peers that flood ZeroMQ and never read: how soon the others are served."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_twisted
from twisted.logger import LogEvent, capturedLogs

from heartbeat_service.zeromq import router
from heartbeat_service.zeromq.socket_options import MAX_FRAME
from tests.integration.conftest import Running, port_of, running, serve
from tests.integration.processes import Process, Spawn
from tests.integration.test_bad_input import (
    assert_it_goes_on,
    zmtp_frame,
    zmtp_greeting,
    zmtp_ready,
)
from tests.integration.waiting import pause, reactor, until
from tests.messages import heartbeat

#: A service in this process, as the integration tests have it.
__all__ = ["running", "serve"]

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
        return [
            event["count"]
            for event in log
            if event["log_namespace"].startswith(router.__name__)
        ]

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
time.sleep(6)  # a ping would have been due by then
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
    assert await program.ends() == 0
