"""Real proxies before the service, with the configurations of ``deploy/``.

The proxy listens on 127.0.0.1 for HTTPS, and on 127.0.0.2 for ZeroMQ: there nothing
else does. As those configurations say, 127.0.0.1 is inside; 127.0.0.3 is outside.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import pytest_twisted
from attrs import define, field
from cryptography.hazmat.primitives.serialization import Encoding
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    connectProtocol,
    wrapClientTLS,
)
from twisted.internet.error import ConnectError
from twisted.internet.ssl import (
    Certificate,
    optionsForClientTLS,
    trustRootFromCertificates,
)

from tests.faults.conftest import Serve
from tests.faults.service import Row, Service
from tests.integration.conftest import Answer, Wire, port_of
from tests.integration.processes import ROOT, Spawn, free_ports
from tests.integration.test_bad_input import assert_problem
from tests.integration.test_tls import Papers, papers
from tests.integration.waiting import patiently, reactor, until
from tests.messages import heartbeat, padded

__all__ = ["papers"]

INSIDE, ZEROMQ, OUTSIDE = "127.0.0.1", "127.0.0.2", "127.0.0.3"
TOKEN = "operator-token-of-tests"  # noqa: S105 - good in these tests only
BEARER = f"Authorization: Bearer {TOKEN}"
ORDER = json.dumps({"clientState": "RUNNING"}).encode()

#: nginx's own configuration, around the file for conf.d.
NGINX = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/heartbeat.conf;
}}
"""


@define
class Proxy:
    """A proxy that runs, and connections through it."""

    service: Service
    port: int
    papers: Papers
    _wires: list[Wire] = field(factory=list)

    async def wire(self, source: str = OUTSIDE) -> Wire:
        """A connection inside TLS, from that address."""
        trusted = Certificate.loadPEM(self.papers.authority.public_bytes(Encoding.PEM))
        endpoint = wrapClientTLS(
            optionsForClientTLS("localhost", trustRootFromCertificates([trusted])),
            TCP4ClientEndpoint(reactor, INSIDE, self.port, bindAddress=(source, 0)),
        )
        wire: Wire = await patiently(connectProtocol(endpoint, Wire()))
        self._wires.append(wire)
        return wire

    async def ask(
        self,
        first_line: str,
        *lines: str,
        body: bytes = b"",
        source: str = OUTSIDE,
        host: str = "localhost",
    ) -> Answer:
        """One request over a connection of its own."""
        wire = await self.wire(source)
        head = [f"{first_line} HTTP/1.1", f"Host: {host}", *lines]
        head += [f"Content-Length: {len(body)}", "", ""]
        wire.send("\r\n".join(head).encode() + body)
        answer = await wire.answer()
        wire.abort()
        return answer

    async def beat(self) -> Answer:
        """A heartbeat from outside."""
        return await self.ask("POST /heartbeat", body=heartbeat("v"))

    async def state(self) -> str:
        """The state of the client "v", as the service itself says."""
        answer = await self.beat()
        assert answer.status == 200
        state: str = answer.json()["body"]["clientState"]
        return state

    def leave(self) -> None:
        """End all connections."""
        for wire in self._wires:
            wire.abort()


#: ``await start("nginx", service)`` starts a proxy before a service.
Start = Callable[..., Awaitable[Proxy]]


def adapted(file: str, changes: dict[str, str]) -> str:
    """A configuration of ``deploy/``, with this machine's addresses and paths."""
    text = ROOT.joinpath("deploy", file).read_text("utf-8")
    for theirs, ours in changes.items():
        assert theirs in text, f"{file} has no {theirs}"
        text = text.replace(theirs, ours)
    return text


@pytest.fixture
def start(spawn: Spawn, tmp_path: Path, papers: Papers) -> Iterator[Start]:
    """A way to start a proxy; it is stopped at the end."""
    started: list[Proxy] = []

    def nginx(service: Service, port: int, patience: int) -> list[str | Path]:
        changes = {
            " 70s": f" {patience}s",
            "listen 443": f"listen {INSIDE}:{port}",
            "server 127.0.0.1:6969": f"server {service.http}",
            "/etc/nginx/heartbeat.crt": f"{tmp_path}/certificate.pem",
            "/etc/nginx/heartbeat.key": f"{tmp_path}/key.pem",
        }
        (tmp_path / "heartbeat.conf").write_text(adapted("nginx.conf", changes))
        (tmp_path / "nginx.conf").write_text(NGINX.format(folder=tmp_path))
        return ["nginx", "-e", "stderr", "-c", tmp_path / "nginx.conf"]

    def haproxy(
        service: Service, port: int, patience: int, more: str
    ) -> list[str | Path]:
        router, pub = (port_of(one) for one in (service.router, service.pub))
        both = (tmp_path / "certificate.pem").read_text("ascii")
        both += (tmp_path / "key.pem").read_text("ascii")
        (tmp_path / "both.pem").write_text(both)
        changes = {
            " 70s": f" {patience}s",
            "maxconn 4000": "maxconn 100",
            "192.0.2.10:443": f"{INSIDE}:{port}",
            "192.0.2.10:8765": f"{ZEROMQ}:{router}",
            "192.0.2.10:4321": f"{ZEROMQ}:{pub}",
            "server heartbeat 127.0.0.1:6969": f"server heartbeat {service.http}{more}",
            "127.0.0.1:8765": f"127.0.0.1:{router}",
            "127.0.0.1:4321": f"127.0.0.1:{pub}",
            "/etc/haproxy/heartbeat.pem": f"{tmp_path}/both.pem",
        }
        (tmp_path / "haproxy.cfg").write_text(adapted("haproxy.cfg", changes))
        return ["haproxy", "-db", "-f", tmp_path / "haproxy.cfg"]

    async def start(
        program: str, service: Service, more: str = "", patience: int = 70
    ) -> Proxy:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
        [port] = free_ports(1)
        proxy = Proxy(service, port, papers)
        started.append(proxy)
        command = (
            nginx(service, port, patience)
            if program == "nginx"
            else haproxy(service, port, patience, more)
        )
        process = spawn(*command)

        async def listens() -> bool:
            assert process.status is None, process.output
            try:
                (await proxy.wire()).abort()
            except ConnectError:
                return False
            return True

        await until(listens)
        return proxy

    yield start
    for proxy in reversed(started):
        proxy.leave()


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    """A file with the operators' token."""
    path = tmp_path / "operator-tokens"
    path.write_text(f"{TOKEN}\n")
    path.chmod(0o600)
    return path


