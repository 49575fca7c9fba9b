"""The routes of the contract's section 3: decode, dispatch, encode.

Routes raise; the handlers at the end are the only ones that format an error.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import cached_property, partial
from http import HTTPStatus
from typing import Any, TypeVar, get_args

from msgspec import UNSET
from msgspec.structs import asdict
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest
from werkzeug.exceptions import HTTPException, NotFound

from heartbeat_service.core.errors import (
    BadMessage,
    HeartbeatError,
    IllegalTransition,
    InstanceSuperseded,
    LockedOut,
    StaleIncarnation,
    StaleSequence,
    UnknownClient,
)
from heartbeat_service.engine.dispatch import Dispatcher
from heartbeat_service.engine.orders import (
    MOST_ORDERS,
    ManyOrder,
    OneOrder,
    Orders,
)
from heartbeat_service.engine.which import Which
from heartbeat_service.protocol.codec import (
    decode_order,
    decode_request,
    encode,
    encode_json,
    request_id_of,
    whole,
)
from heartbeat_service.protocol.messages import (
    ClientID,
    ClientRecord,
    ClientStateMessage,
    ErrorMessage,
    GoneRecord,
    HealthRecord,
    HistoryRecord,
    HoldTail,
    ListTail,
    Message,
    PageTail,
    Request,
    SummaryRecord,
)
from heartbeat_service.protocol.nodes import (
    BeatsAnswer,
    BeatsQuestion,
    NodesRecord,
    OwnNodeRecord,
)
from heartbeat_service.protocol.orders import (
    KickOrder,
    KickOrders,
    LockoutOrder,
    LockoutOrders,
    LockoutRecord,
    SilenceOrder,
    SilenceOrders,
    SilenceRecord,
    StateOrder,
    StateOrders,
)
from heartbeat_service.protocol.schema import Schema
from heartbeat_service.web.access import Door, authorization_of
from heartbeat_service.web.asyncapi import asyncapi
from heartbeat_service.web.events import EventStreams
from heartbeat_service.web.gate import Gate
from heartbeat_service.web.listing import Listing, Page, Places, Steps
from heartbeat_service.web.metrics import CONTENT_TYPE
from heartbeat_service.web.names import Names
from heartbeat_service.web.openapi import openapi
from heartbeat_service.web.pages import INDEX, TYPES, PageFile, Pages
from heartbeat_service.web.parameters import (
    ENDED,
    IF_NONE_MATCH,
    LAST_EVENT_ID,
    LISTED,
)
from heartbeat_service.web.peers import Peers, UnknownNode
from heartbeat_service.web.problem import Problem, unavailable, write_problem
from heartbeat_service.web.route import Files, Listed, Routes, Who
from heartbeat_service.web.routing import (
    HeartbeatKlein,
    HeartbeatResource,
    problem_of_routing,
)

#: How many listings that don't fit in one chunk may be read at once. Each has the
#: names of all who live, and up to two chunks.
MOST_LISTINGS = 32

#: The endpoints that most often answer at once, with bytes.
_AT_ONCE = frozenset(("heartbeat",))

_E = TypeVar("_E", bound=Exception)

_EVENTS = Files(("text/event-stream",))
_PAGE = Files((TYPES[".html"].decode(),), tagged=True)
_PAGE_FILE = Files(tuple(type_.decode() for type_ in TYPES.values()), tagged=True)
_DOCUMENT = Files(("application/json",), tagged=True)

#: On which terms an order to one client isn't carried out.
_TERMS = (UnknownClient, IllegalTransition, StaleSequence)


class HeartbeatApp:
    """The Klein resource of the service.

    :param trouble: finds out why the service isn't ready; None if it is.
    :param client_door: where heartbeats ask to be let in.
    :param operator_door: where all other routes do, but for the service's health.
    :param names: which Hosts it is known by, and which pages may ask.
    :param streams: all who read events.
    :param peers: the other nodes.
    :ivar gate: see :meth:`Gate.check`.
    :ivar route_of: see :meth:`Gate.route_of`.
    :ivar read_metrics: tells what has happened, in numbers, in Prometheus' text format.
    """

    app = HeartbeatKlein()
    # No answer is a redirect.
    app.url_map.merge_slashes = False
    routes = Routes(app)
    _log = Logger()

    def __init__(
        self,
        dispatcher: Dispatcher,
        orders: Orders,
        trouble: Callable[[], Awaitable[str | None]],
        client_door: Door,
        operator_door: Door,
        names: Names,
        streams: EventStreams,
        peers: Peers,
    ) -> None:
        self._dispatcher = dispatcher
        self._trouble = trouble
        self.read_metrics: Callable[[], bytes] = bytes
        self._listings = Places(MOST_LISTINGS, "too many listings are being read")
        self._orders = orders
        self._being_carried_out = Places(
            MOST_ORDERS, "too many orders are being carried out"
        )
        self.client_door = client_door
        self.operator_door = operator_door
        self._streams = streams
        self._peers = peers
        self._gate = Gate(self.routes, client_door, operator_door, names)
        self.gate = self._gate.check
        self.route_of = self._gate.route_of

    # Each is made when somebody first asks for it: a start shall not wait for it.
    @cached_property
    def _pages(self) -> Pages:
        return Pages()

    @cached_property
    def _openapi(self) -> PageFile:
        wants_token = {
            Who.CLIENTS: self.client_door.wants_token,
            Who.OPERATORS: self.operator_door.wants_token,
        }
        return _document(openapi(self.routes.values(), wants_token))

    @cached_property
    def _asyncapi(self) -> PageFile:
        of = self._dispatcher
        return _document(asyncapi(of.request_endpoint, of.state_change_endpoint))

    @routes.add(
        "POST /heartbeat",
        "POST /Heartbeat/Update",
        who=Who.CLIENTS,
        takes=tuple(map(whole, get_args(Request))),
        answers=whole(ClientStateMessage),
        refuses=(
            IllegalTransition,
            InstanceSuperseded,
            LockedOut,
            StaleIncarnation,
            StaleSequence,
            UnknownClient,
        ),
    )
    def heartbeat(self, request: IRequest) -> bytes | Deferred[bytes]:
        """A client lives, or asks for what it asks by ZeroMQ, where it has none."""
        bearer = self.client_door.admit(authorization_of(request))  # whose is it?
        message, request_id = decode_request(_read(request))
        bearer.must_speak_for(message.client_id)
        answer = self._dispatcher.dispatch(message)
        if isinstance(answer, ClientStateMessage):
            return _reply(answer, request, request_id)
        return answer.addCallback(_reply, request, request_id)

    @routes.add(
        "GET /clients",
        who=Who.OPERATORS,
        parameters=LISTED,
        answers=Listed("clients", (ClientRecord, GoneRecord), PageTail),
    )
    async def clients(
        self,
        request: IRequest,
        gone: bool = False,
        limit: int | None = None,
        **which: Any,
    ) -> None:
        """Who lives, or who was here and is not."""
        if gone:
            await self._list_gone(request, limit, **which)
            return
        if "since" in which:
            raise BadMessage(
                "`since` is about those who are gone: it wants `gone=true`"
            )
        after = which.pop("after", 0)
        clients = await self._dispatcher.clients(after, Which(**which))
        clients = self._peers.each_filled(clients, limit, which.get("late"))
        if limit is None:
            await self._list(request, clients)
        else:
            page = Page(clients, limit)

            def tail(**more: str) -> PageTail:
                return PageTail(next=page.next, **more)

            await self._list(request, iter(page), tail)

    async def _list_gone(
        self, request: IRequest, limit: int | None, **which: Any
    ) -> None:
        for name in which.keys() & {"state", "late"}:
            raise BadMessage(f"`{name}` is about those who live: not with `gone=true`")
        gone, following = self._dispatcher.gone_clients(limit=limit, **which)
        page_end = UNSET if limit is None else following
        await self._list(request, gone, partial(PageTail, next=page_end))

    async def _list(
        self,
        request: IRequest,
        steps: Steps,
        tail: Callable[..., ListTail] = ListTail,
        name: str = "clients",
    ) -> None:
        """Answer with a list, and behind it what else is told of it.

        :param tail: makes that, once the list is whole.
        """
        as_of = self._dispatcher.events.last_id  # before the first of them is looked at

        def whole_tail() -> ListTail:
            return tail(as_of=as_of, server_time=self._dispatcher.server_time())

        await Listing(request, steps, self._listings, name, whole_tail).send()

    @routes.add(
        "PUT /clients/state",
        who=Who.OPERATORS,
        takes=(StateOrders,),
        answers=Listed("clients", (ClientStateMessage, ErrorMessage)),
    )
    async def steer_many(self, request: IRequest) -> None:
        """An operator sets the state of many."""
        await self._carry_out(request, StateOrders)

    @routes.add(
        "PUT /clients/silence",
        who=Who.OPERATORS,
        takes=(SilenceOrders,),
        answers=Listed("clients", (SilenceRecord, ErrorMessage)),
    )
    async def silence_many(self, request: IRequest) -> None:
        """An operator grants many a planned silence."""
        await self._carry_out(request, SilenceOrders)

    @routes.add(
        "PUT /clients/lockout",
        who=Who.OPERATORS,
        takes=(LockoutOrders,),
        answers=Listed("clients", (LockoutRecord, ErrorMessage)),
    )
    async def lock_out_many(self, request: IRequest) -> None:
        """An operator keeps many out for so many seconds."""
        await self._carry_out(request, LockoutOrders)

    @routes.add(
        "POST /clients/kick",
        who=Who.OPERATORS,
        takes=(KickOrders,),
        answers=Listed("clients", (ClientStateMessage, ErrorMessage)),
    )
    async def kick_many(self, request: IRequest) -> None:
        """An operator removes many."""
        await self._carry_out(request, KickOrders)

    async def _carry_out(self, request: IRequest, kind: type[ManyOrder]) -> None:
        order = decode_order(_read(request), kind)
        with self._being_carried_out.taken():  # what is carried out is answered, too
            answers = await self._orders.to_many(order, self._operator(request))
            await Listing(request, iter(answers)).send()

    @routes.add(
        "GET /lockouts",
        who=Who.OPERATORS,
        answers=Listed("lockouts", (LockoutRecord,), ListTail),
    )
    async def lockouts(self, request: IRequest) -> None:
        """Who is kept out."""
        await self._list(request, self._orders.lockouts(), name="lockouts")

    @routes.add(
        "GET /mass-loss",
        who=Who.OPERATORS,
        answers=Listed("held", (str,), HoldTail),
    )
    async def mass_loss(self, request: IRequest) -> None:
        """The present hold, and who is held."""
        tail = partial(HoldTail, **asdict(self._dispatcher.hold()))
        held = self._dispatcher.held()
        await self._list(request, iter(held), tail, "held")

    @routes.add(
        "DELETE /mass-loss",
        who=Who.OPERATORS,
        parameters=ENDED,
        answers=None,
    )
    def end_mass_loss(
        self, request: IRequest, hold: str | None = None
    ) -> Deferred[None]:
        """An operator ends the present hold."""
        if _read(request):
            raise BadMessage("Takes no body, only the parameter `hold`")
        by = self._operator(request)
        return self._orders.end_mass_loss(hold, by).addCallback(_done, request)

    @routes.add("GET /summary", who=Who.OPERATORS, answers=SummaryRecord)
    async def summary(self, request: IRequest) -> bytes:
        """How all is, in one look.

        Late and held are also those of other nodes, as far as these answer; the hold is
        the one of the node that answers.
        """
        summary = self._dispatcher.summarized()
        return _json(request, await self._peers.summed_up(summary))

    @routes.add(
        "GET /clients/{id}",
        who=Who.OPERATORS,
        answers=ClientRecord,
        refuses=(UnknownClient,),
    )
    async def client(self, request: IRequest, client_id: str) -> bytes:
        """One client."""
        record = await self._dispatcher.client(_known(client_id))
        return _json(request, await self._peers.filled(record))

    @routes.add(
        "DELETE /clients/{id}",
        who=Who.OPERATORS,
        takes=(KickOrder,),
        may_be_empty=True,
        answers=None,
        refuses=_TERMS,
    )
    def kick(self, request: IRequest, client_id: str) -> Deferred[None]:
        """An operator removes a client."""
        order = decode_order(_read(request) or b"{}", KickOrder)
        return self._carry_out_one(request, client_id, order).addCallback(
            _done, request
        )

    @routes.add(
        "PUT /clients/{id}/lockout",
        who=Who.OPERATORS,
        takes=(LockoutOrder,),
        answers=None,
        refuses=_TERMS,
    )
    def lock_out(self, request: IRequest, client_id: str) -> Deferred[None]:
        """An operator keeps a client out for so many seconds."""
        order = decode_order(_read(request), LockoutOrder)
        return self._carry_out_one(request, client_id, order).addCallback(
            _done, request
        )

    @routes.add(
        "PUT /clients/{id}/silence",
        who=Who.OPERATORS,
        takes=(SilenceOrder,),
        answers=ClientRecord,
        refuses=_TERMS,
    )
    def silence(self, request: IRequest, client_id: str) -> Deferred[bytes]:
        """An operator grants a client a planned silence."""
        order = decode_order(_read(request), SilenceOrder)
        return self._carry_out_one(request, client_id, order).addCallback(
            lambda record: _json(request, record)
        )

    @routes.add(
        "PUT /clients/{id}/state",
        who=Who.OPERATORS,
        takes=(StateOrder,),
        answers=whole(ClientStateMessage),
        refuses=_TERMS,
    )
    def steer(self, request: IRequest, client_id: str) -> Deferred[bytes]:
        """An operator sets one client's state."""
        order = decode_order(_read(request), StateOrder)
        return self._carry_out_one(request, client_id, order).addCallback(
            _reply, request
        )

    def _carry_out_one(
        self, request: IRequest, client_id: str, order: OneOrder
    ) -> Deferred[Any]:
        by = self._operator(request)
        return self._orders.to_one(_known(client_id), order, by)

    def _operator(self, request: IRequest) -> str | None:
        """Which operator asks; None where that isn't known."""
        return self.operator_door.admit(authorization_of(request)).name or None

    @routes.add(
        "GET /clients/{id}/history",
        who=Who.OPERATORS,
        answers=HistoryRecord,
        refuses=(UnknownClient,),
    )
    async def history(self, request: IRequest, client_id: str) -> bytes:
        """The lives of one client."""
        lives = await self._dispatcher.history(_known(client_id))
        if lives[0].ended_at is None:
            lives[0] = await self._peers.counted(client_id, lives[0])
        return _json(request, HistoryRecord(lives))

    @routes.add(
        "GET /events", who=Who.OPERATORS, headers=LAST_EVENT_ID, answers=_EVENTS
    )
    async def events(self, request: IRequest) -> None:
        """All that operators are told, as it happens."""
        await self._streams.follow(
            request, lambda: self.operator_door.admit(authorization_of(request))
        )

    @routes.add(
        "GET /clients/{id}/events",
        who=Who.CLIENTS,
        headers=LAST_EVENT_ID,
        answers=_EVENTS,
        refuses=(UnknownClient,),
    )
    async def client_events(self, request: IRequest, client_id: str) -> None:
        """What a client is told of itself, as it happens, also before it registers."""
        name = _known(client_id)

        def admit() -> None:
            bearer = self.client_door.admit(authorization_of(request))
            bearer.must_speak_for(name)

        admit()
        await self._streams.follow(request, admit, name)

    @routes.add("GET /", who=Who.ANYONE, headers=IF_NONE_MATCH, answers=_PAGE)
    def page(self, request: IRequest) -> bytes:
        """The operators' page; what it shows, it asks of the other routes."""
        return self._pages.answer(request, INDEX)

    @routes.add(
        "GET /page/{name}", who=Who.ANYONE, headers=IF_NONE_MATCH, answers=_PAGE_FILE
    )
    def page_file(self, request: IRequest, name: str) -> bytes:
        """What the page is made of."""
        return self._pages.answer(request, name)

    @routes.add(
        "GET /openapi.json", who=Who.ANYONE, headers=IF_NONE_MATCH, answers=_DOCUMENT
    )
    def openapi(self, request: IRequest) -> bytes:
        """All that is asked by HTTP, for machines: OpenAPI 3.1."""
        return self._openapi.answer(request)

    @routes.add(
        "GET /asyncapi.json", who=Who.ANYONE, headers=IF_NONE_MATCH, answers=_DOCUMENT
    )
    def asyncapi(self, request: IRequest) -> bytes:
        """ZeroMQ and the events, for machines: AsyncAPI 3.0."""
        return self._asyncapi.answer(request)

    @routes.add(
        "GET /metrics",
        who=Who.OPERATORS,
        answers=Files((CONTENT_TYPE,)),
    )
    def metrics(self, request: IRequest) -> bytes:
        """What has happened, in numbers, for Prometheus."""
        text = self.read_metrics()
        request.setHeader(b"Content-Type", CONTENT_TYPE)
        request.setHeader(b"Content-Length", b"%d" % len(text))
        return text

    @routes.add("GET /nodes", who=Who.OPERATORS, answers=NodesRecord)
    def nodes(self, request: IRequest) -> bytes:
        """All nodes that are this service."""
        return _json(request, NodesRecord(self._peers.records()))

    @routes.add("GET /nodes/self", who=Who.ANYONE, answers=OwnNodeRecord)
    def own_node(self, request: IRequest) -> bytes:
        """Which node answers, and whether etcd answers it."""
        name, standing = self._peers.nodes.own.name, self._peers.standing
        own = OwnNodeRecord(name, standing.in_touch, standing.quiet_for())
        return _json(request, own)

    @routes.add(
        "POST /nodes/beats",
        who=Who.OPERATORS,
        takes=(BeatsQuestion,),
        answers=BeatsAnswer,
    )
    def beats(self, request: IRequest) -> bytes:
        """How clients beat at this node, which other nodes ask.

        Without any ID, how many are late.
        """
        question = decode_order(_read(request), BeatsQuestion)
        return _json(request, self._dispatcher.beats_of(question))

    @routes.add(
        "POST /nodes/{name}/drain",
        who=Who.OPERATORS,
        answers=None,
        refuses=(IllegalTransition,),
    )
    async def drain(self, request: IRequest, name: str) -> bytes | None:
        """A node's clients go to the others, before it is stopped.

        Asked of another node, it is passed on to that one.
        """
        if _read(request):
            raise BadMessage("Takes no body")
        try:
            answer = await self._peers.drain(name, authorization_of(request))
        except UnknownNode as error:
            raise NotFound(str(error)) from None
        if answer is not None:
            return answer.pass_on(request)
        _done(None, request)
        return None

    @routes.add("GET /healthz", who=Who.ANYONE, answers=HealthRecord)
    def healthz(self, request: IRequest) -> bytes:
        """The process turns."""
        return _json(request, HealthRecord("alive"))

    @routes.add("GET /readyz", who=Who.ANYONE, answers=HealthRecord)
    async def readyz(self, request: IRequest) -> bytes:
        """It listens, and clients are as well off here as anywhere."""
        trouble = await self._trouble()
        if trouble is not None:
            return write_problem(request, unavailable(trouble))
        return _json(request, HealthRecord("ready"))

    @app.handle_errors(HeartbeatError)
    def broken_rule(self, request: IRequest, failure: Failure) -> bytes:
        """A rule of the contract was broken."""
        error = _error(failure, HeartbeatError)
        self._dispatcher.refusals.add(error)
        return write_problem(request, Problem.of(error, self._request_id(request)))

    @app.handle_errors(HTTPException)
    def no_route(self, request: IRequest, failure: Failure) -> bytes:
        """Klein has no route for it."""
        problem = problem_of_routing(_error(failure, HTTPException))
        self._dispatcher.refusals.add(problem)
        return write_problem(request, problem)

    @app.handle_errors(Exception)
    def fault(self, request: IRequest, failure: Failure) -> bytes:
        """The fault is ours: logged whole, told in a sentence."""
        self._log.failure("A request failed", failure)
        problem = unavailable(
            "The service failed; try again", self._request_id(request)
        )
        return write_problem(request, problem)

    def _request_id(self, request: Any) -> str | None:
        """What a heartbeat names itself; an operator's order has no envelope."""
        if self.route_of(request) != "heartbeat":
            return None
        return request_id_of(request.content.getvalue())

    def resource(self) -> HeartbeatResource:
        """What a site serves."""
        at_once = {
            target: partial(self.app.endpoints[endpoint], self)
            for target, endpoint in self._gate.fixed.items()
            if endpoint in _AT_ONCE
        }
        return HeartbeatResource(self.app, at_once, self._dispatcher.refusals.add)


def _document(content: Schema) -> PageFile:
    return PageFile.of(encode_json(content), b"application/json")


def _error(failure: Failure, type_: type[_E]) -> _E:
    assert isinstance(failure.value, type_)
    return failure.value


def _read(request: IRequest) -> bytes:
    body: bytes = request.content.read()
    return body


def _known(client_id: str) -> ClientID:
    try:
        return ClientID.parse(client_id)
    except ValueError as error:
        raise UnknownClient(f"No client can have this ID. {error}") from None


def _reply(message: Message, request: IRequest, request_id: str | None = None) -> bytes:
    return _send_json(request, encode(message, request_id))


def _done(_: object, request: IRequest) -> None:
    request.setResponseCode(HTTPStatus.NO_CONTENT)


def _json(request: IRequest, value: object) -> bytes:
    return _send_json(request, encode_json(value))


def _send_json(request: IRequest, body: bytes) -> bytes:
    request.setHeader(b"Content-Type", b"application/json")
    request.setHeader(b"Content-Length", b"%d" % len(body))
    return body
