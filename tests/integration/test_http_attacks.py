"""HTTP under attack: whoever is slow, deaf or many keeps nobody else from it."""

from __future__ import annotations

import os
import random
import re
import resource
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from socket import SO_RCVBUF, SOL_SOCKET, create_connection, socket
from typing import Any

import pytest
import pytest_twisted
from attrs import define, field
from msgspec import Raw
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.logger import LogEvent
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request
from typing_extensions import override

from heartbeat_service.core.listening_clock import ListeningClock
from heartbeat_service.core.states import ClientState
from heartbeat_service.engine.engine import Engine
from heartbeat_service.protocol.messages import MAX_VALUES
from heartbeat_service.storage.memory import MemoryStore
from heartbeat_service.web import channel as channel_module
from heartbeat_service.web import port as port_module
from heartbeat_service.web import site as site_module
from heartbeat_service.web.access import Door
from heartbeat_service.web.app import HeartbeatApp
from heartbeat_service.web.events import EventStreams
from heartbeat_service.web.framing import MAX_CHUNKS, Chunks
from heartbeat_service.web.names import Names
from heartbeat_service.web.peers import Peers
from heartbeat_service.web.port import BACKLOG, PatientPort
from heartbeat_service.web.site import HeartbeatSite
from tests.integration.conftest import Answer, Running, Serve, Wire, odd_lines
from tests.integration.processes import BIN, LOOPBACK, READY, Process
from tests.integration.waiting import SILENCE, patiently, pause, reactor, until
from tests.messages import heartbeat, over_http, padded

#: For deadlines that a test waits for: short, but no busy machine's pause.
SHORT = 0.5

#: The length of an answer that no kernel takes for a peer that doesn't read.
LONG = 16 * 1024 * 1024


def get(path: str, *headers: str) -> bytes:
    """A GET as it goes over the wire."""
    return over_http(f"GET {path}", *headers)


NOW, LATE, MUCH = get("/now"), get("/late"), get("/much")
POST = b"POST /now HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n"
CHUNKED = b"POST /now HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"


class Answers(Resource):
    """Answers at once, at length, or when the test says so."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.made = 0
        self.late: list[Request] = []

    @override
    def render(self, request: Request) -> bytes | int:
        """Whatever the method is."""
        self.made += 1
        if request.path == b"/late":
            self.late.append(request)
            return NOT_DONE_YET
        return b"x" * LONG if request.path == b"/much" else b"now"


@define
class Grounds:
    """A site on a real port, and its peers."""

    site: HeartbeatSite
    clock: ListeningClock
    answers: Answers
    port: PatientPort
    number: int
    wires: list[Wire] = field(factory=list)

    def connecting(self) -> Deferred[Wire]:
        """A connection that has its socket, but nothing else yet."""
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self.number)
        connecting: Deferred[Wire] = connectProtocol(endpoint, Wire())
        return connecting.addCallback(self._keep)

    async def wire(self, sent: bytes = b"") -> Wire:
        """A connection that the site has taken; it has sent that."""
        channels = set(self.site.channels)
        wire = await patiently(self.connecting())

        async def taken() -> bool:
            return wire.ended or bool(self.site.channels - channels)

        await until(taken)
        wire.send(sent)
        return wire

    async def answered(self) -> Wire:
        """A connection that has got an answer."""
        wire = await self.wire(NOW)
        await assert_served(wire)
        return wire

    async def all_gone(self) -> None:
        """Wait until no connection is left."""

        async def none_left() -> bool:
            return not self.site.channels

        await until(none_left)

    async def late(self, count: int) -> None:
        """Wait until so many requests are being worked on."""

        async def came() -> bool:
            return len(self.answers.late) == count

        await until(came)

    async def stop(self) -> None:
        """Let go of everything."""
        await patiently(self.port.stop())
        for wire in self.wires:
            wire.abort()
        await patiently(self.site.disconnect_all())
        self.clock.stop()

    def _keep(self, wire: Wire) -> Wire:
        self.wires.append(wire)
        return wire


Open = Callable[..., Grounds]


@pytest.fixture
def grounds() -> Iterator[Open]:
    """A way to open a site, with room for so many."""
    opened: list[Grounds] = []

    def open_site(max_connections: int = 100) -> Grounds:
        answers, clock = Answers(), ListeningClock(reactor, lambda _: None)
        site = HeartbeatSite(answers, reactor, max_connections, clock, lambda _: None)
        port = reactor.listenTCP(0, site, BACKLOG, "127.0.0.1")
        patient = PatientPort(reactor, port, site)
        opened.append(Grounds(site, clock, answers, patient, port.getHost().port))
        return opened[-1]

    yield open_site
    for one in opened:
        pytest_twisted.blockon(Deferred.fromCoroutine(one.stop()))


@pytest.fixture
def short_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """A short time for a request to come in whole."""
    monkeypatch.setattr(channel_module, "REQUEST_DEADLINE", SHORT)


async def is_lost(wire: Wire) -> None:
    """It was cut off."""
    await wire.until(lambda: wire.lost)


async def assert_served(wire: Wire) -> None:
    """The next answer is a good one."""
    answer = await wire.answer()
    assert (answer.status, answer.body) == (200, b"now")


async def assert_too_late(wire: Wire) -> None:
    """The next answer is that the request didn't come in time."""
    answer = await wire.answer()
    assert (answer.status, answer.json()["status"]) == (408, 408)
    assert answer.headers["connection"] == "close"


# Deadlines.


DRIPS = {
    "silence": (b"", b""),
    "a first line": (b"GET /no", b"w"),
    "headers": (NOW[:-2], b"X: x\r\n"),
    "a body": (POST, b"x"),
    "chunks": (CHUNKED, b"1\r\nx\r\n"),
}


@pytest.mark.usefixtures("short_deadline")
@pytest_twisted.ensureDeferred
async def test_a_first_request_that_takes_too_long_is_cut_off_whatever_drips_in(
    grounds: Open,
) -> None:
    open_ = grounds()
    wires = {name: await open_.wire(begin) for name, (begin, _) in DRIPS.items()}
    began = reactor.seconds()

    async def are_cut_off() -> bool:
        await pause(0.02)  # a faster drip is too many headers before it is too late
        for name, wire in wires.items():
            wire.send(DRIPS[name][1])
            assert not wire.ended or reactor.seconds() > began + SHORT / 2, name
        return all(wire.ended for wire in wires.values())

    await until(are_cut_off)
    for name, wire in wires.items():
        if name != "silence":  # who has not begun to ask gets no answer
            await assert_too_late(wire)
        await wire.end()


