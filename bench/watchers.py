"""Three ways to keep clients' timebombs: what beats are sent to, and deaths heard of.

Each takes beats without waiting for their answers, and counts those. Knows neither when
a beat is due nor how late a death is.
"""

from __future__ import annotations

import re
import select
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

import zmq

from bench.drivers import CONNECTIONS, heartbeat, posted
from bench.process import Server, started
from bench.programs import running
from bench.sockets import Socket, connected, context, subscribed

#: A death: when, by the machine's monotonic clock, and which client's.
Death = tuple[float, int]


class Watcher(Protocol):
    """What keeps timebombs.

    :ivar server: its process.
    :ivar answered: how many beats were answered so far.
    """

    server: Server
    answered: int

    def beat(self, clients: Sequence[int]) -> None:
        """Send a beat of each of them."""

    def hear(self, seconds: float) -> list[Death]:
        """Take in what has come, or else comes first in so many seconds."""


class Ours:
    """Beats go to the ROUTER, and deaths are told by the PUB socket."""

    def __init__(
        self, server: Server, dealer: Socket, ear: Socket, beats: Sequence[bytes]
    ) -> None:
        self.server, self.answered = server, 0
        self._dealer, self._ear, self._beats = dealer, ear, beats
        self._poller = zmq.Poller()
        self._poller.register(dealer, zmq.POLLIN)
        self._poller.register(ear, zmq.POLLIN)

    def beat(self, clients: Sequence[int]) -> None:
        """By one DEALER for all."""
        for client in clients:
            self._dealer.send(self._beats[client])

    def hear(self, seconds: float) -> list[Death]:
        """Of publications, those of timebombs."""
        deaths = []
        if self._poller.poll(round(seconds * 1000)):
            for topic, message in _received(self._ear):
                if b'"timebomb"' in message:
                    deaths.append((time.monotonic(), _number(topic)))
            self.answered += len(list(_received(self._dealer)))
        return deaths


class Redis:
    """A key with a time to live for each client, and an event when it expires."""

    def __init__(self, server: Server, port: int, fuse: float) -> None:
        from redis import Redis as Connection  # not there but for make bench

        self.server, self.answered = server, 0
        self._redis = Connection(port=port)
        self._milliseconds = round(fuse * 1000)
        self._events = self._redis.pubsub(ignore_subscribe_messages=True)
        self._events.subscribe("__keyevent@0__:expired")

    def beat(self, clients: Sequence[int]) -> None:
        """All in one pipeline, which waits for the answers."""
        pipeline = self._redis.pipeline(transaction=False)
        for client in clients:
            pipeline.set(f"headset-{client:06}", "alive", px=self._milliseconds)
        self.answered += len(pipeline.execute())

    def hear(self, seconds: float) -> list[Death]:
        """Events of expiry."""
        deaths = []
        event = self._events.get_message(timeout=seconds)
        while event:
            deaths.append((time.monotonic(), _number(event["data"])))
            event = self._events.get_message()
        return deaths


class Threads:
    """Beats are posted to FastAPI; deaths are in its file, with their moments."""

    def __init__(
        self, server: Server, port: int, file: Path, beats: Sequence[bytes]
    ) -> None:
        self.server, self.answered = server, 0
        self._requests = list(map(posted, beats))
        self._file = file.open()
        self._epoll = select.epoll()
        self._lines = {}
        for _ in range(CONNECTIONS):
            line = socket.create_connection(("127.0.0.1", port))
            self._lines[line.fileno()] = line
            self._epoll.register(line, select.EPOLLIN)
        self._idle = list(self._lines.values())
        self._waiting: deque[bytes] = deque()

    def beat(self, clients: Sequence[int]) -> None:
        """One at a time by each connection; the others wait their turn."""
        self._waiting.extend(self._requests[client] for client in clients)
        while self._waiting and self._idle:
            self._idle.pop().sendall(self._waiting.popleft())

    def hear(self, seconds: float) -> list[Death]:
        """What the file has more than before."""
        for descriptor, _ in self._epoll.poll(seconds):
            # The last of an answer is the body, which says who it was.
            if b"headset-" in self._lines[descriptor].recv(65_536):
                self.answered += 1
                self._idle.append(self._lines[descriptor])
        self.beat(())
        lines = map(str.split, self._file)
        return [(float(moment), _number(client.encode())) for moment, client in lines]


@contextmanager
def watch_by_ours(clients: int, fuse: float) -> Iterator[Watcher]:
    """The service, with its default store."""
    with running("ours", "--timebomb", str(fuse)) as server, context() as sockets:
        ear = subscribed(sockets, server.match["pub"])
        dealer = connected(sockets, zmq.DEALER, server.match["router"])
        yield Ours(server, dealer, ear, _beats(clients))


@contextmanager
def watch_by_redis(_: int, fuse: float) -> Iterator[Watcher]:
    """Redis that keeps nothing on disk, and tells of what expires."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = (
        *("redis-server", "--bind", "127.0.0.1", "--port", str(port)),
        *("--save", "", "--notify-keyspace-events", "Ex"),
    )
    with (
        TemporaryDirectory() as folder,
        started(command, "Ready to accept connections", Path(folder)) as server,
    ):
        yield Redis(server, port, fuse)


@contextmanager
def watch_by_threads(clients: int, fuse: float) -> Iterator[Watcher]:
    """FastAPI with a thread for each client."""
    with running("threads", str(fuse)) as server:
        port, file = int(server.match["http"]), Path(server.process.cwd(), "deaths")
        try:
            yield Threads(server, port, file, _beats(clients))
        finally:
            server.process.kill()  # thousands of threads take long to end in peace


#: Who keeps timebombs: each is started with a number of clients and their fuse.
WATCHERS: Mapping[str, Callable[[int, float], AbstractContextManager[Watcher]]] = {
    "ours": watch_by_ours,
    "Redis": watch_by_redis,
    "threads": watch_by_threads,
}


def _beats(clients: int) -> list[bytes]:
    return [heartbeat(number) for number in range(clients)]


def _received(socket: Socket) -> Iterator[list[bytes]]:
    """Whatever has come."""
    try:
        while True:
            yield socket.recv_multipart(zmq.NOBLOCK)
    except zmq.Again:
        return


def _number(name: bytes) -> int:
    """Of the client that a key, a topic or an ID is of."""
    match = re.search(rb"headset-(\d+)", name)
    assert match, name
    return int(match[1])
