"""The errors of the contract (section 1), as exceptions.

Whoever finds a rule broken raises one of these; each transport formats them in
one place. They know nothing of HTTP or ZeroMQ.
"""

from __future__ import annotations

from typing import ClassVar


class HeartbeatError(Exception):
    """A request that the contract answers with an ``Error``.

    :ivar code: the contract's name for it.
    :ivar detail: a sentence for people.
    :ivar client_id: the client it is about, where that is known.
    :cvar retry_after_seconds: when the same request may be tried again; None where
        that is no use.
    """

    code: ClassVar[str]
    retry_after_seconds: ClassVar[int | None] = None

    def __init__(self, detail: str, client_id: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.client_id = client_id


class BadMessage(HeartbeatError):
    """Not JSON, not a message, or a field that is missing or ill-typed."""

    code = "BAD_MESSAGE"


class UnknownClient(HeartbeatError):
    """No such client lives here."""

    code = "UNKNOWN_CLIENT"


class IllegalTransition(HeartbeatError):
    """A change of state that the table of transitions does not hold."""

    code = "ILLEGAL_TRANSITION"


class StaleIncarnation(HeartbeatError):
    """A message meant for a former life of the client."""

    code = "STALE_INCARNATION"


class StaleSequence(HeartbeatError):
    """A message that was decided on a state which the client has left since."""

    code = "STALE_SEQUENCE"


class InstanceSuperseded(HeartbeatError):
    """A message from a process whose client ID another process has taken over."""

    code = "INSTANCE_SUPERSEDED"


class Unauthorized(HeartbeatError):
    """A request without the token that it needs."""

    code = "UNAUTHORIZED"


class Forbidden(HeartbeatError):
    """A request that a page of another site has sent, or may have sent."""

    code = "FORBIDDEN"


class Overloaded(HeartbeatError):
    """The service can't answer now; the same request may succeed later."""

    code = "OVERLOADED"
    retry_after_seconds = 1


class LockedOut(HeartbeatError):
    """A heartbeat of a client that an operator keeps out."""

    code = "LOCKED_OUT"


class TooLarge(HeartbeatError):
    """A message over the size limit."""

    code = "TOO_LARGE"
