"""Pages of other sites, and names that point here (contract, "Browsers and names")."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
import pytest_twisted

from tests.integration.conftest import Answer, Running, Serve
from tests.integration.test_bad_input import assert_problem, request
from tests.messages import heartbeat

CONSOLE = "https://console.example:8443"
EVIL = "http://evil.example"
TAKEOVER = heartbeat("v", instanceID="evil")
ORDER = json.dumps({"clientState": "RUNNING"}).encode()
TO_ALL = json.dumps({"clientState": "RUNNING", "all": True}).encode()

#: (first line, body) of what a page would do to the client "v".
HEARTBEATS = [
    ("POST /heartbeat", TAKEOVER),
    ("POST /Heartbeat/Update", TAKEOVER),
    ("POST http://127.0.0.1/heartbeat", TAKEOVER),
]
STEERING = [
    ("GET /clients", b""),
    ("GET /clients/v", b""),
    ("GET /clients/v/history", b""),
    ("PUT /clients/v/state", ORDER),
    ("PUT /clients/state", TO_ALL),
    ("DELETE /clients/v", b""),
]
HEALTH = [("GET /healthz", b""), ("GET /readyz", b"")]


async def ask(
    running: Running, first_line: str, *lines: str, body: bytes = b""
) -> Answer:
    """One request of these lines; its Host is localhost unless they say another."""
    wire = await running.wire()
    length = f"Content-Length: {len(body)}"
    wire.send(
        request(first_line.encode(), *(line.encode() for line in (*lines, length)))
        + body
    )
    answer = await wire.answer()
    wire.abort()
    return answer


async def assert_forbidden(
    running: Running, first_line: str, *lines: str, body: bytes = b""
) -> Answer:
    """It gets the problem of a foreign page, and nothing that lets it read that."""
    answer = await ask(running, first_line, *lines, body=body)
    assert_problem(answer, 403, "FORBIDDEN")
    assert cors(answer) == {}
    return answer


def cors(answer: Answer) -> dict[str, str]:
    """What it tells browsers about who may read it."""
    return {
        name.removeprefix("access-control-"): value
        for name, value in answer.headers.items()
        if name.startswith("access-control-")
    }


async def assert_unharmed(running: Running, before: object) -> None:
    """The client "v" is as its own beat has left it."""
    after = await running.beat("v", instanceID="good")
    assert after == before


@pytest.mark.parametrize(
    "origins",
    [
        ["http://evil.example"],
        ["https://evil.example:6969"],
        ["null"],
        [""],
        ["localhost"],
        ["//localhost"],
        ["http://localhost:1"],
        ["https://localhost:80"],
        ["http://localhost.evil.example"],
        ["http://localhost@evil.example"],
        ["http://evil.example/http://localhost"],
        ["http://localhost/"],
        ["http://localhost http://evil.example"],
        ["http://evil.example", "http://localhost"],
        ["http://localhost", "http://localhost"],
        ["file://localhost"],
        ["capacitor://localhost"],
        ["http://löcalhost"],
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_page_of_another_site_can_take_over_and_steer_nobody(
    running: Running, origins: list[str]
) -> None:
    before = await running.beat("v", instanceID="good")
    lines = [f"Origin: {origin}" for origin in origins]
    for first_line, body in HEARTBEATS + STEERING + HEALTH:
        await assert_forbidden(
            running, first_line, "Content-Type: text/plain", *lines, body=body
        )
    await assert_unharmed(running, before)


@pytest.mark.parametrize(
    "value", ["cross-site", "Cross-Site", "same-origin\tcross-site"]
)
@pytest_twisted.ensureDeferred
async def test_what_a_browser_calls_cross_site_is_refused_with_any_origin_or_none(
    running: Running, value: str
) -> None:
    before = await running.beat("v", instanceID="good")
    line = f"Sec-Fetch-Site: {value}"
    for first_line, body in HEARTBEATS + STEERING:
        for more in ([], ["Origin: http://localhost"], ["Origin: null"]):
            await assert_forbidden(running, first_line, line, *more, body=body)
    await assert_unharmed(running, before)


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("localhost", "http://localhost"),
        ("localhost", "https://localhost"),
        ("localhost:80", "http://localhost"),
        ("localhost:443", "https://localhost"),
        ("localhost", "http://localhost:80"),
        ("localhost:6969", "https://localhost:6969"),
        ("LOCALHOST:6969", "HTTP://LocalHost:6969"),
        ("127.0.0.1:6969", "http://127.0.0.1:6969"),
        ("[::1]:6969", "http://[::1]:6969"),
        ("[0:0:0:0:0:0:0:1]", "http://[::1]"),
        ("show.localhost.", "http://show.localhost."),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_page_of_its_own_may_ask_whatever_it_wants(
    running: Running, host: str, origin: str
) -> None:
    lines = (f"Host: {host}", f"Origin: {origin}", "Sec-Fetch-Site: same-origin")
    beat = await ask(running, "POST /heartbeat", *lines, body=heartbeat("v"))
    steered = await ask(running, "PUT /clients/v/state", *lines, body=ORDER)
    assert (beat.status, steered.status) == (200, 200)
    assert cors(beat) == cors(steered) == {}


UNKNOWN = [
    "rebind.evil.example",
    "rebind.evil.example:6969",
    "localhost.evil.example",
    "notlocalhost",
    "127.0.0.1.evil.example",
    "x",
    "localhost:x",
    "user@localhost",
    "[localhost]",
    "",
]


@pytest.mark.parametrize("host", UNKNOWN)
@pytest_twisted.ensureDeferred
async def test_no_page_steers_by_a_name_that_it_had_point_here(
    running: Running, host: str
) -> None:
    before = await running.beat("v", instanceID="good")
    for first_line, body in STEERING:
        await assert_forbidden(running, first_line, f"Host: {host}", body=body)
    for first_line, body in HEARTBEATS[:2] + STEERING + HEALTH:
        lines = (f"Host: {host}", f"Origin: http://{host}")
        await assert_forbidden(running, first_line, *lines, body=body)
    await assert_unharmed(running, before)


@pytest.mark.parametrize("host", UNKNOWN)
@pytest_twisted.ensureDeferred
async def test_no_page_reads_a_client_by_a_name_that_it_had_point_here(
    running: Running, host: str
) -> None:
    await assert_forbidden(running, "GET /clients/v/events", f"Host: {host}")


@pytest_twisted.ensureDeferred
async def test_a_client_with_its_token_reads_by_any_name(
    serve: Serve, tmp_path: Path
) -> None:
    tokens = tmp_path / "clients"
    tokens.write_text("client-token-number-one\n")
    running = await serve(client_token_file=str(tokens))
    wire = await running.wire()
    wire.send(
        b"GET /clients/v/events HTTP/1.1\r\nHost: any.name\r\n"
        b"Authorization: Bearer client-token-number-one\r\n\r\n"
    )
    assert await wire.at_least(len("HTTP/1.1 200")) == b"HTTP/1.1 200"
    wire.abort()


@pytest_twisted.ensureDeferred
async def test_no_name_at_all_and_two_of_them_are_unknown_too(
    running: Running,
) -> None:
    before = await running.beat("v", instanceID="good")
    for head in (
        "DELETE /clients/v HTTP/1.0\r\n\r\n",
        "DELETE /clients/v HTTP/1.1\r\nHost: x\r\nHost: localhost\r\n\r\n",
        "DELETE /clients/v HTTP/1.1\r\nHost: localhost\r\nHost: x\r\n\r\n",
    ):
        wire = await running.wire()
        wire.send(head.encode())
        status = (await wire.at_least(len("HTTP/1.1 403")))[-3:]
        assert status in (b"400", b"403")
    await assert_unharmed(running, before)


@pytest.mark.parametrize("host", ["rebind.evil.example", "x", "a_b:6969"])
@pytest_twisted.ensureDeferred
async def test_programs_beat_and_ask_for_health_by_any_name(
    running: Running, host: str
) -> None:
    for first_line, body in HEARTBEATS[:2] + HEALTH:
        answer = await ask(running, first_line, f"Host: {host}", body=body)
        assert answer.status == 200


@pytest_twisted.ensureDeferred
async def test_the_host_of_a_whole_url_counts_and_not_the_header(
    running: Running,
) -> None:
    before = await running.beat("v", instanceID="good")
    evil = "http://rebind.evil.example"
    for start in (evil, evil.upper(), f"{evil}:80", "https://localhost@evil.example"):
        for first_line, body in STEERING:
            method, path = first_line.split()
            await assert_forbidden(running, f"{method} {start}{path}", body=body)
    lines = ("Host: localhost", f"Origin: {evil}")
    await assert_forbidden(running, f"POST {evil}/heartbeat", *lines, body=TAKEOVER)
    lines = ("Host: localhost", "Origin: http://localhost")
    await assert_forbidden(running, f"POST {evil}/heartbeat", *lines, body=TAKEOVER)
    await assert_unharmed(running, before)
    known = await ask(running, "GET http://localhost/clients", "Host: x")
    assert known.status == 200


@pytest_twisted.ensureDeferred
async def test_names_that_were_told_and_the_machines_own_are_known(
    serve: Serve,
) -> None:
    running = await serve(advertise="Show-Server.local", host=["hb.example", "b."])
    own = socket.gethostname()
    for name in ("show-server.local", "HB.example", "hb.example.", "b", own):
        for line in ("Sec-Fetch-Site: none", f"Origin: http://{name}:6969"):
            answer = await ask(running, "GET /clients", f"Host: {name}:6969", line)
            assert answer.status == 200, name
    for name in ("hb.example.evil.example", "evil.hb.example", "local"):
        await assert_forbidden(running, "GET /clients", f"Host: {name}")


@pytest_twisted.ensureDeferred
async def test_an_operator_with_a_token_may_use_any_name_but_no_foreign_page(
    serve: Serve, tmp_path: Path
) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("operator-token-of-tests\n")
    running = await serve(operator_token_file=str(tokens))
    bearer = "Authorization: Bearer operator-token-of-tests"
    answer = await ask(running, "GET /clients", "Host: anything", bearer)
    assert answer.status == 200
    for more in (f"Origin: {EVIL}", "Origin: http://anything"):
        await assert_forbidden(running, "GET /clients", "Host: anything", bearer, more)
    answer = await ask(running, "GET /clients", f"Origin: {EVIL}", bearer)
    assert_problem(answer, 403, "FORBIDDEN")


@pytest_twisted.ensureDeferred
async def test_pages_of_an_allowed_origin_may_ask_and_read_errors_too(
    serve: Serve, tmp_path: Path
) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("operator-token-of-tests\n")
    running = await serve(
        allow_origin=[CONSOLE, "http://other.example"], operator_token_file=str(tokens)
    )
    bearer = "Authorization: Bearer operator-token-of-tests"
    lines = (f"Origin: {CONSOLE}", "Sec-Fetch-Site: cross-site")
    for status, first_line, more, body in (
        (200, "POST /heartbeat", [], heartbeat("v")),
        (200, "GET /clients", [bearer], b""),
        (204, "DELETE /clients/v", [bearer], b""),
        (200, "GET /healthz", [], b""),
        (400, "POST /heartbeat", [], b"no heartbeat"),
        (401, "GET /clients", [], b""),
        (404, "GET /clients/v", [bearer], b""),
        (404, "GET /nowhere", [], b""),
        (405, "PUT /clients", [bearer], b""),
    ):
        answer = await ask(running, first_line, *lines, *more, body=body)
        assert answer.status == status
        assert cors(answer) == {"allow-origin": CONSOLE}
        assert answer.headers["vary"] == "Origin"

    answer = await ask(running, "GET /clients", "Host: evil.example", *lines, bearer)
    assert_problem(answer, 403, "FORBIDDEN")
    for origin in (EVIL, "https://console.example", "http://console.example:8443"):
        await assert_forbidden(running, "GET /clients", f"Origin: {origin}", bearer)
    both = (f"Origin: {CONSOLE}", "Origin: http://other.example")
    await assert_forbidden(running, "GET /clients", *both, bearer)
    program = await ask(running, "GET /clients", bearer)
    assert (program.status, cors(program)) == (200, {})
    assert program.headers["vary"] == "Origin"


@pytest_twisted.ensureDeferred
async def test_preflights_of_an_allowed_origin_are_answered_without_a_token(
    serve: Serve, tmp_path: Path
) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("operator-token-of-tests\n")
    running = await serve(allow_origin=CONSOLE, operator_token_file=str(tokens))
    wanted = (
        "Access-Control-Request-Method: PUT",
        "Access-Control-Request-Headers: authorization,content-type",
    )
    for path in ("/heartbeat", "/clients", "/clients/v/state"):
        first_line = f"OPTIONS {path}"
        answer = await ask(running, first_line, f"Origin: {CONSOLE}", *wanted)
        assert (answer.status, answer.body) == (204, b"")
        assert cors(answer) == {
            "allow-origin": CONSOLE,
            "allow-methods": "GET, HEAD, POST, PUT, DELETE",
            "allow-headers": "authorization, content-type, last-event-id",
            "max-age": "600",
        }
        assert answer.headers["vary"] == "Origin"
        await assert_forbidden(running, first_line, f"Origin: {EVIL}", *wanted)


@pytest_twisted.ensureDeferred
async def test_preflights_are_refused_where_no_origin_is_allowed(
    running: Running,
) -> None:
    wanted = "Access-Control-Request-Method: PUT"
    answer = await assert_forbidden(
        running, "OPTIONS /clients/v/state", f"Origin: {CONSOLE}", wanted
    )
    assert "vary" not in answer.headers


@pytest_twisted.ensureDeferred
async def test_an_allowed_page_reads_why_its_body_was_not_even_read(
    serve: Serve,
) -> None:
    running = await serve(allow_origin=CONSOLE)
    for more, status in (
        ("Content-Length: 70000", 413),
        ("Content-Length: 70000\r\nSec-Fetch-Site: cross-site", 413),
        ("Content-Length: 5\r\nContent-Encoding: gzip", 415),
    ):
        wire = await running.wire()
        first_line = b"POST /heartbeat"
        wire.send(request(first_line, f"Origin: {CONSOLE}".encode(), more.encode()))
        answer = await wire.answer()
        assert answer.status == status
        assert cors(answer) == {"allow-origin": CONSOLE}
        assert answer.headers["vary"] == "Origin"


@pytest_twisted.ensureDeferred
async def test_a_foreign_page_is_refused_before_its_body_is_there(
    running: Running,
) -> None:
    for more in (b"Content-Length: 60000", b"Transfer-Encoding: chunked"):
        for line in (f"Origin: {EVIL}", "Sec-Fetch-Site: cross-site"):
            wire = await running.wire()
            wire.send(request(b"POST /heartbeat", line.encode(), more))
            answer = await wire.answer()
            assert_problem(answer, 403, "FORBIDDEN")
            assert cors(answer) == {}
