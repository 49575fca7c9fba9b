"""It beats: as often as it is told, one beat at a time, over one connection."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest_twisted

from tests.conformance.life import BOUND, SLACK, TOKEN, Life, gap
from tests.conformance.scripted import CLIENT, FUSE, INTERVAL, Request, saying
from tests.integration.waiting import SILENCE, pause, until
from tests.messages import envelope

#: No server makes a client beat faster than this, in seconds.
SHORTEST = 0.01

#: Intervals that make no sense, and how many waits tell what a client makes of them.
HOSTILE = {"1e-9": 20, "1e300": 1, "1e999": 1, "0": 1, "-1": 1, "NaN": 1}
HOSTILE |= {"null": 1, '"1"': 1}


@pytest_twisted.ensureDeferred
async def test_it_beats_as_often_as_it_is_told_and_no_faster(life: Life) -> None:
    for interval, count in ((INTERVAL, 16), (4 * INTERVAL, 4)):
        life.server.life["heartbeatIntervalSeconds"] = interval
        await life.beats(2)  # it has read of it when the second comes
        first, *_, last = beats = await life.beats(count)
        assert gap(first, last) >= (len(beats) - 1) * interval
        assert last.at - first.at < (len(beats) - 1) * interval + SLACK


@pytest_twisted.ensureDeferred
async def test_no_beat_is_sent_before_the_last_one_was_answered(life: Life) -> None:
    server, held = life.server, list[Request]()
    server.life["timebombSeconds"] = 60
    await life.beats(2)
    server.on_beat = held.append
    await until(lambda: bool(held))
    await pause(max(SILENCE, 4 * INTERVAL))
    assert len(held) == 1
    server.be_sane()
    held[0].reply()
    await life.beats(2)


@pytest_twisted.ensureDeferred
async def test_a_beat_without_an_answer_is_given_up_by_half_the_fuse(
    life: Life,
) -> None:
    server, held = life.server, list[Request]()
    server.on_beat = held.append
    await until(lambda: len(held) >= 3)
    for former, later in pairwise(held):
        assert gap(former, later) > INTERVAL
        assert later.at - former.at < FUSE + SLACK
    server.be_sane()
    await life.agrees()
    (line,) = life.complaints
    assert "no answer" in line


@pytest_twisted.ensureDeferred
async def test_it_holds_one_connection_of_each_kind_and_opens_no_others(
    life: Life,
) -> None:
    server = life.server
    if life.client.follows == "events":  # they have one, and so may what it asks
        most = {"http": 3, "router": 0, "pub": 0}
    else:
        most = {"http": 1, "router": 1, "pub": 1}

    def no_more() -> bool:
        held = server.open_connections()
        return all(held[kind] <= most[kind] for kind in most)

    await until(no_more, BOUND)  # those of the cases before are gone soon
    opened = len(server.connections)
    await life.beats(10)
    assert len(server.connections) == opened
    assert no_more()


@pytest_twisted.ensureDeferred
async def test_each_beat_says_who_it_is_and_the_state_that_it_has_heard_of(
    life: Life,
) -> None:
    server = life.server
    server.becomes("RUNNING")
    await life.agrees()
    await life.beats(1)  # it may have been on its way
    for beat in await life.beats(3):
        assert beat.kind == "HEARTBEAT"
        assert isinstance(beat.message["sdkVersion"], int | float)
        assert abs(beat.sent - beat.at) < 60
        assert beat.body["clientID"] == CLIENT
        assert beat.body["clientState"] == "RUNNING"
    assert {beat.body["clientState"] for beat in server.beats[:1]} == {"DISCONNECTED"}
    (instance,) = {beat.body["instanceID"] for beat in server.beats}
    assert re.fullmatch(r"[A-Za-z0-9._:@-]{1,64}", instance)


@pytest_twisted.ensureDeferred
async def test_each_request_by_http_shows_its_token(life: Life) -> None:
    server = life.server
    server.cut(server.streams)
    await life.beats(2)
    by_http = [one.headers for one in server.beats + server.requests if one.headers]
    for headers in by_http + [headers for _, headers in server.event_requests]:
        assert headers["authorization"] == f"Bearer {TOKEN}"
    for headers in by_http:
        assert headers["content-type"].startswith("application/json")
    assert by_http


@pytest_twisted.ensureDeferred
async def test_an_interval_that_makes_no_sense_neither_silences_nor_hurries_it(
    life: Life,
) -> None:
    server = life.server
    for interval, waits in HOSTILE.items():
        await life.beats(1)
        sane = {**server.life, "heartbeatIntervalSeconds": 0.123}
        body = envelope(messageType="ClientState", body=sane)
        hostile = body.replace(b"0.123", interval.encode())
        assert hostile != body
        server.on_beat = saying(hostile)
        first, *_, last = await life.beats(1 + waits)
        assert last.at - first.at < waits * FUSE / 2 + SLACK, interval
        assert gap(first, last) >= waits * SHORTEST, interval
        server.be_sane()