BOTH = pytest.mark.parametrize("program", ["nginx", "haproxy"])

#: How a path may be spelled so that a rule for it doesn't hold.
SPELLINGS = (
    "/clients/v/state",
    "//clients/v/state",
    "/%2fclients/v/state",
    "/%2Fclients/v/state",
    "/./clients/v/state",
    "/%2e/clients/v/state",
    "/%63lients/v/state",
    "/clients/v/state?/heartbeat",
    "/clients/v/state#/heartbeat",
    "/clients/v/state;/heartbeat",
    "/heartbeat/../clients/v/state",
    "/heartbeat/..%2fclients/v/state",
    "/heartbeat%2f..%2fclients/v/state",
    "/heartbeat/%2e%2e/clients/v/state",
    "/Heartbeat/Update/../../clients/v/state",
    "http://localhost/clients/v/state",
    "http://localhost//clients/v/state",
    "http://localhost/heartbeat/../clients/v/state",
)


@pytest.mark.fault("strangers at a proxy's rules")
@BOTH
@pytest_twisted.ensureDeferred
async def test_from_outside_a_proxy_lets_beats_through_and_nothing_else(
    serve: Serve, start: Start, row: Row, token_file: Path, program: str
) -> None:
    service = await serve("--operator-token-file", token_file)
    proxy = await start(program, service)
    assert await proxy.state() == "UNCALIBRATED"
    for path in SPELLINGS:
        for lines in (
            (BEARER,),
            (BEARER, "X-Forwarded-For: 127.0.0.1", "X-Real-IP: 127.0.0.1"),
            (BEARER, "X-Original-URL: /heartbeat", "Forwarded: for=127.0.0.1"),
        ):
            answer = await proxy.ask(f"PUT {path}", *lines, body=ORDER)
            assert answer.status in (400, 403, 404, 405), path
    for path in ("/clients", "/clients/v", "/readyz", "/"):
        assert (await proxy.ask(f"GET {path}", BEARER)).status == 403
    assert await proxy.state() == "UNCALIBRATED"
    row.tried = f"{program}: {len(SPELLINGS)} spellings"
    service.assert_unharmed()


