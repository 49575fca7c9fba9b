"""A server that is broken, or hostile: it goes on beating, and follows a sane one."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest_twisted
from twisted.internet.task import LoopingCall

from tests.conformance.life import BOUND, SLACK, Life
from tests.conformance.scripted import (
    FUSE,
    TOPIC,
    Answer,
    Connection,
    Request,
    refusing,
    saying,
)
from tests.integration.waiting import until
from tests.messages import envelope

OK = b"HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\n"
ENDLESS = OK + b"Content-Length: 1000000000000\r\n\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
ESCAPES = "\x1b[2J\x9b31m\r\nforged\u202e\u2028\x07"

#: The most that may be on its way to a client, in bytes: as much as Linux may hold at
#: both ends of a connection, which some machines set high, and 8 MiB of its own.
ON_THE_WAY = 8 * 1024 * 1024 + sum(
    int(Path(f"/proc/sys/net/ipv4/{buffer}").read_text("ascii").split()[-1])
    for buffer in ("tcp_rmem", "tcp_wmem")
)


async def bears(life: Life, *answers: Answer) -> None:
    """It gets each of these for two beats; it beats on, and a sane one is followed.

    Of each trouble it tells once, in words that can be printed.
    """
    server = life.server
    for answer in answers:
        life.mark()
        server.on_beat = answer
        former, later = await life.beats(2)
        assert later.at - former.at < FUSE + SLACK
        assert life.news == []
        server.be_sane()
        server.publishes = False  # a beat's answer shall tell
        server.becomes(
            "CALIBRATED" if server.life["clientState"] == "RUNNING" else "RUNNING"
        )
        await life.agrees()
        (line,) = life.complaints
        assert line.isprintable()


@pytest_twisted.ensureDeferred
async def test_half_an_answer_is_none(life: Life) -> None:
    def half(beat: Request) -> None:
        beat.write(ENDLESS + b'{"sdkVersion"')

    def half_and_the_end(beat: Request) -> None:
        beat.write(ENDLESS + b'{"sdkVersion"')
        assert beat.connection is not None
        beat.connection.transport.loseConnection()

    await bears(life, half, half_and_the_end, Request.hang_up)


@pytest_twisted.ensureDeferred
async def test_what_is_no_json_of_the_contract_is_no_answer(life: Life) -> None:
    reply = envelope(messageType="ClientState", body=life.server.life)
    bodies = (
        b"",
        b"<html>busy</html>",
        b"[]",
        b"null",
        b"[" * 60_000,
        b'"\xff\xfe"',
        reply[:-1],
        reply + b"}",
        reply.replace(b'"sequence":', b'"sequence":"x","a":'),
        reply.replace(b'"incarnation":', b'"other":'),
        reply.replace(b"UNCALIBRATED", b"PERPLEXED"),
        reply.replace(b'"ClientState"', b'"HEARTBEAT"'),
    )
    assert len(set(bodies)) == len(bodies)
    await bears(life, *map(saying, bodies))


@pytest_twisted.ensureDeferred
async def test_an_error_page_of_a_proxy_is_no_answer(life: Life) -> None:
    await bears(
        life,
        saying(b"<html>bad gateway</html>", "502 Bad Gateway"),
        saying(b"", "204 No Content"),
        saying(b'{"code": 7, "detail": []}', "500 Internal Server Error"),
    )
    assert "trying again" in life.program.output


@pytest_twisted.ensureDeferred
async def test_an_answer_that_is_too_long_is_given_up(life: Life) -> None:
    reply = envelope(messageType="ClientState", body=life.server.life)
    await bears(life, saying(reply + b" " * 70_000))
    assert "trying again" in life.program.output


@pytest_twisted.ensureDeferred
async def test_an_answer_without_an_end_is_cut_off_in_time(life: Life) -> None:
    floods: list[Connection] = []

    def flood(start: bytes, data: bytes) -> Answer:
        def answer(beat: Request) -> None:
            assert beat.connection is not None
            floods.append(beat.connection)
            beat.write(start, data)

        return answer

    for endless in (flood(ENDLESS, b"x"), flood(CHUNKED, b"1\r\nx\r\n")):
        life.server.life["timebombSeconds"] = 60  # it has patience with its beat
        await life.beats(2)
        told = life.program.output.count("longer than")
        await bears(life, endless)
        # By its length, and not when the beat's time was over.
        assert life.program.output.count("longer than") == told + 1
    await until(lambda: not any(one.is_open for one in floods), BOUND)
    assert {one.flooded < ON_THE_WAY for one in floods} == {True}


@pytest_twisted.ensureDeferred
async def test_publications_without_a_pause_keep_it_from_no_beat(life: Life) -> None:
    server = life.server
    old = {
        **server.life,
        "incarnation": 1,
        "previousState": "RUNNING",
        "reason": "kick",
    }
    event = b"event: OnStateChange\ndata: %s\n\n" % json.dumps(old).encode()
    message = envelope(messageType="OnStateChange", body=old)

    def publish() -> None:
        for _ in range(100):
            server.publisher.send_multipart([TOPIC, message])
        for stream in server.streams:
            stream.chunk(event * 300)

    publishing = LoopingCall(publish)
    publishing.start(0.005)
    beats = await life.beats(10)
    publishing.stop()
    pauses = [later.at - former.at for former, later in pairwise(beats)]
    assert max(pauses) < FUSE + SLACK, pauses


@pytest_twisted.ensureDeferred
async def test_a_redirect_is_not_followed(life: Life) -> None:
    server = life.server

    def redirect(status: str) -> Answer:
        location = f"Location: {server.url}/elsewhere"
        return saying(b"", status, location)

    await bears(life, *map(redirect, ("302 Found", "307 Temporary Redirect")))
    assert [path for path in server.paths if "elsewhere" in path] == []


@pytest_twisted.ensureDeferred
async def test_an_answer_about_another_is_none(life: Life) -> None:
    def about(**fields: str) -> Answer:
        return lambda beat: beat.reply(**fields, clientState="RUNNING", sequence=999)

    others = [about(clientID="2"), about(clientID="10"), about(instanceID="another")]
    await bears(life, *others, refusing("INSTANCE_SUPERSEDED", clientID="2"))
    assert 999 not in {change.sequence for change in life.changes}


@pytest_twisted.ensureDeferred
async def test_a_servers_words_can_always_be_printed(life: Life) -> None:
    await bears(
        life,
        refusing("FORBIDDEN", ESCAPES),
        refusing("FORBIDDEN", ESCAPES + "x" * 20_000),
    )
    assert max(map(len, life.program.output.splitlines())) < 1_000


@pytest_twisted.ensureDeferred
async def test_fields_and_framing_that_it_need_not_know_are_no_trouble(
    life: Life,
) -> None:
    server = life.server

    def in_chunks(beat: Request) -> None:
        body = envelope(
            messageType="ClientState", body=server.life, news=[1, {"a": None}]
        )
        pieces = (body[:7], body[7:99], body[99:])
        framed = b"".join(b"%x\r\n%s\r\n" % (len(one), one) for one in pieces)
        beat.write(CHUNKED + framed + b"0\r\n\r\n")

    def and_the_end(beat: Request) -> None:
        body = {**server.life, "fashion": "new", "more": {"of": ["it"]}}
        answer = envelope(messageType="ClientState", body=body)
        beat.say("200 OK", answer, "Connection: close")
        assert beat.connection is not None
        beat.connection.transport.loseConnection()

    answers: tuple[Callable[[Request], None], ...] = (in_chunks, and_the_end)
    for state, answer in zip(("RUNNING", "CALIBRATED"), answers, strict=True):
        server.on_beat, server.publishes = answer, False
        server.becomes(state)
        await life.agrees()
        await life.beats(2)
    assert life.complaints == []
