"""``python -m bench.cluster.model [--seed N]``: how thousands of machines would do.

A model: nothing of it was measured with so many. Nodes and etcd are queues on virtual
time. A node gathers changes, and has one transaction on its way; etcd does one after
the other; every node follows all that is written, and has answered a change once it has
followed it itself. Beats take their part of each node's processor before that. What
each step costs was measured on few machines, see :data:`MEASURED`; how much clients do
and what machines have is assumed, see :data:`ASSUMED`. The same seed has the same
outcome, to the byte.
"""

from __future__ import annotations

import argparse
from collections import deque
from collections.abc import Iterator, Sequence
from heapq import heapify, heappop, heappush
from math import inf, sqrt
from random import Random

from attrs import define, field, fields, frozen
from rich.console import Console
from rich.table import Table

from heartbeat_service.storage.etcd.writes import LARGEST_TRANSACTION

NODES = (1, 3, 10, 100, 1_000)
CLIENTS = (10_000, 100_000, 1_000_000, 10_000_000)


def known(value: float, source: str) -> float:
    """A field of that value, which remembers where it is from."""
    return field(default=value, metadata={"source": source})


NOTE = "LIBRARIES, etcd: three members on loopback"


@frozen
class Costs:
    """What each step costs."""

    transaction_ms: float = known(
        0.771, f"{NOTE}: 1,149/s of one change each, 32 at once"
    )
    change_ms: float = known(0.0991, f"{NOTE}: 9,367/s in transactions of 100")
    watch_ms: float = known(4.0, f"{NOTE}: p50 of a watch")
    fan_out_us: float = known(2.2, "cluster_watches: of a member, for each who watches")
    event_bytes: float = known(601, "cluster_watches: bytes of a change on the wire")
    follow_us: float = known(241, "cluster_changes: follower_us")
    own_us: float = known(480, "cluster_changes: node_us, following it among that")
    beat_us: float = known(154, "cluster_beats: http_clustered_us")
    replica_bytes: float = known(1860, "cluster_growth: follower_bytes, of 50,000")
    owner_bytes: float = known(380, "cluster_growth: what the owner has besides")
    database_bytes: float = known(
        827, "cluster_growth: etcd's database, of each client"
    )
    etcd_bytes: float = known(2043, "cluster_growth: a member's memory, of each client")
    start_us: float = known(
        49, "cluster_growth: a node's start, of each client there is"
    )
    read_us: float = known(14.6, f"{NOTE}: 398,000 keys listed in 5.8 s")
    settle_us: float = known(3.7, "Replica.bequeath of 100,000 clients, timed alone")


@frozen
class Assumptions:
    """What clients do, and what machines have."""

    interval_s: float = known(2.0, "from one beat to the next: the service's default")
    fuse_s: float = known(10.0, "from a client's last beat to its death: the default")
    changes_an_hour: float = known(
        4.0, "of a client: a life, with two changes of state"
    )
    node_cores: float = known(1.0, "a node is one process in Python")
    node_gib: float = known(8.0, "memory that a node may take")
    member_cores: float = known(4.0, "of a member of etcd, for its watches")
    member_mb_s: float = known(1_000, "that a member can send: a network of 10 Gbit/s")
    database_gib: float = known(8.0, "the most that etcd's makers recommend")
    members: float = known(3, "of etcd")
    lease_s: float = known(
        5.0, "a session's time, which etcd may double as it fails over"
    )
    start_s: float = known(300.0, "a start may take: etcd compacts each five minutes")
    latency_ms: float = known(1_000, "p99 of a change's answer: clients ask again then")


MEASURED, ASSUMED = Costs(), Assumptions()


@define
class Outcome:
    """How so many machines do with so many clients.

    :ivar figures: what the table shows.
    :ivar used: of each thing that there is not without end, which part is used.
    """

    nodes: int
    clients: int
    figures: dict[str, float] = field(factory=dict)
    used: dict[str, float] = field(factory=dict)

    @property
    def breaks(self) -> list[str]:
        """What isn't enough, what is furthest from it first."""
        over = {limit: part for limit, part in self.used.items() if part > 1}
        return sorted(over, key=lambda limit: -over[limit])


