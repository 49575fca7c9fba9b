"""Whoever runs the service reads in its log what it refuses, on either transport."""

from __future__ import annotations

from pathlib import Path

import pytest_twisted
from twisted.logger import LogEvent, formatEvent

from tests.integration.conftest import Running, Serve
from tests.messages import heartbeat


def told(logged: list[LogEvent], code: str) -> list[str]:
    """What the log says of this code."""
    lines = [formatEvent(event) or "" for event in logged]
    return [line for line in lines if line.startswith(f"requests refused with {code} ")]


@pytest_twisted.ensureDeferred
async def test_refusals_of_both_transports_are_counted_as_one(
    serve: Serve, logged: list[LogEvent]
) -> None:
    running = await serve(max_clients=1)
    await running.beat("1")
    dealer = running.dealer()
    for number in range(2):
        answer = await running.http("POST", "/heartbeat", heartbeat(f"http-{number}"))
        assert answer[0] == 503
        reply = await dealer.ask(heartbeat(f"zmq-{number}"))
        assert reply["body"]["code"] == "OVERLOADED"
    assert told(logged, "OVERLOADED") == [
        f"requests refused with OVERLOADED so far: {count}; now of {client}:"
        " 1 clients live already"
        for count, client in ((1, "http-0"), (2, "zmq-0"), (4, "zmq-1"))
    ]


@pytest_twisted.ensureDeferred
async def test_what_never_became_a_request_is_told_too(
    serve: Serve, logged: list[LogEvent], tmp_path: Path
) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("a-token-of-an-operator\n")
    running = await serve(operator_token_file=str(tokens))
    assert (await running.http("GET", "/no/such/path"))[0] == 404
    assert (await running.http("GET", "/clients"))[0] == 401
    for request, status in (
        (
            b"POST /heartbeat HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n",
            413,
        ),
        (b"\x1b[2J\xff\r\n\r\n", 400),
    ):
        wire = await running.wire()
        wire.send(request)
        assert (await wire.answer()).status == status
    reply = await running.dealer().ask(b"\x1b[2J\xff")
    assert reply["body"]["code"] == "BAD_MESSAGE"
    assert len(told(logged, "UNAUTHORIZED")) == 1
    assert len(told(logged, "TOO_LARGE")) == 1
    assert len(told(logged, "BAD_MESSAGE")) == 2  # the first two of three
    for event in logged:
        line = formatEvent(event) or ""
        assert line.isprintable()
        assert len(line) < 500


@pytest_twisted.ensureDeferred
async def test_a_host_that_makes_no_sense_is_told_too(
    running: Running, logged: list[LogEvent]
) -> None:
    for host in (b"\xff", b"x" * 64):
        wire = await running.wire()
        wire.send(b"GET /healthz HTTP/1.1\r\nHost: %s\r\n\r\n" % host)
        assert (await wire.answer()).status == 400
    assert len(told(logged, "BAD_MESSAGE")) == 2


@pytest_twisted.ensureDeferred
async def test_a_warning_comes_before_newcomers_are_refused(
    serve: Serve, logged: list[LogEvent]
) -> None:
    running = await serve(max_clients=10)
    for number in range(10):
        await running.beat(str(number))
    lines = [formatEvent(event) or "" for event in logged]
    assert [line for line in lines if "--max-clients" in line] == [
        "9 clients live, and no more than 10 may: see --max-clients"
    ]
    assert told(logged, "OVERLOADED") == []
