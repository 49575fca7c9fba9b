"""The two ports through which the core meets time: ``Clock`` and ``Timer``.

A reactor, ``task.Clock`` and :class:`ListeningClock` are clocks; a ``DelayedCall`` is a
timer. Nothing of the core asks the machine how late it is. Knows no clients.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol


class Timer(Protocol):
    """What the core needs of a Twisted ``DelayedCall``."""

    def reset(self, seconds: float, /) -> None:
        """Fall due that many seconds from now."""

    def delay(self, seconds: float, /) -> None:
        """Fall due that many seconds later than it would."""

    def cancel(self) -> None:
        """Never fall due."""

    def getTime(self) -> float:
        """When it falls due, on the clock's scale."""

    def active(self) -> bool:
        """Whether it is still to come."""


class Clock(Protocol):
    """What the core needs of a reactor: ``task.Clock`` and any reactor have it."""

    def seconds(self) -> float:
        """How late it is; only ever goes forward."""

    def callLater(
        self, delay: float, what: Callable[..., Any], /, *args: object
    ) -> Timer:
        """Call ``what`` in ``delay`` seconds."""