def reckon(nodes: int, clients: int, seed: int, costs: Costs = MEASURED) -> Outcome:
    """Let so many do their work, and one of them die."""
    outcome = Outcome(nodes, clients)
    _standing(outcome, costs)
    if outcome.used["node's processor"] < 1 and outcome.used["etcd's commits"] < 1:
        chance = Random(f"{seed} {nodes} {clients}")  # noqa: S311 - no secret
        _flowing(outcome, costs, chance)
    return outcome


def _standing(outcome: Outcome, costs: Costs) -> None:
    """What follows from how many there are, without any time."""
    nodes, clients, here = outcome.nodes, outcome.clients, ASSUMED
    changes = clients * here.changes_an_hour / 3600
    watchers = nodes / here.members
    beats = clients / nodes / here.interval_s
    beating = beats * costs.beat_us / 1e6
    changing = changes / nodes * (costs.own_us - costs.follow_us) / 1e6
    following = changes * costs.follow_us / 1e6
    replica = clients * (costs.replica_bytes + costs.owner_bytes / nodes)
    sent = changes * costs.event_bytes * watchers / 1e6
    sending = changes * costs.fan_out_us * watchers / 1e6
    database = clients * costs.database_bytes
    start = clients * max(costs.start_us, costs.read_us) / 1e6
    # After all have failed together, all read everything from the members.
    scans = nodes * clients * costs.event_bytes / here.members / here.member_mb_s / 1e6
    # However many write, etcd is asked as often as it takes to carry a hundred each.
    least = changes * (costs.change_ms + costs.transaction_ms / LARGEST_TRANSACTION)
    outcome.figures |= {
        "changes_per_s": changes,
        "events_per_s": changes * nodes,
        "keep_alives_per_s": nodes * 3 / here.lease_s,
        "member_mb_per_s": sent,
        "member_cores": sending,
        "etcd_gib": clients * costs.etcd_bytes / 2**30,
        "database_gib": database / 2**30,
        "replica_gib": replica / 2**30,
        "beating_cores": beating,
        "following_cores": following + changing,
        "start_s": start,
        "all_start_s": max(start, scans),
        "all_moved_s": _all_moved(nodes, clients, costs),
    }
    outcome.used |= {
        "node's processor": (beating + changing + following) / here.node_cores,
        "node's memory": replica / 2**30 / here.node_gib,
        "etcd's commits": least / 1e3,
        "etcd's database": database / 2**30 / here.database_gib,
        "watches' bytes": sent / here.member_mb_s,
        "watches' processor": sending / here.member_cores,
        "a node's start": start / here.start_s,
    }


def _all_moved(nodes: int, clients: int, costs: Costs) -> float:
    """How long it takes to move all who beat elsewhere than their heirs, if all do.

    That is so after all nodes were gone at once.
    """
    each_ms = max(
        costs.change_ms + costs.transaction_ms / LARGEST_TRANSACTION,
        (costs.follow_us + (costs.own_us - costs.follow_us) / nodes) / 1e3,
    )
    return clients * (1 - 1 / nodes) * each_ms / 1e3


def _flowing(outcome: Outcome, costs: Costs, chance: Random) -> None:
    """What follows from how they wait for each other."""
    nodes, clients, here = outcome.nodes, outcome.clients, ASSUMED
    calm = Flow(nodes, clients, costs, chance)
    calm.run(until=CALM)
    outcome.figures |= {
        "transactions_per_s": calm.transactions / CALM,
        "p50_ms": calm.latency(0.5) * 1e3,
        "p99_ms": calm.latency(0.99) * 1e3,
    }
    outcome.used["a change's answer"] = calm.latency(0.99) * 1e3 / here.latency_ms
    if nodes == 1:
        return
    dead = clients / nodes
    settling = dead * costs.settle_us / 1e6
    # Nodes prolong their sessions three times in their time; etcd and the others look
    # each half second whose is over.
    noticed = here.lease_s * (1 - chance.random() / 3) + chance.uniform(0.0, 1.0)
    # Only where a client happens to beat at its heir, nothing is written.
    moves = round(dead * (nodes - 2) / (nodes - 1))
    after = Flow(nodes - 1, clients, costs, chance, moves)
    if after.is_possible and moves:
        after.run(until=PATIENCE)
    moved = after.moved_at if moves else 0.0
    outcome.figures |= {
        "noticed_s": noticed + settling,
        "moves": moves,
        "moved_s": moved,
        # One after the other is emptied, started, and gets its clients back.
        "rolling_s": nodes * (2 * moved + outcome.figures["start_s"]),
    }
    # Who is heard elsewhere, but not moved by then, dies of the fuse of the heir.
    outcome.used["moves"] = moved / here.fuse_s


