"""What a supervisor that asks to be told is told, by a real process."""

from __future__ import annotations

import signal
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, DeferredQueue
from twisted.internet.protocol import DatagramProtocol

from tests.integration.processes import BIN, LOOPBACK, READY, Process, Spawn
from tests.integration.waiting import PATIENCE, patiently, pause, reactor

#: How long the watchdog waits, in seconds; it is fed twice as often.
WATCHDOG = 0.4


class Systemd(DatagramProtocol):
    """Listens where a service is asked to tell."""

    def __init__(self) -> None:
        self.told: DeferredQueue[str] = DeferredQueue()

    def datagramReceived(self, datagram: bytes, _sender: object) -> None:
        """It tells."""
        self.told.put(datagram.decode())

    async def hears(self, expected: str) -> None:
        """The next word that isn't about the watchdog is this one."""
        while (said := await patiently(self.told.get())) != expected:
            assert said == "WATCHDOG=1"


Start = Callable[..., tuple[Process, Systemd]]


@pytest.fixture
def start(spawn: Spawn, tmp_path: Path) -> Iterator[Start]:
    """A way to start a service under a supervisor."""
    systemd = Systemd()
    address = str(tmp_path / "notify")
    port = reactor.listenUNIXDatagram(address, systemd)
    command = (BIN / "twistd", "-n", "--pidfile=", "heartbeat", *LOOPBACK)
    yield lambda **more: (spawn(*command, NOTIFY_SOCKET=address, **more), systemd)
    port.stopListening()


@pytest_twisted.ensureDeferred
async def test_it_is_told_of_ready_and_of_stopping(start: Start) -> None:
    service, systemd = start()
    await systemd.hears("READY=1")
    await service.says(READY)
    stopped = Deferred.fromCoroutine(service.ends("TERM"))
    await systemd.hears("STOPPING=1")
    assert await stopped == -signal.SIGTERM  # as twistd ends by it


@pytest_twisted.ensureDeferred
async def test_the_watchdog_is_fed_while_the_store_answers(
    start: Start, tmp_path: Path
) -> None:
    _, systemd = start(WATCHDOG_USEC=str(int(WATCHDOG * 1_000_000)))
    await systemd.hears("READY=1")
    for _ in range(3):
        assert await patiently(systemd.told.get()) == "WATCHDOG=1"
    other = sqlite3.connect(tmp_path / "heartbeat.sqlite", isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        await quiet(systemd)
    finally:
        other.close()
    assert await patiently(systemd.told.get()) == "WATCHDOG=1"


@pytest_twisted.ensureDeferred
async def test_it_is_not_ready_before_its_store_is(
    start: Start, tmp_path: Path
) -> None:
    path = tmp_path / "heartbeat.sqlite"
    path.write_text("The list of what we need for Friday's show\n")
    service, systemd = start()
    await service.says(READY)
    await pause(WATCHDOG)
    assert systemd.told.pending == []
    path.unlink()
    await systemd.hears("READY=1")


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("microseconds", ["soon", "9" * 400])
async def test_a_watchdog_that_makes_no_sense_is_told_and_ends_nothing(
    start: Start, microseconds: str
) -> None:
    service, systemd = start(WATCHDOG_USEC=microseconds)
    await service.says("the watchdog isn't fed: WATCHDOG_USEC='")
    await service.says(READY)
    await systemd.hears("READY=1")
    assert await service.ends("TERM") == -signal.SIGTERM
    assert systemd.told.pending == ["STOPPING=1"]
    assert "Traceback" not in service.output


async def quiet(systemd: Systemd) -> None:
    """Wait until it has told nothing for a few of its intervals."""
    deadline = reactor.seconds() + PATIENCE
    while systemd.told.pending:
        systemd.told.pending.clear()
        assert reactor.seconds() < deadline, "the watchdog is fed all the same"
        await pause(3 * WATCHDOG)
