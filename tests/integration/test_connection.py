"""HardenedConnection closes the holes of txZMQ's connection: one test for each.

What makes a hole show is arranged, not waited for: messages travel by
``inproc``, where they have arrived once they are sent, or ``select`` tells that
they have, without a turn of the reactor.
"""

from __future__ import annotations

import faulthandler
import select
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, ClassVar

import pytest
import pytest_twisted
import zmq
from attrs import frozen
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogEvent

from heartbeat_service.zeromq import connection
from heartbeat_service.zeromq.connection import (
    MAX_FRAMES,
    READ_BUDGET,
    HardenedConnection,
    make_factory,
)
from heartbeat_service.zeromq.socket_options import MAX_FRAME
from tests.integration.conftest import Peer, port_of
from tests.integration.waiting import PATIENCE, patiently, pause, reactor

LOOPBACK = "tcp://127.0.0.1:0"

MakeFactory = Callable[..., Any]


@pytest.fixture
def new_factory() -> Iterator[MakeFactory]:
    """``new_factory()`` makes factories, which are shut down at the end."""
    made = []

    def make(its_reactor: Any = reactor) -> Any:
        factory = make_factory(its_reactor)
        factory.lingerPeriod = 0
        made.append(factory)
        return factory

    yield make
    for factory in made:
        if factory.context is not None:
            factory.shutdown()


@pytest.fixture
def factory(new_factory: MakeFactory) -> Any:
    """One factory, shut down at the end."""
    return new_factory()


@contextmanager
def without_hanging() -> Iterator[None]:
    """Fail if the block takes longer than PATIENCE, even if it blocks."""

    def give_up(*_: object) -> None:
        raise TimeoutError("it hangs")

    former = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    # A thread that waits for a lock in C hears no signal: then the whole run ends.
    faulthandler.dump_traceback_later(2 * PATIENCE, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)


def wait_unread(connection: HardenedConnection) -> None:
    """Wait until something has come in, without a turn of the reactor."""
    descriptor = connection.socket.get(zmq.FD)
    assert isinstance(descriptor, int)
    assert select.select([descriptor], [], [], PATIENCE)[0]


async def receive_all(connection: Peer) -> list[bytes]:
    """The next message, once the connection has seen that it is the last one."""
    frames = await connection.receive()
    await pause(0)  # a message is handed out before the next one is looked for
    return frames


async def pair(factory: Any) -> tuple[Peer, Peer]:
    """Two connections that talk to each other by TCP, and have done so."""
    left, right = Peer(factory, zmq.PAIR), Peer(factory, zmq.PAIR)
    right.connect(left.bind(LOOPBACK))
    assert right.send_multipart([b"hello"])
    await receive_all(left)
    assert left.send_multipart([b"hello"])
    await receive_all(right)
    return left, right


class MandatoryRouter(Peer):
    """A ROUTER that is told when there is nobody to send to."""

    options: ClassVar[dict[int, int]] = {zmq.ROUTER_MANDATORY: 1}

    def __init__(self, factory: Any) -> None:
        super().__init__(factory, zmq.ROUTER)


@pytest_twisted.ensureDeferred
async def test_a_send_that_fails_leaves_the_socket_hearing(factory: Any) -> None:
    router = MandatoryRouter(factory)
    dealer = Peer(factory, zmq.DEALER)
    dealer.connect(router.bind(LOOPBACK))
    assert dealer.send_multipart([b"0"])
    identity, _ = await receive_all(router)
    for number in (b"1", b"2", b"3"):
        assert dealer.send_multipart([number])
        wait_unread(router)
        assert not router.send_multipart([b"nobody", b"hello"])  # eats the wake-up
        assert await receive_all(router) == [identity, number]


@pytest_twisted.ensureDeferred
async def test_a_send_that_succeeds_leaves_the_socket_hearing(factory: Any) -> None:
    left, right = await pair(factory)
    for number in (b"1", b"2", b"3"):
        assert right.send_multipart([number])
        wait_unread(left)
        assert left.send_multipart([b"hello"])
        assert await receive_all(left) == [number]
        assert await receive_all(right) == [b"hello"]


@pytest_twisted.ensureDeferred
async def test_a_connection_hears_what_comes_right_after_it_has_connected(
    factory: Any,
) -> None:
    left, right = Peer(factory, zmq.PAIR), Peer(factory, zmq.PAIR)
    left.bind("inproc://pair")
    right.connect("inproc://pair")  # by inproc, there is no wake-up for the first
    assert left.send_multipart([b"hello"])
    assert await right.receive() == [b"hello"]


