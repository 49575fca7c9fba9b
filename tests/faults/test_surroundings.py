"""The clock of the machine is set, its network is cut, and SIGHUPs come in a storm."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

import pytest
import pytest_twisted
from attrs import define, field
from twisted.internet.task import LoopingCall
from zmq import curve_keypair

from heartbeat_service.curve_keys import make_server_keys
from tests.faults.conftest import Serve
from tests.faults.herd import Word
from tests.faults.service import LONG, Row, Service, death_of, either
from tests.integration.processes import Process
from tests.integration.waiting import PATIENCE, pause

DAY = 86_400


@define
class WallClock:
    """The wall clock of one process.

    :ivar command: what runs that process.
    """

    command: tuple[str, ...]
    _file: Path

    def set(self, seconds: int) -> None:
        """Set it forward by so much, from the true time."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{seconds:+d}\n", "ascii")
        new.replace(self._file)


@pytest.fixture
def wall_clock(tmp_path: Path) -> WallClock:
    """A wall clock that can be set, for one process."""
    package = find_spec("libfaketime")
    if package is None or package.origin is None:
        pytest.skip("libfaketime is not installed")
    folder = Path(package.origin).parent / "vendor" / "libfaketime" / "src"
    file = tmp_path / "faketime"
    clock = WallClock(
        (
            "env",
            f"LD_PRELOAD={folder / 'libfaketime.so.1'}",
            f"FAKETIME_TIMESTAMP_FILE={file}",
            "FAKETIME_NO_CACHE=1",
            "FAKETIME_DONT_FAKE_MONOTONIC=1",
            # It moves the end of a wait for a lock by a day, too, unless it is told
            # how long each is: for the interpreter's own lock, 5 ms.
            "FAKETIME_WAIT_MS=5",
        ),
        file,
    )
    clock.set(DAY)
    told = subprocess.run(
        [*clock.command, sys.executable, "-c", "import time; print(time.time())"],
        capture_output=True,
        text=True,
        check=True,
    )
    if abs(float(told.stdout) - time.time() - DAY) > PATIENCE:
        pytest.skip("libfaketime has no effect here")
    clock.set(0)
    return clock


async def ahead(service: Service, client_id: str) -> float:
    """How many seconds the service's clock is ahead, as a new client shows."""
    answer = await service.beat(client_id)
    assert answer.status == 200
    record = (await service.ask("GET", f"/clients/{client_id}")).json()
    registered_at = datetime.fromisoformat(record["registeredAt"])
    if registered_at.tzinfo is None:
        registered_at = registered_at.replace(tzinfo=UTC)
    return registered_at.timestamp() - time.time()


@pytest.mark.fault("clock of the machine set")
@pytest_twisted.ensureDeferred
async def test_who_sets_the_clock_kills_nobody_and_spares_nobody(
    serve: Serve, row: Row, wall_clock: WallClock
) -> None:
    fuse = 1.2
    service = await serve(
        *("--timebomb", str(fuse), "--interval", "0.3"),
        before=wall_clock.command,
        comes_back=True,
    )
    herd = service.herd(
        20, timebomb=fuse, interval=0.3, patience=fuse / 2, restless=0.1
    )
    await service.joined(herd)
    slowest_death = 0.0
    moves = (DAY, -DAY, 0)
    for move in moves:
        registered = await service.control(herd, "silent")
        wall_clock.set(move)
        shown = await ahead(service, f"new-{move}")
        assert abs(shown - move) < PATIENCE, f"the clock didn't move: {shown}"
        died = await death_of(herd, "silent") - registered
        assert fuse - 0.5 < died < fuse + 3, f"it died after {died:.1f} s"
        slowest_death = max(slowest_death, died)
        await herd.all_answered(PATIENCE)
        if LONG:  # also for a service that starts by the new clock
            service.assert_unharmed()
            await service.kill()
            await service.start()
            row.slower(await herd.all_answered(PATIENCE))
    herd.restless = 0.0
    await herd.all_answered(PATIENCE)
    herd.rest()
    await service.compare(herd)
    row.tried = "+1 day, -1 day, back" + (", restarts" if LONG else "")
    row.note = f"silent ones died after {slowest_death:.1f} s, fuse {fuse:g} s"
    row.judge(herd)
    service.assert_unharmed()


@pytest.mark.fault("storm of SIGHUPs")
@pytest_twisted.ensureDeferred
async def test_a_storm_of_hangups_keeps_nobody_waiting(
    serve: Serve, row: Row, tmp_path: Path
) -> None:
    folder, fuse = tmp_path / "keys", 1.2
    make_server_keys(folder)
    count, hangups = either(1_000, 5_000), either(50, 200)
    for number in range(count):
        public, _ = curve_keypair()
        key = f'curve\n    public-key = "{public.decode()}"\n'
        (folder / f"headset-{number}.key").write_text(key)
    service = await serve("--timebomb", str(fuse), "--curve-keys", folder)
    await service.beat("1")
    slowest, sent = 0.0, 0

    def hang_up() -> None:
        nonlocal sent
        service.signal(signal.SIGHUP)
        sent += 1

    storm = LoopingCall(hang_up)
    storm.start(0.005)
    try:
        while sent < hangups:
            began = time.monotonic()
            assert (await service.beat("1")).status == 200
            slowest = max(slowest, time.monotonic() - began)
    finally:
        storm.stop()
    await service.process.says(f"keys reloaded: {count} clients")
    (folder / "headset-0.key").unlink()
    service.signal(signal.SIGHUP)
    await service.process.says(f"keys reloaded: {count - 1} clients")
    reloads = service.process.output.count("keys reloaded")
    row.tried = f"{sent}, {count:,} keys"
    row.wrongly_dead = service.process.output.count("(timebomb)")
    row.note = f"read {reloads} times; the slowest beat took {slowest * 1000:.0f} ms"
    assert row.wrongly_dead == 0
    assert slowest < fuse, row.note
    service.assert_unharmed()


