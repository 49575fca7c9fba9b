"""Many nodes as operators and the nodes themselves see them (contract, section 7)."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from socket import socket
from typing import Any

import pytest
import pytest_twisted
import treq
from attrs import define
from twisted.internet.defer import Deferred, succeed
from twisted.web.http_headers import Headers

from heartbeat_service.engine.engine import Engine
from heartbeat_service.storage.memory import MemoryStore
from heartbeat_service.storage.nodes import Node, Nodes, Standing
from heartbeat_service.web import peers as peers_module
from heartbeat_service.web.access import Door, TokenFile, operator_pass
from heartbeat_service.web.app import HeartbeatApp
from heartbeat_service.web.events import EventStreams
from heartbeat_service.web.names import Names
from heartbeat_service.web.peers import Peers
from heartbeat_service.web.port import BACKLOG
from heartbeat_service.web.site import HeartbeatSite
from tests.integration.conftest import Running, Serve
from tests.integration.waiting import patiently, reactor
from tests.messages import heartbeat

TOKEN = "the-operators-token-of-all-nodes"  # noqa: S105 - of this test alone
BEARER = {"Authorization": f"Bearer {TOKEN}"}


@define
class Sight(Nodes):
    """What one node knows of all, which a test makes.

    :ivar left: whether it has let its clients go.
    """

    own: Node
    everybody: list[Node]
    engine: Engine | None = None
    left: bool = False

    def introduce(self, own: Node) -> None:
        """Nothing: all are known."""

    def all(self) -> Sequence[Node]:
        """All, as the test has them."""
        return self.everybody

    def clients_at(self, session: str) -> int:
        """Those that live here; one at each other node."""
        assert self.engine is not None
        return len(self.engine.registry) if session == self.own.session else 1

    def node_of(self, client_id: str) -> Node | None:
        """The node that its name begins with."""
        return next((one for one in self.everybody if client_id[0] == one.name), None)

    def leave(self) -> Deferred[None]:
        """Let them go."""
        self.left = True
        return succeed(None)


@define
class House:
    """A node of a fake cluster: a real site around a real engine."""

    engine: Engine
    sight: Sight
    standing: Standing
    close: Callable[[], Awaitable[object]]

    async def ask(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, Any]:
        """One request of an operator; its status and its JSON."""
        given = {**BEARER, **headers}
        response = await patiently(
            treq.request(
                method,
                f"{self.sight.own.url}{path}",
                data=body,
                headers=Headers({name: [value] for name, value in given.items()}),
                persistent=False,
            )
        )
        content = await patiently(response.content())
        return response.code, json.loads(content or b"null")

    async def beat(self, client_id: str, state: str = "UNCALIBRATED", **more: Any):
        """A client beats here."""
        body = heartbeat(client_id, state, **more)
        status, _ = await self.ask("POST", "/heartbeat", body)
        assert status == 200


async def open_house(name: str, everybody: list[Node], door: Door) -> House:
    """A node that listens, and is known to all."""
    port: Any = None
    place = socket()
    place.bind(("127.0.0.1", 0))
    at = f"127.0.0.1:{place.getsockname()[1]}"
    place.close()
    own = Node(f"session-of-{name}", name, time.time(), at, f"http://{at}", "r", "p")
    everybody.append(own)
    sight, standing = Sight(own, everybody), Standing(reactor)
    engine = Engine(reactor, MemoryStore(time.time), nodes=sight, standing=standing)
    sight.engine = engine
    await engine.open()
    streams = EventStreams(engine.events, reactor, 1)
    app = HeartbeatApp(
        engine.dispatcher,
        engine.orders,
        engine.trouble,
        Door(),
        door,
        Names([]),
        streams,
        Peers(reactor, sight, standing),
    )
    site = HeartbeatSite(app.resource(), reactor, 100, engine.clock, app.gate)
    port = reactor.listenTCP(int(at.partition(":")[2]), site, BACKLOG, "127.0.0.1")

    async def close() -> None:
        await patiently(port.stopListening())
        await patiently(site.disconnect_all())
        await engine.close()

    return House(engine, sight, standing, close)


@define
class Street:
    """Three nodes, ``a``, ``b`` and ``c``."""

    everybody: list[Node]
    a: House
    b: House
    c: House


@pytest_twisted.async_yield_fixture
async def street(tmp_path) -> AsyncIterator[Street]:
    """Three nodes that know each other."""
    file = tmp_path / "tokens"
    file.touch(0o600)
    file.write_text(f"{TOKEN} Ann\n")
    everybody: list[Node] = []
    houses = [
        await open_house(name, everybody, Door(TokenFile(str(file), operator_pass)))
        for name in "abc"
    ]
    yield Street(everybody, *houses)
    for house in houses:
        await house.close()


@contextmanager
def deaf() -> Iterator[str]:
    """An address where somebody listens who never answers."""
    with socket() as one:
        one.bind(("127.0.0.1", 0))
        one.listen()
        yield f"127.0.0.1:{one.getsockname()[1]}"


@pytest_twisted.ensureDeferred
async def test_a_single_machine_is_the_only_node(serve: Serve) -> None:
    running: Running = await serve(node="rack-2", advertise="show.localhost")
    await running.beat("1")
    [node] = (await running.get("/nodes"))["nodes"]
    since = node.pop("since")
    assert since.endswith("Z")
    port = running.port
    assert node == {
        "node": "rack-2",
        "clients": 1,
        "http": f"show.localhost:{port}",
        "requestEndpoint": running.service.router.replace(
            "127.0.0.1", "show.localhost"
        ),
        "stateChangeEndpoint": running.service.pub.replace(
            "127.0.0.1", "show.localhost"
        ),
        "self": True,
    }
    assert await running.get("/nodes/self") == {"node": "rack-2", "etcd": True}
    status, problem, _ = await running.http("POST", "/nodes/rack-2/drain")
    assert (status, problem["code"]) == (409, "ILLEGAL_TRANSITION")
    assert "nowhere to go" in problem["detail"]


@pytest_twisted.ensureDeferred
async def test_each_node_lists_all_and_says_which_answers(street: Street) -> None:
    await street.b.beat("b1")
    await street.b.beat("b2")
    status, answer = await street.b.ask("GET", "/nodes")
    assert status == 200
    told = [(node["node"], node["clients"], node["self"]) for node in answer["nodes"]]
    assert told == [("a", 1, False), ("b", 2, True), ("c", 1, False)]
    street.b.standing.in_touch = False
    assert await street.b.ask("GET", "/nodes/self") == (
        200,
        {"node": "b", "etcd": False},
    )


@pytest_twisted.ensureDeferred
async def test_a_node_is_emptied_wherever_that_is_asked_for(street: Street) -> None:
    assert await street.b.ask("POST", "/nodes/b/drain") == (204, None)
    assert street.b.standing.is_drained
    assert street.b.sight.left
    assert await street.a.ask("POST", "/nodes/c/drain") == (204, None)
    assert (street.c.standing.is_drained, street.a.standing.is_drained) == (True, False)
    assert (street.c.sight.left, street.a.sight.left) == (True, False)


@pytest_twisted.ensureDeferred
async def test_who_empties_another_node_shows_his_token_there(
    street: Street, tmp_path
) -> None:
    """And hears what that node says, as it says it."""
    file = tmp_path / "others"
    file.touch(0o600)
    file.write_text("another-token-of-one-node-alone\n")
    door = Door(TokenFile(str(file), operator_pass))
    stranger = await open_house("d", street.everybody, door)
    status, problem = await street.a.ask("POST", "/nodes/d/drain")
    assert (status, problem["code"]) == (401, "UNAUTHORIZED")
    assert not stranger.standing.is_drained
    await stranger.close()


@pytest_twisted.ensureDeferred
async def test_a_node_that_nobody_knows_is_404_with_those_that_there_are(
    street: Street,
) -> None:
    status, problem = await street.a.ask("POST", "/nodes/z/drain")
    assert (status, problem["code"]) == (404, "BAD_MESSAGE")
    assert problem["detail"] == "No running node is called z; there is a, b, c"
    assert (await street.a.ask("POST", "/nodes/a/drain", b"{}"))[0] == 400


@pytest_twisted.ensureDeferred
async def test_of_two_nodes_with_one_name_neither_is_emptied(street: Street) -> None:
    again = await open_house("b", street.everybody, Door())
    status, problem = await street.a.ask("POST", "/nodes/b/drain")
    assert (status, problem["code"]) == (409, "ILLEGAL_TRANSITION")
    assert street.b.sight.own.http in problem["detail"]
    assert not street.b.standing.is_drained
    await again.close()


@pytest_twisted.ensureDeferred
async def test_a_node_that_does_not_answer_in_time_is_told_of(
    street: Street, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers_module, "ORDER_TIME", 0.2)
    with deaf() as at:
        street.everybody.append(Node("x", "x", 0.0, at, f"http://{at}"))
        # Where nobody listens any more, and where this node itself does by now.
        street.everybody.append(
            Node("y", "y", 0.0, "127.0.0.1:1", "http://127.0.0.1:1")
        )
        own = street.a.sight.own
        street.everybody.append(Node("z", "z", 0.0, own.http, own.url))
        for name in "xyz":
            status, problem = await street.a.ask("POST", f"/nodes/{name}/drain")
            assert (status, problem["code"]) == (503, "OVERLOADED")
            assert f"node {name}" in problem["detail"]
