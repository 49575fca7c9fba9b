"""Each case for each client, and at the end a table of them.

Starting a program is what costs most, so a client that has passed a case goes on to the
next one, as long as it lives. A case that wants a new one starts it itself.

``CLIENT=node`` chooses one client. One that can't run here is skipped, and the last
lines say why; with ``CLIENTS=all`` it fails.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Coroutine, Generator, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
import pytest_twisted
from attrs import define, field
from twisted.internet.defer import Deferred
from typing_extensions import override
from xdist.scheduler import LoadGroupScheduling

from tests.conformance import chromium
from tests.conformance.clients import CLIENTS, Client
from tests.conformance.life import Guest, Life, ServiceLife
from tests.conformance.scripted import ScriptedServer

T = TypeVar("T")
HERE = "tests/conformance/"
_CASE = re.compile(r"/(\w+)\.py::(\w+)\[([^]]+)]")
_OUTCOMES = ("passed", "failed", "error", "skipped")

_failed = pytest.StashKey[bool]()


def wait_for(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run the reactor until it has a result; for fixtures that outlive a test."""
    result: T = pytest_twisted.blockon(Deferred.fromCoroutine(coroutine))
    return result


@define(eq=False)
class Stage:
    """Where one kind of client lives from case to case."""

    client: Client
    folders: Callable[[], Path]
    _scripted: Life | None = field(default=None, init=False)
    _real: ServiceLife | None = field(default=None, init=False)

    async def scripted(self) -> Life:
        """A client that is well, at a scripted server."""
        if self._scripted is None:
            self._scripted = start(self.client, self.folders())
            self._scripted.server.listen()
        await self._scripted.is_well()
        return self._scripted

    async def real(self) -> ServiceLife:
        """A client that is registered at the real service, UNCALIBRATED."""
        if self._real is None:
            self._real = await ServiceLife.begin(self.client, self.folders())
        if (await self._real.agrees()).state != "UNCALIBRATED":
            await self._real.orders("state", clientState="UNCALIBRATED")
            await self._real.agrees()
        return self._real

    async def clear(self) -> None:
        """End both."""
        lives: list[Guest | None] = [self._scripted, self._real]
        self._scripted = self._real = None
        for life in lives:
            if life is not None:
                await life.end()


def start(client: Client, folder: Path) -> Life:
    """A client of a scripted server that doesn't listen yet."""
    return Life.begin(client, folder, ScriptedServer())


_chosen = os.environ.get("CLIENT", "")
_names = [client.name for client in CLIENTS]
_has_command = {client.name: bool(client.command) for client in CLIENTS}
if _chosen and _chosen not in _names:
    raise pytest.UsageError(f"CLIENT={_chosen}: expected one of {', '.join(_names)}")


class _Together(LoadGroupScheduling):  # type: ignore[misc]  # it has no types
    """Gives the cases of one file and client to one of pytest's processes.

    Otherwise each process would have a client of each kind to start. What lives in a
    browser has one browser for all cases. Other tests go where there is time.
    """

    @override
    def _split_scope(self, nodeid: str) -> str:
        found = _CASE.search(nodeid) if nodeid.startswith(HERE) else None
        if found is None:
            scope: str = super()._split_scope(nodeid)  # its group, if it has one
            return scope
        file, _, client = found.groups()
        return f"{file} {client}" if _has_command[client] else client


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With ``--dist loadgroup``, keep together what belongs together."""
    return _Together(config, log) if config.getvalue("dist") == "loadgroup" else None


@pytest.fixture(
    scope="package",
    params=[one for one in CLIENTS if _chosen in ("", one.name)],
    ids=lambda client: client.name,
)
def client(request: pytest.FixtureRequest) -> Client:
    """The client that a case is tried with."""
    chosen: Client = request.param
    if (missing := chosen.missing()) is not None:
        if os.environ.get("CLIENTS") == "all":
            pytest.fail(f"{chosen.name}: {missing}", pytrace=False)
        pytest.skip(f"{chosen.name}: {missing}")
    return chosen


@pytest.fixture(scope="package", autouse=True)
def browser() -> Iterator[None]:
    """The browser of the clients that are pages ends with the last of them."""
    yield
    chromium.close()


@pytest.fixture(scope="package")
def stage(client: Client, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Where the client lives from case to case."""
    stage = Stage(client, lambda: tmp_path_factory.mktemp(client.name))
    yield stage
    wait_for(stage.clear())