@pytest.mark.fault("a PROXY line that lies")
@BOTH
@pytest_twisted.ensureDeferred
async def test_a_line_that_claims_to_be_local_opens_nothing(
    serve: Serve, start: Start, row: Row, token_file: Path, program: str
) -> None:
    service = await serve("--operator-token-file", token_file)
    proxy = await start(program, service)
    before = await proxy.state()
    wire = await proxy.wire()
    wire.send(b"PROXY TCP4 127.0.0.1 127.0.0.1 4711 6969\r\n")
    wire.send(b"DELETE /clients/v HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await wire.until(lambda: wire.ended)
    assert b" 20" not in wire.received.partition(b"\r\n")[0]
    assert await proxy.state() == before
    row.tried = program


@pytest.mark.fault("beats through a proxy")
@BOTH
@pytest_twisted.ensureDeferred
async def test_a_proxy_passes_on_the_host_the_connection_and_the_errors(
    serve: Serve, start: Start, row: Row, token_file: Path, program: str
) -> None:
    name = "show-server.example"
    service = await serve("--operator-token-file", token_file, "--advertise", name)
    proxy = await start(program, service)
    body = heartbeat("v")
    wire = await proxy.wire()
    for _ in range(100):
        wire.send(b"POST /heartbeat HTTP/1.1\r\nHost: localhost\r\n")
        wire.send(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        assert (await wire.answer()).status == 200

    for host in (name, f"{name}:{proxy.port}", f"{INSIDE}:{proxy.port}"):
        own = (f"Origin: https://{host}", "Sec-Fetch-Site: same-origin")
        answer = await proxy.ask("POST /heartbeat", *own, body=body, host=host)
        assert answer.status == 200, host
    evil = "Origin: https://evil.example"
    answer = await proxy.ask("POST /heartbeat", evil, body=body, host=name)
    assert_problem(answer, 403, "FORBIDDEN")
    rebound = await proxy.ask("POST /heartbeat", evil, body=body, host="evil.example")
    assert_problem(rebound, 403, "FORBIDDEN")

    too_long = padded(70_000)
    answer = await proxy.ask("POST /heartbeat", body=too_long)
    assert_problem(answer, 413, "TOO_LARGE")
    row.tried = f"{program}: 100 beats over one connection"


@pytest.mark.fault("operators through a proxy")
@BOTH
@pytest_twisted.ensureDeferred
async def test_from_inside_an_operators_token_is_wanted_or_the_door_is_open(
    serve: Serve,
    start: Start,
    row: Row,
    token_file: Path,
    program: str,
    tmp_path: Path,
) -> None:
    guarded = await serve("--operator-token-file", token_file)
    proxy = await start(program, guarded)
    bare = await proxy.ask("GET /clients", source=INSIDE)
    assert_problem(bare, 401, "UNAUTHORIZED")
    assert (await proxy.ask("GET /clients", BEARER, source=INSIDE)).status == 200

    # This is why docs/operations.md says what it says: to the service, it is loopback.
    loose = await serve(store=tmp_path / "loose.sqlite")
    proxy = await start(program, loose)
    assert (await proxy.ask("GET /clients", source=INSIDE)).status == 200
    row.tried = f"{program}: with a token, and without"


@pytest.mark.fault("events through a proxy")
@BOTH
@pytest_twisted.ensureDeferred
async def test_events_go_through_a_proxy_at_once_and_outlive_its_patience(
    serve: Serve, start: Start, row: Row, token_file: Path, program: str
) -> None:
    service = await serve("--operator-token-file", token_file, "--interval", "60")
    proxy = await start(program, service, patience=7)
    page = await proxy.ask("GET /", source=INSIDE)
    assert page.status == 200
    assert "script-src 'self'" in page.headers["content-security-policy"]
    stream = await proxy.wire(INSIDE)
    stream.send(f"GET /events HTTP/1.1\r\nHost: localhost\r\n{BEARER}\r\n\r\n".encode())
    await stream.until(lambda: b"event: Reset" in stream.received)
    took = await until(lambda: stream.received.count(b"\n:\n") >= 3)
    assert not stream.ended

    await proxy.beat()
    await until(lambda: b'"reason":"heartbeat"' in stream.received, bound=3.0)
    row.tried = f"{program}: {took:.0f} s"


@pytest.mark.fault("PROXY protocol by haproxy")
@pytest_twisted.ensureDeferred
async def test_what_haproxy_wraps_is_beyond_loopback(
    serve: Serve, start: Start, row: Row
) -> None:
    service = await serve(
        listening=(
            *("--http", "haproxy:tcp:0:interface=127.0.0.1"),
            *("--router", "tcp://127.0.0.1:0", "--pub", "tcp://127.0.0.1:0"),
        )
    )
    assert "operators are locked out" in service.process.output
    proxy = await start("haproxy", service, " send-proxy")
    assert await proxy.state() == "UNCALIBRATED"
    answer = await proxy.ask("DELETE /clients/v", source=INSIDE)
    assert_problem(answer, 401, "UNAUTHORIZED")
    assert (await proxy.beat()).json()["body"]["sequence"] == 1
    row.tried = "once"


@pytest.mark.fault("a game client through haproxy")
@pytest_twisted.ensureDeferred
async def test_a_game_client_follows_its_state_through_haproxy(
    serve: Serve, start: Start, spawn: Spawn, row: Row, papers: Papers, tmp_path: Path
) -> None:
    service = await serve("--advertise", ZEROMQ, "--interval", "30", "--timebomb", "90")
    proxy = await start("haproxy", service)
    authority = tmp_path / "authority.pem"
    authority.write_bytes(papers.authority.public_bytes(Encoding.PEM))
    reply = (await proxy.beat()).json()["body"]
    assert port_of(reply["requestEndpoint"]) == port_of(service.router)
    assert reply["requestEndpoint"].startswith(f"tcp://{ZEROMQ}:")
    client = spawn(
        *(sys.executable, "-m", "heartbeat_service.game_client", "--id", "headset"),
        *("--server", f"https://localhost:{proxy.port}", "--ca-file", authority),
    )
    await client.says("headset UNCALIBRATED")

    async def told() -> bool:
        for state in ("RUNNING", "CALIBRATED"):
            assert (await service.steer("headset", state)).status == 200
        return "headset RUNNING" in client.output

    # Its next beat, whose reply would tell it too, is half a minute away.
    row.slower(await until(told, bound=15.0))
    assert await client.ends("TERM") == 0
    await service.process.says(r"headset: CALIBRATED -> DISCONNECTED \(goodbye\)")
    row.tried = "once"
