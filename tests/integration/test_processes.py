"""The programs as they are run: twistd, the .tac, the game client, supervisord."""

from __future__ import annotations

import os
import re
import signal
import sys
from itertools import cycle
from pathlib import Path

import pytest
import pytest_twisted
import treq
from twisted.internet.error import ProcessExitedAlready

from tests.integration.conftest import Running
from tests.integration.processes import BIN, LOOPBACK, READY, ROOT, Process, Spawn
from tests.integration.waiting import SILENCE, patiently, pause
from tests.messages import heartbeat


def twistd(spawn: Spawn, *arguments: str, **environment: str) -> Process:
    """``twistd -n heartbeat`` with those options."""
    return spawn(
        BIN / "twistd", "-n", "--pidfile=", "heartbeat", *arguments, **environment
    )


def refused(spawn: Spawn, *arguments: str) -> Process:
    """One of several at once that can't start; they must not meet at one store."""
    return twistd(spawn, *LOOPBACK, "--store", "memory:", *arguments)


def game_client(spawn: Spawn, client_id: str, host: str) -> Process:
    """``python -m heartbeat_service.game_client``."""
    program = (sys.executable, "-m", "heartbeat_service.game_client")
    return spawn(*program, "--id", client_id, "--server", f"http://{host}")


def tac_file(folder: Path, options: str) -> Path:
    """The project's own .tac file, with those lines in place of its options."""
    text = (ROOT / "tac" / "heartbeat.tac").read_text()
    empty = "OPTIONS: list[str] = []"
    assert text.count(empty) == 1
    tac = folder / "heartbeat.tac"
    tac.write_text(text.replace(empty, options))
    return tac


async def http(method: str, url: str, body: bytes | None = None) -> int:
    """The status of one request."""
    response = await patiently(treq.request(method, url, data=body, persistent=False))
    await patiently(response.content())
    status: int = response.code
    return status


@pytest_twisted.ensureDeferred
async def test_once_everything_listens_one_line_says_where(spawn: Spawn) -> None:
    service = twistd(spawn, *LOOPBACK)
    host = (await service.says(READY))[1]
    assert await http("GET", f"http://{host}/readyz") == 200
    assert service.output.count("heartbeat service ready") == 1


@pytest_twisted.ensureDeferred
async def test_sigterm_stops_it_cleanly(spawn: Spawn) -> None:
    service = twistd(spawn, *LOOPBACK)
    host = (await service.says(READY))[1]
    assert await http("POST", f"http://{host}/heartbeat", heartbeat("1")) == 200
    assert await service.ends("TERM") in (0, -signal.SIGTERM)
    assert "Traceback" not in service.output
    assert "Server Shut Down" in service.output


@pytest_twisted.ensureDeferred
async def test_sighup_does_not_end_a_service_that_has_nothing_to_read_again(
    spawn: Spawn,
) -> None:
    service = twistd(spawn, *LOOPBACK)
    host = (await service.says(READY))[1]
    os.kill(service.pid, signal.SIGHUP)
    await pause(SILENCE)  # it says nothing of it
    assert await http("POST", f"http://{host}/heartbeat", heartbeat("1")) == 200
    assert service.status is None
    assert "Traceback" not in service.output


async def signals(process: Process, *names: str) -> int:
    """Send them again and again until the process has ended; how often."""
    for count, name in enumerate(cycle(names)):
        try:
            process.transport.signalProcess(name)  # type: ignore[union-attr]  # it has one
        except ProcessExitedAlready:
            return count
        await pause(0.001)
    raise AssertionError


@pytest_twisted.ensureDeferred
async def test_no_sighup_ends_it_from_its_first_line_to_its_last(spawn: Spawn) -> None:
    service = twistd(spawn, *LOOPBACK)
    await service.says("starting up")
    os.kill(service.pid, signal.SIGHUP)
    host = (await service.says(READY))[1]
    assert await http("POST", f"http://{host}/heartbeat", heartbeat("1")) == 200
    os.kill(service.pid, signal.SIGTERM)
    assert await signals(service, "HUP") > 1
    assert await service.ends() == -signal.SIGTERM
    assert "Server Shut Down" in service.output
    assert "Traceback" not in service.output


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
async def test_further_signals_while_it_stops_change_nothing(
    spawn: Spawn, first: signal.Signals
) -> None:
    service = twistd(spawn, *LOOPBACK)
    await service.says(READY)
    os.kill(service.pid, first)
    assert await signals(service, "TERM", "INT", "HUP") > 1
    # At once, the system may hand them over in any order.
    assert await service.ends() in (-signal.SIGTERM, -signal.SIGINT)
    assert "Server Shut Down" in service.output
    assert "Traceback" not in service.output


