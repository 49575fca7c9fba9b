"""Lets a reactor's timers run by the clock that only goes forward.

Twisted's reactors count by the wall clock: when somebody sets it, timers fall due
at once, or not for hours. Liveness must not depend on it (contract, section 1).
Knows nothing of heartbeats.
"""

from __future__ import annotations

import time
from typing import Any


def use_monotonic_time(reactor: Any) -> None:
    """Make ``reactor.seconds`` monotonic; calls that wait already keep their delay.

    For a program, at its start; not for a library in somebody else's reactor.
    """
    waiting = [(call, call.getTime()) for call in reactor.getDelayedCalls()]
    before = reactor.seconds()
    reactor.seconds = time.monotonic
    for call, due in waiting:
        call.seconds = time.monotonic
        call.reset(max(0.0, due - before))
