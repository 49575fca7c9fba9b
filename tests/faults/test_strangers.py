"""Peers that mean no good, or speak another language, on every port."""

from __future__ import annotations

import os
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from twisted.internet.protocol import ClientFactory, Protocol, connectionDone
from twisted.python.failure import Failure
from typing_extensions import override

from heartbeat_service.web.site import BUDGET, CONNECTION_COST
from tests.faults.conftest import Serve
from tests.faults.herd import reactor
from tests.faults.service import Row, death_of, either
from tests.integration.conftest import Answer
from tests.integration.processes import ROOT, Process
from tests.integration.test_bad_input import zmtp_greeting, zmtp_ready
from tests.integration.test_tls import certificate
from tests.integration.waiting import PATIENCE, pause, until

#: How long a request may take to arrive (the HTTP channel's deadline), in seconds.
DEADLINE = 10.0


class Stranger(Protocol):
    """A connection that sends what it likes, and reads nothing."""

    transport: Any

    def __init__(self, *parts: bytes) -> None:
        self.parts = list(parts)
        self.connected_at = self.cut_at = 0.0

    @override
    def connectionMade(self) -> None:
        self.connected_at = time.monotonic()
        self.say()

    def say(self) -> None:
        """Send the next part, if there is one."""
        if self.parts and self.connected_at and not self.cut_at:
            self.transport.write(self.parts.pop(0))

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.cut_at = time.monotonic()


class _Strangers(ClientFactory):
    noisy = False

    def __init__(self, stranger: Stranger) -> None:
        self._stranger = stranger

    @override
    def buildProtocol(self, addr: object) -> Stranger:
        return self._stranger

    @override
    def clientConnectionFailed(self, connector: object, reason: Failure) -> None:
        self._stranger.connectionLost(reason)


class Crowd:
    """Strangers, and the end of them."""

    def __init__(self) -> None:
        self._connectors: list[Any] = []

    def send(self, address: str, stranger: Stranger) -> Stranger:
        """Connect one."""
        host, _, port = address.removeprefix("tcp://").rpartition(":")
        self._connectors.append(
            reactor.connectTCP(host, int(port), _Strangers(stranger), timeout=PATIENCE)
        )
        return stranger

    def leave(self) -> None:
        """All hang up."""
        for connector in self._connectors:
            if connector.state == "connected":
                connector.transport.abortConnection()
            elif connector.state == "connecting":
                connector.stopConnecting()
        self._connectors.clear()


@pytest.fixture
def crowd() -> Iterator[Crowd]:
    """Strangers, who leave after the test."""
    crowd = Crowd()
    yield crowd
    crowd.leave()


@pytest.mark.fault("flood of the ROUTER")
@pytest_twisted.ensureDeferred
async def test_a_flood_of_requests_keeps_nobody_from_beating(
    serve: Serve, spawn: Callable[..., Process], row: Row
) -> None:
    seconds, fuse = either(3, 15), 2.0
    service = await serve("--timebomb", str(fuse), "--interval", "0.3")
    herd = service.herd(20, timebomb=fuse, interval=0.3, patience=fuse / 2)
    await service.joined(herd)
    before, herd.slowest = service.memory(), 0.0
    await service.control(herd, "silent")
    registered = time.monotonic()
    flood = spawn(
        *(sys.executable, "-m", "tests.faults.flood", service.router, str(seconds)),
        PYTHONPATH=str(ROOT),
    )
    died = await death_of(herd, "silent") - registered
    assert await flood.ends() == 0
    sent = int((await flood.says(r"sent (\d+)"))[1])
    await pause(0.5)
    service.assert_unharmed()
    slowest = herd.slowest
    row.slower(await herd.all_answered(PATIENCE))
    grown = service.memory() - before
    row.tried = f"{seconds} s, {sent} requests"
    row.note = (
        f"slowest beat {slowest * 1000:.0f} ms, "
        f"memory {before} + {grown} MiB, silent one died after {died:.1f} s"
    )
    assert slowest < 1.0, row.note
    assert grown < 200, row.note
    assert died < fuse + 3, row.note
    row.judge(herd)
    service.assert_unharmed()


