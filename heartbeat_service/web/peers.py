"""The other nodes, asked by HTTP, each within a bounded time (contract, section 7).

Each question has a connection of its own: between nodes there are few, and one that was
kept may be dead. Whatever goes wrong with it, there is no answer. Knows which nodes
there are by the port :class:`Nodes`; no etcd, and no route but those that nodes ask of
each other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import (
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from http import HTTPStatus
from io import BytesIO
from typing import Any, TypeVar

from attrs import define, field, frozen
from msgspec.structs import replace
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.client import (
    Agent,
    FileBodyProducer,
    HTTPConnectionPool,
    ResponseDone,
)
from twisted.web.http_headers import Headers
from typing_extensions import override
from zope.interface import implementer

from heartbeat_service.core.errors import BadMessage, IllegalTransition, Overloaded
from heartbeat_service.engine.dispatch import Shown
from heartbeat_service.protocol.codec import decode_from_node, encode_json, moment
from heartbeat_service.protocol.messages import ClientRecord, LifeRecord, SummaryRecord
from heartbeat_service.protocol.nodes import (
    BeatsAnswer,
    BeatsRecord,
    NodeRecord,
    OwnNodeRecord,
)
from heartbeat_service.storage.nodes import Node, Nodes, Standing
from heartbeat_service.storage.store import StoreTrouble

#: How long an order to another node may take, in seconds.
ORDER_TIME = 5.0

#: How long it may take to answer a question, in seconds.
ANSWER_TIME = 1.0

#: How often the others are asked whether etcd answers them, while it doesn't answer
#: this one, in seconds.
ASK_EVERY = 1.0

#: Who hasn't answered how its clients beat is left alone for so long, in seconds: else
#: each part of a long listing would wait for it.
LEFT_ALONE = 3.0

#: Of how many clients a listing asks at once: so many records wait for the answer.
LOOK_AHEAD = 500

#: The longest answer that is read, in bytes.
LONGEST_ANSWER = 8 * 1024 * 1024

#: What of another node's answer is passed on.
_PASSED_ON = (b"content-type", b"retry-after", b"www-authenticate")


T = TypeVar("T")


class UnknownNode(Exception):
    """No running node is called so; the text says which there are."""


@frozen
class Answer:
    """What another node has said."""

    status: int
    headers: Headers
    body: bytes

    def read(self, type_: type[T]) -> T | None:
        """What it says, if all is well."""
        try:
            return (
                decode_from_node(self.body, type_)
                if self.status == HTTPStatus.OK
                else None
            )
        except BadMessage:
            return None

    def pass_on(self, request: Any) -> bytes:
        """Answer a request with it."""
        request.setResponseCode(self.status)
        for name in _PASSED_ON:
            for value in self.headers.getRawHeaders(name, ()):
                request.setHeader(name, value)
        if self.status != HTTPStatus.NO_CONTENT:
            request.setHeader(b"Content-Length", b"%d" % len(self.body))
        return self.body


@define(eq=False)
class Peers:
    """What this node knows of the others, and how it asks them.

    :ivar reactor: the real one, or what takes its place in tests.
    :ivar standing: whether this node may speak for the service.
    :ivar authorization: what it shows at the operators' door of the others: a token of
        its own, which should be good there.
    """

    reactor: Any
    nodes: Nodes
    standing: Standing
    authorization: Callable[[], bytes]
    _agent: Any = field(init=False)
    _asking: LoopingCall = field(init=False)
    _asked: Deferred[Any] | None = field(default=None, init=False)
    _alone_until: dict[str, float] = field(factory=dict, init=False)
    _log = Logger()

    def __attrs_post_init__(self) -> None:
        pool = _QuietPool(self.reactor, persistent=False)
        self._agent = Agent(self.reactor, pool=pool)
        self._asking = LoopingCall(self._ask_if_away)
        self._asking.clock = self.reactor

    def start(self) -> None:
        """Find out whether etcd is away from all, whenever it is away from this one."""
        self._asking.start(ASK_EVERY, now=False).addErrback(
            lambda failure: self._log.failure("Nobody asks other nodes", failure)
        )

    def stop(self) -> None:
        """Ask nobody any more."""
        if self._asking.running:
            self._asking.stop()
        if self._asked is not None:
            self._asked.cancel()

    def _others(self) -> list[Node]:
        own = self.nodes.own.session
        return [node for node in self.nodes.all() if node.session != own]

    def _ask_if_away(self) -> Deferred[Any] | None:
        if self.standing.in_touch:
            return None
        self._asked = Deferred.fromCoroutine(self._ask_whether_away())
        return self._asked.addErrback(Failure.trap, CancelledError)

    async def _ask_whether_away(self) -> None:
        asked_at = self.reactor.seconds()
        asked = [*self._others(), *self.nodes.departed()]
        answers = await _all(map(self._quiet_seconds, asked))
        if not self.standing.in_touch:
            self.standing.hear(answers, asked_at)

    async def _quiet_seconds(self, node: Node) -> float | None:
        """For how long a node was quiet that etcd is away from, too.

        None if etcd answers it, or if it says nothing in time.
        """
        answer = await self._ask(node, b"GET", "/nodes/self", ANSWER_TIME)
        own = None if answer is None else answer.read(OwnNodeRecord)
        if own is None or own.node != node.name or own.etcd:
            return None
        return own.quiet_seconds

    async def beats_of(self, client_ids: Iterable[str]) -> dict[str, BeatsRecord]:
        """What is known where they beat, of those who beat at other nodes.

        :param client_ids: at most :data:`MOST_ASKED` of them.
        """
        asked: defaultdict[str, list[str]] = defaultdict(list)
        nodes: dict[str, Node] = {}
        for client_id in client_ids:
            node = self.nodes.node_of(client_id)
            if node is not None and node.session != self.nodes.own.session:
                nodes[node.session] = node
                asked[node.session].append(client_id)
        answers = await _all(
            self._ask_of_beats(nodes[session], those)
            for session, those in asked.items()
        )
        return {
            client_id: beats
            for answer in answers
            if answer is not None
            for client_id, beats in answer.beats.items()
        }

    async def summed_up(self, summary: SummaryRecord) -> SummaryRecord:
        """The same, with those as well who are late or held at other nodes."""
        answers = await _all(self._ask_of_beats(node, []) for node in self._others())
        given = [answer for answer in answers if answer is not None]
        return replace(
            summary,
            late=summary.late + sum(answer.late for answer in given),
            held=summary.held + sum(answer.held for answer in given),
        )

    async def late_or_reported(
        self, after: Mapping[str, str]
    ) -> dict[str, BeatsAnswer | None]:
        """Who is late at each other node, or has reported another state there.

        :param after: the event after which it was reported, by the node's session.
        :return: what each says, by its session; None of who says nothing.
        """
        others = self._others()
        answers = await _all(
            self._ask_of_beats(
                node, [], late=True, reported_after=after.get(node.session, "")
            )
            for node in others
        )
        sessions = [node.session for node in others]
        return dict(zip(sessions, answers, strict=True))

    def session_of(self, client_id: str) -> str | None:
        """Of the node where a client beats; None if no running node has it."""
        node = self.nodes.node_of(client_id)
        return None if node is None else node.session

    async def _ask_of_beats(
        self,
        node: Node,
        client_ids: Sequence[str],
        late: bool = False,
        reported_after: str | None = None,
    ) -> BeatsAnswer | None:
        if self.reactor.seconds() < self._alone_until.get(node.session, 0.0):
            return None
        question = {"clientIDs": client_ids, "late": late}
        if reported_after is not None:
            question["reportedAfter"] = reported_after
        body = encode_json(question)
        answer = await self._ask(
            node, b"POST", "/nodes/beats", ANSWER_TIME, self.authorization(), body
        )
        beats = None if answer is None else answer.read(BeatsAnswer)
        if beats is None:
            now, until = self.reactor.seconds(), self._alone_until
            # Of sessions that went for good nobody asks again.
            for session in [one for one, over in until.items() if over <= now]:
                del until[session]
            until[node.session] = now + LEFT_ALONE
        else:
            self._alone_until.pop(node.session, None)
        return beats

    async def filled(self, record: ClientRecord) -> ClientRecord:
        """A client's record, with what only another node knows of it."""
        if record.seconds_since_heartbeat is not None:
            return record
        beats = await self.beats_of([record.client_id])
        return _with(record, beats.get(record.client_id))

    async def counted(self, client_id: str, life: LifeRecord) -> LifeRecord:
        """A client's present life, with what only another node has counted of it.

        Where that can't be found out it is null: what is stored was counted long ago.
        """
        if self.session_of(client_id) == self.nodes.own.session:
            return life
        beats = (await self.beats_of([client_id])).get(client_id)
        if beats is None or beats.incarnation != life.incarnation:
            return replace(life, beats=None, longest_gap_seconds=None)
        return replace(
            life, beats=beats.beats, longest_gap_seconds=beats.longest_gap_seconds
        )

    def each_filled(
        self, steps: Iterator[Shown], limit: int | None, late: bool | None
    ) -> Iterator[Shown]:
        """The steps of a listing, each as :meth:`filled`; asks for many at once.

        :param limit: how many are wanted; None for all.
        :param late: only those for whom that holds; None for all. Who beats here was
            looked at already.
        """
        # A page needs no more than one behind it, unless it has to look for them.
        few = LOOK_AHEAD if limit is None or late is not None else limit + 1
        most = min(few, LOOK_AHEAD)
        waiting: list[ClientRecord] = []

        def keep(record: ClientRecord | None) -> ClientRecord | None:
            """Let it wait, behind those who do, unless it needn't."""
            if record is None:
                return None
            if not waiting and record.seconds_since_heartbeat is not None:
                return record
            waiting.append(record)
            return None

        for step in steps:
            if isinstance(step, Deferred):
                yield step.addCallback(keep)
            else:
                yield keep(step)
            if len(waiting) >= most:
                yield from self._all_filled(waiting, late)
                waiting.clear()
        yield from self._all_filled(waiting, late)

    def _all_filled(
        self, records: Sequence[ClientRecord], late: bool | None
    ) -> Iterator[Shown]:
        beats: dict[str, BeatsRecord] = {}
        if records:
            names = [one.client_id for one in records]
            asked = Deferred.fromCoroutine(self.beats_of(names))
            yield asked.addCallback(beats.update)
        for record in records:
            whole = _with(record, beats.get(record.client_id))
            yield whole if late in (None, whole.late) else None

    def records(self) -> list[NodeRecord]:
        """All nodes, as operators are shown them."""
        nodes, own = self.nodes, self.nodes.own
        return [
            NodeRecord(
                node=node.name,
                clients=nodes.clients_at(node.session),
                http=node.http,
                request_endpoint=node.request_endpoint,
                state_change_endpoint=node.state_change_endpoint,
                since=moment(node.since),
                self_=node.session == own.session,
            )
            for node in nodes.all()
        ]

    async def drain(self, name: str, authorization: bytes) -> Answer | None:
        """Let a node's clients go to the others.

        :param authorization: what the operator shows at the door, there as well.
        :return: None once it is done; what the node says, if it is another one.
        :raises UnknownNode: if nobody is called so.
        :raises IllegalTransition: if there is nobody to go to, or it isn't clear which
            node is meant.
        :raises Overloaded: if the node doesn't answer, or etcd doesn't.
        """
        nodes = self.nodes.all()
        called_so = [node for node in nodes if node.name == name]
        if not called_so:
            names = ", ".join(sorted({node.name for node in nodes}))
            raise UnknownNode(f"No running node is called {name}; there is {names}")
        if len(called_so) > 1:
            where = ", ".join(node.http for node in called_so)
            raise IllegalTransition(
                f"{len(called_so)} nodes are called {name}, at {where}: give each a "
                "name of its own by --node"
            )
        if len(nodes) == 1:
            raise IllegalTransition(
                f"{name} is the only node: its clients have nowhere to go"
            )
        [node] = called_so
        if node.session != self.nodes.own.session:
            path = f"/nodes/{name}/drain"
            answer = await self._ask(node, b"POST", path, ORDER_TIME, authorization)
            if answer is None:
                raise Overloaded(
                    f"The node {name} at {node.http} doesn't answer: look whether it "
                    "still runs"
                )
            return answer
        self.standing.is_drained = True
        try:
            await self.nodes.leave()
        except IllegalTransition:
            self.standing.is_drained = False
            raise
        except StoreTrouble as error:
            raise Overloaded(
                f"{name} answers no beat any more, but keeps its clients for now: "
                f"{error}; ask again"
            ) from None
        return None

    async def _ask(
        self,
        node: Node,
        method: bytes,
        path: str,
        seconds: float,
        authorization: bytes = b"",
        body: bytes | None = None,
    ) -> Answer | None:
        """What a node answers; None if there is nothing in time."""
        # One that says where this one listens isn't there any more.
        if node.url in ("", self.nodes.own.url):
            return None
        headers = Headers({b"Authorization": [authorization]} if authorization else {})
        asked = Deferred.fromCoroutine(
            self._exchange(method, f"{node.url}{path}".encode(), headers, body)
        )
        try:
            return await asked.addTimeout(seconds, self.reactor)
        except CancelledError:  # whoever wanted to know is gone
            raise
        except Exception as error:  # noqa: BLE001 - each way to get no answer has its own
            self._log.debug(
                "node {name} doesn't answer: {error!r}", name=node.name, error=error
            )
            return None

    async def _exchange(
        self, method: bytes, url: bytes, headers: Headers, content: bytes | None
    ) -> Answer:
        producer = None if content is None else FileBodyProducer(BytesIO(content))
        response = await self._agent.request(method, url, headers, producer)
        body = _Body()
        response.deliverBody(body)
        return Answer(response.code, response.headers, await body.whole)


