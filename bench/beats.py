"""What a heartbeat costs, over HTTP and by a ROUTER, beside what others take for one.

1,000 clients are registered first. What is measured after that is ordinary beats: none
of them touches the store.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import quantiles
from tempfile import TemporaryDirectory

from bench.drivers import (
    CONNECTIONS,
    IN_FLIGHT,
    PATIENCE,
    drive_http,
    drive_router,
    during,
    heartbeat,
)
from bench.process import Server
from bench.programs import running
from bench.scenario import Figures, Scenario

BEATS = [heartbeat(number) for number in range(1000)]

#: How long beats are sent, in seconds, and how long where it has to be quick.
LONG, SHORT = 10.0, 1.0


def http(name: str, quick: bool) -> Figures:
    """Beats over HTTP, sent by wrk."""
    with running(name) as server:
        port = int(server.match["http"])
        drive_http(port, iter(BEATS * 2))  # a life's second beat may be written, too
        before = server.cpu_seconds()
        told = wrk(port, SHORT if quick else LONG, BEATS)
        used = server.cpu_seconds() - before
    return {
        "cpu_us": used / told["requests"] * 1e6,
        "rate": told["requests"] / told["seconds"],
        "p50_ms": told["p50_ms"],
        "p99_ms": told["p99_ms"],
    }


def wrk(port: int, seconds: float, beats: Sequence[bytes]) -> Figures:
    """Let wrk post the beats, again and again, for that long.

    :raises RuntimeError: if one is not answered, or refused.
    """
    with TemporaryDirectory(prefix="bench-") as folder:
        bodies = Path(folder, "bodies")
        bodies.write_bytes(b"\n".join(beats))
        command = [
            *("wrk", "--threads", "1", "--connections", str(CONNECTIONS)),
            *("--duration", f"{seconds:.0f}s", "--timeout", "30s"),
            *("--script", str(Path(__file__).with_name("wrk.lua"))),
            *(f"http://127.0.0.1:{port}/heartbeat", "--", str(bodies)),
        ]
        said = subprocess.run(
            command,
            check=True,
            capture_output=True,
            text=True,
            timeout=seconds + PATIENCE,
        )
    told: Figures = json.loads(said.stdout.splitlines()[-1])
    if told["failed"] or not told["requests"]:
        raise RuntimeError(f"Not all beats were answered well: {said.stdout}")
    return told


def router(name: str, quick: bool) -> Figures:
    """Beats to a ROUTER, sent by DEALERs of ours."""
    with running(name) as server:
        endpoint = server.match["router"]
        drive_router(endpoint, iter(BEATS * 2))
        seconds = SHORT if quick else LONG
        return figures(server, lambda: drive_router(endpoint, during(seconds, BEATS)))


def figures(server: Server, drive: Callable[[], list[float]]) -> Figures:
    """What a server spends while it is driven.

    :param drive: returns how long each answer took, in seconds.
    """
    before, begun = server.cpu_seconds(), time.monotonic()
    times = drive()
    used, took = server.cpu_seconds() - before, time.monotonic() - begun
    percentiles = quantiles(times, n=100)
    return {
        "cpu_us": used / len(times) * 1e6,
        "rate": len(times) / took,
        "p50_ms": percentiles[49] * 1e3,
        "p99_ms": percentiles[98] * 1e3,
    }


SCENARIOS = (
    Scenario(
        "http",
        f"an HTTP heartbeat, {CONNECTIONS} keep-alive connections, 1,000 clients",
        ("ours", "FastAPI", "aiohttp", "Klein"),
        http,
    ),
    Scenario(
        "router",
        f"a ROUTER heartbeat, {IN_FLIGHT} in flight, 1,000 clients",
        ("ours", "pyzmq"),
        router,
    ),
)