#: For how long nothing special happens, and how long moves are waited for, in seconds.
CALM, PATIENCE = 20.0, 120.0


@define(eq=False)
class Flow:
    """Changes on their way from nodes by etcd to all nodes, on virtual time.

    :ivar moves: how many clients begin to beat at another node, within an interval.
    :ivar moved_at: when the last of them had moved, in seconds; without end if it
        hadn't when time was over.
    """

    nodes: int
    clients: int
    costs: Costs
    chance: Random
    moves: int = 0
    transactions: int = 0
    moved_at: float = inf
    _waits: list[float] = field(factory=list)

    def run(self, until: float) -> None:
        """Let time pass; where clients move, until all of them have."""
        costs, free = self.costs, ASSUMED.node_cores - self._beating()
        follow = costs.follow_us / 1e6 / free
        own = (costs.own_us - costs.follow_us) / 1e6 / free
        queues = list(self._queues())
        due = [(queue.due(), each) for each, queue in enumerate(queues)]
        heapify(due)
        etcd, followed, moving = 0.0, 0.0, self.moves
        while due[0][0] < until and (moving or not self.moves):
            now, node = heappop(due)
            facts = queues[node].take(now)
            if not facts:
                heappush(due, (queues[node].due(), node))
                continue
            served = costs.transaction_ms + costs.change_ms * len(facts)
            etcd = max(etcd, now) + served / 1e3
            followed = max(followed, etcd + costs.watch_ms / 1e3) + follow * len(facts)
            done = followed + own * len(facts)
            heappush(due, (done, node))
            self.transactions += 1
            self._waits += [done - since for since, _ in facts]
            moving -= sum(is_move for _, is_move in facts)
            if self.moves and not moving:
                self.moved_at = done

    def latency(self, part: float) -> float:
        """How long that part of all changes waited for their answers, at the most."""
        self._waits.sort()
        return self._waits[int(part * len(self._waits))]

    @property
    def is_possible(self) -> bool:
        """Whether beats leave nodes any time for changes."""
        return self._beating() < ASSUMED.node_cores

    def _beating(self) -> float:
        beats = self.clients / self.nodes / ASSUMED.interval_s
        return beats * self.costs.beat_us / 1e6

    def _queues(self) -> Iterator[Queue]:
        rate = self.clients * ASSUMED.changes_an_hour / 3600 / self.nodes
        each, rest = divmod(self.moves, self.nodes)
        for number in range(self.nodes):
            yield Queue(rate, each + (number < rest), self.chance)


@define(eq=False)
class Queue:
    """What waits at a node for its next transaction.

    :ivar rate: changes a second.
    :ivar moves: how many clients of another node begin to beat here, in an interval.
    """

    rate: float
    moves: int
    chance: Random
    _next_change: float = field(init=False)
    _moved: int = 0
    _waiting: deque[tuple[float, bool]] = field(factory=deque)

    def __attrs_post_init__(self) -> None:
        self._next_change = self.chance.expovariate(self.rate)

    def take(self, now: float) -> Sequence[tuple[float, bool]]:
        """The first that wait: since when, and whether it is a move."""
        while (due := self.due()) <= now:
            is_move = due < self._next_change
            self._waiting.append((due, is_move))
            if is_move:
                self._moved += 1
            else:
                self._next_change += self.chance.expovariate(self.rate)
        some = min(len(self._waiting), LARGEST_TRANSACTION)
        return [self._waiting.popleft() for _ in range(some)]

    def due(self) -> float:
        """When the next one comes."""
        if self._moved == self.moves:
            return self._next_change
        next_move = (self._moved + 0.5) / self.moves * ASSUMED.interval_s
        return min(next_move, self._next_change)


