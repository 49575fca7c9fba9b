"""It follows its state: what comes twice, late, for another, or not at all."""

from __future__ import annotations

import pytest_twisted

from tests.conformance.clients import Change
from tests.conformance.life import BOUND, Life
from tests.conformance.scripted import Request
from tests.integration.waiting import until


@pytest_twisted.ensureDeferred
async def test_doubled_replies_initialise_it_once(newborn: Life) -> None:
    server = newborn.server

    def twice(request: Request) -> None:
        request.reply()
        if request.headers is None:
            request.reply()
        server.publish()

    server.on_request = twice
    server.listen()
    await newborn.agrees()
    await newborn.beats(3)
    assert newborn.changes == [Change("UNCALIBRATED", 7, 1)]


@pytest_twisted.ensureDeferred
async def test_a_state_that_is_told_twice_is_printed_once(life: Life) -> None:
    printed = len(life.changes)
    life.server.becomes("RUNNING")
    life.server.publish()
    await life.agrees()
    life.server.publish()
    await life.beats(2)
    assert life.changes[printed:] == [life.now]


@pytest_twisted.ensureDeferred
async def test_what_comes_out_of_order_never_leads_it_backwards(life: Life) -> None:
    server, printed = life.server, len(life.changes)
    held: list[tuple[Request, dict[str, object]]] = []
    server.on_request = lambda request: held.append((request, dict(server.life)))
    server.becomes("CALIBRATED", server.life["sequence"] + 2)  # it asks: one is missing
    await until(lambda: bool(held))
    former = dict(server.life)
    server.becomes("RUNNING")
    newest = life.now
    await life.agrees()
    server.publish(**{name: former[name] for name in ("clientState", "sequence")})
    for request, known in held:
        request.reply(**known)
    await life.beats(2)
    states = [change.state for change in life.changes[printed:]]
    assert states == ["CALIBRATED", "RUNNING"]
    assert life.changes[-1] == newest


@pytest_twisted.ensureDeferred
async def test_after_lost_publications_it_agrees_one_beat_later(life: Life) -> None:
    printed = len(life.changes)
    life.server.publishes = False
    life.server.becomes("RUNNING")
    await life.beats(2)  # the second tells that the first one's reply was read
    await life.agrees()
    assert life.changes[printed:] == [life.now]


@pytest_twisted.ensureDeferred
async def test_a_publication_is_printed_at_once_not_a_beat_later(life: Life) -> None:
    server, held = life.server, list[Request]()
    server.life["timebombSeconds"] = 4 * BOUND  # it has patience with its beat
    await life.beats(2)
    server.on_beat = held.append
    await until(lambda: bool(held))
    server.becomes("RUNNING")
    await life.agrees()
    assert len(held) == 1
    held[0].reply()