@pytest.mark.fault("one client taken over again and again")
@pytest_twisted.ensureDeferred
async def test_a_flood_of_takeovers_begins_ten_lives_a_second(
    serve: Serve, spawn: Callable[..., Process], row: Row
) -> None:
    seconds, fuse = either(3, 15), 2.0
    service = await serve("--timebomb", str(fuse), "--max-timebomb", "3")
    herd = service.herd(20, timebomb=fuse, interval=0.3, patience=fuse / 2)
    await service.joined(herd)
    first, began = await service.beat("before"), time.monotonic()
    flood = spawn(
        *(sys.executable, "-m", "tests.faults.flood", service.router),
        *(str(seconds), "lives"),
        PYTHONPATH=str(ROOT),
    )
    assert await flood.ends() == 0
    sent = int((await flood.says(r"sent (\d+)"))[1])

    async def died() -> bool:
        return (await service.ask("GET", "/clients/flood")).status == 404

    left_after = await until(died)
    last, lasted = await service.beat("after"), time.monotonic() - began
    lives = incarnation_of(last) - incarnation_of(first) - 1
    row.tried = f"{seconds} s, {sent} takeovers"
    row.note = (
        f"{lives} lives in {lasted:.1f} s; gone {left_after:.1f} s after the last"
    )
    assert 10 <= lives <= 10 * (lasted + 1), row.note
    row.slower(await herd.all_answered(PATIENCE))
    row.judge(herd)
    service.assert_unharmed()


def incarnation_of(answer: Answer) -> int:
    """The life that a heartbeat's reply names."""
    return int(answer.json()["body"]["incarnation"])


@pytest.mark.fault("1,000 connections at 256 descriptors")
@pytest_twisted.ensureDeferred
async def test_more_connections_than_descriptors_shut_nobody_out(
    serve: Serve, crowd: Crowd, row: Row
) -> None:
    service = await serve(
        *("--timebomb", "2", "--interval", "0.5"),
        before=("prlimit", "--nofile=256:256"),
    )
    herd = service.herd(20, timebomb=2, interval=0.5, patience=1.0)
    await service.joined(herd)
    strangers = [crowd.send(service.http, Stranger()) for _ in range(1000)]
    await until(lambda: all(one.connected_at or one.cut_at for one in strangers))
    tried, end = len(strangers), time.monotonic() + 2.5  # longer than a fuse
    while time.monotonic() < end:  # whoever was cut off comes again
        for number, one in enumerate(strangers):
            if one.cut_at:
                strangers[number] = crowd.send(service.http, Stranger())
                tried += 1
        await pause(0.1)
    assert not herd.wrongly_dead
    assert (await service.beat("newcomer")).status == 200
    crowd.leave()
    left = time.monotonic()
    assert (await service.ask("GET", "/readyz")).status == 200
    served = time.monotonic() - left
    assert served < 2.0, f"a new connection was served after {served:.1f} s"
    await herd.all_answered(PATIENCE)
    row.slower(served)
    row.tried = f"1000 at once, {tried} in all, 20 clients"
    row.note = f"slowest beat {herd.slowest * 1000:.0f} ms"
    row.judge(herd)
    service.assert_unharmed()


