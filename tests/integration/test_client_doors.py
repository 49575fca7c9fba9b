"""The game client at a guarded server: HTTPS, a token and CURVE keys."""

from __future__ import annotations

import datetime as dt
import ipaddress
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import pytest_twisted
import zmq
from attrs import define, frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from twisted.internet.defer import DeferredQueue
from twisted.logger import LogEvent
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from heartbeat_service.curve_keys import make_client_keys, make_server_keys
from heartbeat_service.game_client.__main__ import Options
from heartbeat_service.game_client.actions import (
    Event,
    Refused,
    ServerLost,
    StateChanged,
)
from heartbeat_service.game_client.credentials import (
    Credentials,
    read_authorities,
    read_keys,
    read_token,
)
from heartbeat_service.game_client.driver import GameClient
from heartbeat_service.web.site import HeartbeatSite
from tests.integration.conftest import Peer, Running, Serve
from tests.integration.processes import Process
from tests.integration.waiting import patiently, reactor, until
from tests.messages import heartbeat, message

# Twisted calls pyOpenSSL in its former way.
pytestmark = pytest.mark.filterwarnings(
    "ignore:(Passing pyOpenSSL|X509.).*:DeprecationWarning"
)

TOKEN = "a-quite-open-sesame"  # noqa: S105 - of this test only


@frozen
class Files:
    """What the operator made, and what was carried to the client's machine."""

    folder: Path

    @property
    def certificate(self) -> Path:
        """The server's certificate."""
        return self.folder / "server.pem"

    @property
    def token(self) -> Path:
        """The client's token."""
        return self.folder / "token"

    @property
    def curve(self) -> tuple[str, str]:
        """The client's CURVE keys: its own and the server's."""
        carried = self.folder / "carried"
        return str(carried / "headset.key_secret"), str(carried / "server.key")


