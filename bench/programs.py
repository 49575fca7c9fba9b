"""How each program that is measured is started."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.process import BIN, Server, started

#: The service as anybody runs it, with its default store, on ports of the system's.
OURS = (
    *(BIN / "twistd", "-n", "--pidfile=", "heartbeat"),
    *("--http", "tcp:0:interface=127.0.0.1"),
    *("--router", "tcp://127.0.0.1:0", "--pub", "tcp://127.0.0.1:*"),
)
OURS_READY = (
    r"ready http=127\.0\.0\.1:(?P<http>\d+) "
    r"router=(?P<router>\S+) pub=(?P<pub>\S+)$"
)
HTTP_READY = r"\b127\.0\.0\.1:(?P<http>\d+)"
ROUTER_READY = r"(?P<router>tcp://127\.0\.0\.1:\d+)$"


def peer(module: str) -> tuple[str, ...]:
    """The command of a module of :mod:`bench.contestants`."""
    return sys.executable, "-m", f"bench.contestants.{module}"


PROGRAMS: dict[str, tuple[tuple[str | Path, ...], str]] = {
    "ours": (OURS, OURS_READY),
    "FastAPI": (peer("fastapi_app"), HTTP_READY),
    "aiohttp": (peer("aiohttp_app"), HTTP_READY),
    "Klein": (peer("klein_app"), HTTP_READY),
    "pyzmq": (peer("pyzmq_loop"), ROUTER_READY),
    "threads": (peer("threads_app"), HTTP_READY),
}


@contextmanager
def running(name: str, *options: str) -> Iterator[Server]:
    """Run a program, in a folder of its own, until the end of the block.

    :param options: what its command goes on with.
    """
    command, ready = PROGRAMS[name]
    with (
        TemporaryDirectory(prefix="bench-") as folder,
        started((*command, *options), ready, Path(folder)) as server,
    ):
        yield server
