"""``deploy/cluster/haproxy.cfg``: to which node a real haproxy sends a request.

The nodes here know nothing of each other: each keeps its clients in its memory, so what
it has registered tells where a beat went.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import pytest_twisted
import treq
from attrs import frozen
from twisted.internet.error import ConnectError

from tests.integration.processes import BIN, READY, ROOT, Process, Spawn, free_ports
from tests.integration.waiting import patiently, until
from tests.messages import envelope, heartbeat

CONFIGURATION = ROOT / "deploy" / "cluster" / "haproxy.cfg"
#: Debian's haproxy is where not everybody looks.
HAPROXY = shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/sbin")
pytestmark = [
    pytest.mark.skipif(HAPROXY is None, reason="haproxy isn't installed"),
    pytest.mark.cluster,
]

CLIENTS = [f"headset-{number}" for number in range(30)]


async def status(method: str, url: str, body: bytes | None = None) -> int:
    """What is answered, over a connection of its own."""
    response = await patiently(treq.request(method, url, data=body, persistent=False))
    await patiently(response.content())
    code: int = response.code
    return code


@frozen
class Node:
    """A service, and where it is reached without the balancer."""

    process: Process
    port: int

    async def clients(self) -> set[str]:
        """Who beats there."""
        url = f"http://127.0.0.1:{self.port}/clients"
        response = await patiently(treq.get(url, persistent=False))
        return {
            one["clientID"] for one in (await patiently(response.json()))["clients"]
        }


@frozen
class Balancer:
    """haproxy, with what it says."""

    process: Process
    url: str

    async def beat(self, client_id: object) -> None:
        """A client's beat, which some node must answer."""
        url = f"{self.url}/heartbeat"
        assert await status("POST", url, heartbeat(client_id)) == 200


