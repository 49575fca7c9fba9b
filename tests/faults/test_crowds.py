"""Crowds: stalls and short fuses among many, all die at once, all read of it."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
import pytest_twisted

from tests.faults.conftest import Serve
from tests.faults.crowd import FUSES
from tests.faults.service import Row, Service, death_of, either
from tests.faults.test_crashes import descriptors
from tests.integration.processes import ROOT, Process, Spawn
from tests.integration.waiting import PATIENCE, pause, until

__all__ = ["descriptors"]

Enter = Callable[..., Process]


@pytest.fixture
def enter(spawn: Spawn) -> Enter:
    """``enter(what, …)`` starts ``tests.faults.crowd``."""

    def start(*words: str) -> Process:
        module = (sys.executable, "-u", "-m", "tests.faults.crowd")
        return spawn(*module, *words, PYTHONPATH=str(ROOT))

    return start


async def told(process: Process, what: str, after: int = 0, bound: float = 240) -> Any:
    """What a crowd has told, once it has."""
    await until(lambda: f"{what} {{" in process.output[after:] or gone(process), bound)
    return json.loads((await process.says(f"^{what} (.*)$", after)).group(1))


def gone(process: Process) -> bool:
    """Whether it has ended, which it shouldn't."""
    return process.status is not None


async def stop_for(service: Service, seconds: float) -> tuple[float, float]:
    """Keep a service from its work; from when to when it was."""
    began = time.monotonic()
    service.signal(signal.SIGSTOP)
    await pause(seconds)
    service.signal(signal.SIGCONT)
    return began, time.monotonic()


@pytest.mark.fault("hiccups after a stall")
@pytest_twisted.ensureDeferred
async def test_stalls_that_come_again_do_not_put_off_the_deaths_of_the_silent(
    serve: Serve, row: Row
) -> None:
    clients, stall, hiccups, fuse = either(100, 500), either(6, 12), either(3, 6), 3.0
    service = await serve("--timebomb", str(fuse), "--interval", "1")
    herd = service.herd(clients, timebomb=fuse, interval=1.0, patience=fuse / 2)
    await service.joined(herd)
    silent = ("silent-1", "silent-2", "silent-3")
    await service.control(herd, *silent)
    _, resumed = await stop_for(service, stall)
    for _ in range(hiccups):
        await stop_for(service, 0.2)
        await pause(1.8)
    died = await death_of(herd, *silent) - resumed
    row.tried = f"{stall} s, {hiccups} times 0.2 s, {clients} clients"
    row.note = f"silent ones died {died:.1f} s after, fuse {fuse:g} s"
    # Not at once either: the stall itself has burnt no fuse.
    assert fuse - 1.0 < died <= fuse + 1.5, row.note
    row.slower(await herd.all_answered(PATIENCE))
    row.judge(herd)
    service.assert_unharmed()


@pytest.mark.fault("short fuses behind a crowd")
@pytest_twisted.ensureDeferred
async def test_who_has_a_short_fuse_does_not_die_behind_a_crowd(
    serve: Serve, enter: Enter, row: Row, descriptors: int
) -> None:
    count, times = either(1_000, 3_000), either(3, 10)
    if descriptors < 5 * count:  # ZeroMQ's peers may have a quarter of them
        pytest.skip(f"{5 * count} descriptors are needed, {descriptors} allowed")
    service = await serve(
        before=("prlimit", f"--nofile={descriptors}:{descriptors}"),
    )
    peers = enter("peers", service.router, str(count))
    await told(peers, "answered")
    fuses = enter("fuses", service.http, service.router, service.pub)
    await told(fuses, "beating")
    await pause(1.0)
    shown = (await service.ask("GET", "/clients")).json()["clients"]
    living = {one["clientID"]: one["timebombSeconds"] for one in shown}
    for fuse in FUSES:
        assert living[f"http-{fuse}"] == living[f"zeromq-{fuse}"] == fuse
    stops = []
    for _ in range(times):
        seen, began = len(peers.output), time.monotonic()
        service.signal(signal.SIGSTOP)
        write(peers, "beat")
        await told(peers, "sent", seen)
        sent = time.monotonic()
        await pause(began + 1.0 - time.monotonic())
        service.signal(signal.SIGCONT)
        stops.append((began, time.monotonic()))
        assert sent < stops[-1][1], "the crowd took longer than the stop"
        await told(peers, "answered", seen)
        row.slower(time.monotonic() - stops[-1][1])
        await pause(1.0)
    write(fuses, "end")
    await told(fuses, "done")
    deaths = [
        json.loads(line.removeprefix("dead "))
        for line in fuses.output.splitlines()
        if line.startswith("dead ")
    ]
    wrong = [death for death in deaths if not was_late(death, stops)]
    row.tried = f"{times} stops, {count} peers"
    row.wrongly_dead = len(wrong)
    row.note = f"{len(deaths) - len(wrong)} died as they themselves were late"
    assert not wrong, wrong
    service.assert_unharmed()


