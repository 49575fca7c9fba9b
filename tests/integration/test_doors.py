"""Tokens and what strangers may do, over real sockets (contract, sections 3, 6)."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import pytest_twisted
import zmq
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol
from twisted.logger import LogEvent

from heartbeat_service.service import CannotStart
from heartbeat_service.web.app import HeartbeatApp
from tests.integration.conftest import Answer, Peer, Running, Serve, Wire, port_of
from tests.integration.processes import BIN, LOOPBACK, Process
from tests.integration.waiting import patiently, reactor, until
from tests.messages import heartbeat, message, over_http

ORDER = json.dumps({"clientState": "RUNNING"}).encode()
TO_ALL = json.dumps({"clientState": "RUNNING", "all": True}).encode()
OPERATOR_ROUTES = [
    ("GET", "/clients", b""),
    ("HEAD", "/clients", b""),
    ("GET", "/clients/1", b""),
    ("GET", "/clients/unknown", b""),
    ("GET", "/clients/a%20b", b""),
    ("GET", "/clients/1/history", b""),
    ("PUT", "/clients/1/state", ORDER),
    ("PUT", "/clients/1/state", b"no order"),
    ("PUT", "/clients/state", TO_ALL),
    ("PUT", "/clients/state", b"no order"),
    ("PUT", "/clients/1/lockout", b'{"seconds": 60}'),
    ("PUT", "/clients/1/lockout", b"no order"),
    ("DELETE", "/clients/1", b""),
    ("PUT", "/clients/lockout", b'{"seconds": 60, "all": true}'),
    ("POST", "/clients/kick", b'{"all": true}'),
    ("GET", "/lockouts", b""),
    ("PUT", "/clients/1/silence", b'{"seconds": 60}'),
    ("PUT", "/clients/silence", b'{"seconds": 60, "all": true}'),
    ("GET", "/mass-loss", b""),
    ("DELETE", "/mass-loss", b""),
    ("GET", "/summary", b""),
    ("GET", "/metrics", b""),
    ("GET", "/nodes", b""),
    ("POST", "/nodes/a/drain", b""),
    ("POST", "/nodes/beats", b'{"clientIDs": ["1"]}'),
    ("HEAD", "/events", b""),  # a GET has no end
]
CLIENT_ROUTES = [
    ("POST", "/heartbeat", heartbeat("1")),
    ("POST", "/Heartbeat/Update", heartbeat("1")),
    ("POST", "/heartbeat", b"no heartbeat"),
    ("POST", "/heartbeat", message("Goodbye", clientID="1")),
    ("HEAD", "/clients/1/events", b""),
]


def absolutely(
    routes: list[tuple[str, str, bytes]],
) -> list[tuple[str, str, bytes]]:
    """The same, as they are asked of a proxy."""
    return [
        (method, start + path, body)
        for method, path, body in routes
        for start in ("http://x", "HTTPS://u@[::1]:1")
    ]


@pytest.fixture
def tokens(tmp_path: Path) -> dict[str, str]:
    """A token file for operators, and one for clients."""
    operators, clients = tmp_path / "operators", tmp_path / "clients"
    operators.write_text("operator-token-old\noperator-token-new\n")
    clients.write_text("any-client-token\n")
    return {"operator_token_file": str(operators), "client_token_file": str(clients)}


async def ask(
    running: Running, method: str, path: str, body: bytes, token: str | None
) -> Answer:
    """One request, with a token or without."""
    wire = await running.wire()
    bearer = [] if token is None else [f"Authorization: Bearer {token}"]
    wire.send(over_http(f"{method} {path}", *bearer, body=body))
    answer = await wire.answer(to_head=method == "HEAD")
    wire.abort()
    return answer


def assert_unauthorized(answer: Answer) -> str:
    """It is the problem of a missing token; its detail."""
    assert answer.status == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.headers["content-type"] == "application/problem+json"
    if not answer.body:
        return ""
    problem = answer.json()
    assert (problem["status"], problem["code"]) == (401, "UNAUTHORIZED")
    detail: str = problem["detail"]
    return detail


def test_no_route_but_health_the_page_and_the_documents_is_without_a_door() -> None:
    map_ = HeartbeatApp.app.url_map
    behind_doors = {
        map_.bind("").match(path, method)[0]
        for method, path, _ in OPERATOR_ROUTES + CLIENT_ROUTES
    }
    routes = {rule.endpoint for rule in map_.iter_rules()}
    assert routes - behind_doors == {
        *("healthz", "readyz", "page", "page_file"),
        *("openapi", "asyncapi", "own_node"),
    }


@pytest.mark.parametrize(
    ("method", "path", "body"), OPERATOR_ROUTES + absolutely(OPERATOR_ROUTES)
)
@pytest_twisted.ensureDeferred
async def test_operator_routes_want_the_operators_token_before_anything_else(
    serve: Serve, tokens: dict[str, str], method: str, path: str, body: bytes
) -> None:
    running = await serve(**tokens)
    beat = await ask(running, "POST", "/heartbeat", heartbeat("1"), "any-client-token")
    assert beat.status == 200
    for token in (
        None,
        "",
        "any-client-token",
        "operator-token-ol",
        "operator-token-old operator-token-new",
    ):
        assert_unauthorized(await ask(running, method, path, body, token))
    for token in ("operator-token-old", "operator-token-new"):
        assert (await ask(running, method, path, body, token)).status != 401


@pytest.mark.parametrize(
    ("method", "path", "body"), CLIENT_ROUTES + absolutely(CLIENT_ROUTES)
)
@pytest_twisted.ensureDeferred
async def test_heartbeats_want_the_clients_token_before_anything_else(
    serve: Serve, tokens: dict[str, str], method: str, path: str, body: bytes
) -> None:
    running = await serve(**tokens)
    for token in (None, "operator-token-old"):
        assert_unauthorized(await ask(running, method, path, body, token))
    listed = await ask(running, "GET", "/clients", b"", "operator-token-old")
    assert json.loads(listed.body)["clients"] == []
    assert (await ask(running, method, path, body, "any-client-token")).status != 401


@pytest_twisted.ensureDeferred
async def test_each_file_guards_its_own_routes_only(
    serve: Serve, tokens: dict[str, str]
) -> None:
    for option, free in (
        ("operator_token_file", CLIENT_ROUTES[0]),
        ("client_token_file", OPERATOR_ROUTES[0]),
    ):
        running = await serve(**{option: tokens[option]})
        assert (await ask(running, *free, None)).status == 200
        await running.stop()


@pytest_twisted.ensureDeferred
async def test_health_wants_no_token(serve: Serve, tokens: dict[str, str]) -> None:
    running = await serve(**tokens)
    for path in ("/healthz", "/readyz"):
        assert (await ask(running, "GET", path, b"", None)).status == 200


@pytest_twisted.ensureDeferred
async def test_a_clients_token_is_good_for_the_clients_on_its_line(
    serve: Serve, tokens: dict[str, str]
) -> None:
    path = Path(tokens["client_token_file"])
    path.write_text("token-of-headset-1 headset-1\ntoken-of-the-wall wall-* 7\n")
    running = await serve(client_token_file=str(path))
    for token, known, unknown in (
        ("token-of-headset-1", ["headset-1"], ["headset-11", "Headset-1", "wall-1"]),
        ("token-of-the-wall", ["wall-1", "wall-", 7, "7"], ["headset-1", 77, "wal"]),
    ):
        for route in ("/heartbeat", "/Heartbeat/Update"):
            for client_id in known:
                body = heartbeat(client_id)
                assert (await ask(running, "POST", route, body, token)).status == 200
            for client_id in unknown:
                body = heartbeat(client_id, instanceID="another")
                answer = await ask(running, "POST", route, body, token)
                detail = assert_unauthorized(answer)
                assert detail == f"This token is not good for client {client_id}"
                assert answer.json()["clientID"] == str(client_id)
    listed = (await running.get("/clients"))["clients"]
    assert {one["clientID"] for one in listed} == {"headset-1", "wall-1", "wall-", "7"}
    assert {one["instanceID"] for one in listed} == {None}


@pytest_twisted.ensureDeferred
async def test_a_clients_token_lets_nobody_speak_for_another_in_any_message(
    serve: Serve, tokens: dict[str, str]
) -> None:
    path = Path(tokens["client_token_file"])
    path.write_text("token-of-headset-1 headset-1\ntoken-of-headset-2 headset-2\n")
    running = await serve(client_token_file=str(path))
    beat = heartbeat("headset-1")
    await ask(running, "POST", "/heartbeat", beat, "token-of-headset-1")
    for asked in (
        message("GetClientState", clientID="headset-1"),
        message("SetClientState", clientID="headset-1", clientState="CALIBRATED"),
        message("Goodbye", clientID="headset-1"),
    ):
        answer = await ask(running, "POST", "/heartbeat", asked, "token-of-headset-2")
        assert_unauthorized(answer)
    (client,) = (await running.get("/clients"))["clients"]
    assert client["clientState"] == "UNCALIBRATED"


@pytest_twisted.ensureDeferred
async def test_a_token_is_good_for_what_its_line_says_since_sighup(
    serve: Serve, tokens: dict[str, str]
) -> None:
    path = Path(tokens["client_token_file"])
    path.write_text("token-of-headset-1 headset-1\n")
    running = await serve(client_token_file=str(path))

    async def status(client_id: str) -> int:
        beat = ("POST", "/heartbeat", heartbeat(client_id))
        return (await ask(running, *beat, "token-of-headset-1")).status

    assert (await status("headset-1"), await status("headset-2")) == (200, 401)
    path.write_text("token-of-headset-1 headset-2\n")
    os.kill(os.getpid(), signal.SIGHUP)

    async def is_moved() -> bool:
        return await status("headset-2") == 200

    await until(is_moved)
    assert await status("headset-1") == 401


@pytest_twisted.ensureDeferred
async def test_two_authorizations_open_nothing(
    serve: Serve, tokens: dict[str, str]
) -> None:
    running = await serve(**tokens)
    body = heartbeat("1")
    for route, length, good in (
        ("POST /heartbeat", len(body), "any-client-token"),
        ("GET /clients", 0, "operator-token-old"),
    ):
        head = f"{route} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n"
        for pair in ((good, "no-token-at-all-1"), ("no", good), (good, good)):
            wire = await running.wire()
            lines = "".join(f"Authorization: Bearer {one}\r\n" for one in pair)
            wire.send(f"{head}{lines}\r\n".encode() + body[:length])
            assert (await wire.answer()).status in {400, 401}


@pytest_twisted.ensureDeferred
async def test_the_connection_lives_on_after_a_401(
    serve: Serve, tokens: dict[str, str]
) -> None:
    running = await serve(**tokens)
    wire = await running.wire()
    body, bearer = heartbeat("1"), "Authorization: bearer any-client-token"
    wire.send(over_http("POST /heartbeat", body=body))
    assert_unauthorized(await wire.answer())
    wire.send(over_http("POST /heartbeat", bearer, body=body))
    assert (await wire.answer()).status == 200


@pytest_twisted.ensureDeferred
async def test_tokens_are_read_again_at_sighup(
    serve: Serve, tokens: dict[str, str], logged: list[LogEvent]
) -> None:
    former = signal.getsignal(signal.SIGHUP)
    running = await serve(**tokens)
    path = Path(tokens["operator_token_file"])

    async def opens(token: str) -> bool:
        return (await ask(running, "GET", "/clients", b"", token)).status == 200

    path.write_text("operator-token-new\noperator-token-newer\n")
    os.kill(os.getpid(), signal.SIGHUP)
    await until(lambda: opens("operator-token-newer"))
    assert await opens("operator-token-new")
    assert not await opens("operator-token-old")

    path.write_text("not a token\n")
    Path(tokens["client_token_file"]).write_text("new-client-token\n")
    os.kill(os.getpid(), signal.SIGHUP)

    async def client_is_let_in() -> bool:
        beat = CLIENT_ROUTES[0]
        return (await ask(running, *beat, "new-client-token")).status == 200

    await until(client_is_let_in)
    assert await opens("operator-token-newer")
    for event in logged:
        assert "operator-token-new" not in repr(event)

    await running.stop()
    assert signal.getsignal(signal.SIGHUP) is former


@pytest_twisted.ensureDeferred
async def test_sighup_ends_no_service_that_has_nothing_to_reload(
    serve: Serve,
) -> None:
    former = signal.getsignal(signal.SIGHUP)
    running = await serve()
    os.kill(os.getpid(), signal.SIGHUP)
    assert (await running.http("GET", "/readyz"))[0] == 200
    await running.stop()
    assert signal.getsignal(signal.SIGHUP) is former


@pytest.mark.parametrize("option", ["operator-token-file", "client-token-file"])
@pytest_twisted.ensureDeferred
async def test_a_token_file_that_cannot_be_used_ends_the_start(
    serve: Serve, tmp_path: Path, option: str
) -> None:
    path = tmp_path / "tokens"
    for spoil in (lambda: None, lambda: path.write_text("sesame open\n")):
        spoil()
        with pytest.raises(CannotStart, match=f"--{option} {path}: ") as caught:
            await serve(**{option.replace("-", "_"): str(path)})
        assert "sesame" not in str(caught.value)


@pytest_twisted.ensureDeferred
async def test_a_token_file_that_cannot_be_used_ends_the_program(
    tmp_path: Path,
) -> None:
    program = Process(
        *(BIN / "twistd", "-n", "--pidfile=", "heartbeat", *LOOPBACK),
        *("--store", "memory:", "--operator-token-file", "missing"),
        folder=tmp_path,
    )
    assert await program.ends() == 1
    assert "--operator-token-file missing: No such file" in program.output


def locked_out(logged: list[LogEvent]) -> list[str]:
    """The log's lines that say so."""
    return [
        event.get("reason", "")
        for event in logged
        if "locked out" in (event.get("log_format") or "")
    ]


