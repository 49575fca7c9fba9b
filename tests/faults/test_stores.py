"""The store's disk is full, its file damaged, locked or not to be written."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
import pytest_twisted
from attrs import frozen

from tests.faults.conftest import Serve
from tests.faults.herd import Herd
from tests.faults.service import LONG, Row, Service
from tests.integration.processes import Process
from tests.integration.waiting import PATIENCE, pause, until

FUSE, INTERVAL = 3.0, 0.3
OPTIONS = ("--timebomb", str(FUSE), "--interval", str(INTERVAL))

#: The fuse of a client that is to die while the store is in trouble, in seconds: long
#: enough that on a busy machine, too, the trouble comes first.
SILENT = 2 * FUSE

#: How long a store is left in trouble, in seconds.
TROUBLE = 3.0 if LONG else 1.2


async def begin(service: Service) -> Herd:
    """Twenty clients that beat."""
    herd = service.herd(20, timebomb=FUSE, interval=INTERVAL, patience=FUSE / 2)
    await service.joined(herd)
    await herd.all_answered(PATIENCE)  # they have said that they are UNCALIBRATED
    return herd


@frozen
class Struck:
    """Clients whom the trouble is going to strike at a bad moment.

    "silent" beats no more, "restarted" is about to begin a new life, and "steered"
    has yet to tell that it is RUNNING.

    :ivar silent_since: when they were registered, by ``time.monotonic``.
    :ivar former: the incarnation that ends with the restart.
    """

    silent_since: float
    former: int


async def some_to_strike(service: Service, herd: Herd) -> Struck:
    """Register them."""
    await service.control(herd, "steered", timebombSeconds=60)
    assert (await service.steer("steered", "RUNNING")).status == 200
    reported = await service.beat("restarted", clientState="UNCALIBRATED")
    assert reported.status == 200
    former = reported.json()["body"]["incarnation"]
    silent_since = await service.control(herd, "silent", timebombSeconds=SILENT)
    return Struck(silent_since, former)


async def refuses(service: Service, client_id: str, **more: str) -> bool:
    """Whether a beat that has to be kept is refused, in the way that is promised."""
    answer = await service.beat(client_id, **more)
    if answer.status == 200:
        return False
    assert answer.status == 503
    assert answer.json()["code"] == "OVERLOADED"
    assert int(answer.headers["retry-after"]) > 0
    return True


async def unready(service: Service, reason: str) -> None:
    """The service says that it isn't ready, and why."""
    answer = await service.ask("GET", "/readyz")
    assert answer.status == 503
    assert reason in answer.json()["detail"]


async def suffers(service: Service, herd: Herd, struck: Struck, reason: str) -> None:
    """While the store keeps nothing, nothing is told, and everyone is well."""
    await service.ask("GET", "/readyz")  # which finds the trouble out
    await in_trouble(service)
    kept = await listed(service)
    refused = herd.tally["beat", 503]
    answered = herd.tally["beat", 200]
    dead = struck.silent_since + SILENT + 0.5
    end = max(time.monotonic() + TROUBLE, dead)
    number = 0
    while time.monotonic() < end:
        number += 1
        assert await refuses(service, "restarted")
        assert await refuses(service, "steered", clientState="RUNNING")
        assert await refuses(service, f"late-{number}")
        assert (await service.steer("herd-0", "RUNNING")).status == 503
        await unready(service, reason)
        await pause(0.1)
    assert herd.tally["beat", 503] == refused, "a beat was refused"
    assert herd.tally["beat", 200] > answered
    # Its fuse is over; nobody hears of it before the store has it.
    assert not herd.deaths.keys() & {"silent", "restarted", "steered"}
    # So it is shown as the store has it, as are those whose changes it refuses.
    silent = await service.ask("GET", "/clients/silent")
    assert (silent.status, silent.json()["secondsToTimebomb"]) == (200, 0)
    assert await listed(service) == kept
    assert kept["steered"][0] == "RUNNING"
    assert not any(herd.heard[f"late-{each + 1}"] for each in range(number))