@pytest_twisted.ensureDeferred
async def test_a_send_into_a_full_queue_says_so_and_does_not_wait(
    factory: Any,
) -> None:
    lonely = Peer(factory, zmq.DEALER)  # with nobody connected there is no queue
    with without_hanging():
        assert lonely.send_multipart([b"a", b"b"]) is False
    other = Peer(factory, zmq.DEALER)
    other.connect(lonely.bind(LOOPBACK))
    assert other.send_multipart([b"hello"])
    await lonely.receive()
    assert lonely.send_multipart([b"c", b"d"]) is True
    assert await other.receive() == [b"c", b"d"]  # nothing is left of the first


@pytest.mark.parametrize("bad", ["text", None, 1], ids=repr)
@pytest_twisted.ensureDeferred
async def test_a_frame_that_is_not_bytes_sends_nothing_at_all(
    factory: Any, bad: Any
) -> None:
    left, right = await pair(factory)
    for frames in ([b"a", bad], [bad, b"a"], [b"a", bad, b"b"]):
        with pytest.raises(TypeError):
            left.send_multipart(frames)
    assert left.send_multipart([b"next", b"message"])
    assert await right.receive() == [b"next", b"message"]
    assert right.send_multipart([b"hello"])
    assert await left.receive() == [b"hello"]


@pytest_twisted.ensureDeferred
async def test_a_flood_is_read_in_budgets(factory: Any) -> None:
    flood = 20 * READ_BUDGET
    reader, peer = Peer(factory, zmq.PULL), Peer(factory, zmq.PUSH)
    reader.bind("inproc://flood")
    peer.connect("inproc://flood")
    for number in range(flood):
        peer.socket.send(b"%d" % number)  # is there at once

    read_by_turn = [0]
    done: Deferred[None] = Deferred()

    def turn() -> None:
        read_by_turn.append(len(reader.inbox.pending))
        if read_by_turn[-1] < flood:
            reactor.callLater(0, turn)
        else:
            done.callback(None)

    reactor.callLater(0, turn)
    await patiently(done)
    steps = [after - before for before, after in pairwise(read_by_turn)]
    # In one turn it may be called by a delayed call and by the descriptor.
    assert max(steps) <= 2 * READ_BUDGET
    numbers = [int((await reader.receive())[0]) for _ in range(flood)]
    assert numbers == list(range(flood))


@pytest.mark.parametrize("count", [1, MAX_FRAMES, MAX_FRAMES + 1, 1000])
@pytest_twisted.ensureDeferred
async def test_a_message_of_too_many_frames_is_cut(factory: Any, count: int) -> None:
    left, right = await pair(factory)
    frames = [b"%d" % number for number in range(count)]
    for _ in range(2):
        assert left.send_multipart(frames)
        assert await right.receive() == frames[: MAX_FRAMES + 1]


@pytest_twisted.ensureDeferred
async def test_a_message_of_many_frames_is_read_in_budgets(
    new_factory: MakeFactory,
) -> None:
    clock: Any = MemoryReactorClock()
    factory = new_factory(clock)
    left, right = Peer(factory, zmq.PAIR), Peer(factory, zmq.PAIR)
    left.bind("inproc://pair")
    right.connect("inproc://pair")
    clock.advance(0)
    left.socket.send_multipart([b"x"] * (3 * READ_BUDGET))
    for _ in range(2):
        right.doRead()
        assert right.inbox.pending == []
    right.doRead()
    assert len(right.inbox.pending) == 1


class BusyRouter(MandatoryRouter):
    """Does what a test wants before it keeps a message."""

    def __init__(self, factory: Any) -> None:
        self.during: Callable[[], object] = lambda: None
        super().__init__(factory)

    def messageReceived(self, message: list[bytes]) -> None:
        """Do it, then keep the message."""
        self.during()
        super().messageReceived(message)


@frozen
class Hand:
    """A router and a dealer of ``inproc``, whose reactor is turned by hand."""

    clock: Any
    router: BusyRouter
    dealer: Peer

    def hears(self) -> bool:
        """Whether the router hears what comes from now on."""
        self.dealer.socket.send(b"after")
        descriptor = self.router.fileno()
        return bool(
            self.clock.getDelayedCalls() or select.select([descriptor], [], [], 0)[0]
        )


