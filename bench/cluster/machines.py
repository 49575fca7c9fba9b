"""Members of etcd and nodes of the service, as processes on loopback.

All on one machine: what they cost is true of many machines, how fast they are together
isn't. Knows how they are started and what they count; measures nothing.
"""

from __future__ import annotations

import json
import re
import socket
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.request import urlopen

from attrs import field, frozen

from bench.operator import ask, read
from bench.process import CORES, PATIENCE, Server, started
from bench.programs import OURS, OURS_READY

#: What a member says long before the others are there.
ETCD_BEGINS = r"etcd Version: (?P<version>\S+)"

_COUNTED = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
_METHOD = re.compile(r'grpc_method="(\w+)"')


@frozen
class EtcdCluster:
    """Members of one etcd.

    :ivar ports: where each listens for clients.
    """

    members: Sequence[Server]
    ports: Sequence[int]

    @property
    def store(self) -> str:
        """What ``--store`` is told."""
        endpoints = ",".join(f"127.0.0.1:{port}" for port in self.ports)
        return f"etcd://{endpoints}/heartbeat"

    def cpu_seconds(self) -> float:
        """The processor time of all members, in seconds."""
        return sum(member.cpu_seconds() for member in self.members)

    def memory(self) -> int:
        """What the largest member has in memory, in bytes."""
        return max(member.memory() for member in self.members)

    def requests(self) -> Counter[str]:
        """How many messages of each method came, as all members have counted them."""
        counted: Counter[str] = Counter()
        for port in self.ports:
            for name, labels, value in _COUNTED.findall(metrics(port)):
                if name == "grpc_server_msg_received_total":
                    method = _METHOD.search(labels)
                    assert method
                    counted[method[1]] += int(float(value))
        return counted

    def total(self, name: str, port: int = 0) -> float:
        """A number that a member counts.

        :param port: which one's; the first one's without.
        """
        return number(metrics(port or self.ports[0]), name)


@frozen
class Node:
    """A node of the service.

    :ivar name: what people call it.
    """

    name: str
    server: Server

    @property
    def http(self) -> int:
        """The port for HTTP."""
        return int(self.server.match["http"])

    @property
    def router(self) -> str:
        """The endpoint for requests."""
        return self.server.match["router"]

    @property
    def pub(self) -> str:
        """The endpoint of publications."""
        return self.server.match["pub"]

    def metric(self, name: str) -> float:
        """A number that it counts."""
        return number(metrics(self.http), name)

    def clients(self) -> dict[str, int]:
        """How many clients beat at each node, as this one knows it."""
        nodes = json.loads(read(ask(self.http, "GET", "/nodes")))["nodes"]
        return {node["node"]: node["clients"] for node in nodes}

    def kill(self) -> None:
        """End it without a last word."""
        self.server.process.kill()
        self.server.process.wait()


@frozen
class Machines:
    """Starts members and nodes, which run until the end of the block.

    :ivar cores: on which nodes run.
    :ivar etcd_cores: on which members run: not the nodes', so that they wait for none.
    """

    folder: Path
    stack: ExitStack
    cores: Sequence[int] = field(factory=lambda: CORES[:1])
    etcd_cores: Sequence[int] = field(factory=lambda: CORES[1:] or CORES)

    def etcd(self, members: int) -> EtcdCluster:
        """Start members, and wait until they serve clients."""
        ports = free_ports(2 * members)
        clients, peers = ports[:members], ports[members:]
        everyone = ",".join(f"m{port}=http://127.0.0.1:{port}" for port in peers)
        servers = [
            self._start(
                f"etcd-{peer}",
                ETCD_BEGINS,
                self.etcd_cores,
                *("etcd", "--name", f"m{peer}", "--data-dir", "data"),
                *("--listen-client-urls", f"http://127.0.0.1:{client}"),
                *("--advertise-client-urls", f"http://127.0.0.1:{client}"),
                *("--listen-peer-urls", f"http://127.0.0.1:{peer}"),
                *("--initial-advertise-peer-urls", f"http://127.0.0.1:{peer}"),
                *("--initial-cluster", everyone, "--snapshot-count", "10000"),
                # As in deploy/cluster/etcd.env.
                *("--auto-compaction-mode", "revision"),
                *("--auto-compaction-retention", "10000"),
            )
            for client, peer in zip(clients, peers, strict=True)
        ]
        wait(lambda: all(map(_is_healthy, clients)), "etcd serves nobody")
        return EtcdCluster(servers, clients)

    def node(self, name: str, store: str, *options: str) -> Node:
        """Start a node.

        :param options: what its command goes on with.
        """
        command: tuple[str | Path, ...] = (*OURS, "--store", store, "--node", name)
        server = self._start(name, OURS_READY, self.cores, *command, *options)
        return Node(name, server)

    def _start(
        self, name: str, ready: str, cores: Collection[int], *command: str | Path
    ) -> Server:
        folder = self.folder / name
        folder.mkdir()
        return self.stack.enter_context(started(command, ready, folder, cores))


@contextmanager
def machines(*, on_all_cores: bool = False) -> Iterator[Machines]:
    """Machines until the end of the block.

    :param on_all_cores: whether all programs run on all cores, as fast as they can;
        else nodes have a core for themselves.
    """
    with TemporaryDirectory(prefix="bench-") as folder, ExitStack() as stack:
        if on_all_cores:
            yield Machines(Path(folder), stack, CORES, CORES)
        else:
            yield Machines(Path(folder), stack)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens at; a member has to be told the others' beforehand."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def metrics(port: int) -> str:
    """What a program counts, in Prometheus' text format."""
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE) as answer:
        return str(answer.read().decode())


def number(told: str, name: str) -> float:
    """A number in that format, of all its labels together."""
    values = [float(value) for each, _, value in _COUNTED.findall(told) if each == name]
    if not values:
        raise RuntimeError(f"{name} isn't counted")
    return sum(values)


def wait(holds: Callable[[], bool], otherwise: str, pause: float = 0.02) -> None:
    """Wait until something holds.

    :raises RuntimeError: if it doesn't in :data:`PATIENCE` seconds.
    """
    until = time.monotonic() + PATIENCE
    while not holds():
        if time.monotonic() > until:
            raise RuntimeError(otherwise)
        time.sleep(pause)  # who is asked tells nobody by itself


def _is_healthy(port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
            return b'"true"' in answer.read()
    except OSError:
        return False