@pytest.mark.fault("400 quiet ZeroMQ peers at 256 descriptors")
@pytest_twisted.ensureDeferred
async def test_more_zeromq_peers_than_descriptors_keep_nobody_from_beating(
    serve: Serve, crowd: Crowd, row: Row
) -> None:
    seconds = either(3, 10)  # longer than a fuse
    service = await serve(
        *("--timebomb", "2", "--interval", "0.5"),
        before=("prlimit", "--nofile=256:256"),
    )
    herd = service.herd(20, timebomb=2, interval=0.5, patience=1.0)
    await service.joined(herd)

    def come(number: int) -> Stranger:
        tried.append(number)
        kind, address = ((b"DEALER", service.router), (b"SUB", service.pub))[number % 2]
        said = (zmtp_greeting() + zmtp_ready(kind), b"")[number % 4 // 2]
        return crowd.send(address, Stranger(said))

    descriptors = Path(f"/proc/{service.process.pid}/fd")
    tried: list[int] = []
    strangers = [come(number) for number in range(400)]
    end, most = time.monotonic() + seconds, 0
    while time.monotonic() < end:  # whoever was turned away comes again
        for number, one in enumerate(strangers):
            if one.cut_at:
                strangers[number] = come(number)
        most = max(most, len(list(descriptors.iterdir())))
        assert (await service.beat("newcomer")).status == 200
        await pause(0.05)
    assert not herd.wrongly_dead
    log = service.process.output.count("ZeroMQ peers")
    crowd.leave()
    left = time.monotonic()
    late = service.herd(5, timebomb=2, interval=0.5, patience=1.0, name="late")
    await service.joined(late)
    row.slower(time.monotonic() - left)
    row.tried = f"400 at once, {len(tried)} in all, 20 clients"
    row.note = (
        f"slowest beat {herd.slowest * 1000:.0f} ms, {most} descriptors at the most"
    )
    row.judge(herd, late)
    assert log == 1, service.process.output
    service.assert_unharmed()


@pytest.mark.fault("slowloris")
@pytest_twisted.ensureDeferred
async def test_who_dribbles_is_cut_off_in_time(
    serve: Serve, crowd: Crowd, row: Row
) -> None:
    service = await serve("--timebomb", "3", "--interval", "0.5")
    herd = service.herd(20, timebomb=3, interval=0.5, patience=1.5)
    await service.joined(herd)
    head = b"POST /heartbeat HTTP/1.1\r\nHost: x\r\n"
    header = (head, *[b"X-Slow: 1\r\n"] * 100)
    body = (head + b"Content-Length: 1000\r\n\r\n", *[b"{"] * 100)
    strangers = [
        crowd.send(service.http, Stranger(*(header if number % 2 else body)))
        for number in range(200)
    ]
    await until(lambda: all(one.connected_at for one in strangers))
    start = time.monotonic()
    while not all(one.cut_at for one in strangers):
        assert time.monotonic() < start + DEADLINE + 8, "they are not cut off"
        await pause(1.0)
        for stranger in strangers:
            stranger.say()
    held = max(one.cut_at - one.connected_at for one in strangers)
    assert held < DEADLINE + 5, f"one was cut off after {held:.1f} s only"
    await herd.all_answered(PATIENCE)
    row.tried = "100 headers, 100 bodies"
    row.note = (
        f"all cut off after {held:.1f} s, slowest beat {herd.slowest * 1000:.0f} ms"
    )
    row.judge(herd)
    service.assert_unharmed()


CHUNKED = b"POST /heartbeat HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
TINY_CHUNKS = CHUNKED + b"1\r\nx\r\n" * 10_922  # 64 KiB


@pytest.mark.fault("bodies in tiny chunks")
@pytest_twisted.ensureDeferred
async def test_bodies_in_tiny_chunks_keep_nobody_waiting(
    serve: Serve, crowd: Crowd, row: Row
) -> None:
    count = either(250, 1400)
    service = await serve("--timebomb", "3", "--interval", "0.3")
    herd = service.herd(20, timebomb=3, interval=0.3, patience=1.5)
    await service.joined(herd)
    herd.slowest = 0.0
    strangers = [crowd.send(service.http, Stranger(TINY_CHUNKS)) for _ in range(count)]
    await until(lambda: all(one.connected_at or one.cut_at for one in strangers))
    await pause(2.0)
    row.slower(await herd.all_answered(PATIENCE))
    slowest = max(herd.slowest, row.recovered or 0.0)
    crowd.leave()
    row.tried = f"{count} connections, 64 KiB each"
    row.note = f"slowest beat {slowest * 1000:.0f} ms"
    assert slowest < 1.5, row.note
    row.judge(herd)
    service.assert_unharmed()


@pytest.mark.fault("crowd of TLS handshakes")
@pytest_twisted.ensureDeferred
async def test_a_crowd_of_handshakes_keeps_nobody_waiting(
    serve: Serve, crowd: Crowd, row: Row, tmp_path: Path
) -> None:
    count = either(1400, 4000)
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    (tmp_path / "pair.pem").write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        + certificate("x", key, "x", key).public_bytes(Encoding.PEM)
    )
    endpoint = f"ssl:0:privateKey={tmp_path}/pair.pem:interface=127.0.0.1"
    service = await serve("--timebomb", "3", "--interval", "0.3", "--http", endpoint)
    service.http, inside = service.http.split(",")
    herd = service.herd(20, timebomb=3, interval=0.3, patience=1.5)
    await service.joined(herd)
    hello = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        ssl.create_default_context().wrap_bio(
            ssl.MemoryBIO(), hello, server_hostname="x"
        ).do_handshake()
    said = hello.read()
    strangers = [crowd.send(inside, Stranger(b"", said)) for _ in range(count)]
    await until(lambda: all(one.connected_at for one in strangers))
    herd.slowest = 0.0
    for stranger in strangers:
        stranger.say()
    await pause(2.0)
    row.slower(await herd.all_answered(PATIENCE))
    slowest = max(herd.slowest, row.recovered or 0.0)
    crowd.leave()
    row.tried = f"{count} connections"
    row.note = f"slowest beat {slowest * 1000:.0f} ms"
    assert slowest < 1.0, row.note
    row.judge(herd)
    service.assert_unharmed()


