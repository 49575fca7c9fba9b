"""HTTP inside TLS, by an endpoint string, with certificates that are checked."""

from __future__ import annotations

import random
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import TypeVar

import pytest
import pytest_twisted
from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    connectProtocol,
    wrapClientTLS,
)
from twisted.internet.ssl import (
    Certificate,
    optionsForClientTLS,
    trustRootFromCertificates,
)
from twisted.logger import LogEvent

from heartbeat_service.options import Options
from tests.integration.conftest import Running, Serve, Wire, odd_lines, port_of
from tests.integration.processes import BIN, Process
from tests.integration.waiting import patiently, pause, reactor, until
from tests.messages import heartbeat, over_http

GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
LIMIT = 64 * 1024

T = TypeVar("T")

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def post(body: bytes) -> bytes:
    """A heartbeat as it goes over the wire."""
    return over_http("POST /heartbeat", body=body)


@frozen
class Papers:
    """A key and a certificate in files, and the authority that signed it."""

    endpoint: str
    authority: x509.Certificate


def certificate(
    name: str,
    key: Key,
    issuer: str,
    signer: Key,
    *extensions: x509.ExtensionType,
) -> x509.Certificate:
    """A certificate that is good for a day."""

    def called(common_name: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])

    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(called(name))
        .issuer_name(called(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(signer, hashes.SHA256())


@pytest.fixture
def papers(tmp_path: Path) -> Papers:
    """What a TLS endpoint on loopback needs."""
    root, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority = certificate(
        "root", root, "root", root, x509.BasicConstraints(ca=True, path_length=0)
    )
    server = certificate(
        "server",
        key,
        "root",
        root,
        x509.SubjectAlternativeName(
            [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
        ),
    )
    (tmp_path / "key.pem").write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    (tmp_path / "certificate.pem").write_bytes(server.public_bytes(Encoding.PEM))
    return Papers(
        f"ssl:0:privateKey={tmp_path}/key.pem:certKey={tmp_path}/certificate.pem"
        ":interface=127.0.0.1",
        authority,
    )


async def secure(running: Running, papers: Papers, name: str = "localhost") -> Wire:
    """A connection inside TLS, to a server that has proved to be ``name``."""
    trusted = Certificate.loadPEM(papers.authority.public_bytes(Encoding.PEM))
    endpoint = wrapClientTLS(
        optionsForClientTLS(name, trustRootFromCertificates([trusted])),
        TCP4ClientEndpoint(reactor, "127.0.0.1", running.port),
    )
    wire: Wire = await patiently(connectProtocol(endpoint, Wire()))
    running.wires.append(wire)
    return wire


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
@pytest_twisted.ensureDeferred
async def test_a_beat_inside_tls_is_a_beat(
    serve: Serve, papers: Papers, name: str
) -> None:
    running = await serve(http=papers.endpoint)
    wire = await secure(running, papers, name)
    for _ in range(2):
        wire.send(post(heartbeat("1")))
        answer = await wire.answer()
        assert (answer.status, answer.json()["body"]["clientID"]) == (200, "1")
    wire.send(b"GET /clients/1/history HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert (await wire.answer()).json()["lives"][0]["beats"] == 2


@pytest_twisted.ensureDeferred
async def test_a_client_sees_through_another_servers_certificate(
    serve: Serve, papers: Papers
) -> None:
    running = await serve(http=papers.endpoint)
    wire = await secure(running, papers, "somebody.else")
    wire.send(GET)
    await wire.end()


@pytest_twisted.ensureDeferred
async def test_tls_and_plain_http_are_served_side_by_side(
    serve: Serve, papers: Papers
) -> None:
    running = await serve(http=[papers.endpoint, "tcp:0:interface=127.0.0.1"])
    plain = await running.wire(port_of(running.service.http[1]))
    wire = await secure(running, papers)
    for each in (plain, wire):
        each.send(post(heartbeat("1")))
        assert (await each.answer()).status == 200


@pytest_twisted.ensureDeferred
async def test_an_answer_of_any_length_arrives_inside_tls(
    serve: Serve, papers: Papers
) -> None:
    running = await serve(http=papers.endpoint)
    wire = await secure(running, papers)
    count = 200
    for number in range(count):
        wire.send(post(heartbeat(str(number), values={"x": "y" * 4000})))
        assert (await wire.answer()).status == 200
    wire.send(b"GET /clients HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert len((await wire.answer()).json()["clients"]) == count
    await wire.end()


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (post(b"x" * (LIMIT + 1)), 413),
        (post(b"x" * 20 * LIMIT), 413),
        (b"hello\r\n\r\n", 400),
        (GET.replace(b"\r\n\r\n", b"\r\nX: " + b"x" * 20_000 + b"\r\n\r\n"), 431),
    ],
    ids=["a body too long", "a body far too long", "no HTTP", "a header too long"],
)
@pytest_twisted.ensureDeferred
async def test_who_is_refused_inside_tls_reads_why(
    serve: Serve, papers: Papers, sent: bytes, status: int
) -> None:
    running = await serve(http=papers.endpoint)
    wire = await secure(running, papers)
    wire.send(sent)
    answer = await wire.answer()
    assert (answer.status, answer.json()["status"]) == (status, status)
    assert answer.headers["connection"] == "close"
    await wire.end()


async def is_lost(wire: Wire) -> None:
    """The other side has closed or cut the connection, in time."""
    await wire.until(lambda: wire.lost)


class ByHand:
    """The client's side of TLS that does nothing by itself, least of all end."""

    def __init__(self, wire: Wire, context: ssl.SSLContext) -> None:
        self._wire = wire
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_hostname="localhost"
        )

    async def hello(self) -> None:
        """Shake hands."""
        await self._do(self._tls.do_handshake)

    async def send(self, data: bytes) -> None:
        """Write."""
        await self._do(lambda: self._tls.write(data))

    async def receive(self) -> bytes:
        """Read something."""
        return await self._do(lambda: self._tls.read(LIMIT))

    async def _do(self, act: Callable[[], T]) -> T:
        while True:
            try:
                result = act()
            except ssl.SSLWantReadError:
                self._wire.send(self._outgoing.read())
                self._incoming.write(await self._wire.at_least(1))
            else:
                self._wire.send(self._outgoing.read())
                return result


async def by_hand(running: Running, papers: Papers) -> tuple[Wire, ByHand]:
    """A connection that has shaken hands, and what is inside."""
    wire = await running.wire()
    authority = papers.authority.public_bytes(Encoding.PEM).decode()
    inside = ByHand(wire, ssl.create_default_context(cadata=authority))
    await inside.hello()
    return wire, inside


def ciphers_alone(ciphers: str) -> ssl.SSLContext:
    """A client that trusts anyone, and knows these ciphers of TLS 1.2 only."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(ciphers)
    return context


@pytest.mark.parametrize("wrapper", ["", "haproxy:"])
@pytest_twisted.ensureDeferred
async def test_what_was_said_stays_secret_when_the_key_is_stolen(
    serve: Serve, tmp_path: Path, wrapper: str
) -> None:
    # Ciphers without forward secrecy want a key of RSA.
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    paper = certificate("server", key, "server", key)
    (tmp_path / "pair.pem").write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        + paper.public_bytes(Encoding.PEM)
    )
    endpoint = f"{wrapper}ssl:0:privateKey={tmp_path}/pair.pem:interface=127.0.0.1"
    running = await serve(http=endpoint)
    for ciphers in ("kRSA", "AES128-SHA", "AES256-GCM-SHA384", "aNULL:@SECLEVEL=0"):
        inside = ByHand(await running.wire(), ciphers_alone(ciphers))
        with pytest.raises(ssl.SSLError, match="HANDSHAKE_FAILURE"):
            await inside.hello()
    for ciphers in ("ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-AES256-SHA"):
        await ByHand(await running.wire(), ciphers_alone(ciphers)).hello()


@pytest_twisted.ensureDeferred
async def test_who_is_refused_inside_tls_and_stays_is_cut_off(
    serve: Serve, papers: Papers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("heartbeat_service.web.channel.LINGER", 0.2)
    running = await serve(http=papers.endpoint)
    wire, inside = await by_hand(running, papers)
    await inside.send(b"hello\r\n\r\n")
    assert b" 400 " in await inside.receive()
    await is_lost(wire)


@pytest_twisted.ensureDeferred
async def test_a_crowd_that_shakes_hands_keeps_nobody_waiting(
    serve: Serve, papers: Papers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("heartbeat_service.web.handshakes.SLICE", 0.0)
    running = await serve(http=[papers.endpoint, "tcp:0:interface=127.0.0.1"])
    plain = await running.wire(port_of(running.service.http[1]))
    crowd = [await running.wire() for _ in range(100)]
    hello = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        ssl.create_default_context().wrap_bio(
            ssl.MemoryBIO(), hello, server_hostname="localhost"
        ).do_handshake()
    said = hello.read()
    for wire in crowd:
        wire.send(said)
    plain.send(post(heartbeat("1")))
    assert (await plain.answer()).status == 200
    await pause(0)
    assert sum(bool(wire.received) for wire in crowd) < len(crowd) // 2
    for wire in crowd:  # and all of them get their turn
        await wire.at_least(1)


@pytest_twisted.ensureDeferred
async def test_a_handshake_that_never_ends_is_cut_off(
    serve: Serve, papers: Papers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("heartbeat_service.web.channel.REQUEST_DEADLINE", 0.3)
    running = await serve(http=papers.endpoint)
    silent, begun = await running.wire(), await running.wire()
    begun.send(b"\x16\x03\x01\x02\x00")  # the head of a record of 512 bytes
    for wire in (silent, begun):
        await is_lost(wire)
        assert wire.received == b""


@pytest_twisted.ensureDeferred
async def test_a_slow_request_inside_tls_is_cut_off(
    serve: Serve, papers: Papers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("heartbeat_service.web.channel.REQUEST_DEADLINE", 1.0)
    monkeypatch.setattr("heartbeat_service.web.channel.LINGER", 0.1)
    running = await serve(http=papers.endpoint)
    wire, inside = await by_hand(running, papers)
    await inside.send(GET)
    assert b" 200 " in await inside.receive()

    async def is_cut_off() -> bool:
        if not wire.lost:
            await inside.send(b"G")  # a byte now and then
        return wire.lost

    await until(is_cut_off)


@pytest.mark.parametrize(
    "garbage",
    [GET, post(heartbeat("1")), b"\0" * 10_000, b"\x16\x03\x01" * 10_000],
    ids=["plain HTTP", "a plain beat", "zeros", "broken records"],
)
@pytest_twisted.ensureDeferred
async def test_garbage_at_a_tls_port_disturbs_nobody(
    serve: Serve, papers: Papers, tracebacks: list[LogEvent], garbage: bytes
) -> None:
    running = await serve(http=papers.endpoint)
    wire = await running.wire()
    wire.send(garbage)
    await wire.until(lambda: wire.ended)
    good = await secure(running, papers)
    good.send(b"GET /clients HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert (await good.answer()).json()["clients"] == []
    assert tracebacks == []


@pytest_twisted.ensureDeferred
async def test_it_stops_with_open_tls_connections(
    serve: Serve,
    papers: Papers,
    monkeypatch: pytest.MonkeyPatch,
    tracebacks: list[LogEvent],
) -> None:
    monkeypatch.setattr("heartbeat_service.web.channel.LINGER", 0.3)
    running = await serve(http=papers.endpoint)
    shaking = await running.wire()
    polite = await secure(running, papers)
    polite.send(GET)
    assert (await polite.answer()).status == 200
    stubborn, inside = await by_hand(running, papers)
    await inside.send(GET)
    assert b" 200 " in await inside.receive()
    await patiently(running.service.stopService())
    for wire in (shaking, polite, stubborn):
        await is_lost(wire)
    assert tracebacks == []


@pytest.mark.parametrize(
    "endpoint",
    [
        "ssl:0:privateKey=missing.pem",
        "ssl:0:privateKey=broken.pem",
        "ssl:0:privateKey=key.pem",  # but no certificate
        "ssl:0:privateKey=other.pem:certKey=certificate.pem",
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_bad_key_file_is_a_usage_error_that_names_the_option(
    papers: Papers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    assert papers.endpoint
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.pem").write_text("no key")
    other = ec.generate_private_key(ec.SECP256R1())
    (tmp_path / "other.pem").write_bytes(
        other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    with pytest.raises(SystemExit, match=f"--http: '{endpoint}' is no endpoint"):
        Options().parseOptions(["--http", endpoint])


@pytest_twisted.ensureDeferred
async def test_a_bad_key_file_ends_the_program(tmp_path: Path) -> None:
    program = Process(
        *(BIN / "twistd", "-n", "--pidfile=", "heartbeat"),
        *("--http", "ssl:0:privateKey=missing.pem"),
        folder=tmp_path,
    )
    assert await program.ends() == 1
    assert "--http: 'ssl:0:privateKey=missing.pem'" in program.output


@pytest_twisted.ensureDeferred
async def test_strangers_to_tls_leave_no_line_but_that_they_are_refused(
    serve: Serve, papers: Papers, logged: list[LogEvent]
) -> None:
    running = await serve(http=papers.endpoint)
    source = random.Random(1)  # noqa: S311 - the same each time
    outgoing = ssl.MemoryBIO()
    greeter = ciphers_alone("ALL").wrap_bio(ssl.MemoryBIO(), outgoing)
    with pytest.raises(ssl.SSLWantReadError):
        greeter.do_handshake()
    hello = outgoing.read()
    logged.clear()
    for _ in range(500):
        wire = await running.wire()
        said = bytearray(hello)
        for _ in range(source.randrange(4)):
            start = source.randrange(len(said))
            said[start : start + source.randrange(5)] = source.randbytes(3)
        wire.send(bytes(said[: source.choice([len(said), source.randrange(300)])]))
        if source.random() < 0.5:
            wire.transport.loseWriteConnection()
        await pause(0)
        wire.abort()
    running.wires.clear()
    for bad in (b"GET /\x8c HTTP/1.1\r\n\r\n", post(b"\xff"), b"\0\r\n" * 9):
        wire, inside = await by_hand(running, papers)
        await inside.send(bad)
        assert b" 400 " in await inside.receive()
        wire.abort()
    assert odd_lines(logged) == []
