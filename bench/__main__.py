"""``python -m bench [--quick] [SCENARIO …]``: measure, write it down, and draw it.

The whole of it writes ``bench/results.json`` and the charts that the README shows; with
scenarios named, those of them alone, and leaves the others there as they are.
``--quick`` measures a moment of each once, to see that all of it works, and leaves
those alone: it writes into ``build/bench``, where results are also kept as they come.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Iterator
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress
from rich.progress import TimeElapsedColumn as Elapsed
from rich.table import Table

from bench import beats, crowds, durable, growth, lateness
from bench.charts import draw
from bench.cluster import costs, failover, sizes
from bench.process import CORES, ROOT, drive_from_another_core
from bench.scenario import Figures, Scenario, ratio, run, turns

SCENARIOS = (
    *beats.SCENARIOS,
    *lateness.SCENARIOS,
    *growth.SCENARIOS,
    *crowds.SCENARIOS,
    *durable.SCENARIOS,
    *costs.SCENARIOS,
    *failover.SCENARIOS,
    *sizes.SCENARIOS,
)

RECORDED = ROOT / "bench" / "results.json", ROOT / "docs" / "charts"
QUICK = ROOT / "build" / "bench" / "results.json", ROOT / "build" / "bench" / "charts"

#: The figures of which a ratio says something.
COMPARED = ("cpu_us", "rate", "p50_ms", "p99_ms")

LIBRARIES = (
    *("Twisted", "klein", "txZMQ", "pyzmq", "msgspec"),
    *("fastapi", "pydantic", "uvicorn", "uvloop", "httptools", "aiohttp", "redis"),
)


def main() -> None:
    """Measure, as the command line asks."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a moment of each, once")
    parser.add_argument("scenarios", metavar="SCENARIO", nargs="*", help="all of them")
    asked = parser.parse_args()
    quick, scenarios = asked.quick, chosen(asked.scenarios, parser)
    console = Console(highlight=False)
    drive_from_another_core()
    if len(CORES) == 1:
        console.print("On one core: who drives takes time from whom it measures.")
    file, charts = QUICK if quick else RECORDED
    results = begun(quick)
    if asked.scenarios and file.exists():
        results = json.loads(file.read_text())
    for name, figures in measured(scenarios, quick, console):
        results["scenarios"][name] = figures
        write(results, QUICK[0])  # also if what follows fails
    write(results, file)
    draw(results, charts)
    for scenario in scenarios:
        console.print(table(scenario, results["scenarios"][scenario.name]["figures"]))
    console.print(f"{file.relative_to(ROOT)}, {charts.relative_to(ROOT)}/")


def chosen(names: list[str], parser: argparse.ArgumentParser) -> tuple[Scenario, ...]:
    """The scenarios of these names, or all; ends the program for a wrong one."""
    known = {each.name: each for each in SCENARIOS}
    for name in names:
        if name not in known:
            parser.error(f"{name} is none of {', '.join(known)}")
    return tuple(known[name] for name in names or known)


def begun(quick: bool) -> dict[str, Any]:
    """Results without any figures so far."""
    return {
        "date": f"{datetime.now():%Y-%m-%d}",
        "machine": machine(),
        "quick": quick,
        "scenarios": {},
    }


def write(results: dict[str, Any], file: Path) -> None:
    """Keep what was measured."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(results, indent=2) + "\n")


def measured(
    scenarios: tuple[Scenario, ...], quick: bool, console: Console
) -> Iterator[tuple[str, Any]]:
    """Run scenarios, and show which is under way, and whose turn it is."""
    columns = (BarColumn(20), MofNCompleteColumn(), Elapsed(), "{task.description}")

    def begun(name: str) -> None:
        shown.update(task, description=name, refresh=True)
        if not console.is_terminal:
            console.print(f"  {name}")

    with Progress(
        *columns,
        console=console,
        disable=not console.is_terminal,
        auto_refresh=False,  # nothing but the driver runs while it is measured
    ) as shown:
        task = shown.add_task("", total=sum(turns(each, quick) for each in scenarios))
        for scenario in scenarios:
            console.print(scenario.title)
            figures = run(scenario, quick, begun, lambda: shown.advance(task))
            yield scenario.name, {"title": scenario.title, "figures": figures}


def machine() -> dict[str, Any]:
    """What it was measured on, and with what."""
    cpu = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "cpu": cpu[0] if cpu else platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "kernel": ".".join(os.uname().release.split(".")[:2]),
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in LIBRARIES},
    }


def table(scenario: Scenario, results: dict[str, Figures]) -> Table:
    """All figures of a scenario, and beside a peer's how many times that ours is."""
    shown = Table(title=scenario.title)
    for heading in ("", *results):
        shown.add_column(heading, justify="right" if heading else "left")
    first, *others = results
    for figure, value in results[first].items():
        cells = [written(value)]
        for other in others:
            theirs = results[other][figure]
            cells.append(written(theirs))
            if first == "ours" and theirs and figure in COMPARED:
                cells[-1] += f" (x {ratio(results, figure, first, other):.2f})"
        shown.add_row(figure, *cells)
    return shown


def written(value: float) -> str:
    """A figure with as many places as it is worth."""
    if value >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)  # as a shell tells it
