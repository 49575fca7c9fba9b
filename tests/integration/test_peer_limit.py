"""PeerLimit and its monitors: who is counted, and who is turned away."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
import zmq
from attrs import define
from twisted.internet.task import Clock
from twisted.logger import LogEvent

from heartbeat_service import service
from heartbeat_service.zeromq.monitor import EVENT_BUDGET, Monitor
from heartbeat_service.zeromq.peer_limit import TELL_EVERY, PeerLimit
from tests.integration.conftest import Peer, Serve, port_of
from tests.integration.test_bad_input import zmtp_frame, zmtp_greeting, zmtp_ready
from tests.integration.test_connection import (
    LOOPBACK,
    MakeFactory,
    factory,
    new_factory,
    without_hanging,
)
from tests.integration.waiting import pause, until
from tests.messages import heartbeat

__all__ = ["factory", "new_factory"]

#: More events than the queue of a monitor holds, so that libzmq's thread has to wait.
MANY = 1_200

EVENTS = zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED


def strangers(stack: ExitStack, address: str, count: int) -> list[socket.socket]:
    """Plain TCP connections, which stay until the stack is closed."""
    where = ("127.0.0.1", port_of(address))
    return [stack.enter_context(socket.create_connection(where)) for _ in range(count)]


def is_cut_off(stranger: socket.socket) -> bool:
    """Whether the other side has ended it, whatever it said before."""
    try:
        while stranger.recv(1_000, socket.MSG_DONTWAIT):
            pass
    except BlockingIOError:
        return False
    except ConnectionResetError:
        pass
    return True


def descriptors() -> set[int]:
    """All of this process."""
    return {int(path.name) for path in Path("/proc/self/fd").iterdir()}


def accepted(port: int) -> set[int]:
    """This process's descriptors of connections that came in at a port."""
    found = set()
    for descriptor in descriptors():
        with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as one:
            if one.family == socket.AF_INET and one.getsockname()[1] == port:
                one.getpeername()  # the listening one has none
                found.add(descriptor)
    return found


@define
class Limited:
    """Two sockets, with so many peers at most in all."""

    limit: PeerLimit
    clock: Clock
    router: Peer
    pub: Peer
    addresses: tuple[str, str]

    @property
    def port(self) -> int:
        """The router's."""
        return port_of(self.addresses[0])


@pytest.fixture
def limited(factory: Any) -> Iterator[Callable[..., Limited]]:
    """``limited(most)`` makes two sockets."""
    limits = []

    def make(most: int, router: str = LOOPBACK) -> Limited:
        clock = Clock()
        limit = PeerLimit(clock, most)
        limits.append(limit)
        sockets = Peer(factory, zmq.ROUTER), Peer(factory, zmq.PUB)
        for one in sockets:
            limit.watch(one)
        addresses = sockets[0].bind(router), sockets[1].bind(LOOPBACK)
        return Limited(limit, clock, *sockets, addresses)

    yield make
    for limit in limits:
        limit.stop()


@pytest_twisted.ensureDeferred
async def test_a_quarter_of_the_descriptors_is_for_zeromq_and_no_more(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, logged: list[LogEvent]
) -> None:
    monkeypatch.setattr(service, "allowed", lambda: 16)
    running = await serve()
    dealer = running.dealer()
    await dealer.ask(heartbeat("1"))
    subscriber = await running.subscriber(b"OnStateChange/1/")
    both = running.service.router, running.service.pub
    with ExitStack() as stack:
        for address in both:  # whatever they say, and if they say nothing at all
            (guest,) = strangers(stack, address, 1)
            guest.sendall(zmtp_greeting()[:20])
        await pause(0.1)
        for address in both * 3:
            (stranger,) = strangers(stack, address, 1)
            await until(lambda it=stranger: is_cut_off(it))  # type: ignore[misc]  # mypy#2608
        assert not is_cut_off(guest)
        assert (await dealer.ask(heartbeat("1")))["messageType"] == "ClientState"
        await running.kick("1")
        assert (await subscriber.change())["reason"] == "kick"
    newcomer = running.dealer()
    assert (await newcomer.ask(heartbeat("2")))["messageType"] == "ClientState"
    told = [event for event in logged if "peer_limit" in event["log_namespace"]]
    assert [event["most"] for event in told] == [4]