BEYOND = ["tcp:0", "tcp:0:interface=0.0.0.0"]


@pytest.mark.parametrize("endpoint", BEYOND)
@pytest_twisted.ensureDeferred
async def test_beyond_loopback_operators_are_locked_out_without_a_token(
    serve: Serve, logged: list[LogEvent], endpoint: str
) -> None:
    running = await serve(http=["tcp:0:interface=127.0.0.1", endpoint])
    [line] = locked_out(logged)
    for method, path, body in OPERATOR_ROUTES + absolutely(OPERATOR_ROUTES):
        detail = assert_unauthorized(await ask(running, method, path, body, "any"))
        for told in (line, detail or line):
            assert "--operator-token-file" in told
            assert "--allow-open-control" in told
    assert (await ask(running, *CLIENT_ROUTES[0], None)).status == 200
    assert (await ask(running, "GET", "/readyz", b"", None)).status == 200


@pytest_twisted.ensureDeferred
async def test_beyond_loopback_operators_are_let_in_by_token_or_permission(
    serve: Serve, logged: list[LogEvent], tokens: dict[str, str]
) -> None:
    guarded = await serve(
        http="tcp:0", operator_token_file=tokens["operator_token_file"]
    )
    assert (
        await ask(guarded, "GET", "/clients", b"", "operator-token-old")
    ).status == 200
    assert (await ask(guarded, "GET", "/clients", b"", None)).status == 401
    permitted = await serve(http="tcp:0", allow_open_control=True)
    assert (await ask(permitted, "GET", "/clients", b"", None)).status == 200
    assert locked_out(logged) == []