def was_late(death: dict[str, Any], stops: list[tuple[float, float]]) -> bool:
    """Whether a client was late in its last fuse, by more than a quarter of it.

    While the service was stopped, nobody could be late.
    """
    since = death["at"] - death["fuse"]
    for began, ended in reversed(stops):
        if ended > since:
            since -= ended - began
    outside = [
        (due, sent)
        for due, sent in death["late"]
        if sent >= since and sent - due > death["fuse"] / 4
    ]
    return any(
        not any(began <= due and sent <= ended for began, ended in stops)
        for due, sent in outside
    )


def write(process: Process, line: str) -> None:
    """Write to a child's standard input."""
    transport: Any = process.transport
    transport.write(f"{line}\n".encode())


@pytest.mark.parametrize("store", ["memory:", "sqlite:"])
@pytest.mark.fault("everybody dies at once")
@pytest_twisted.ensureDeferred
async def test_who_beats_is_answered_while_everybody_else_dies(
    serve: Serve, enter: Enter, row: Row, store: str
) -> None:
    count = either(20_000, 100_000)
    service = await serve(*(("--store", store) if store == "memory:" else ()))
    doomed = enter("doomed", service.router, service.pub, str(count))
    moment = (await told(doomed, "doomed"))["moment"]
    probe = enter("probe", service.http)
    await told(probe, "probing")
    heard = await told(doomed, "heard")
    write(probe, "end")
    probed = await told(probe, "probed")
    assert probed["beats"] > 0
    row.tried = f"{count} clients, {store}"
    row.lost = count - heard["died"]
    row.recovered = heard["last"]
    row.note = (
        f"slowest of {probed['beats']} beats {probed['slowest'] * 1000:.0f} ms, "
        f"{probed['at'] - moment:+.1f} s from their moment"
    )
    assert (heard["died"], heard["deaths"]) == (count, count)
    assert probed["slowest"] < 1.0, row.note
    assert "stalled for" not in service.process.output
    service.assert_unharmed()


@pytest.mark.fault("many read of many changes")
@pytest_twisted.ensureDeferred
async def test_who_beats_is_answered_while_hundreds_read_of_every_change(
    serve: Serve, enter: Enter, row: Row, descriptors: int
) -> None:
    readers, rate, seconds = either(200, 500), either(500, 1_000), either(4, 20)
    if descriptors < 10 * readers:  # streams may have an eighth of them
        pytest.skip(f"{10 * readers} descriptors are needed, {descriptors} allowed")
    service = await serve(
        "--timebomb", "600", before=("prlimit", f"--nofile={descriptors}:{descriptors}")
    )
    names = [f"seen-{number}" for number in range(rate // 10)]
    for name in names:
        await service.beat(name)
    watchers = enter("watchers", service.http, str(readers))
    await told(watchers, "watching")
    probe = enter("probe", service.http)
    await told(probe, "probing")
    began = time.monotonic()
    for turn in range(10 * seconds):
        state = ("CALIBRATED", "RUNNING")[turn % 2]
        order = {"clientState": state, "clientIDs": names}
        answer = await service.ask("PUT", "/clients/state", json.dumps(order).encode())
        assert answer.status == 200
        await pause(max(0.0, began + (turn + 1) / 10 - time.monotonic()))
    took = time.monotonic() - began
    await pause(1.0)  # what was last to happen is read by then
    write(probe, "end")
    write(watchers, "end")
    probed, watched = await told(probe, "probed"), await told(watchers, "watched")
    changes = 10 * seconds * len(names) + 1  # the probe has registered
    row.tried = f"{readers} readers, {changes / took:.0f} changes a second"
    row.lost = changes - watched["changes"]
    row.note = (
        f"slowest of {probed['beats']} beats {probed['slowest'] * 1000:.0f} ms, "
        f"{probed['long']} over 100 ms; {watched['received'] / took / 1e6:.0f} MB/s"
    )
    assert (watched["cut"], row.lost) == (0, 0)
    assert probed["slowest"] < 1.0, row.note
    assert probed["long"] <= probed["beats"] // 10, row.note
    assert "stalled for" not in service.process.output
    service.assert_unharmed()