@pytest_twisted.ensureDeferred
async def test_who_comes_and_goes_quickly_is_counted_exactly(
    limited: Callable[..., Limited],
) -> None:
    here = limited(100)
    with ExitStack() as stack:
        staying = strangers(stack, here.addresses[0], 10)
        for _ in range(20):
            with ExitStack() as passing:
                for one in strangers(passing, here.addresses[0], 50)[::2]:
                    one.setsockopt(
                        socket.SOL_SOCKET, socket.SO_LINGER, b"\1" + bytes(7)
                    )  # half of them end in a reset
            await pause(0)

        def is_exact() -> bool:  # once libzmq has let in the last, and seen them go
            counted = {descriptor for _, descriptor in here.limit._peers}
            return counted == accepted(here.port) and len(counted) == len(staying)

        await until(is_exact)
    await until(lambda: not len(here.limit))
    assert accepted(here.port) == set()


@pytest_twisted.ensureDeferred
async def test_a_crowd_ten_times_too_large_leaves_as_many_as_may_be(
    limited: Callable[..., Limited],
) -> None:
    here = limited(20)
    with ExitStack() as stack:
        first = strangers(stack, here.addresses[0], 20)
        await until(lambda: len(here.limit) == 20)
        crowd = [one for to in here.addresses for one in strangers(stack, to, 100)]
        await until(lambda: all(map(is_cut_off, crowd)))
        await until(lambda: len(here.limit) == 20)
        assert not any(map(is_cut_off, first))


@pytest_twisted.ensureDeferred
async def test_peers_by_ipc_are_counted_and_turned_away_as_well(
    limited: Callable[..., Limited], tmp_path: Path
) -> None:
    here = limited(1, f"ipc://{tmp_path}/router")
    with socket.socket(socket.AF_UNIX) as first, socket.socket(socket.AF_UNIX) as other:
        first.connect(f"{tmp_path}/router")
        await until(lambda: len(here.limit) == 1)
        other.connect(f"{tmp_path}/router")
        await until(lambda: is_cut_off(other))
        assert not is_cut_off(first)
        assert here.limit.turned_away == 1


@pytest_twisted.ensureDeferred
async def test_the_log_tells_of_a_rush_in_two_lines(
    limited: Callable[..., Limited], logged: list[LogEvent]
) -> None:
    here = limited(2)

    def told() -> list[str]:
        return [
            event["log_level"].name
            for event in logged
            if "peer_limit" in event["log_namespace"]
        ]

    with ExitStack() as stack:
        strangers(stack, here.addresses[0], 2)
        await until(lambda: len(here.limit) == 2)
        assert told() == []
        for _ in range(3):
            crowd = strangers(stack, here.addresses[1], 20)
            await until(lambda: all(map(is_cut_off, crowd)))  # noqa: B023 - awaited
            assert told() == ["warn"]
            here.clock.advance(TELL_EVERY)
        here.clock.advance(TELL_EVERY)
        assert told() == ["warn"]  # nobody was turned away, yet there is no room
    await until(lambda: not len(here.limit))
    here.clock.advance(TELL_EVERY)
    assert told() == ["warn", "info"]
    assert here.clock.getDelayedCalls() == []


@pytest_twisted.ensureDeferred
async def test_a_descriptor_that_is_somebody_elses_by_now_is_left_alone(
    limited: Callable[..., Limited], tmp_path: Path
) -> None:
    here = limited(0)
    peer = (here.router, -1)
    ours, theirs = socket.socketpair()
    listening = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(listening.getsockname())
    server, _ = listening.accept()
    file = (tmp_path / "file").open("wb")
    with ours, theirs, listening, client, server, file:
        for one in (ours, server, file):
            peer = (here.router, one.fileno())
            here.limit._accepted(peer, here.addresses[0])
        here.limit._accepted((here.router, 100_000), here.addresses[0])
        ours.sendall(b"x")
        server.sendall(b"x")
        assert (theirs.recv(1), client.recv(1)) == (b"x", b"x")


