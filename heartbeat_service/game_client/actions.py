"""What a session has its driver do, and what it tells the game.

The server may be hostile, so its words are printable in whatever the game is told.
"""

from __future__ import annotations

from attrs import field, frozen

from heartbeat_service.core.states import ClientState
from heartbeat_service.protocol.messages import HeartbeatMessage, Request

#: The most of a server's words that anyone is shown, in characters.
LONGEST_TEXT = 300


def printable(text: str) -> str:
    """A server's words for a terminal or a log: one line, not too long.

    What isn't visible is escaped: control characters, line ends, marks that turn
    the direction of a text.
    """
    short = text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]} …"
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode("ascii")
        for one in short
    )


@frozen
class SendHeartbeat:
    """POST this; then tell the session how it went, before the next."""

    message: HeartbeatMessage


@frozen
class BeatAfter:
    """Call :meth:`Session.beat` that many seconds after the last beat was sent.

    What was said before is off.
    """

    seconds: float


@frozen
class OpenSockets:
    """Close the ZeroMQ sockets, if any; connect to these, subscribed to the client."""

    request_endpoint: str
    state_change_endpoint: str


@frozen
class SendRequest:
    """Send this to the request endpoint.

    :ivar request_id: goes with it, and comes back with its answer.
    """

    message: Request
    request_id: str = field(default="", eq=False)


@frozen
class AskAgainAfter:
    """Call :meth:`Session.ask_again` in so many seconds, and not as said before."""

    seconds: float


@frozen
class StateChanged:
    """The client is in this state now: tell the game."""

    state: ClientState
    incarnation: int
    sequence: int


@frozen
class Refused:
    """The server said no to something, or will: tell the game.

    Beats that are refused with one code in a row are told once. ``STALE_SEQUENCE`` and
    ``STALE_INCARNATION`` say that the state which the game decided on is no more.
    """

    code: str = field(converter=printable)
    detail: str = field(converter=printable)


@frozen
class ServerLost:
    """No beat gets through any more: tell the game."""

    detail: str = field(converter=printable)


@frozen
class ZmqLost:
    """Beats get through, but ZeroMQ doesn't, and that lasts: tell the game.

    It follows its state by its beats' replies, and can't report any.
    """

    detail: str = field(converter=printable)


@frozen
class ZmqBack:
    """After :class:`ZmqLost`: ZeroMQ gets through again."""


@frozen
class Superseded:
    """Another process is this client now: stop, for good."""

    detail: str = field(converter=printable)


#: What the game is told.
Event = StateChanged | Refused | ServerLost | ZmqLost | ZmqBack | Superseded

Action = SendHeartbeat | BeatAfter | OpenSockets | SendRequest | AskAgainAfter | Event
