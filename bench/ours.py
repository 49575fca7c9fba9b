"""How the service is started for a measurement: as people start it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attrs import frozen

from bench.process import BIN, Server, started

_READY = r"service ready http=127\.0\.0\.1:(\d+) router=(\S+) pub=(\S+)$"


@frozen
class Ours:
    """The service, while it listens.

    :ivar http: the port of its HTTP.
    :ivar router: where its ROUTER listens.
    :ivar pub: where its PUB socket does.
    """

    server: Server
    http: int
    router: str
    pub: str


@contextmanager
def ours(folder: Path, *options: str) -> Iterator[Ours]:
    """Run the service, with its own store in a folder, until the end of the block."""
    command: tuple[str | Path, ...] = (
        *(BIN / "twistd", "-n", "--pidfile=", "heartbeat"),
        *("--http", "tcp:0:interface=127.0.0.1"),
        *("--router", "tcp://127.0.0.1:*", "--pub", "tcp://127.0.0.1:*"),
        *options,
    )
    with started(command, _READY, folder) as server:
        http, router, pub = server.match.groups()
        yield Ours(server, int(http), router, pub)
