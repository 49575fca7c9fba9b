"""The game client against the real service: it follows its state by itself."""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import pytest_twisted
import zmq
from attrs import define, field
from twisted.internet.defer import Deferred, DeferredQueue
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import LogEvent
from typing_extensions import override
from zope.interface import directlyProvides, providedBy

from heartbeat_service.core.states import ClientState
from heartbeat_service.game_client.actions import (
    Event,
    OpenSockets,
    Refused,
    ServerLost,
    StateChanged,
    Superseded,
)
from heartbeat_service.game_client.driver import GameClient
from heartbeat_service.game_client.link import MAX_UNSENT
from heartbeat_service.game_client.runner import Runner
from heartbeat_service.protocol.codec import decode_request
from heartbeat_service.protocol.messages import (
    GetClientState,
    HeartbeatMessage,
    Request,
    SetClientState,
)
from tests.integration.conftest import Peer, Running, Serve, port_of
from tests.integration.waiting import (
    PATIENCE,
    SILENCE,
    patiently,
    pause,
    reactor,
    until,
)

UNCALIBRATED = ClientState.UNCALIBRATED
CALIBRATED = ClientState.CALIBRATED
RUNNING = ClientState.RUNNING
DISCONNECTED = ClientState.DISCONNECTED

#: Seconds between beats in these tests.
INTERVAL = 0.05

#: Seconds to the timebomb of a client that beats once and then not for long.
HOUR = 3600.0

Meanwhile = Callable[[], Awaitable[None]]


@define
class Game:
    """A game with its client, and what it was told."""

    client: GameClient
    events: DeferredQueue[Event]
    started: bool = field(default=True)

    async def event(self) -> Event:
        """The next event."""
        return await patiently(self.events.get())

    async def state(self) -> StateChanged:
        """The next event, which must be a state."""
        event = await self.event()
        assert isinstance(event, StateChanged), event
        return event

    async def reaches(self, state: ClientState) -> StateChanged:
        """Wait for a state, whatever states come before it."""
        while (event := await self.state()).state is not state:
            pass
        return event

    async def stop(self) -> None:
        """Stop it; it is stopped once."""
        if self.started:
            self.started = False
            await patiently(self.client.stopService())


