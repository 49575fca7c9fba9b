"""How a request gets to its endpoint: by Klein, and most of them by a shorter way.

Most requests are beats, and what Klein does around an endpoint costs more than a beat:
it binds its map to the Host, matches the path, and makes four Deferreds. So an endpoint
that most often answers at once, the one that Klein holds, is called first. If it does
answer, that is all. What else comes of it, an error or a Deferred, is given to Klein as
if Klein had made the call. Knows no route.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote_to_bytes

from klein import Klein
from klein.resource import KleinResource
from twisted.internet.defer import fail
from typing_extensions import override
from werkzeug.exceptions import BadRequest, HTTPException, MethodNotAllowed, NotFound

from heartbeat_service.core.errors import BadMessage
from heartbeat_service.web.names import is_preflight
from heartbeat_service.web.problem import Problem, write_problem

#: What a path has no segment of: it would be another spelling of a shorter path.
_NO_SEGMENTS = frozenset((b"", b".", b".."))

#: How many Hosts are remembered that Klein could bind its map to.
MOST_HOSTS = 64


class HeartbeatKlein(Klein):
    """Klein, which takes what an endpoint has answered already."""

    @override
    def execute_endpoint(
        self, endpoint: str, request: Any, *args: Any, **path: Any
    ) -> Any:
        outcome = getattr(request, "outcome", None)
        if outcome is None:
            return super().execute_endpoint(endpoint, request, *args, **path)
        return outcome


class HeartbeatResource(KleinResource):
    """The app's resource, which also answers what Klein can't route at all.

    :param at_once: the endpoints that most often answer at once, by method and path.
    :param refused: is told of each Host that makes no sense.
    """

    def __init__(
        self,
        app: Klein,
        at_once: Mapping[tuple[bytes, bytes], Callable[[Any], Any]],
        refused: Callable[[Problem], object],
    ) -> None:
        super().__init__(app)
        self._endpoints = at_once
        self._refused = refused
        self._hosts: set[bytes | None] = set()

    def at_once(self, request: Any) -> bytes | None:
        """Call the endpoint, if it most often answers at once; what it answers.

        Of whatever else comes of it, :meth:`render` has Klein make an answer.
        """
        endpoint = self._endpoints.get((request.method, request.path))
        if endpoint is None or request.getHeader(b"host") not in self._hosts:
            return None
        try:
            answer = endpoint(request)
        except Exception:  # noqa: BLE001 - Klein has handlers for each
            answer = fail()
        if isinstance(answer, bytes):
            return answer
        request.outcome = answer
        return None

    @override
    def render(self, request: Any) -> Any:
        if is_preflight(request.method, request.requestHeaders):
            request.setResponseCode(HTTPStatus.NO_CONTENT)
            return b""
        if getattr(request, "outcome", None) is None:
            answer = self.at_once(request)
            if answer is not None:
                return answer
        return self._leave_to_klein(request)

    def _leave_to_klein(self, request: Any) -> Any:
        segments = request.path[1:].split(b"/")
        request.prepath, request.postpath = [], list(map(unquote_to_bytes, segments))
        try:
            request.getRequestHostname().decode("utf-8")
            answer = super().render(request)
        except (UnicodeDecodeError, HTTPException):
            problem = problem_of_routing(BadRequest("The Host makes no sense"))
            self._refused(problem)
            return write_problem(request, problem)
        if len(self._hosts) >= MOST_HOSTS:
            self._hosts.clear()
        self._hosts.add(request.getHeader(b"host"))
        return answer


def read_path(path: bytes) -> str:
    """The path that a target means; there is one spelling (contract, section 3).

    What is percent-encoded is decoded, but nothing becomes a part of the path by that,
    and no part is taken away.

    :raises NotFound: if it would.
    :raises BadRequest: if it is not UTF-8.
    """
    start, *segments = unquote_to_bytes(path).split(b"/")
    if (
        start
        or len(segments) != path.count(b"/")
        or not _NO_SEGMENTS.isdisjoint(segments if path != b"/" else ())
    ):
        raise NotFound
    try:
        return b"/".join((start, *segments)).decode("utf-8")
    except UnicodeDecodeError:
        raise BadRequest("The path is not UTF-8") from None


def problem_of_routing(error: HTTPException) -> Problem:
    """What is told of a request that no route is found for."""
    status = HTTPStatus(error.code or HTTPStatus.BAD_REQUEST)
    if isinstance(error, MethodNotAllowed):
        allow = ", ".join(sorted(error.valid_methods or ()))
        return Problem(status, BadMessage.code, f"Allowed here: {allow}", allow=allow)
    if isinstance(error, NotFound) and error.description == NotFound.description:
        return Problem(status, BadMessage.code, "Not Found: no such path")
    return Problem(status, BadMessage.code, error.description or status.phrase)
