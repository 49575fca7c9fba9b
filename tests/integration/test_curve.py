"""CURVE: who has a listed key is served, nobody else is, and the list can change."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
import zmq
from twisted.internet.defer import Deferred
from twisted.logger import LogEvent, formatEvent

from heartbeat_service.curve_keys import make_client_keys, make_server_keys
from heartbeat_service.service import HeartbeatService
from heartbeat_service.settings import Settings
from heartbeat_service.zeromq.curve import MOST_TOLD
from heartbeat_service.zeromq.keys import ClientKeys, read_pair, read_public
from tests.integration.conftest import Peer, Running, Serve, Subscriber
from tests.integration.processes import BIN, LOOPBACK, READY, Process
from tests.integration.waiting import SILENCE, pause, reactor, until
from tests.messages import heartbeat, message


class Keys:
    """A server's folder of keys, and what clients were given."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "server"
        self._carried = folder / "carried"
        make_server_keys(self.folder)

    def make(self, name: str, clients: str = "*") -> ClientKeys:
        """Keys of a new client, which the server will let in.

        :param clients: whom it may speak for besides the client of that name.
        """
        make_client_keys(self.folder, name, self._carried, clients)
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
        keys.protect(peer.socket)
    peer.connect(running.service.router)
    return peer


def subscriber(running: Running, keys: ClientKeys | None, *topics: bytes) -> Subscriber:
    """A SUB socket with these keys."""
    peer = Subscriber(running.factory, topics or [b"OnStateChange/1/"])
    if keys is not None:
        keys.protect(peer.socket)
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


def assert_refused(reply: dict[str, Any], client_id: str) -> None:
    """It says that the key is not good for this client, and that client it names."""
    assert reply["messageType"] == "Error"
    assert reply["body"]["code"] == "UNAUTHORIZED"
    assert reply["body"]["clientID"] == client_id
    assert client_id in reply["body"]["detail"]


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
    told = str(formatEvent(refused[0]))
    assert "from 127.0.0.1: if it is yours" in told
    assert f"--curve-keys {keys.folder} and send SIGHUP" in told
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


def without_key(keys: Keys) -> None:
    """What a client shows that has no keys."""


def for_another_server(keys: Keys) -> ClientKeys:
    """A listed pair, with another server's public key."""
    known, other = keys.make("lost"), keys.stranger()
    return ClientKeys(known.own, other.own.public)


@pytest.mark.parametrize(
    ("shown", "reason"),
    [(without_key, "heartbeat-curve-keys"), (for_another_server, "takes another key")],
)
@pytest_twisted.ensureDeferred
async def test_a_peer_whose_keys_do_not_fit_is_told_of_with_its_address(
    guard: Guard,
    keys: Keys,
    logged: list[LogEvent],
    shown: Callable[[Keys], ClientKeys | None],
    reason: str,
) -> None:
    running = await guard()
    asking = dealer(running, shown(keys))
    told: list[str] = []

    def is_told() -> bool:
        told[:] = [str(formatEvent(event)) for event in logged]
        return any(reason in line for line in told)

    await until(is_told)
    asking.shutdown()
    [first, *_] = [line for line in told if reason in line]
    # A connection may be over before anybody could ask where it comes from.
    assert re.search(
        "peer from (127.0.0.1|an address that isn't known any more)", first
    )
    assert first.endswith("so far: 1")


@pytest_twisted.ensureDeferred
async def test_keys_where_none_are_wanted_are_told_of(
    serve: Serve, keys: Keys, logged: list[LogEvent]
) -> None:
    running = await serve()
    wants = "it wants encryption: start this service with --curve-keys"

    def is_told() -> bool:
        return any(wants in str(formatEvent(event)) for event in logged)

    # Both ends see it. A peer that sees it first is gone, and nobody hears of that one.
    own = keys.make("known")
    for _ in range(100):
        asking = dealer(running, own)
        await pause(0.1)
        asking.shutdown()
        if is_told():
            break
    assert is_told()


@pytest_twisted.ensureDeferred
async def test_a_pair_is_not_let_in_by_its_public_half(
    guard: Guard, keys: Keys
) -> None:
    known, thief = keys.make("known"), keys.stranger()
    running = await guard()
    asking = Peer(running.factory, zmq.DEALER)
    thief.protect(asking.socket)
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
    assert (await running.get("/clients"))["clients"] == []


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
    # Who is in stays in, until its connection ends, but speaks for nobody.
    assert_refused(await early.ask(heartbeat("early")), "early")


