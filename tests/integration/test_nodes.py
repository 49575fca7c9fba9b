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
from attrs import define, evolve, field
from msgspec import Raw
from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import LogEvent, LogLevel, formatEvent
from twisted.web.http_headers import Headers

from heartbeat_service.core.errors import IllegalTransition
from heartbeat_service.core.notices import Reported
from heartbeat_service.core.states import ClientState
from heartbeat_service.engine.dispatch import Dispatcher
from heartbeat_service.engine.engine import Engine
from heartbeat_service.protocol.nodes import BeatsAnswer, BeatsQuestion
from heartbeat_service.storage.memory import MemoryStore
from heartbeat_service.storage.nodes import Node, Nodes, Standing
from heartbeat_service.storage.store import StoreTrouble
from heartbeat_service.web import peers as peers_module
from heartbeat_service.web.access import Door, TokenFile, operator_pass
from heartbeat_service.web.app import HeartbeatApp
from heartbeat_service.web.elsewhere import BeatsElsewhere
from heartbeat_service.web.events import EventStreams
from heartbeat_service.web.names import Names
from heartbeat_service.web.peers import Peers
from heartbeat_service.web.port import BACKLOG
from heartbeat_service.web.site import HeartbeatSite
from tests.integration.conftest import Running, Serve
from tests.integration.waiting import patiently, pause, reactor, until
from tests.messages import heartbeat
from tests.unit.storage.store_suite import snapshot

TOKEN = "the-operators-token-of-all-nodes"  # noqa: S105 - of this test alone
VALUES = Raw(b'{"x":1}')
BEARER = {"Authorization": f"Bearer {TOKEN}"}


@define
class Sight(Nodes):
    """What one node knows of all, which a test makes.

    :ivar left: whether it has let its clients go.
    :ivar stays: why it can't.
    """

    own: Node
    everybody: list[Node]
    engine: Engine | None = None
    gone: list[Node] = field(factory=list)
    left: bool = False
    stays: Exception | None = None

    def introduce(self, own: Node) -> None:
        """Nothing: all are known."""

    def all(self) -> Sequence[Node]:
        """All, as the test has them."""
        return self.everybody

    def departed(self) -> Sequence[Node]:
        """Who has gone, as the test has it."""
        return self.gone

    def clients_at(self, session: str) -> int:
        """Those that live here; one at each other node."""
        assert self.engine is not None
        return len(self.engine.registry) if session == self.own.session else 1

    def node_of(self, client_id: str) -> Node | None:
        """The node that its name begins with."""
        return next((one for one in self.everybody if client_id[0] == one.name), None)

    def leave(self) -> Deferred[None]:
        """Let them go."""
        if self.stays is not None:
            return fail(self.stays)
        self.left = True
        return succeed(None)


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy test machine is no node that doesn't answer."""
    monkeypatch.setattr(peers_module, "ANSWER_TIME", 30.0)
    monkeypatch.setattr(peers_module, "ORDER_TIME", 30.0)


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

    def knows(self, where: House, *client_ids: str) -> None:
        """They beat at another node, and this one has heard of them."""
        for client_id in client_ids:
            client = where.engine.registry.find(client_id)
            record = snapshot(client_id, 2**62) if client is None else client.snapshot()
            self.engine.registry.replace(client_id, record, here=False)
            self.engine.counters.states[record.state] += 1

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
        Peers(reactor, sight, standing, door.authorization),
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
def deaf() -> Iterator[tuple[socket, str]]:
    """Somebody who listens and never answers, and where."""
    with socket() as one:
        one.bind(("127.0.0.1", 0))
        one.listen()
        one.setblocking(False)
        yield one, f"127.0.0.1:{one.getsockname()[1]}"


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
    own = await running.get("/nodes/self")
    assert own.pop("quietSeconds") >= 0.0
    assert own == {"node": "rack-2", "etcd": True}
    status, problem, _ = await running.http("POST", "/nodes/rack-2/drain")
    assert (status, problem["code"]) == (409, "ILLEGAL_TRANSITION")
    assert "nowhere to go" in problem["detail"]


