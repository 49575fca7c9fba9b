"""What a hundred thousand clients at once ask of the service.

Each thing is timed from when it is asked for, or begins, until all of it is done: an
answer was read to its end, the process has ended, the last death was published and
heard. A gap is the longest time that somebody else waited for an answer meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.drivers import drive_router, heartbeat
from bench.operator import ask, read, steer
from bench.probe import probed
from bench.process import Server, started
from bench.programs import OURS, OURS_READY
from bench.scenario import Figures, Scenario
from bench.sockets import context, subscribed

#: How many clients, and how many where it has to be quick.
MANY, FEW = 100_000, 5_000

#: From the last beat of those who are to die to their deaths, in seconds, at least.
MARGIN = 2.0


def measure(_: str, quick: bool) -> Figures:
    """Register them, list and steer them, stop and start; then let them die."""
    count = FEW if quick else MANY
    with TemporaryDirectory(prefix="bench-") as folder:
        figures: Figures = {"clients": count}
        with _service(folder) as server:
            beats = (heartbeat(number) for number in range(count))
            endpoint = server.match["router"]
            figures["register_s"] = seconds(lambda: drive_router(endpoint, beats))
            figures |= _asked(server, "list", lambda port: ask(port, "GET", "/clients"))
            figures |= _asked(server, "steer", steer)
            asked = time.monotonic()
        figures["stop_s"] = time.monotonic() - asked
        asked = time.monotonic()
        with _service(folder) as server:
            read(ask(int(server.match["http"]), "GET", "/readyz"))
            figures["start_s"] = time.monotonic() - asked
            figures |= _die(server, count, 1.5 * figures["register_s"] + MARGIN)
    return figures


@contextmanager
def _service(folder: str) -> Iterator[Server]:
    command = (*OURS, "--timebomb", "3600")  # so that nobody dies by itself
    with started(command, OURS_READY, Path(folder)) as server:
        yield server


def seconds(work: Callable[[], object]) -> float:
    """How long something takes."""
    began = time.monotonic()
    work()
    return time.monotonic() - began


def _asked(
    server: Server, name: str, request: Callable[[int], HTTPConnection]
) -> Figures:
    """How long an answer takes, and the gap.

    :param request: sends it to a port.
    """
    port = int(server.match["http"])
    took: list[float] = []
    gap_ms = probed(port, lambda: took.append(seconds(lambda: read(request(port)))))
    return {f"{name}_s": took[0], f"{name}_gap_ms": gap_ms}


def _die(server: Server, count: int, within: float) -> Figures:
    """All at one moment, so many seconds from now."""
    moment = time.monotonic() + within
    drive_router(
        server.match["router"],
        (
            heartbeat(number, timebombSeconds=moment - time.monotonic())
            for number in range(count)
        ),
    )
    if time.monotonic() > moment - MARGIN / 2:
        raise RuntimeError("Some may have died before all had beaten")
    with context() as sockets:
        ear = subscribed(sockets, server.match["pub"])
        begin = moment - MARGIN / 4
        time.sleep(max(0.0, begin - time.monotonic()))  # until shortly before they die

        def hear() -> None:
            for _ in range(count):
                ear.recv_multipart()

        gap_ms = probed(int(server.match["http"]), hear)
        return {"death_s": time.monotonic() - moment, "death_gap_ms": gap_ms}


SCENARIOS = (
    Scenario(
        "crowds",
        "many clients at once: listed, steered, at a stop and a start, dying",
        ("ours",),
        measure,
        rounds=1,
    ),
)
