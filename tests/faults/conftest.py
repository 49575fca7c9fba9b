"""What the tests of faults share; and the table of what they have measured."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from tests.faults.service import LONG, Row, Service
from tests.integration.conftest import nothing_left_behind, spawn, tracebacks
from tests.integration.processes import BIN, LOOPBACK, Spawn, free_ports

#: The integration tests' fixtures serve here, too.
__all__ = ["nothing_left_behind", "spawn", "tracebacks"]

ROWS = pytest.StashKey[dict[str, Row]]()

#: ``await serve(option, …)`` starts a service.
Serve = Callable[..., Awaitable[Service]]


@pytest.fixture
def serve(spawn: Spawn, tmp_path: Path) -> Iterator[Serve]:
    """A way to start services; they are stopped after the test.

    Its ports are chosen by the system, or stay its own with ``comes_back``, unless the
    options ``listening`` say otherwise. ``before`` are the words of a command that runs
    the service's own. ``store`` is the file of its store.
    """
    services: list[Service] = []

    async def start(
        *options: str | Path,
        before: tuple[str, ...] = (),
        comes_back: bool = False,
        listening: tuple[str, ...] = LOOPBACK,
        store: Path = tmp_path / "heartbeat.sqlite",
    ) -> Service:
        if comes_back:
            http, router, pub = free_ports(3)
            listening = (
                *("--http", f"tcp:{http}:interface=127.0.0.1"),
                *("--router", f"tcp://127.0.0.1:{router}"),
                *("--pub", f"tcp://127.0.0.1:{pub}"),
            )
        twistd = (str(BIN / "twistd"), "-n", "--pidfile=", "heartbeat")
        service = Service(
            spawn,
            (
                *(*before, *twistd, *listening),
                *("--store", f"sqlite:{store}", *options),
            ),
        )
        services.append(service)
        await service.start()
        return service

    yield start
    for service in services:
        pytest_twisted.blockon(Deferred.fromCoroutine(service.end()))


@pytest.fixture
def row(request: pytest.FixtureRequest) -> Row:
    """The test's row of the table."""
    return request.config.stash[ROWS][request.node.nodeid]


def pytest_configure(config: pytest.Config) -> None:
    """There is a table, and tests say what they call their row."""
    config.stash[ROWS] = {}
    config.addinivalue_line("markers", "fault(name): what the test's row is called")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Each test that is to run has a row, also if something keeps it from it."""
    for item in session.items:
        for mark in item.iter_markers("fault"):
            session.config.stash[ROWS][item.nodeid] = Row(*mark.args)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """A test that failed or was skipped says so in its row."""
    report = yield
    row = item.config.stash[ROWS].get(item.nodeid)
    if row is not None and call.excinfo is not None:
        (reason, *_) = str(call.excinfo.value).splitlines() or [call.excinfo.typename]
        row.note = f"{'not here' if report.skipped else 'FAILED'}: {reason}"
    return report


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print the table of what was measured in this run."""
    rows = list(config.stash[ROWS].values())
    if not rows:
        return
    heads = ("fault", "tried", "lost", "wrongly dead", "recovered in")
    lines = [heads, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    form = "long" if LONG else "short"
    terminalreporter.section(f"faults, the {form} form")
    for line, note in zip(lines, ["", *(row.note for row in rows)], strict=True):
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        terminalreporter.write_line(f"{' | '.join(cells)} | {note}".rstrip(" |"))


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.fault,
        row.tried,
        "-" if row.lost is None else str(row.lost),
        "-" if row.wrongly_dead is None else str(row.wrongly_dead),
        "-" if row.recovered is None else f"{row.recovered:.1f} s",
    )