@contextmanager
def locked(store: Path) -> Iterator[None]:
    """Another program keeps the store for itself: its service isn't ready."""
    other = sqlite3.connect(store, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    yield
    other.close()


Start = Callable[..., Awaitable[Node]]
Balance = Callable[..., Awaitable[Balancer]]


@pytest.fixture
def start(spawn: Spawn) -> Start:
    """A way to start a node."""

    async def start(port: int, store: str = "memory:") -> Node:
        process = spawn(
            *(BIN / "heartbeat-service", "--store", store, "--timebomb", "600"),
            *("--http", f"tcp:{port}:interface=127.0.0.1"),
            *("--router", "tcp://127.0.0.1:*", "--pub", "tcp://127.0.0.1:*"),
        )
        await process.says(READY)
        return Node(process, port)

    return start


@pytest.fixture
def balance(spawn: Spawn) -> Balance:
    """A way to start the balancer in front of three nodes."""

    async def balance(*nodes: Node, operators: str = "127.0.0.1") -> Balancer:
        assert HAPROXY is not None
        [port] = free_ports(1)
        addresses = {
            f"NODE_{number}": f"127.0.0.1:{node.port}"
            for number, node in enumerate(nodes, 1)
        }
        balancer = Balancer(
            spawn(
                *(HAPROXY, "-db", "-f", CONFIGURATION),
                BALANCER=f"127.0.0.1:{port}",
                OPERATORS=operators,
                **addresses,
            ),
            f"http://127.0.0.1:{port}",
        )

        async def listens() -> bool:
            assert balancer.process.status is None, balancer.process.output
            try:
                return await status("POST", f"{balancer.url}/heartbeat", b"") == 400
            except ConnectError:
                return False

        await until(listens)
        return balancer

    return balance


@pytest_twisted.ensureDeferred
async def test_a_client_stays_at_one_node_and_only_a_dead_nodes_clients_move(
    start: Start, balance: Balance
) -> None:
    nodes = [await start(port) for port in free_ports(3)]
    balancer = await balance(*nodes)
    for client in CLIENTS * 2:
        await balancer.beat(client)
    before = [await node.clients() for node in nodes]
    assert all(before), "each has some"
    assert sum(map(len, before)) == len(CLIENTS), "each client is at one"

    await nodes[0].process.ends("KILL")
    for client in CLIENTS:
        await balancer.beat(client)
    after = [await node.clients() for node in nodes[1:]]
    assert after[0] | after[1] >= before[0]
    assert before[1:] == [these - before[0] for these in after]

    await balancer.process.says(r"Server nodes/node-1 is DOWN")
    nodes[0] = await start(nodes[0].port)
    await balancer.process.says(r"Server nodes/node-1 is UP")
    for client in CLIENTS:
        await balancer.beat(client)
    assert await nodes[0].clients() == before[0], "they come back, and nobody else"


@pytest_twisted.ensureDeferred
async def test_a_client_is_known_by_its_id_however_it_is_written_or_asked_for(
    start: Start, balance: Balance
) -> None:
    nodes = [await start(port) for port in free_ports(3)]
    balancer = await balance(*nodes)
    for number in range(20):
        await balancer.beat(number)
        await balancer.beat(str(number))
        values = {"clientID": "of the game's", "body": {"clientID": "another"}}
        body = {"values": values, "clientState": "DISCONNECTED", "clientID": number}
        beat = envelope(body=body, messageType="HEARTBEAT", clientID="a stranger's")
        assert await status("POST", f"{balancer.url}/Heartbeat/Update", beat) == 200
        # Another node would know nothing of it.
        assert await status("GET", f"{balancer.url}/clients/{number}") == 200
    assert sum([len(await node.clients()) for node in nodes]) == 20


@pytest_twisted.ensureDeferred
async def test_who_is_not_from_inside_may_beat_and_nothing_else(
    start: Start, balance: Balance
) -> None:
    node = await start(*free_ports(1))
    balancer = await balance(node, node, node, operators="192.0.2.0/24")
    await balancer.beat("headset-1")
    for path in ("/clients", "/clients/headset-1", "/nodes", "/%6eodes", "/"):
        assert await status("GET", f"{balancer.url}{path}") == 403, path


@pytest_twisted.ensureDeferred
async def test_a_beat_that_a_node_refuses_for_now_is_tried_at_another_one_at_once(
    start: Start, balance: Balance, tmp_path: Path
) -> None:
    lame, well = free_ports(2)
    store = f"sqlite:{tmp_path}/lame.sqlite"
    nodes = [await start(lame, store), await start(well)]
    balancer = await balance(*nodes, nodes[1])
    with locked(tmp_path / "lame.sqlite"):
        await until(lambda: "No change is accepted" in nodes[0].process.output)
        for client in CLIENTS:
            await balancer.beat(client)
    assert await nodes[1].clients() == {*CLIENTS}
    assert await nodes[0].clients() == set()


@pytest_twisted.ensureDeferred
async def test_a_node_that_is_not_ready_is_left_but_for_another_that_is(
    start: Start, balance: Balance, tmp_path: Path
) -> None:
    lame, well = free_ports(2)
    nodes = [
        await start(lame, f"sqlite:{tmp_path}/lame.sqlite"),
        await start(well, f"sqlite:{tmp_path}/well.sqlite"),
    ]
    balancer = await balance(*nodes, nodes[0])
    for client in CLIENTS:
        await balancer.beat(client)
    others = await nodes[1].clients()
    with locked(tmp_path / "lame.sqlite"):
        await balancer.process.says(r"Server nodes/node-1 is DOWN.*code: 503")
        await balancer.process.says(r"Server nodes/node-3 is DOWN.*code: 503")
        for client in CLIENTS:
            await balancer.beat(client)
        assert await nodes[1].clients() == {*CLIENTS}
        # Where none is ready, whoever lives is asked: it answers those whom it knows.
        with locked(tmp_path / "well.sqlite"):
            await balancer.process.says(r"Server nodes/node-2 is DOWN.*code: 503")
            for client in others:
                await balancer.beat(client)
