"""The service as a child process, to be hurt; and the rows of the table of faults."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import treq
from attrs import define, field

from tests.faults.herd import Herd
from tests.integration.conftest import Answer
from tests.integration.processes import Process
from tests.integration.waiting import PATIENCE, patiently, pause, until
from tests.messages import heartbeat

#: The long form, unless the short one was asked for.
LONG = os.environ.get("FAULTS") != "short"

READY = r"heartbeat service ready http=(\S+) router=(\S+) pub=(\S+)$"


def either(short: int, long: int) -> int:
    """The one for the form that was asked for."""
    return long if LONG else short


@define
class Row:
    """One row of the table.

    :ivar fault: what was done to the service.
    :ivar tried: how often, and to how many.
    :ivar recovered: seconds until all was well again; None where nothing stopped.
    :ivar note: what else was measured, or why there is nothing to show.
    """

    fault: str
    tried: str = ""
    lost: int | None = None
    wrongly_dead: int | None = None
    recovered: float | None = None
    note: str = ""

    def judge(self, *herds: Herd) -> None:
        """Enter what the herds have seen; nothing may be lost, nobody dead."""
        self.lost = sum(len(herd.lost) for herd in herds)
        self.wrongly_dead = sum(len(herd.wrongly_dead) for herd in herds)
        late = sum(len(herd.late) for herd in herds)
        if late:
            self.note += f"; {late} died as the test itself was late with their beats"
        for herd in herds:
            assert not herd.lost, f"lost: {sorted(herd.lost)[:10]}"
            assert not herd.wrongly_dead, f"dead: {sorted(herd.wrongly_dead)[:10]}"
            assert not herd.surprises, f"surprises: {herd.surprises[:10]}"

    def slower(self, seconds: float) -> None:
        """It has recovered after so long; the slowest recovery counts."""
        self.recovered = max(self.recovered or 0.0, seconds)


def memory(process: Process) -> int:
    """The most memory that a process has ever had, in MiB."""
    status = Path(f"/proc/{process.pid}/status").read_text("ascii")
    (line,) = (one for one in status.splitlines() if one.startswith("VmHWM:"))
    return int(line.split()[1]) // 1024


@define
class Service:
    """``twistd -n heartbeat``, as often as it is started.

    :param spawn: starts a process.
    :ivar process: the one that runs, or ran last.
    """

    spawn: Callable[..., Process]
    command: tuple[str | Path, ...]
    process: Process = field(init=False)
    http: str = ""
    router: str = ""
    pub: str = ""
    _herds: list[Herd] = field(factory=list)

    async def start(self) -> None:
        """Start it, and wait until it listens."""
        self.process = self.spawn(*self.command)
        ready = await self.process.says(READY)
        self.http, self.router, self.pub = ready.groups()

    async def kill(self) -> None:
        """End it at once, without a last word."""
        assert await self.process.ends("KILL") == -signal.SIGKILL

    def signal(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self.process.pid, number)

    def herd(self, count: int, **how: Any) -> Herd:
        """A herd of clients of this service, that do nothing yet."""
        where = {"http": self.http, "router": self.router, "pub": self.pub}
        herd = Herd(count, **{**where, **how})
        self._herds.append(herd)
        return herd

    async def joined(self, herd: Herd, within: float = 0.5) -> None:
        """Let a herd begin; wait until all are registered, and its ear hears."""
        herd.start(within)
        await herd.all_answered(2 * PATIENCE)
        deadline = time.monotonic() + PATIENCE
        while not herd.heard["probe"]:
            await self.beat("probe")
            await self.ask("DELETE", "/clients/probe")
            await pause(0.05)
            assert time.monotonic() < deadline, "it hears no publication"

    async def ask(self, method: str, path: str, body: bytes | None = None) -> Answer:
        """One request over a connection of its own."""
        response = await patiently(
            treq.request(
                method, f"http://{self.http}{path}", data=body, persistent=False
            )
        )
        content = await patiently(response.content())
        headers = {
            name.decode().lower(): values[0].decode()
            for name, values in response.headers.getAllRawHeaders()
        }
        return Answer(response.code, headers, content)

    async def beat(self, client_id: str, **more: Any) -> Answer:
        """POST a heartbeat."""
        state = more.pop("clientState", "DISCONNECTED")
        return await self.ask("POST", "/heartbeat", heartbeat(client_id, state, **more))

    async def steer(self, client_id: str, state: str) -> Answer:
        """Set a client's state."""
        order = json.dumps({"clientState": state}).encode()
        return await self.ask("PUT", f"/clients/{client_id}/state", order)

    async def control(self, herd: Herd, *client_ids: str, **more: Any) -> float:
        """Register clients that will never beat again; when the last one did."""
        for client_id in client_ids:
            herd.deaths.pop(client_id, None)
            assert (await self.beat(client_id, **more)).status == 200
        return time.monotonic()

    async def compare(self, herd: Herd) -> None:
        """Have a herd that rests look whether the service shows what it was told."""
        answer = await self.ask("GET", "/clients")
        assert answer.status == 200
        herd.compare(answer.json()["clients"])

    def memory(self) -> int:
        """The most memory that it has ever had, in MiB."""
        return memory(self.process)

    def assert_unharmed(self) -> None:
        """It runs, and nothing went wrong in it that nobody thought of."""
        assert self.process.status is None, f"it died: {self.process.output[-5000:]}"
        assert "Traceback" not in self.process.output, self.process.output[-5000:]

    async def end(self) -> None:
        """Stop the herds and the service, whatever state it is in."""
        for herd in self._herds:
            herd.stop()
        process = self.process
        if process.status is None:
            with suppress(ProcessLookupError):
                self.signal(signal.SIGCONT)
            await process.ends("TERM")


async def death_of(herd: Herd, *client_ids: str, bound: float = PATIENCE) -> float:
    """Wait until all of these have died by timebomb; when the last one did."""
    await until(lambda: herd.deaths.keys() >= set(client_ids), bound)
    return max(herd.deaths[client_id] for client_id in client_ids)