@pytest.mark.fault("unfinished bodies")
@pytest_twisted.ensureDeferred
async def test_unfinished_bodies_take_no_more_than_their_budget(
    serve: Serve, crowd: Crowd, row: Row
) -> None:
    count, size = either(5000, 8000), 60_000
    service = await serve("--timebomb", "3", "--interval", "0.5")
    herd = service.herd(20, timebomb=3, interval=0.5, patience=1.5)
    await service.joined(herd)
    before = service.memory()
    head = b"POST /heartbeat HTTP/1.1\r\nHost: x\r\nContent-Length: 65000\r\n\r\n"
    strangers = []
    for _ in range(0, count, 100):
        strangers += [
            crowd.send(service.http, Stranger(head + b"x" * size)) for _ in range(100)
        ]
        await pause(0.02)
    await until(lambda: all(one.connected_at or one.cut_at for one in strangers))
    await pause(1.0)
    grown = service.memory() - before
    crowd.leave()
    row.slower(await herd.all_answered(PATIENCE))
    row.tried = f"{count} connections, {count * size // 1024**2} MiB"
    row.note = f"memory {before} + {grown} MiB, slowest {herd.slowest * 1000:.0f} ms"
    # What grows is given an eighth more than it needs; TLS costs most of a connection.
    allowed = BUDGET * 9 // 8 + count * CONNECTION_COST // 4
    assert grown < allowed / 1024**2, row.note
    row.judge(herd)
    service.assert_unharmed()


HELLO = bytes.fromhex("16030100c8010000c40303") + bytes(194)
GREETING = b"\xff\x00\x00\x00\x00\x00\x00\x00\x01\x7f\x03\x01NULL" + bytes(48)
GARBAGE: list[tuple[bytes, ...]] = [
    (b"\x00",),
    (HELLO,),  # TLS
    (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",),
    (b"GET / HTTP/9.9\r\nHost: a..b\r\nContent-Length: -1\r\n\r\n",),
    (b"POST /heartbeat HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffff\r\n",),
    (b"A" * 100_000,),
    (GREETING[:5],),
    (GREETING[:40],),  # half a greeting
    (GREETING, b"\x02" + b"\xff" * 8),  # a frame of 16 EiB
    (GREETING, b"\x04\x19\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER", b"\x03" * 99),
    (GREETING, b"\x04\xff\x05READY" + bytes(300)),
]


@pytest.mark.fault("garbage on all ports")
@pytest_twisted.ensureDeferred
async def test_garbage_does_no_harm(serve: Serve, crowd: Crowd, row: Row) -> None:
    connections = either(60, 600)
    service = await serve("--timebomb", "1.5", "--interval", "0.3")
    herd = service.herd(20, timebomb=1.5, interval=0.3, patience=0.7)
    await service.joined(herd)
    ports = (service.http, service.router, service.pub)
    for start in range(0, connections, 60):
        strangers = [
            crowd.send(ports[number % 3], Stranger(*_garbage(number // 3)))
            for number in range(start, min(start + 60, connections))
        ]
        for _ in range(3):
            await pause(0.2)
            for stranger in strangers:
                stranger.say()
        assert all(one.connected_at for one in strangers)
        crowd.leave()
    await pause(1.5)  # a fuse: whoever was kept from beating dies
    row.slower(await herd.all_answered(PATIENCE))
    row.tried = f"{connections} connections"
    row.note = f"slowest beat {herd.slowest * 1000:.0f} ms"
    row.judge(herd)
    assert (await service.ask("GET", "/readyz")).status == 200
    service.assert_unharmed()


def _garbage(number: int) -> tuple[bytes, ...]:
    kinds = [*GARBAGE, (os.urandom(1000),)]
    return kinds[number % len(kinds)]
