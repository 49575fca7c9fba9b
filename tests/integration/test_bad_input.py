"""Whatever strangers send: an error that says so, and a service that goes on.

``contract/`` holds what can be wrong with a message, and the unit tests read all of
it; a dozen go over each transport here. Below them is what only HTTP, and what only
ZeroMQ, can get wrong (contract, sections 3, 4).
"""

from __future__ import annotations

import json
import random
import struct
from typing import Any

import pytest
import pytest_twisted
import zmq
from twisted.logger import LogEvent

from heartbeat_service.zeromq.socket_options import MAX_FRAME
from tests.integration.conftest import Answer, Peer, Running, Wire, port_of
from tests.integration.waiting import until
from tests.messages import (
    BAD,
    BAD_MESSAGES,
    GOOD,
    Example,
    heartbeat,
    message,
    over_http,
    padded,
)

LIMIT = 64 * 1024

#: The errors of a message as HTTP tells them.
STATUS = {"BAD_MESSAGE": 400, "TOO_LARGE": 413}


def post(body: bytes, *headers: str, path: str = "/heartbeat") -> bytes:
    """A POST as it goes over the wire."""
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, *headers, "", ""]).encode() + body


def assert_problem(answer: Answer, status: int, code: str) -> dict[str, Any]:
    """It is a problem of the contract's section 3; its body."""
    assert answer.status == status
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert {"type", "title", "status", "detail", "code"} <= problem.keys()
    assert problem["status"] == status
    assert problem["code"] == code
    assert isinstance(problem["type"], str)
    for text in (problem["title"], problem["detail"]):
        assert isinstance(text, str)
        assert text
        assert "Traceback" not in text
    return problem


async def assert_it_goes_on(running: Running) -> None:
    """It still serves good clients by both transports, and publishes."""
    reply = await running.beat("good", "UNCALIBRATED")
    dealer = running.dealer()
    answer = await dealer.ask(heartbeat("good", "UNCALIBRATED"))
    assert answer["body"] == reply
    dealer.shutdown()


@pytest.mark.parametrize(
    "bad", [one for one in BAD_MESSAGES if one.everywhere], ids=lambda one: one.name
)
@pytest_twisted.ensureDeferred
async def test_a_bad_message_gets_its_code_on_both_transports(
    running: Running, tracebacks: list[LogEvent], bad: Example
) -> None:
    wire = await running.wire()
    wire.send(post(bad.data))
    problem = assert_problem(await wire.answer(), STATUS[bad.code], bad.code)

    dealer = running.dealer()
    reply = await dealer.ask(bad.data)
    assert reply["messageType"] == "Error"
    assert reply["body"]["code"] == bad.code
    for told in (problem, reply["body"]):
        assert bad.detail in told["detail"]
        assert told.get("clientID") == bad.client_id
    for named in (problem, reply):
        assert named.get("requestID") == bad.request_id
    # A REQ client is answered too, in its own shape.
    dealer.send_multipart([b"", bad.data])
    delimiter, content = await dealer.receive()
    assert (delimiter, json.loads(content)["body"]["code"]) == (b"", bad.code)

    assert (await running.get("/clients"))["clients"] == []
    await assert_it_goes_on(running)
    assert tracebacks == []


@pytest.mark.parametrize(
    "good", [one for one in GOOD if one.everywhere], ids=lambda one: one.name
)
@pytest_twisted.ensureDeferred
async def test_a_barely_good_message_is_accepted_on_both_transports(
    running: Running, good: Example
) -> None:
    wire = await running.wire()
    wire.send(post(good.data))
    answer = await wire.answer()
    assert answer.status == 200, answer.body
    reply = await running.dealer().ask(good.data)
    assert reply["messageType"] == "ClientState", reply
    ids = [reply["body"]["clientID"], answer.json()["body"]["clientID"]]
    assert ids == [good.client_id] * 2
    for named in (reply, answer.json()):
        assert named.get("requestID") == good.request_id