#: A .tac file whose store holds what no client can be. It can be opened at the second
#: try only, if ``late``.
UNRESTORABLE = """
from twisted.internet.defer import fail, succeed
from heartbeat_service import service
from heartbeat_service.core.changes import StoredState
from heartbeat_service.storage.memory import MemoryStore
from heartbeat_service.storage.store import StoreTrouble

class Store(MemoryStore):
    late = {late}

    def open(self):
        if self.late:
            self.late = False
            return fail(StoreTrouble("locked"))
        return succeed(StoredState(0, ["no client"], {{}}))

service.MemoryStore = Store
OPTIONS = {options}
"""


def unrestorable(folder: Path, *, late: bool) -> Path:
    """The project's own .tac file, with that store."""
    options = [*LOOPBACK, "--store", "memory:"]
    return tac_file(folder, UNRESTORABLE.format(late=late, options=options))


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("late", [False, True])
async def test_a_store_that_cannot_be_restored_ends_the_program_with_a_sentence(
    spawn: Spawn, tmp_path: Path, *, late: bool
) -> None:
    tac = unrestorable(tmp_path, late=late)
    service = spawn(BIN / "twistd", "-n", "-y", tac)
    assert await service.ends() == 1
    assert service.output.count("can't start: --store memory:: what it holds") == 1
    assert ("heartbeat service ready" in service.output) == late
    assert "Traceback" not in service.output
    assert not (tmp_path / "twistd.pid").exists()


@pytest_twisted.ensureDeferred
async def test_a_daemon_that_cannot_restore_its_store_says_so_and_tidies_up(
    spawn: Spawn, tmp_path: Path
) -> None:
    daemon = spawn(BIN / "twistd", "-y", unrestorable(tmp_path, late=False))
    assert await daemon.ends() == 1
    assert "The heartbeat service can't start: --store" in daemon.output
    assert not (tmp_path / "twistd.pid").exists()