async def listed(service: Service) -> dict[str, tuple[str, int, int]]:
    """What the list of clients shows, by the client's ID."""
    answer = await service.ask("GET", "/clients")
    assert answer.status == 200
    return {
        each["clientID"]: (each["clientState"], each["sequence"], each["incarnation"])
        for each in answer.json()["clients"]
    }


async def in_trouble(service: Service) -> None:
    """Register until that is refused: a little may still fit."""
    deadline = time.monotonic() + PATIENCE
    number = 0
    while not await refuses(service, f"last-{number}"):
        number += 1
        assert time.monotonic() < deadline, "nothing is ever refused"


async def makes_up(service: Service, herd: Herd, struck: Struck, row: Row) -> None:
    """It recovers, and tells of all that was held back."""
    mended = time.monotonic()
    while await refuses(service, "restarted"):
        assert time.monotonic() < mended + PATIENCE, "it doesn't recover"
        await pause(0.05)
    row.slower(time.monotonic() - mended)
    lives = (await service.ask("GET", "/clients/restarted/history")).json()["lives"]
    [present, former] = [life for life in lives if life["incarnation"] >= struck.former]
    assert (present["reason"], former["reason"]) == (None, "reconnect")
    assert former["incarnation"] == struck.former

    told = await service.beat("steered", clientState="RUNNING")
    assert told.status == 200
    await recovers(service, herd, row)
    await until(lambda: "silent" in herd.deaths)
    # That it has told so is kept as well.
    again = await service.beat("steered")
    assert again.json()["body"]["clientState"] == "UNCALIBRATED"
    life = told.json()["body"]["incarnation"]
    assert again.json()["body"]["incarnation"] > life


async def recovers(service: Service, herd: Herd, row: Row) -> None:
    """By itself."""
    await ready(service, row)
    assert (await service.beat("after")).status == 200
    await herd.all_answered(PATIENCE)


async def ready(service: Service, row: Row) -> None:
    """The service becomes ready by itself, which is how long it takes to recover."""
    mended = time.monotonic()
    while (await service.ask("GET", "/readyz")).status != 200:
        assert time.monotonic() < mended + PATIENCE, "it doesn't recover"
        await pause(0.05)
    row.slower(time.monotonic() - mended)


async def survives(service: Service, herd: Herd, row: Row) -> None:
    """A crash: whatever was acknowledged is there after it."""
    service.assert_unharmed()
    after = (await service.ask("GET", "/clients/after")).json()
    await service.kill()
    herd.rest()
    await service.start()
    await service.compare(herd)
    again = (await service.ask("GET", "/clients/after")).json()
    for name in ("incarnation", "sequence", "clientState"):
        assert again[name] == after[name]
    herd.start(within=0.1)
    await herd.all_answered(PATIENCE)
    row.judge(herd)
    service.assert_unharmed()


@pytest.mark.fault("disk full: no file may grow")
@pytest_twisted.ensureDeferred
async def test_what_can_not_be_written_is_not_acknowledged(
    serve: Serve, row: Row
) -> None:
    service = await serve(*OPTIONS, comes_back=True)
    herd = await begin(service)
    struck = await some_to_strike(service, herd)
    pid, unlimited = service.process.pid, resource.RLIM_INFINITY
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, unlimited))
    await suffers(service, herd, struck, "heartbeat.sqlite")
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (unlimited, unlimited))
    await makes_up(service, herd, struck, row)
    await survives(service, herd, row)
    row.tried = f"{TROUBLE:g} s, 20 clients"


Mount = Callable[..., None]


