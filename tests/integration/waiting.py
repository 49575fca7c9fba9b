"""Waiting for what must come, as long as a slow machine may take."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

T = TypeVar("T")

#: Twisted types its reactor as a module.
reactor: Any = global_reactor

#: How long a test waits for what must come, in seconds: generous, since slow
#: machines are no defect.
PATIENCE = 30.0

#: How long a test listens for what must not come, in seconds, where no later
#: event tells that it would have come by now.
SILENCE = 0.3


async def patiently(waiting: Deferred[T]) -> T:
    """The result of ``waiting``, which must come within PATIENCE."""
    return await waiting.addTimeout(PATIENCE, reactor)


async def pause(seconds: float) -> None:
    """Let time pass, where it is what is tested, or to see that nothing more comes."""
    await deferLater(reactor, seconds)


async def until(
    holds: Callable[[], bool | Awaitable[bool]], bound: float = PATIENCE
) -> float:
    """Ask again and again, for what tells of itself in no other way.

    :return: how long it took, in seconds.
    """
    began = reactor.seconds()
    while True:
        held = holds()
        if held if isinstance(held, bool) else await held:
            return float(reactor.seconds() - began)
        assert reactor.seconds() < began + bound, f"it never came true in {bound} s"
        await pause(0.01)
