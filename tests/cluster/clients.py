"""Clients of a cluster that write down every word they are told.

They beat through the balancer, straight at a node, or by ROUTER; report states, leave
and come back, are granted a planned silence, fall silent when they are told to. An
operator steers and kicks them at any node.
Besides, it is heard what each node publishes, tells as events and lists. All of it goes
into a file, a ``Record`` a line; what it means is the judge's business.

Orders come on its standard input, a line each: ``silent NAME`` has three more come that
fall silent, ``hush`` has nobody change a state, ``go on`` has them change it again.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import zmq.asyncio
from attrs import define, field, frozen

from tests.cluster.records import GONE, Record, Shown, Word, encode
from tests.cluster.wires import Dealer, Line, UnansweredError, publications

chance = secrets.SystemRandom()
now = time.monotonic

#: How often a client beats, in seconds; and how soon it tries again.
INTERVAL, AGAIN = 1.0, 0.5

#: How many there are of each kind. The stubborn never beat at another node than theirs.
KINDS = {
    "balanced": 24,
    "direct": 12,
    "dealer": 9,
    "rover": 3,
    "leaver": 6,
    "quiet": 3,
    "stubborn": 3,
}

#: How many fall silent at an order, after how many answered beats.
SILENT, BEATS = 3, 2

#: Where a client may go by itself (contract, section 2).
MOVES = {
    "UNCALIBRATED": ("CALIBRATED",),
    "CALIBRATED": ("RUNNING", "UNCALIBRATED"),
    "RUNNING": ("CALIBRATED", "UNCALIBRATED"),
}

#: How often the operator changes something, and each node is asked for its list.
STEERING, LISTING = 0.25, 0.5

Ask = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


@frozen
class Node:
    """A node, as clients reach it."""

    name: str
    http: str
    router: str
    pub: str


@define
class World:
    """What all clients share.

    :ivar hushed: whether nobody is to change a state.
    """

    nodes: Sequence[Node]
    balancer: str
    token: str
    write: Callable[[bytes], object]
    dealers: dict[str, Dealer]
    hushed: bool = False

    def note(self, kind: str, **more: Any) -> Record:
        """Write something down."""
        record = Record(now(), kind, **more)
        self.write(encode(record) + b"\n")
        return record

    async def ask(
        self, kind: str, client: str, ask: Ask, body: dict[str, Any], node: str = ""
    ) -> Record:
        """Ask something of a client; what was answered, which is written down."""
        sent, life = now(), body.get("incarnation", 0)
        try:
            reply = await ask(message(MESSAGES[kind], clientID=client, **body))
        except UnansweredError as error:
            return self.note(
                kind, client=client, node=node, sent=sent, code=str(error), life=life
            )
        told = reply.get("body", {})
        return self.note(
            kind,
            client=client,
            node=self._who(told) or node,
            sent=sent,
            word=word(told),
            code=reply.get("code", told.get("code", "")),
            life=life,
            fuse=told.get("timebombSeconds", 0.0),
        )

    def dealer(self, node: str) -> Ask:
        """Asks a node by ZeroMQ."""
        return self.dealers[node].ask

    def _who(self, told: dict[str, Any]) -> str:
        endpoint = told.get("requestEndpoint")
        return next((node.name for node in self.nodes if node.router == endpoint), "")


#: The silence that the quiet ones are granted, in seconds; they keep to most of it.
GRANTED = 20.0

MESSAGES = {
    "beat": "HEARTBEAT",
    "set": "SetClientState",
    "get": "GetClientState",
    "bye": "Goodbye",
}


def message(message_type: str, **body: Any) -> dict[str, Any]:
    """A message of the contract."""
    stamp = "2022-03-29 12:21:25.153292"
    usual = {"sdkVersion": 0.1, "timestamp": stamp, "messageType": message_type}
    return {**usual, "body": body}


def word(told: dict[str, Any]) -> Word | None:
    """What was said of a client, if anything was."""
    if "sequence" not in told:
        return None
    return Word(told["incarnation"], told["sequence"], told["clientState"])


def by_http(place: str) -> Ask:
    """Beats there, over a connection of its own."""
    line = Line(place)

    async def beat(request: dict[str, Any]) -> dict[str, Any]:
        body = json.dumps(request).encode()
        status, reply = await line.ask("POST", "/heartbeat", body)
        return reply or {"code": f"{status}"}  # a balancer's own page isn't JSON

    return beat


@define
class Client:
    """One client.

    :ivar ways: how it beats: in turn, as soon as one way fails.
    :ivar roves: whether each beat goes another way.
    :ivar told: what it was last told of itself.
    :ivar home: the node that told it.
    """

    name: str
    world: World
    ways: Sequence[Ask]
    roves: bool = False
    instance: str = ""
    told: Word | None = None
    home: str = ""
    _way: int = field(factory=lambda: chance.randrange(3))

    async def live(self) -> None:
        """Beat and change, for ever."""
        await asyncio.sleep(INTERVAL * chance.random())
        while True:
            begun = now()
            answered = await self.beat()
            if answered and not self.world.hushed:
                await self.do_something()
            pause = INTERVAL * (0.9 + 0.2 * chance.random()) if answered else AGAIN
            await asyncio.sleep(max(0.0, begun + pause - now()))

    async def come_and_go(self) -> None:
        """Live, and now and then leave or begin anew as another process."""
        while True:
            if not self.world.hushed:
                self.told, self.instance = None, f"{chance.getrandbits(64):x}"
            with suppress(TimeoutError):
                async with asyncio.timeout(4 + 8 * chance.random()):
                    await self.live()
            if not self.world.hushed and self.told is not None:
                await self.end_life(self.told.incarnation)

    async def end_life(self, incarnation: int) -> None:
        """Leave for a moment, or be killed."""
        self.world.note("over", client=self.name, life=incarnation)
        if chance.random() < 0.5:
            life = {"incarnation": incarnation, **self._who()}
            ask = self.world.dealer(self.home)
            await self.world.ask("bye", self.name, ask, life, self.home)
            await asyncio.sleep(2 * chance.random())

    async def be_quiet(self) -> None:
        """Live, and now and then say nothing for as long as an operator allows."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(3 + 4 * chance.random()):
                    await self.live()
            if not self.world.hushed and await self.ask_for_silence():
                await asyncio.sleep(GRANTED * (0.4 + 0.4 * chance.random()))

    async def ask_for_silence(self) -> bool:
        """Whether any node grants it."""
        node, sent = chance.choice(self.world.nodes), now()
        line, order = Line(node.http, self.world.token), {"seconds": GRANTED}
        path, body = f"/clients/{self.name}/silence", json.dumps(order).encode()
        try:
            _, said = await line.ask("PUT", path, body)
        except UnansweredError as error:
            said = {"code": str(error)}
        finally:
            line.hang_up()
        granted = self.world.note(
            "grant",
            client=self.name,
            node=node.name,
            sent=sent,
            word=word(said),
            code=said.get("code", ""),
            fuse=GRANTED,
        )
        return granted.word is not None

    async def fall_silent(self) -> None:
        """Beat some times, and then never again."""
        for _ in range(BEATS):
            while not await self.beat():
                await asyncio.sleep(AGAIN)
            await asyncio.sleep(INTERVAL)
        self.world.note("silent", client=self.name)

    async def beat(self) -> bool:
        """Whether it was answered."""
        state = GONE if self.told is None else self.told.state
        ask = self.ways[self._way % len(self.ways)]
        body = {"clientState": state, **self._who()}
        answer = await self.world.ask("beat", self.name, ask, body)
        if answer.word is not None:
            self.told, self.home = answer.word, answer.node
        if answer.word is None or self.roves:
            self._way += 1
        return answer.word is not None

    async def do_something(self) -> None:
        """Perhaps change its state where it beats, or ask any node about it."""
        assert self.told is not None
        what = chance.random()
        if what < 0.2 and self.told.state in MOVES:
            body = {
                "clientState": chance.choice(MOVES[self.told.state]),
                "incarnation": self.told.incarnation,
                **self._who(),
            }
            if chance.random() < 0.5:
                body["sequence"] = self.told.sequence
            ask = self.world.dealer(self.home)
            answer = await self.world.ask("set", self.name, ask, body, self.home)
            if answer.word is not None:
                self.told = max(self.told, answer.word, key=lambda told: told.pair)
        elif what < 0.3:
            node = chance.choice(self.world.nodes).name
            body = {"incarnation": self.told.incarnation}
            await self.world.ask("get", self.name, self.world.dealer(node), body, node)

    def _who(self) -> dict[str, str]:
        return {"instanceID": self.instance} if self.instance else {}