@pytest.fixture
def mount() -> Iterator[Mount]:
    """``mount(…, folder)``; whatever is mounted is unmounted after the test."""
    mounted: list[str] = []

    def run(*words: str | Path) -> None:
        command = ["mount", *(str(word) for word in words)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"nothing can be mounted: {done.stderr.strip()}")
        if command[-1] not in mounted:
            mounted.append(command[-1])

    yield run
    for folder in reversed(mounted):
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.fault("disk full: 1 MiB")
@pytest_twisted.ensureDeferred
async def test_a_full_disk_is_outlived(
    serve: Serve, row: Row, tmp_path: Path, mount: Mount
) -> None:
    if not LONG:
        pytest.skip("in the long form only")
    disk = tmp_path / "disk"
    disk.mkdir()
    mount("-t", "tmpfs", "-o", "size=1m", "tmpfs", disk)
    service = await serve(*OPTIONS, comes_back=True, store=disk / "heartbeat.sqlite")
    herd = await begin(service)
    struck = await some_to_strike(service, herd)
    filler = disk / "filler"
    with filler.open("wb", 0) as full, pytest.raises(OSError, match="No space left"):
        full.writelines(bytes(512) for _ in range(4096))
    await suffers(service, herd, struck, "full")
    filler.unlink()
    await makes_up(service, herd, struck, row)
    await survives(service, herd, row)
    row.tried = f"{TROUBLE:g} s, 20 clients"


#: Takes the write lock of a database, tells so, and keeps it.
_LOCK = (
    "import sqlite3, sys, time; "
    "taken = sqlite3.connect(sys.argv[1], isolation_level=None); "
    "taken.execute('BEGIN EXCLUSIVE'); print('locked', flush=True); "
    "time.sleep(600)"
)


@pytest.mark.fault("store locked by another program")
@pytest_twisted.ensureDeferred
async def test_a_lock_is_waited_for(
    serve: Serve, spawn: Callable[..., Process], row: Row, tmp_path: Path
) -> None:
    async def lock() -> Process:
        locker = spawn(sys.executable, "-c", _LOCK, tmp_path / "heartbeat.sqlite")
        await locker.says("locked")
        return locker

    service = await serve(*OPTIONS, comes_back=True)
    herd = await begin(service)
    struck = await some_to_strike(service, herd)
    locker = await lock()
    await suffers(service, herd, struck, "locked")
    await locker.ends("KILL")
    await makes_up(service, herd, struck, row)

    service.assert_unharmed()
    await service.kill()
    locker = await lock()
    await service.start()
    await in_trouble(service)
    await unready(service, "locked")
    await locker.ends("KILL")
    await recovers(service, herd, row)
    await survives(service, herd, row)
    row.tried = "while it runs, at its start"


async def stopped(service: Service) -> Herd:
    """A herd at rest, and its service stopped, so that its file is complete."""
    herd = await begin(service)
    herd.rest()
    assert await service.process.ends("TERM") in (0, -signal.SIGTERM)
    return herd


async def cannot_open(
    service: Service, herd: Herd, row: Row, reason: str, mend: Callable[[], object]
) -> None:
    """Start with a store that can't be opened, and mend it.

    :param reason: what the service should say about it.
    """
    await service.start()
    herd.start(within=0.5)
    answered = herd.tally["beat", 200]
    end = time.monotonic() + TROUBLE / 2
    while time.monotonic() < end:
        assert await refuses(service, "late")
        await unready(service, reason)
        await pause(0.1)
    assert herd.tally["beat", 200] == answered, "a beat was answered"
    mend()
    await ready(service, row)
    await herd.all_answered(PATIENCE)
    assert (await service.beat("after")).status == 200
    await survives(service, herd, row)
    row.tried = f"{TROUBLE / 2:g} s, 20 clients"


def write_garbage(path: Path) -> str:
    """Another file altogether."""
    path.write_bytes(os.urandom(50_000))
    return "not a database"


def damage(path: Path) -> str:
    """Two pages are gone."""
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(8192))
    return "heartbeat.sqlite: "


