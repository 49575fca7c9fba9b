"""What happens on other nodes: how soon all tell of a change, and who is taken over.

Three members of etcd and three nodes, all on one machine. Times are those of whoever
waits for it outside: from when he asks, or kills, until he sees what he waits for.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import cycle
from random import Random
from statistics import quantiles

import zmq

from bench.cluster.costs import ENDLESS, STATES
from bench.cluster.machines import Machines, Node, machines, wait
from bench.drivers import change, drive_router, heartbeat
from bench.scenario import Figures, Scenario
from bench.sockets import Socket, connected, context, subscribed

#: Clients of the node that is killed, and where it has to be quick.
MANY, FEW = 10_000, 1_000

#: Changes that are asked for one after the other, and where it has to be quick.
ASKED, FEW_ASKED = 500, 50

NAMES = ("a", "b", "c")


def takeover(_: str, quick: bool) -> Figures:
    """Kill a node with clients, and spread their beats over the rest at random."""
    count = FEW if quick else MANY
    sent = [heartbeat(number) for number in range(count)]
    with machines() as here:
        etcd = here.etcd(3)
        dead, *others = _nodes(here, etcd.store)
        drive_router(dead.router, iter(sent * 2))
        wait(lambda: others[0].clients()["a"] == count, "nobody knows of them")
        time.sleep(1.0)  # what was written of them is told
        asked, puts = etcd.requests(), etcd.total("etcd_mvcc_put_total")
        began = time.monotonic()
        dead.kill()
        for node in others:
            wait(lambda node=node: _counted(node, others) == count, "they are lost")  # type: ignore[misc]  # mypy infers no type for a default
        taken_s = time.monotonic() - began
        asked = etcd.requests() - asked
        writes = etcd.total("etcd_mvcc_put_total") - puts
        figures: Figures = {
            "clients": count,
            "takeover_s": taken_s,
            "takeover_writes": writes,
            "takeover_transactions": asked["Txn"],
        }
        return figures | _moves(sent, others)


def _nodes(here: Machines, store: str) -> list[Node]:
    return [here.node(name, store, *ENDLESS) for name in NAMES]


def _counted(node: Node, nodes: Sequence[Node]) -> int:
    counts = node.clients()
    return sum(counts.get(each.name, 0) for each in nodes)


def _moves(sent: Sequence[bytes], nodes: Sequence[Node]) -> Figures:
    """Every client beats at one of the nodes, whichever has taken it over."""
    chance = Random(1)  # noqa: S311 - no secret, and the same in each run
    beats: list[list[bytes]] = [[] for _ in nodes]
    for message in sent:
        chance.choice(beats).append(message)
    commits = sum(map(_commits, nodes))
    used, began = sum(map(_cpu_seconds, nodes)), time.monotonic()
    for node, own in zip(nodes, beats, strict=True):
        drive_router(node.router, iter(own))
    took = time.monotonic() - began
    moves = sum(node.metric("heartbeat_moves_total") for node in nodes)
    return {
        "moves": moves,
        "moves_s": took,
        "moves_commits": sum(map(_commits, nodes)) - commits,
        "move_us": (sum(map(_cpu_seconds, nodes)) - used) / moves * 1e6,
    }


def _commits(node: Node) -> float:
    return node.metric("heartbeat_commit_duration_seconds_count")


def _cpu_seconds(node: Node) -> float:
    return node.server.cpu_seconds()


def told(_: str, quick: bool) -> Figures:
    """From a client's request until its answer, and until all nodes have published."""
    with machines() as here, context() as sockets:
        nodes = _nodes(here, here.etcd(3).store)
        ears = [subscribed(sockets, node.pub) for node in nodes]
        asker = connected(sockets, zmq.DEALER, nodes[0].router)
        drive_router(nodes[0].router, iter([heartbeat(0)] * 2))
        states = cycle(STATES)
        _prime(asker, ears, states)
        times = [
            _one_change(asker, ears, next(states))
            for _ in range(FEW_ASKED if quick else ASKED)
        ]
    answered, first, last = zip(*times, strict=True)
    return {
        "changes": len(times),
        **_percentiles("answer", answered),
        **_percentiles("first", first),
        **_percentiles("last", last),
    }


def _prime(asker: Socket, ears: Sequence[Socket], states: Iterator[str]) -> None:
    """Change something until all hear of it: nothing tells when they do."""
    deaf = set(ears)
    while deaf:
        asker.send(change(0, next(states)))
        asker.recv()
        deaf -= {ear for ear in deaf if ear.poll(200)}
    for ear in ears:
        while ear.poll(200):
            ear.recv_multipart()


def _one_change(
    asker: Socket, ears: Sequence[Socket], state: str
) -> tuple[float, float, float]:
    """Until the answer, the first publication and the last one, in seconds."""
    poller = zmq.Poller()
    for socket in (asker, *ears):
        poller.register(socket, zmq.POLLIN)
    waiting = {asker, *ears}
    began = time.perf_counter()
    asker.send(change(0, state))
    answered, heard = 0.0, list[float]()
    while waiting:
        for socket, _ in poller.poll(60_000):
            took = time.perf_counter() - began
            socket.recv_multipart()
            waiting.remove(socket)
            if socket is asker:
                answered = took
            else:
                heard.append(took)
    return answered, heard[0], heard[-1]


def _percentiles(name: str, seconds: Sequence[float]) -> Figures:
    cuts = quantiles(seconds, n=100)
    return {f"{name}_p50_ms": cuts[49] * 1e3, f"{name}_p99_ms": cuts[98] * 1e3}


SCENARIOS = (
    Scenario(
        "cluster_takeover",
        "a node of three is killed: its clients are taken over, and spread anew",
        ("ours",),
        takeover,
        rounds=1,
    ),
    Scenario(
        "cluster_told",
        "from a change until it is answered, and told by all of three nodes",
        ("ours",),
        told,
    ),
)
