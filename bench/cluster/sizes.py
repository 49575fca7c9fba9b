"""What many clients and many nodes take: memory, time to start, commits, watches.

``python -m bench.cluster.sizes COUNT`` builds what a node has of so many clients of
other nodes, real objects filled by real code, and prints how many bytes the memory of
its process has grown by, and how long a record is.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count, islice
from queue import SimpleQueue
from threading import BoundedSemaphore, Thread
from typing import Any

import grpc
import psutil
from aetcd.rpc import rpc_pb2_grpc
from attrs import define
from twisted.internet.task import Clock

from bench.cluster.costs import ENDLESS
from bench.cluster.machines import EtcdCluster, machines, wait
from bench.drivers import drive_router, heartbeat
from bench.process import PATIENCE
from bench.scenario import Figures, Scenario
from heartbeat_service.core.changes import Change, Reason, Snapshot
from heartbeat_service.core.instances import Instances
from heartbeat_service.core.registry import Registry
from heartbeat_service.core.states import ClientState
from heartbeat_service.storage.etcd.messages import transaction_request, watch_request
from heartbeat_service.storage.etcd.port import Compare, Put, Transaction
from heartbeat_service.storage.etcd.records import Record, decode, encode, of_change
from heartbeat_service.storage.etcd.replica import Known, Replica

#: How many live, and how many where it has to be quick.
SIZES = {"few": (1_000, 200), "many": (10_000, 1_000), "most": (50_000, 2_000)}


def growth(size: str, quick: bool) -> Figures:
    """Let so many register at one node, and start another one when they are there."""
    total = SIZES[size][quick]
    with machines() as here:
        etcd = here.etcd(1)
        owner, follower = (here.node(name, etcd.store, *ENDLESS) for name in "ab")
        servers = owner.server, follower.server, etcd.members[0]
        for node in owner, follower:
            drive_router(node.router, iter([heartbeat(total)] * 1_000))
        empty = [server.memory() for server in servers]
        database = _database(etcd)
        drive_router(owner.router, (heartbeat(number) for number in range(total)))
        wait(lambda: owner.clients()["a"] >= total, "nobody counts them")
        time.sleep(1.0)  # who only follows is a little behind
        grown = [server.memory() for server in servers]
        a_client = [
            (now - then) / total for now, then in zip(grown, empty, strict=True)
        ]
        database = (_database(etcd) - database) / total
        began = time.monotonic()
        late = here.node("late", etcd.store, *ENDLESS)
        start_s = time.monotonic() - began
        start_cpu_s = late.server.cpu_seconds()
    return {
        "clients": total,
        "owner_bytes_a_client": a_client[0],
        "follower_bytes_a_client": a_client[1],
        "etcd_bytes_a_client": a_client[2],
        "database_bytes_a_client": database,
        "start_s": start_s,
        "start_cpu_s": start_cpu_s,
    }


def _database(etcd: EtcdCluster) -> float:
    return etcd.total("etcd_mvcc_db_total_size_in_bytes")


#: Of how many clients the replica is built.
BUILT, FEW_BUILT = 100_000, 10_000


def replica(_: str, quick: bool) -> Figures:
    """What a node has in memory of each client that beats elsewhere."""
    total = FEW_BUILT if quick else BUILT
    command = [sys.executable, "-m", "bench.cluster.sizes", str(total)]
    said = subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=PATIENCE * 2
    )
    grown, length = map(int, said.stdout.split())
    return {"clients": total, "bytes_a_client": grown / total, "record_bytes": length}


def build(total: int) -> tuple[int, int]:
    """How many bytes a registry and a replica of that many clients take.

    :returns: beside it the length of a client's record.
    """
    process = psutil.Process()
    held, registry = Replica(), _registry()
    lengths = [len(record(number)) for number in range(100)]
    before = process.memory_info().rss
    for number in range(total):
        value = record(number)
        found = decode(Record, value)
        held.put(found.client.client_id, Known(number, found.owner, value), lives=True)
        registry.replace(found.client.client_id, found.client, here=False)
    assert len(registry) == total
    return process.memory_info().rss - before, max(lengths)


def _registry() -> Registry:
    return Registry(Clock(), time.time, lambda _: None, 10.0)


def record(number: int) -> bytes:
    """What etcd has of a client that has changed its state once."""
    client = Snapshot(
        client_id=f"headset-{number:06}",
        incarnation=1_795_000_000_000_000 + number,
        sequence=2,
        state=ClientState.CALIBRATED,
        instances=Instances(f"{number:032x}"),
        fuse=10.0,
        registered_at=1_795_000_000.123456,
        reported_state=ClientState.UNCALIBRATED,
        has_reported=True,
        beats=2,
        longest_gap_seconds=2.012345,
        state_since=1_795_000_100.123456,
    )
    change = Change(
        client,
        ClientState.UNCALIBRATED,
        Reason.CLIENT,
        previous_since=1_795_000_000.123456,
    )
    owner = f"{number % 3:016x}"
    return encode(of_change(change, owner, f"{owner}.{number}"))


# Etcd alone, without the service

#: Changes in a transaction, and transactions on their way, of each contestant.
COMMITS = {
    "1 in 32": (1, 32),
    "1 in 1,000": (1, 1_000),
    "10 in 100": (10, 100),
    "100 in 10": (100, 10),
}

#: How many changes are written, and how many where it has to be quick.
WRITTEN, FEW_WRITTEN = 20_000, 1_000


def commits(size: str, quick: bool) -> Figures:
    """Conditional writes to three members, as nodes make them, without nodes."""
    in_one, in_flight = COMMITS[size]
    total = (FEW_WRITTEN if quick else WRITTEN) // in_one
    with machines() as here:
        etcd = here.etcd(3)
        with grpc.insecure_channel(_leader(etcd)) as channel:
            before, began = etcd.cpu_seconds(), time.monotonic()
            write(channel, islice(transactions(in_one), total), in_flight)
            took, used = time.monotonic() - began, etcd.cpu_seconds() - before
    return {
        "changes_per_s": total * in_one / took,
        "transactions_per_s": total / took,
        "etcd_us_a_change": used / total / in_one * 1e6,
        "etcd_us_a_transaction": used / total * 1e6,
    }


def _leader(etcd: EtcdCluster) -> str:
    for port in etcd.ports:
        if etcd.total("etcd_server_is_leader", port):
            return f"127.0.0.1:{port}"
    raise RuntimeError("nobody leads")


def transactions(in_one: int) -> Iterator[Any]:
    """Transactions that each make that many keys, without end."""
    for first in count(0, in_one):
        writes = []
        for each in range(first, first + in_one):
            key = b"heartbeat/c/headset-%09d" % each
            writes.append(Transaction([Compare(key, 0)], [Put(key, record(each))]))
        yield transaction_request(Transaction([], writes))


def write(channel: grpc.Channel, requests: Iterator[Any], in_flight: int) -> None:
    """Do transactions.

    :raises RuntimeError: if one fails.
    """
    free = BoundedSemaphore(in_flight)
    ask = rpc_pb2_grpc.KVStub(channel).Txn
    futures = []
    for request in requests:
        free.acquire()
        future = ask.future(request, timeout=PATIENCE)
        future.add_done_callback(lambda _: free.release())
        futures.append(future)
    if not all(future.result().succeeded for future in futures):
        raise RuntimeError("A write was refused")


#: Nodes that watch one member, and changes that each of them hears of.
WATCHERS = {"none": 0, "10": 10, "100": 100}
HEARD, FEW_HEARD = 10_000, 1_000


def watches(size: str, quick: bool) -> Figures:
    """What it costs one member that so many watch it, without nodes."""
    watching = WATCHERS[size]
    total = FEW_HEARD if quick else HEARD
    in_one = 100
    with machines() as here, ExitStack() as stack:
        etcd = here.etcd(1)
        target = f"127.0.0.1:{etcd.ports[0]}"
        ears = [stack.enter_context(_ear(target)) for _ in range(watching)]
        channel = stack.enter_context(grpc.insecure_channel(target))
        before = etcd.cpu_seconds()
        write(channel, islice(transactions(in_one), total // in_one), 1)
        wait(lambda: all(each.heard == total for each in ears), "not all is heard")
        used = etcd.cpu_seconds() - before
        length = max((each.length for each in ears), default=0) / total
    return {
        "watchers": watching,
        "changes": total,
        "etcd_us_a_change": used / total * 1e6,
        "bytes_a_change": length,
    }


@define(eq=False)
class Ear:
    """A watch on a connection of its own.

    :ivar heard: how many changes it has told of.
    :ivar length: how many bytes all of them had.
    """

    heard: int = 0
    length: int = 0

    def listen(self, responses: Iterable[Any]) -> None:
        """Hear until it ends."""
        with suppress(grpc.RpcError):  # as it ends with its connection
            for response in responses:
                self.length += response.ByteSize()
                self.heard += len(response.events)


@contextmanager
def _ear(target: str) -> Iterator[Ear]:
    options = [
        ("grpc.use_local_subchannel_pool", 1),  # else all share one connection
        ("grpc.max_receive_message_length", -1),
    ]
    requests: SimpleQueue[Any] = SimpleQueue()
    requests.put(watch_request(b"heartbeat/", 0))
    with grpc.insecure_channel(target, options) as channel:
        responses = rpc_pb2_grpc.WatchStub(channel).Watch(iter(requests.get, None))
        next(responses)  # that it was created
        ear = Ear()
        Thread(target=ear.listen, args=(responses,), daemon=True).start()
        yield ear
        requests.put(None)
        responses.cancel()


SCENARIOS = (
    Scenario(
        "cluster_growth",
        "what a client takes where it beats, at another node, and in etcd",
        tuple(SIZES),
        growth,
        rounds=1,
    ),
    Scenario(
        "cluster_replica",
        "what a node has in memory of each client that beats elsewhere",
        ("ours",),
        replica,
        rounds=1,
    ),
    Scenario(
        "cluster_commits",
        "writes to three members of etcd: changes in each, and how many at once",
        tuple(COMMITS),
        commits,
    ),
    Scenario(
        "cluster_watches",
        "what a change costs a member of etcd that so many watch",
        tuple(WATCHERS),
        watches,
    ),
)

if __name__ == "__main__":
    print(*build(int(sys.argv[1])))