@pytest_twisted.ensureDeferred
async def test_events_are_read_in_budgets_and_none_is_lost(factory: Any) -> None:
    router = Peer(factory, zmq.ROUTER)
    heard: list[int] = []
    by_turn: list[int] = []
    Monitor(router, EVENTS, lambda event, *_: heard.append(event))
    address = router.bind(LOOPBACK)
    for _ in range(MANY // 2):
        with ExitStack() as stack:
            strangers(stack, address, 1)

    async def all_heard() -> bool:
        before = len(heard)
        await pause(0)
        by_turn.append(len(heard) - before)
        return len(heard) >= MANY // 2 * 2

    await until(all_heard)
    assert heard.count(zmq.EVENT_ACCEPTED) == heard.count(zmq.EVENT_DISCONNECTED)
    assert len(heard) == MANY
    assert max(by_turn) <= 3 * EVENT_BUDGET  # a pause may lie across three reads


@pytest_twisted.ensureDeferred
async def test_a_handler_that_fails_is_logged_and_goes_on_hearing(
    factory: Any, tracebacks: list[LogEvent]
) -> None:
    router = Peer(factory, zmq.ROUTER)
    heard: list[int] = []

    def fail(event: int, *_: object) -> None:
        heard.append(event)
        raise ZeroDivisionError

    Monitor(router, EVENTS, fail)
    with ExitStack() as stack:
        strangers(stack, router.bind(LOOPBACK), 2)
        await until(lambda: len(heard) == 2)
    await until(lambda: len(heard) == 4)
    assert len(tracebacks) == 4
    tracebacks.clear()


def fill(address: str) -> None:
    """Come and go, until the monitor is full and libzmq's thread waits."""
    with suppress(TimeoutError):  # that is when it accepts no more
        for _ in range(10 * MANY):
            socket.create_connection(("127.0.0.1", port_of(address)), 0.5).close()
        pytest.fail("its thread doesn't wait")


@pytest_twisted.ensureDeferred
async def test_what_waits_behind_a_full_monitor_is_not_taken_for_read(
    limited: Callable[..., Limited],
) -> None:
    here = limited(10)
    with ExitStack() as stack:
        (peer,) = strangers(stack, here.addresses[0], 1)
        peer.sendall(zmtp_greeting() + zmtp_ready(b"DEALER"))
        await until(lambda: b"READY" in peer.recv(1_000, socket.MSG_PEEK))
        await until(lambda: not here.limit.has_unread())
        fill(here.addresses[0])
        peer.sendall(zmtp_frame(b"hello"))
        # Whether that thread waits, or was only slow.
        assert here.router.has_unread() or here.limit.has_unread()
        _, hello = await here.router.receive()
        assert hello == b"hello"
        await until(lambda: not here.limit.has_unread())


@pytest_twisted.ensureDeferred
async def test_the_clock_waits_for_whom_a_monitor_tells_of(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[PeerLimit] = []

    def has_unread(limit: PeerLimit) -> bool:
        asked.append(limit)
        return False

    monkeypatch.setattr(PeerLimit, "has_unread", has_unread)
    running = await serve()
    await running.beat("1", timebombSeconds=0.1)
    await until(lambda: bool(asked))
    assert len(set(asked)) == 1


@pytest.mark.parametrize("which", ["factory", "socket", "monitor"])
def test_to_stop_while_libzmqs_thread_waits_for_a_full_monitor_does_not_hang(
    new_factory: MakeFactory, which: str
) -> None:
    before = len(descriptors())
    factory = new_factory()
    router = Peer(factory, zmq.ROUTER)
    monitor = Monitor(router, EVENTS, lambda *_: None)
    address = router.bind(LOOPBACK)
    with ExitStack() as stack, without_hanging():
        strangers(stack, address, 5)
        fill(address)
        {"factory": factory, "socket": router, "monitor": monitor}[which].shutdown()
        if which != "factory":
            factory.shutdown()
    assert len(descriptors()) == before
