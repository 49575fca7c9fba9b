"""What a game client is handed: a clock, two transports and a log.

Twisted's are in ``driver.py`` and ``post.py``, asyncio's in ``asyncio_driver.py`` and
``asyncio_transports.py``; a game may hand its own. All calls are made in one thread.
Knows no library of sockets, and nothing of what a message says.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol


class Timer(Protocol):
    """Something that is to be called later."""

    def cancel(self) -> None:
        """Never call it."""


class Clock(Protocol):
    """Any reactor, ``task.Clock``, or asyncio's loop behind a few lines."""

    def seconds(self) -> float:
        """How late it is; only ever goes forward."""

    def callLater(
        self, delay: float, what: Callable[..., Any], /, *args: object
    ) -> Timer:
        """Call ``what`` in ``delay`` seconds."""


class Beats(Protocol):
    """The way to ``POST /heartbeat``."""

    def post(
        self,
        body: bytes,
        patience: float,
        answered: Callable[[int, bytes], None],
        failed: Callable[[str], None],
    ) -> None:
        """POST it, and call one of the two, once; not before this returns.

        :param patience: seconds; an answer that isn't complete by then has failed.
        :param answered: called with the answer's status and body.
        :param failed: called with the reason, in words for people.
        """

    def close(self, closed: Callable[[], None]) -> None:
        """Cut what is under way, and call ``closed`` once nothing is open any more.

        Afterwards nothing else is called.
        """


class Listener(Protocol):
    """Hears what becomes of a :class:`Wire`."""

    def received(self, message: bytes) -> None:
        """A reply or a publication came in: its last frame."""

    def connected(self) -> None:
        """Both sockets have shaken hands with the server."""

    def disconnected(self, trouble: str) -> None:
        """One of them has lost the server, or can't reach it; it tries again."""


class Wire(Protocol):
    """The two ZeroMQ sockets: requests and their replies, and publications."""

    def open(
        self,
        request_endpoint: str,
        state_change_endpoint: str,
        topic: bytes,
        listener: Listener,
    ) -> None:
        """Connect to these, and to none of before; subscribed to the topic.

        :raises OSError: if there is no socket to be had; all are closed then.
        """

    def send(self, message: bytes) -> None:
        """Send a request, if there is room for it; else drop it."""

    def close(self, closed: Callable[[], None]) -> None:
        """Close them, and call ``closed`` once that is done. Each may be opened anew.

        Afterwards nothing else is called.
        """


class Log(Protocol):
    """Where it is told what the game's people should know."""

    def warn(self, text: str) -> None:
        """Something is odd."""

    def failed(self, text: str, error: Exception) -> None:
        """Something has failed that should not; it goes on."""
