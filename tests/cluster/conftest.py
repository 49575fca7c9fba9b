"""The cluster that all faults happen to, and the table of what was measured."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.trial import LONG, Row, Trial

ROWS = pytest.StashKey[dict[str, Row]]()

#: What a cluster's machines and programs need.
PROGRAMS = ("ip", "nft", "nsenter", "setpriv", "etcd", "etcdctl", "haproxy")

#: Debian keeps servers where not everybody looks.
SBIN = "/usr/sbin:/sbin"


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three etcd, three nodes, a balancer and clients; removed at the end."""
    os.environ["PATH"] += f":{SBIN}"
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if os.geteuid() != 0:
        missing.insert(0, "root")
    if missing:
        reason = f"a cluster on machines of its own needs {', '.join(missing)}"
        if os.environ.get("CLUSTER_REQUIRED"):
            pytest.fail(reason)
        pytest.skip(reason)
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.remove()


@pytest.fixture
def trial(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[Trial]:
    """A cluster that is well, where the test's fault is to happen."""
    trial = Trial(cluster, request.config.stash[ROWS][request.node.nodeid])
    trial.begin()
    yield trial
    if trial.row.lost is None:  # it ended too soon
        trial.count()


def pytest_configure(config: pytest.Config) -> None:
    """There is a table, and tests say what they call their row."""
    config.stash[ROWS] = {}
    config.addinivalue_line("markers", "fault(name): what the test's row is called")
    config.addinivalue_line("markers", "long: only in the long form")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The short form does without the longer faults."""
    items[:] = [item for item in items if LONG or not item.get_closest_marker("long")]


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
        row.add(f"{'not here' if report.skipped else 'FAILED'}: {reason}")
    return report


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print the table of what was measured in this run."""
    rows = list(config.stash[ROWS].values())
    if not rows:
        return
    lines = [Row.HEADS, *(row.cells() for row in rows)]
    widths = [
        max(len(line[column]) for line in lines) for column in range(len(lines[0]))
    ]
    form = "long" if LONG else "short"
    terminalreporter.section(f"faults of a cluster, the {form} form")
    for line, note in zip(lines, ["", *(row.note for row in rows)], strict=True):
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        terminalreporter.write_line(f"{' | '.join(cells)} | {note}".rstrip(" |"))
