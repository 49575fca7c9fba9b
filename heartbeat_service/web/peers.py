"""The other nodes, asked by HTTP, each within a bounded time (contract, section 7).

Each question has a connection of its own: between nodes there are few, and one that was
kept may be dead. Whatever goes wrong with it, there is no answer. Knows which nodes
there are by the port :class:`Nodes`; no etcd, and no route but those that nodes ask of
each other.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from attrs import define, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.client import Agent, HTTPConnectionPool, ResponseDone
from twisted.web.http_headers import Headers
from typing_extensions import override

from heartbeat_service.core.errors import IllegalTransition, Overloaded
from heartbeat_service.protocol.codec import moment
from heartbeat_service.protocol.nodes import NodeRecord
from heartbeat_service.storage.nodes import Node, Nodes, Standing

#: How long an order to another node may take, in seconds.
ORDER_TIME = 5.0

#: The longest answer that is read, in bytes.
LONGEST_ANSWER = 8 * 1024 * 1024

#: What of another node's answer is passed on.
_PASSED_ON = (b"content-type", b"retry-after", b"www-authenticate")


class UnknownNode(Exception):
    """No running node is called so; the text says which there are."""


@frozen
class Answer:
    """What another node has said."""

    status: int
    headers: Headers
    body: bytes

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
    """

    reactor: Any
    nodes: Nodes
    standing: Standing
    _agent: Any = field(init=False)
    _log = Logger()

    def __attrs_post_init__(self) -> None:
        pool = HTTPConnectionPool(self.reactor, persistent=False)
        self._agent = Agent(self.reactor, pool=pool)

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
        :raises Overloaded: if the node doesn't answer.
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
            return await self._order(node, f"/nodes/{name}/drain", authorization)
        self.standing.is_drained = True
        await self.nodes.leave()
        return None

    async def _order(self, node: Node, path: str, authorization: bytes) -> Answer:
        headers = Headers({b"Authorization": [authorization]} if authorization else {})
        answer = await self._ask(node, b"POST", path, headers, ORDER_TIME)
        if answer is None:
            raise Overloaded(
                f"The node {node.name} at {node.http} doesn't answer: look whether it "
                "still runs"
            )
        return answer

    async def _ask(
        self, node: Node, method: bytes, path: str, headers: Headers, seconds: float
    ) -> Answer | None:
        """What a node answers; None if there is nothing in time."""
        # One that says where this one listens isn't there any more.
        if node.url in ("", self.nodes.own.url):
            return None
        asked = Deferred.fromCoroutine(
            self._exchange(method, f"{node.url}{path}".encode(), headers)
        )
        try:
            return await asked.addTimeout(seconds, self.reactor)
        except Exception as error:  # noqa: BLE001 - each way to get no answer has its own
            self._log.debug(
                "node {name} doesn't answer: {error!r}", name=node.name, error=error
            )
            return None

    async def _exchange(self, method: bytes, url: bytes, headers: Headers) -> Answer:
        response = await self._agent.request(method, url, headers)
        body = _Body()
        response.deliverBody(body)
        return Answer(response.code, response.headers, await body.whole)


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