class Recorder:
    """The reactor, which keeps what it was asked to call later."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        directlyProvides(self, providedBy(reactor))

    def callLater(self, *args: Any, **kwargs: Any) -> Any:
        """Keep the call."""
        call = reactor.callLater(*args, **kwargs)
        self.calls.append(call)
        return call

    def __getattr__(self, name: str) -> Any:
        return getattr(reactor, name)


Play = Callable[..., Game]


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Iterator[Play]:
    """A way to start game clients; they are stopped at the end."""
    games: list[Game] = []

    def start(
        server: str, client_id: str = "1", reactor: Any = reactor, **options: Any
    ) -> Game:
        events: DeferredQueue[Event] = DeferredQueue()
        client = GameClient(reactor, server, client_id, events.put, **options)
        games.append(Game(client, events))
        client.startService()
        return games[-1]

    yield start
    # Nobody looks any more whether it gets out what it has to say.
    monkeypatch.setattr("heartbeat_service.game_client.runner.FAREWELL", 0.05)
    for game in games:
        pytest_twisted.blockon(Deferred.fromCoroutine(game.stop()))


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """Every request that services have understood, on either transport."""
    requests: list[Request] = []

    def decode_and_tell(data: bytes) -> tuple[Request, str | None]:
        request, request_id = decode_request(data)
        requests.append(request)
        return request, request_id

    for module in ("web.app", "zeromq.router"):
        name = f"heartbeat_service.{module}.decode_request"
        monkeypatch.setattr(name, decode_and_tell)
    return requests


def beats(requests: list[Request], client_id: str = "1") -> list[HeartbeatMessage]:
    """The heartbeats of a client among them."""
    return [
        request
        for request in requests
        if isinstance(request, HeartbeatMessage) and request.client_id == client_id
    ]


async def more_beats(requests: list[Request], count: int = 3) -> None:
    """Wait for that many further heartbeats of client 1."""
    enough = len(beats(requests)) + count

    await until(lambda: len(beats(requests)) >= enough)


async def again(serve: Serve, running: Running, between: Meanwhile) -> Running:
    """Stop a service, and start one anew on the same ports."""
    service = running.service
    http, router, pub = service.http[0], service.router, service.pub
    await running.stop()
    await between()
    return await serve(
        http=f"tcp:{port_of(http)}:interface=127.0.0.1",
        router=router,
        pub=pub,
        interval=INTERVAL,
    )


async def follows(running: Running, game: Game) -> None:
    """Wait until it hears what is published; what it hears is left to be read."""

    async def is_told() -> bool:
        # Whatever was published before its subscription came is lost to it.
        for state in ("CALIBRATED", "UNCALIBRATED"):
            await running.steer("1", state)
        return game.events.pending != []

    await until(is_told)


async def begin(serve: Serve, play: Play) -> tuple[Running, Game, StateChanged]:
    """A service, and a game client of it that is registered; what it was told."""
    running = await serve(interval=INTERVAL)
    game = play(running.url)
    return running, game, await game.state()


class Relay(Peer):
    """A socket that hands on what comes in.

    :ivar to: where to; None to keep it.
    """

    to: Peer | None = None

    @override
    def messageReceived(self, message: list[bytes]) -> None:
        if self.to is None:
            super().messageReceived(message)
        else:
            self.to.send_multipart(message)


def proxy(running: Running) -> tuple[Relay, Relay]:
    """A ROUTER for clients, and the DEALER through which they reach the service."""
    front, back = (Relay(running.factory, type_) for type_ in (zmq.ROUTER, zmq.DEALER))
    front.to, back.to = back, front
    back.connect(running.service.router)
    return front, back


@pytest_twisted.ensureDeferred
async def test_it_initialises_once_and_follows_the_operator(
    serve: Serve, play: Play, heard: list[Request]
) -> None:
    running, game, first = await begin(serve, play)
    assert (first.state, first.sequence) == (UNCALIBRATED, 1)
    asks_allowed = len(beats(heard))  # one for each beat until it was answered

    life = (await running.get("/clients/1"))["incarnation"]
    assert first.incarnation == life
    for sequence, state in enumerate((RUNNING, CALIBRATED, UNCALIBRATED), 2):
        await running.steer("1", state.value)
        assert await game.event() == StateChanged(state, life, sequence)

    await more_beats(heard)
    asks = [request for request in heard if isinstance(request, GetClientState)]
    assert 1 <= len(asks) <= asks_allowed
    assert game.events.pending == []
    record = await running.get("/clients/1")
    assert (record["reportedState"], record["sequence"]) == ("UNCALIBRATED", 4)


@pytest_twisted.ensureDeferred
async def test_it_hears_of_a_change_at_once_not_a_beat_later(
    serve: Serve, play: Play, heard: list[Request]
) -> None:
    running = await serve(interval=HOUR / 4)
    game = play(running.url, timebomb=HOUR)
    assert (await game.state()).state is UNCALIBRATED
    change = game.events.get()

    async def follows() -> bool:
        # Whatever was published before its subscription came is lost to it.
        for state in ("RUNNING", "CALIBRATED"):
            await running.steer("1", state)
        return change.called

    await until(follows)
    assert isinstance(await change, StateChanged)
    assert len(beats(heard)) == 1


@pytest_twisted.ensureDeferred
async def test_what_it_reports_is_applied(serve: Serve, play: Play) -> None:
    running, game, first = await begin(serve, play)
    for sequence, state in enumerate((CALIBRATED, RUNNING), 2):
        game.client.report(state)
        assert await game.event() == StateChanged(state, first.incarnation, sequence)
        record = await running.get("/clients/1")
        assert (record["clientState"], record["sequence"]) == (state.value, sequence)


@pytest_twisted.ensureDeferred
async def test_two_reports_at_once_are_both_applied(serve: Serve, play: Play) -> None:
    running, game, first = await begin(serve, play)
    for state in (CALIBRATED, RUNNING):
        game.client.report(state)
    for sequence, state in enumerate((CALIBRATED, RUNNING), 2):
        assert await game.event() == StateChanged(state, first.incarnation, sequence)
    assert (await running.get("/clients/1"))["clientState"] == "RUNNING"


@pytest_twisted.ensureDeferred
async def test_a_report_sent_again_after_a_lost_answer_undoes_no_order(
    serve: Serve, play: Play, heard: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("heartbeat_service.game_client.session.ANSWER_PATIENCE", 0.1)
    # It beats once, and hears no publication: only answers can tell it anything.
    running = await serve(interval=HOUR / 4)
    silent = Peer(running.factory, zmq.PUB)
    game = play(running.url, timebomb=HOUR)
    first = await game.state()
    front, back = proxy(running)
    back.to = None  # the answers are lost
    ends = (front.bind("tcp://127.0.0.1:0"), silent.bind("tcp://127.0.0.1:0"))
    game.client._runner.perform([OpenSockets(*ends)])
    game.client.report(CALIBRATED)
    await back.receive()
    await running.steer("1", "UNCALIBRATED")
    back.to = front
    assert await game.event() == StateChanged(UNCALIBRATED, first.incarnation, 3)
    refused = await game.event()
    assert isinstance(refused, Refused)
    assert refused.code == "STALE_SEQUENCE"
    sent = [request for request in heard if isinstance(request, SetClientState)]
    assert len(sent) > 1
    assert {request.sequence for request in sent} == {1}
    assert (await running.get("/clients/1"))["sequence"] == 3


@pytest_twisted.ensureDeferred
async def test_reports_do_not_pile_up_while_the_server_is_away(
    serve: Serve, play: Play, heard: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("heartbeat_service.game_client.session.ANSWER_PATIENCE", 0.001)
    running, game, _ = await begin(serve, play)

    async def reports() -> None:
        for number in range(1000):
            game.client.report((CALIBRATED, RUNNING)[number % 2])
        await pause(SILENCE)
        heard.clear()

    await again(serve, running, reports)
    await more_beats(heard)
    sent = [request for request in heard if isinstance(request, SetClientState)]
    assert len(sent) <= 2 * MAX_UNSENT
    events = game.events.pending
    assert Refused in {type(event) for event in events}  # its life is over
    assert len([event for event in events if isinstance(event, Refused)]) <= len(
        ClientState
    )


@pytest_twisted.ensureDeferred
async def test_its_requests_pass_a_proxy_of_router_and_dealer(
    serve: Serve, play: Play
) -> None:
    running, game, _ = await begin(serve, play)
    front, _ = proxy(running)
    front_end = front.bind("tcp://127.0.0.1:0")
    game.client._runner.perform([OpenSockets(front_end, running.service.pub)])
    game.client.report(CALIBRATED)
    assert (await game.reaches(CALIBRATED)).sequence == 2


@pytest_twisted.ensureDeferred
async def test_it_follows_a_server_by_ipv6(serve: Serve, play: Play) -> None:
    running = await serve(
        http=r"tcp6:0:interface=\:\:1",
        router="tcp://[::1]:0",
        pub="tcp://[::1]:0",
        interval=INTERVAL,
    )
    game = play(running.url, timebomb=HOUR)
    assert (await game.reaches(UNCALIBRATED)).sequence == 1
    game.client.report(CALIBRATED)
    assert (await game.reaches(CALIBRATED)).sequence == 2


@pytest_twisted.ensureDeferred
async def test_what_it_may_not_report_is_refused_and_changes_nothing(
    serve: Serve, play: Play
) -> None:
    running, game, _ = await begin(serve, play)
    game.client.report(RUNNING)
    refusal = await game.event()
    assert isinstance(refusal, Refused)
    assert refusal.code == "ILLEGAL_TRANSITION"
    assert (await running.get("/clients/1"))["sequence"] == 1


@pytest_twisted.ensureDeferred
async def test_its_values_and_its_own_timebomb_come_with_each_beat(
    serve: Serve, play: Play, heard: list[Request]
) -> None:
    running = await serve(interval=INTERVAL)
    frames = iter(range(1_000_000))
    game = play(running.url, timebomb=HOUR, values=lambda: {"frame": next(frames)})
    await game.reaches(UNCALIBRATED)
    former = await running.get("/clients/1")
    assert former["timebombSeconds"] == HOUR
    await more_beats(heard)
    present = await running.get("/clients/1")
    assert present["values"]["frame"] > former["values"]["frame"]
    assert present["timebombSeconds"] == HOUR


@pytest_twisted.ensureDeferred
async def test_after_a_kick_it_takes_up_a_new_life(serve: Serve, play: Play) -> None:
    running, game, first = await begin(serve, play)
    await running.steer("1", "RUNNING")
    await game.reaches(RUNNING)
    await running.kick("1")
    # It may hear of its death first, or only be told at its next beat.
    present = await game.reaches(UNCALIBRATED)
    assert present.incarnation > first.incarnation
    assert present.sequence == 1
    record = await running.get("/clients/1")
    assert record["incarnation"] == present.incarnation

    game.client.report(CALIBRATED)
    assert await game.event() == StateChanged(CALIBRATED, present.incarnation, 2)


@pytest_twisted.ensureDeferred
async def test_after_a_kick_it_is_back_at_once_not_a_beat_later(
    serve: Serve, play: Play, heard: list[Request]
) -> None:
    running = await serve(interval=HOUR / 4)
    game = play(running.url, timebomb=HOUR)
    first = await game.state()
    await follows(running, game)
    await running.kick("1")
    await game.reaches(DISCONNECTED)
    present = await game.state()
    assert (present.state, present.sequence) == (UNCALIBRATED, 1)
    assert present.incarnation > first.incarnation
    assert len(beats(heard)) == 2


@pytest_twisted.ensureDeferred
async def test_it_finds_its_way_back_to_a_service_that_was_restarted(
    serve: Serve, play: Play
) -> None:
    running, game, first = await begin(serve, play)
    game.client.report(CALIBRATED)
    await game.reaches(CALIBRATED)

    async def lost() -> None:
        assert isinstance(await game.event(), ServerLost)

    running = await again(serve, running, lost)
    present = await game.state()
    assert (present.state, present.sequence) == (UNCALIBRATED, 1)
    assert present.incarnation > first.incarnation

    # All of it is back: publications are heard, requests are answered.
    await running.steer("1", "CALIBRATED")
    assert await game.event() == StateChanged(CALIBRATED, present.incarnation, 2)
    game.client.report(RUNNING)
    assert await game.event() == StateChanged(RUNNING, present.incarnation, 3)

    # And if it is lost again, that is told again.
    await running.stop()
    assert isinstance(await game.event(), ServerLost)


@pytest_twisted.ensureDeferred
async def test_a_second_client_takes_over_and_the_first_falls_silent(
    serve: Serve, play: Play, heard: list[Request]
) -> None:
    running, first, former = await begin(serve, play)
    second = play(running.url)
    present = await second.state()
    assert (present.state, present.sequence) == (UNCALIBRATED, 1)
    assert present.incarnation > former.incarnation

    assert isinstance(await first.event(), Superseded)
    await more_beats(heard)  # one of the first's may have been on its way
    heard_before = len(heard)
    await more_beats(heard)
    of_the_second = {second.client.session.instance_id}
    assert {beat.instance_id for beat in beats(heard[heard_before:])} == of_the_second

    # It leaves without a word that could be taken for the second one's.
    await first.stop()
    await more_beats(heard)
    assert first.events.pending == second.events.pending == []
    record = await running.get("/clients/1")
    assert record["incarnation"] == present.incarnation
    assert record["instanceID"] == second.client.session.instance_id


@pytest_twisted.ensureDeferred
async def test_a_takeover_stops_it_at_once_not_a_beat_later(
    serve: Serve, play: Play, heard: list[Request]
) -> None:
    running = await serve(interval=HOUR / 4)
    game = play(running.url, timebomb=HOUR)
    own = (await game.state()).incarnation

    await follows(running, game)
    await running.beat("1", instanceID="another")
    await running.steer("1", "RUNNING")
    while not isinstance(event := await game.event(), Superseded):
        assert isinstance(event, StateChanged)
        assert event.incarnation == own
    of_its_own = [beat for beat in beats(heard) if beat.instance_id != "another"]
    assert len(of_its_own) == 1


@pytest_twisted.ensureDeferred
async def test_it_says_goodbye_when_it_is_stopped(
    serve: Serve, play: Play, heard: list[Request]
) -> None:
    running = await serve(interval=INTERVAL)
    recorder = Recorder()
    game = play(running.url, reactor=recorder)
    present = await game.state()
    subscriber = await running.subscriber(b"OnStateChange/1/")
    await game.stop()
    assert await subscriber.change() == {
        "clientID": "1",
        "clientState": "DISCONNECTED",
        "previousState": "UNCALIBRATED",
        "reason": "goodbye",
        "sequence": 2,
        "incarnation": present.incarnation,
        "instanceID": beats(heard)[0].instance_id,
    }
    assert (await running.get("/clients"))["clients"] == []

    assert recorder.calls
    assert [call for call in recorder.calls if call.active()] == []
    heard_before = len(heard)
    await pause(max(SILENCE, INTERVAL * 3))
    assert len(heard) == heard_before


@pytest_twisted.ensureDeferred
async def test_stopped_right_after_its_start_it_leaves_nothing_behind(
    serve: Serve, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("heartbeat_service.game_client.runner.FAREWELL", PATIENCE)
    running = await serve(interval=INTERVAL)
    game = play(running.url)
    await game.stop()
    assert (await running.get("/clients"))["clients"] == []


@pytest_twisted.ensureDeferred
async def test_a_superseded_client_says_so_once(
    serve: Serve, play: Play, heard: list[Request]
) -> None:
    running, first, _ = await begin(serve, play)
    await play(running.url).state()
    for _ in range(2):
        first.client.report(CALIBRATED)
    assert isinstance(await first.event(), Superseded)
    await more_beats(heard, 5)
    assert first.events.pending == []


@pytest_twisted.ensureDeferred
async def test_a_superseded_client_asks_for_nothing_any_more(
    serve: Serve, play: Play, heard: list[Request]
) -> None:
    running, first, _ = await begin(serve, play)
    await play(running.url).state()
    assert isinstance(await first.event(), Superseded)
    await more_beats(heard)  # what the first one had sent has come by then
    heard.clear()
    first.client.report(CALIBRATED)
    await more_beats(heard)
    assert len(heard) == len(beats(heard))


@pytest_twisted.ensureDeferred
async def test_a_game_that_fails_at_an_event_goes_on_beating(
    serve: Serve, play: Play, heard: list[Request], tracebacks: list[LogEvent]
) -> None:
    running, game, _ = await begin(serve, play)

    def fail(_: object) -> None:
        raise ValueError("the game's own fault")

    game.client._runner._on_event = fail
    await running.kick("1")
    await more_beats(heard)
    game.client._runner._on_event = game.events.put
    assert tracebacks
    assert all(event["log_failure"].check(ValueError) for event in tracebacks)
    tracebacks.clear()


@pytest.mark.parametrize("fault", ["raises", "too long", "no object"])
@pytest_twisted.ensureDeferred
async def test_a_game_whose_values_fail_once_goes_on_beating(
    serve: Serve,
    play: Play,
    heard: list[Request],
    tracebacks: list[LogEvent],
    fault: str,
) -> None:
    running = await serve(interval=INTERVAL)
    faults: dict[str, Callable[[], Any]] = {
        "raises": lambda: int("the game's own fault"),
        "too long": lambda: {"a": "x" * 5000},
        "no object": lambda: [1],
    }
    calls = iter([faults[fault]])

    def values() -> Any:
        if len(beats(heard)) == 1 and (fail := next(calls, None)):
            return fail()
        return {}

    play(running.url, values=values)
    await more_beats(heard)
    assert len(tracebacks) == 1
    tracebacks.clear()


@pytest_twisted.ensureDeferred
async def test_whatever_goes_wrong_with_an_answer_the_heart_goes_on(
    serve: Serve,
    play: Play,
    heard: list[Request],
    monkeypatch: pytest.MonkeyPatch,
    tracebacks: list[LogEvent],
) -> None:
    def stumble(*_: object) -> None:
        raise ZeroDivisionError("nobody foresaw this")

    await begin(serve, play)
    with monkeypatch.context() as patched:
        patched.setattr(Runner, "_learn", stumble)
        await more_beats(heard, 2)
    await more_beats(heard, 2)
    assert tracebacks
    assert all(event["log_failure"].check(ZeroDivisionError) for event in tracebacks)
    tracebacks.clear()


@pytest_twisted.ensureDeferred
async def test_a_client_that_gets_no_socket_goes_on_beating(
    serve: Serve,
    play: Play,
    heard: list[Request],
    monkeypatch: pytest.MonkeyPatch,
    tracebacks: list[LogEvent],
) -> None:
    def no_socket(*_: object) -> None:
        raise zmq.ZMQError(errno.EMFILE)

    monkeypatch.setattr("heartbeat_service.game_client.driver._Subscription", no_socket)
    running = await serve(interval=INTERVAL)
    game = play(running.url)
    await more_beats(heard)
    await running.steer("1", RUNNING)
    await game.reaches(RUNNING)
    assert tracebacks == []


@pytest.mark.parametrize("times", [1, 2])
@pytest_twisted.ensureDeferred
async def test_a_client_that_was_stopped_can_be_started_again(
    serve: Serve, play: Play, times: int
) -> None:
    _, game, _ = await begin(serve, play)
    for _ in range(times):
        await game.client.stopService()
        game.client.startService()
        await game.reaches(UNCALIBRATED)
    game.client.report(CALIBRATED)
    event = await game.event()
    assert isinstance(event, StateChanged)
    assert event.state is CALIBRATED


class Stranger(Protocol):
    """What sits on the server's port while the server is away.

    :ivar answer: what it says before it closes; None if it is silent for ever.
    """

    transport: Any
    factory: StrangerFactory

    @override
    def connectionMade(self) -> None:
        self.factory.connections.append(self.transport)
        self.factory.visits.put(reactor.seconds())
        if self.factory.answer is not None:
            self.transport.write(self.factory.answer)
            self.transport.loseConnection()


class StrangerFactory(Factory):
    """Counts who comes."""

    protocol = Stranger  # type: ignore[assignment]  # Twisted types it as a callable
    noisy = False

    def __init__(self, answer: bytes | None) -> None:
        self.answer = answer
        self.visits: DeferredQueue[float] = DeferredQueue()
        self.connections: list[Any] = []


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"hello\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>",
        b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 6\r\n\r\n<html>",
        b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 70000\r\n\r\n" + b"x" * 70000,
        None,
    ],
    ids=[
        *("closes at once", "no HTTP", "a page", "an error page"),
        *("a long error page", "silent"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_with_the_server_away_it_says_so_once_and_never_beats_faster(
    serve: Serve, play: Play, monkeypatch: pytest.MonkeyPatch, answer: bytes | None
) -> None:
    monkeypatch.setattr("heartbeat_service.game_client.session.LONGEST_BACKOFF", 0.0)
    monkeypatch.setattr("heartbeat_service.game_client.runner.FAREWELL", INTERVAL)
    monkeypatch.setattr("heartbeat_service.zeromq.connection.LINGER_MILLISECONDS", 0)
    # It waits for an answer as long as half its timebomb.
    running = await serve(interval=INTERVAL, timebomb=1)
    game = play(running.url)
    await game.reaches(UNCALIBRATED)
    port = running.port
    await running.stop()

    away_since = reactor.seconds()
    factory = StrangerFactory(answer)
    listening = reactor.listenTCP(port, factory, interface="127.0.0.1")
    try:
        for already in range(4):
            now = await patiently(factory.visits.get())
            # The first was perhaps sent before, and connects only now.
            assert already <= (now - away_since) / INTERVAL + 1
    finally:
        await patiently(listening.stopListening())
        await game.stop()
        for connection in factory.connections:
            connection.abortConnection()
    lost = [event for event in game.events.pending if isinstance(event, ServerLost)]
    assert len(lost) == 1
    assert lost[0].detail


@pytest_twisted.ensureDeferred
async def test_stopped_while_the_server_is_away_it_stops(
    serve: Serve, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("heartbeat_service.game_client.runner.FAREWELL", INTERVAL)
    running, game, _ = await begin(serve, play)
    await running.stop()
    assert isinstance(await game.event(), ServerLost)
    await game.stop()


@pytest_twisted.ensureDeferred
async def test_started_before_the_server_it_registers_once_there_is_one(
    serve: Serve, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("heartbeat_service.game_client.session.LONGEST_BACKOFF", 0.0)
    running = await serve()
    url = running.url
    games = []

    async def nobody_there() -> None:
        games.append(play(url))
        games[0].client.session._interval = INTERVAL
        assert isinstance(await games[0].event(), ServerLost)

    await again(serve, running, nobody_there)
    assert (await games[0].state()).state is UNCALIBRATED
