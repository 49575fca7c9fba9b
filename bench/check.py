"""``python -m bench.check``: fails when a beat has become dearer than it was.

A microsecond of one machine is none of another's, so that what is recorded, in
``recorded.json``, is how many times a plain peer's price ours is: plain Klein's over
HTTP, a bare loop's on pyzmq by the ROUTER. Both run all the time and are driven in
turn, for a moment each, so that whatever else the machine does hits both. Needs neither
wrk nor FastAPI. ``--record`` writes down what is measured instead.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import chain, repeat
from pathlib import Path

from attrs import frozen

from bench.beats import BEATS
from bench.drivers import drive_http, drive_router
from bench.process import Server, drive_from_another_core
from bench.programs import running

RECORDED = Path(__file__).with_name("recorded.json")

TOO_MUCH = ": more than a quarter too much, see What it costs in CONTRIBUTING.md"

#: How many times what is recorded is too much.
MARGIN = 1.25

#: How often each is driven.
TURNS = 10


@frozen
class Comparison:
    """A beat, and what it is compared with.

    :ivar measure: how many times the peer's price ours is.
    """

    title: str
    peer: str
    measure: Callable[[], float]


def over_http(server: Server) -> None:
    """Let each client beat once over HTTP."""
    drive_http(int(server.match["http"]), iter(BEATS))


def by_router(server: Server) -> None:
    """Let each client beat four times by the ROUTER, as it is cheaper."""
    drive_router(server.match["router"], chain.from_iterable(repeat(BEATS, 4)))


def compared(peer: str, drive: Callable[[Server], None]) -> float:
    """How many times the peer's processor time ours is, for the same beats."""
    with running("ours") as ours, running(peer) as other:
        servers = ours, other
        for server in servers:
            drive(server)  # which registers the clients
        before = [server.cpu_seconds() for server in servers]
        for _ in range(TURNS):
            for server in servers:
                drive(server)
        used = [
            server.cpu_seconds() - begun
            for server, begun in zip(servers, before, strict=True)
        ]
    return used[0] / used[1]


COMPARISONS = {
    "http": Comparison(
        "An HTTP heartbeat", "Klein", lambda: compared("Klein", over_http)
    ),
    "router": Comparison(
        "A ROUTER heartbeat", "pyzmq", lambda: compared("pyzmq", by_router)
    ),
}


def main(
    arguments: Sequence[str] | None = None,
    comparisons: Mapping[str, Comparison] = COMPARISONS,
    file: Path = RECORDED,
) -> int:
    """Compare, or record; the exit status."""
    parser = argparse.ArgumentParser(prog="bench.check", description=__doc__)
    parser.add_argument("--record", action="store_true", help="write down the ratios")
    if parser.parse_args(arguments).record:
        ratios = {name: round(each.measure(), 2) for name, each in comparisons.items()}
        file.write_text(json.dumps(ratios, indent=2) + "\n")
        print(f"{file.name}: {ratios}")
        return 0
    recorded = json.loads(file.read_text())
    too_dear = [
        name for name, each in comparisons.items() if dearer(each, recorded[name])
    ]
    return 1 if too_dear else 0


def dearer(comparison: Comparison, recorded: float) -> bool:
    """Whether it costs too much, and says so.

    What seems to is measured again: a busy machine can look like it, once.
    """
    measured = comparison.measure()
    if measured > recorded * MARGIN:
        measured = min(measured, comparison.measure())
    too_dear = measured > recorded * MARGIN
    print(
        f"{comparison.title} costs {measured:.2f} times what it does in plain "
        f"{comparison.peer}, {recorded:.2f} is recorded"
        + (TOO_MUCH if too_dear else ""),
        flush=True,
    )
    return too_dear


if __name__ == "__main__":
    drive_from_another_core()
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)  # as a shell tells it