def raise_version(path: Path) -> str:
    """A later version of the service has written it."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    return "version 99"


def write_nonsense(path: Path) -> str:
    """A client has registered when no calendar shows it."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE clients SET registered_at = 1e300")
    return "clients, the row ('herd-"


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(spoil, marks=pytest.mark.fault(f"store's file {what}"))
        for spoil, what in [
            (write_garbage, "is garbage"),
            (damage, "is damaged"),
            (raise_version, "of a newer version"),
            (write_nonsense, "has rows that make no sense"),
        ]
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_wrong_file_is_left_as_it_is_until_the_right_one_is_back(
    serve: Serve, row: Row, tmp_path: Path, spoil: Callable[[Path], str]
) -> None:
    path = tmp_path / "heartbeat.sqlite"
    service = await serve(*OPTIONS, comes_back=True)
    herd = await stopped(service)
    right = path.with_suffix(".right")
    right.write_bytes(path.read_bytes())
    reason = spoil(path)
    wrong = path.read_bytes()

    def mend() -> None:
        assert path.read_bytes() == wrong
        right.replace(path)

    await cannot_open(service, herd, row, reason, mend)


@pytest.mark.fault("store on a read-only disk")
@pytest_twisted.ensureDeferred
async def test_a_disk_that_can_be_written_again_is_used_again(
    serve: Serve, row: Row, tmp_path: Path, mount: Mount
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    service = await serve(*OPTIONS, comes_back=True, store=disk / "heartbeat.sqlite")
    herd = await stopped(service)
    if os.geteuid() == 0:  # whom no file's mode keeps from writing
        mount("--bind", disk, disk)
        mount("-o", "remount,bind,ro", disk)
        mend = partial(mount, "-o", "remount,bind,rw", disk)
    else:
        disk.chmod(0o500)
        mend = partial(disk.chmod, 0o700)
    await cannot_open(service, herd, row, "heartbeat.sqlite: ", mend)


def by_symbolic_link(path: Path, other: Path) -> Path:
    """Another name, whose folder is another, too."""
    other.symlink_to(path)
    return other


def by_hard_link(path: Path, other: Path) -> Path:
    """A second name of the same file."""
    other.hardlink_to(path)
    return other


def without_what_looks_needless(path: Path, _: Path) -> Path:
    """All is removed that SQLite doesn't need, such as a file for a lock."""
    for file in path.parent.glob(f"{path.name}*"):
        if file.name not in {f"{path.name}{end}" for end in ("", "-wal", "-shm")}:
            file.unlink()
    return path


@pytest.mark.parametrize(
    "reach",
    [
        pytest.param(reach, marks=pytest.mark.fault(f"two services on one store {how}"))
        for reach, how in [
            (by_symbolic_link, "by a symbolic link"),
            (by_hard_link, "by a hard link"),
            (without_what_looks_needless, "without lock files"),
        ]
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_second_service_on_a_store_takes_no_change(
    serve: Serve, row: Row, tmp_path: Path, reach: Callable[[Path, Path], Path]
) -> None:
    path = tmp_path / "heartbeat.sqlite"
    first = await serve(*OPTIONS)
    assert (await first.beat("1")).status == 200
    (tmp_path / "elsewhere").mkdir()
    other = reach(path, tmp_path / "elsewhere" / "other.sqlite")
    second = await serve(*OPTIONS, store=other)
    await unready(second, "another heartbeat service")
    assert await refuses(second, "1")
    assert (await first.beat("2")).status == 200
    first.assert_unharmed()
    second.assert_unharmed()
    row.tried = "1 client"


@pytest.mark.fault("log removed, store behind a link")
@pytest_twisted.ensureDeferred
async def test_what_went_to_a_removed_log_is_not_acknowledged(
    serve: Serve, row: Row, tmp_path: Path
) -> None:
    path, link = tmp_path / "heartbeat.sqlite", tmp_path / "link.sqlite"
    link.symlink_to(path)
    service = await serve(*OPTIONS, comes_back=True, store=link)
    Path(f"{path}-wal").unlink()
    answers = [await service.beat(str(number)) for number in range(5)]
    assert {answer.status for answer in answers} == {503}
    await unready(service, "heartbeat.sqlite-wal")
    await service.kill()
    await service.start()
    assert (await service.ask("GET", "/clients")).json()["clients"] == []
    assert (await service.beat("after")).status == 200
    row.tried = "5 registrations"