@pytest.mark.parametrize(("asked", "given"), [(1e-9, 0.1), (0.05, 0.1), (1e300, 3600)])
@pytest_twisted.ensureDeferred
async def test_a_fuse_that_a_client_asks_for_is_clamped(
    running: Running, asked: float, given: float
) -> None:
    assert (await running.beat("1", timebombSeconds=asked))["timebombSeconds"] == given


@pytest.mark.parametrize("huge", [10**30, -(10**30)])
@pytest_twisted.ensureDeferred
async def test_an_incarnation_of_any_length_is_one_that_is_not_known(
    running: Running, huge: int
) -> None:
    life = (await running.beat("1"))["incarnation"]
    dealer = running.dealer()
    reply = await dealer.ask(message("Goodbye", clientID="1", incarnation=huge))
    assert reply["body"]["code"] == "STALE_INCARNATION"
    reply = await dealer.ask(message("GetClientState", clientID="1"))
    assert (reply["body"]["sequence"], reply["body"]["incarnation"]) == (1, life)


# What only HTTP can get wrong.

_HEAD = b"POST /heartbeat HTTP/1.1\r\nHost: localhost\r\n"
_CHUNKED = _HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
_TOO_LONG = b"Content-Length: %d\r\n" % (LIMIT + 1)


def request(first_line: bytes, *lines: bytes) -> bytes:
    """A request without a body; it has a Host unless it brings its own."""
    host = (
        [] if any(line.startswith(b"Host") for line in lines) else [b"Host: localhost"]
    )
    return b"\r\n".join([first_line + b" HTTP/1.1", *host, *lines, b"", b""])


