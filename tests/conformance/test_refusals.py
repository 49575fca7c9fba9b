"""The server says no: it is told once, and what follows is the contract's."""

from __future__ import annotations

import pytest_twisted

from heartbeat_service.web.problem import STATUS
from tests.conformance.life import BOUND, SLACK, Life, gap
from tests.conformance.scripted import FUSE, INTERVAL, refusing, sanely
from tests.integration.waiting import SILENCE, pause, until

#: All codes of the contract but the one that ends a client.
CODES = [code for code in STATUS if code != "INSTANCE_SUPERSEDED"]


def words(code: str) -> str:
    """What the server says with that code, for people."""
    return f"no, for {code} is what it is"


@pytest_twisted.ensureDeferred
async def test_each_error_to_a_beat_is_told_once_and_it_beats_on(life: Life) -> None:
    server = life.server
    for code in CODES:
        server.on_beat = refusing(code, words(code))
        first, last = await life.beats(2)
        assert last.at - first.at < FUSE / 2 + SLACK
        server.be_sane()
        await life.beats(2)  # the answer to the first of them was read
    told = life.complaints
    for code in CODES:
        (line,) = [line for line in told if words(code) in line]
        assert f"({code})" in line or code == "OVERLOADED", line


@pytest_twisted.ensureDeferred
async def test_each_error_to_get_client_state_is_told_and_it_goes_on(
    life: Life,
) -> None:
    server, codes = life.server, list(CODES)
    if life.client.follows == "events":
        codes.remove("BAD_MESSAGE")  # so says a server that takes none by HTTP yet
    for code in codes:
        asked = len(server.requests)
        server.on_request = refusing(code, words(code))
        async with life.misses_one("RUNNING"):
            await life.complains(words(code))
        assert server.requests[asked].kind == "GetClientState"
        await life.beats(2)
        await life.agrees()
    lines = [line for line in life.complaints if "is what it is" in line]
    assert len(lines) <= 2 * len(CODES)


@pytest_twisted.ensureDeferred
async def test_an_overloaded_server_is_given_the_time_that_it_asks_for(
    life: Life,
) -> None:
    server, delay = life.server, 12 * INTERVAL
    server.life["timebombSeconds"] = 10 * delay
    await life.beats(2)
    server.on_beat = refusing("OVERLOADED", retryAfterSeconds=delay)
    former, *others = await life.beats(3)
    for later in others:
        assert gap(former, later) >= delay
        assert later.at - former.at < delay + SLACK
        former = later


@pytest_twisted.ensureDeferred
async def test_an_overloaded_server_gets_no_more_than_half_the_fuse(
    life: Life,
) -> None:
    life.server.life["timebombSeconds"] = FUSE / 2
    for seconds in (1e300, -1e300):
        await life.beats(1)
        life.server.on_beat = refusing("OVERLOADED", retryAfterSeconds=seconds)
        former, *others = await life.beats(3)
        for later in others:
            assert gap(former, later) >= INTERVAL
            assert later.at - former.at < FUSE / 4 + SLACK
            former = later
        life.server.on_beat = sanely


@pytest_twisted.ensureDeferred
async def test_one_that_is_refused_beats_less_often_but_before_its_fuse_ends(
    life: Life,
) -> None:
    life.server.on_beat = refusing("UNAUTHORIZED")
    await life.beats(2)
    first, *_, last = beats = await life.beats(6)
    assert gap(first, last) > (len(beats) - 1) * INTERVAL
    assert last.at - first.at < (len(beats) - 1) * FUSE / 2 + SLACK


@pytest_twisted.ensureDeferred
async def test_one_that_is_locked_out_beats_on_every_interval_and_is_let_in(
    life: Life,
) -> None:
    server = life.server
    server.life["timebombSeconds"] = 60  # it could take its time
    await life.beats(2)
    server.on_beat = refusing("LOCKED_OUT")
    await life.complains("(LOCKED_OUT)")
    first, *_, last = beats = await life.beats(14)
    assert gap(first, last) >= (len(beats) - 1) * INTERVAL
    assert last.at - first.at < 2 * len(beats) * INTERVAL + SLACK
    server.begin_life()
    server.be_sane()
    await life.agrees()
    assert life.news == [life.now]


@pytest_twisted.ensureDeferred
async def test_one_that_a_beat_tells_is_superseded_stops_for_good(life: Life) -> None:
    server = life.server
    server.on_beat = refusing("INSTANCE_SUPERSEDED", "another is it")
    await until(lambda: life.program.status is not None, BOUND)
    assert life.program.status == 1
    await _has_stopped(life)


@pytest_twisted.ensureDeferred
async def test_one_that_an_answer_tells_is_superseded_stops_for_good(
    life: Life,
) -> None:
    server = life.server
    server.on_request = refusing("INSTANCE_SUPERSEDED", "another is it")
    async with life.misses_one("RUNNING"):
        await until(lambda: life.program.status is not None, BOUND)
    assert life.program.status == 1
    await _has_stopped(life)


async def _has_stopped(life: Life) -> None:
    """It says why, and neither Goodbye nor anything else any more."""
    beats = len(life.server.beats)
    await pause(SILENCE)
    assert life.program.status == 1
    assert any("stopped: another is it" in line for line in life.complaints)
    assert len(life.server.beats) == beats
    assert {one.kind for one in life.server.requests} == {"GetClientState"}
