"""It follows its state: what comes twice, late, for another, or not at all."""

from __future__ import annotations

import pytest_twisted

from tests.conformance.clients import Change
from tests.conformance.life import BOUND, Life
from tests.conformance.scripted import (
    ANOTHER,
    CLIENT,
    INTERVAL,
    TOPIC,
    Request,
)
from tests.integration.waiting import SILENCE, pause, reactor, until


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
    life.server.becomes("RUNNING")
    life.server.publish()
    await life.agrees()
    life.server.publish()
    await life.beats(2)
    assert life.news == [life.now]


@pytest_twisted.ensureDeferred
async def test_what_comes_out_of_order_never_leads_it_backwards(life: Life) -> None:
    server = life.server
    held: list[tuple[Request, dict[str, object]]] = []
    server.on_request = lambda request: held.append((request, dict(server.life)))
    async with life.misses_one("CALIBRATED"):
        await until(lambda: bool(held), BOUND)
    former = dict(server.life)
    server.becomes("RUNNING")
    newest = life.now
    await life.agrees()
    server.publish(**{name: former[name] for name in ("clientState", "sequence")})
    for request, known in held:
        request.reply(**known)
    await life.beats(2)
    states = [change.state for change in life.news]
    assert states == ["CALIBRATED", "RUNNING"]
    assert life.changes[-1] == newest


@pytest_twisted.ensureDeferred
async def test_after_lost_publications_it_agrees_one_beat_later(life: Life) -> None:
    life.server.publishes = False
    life.server.becomes("RUNNING")
    await life.beats(2)  # the second tells that the first one's reply was read
    await life.agrees()
    assert life.news == [life.now]


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


@pytest_twisted.ensureDeferred
async def test_a_publication_that_was_missed_makes_it_ask_once(life: Life) -> None:
    server, beats, held = life.server, list[Request](), list[Request]()
    server.life["timebombSeconds"] = 4 * BOUND  # it has patience with its beat
    await life.beats(2)
    server.on_beat, server.on_request = beats.append, held.append
    await until(lambda: bool(beats), BOUND)
    for state in ("CALIBRATED", "RUNNING"):
        server.becomes(state, server.life["sequence"] + 2)
        await life.agrees()
    await until(lambda: bool(held), BOUND)
    await pause(SILENCE)
    (request,) = held
    assert request.kind == "GetClientState"
    assert request.body["clientID"] == CLIENT
    assert request.body["instanceID"] == server.beats[-1].body["instanceID"]
    assert 1 <= len(request.message["requestID"]) <= 64
    assert [one.state for one in life.news] == ["CALIBRATED", "RUNNING"]
    server.be_sane()
    request.reply()
    beats[0].reply()


@pytest_twisted.ensureDeferred
async def test_what_is_published_for_another_is_not_its_own(life: Life) -> None:
    server = life.server
    theirs = {"clientState": "RUNNING", "sequence": server.life["sequence"] + 1}
    server.publish(f"OnStateChange/{ANOTHER}/".encode(), clientID=ANOTHER, **theirs)
    server.publish(clientID=ANOTHER, **theirs)  # by ZeroMQ, with a topic that it hears
    server.publish(instanceID="another", **theirs)
    server.becomes("CALIBRATED")
    await life.agrees()
    await life.beats(2)
    assert life.news == [life.now]
    heard = {said[1:] for said in server.subscriptions if said[:1] == b"\1"}
    assert heard == ({TOPIC} if life.client.follows == "zeromq" else set())


@pytest_twisted.ensureDeferred
async def test_an_old_publication_changes_nothing(life: Life) -> None:
    server = life.server
    now = server.life["sequence"]
    for sequence in (now, now - 1, 1, 0):
        server.publish(clientState="RUNNING", sequence=sequence)
    former = server.life["incarnation"] - 1
    server.publish(clientState="RUNNING", sequence=now + 9, incarnation=former)
    server.becomes("CALIBRATED")
    await life.agrees()
    await life.beats(2)
    assert life.news == [life.now]


@pytest_twisted.ensureDeferred
async def test_a_publication_that_makes_no_sense_changes_nothing(life: Life) -> None:
    server = life.server
    for data in (b"", b"<html>", b"[]", b'{"messageType": 7}', b"\xff", b"[" * 9_000):
        server.publish_raw(data)
    server.tell("Silence", b'{"clientID": "1", "incarnation": 7, "seconds": 9}')
    server.tell("Fashion", b'{"new": true}')
    server.publish(clientState="PERPLEXED", sequence=server.life["sequence"] + 1)
    server.publish(sequence="x")
    server.becomes("CALIBRATED")
    await life.agrees()
    await life.beats(2)
    assert life.news == [life.now]
    assert "Traceback" not in life.program.output


@pytest_twisted.ensureDeferred
async def test_a_new_life_begins_with_a_beats_answer_at_sequence_1(life: Life) -> None:
    server = life.server
    server.becomes("RUNNING")
    await life.agrees()
    former = life.now
    server.begin_life()
    await life.agrees()
    assert life.news == [former, life.now]
    assert life.now == Change("UNCALIBRATED", former.incarnation + 1, 1)
    # What is still on its way from the former one is too late.
    server.publish(sequence=9, clientState="RUNNING", incarnation=former.incarnation)
    await life.beats(2)
    assert life.news == [former, life.now]


@pytest_twisted.ensureDeferred
async def test_a_later_life_that_is_published_waits_for_a_beat_to_tell(
    life: Life,
) -> None:
    server, asked = life.server, len(life.server.requests)
    server.publish(sequence=1, incarnation=server.life["incarnation"] + 1)
    await until(lambda: len(server.requests) > asked, BOUND)
    assert server.requests[asked].kind == "GetClientState"  # is it superseded?
    await life.beats(2)
    assert life.news == []


@pytest_twisted.ensureDeferred
async def test_when_its_death_is_published_a_beat_begins_the_next_life(
    life: Life,
) -> None:
    server = life.server
    server.life["heartbeatIntervalSeconds"] = 4.0
    server.life["timebombSeconds"] = 60
    await life.beats(1)
    await pause(SILENCE)  # it has read the answer, and would beat in seconds
    began = reactor.seconds()
    server.becomes("DISCONNECTED")
    died = life.now
    server.begin_life()
    server.life["heartbeatIntervalSeconds"] = INTERVAL
    await life.agrees()
    assert reactor.seconds() - began < 4.0 - SILENCE
    assert life.news == [died, life.now]
