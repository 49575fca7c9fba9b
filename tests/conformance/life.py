"""A client program that lives at a server, and what a case asks of the two."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from attrs import define, field

from tests.conformance.clients import Change, Client, Program, changes
from tests.conformance.scripted import CLIENT, FUSE, Request, ScriptedServer, sanely
from tests.integration.conftest import Running, start_service
from tests.integration.waiting import pause, reactor, until

#: How long a case waits for what a client must do, in seconds.
BOUND = 15.0

#: What the scripted server's clients show it.
TOKEN = "an-open-sesame-of-this-test"  # noqa: S105 - of these tests only

#: How much later than it should something may come on a busy machine, in seconds.
SLACK = 2.0

#: How much sooner it may seem to come: timers are no better, nor are clocks.
JITTER = 0.03

#: What the real service tells its client, in seconds.
SERVICE_INTERVAL = 0.1
SERVICE_FUSE = 1.2


def gap(former: Request, later: Request) -> float:
    """Seconds between two requests, at least as many as there were for their sender.

    A busy machine may be late to write one down, or to read it; hardly both.
    """
    return max(later.sent - former.sent, later.at - former.at) + JITTER


@define(eq=False)
class Guest:
    """A program, and what it prints.

    A case may find it in the midst of its life: each begins with a mark, and asks for
    what it has printed since then.
    """

    client: Client
    program: Program
    _printed: int = field(default=0, init=False)
    _told: int = field(default=0, init=False)

    @property
    def changes(self) -> list[Change]:
        """All that it has printed."""
        return changes(self.program)

    @property
    def news(self) -> list[Change]:
        """What it has printed in this case."""
        return self.changes[self._printed :]

    @property
    def complaints(self) -> list[str]:
        """What it has told on standard error in this case."""
        return re.findall(rf"(?m)^{CLIENT}: (.*)$", self.program.output[self._told :])

    def mark(self) -> None:
        """Be asked of what it prints from now on."""
        self._printed, self._told = len(self.changes), len(self.program.output)

    async def complains(self, words: str) -> None:
        """Wait for words on its standard error."""

        def heard() -> bool:
            assert self.program.status is None, self.program.output
            return any(words in line for line in self.complaints)

        await until(heard, BOUND)

    async def end(self) -> None:
        """Have it gone."""
        if self.program.status is None:
            await self.program.ends("KILL")


@define(eq=False)
class Life(Guest):
    """A client at a scripted server."""

    server: ScriptedServer

    @classmethod
    def begin(cls, client: Client, folder: Path, server: ScriptedServer) -> Life:
        """Start the program; the server needn't listen yet."""
        token = folder / "token"
        token.write_text(f"{TOKEN}\n")
        token.chmod(0o600)
        options = ("--id", CLIENT, "--server", server.url, "--token-file", token)
        return cls(client, client.start(folder, *options), server)

    @property
    def now(self) -> Change:
        """What the server knows of its client."""
        life = self.server.life
        return Change(life["clientState"], life["incarnation"], life["sequence"])

    async def agrees(self) -> None:
        """Wait until the last that it has printed is what the server knows."""

        def has_heard() -> bool:
            assert self.program.status is None, self.program.output
            return self.changes[-1:] == [self.now]

        await until(has_heard, BOUND)

    async def is_well(self) -> None:
        """Wait until it follows a sane server: by beats, and by what is published."""
        self.server.be_sane()
        await self.beats(2)  # it has read the sane answer when the second comes
        await until(self._hears, BOUND)

    async def _hears(self) -> bool:
        """Whether it hears what is published; it knows the state in any case then.

        A server knows late that a subscriber has gone, to come again.
        """
        self.server.becomes("CALIBRATED")
        await self.agrees()
        async with self._untold():
            self.server.becomes("UNCALIBRATED")
            began = reactor.seconds()
            while not (heard := self.changes[-1:] == [self.now]):
                if reactor.seconds() > began + FUSE / 4:
                    break
                await pause(0.01)
        await self.agrees()
        return heard

    @asynccontextmanager
    async def _untold(self) -> AsyncIterator[None]:
        """No beat is answered meanwhile, so none tells of a change."""
        held: list[Request] = []
        self.server.on_beat = held.append
        await until(lambda: bool(held), BOUND)
        yield
        self.server.on_beat = sanely
        for beat in held:
            beat.reply()

    async def beats(self, count: int) -> list[Request]:
        """Wait for so many more beats; those."""
        already = len(self.server.beats)

        def enough() -> bool:
            assert self.program.status is None, self.program.output
            return len(self.server.beats) >= already + count

        await until(enough, BOUND)
        return self.server.beats[already : already + count]

    @asynccontextmanager
    async def misses_one(self, state: str) -> AsyncIterator[None]:
        """Publish a change after one that wasn't, so that it asks.

        A beat could tell first, and nothing would be missed.
        """
        async with self._untold():
            self.server.becomes(state, self.server.life["sequence"] + 2)
            yield

    async def end(self) -> None:
        """Have both gone."""
        await super().end()
        await self.server.stop()


@define(eq=False)
class ServiceLife(Guest):
    """A client at the real service, which runs in this process."""

    running: Running
    settings: dict[str, Any] = field(factory=dict)

    @classmethod
    async def begin(cls, client: Client, folder: Path, **settings: Any) -> ServiceLife:
        """Start both."""
        usual = {
            "interval": SERVICE_INTERVAL,
            "timebomb": SERVICE_FUSE,
            "store": f"sqlite:{folder}/heartbeat.sqlite",
            **({"allow_origin": (client.origin,)} if client.origin else {}),
        }
        settings = {**usual, **settings}
        running = await start_service(**settings)
        program = client.start(folder, "--id", CLIENT, "--server", running.url)
        return cls(client, program, running, settings)

    async def agrees(self) -> Change:
        """Wait until the last that it has printed is what the service knows; that."""

        async def does() -> bool:
            assert self.program.status is None, self.program.output
            return self.changes[-1:] == [await self.record()]

        await until(does, BOUND)
        return self.changes[-1]

    async def record(self) -> Change | None:
        """What the service knows of it."""
        status, found, _ = await self.running.http("GET", f"/clients/{CLIENT}")
        if status == 404:
            return None
        return Change(found["clientState"], found["incarnation"], found["sequence"])

    async def restarts(self, **settings: Any) -> None:
        """Stop the service, and start one anew on the same ports."""
        service = self.running.service
        at = {
            "http": f"tcp:{self.running.port}:interface=127.0.0.1",
            "router": service.router,
            "pub": service.pub,
        }
        await self.running.stop()
        self.running = await start_service(**{**self.settings, **at, **settings})

    async def orders(self, what: str, **fields: Any) -> None:
        """As an operator, PUT this of the client."""
        path, body = f"/clients/{CLIENT}/{what}", json.dumps(fields).encode()
        status, answer, _ = await self.running.http("PUT", path, body)
        assert status in (200, 204), answer

    async def end(self) -> None:
        """Have both gone."""
        await super().end()
        await self.running.stop()