@pytest_twisted.ensureDeferred
async def test_nodes_are_told_where_another_machine_reaches_this_one(
    serve: Serve, tmp_path
) -> None:
    http = [f"unix:{tmp_path}/http", "haproxy:tcp:0:interface=127.0.0.1"]
    http.append("tcp:0:interface=127.0.0.1")
    running: Running = await serve(http=http, allow_open_control=True)
    _, _, at = running.service.http
    response = await patiently(treq.get(f"http://{at}/nodes", persistent=False))
    content: bytes = await patiently(response.content())
    assert [node["http"] for node in json.loads(content)["nodes"]] == [at]


@pytest_twisted.ensureDeferred
async def test_each_node_lists_all_and_says_which_answers(street: Street) -> None:
    await street.b.beat("b1")
    await street.b.beat("b2")
    status, answer = await street.b.ask("GET", "/nodes")
    assert status == 200
    told = [(node["node"], node["clients"], node["self"]) for node in answer["nodes"]]
    assert told == [("a", 1, False), ("b", 2, True), ("c", 1, False)]
    street.b.standing.in_touch = False
    street.b.standing._stirred_at -= 1000.0
    assert await street.b.ask("GET", "/nodes/self") == (
        200,
        {"node": "b", "etcd": False, "quietSeconds": pytest.approx(1000.0, abs=60.0)},
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
async def test_why_a_node_cannot_be_emptied_is_told(street: Street) -> None:
    """It may be emptied in part, and then answers nobody until it is whole."""
    for why, status, is_drained in (
        (IllegalTransition("nobody can take them"), 409, False),
        (StoreTrouble("etcd: no leader"), 503, True),
    ):
        street.b.sight.stays = why
        told, problem = await street.a.ask("POST", "/nodes/b/drain")
        assert told == status
        assert str(why) in problem["detail"]
        assert street.b.standing.is_drained is is_drained
    street.b.sight.stays = None
    assert await street.a.ask("POST", "/nodes/b/drain") == (204, None)


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


async def present_life(house: House, client_id: str) -> Any:
    """The present life of a client, as a node tells it."""
    _, history = await house.ask("GET", f"/clients/{client_id}/history")
    return history["lives"][0]


def by_id(answer: Any) -> dict[str, Any]:
    """A listing's records."""
    return {client["clientID"]: client for client in answer["clients"]}


@pytest_twisted.ensureDeferred
async def test_what_only_another_node_knows_is_asked_of_it(street: Street) -> None:
    await street.a.beat("a1", values={"fps": 90})
    await street.b.beat("b1", values={"fps": 72})
    await street.b.beat("b1", values={"fps": 60})
    street.a.knows(street.b, "b1", "b2")
    status, answer = await street.a.ask("GET", "/clients")
    records = by_id(answer)
    assert (status, list(records)) == (200, ["a1", "b1", "b2"])
    assert [record["values"] for record in records.values()] == [
        {"fps": 90},
        {"fps": 60},
        None,  # b doesn't know b2
    ]
    assert 0 <= records["b1"]["secondsSinceHeartbeat"] < 10
    assert 0 < records["b1"]["secondsToTimebomb"] <= 10
    assert records["b2"]["secondsSinceHeartbeat"] is None
    assert records["b2"]["secondsToTimebomb"] is None
    _, record = await street.a.ask("GET", "/clients/b1")
    assert record["values"] == {"fps": 60}
    _, history = await street.a.ask("GET", "/clients/b1/history")
    assert history["lives"][0]["beats"] == 2
    # B doesn't know the one, and no node has the other.
    street.a.knows(street.b, "x")
    for client_id in ("b2", "x"):
        life = await present_life(street.a, client_id)
        assert (life["beats"], life["longestGapSeconds"]) == (None, None)
    assert (await present_life(street.a, "a1"))["beats"] == 1
    _, page = await street.a.ask("GET", "/clients?limit=2")
    assert [one["values"] for one in page["clients"]] == [{"fps": 90}, {"fps": 60}]
    _, rest = await street.a.ask("GET", f"/clients?limit=2&after={page['next']}")
    assert ([*by_id(rest)], rest["next"]) == (["b2", "x"], None)


@pytest_twisted.ensureDeferred
async def test_who_is_late_at_another_node_is_found(street: Street) -> None:
    for client_id in ("b1", "b2", "b3"):
        await street.b.beat(client_id)
    street.a.knows(street.b, "b1", "b2", "b3")
    street.b.engine.registry.mass_loss.late.add("b2")
    for path in ("/clients?late=true", "/clients?late=true&limit=1"):
        assert [*by_id((await street.a.ask("GET", path))[1])] == ["b2"]
    _, others = await street.a.ask("GET", "/clients?late=false")
    assert [*by_id(others)] == ["b1", "b3"]
    _, summary = await street.a.ask("GET", "/summary")
    assert (summary["late"], summary["alive"]) == (1, 3)


@pytest_twisted.ensureDeferred
async def test_what_clients_report_at_another_node_is_told_here(street: Street) -> None:
    b, session = street.b, street.b.sight.own.session
    peers = Peers(
        reactor,
        street.a.sight,
        street.a.standing,
        BEARER["Authorization"].encode,
    )
    told: list[Any] = []
    asking = BeatsElsewhere(
        reactor, peers, street.a.engine.registry, told.append, lambda: True
    )
    await b.beat("b1")
    street.a.knows(b, "b1", "b2")
    asking.take(await peers.late_or_reported({}))
    assert told == []
    after = b.engine.events.last_id
    await b.beat("b1", "RUNNING")
    b.engine.events.hear(  # which b has heard of, too
        Reported(client_id="b2", incarnation=7, reported_state=ClientState.RUNNING)
    )
    answers = await peers.late_or_reported({session: after})
    asking.take(answers)
    [news] = told
    assert (news.client_id, news.reported_state) == ("b1", ClientState.RUNNING)
    answer = answers[session]
    assert answer is not None
    assert answer.as_of == b.engine.events.last_id


@pytest_twisted.ensureDeferred
async def test_a_listing_of_many_asks_for_many_at_once(
    street: Street, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"b{number}" for number in range(1, 1201)]
    for name in names:
        street.b.engine.registry.beat(name, ClientState.RUNNING, None, None, VALUES)
    await until(lambda: not street.b.engine.journal.pending)  # it tells of them then
    street.a.knows(street.b, *names)
    asked: list[int] = []
    beats_of = Dispatcher.beats_of

    def counting(self: Dispatcher, question: BeatsQuestion) -> BeatsAnswer:
        asked.append(len(question.client_ids))
        return beats_of(self, question)

    monkeypatch.setattr(Dispatcher, "beats_of", counting)
    _, answer = await street.a.ask("GET", "/clients")
    assert all(one["values"] == {"x": 1} for one in answer["clients"])
    assert [one["clientID"] for one in answer["clients"]] == names
    assert asked == [500, 500, 200]


@pytest_twisted.ensureDeferred
async def test_a_node_that_does_not_answer_holds_no_listing_up_twice(
    street: Street, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers_module, "ANSWER_TIME", 0.2)
    monkeypatch.setattr(peers_module, "LEFT_ALONE", 60.0)
    monkeypatch.setattr(peers_module, "LOOK_AHEAD", 2)
    names = [f"b{number}" for number in range(20)]
    street.a.knows(street.b, *names)
    with deaf() as (ears, at):
        street.everybody[1] = evolve(street.b.sight.own, url=f"http://{at}")
        _, answer = await street.a.ask("GET", "/clients")
        assert [one["values"] for one in answer["clients"]] == [None] * 20
        assert {one["late"] for one in answer["clients"]} == {False}
        _, summary = await street.a.ask("GET", "/summary")
        assert summary["alive"] == 20
        ears.accept()[0].close()
        with pytest.raises(BlockingIOError):  # nobody has asked again
            ears.accept()


@pytest_twisted.ensureDeferred
async def test_nodes_that_went_for_good_are_not_remembered_for_their_silence(
    street: Street, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers_module, "LEFT_ALONE", 0.0)
    peers = Peers(reactor, street.a.sight, Standing(reactor), bytes)
    for run in range(5):
        nowhere = "http://127.0.0.1:1"
        street.everybody[1] = Node(f"run-{run}", "b", 0.0, "127.0.0.1:1", nowhere)
        assert await peers.beats_of(["b1"]) == {}
    assert [*peers._alone_until] == ["run-4"]


@pytest_twisted.ensureDeferred
async def test_a_node_without_a_good_token_is_told_nothing(street: Street) -> None:
    await street.b.beat("b1", values={"fps": 60})
    question = json.dumps({"clientIDs": ["b1"]}).encode()
    status, answer = await street.b.ask("POST", "/nodes/beats", question)
    assert (status, [*answer["beats"]]) == (200, ["b1"])
    street.b.engine.registry.mass_loss.late.add("b1")
    question_of_late = b'{"clientIDs": [], "late": true}'
    _, answer = await street.b.ask("POST", "/nodes/beats", question_of_late)
    assert (answer["beats"]["b1"]["values"], answer["late"]) == ({}, 1)
    assert (answer["reported"], answer["asOf"]) == ([], None)  # nobody asked for it
    status, problem = await street.b.ask(
        "POST", "/nodes/beats", question, Authorization="Bearer no-token-of-this-node"
    )
    assert (status, problem["code"]) == (401, "UNAUTHORIZED")
    of_a_newer_version = b'{"clientIDs": [], "x": 1}'
    status, _ = await street.b.ask("POST", "/nodes/beats", of_a_newer_version)
    assert status == 200
    for wrong in (b"{}", b'{"clientIDs": [""]}', b'{"clientIDs": [], "late": 1}'):
        status, problem = await street.b.ask("POST", "/nodes/beats", wrong)
        assert (status, problem["code"]) == (400, "BAD_MESSAGE")
    many = json.dumps({"clientIDs": ["1"] * 1001}).encode()
    status, problem = await street.b.ask("POST", "/nodes/beats", many)
    assert (status, problem["code"]) == (400, "BAD_MESSAGE")
    assert "1000" in problem["detail"]


def is_told(event: LogEvent) -> bool:
    """Whether it stands in a service's log: other than what is for who looks for it."""
    return bool(event["log_level"] >= LogLevel.info)


@pytest_twisted.ensureDeferred
async def test_a_node_out_of_touch_asks_the_others_whether_they_are_too(
    street: Street, monkeypatch: pytest.MonkeyPatch, logged: list[LogEvent]
) -> None:
    """And writes no line of each question."""
    monkeypatch.setattr(peers_module, "ASK_EVERY", 0.02)
    heard: list[list[float | None]] = []

    class Listening(Standing):
        def hear(self, answers: Any, asked_at: float) -> None:
            assert asked_at <= reactor.seconds()
            heard.append(list(answers))

    standing = Listening(reactor)
    peers = Peers(reactor, street.a.sight, standing, bytes)
    peers.start()
    await pause(0.1)
    assert heard == []
    b, c = pytest.approx(1000.0, abs=60.0), pytest.approx(2000.0, abs=60.0)
    street.b.standing._stirred_at -= 1000.0
    street.c.standing._stirred_at -= 2000.0
    standing.in_touch = False
    await until(lambda: [None, None] in heard)
    street.b.standing.in_touch = False
    await until(lambda: [b, None] in heard)
    street.c.standing.in_touch = False
    await until(lambda: [b, c] in heard)
    street.everybody[2] = evolve(street.c.sight.own, url="http://127.0.0.1:1")
    await until(lambda: heard[-1] == [b, None])
    gone = street.everybody.pop()
    street.a.sight.gone = [gone, street.c.sight.own]
    await until(lambda: [b, None, c] in heard)
    standing.in_touch = True
    await pause(0.1)
    heard.clear()
    await pause(0.1)
    assert heard == []
    peers.stop()
    assert [formatEvent(event) for event in logged if is_told(event)] == []


@pytest_twisted.ensureDeferred
async def test_a_node_that_does_not_answer_in_time_is_told_of(
    street: Street, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers_module, "ORDER_TIME", 0.2)
    with deaf() as (_, at):
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
