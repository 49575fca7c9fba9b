"""``heartbeat-fleet`` on real sockets: at an honest service, and at one that isn't."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
import pytest_twisted

from heartbeat_service.core.heartbeat import Heartbeat, Stage
from tests.integration.conftest import Serve
from tests.integration.processes import Process, Spawn
from tests.integration.waiting import until

MISCHIEF = (
    *("--crash-rate", "6", "--pause-rate", "6", "--restart-rate", "6"),
    *("--duplicate-rate", "3", "--lossy", "0.02", "--skew", "0.05", "--slow", "0.05"),
)


def fleet(spawn: Spawn, server: str, *options: str) -> Process:
    """The program."""
    program = (sys.executable, "-m", "heartbeat_service.simulator")
    return spawn(*program, "--server", server, *options)


def report(process: Process) -> dict[str, Any]:
    """What it has told as JSON, behind what it showed meanwhile."""
    told: dict[str, Any] = json.loads(process.output[process.output.index("{") :])
    return told


@pytest_twisted.ensureDeferred
async def test_an_honest_service_keeps_all_promises_whatever_a_fleet_does(
    serve: Serve, spawn: Spawn
) -> None:
    running = await serve(timebomb=1.0, interval=0.2)
    some = ("--clients", "40", "--seconds", "5", "--json", "--label", "room:A,B")
    process = fleet(spawn, running.url, *some, "--transport", "mixed", *MISCHIEF)
    assert await process.ends() == 0, process.output
    told = report(process)
    assert told["kept"]
    assert told["broken"] == []
    assert told["beats"] > 100
    assert told["registrations"] > 40
    assert told["deathsSeen"] == told["deathsExpected"] > 0
    assert told["publications"] > told["registrations"]
    assert (await running.get("/clients"))["clients"] == []  # all said Goodbye, or died


@pytest_twisted.ensureDeferred
async def test_a_service_that_kills_too_soon_is_found_out(
    serve: Serve, spawn: Spawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_soon(heartbeat: Heartbeat) -> None:
        heartbeat._light(Stage.LATE, 0.05)

    monkeypatch.setattr(Heartbeat, "fall_late", too_soon)
    running = await serve(timebomb=2.0, interval=0.2)
    some = ("--clients", "10", "--seconds", "4", "--pause-rate", "30")
    process = fleet(spawn, running.url, *some)
    assert await process.ends() == 1, process.output
    assert "with a fuse of 2 s" in process.output
    assert "A promise was broken." in process.output


@pytest_twisted.ensureDeferred
async def test_it_ends_at_ctrl_c_with_goodbyes_and_a_report(
    serve: Serve, spawn: Spawn
) -> None:
    running = await serve(timebomb=60.0, interval=0.5)
    process = fleet(spawn, running.url, "--clients", "5", "--seconds", "600")

    async def all_live() -> bool:
        return len((await running.get("/clients"))["clients"]) == 5

    await until(all_live)
    assert await process.ends("INT") == 0, process.output
    assert "No promise was broken." in process.output
    assert (await running.get("/clients"))["clients"] == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--clients", "none"], "none"),
        (["--crash-rate", "-1"], "--crash-rate: expected 0 to 60"),
        (["--transport", "pigeon"], "--transport: expected http, zeromq or mixed"),
        (["--prefix", "a b"], "--prefix: "),
        (["--label", "room"], "--label: expected NAME:VALUE"),
        (["--stall-rate", "1"], "--stall-rate: only with --virtual"),
        (["--server", "ftp://x"], "expected http"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_what_it_cannot_use_is_told_in_a_sentence(
    spawn: Spawn, options: list[str], words: str
) -> None:
    process = fleet(spawn, "http://127.0.0.1:1", *options)
    assert await process.ends() == 2
    assert words in process.output
    assert "Traceback" not in process.output
