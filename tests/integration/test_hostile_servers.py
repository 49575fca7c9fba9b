"""The game client at servers that are broken, or hostile: it goes on beating.

Each server here answers a beat as the contract says, then as no server should, then
well again. Whatever it does, the client beats as fast as it was told and never more
slowly than half its fuse, holds one connection, and follows the server once it is sane.
"""

from __future__ import annotations

import gzip
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import count, cycle, pairwise
from pathlib import Path
from socket import SO_SNDBUF, SOL_SOCKET
from typing import Any

import pytest
import pytest_twisted
import zmq
from msgspec import Raw
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPullProducer
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.ssl import PrivateCertificate
from twisted.internet.task import LoopingCall
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure
from typing_extensions import override
from zope.interface import implementer

from heartbeat_service.core.states import ClientState
from heartbeat_service.game_client.actions import (
    ServerLost,
    StateChanged,
    ZmqBack,
    ZmqLost,
)
from heartbeat_service.game_client.credentials import Credentials, read_authorities
from heartbeat_service.game_client.session import Session
from heartbeat_service.protocol.codec import MAX_MESSAGE
from heartbeat_service.zeromq.connection import make_factory
from tests.integration.conftest import Peer
from tests.integration.processes import Spawn
from tests.integration.test_bad_input import zmtp_greeting
from tests.integration.test_client_doors import make_certificate
from tests.integration.test_game_client import (
    Game,
    Play,
    Recorder,
    StrangerFactory,
    play,
)
from tests.integration.waiting import patiently, reactor, until
from tests.messages import envelope

#: The game client's fixture serves here, too.
__all__ = ["play"]

# Twisted calls pyOpenSSL in its former way.
pytestmark = pytest.mark.filterwarnings(
    "ignore:(Passing pyOpenSSL|X509.).*:DeprecationWarning"
)

RUNNING = ClientState.RUNNING

#: What the server tells its client, in seconds.
INTERVAL = 0.05
FUSE = 0.6

#: How long a stopping client waits for its last answers, in seconds.
FAREWELL = 0.2

#: How much later than it should a beat may come on a slow machine, in seconds.
SLACK = 1.0

#: What may be on the way to the client in the kernel's buffers, in bytes.
ON_THE_WAY = 512 * 1024

#: A connection that both sides hold, as the kernel's table calls it.
ESTABLISHED = "01"

TOKEN = "an-open-sesame"  # noqa: S105 - of this test only
ESCAPES = "\x1b[2J\x9b31m\r\nforged\u202e\u2028\x07"


