"""CURVE: who has a listed key is served, nobody else is, and the list can change."""

from __future__ import annotations

import re
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import pytest_twisted
import zmq
from twisted.internet.defer import Deferred
from twisted.logger import LogEvent

from heartbeat_service.curve_keys import make_client_keys, make_server_keys
from heartbeat_service.service import HeartbeatService
from heartbeat_service.settings import Settings
from heartbeat_service.zeromq.curve import MOST_TOLD, ClientKeys, read_pair, read_public
from tests.integration.conftest import Peer, Running, Serve, Subscriber
from tests.integration.processes import BIN, LOOPBACK, READY, Process
from tests.integration.waiting import SILENCE, pause, reactor, until
from tests.messages import heartbeat


class Keys:
    """A server's folder of keys, and what clients were given."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "server"
        self._carried = folder / "carried"
        make_server_keys(self.folder)

    def make(self, name: str) -> ClientKeys:
        """Keys of a new client, which the server will let in."""
        make_client_keys(self.folder, name, self._carried)
        return ClientKeys(
            read_pair(self._carried / f"{name}.key_secret"),
            read_public(self._carried / "server.key"),
        )

    def revoke(self, name: str) -> None:
        """Take a client off the list."""
        (self.folder / f"{name}.key").unlink()

    def stranger(self) -> ClientKeys:
        """Keys of one that the server was never told of."""
        keys = self.make("stranger")
        self.revoke("stranger")
        return keys


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    """New keys."""
    return Keys(tmp_path)


Guard = Callable[[], Awaitable[Running]]


@pytest.fixture
def guard(serve: Serve, keys: Keys) -> Guard:
    """Starts a service that lets known keys in; HTTP stays open to all."""
    return lambda: serve(curve_keys=str(keys.folder))


def dealer(running: Running, keys: ClientKeys | None) -> Peer:
    """A DEALER with these keys."""
    peer = Peer(running.factory, zmq.DEALER)
    if keys is not None:
        keys.protect(peer)
    peer.connect(running.service.router)
    return peer


def subscriber(running: Running, keys: ClientKeys | None) -> Subscriber:
    """A SUB socket with these keys."""
    peer = Subscriber(running.factory, [b"OnStateChange/1/"])
    if keys is not None:
        keys.protect(peer)
    peer.connect(running.service.pub)
    return peer


async def hears(running: Running, peer: Subscriber) -> None:
    """Wait until it hears of what is published."""

    async def heard() -> bool:
        await running.beat("probe")
        await running.kick("probe")
        return peer.arrived

    await until(heard)


async def assert_let_in(running: Running, keys: ClientKeys) -> None:
    """Requests are answered, and publications come."""
    asking, listening = dealer(running, keys), subscriber(running, keys)
    assert (await asking.ask(heartbeat("1")))["messageType"] == "ClientState"
    await hears(running, listening)
    await running.kick("1")
    while (await listening.change())["reason"] != "kick":
        pass
    asking.shutdown()
    listening.shutdown()


async def assert_kept_out(
    running: Running, keys: ClientKeys | None, known: ClientKeys
) -> None:
    """No request is answered, and no publication comes, while others have both."""
    asking, listening = dealer(running, keys), subscriber(running, keys)
    asking.send_multipart([heartbeat("kept-out")])
    await assert_let_in(running, known)
    await pause(SILENCE)
    await assert_let_in(running, known)
    assert asking.inbox.pending == listening.inbox.pending == []
    assert not listening.arrived
    asking.shutdown()
    listening.shutdown()
    clients = (await running.get("/clients"))["clients"]
    assert "kept-out" not in {client["clientID"] for client in clients}


@pytest_twisted.ensureDeferred
async def test_a_listed_key_is_let_in_and_no_other(
    guard: Guard, keys: Keys, logged: list[LogEvent], tracebacks: list[LogEvent]
) -> None:
    known, unknown = keys.make("known"), keys.stranger()
    running = await guard()
    await assert_kept_out(running, unknown, known)
    refused = [
        event for event in logged if "refused the key" in str(event["log_format"])
    ]
    assert refused[0]["key"] == unknown.own.public.decode()
    assert refused[0]["address"] == "127.0.0.1"
    for event in logged:
        assert unknown.own.secret.decode() not in str(event)
    assert tracebacks == []


@pytest_twisted.ensureDeferred
async def test_a_peer_without_encryption_is_kept_out(
    guard: Guard, keys: Keys, tracebacks: list[LogEvent]
) -> None:
    known = keys.make("known")
    await assert_kept_out(await guard(), None, known)
    assert tracebacks == []


@pytest_twisted.ensureDeferred
async def test_a_pair_is_not_let_in_by_its_public_half(
    guard: Guard, keys: Keys
) -> None:
    known, thief = keys.make("known"), keys.stranger()
    running = await guard()
    asking = Peer(running.factory, zmq.DEALER)
    thief.protect(asking)
    asking.socket.set(zmq.CURVE_PUBLICKEY, known.own.public)
    asking.connect(running.service.router)
    asking.send_multipart([heartbeat("thief")])
    await assert_let_in(running, known)
    await pause(SILENCE)
    assert asking.inbox.pending == []


@pytest_twisted.ensureDeferred
async def test_the_servers_own_key_lets_nobody_in(guard: Guard, keys: Keys) -> None:
    known = keys.make("known")
    server = read_pair(keys.folder / "server.key_secret")
    running = await guard()
    await assert_kept_out(running, ClientKeys(server, server.public), known)


@pytest_twisted.ensureDeferred
async def test_who_answers_for_nobody_lets_nobody_in(guard: Guard, keys: Keys) -> None:
    known = keys.make("known")
    running = await guard()
    assert running.service.key_check is not None
    running.service.key_check.shutdown()
    asking = dealer(running, known)
    asking.send_multipart([heartbeat("1")])
    await pause(SILENCE)
    assert await running.get("/clients") == {"clients": []}


@pytest_twisted.ensureDeferred
async def test_a_revoked_key_is_kept_out_once_the_keys_are_reloaded(
    guard: Guard, keys: Keys
) -> None:
    known, revoked = keys.make("known"), keys.make("revoked")
    running = await guard()
    early = dealer(running, revoked)
    await early.ask(heartbeat("early"))
    keys.revoke("revoked")
    assert running.service.key_check is not None
    running.service.key_check.reload()
    await assert_kept_out(running, revoked, known)
    # Who is in stays in, until its connection ends.
    assert (await early.ask(heartbeat("early")))["messageType"] == "ClientState"


@pytest_twisted.ensureDeferred
async def test_an_added_key_is_let_in_once_the_keys_are_reloaded(
    guard: Guard,
    keys: Keys,
    logged: list[LogEvent],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # So long a peer that was kept out waits before it tries again, in milliseconds.
    monkeypatch.setattr(
        "heartbeat_service.zeromq.connection.HANDSHAKE_MILLISECONDS", 500
    )
    running = await guard()
    added = keys.make("added")
    early = dealer(running, added)
    early.send_multipart([heartbeat("early")])
    await pause(SILENCE)
    assert early.inbox.pending == []
    assert running.service.key_check is not None
    logged.clear()
    running.service.key_check.reload()
    assert [event["count"] for event in logged] == [1]
    await assert_let_in(running, added)
    assert b"ClientState" in (await early.receive())[-1]  # it went on trying


@pytest.mark.parametrize("fault", ["no folder", "no key", "half a key"])
@pytest_twisted.ensureDeferred
async def test_what_cannot_be_reloaded_leaves_the_keys_as_they_were(
    guard: Guard, keys: Keys, logged: list[LogEvent], fault: str
) -> None:
    known = keys.make("known")
    running = await guard()
    if fault == "no folder":
        keys.folder.rename(keys.folder.with_name("elsewhere"))
    else:
        text = "" if fault == "no key" else 'curve\n public-key = "abc"\n'
        (keys.folder / "broken.key").write_text(text)
    assert running.service.key_check is not None
    logged.clear()
    running.service.key_check.reload()
    [event] = logged
    assert event["log_level"].name == "error"
    named = "server" if fault == "no folder" else "broken.key"
    assert named in str(event["error"])
    await assert_let_in(running, known)


@pytest_twisted.ensureDeferred
async def test_refusals_are_told_of_in_few_lines(
    guard: Guard, logged: list[LogEvent]
) -> None:
    running = await guard()
    check = running.service.key_check
    assert check is not None
    question = [b"peer", b"", b"1.0", b"1", b"heartbeat", b"10.0.0.1", b"", b"CURVE"]
    logged.clear()
    for number in range(10 * MOST_TOLD):
        check.messageReceived([*question, b"%032d" % number])
    for _ in range(10 * MOST_TOLD):
        check.messageReceived([*question, b"%032d" % 0])
    assert len(logged) == MOST_TOLD + 4  # and at 128, 256, 512, 1024


def lose(path: Path) -> None:
    path.unlink()


def spoil(path: Path) -> None:
    path.write_text('curve\n public-key = "abc"\n secret-key = "abc"\n')


@pytest.mark.parametrize(
    ("name", "fault", "told"),
    [
        ("server.key", lose, "server.key"),
        ("server.key_secret", lose, "server.key_secret"),
        ("server.key", spoil, "server.key"),
        ("server.key_secret", spoil, "server.key_secret"),
        ("client.key", spoil, "client.key"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_without_good_keys_it_does_not_start_and_says_why(
    keys: Keys, name: str, fault: Callable[[Path], None], told: str
) -> None:
    keys.make("client")
    fault(keys.folder / name)
    settings = Settings(
        http="tcp:0:interface=127.0.0.1",
        router="tcp://127.0.0.1:0",
        pub="tcp://127.0.0.1:0",
        curve_keys=str(keys.folder),
    )
    with pytest.raises(SystemExit, match=f"--curve-keys: .*{re.escape(told)}"):
        HeartbeatService(reactor, settings).startService()


@pytest.fixture
def spawn(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """``spawn(command, …)`` starts a process, and ends it after the test."""
    started: list[Process] = []

    def start(*command: str | Path) -> Process:
        started.append(Process(*command, folder=tmp_path))
        return started[-1]

    yield start
    for process in reversed(started):
        if process.status is None:
            pytest_twisted.blockon(Deferred.fromCoroutine(process.ends("TERM")))


@pytest_twisted.ensureDeferred
async def test_the_programs_follow_each_other_by_keys_alone(
    spawn: Callable[..., Process],
) -> None:
    make = (sys.executable, "-m", "heartbeat_service.curve_keys", "keys")
    assert await spawn(*make).ends() == 0
    assert await spawn(*make, "--client", "headset").ends() == 0
    service = spawn(
        *(BIN / "twistd", "-n", "--pidfile=", "heartbeat", *LOOPBACK),
        *("--store", "memory:", "--curve-keys", "keys"),
    )
    host = (await service.says(READY))[1]
    game = (sys.executable, "-m", "heartbeat_service.game_client", "--id", "1")
    player = spawn(
        *(*game, "--server", f"http://{host}"),
        *("--curve-key", "headset/headset.key_secret"),
        *("--curve-server-key", "headset/server.key"),
    )
    await player.says("1 UNCALIBRATED")
    assert await player.ends("TERM") == 0
    await service.says(r"client 1: UNCALIBRATED -> DISCONNECTED \(goodbye\)")
    for process in (service, player):
        assert "Traceback" not in process.output


@pytest_twisted.ensureDeferred
async def test_a_service_without_its_keys_ends_with_a_sentence(
    spawn: Callable[..., Process],
) -> None:
    service = spawn(
        *(BIN / "twistd", "-n", "--pidfile=", "heartbeat", *LOOPBACK),
        *("--curve-keys", "nowhere"),
    )
    assert await service.ends() == 1
    assert "--curve-keys: " in service.output.splitlines()[-1]
    assert "Traceback" not in service.output