@pytest.mark.usefixtures("short_deadline")
@pytest_twisted.ensureDeferred
async def test_a_further_request_has_its_time_from_its_first_byte_on(
    grounds: Open,
) -> None:
    wire = await grounds().answered()
    await pause(1.5 * SHORT)  # it may rest
    wire.send(NOW)
    await assert_served(wire)
    wire.send(NOW[:-1])
    await assert_too_late(wire)
    await wire.end()


@pytest.mark.usefixtures("short_deadline")
@pytest_twisted.ensureDeferred
async def test_a_request_that_begins_behind_another_has_its_deadline_too(
    grounds: Open,
) -> None:
    open_ = grounds()
    at_once, later = await open_.wire(NOW + NOW[:-1]), await open_.wire(LATE + NOW[:-1])
    await assert_served(at_once)
    await assert_too_late(at_once)
    await at_once.end()
    await open_.late(1)
    open_.answers.late[0].finish()
    assert b"200 OK" in await later.at_least(20)
    await later.until(lambda: later.ended)


@pytest.mark.usefixtures("short_deadline")
@pytest_twisted.ensureDeferred
async def test_a_blank_line_behind_a_request_begins_none(grounds: Open) -> None:
    wire = await grounds().wire(NOW + b"\r\n")
    await assert_served(wire)
    await pause(1.5 * SHORT)
    wire.send(NOW)
    await assert_served(wire)


@pytest.mark.usefixtures("short_deadline")
@pytest_twisted.ensureDeferred
async def test_no_deadline_runs_while_an_answer_is_worked_on(grounds: Open) -> None:
    open_ = grounds()
    wire = await open_.wire(LATE + NOW)
    await open_.late(1)
    await pause(1.5 * SHORT)
    request = open_.answers.late[0]
    request.setHeader(b"Content-Length", b"3")
    request.write(b"now")
    request.finish()
    await assert_served(wire)
    await assert_served(wire)


@pytest_twisted.ensureDeferred
async def test_a_connection_that_rests_too_long_is_closed(
    grounds: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel_module, "IDLE", SHORT)
    open_ = grounds()
    wire = await open_.answered()
    await wire.end()
    await open_.all_gone()
    assert (open_.site.displaced, open_.site.turned_away) == (0, 0)


async def begun(open_: Grounds) -> tuple[Wire, bytes]:
    """A peer in the midst of its first request; what it has yet to send."""
    wire = await open_.wire(NOW[:-1])
    [channel] = open_.site.channels

    async def read() -> bool:
        return bool(channel.requests)

    await until(read)
    return wire, NOW[-1:]


async def resting(open_: Grounds) -> tuple[Wire, bytes]:
    """A peer between two requests; the next one."""
    return await open_.answered(), NOW


async def about_to_read(open_: Grounds) -> tuple[Wire, bytes]:
    """A peer that has yet to read most of its answer."""
    wire = await open_.wire()
    wire.transport.pauseProducing()
    wire.send(MUCH)

    async def made() -> bool:
        return open_.answers.made == 1

    await until(made)
    return wire, b""


@pytest.mark.parametrize("state", [begun, resting, about_to_read])
@pytest_twisted.ensureDeferred
async def test_what_came_in_time_is_served_after_a_stall(
    grounds: Open,
    monkeypatch: pytest.MonkeyPatch,
    state: Callable[[Grounds], Awaitable[tuple[Wire, bytes]]],
) -> None:
    monkeypatch.setattr(channel_module, "REQUEST_DEADLINE", SHORT)
    monkeypatch.setattr(channel_module, "IDLE", SHORT)
    wire, rest = await state(grounds())

    def stall() -> None:
        wire.transport.getHandle().sendall(rest)
        time.sleep(1.5 * SHORT)  # nobody reads: that is the stall

    # Right before the reactor looks which timers are due; then it reads.
    reactor.callFromThread(stall)
    await pause(0)
    wire.transport.resumeProducing()
    if not rest:
        assert len((await wire.answer()).body) == LONG
        wire.send(NOW)
    await assert_served(wire)
    await wire.end()  # and its deadline holds again


@pytest.mark.usefixtures("short_deadline")
@pytest_twisted.ensureDeferred
async def test_who_is_cut_off_leaves_no_line_in_the_log(
    grounds: Open, logged: list[LogEvent], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel_module, "LINGER", 0.1)
    open_ = grounds()
    logged.clear()
    for _ in range(5):
        await open_.wire(b"GET")
    await open_.all_gone()
    assert logged == []


# Peers that don't read, or ask for too much at once.


@pytest.mark.parametrize("headers", [(), ("Connection: close",)])
@pytest_twisted.ensureDeferred
async def test_who_does_not_read_its_answer_is_cut_off(
    grounds: Open, monkeypatch: pytest.MonkeyPatch, headers: tuple[str, ...]
) -> None:
    monkeypatch.setattr(channel_module, "IDLE", SHORT)
    monkeypatch.setattr(channel_module, "LINGER", 0.1)
    open_ = grounds()
    wire = await open_.wire()
    wire.transport.pauseProducing()
    wire.send(get("/much", *headers))
    await open_.all_gone()
    assert open_.answers.made == 1


@pytest_twisted.ensureDeferred
async def test_answers_to_who_does_not_read_do_not_pile_up(grounds: Open) -> None:
    open_ = grounds()
    wire = await open_.wire()
    wire.transport.pauseProducing()
    asked = 3
    wire.send(MUCH * asked)
    await pause(SILENCE)
    assert open_.answers.made == 1
    wire.transport.resumeProducing()
    for number in range(asked):
        answer = await wire.answer()
        assert len(answer.body) == LONG
        assert open_.answers.made <= number + 2
    wire.send(NOW)
    await assert_served(wire)


