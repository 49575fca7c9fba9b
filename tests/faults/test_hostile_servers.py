"""The game client as a program, at a server that floods it: its memory, its sockets."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import pytest_twisted

from tests.faults.service import Row, either, memory
from tests.integration.processes import Process, Spawn
from tests.integration.test_hostile_servers import (
    ANSWERS,
    Server,
    goes_on_beating,
    server,
)
from tests.integration.test_processes import game_client
from tests.integration.waiting import reactor

__all__ = ["server"]

#: How much memory a flood may cost a client, in MiB.
COST = 40

#: How many sockets it may have open: HTTP, a former HTTP connection, two of ZeroMQ.
SOCKETS = 4

# Publishes messages of one length as fast as it can, none of which is one.
FLOOD = """
import sys, zmq
pub = zmq.Context().socket(zmq.PUB)
port = pub.bind_to_random_port("tcp://127.0.0.1")
print(f"it floods at {port}.", flush=True)
message = [b"OnStateChange/1/", bytes(int(sys.argv[1]))]
while True:
    pub.send_multipart(message)
"""


def sockets(process: Process) -> int:
    """How many TCP connections a process has open."""
    tcp = Path("/proc/net/tcp").read_text("ascii").splitlines()[1:]
    established = {
        f"socket:[{line.split()[9]}]" for line in tcp if line.split()[3] == "01"
    }
    names = Path(f"/proc/{process.pid}/fd").iterdir()
    return sum(str(name.readlink()) in established for name in names)


async def joined(spawn: Spawn, server: Server) -> Process:
    """A game client that has heard from the server."""
    player = game_client(spawn, "1", server.listen().removeprefix("http://"))
    await player.says("1 UNCALIBRATED")
    return player


async def recovers(player: Process, server: Server, row: Row) -> None:
    """The server is sane again: it follows."""
    sane_since = reactor.seconds()
    server.answer = server.be_sane
    server.body.update(clientState="RUNNING", sequence=2)
    await player.says("1 RUNNING")
    row.slower(reactor.seconds() - sane_since)
    assert "Traceback" not in player.output


@pytest.mark.fault("endless answers to a game client")
@pytest_twisted.ensureDeferred
async def test_endless_answers_cost_a_client_little_memory_and_one_socket(
    server: Server, spawn: Spawn, row: Row
) -> None:
    player = await joined(spawn, server)
    before, most = memory(player), 0
    kinds = [name for name in ANSWERS if name.startswith(("floods", "drips", "none"))]
    rounds = either(3, 12)
    row.tried = f"{rounds} beats x {len(kinds)} kinds of answers"
    for name in kinds:
        server.answer = ANSWERS[name]
        for _ in range(rounds // 3):
            await goes_on_beating(server, 3)
            most = max(most, sockets(player))
    grown = memory(player) - before
    row.note = f"grew by {grown} MiB, {most} sockets at most"
    assert grown < COST
    assert most <= SOCKETS
    await recovers(player, server, row)


@pytest.mark.parametrize("length", [10, 60_000, 1_000_000])
@pytest.mark.fault("flood of publications to a game client")
@pytest_twisted.ensureDeferred
async def test_a_flood_of_publications_costs_a_client_little_memory_and_no_beat(
    server: Server, spawn: Spawn, row: Row, length: int
) -> None:
    player = await joined(spawn, server)
    before = memory(player)
    flooder = spawn(sys.executable, "-c", FLOOD, str(length))
    port = (await flooder.says(r"it floods at (\d+)\."))[1]
    sane = server.body["stateChangeEndpoint"]
    server.body["stateChangeEndpoint"] = f"tcp://127.0.0.1:{port}"
    seconds = either(3, 10)
    row.tried = f"{seconds} s of {length} bytes each"
    await goes_on_beating(server, 10 * seconds)
    grown = memory(player) - before
    row.note = f"grew by {grown} MiB"
    await flooder.ends("KILL")
    server.body["stateChangeEndpoint"] = sane
    assert grown < COST
    await recovers(player, server, row)