@pytest_twisted.ensureDeferred
async def test_loopback_and_unix_sockets_are_local(
    serve: Serve, logged: list[LogEvent], tmp_path: Path
) -> None:
    path = tmp_path / "http"
    running = await serve(
        http=[
            "tcp:0:interface=127.0.0.1",
            "tcp:0:interface=127.0.0.2",
            f"unix:{path}",
        ]
    )
    assert locked_out(logged) == []
    wire: Wire = await patiently(
        connectProtocol(UNIXClientEndpoint(reactor, str(path)), Wire())
    )
    running.wires.append(wire)
    wire.send(b"GET /clients HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert (await wire.answer()).json()["clients"] == []


WRAPPED = "haproxy:tcp:0:interface=127.0.0.1"


@pytest_twisted.ensureDeferred
async def test_a_wrapped_endpoint_is_beyond_loopback_wherever_it_listens(
    serve: Serve, logged: list[LogEvent]
) -> None:
    running = await serve(http=[WRAPPED, "tcp:0:interface=127.0.0.1"])
    [line] = locked_out(logged)
    assert "--operator-token-file" in line
    for peer in ("TCP4 203.0.113.5 127.0.0.1", "TCP4 127.0.0.1 127.0.0.1"):
        wire = await running.wire()
        wire.send(f"PROXY {peer} 4711 6969\r\n".encode())
        body = heartbeat("v")
        head = "POST /heartbeat HTTP/1.1\r\nHost: localhost\r\n"
        wire.send(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        assert (await wire.answer()).status == 200
        wire.send(b"DELETE /clients/v HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert_unauthorized(await wire.answer())
    # The other one, too: it is one service, whose operators have no token.
    other = await running.wire(port_of(running.service.http[1]))
    other.send(b"DELETE /clients/v HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert_unauthorized(await other.answer())


@pytest.mark.parametrize(
    "header",
    [
        b"PROXY TCP4 1.1.1.1 1.1.1.1 x y\r\n",
        b"PROXY TCP6 \xff \xff 1 2\r\n",
        b"PROXY TCP4 1.1.1.1 1.1.1.1 %s 2\r\n" % (b"1" * 5000),
        b"PROXY nonsense\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x21\xff\0\0",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff" + bytes(32 * 1024),
    ],
)
@pytest_twisted.ensureDeferred
async def test_who_sends_no_good_proxy_header_is_cut_off_without_a_line(
    serve: Serve, logged: list[LogEvent], header: bytes
) -> None:
    running = await serve(http=WRAPPED)
    logged.clear()
    wire = await running.wire()
    wire.send(header)
    await wire.until(lambda: wire.lost)
    assert logged == []


@pytest_twisted.ensureDeferred
async def test_behind_a_wrapped_endpoint_a_token_or_permission_lets_operators_in(
    serve: Serve, logged: list[LogEvent], tokens: dict[str, str]
) -> None:
    for settings, bearer in (
        (tokens, b"Authorization: Bearer operator-token-old\r\n"),
        ({"allow_open_control": True}, b""),
    ):
        running = await serve(http=WRAPPED, **settings)
        wire = await running.wire()
        wire.send(b"PROXY TCP4 203.0.113.5 127.0.0.1 4711 6969\r\n")
        wire.send(b"GET /clients HTTP/1.1\r\nHost: localhost\r\n%s\r\n" % bearer)
        assert (await wire.answer()).json()["clients"] == []
    assert locked_out(logged) == []


@pytest_twisted.ensureDeferred
async def test_over_zeromq_only_heartbeats_want_a_token(
    serve: Serve, tokens: dict[str, str]
) -> None:
    running = await serve(**tokens)
    beat = await ask(running, "POST", "/heartbeat", heartbeat("1"), "any-client-token")
    assert beat.status == 200
    dealer: Peer = running.peer(zmq.DEALER, running.service.router)
    assert (await dealer.ask(heartbeat("1")))["body"]["code"] == "UNAUTHORIZED"
    question = message("GetClientState", clientID="1")
    assert (await dealer.ask(question))["messageType"] == "ClientState"
