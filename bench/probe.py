"""How long the service answers nobody while something else keeps it busy.

A process of its own asks ``/healthz`` over and over, over one connection; the longest
time from a question to its answer is the gap. ``python -m bench.probe PORT`` does it
from its first line of output until its input ends, and prints that time in seconds.
"""

from __future__ import annotations

import select
import subprocess
import sys
import time
from collections.abc import Callable
from http.client import HTTPConnection

from bench.drivers import PATIENCE

#: Seconds from an answer to the next question.
PAUSE = 0.002


def probed(port: int, work: Callable[[], object]) -> float:
    """Do something, and tell the service's longest gap meanwhile, in milliseconds."""
    with subprocess.Popen(
        [sys.executable, "-m", "bench.probe", str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as probe:
        assert probe.stdout
        probe.stdout.readline()
        work()
        told, _ = probe.communicate()
    return float(told) * 1000


def main(port: str) -> None:
    """Ask, and tell of the slowest answer."""
    connection = HTTPConnection("127.0.0.1", int(port), timeout=PATIENCE)
    _ask(connection)
    print("asking", flush=True)
    slowest = 0.0
    while not select.select([sys.stdin], [], [], PAUSE)[0]:
        slowest = max(slowest, _ask(connection))
    print(slowest)


def _ask(connection: HTTPConnection) -> float:
    asked = time.monotonic()
    connection.request("GET", "/healthz")
    connection.getresponse().read()
    return time.monotonic() - asked


if __name__ == "__main__":
    main(sys.argv[1])