def make_certificate(path: Path) -> None:
    """A certificate of 127.0.0.1, signed by itself, with its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "heartbeat")])
    host = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([host]), critical=False)
        .sign(key, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    path.write_bytes(
        certificate.public_bytes(encoding)
        + key.private_bytes(
            encoding,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """All of them, newly made."""
    made = Files(tmp_path)
    make_certificate(made.certificate)
    make_server_keys(tmp_path / "keys")
    make_client_keys(tmp_path / "keys", "headset", tmp_path / "carried", "1")
    made.token.write_text(f"{TOKEN}\n")
    return made


@pytest.fixture
def tokens(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """What each HTTP request to a service said of its authorization."""
    heard: list[str | None] = []
    serve = HeartbeatSite.getResourceFor

    def listen(site: HeartbeatSite, request: Request):
        heard.append(request.getHeader("authorization"))
        return serve(site, request)

    monkeypatch.setattr(HeartbeatSite, "getResourceFor", listen)
    return heard


async def guarded(serve: Serve, files: Files) -> tuple[Running, str]:
    """A service with HTTPS and CURVE, and its URL."""
    pem = files.certificate
    running = await serve(
        http=f"ssl:0:interface=127.0.0.1:privateKey={pem}:certKey={pem}",
        curve_keys=str(files.folder / "keys"),
        interval=0.1,
    )
    return running, f"https://{running.service.http[0]}"


@define
class Game:
    """A game client and what it was told."""

    client: GameClient
    events: DeferredQueue[Event]

    async def event(self) -> Event:
        """The next event."""
        return await patiently(self.events.get())


Play = Callable[..., Game]


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Iterator[Play]:
    """``play(url, …credentials)`` starts a client, which is stopped at the end."""
    games: list[Game] = []

    def start(server: str, credentials: Credentials) -> Game:
        events: DeferredQueue[Event] = DeferredQueue()
        client = GameClient(reactor, server, "1", events.put, credentials=credentials)
        games.append(Game(client, events))
        client.startService()
        return games[-1]

    yield start
    # Nobody looks any more whether it gets out what it has to say.
    monkeypatch.setattr("heartbeat_service.game_client.runner.FAREWELL", 0.05)
    for game in games:
        pytest_twisted.blockon(game.client.stopService())


@pytest_twisted.ensureDeferred
async def test_it_goes_through_all_three_doors_at_once(
    serve: Serve,
    play: Play,
    files: Files,
    tokens: list[str | None],
    logged: list[LogEvent],
) -> None:
    running, url = await guarded(serve, files)
    credentials = Credentials(
        read_authorities(str(files.certificate)),
        read_token(str(files.token)),
        read_keys(*files.curve),
    )
    game = play(url, credentials)
    first = await game.event()
    assert isinstance(first, StateChanged)
    assert first.sequence == 1
    # GetClientState was answered by ZeroMQ, if not before a second beat was.
    await until(lambda: game.client.session.initialised)
    assert set(tokens) == {f"Bearer {TOKEN}"}
    assert TOKEN not in repr(credentials) + "".join(map(str, logged))
    assert running.service.key_check is not None


@pytest.mark.parametrize("driver", ["twisted", "asyncio"])
@pytest_twisted.ensureDeferred
async def test_the_program_goes_through_all_three_doors_at_once(
    serve: Serve, files: Files, tokens: list[str | None], driver: str
) -> None:
    _, url = await guarded(serve, files)
    own, server = files.curve
    player = Process(
        *(sys.executable, "-m", "heartbeat_service.game_client", "--id", "1"),
        *("--server", url, "--ca-file", files.certificate),
        *("--token-file", files.token, "--driver", driver),
        *("--curve-key", own, "--curve-server-key", server),
        folder=files.folder,
    )
    try:
        await player.says(r"^\S+ \S+ 1 UNCALIBRATED incarnation=\d+ sequence=1$")
    finally:
        assert await player.ends("TERM") == 0
    assert "1 DISCONNECTED" in player.output.splitlines()[-1]
    assert set(tokens) == {f"Bearer {TOKEN}"}
    assert TOKEN not in player.output


@pytest_twisted.ensureDeferred
async def test_a_certificate_that_nobody_vouches_for_is_not_trusted(
    serve: Serve, play: Play, files: Files, tokens: list[str | None]
) -> None:
    _, url = await guarded(serve, files)
    other = files.folder / "other.pem"
    make_certificate(other)
    for authorities in ((), read_authorities(str(other))):
        game = play(url, Credentials(authorities, TOKEN))
        lost = await game.event()
        assert isinstance(lost, ServerLost)
        assert "certificate verify failed" in lost.detail
    assert tokens == []


@pytest_twisted.ensureDeferred
async def test_without_keys_it_beats_but_gets_no_answer_by_zeromq(
    serve: Serve, play: Play, files: Files, tokens: list[str | None]
) -> None:
    _, url = await guarded(serve, files)
    game = play(url, Credentials(read_authorities(str(files.certificate))))
    assert isinstance(await game.event(), StateChanged)  # from a beat's reply
    assert not game.client.session.initialised
    assert set(tokens) == {None}


@pytest_twisted.ensureDeferred
async def test_in_asyncio_too_a_certificate_without_a_voucher_is_not_trusted(
    serve: Serve, files: Files, tokens: list[str | None]
) -> None:
    _, url = await guarded(serve, files)
    player = Process(
        *(sys.executable, "-m", "heartbeat_service.game_client", "--id", "1"),
        *("--server", url, "--driver", "asyncio", "--token-file", files.token),
        folder=files.folder,
    )
    try:
        await player.says("^1: no answer, trying again: .*certificate verify failed")
    finally:
        assert await player.ends("TERM") == 0
    assert tokens == []


class Guard(Resource):
    """Lets nobody in."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.heard: DeferredQueue[str | None] = DeferredQueue()

    def render_POST(self, request: Request) -> bytes:
        """No."""
        self.heard.put(request.getHeader("authorization"))
        request.setResponseCode(401)
        request.setHeader("content-type", "application/problem+json")
        return json.dumps({"code": "UNAUTHORIZED", "detail": "not you"}).encode()


