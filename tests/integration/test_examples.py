"""The programs of examples/: what people copy, watch, and see first."""

from __future__ import annotations

import json
import os
import re
import runpy
import signal
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
import treq
from twisted.internet.error import ConnectError

from heartbeat_service.core import errors
from tests.integration.conftest import Serve
from tests.integration.processes import (
    BIN,
    LOOPBACK,
    READY,
    ROOT,
    Process,
    Spawn,
    free_ports,
)
from tests.integration.test_curve import Keys
from tests.integration.test_hostile_servers import (
    ANSWERS,
    Answer,
    Beat,
    Server,
    problem,
    server,
)
from tests.integration.test_processes import http, twistd
from tests.integration.waiting import patiently, reactor, until
from tests.messages import envelope

__all__ = ["server"]

DEMO = ROOT / "examples" / "demo.py"
#: Two at once may find the same port free.
one_at_a_time = pytest.mark.xdist_group("demo")
PLAIN_CLIENT = ROOT / "examples" / "plain_client.py"
WATCH = ROOT / "examples" / "watch.py"

# Runs a command in a terminal of its own, and types each of some keys once the command
# has said what they wait for; no keys close the terminal.
TERMINAL = """
import json, os, pty, re, sys
keys = json.loads(sys.argv[1])
pid, terminal = pty.fork()
if pid == 0:
    os.execvp(sys.argv[2], sys.argv[2:])
said = b""
while True:
    try:
        more = os.read(terminal, 65536)
    except OSError:  # it is gone
        break
    said += more
    os.write(1, more)
    while keys and re.search(keys[0][0].encode(), said):
        pressed = keys.pop(0)[1].encode()
        if pressed:
            os.write(terminal, pressed)
        else:
            os.close(terminal)
status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
print(f"it ended with {status}.", flush=True)
"""

CODES = {
    error.code
    for error in vars(errors).values()
    if isinstance(error, type) and issubclass(error, errors.HeartbeatError)
    if error is not errors.HeartbeatError
}
SUPERSEDED = "INSTANCE_SUPERSEDED"


def processes_with(setting: str) -> list[str]:
    """The commands of the processes whose environment has this."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # another user's, or gone
            if setting.encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_text().replace("\0", " "))
    return found


def make_demo(spawn: Spawn, folder: Path, *keys: tuple[str, str]) -> Process:
    """``make demo`` in a terminal, where these keys are typed after those words."""
    make = ("make", "-C", ROOT, "demo", f"BIN={BIN}", "RUN=")
    words = (sys.executable, "-c", TERMINAL, json.dumps(keys), *make)
    return spawn(*words, THIS_TEST=str(folder))


def plain_client(spawn: Spawn, url: str, *options: str) -> Process:
    """``examples/plain_client.py``, as client 1."""
    return spawn(sys.executable, PLAIN_CLIENT, "1", url, *options)


async def listed(service: str) -> list[dict[str, Any]]:
    """``GET /clients``; nobody while nobody listens."""
    with suppress(ConnectError):
        response = await patiently(treq.get(f"{service}/clients", persistent=False))
        return list((await patiently(response.json()))["clients"])
    return []


async def steer(host: str, state: str) -> None:
    """Set client 1's state as an operator."""
    order = json.dumps({"clientState": state}).encode()
    assert await http("PUT", f"http://{host}/clients/1/state", order) == 200


def says(code: str) -> Answer:
    """Answers a beat with this Error."""
    return lambda beat: beat.say("409 ", problem(code))


async def beaten(server: Server, before: int) -> None:
    """Wait for more beats than there were before."""
    await until(lambda: len(server.beats) > before)


async def question(server: Server) -> dict[str, Any]:
    """The next request by ZeroMQ, with the way back to who asks."""
    *way, data = await server.router.receive()
    return {**json.loads(data), "way": way}


def reply(server: Server, asked: dict[str, Any], code: str) -> None:
    """Answer a request with an Error."""
    body = {"code": code, "detail": "no", "clientID": "1"}
    request_id = asked["requestID"]
    answer = envelope(messageType="Error", requestID=request_id, body=body)
    server.router.send_multipart([*asked["way"], answer])


