"""Real processes for tests: what they print, how they end."""

from __future__ import annotations

import os
import re
import secrets
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeoutError
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from tests.integration.waiting import PATIENCE, patiently, reactor

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
LOOPBACK = (
    *("--http", "tcp:0:interface=127.0.0.1"),
    *("--router", "tcp://127.0.0.1:0", "--pub", "tcp://127.0.0.1:*"),
)
READY = (
    r"heartbeat service ready http=(127\.0\.0\.1:\d+) "
    r"router=(tcp://127\.0\.0\.1:\d+) pub=(tcp://127\.0\.0\.1:\d+)$"
)


class Process(ProcessProtocol):
    """A child process.

    :ivar output: all that it has printed, on either stream.
    :ivar status: its exit status, or minus the signal that ended it.
    """

    def __init__(self, *command: str | Path, folder: Path, **environment: str) -> None:
        self.output = ""
        self.status: int | None = None
        self.pid: int = 0
        self._waiting: list[tuple[re.Pattern[str], int, Deferred[re.Match[str]]]] = []
        self._ended: list[Deferred[int]] = []
        reactor.spawnProcess(
            self,
            "setpriv",
            # It must not outlive a test run that is killed.
            ["setpriv", "--pdeathsig", "TERM", *(str(word) for word in command)],
            env={**os.environ, **environment},
            path=str(folder),
        )

    def connectionMade(self) -> None:
        """It runs."""
        process: Any = self.transport
        self.pid = process.pid

    def outReceived(self, data: bytes) -> None:
        """It prints."""
        self.output += data.decode(errors="replace")
        self._look()

    errReceived = outReceived

    def processEnded(self, reason: Failure) -> None:
        """It is gone, and so is what it printed."""
        value: Any = reason.value
        self.status = value.exitCode if value.signal is None else -value.signal
        for waiting in self._ended:
            waiting.callback(self.status)
        for pattern, _, found in self._waiting:
            found.errback(AssertionError(f"No {pattern.pattern!r} in:\n{self.output}"))

    async def says(self, pattern: str, after: int = 0) -> re.Match[str]:
        """The first match of ``pattern`` at or after that place of the output."""
        found: Deferred[re.Match[str]] = Deferred()
        self._waiting.append((re.compile(pattern, re.MULTILINE), after, found))
        self._look()
        try:
            match: re.Match[str] = await patiently(found)
        except DeferredTimeoutError:
            raise AssertionError(
                f"No {pattern!r} in {PATIENCE} s:\n{self.output}"
            ) from None
        return match

    async def ends(self, signal: str | None = None) -> int:
        """Its exit status, once it has ended; with ``signal``, of it."""
        if signal is not None:
            with suppress(ProcessExitedAlready):
                process: Any = self.transport
                process.signalProcess(signal)
        if self.status is None:
            ended: Deferred[int] = Deferred()
            self._ended.append(ended)
            await patiently(ended)
        assert self.status is not None
        return self.status

    def _look(self) -> None:
        for waiting in list(self._waiting):
            pattern, after, found = waiting
            complete = self.output[: self.output.rfind("\n") + 1]
            match = pattern.search(complete, after)
            if match:
                self._waiting.remove(waiting)
                found.callback(match)


#: Starts a process, which is ended after the test.
Spawn = Callable[..., Process]


def free_ports(count: int) -> list[int]:
    """Free ports of 127.0.0.1 for a service that comes back to the same ones.

    Below those that the system hands out by itself, so that nobody else gets them
    while the service is away.
    """
    free: list[int] = []
    with ExitStack() as stack:
        while len(free) < count:
            each = stack.enter_context(socket.socket())
            with suppress(OSError):
                each.bind(("127.0.0.1", 15_000 + secrets.randbelow(15_000)))
                free.append(each.getsockname()[1])
    return free