class _QuietPool(HTTPConnectionPool):
    """Connections that leave no line in the log: there may be one a second."""

    @override
    def getConnection(self, key: Any, endpoint: IStreamClientEndpoint) -> Any:
        return super().getConnection(key, _Quiet(endpoint))


@implementer(IStreamClientEndpoint)
@frozen
class _Quiet:
    endpoint: IStreamClientEndpoint

    def connect(self, protocolFactory: Any) -> Any:
        """Connect, without a line."""
        protocolFactory.noisy = False
        return self.endpoint.connect(protocolFactory)


class _Body(Protocol):
    """What is read of an answer, as long as it isn't too long.

    :ivar whole: fires with all of it; to cancel it ends the connection.
    """

    def __init__(self) -> None:
        self.whole: Deferred[bytes] = Deferred(lambda _: self._end())
        self._read = bytearray()

    @override
    def dataReceived(self, data: bytes) -> None:
        self._read += data
        if len(self._read) > LONGEST_ANSWER:
            self._end()

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.whole.called:  # it was cancelled
            return
        if reason.check(ResponseDone):
            self.whole.callback(bytes(self._read))
        else:
            self.whole.errback(reason)

    def _end(self) -> None:
        if self.transport is not None:
            self.transport.loseConnection()


async def _all(asked: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """What comes of all of them, at once."""
    return await gatherResults(
        [Deferred.fromCoroutine(each) for each in asked], consumeErrors=True
    )


def _with(record: ClientRecord, beats: BeatsRecord | None) -> ClientRecord:
    """A record with what the node says where its client beats."""
    if beats is None or record.seconds_since_heartbeat is not None:
        return record
    known = record.silent_seconds is not None and beats.silent_seconds is not None
    return replace(
        record,
        values=beats.values,
        seconds_since_heartbeat=beats.seconds_since_heartbeat,
        seconds_to_timebomb=beats.seconds_to_timebomb,
        reported_state=beats.reported_state,
        late=beats.late,
        held=beats.held,
        silent_seconds=beats.silent_seconds if known else record.silent_seconds,
    )