@pytest_twisted.ensureDeferred
async def test_a_token_that_is_not_taken_is_told_of_once_and_tried_again(
    play: Play, tracebacks: list[LogEvent]
) -> None:
    guard = Guard()
    port = reactor.listenTCP(0, Site(guard), interface="127.0.0.1")
    game = play(f"http://127.0.0.1:{port.getHost().port}", Credentials(token=TOKEN))
    game.client.session._interval = 0.05
    try:
        for _ in range(3):
            assert await patiently(guard.heard.get()) == f"Bearer {TOKEN}"
        assert game.events.pending == [Refused("UNAUTHORIZED", "not you")]
    finally:
        await patiently(game.client.stopService())
        await patiently(port.stopListening())
    assert tracebacks == []


def unusable(files: Files) -> dict[str, list[str]]:
    """Options that can't be, by the end of what is said of them."""
    own, server = files.curve
    nothing, empty = str(files.folder / "nothing"), files.folder / "empty"
    empty.write_text("\n")
    broken = files.folder / "broken.pem"
    broken.write_text("-----BEGIN CERTIFICATE-----\nAA\n-----END CERTIFICATE-----\n")
    words = files.folder / "words"
    words.write_text("two words")
    pipe = files.folder / "pipe"
    os.mkfifo(pipe)
    return {
        f"--ca-file {pipe} regular": ["--ca-file", str(pipe)],
        f"--token-file {pipe} regular": ["--token-file", str(pipe)],
        f"--ca-file {nothing}": ["--ca-file", nothing],
        f"--ca-file {empty}": ["--ca-file", str(empty)],
        f"--ca-file {broken}": ["--ca-file", str(broken)],
        f"--token-file {nothing}": ["--token-file", nothing],
        f"--token-file {empty}": ["--token-file", str(empty)],
        f"--token-file {words}": ["--token-file", str(words)],
        "--curve-key and": ["--curve-key", own],
        "--curve-server-key:": ["--curve-server-key", server],
        "--curve-key or": ["--curve-key", nothing, "--curve-server-key", server],
        "or --curve-server-key": ["--curve-key", own, "--curve-server-key", nothing],
    }


@pytest_twisted.ensureDeferred
async def test_credentials_that_cannot_be_used_end_it_with_a_sentence(
    files: Files,
) -> None:
    usual = ("--id", "1", "--server", "https://127.0.0.1:1")
    for told, arguments in unusable(files).items():
        with pytest.raises(SystemExit) as refusal:
            Options().parseOptions([*usual, *arguments])
        for word in told.split():
            assert word in str(refusal.value)
        assert "two words" not in str(refusal.value)
    program = (sys.executable, "-m", "heartbeat_service.game_client", *usual)
    player = Process(
        *(*program, "--token-file", str(files.folder / "words")), folder=files.folder
    )
    assert await player.ends() == 1
    assert player.output.startswith("--token-file")
    assert "Traceback" not in player.output
    assert "two words" not in player.output


@pytest.mark.parametrize("with_keys", [False, True])
@pytest_twisted.ensureDeferred
async def test_where_beats_want_a_token_a_key_stands_for_it_by_zeromq(
    serve: Serve, files: Files, with_keys: bool
) -> None:
    settings = {"curve_keys": str(files.folder / "keys")} if with_keys else {}
    running = await serve(client_token_file=str(files.token), **settings)
    peer = Peer(running.factory, zmq.DEALER)
    if with_keys:
        read_keys(*files.curve).protect(peer.socket)
    peer.connect(running.service.router)

    unknown = await peer.ask(message("GetClientState", clientID="1"))
    assert unknown["body"]["code"] == "UNKNOWN_CLIENT"  # but not UNAUTHORIZED
    reply = await peer.ask(heartbeat("1"))
    if with_keys:
        assert reply["messageType"] == "ClientState"
    else:
        assert reply["body"]["code"] == "UNAUTHORIZED"
        assert reply["body"]["clientID"] == "1"
        assert "--curve-keys" in reply["body"]["detail"]
    left = await peer.ask(message("Goodbye", clientID="1"))
    assert (left["messageType"] == "ClientState") is with_keys
