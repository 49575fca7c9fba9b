"""``python -m bench.check``: fails when a beat has become dearer than it was.

A microsecond of one machine is none of another's, so that what is recorded, in
``recorded.json``, is how many times a plain peer's price ours is: plain Klein's over
HTTP, a bare loop's on pyzmq by the ROUTER. Needs neither wrk nor FastAPI.
``--record`` writes down what is measured instead.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from itertools import cycle, islice
from pathlib import Path

from bench.beats import BEATS, figures
from bench.drivers import drive_http, drive_router
from bench.process import drive_from_another_core
from bench.programs import running
from bench.scenario import Figures, Scenario, ratio, run

RECORDED = Path(__file__).with_name("recorded.json")

#: How many times what is recorded is too much.
MARGIN = 1.25

#: How many beats are sent: however busy the machine is, it is the same work.
OVER_HTTP, BY_ROUTER = 3_000, 10_000


def http(name: str, _quick: bool) -> Figures:
    """Beats over HTTP, sent by connections of ours."""
    with running(name) as server:
        port = int(server.match["http"])
        drive_http(port, iter(BEATS))
        return figures(
            server, lambda: drive_http(port, islice(cycle(BEATS), OVER_HTTP))
        )


def router(name: str, _quick: bool) -> Figures:
    """Beats to a ROUTER."""
    with running(name) as server:
        endpoint = server.match["router"]
        drive_router(endpoint, iter(BEATS))
        return figures(
            server, lambda: drive_router(endpoint, islice(cycle(BEATS), BY_ROUTER))
        )


COMPARISONS = (
    Scenario("http", "An HTTP heartbeat", ("ours", "Klein"), http),
    Scenario("router", "A ROUTER heartbeat", ("ours", "pyzmq"), router),
)


def main(
    arguments: Sequence[str] | None = None,
    comparisons: Sequence[Scenario] = COMPARISONS,
    file: Path = RECORDED,
) -> int:
    """Compare, or record; the exit status."""
    parser = argparse.ArgumentParser(prog="bench.check", description=__doc__)
    parser.add_argument("--record", action="store_true", help="write down the ratios")
    if parser.parse_args(arguments).record:
        ratios = {each.name: round(compared(each), 2) for each in comparisons}
        file.write_text(json.dumps(ratios, indent=2) + "\n")
        return 0
    recorded = json.loads(file.read_text())
    too_dear = [each.name for each in comparisons if dearer(each, recorded)]
    return 1 if too_dear else 0


def dearer(comparison: Scenario, recorded: Mapping[str, float]) -> bool:
    """Whether it costs too much, and says so.

    Whoever seems to is measured again: a busy machine can look like it, once.
    """
    most = recorded[comparison.name] * MARGIN
    measured = compared(comparison)
    if measured > most:
        measured = min(measured, compared(comparison))
    _, peer = comparison.contestants
    print(
        f"{comparison.title} costs {measured:.2f} times what it does in plain {peer}, "
        f"{recorded[comparison.name]:.2f} is recorded"
    )
    if measured <= most:
        return False
    print(
        "That is more than a quarter too much: see What it costs, in CONTRIBUTING.md.",
        file=sys.stderr,
    )
    return True


def compared(comparison: Scenario) -> float:
    """How many times the peer's processor time a beat ours is."""
    return ratio(run(comparison, quick=False), "cpu_us", *comparison.contestants)


if __name__ == "__main__":
    drive_from_another_core()
    sys.exit(main())