@define
class Network:
    """A network of this machine and a namespace, with a cable between them.

    :ivar address: this machine's address on it.
    :ivar inside: the words of a command that runs another one in the namespace.
    """

    address: str
    inside: tuple[str, ...]
    _device: str

    def cut(self) -> None:
        """Pull the cable."""
        _ip("link", "set", self._device, "down")

    def join(self) -> None:
        """Put it back."""
        _ip("link", "set", self._device, "up")


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


@pytest.fixture
def network() -> Iterator[Network]:
    """A network that can be cut; it is gone after the test."""
    number = os.getpid() % 10_000
    # Of the range that is set aside for tests of networks.
    subnet = f"198.18.{number % 256}"
    name, here, there = f"hb{number}", f"hbh{number}", f"hbt{number}"
    try:
        _ip("netns", "add", name)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no network namespaces: {getattr(error, 'stderr', error)}")
    try:
        _ip("link", "add", here, "type", "veth", "peer", "name", there, "netns", name)
        _ip("addr", "add", f"{subnet}.1/30", "dev", here)
        _ip("link", "set", here, "up")
        _ip("-n", name, "addr", "add", f"{subnet}.2/30", "dev", there)
        _ip("-n", name, "link", "set", there, "up")
        yield Network(f"{subnet}.1", ("ip", "netns", "exec", name), here)
    finally:
        with suppress(subprocess.CalledProcessError):
            _ip("link", "del", here)
        _ip("netns", "del", name)


@define
class Players:
    """Game clients, and what they and the service say of each other.

    :ivar programs: which runs for which client.
    :ivar lost: where the service holds something else than was told.
    """

    programs: dict[str, Process]
    _service: Service
    lost: list[str] = field(factory=list)

    async def agree(self, state: str) -> dict[str, Word]:
        """Steer everyone, who follows; what each was told is what is held."""
        told: dict[str, Word] = {}
        for client_id, program in self.programs.items():
            before = len(program.output)
            assert (await self._service.steer(client_id, state)).status == 200
            said = rf" {client_id} {state} incarnation=(\d+) sequence=(\d+)$"
            pair = (await program.says(said, before)).groups()
            told[client_id] = Word(int(pair[0]), int(pair[1]), state)
        await self.compare(told)
        return told

    async def compare(self, told: dict[str, Word]) -> None:
        """Whoever the service doesn't hold as it was told is lost."""
        answer = await self._service.ask("GET", "/clients")
        assert answer.status == 200
        held = {
            record["clientID"]: Word(
                record["incarnation"], record["sequence"], record["clientState"]
            )
            for record in answer.json()["clients"]
        }
        self.lost += [
            f"{client_id}: {word} was told, {held.get(client_id)} is held"
            for client_id, word in told.items()
            if held.get(client_id) != word
        ]


@pytest.mark.fault("network cut and joined")
@pytest_twisted.ensureDeferred
async def test_a_short_cut_kills_nobody_and_after_a_long_one_all_are_back(
    serve: Serve, spawn: Callable[..., Process], row: Row, network: Network
) -> None:
    fuse, count = 5.0 if LONG else 2.4, 6 if LONG else 3
    service = await serve(
        *("--timebomb", str(fuse), "--interval", "0.4", "--allow-open-control"),
        listening=(
            *("--http", f"tcp:0:interface={network.address}"),
            *("--router", f"tcp://{network.address}:*"),
            *("--pub", f"tcp://{network.address}:*"),
        ),
    )
    ids = [f"player-{number}" for number in range(count)]
    program = (sys.executable, "-m", "heartbeat_service.game_client")
    players = Players(
        {
            client_id: spawn(
                *(*network.inside, *program),
                *("--id", client_id, "--server", f"http://{service.http}"),
            )
            for client_id in ids
        },
        service,
    )
    for client_id, player in players.programs.items():
        await player.says(f" {client_id} UNCALIBRATED incarnation=")

    acknowledged = await players.agree("CALIBRATED")
    network.cut()
    await pause(fuse / 3)
    network.join()
    await pause(fuse)  # whoever was about to die, has
    row.wrongly_dead = service.process.output.count("(timebomb)")
    assert row.wrongly_dead == 0, service.process.output
    await players.compare(acknowledged)
    await players.agree("RUNNING")

    here = len(service.process.output)
    network.cut()
    await pause(2 * fuse)
    for client_id in ids:
        await service.process.says(rf"client {client_id}: .*\(timebomb\)", here)
    network.join()
    joined = time.monotonic()
    here = len(service.process.output)
    for client_id in ids:
        await service.process.says(
            rf"client {client_id}: DISCONNECTED -> UNCALIBRATED \(heartbeat\)", here
        )
    row.slower(time.monotonic() - joined)
    await players.agree("CALIBRATED")
    row.lost = len(players.lost)
    assert not players.lost
    row.tried = f"{fuse / 3:.1f} s and {2 * fuse:g} s, {count} clients"
    row.note = f"fuse {fuse:g} s; all {count} died in the long cut, as they should"
    for player in players.programs.values():
        assert await player.ends("TERM") == 0
        assert "Traceback" not in player.output
    service.assert_unharmed()
