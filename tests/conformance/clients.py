"""Which client programs there are, and how each is started.

All speak the command line of the contract's section 6: ``--id ID --server URL``, a line
on standard output for each change, Goodbye on SIGINT and SIGTERM. Whoever writes a
client adds a line to :data:`CLIENTS`.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Protocol

from attrs import frozen
from typing_extensions import override

from tests.conformance import chromium
from tests.integration.processes import ROOT, Process

STATES = ("DISCONNECTED", "UNCALIBRATED", "CALIBRATED", "RUNNING")

#: What a program prints for each change.
CHANGE = re.compile(
    r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} (?P<id>\S+) (?P<state>[A-Z]+) "
    r"incarnation=(?P<incarnation>\d+) sequence=(?P<sequence>\d+)$"
)


@frozen
class Change:
    """What one line of a program's standard output tells."""

    state: str
    incarnation: int
    sequence: int


class Program(Protocol):
    """A client that was started.

    :ivar told: what it has printed on standard output.
    :ivar output: the same, and what it has complained of on standard error.
    :ivar status: its exit status once it has ended, or minus the signal's number.
    """

    told: str
    output: str
    status: int | None

    def signal(self, name: str) -> None:
        """Send it a signal: INT, TERM or KILL."""

    async def ends(self, signal: str | None = None) -> int:
        """Its exit status, once it has ended; with ``signal``, of it."""


class _Process(Process):
    told = ""

    @override
    def outReceived(self, data: bytes) -> None:
        self.told += data.decode(errors="replace")
        super().outReceived(data)

    def signal(self, name: str) -> None:
        """Send it a signal."""
        process: Any = self.transport
        process.signalProcess(name)

    # Not the base class's alias, which leads to what is told here.
    @override
    def errReceived(self, data: bytes) -> None:
        super().outReceived(data)


@frozen
class Client:
    """A kind of client.

    :ivar command: begins its command line.
    :ivar follows: how it hears of changes.
    :ivar missing: finds out why it can't run here; None if it can.
    """

    name: str
    command: tuple[str | Path, ...]
    follows: Literal["zeromq", "events"]
    missing: Callable[[], str | None] = lambda: None

    @property
    def origin(self) -> str | None:
        """The page's that it is; None if it is a program without one."""
        return None

    def start(self, folder: Path, *options: str | Path) -> Program:
        """Run it."""
        return _Process(*self.command, *options, folder=folder)


class _Page(Client):
    @property
    @override
    def origin(self) -> str:
        return chromium.chromium().origin

    @override
    def start(self, folder: Path, *options: str | Path) -> Program:
        return chromium.Kiosk(*options)


def changes(program: Program) -> list[Change]:
    """All that it has told so far; each line must be one of the contract's."""
    lines = program.told[: program.told.rfind("\n") + 1].splitlines()
    found = [CHANGE.match(line) for line in lines]
    assert all(found), f"not a change's line in {lines}"
    return [
        Change(one["state"], int(one["incarnation"]), int(one["sequence"]))
        for one in found
        if one is not None
    ]


def _needs(program: str, *files: Path, made_by: str = "") -> Callable[[], str | None]:
    """Finds out whether there are that program and those files."""

    def missing() -> str | None:
        if shutil.which(program) is None:
            return f"there is no {program} here"
        for file in files:
            if not file.exists():
                return f"there is no {file.relative_to(ROOT)}{made_by}"
        return None

    return missing


_PYTHON = (sys.executable, "-m", "heartbeat_service.game_client")
_EXE = ROOT / "build/csharp/MLFGameClient.exe"
_CLI = ROOT / "clients/javascript/cli.mjs"
_has_mono = _needs("mono", _EXE, made_by=": make csharp-client makes it")

CLIENTS = (
    Client("twisted", _PYTHON, "zeromq"),
    Client("asyncio", (*_PYTHON, "--driver", "asyncio"), "zeromq"),
    Client(
        "csharp-zeromq",
        ("mono", _EXE, "--transport", "zeromq"),
        "zeromq",
        _has_mono,
    ),
    Client(
        "csharp-events",
        ("mono", _EXE, "--transport", "events"),
        "events",
        _has_mono,
    ),
    Client("node", ("node", _CLI), "events", _needs("node", _CLI)),
    _Page("chromium", (), "events", chromium.missing),
)
