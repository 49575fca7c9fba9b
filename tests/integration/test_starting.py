"""The console commands: what they are called, and how a start that fails ends."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest
import pytest_twisted

from tests.integration.processes import BIN, LOOPBACK, READY, Spawn
from tests.integration.waiting import pause, until

TWISTD = (BIN / "twistd", "-n", "--pidfile=", "heartbeat")
COMMANDS = (
    *("heartbeat-service", "heartbeat-client", "heartbeat-curve-keys", "heartbeatctl"),
)


@pytest_twisted.ensureDeferred
async def test_the_version_of_each_program_is_the_services(spawn: Spawn) -> None:
    ways = (TWISTD, *((BIN / command,) for command in COMMANDS))
    for program in [spawn(*way, "--version") for way in ways]:
        assert await program.ends() == 0
        assert program.output == "heartbeat-service 0.1.0\n"


@pytest_twisted.ensureDeferred
async def test_a_bad_option_is_told_first_then_how_to_get_help(spawn: Spawn) -> None:
    ways = {
        "twistd heartbeat": TWISTD,
        "python -m heartbeat_service": (sys.executable, "-m", "heartbeat_service"),
    }
    programs = [spawn(*way, "--fuse", "1") for way in ways.values()]
    for called, program in zip(ways, programs, strict=True):
        assert await program.ends() == 1
        assert program.output.splitlines() == [
            "option --fuse not recognized",
            f"Help: {called} --help",
        ]


@pytest_twisted.ensureDeferred
async def test_heartbeat_service_needs_no_twistd_on_the_path_and_no_pid_file(
    spawn: Spawn, tmp_path: Path
) -> None:
    service = spawn(BIN / "heartbeat-service", *LOOPBACK, PATH="/usr/bin:/bin")
    await service.says(READY)
    assert not (tmp_path / "twistd.pid").exists()
    assert await service.ends("INT") == -signal.SIGINT
    assert "Server Shut Down" in service.output
    assert "Traceback" not in service.output


OWN_COMMAND_LINE = Path("/proc/self/cmdline").read_bytes()


def has_settled_signals(pid: int) -> bool:
    """Whether a program has said by now what SIGINT and SIGHUP do to it.

    Before it is the program it is a copy of this process, with handlers of its own; for
    a moment also when its command line is the program's already.
    """
    if Path(f"/proc/{pid}/cmdline").read_bytes() == OWN_COMMAND_LINE:
        return False
    status = Path(f"/proc/{pid}/status").read_text()
    caught = int(status.partition("SigCgt:")[2].split()[0], 16)
    interrupt, hangup = (caught >> (n - 1) & 1 for n in (signal.SIGINT, signal.SIGHUP))
    return bool(hangup and not interrupt)


@pytest.mark.parametrize("seconds", [0, 0.3])
@pytest_twisted.ensureDeferred
async def test_an_interrupt_while_it_starts_ends_it_without_a_traceback(
    spawn: Spawn, seconds: float
) -> None:
    service = spawn(BIN / "heartbeat-service", *LOOPBACK)
    await until(lambda: has_settled_signals(service.pid))  # the first that it does
    await pause(seconds)
    assert await service.ends("INT") == -signal.SIGINT
    assert "Traceback" not in service.output


@pytest_twisted.ensureDeferred
async def test_no_hangup_ends_heartbeat_service_while_it_starts(spawn: Spawn) -> None:
    service = spawn(BIN / "heartbeat-service", *LOOPBACK)
    await until(lambda: has_settled_signals(service.pid))
    service.transport.signalProcess("HUP")  # type: ignore[union-attr]  # it has one
    await service.says(READY)
    assert await service.ends("TERM") == -signal.SIGTERM


@pytest_twisted.ensureDeferred
async def test_a_path_that_cannot_be_looked_at_ends_it_with_a_sentence(
    spawn: Spawn,
) -> None:
    # As a folder that may not be entered, which a test that root runs can't have.
    store = f"sqlite:{'k' * 300}/x"
    service = spawn(BIN / "heartbeat-service", *LOOPBACK, "--store", store)
    assert await service.ends() == 1
    last = service.output.splitlines()[-1]
    assert f"The heartbeat service can't start: --store {store}: File name" in last
    assert "Traceback" not in service.output


@pytest_twisted.ensureDeferred
async def test_a_pid_file_that_cannot_be_written_is_told_in_a_sentence(
    spawn: Spawn,
) -> None:
    # As in a folder that may not be written to, which root can't have.
    pid_file = "--pidfile=missing/twistd.pid"
    service = spawn(BIN / "twistd", "-n", pid_file, "heartbeat", *LOOPBACK)
    assert await service.ends() == 1
    assert service.output.startswith("--pidfile: 'missing/twistd.pid' can't be written")
    assert "Traceback" not in service.output


@pytest_twisted.ensureDeferred
async def test_a_start_in_a_folder_that_is_gone_ends_with_a_sentence(
    spawn: Spawn,
) -> None:
    gone = "mkdir gone && cd gone && rmdir ../gone"
    command = f"{BIN}/heartbeat-service {' '.join(LOOPBACK)}"
    service = spawn("sh", "-c", f"{gone} && exec {command}")
    assert await service.ends() == 1
    assert "--store sqlite:heartbeat.sqlite: No such file" in service.output
    assert "Traceback" not in service.output


@pytest_twisted.ensureDeferred
async def test_a_game_client_whose_output_nobody_reads_says_goodbye_and_ends(
    spawn: Spawn,
) -> None:
    service = spawn(BIN / "heartbeat-service", *LOOPBACK)
    host = (await service.says(READY))[1]
    client = f"'{BIN}/heartbeat-client' --id 1 --server http://{host}"
    player = spawn("bash", "-c", f"set -o pipefail; {client} | true")
    assert await player.ends() == 1
    assert player.output == ""
    await service.says(r"client 1: .* -> DISCONNECTED \(goodbye\)")
