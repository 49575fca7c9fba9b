"""It leaves: with a Goodbye that is its last word, and in time."""

from __future__ import annotations

from pathlib import Path

import pytest_twisted

from tests.conformance.clients import Client
from tests.conformance.life import BOUND, SLACK, Life
from tests.conformance.scripted import CLIENT, Request, silently
from tests.integration.waiting import SILENCE, pause, reactor, until

#: How long a client may wait for its last answers, in seconds: for a beat's, and
#: for that of its Goodbye.
FAREWELL = 2.0


@pytest_twisted.ensureDeferred
async def test_on_sigterm_it_says_goodbye_and_nothing_after_it(life: Life) -> None:
    assert await life.program.ends("TERM") == 0
    await _has_said_goodbye(life)


@pytest_twisted.ensureDeferred
async def test_on_sigint_it_says_goodbye_after_the_beat_that_is_under_way(
    life: Life,
) -> None:
    server, held = life.server, list[Request]()
    server.life["timebombSeconds"] = 60  # it has patience with its beat
    await life.beats(2)
    server.on_beat = held.append
    await until(lambda: bool(held), BOUND)
    life.program.signal("INT")
    await pause(SILENCE)
    assert [one for one in server.requests if one.kind == "Goodbye"] == []
    held[0].reply()
    assert await life.program.ends() == 0
    assert len(held) == 1
    await _has_said_goodbye(life)


async def _has_said_goodbye(life: Life) -> None:
    """It was the last that it sent, says whose it is, and nothing is open any more."""
    await pause(SILENCE)
    goodbye, beats = life.server.requests[-1], life.server.beats
    assert goodbye.kind == "Goodbye"
    assert goodbye.body["clientID"] == CLIENT
    assert goodbye.body["incarnation"] == life.server.life["incarnation"]
    assert goodbye.body["instanceID"] == beats[-1].body["instanceID"]
    assert [one.kind for one in life.server.requests].count("Goodbye") == 1
    assert beats[-1].at <= goodbye.at
    # A browser closes a page's connections some time after the page.
    await until(lambda: not any(life.server.open_connections().values()), BOUND)
    assert life.complaints == []


@pytest_twisted.ensureDeferred
async def test_a_goodbye_without_an_answer_keeps_nobody_waiting(life: Life) -> None:
    life.server.on_request = silently
    began = reactor.seconds()
    assert await life.program.ends("TERM") == 0
    assert reactor.seconds() - began < FAREWELL + SLACK
    assert life.server.requests[-1].kind == "Goodbye"


@pytest_twisted.ensureDeferred
async def test_stopped_before_it_is_registered_it_ends_at_once_without_a_word(
    newborn: Life,
) -> None:
    server = newborn.server
    await newborn.complains("no answer, trying again")
    server.on_beat = silently  # a beat that leaves just then doesn't register it
    server.listen()
    began = reactor.seconds()
    assert await newborn.program.ends("TERM") == 0
    under_way = FAREWELL if server.beats else 0.0
    assert reactor.seconds() - began < under_way + SLACK
    assert server.requests == []
    assert newborn.changes == []


@pytest_twisted.ensureDeferred
async def test_what_it_cannot_use_is_told_in_a_sentence(
    client: Client, tmp_path: Path
) -> None:
    url = "http://127.0.0.1:1"
    wrong = {
        "--id": ("--id", "a/b", "--server", url),
        "--server": ("--id", CLIENT, "--server", "ftp://127.0.0.1:1"),
    }
    programs = {name: client.start(tmp_path, *given) for name, given in wrong.items()}
    for name, program in programs.items():
        assert await program.ends() not in (0, None)
        assert program.told == ""
        assert name in program.output
        assert len(program.output.splitlines()) < 4, program.output