@pytest_twisted.ensureDeferred
async def test_a_client_that_follows_the_contract_alone_lives_its_whole_life(
    spawn: Spawn,
) -> None:
    service = twistd(spawn, *LOOPBACK, "--interval", "0.2", "--timebomb", "2")
    host = (await service.says(READY))[1]
    player = plain_client(spawn, f"http://{host}", "--calibrate")
    await player.says("^1 is UNCALIBRATED$")
    await player.says("^1 is CALIBRATED$")
    os.kill(service.pid, signal.SIGSTOP)
    await player.says("^1: http.*; trying again$")
    os.kill(service.pid, signal.SIGCONT)
    await player.says("^1: http.*: well again$")
    await steer(host, "RUNNING")
    await player.says("^1 is RUNNING$")
    successor = plain_client(spawn, f"http://{host}")
    assert await player.ends() == 1
    assert player.output.endswith(f" ({SUPERSEDED})\n")
    await steer(host, "CALIBRATED")
    await successor.says("^1 is CALIBRATED$")
    assert await successor.ends("INT") == 0
    await service.says(r"client 1: CALIBRATED -> DISCONNECTED \(goodbye\)")
    assert "Traceback" not in player.output + successor.output


@pytest.mark.parametrize("loop", ["twisted", "asyncio"])
@pytest_twisted.ensureDeferred
async def test_a_games_own_loop_lives_and_leaves_with_nothing_left_open(
    spawn: Spawn, loop: str
) -> None:
    service = twistd(spawn, *LOOPBACK, "--interval", "0.2", "--timebomb", "2")
    host = (await service.says(READY))[1]
    script = ROOT / "examples" / f"game_loop_{loop}.py"
    strict = ("-X", "dev", "-W", "error::ResourceWarning")
    player = spawn(sys.executable, *strict, script, "1", f"http://{host}")
    await player.says("CALIBRATED.*sequence=2")
    await steer(host, "RUNNING")
    await player.says("RUNNING.*sequence=3")

    async def played() -> bool:
        (one,) = await listed(f"http://{host}")
        return int(one["values"].get("frames", 0)) > 0

    await until(played)
    assert await player.ends("INT") == 0
    await service.says(r"client 1: RUNNING -> DISCONNECTED \(goodbye\)")
    for word in ("Traceback", "ResourceWarning", "never retrieved", "was destroyed"):
        assert word not in player.output


@pytest.mark.parametrize("name", ["INT", "TERM"])
@pytest_twisted.ensureDeferred
async def test_it_waits_for_a_server_that_is_down_and_can_be_stopped(
    spawn: Spawn, name: str
) -> None:
    (port,) = free_ports(1)
    player = plain_client(spawn, f"http://127.0.0.1:{port}")
    await player.says("Connection refused.*; trying again")
    since = reactor.seconds()
    assert await player.ends(name) == 0
    assert reactor.seconds() - since < 5, "two seconds, on a fast machine"
    assert player.output.count("\n") == 1


@pytest_twisted.ensureDeferred
async def test_it_registers_once_the_server_is_there(
    spawn: Spawn, server: Server
) -> None:
    (port,) = free_ports(1)
    player = plain_client(spawn, f"http://127.0.0.1:{port}", "--verbose")
    await player.says("Connection refused")
    server.ports.append(reactor.listenTCP(port, server, interface="127.0.0.1"))
    await player.says("^1 is UNCALIBRATED$")
    assert player.output.count("HEARTBEAT") <= 3, "no busy loop"


@pytest_twisted.ensureDeferred
async def test_it_bears_each_error_and_what_makes_no_sense_as_a_beats_answer(
    spawn: Spawn, server: Server
) -> None:
    player = plain_client(spawn, server.listen())
    await player.says("^1 is UNCALIBRATED$")
    assert set(runpy.run_path(str(PLAIN_CLIENT))["ON_ERROR"]) == CODES

    for code in CODES - {SUPERSEDED}:
        server.answer, here = says(code), len(player.output)
        await server.hears(2)
        await player.says(rf"\({code}\)", here)
    here = len(player.output)
    for name in ("none", "resets", "a page", "a list", "deep"):
        server.answer = ANSWERS[name]
        await server.hears(2)
    assert player.output.count("1: http", here) == 1, "told once in a row"
    server.answer = server.be_sane
    server.body.update(clientState="RUNNING", sequence=2)
    await player.says("^1 is RUNNING$")
    server.answer = says(SUPERSEDED)
    assert await player.ends() == 1
    assert "Traceback" not in player.output


