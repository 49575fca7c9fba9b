"""What a client takes of memory, and what a beat costs, while more and more live.

Measured at the service's process: its processor time from before the first of many
beats to after the last answer, and its memory before the clients came and after their
beats. The beats go round all clients in a random order, so that no cache knows who is
next. Nobody dies meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random
from statistics import median
from tempfile import TemporaryDirectory

import zmq

from bench.fleet import ask_all, beat, connected, sockets
from bench.ours import ours
from bench.process import Server
from bench.scenario import Figures, Scenario

#: How many live, and how many when it has to be quick.
SIZES = {"few": (100, 100), "many": (10_000, 2_000), "most": (100_000, 10_000)}

#: Beats of which one sample of the costs is taken, and how many samples.
BEATS, SAMPLES = 20_000, 5

#: So that nobody dies, in seconds.
FUSE = 3600.0


def measure(size: str, quick: bool) -> Figures:
    """Let so many live, and beat."""
    count = SIZES[size][quick]
    with (
        TemporaryDirectory() as folder,
        ours(Path(folder)) as service,
        sockets() as context,
    ):
        dealer = connected(context, zmq.DEALER, service.router)
        # Its first requests make it load and keep what no client is to blame for.
        ask_all(dealer, [beat("first", FUSE)] * 2_000)
        empty = service.server.memory()
        beats = [beat(f"client-{number}", FUSE) for number in range(count)]
        ask_all(dealer, beats)
        samples = 2 if quick else SAMPLES
        return {
            "clients": count,
            "router_cpu_us": median(
                _cpu_us(service.server, dealer, beats) for _ in range(samples)
            ),
            "bytes_a_client": (service.server.memory() - empty) / count,
        }


def _cpu_us(server: Server, dealer: object, beats: Sequence[bytes]) -> float:
    """Microseconds of the processor that a beat takes."""
    random = Random(1)  # noqa: S311 - no secret, and the same in each run
    chosen = random.choices(beats, k=BEATS)
    before = server.cpu_seconds()
    ask_all(dealer, chosen)
    return (server.cpu_seconds() - before) / BEATS * 1e6


SCENARIO = Scenario(
    "growth",
    "What a client and a beat cost while more and more live",
    tuple(SIZES),
    measure,
)