@implementer(IPullProducer)
class Beat(Protocol):
    """A connection on which beats come in."""

    transport: Any
    factory: Server

    def __init__(self) -> None:
        self._received = b""
        self._flood = b""
        self._drops: LoopingCall | None = None
        self.is_open = True

    @override
    def connectionMade(self) -> None:
        self.factory.connections.append(self)
        self.factory.most = max(self.factory.most, self.factory.open)
        self.write(self.factory.greeting)

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.is_open = False
        if self._drops is not None and self._drops.running:
            self._drops.stop()

    @override
    def dataReceived(self, data: bytes) -> None:
        self._received += data
        head, blank, body = self._received.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
        if blank and length and len(body) >= int(length[1]):
            self.factory.beats.append(reactor.seconds())
            self.factory.requests.append(self._received)
            self._received = b""
            self.factory.answer(self)

    def write(self, data: bytes) -> None:
        """Send it, and count it."""
        self.factory.sent += len(data)
        self.transport.write(data)

    def say(self, status: str, body: bytes, *headers: str) -> None:
        """Send a complete answer."""
        lines = (f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers)
        self.write("\r\n".join((*lines, "\r\n")).encode() + body)

    def drip(
        self, data: Iterable[int], after: bytes = b"", pause: float = 0.02
    ) -> None:
        """Send the one, and then the other byte by byte, with pauses, in seconds."""
        self.write(after)
        left = iter(data)

        def drop() -> None:
            for byte in left:
                self.write(bytes([byte]))
                return
            drops.stop()

        self._drops = drops = LoopingCall(drop)
        drops.start(pause)

    def flood(self, start: bytes, data: bytes) -> None:
        """Send the one, and then the other for ever, as fast as it is read."""
        self.write(start)
        self._flood = data * (64 * 1024 // len(data))
        self.transport.registerProducer(self, False)

    def resumeProducing(self) -> None:
        """All of it was taken: send more."""
        self.write(self._flood)

    def stopProducing(self) -> None:
        """Nobody takes it any more."""


Answer = Callable[[Beat], None]


class Server(Factory):
    """Answers each beat as a test says.

    :ivar beats: when each came in, in seconds.
    :ivar requests: each as it came in.
    :ivar sent: the bytes of all answers.
    :ivar most: the most connections that were open at once.
    :ivar greeting: what each connection is sent at once.
    """

    protocol = Beat  # type: ignore[assignment]  # Twisted types it as a callable
    noisy = False

    def __init__(self) -> None:
        self.zeromq = make_factory(reactor)
        self.zeromq.lingerPeriod = 0
        self.router = Peer(self.zeromq, zmq.ROUTER)
        self.pub = Peer(self.zeromq, zmq.PUB)
        self.body: dict[str, Any] = {
            "clientID": "1",
            "clientState": "UNCALIBRATED",
            "sequence": 1,
            "incarnation": 7,
            "timebombSeconds": FUSE,
            "heartbeatIntervalSeconds": INTERVAL,
            "requestEndpoint": self.router.bind("tcp://127.0.0.1:0"),
            "stateChangeEndpoint": self.pub.bind("tcp://127.0.0.1:0"),
        }
        self.connections: list[Beat] = []
        self.beats: list[float] = []
        self.requests: list[bytes] = []
        self.sent = 0
        self.most = 0
        self.greeting = b""
        self.answer: Answer = self.be_sane
        self.ports: list[Any] = []

    @property
    def open(self) -> int:
        """How many connections are open."""
        return sum(connection.is_open for connection in self.connections)

    def listen(self, pem: Path | None = None) -> str:
        """Listen, with TLS if there is a certificate; the URL."""
        if pem is None:
            port = reactor.listenTCP(0, self, interface="127.0.0.1")
        else:
            options = PrivateCertificate.loadPEM(pem.read_bytes()).options()
            port = reactor.listenSSL(0, self, options, interface="127.0.0.1")
        port.socket.setsockopt(SOL_SOCKET, SO_SNDBUF, 64 * 1024)
        self.ports.append(port)
        scheme = "http" if pem is None else "https"
        return f"{scheme}://127.0.0.1:{port.getHost().port}"

    def reply(self, **fields: Any) -> bytes:
        """What the server says of the client, but for these fields."""
        body = {**self.body, **fields}
        return envelope(messageType="ClientState", body=body)

    def be_sane(self, beat: Beat) -> None:
        """Answer as the contract says."""
        beat.say("200 OK", self.reply())

    def publish(self, **fields: Any) -> bytes:
        """Publish what the fields say; the message."""
        body = {**self.body, "previousState": "UNCALIBRATED", "reason": "operator"}
        data = envelope(messageType="OnStateChange", body={**body, **fields})
        self.pub.send_multipart([b"OnStateChange/1/", data])
        return data

    async def hears(self, count: int) -> None:
        """Wait for that many further beats."""
        enough = len(self.beats) + count
        await until(lambda: len(self.beats) >= enough)

    async def stop(self) -> None:
        """End it all."""
        for port in self.ports:
            await patiently(port.stopListening())
        for connection in self.connections:
            if connection.is_open:
                connection.transport.abortConnection()
        self.zeromq.shutdown()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server that is sane until it is told otherwise."""
    monkeypatch.setattr("heartbeat_service.game_client.session.LONGEST_BACKOFF", 0.0)
    monkeypatch.setattr("heartbeat_service.zeromq.connection.LINGER_MILLISECONDS", 0)
    started = Server()
    yield started
    pytest_twisted.blockon(Deferred.fromCoroutine(started.stop()))


@pytest.fixture
def pem(tmp_path: Path) -> Path:
    """A certificate of 127.0.0.1, and its key."""
    make_certificate(tmp_path / "server.pem")
    return tmp_path / "server.pem"


async def follows(game: Game, server: Server) -> list[Any]:
    """Wait until the client has heard that it runs; what it was told before."""
    server.body.update(clientState="RUNNING", sequence=server.body["sequence"] + 1)
    troubles: list[Any] = []
    while not isinstance(event := await game.event(), StateChanged):
        troubles.append(event)
    assert (event.state, event.sequence) == (RUNNING, server.body["sequence"])
    return troubles


async def goes_on_beating(server: Server, count: int = 4) -> None:
    """Wait for that many further beats, each of which must come in time."""
    since, already = reactor.seconds(), len(server.beats)
    await server.hears(count)
    beats = server.beats[already:]
    interval = server.body["heartbeatIntervalSeconds"]
    for number, at in enumerate(beats):
        assert number <= (at - since) / interval + 1, "it beats too fast"
    for former, at in pairwise(beats):
        assert at - former < FUSE / 2 + SLACK, "it beats too slowly"


async def bears(server: Server, game: Game, answer: Answer) -> list[Any]:
    """Have the client bear this answer to a few beats; what it was told of it."""
    await game.reaches(ClientState.UNCALIBRATED)
    server.sent, server.most, server.answer = 0, 0, answer
    await goes_on_beating(server)
    assert server.sent < 5 * ON_THE_WAY
    assert server.most <= 2
    server.answer = server.be_sane
    return await follows(game, server)


OK = b"HTTP/1.1 200 OK\r\n"
ENDLESS = OK + b"Content-Length: 1000000000000\r\n\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
LATER = "Retry-After: 1000000000"
BOMB = gzip.compress(bytes(30_000_000))


def problem(code: str, detail: str = "no") -> bytes:
    """An error as HTTP tells it."""
    return json.dumps({"code": code, "detail": detail}).encode()


def overloaded(seconds: float) -> bytes:
    """An overload that asks for so much time."""
    fields = {"code": "OVERLOADED", "detail": "no", "retryAfterSeconds": seconds}
    return json.dumps(fields).encode()


def error(**body: str) -> bytes:
    """An error as ZeroMQ tells it."""
    return envelope(messageType="Error", body={"detail": "no", **body})


ANSWERS: dict[str, Answer] = {
    "none": lambda _: None,
    "hangs up": lambda beat: beat.transport.loseConnection(),
    "resets": lambda beat: beat.transport.abortConnection(),
    "drips headers": lambda beat: beat.drip(cycle(b"a: b\r\n"), after=OK),
    "drips a body": lambda beat: beat.drip(cycle(b"x"), after=ENDLESS),
    "drips chunks": lambda beat: beat.drip(cycle(b"1\r\nx\r\n"), after=CHUNKED),
    "floods a body": lambda beat: beat.flood(ENDLESS, b"x"),
    "floods without a length": lambda beat: beat.flood(OK + b"\r\n", b"x"),
    "floods chunks": lambda beat: beat.flood(CHUNKED, b"1\r\nx\r\n"),
    "floods headers": lambda beat: beat.flood(OK, b"a: b\r\n"),
    "floods a header": lambda beat: beat.flood(OK, b" folded\r\n"),
    "floods a line": lambda beat: beat.flood(OK, b"x"),
    "floods interim answers": lambda beat: beat.flood(b"", b"HTTP/1.1 100 \r\n\r\n"),
    "floods trailers": lambda beat: beat.flood(CHUNKED + b"0\r\n", b"a: b\r\n"),
    "a longer one": lambda beat: beat.say("200 OK", bytes(MAX_MESSAGE)),
    "a bomb": lambda beat: beat.say("200 OK", BOMB, "Content-Encoding: gzip"),
    "unknown framing": lambda beat: beat.write(OK + b"Transfer-Encoding: x\r\n\r\n"),
    "two lengths": lambda beat: beat.say("200 OK", b"{}", "Content-Length: 3"),
    "nothing": lambda beat: beat.say("200 OK", b""),
    "no content": lambda beat: beat.write(b"HTTP/1.1 204 \r\n\r\n"),
    "no body's length": lambda beat: beat.say("200 OK", b"", "Content-Length: -1"),
    "no number": lambda beat: beat.write(b"HTTP/1.1 two OK\r\n\r\n"),
    "no HTTP": lambda beat: beat.write(ESCAPES.encode() + b"\r\n\r\n"),
    "a list": lambda beat: beat.say("200 OK", b"[]"),
    "deep": lambda beat: beat.say("200 OK", b"[" * 60_000),
    "a page": lambda beat: beat.say("502 Bad Gateway", b"<html>", LATER),
    "unauthorized": lambda beat: beat.say("401 ", problem("UNAUTHORIZED"), LATER),
    "forbidden": lambda beat: beat.say("403 ", problem("FORBIDDEN"), LATER),
    "locked out": lambda beat: beat.say("403 ", problem("LOCKED_OUT"), LATER),
    "overloaded": lambda beat: beat.say("503 ", problem("OVERLOADED"), LATER),
    "overloaded for ever": lambda beat: beat.say("503 ", overloaded(1e300)),
    "overloaded until yesterday": lambda beat: beat.say("503 ", overloaded(-1e300)),
    "unknown": lambda beat: beat.say("418 ", problem(ESCAPES, ESCAPES), LATER),
    "200, yet an error": lambda beat: beat.say("200 OK", error(code="OVERLOADED")),
    "another's end": lambda beat: beat.say(
        "200 OK", error(code="INSTANCE_SUPERSEDED", clientID="2")
    ),
}


@pytest.mark.parametrize("name", ANSWERS)
@pytest_twisted.ensureDeferred
async def test_whatever_a_server_answers_the_client_beats_on_and_recovers(
    server: Server, play: Play, name: str
) -> None:
    game = play(server.listen())
    troubles = await bears(server, game, ANSWERS[name])
    assert len(troubles) == 1, "it is told once"
    assert troubles[0].detail.isprintable()


@pytest.mark.parametrize(
    "name", ["none", "drips headers", "drips a body", "floods a body", "a longer one"]
)
@pytest_twisted.ensureDeferred
async def test_inside_tls_too(server: Server, play: Play, pem: Path, name: str) -> None:
    credentials = Credentials(read_authorities(str(pem)))
    game = play(server.listen(pem), credentials=credentials)
    assert len(await bears(server, game, ANSWERS[name])) == 1


@pytest_twisted.ensureDeferred
async def test_in_asyncio_it_bears_them_all_one_after_the_other(
    spawn: Spawn, server: Server
) -> None:
    server.body.update(timebombSeconds=0.2, heartbeatIntervalSeconds=0.02)
    words = ("--driver", "asyncio", "--id", "1", "--server", server.listen())
    player = spawn(
        *(sys.executable, "-W", "error::ResourceWarning"),
        *("-m", "heartbeat_service.game_client", *words),
    )
    await player.says("UNCALIBRATED")
    for name, answer in ANSWERS.items():
        here = len(player.output)
        server.most, server.answer = 0, answer
        await server.hears(2)
        server.answer = server.be_sane
        state = ("RUNNING", "CALIBRATED")[server.body["sequence"] % 2]
        sequence = server.body["sequence"] + 1
        server.body.update(clientState=state, sequence=sequence)
        await player.says(f"{state} .*sequence={sequence}$", here)
        troubles = player.output[here:].splitlines()[:-1]
        assert len(troubles) == 1, (name, troubles)
        assert troubles[0].isprintable()
        assert server.most <= 2, name
    assert await player.ends("TERM") == 0
    assert client_sockets(server) == 0


@pytest.mark.parametrize("name", ["none", "drips a body", "floods a body"])
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
@pytest_twisted.ensureDeferred
async def test_stopped_in_the_midst_of_an_answer_it_stops_and_leaves_nothing_behind(
    server: Server,
    play: Play,
    pem: Path,
    monkeypatch: pytest.MonkeyPatch,
    tls: bool,
    name: str,
) -> None:
    monkeypatch.setattr("heartbeat_service.game_client.runner.FAREWELL", FAREWELL)
    # So long that only the stop can end the answer.
    server.body["timebombSeconds"] = 3600
    recorder = Recorder()
    credentials = Credentials(read_authorities(str(pem)))
    url = server.listen(pem if tls else None)
    game = play(url, reactor=recorder, credentials=credentials)
    await game.reaches(ClientState.UNCALIBRATED)
    server.answer = ANSWERS[name]
    await server.hears(1)
    for connection in server.connections:
        connection.transport.pauseProducing()  # it takes no farewell either
    since = reactor.seconds()
    await game.stop()
    assert reactor.seconds() - since < 2 * FAREWELL + SLACK
    assert [call for call in recorder.calls if call.active()] == []
    assert client_sockets(server) == 0


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
@pytest_twisted.ensureDeferred
async def test_a_server_that_never_closes_what_it_says_it_closes_holds_no_sockets(
    server: Server, play: Play, pem: Path, tls: bool
) -> None:
    credentials = Credentials(read_authorities(str(pem)))
    game = play(server.listen(pem if tls else None), credentials=credentials)

    def say_close(beat: Beat) -> None:
        # It doesn't take part in TLS's farewell either.
        beat.say("200 OK", server.reply(), "Connection: close")
        reactor.callLater(0, beat.transport.pauseProducing)

    await game.reaches(ClientState.UNCALIBRATED)
    before = len(server.connections)
    server.most, server.answer = 0, say_close
    await goes_on_beating(server, 5)
    assert len(server.connections) > before + 3
    assert client_sockets(server) <= 1


def client_sockets(server: Server) -> int:
    """How many sockets are connected to the server's port, by the kernel's table."""
    (port,) = server.ports
    remote = f":{port.getHost().port:04X}"
    lines = Path("/proc/net/tcp").read_text("ascii").splitlines()[1:]
    sockets = (line.split() for line in lines)
    return sum(
        to.endswith(remote) and state == ESTABLISHED for _, _, to, state, *_ in sockets
    )


@pytest_twisted.ensureDeferred
async def test_a_redirection_is_not_followed_and_no_token_leaks(
    server: Server, play: Play
) -> None:
    elsewhere = Server()
    try:
        location = f"Location: {elsewhere.listen()}/heartbeat"
        statuses = cycle(["301 ", "302 ", "303 ", "307 ", "308 "])
        game = play(server.listen(), credentials=Credentials(token=TOKEN))
        await bears(server, game, lambda beat: beat.say(next(statuses), b"", location))
        assert TOKEN.encode() in server.requests[-1]
        assert elsewhere.connections == []
    finally:
        await elsewhere.stop()


@pytest_twisted.ensureDeferred
async def test_cookies_do_not_come_back(server: Server, play: Play) -> None:
    cookies = [f"Set-Cookie: c{number}={'x' * 3000}" for number in range(20)]
    server.answer = lambda beat: beat.say("200 OK", server.reply(), *cookies)
    game = play(server.listen())
    await game.reaches(ClientState.UNCALIBRATED)
    await goes_on_beating(server)
    assert max(map(len, server.requests)) < 1000
    assert b"cookie" not in b"".join(server.requests).lower()


@pytest_twisted.ensureDeferred
async def test_an_answer_that_comes_byte_by_byte_is_understood(
    server: Server, play: Play
) -> None:
    def split(beat: Beat) -> None:
        body = server.reply()
        head = b"%sContent-Length: %d\r\n\r\n" % (OK, len(body))
        beat.drip(b"HTTP/1.1 100 \r\n\r\n" + head + body, pause=0)

    server.answer = split
    game = play(server.listen())
    await game.reaches(ClientState.UNCALIBRATED)
    assert await follows(game, server) == []
    assert len(server.connections) == 1


SHAPES: list[Any] = [None, "", "x", "1", -1, 1.5, True, [], {}]
HUGE: list[Any] = [2**63, 2**64, Raw(b"9" * 400), Raw(b"1e999"), Raw(b"NaN"), Raw(b"")]
WRONG: dict[str, list[Any]] = {
    "clientID": [None, "", 2, "2", "a b", -1, 1.5, True, [], {}],
    "clientState": [None, "", "running", ESCAPES, "1", 4, -1, 1.5, True, [], {}],
    "sequence": SHAPES + HUGE,
    "incarnation": SHAPES + HUGE,
    "timebombSeconds": [None, "1", -1, 0, True, [], {}, *HUGE[3:]],
    "heartbeatIntervalSeconds": [None, "1", -1, 0, True, [], {}, *HUGE[3:]],
    "requestEndpoint": [None, 1, True, [], {}],
    "stateChangeEndpoint": [None, 1, True, [], {}],
}


@pytest.mark.parametrize("field", WRONG)
@pytest_twisted.ensureDeferred
async def test_a_field_that_makes_no_sense_makes_no_answer(
    server: Server, play: Play, field: str
) -> None:
    server.body["heartbeatIntervalSeconds"] = 0.02
    game = play(server.listen())
    await game.reaches(ClientState.UNCALIBRATED)
    server.body["clientState"] = "RUNNING"  # which nobody must hear, as it is said
    server.body["sequence"] = 2
    wrong = [server.reply(**{field: value}) for value in WRONG[field]]
    missing = {name: value for name, value in server.body.items() if name != field}
    answers = iter([*wrong, envelope(messageType="ClientState", body=missing)])

    followed: set[int] = set()

    def say_wrong(beat: Beat) -> None:
        followed.add(game.client.session.sequence)
        answer = next(answers, None)
        if answer is not None:
            beat.say("200 OK", answer)
            return
        server.answer = server.be_sane
        server.be_sane(beat)

    server.answer = say_wrong
    await goes_on_beating(server, len(wrong) + 1)
    lost, state = await game.event(), await game.event()
    assert followed == {1}
    assert isinstance(lost, ServerLost)
    assert state == StateChanged(RUNNING, 7, 2)


@pytest.mark.parametrize("interval", [1e300, 5.0, 1e-300])
@pytest_twisted.ensureDeferred
async def test_no_interval_silences_it_or_lets_it_run_wild(
    server: Server, play: Play, interval: float
) -> None:
    game = play(server.listen())
    await game.reaches(ClientState.UNCALIBRATED)
    server.body["heartbeatIntervalSeconds"] = interval
    since, already = reactor.seconds(), len(server.beats)
    await server.hears(4)
    beats = server.beats[already:]
    assert max(at - former for former, at in pairwise(beats)) < FUSE / 2 + SLACK
    assert len(beats) <= (reactor.seconds() - since) / 0.01 + 2


@pytest.mark.parametrize(
    "endpoint",
    [
        *(
            "",
            "tcp://",
            "tcp://127.0.0.1",
            "tcp://:1",
            "127.0.0.1:1",
            "tcp:127.0.0.1:1",
        ),
        *("ipc://{folder}/a", "inproc://a", "udp://127.0.0.1:1", "ws://127.0.0.1:1"),
        *(
            "tcp://*:1",
            "tcp://127.0.0.1:*",
            "tcp://127.0.0.1:0",
            "tcp://127.0.0.1:65536",
        ),
        *("tcp://127.0.0.1:-1", "tcp://127.0.0.1:1;127.0.0.1:2", "tcp://a b:1"),
        *("tcp://127.0.0.1:1/a", "tcp://a@127.0.0.1:1", " tcp://127.0.0.1:1"),
        *("tcp://127.0.0.1:1\n", "tcp://127.0.0.1:\u0661", f"tcp://{ESCAPES}:1"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_it_connects_to_no_endpoint_but_tcp(
    server: Server, play: Play, tmp_path: Path, endpoint: str
) -> None:
    server.body.update(heartbeatIntervalSeconds=0.02, timebombSeconds=0.2)
    good = server.body["requestEndpoint"]
    server.body["requestEndpoint"] = endpoint.format(folder=tmp_path)
    game = play(server.listen())
    await game.reaches(ClientState.UNCALIBRATED)  # as its beats' replies say
    wire: Any = game.client._runner._wire
    assert wire._requests is wire._subscription is None
    lost = await game.event()
    assert isinstance(lost, ZmqLost)
    assert "can't connect" in lost.detail
    assert lost.detail.isprintable()
    server.body["requestEndpoint"] = good
    assert (await server.router.receive())[-1]
    assert await game.event() == ZmqBack()


@pytest_twisted.ensureDeferred
async def test_endpoints_that_change_with_each_beat_hold_no_descriptors(
    server: Server, play: Play
) -> None:
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    server.body["heartbeatIntervalSeconds"] = 0.02
    game = play(server.listen())
    await game.reaches(ClientState.UNCALIBRATED)
    before, ports = descriptors(), iter(range(10_000, 20_000))

    def move(beat: Beat) -> None:
        moved = {
            name: f"tcp://127.0.0.1:{next(ports)}"
            for name in ("requestEndpoint", "stateChangeEndpoint")
        }
        beat.say("200 OK", server.reply(**moved))

    server.answer = move
    await goes_on_beating(server, 40)
    assert descriptors() < before + 40
    server.answer = server.be_sane
    lost, *more = await follows(game, server)
    assert isinstance(lost, ZmqLost)
    assert more in ([], [ZmqBack()])


@pytest_twisted.ensureDeferred
async def test_what_is_published_of_anyone_else_or_in_no_known_way_is_ignored(
    server: Server, play: Play
) -> None:
    game = play(server.listen())
    await game.reaches(ClientState.UNCALIBRATED)
    junk = [b"", b"x", b"\xff", b"[" * 60_000, server.reply(clientState=ESCAPES)]
    fields: list[dict[str, Any]] = [
        {"clientID": "2", "clientState": "RUNNING", "sequence": 2},
        {"clientState": "RUNNING", "sequence": 2, "incarnation": 8},
        {"clientState": "RUNNING", "sequence": 2**63},
        {"clientState": "RUNNING", "sequence": -2},
        {"clientState": ESCAPES, "sequence": 2},
    ]
    with capturedLogs() as log:
        for _ in range(50):
            for data in junk:
                server.pub.send_multipart([b"OnStateChange/1/", data])
            for one in fields:
                server.publish(**one)

        further = count(2)  # which no beat's answer tells

        async def is_followed() -> bool:
            # The last of all, which tells that the others have come by now.
            server.publish(clientState="CALIBRATED", sequence=next(further))
            return any(isinstance(one, StateChanged) for one in game.events.pending)

        await until(is_followed)
    while not isinstance(first := await game.event(), StateChanged):
        # The fuse is short: on a busy machine a handshake may outlast half of it.
        assert isinstance(first, ZmqLost | ZmqBack)
    assert first.state is ClientState.CALIBRATED
    complaints = [one for one in map(formatEvent, log) if "made no sense" in one]
    assert 1 <= len(complaints) < 12, "few lines tell of many messages"
    assert all(complaint.isprintable() for complaint in complaints)


@pytest_twisted.ensureDeferred
async def test_a_flood_of_others_lives_stops_nothing_and_makes_few_questions(
    server: Server, play: Play
) -> None:
    game = play(server.listen())
    *route, _question = await server.router.receive()
    server.router.send_multipart([*route, server.reply()])
    await until(lambda: game.client.session.initialised)
    lives, questions = count(8), server.router.inbox.pending

    async def is_asked() -> bool:
        for _ in range(100):
            server.publish(incarnation=next(lives), instanceID="another")
        return len(questions) > 2

    await until(is_asked)
    await goes_on_beating(server)
    assert len(questions) <= len(server.beats) + 2
    await game.reaches(ClientState.UNCALIBRATED)
    assert game.events.pending == []
    assert game.client.session.incarnation == 7


@pytest_twisted.ensureDeferred
async def test_a_publication_that_is_too_long_is_not_taken_and_later_ones_are_heard(
    server: Server, play: Play
) -> None:
    game = play(server.listen())
    await game.reaches(ClientState.UNCALIBRATED)
    with capturedLogs() as log:
        for _ in range(5):
            server.pub.send_multipart([b"OnStateChange/1/", bytes(MAX_MESSAGE + 1)])
            await goes_on_beating(server, 2)
        await follows(game, server)  # by its beats
        server.body["sequence"] += 1

        async def is_heard() -> bool:
            server.publish(clientState="CALIBRATED")
            return game.client.session.state is ClientState.CALIBRATED

        server.answer = lambda beat: beat.say("200 OK", server.reply(sequence=2))
        await until(is_heard)
    assert [event for event in log if "game_client" in event["log_namespace"]] == []


@pytest_twisted.ensureDeferred
async def test_publications_are_heard_again_after_another_program_had_the_port(
    server: Server, play: Play
) -> None:
    strangers = StrangerFactory(zmtp_greeting().replace(b"NULL", b"NONE"))
    listening = reactor.listenTCP(0, strangers, interface="127.0.0.1")
    address = f"tcp://127.0.0.1:{listening.getHost().port}"
    server.body["stateChangeEndpoint"] = address
    game = play(server.listen())
    await game.reaches(ClientState.UNCALIBRATED)
    await patiently(strangers.visits.get())
    await patiently(listening.stopListening())
    server.pub.bind(address)
    await follows(game, server)  # by its beats
    server.body["sequence"] += 1
    server.answer = lambda beat: beat.say("200 OK", server.reply(sequence=2))

    async def is_heard() -> bool:
        server.publish(clientState="CALIBRATED")
        return game.client.session.state is ClientState.CALIBRATED

    await until(is_heard)
    assert game.client.session.sequence == 3


@pytest_twisted.ensureDeferred
async def test_a_sequence_that_was_too_high_does_not_block_the_real_ones(
    server: Server, play: Play
) -> None:
    game = play(server.listen())
    await game.reaches(ClientState.UNCALIBRATED)

    async def is_fooled() -> bool:
        server.publish(clientState="CALIBRATED", sequence=2**63 - 1)
        return game.client.session.sequence == 2**63 - 1

    await until(is_fooled)
    await game.reaches(ClientState.CALIBRATED)
    while not isinstance(event := await game.event(), StateChanged):
        pass
    assert event == StateChanged(ClientState.UNCALIBRATED, 7, 1)


@pytest.mark.parametrize("tls", ["none", "silent", "another's"])
@pytest_twisted.ensureDeferred
async def test_tls_that_fails_holds_no_sockets_and_sees_no_beat(
    server: Server,
    play: Play,
    pem: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tls: str,
) -> None:
    monkeypatch.setattr(Session, "patience", FUSE / 2)  # from the first beat on
    make_certificate(tmp_path / "other.pem")
    url = server.listen(pem if tls == "another's" else None)
    game = play(
        url.replace("http:", "https:"),
        credentials=Credentials(
            read_authorities(str(tmp_path / "other.pem")), token=TOKEN
        ),
    )
    game.client.session._interval, game.client.session._timebomb = INTERVAL, FUSE
    if tls == "none":
        server.greeting = b"HTTP/1.1 200 OK\r\n\r\n"
    await until(lambda: len(server.connections) >= 5)
    assert server.most <= 2
    assert server.beats == []
    lost = await game.event()
    assert isinstance(lost, ServerLost)
    assert lost.detail.isprintable()


@pytest_twisted.ensureDeferred
async def test_the_program_prints_nothing_that_a_terminal_would_obey(
    server: Server, spawn: Spawn
) -> None:
    player = spawn(
        *(sys.executable, "-m", "heartbeat_service.game_client", "--id", "1"),
        *("--server", server.listen()),
    )
    await player.says("^.* 1 UNCALIBRATED")

    async def says(text: str) -> bool:
        server.publish(clientState=ESCAPES, sequence=2)
        return text in player.output

    await until(lambda: says("made no sense"))
    server.answer = lambda beat: beat.say("418 ", problem(ESCAPES, ESCAPES))
    await until(lambda: says("refuses"))
    server.answer = ANSWERS["no HTTP"]
    await until(lambda: says("no answer"))
    server.body["requestEndpoint"] = f"tcp://{ESCAPES}:1"
    server.answer = server.be_sane
    await until(lambda: says("connect"))
    server.answer = lambda beat: beat.say(
        "409 ", problem("INSTANCE_SUPERSEDED", ESCAPES)
    )
    assert await player.ends() == 1
    # Its streams may have an ending of a line changed, but nothing else.
    assert all(line.isprintable() for line in player.output.split("\n"))
    assert "Traceback" not in player.output