@pytest_twisted.ensureDeferred
async def test_it_says_no_goodbye_that_its_last_beat_could_come_after(
    spawn: Spawn, server: Server
) -> None:
    player = plain_client(spawn, server.listen(), "--verbose")
    await player.says("^1 is UNCALIBRATED$")
    server.answer = lambda _: None  # stalled: it reads what is on its way later
    await server.hears(1)
    assert await player.ends("TERM") == 0
    assert "Goodbye" not in player.output


@pytest_twisted.ensureDeferred
async def test_it_acts_on_each_error_that_a_request_gets(
    spawn: Spawn, server: Server
) -> None:
    server.body.update(timebombSeconds=3600, heartbeatIntervalSeconds=1800)
    player = plain_client(spawn, server.listen(), "--calibrate")
    first, asked = await question(server), await question(server)
    assert first["messageType"] == "GetClientState"
    assert asked["messageType"] == "SetClientState"
    assert asked["body"]["sequence"] == 1
    assert asked["body"]["instanceID"] == first["body"]["instanceID"]
    reply(server, asked, "STALE_SEQUENCE")
    asked = await question(server)
    assert asked["messageType"] == "GetClientState"
    for code in CODES - {SUPERSEDED, "STALE_SEQUENCE"}:
        beats, here = len(server.beats), len(player.output)
        reply(server, asked, code)
        await player.says(rf"^1: no \({code}\)$", here)
        if code in ("UNKNOWN_CLIENT", "STALE_INCARNATION"):
            await beaten(server, beats)
        elif code == "ILLEGAL_TRANSITION":
            asked = await question(server)
            assert asked["messageType"] == "GetClientState"
    server.router.send_multipart([*asked["way"], b"[]"])
    await player.says("makes no sense")
    reply(server, asked, SUPERSEDED)
    assert await player.ends() == 1
    assert "Traceback" not in player.output


@pytest_twisted.ensureDeferred
async def test_what_tells_it_to_beat_holds_while_a_beat_is_under_way(
    spawn: Spawn, server: Server
) -> None:
    server.body.update(timebombSeconds=3600, heartbeatIntervalSeconds=1800)
    player = plain_client(spawn, server.listen(), "--calibrate")
    _, asked = await question(server), await question(server)
    held: list[Beat] = []
    server.answer = held.append
    reply(server, asked, "STALE_INCARNATION")
    await until(lambda: bool(held))
    reply(server, asked, "UNKNOWN_CLIENT")
    await player.says(r"\(UNKNOWN_CLIENT\)$")
    beats, server.answer = len(server.beats), server.be_sane
    server.be_sane(held[0])
    await beaten(server, beats)


@pytest.mark.parametrize(
    ("example", "status"), [("plain_client", -signal.SIGINT), ("watch", 0), ("demo", 0)]
)
@pytest_twisted.ensureDeferred
async def test_an_interrupt_before_an_example_has_begun_ends_it_without_a_traceback(
    spawn: Spawn, tmp_path: Path, example: str, status: int
) -> None:
    interrupt = "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\n"
    (tmp_path / "argparse.py").write_text(f"{interrupt}time.sleep(60)\n")
    script = ROOT / "examples" / f"{example}.py"
    program = spawn(sys.executable, script, "1", PYTHONPATH=str(tmp_path))
    assert await program.ends() == status
    assert program.output == ""


