"""What it costs that machines are many: a beat, a change, what others hear of it.

Costs are processor time, as the kernel counts it, of whichever process they are told.
Whoever is compared runs at the same time and is driven in turn.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, cycle, islice, repeat

from bench.beats import LONG, SHORT, wrk
from bench.cluster.machines import EtcdCluster, Machines, Node, machines
from bench.drivers import change, drive_http, drive_router, heartbeat
from bench.process import CORES, Server
from bench.scenario import Figures, Scenario

#: How long a client's fuse is, in seconds: nobody dies while it is measured.
ENDLESS = ("--timebomb", "3600")

#: How often those who are compared are driven, in turn.
TURNS, FEW_TURNS = 10, 2

#: Requests on their way where as many changes are asked for as a node takes.
IN_FLIGHT = 1_000

#: Which states clients enter, in turn.
STATES = ("CALIBRATED", "RUNNING")


def beats(_: str, quick: bool) -> Figures:
    """A beat at a clustered node, and at one alone, in turn on the same core."""
    sent = [heartbeat(number) for number in range(1_000)]
    with machines() as here:
        alone = here.node("alone", "sqlite:alone", *ENDLESS)
        etcd = here.etcd(1)
        clustered = here.node("clustered", etcd.store, *ENDLESS)
        here.node("another", etcd.store, *ENDLESS)
        turns = FEW_TURNS if quick else TURNS

        def by_http(node: Node) -> int:
            return len(drive_http(node.http, iter(sent * 2)))

        def by_router(node: Node) -> int:
            return len(drive_router(node.router, iter(sent * 4)))

        figures: Figures = {}
        for way, drive in (("http", by_http), ("router", by_router)):
            costs = in_turn((alone, clustered), drive, turns)
            figures[f"{way}_alone_us"], figures[f"{way}_clustered_us"] = costs
            figures[f"{way}_ratio"] = costs[1] / costs[0]
        return figures


def in_turn(
    nodes: Sequence[Node], drive: Callable[[Node], int], turns: int
) -> list[float]:
    """What one request costs each of them, in microseconds.

    :param drive: returns how many were answered.
    """
    for node in nodes:
        drive(node)  # which registers the clients
    used, answered = [0.0] * len(nodes), [0] * len(nodes)
    for _ in range(turns):
        for number, node in enumerate(nodes):
            before = node.server.cpu_seconds()
            answered[number] += drive(node)
            used[number] += node.server.cpu_seconds() - before
    return [each / count * 1e6 for each, count in zip(used, answered, strict=True)]


#: Clients that beat while nothing changes, and seconds from one beat to the next.
QUIET_CLIENTS, FEW_QUIET, INTERVAL = 10_000, 1_000, 10.0


def quiet(_: str, quick: bool) -> Figures:
    """What etcd is asked while clients beat and nothing changes."""
    count = FEW_QUIET if quick else QUIET_CLIENTS
    seconds = 5.0 if quick else 2 * INTERVAL
    sent = [heartbeat(number) for number in range(count)]
    with machines() as here:
        etcd = here.etcd(1)
        nodes = [here.node(name, etcd.store, *ENDLESS) for name in "ab"]
        drive_router(nodes[0].router, iter(sent * 2))
        time.sleep(1.0)  # what was written of them is told
        asked, used, began = etcd.requests(), etcd.cpu_seconds(), time.monotonic()
        paced_beats = paced(cycle(sent), count / INTERVAL, seconds)
        answered = len(drive_router(nodes[0].router, paced_beats))
        took = time.monotonic() - began
        asked, used = etcd.requests() - asked, etcd.cpu_seconds() - used
    return {
        "clients": count,
        "nodes": len(nodes),
        "beats_per_s": answered / took,
        "etcd_transactions": asked.pop("Txn", 0),
        "etcd_reads": asked.pop("Range", 0),
        "etcd_keep_alives_per_s": asked.pop("LeaseKeepAlive", 0) / took,
        "etcd_other_per_s": sum(asked.values()) / took,
        "etcd_cpu_percent": used / took * 100,
    }


def paced(messages: Iterator[bytes], rate: float, seconds: float) -> Iterator[bytes]:
    """So many a second, for so long."""
    began = time.monotonic()
    for number, message in enumerate(islice(messages, round(rate * seconds))):
        time.sleep(max(0.0, began + number / rate - time.monotonic()))
        yield message


#: Clients that register and change, and how often each changes.
CHANGING, FEW_CHANGING, TIMES = 2_000, 500, 4


def changes(store: str, quick: bool) -> Figures:
    """Registrations and changes at one node, while another one follows."""
    count = FEW_CHANGING if quick else CHANGING
    with machines() as here:
        etcd, nodes = _cluster(here, store)
        node, watched = nodes[0], [each.server for each in nodes]
        watched += [] if etcd is None else etcd.members
        registrations = [heartbeat(number) for number in range(count)]
        ordered = chain.from_iterable(
            (change(number, state) for number in range(count))
            for state in islice(cycle(STATES), TIMES)
        )
        by_registering, _ = driven(node, iter(registrations), watched)
        commits = _commits(node)
        by_changing, used = driven(node, ordered, watched)
        commits = _commits(node) - commits
    total = TIMES * count
    return {
        "registrations_per_s": count / by_registering,
        "changes_per_s": total / by_changing,
        "changes_in_a_commit": total / commits,
        "node_us": used[0] / total * 1e6,
        "follower_us": used[1] / total * 1e6 if etcd else 0.0,
        "etcd_us": sum(used[len(nodes) :]) / total * 1e6,
    }


def _cluster(here: Machines, store: str) -> tuple[EtcdCluster | None, list[Node]]:
    """A node with such a store; with etcd's, another one that follows."""
    if store == "SQLite":
        return None, [here.node("a", "sqlite:a", *ENDLESS)]
    etcd = here.etcd(3 if store == "etcd of three" else 1)
    return etcd, [here.node(name, etcd.store, *ENDLESS) for name in "ab"]