#: What those do that don't just live.
LIVES = {"leaver": Client.come_and_go, "quiet": Client.be_quiet}


class Operator:
    """Steers clients at any node, one or many at once, and kicks one now and then."""

    def __init__(self, world: World, clients: Sequence[str]) -> None:
        self._world = world
        self._clients = clients
        self._lines = {node: Line(node.http, world.token) for node in world.nodes}

    async def steer(self) -> None:
        """Change something, for ever."""
        while True:
            await asyncio.sleep(STEERING * (0.5 + chance.random()))
            if self._world.hushed:
                continue
            node, what = chance.choice(self._world.nodes), chance.random()
            if what < 0.05:
                await self._kick(node, chance.choice(self._clients))
            else:
                count = 10 if what < 0.2 else 1
                await self._order(node, chance.sample(self._clients, count))

    async def _kick(self, node: Node, client: str) -> None:
        self._world.note("over", client=client)
        sent, code = now(), ""
        try:
            status, said = await self._lines[node].ask("DELETE", f"/clients/{client}")
            code = said.get("code", "" if status == 204 else f"{status}")
        except UnansweredError as error:
            code = str(error)
        self._world.note("kick", client=client, node=node.name, sent=sent, code=code)

    async def _order(self, node: Node, clients: list[str]) -> None:
        order: dict[str, Any] = {"clientState": chance.choice(list(MOVES))}
        path = f"/clients/{clients[0]}/state"
        if len(clients) > 1:
            path, order["clientIDs"] = "/clients/state", clients
        sent, line = now(), self._lines[node]
        try:
            _, said = await line.ask("PUT", path, json.dumps(order).encode())
        except UnansweredError as error:
            said = {"code": str(error)}
        for each in said.get("clients", [said.get("body", said)]):
            self._world.note(
                "steer",
                client=each.get("clientID", clients[0]),
                node=node.name,
                sent=sent,
                word=word(each),
                code=each.get("code", ""),
            )


