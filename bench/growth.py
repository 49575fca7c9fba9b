"""What a client takes of memory, and what a beat costs, while more and more live.

Measured at the service's process: its processor time from before the first of many
beats to after the last answer, and its memory before the clients came and after their
beats. The beats go round all clients in a random order, so that no cache knows who is
next. Nobody dies meanwhile.

The memory of the process goes up and down by a MiB or two, whoever lives: of a hundred
clients the bytes that each takes say nothing.
"""

from __future__ import annotations

from random import Random

from bench.beats import figures, wrk
from bench.drivers import drive_http, drive_router, during, heartbeat
from bench.programs import running
from bench.scenario import Figures, Scenario

#: How many live, and how many where it has to be quick.
SIZES = {"few": (100, 100), "many": (10_000, 1_000), "most": (100_000, 5_000)}

#: How long beats are sent each way, in seconds, and how long where it has to be quick.
LONG, SHORT = 5.0, 1.0


def measure(size: str, quick: bool) -> Figures:
    """Let so many live, and beat."""
    count = SIZES[size][quick]
    seconds = SHORT if quick else LONG
    with running("ours", "--timebomb", "3600") as server:
        endpoint, port = server.match["router"], int(server.match["http"])
        # First requests make it load and keep what no client is to blame for.
        first = [heartbeat(count)] * 1_000
        drive_router(endpoint, iter(first))
        drive_http(port, iter(first))
        empty = server.memory()
        beats = [heartbeat(number) for number in range(count)]
        drive_router(endpoint, iter(beats * 2))  # its second beat may be written, too
        full = server.memory()
        Random(1).shuffle(beats)  # noqa: S311 - no secret, and the same in each run
        by_router = figures(
            server, lambda: drive_router(endpoint, during(seconds, beats))
        )
        used = server.cpu_seconds()
        posted = wrk(port, seconds, beats)["requests"]
        used = server.cpu_seconds() - used
    return {
        "clients": count,
        "memory_mib": full / 2**20,
        "bytes_a_client": (full - empty) / count,
        "router_cpu_us": by_router["cpu_us"],
        "http_cpu_us": used / posted * 1e6,
    }


SCENARIOS = (
    Scenario(
        "growth",
        "a client's memory and a beat's cost, beats going round all in random order",
        tuple(SIZES),
        measure,
    ),
)
