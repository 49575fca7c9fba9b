"""The fleet at real services: an honest one, none, and one that lies."""

from __future__ import annotations

import json
import re
import sys
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.task import LoopingCall

from heartbeat_service.core.heartbeat import Heartbeat
from heartbeat_service.game_client.credentials import NO_CREDENTIALS
from heartbeat_service.simulator import fleet as fleet_module
from heartbeat_service.simulator.display import Display
from heartbeat_service.simulator.fleet import Fleet
from heartbeat_service.simulator.plan import Plan, Transport
from tests.integration.conftest import Running, Serve
from tests.integration.processes import Process, Spawn, free_ports
from tests.integration.waiting import reactor, until

#: The program, less patient with services than it is with real ones.
HASTY = (
    "from heartbeat_service.simulator import __main__, fleet\n"
    "fleet.PATIENCE, fleet.SETTLING = %g, 1.0\n"
    "__main__.main()"
)


def fleet(spawn: Spawn, *options: str, patience: float = 10) -> Process:
    """A fleet that tells its report as JSON."""
    return spawn(sys.executable, "-c", HASTY % patience, "--json", *options)


def told(process: Process) -> dict[str, Any]:
    """The report, which stands behind the lines on how things go."""
    assert "\n{\n" in f"\n{process.output}", process.output
    text = process.output[process.output.index("{\n") :]
    figures: dict[str, Any] = json.loads(text)
    return figures


async def _alive(running: Running, count: int) -> bool:
    alive: int = (await running.get("/summary"))["alive"]
    return alive == count


@pytest_twisted.ensureDeferred
async def test_a_fleet_finds_that_the_service_keeps_its_promises(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fleet_module, "SETTLING", 1.0)
    running = await serve(timebomb=1, interval=0.2)
    plan = Plan(
        clients=60,
        seconds=4,
        transport=Transport.MIXED,
        crash_rate=4,
        pause_rate=4,
        restart_rate=2,
        duplicate_rate=2,
        lossy=0.02,
        skew=0.05,
        slow=0.02,
    )
    one = Fleet(reactor, plan, running.url, NO_CREDENTIALS)
    with Display(one) as display:
        display.every = 1.0
        showing = LoopingCall(display.show)
        showing.start(display.every, now=False)
        figures = await one.run()
        showing.stop()
    assert (figures["kept"], figures["broken"]) == (True, [])
    assert figures["clients"] == 60
    assert figures["registrations"] >= 60
    assert figures["beats"] > 300
    assert figures["publications"] > 60
    assert figures["deathsExpected"] > 0
    assert figures["deathsSeen"] > 0
    assert all(figures["mishaps"].values()), figures["mishaps"]
    assert re.search(r"\d+ s: \d+ RUNNING, .* beats a second", capsys.readouterr().err)


@pytest_twisted.ensureDeferred
async def test_a_fleet_that_is_interrupted_says_goodbye_and_reports(
    serve: Serve, spawn: Spawn
) -> None:
    running = await serve(interval=0.2)
    process = fleet(
        *(spawn, "--server", running.url, "--transport", "mixed", "--clients", "10")
    )
    await until(lambda: _alive(running, 10))
    assert await process.ends("INT") == 0, process.output
    figures = told(process)
    assert (figures["kept"], figures["deathsSeen"]) == (True, 0)
    assert await _alive(running, 0)


@pytest_twisted.ensureDeferred
async def test_no_other_fleets_process_has_the_same_instance(
    serve: Serve, spawn: Spawn
) -> None:
    running = await serve(interval=0.2)
    instances = set()
    for _ in range(2):
        process = fleet(spawn, "--server", running.url, "--clients", "1")
        await until(lambda: _alive(running, 1))
        instances.add((await running.get("/clients/fleet-1"))["instanceID"])
        assert await process.ends("KILL") == -9
        await running.kick("fleet-1")
    assert len(instances) == 2


@pytest_twisted.ensureDeferred
async def test_a_fleet_without_a_service_says_so(spawn: Spawn) -> None:
    server = f"http://127.0.0.1:{free_ports(1)[0]}"
    process = fleet(spawn, "--server", server, patience=0.5)
    assert await process.ends() == 3, process.output
    assert f"{server}: no beat was answered in 0.5 s\n" in process.output
    assert "Traceback" not in process.output


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("option", "value", "why"),
    [
        ("--transport", "smoke", "--transport: expected http, zeromq or mixed"),
        ("--prefix", "a b", "--prefix: "),
        ("--label", "room", "--label: expected NAME:VALUE"),
        (
            "--server",
            "ftp://a",
            "--server: expected http[s]://HOST:PORT, got 'ftp://a'",
        ),
    ],
)
async def test_a_wrong_use_of_the_fleet_is_explained(
    spawn: Spawn, option: str, value: str, why: str
) -> None:
    process = fleet(spawn, option, value)
    assert await process.ends() == 2, process.output
    assert why in process.output
    assert "Traceback" not in process.output


@pytest_twisted.ensureDeferred
async def test_a_service_whose_timebombs_go_off_too_early_is_found_out(
    serve: Serve, spawn: Spawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_soon(heartbeat: Heartbeat) -> None:
        heartbeat.hold(0)

    monkeypatch.setattr(Heartbeat, "fall_late", too_soon)
    running = await serve(timebomb=1, interval=0.1)
    process = fleet(
        *(spawn, "--server", running.url, "--clients", "20", "--seconds", "2"),
        *("--crash-rate", "30"),
    )
    assert await process.ends() == 1, process.output
    figures = told(process)
    assert (figures["kept"], figures["missedDeaths"]) == (False, 0)
    assert figures["falseDeaths"] > 0
    assert "with a fuse of 1 s" in figures["broken"][0]
