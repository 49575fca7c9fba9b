"""The service is killed, stopped in its tracks, or left alone with a crowd."""

from __future__ import annotations

import resource
import signal
import time
from collections.abc import Iterator

import pytest
import pytest_twisted

from tests.faults.conftest import Serve
from tests.faults.herd import chance
from tests.faults.service import Row, death_of, either
from tests.integration.waiting import PATIENCE, pause


@pytest.mark.fault("SIGKILL under load")
@pytest_twisted.ensureDeferred
async def test_what_was_acknowledged_outlives_a_kill(serve: Serve, row: Row) -> None:
    kills, clients = either(3, 20), 60
    service = await serve("--timebomb", "20", comes_back=True)
    herd = service.herd(clients, timebomb=20, interval=0.1, patience=1, restless=0.5)
    await service.joined(herd)
    for _ in range(kills):
        await pause(0.2 + 0.6 * chance.random())
        await service.kill()
        killed = time.monotonic()
        await service.start()
        await herd.all_answered(PATIENCE)
        row.slower(time.monotonic() - killed)
    herd.restless = 0.0
    await herd.all_answered(PATIENCE)
    herd.rest()
    await service.compare(herd)
    done = sum(herd.tally.values())
    asked = {what: herd.tally[what, 200] for what in ("beat", "steer", "say")}
    assert min(asked.values()) > 0, f"not much of a load: {herd.tally}"
    row.tried = f"{kills} kills, {clients} clients, {done} answers"
    row.judge(herd)
    service.assert_unharmed()


@pytest.mark.fault("SIGSTOP for three timebombs")
@pytest_twisted.ensureDeferred
async def test_a_stall_kills_nobody_who_beats_and_spares_nobody_who_does_not(
    serve: Serve, row: Row
) -> None:
    clients, fuse = either(200, 1_000), 2.0
    service = await serve("--timebomb", str(fuse), "--interval", "0.8")
    herd = service.herd(clients, timebomb=fuse, interval=0.8, patience=fuse / 2)
    await service.joined(herd)
    silent = ("silent-1", "silent-2", "silent-3")
    await service.control(herd, *silent)
    service.signal(signal.SIGSTOP)
    await pause(3 * fuse)
    assert not herd.deaths.keys() & set(silent)
    service.signal(signal.SIGCONT)
    resumed = time.monotonic()
    row.slower(await herd.all_answered(PATIENCE))
    died = await death_of(herd, *silent) - resumed
    assert died < fuse + 6, f"silent clients died {died:.1f} s after SIGCONT"
    await pause(0.5)  # whoever was about to die, too, has
    assert service.process.output.count("stalled for") == 1
    row.tried = f"{3 * fuse:g} s, {clients} clients"
    row.note = f"silent ones died {died:.1f} s after, fuse {fuse:g} s"
    row.judge(herd)
    service.assert_unharmed()


@pytest.fixture
def descriptors() -> Iterator[int]:
    """How many this process may open: as many as it is allowed to allow itself."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.fault("all come back at once")
@pytest_twisted.ensureDeferred
async def test_a_crowd_that_comes_back_at_once_finds_itself_as_it_was(
    serve: Serve, row: Row, descriptors: int
) -> None:
    clients = either(1_000, 9_900)
    # The service lets in half as many connections as it may have descriptors; the
    # operators need some, too.
    needed = 2 * (clients + 100)
    if descriptors < needed:
        pytest.skip(f"{needed} descriptors are needed, {descriptors} allowed")
    fuse, interval = either(3, 20), either(1, 8)
    service = await serve(
        *("--timebomb", str(fuse), "--interval", str(interval)),
        before=("prlimit", f"--nofile={descriptors}:{descriptors}"),
        comes_back=True,
    )
    herd = service.herd(clients, timebomb=fuse, interval=interval, patience=fuse / 2)
    await service.joined(herd, within=interval)
    moved = chance.sample(sorted(herd.members), 100)
    for client_id in moved:
        assert (await service.steer(client_id, "RUNNING")).status == 200
    await herd.all_answered(PATIENCE)
    herd.rest()
    await service.kill()
    await service.start()
    herd.start(within=1.0)
    back = await herd.all_answered(2 * PATIENCE)
    row.slower(back)
    await pause(max(0.0, fuse + 0.5 - back))  # whoever was about to die, has
    herd.rest()
    await service.compare(herd)
    running = {name for name, one in herd.members.items() if one.is_in("RUNNING")}
    assert running == set(moved)
    row.tried = f"{clients} clients"
    row.judge(herd)
    service.assert_unharmed()
