"""Lets a request in, or not, when only its head is there.

It asks which page the request comes from, which route it is for, and the door of
those who may use that. Most requests are beats: their route is found by one look, the
others' by Klein's own map. Knows no route by name, but where the page is; and no body.
"""

from __future__ import annotations

from collections.abc import Callable

from werkzeug.exceptions import HTTPException
from werkzeug.exceptions import NotImplemented as MethodUnknown

from heartbeat_service.core.errors import HeartbeatError
from heartbeat_service.protocol.codec import MAX_ORDER
from heartbeat_service.web.access import Door, authorization_of
from heartbeat_service.web.channel import BoundedRequest
from heartbeat_service.web.names import Names, is_preflight
from heartbeat_service.web.pages import HEADERS, is_of_page
from heartbeat_service.web.problem import Problem
from heartbeat_service.web.route import Routes, Who
from heartbeat_service.web.routing import problem_of_routing, read_path


class Gate:
    """Asked of each request before its body is read.

    :ivar fixed: the names of the routes whose paths have no variables, by method and
        path.
    """

    def __init__(
        self, routes: Routes, client_door: Door, operator_door: Door, names: Names
    ) -> None:
        self._client_door = client_door
        self._operator_door = operator_door
        self._names = names
        self._mapper = routes.app.url_map.bind("")
        self.fixed: dict[tuple[bytes, bytes], str] = {
            (method.encode(), rule.rule.encode()): rule.endpoint
            for rule in routes.app.url_map.iter_rules()
            if not rule.arguments
            for method in rule.methods or ()
        }
        admits: dict[Who, Callable[[BoundedRequest], None] | None] = {
            Who.CLIENTS: self._admit_client,
            Who.OPERATORS: self._admit_operator,
            Who.ANYONE: None,
        }
        self._admits = {name: admits[route.who] for name, route in routes.items()}

    def check(self, request: BoundedRequest) -> Problem | None:
        """Why a request isn't taken, of which only the head is there; None if it is."""
        headers = request.requestHeaders
        for name, value in self._names.cors(request.method, headers):
            request.setHeader(name, value)
        if is_of_page(request.path):
            for name, value in HEADERS.items():
                request.setHeader(name, value)
        try:
            self._names.check(headers)
            if is_preflight(request.method, headers):
                return None
            admit = self._admits.get(self._endpoint(request))
            if admit is not None:
                admit(request)
        except HeartbeatError as error:
            return Problem.of(error)
        except HTTPException as error:
            return problem_of_routing(error)
        return None

    def route_of(self, request: BoundedRequest) -> str:
        """The name of the route that a request is for; empty if there is none."""
        try:
            return self._endpoint(request)
        except HTTPException:
            return ""

    def _endpoint(self, request: BoundedRequest) -> str:
        endpoint = self.fixed.get((request.method, request.path))
        if endpoint is not None:
            return endpoint
        path = read_path(request.path)
        if not request.method.isupper():  # the mapper would take get for GET
            raise MethodUnknown("Methods are written in capitals")
        name: str
        name, _ = self._mapper.match(path, request.method.decode("ascii"))
        return name

    def _admit_client(self, request: BoundedRequest) -> None:
        self._client_door.admit(authorization_of(request))
        # With a GET, a page sends its Origin to other sites only.
        if request.method != b"POST" and not self._client_door.wants_token:
            self._names.check_host(request.requestHeaders)

    def _admit_operator(self, request: BoundedRequest) -> None:
        self._operator_door.admit(authorization_of(request))
        if not self._operator_door.wants_token:
            self._names.check_host(request.requestHeaders)
        request.longest = MAX_ORDER