@pytest_twisted.ensureDeferred
async def test_what_a_peer_sends_that_does_not_read_does_not_pile_up(
    grounds: Open,
) -> None:
    open_ = grounds()
    wire = await open_.wire()
    wire.transport.pauseProducing()
    wire.send(MUCH)
    wire.send(NOW * (LONG // len(NOW)))
    wire.transport.loseWriteConnection()
    await pause(SILENCE)
    [channel] = open_.site.channels
    assert len(channel._buffer) < LONG / 100
    assert not wire.flushed  # the kernel holds the rest of it back


@pytest_twisted.ensureDeferred
async def test_many_requests_at_once_are_answered_one_a_turn(grounds: Open) -> None:
    open_ = grounds()
    count = 500
    wire = await open_.wire(NOW * count)
    await wire.until(lambda: wire.received != b"")
    assert open_.answers.made < count / 2
    for _ in range(count):
        await assert_served(wire)
    assert open_.answers.made == count


# Long listings, and those who read them slowly or not at all.

#: What may wait for one reader, in bytes.
BOUND = 1024 * 1024


@define
class Crowd:
    """A service with many clients, each with as many values as it may have."""

    site: HeartbeatSite
    engine: Engine
    number: int

    def waiting(self) -> list[int]:
        """How many bytes wait for each reader."""
        transports: list[Any] = [channel.transport for channel in self.site.channels]
        return [len(one.dataBuffer) + one._tempDataLen for one in transports]

    async def reader(self, size: int = 64 * 1024) -> socket:
        """One who has asked for the listing; its kernel takes little by itself."""
        one = socket()
        one.setsockopt(SOL_SOCKET, SO_RCVBUF, size)
        one.connect(("127.0.0.1", self.number))
        one.setblocking(False)
        one.send(get("/clients", "Connection: close"))
        return one


async def read_on(one: socket) -> bytes:
    """What comes next; nothing at the end."""
    received = b""

    async def came() -> bool:
        nonlocal received
        with suppress(BlockingIOError):
            received = one.recv(256 * 1024)
            return True
        return False

    await until(came)
    return received


async def read_all(one: socket) -> bytes:
    """All that comes until the end."""
    received = b""
    while piece := await read_on(one):
        received += piece
    return received


@pytest_twisted.async_yield_fixture
async def crowd() -> AsyncIterator[Crowd]:
    """2,000 of them, 8 MiB of values."""
    engine = Engine(reactor, MemoryStore(time.time))
    await engine.open()
    values = Raw(b'{"x":"%s"}' % (b"x" * (MAX_VALUES - 10)))
    for number in range(2000):
        engine.registry.beat(f"c{number}", ClientState.RUNNING, None, 3600.0, values)
    app = HeartbeatApp(
        engine.dispatcher,
        engine.orders,
        engine.trouble,
        Door(),
        Door(),
        Names([]),
        EventStreams(engine.events, reactor, 1),
        Peers(reactor, engine.nodes, engine.standing, bytes),
    )
    site = HeartbeatSite(app.resource(), reactor, 100, engine.clock, app.gate)
    port = reactor.listenTCP(0, site, BACKLOG, "127.0.0.1")
    yield Crowd(site, engine, port.getHost().port)
    await patiently(port.stopListening())
    await patiently(site.disconnect_all())
    await engine.close()


@pytest_twisted.ensureDeferred
async def test_what_waits_for_readers_that_do_not_read_is_bounded(
    crowd: Crowd,
) -> None:
    readers = [await crowd.reader() for _ in range(20)]

    async def all_wait() -> bool:
        waiting = crowd.waiting()
        assert all(bytes_ <= BOUND for bytes_ in waiting)
        return len(waiting) == len(readers) and all(waiting)

    await until(all_wait)
    await pause(SILENCE)
    assert await all_wait()
    assert sum(crowd.waiting()) < 20 * 100 * 1024
    for one in readers:
        one.close()


@pytest_twisted.ensureDeferred
async def test_a_slow_reader_gets_every_byte(crowd: Crowd) -> None:
    one = await crowd.reader()
    received = await read_all(one)
    one.close()
    assert received.endswith(b"\r\n0\r\n\r\n")
    told = re.findall(rb'"clientID":"c(\d+)",', received)
    assert set(map(int, told)) == set(range(2000))


@pytest_twisted.ensureDeferred
async def test_a_reader_that_vanishes_in_the_midst_is_forgotten(
    crowd: Crowd, logged: list[LogEvent]
) -> None:
    readers = [await crowd.reader() for _ in range(5)]
    for one in readers:
        await read_on(one)
        one.close()

    async def none_left() -> bool:
        return not crowd.site.channels

    await until(none_left)
    assert odd_lines(logged) == []


@pytest_twisted.ensureDeferred
async def test_a_reader_that_does_not_read_is_cut_off(
    crowd: Crowd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel_module, "IDLE", SHORT)
    one = await crowd.reader()

    async def connected() -> bool:
        return bool(crowd.site.channels)

    async def cut_off() -> bool:
        return not await connected()

    await until(connected)
    await until(cut_off)
    with pytest.raises(ConnectionResetError):  # so it knows that this isn't all
        await read_all(one)
    one.close()


# More connections than there is room for.


@pytest_twisted.ensureDeferred
async def test_a_port_knows_whether_somebody_waits_to_be_let_in(grounds: Open) -> None:
    open_ = grounds()
    assert not open_.port.has_unread()
    with create_connection(("127.0.0.1", open_.number)):
        assert open_.port.has_unread()
        await patiently(open_.port.stop())
        assert not open_.port.has_unread()


@pytest_twisted.ensureDeferred
async def test_at_the_cap_a_newcomer_displaces_the_quietest(grounds: Open) -> None:
    open_ = grounds(3)
    first, second, third = [await open_.answered() for _ in range(3)]
    first.send(NOW)
    await assert_served(first)
    await open_.answered()
    await is_lost(second)
    assert not first.lost
    assert not third.lost
    await open_.answered()
    await is_lost(third)
    assert not first.lost
    assert (open_.site.displaced, open_.site.turned_away) == (2, 0)


@pytest_twisted.ensureDeferred
async def test_at_the_cap_who_was_never_answered_makes_room_first(
    grounds: Open,
) -> None:
    open_ = grounds(4)
    beating = await open_.answered()
    strangers = [await open_.wire(begun) for begun in (b"", b"GET", POST)]
    for stranger in strangers:  # the oldest first, whatever it has begun
        await open_.wire()
        await is_lost(stranger)
    for _ in range(10):
        await open_.wire()
    beating.send(NOW)
    await assert_served(beating)


@pytest_twisted.ensureDeferred
async def test_strangers_that_only_connect_lock_nobody_out(grounds: Open) -> None:
    open_ = grounds(3)
    strangers = [await open_.wire(begun) for begun in (b"", b"GET", POST)]
    for stranger in strangers:
        await open_.answered()
        await is_lost(stranger)
    assert (open_.site.displaced, open_.site.turned_away) == (3, 0)


@pytest_twisted.ensureDeferred
async def test_who_is_being_answered_keeps_its_place(grounds: Open) -> None:
    open_ = grounds(2)
    served = [await open_.wire(LATE) for _ in range(2)]
    await open_.late(2)
    turned_away = await open_.wire()
    await turned_away.end()
    assert (open_.site.displaced, open_.site.turned_away) == (0, 1)
    for request in open_.answers.late:
        request.setHeader(b"Content-Length", b"3")
        request.write(b"now")
        request.finish()
    for wire in served:
        await assert_served(wire)
    await open_.answered()  # and now there is room again


@pytest_twisted.ensureDeferred
async def test_a_rush_far_beyond_the_cap_is_served(grounds: Open) -> None:
    open_ = grounds(20)
    for _ in range(100):
        await open_.answered()
    assert len(open_.site.channels) <= 20


# No descriptors.


@pytest.fixture
def leave_descriptors() -> Iterator[Callable[[int], None]]:
    """A way to let the process have only so many more; at the end it has all."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)

    def leave(count: int) -> None:
        free = [os.dup(0) for _ in range(count + 1)]
        for descriptor in free:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(free), limits[1]))

    yield leave
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def lines_of(logged: list[LogEvent]) -> int:
    """How often the log tells of missing descriptors."""
    return sum(
        "out of descriptors" in (event.get("log_format") or "") for event in logged
    )


@pytest_twisted.ensureDeferred
async def test_without_a_descriptor_a_newcomer_waits_until_there_is_one(
    grounds: Open, leave_descriptors: Callable[[int], None], logged: list[LogEvent]
) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    open_ = grounds()
    logged.clear()
    connecting = open_.connecting()
    leave_descriptors(0)
    wire = await patiently(connecting)
    wire.send(NOW)
    await pause(SILENCE)
    assert (wire.received, wire.ended) == (b"", False)
    assert lines_of(logged) == len(logged) == 1
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    await assert_served(wire)


@pytest_twisted.ensureDeferred
async def test_without_a_descriptor_a_quiet_connection_makes_room(
    grounds: Open, leave_descriptors: Callable[[int], None]
) -> None:
    open_ = grounds()
    quiet = await open_.answered()
    connecting = open_.connecting()
    leave_descriptors(0)
    wire = await patiently(connecting)
    wire.send(NOW)
    await assert_served(wire)
    assert quiet.lost


@pytest.mark.parametrize("retry", [port_module.RETRY, 0.0], ids=["", "after a stall"])
@pytest_twisted.ensureDeferred
async def test_a_rush_beyond_the_descriptors_is_served_by_and_by(
    grounds: Open,
    leave_descriptors: Callable[[int], None],
    logged: list[LogEvent],
    monkeypatch: pytest.MonkeyPatch,
    retry: float,
) -> None:
    monkeypatch.setattr(port_module, "RETRY", retry)  # a stall makes it due at once
    await assert_rush_is_served(grounds(), leave_descriptors, logged)


async def assert_rush_is_served(
    open_: Grounds, leave_descriptors: Callable[[int], None], logged: list[LogEvent]
) -> None:
    """Thirty come while there is room for eight; all get their answers."""
    logged.clear()
    connecting = [open_.connecting() for _ in range(30)]
    leave_descriptors(8)
    for one in connecting:
        (await patiently(one)).send(NOW)
    for wire in open_.wires:
        await assert_served(wire)
    assert lines_of(logged) == len(logged) == 1


@pytest_twisted.ensureDeferred
async def test_a_rush_is_served_where_free_descriptors_lie_among_taken_ones(
    grounds: Open, leave_descriptors: Callable[[int], None], logged: list[LogEvent]
) -> None:
    open_ = grounds()
    many = [os.dup(0) for _ in range(200)]
    # The lowest are for the test's own sockets.
    gaps = {*many[:30], *many[30::10]}
    for descriptor in gaps:
        os.close(descriptor)
    try:
        await assert_rush_is_served(open_, leave_descriptors, logged)
    finally:
        for descriptor in set(many) - gaps:
            os.close(descriptor)


@pytest_twisted.ensureDeferred
async def test_a_fleet_finds_room_in_the_queue_of_a_service_that_stalls(
    serve: Serve,
) -> None:
    running = await serve()
    fleet = [
        create_connection(("127.0.0.1", running.port), timeout=5) for _ in range(300)
    ]  # the service, in this very thread, takes none of them meanwhile
    assert all(one.getpeername()[1] == running.port for one in fleet)
    for one in fleet:
        one.close()


@pytest_twisted.ensureDeferred
async def test_the_program_takes_all_the_descriptors_that_it_may(
    tmp_path: Path,
) -> None:
    limited = ("sh", "-c", 'ulimit -Sn 128 && ulimit -Hn 512 && exec "$0" "$@"')
    program = Process(
        *(*limited, BIN / "twistd", "-n", "--pidfile=", "heartbeat", *LOOPBACK),
        *("--store", "memory:"),
        folder=tmp_path,
    )
    await program.says(READY)
    limits = Path(f"/proc/{program.pid}/limits").read_text()
    assert re.search(r"^Max open files +512 +512 ", limits, re.MULTILINE)
    await program.ends("TERM")


# What a request may look like.


@pytest.mark.parametrize(("count", "status"), [(500, 200), (501, 431)])
@pytest_twisted.ensureDeferred
async def test_a_request_may_have_500_headers(
    grounds: Open, count: int, status: int
) -> None:
    more = [f"X-{number}: x" for number in range(count - 1)]  # Host is one
    wire = await grounds().wire(get("/now", *more))
    assert (await wire.answer()).status == status


@pytest.mark.parametrize(("size", "status"), [(16_384, 200), (16_385, 431)])
@pytest_twisted.ensureDeferred
async def test_a_requests_headers_may_have_16_kib(
    grounds: Open, size: int, status: int
) -> None:
    used = sum(len(line) for line in get("/now", "A: ", "B: ").split(b"\r\n"))
    half = "x" * ((size - used) // 2)
    rest = "x" * (size - used - len(half))
    wire = await grounds().wire(get("/now", f"A: {half}", f"B: {rest}"))
    assert (await wire.answer()).status == status


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("http://x/healthz", 200),
        ("HTTPS://x:1/healthz", 200),
        ("http://[::1]/healthz?http://y/clients", 200),
        ("http://127.0.0.1", 200),  # the page
        ("https://127.0.0.1/", 200),
        ("http://127.0.0.1?/healthz", 200),
        ("http://127.0.0.1/x", 404),
        ("http:///healthz", 404),
        ("http://", 404),
        ("http://x/http://x/healthz", 404),
        ("/http://x/healthz", 404),
        ("ftp://x/healthz", 404),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_target_may_name_the_server_and_means_the_same(
    serve: Serve, target: str, status: int
) -> None:
    running = await serve()
    wire = await running.wire()
    wire.send(get(target) + get("/healthz"))
    answer = await wire.answer()
    assert answer.status == status
    if status == 404:
        assert answer.json()["code"] == "BAD_MESSAGE"
    assert (await wire.answer()).status == 200


def assert_problem(answer: Answer, status: int) -> None:
    """It is a problem as the contract has them."""
    assert (answer.status, answer.json()["status"]) == (status, status), answer
    assert answer.headers["content-type"] == "application/problem+json"


ODD_TARGETS = ["clients", "xclients", "x/clients", "%2fclients", ".", "x:80"]
ODD_PATHS = [
    *("//clients", "/%2fclients", "/%2Fclients", "/.//clients", "///clients"),
    *("/./clients", "/%2e/clients", "/clients/../clients", "/clients/%2E%2e/clients"),
    *("/clients/", "/clients//", "//clients/1", "/clients//1", "/clients/1/"),
    *("/clients/./1", "/clients/1/../1", "/clients%2f1", "/clients/%2f1"),
    *("//", "/%2f"),
    *("//clients/1/state", "/clients/1%2fstate", "/clients/1//state"),
    *("/clients/1/state/", "/clients/x/../1/state", "/%2e/clients/state"),
    *("//heartbeat", "/heartbeat/", "/%2fheartbeat", "/./heartbeat", "/x/../heartbeat"),
    *("//healthz", "/healthz/", "/clients/1/./history", "/clients/.", "/clients/.."),
]


@pytest.mark.parametrize(
    "targets",
    [ODD_TARGETS, ODD_PATHS, [f"http://x{path}" for path in ODD_PATHS]],
    ids=["no path", "origin form", "absolute form"],
)
@pytest_twisted.ensureDeferred
async def test_a_path_has_one_spelling(running: Running, targets: list[str]) -> None:
    present = await running.beat("1")
    for target in targets:
        wire = await running.wire()
        for method in ("GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS", "BREW"):
            wire.send(
                over_http(f"{method} {target}", body=b'{"clientState": "RUNNING"}')
            )
            answer = await wire.answer(to_head=method == "HEAD")
            assert answer.status == 404, (method, target, answer)
        assert await running.beat("1") == present, target


@pytest.mark.parametrize(
    "path",
    ["/%63lients", "/client%73/%31", "/clients/1", "/clients/%31?", "/clients/%7e"],
)
@pytest_twisted.ensureDeferred
async def test_encoded_letters_are_the_letters_themselves(
    running: Running, path: str
) -> None:
    await running.beat("1")
    wire = await running.wire()
    wire.send(over_http(f"GET {path}"))
    answer = await wire.answer()
    if path.endswith("%7e"):  # no client can have this ID, but the path is one
        assert (answer.status, answer.json()["code"]) == (404, "UNKNOWN_CLIENT")
    else:
        assert b'"clientID":"1"' in answer.body


@pytest_twisted.ensureDeferred
async def test_what_an_id_may_have_may_be_encoded_in_a_path(running: Running) -> None:
    await running.beat("a:b@c")
    for path in ("/clients/a:b@c", "/clients/a%3Ab%40c"):
        assert (await running.get(path))["clientID"] == "a:b@c"


@pytest.mark.parametrize("method", ["get", "Get", "delete", "Delete", "put", "head"])
@pytest_twisted.ensureDeferred
async def test_methods_in_small_letters_are_others(
    running: Running, method: str
) -> None:
    present = await running.beat("1")
    wire = await running.wire()
    for path in ("/clients/1", "/clients", "/healthz", "/clients/1/state"):
        wire.send(over_http(f"{method} {path}"))
        assert_problem(await wire.answer(), 501)
    assert await running.beat("1") == present


GET_ALL = "GET /clients"
CODED = "Transfer-Encoding: chunked"
FRAMED_WRONG: dict[str, bytes] = {
    "no Host": over_http(GET_ALL, host=None),
    "two Hosts": over_http(GET_ALL, "Host: x"),
    "two Hosts apart": over_http(GET_ALL, "Host: x", "X: x", host="y"),
    "two Hosts in HTTP/1.0": over_http(GET_ALL, "Host: y").replace(b"/1.1", b"/1.0", 1),
    "two Transfer-Encodings": over_http("POST /heartbeat", CODED, CODED),
    "identity and chunked": over_http(
        "POST /heartbeat", "Transfer-Encoding: identity", CODED
    ),
    "identity": over_http("GET /clients", "Transfer-Encoding: identity"),
    "identity and a length": over_http(
        "POST /heartbeat", "Transfer-Encoding: Identity", body=b"x"
    ),
    "a list of codings": over_http(
        "POST /heartbeat", "Transfer-Encoding: gzip, chunked"
    ),
    "chunked in HTTP/1.0": over_http("POST /heartbeat", CODED).replace(
        b"/1.1", b"/1.0", 1
    ),
    "both lengths": over_http("POST /heartbeat", CODED, body=b"0\r\n\r\n"),
    "two equal lengths": over_http("POST /heartbeat", "Content-Length: 1", body=b"x"),
    "two lengths in a line": over_http("POST /heartbeat", "Content-Length: 1, 1"),
    "two Authorizations": over_http(
        GET_ALL, "Authorization: Bearer a", "Authorization: Bearer b"
    ),
    "obs-fold": over_http(GET_ALL, "X: x", " y"),
    "obs-fold by a tab": over_http(GET_ALL, "X: x", "\ty"),
    "a fold of nothing": over_http(GET_ALL, " X: x"),
    "a folded Transfer-Encoding": over_http(
        "POST /heartbeat", "Transfer-Encoding:", " chunked"
    ),
    "a space before the colon": over_http(GET_ALL, "X : x"),
}


@pytest.mark.parametrize("bad", FRAMED_WRONG.values(), ids=FRAMED_WRONG.keys())
@pytest_twisted.ensureDeferred
async def test_what_could_be_taken_for_another_request_is_refused(
    running: Running, bad: bytes
) -> None:
    wire = await running.wire()
    wire.send(bad + over_http("GET /healthz"))
    assert_problem(await wire.answer(), 400)
    await wire.end()  # what comes behind it is not read


@pytest_twisted.ensureDeferred
async def test_http_1_0_may_go_without_a_host(running: Running) -> None:
    wire = await running.wire()
    wire.send(b"GET /healthz HTTP/1.0\r\n\r\n")
    await wire.until(lambda: wire.ended)
    assert wire.received.startswith(b"HTTP/1.0 200 ")


@pytest.mark.parametrize(
    ("coding", "status"), [("gzip", 415), ("identity", 200), ("identity, gzip", 415)]
)
@pytest_twisted.ensureDeferred
async def test_a_coded_body_is_not_taken(
    running: Running, coding: str, status: int
) -> None:
    wire = await running.wire()
    wire.send(
        over_http("POST /heartbeat", f"Content-Encoding: {coding}", body=heartbeat("1"))
    )
    assert (await wire.answer()).status == status
    wire.send(over_http("GET /healthz"))
    assert (await wire.answer()).status == 200


@pytest.mark.parametrize(
    ("begun", "status"),
    [
        (b"GET /healthz HTTP/1.1\r\nX: " + b"x" * 20_000, 431),
        (get("/healthz", *["X-Many: " + "x" * 80] * 400), 431),
        (get("/healthz", *["X:"] * 600), 431),
        (b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\n", 414),
        (b"GET /" + b"x" * 20_000, 414),
    ],
    ids=["a line", "many lines", "many headers", "a path", "a path without an end"],
)
@pytest_twisted.ensureDeferred
async def test_too_long_a_head_is_told_so(
    running: Running, begun: bytes, status: int
) -> None:
    wire = await running.wire()
    wire.send(begun)
    assert_problem(await wire.answer(), status)
    await wire.end()


@pytest.mark.parametrize("sign", ["&", ";", "a&", "a=1;"])
@pytest_twisted.ensureDeferred
async def test_a_query_has_a_hundred_parameters_at_most(
    running: Running, sign: str
) -> None:
    for count, status in ((99, 200), (100, 400), (3000, 400)):
        wire = await running.wire()
        wire.send(over_http(f"GET /healthz?{sign * count}"))
        assert (await wire.answer()).status == status


# A peer that has sent its last word.


@pytest_twisted.ensureDeferred
async def test_who_sends_no_more_still_gets_all_its_answers(grounds: Open) -> None:
    open_ = grounds()
    at_once = await open_.wire(NOW * 3 + NOW[:-1])
    late = await open_.wire(LATE + NOW)
    for wire in (at_once, late):
        await wire.all_sent()
    for _ in range(3):
        await assert_served(at_once)
    await at_once.end()
    await open_.late(1)
    await pause(SILENCE)
    assert not late.ended
    request = open_.answers.late[0]
    request.setHeader(b"Content-Length", b"3")
    request.write(b"now")
    request.finish()
    for _ in range(2):
        await assert_served(late)
    await late.end()
    await open_.all_gone()


@pytest_twisted.ensureDeferred
async def test_who_sends_no_more_and_reads_slowly_gets_all_of_it(
    grounds: Open,
) -> None:
    open_ = grounds()
    wire = await open_.wire()
    wire.transport.pauseProducing()
    wire.send(MUCH + NOW)
    await wire.all_sent()
    await pause(SILENCE)
    wire.transport.resumeProducing()
    assert len((await wire.answer()).body) == LONG
    await assert_served(wire)
    await wire.end()
    await open_.all_gone()


@pytest_twisted.ensureDeferred
async def test_who_sends_no_more_and_has_asked_nothing_is_let_go(
    grounds: Open,
) -> None:
    open_ = grounds()
    for begun in (b"", b"GET", NOW[:-1], POST, b"hello\r\n\r\n"):
        wire = await open_.wire(begun)
        await wire.all_sent()
    await open_.answered()
    for wire in open_.wires[:-1]:
        await wire.until(lambda wire=wire: wire.ended)  # type: ignore[misc]  # a default binds it
    assert len(open_.site.channels) == 1


@pytest_twisted.ensureDeferred
async def test_what_drips_in_behind_a_request_is_kept_in_few_pieces(
    grounds: Open,
) -> None:
    open_ = grounds()
    wire = await open_.wire(LATE)
    await open_.late(1)
    [channel] = open_.site.channels
    for start in range(0, len(NOW * 10), 2):
        wire.send((NOW * 10)[start : start + 2])
        await pause(0)
        assert len(channel._dataBuffer) <= channel_module.MOST_PIECES
    open_.answers.late[0].finish()
    assert b"200 OK" in await wire.at_least(20)
    await wire.until(lambda: wire.received.count(b"\r\n\r\nnow") == 10)


# Bodies in pieces, and bodies that nobody reads.


PIECES = "POST /heartbeat HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


def in_pieces(body: bytes, size: int, extension: bytes = b"") -> bytes:
    """A chunked POST."""
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    chunks = [b"%x%s\r\n%s\r\n" % (len(one), extension, one) for one in pieces]
    return PIECES.encode() + b"".join([*chunks, b"0\r\n\r\n"])


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (in_pieces(padded(60 * 10), 10), 200),
        (in_pieces(padded(60 * 1000), 1000), 200),
        (in_pieces(padded(64 * 1024), 64 * 1024), 200),
        (in_pieces(padded(64 * 1024), 600), 200),
        (in_pieces(padded(64 * 1024), 400), 400),
        (in_pieces(padded(70 * 10), 10), 400),
        (in_pieces(padded(64 * 1024), 1), 400),
        (in_pieces(padded(400), 100, b";" + b"x" * 1000), 400),
        (in_pieces(padded(400), 100, b";" + b"x" * 100), 200),
        (in_pieces(padded(400), 100)[:-2] + b"X: x\r\n" * 200 + b"\r\n", 400),
        (in_pieces(padded(400), 100)[:-2] + b"X: x\r\n" * 20 + b"\r\n", 200),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_body_comes_in_few_pieces_with_little_around_them(
    running: Running, body: bytes, status: int
) -> None:
    whole, split = await running.wire(), await running.wire()
    whole.send(body)
    assert (await whole.answer()).status == status
    for start in range(0, len(body), 997):
        split.send(body[start : start + 997])
        await pause(0)
    assert (await split.answer()).status == status


@pytest_twisted.ensureDeferred
async def test_a_body_in_tiny_pieces_is_not_taken_apart_to_its_end(
    running: Running,
) -> None:
    class Counted(Chunks):
        """Counts what the parser does."""

        steps = 0

        @override
        def _dataReceived_BODY(self) -> bool:
            Counted.steps += 1
            return super()._dataReceived_BODY()

    wire = await running.wire()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(channel_module, "Chunks", Counted)
        wire.send(PIECES.encode() + b"1\r\nx\r\n" * 10_000)
        assert_problem(await wire.answer(), 400)
    assert Counted.steps <= MAX_CHUNKS


@pytest.fixture
def token_files(tmp_path: Path) -> dict[str, str]:
    """A token file for operators, and one for clients."""
    files = {}
    for who in ("operator", "client"):
        path = tmp_path / who
        path.write_text(f"the-token-of-{who}s\n")
        files[f"{who}_token_file"] = str(path)
    return files


@pytest.mark.parametrize(
    "framing", ["Content-Length: 60000", CODED, "Content-Length: 70000"]
)
@pytest.mark.parametrize(
    "first",
    [
        "POST /heartbeat",
        "POST /%68eartbeat",
        "POST http://x/Heartbeat/Update",
        "PUT /clients/1/state",
        "PUT /clients/%31/state",
        "PUT /clients/state",
        "DELETE /clients/1",
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_token_is_asked_for_when_the_head_is_in(
    serve: Serve, token_files: dict[str, str], first: str, framing: str
) -> None:
    running = await serve(**token_files)
    wire = await running.wire()
    wire.send(over_http(first, framing, "Authorization: Bearer wrong"))  # and no body
    answer = await wire.answer()
    assert_problem(answer, 401)
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.headers["connection"] == "close"
    await wire.end()
    good = await running.wire()
    who = "client" if "eat" in first else "operator"
    token = f"Authorization: Bearer the-token-of-{who}s"
    good.send(over_http(first, token, body=heartbeat("1")))
    assert (await good.answer()).status != 401


@pytest.mark.parametrize("about", [("Connection: close",), ("Connection: x, close",)])
@pytest_twisted.ensureDeferred
async def test_who_wants_to_close_and_is_refused_is_told_so_once(
    running: Running, about: tuple[str, ...]
) -> None:
    for begun in (
        over_http("POST /heartbeat", CODED, *about) + b"1\r\nxx\r\n",
        over_http("POST /heartbeat", CODED, *about) + b"20000\r\n" + b"x" * 0x20000,
    ):
        wire = await running.wire()
        wire.send(begun)
        answer = await wire.answer()  # which has no header twice
        assert answer.status in (400, 413)
        assert answer.headers["connection"] == "close"
        await wire.end()


@pytest_twisted.ensureDeferred
async def test_who_is_refused_by_its_head_is_not_asked_for_its_body(
    serve: Serve, token_files: dict[str, str]
) -> None:
    running = await serve(**token_files)
    wire = await running.wire()
    wire.send(over_http("POST /heartbeat", "Expect: 100-continue", "Content-Length: 9"))
    assert_problem(await wire.answer(), 401)
    await wire.end()


@pytest_twisted.ensureDeferred
async def test_a_head_that_is_refused_has_no_body_in_its_answer_to_head(
    serve: Serve, token_files: dict[str, str]
) -> None:
    running = await serve(**token_files)
    for length in (0, 9):
        wire = await running.wire()
        wire.send(over_http("HEAD /clients", f"Content-Length: {length}"))
        answer = await wire.answer(to_head=True)
        assert (answer.status, answer.body) == (401, b"")
        assert int(answer.headers["content-length"]) > 0
        if length:
            await wire.end()


# What strangers leave in the log.

TO_ALL = b'{"clientState": 3, "all": true}'
SEEDS = [
    over_http("POST /heartbeat", "Content-Type: application/json", body=heartbeat("1")),
    in_pieces(heartbeat("1"), 40),
    over_http("GET /clients?limit=1", "Authorization: Bearer x", "Cookie: a=b; c=d"),
    over_http("HEAD /clients/1", "Accept-Encoding: gzip"),
    over_http("PUT /clients/1/state", body=b'{"clientState": "RUNNING"}'),
    over_http("PUT /clients/state", "Expect: 100-continue", body=TO_ALL),
    over_http("DELETE http://x:80/clients/%31", "Connection: close"),
    over_http("OPTIONS *"),
    over_http("CONNECT x:80"),
    over_http(
        "GET /readyz", "Upgrade: websocket", "If-None-Match: *", "Range: bytes=0-"
    ),
    b"HEAD /\x8c HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /%ff?%ff=%ff HTTP/1.0\r\n\r\n",
]
ODD_BYTES = [b"\0", b"\r\n", b"\n", b"\x8c", b"%", b"{", b"\x1b[2J", b":", b" ", b"/"]


def mutated(source: random.Random) -> bytes:
    """A request with some bytes changed, lost, doubled or of another one."""
    request = bytearray(source.choice(SEEDS))
    for _ in range(source.randrange(4)):
        start = source.randrange(len(request) + 1)
        end = start + source.randrange(20)
        other = source.choice(SEEDS)
        request[start:end] = source.choice(
            [
                b"",
                bytes(request[start:end]) * 2,
                source.choice(ODD_BYTES),
                source.randbytes(3),
                other[source.randrange(len(other)) :],
            ]
        )
    return bytes(request)


@pytest.mark.parametrize("seed", range(4))
@pytest_twisted.ensureDeferred
async def test_strangers_leave_no_line_but_that_they_are_refused(
    running: Running, logged: list[LogEvent], seed: int
) -> None:
    source = random.Random(seed)  # noqa: S311 - the same each time
    logged.clear()
    for _ in range(50):
        wires = [await running.wire() for _ in range(20)]
        for wire in wires:
            said = b"".join(mutated(source) for _ in range(source.randint(1, 3)))
            if source.random() < 0.5:
                wire.send(said)
            else:
                middle = source.randrange(len(said) + 1)
                wire.send(said[:middle])
                await pause(0)
                wire.send(said[middle:])
        for wire in wires:
            if source.random() < 0.8 and not wire.lost:
                wire.transport.loseWriteConnection()
                await wire.until(lambda wire=wire: wire.ended)  # type: ignore[misc]  # a default binds it
            wire.abort()
    running.wires.clear()
    assert odd_lines(logged) == []


@pytest_twisted.ensureDeferred
async def test_who_vanishes_while_its_answer_waits_leaves_no_other_line(
    running: Running, logged: list[LogEvent]
) -> None:
    asked = [
        over_http("POST /heartbeat", body=heartbeat("1")),
        over_http("POST /heartbeat", body=heartbeat("1", instanceID="other")),
        over_http("PUT /clients/1/state", body=b'{"clientState": "RUNNING"}'),
        over_http("PUT /clients/state", body=TO_ALL),
        over_http("GET /clients/1/history"),
        over_http("GET /readyz"),
        over_http("DELETE /clients/1"),
    ]
    logged.clear()
    for turns in range(5):
        for request in asked * 4:
            wire = await running.wire()
            wire.send(request * 2)
            for _ in range(turns):
                await pause(0)
            wire.abort()
    running.wires.clear()
    wire = await running.wire()
    wire.send(over_http("GET /readyz"))
    assert (await wire.answer()).status == 200
    assert odd_lines(logged) == []


# What is kept for those who don't finish, and for those who don't read.


BODY = PIECES.replace(CODED, "Content-Length: 60000").encode()


@pytest_twisted.ensureDeferred
async def test_beyond_the_budget_who_takes_most_is_ended(
    grounds: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site_module, "BUDGET", 100_000)
    open_ = grounds()
    client = await open_.wire(BODY.replace(b"60000", b"9000") + b"x" * 5000)
    most = await open_.wire(BODY + b"x" * 40_000)
    others = [await open_.wire(BODY + b"x" * 30_000) for _ in range(2)]
    await is_lost(most)
    assert not any(wire.lost for wire in (client, *others))
    assert open_.site.shed == 1
    for _ in range(10):  # whoever comes, it is never the one with its small request
        await open_.wire(BODY + b"x" * 50_000)
    client.send(b"x" * 4000)
    await assert_served(client)
    assert sum(not wire.lost for wire in open_.wires) <= 100_000 / 5000


HEAD_OF_MANY = NOW[:-2] + b"".join(b"X-%d:\r\n" % number for number in range(400))


@pytest.mark.parametrize(
    "begun",
    [
        BODY + b"x" * 50_000,
        BODY.replace(b"Content-Length: 60000", CODED.encode())
        + b"ea60\r\n"
        + b"x" * 50_000,
        b"GET /" + b"x" * 16_000,
        HEAD_OF_MANY,
        LATE + NOW * 200,
        LATE.replace(b"\r\n\r\n", b"\r\nContent-Length: 50000\r\n\r\n") + b"x" * 50_000,
    ],
    ids=["body", "chunk", "line", "headers", "behind another", "being answered"],
)
@pytest_twisted.ensureDeferred
async def test_all_that_is_kept_for_the_unfinished_counts(
    grounds: Open, monkeypatch: pytest.MonkeyPatch, begun: bytes
) -> None:
    monkeypatch.setattr(site_module, "BUDGET", 100_000)
    open_ = grounds()
    for _ in range(20):
        await open_.wire(begun)

    async def some_are_ended() -> bool:
        return any(wire.lost for wire in open_.wires)

    await until(some_are_ended)
    good = await open_.answered()
    for wire in open_.wires:
        if wire is not good:
            wire.abort()

    async def only_one_is_left() -> bool:
        return len(open_.site.channels) == 1

    await until(only_one_is_left)
    assert open_.site._kept_in_all == 0


@pytest_twisted.ensureDeferred
async def test_answers_that_are_not_read_count_until_they_are(
    grounds: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_ = grounds()
    deaf = [await open_.wire() for _ in range(3)]
    for wire in deaf:
        wire.transport.pauseProducing()
        wire.send(MUCH)

    async def all_are_kept() -> bool:
        return open_.site._kept_in_all > 2 * LONG

    await until(all_are_kept)
    monkeypatch.setattr(site_module, "BUDGET", 5 * LONG // 2)
    late = await open_.wire(BODY + b"x")  # whoever is the next to be counted
    deaf[0].transport.resumeProducing()

    async def one_is_ended() -> bool:
        return len(open_.site.channels) == 3

    await until(one_is_ended)
    for wire in deaf:
        wire.transport.resumeProducing()
    late.send(b"x" * 59_999)
    await assert_served(late)

    async def nothing_is_kept() -> bool:
        return open_.site._kept_in_all == 0

    await until(nothing_is_kept)


@pytest_twisted.ensureDeferred
async def test_a_head_of_many_lines_is_read_a_few_lines_a_turn(grounds: Open) -> None:
    open_ = grounds()
    wire = await open_.wire(HEAD_OF_MANY)
    [channel] = open_.site.channels
    seen = set()

    async def all_read() -> bool:
        seen.add(channel._receivedHeaderCount)
        return channel._receivedHeaderCount >= 400

    while not await all_read():
        await pause(0)
    assert len(seen) > 400 / channel_module.LINES_A_TURN - 2
    wire.send(b"\r\n")
    await assert_served(wire)