BAD_HTTP: dict[str, tuple[bytes, int, str]] = {
    "no such path": (request(b"GET /nowhere"), 404, "BAD_MESSAGE"),
    "a path below a path": (request(b"GET /healthz/x"), 404, "BAD_MESSAGE"),
    "a path in another case": (request(b"GET /Clients"), 404, "BAD_MESSAGE"),
    "a trailing slash": (request(b"GET /clients/"), 404, "BAD_MESSAGE"),
    "a slash in an ID": (request(b"GET /clients/a%2Fb"), 404, "BAD_MESSAGE"),
    "an impossible ID": (request(b"GET /clients/a%20b"), 404, "UNKNOWN_CLIENT"),
    "a zero byte in an ID": (request(b"GET /clients/%00"), 404, "UNKNOWN_CLIENT"),
    "an unknown client": (request(b"GET /clients/1"), 404, "UNKNOWN_CLIENT"),
    "no path at all": (request(b"GET *"), 404, "BAD_MESSAGE"),
    "options of no path": (request(b"OPTIONS *"), 404, "BAD_MESSAGE"),
    "wrong method": (request(b"GET /heartbeat"), 405, "BAD_MESSAGE"),
    "unknown method": (request(b"BREW /clients"), 405, "BAD_MESSAGE"),
    "malformed Host": (request(b"GET /healthz", b"Host: a..b"), 400, "BAD_MESSAGE"),
    "Host not UTF-8": (request(b"GET /healthz", b"Host: \xff\xfe"), 400, "BAD_MESSAGE"),
    "path not UTF-8": (request(b"GET /clients/%ff"), 400, "BAD_MESSAGE"),
    "bare bytes in the path": (request(b"GET /clients/\xff"), 400, "BAD_MESSAGE"),
    "not HTTP at all": (b"hello\r\n\r\n", 400, "BAD_MESSAGE"),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n", 400, "BAD_MESSAGE"),
    "HTTP/0.9": (b"GET /healthz\r\n\r\n", 400, "BAD_MESSAGE"),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "BAD_MESSAGE"),
    "a line without an end": (b"G" * 20_000, 400, "BAD_MESSAGE"),
    "a header line too long": (
        request(b"GET /healthz", b"X: " + b"x" * 20_000),
        431,
        "BAD_MESSAGE",
    ),
    "too many headers": (
        request(b"GET /healthz", *(b"X-%d: x" % i for i in range(600))),
        431,
        "BAD_MESSAGE",
    ),
    "a header without a colon": (
        request(b"GET /healthz", b"hello"),
        400,
        "BAD_MESSAGE",
    ),
    "Content-Length over 64 KiB": (_HEAD + _TOO_LONG + b"\r\n", 413, "TOO_LARGE"),
    "Content-Length over 64 KiB, asking first": (
        _HEAD + _TOO_LONG + b"Expect: 100-continue\r\n\r\n",
        413,
        "TOO_LARGE",
    ),
    "Content-Length far beyond": (
        _HEAD + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n",
        413,
        "TOO_LARGE",
    ),
    "Content-Length of thousands of digits": (
        _HEAD + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n",
        413,
        "TOO_LARGE",
    ),
    "a chunk over 64 KiB": (
        _CHUNKED + b"%x\r\n" % (LIMIT + 1) + b"x" * (LIMIT + 1),
        413,
        "TOO_LARGE",
    ),
    "chunks over 64 KiB": (
        _CHUNKED + (b"1000\r\n" + b"x" * 4096 + b"\r\n") * 17,
        413,
        "TOO_LARGE",
    ),
    "Content-Length negative": (
        _HEAD + b"Content-Length: -1\r\n\r\n",
        400,
        "BAD_MESSAGE",
    ),
    "Content-Length no number": (
        _HEAD + b"Content-Length: x\r\n\r\n",
        400,
        "BAD_MESSAGE",
    ),
    "two Content-Lengths": (
        _HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
        400,
        "BAD_MESSAGE",
    ),
    "Content-Length and chunked": (
        _HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
        "BAD_MESSAGE",
    ),
    "chunked and Content-Length": (
        _HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        400,
        "BAD_MESSAGE",
    ),
    "an unknown transfer encoding": (
        _HEAD + b"Transfer-Encoding: gzip\r\n\r\n",
        400,
        "BAD_MESSAGE",
    ),
    "chunk size no number": (_CHUNKED + b"zz\r\n", 400, "BAD_MESSAGE"),
    "chunk size negative": (_CHUNKED + b"-1\r\n", 400, "BAD_MESSAGE"),
    "chunk size empty": (_CHUNKED + b"\r\n", 400, "BAD_MESSAGE"),
    "chunk size without an end": (_CHUNKED + b"0" * 5000, 400, "BAD_MESSAGE"),
    "chunk longer than its size": (_CHUNKED + b"2\r\nxxxx\r\n", 400, "BAD_MESSAGE"),
    "trailers without an end": (
        _CHUNKED + b"0\r\n" + b"X: x\r\n" * 20_000,
        400,
        "BAD_MESSAGE",
    ),
}


@pytest.mark.parametrize(
    ("sent", "status", "code"), BAD_HTTP.values(), ids=BAD_HTTP.keys()
)
@pytest_twisted.ensureDeferred
async def test_bad_http_gets_a_problem(
    running: Running,
    tracebacks: list[LogEvent],
    sent: bytes,
    status: int,
    code: str,
) -> None:
    wire = await running.wire()
    wire.send(sent)
    assert_problem(await wire.answer(), status, code)
    await assert_it_goes_on(running)
    assert wire.received == b""  # the one answer was all
    assert tracebacks == []


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/heartbeat", {"POST"}),
        ("PUT", "/Heartbeat/Update", {"POST"}),
        ("POST", "/clients", {"GET", "HEAD"}),
        ("PUT", "/clients/1", {"GET", "HEAD", "DELETE"}),
        ("GET", "/clients/1/state", {"PUT"}),
        ("POST", "/clients/state", {"GET", "HEAD", "DELETE", "PUT"}),
        ("DELETE", "/clients/1/history", {"GET", "HEAD"}),
        ("POST", "/healthz", {"GET", "HEAD"}),
        ("DELETE", "/readyz", {"GET", "HEAD"}),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_wrong_method_is_told_the_right_ones(
    running: Running, method: str, path: str, allowed: set[str]
) -> None:
    wire = await running.wire()
    wire.send(request(f"{method} {path}".encode()))
    answer = await wire.answer()
    assert_problem(answer, 405, "BAD_MESSAGE")
    assert set(answer.headers["allow"].split(", ")) == allowed


