"""The server, or one of the ways to it, is away: it goes on, and finds it again."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sized
from pathlib import Path

import pytest
import pytest_twisted

from tests.conformance.clients import Change
from tests.conformance.life import BOUND, SLACK, Life, gap
from tests.conformance.scripted import (
    FUSE,
    INTERVAL,
    RUN,
    Connection,
    Request,
    ScriptedServer,
    silently,
)
from tests.integration.processes import free_ports
from tests.integration.waiting import pause, reactor, until

#: What clients tell while they hear of nothing but by their beats' answers.
BY_BEATS = "following by heartbeats alone"

#: What is no ``tcp://HOST:PORT``.
NO_ENDPOINTS = ("inproc://x", "tcp://*:1", "tcp://x", "udp://127.0.0.1:1", "", "\x1b")

#: The longest wait of a client that no server has told anything yet, in seconds.
FIRST_WAIT = 5.0


@pytest_twisted.ensureDeferred
async def test_one_that_starts_before_its_server_finds_it(newborn: Life) -> None:
    await newborn.complains("no answer")
    newborn.server.listen()
    began = reactor.seconds()
    await newborn.agrees()
    assert reactor.seconds() - began < FIRST_WAIT + SLACK
    assert newborn.changes == [Change("UNCALIBRATED", 7, 1)]
    assert len(newborn.complaints) == 1


@pytest_twisted.ensureDeferred
async def test_a_server_that_comes_back_is_found_and_its_state_followed(
    life: Life,
) -> None:
    server = life.server
    await server.go_away()
    await life.complains("no answer")
    await pause(FUSE)
    server.publishes = False
    server.becomes("RUNNING")
    server.listen()
    began = reactor.seconds()
    await life.agrees()
    assert reactor.seconds() - began < FUSE / 2 + SLACK
    assert life.news == [life.now]
    assert len(life.complaints) == 1


@pytest_twisted.ensureDeferred
async def test_a_server_that_hangs_up_is_never_tried_faster_than_it_told(
    life: Life,
) -> None:
    server = life.server
    server.on_beat = Request.hang_up
    server.on_request = silently
    server.cut(server.connections)
    await life.beats(1)
    opened = len(server.connections)
    first, *_, last = beats = await life.beats(12)
    # A connection that was closed may be tried anew at once: a browser then sends the
    # beat that met its end a second time.
    meant = {beat.sent for beat in beats}
    assert len(beats) <= 2 * len(meant)
    assert gap(first, last) >= (len(meant) - 1) * INTERVAL
    assert last.at - first.at < (len(beats) - 1) * FUSE / 2 + SLACK
    assert len(server.connections) - opened <= 3 * len(beats)
    await life.is_well()
    assert len(life.complaints) == 1


@pytest_twisted.ensureDeferred
async def test_without_publications_it_follows_by_beats_and_says_so(
    life: Life,
) -> None:
    server = life.server
    if life.client.follows == "zeromq":
        request, published = (f"tcp://127.0.0.1:{port}" for port in free_ports(2))
        server.life |= {"requestEndpoint": request, "stateChangeEndpoint": published}
    else:
        server.on_events = Connection.refuse_events
        server.cut(server.streams)
    server.becomes("RUNNING")
    await life.agrees()
    await life.complains(BY_BEATS)
    tried = len(server.event_requests)
    await life.beats(8)
    assert len(server.event_requests) - tried <= 8
    server.becomes("CALIBRATED")
    await life.agrees()
    assert [one.state for one in life.news] == ["RUNNING", "CALIBRATED"]
    assert len(life.complaints) == 1
    server.be_sane()
    await life.complains("through again")
    assert len(life.complaints) == 2
    await _hears_at_once(life)


@pytest_twisted.ensureDeferred
async def test_a_way_of_publications_that_is_cut_is_found_again(life: Life) -> None:
    server = life.server
    for _ in range(3):
        if life.client.follows == "events":
            opened = len(server.event_requests)
            server.cut(server.streams)
            await until(_is_more_than(opened, server.event_requests), BOUND)
            _, headers = server.event_requests[-1]
            assert headers["last-event-id"] == f"{RUN}-{len(server.events)}"
        else:
            await server.break_zeromq()
        await _hears_at_once(life)


@pytest_twisted.ensureDeferred
async def test_other_endpoints_in_an_answer_are_followed_and_the_former_left(
    life: Life,
) -> None:
    server, other = life.server, ScriptedServer()
    try:
        names = ("requestEndpoint", "stateChangeEndpoint")
        server.life |= {name: other.life[name] for name in names}
        await life.beats(2)
        if life.client.follows == "zeromq":
            await until(lambda: other.is_followed, BOUND)
            other.life |= {**server.life, "sequence": server.life["sequence"]}
            other.becomes("RUNNING")
            server.publishes = False
            server.becomes("RUNNING")
        else:
            server.becomes("RUNNING")
        await life.agrees()
        used = ("router", "pub")
        await until(lambda: not any(map(server.open_connections().get, used)), BOUND)
        assert life.changes[-1] == life.now
        server.be_sane()
        await life.is_well()
    finally:
        await other.stop()


@pytest_twisted.ensureDeferred
async def test_endpoints_that_no_client_should_open_are_not_and_it_beats_on(
    life: Life, tmp_path: Path
) -> None:
    server, files = life.server, socket.socket(socket.AF_UNIX)
    with files:
        files.bind(f"{tmp_path}/socket")
        files.listen()
        files.setblocking(False)
        for endpoint in (f"ipc://{tmp_path}/socket", *NO_ENDPOINTS):
            names = ("requestEndpoint", "stateChangeEndpoint")
            server.life |= dict.fromkeys(names, endpoint)
            await life.beats(3)
        with pytest.raises(BlockingIOError):  # nobody has come
            files.accept()
    server.becomes("RUNNING")
    await life.agrees()
    assert all(line.isprintable() for line in life.complaints)
    assert "Traceback" not in life.program.output


def _is_more_than(count: int, kept: Sized) -> Callable[[], bool]:
    return lambda: len(kept) > count


async def _hears_at_once(life: Life) -> None:
    """A publication reaches it while its beats get no answer."""
    server, held = life.server, list[Request]()
    await until(lambda: server.is_followed, BOUND)
    await life.beats(2)
    former = server.life["timebombSeconds"]
    server.life["timebombSeconds"] = 4 * BOUND  # it has patience with its beat
    await life.beats(2)
    server.on_beat = held.append
    await until(lambda: bool(held), BOUND)
    server.becomes(
        "RUNNING" if server.life["clientState"] != "RUNNING" else "CALIBRATED"
    )
    await life.agrees()
    server.life["timebombSeconds"] = former
    server.be_sane()
    held[0].reply()
