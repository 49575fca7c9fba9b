"""heartbeatctl and the real service: it shows, asks, steers, and ends as it should."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from attrs import frozen
from cryptography.hazmat.primitives.serialization import Encoding
from twisted.internet.defer import Deferred
from twisted.internet.threads import blockingCallFromThread, deferToThreadPool
from twisted.python.threadpool import ThreadPool

from tests.heartbeatctl import Ended, run_program
from tests.integration.conftest import Running, Serve
from tests.integration.processes import BIN, Spawn
from tests.integration.test_tls import Papers, papers
from tests.integration.waiting import patiently, reactor

__all__ = ["papers"]  # a fixture

#: Seconds to the timebomb of clients that beat once.
HOUR = 3600.0

#: ``await ctl(running, "list")`` runs a command to its end.
Ctl = Callable[..., Awaitable[Ended]]


@pytest.fixture
def ctl() -> Iterator[Ctl]:
    """The program, in a thread beside the reactor that serves it."""
    pool = ThreadPool(1, 1, "heartbeatctl")
    pool.start()

    def run(
        running: Running, *words: str, stdin: Any = None, **environment: str
    ) -> Awaitable[Ended]:
        proxy = "http://127.0.0.1:1"  # nobody is there: it must not be asked
        server = {"HEARTBEAT_SERVER": running.url, "HTTP_PROXY": proxy}
        environment = {**server, **environment}
        program = partial(run_program, words, None, stdin, False, **environment)
        return patiently(deferToThreadPool(reactor, pool, program))

    yield run
    pool.stop()


@frozen
class Meanwhile:
    """A terminal where somebody types yes, after something has happened."""

    happens: Callable[[], Coroutine[Any, Any, None]]

    def isatty(self) -> bool:
        """It is one."""
        return True

    def readline(self) -> str:
        """What is typed."""

        def happening() -> Any:
            return Deferred.fromCoroutine(self.happens())

        blockingCallFromThread(reactor, happening)
        return "y\n"


async def register_three(running: Running) -> None:
    """Three clients in two rooms."""
    for client_id, room in (("1", "A"), ("2", "A"), ("10", "B")):
        labels = {"room": room}
        await running.beat(client_id, timebombSeconds=HOUR, labels=labels)


@pytest_twisted.ensureDeferred
async def test_a_room_is_shown_and_steered(running: Running, ctl: Ctl) -> None:
    await register_three(running)
    shown = await ctl(running, "list", "--label", "room:A")
    assert [line.split()[0] for line in shown.out.splitlines()] == ["CLIENT", "1", "2"]
    done = await ctl(running, "set", "CALIBRATED", "--label", "room:A", "--yes")
    assert (done.status, done.out.splitlines()[-1]) == (
        0,
        "2 clients set to CALIBRATED",
    )
    states = {
        one["clientID"]: one["clientState"]
        for one in (await ctl(running, "list", "--json")).json()["clients"]
    }
    assert states == {"1": "CALIBRATED", "2": "CALIBRATED", "10": "UNCALIBRATED"}
    silent = await ctl(running, "silence", "--seconds", "5m", "1", "--yes")
    assert (silent.status, silent.err) == (0, "")
    assert "silent for" in (await ctl(running, "list", "--prefix", "1")).out
    assert (
        await ctl(running, "silence", "--seconds", "0", "--all", "--yes")
    ).status == 0
    well = await ctl(running, "status")
    assert (well.status, well.out.splitlines()[0]) == (0, "All well")


@pytest_twisted.ensureDeferred
async def test_who_is_out_is_told_and_let_in_again(running: Running, ctl: Ctl) -> None:
    await register_three(running)
    out = await ctl(running, "lockout", "--seconds", "10m", "1", "never-here", "--yes")
    assert (out.status, out.err) == (0, "")
    assert (await ctl(running, "kick", "2", "--yes")).status == 0
    gone = await ctl(running, "gone", "--since", "1h", "--json")
    assert [one["clientID"] for one in gone.json()["clients"]] == ["2", "1"]
    assert "kicked" in (await ctl(running, "history", "1")).out
    back = await ctl(running, "lockout", "--seconds", "0", "--label", "room:A", "--yes")
    assert (back.status, back.out) == (0, "1 let in again\n")
    lockouts = (await running.get("/lockouts"))["lockouts"]
    assert [one["clientID"] for one in lockouts] == ["never-here"]
    lost = await ctl(running, "kick", "2", "--yes")
    assert lost.status == 1
    assert lost.err.startswith("2 is not here: it was kicked at ")


@pytest_twisted.ensureDeferred
async def test_who_goes_on_while_it_asks_is_left_alone(
    running: Running, ctl: Ctl
) -> None:
    await register_three(running)

    async def happens() -> None:
        await running.steer("1", "CALIBRATED")
        await running.kick("2")

    done = await ctl(running, "set", "RUNNING", "--all", stdin=Meanwhile(happens))
    assert done.status == 1
    assert done.out == "10 set to RUNNING\n1 of 3 clients set to RUNNING\n"
    _, asked, *refused = done.err.splitlines()
    assert (await running.get("/clients/1"))["clientState"] == "CALIBRATED"
    assert "3 UNCALIBRATED -> RUNNING: 1, 2, 10" in done.err
    assert asked.startswith("Set 3 clients to RUNNING? [y/N] 1 left alone: it has chan")
    [gone] = refused
    assert gone.startswith("2 isn't here any more: kicked at ")


@pytest_twisted.ensureDeferred
async def test_it_gets_in_by_a_token_and_trusts_a_ca(
    serve: Serve, ctl: Ctl, papers: Papers, tmp_path: Path
) -> None:
    tokens, authority = tmp_path / "tokens", tmp_path / "ca.pem"
    tokens.write_text("0123456789abcdef Ada\n")
    tokens.chmod(0o600)
    running = await serve(http=papers.endpoint, operator_token_file=str(tokens))
    secure = {"HEARTBEAT_SERVER": f"https://localhost:{running.port}"}
    strange = await ctl(running, "list", **secure)
    assert (strange.status, "--ca FILE" in strange.err) == (3, True)
    authority.write_bytes(papers.authority.public_bytes(Encoding.PEM))
    trusted = ("list", "--ca", str(authority))
    nobody = await ctl(running, *trusted, **secure)
    assert (nobody.status, "--token-file FILE" in nobody.err) == (1, True)
    known = await ctl(running, *trusted, "--token-file", str(tokens), **secure)
    assert (known.status, known.err) == (0, "Nobody.\n")


@pytest_twisted.ensureDeferred
async def test_events_are_told_until_an_interrupt(
    running: Running, spawn: Spawn
) -> None:
    words = ("--server", running.url)
    told = spawn(BIN / "heartbeatctl", "events", *words)
    told_as_json = spawn(BIN / "heartbeatctl", "watch", "--json", *words)
    await told.says("may be wrong")
    await told_as_json.says(r'"clients": \[\]')
    await running.beat("1", labels={"room": "A"})
    await told.says(r"1 DISCONNECTED -> UNCALIBRATED \(heartbeat\) room:A$")
    line = await told_as_json.says(r'^.*"OnStateChange".*$')
    assert json.loads(line[0])["clientID"] == "1"
    for each in (told, told_as_json):
        assert await each.ends("INT") == 130
        assert "Traceback" not in each.output


@pytest_twisted.ensureDeferred
async def test_nobody_who_reads_and_a_full_disk_are_no_traceback(
    running: Running, spawn: Spawn
) -> None:
    command = f"{BIN}/heartbeatctl events --server {running.url} | head -n 1"
    process = spawn("bash", "-c", f"{command}; echo ended ${{PIPESTATUS[0]}}")
    await process.says("may be wrong")
    await running.beat("1")
    await process.says("^ended 1$")
    help_ = f"{BIN}/heartbeatctl --help >/dev/full"
    full = spawn("bash", "-c", help_, PYTHONUNBUFFERED="")  # as it is for people
    assert await full.ends() == 1
    assert full.output == "can't print: No space left on device\n"
    assert "Traceback" not in process.output