@pytest.fixture
def hand(new_factory: MakeFactory) -> Hand:
    """A router and a dealer that is known to it as ``dealer``."""
    clock: Any = MemoryReactorClock()
    factory = new_factory(clock)
    router, dealer = BusyRouter(factory), Peer(factory, zmq.DEALER)
    router.socket.set(zmq.SNDHWM, 2)
    dealer.socket.set(zmq.RCVHWM, 2)
    dealer.socket.set(zmq.ROUTING_ID, b"dealer")
    router.bind("inproc://hand")
    dealer.connect("inproc://hand")
    clock.advance(0)
    return Hand(clock, router, dealer)


def answer(router: Peer) -> None:
    """Send something; whether there is room for it or not."""
    router.send_multipart([b"dealer", b"hello"])


def answer_nobody(router: Peer) -> None:
    """Send something that can't be sent."""
    assert not router.send_multipart([b"nobody", b"hello"])


def ask_for_unread(router: Peer) -> None:
    """Ask libzmq, which swallows the wake-up for sure."""
    router.has_unread()


@pytest.mark.parametrize("touch", [answer, answer_nobody, ask_for_unread])
@pytest.mark.parametrize("count", [1, READ_BUDGET // 2, READ_BUDGET])
@pytest_twisted.ensureDeferred
async def test_a_socket_touched_while_it_is_read_goes_on_hearing(
    hand: Hand, touch: Callable[[Peer], None], count: int
) -> None:
    """Each message but the last comes while the one before it is handled."""
    left = iter(range(1, count))

    def during() -> None:
        for number in left:
            hand.dealer.socket.send(b"%d" % number)
            break
        touch(hand.router)

    hand.router.during = during
    hand.dealer.socket.send(b"0")
    hand.router.doRead()
    # Two frames each: the budget ends before, with or after the last message.
    assert len(hand.router.inbox.pending) == min(count, READ_BUDGET // 2)
    hand.clock.advance(0)
    heard = [int(number) for _, number in hand.router.inbox.pending]
    assert heard == list(range(count))
    assert hand.hears()


@pytest_twisted.ensureDeferred
async def test_a_socket_touched_between_two_reads_goes_on_hearing(hand: Hand) -> None:
    for touch in (answer, answer_nobody, ask_for_unread):
        hand.dealer.socket.send(b"before")
        hand.clock.callLater(0, touch, hand.router)
        hand.clock.advance(0)
        assert [it[-1] for it in hand.router.inbox.pending] == [b"before"], touch
        assert hand.clock.getDelayedCalls() == []
        hand.router.inbox.pending.clear()
    assert hand.hears()


@pytest_twisted.ensureDeferred
async def test_no_read_is_scheduled_while_the_socket_is_read(hand: Hand) -> None:
    hand.router.during = lambda: answer(hand.router)
    for _ in range(2):
        hand.dealer.socket.send(b"hello")
    hand.router.doRead()
    assert len(hand.router.inbox.pending) == 2
    assert hand.clock.getDelayedCalls() == []


@pytest_twisted.ensureDeferred
async def test_a_budget_that_ends_within_a_message_leaves_the_rest_to_the_next_turn(
    hand: Hand,
) -> None:
    frames = [b"x"] * READ_BUDGET  # and one more, its sender's name
    hand.dealer.socket.send_multipart(frames)
    hand.dealer.socket.send(b"next")
    hand.router.doRead()
    assert hand.router.inbox.pending == []
    hand.clock.advance(0)
    cut, following = hand.router.inbox.pending
    assert cut == [b"dealer", *frames[:MAX_FRAMES]]
    assert following == [b"dealer", b"next"]


@pytest_twisted.ensureDeferred
async def test_a_handler_that_answers_may_then_shut_down(hand: Hand) -> None:
    def during() -> None:
        answer(hand.router)
        hand.router.shutdown()
        answer(hand.router)
        assert not hand.router.has_unread()

    hand.router.during = during
    for _ in range(2):
        hand.dealer.socket.send(b"hello")
    hand.router.doRead()
    assert len(hand.router.inbox.pending) == 1
    assert hand.clock.getDelayedCalls() == []
    assert hand.router not in hand.clock.getReaders()


@pytest_twisted.ensureDeferred
async def test_a_message_that_a_full_queue_refuses_leaves_nothing_behind(
    hand: Hand,
) -> None:
    router, dealer = hand.router, hand.dealer
    sent = 0
    while router.send_multipart([b"dealer", b"%d" % sent, b"end"]):
        sent += 1
    for _ in range(3):
        assert not router.send_multipart([b"dealer", b"refused", b"end"])
    dealer.doRead()
    assert dealer.inbox.pending == [[b"%d" % number, b"end"] for number in range(sent)]
    router.doRead()  # to look at what came in lets libzmq hear of the room
    assert router.send_multipart([b"dealer", b"last", b"end"])
    dealer.doRead()
    assert dealer.inbox.pending[sent:] == [[b"last", b"end"]]


def new_dealer(factory: Any) -> Peer:
    """A DEALER, which sends to whoever is there."""
    return Peer(factory, zmq.DEALER)


@pytest.mark.parametrize(
    ("new_sender", "whole"),
    [(MandatoryRouter, [b"whole"]), (new_dealer, [b"coming", b"whole"])],
)
@pytest_twisted.ensureDeferred
async def test_a_peer_that_leaves_within_a_message_leaves_nothing_of_it_behind(
    new_factory: MakeFactory,
    monkeypatch: pytest.MonkeyPatch,
    new_sender: Callable[[Any], Peer],
    whole: list[bytes],
) -> None:
    factory = new_factory(MemoryReactorClock())
    sender, leaving, coming = (
        new_sender(factory),
        new_dealer(factory),
        new_dealer(factory),
    )
    sender.bind("inproc://leave")
    leaving.socket.set(zmq.ROUTING_ID, b"leaving")
    coming.socket.set(zmq.ROUTING_ID, b"coming")
    leaving.connect("inproc://leave")
    sender.doRead()
    send = connection._send

    def send_and_leave(socket: Any, frame: bytes, flags: int) -> None:
        send(socket, frame, flags)
        if leaving.factory is not None:
            leaving.shutdown()
            wait_unread(sender)
            sender.has_unread()  # to ask lets libzmq hear that the peer is gone

    with monkeypatch.context() as patch:
        patch.setattr(connection, "_send", send_and_leave)
        sender.send_multipart([b"leaving", b"lost"])
    assert not sender.send_multipart([b"leaving", b"lost"])
    coming.connect("inproc://leave")
    sender.doRead()
    assert sender.send_multipart([b"coming", b"whole"])
    coming.doRead()
    assert coming.inbox.pending == [whole]


@pytest_twisted.ensureDeferred
async def test_a_socket_that_only_sends_does_not_keep_the_reactor_awake(
    new_factory: MakeFactory,
) -> None:
    factory = new_factory(MemoryReactorClock())
    publisher, subscriber = Peer(factory, zmq.PUB), Peer(factory, zmq.SUB)
    publisher.bind("inproc://topics")
    subscriber.connect("inproc://topics")
    subscriber.socket.set(zmq.SUBSCRIBE, b"topic")
    wait_unread(publisher)
    publisher.doRead()
    assert not select.select([publisher.fileno()], [], [], 0)[0]
    assert publisher.send_multipart([b"topic", b"hello"])
    subscriber.doRead()
    assert subscriber.inbox.pending == [[b"topic", b"hello"]]


class AsyncPeer(Peer):
    """Its handler is a coroutine, which waits, and may fail."""

    def __init__(self, factory: Any, socket_type: int) -> None:
        self.gate: Deferred[None] = Deferred()
        super().__init__(factory, socket_type)

    async def messageReceived(  # type: ignore[override]  # a coroutine, on purpose
        self, message: list[bytes]
    ) -> None:
        """Wait for the gate, then fail if so told."""
        await self.gate
        if message == [b"fail"]:
            raise ValueError("as told")
        self.inbox.put(message)


@pytest_twisted.ensureDeferred
async def test_an_async_handler_is_awaited(
    factory: Any, tracebacks: list[LogEvent]
) -> None:
    reader, peer = AsyncPeer(factory, zmq.PULL), Peer(factory, zmq.PUSH)
    peer.connect(reader.bind(LOOPBACK))
    heard = reader.inbox.get()
    for said in (b"fail", b"1", b"2"):
        peer.send_multipart([said])
    reader.gate.callback(None)
    assert await patiently(heard) == [b"1"]
    assert await reader.receive() == [b"2"]
    (logged,) = tracebacks
    assert logged["log_failure"].check(ValueError)
    tracebacks.clear()


class FailingPeer(Peer):
    """Its handler fails at once, if so told."""

    def messageReceived(self, message: list[bytes]) -> None:
        """Fail if so told."""
        if message == [b"fail"]:
            raise ValueError("as told")
        super().messageReceived(message)


@pytest_twisted.ensureDeferred
async def test_a_handler_that_raises_leaves_the_socket_hearing(
    factory: Any, tracebacks: list[LogEvent]
) -> None:
    reader, peer = FailingPeer(factory, zmq.PULL), Peer(factory, zmq.PUSH)
    peer.connect(reader.bind(LOOPBACK))
    for said in (b"fail", b"1", b"fail", b"fail", b"2"):
        peer.send_multipart([said])
    assert await reader.receive() == [b"1"]
    assert await reader.receive() == [b"2"]
    peer.send_multipart([b"fail"])
    peer.send_multipart([b"3"])
    assert await reader.receive() == [b"3"]
    assert len(tracebacks) == 4
    assert all(event["log_failure"].check(ValueError) for event in tracebacks)
    tracebacks.clear()


class QuittingPeer(Peer):
    """Its handler shuts it down."""

    def messageReceived(self, message: list[bytes]) -> None:
        """Hear this one, and no more."""
        super().messageReceived(message)
        self.shutdown()


@pytest_twisted.ensureDeferred
async def test_a_handler_may_shut_its_own_connection_down(factory: Any) -> None:
    reader, peer = QuittingPeer(factory, zmq.PAIR), Peer(factory, zmq.PAIR)
    reader.bind("inproc://quit")
    peer.connect("inproc://quit")
    for said in (b"1", b"2"):
        peer.send_multipart([said])
    assert await receive_all(reader) == [b"1"]
    assert reader.inbox.pending == []
    assert reader.send_multipart([b"too late"]) is False


@pytest_twisted.ensureDeferred
async def test_an_address_that_cannot_be_bound_raises(
    new_factory: MakeFactory,
) -> None:
    factory = new_factory()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for address in (f"tcp://127.0.0.1:{port}", "tcp://no-such-interface:1", "x"):
            with pytest.raises(zmq.ZMQError):
                Peer(factory, zmq.ROUTER).bind(address)
    assert factory.connections == set()
    with without_hanging():
        factory.shutdown()


@pytest_twisted.ensureDeferred
async def test_an_address_that_makes_no_sense_to_connect_raises(
    new_factory: MakeFactory,
) -> None:
    factory = new_factory()
    for address in ("tcp://127.0.0.1", "nothing://127.0.0.1:1", "x"):
        with pytest.raises(zmq.ZMQError):
            Peer(factory, zmq.DEALER).connect(address)
    assert factory.connections == set()
    with without_hanging():
        factory.shutdown()


@pytest_twisted.ensureDeferred
async def test_shutdown_twice_is_shutdown_once(factory: Any) -> None:
    peer = Peer(factory, zmq.ROUTER)
    peer.bind(LOOPBACK)
    peer.shutdown()
    peer.shutdown()
    assert peer not in factory.connections
    assert peer.send_multipart([b"a"]) is False


@pytest_twisted.ensureDeferred
async def test_no_delayed_call_is_left_after_shutdown(factory: Any) -> None:
    before = set(reactor.getDelayedCalls())
    left, right = await pair(factory)
    left.send_multipart([b"a"])
    right.send_multipart([b"b"])
    assert set(reactor.getDelayedCalls()) - before
    left.shutdown()
    right.shutdown()
    assert set(reactor.getDelayedCalls()) == before
    assert not {left, right} & set(reactor.getReaders())


@pytest_twisted.ensureDeferred
async def test_no_delayed_call_is_left_after_the_factorys_shutdown(
    new_factory: MakeFactory,
) -> None:
    before = set(reactor.getDelayedCalls())
    factory = new_factory()
    for peer in await pair(factory):
        peer.send_multipart([b"a"])
    with without_hanging():
        factory.shutdown()
    assert set(reactor.getDelayedCalls()) == before


@pytest.mark.parametrize("port", ["0", "*"])
@pytest_twisted.ensureDeferred
async def test_a_port_of_0_or_a_star_is_chosen_by_the_system(
    factory: Any, port: str
) -> None:
    reader, other = Peer(factory, zmq.PULL), Peer(factory, zmq.PULL)
    bound = reader.bind(f"tcp://127.0.0.1:{port}")
    assert bound.startswith("tcp://127.0.0.1:")
    assert 0 < port_of(bound) < 65536
    assert other.bind(f"tcp://127.0.0.1:{port}") != bound
    peer = Peer(factory, zmq.PUSH)
    peer.connect(bound)
    peer.send_multipart([b"hello"])
    assert await reader.receive() == [b"hello"]


@pytest_twisted.ensureDeferred
async def test_the_factorys_reactor_is_the_one_used(new_factory: MakeFactory) -> None:
    before = set(reactor.getReaders()), set(reactor.getDelayedCalls())
    clock: Any = MemoryReactorClock()
    factory = new_factory(clock)
    left, right = Peer(factory, zmq.PAIR), Peer(factory, zmq.PAIR)
    left.bind("inproc://pair")
    right.connect("inproc://pair")
    assert {left, right} <= set(clock.getReaders())

    left.send_multipart([b"hello"])
    right.send_multipart([b"hello"])
    assert (set(reactor.getReaders()), set(reactor.getDelayedCalls())) == before
    clock.advance(0)
    assert left.inbox.pending == right.inbox.pending == [[b"hello"]]
    factory.shutdown()
    assert clock.getDelayedCalls() == []
    assert clock.getReaders() == []


class ShortFrames(Peer):
    """Takes frames of 1000 bytes, and no longer ones."""

    options: ClassVar[dict[int, int]] = {zmq.MAXMSGSIZE: 1000}


async def disconnects(factory: Any, reader: Peer, length: int) -> bool:
    """Whether ``reader`` hangs up on a peer that sends a frame so long."""
    address = reader.bind(LOOPBACK)
    peer, monitor = Peer(factory, zmq.DEALER), Peer(factory, zmq.PAIR)
    peer.socket.monitor("inproc://monitor", zmq.EVENT_DISCONNECTED)
    monitor.connect("inproc://monitor")
    peer.connect(address)
    peer.send_multipart([bytes(length)])
    hung_up, heard = monitor.inbox.get(), reader.inbox.get()
    await patiently(DeferredList([hung_up, heard], fireOnOneCallback=True))
    peer.socket.disable_monitor()
    return hung_up.called


@pytest.mark.parametrize(
    ("length", "expected"), [(1000, False), (1001, True)], ids=["at", "over"]
)
@pytest_twisted.ensureDeferred
async def test_an_option_counts_since_it_is_set_before_bind(
    factory: Any,
    length: int,
    expected: bool,
) -> None:
    reader = ShortFrames(factory, zmq.ROUTER)
    assert await disconnects(factory, reader, length) is expected


@pytest.mark.parametrize(
    ("length", "expected"),
    [(MAX_FRAME, False), (MAX_FRAME + 1, True)],
    ids=["at", "over"],
)
@pytest_twisted.ensureDeferred
async def test_no_connection_takes_a_frame_over_the_limit(
    factory: Any,
    length: int,
    expected: bool,
) -> None:
    reader = Peer(factory, zmq.ROUTER)
    assert await disconnects(factory, reader, length) is expected


@pytest_twisted.ensureDeferred
async def test_an_address_can_be_bound_again_at_once_after_the_factorys_shutdown(
    new_factory: MakeFactory,
) -> None:
    address = LOOPBACK
    for _ in range(5):
        factory = new_factory()
        reader, peer = Peer(factory, zmq.ROUTER), Peer(factory, zmq.DEALER)
        address = reader.bind(address)
        peer.connect(address)
        peer.send_multipart([b"hello"])
        identity, _ = await reader.receive()
        reader.send_multipart([identity, b"hello"])
        assert await peer.receive() == [b"hello"]
        with without_hanging():
            factory.shutdown()


@pytest_twisted.ensureDeferred
async def test_shutdown_gives_up_on_a_peer_that_is_not_there() -> None:
    factory = make_factory(reactor)  # with the linger that the service has
    peer = Peer(factory, zmq.DEALER)
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    peer.connect(f"tcp://127.0.0.1:{port}")
    assert peer.send_multipart([b"hello"])
    with without_hanging():
        factory.shutdown()
