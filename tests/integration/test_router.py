"""RequestRouter answers on the way that a request came: at once, later, or an error.

The reactor is turned by hand, and messages travel by ``inproc``, where they have
arrived once they are sent.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import pytest_twisted
import zmq
from attrs import define, field
from twisted.internet.defer import Deferred, fail
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogEvent

from heartbeat_service.core.errors import UnknownClient
from heartbeat_service.core.states import ClientState
from heartbeat_service.protocol.messages import (
    ClientID,
    ClientStateMessage,
    Goodbye,
    Request,
)
from heartbeat_service.zeromq import connection
from heartbeat_service.zeromq.connection import READ_BUDGET, make_factory
from heartbeat_service.zeromq.router import RequestRouter
from tests.integration.conftest import Peer
from tests.messages import heartbeat, message

Answer = ClientStateMessage | Deferred[ClientStateMessage]

#: Requests that are read in one turn: a route and what is said.
IN_A_TURN = READ_BUDGET // 2


def state_of(client_id: str) -> ClientStateMessage:
    """An answer, of which only the client matters here."""
    return ClientStateMessage(
        client_id=ClientID(client_id),
        client_state=ClientState.RUNNING,
        sequence=1,
        incarnation=1,
        timebomb_seconds=10.0,
        heartbeat_interval_seconds=2.0,
        request_endpoint="",
        state_change_endpoint="",
    )


@define
class Hand:
    """A router, and a dealer that asks it.

    :ivar answer: what the router's requests are answered with.
    """

    clock: Any
    answer: Callable[[Request], Answer] = lambda request: state_of(request.client_id)
    router: RequestRouter = field(init=False)
    dealer: Peer = field(init=False)

    def dispatch(self, request: Request) -> Answer:
        """What the test wants by now."""
        return self.answer(request)

    def ask(self, *numbers: int) -> None:
        """Send a beat for each, which the router finds when it reads."""
        for number in numbers:
            self.dealer.socket.send(heartbeat(str(number)))

    def bodies(self) -> list[dict[str, Any]]:
        """What has been answered since."""
        self.dealer.doRead()
        replies, self.dealer.inbox.pending = self.dealer.inbox.pending, []
        return [json.loads(reply[-1])["body"] for reply in replies]

    def answered(self) -> list[int]:
        """Which clients have been answered since."""
        return [int(body["clientID"]) for body in self.bodies()]


@pytest.fixture
def hand() -> Iterator[Hand]:
    """A router whose reactor is turned by hand."""
    clock: Any = MemoryReactorClock()
    factory = make_factory(clock)
    factory.lingerPeriod = 0
    hand = Hand(clock)
    hand.router = RequestRouter(factory, hand.dispatch)
    hand.router.bind("inproc://router")
    hand.dealer = Peer(factory, zmq.DEALER)
    hand.dealer.connect("inproc://router")
    clock.advance(0)
    yield hand
    factory.shutdown()


@pytest_twisted.ensureDeferred
async def test_the_replies_of_one_read_leave_together(hand: Hand) -> None:
    sent_before: list[bool] = []

    def answer(request: Request) -> Answer:
        sent_before.append(hand.dealer.has_unread())
        return state_of(request.client_id)

    hand.answer = answer
    hand.ask(0, 1, 2)
    hand.router.doRead()
    assert sent_before == [False] * 3
    assert hand.answered() == [0, 1, 2]


@pytest_twisted.ensureDeferred
async def test_where_peers_have_keys_no_reply_waits_for_other_requests(
    hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered: list[list[int]] = []

    def answer(request: Request) -> Answer:
        answered.append(hand.answered())
        return state_of(request.client_id)

    hand.answer = answer
    hand.router._speaks_for = lambda _key, _client_id: True
    # By inproc nobody has a key to check.
    monkeypatch.setattr(hand.router, "_check_sender", lambda _request: None)
    hand.ask(0, 1, 2)
    hand.router.doRead()
    assert answered == [[], [0], [1]]
    assert hand.answered() == [2]


@pytest_twisted.ensureDeferred
async def test_a_budget_that_is_spent_keeps_no_reply_back(hand: Hand) -> None:
    hand.ask(*range(IN_A_TURN + 1))
    hand.router.doRead()
    assert hand.answered() == list(range(IN_A_TURN))
    hand.clock.advance(0)
    assert hand.answered() == [IN_A_TURN]


@pytest_twisted.ensureDeferred
async def test_what_comes_while_the_replies_are_sent_is_read_at_once(
    hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    send, coming = connection._send, iter([2, 3])

    def send_as_more_comes(socket: Any, frame: bytes, flags: int) -> None:
        send(socket, frame, flags)
        for number in coming:
            hand.ask(number)
            hand.router.has_unread()  # swallows the wake-up

    hand.ask(0, 1)
    monkeypatch.setattr(connection, "_send", send_as_more_comes)
    hand.router.doRead()
    assert hand.answered() == [0, 1, 2, 3]
    assert not hand.router.has_unread()


@pytest_twisted.ensureDeferred
async def test_replies_that_are_ready_later_leave_in_the_next_turn(hand: Hand) -> None:
    waiting: list[Deferred[ClientStateMessage]] = [Deferred(), Deferred()]
    hand.answer = lambda request: waiting[int(request.client_id)]
    hand.ask(0, 1)
    hand.router.doRead()
    for number in (1, 0):
        waiting[number].callback(state_of(str(number)))
    hand.clock.advance(0)
    assert hand.answered() == [1, 0]
    hand.answer = lambda request: state_of(request.client_id)
    hand.ask(2)  # while a reply is about to be sent
    hand.clock.advance(0)
    hand.router.doRead()
    assert hand.answered() == [2]


@pytest_twisted.ensureDeferred
async def test_an_error_is_answered_alike_whether_raised_or_fired(hand: Hand) -> None:
    def raised(request: Request) -> Answer:
        raise UnknownClient("who is that?", request.client_id)

    def fired(request: Request) -> Answer:
        return fail(UnknownClient("who is that?", request.client_id))

    for answer in (raised, fired):
        hand.answer = answer
        hand.ask(1)
        hand.router.doRead()
        (body,) = hand.bodies()
        assert body["code"] == "UNKNOWN_CLIENT", answer
        assert body["clientID"] == "1"


@pytest_twisted.ensureDeferred
async def test_a_failure_of_the_service_is_logged_and_answered(
    hand: Hand, tracebacks: list[LogEvent]
) -> None:
    def raised(request: Request) -> Answer:
        raise ValueError(request.client_id)

    for answer in (raised, lambda request: fail(ValueError(request.client_id))):
        hand.answer = answer
        hand.ask(1)
        hand.router.doRead()
        (body,) = hand.bodies()
        assert body["code"] == "OVERLOADED"
    assert [event["log_failure"].type for event in tracebacks] == [ValueError] * 2
    tracebacks.clear()


@pytest_twisted.ensureDeferred
async def test_what_was_answered_before_a_shutdown_is_sent(hand: Hand) -> None:
    waiting: Deferred[ClientStateMessage] = Deferred()

    def answer(request: Request) -> Answer:
        if request.client_id == "0":
            return waiting
        if request.client_id == "2":
            waiting.callback(state_of("0"))
            hand.router.shutdown()
        return state_of(request.client_id)

    hand.answer = answer
    hand.ask(0, 1, 2, 3)
    hand.router.doRead()
    assert hand.answered() == [1, 0]
    assert hand.clock.getDelayedCalls() == []


@pytest_twisted.ensureDeferred
async def test_a_send_that_fails_oddly_is_logged_and_the_router_goes_on(
    hand: Hand, monkeypatch: pytest.MonkeyPatch, tracebacks: list[LogEvent]
) -> None:
    send, odd = connection._send, iter([1])

    def send_oddly(socket: Any, frame: bytes, flags: int) -> None:
        for number in odd:
            hand.ask(number)
            hand.router.has_unread()  # swallows the wake-up
            raise zmq.ZMQError(zmq.EINVAL)
        send(socket, frame, flags)

    hand.ask(0, 2, 3)
    monkeypatch.setattr(connection, "_send", send_oddly)
    hand.router.doRead()
    assert [event["log_failure"].type for event in tracebacks] == [zmq.ZMQError]
    tracebacks.clear()
    assert hand.answered() == [2, 3, 1]


@pytest_twisted.ensureDeferred
async def test_what_was_served_and_refused_is_counted(hand: Hand) -> None:
    answers: dict[str, Callable[[], Answer]] = {
        "0": lambda: state_of("0"),
        "1": lambda: fail(UnknownClient("send a heartbeat first", "1")),
        "2": Deferred,
    }
    hand.answer = lambda request: answers[request.client_id]()
    hand.ask(0, 1, 2)
    hand.dealer.socket.send(message("Goodbye", clientID="0"))
    hand.dealer.socket.send(b"no message")
    hand.router.doRead()
    router = hand.router
    assert (router.beats, router.others[Goodbye], router.errors) == (3, 1, 2)
    assert router.dropped == 0


@pytest_twisted.ensureDeferred
async def test_a_reply_to_who_has_left_is_counted(hand: Hand) -> None:
    hand.router.messageReceived([b"somebody that was here", heartbeat("0")])
    hand.router.flush()
    assert hand.router.dropped == 1