@pytest_twisted.ensureDeferred
async def test_a_pipe_in_place_of_a_file_ends_the_program_with_a_sentence(
    spawn: Spawn, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe")
    options = ("--config", "--operator-token-file", "--client-token-file")
    services = [refused(spawn, option, "pipe") for option in options]
    for option, service in zip(options, services, strict=True):
        assert await service.ends() == 1
        assert option in service.output
        assert "not a regular file" in service.output
        assert "Traceback" not in service.output


@pytest_twisted.ensureDeferred
async def test_one_line_for_a_registration_a_change_and_a_death_and_none_for_a_beat(
    spawn: Spawn,
) -> None:
    service = twistd(spawn, *LOOPBACK)
    host = (await service.says(READY))[1]
    start = len(service.output)
    for _ in range(5):
        assert await http("POST", f"http://{host}/heartbeat", heartbeat("7")) == 200
    order = b'{"clientState": "RUNNING"}'
    assert await http("PUT", f"http://{host}/clients/7/state", order) == 200
    last = heartbeat("7", timebombSeconds=0.1)
    assert await http("POST", f"http://{host}/heartbeat", last) == 200
    await service.says("client 7.*timebomb")
    lines = service.output[start:].splitlines()
    told = [re.sub(r".*client 7: (.*), incarnation.*", r"\1", line) for line in lines]
    assert told == [
        "DISCONNECTED -> UNCALIBRATED (heartbeat)",
        "UNCALIBRATED -> RUNNING (operator)",
        "RUNNING -> DISCONNECTED (timebomb)",
    ]


@pytest_twisted.ensureDeferred
async def test_a_bad_option_ends_the_program_with_a_sentence_that_names_it(
    spawn: Spawn,
) -> None:
    options = {"--timebomb": "0", "--config": "/no/such/file.toml"}
    services = [refused(spawn, *option) for option in options.items()]
    for option, service in zip(options, services, strict=True):
        assert await service.ends() == 1
        assert service.output.startswith(f"{option}: ")
        assert "Traceback" not in service.output


@pytest_twisted.ensureDeferred
async def test_an_address_in_use_ends_the_program_with_a_sentence_that_names_it(
    running: Running, spawn: Spawn
) -> None:
    taken = {
        "--http": f"tcp:{running.port}:interface=127.0.0.1",
        "--router": f"tcp://127.0.0.1:{running.port}",
        "--pub": f"tcp://127.0.0.1:{running.port}",
    }
    services = [refused(spawn, *option) for option in taken.items()]
    for (option, address), service in zip(taken.items(), services, strict=True):
        assert await service.ends() == 1
        assert f"can't start: {option} {address}" in service.output
        assert "Traceback" not in service.output


@pytest_twisted.ensureDeferred
async def test_what_no_http_can_be_served_on_is_named(spawn: Spawn) -> None:
    endpoints = ("tcp:99999:interface=127.0.0.1", "stdio:")
    services = [refused(spawn, "--http", each) for each in endpoints]
    for endpoint, service in zip(endpoints, services, strict=True):
        assert await service.ends() == 1
        assert f"can't start: --http {endpoint}: " in service.output
        assert "Traceback" not in service.output


@pytest_twisted.ensureDeferred
async def test_a_daemon_that_cannot_start_says_so_and_tidies_up(
    running: Running, spawn: Spawn, tmp_path: Path
) -> None:
    router = running.service.router
    second = spawn(BIN / "twistd", "heartbeat", *LOOPBACK, "--router", router)
    assert await second.ends() == 1
    # The rest of the sentence is in the log: twistd's pipe takes 100 bytes.
    assert "The heartbeat service can't start: --router" in second.output
    assert not (tmp_path / "twistd.pid").exists()


@pytest_twisted.ensureDeferred
async def test_the_plugin_leaves_the_reactor_to_twistd(spawn: Spawn) -> None:
    plugin = ("-r", "asyncio", "heartbeat", *LOOPBACK)
    service = spawn(BIN / "twistd", "-n", "--pidfile=", *plugin)
    host = (await service.says(READY))[1]
    assert "AsyncioSelectorReactor" in service.output
    assert await http("POST", f"http://{host}/heartbeat", heartbeat("1")) == 200


@pytest_twisted.ensureDeferred
async def test_the_tac_file_serves(spawn: Spawn, tmp_path: Path) -> None:
    tac = tac_file(tmp_path, f"OPTIONS = {list(LOOPBACK)}")
    service = spawn(BIN / "twistd", "-n", "--pidfile=", "-y", tac)
    host = (await service.says(READY))[1]
    assert await http("POST", f"http://{host}/heartbeat", heartbeat("1")) == 200


@pytest_twisted.ensureDeferred
async def test_the_game_client_says_goodbye_when_it_is_stopped(spawn: Spawn) -> None:
    service = twistd(spawn, *LOOPBACK)
    host = (await service.says(READY))[1]
    players = {number: game_client(spawn, number, host) for number in ("INT", "TERM")}
    for number, player in players.items():
        await player.says(rf"{number} UNCALIBRATED incarnation=\d+ sequence=1$")
        for state in ("CALIBRATED", "RUNNING"):
            order = f'{{"clientState": "{state}"}}'.encode()
            url = f"http://{host}/clients/{number}/state"
            assert await http("PUT", url, order) == 200
            await player.says(rf"{number} {state} ")
        assert await player.ends(number) == 0
        assert f"{number} DISCONNECTED" in player.output.splitlines()[-1]
        await service.says(rf"client {number}: RUNNING -> DISCONNECTED \(goodbye\)")
        assert "Traceback" not in player.output


@pytest_twisted.ensureDeferred
async def test_a_superseded_game_client_ends_with_an_error(spawn: Spawn) -> None:
    service = twistd(spawn, *LOOPBACK, "--interval", "0.2")
    host = (await service.says(READY))[1]
    first = game_client(spawn, "1", host)
    await first.says("1 UNCALIBRATED")
    second = game_client(spawn, "1", host)
    assert await first.ends() == 1
    assert "another process has taken this client over" in first.output
    await second.says("1 UNCALIBRATED")
    assert second.status is None


@pytest_twisted.ensureDeferred
async def test_a_game_client_with_a_bad_option_ends_with_a_sentence(
    spawn: Spawn,
) -> None:
    player = spawn(sys.executable, "-m", "heartbeat_service.game_client", "--id", "1")
    assert await player.ends() == 1
    assert player.output.startswith("--server: ")
    assert "Traceback" not in player.output