@pytest_twisted.ensureDeferred
async def test_an_added_key_is_let_in_once_the_keys_are_reloaded(
    guard: Guard,
    keys: Keys,
    logged: list[LogEvent],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # So long a peer that was kept out waits before it tries again, in milliseconds.
    monkeypatch.setattr(
        "heartbeat_service.zeromq.socket_options.HANDSHAKE_MILLISECONDS", 500
    )
    running = await guard()
    added = keys.make("added", "1 early")
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


def requests_of(client_id: Any) -> list[bytes]:
    """Each request that there is, for a client."""
    return [
        heartbeat(client_id),
        heartbeat(client_id, instanceID="another"),
        message("GetClientState", clientID=client_id),
        message("SetClientState", clientID=client_id, clientState="CALIBRATED"),
        message("Goodbye", clientID=client_id),
    ]


@pytest_twisted.ensureDeferred
async def test_a_key_speaks_for_its_own_client_and_no_other(
    guard: Guard, keys: Keys
) -> None:
    mine, theirs = keys.make("a", ""), keys.make("b", "")
    running = await guard()
    asking, victim = dealer(running, mine), dealer(running, theirs)
    for request in requests_of("a"):
        assert (await asking.ask(request))["messageType"] == "ClientState"
    await victim.ask(heartbeat("b", instanceID="first"))
    before = await running.get("/clients/b/history")
    for stranger in ("b", "A", "aa", "a.", "unknown"):
        for request in requests_of(stranger):
            assert_refused(await asking.ask(request), stranger)
    assert await running.get("/clients/b/history") == before
    reply = await victim.ask(heartbeat("b", instanceID="first"))
    assert reply["body"]["sequence"] == 1  # not superseded


@pytest_twisted.ensureDeferred
async def test_a_key_speaks_for_those_that_its_file_lists(
    guard: Guard, keys: Keys
) -> None:
    running = await guard()
    known = keys.make("1", "wall-* a:b@c")
    assert running.service.key_check is not None
    running.service.key_check.reload()
    asking = dealer(running, known)
    for client_id in (1, "1", "wall-", "wall-7", "a:b@c"):
        reply = await asking.ask(heartbeat(client_id))
        assert reply["body"]["clientID"] == str(client_id)
        assert reply["messageType"] == "ClientState"
    for client_id in (11, "01", "Wall-7", "the-wall-7", "a:b", "server"):
        assert_refused(await asking.ask(heartbeat(client_id)), str(client_id))


@pytest_twisted.ensureDeferred
async def test_a_key_that_names_no_client_hears_all_and_may_ask_nothing(
    guard: Guard, keys: Keys, logged: list[LogEvent]
) -> None:
    tool = keys.make("tool", "")
    (keys.folder / "tool.key").rename(keys.folder / "the tool.key")
    running = await guard()
    [event] = [one for one in logged if one.get("name") == "the tool.key"]
    assert "names no client" in event["log_format"]
    asking, listening = dealer(running, tool), subscriber(running, tool)
    for client_id in ("tool", "1"):
        for request in requests_of(client_id):
            assert_refused(await asking.ask(request), client_id)
    await hears(running, listening)
    await running.beat("1")
    assert (await listening.change())["clientID"] == "1"


@pytest_twisted.ensureDeferred
async def test_whom_a_connected_key_speaks_for_is_what_was_reloaded_last(
    guard: Guard, keys: Keys
) -> None:
    known = keys.make("a", "b")
    running = await guard()
    check = running.service.key_check
    assert check is not None
    asking = dealer(running, known)
    for client_id in ("a", "b"):
        reply = await asking.ask(heartbeat(client_id))
        assert reply["messageType"] == "ClientState"
    path = keys.folder / "a.key"
    text = path.read_text()
    path.write_text(text.replace("# clients: b", "# clients: c"))
    check.reload()
    assert_refused(await asking.ask(heartbeat("b")), "b")
    assert (await asking.ask(heartbeat("c")))["messageType"] == "ClientState"
    # The name goes over to another key: the former one is nobody's.
    keys.revoke("a")
    keys.make("fresh", "")
    (keys.folder / "fresh.key").rename(path)
    check.reload()
    for client_id in ("a", "c"):
        assert_refused(await asking.ask(heartbeat(client_id)), client_id)


@pytest_twisted.ensureDeferred
async def test_its_key_takes_no_room_from_a_subscribers_many_topics(
    guard: Guard, keys: Keys
) -> None:
    known = keys.make("a", "")
    running = await guard()
    topics = [b"OnStateChange/%d/" % number for number in range(500)]
    listening = subscriber(running, known, *topics)
    await hears(running, listening)  # its last topic has arrived
    await running.beat("0")
    assert (await listening.change())["clientID"] == "0"


def named_dealer(running: Running, keys: ClientKeys, route: bytes) -> Peer:
    """A DEALER that chose the name that replies are routed by."""
    peer = Peer(running.factory, zmq.DEALER)
    peer.socket.set(zmq.ROUTING_ID, route)
    keys.protect(peer.socket)
    peer.connect(running.service.router)
    return peer


@pytest_twisted.ensureDeferred
async def test_who_takes_over_a_route_takes_over_no_key(
    guard: Guard, keys: Keys
) -> None:
    mine, theirs = keys.make("a", ""), keys.make("b", "")
    running = await guard()
    victim = named_dealer(running, theirs, b"route")
    assert (await victim.ask(heartbeat("b")))["messageType"] == "ClientState"
    thief = named_dealer(running, mine, b"route")  # while the other is connected
    for request in requests_of("b"):
        assert_refused(await thief.ask(request), "b")
    assert (await thief.ask(heartbeat("a")))["messageType"] == "ClientState"
    thief.shutdown()
    victim.shutdown()
    again = named_dealer(running, theirs, b"route")  # after the other has gone
    assert_refused(await again.ask(heartbeat("a")), "a")
    assert (await again.ask(heartbeat("b")))["messageType"] == "ClientState"


@pytest_twisted.ensureDeferred
async def test_each_of_many_messages_at_once_counts_by_its_own_key(
    guard: Guard, keys: Keys
) -> None:
    names = [f"headset-{number}" for number in range(4)]
    running = await guard()
    made = [keys.make(name, "") for name in names]
    assert running.service.key_check is not None
    running.service.key_check.reload()
    peers = [dealer(running, one) for one in made]
    for _ in range(50):
        for peer in peers:
            for name in names:
                peer.send_multipart([b"", heartbeat(name)])
                peer.send_multipart([heartbeat(name)])
    for own, peer in zip(names, peers, strict=True):
        good = 0
        for _ in range(50 * len(names) * 2):
            reply = json.loads((await peer.receive())[-1])
            if reply["body"]["clientID"] == own:
                good += reply["messageType"] == "ClientState"
            else:
                assert_refused(reply, reply["body"]["clientID"])
        assert good == 100


@pytest_twisted.ensureDeferred
async def test_a_superseded_instance_is_told_so_by_its_own_key_alone(
    guard: Guard, keys: Keys
) -> None:
    mine, theirs = keys.make("a", ""), keys.make("b", "")
    running = await guard()
    asking, other = dealer(running, mine), dealer(running, theirs)
    for instance in ("one", "two"):
        await asking.ask(heartbeat("a", instanceID=instance))
    late = heartbeat("a", instanceID="one")
    reply = await asking.ask(late)
    assert reply["body"]["code"] == "INSTANCE_SUPERSEDED"
    assert_refused(await other.ask(late), "a")


@pytest_twisted.ensureDeferred
async def test_what_is_no_request_is_answered_whoever_sends_it(
    guard: Guard, keys: Keys
) -> None:
    known = keys.make("a", "")
    running = await guard()
    asking = dealer(running, known)
    for frames in ([b"no JSON"], [b""], [b"x"] * 30, [b"", b"", heartbeat("b")]):
        assert (await asking.ask(*frames))["body"]["code"] == "BAD_MESSAGE"
    twice = heartbeat("b").replace(b'"clientID":"b"', b'"clientID":"a","clientID":"b"')
    assert_refused(await asking.ask(twice), "b")
    assert (await asking.ask(heartbeat("a")))["messageType"] == "ClientState"


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
    game = (sys.executable, "-m", "heartbeat_service.game_client", "--id", "headset")
    player = spawn(
        *(*game, "--server", f"http://{host}"),
        *("--curve-key", "headset/headset.key_secret"),
        *("--curve-server-key", "headset/server.key"),
    )
    await player.says("headset UNCALIBRATED")
    assert await player.ends("TERM") == 0
    await service.says(r"client headset: UNCALIBRATED -> DISCONNECTED \(goodbye\)")
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