@pytest_twisted.ensureDeferred
async def test_watch_says_what_it_waits_for_and_shows_its_key(
    spawn: Spawn, serve: Serve, tmp_path: Path
) -> None:
    keys = Keys(tmp_path)
    keys.make("watcher")
    running = await serve(curve_keys=str(keys.folder))
    words = (sys.executable, WATCH, "OnStateChange/1/", running.service.pub)
    carried = tmp_path / "carried"
    own, others = carried / "watcher.key_secret", carried / "server.key"
    guest = spawn(*words, "--curve-key", own, "--curve-server-key", others)
    stranger = spawn(*words)
    await guest.says("^waiting for OnStateChange/1/ from tcp://127.*, Ctrl-C ends$")
    await guest.says("^connected$")

    async def heard() -> bool:
        await running.beat("1")
        await running.kick("1")
        return "OnStateChange/1/ {" in guest.output

    await until(heard)
    await stranger.says("^refused: ")
    assert await guest.ends("INT") == 0
    assert await stranger.ends("INT") == 0
    assert "Traceback" not in guest.output + stranger.output
    helping = spawn(sys.executable, WATCH, "--help")
    assert await helping.ends() == 0
    assert "--curve-server-key" in helping.output


@one_at_a_time
@pytest_twisted.ensureDeferred
async def test_make_demo_names_the_page_and_ends_all_at_ctrl_c(
    spawn: Spawn, tmp_path: Path
) -> None:
    keys = (("Ctrl-C ends it", "\r"), ("room B: loses its network", "\3"))
    demo = make_demo(spawn, tmp_path, *keys)
    page = (await demo.says(r"page: (http://127\.0\.0\.1:\d+/)"))[1]
    # Make itself dies by the signal, as it always does.
    await demo.says(rf"it ended with (0|-{signal.SIGINT.value})\.")
    assert f"{page}\r\n" in demo.output, "a terminal makes a link of it"
    assert "All of them have ended." in demo.output
    assert not re.search(r"\*\*\*|Error|Traceback", demo.output)
    assert await demo.ends() == 0
    assert processes_with(f"THIS_TEST={tmp_path}") == []


@one_at_a_time
@pytest_twisted.ensureDeferred
async def test_the_demos_headsets_obey_outlive_a_mass_loss_and_come_back_after_a_crash(
    spawn: Spawn, tmp_path: Path
) -> None:
    options = ("--timebomb", "3", "--interval", "0.3")
    demo = spawn(sys.executable, DEMO, *options, THIS_TEST=str(tmp_path))
    service = (await demo.says(r"page: (http:.*)/"))[1]
    killed = (await demo.says(r"kill -9 (\d+)"))[1]

    async def says(state: str, *, many: int) -> None:
        async def holds() -> bool:
            clients = await listed(service)
            rooms = Counter(one["labels"]["room"] for one in clients)
            states = Counter(one["reportedState"] for one in clients)
            return rooms.total() == 30 and len(rooms) == 3 and states[state] >= many

        await until(holds)

    await says("UNCALIBRATED", many=29)
    order = json.dumps({"clientState": "RUNNING", "all": True}).encode()
    assert await http("PUT", f"{service}/clients/state", order) == 200
    await says("RUNNING", many=29)

    async def held() -> bool:
        return [one["held"] for one in await listed(service)].count(True) >= 8

    keyboard: Any = demo.transport
    keyboard.write(b"\n")
    await demo.says("room B: loses its network for 6 s, 10 headsets")
    await until(held)
    os.kill(int(killed), signal.SIGKILL)
    again = (await demo.says(r"the service: was ended; started again, as (\d+)"))[1]
    assert again != killed
    await says("UNCALIBRATED", many=20)
    assert await demo.ends("TERM") == 0
    assert "Traceback" not in demo.output
    assert processes_with(f"THIS_TEST={tmp_path}") == []


@one_at_a_time
@pytest_twisted.ensureDeferred
async def test_the_demo_ends_by_itself_when_told_so_or_when_no_service_can_start(
    spawn: Spawn,
) -> None:
    short = spawn(sys.executable, DEMO, "--seconds", "1", "--mass-loss-at", "0")
    assert await short.ends() == 0
    assert "room B: loses its network" in short.output

    slip = spawn(sys.executable, DEMO, "--timebomb", "soon")
    assert await slip.ends() == 1
    assert "--timebomb: expected seconds" in slip.output
    assert "Traceback" not in short.output + slip.output