def _commits(node: Node) -> float:
    return node.metric("heartbeat_commit_duration_seconds_count")


def driven(
    node: Node, messages: Iterator[bytes], servers: Sequence[Server]
) -> tuple[float, list[float]]:
    """How long all answers took, and what each server used meanwhile, in seconds."""
    before, began = [each.cpu_seconds() for each in servers], time.monotonic()
    drive_router(node.router, messages, IN_FLIGHT)
    took = time.monotonic() - began
    time.sleep(1.0)  # who only follows is a little behind
    used = [each.cpu_seconds() for each in servers]
    return took, [now - then for now, then in zip(used, before, strict=True)]


def together(size: str, quick: bool) -> Figures:
    """Beats over HTTP at one, two or three nodes at once, on all cores of here."""
    count = int(size.split(maxsplit=1)[0])
    seconds = SHORT if quick else LONG
    with machines(on_all_cores=True) as here:
        etcd = here.etcd(1)
        nodes = [here.node(f"n{each}", etcd.store, *ENDLESS) for each in range(count)]
        sent = [
            [heartbeat(1_000 * each + number) for number in range(1_000)]
            for each in range(count)
        ]
        for node, own in zip(nodes, sent, strict=True):
            drive_http(node.http, iter(own * 2))
        time.sleep(1.0)  # what was written of them is told
        before = sum(node.server.cpu_seconds() for node in nodes)
        with ThreadPoolExecutor(count) as pool:
            ports = [node.http for node in nodes]
            told = list(pool.map(wrk, ports, repeat(seconds), sent))
        used = sum(node.server.cpu_seconds() for node in nodes) - before
    answered = sum(each["requests"] for each in told)
    return {
        "cores": len(CORES),
        "rate": sum(each["requests"] / each["seconds"] for each in told),
        "cpu_us": used / answered * 1e6,
        "p50_ms": max(each["p50_ms"] for each in told),
        "p99_ms": max(each["p99_ms"] for each in told),
    }


SCENARIOS = (
    Scenario(
        "cluster_beats",
        "a beat at a clustered node beside one at a node alone, on the same core",
        ("ours",),
        beats,
    ),
    Scenario(
        "cluster_quiet",
        f"what etcd is asked while {QUIET_CLIENTS:,} clients beat and nothing changes",
        ("ours",),
        quiet,
        rounds=1,
    ),
    Scenario(
        "cluster_changes",
        "registrations and changes at one node, and what they cost whom",
        ("SQLite", "etcd", "etcd of three"),
        changes,
    ),
    Scenario(
        "cluster_together",
        "HTTP beats at nodes on one machine, with etcd and who drives them beside",
        ("1 node", "2 nodes", "3 nodes"),
        together,
    ),
)
