"""Tells operators in the log what requests were refused: by the contract's codes.

Whoever is refused knows it; whoever runs the service finds out here that its limits
are too low, that a client has no token, or that a stranger tries his luck. The same for
every transport. Knows no transport, and keeps one number a code.
"""

from __future__ import annotations

from collections import Counter
from typing import Protocol

from twisted.logger import Logger

from heartbeat_service.core.tally import is_time_to_tell

#: What somebody who runs the service can do something about. The others are part of
#: a client's ordinary life, or of a race with an operator.
TOLD = frozenset(
    {
        "BAD_MESSAGE",
        "FORBIDDEN",
        "INSTANCE_SUPERSEDED",
        "LOCKED_OUT",
        "OVERLOADED",
        "TOO_LARGE",
        "UNAUTHORIZED",
    }
)

#: How much of the reason is told, in characters; a client's ID has 64 at the most.
LONGEST_REASON = 200


class Refusal(Protocol):
    """An error of the contract: an exception, or what a transport makes of it."""

    @property
    def code(self) -> str:
        """The contract's name for it."""

    @property
    def detail(self) -> str:
        """Why; may hold what a stranger has sent."""

    @property
    def client_id(self) -> str | None:
        """Who was refused, where that is known."""


class RefusedRequests:
    """Counts refused requests, and tells of the first and of each doubling.

    :ivar counts: how many there were, by code; also of those that it doesn't tell of.
    """

    _log = Logger()

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def add(self, refusal: Refusal) -> None:
        """One more request was refused."""
        code = refusal.code
        self.counts[code] += 1
        if code not in TOLD or not is_time_to_tell(self.counts[code]):
            return
        self._log.warn(
            "requests refused with {code} so far: {count}; now of {client}: {reason}",
            code=code,
            count=self.counts[code],
            client=_printable(refusal.client_id or "somebody without an ID"),
            reason=_printable(refusal.detail[:LONGEST_REASON]),
        )


def _printable(text: str) -> str:
    """The same in ASCII, with nothing in it that a terminal obeys."""
    return ascii(text)[1:-1]