#: What the tables call each figure.
FIGURES = {
    "changes_per_s": "changes/s",
    "events_per_s": "events/s to all nodes",
    "transactions_per_s": "transactions/s",
    "keep_alives_per_s": "keep-alives/s",
    "member_mb_per_s": "a member sends, MB/s",
    "member_cores": "of a member for watches, cores",
    "database_gib": "etcd's database, GiB",
    "etcd_gib": "a member's memory, GiB",
    "replica_gib": "a node's memory, GiB",
    "beating_cores": "of a node for beats, cores",
    "following_cores": "of a node for changes, cores",
    "p50_ms": "a change's answer, p50, ms",
    "p99_ms": "p99, ms",
    "noticed_s": "a dead node noticed, s",
    "moves": "of its clients move",
    "moved_s": "all moved by beats elsewhere, s",
    "start_s": "a node's start, s",
    "all_start_s": "all start at once, s",
    "all_moved_s": "all moved after that, s",
    "rolling_s": "all restarted in turn, s",
}


def main() -> None:
    """Print what is assumed, what comes of it, and where it ends."""
    parser = argparse.ArgumentParser(prog="bench.cluster.model", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="of all chances [1]")
    seed = parser.parse_args().seed
    console = Console(highlight=False, width=200)
    console.print(
        f"A model on virtual time, seed {seed}: not measured with so many machines."
    )
    for title, values in (("measured", MEASURED), ("assumed", ASSUMED)):
        console.print(_sources(title, values))
    for clients in CLIENTS:
        console.print(_table(clients, [reckon(each, clients, seed) for each in NODES]))
    console.print(_ends(seed))
    console.print(_sharded(seed))


def _sources(title: str, values: Costs | Assumptions) -> Table:
    shown = Table(title=title)
    for heading in ("what", "value", "source" if values is MEASURED else "of what"):
        shown.add_column(heading, justify="right" if heading == "value" else "left")
    for each in fields(type(values)):
        value = getattr(values, each.name)
        shown.add_row(each.name, f"{value:,g}", each.metadata["source"])
    return shown


def _table(clients: int, outcomes: Sequence[Outcome]) -> Table:
    shown = Table(title=f"{clients:,} clients, in the model")
    shown.add_column("")
    for outcome in outcomes:
        plural = "" if outcome.nodes == 1 else "s"
        shown.add_column(f"{outcome.nodes:,} node{plural}", justify="right")
    for figure, title in FIGURES.items():
        cells = [_written(each.figures.get(figure)) for each in outcomes]
        shown.add_row(title, *cells)
    shown.add_row("breaks", *("\n".join(each.breaks) or "-" for each in outcomes))
    return shown


def _written(value: float | None) -> str:
    if value is None:
        return ""
    if value == inf:
        return f"over {PATIENCE:.0f}"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _ends(seed: int) -> Table:
    """With how many clients each number of nodes comes to an end, and by what."""
    shown = Table(title="the most clients in the model, and what is first too little")
    for heading in ("nodes", "clients", "then", "seconds to move a dead node's"):
        shown.add_column(heading, justify="left" if heading == "then" else "right")
    for nodes in NODES:
        most, least = 1_000, 100_000_000
        while least / most > 1.02:
            tried = round(sqrt(most * least))
            if reckon(nodes, tried, seed).breaks:
                least = tried
            else:
                most = tried
        breaks = reckon(nodes, least, seed).breaks
        moved = reckon(nodes, most, seed).figures.get("moved_s")
        shown.add_row(f"{nodes:,}", f"{most:,.0f}", ", ".join(breaks), _written(moved))
    return shown


def _sharded(seed: int) -> Table:
    """Ten million clients on a thousand nodes, as so many clusters of their own."""
    outcomes = [
        (shards, reckon(NODES[-1] // shards, CLIENTS[-1] // shards, seed))
        for shards in (1, 2, 5, 10, 20, 50, 100)
    ]
    shown = Table(
        title=f"{CLIENTS[-1]:,} clients on {NODES[-1]:,} nodes, in shards:"
        " each an etcd and nodes that follow it alone, in the model"
    )
    shown.add_column("")
    for shards, _ in outcomes:
        shown.add_column(f"{shards}", justify="right")
    for figure, title in FIGURES.items():
        cells = [_written(each.figures.get(figure)) for _, each in outcomes]
        shown.add_row(f"of each: {title}", *cells)
    shown.add_row("breaks", *("\n".join(each.breaks) or "-" for _, each in outcomes))
    return shown


if __name__ == "__main__":
    main()