@pytest.fixture
def life(stage: Stage, request: pytest.FixtureRequest) -> Iterator[Life]:
    """A client that is well, at a scripted server."""
    yield from _until_it_fails(stage, stage.scripted, request.node)


@pytest.fixture
def service_life(stage: Stage, request: pytest.FixtureRequest) -> Iterator[ServiceLife]:
    """A client that is registered at the real service."""
    yield from _until_it_fails(stage, stage.real, request.node)


def _until_it_fails(
    stage: Stage, begin: Callable[[], Coroutine[Any, Any, Any]], node: pytest.Item
) -> Iterator[Any]:
    try:
        guest = wait_for(begin())
    except BaseException:
        wait_for(stage.clear())
        raise
    guest.mark()
    yield guest
    if node.stash.get(_failed, True) or guest.program.status is not None:
        wait_for(stage.clear())


@pytest.fixture
def newborn(client: Client, tmp_path: Path) -> Iterator[Life]:
    """A client that was just started; its server doesn't listen yet."""
    life = start(client, tmp_path)
    yield life
    wait_for(life.end())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note how a case went, and show what its client has printed if it failed."""
    report = yield
    if report.when == "call":
        item.stash[_failed] = report.failed
    if report.failed:
        for value in getattr(item, "funcargs", {}).values():
            if isinstance(value, Guest):
                report.sections.append(("what it has printed", value.program.output))
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(
    terminalreporter: Any, config: pytest.Config
) -> Generator[None]:
    """Which case passed with which client; last, who was skipped, and why."""
    yield
    reports = [
        (outcome, report)
        for outcome in _OUTCOMES
        for report in terminalreporter.stats.get(outcome, [])
        if report.nodeid.startswith(HERE) and _CASE.search(report.nodeid)
    ]
    alone = all(HERE.rstrip("/") in str(argument) for argument in config.args)
    if reports and (alone or any(one in ("failed", "error") for one, _ in reports)):
        terminalreporter.section("case x client")
        for line in _table(reports):
            terminalreporter.line(line)
    skipped = {report.longrepr[2] for one, report in reports if one == "skipped"}
    for reason in sorted(skipped):
        terminalreporter.line(f"client {reason}".replace("client Skipped: ", "client "))


def _table(reports: list[tuple[str, Any]]) -> Iterator[str]:
    """The lines of the table, its columns as wide as the clients' names."""
    outcomes: dict[str, dict[str, str]] = {}
    for outcome, report in reports:
        found = _CASE.search(report.nodeid)
        assert found is not None
        _, case, client = found.groups()
        name = case.removeprefix("test_").replace("_", " ")
        outcomes.setdefault(name, {})[client] = outcome
    names = [name for name in _names if any(name in row for row in outcomes.values())]
    width = max(map(len, outcomes))

    def line(first: str, cells: Iterable[object]) -> str:
        pairs = zip(cells, names, strict=True)
        padded = [str(cell).ljust(len(name)) for cell, name in pairs]
        return " | ".join([first.ljust(width), *padded]).rstrip()

    yield line("case", names)
    for case, row in sorted(outcomes.items()):
        yield line(case, [row.get(name, "") for name in names])
    for one in _OUTCOMES:
        of_one = [[row.get(name) for row in outcomes.values()] for name in names]
        yield line(one, [column.count(one) for column in of_one])
