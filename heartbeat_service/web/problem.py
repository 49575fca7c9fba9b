"""Errors as HTTP tells them: ``application/problem+json`` (RFC 9457).

The one place where an error gets its status. ``type`` is ``about:blank``, so
``title`` is the status's own phrase; ``code`` is the contract's.
"""

from __future__ import annotations

from http import HTTPStatus

from attrs import frozen
from msgspec import UNSET, UnsetType
from twisted.web.iweb import IRequest

from heartbeat_service.core.errors import HeartbeatError, Overloaded
from heartbeat_service.protocol.codec import encode_json
from heartbeat_service.protocol.messages import Body, Code

#: What errors are sent as.
MEDIA_TYPE = "application/problem+json"

#: The status of each of the contract's codes.
STATUS = {
    "BAD_MESSAGE": HTTPStatus.BAD_REQUEST,
    "UNKNOWN_CLIENT": HTTPStatus.NOT_FOUND,
    "ILLEGAL_TRANSITION": HTTPStatus.CONFLICT,
    "STALE_INCARNATION": HTTPStatus.CONFLICT,
    "STALE_SEQUENCE": HTTPStatus.CONFLICT,
    "INSTANCE_SUPERSEDED": HTTPStatus.CONFLICT,
    "UNAUTHORIZED": HTTPStatus.UNAUTHORIZED,
    "LOCKED_OUT": HTTPStatus.FORBIDDEN,
    "FORBIDDEN": HTTPStatus.FORBIDDEN,
    "TOO_LARGE": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "OVERLOADED": HTTPStatus.SERVICE_UNAVAILABLE,
}


class ProblemRecord(Body, frozen=True):
    """What is told of an error: RFC 9457, and the contract's own fields.

    :ivar title: the status in words.
    :ivar detail: a sentence for people.
    :ivar client_id: the client that it is about, where that is known.
    :ivar retry_after_seconds: when the same request may be tried again.
    :ivar request_id: of the message that is answered with it.
    """

    type: str
    title: str
    status: int
    detail: str
    code: Code
    client_id: str | UnsetType = UNSET
    retry_after_seconds: float | UnsetType = UNSET
    request_id: str | UnsetType = UNSET


@frozen
class Problem:
    """An error, ready to be written as a response."""

    status: HTTPStatus
    code: str
    detail: str
    client_id: str | None = None
    allow: str | None = None
    retry_after_seconds: int | None = None
    request_id: str | None = None

    @classmethod
    def of(cls, error: HeartbeatError, request_id: str | None = None) -> Problem:
        """The problem that a broken rule of the contract is.

        :param request_id: of the message that is answered with it.
        """
        return cls(
            status=STATUS[error.code],
            code=error.code,
            detail=error.detail,
            client_id=error.client_id,
            retry_after_seconds=error.retry_after_seconds,
            request_id=request_id,
        )

    def headers(self) -> dict[str, str]:
        """What goes with it, but for its length."""
        headers = {"Content-Type": MEDIA_TYPE}
        if self.allow is not None:
            headers["Allow"] = self.allow
        if self.status is HTTPStatus.UNAUTHORIZED:
            headers["WWW-Authenticate"] = "Bearer"
        if self.retry_after_seconds is not None:
            headers["Retry-After"] = str(self.retry_after_seconds)
        return headers

    def body(self) -> bytes:
        """Its JSON."""
        wait, request_id = self.retry_after_seconds, self.request_id
        return encode_json(
            ProblemRecord(
                type="about:blank",
                title=self.status.phrase,
                status=self.status.value,
                detail=self.detail,
                code=self.code,
                client_id=UNSET if self.client_id is None else self.client_id,
                retry_after_seconds=UNSET if wait is None else wait,
                request_id=UNSET if request_id is None else request_id,
            )
        )


def unavailable(detail: str, request_id: str | None = None) -> Problem:
    """The problem of a service that can't answer now."""
    return Problem.of(Overloaded(detail), request_id)


def write_problem(request: IRequest, problem: Problem) -> bytes:
    """Set the response up for ``problem``, and return its body."""
    request.setResponseCode(problem.status)
    body = problem.body()
    request.setHeader(b"Content-Length", b"%d" % len(body))
    for name, value in problem.headers().items():
        request.setHeader(name, value)
    return body
