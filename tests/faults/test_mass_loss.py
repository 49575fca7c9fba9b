"""Many lose their network at once, and one is silent as planned."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from tests.faults.cable import Cable
from tests.faults.conftest import Serve
from tests.faults.service import Row, Service, death_of, either
from tests.integration.waiting import PATIENCE, pause, until

SHARE = ("--mass-loss", "0.3")


@pytest.fixture
def cable() -> Iterator[Cable]:
    """A cable that is taken away after the test."""
    cable = Cable()
    yield cable
    pytest_twisted.blockon(Deferred.fromCoroutine(cable.remove()))


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(
            SHARE, marks=pytest.mark.fault("half cut off, --mass-loss 0.3"), id="held"
        ),
        pytest.param(
            (), marks=pytest.mark.fault("half cut off, no --mass-loss"), id="dead"
        ),
    ],
)
@pytest_twisted.ensureDeferred
async def test_half_of_all_lose_their_network_for_twice_the_fuse(
    serve: Serve, row: Row, cable: Cable, options: tuple[str, ...]
) -> None:
    fuse, half = float(either(2, 5)), 100
    service = await serve("--timebomb", str(fuse), "--interval", "0.4", *options)
    cable.lay(service.http)
    how = {"timebomb": fuse, "interval": 0.4, "patience": fuse / 2}
    near = service.herd(half, name="near", **how)
    far = service.herd(half, name="far", http=cable.http, **how)
    await service.joined(near)
    await service.joined(far)
    for client_id in [*far.members][::2]:
        assert (await service.steer(client_id, "RUNNING")).status == 200
    await far.all_answered(PATIENCE)
    before = {name: member.told for name, member in far.members.items()}
    cable.cut()
    await pause(2 * fuse)
    dead = far.deaths.keys() & far.members.keys()
    held = (await service.ask("GET", "/mass-loss")).json()["held"]
    cable.join()
    row.slower(await far.all_answered(PATIENCE))
    after = {name: member.told for name, member in far.members.items()}
    row.tried = f"{2 * fuse:g} s, {half} of {2 * half} clients, fuse {fuse:g} s"
    if options:
        assert set(held) == far.members.keys()
        assert after == before, "all live on, in life and state"
        row.note = f"{half} held, all live on in their states"
        row.judge(near, far)
        assert (await service.ask("GET", "/mass-loss")).json()["hold"] is None
    else:
        assert held == []
        assert dead == far.members.keys()
        row.note = f"{half} died, as they should, and began anew"
        row.judge(near)
    service.assert_unharmed()


async def held(service: Service, *client_ids: str) -> dict[str, Any]:
    """Wait until all of these are held; what is told of the hold then."""
    answers: list[dict[str, Any]] = []

    async def all_held() -> bool:
        answers[:] = [(await service.ask("GET", "/mass-loss")).json()]
        return set(answers[0]["held"]) == set(client_ids)

    await until(all_held)
    return answers[0]


@pytest.mark.fault("hold that ends by time")
@pytest_twisted.ensureDeferred
async def test_who_is_still_silent_dies_when_the_hold_ends(
    serve: Serve, row: Row
) -> None:
    fuse, hold = 1.0, float(either(3, 20))
    service = await serve(
        *("--timebomb", str(fuse), "--interval", "0.4", *SHARE),
        *("--mass-loss-hold", str(hold)),
    )
    herd = service.herd(10, timebomb=fuse, interval=0.4, patience=fuse / 2)
    await service.joined(herd)
    silent = [f"silent-{number}" for number in range(10)]
    began = time.monotonic()
    registered = await service.control(herd, *silent)
    await held(service, *silent)
    died = await death_of(herd, *silent)
    first = min(herd.deaths[client_id] for client_id in silent)
    assert first - began >= fuse + hold - 0.2, "nobody dies before"
    assert died - registered <= fuse + hold + 2.0, "the hold lets go"
    row.tried = f"{hold:g} s, {len(silent)} of {len(silent) + 10} silent"
    row.note = f"died {died - began:.1f} s after their beat, fuse {fuse:g} s"
    row.judge(herd)
    service.assert_unharmed()


@pytest.mark.fault("hold that an operator ends")
@pytest_twisted.ensureDeferred
async def test_an_operator_lets_go_whoever_is_held(serve: Serve, row: Row) -> None:
    fuse = 1.0
    service = await serve(
        *("--timebomb", str(fuse), "--interval", "0.4", *SHARE),
        *("--mass-loss-hold", "600"),
    )
    herd = service.herd(10, timebomb=fuse, interval=0.4, patience=fuse / 2)
    await service.joined(herd)
    silent = [f"silent-{number}" for number in range(10)]
    await service.control(herd, *silent)
    assert (await service.steer(silent[0], "RUNNING")).status == 200
    hold = await held(service, *silent)
    back = await service.beat(silent[0], timebombSeconds=600)
    assert back.json()["body"]["clientState"] == "RUNNING"
    asked = time.monotonic()
    assert (await service.ask("DELETE", "/mass-loss?hold=1")).status == 204
    assert (await held(service, *silent[1:]))["hold"] == hold["hold"]
    assert (
        await service.ask("DELETE", f"/mass-loss?hold={hold['hold']}")
    ).status == 204
    died = await death_of(herd, *silent[1:]) - asked
    assert died < 2.0, f"they died {died:.1f} s after the order"
    assert (await service.ask("GET", f"/clients/{silent[0]}")).status == 200
    row.tried = f"{len(silent)} of {len(silent) + 10} silent"
    row.note = f"one came back and lives on, the others died {died * 1000:.0f} ms after"
    row.judge(herd)
    service.assert_unharmed()


@pytest.mark.fault("planned silence over two restarts")
@pytest_twisted.ensureDeferred
async def test_a_planned_silence_outlives_a_stop_and_a_kill(
    serve: Serve, row: Row
) -> None:
    fuse, silence = 1.0, float(either(25, 60))
    service = await serve("--timebomb", str(fuse), "--interval", "0.4", comes_back=True)
    for client_id in ("silent", "back"):
        assert (await service.beat(client_id)).status == 200
        assert (await service.steer(client_id, "RUNNING")).status == 200
        order = json.dumps({"seconds": silence}).encode()
        answer = await service.ask("PUT", f"/clients/{client_id}/silence", order)
        assert answer.status == 200
    granted = time.monotonic()

    async def left(client_id: str) -> float | None:
        """Seconds of its silence that are left; None without one."""
        answer = await service.ask("GET", f"/clients/{client_id}")
        assert answer.status == 200, answer
        record = answer.json()
        assert (record["clientState"], record["late"]) == ("RUNNING", False)
        seconds: float | None = record["silentSeconds"]
        return seconds

    for signal in ("TERM", "KILL"):
        await pause(1.5 * fuse)
        await service.process.ends(signal)
        await service.start()
        started = time.monotonic()
        for client_id in ("silent", "back"):
            seconds = await left(client_id)
            assert seconds is not None
            elapsed = time.monotonic() - granted
            assert abs(seconds - max(fuse, silence - elapsed)) < 1.0
    answer = await service.beat("back", clientState="RUNNING", timebombSeconds=600)
    assert answer.json()["body"]["clientState"] == "RUNNING"
    assert await left("back") is None

    async def is_dead() -> bool:
        return (await service.ask("GET", "/clients/silent")).status == 404

    await until(is_dead, silence + PATIENCE)
    lasted, due = time.monotonic() - granted, max(silence, started + fuse - granted)
    assert due - 0.5 < lasted < due + 3.0, f"it lasted {lasted:.1f} s of {due:.1f} s"
    row.tried = f"{silence:g} s, a stop and a SIGKILL, fuse {fuse:g} s"
    row.note = f"the silent one died after {lasted:.1f} s, the other's beat ended it"
    assert (await service.ask("GET", "/clients/back")).status == 200
    service.assert_unharmed()
