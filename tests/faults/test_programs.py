"""The programs are killed and stopped as an operator's machine would do it."""

from __future__ import annotations

import os
import re
import signal
import sys
from pathlib import Path

import pytest_twisted

from tests.faults.conftest import Serve
from tests.faults.service import either
from tests.integration.processes import BIN, LOOPBACK, READY, ROOT, Spawn, free_ports
from tests.integration.test_examples import make_demo, plain_client, processes_with
from tests.integration.test_processes import game_client, http, twistd
from tests.integration.waiting import pause, until


@pytest_twisted.ensureDeferred
async def test_no_beating_client_dies_while_the_service_is_stopped_in_its_tracks(
    spawn: Spawn,
) -> None:
    options = ("--timebomb", "1.5", "--interval", "0.2")
    service = twistd(spawn, *LOOPBACK, *options)
    host = (await service.says(READY))[1]
    players = [game_client(spawn, str(number), host) for number in range(3)]
    for number, player in enumerate(players):
        await player.says(f"{number} UNCALIBRATED")
    os.kill(service.pid, signal.SIGSTOP)
    await pause(3.5)  # more than two timebombs
    os.kill(service.pid, signal.SIGCONT)
    await service.says("stalled for")
    await pause(1.5)
    assert "timebomb)" not in service.output
    await players[0].ends("KILL")
    await service.says(r"client 0: UNCALIBRATED -> DISCONNECTED \(timebomb\)")


@pytest_twisted.ensureDeferred
async def test_a_client_as_people_copy_it_outlives_a_long_stall_and_a_kill(
    serve: Serve, spawn: Spawn
) -> None:
    service = await serve("--interval", "0.5", comes_back=True)
    player = plain_client(spawn, f"http://{service.http}", "--verbose")
    await player.says("^1 is UNCALIBRATED$")
    stall, here = either(6, 30), len(player.output)
    service.signal(signal.SIGSTOP)
    await pause(stall)
    # Each beat has 2 s for its answer, and the next comes within half of 10 s.
    assert stall // 5 <= player.output.count("HEARTBEAT", here) <= stall / 2 + 1
    service.signal(signal.SIGCONT)
    await player.says("^1: http.*: well again$")
    assert (await service.steer("1", "CALIBRATED")).status == 200
    await player.says("^1 is CALIBRATED$")

    here = len(player.output)
    await service.kill()
    await player.says("; trying again$", here)
    await service.start()
    await player.says("^1: http.*: well again$", here)
    assert (await service.steer("1", "RUNNING")).status == 200
    await player.says("^1 is RUNNING$")
    assert await player.ends("TERM") == 0
    await service.process.says(r"client 1: RUNNING -> DISCONNECTED \(goodbye\)")
    assert "Traceback" not in player.output


@pytest_twisted.ensureDeferred
async def test_make_demo_leaves_nothing_behind_in_a_terminal_that_is_closed(
    spawn: Spawn, tmp_path: Path
) -> None:
    demo = make_demo(spawn, tmp_path, ("Ctrl-C ends it", ""))
    await demo.says("Ctrl-C ends it")
    assert await demo.ends() == 0
    await until(lambda: processes_with(f"THIS_TEST={tmp_path}") == [])


@pytest_twisted.ensureDeferred
async def test_under_supervisord_a_killed_service_is_back_and_so_is_its_client(
    spawn: Spawn, tmp_path: Path
) -> None:
    http_port, router_port, pub_port = free_ports(3)
    (tmp_path / "heartbeat.toml").write_text(
        f'http = "tcp:{http_port}:interface=127.0.0.1"\n'
        f'router = "tcp://127.0.0.1:{router_port}"\n'
        f'pub = "tcp://127.0.0.1:{pub_port}"\n'
        "timebomb = 5\ninterval = 0.2\n"
    )
    (tmp_path / "supervisord.conf").write_text(
        f"[supervisord]\nnodaemon=true\nlogfile={tmp_path}/supervisord.log\n"
        f"pidfile={tmp_path}/supervisord.pid\nchildlogdir={tmp_path}\n"
        f"[include]\nfiles={ROOT}/deploy/heartbeat.supervisord.conf\n"
    )
    supervisord = spawn(
        *(BIN / "supervisord", "-c", tmp_path / "supervisord.conf"),
        HEARTBEAT_HOME=sys.prefix,
        HEARTBEAT_CONFIG=str(tmp_path / "heartbeat.toml"),
    )
    spawned = r"spawned: 'heartbeat' with pid (\d+)"
    player = game_client(spawn, "1", f"127.0.0.1:{http_port}")
    first = await player.says(r"1 UNCALIBRATED incarnation=(\d+)")
    first_pid = int(re.findall(spawned, supervisord.output)[-1])
    order = b'{"clientState": "RUNNING"}'
    url = f"http://127.0.0.1:{http_port}/clients/1/state"
    assert await http("PUT", url, order) == 200
    await player.says("1 RUNNING")

    here = len(supervisord.output)
    os.kill(first_pid, signal.SIGKILL)
    second_pid = int((await supervisord.says(spawned, here))[1])
    assert second_pid != first_pid
    await supervisord.says("entered RUNNING state", here)

    async def serves() -> bool:
        try:
            return await http("GET", url.replace("/state", "")) == 200
        except Exception:  # noqa: BLE001 - nobody listens yet
            return False

    await until(serves)
    assert await http("PUT", url, b'{"clientState": "CALIBRATED"}') == 200
    second = await player.says(r"1 CALIBRATED incarnation=(\d+) sequence=3")
    assert second[1] == first[1], "the same life goes on"

    assert await supervisord.ends("TERM") == 0
    assert "stopped: heartbeat" in supervisord.output