async def list_again_and_again(world: World, node: Node) -> None:
    """What a node shows of all clients."""
    line = Line(node.http, world.token)
    while True:
        begun = now()
        with suppress(UnansweredError):
            status, said = await line.ask("GET", "/clients", patience=5)
            if status == 200 and "clients" in said:
                shown = {
                    each["clientID"]: Shown(
                        Word(
                            each["incarnation"], each["sequence"], each["clientState"]
                        ),
                        each["secondsSinceHeartbeat"],
                    )
                    for each in said["clients"]
                }
                world.note("list", node=node.name, sent=begun, shown=shown)
        await asyncio.sleep(max(0.1, begun + LISTING - now()))


async def hear_publications(
    world: World, context: zmq.asyncio.Context, node: Node
) -> None:
    """What a node publishes."""
    async for body in publications(context, node.pub):
        heard(world, "published", node, body)


async def hear_events(world: World, node: Node) -> None:
    """What a node tells as events; what was missed is told when it hears again."""
    last = ""
    while True:
        with suppress(UnansweredError):
            async for fields in Line(node.http, world.token).events("/events", last):
                if "id" not in fields:
                    continue
                last = fields["id"]
                number = int(last.rpartition("-")[2])
                if fields["event"] == "OnStateChange":
                    body = json.loads(fields["data"])
                    heard(world, "event", node, body, number)
                else:
                    kind = "reset" if fields["event"] == "Reset" else "notice"
                    world.note(kind, node=node.name, number=number)
        await asyncio.sleep(AGAIN)