@pytest_twisted.ensureDeferred
async def test_a_body_within_the_limit_is_asked_for(running: Running) -> None:
    body = heartbeat("1")
    wire = await running.wire()
    wire.send(post(body, "Expect: 100-continue")[: -len(body)])
    assert (await wire.answer()).status == 100
    wire.send(body)
    assert (await wire.answer()).status == 200


@pytest_twisted.ensureDeferred
async def test_a_chunked_heartbeat_is_accepted(running: Running) -> None:
    wire = await running.wire()
    wire.send(_CHUNKED)
    body = padded(200)
    for start in range(0, len(body), 5):
        wire.send(b"5;extension\r\n%s\r\n" % body[start : start + 5])
    wire.send(b"0\r\nTrailer: x\r\n\r\n")
    answer = await wire.answer()
    assert (answer.status, answer.json()["body"]["clientID"]) == (200, "1")


_CHUNK = b"%x\r\n" % LIMIT + b"x" * LIMIT + b"\r\n"


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        (_HEAD + b"Content-Length: 5000000\r\n\r\n", b"x" * LIMIT),
        (_CHUNKED, _CHUNK),
    ],
    ids=["with a Content-Length", "chunked"],
)
@pytest_twisted.ensureDeferred
async def test_who_goes_on_sending_after_a_413_still_gets_to_read_it(
    running: Running, head: bytes, piece: bytes
) -> None:
    wire = await running.wire()
    wire.transport.pauseProducing()  # as one who reads only when all is sent
    wire.send(head)
    for _ in range(5_000_000 // LIMIT + 1):
        wire.send(piece)
    await wire.all_sent()
    wire.transport.resumeProducing()
    assert_problem(await wire.answer(), 413, "TOO_LARGE")
    await wire.end()


@pytest_twisted.ensureDeferred
async def test_a_body_that_is_refused_is_not_taken_by_half(running: Running) -> None:
    wire = await running.wire()
    good = b"%x\r\n%s\r\n" % (LIMIT, padded(LIMIT))
    wire.send(_CHUNKED + good + b"1\r\n \r\n0\r\n\r\n")
    assert_problem(await wire.answer(), 413, "TOO_LARGE")
    await wire.end()
    assert (await running.get("/clients"))["clients"] == []


@pytest_twisted.ensureDeferred
async def test_who_is_refused_and_talks_on_is_cut_off(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("heartbeat_service.web.channel.LINGER", 0.2)
    wire = await running.wire()
    wire.send(b"hello\r\n\r\n")

    async def is_cut_off() -> bool:
        wire.send(b"x")
        return wire.lost

    await until(is_cut_off)
    assert_problem(await wire.answer(), 400, "BAD_MESSAGE")


@pytest_twisted.ensureDeferred
async def test_who_is_refused_is_hung_up_on(running: Running) -> None:
    wire = await running.wire()
    wire.send(b"hello\r\n\r\n" + request(b"GET /healthz"))
    answer = await wire.answer()
    assert answer.status == 400
    assert answer.headers["connection"] == "close"
    await wire.end()


@pytest_twisted.ensureDeferred
async def test_what_came_before_a_bad_request_is_answered_before_it(
    running: Running,
) -> None:
    wire = await running.wire()
    wire.send(post(heartbeat("1")) + b"hello\r\n\r\n")
    assert (await wire.answer()).status == 200
    assert_problem(await wire.answer(), 400, "BAD_MESSAGE")
    await wire.end()


@pytest_twisted.ensureDeferred
async def test_a_problem_leaves_the_connection_for_the_next_request(
    running: Running,
) -> None:
    wire = await running.wire()
    wire.send(post(b"no message") + request(b"GET /nowhere") + post(heartbeat("1")))
    assert_problem(await wire.answer(), 400, "BAD_MESSAGE")
    assert_problem(await wire.answer(), 404, "BAD_MESSAGE")
    assert (await wire.answer()).status == 200


ORDERS = {
    "order": "PUT /clients/1/state",
    "orders": "PUT /clients/state",
    "silence": "PUT /clients/1/silence",
    "silences": "PUT /clients/silence",
    "lockout": "PUT /clients/1/lockout",
    "lockouts": "PUT /clients/lockout",
    "kick": "DELETE /clients/1",
    "kicks": "POST /clients/kick",
}


@pytest.mark.parametrize(
    ("bad", "first"),
    [
        pytest.param(one, ORDERS[to], id=f"{ORDERS[to]} {one.name}")
        for one in BAD
        for to in ORDERS
        if one.everywhere and one.to == to
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_bad_order_of_an_operator_gets_a_problem(
    running: Running, bad: Example, first: str
) -> None:
    present = await running.beat("1")
    wire = await running.wire()
    wire.send(over_http(first, body=bad.data))
    problem = assert_problem(await wire.answer(), 400, bad.code)
    assert bad.detail in problem["detail"]
    assert await running.beat("1") == present


@pytest.mark.parametrize(
    "first",
    [
        *("GET /clients", "GET /clients/1", "GET /clients/1/history", "GET /lockouts"),
        *ORDERS.values(),
    ],
)
@pytest.mark.parametrize(
    ("query", "detail"),
    [
        ("dryRun=true", "Unknown parameter `dryRun`; "),
        ("dryRun", "Expected `?NAME=VALUE&NAME=VALUE"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_parameter_that_an_operators_route_does_not_know_is_a_problem(
    running: Running, first: str, query: str, detail: str
) -> None:
    present = await running.beat("1")
    wire = await running.wire()
    order = b'{"clientState":"RUNNING"}'
    wire.send(over_http(f"{first}?{query}", body=order if "state" in first else b""))
    problem = assert_problem(await wire.answer(), 400, "BAD_MESSAGE")
    assert problem["detail"].startswith(detail)
    assert await running.beat("1") == present


@pytest.mark.parametrize("first", ["GET /clients/a%20b", "DELETE /clients/a%20b"])
@pytest_twisted.ensureDeferred
async def test_who_asks_for_an_impossible_id_is_told_what_ids_are_like(
    running: Running, first: str
) -> None:
    wire = await running.wire()
    wire.send(over_http(first))
    problem = assert_problem(await wire.answer(), 404, "UNKNOWN_CLIENT")
    assert "1 to 64 characters of A-Z a-z 0-9 . _ : @ -" in problem["detail"]


@pytest.mark.parametrize(
    "path", ["/clients", "/clients/1", "/clients/1/history", "/lockouts"]
)
@pytest_twisted.ensureDeferred
async def test_a_question_in_a_body_is_a_problem(running: Running, path: str) -> None:
    await running.beat("1")
    wire = await running.wire()
    wire.send(over_http(f"GET {path}", body=b'{"gone":true}'))
    problem = assert_problem(await wire.answer(), 400, "BAD_MESSAGE")
    assert problem["detail"] == "A GET takes no body, only parameters"
    wire.send(over_http(f"GET {path}", body=b""))
    assert (await wire.answer()).status == 200


@pytest_twisted.ensureDeferred
async def test_parameters_of_beats_and_of_health_are_ignored(running: Running) -> None:
    wire = await running.wire()
    wire.send(over_http("POST /heartbeat?x&y=%ff", body=heartbeat("1")))
    assert (await wire.answer()).status == 200
    for path in ("/healthz", "/readyz"):
        wire.send(over_http(f"GET {path}?x&y=%ff"))
        assert (await wire.answer()).status == 200


# What only ZeroMQ can get wrong.


def zmtp_greeting() -> bytes:
    """What a ZMTP 3.0 peer says first, without security."""
    return b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)


def zmtp_ready(socket_type: bytes) -> bytes:
    """The end of a ZMTP handshake."""
    said = b"\x05READY\x0bSocket-Type" + struct.pack(">I", len(socket_type))
    said += socket_type
    return b"\x04%c" % len(said) + said


def zmtp_frame(data: bytes) -> bytes:
    """A message of one frame."""
    return b"\x02" + struct.pack(">Q", len(data)) + data


async def stranger(running: Running, address: str, socket_type: bytes) -> Wire:
    """A TCP connection that has done the handshake of a ZeroMQ socket."""
    wire = await running.wire(port_of(address))
    wire.send(zmtp_greeting())
    await wire.at_least(64)
    wire.send(zmtp_ready(socket_type))
    assert await wire.at_least(1) == b"\x04"
    (length,) = await wire.at_least(1)
    assert b"READY" in await wire.at_least(length)
    return wire


@pytest.mark.parametrize(
    ("frames", "delimited"),
    [
        ([b""], False),
        ([b"", b""], True),
        ([heartbeat("1"), b""], False),
        ([heartbeat("1"), heartbeat("1")], False),
        ([b"", heartbeat("1"), b""], True),
        ([b"", b"", heartbeat("1")], True),
        ([b"x", heartbeat("1")], False),
        ([b"", *[b"x"] * 1000], True),
        ([b"x"] * 1000, False),
    ],
    ids=[
        "no content",
        "no content, delimited",
        "an empty frame behind",
        "two messages",
        "an empty frame behind, delimited",
        "two delimiters",
        "no delimiter but a frame",
        "1000 frames, delimited",
        "1000 frames",
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_request_of_any_but_one_frame_is_a_bad_message(
    running: Running,
    tracebacks: list[LogEvent],
    frames: list[bytes],
    delimited: bool,
) -> None:
    dealer = running.dealer()
    dealer.send_multipart(frames)
    *delimiter, content = await dealer.receive()
    assert delimiter == ([b""] if delimited else [])
    assert json.loads(content)["body"]["code"] == "BAD_MESSAGE"
    assert (await running.get("/clients"))["clients"] == []
    assert (await dealer.ask(heartbeat("1")))["messageType"] == "ClientState"
    await assert_it_goes_on(running)
    assert tracebacks == []


@pytest_twisted.ensureDeferred
async def test_a_message_over_64_kib_is_answered_up_to_the_longest_frame(
    running: Running,
) -> None:
    dealer = running.dealer()
    for length in (LIMIT + 1, MAX_FRAME):
        assert (await dealer.ask(padded(length)))["body"]["code"] == "TOO_LARGE"
    assert (await dealer.ask(heartbeat("1")))["messageType"] == "ClientState"


@pytest_twisted.ensureDeferred
async def test_a_frame_over_the_limit_disconnects_only_its_sender(
    running: Running, tracebacks: list[LogEvent]
) -> None:
    dealer, other = running.dealer(), running.dealer()
    await dealer.ask(heartbeat("1"))
    wire = await stranger(running, running.service.router, b"DEALER")
    subscribed = await stranger(running, running.service.pub, b"SUB")

    # It is refused by its length alone.
    wire.send(zmtp_frame(bytes(MAX_FRAME + 1))[:9])
    await wire.end()
    subscribed.send(zmtp_frame(bytes(MAX_FRAME + 1))[:9])
    await subscribed.end()

    # Replies and publications go to the others as before.
    assert (await dealer.ask(heartbeat("1")))["body"]["sequence"] == 1
    assert (await other.ask(heartbeat("1")))["body"]["sequence"] == 1
    await running.subscriber()
    assert tracebacks == []


_NOISE = random.Random(1).randbytes(100_000)  # noqa: S311 - the same each time

GARBAGE: dict[str, bytes] = {
    "HTTP": post(heartbeat("1")),
    "noise": _NOISE,
    "zeros": bytes(10_000),
    "a greeting cut off": zmtp_greeting()[:40],
    "a greeting and noise": zmtp_greeting() + _NOISE,
    "a greeting of another age": b"\xff" + bytes(8) + b"\x7f\x09" + bytes(100),
    "an unknown mechanism": zmtp_greeting().replace(b"NULL", b"NONE"),
    "a frame of endless length": zmtp_greeting()
    + zmtp_ready(b"DEALER")
    + b"\x02"
    + b"\xff" * 8,
    "a socket of no known type": zmtp_greeting() + zmtp_ready(b"HELLO"),
    "an odd subscription": zmtp_greeting()
    + zmtp_ready(b"SUB")
    + zmtp_frame(b"\x07OnStateChange/"),
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE.keys())
@pytest_twisted.ensureDeferred
async def test_garbage_at_a_zeromq_port_disturbs_nobody(
    running: Running, tracebacks: list[LogEvent], garbage: bytes
) -> None:
    dealer = running.dealer()
    subscriber = await running.subscriber(b"OnStateChange/1/")
    reply = (await dealer.ask(heartbeat("1")))["body"]
    for address in (running.service.router, running.service.pub):
        wire = await running.wire(port_of(address))
        wire.send(garbage)
        hung_up = await running.wire(port_of(address))
        hung_up.send(garbage)
        await hung_up.leave()

    await assert_it_goes_on(running)
    assert (await dealer.ask(heartbeat("1")))["body"] == reply
    await running.kick("1")
    reasons = [(await subscriber.change())["reason"] for _ in range(2)]
    assert reasons == ["heartbeat", "kick"]
    assert tracebacks == []


@pytest_twisted.ensureDeferred
async def test_a_peer_that_vanishes_before_its_reply_disturbs_nobody(
    running: Running, tracebacks: list[LogEvent]
) -> None:
    dealer = running.dealer()
    count = 20
    for i in range(count):
        wire = await stranger(running, running.service.router, b"DEALER")
        wire.send(zmtp_frame(heartbeat(f"gone-{i}")))
        wire.send(zmtp_frame(b"no message"))
        await wire.all_sent()
        wire.abort()

    async def all_were_served() -> bool:
        return len((await running.get("/clients"))["clients"]) == count

    await until(all_were_served)
    assert (await dealer.ask(heartbeat("1")))["body"]["clientID"] == "1"
    await assert_it_goes_on(running)
    assert tracebacks == []


@pytest_twisted.ensureDeferred
async def test_a_peer_under_its_old_identity_is_served_and_the_former_one_is_not(
    running: Running,
) -> None:
    async def connect() -> Peer:
        peer = Peer(running.factory, zmq.DEALER)
        peer.socket.set(zmq.IDENTITY, b"me")
        peer.connect(running.service.router)
        return peer

    first = await connect()
    reply = await first.ask(heartbeat("1"))
    # The first one's connection still stands.
    second = await connect()
    assert await second.ask(message("GetClientState", clientID="1")) | {
        "timestamp": ""
    } == reply | {"timestamp": ""}
    assert first.send_multipart([heartbeat("2")])
    for _ in range(20):
        assert (await second.ask(heartbeat("1")))["body"] == reply["body"]
    assert first.inbox.pending == []
    living = (await running.get("/clients"))["clients"]
    assert [client["clientID"] for client in living] == ["1"]
