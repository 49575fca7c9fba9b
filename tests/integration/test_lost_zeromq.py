"""The game client where beats get through and ZeroMQ doesn't: it says so, once."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import pytest
import pytest_twisted

from heartbeat_service.core.states import ClientState
from heartbeat_service.game_client.actions import StateChanged, ZmqBack, ZmqLost
from heartbeat_service.game_client.credentials import Credentials
from heartbeat_service.zeromq.keys import ClientKeys
from tests.integration.conftest import Serve
from tests.integration.processes import Spawn, free_ports
from tests.integration.test_curve import Keys, keys
from tests.integration.test_game_client import (
    Game,
    Play,
    StrangerFactory,
    heard,
    more_beats,
    play,
)
from tests.integration.test_hostile_servers import Server, goes_on_beating, server
from tests.integration.waiting import patiently, reactor

#: These fixtures serve here, too.
__all__ = ["heard", "keys", "play", "server"]

#: What the server tells its clients, in seconds. Half of the fuse is their patience.
TIMES = {"interval": 0.05, "timebomb": 1.0}

T = TypeVar("T")


async def hears(game: Game, kind: type[T]) -> T:
    """The next event of that kind, whatever comes before it."""
    while not isinstance(event := await game.event(), kind):
        pass
    return event


def with_other_server(own: ClientKeys, other: ClientKeys) -> ClientKeys:
    """One's own keys, and another's idea of the server's."""
    return ClientKeys(own.own, other.own.public)


@pytest.mark.parametrize(
    ("guarded", "choose", "says"),
    [
        (True, lambda _: None, "wants? CURVE keys"),
        (True, lambda keys: keys.stranger(), "does it know this client's CURVE key"),
        (
            True,
            lambda keys: with_other_server(keys.make("1"), keys.make("2")),
            "is the server's the right one",
        ),
        (
            False,
            lambda keys: keys.make("1"),
            "no server with CURVE keys|has the server any",
        ),
    ],
    ids=["no key", "unknown key", "another server's key", "keys at an open server"],
)
@pytest_twisted.ensureDeferred
async def test_keys_that_do_not_fit_are_told_of_once(
    serve: Serve,
    play: Play,
    keys: Keys,
    heard: list[Any],
    guarded: bool,
    choose: Callable[[Keys], ClientKeys | None],
    says: str,
) -> None:
    folder = {"curve_keys": str(keys.folder)} if guarded else {}
    running = await serve(**folder, **TIMES)
    game = play(running.url, credentials=Credentials(keys=choose(keys)))
    lost = await hears(game, ZmqLost)
    assert re.search(says, lost.detail)
    assert lost.detail.startswith("tcp://127.0.0.1:")
    await more_beats(heard, 12)  # it has tried anew since, and lost patience again
    assert not [event for event in game.events.pending if isinstance(event, ZmqLost)]


@pytest_twisted.ensureDeferred
async def test_a_key_that_becomes_known_ends_it(
    serve: Serve, play: Play, keys: Keys
) -> None:
    running = await serve(curve_keys=str(keys.folder), **TIMES)
    own = keys.make("1")
    public = (keys.folder / "1.key").read_bytes()
    keys.revoke("1")
    assert running.service.key_check is not None
    running.service.key_check.reload()
    game = play(running.url, credentials=Credentials(keys=own))
    await hears(game, ZmqLost)
    (keys.folder / "1.key").write_bytes(public)
    running.service.key_check.reload()
    await hears(game, ZmqBack)
    game.client.report(ClientState.CALIBRATED)
    await game.reaches(ClientState.CALIBRATED)


@pytest.mark.parametrize("stranger", [False, True], ids=["nobody", "a stranger"])
@pytest_twisted.ensureDeferred
async def test_what_cannot_be_reached_is_told_of_and_found_when_it_can(
    server: Server, play: Play, stranger: bool
) -> None:
    (port,) = free_ports(1)
    address = server.body["requestEndpoint"] = f"tcp://127.0.0.1:{port}"
    answer = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n" + bytes(100)
    if stranger:
        listening = reactor.listenTCP(
            port, StrangerFactory(answer), interface="127.0.0.1"
        )
    game = play(server.listen())
    lost = await hears(game, ZmqLost)
    assert lost.detail.startswith(address)
    assert ("is it ZeroMQ" if stranger else "firewall") in lost.detail
    await goes_on_beating(server)
    if stranger:
        await patiently(listening.stopListening())
    server.router.bind(address)
    await hears(game, ZmqBack)
    assert game.events.pending == []


@pytest_twisted.ensureDeferred
async def test_a_server_that_is_restarted_with_keys_is_found_again(
    serve: Serve, play: Play, keys: Keys, heard: list[Any]
) -> None:
    # libzmq gives up for good where one side alone has keys.
    running = await serve(**TIMES)
    game = play(running.url, credentials=Credentials(keys=keys.make("1")))
    await hears(game, ZmqLost)
    service, port = running.service, running.port
    await running.stop()
    await serve(
        http=f"tcp:{port}:interface=127.0.0.1",
        router=service.router,
        pub=service.pub,
        curve_keys=str(keys.folder),
        **TIMES,
    )
    await hears(game, ZmqBack)
    await more_beats(heard)  # the new service may not have known it before
    game.client.report(ClientState.CALIBRATED)
    while (last := await hears(game, StateChanged)).state is not ClientState.CALIBRATED:
        pass
    assert last.sequence == 2


@pytest_twisted.ensureDeferred
async def test_the_program_says_on_standard_error_that_it_begins_and_ends(
    serve: Serve, spawn: Spawn, keys: Keys
) -> None:
    keys.make("1")
    public = (keys.folder / "1.key").read_bytes()
    keys.revoke("1")
    running = await serve(curve_keys=str(keys.folder), **TIMES)
    carried = keys.folder.parent / "carried"
    player = spawn(
        *(sys.executable, "-m", "heartbeat_service.game_client"),
        *("--id", "1", "--server", running.url),
        *("--curve-key", carried / "1.key_secret"),
        *("--curve-server-key", carried / "server.key"),
    )
    await player.says(r"^1: no ZeroMQ, .*: tcp://127.0.0.1:\d+ does not shake hands")
    (keys.folder / "1.key").write_bytes(public)
    assert running.service.key_check is not None
    running.service.key_check.reload()
    await player.says(r"^1: ZeroMQ gets through again$")
    assert await player.ends("TERM") == 0
    assert player.output.count("ZeroMQ") == 2
