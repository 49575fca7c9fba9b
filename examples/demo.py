"""A service with three simulated game clients, so that one sees life at once.

Four real processes: the service as twistd runs it, and three game clients. An
operator calibrates and starts them, kicks one, and pulls the plug of another,
over and over, until Ctrl-C. Arguments go to the service.
"""

from __future__ import annotations

import re
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import treq
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import deferLater, react
from twisted.python.failure import Failure
from typing_extensions import override

BIN = Path(sys.executable).parent
SERVICE = [
    str(BIN / "twistd"), "-n", "--pidfile=",
    "heartbeat", "--timebomb", "3", "--interval", "0.5", "--store", "memory:",
]  # fmt: skip
GAME_CLIENT = [sys.executable, "-m", "heartbeat_service.game_client"]
READY = re.compile(rb"heartbeat service ready http=([^\s,]+)")
#: Seconds between two acts of the operator.
STEP = 4.0


class Process(ProcessProtocol):
    """A child process whose every line is shown, behind its name."""

    def __init__(self, reactor: Any, name: str, command: list[str]) -> None:
        self.host: Deferred[bytes | None] = Deferred()
        self.ended: Deferred[None] = Deferred()
        self._name = name
        self._rest = b""
        # A session of its own: Ctrl-C is the demo's, which ends its children.
        reactor.spawnProcess(self, "setsid", ["setsid", *command], env=None)

    @override
    def outReceived(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            show(self._name, line.decode(errors="replace"))
            if match := READY.search(line):
                self.host.callback(match[1])

    @override
    def errReceived(self, data: bytes) -> None:
        self.outReceived(data)

    @override
    def processEnded(self, reason: Failure) -> None:
        show(self._name, reason.getErrorMessage())
        if not self.host.called:
            self.host.callback(None)
        self.ended.callback(None)

    def signal(self, name: str) -> Deferred[None]:
        """Send a signal; fires once the process has ended."""
        with suppress(ProcessExitedAlready):
            assert self.transport is not None
            self.transport.signalProcess(name)
        return self.ended


class Demo:
    """The play, its players and its operator."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._service = Process(reactor, "service", [*SERVICE, *sys.argv[1:]])
        self._clients: dict[str, Process] = {}
        self._server = ""
        reactor.addSystemEventTrigger("before", "shutdown", self._end)

    async def play(self) -> None:
        """Go on until somebody stops it."""
        host = await self._service.host
        if host is None:
            raise SystemExit("The service did not start")
        self._server = f"http://{host.decode()}"
        for number in (1, 2, 3):
            self._join(f"headset-{number}")
        while True:
            await self._act("PUT", "/clients/state", '{"clientState": "CALIBRATED"}')
            await self._act("PUT", "/clients/state", '{"clientState": "RUNNING"}')
            await self._act("DELETE", "/clients/headset-2")
            await self._pause()
            show("operator", "pulls the plug of headset-3: its timebomb burns")
            await self._clients["headset-3"].signal("KILL")
            await self._pause()
            self._join("headset-3")

    def _join(self, client_id: str) -> None:
        command = [*GAME_CLIENT, "--id", client_id, "--server", self._server]
        self._clients[client_id] = Process(self._reactor, client_id, command)

    async def _act(self, method: str, path: str, body: str = "") -> None:
        await self._pause()
        response = await treq.request(
            method, f"{self._server}{path}", data=body.encode()
        )
        await response.content()
        show("operator", f"{method} {path} {body} -> {response.code}")

    async def _pause(self) -> None:
        await deferLater(self._reactor, STEP)

    def _end(self) -> Deferred[Any]:
        goodbyes = [client.signal("TERM") for client in self._clients.values()]
        return gatherResults(goodbyes).addCallback(
            lambda _: self._service.signal("TERM")
        )


def show(who: str, what: str) -> None:
    """Print a line of the play."""
    print(f"{who:>9} | {what}", flush=True)


if __name__ == "__main__":
    react(lambda reactor: Deferred.fromCoroutine(Demo(reactor).play()))