def heard(
    world: World, kind: str, node: Node, body: dict[str, Any], number: int = 0
) -> None:
    """A change of state was told of."""
    world.note(
        kind,
        client=body["clientID"],
        node=node.name,
        word=word(body),
        reason=body["reason"],
        number=number,
    )


async def watch_itself(world: World) -> None:
    """Whether it had a processor: what comes late then is nobody else's fault."""
    while True:
        begun = now()
        await asyncio.sleep(0.1)
        if now() - begun > 0.5:
            world.note("stalled", seconds=now() - begun)


def crowd(world: World) -> list[Client]:
    """All clients that go on until the end, none of which lives yet."""
    by_kind: dict[str, Callable[[int], Sequence[Ask]]] = {
        "balanced": lambda _: [by_http(world.balancer)],
        "dealer": lambda number: turned(
            [world.dealer(node.name) for node in world.nodes], number
        ),
        "stubborn": lambda number: straight(world, number)[:1],
    }
    clients = []
    for kind, count in KINDS.items():
        for number in range(count):
            ways = by_kind.get(kind, lambda number: straight(world, number))(number)
            clients.append(
                Client(f"{kind}-{number}", world, ways, kind == "rover", way=0)
            )
    return clients


def straight(world: World, number: int) -> Sequence[Ask]:
    """By HTTP, at each node, with another one to begin with."""
    return turned([by_http(node.http) for node in world.nodes], number)


def turned(ways: Sequence[Ask], number: int) -> Sequence[Ask]:
    """The same, beginning with another one."""
    number %= len(ways)
    return [*ways[number:], *ways[:number]]


async def obey(world: World, tasks: list[asyncio.Task[None]]) -> None:
    """Do what is told on the standard input, until it ends."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    while line := (await reader.readline()).decode().strip():
        order, _, name = line.partition(" ")
        world.hushed = order == "hush"
        if order == "silent":
            for number in range(SILENT):
                client = Client(f"{name}-{number}", world, straight(world, number))
                tasks.append(asyncio.ensure_future(client.fall_silent()))


async def main(records: Path, balancer: str, token: str, nodes: Sequence[Node]) -> None:
    """Have all of them live until the standard input ends."""
    context = zmq.asyncio.Context()
    with records.open("ab", buffering=0) as file:
        dealers = {node.name: Dealer(context, node.router) for node in nodes}
        world = World(nodes, balancer, token, file.write, dealers)
        clients = crowd(world)
        steered = [each.name for each in clients if not each.name.startswith("leaver")]
        begun: list[Awaitable[None]] = [
            watch_itself(world),
            Operator(world, steered).steer(),
            *(list_again_and_again(world, node) for node in nodes),
            *(hear_events(world, node) for node in nodes),
            *(hear_publications(world, context, node) for node in nodes),
            *(
                LIVES.get(each.name.partition("-")[0], Client.live)(each)
                for each in clients
            ),
        ]
        tasks = [asyncio.ensure_future(each) for each in begun]
        orders = asyncio.ensure_future(obey(world, tasks))
        while not orders.done():
            done, _ = await asyncio.wait(
                {orders, *tasks}, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done - {orders}:
                tasks.remove(task)
                task.result()  # a slip in this program ends it
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for dealer in dealers.values():
            dealer.close()
    context.destroy(linger=0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("records", type=Path)
    parser.add_argument("balancer", help="HOST:PORT")
    parser.add_argument("token")
    parser.add_argument("nodes", nargs="+", help="NAME=HOST")
    options = parser.parse_args()
    asyncio.run(
        main(
            options.records,
            options.balancer,
            options.token,
            [
                Node(name, f"{host}:6969", f"tcp://{host}:8765", f"tcp://{host}:4321")
                for name, _, host in (each.partition("=") for each in options.nodes)
            ],
        )
    )
