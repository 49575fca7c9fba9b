"""Tells systemd that the service is ready, well, or stopping: sd_notify(3).

Does nothing where no supervisor asks to be told. Knows nothing of what it tells of.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Awaitable, Callable, Mapping

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

_MICROSECONDS = re.compile(r"[0-9]{1,20}")  # up to 2**64, as sd_watchdog_enabled(3)


class Supervisor:
    """The one who started this process, if it wants to be told.

    :param environment: names its socket, and how long the watchdog waits. What makes
        no sense there is told in the log, and then the watchdog isn't fed.
    :param trouble: finds out what is wrong; None if nothing is. While something
        is, the watchdog isn't fed.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        environment: Mapping[str, str],
        trouble: Callable[[], Awaitable[str | None]],
    ) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")
        self._trouble = trouble
        self._feeding = LoopingCall(self._feed)
        self._feeding.clock = clock
        self._interval = self._watchdog_seconds(environment) / 2

    def ready(self) -> None:
        """The service serves; from now on the watchdog is fed."""
        self._notify("READY=1")
        if self._address and self._interval > 0:
            self._feeding.start(self._interval).addErrback(
                lambda failure: self._log.failure("The watchdog starves", failure)
            )

    def stopping(self) -> None:
        """The service has begun to stop, which may take a while."""
        if self._feeding.running:
            self._feeding.stop()
        self._notify("STOPPING=1")

    def _feed(self) -> Deferred[None]:
        async def feed() -> None:
            if await self._trouble() is None:
                self._notify("WATCHDOG=1")

        return Deferred.fromCoroutine(feed())

    def _notify(self, state: str) -> None:
        address = self._address
        if not address:
            return
        if address.startswith("@"):  # one of Linux's abstract names
            address = "\0" + address[1:]
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sending:
                sending.setblocking(False)
                sending.sendto(state.encode(), address)
        except OSError as error:
            self._log.warn(
                "can't tell the supervisor {state}: {error}",
                state=state,
                error=str(error),
            )

    def _watchdog_seconds(self, environment: Mapping[str, str]) -> float:
        """How long the watchdog waits; 0 if there is none for this process."""
        if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
            return 0.0
        microseconds = environment.get("WATCHDOG_USEC") or "0"
        if _MICROSECONDS.fullmatch(microseconds):
            return int(microseconds) / 1_000_000
        self._log.warn(
            "the watchdog isn't fed: WATCHDOG_USEC={microseconds} is no number of"
            " microseconds",
            microseconds=ascii(microseconds[:100]),
        )
        return 0.0
