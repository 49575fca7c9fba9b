"""The client of etcd beside a real one: what the port promises, and what goes wrong."""

from __future__ import annotations

import re
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_twisted
from aetcd.rpc import auth_pb2, rpc_pb2, rpc_pb2_grpc
from attrs import define, field, frozen
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from heartbeat_service.storage.etcd.client import BACKOFF, EtcdClient
from heartbeat_service.storage.etcd.port import (
    Compacted,
    Etcd,
    EtcdAway,
    EtcdError,
    EtcdRefuses,
    Get,
    KeyValue,
    Outcome,
    Put,
    Transaction,
)
from heartbeat_service.storage.etcd.stream import PROGRESS, SILENT
from heartbeat_service.storage.etcd.url import parse
from tests.integration.etcd import EtcdCluster, StartEtcd, begin_etcd
from tests.integration.processes import Process, Spawn
from tests.integration.test_tls import certificate
from tests.integration.waiting import PATIENCE, patiently, pause, reactor, until
from tests.unit.storage.etcd_suite import Ear, EtcdSuite

#: How long these tests let a member take for an answer, in seconds.
SHORT = 1.0

pytestmark = pytest.mark.cluster

KEY = b"test/key"


@pytest.fixture(scope="class")
def shared_etcd(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """An etcd for all tests of a class."""
    folder = tmp_path_factory.mktemp("etcd")
    cluster = begin_etcd(partial(Process, folder=folder), folder)
    pytest_twisted.blockon(Deferred.fromCoroutine(cluster.ready()))
    request.cls.cluster = cluster
    yield
    pytest_twisted.blockon(Deferred.fromCoroutine(cluster.kill()))


@pytest.mark.usefixtures("shared_etcd")
class TestPromises(EtcdSuite, SynchronousTestCase):
    cluster: EtcdCluster

    def make_etcd(self) -> Etcd:
        return EtcdClient(reactor, parse(self.cluster.url()))

    def compact(self, revision: int) -> None:
        with grpc.insecure_channel(self.cluster.members[0].endpoint) as channel:
            request = rpc_pb2.CompactionRequest(revision=revision, physical=True)
            rpc_pb2_grpc.KVStub(channel).Compact(request, timeout=PATIENCE)

    def wait_for(self, waiting: Deferred[Any]) -> Any:
        return pytest_twisted.blockon(Deferred.fromCoroutine(patiently(waiting)))

    def wait_until(self, predicate: Callable[[], object]) -> None:
        pytest_twisted.blockon(Deferred.fromCoroutine(until(lambda: bool(predicate()))))


#: Makes a client, which is closed after the test.
Connect = Callable[[str], EtcdClient]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """``connect(url)`` is a client, closed after the test."""
    clients: list[EtcdClient] = []

    def client(url: str) -> EtcdClient:
        clients.append(EtcdClient(reactor, parse(url), SHORT))
        return clients[-1]

    yield client
    for each in clients:
        pytest_twisted.blockon(each.close())


@define
class Listener:
    """Watches all keys of the test; where the watch is lost, from there on again.

    :ivar losses: why it was lost, each time.
    """

    etcd: EtcdClient
    ear: Ear = field(factory=Ear)
    losses: list[EtcdError] = field(factory=list)

    def listen(self, revision: int = 1) -> None:
        """Hear of what happens from that revision on."""
        self.etcd.watch(b"test/", revision, self.ear.hear, self.resume)

    def resume(self, error: EtcdError) -> None:
        """Go on after the last revision heard of."""
        self.losses.append(error)
        events = self.ear.events
        self.listen(events[-1].key.mod_revision + 1 if events else 1)

    def values(self) -> list[bytes]:
        """What was written, in order."""
        return [event.key.value for event in self.ear.events]


async def write(etcd: EtcdClient, value: bytes) -> None:
    """Write it, however often that must be tried."""
    while True:
        try:
            await etcd.transact(Transaction((), [Put(KEY, value)]))
        except EtcdAway:
            await pause(0.05)
        else:
            return


async def written(etcd: EtcdClient) -> bytes | None:
    """What was written last."""
    outcome: Outcome = await patiently(etcd.transact(Transaction((), [Get(KEY)])))
    (found,) = outcome.results
    return found.value if isinstance(found, KeyValue) else None


def without_repeats(values: list[bytes]) -> list[bytes]:
    """A write of unknown outcome is asked again, and may so be done twice."""
    return list(dict.fromkeys(values))


@pytest.mark.parametrize("how", ["killed", "stopped"])
@pytest_twisted.ensureDeferred
async def test_all_that_was_acknowledged_is_heard_in_order_when_the_leader_is(
    how: str, start_etcd: StartEtcd, connect: Connect
) -> None:
    cluster = await start_etcd(3)
    etcd = connect(cluster.url())
    listener = Listener(etcd)
    listener.listen()
    numbers = [b"%d" % number for number in range(60)]
    for number in numbers[:20]:
        await write(etcd, number)
    leader = cluster.leader()
    if how == "killed":
        await leader.kill()
    else:
        leader.stop()
    began = reactor.seconds()
    await write(etcd, numbers[20])
    assert reactor.seconds() - began < PATIENCE
    for number in numbers[21:40]:
        await write(etcd, number)
    if how == "killed":
        leader.begin()
        await leader.ready()
    else:
        leader.go_on()
    for number in numbers[40:]:
        await write(etcd, number)
    await until(lambda: numbers[-1] in listener.values())
    assert without_repeats(listener.values()) == numbers
    assert {type(loss) for loss in listener.losses} <= {EtcdAway}


@pytest_twisted.ensureDeferred
async def test_member_that_does_not_answer_is_left_for_the_next_one(
    start_etcd: StartEtcd, connect: Connect
) -> None:
    cluster = await start_etcd(3)
    follower = next(each for each in cluster.members if each is not cluster.leader())
    cluster.members.remove(follower)
    cluster.members.insert(0, follower)
    etcd = connect(cluster.url())
    listener = Listener(etcd)
    listener.listen()
    await write(etcd, b"1")
    await until(lambda: listener.values() == [b"1"])
    follower.stop()
    stopped = reactor.seconds()
    with pytest.raises(EtcdAway, match=follower.endpoint):
        await etcd.scan(b"test/")
    assert reactor.seconds() - stopped >= SHORT
    await patiently(etcd.transact(Transaction((), [Put(KEY, b"2")])))
    await until(lambda: listener.values() == [b"1", b"2"])
    assert [type(loss) for loss in listener.losses] == [EtcdAway]
    assert reactor.seconds() - stopped >= (SILENT - 2) * PROGRESS
    assert await patiently(etcd.keep_alive(4711)) == 0


@pytest_twisted.ensureDeferred
async def test_watch_at_a_member_that_is_alone_is_lost(
    start_etcd: StartEtcd, connect: Connect
) -> None:
    cluster = await start_etcd(3)
    left, *others = cluster.members
    etcd = connect(f"etcd://{left.endpoint}")
    ear = Ear()
    etcd.watch(b"test/", 1, ear.hear, ear.lost.append)
    await until(lambda: ear.signs > 0)
    for other in others:
        await other.kill()
    await until(lambda: ear.lost != [])
    assert [type(loss) for loss in ear.lost] == [EtcdAway]
    with pytest.raises(EtcdAway):
        await patiently(etcd.scan(b"test/"))


@pytest_twisted.ensureDeferred
async def test_watch_is_lost_if_a_backup_was_restored_that_knows_less(
    start_etcd: StartEtcd, connect: Connect
) -> None:
    cluster = await start_etcd(1)
    (member,) = cluster.members
    etcd = connect(cluster.url())
    for value in (b"1", b"2", b"3"):
        await write(etcd, value)
    known = (await patiently(etcd.scan(b"test/"))).revision
    await member.kill()
    member.forget()
    member.begin()
    await member.ready()
    await write(etcd, b"new")
    ear = Ear()
    etcd.watch(b"test/", known + 1, ear.hear, ear.lost.append)
    await until(lambda: ear.lost != [])
    assert isinstance(ear.lost[0], Compacted)
    assert (ear.calls, ear.signs) == ([], 0)


@pytest_twisted.ensureDeferred
async def test_who_tries_again_at_once_is_no_burden_while_etcd_is_away(
    start_etcd: StartEtcd, connect: Connect
) -> None:
    cluster = await start_etcd(1)
    (member,) = cluster.members
    await member.kill()
    etcd = connect(cluster.url())
    listener = Listener(etcd)
    listener.listen()
    began = reactor.seconds()
    for _ in range(5):
        with pytest.raises(EtcdAway, match=member.endpoint):
            await patiently(etcd.grant(5))
    took = reactor.seconds() - began
    assert took >= 5 * BACKOFF
    assert len(listener.losses) <= took / BACKOFF + 1
    member.begin()
    await member.ready()
    await write(etcd, b"back")
    await until(lambda: listener.values() == [b"back"])


@pytest_twisted.ensureDeferred
async def test_what_hangs_blocks_nothing_and_ends_at_close(
    connect: Connect,
) -> None:
    before = set(threading.enumerate())
    with socket.create_server(("127.0.0.1", 0)) as silent:  # connects, says nothing
        etcd = connect(f"etcd://127.0.0.1:{silent.getsockname()[1]}")
        asked = etcd.grant(5)
        ear = Ear()
        etcd.watch(b"test/", 1, ear.hear, ear.lost.append)
        await pause(0.1)
        closing = etcd.close()
        assert asked.called  # at once, whatever else takes its time
        with pytest.raises(EtcdAway):
            await asked
        await patiently(closing)
    await until(lambda: set(threading.enumerate()) <= before)
    assert ear.lost == []


@pytest_twisted.ensureDeferred
async def test_proxies_of_the_environment_are_not_asked(
    start_etcd: StartEtcd, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = await start_etcd(1)
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    etcd = connect(cluster.url())
    assert await written(etcd) is None


@pytest_twisted.ensureDeferred
async def test_big_pages_arrive(start_etcd: StartEtcd, connect: Connect) -> None:
    cluster = await start_etcd(1)
    etcd = connect(cluster.url())
    for number in range(5):
        big = Put(b"test/%d" % number, bytes(1_000_000))
        await patiently(etcd.transact(Transaction((), [big])))
    ear = Ear()
    etcd.watch(b"test/", 1, ear.hear, ear.lost.append)
    page = await patiently(etcd.scan(b"test/"))
    assert sum(len(key.value) for key in page.keys) == 5_000_000
    await until(lambda: len(ear.events) == 5)
    too_big = etcd.transact(Transaction((), [Put(KEY, bytes(2_000_000))]))
    with pytest.raises(EtcdRefuses, match="too large"):
        await patiently(too_big)


@frozen
class Papers:
    """Certificates in files: who signed them, etcd's, and ours."""

    ca: Path
    server: tuple[Path, Path]
    client: tuple[Path, Path]


def make_papers(folder: Path) -> Papers:
    """Make certificates that one authority has signed."""
    folder.mkdir()
    root, *keys = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
    ca = x509.BasicConstraints(ca=True, path_length=0)
    host = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    signed = certificate("root", root, "root", root, ca)
    (folder / "ca.pem").write_bytes(signed.public_bytes(Encoding.PEM))
    for name, key in zip(("server", "client"), keys, strict=True):
        signed = certificate(name, key, "root", root, host)
        (folder / f"{name}.pem").write_bytes(signed.public_bytes(Encoding.PEM))
        (folder / f"{name}.key").write_bytes(
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        )
    return Papers(
        folder / "ca.pem",
        server=(folder / "server.pem", folder / "server.key"),
        client=(folder / "client.pem", folder / "client.key"),
    )


@pytest_twisted.ensureDeferred
async def test_tls_is_spoken_with_who_shows_the_right_certificate(
    start_etcd: StartEtcd, connect: Connect, tmp_path: Path
) -> None:
    ours, others = (make_papers(tmp_path / name) for name in ("ours", "others"))
    server, key = ours.server
    cluster = await start_etcd(
        1,
        *("--cert-file", server, "--key-file", key),
        *("--client-cert-auth", "--trusted-ca-file", ours.ca),
    )

    def client(ca: Path, papers: tuple[Path, Path]) -> EtcdClient:
        return connect(cluster.url(ca=ca, cert=papers[0], key=papers[1]))

    assert await written(client(ours.ca, ours.client)) is None
    for wrong in (
        client(others.ca, ours.client),
        client(ours.ca, others.client),
        connect(cluster.url(ca=ours.ca)),
        connect(cluster.url()),
    ):
        with pytest.raises(EtcdAway):
            await written(wrong)
    ours.ca.unlink()
    unreadable = client(ours.ca, ours.client)
    with pytest.raises(EtcdRefuses, match=f"{ours.ca}: No such file"):
        await written(unreadable)
    ear = Ear()
    unreadable.watch(b"test/", 1, ear.hear, ear.lost.append)
    assert ear.lost == []  # not before it returns
    await until(lambda: ear.lost != [])
    assert isinstance(ear.lost[0], EtcdRefuses)


def ask_for_passwords(cluster: EtcdCluster) -> None:
    """Let etcd ask who it is: "heart", or "stranger", who may do nothing.

    Their password is "secret".
    """
    with grpc.insecure_channel(cluster.members[0].endpoint) as channel:
        auth = rpc_pb2_grpc.AuthStub(channel)
        everything = auth_pb2.Permission(
            permType=auth_pb2.Permission.READWRITE, key=b"test/", range_end=b"test0"
        )
        for user in ("root", "heart", "stranger"):
            auth.UserAdd(rpc_pb2.AuthUserAddRequest(name=user, password="secret"))
        for role in ("root", "beating"):
            auth.RoleAdd(rpc_pb2.AuthRoleAddRequest(name=role))
        auth.RoleGrantPermission(
            rpc_pb2.AuthRoleGrantPermissionRequest(name="beating", perm=everything)
        )
        for user, role in (("root", "root"), ("heart", "beating")):
            auth.UserGrantRole(rpc_pb2.AuthUserGrantRoleRequest(user=user, role=role))
        auth.AuthEnable(rpc_pb2.AuthEnableRequest())


@pytest_twisted.ensureDeferred
async def test_user_gets_in_by_a_password_and_stays_in_when_the_token_has_ended(
    start_etcd: StartEtcd, connect: Connect, tmp_path: Path
) -> None:
    cluster = await start_etcd(1)
    (member,) = cluster.members
    password = tmp_path / "password"
    password.write_text("secret\n")
    etcd = connect(cluster.url(user="heart@", password_file=password))
    assert await written(etcd) is None  # nobody is asked yet
    ask_for_passwords(cluster)
    await write(etcd, b"1")
    listener = Listener(etcd)
    listener.listen()
    await until(lambda: listener.values() == [b"1"])
    await member.kill()  # it forgets the tokens that it gave
    await until(lambda: listener.losses != [])
    member.begin()
    await member.ready()
    await write(etcd, b"2")
    await until(lambda: b"2" in listener.values())
    assert {type(loss) for loss in listener.losses} == {EtcdAway}


@pytest.mark.parametrize(
    ("user", "password", "expected"),
    [
        ("stranger@", "secret", "permission denied"),
        ("heart@", "wrong", "invalid user ID or password"),
        ("heart@", "\xff", "UTF-8"),
        ("", "", "user name is empty"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_who_may_not_is_told_so(
    user: str,
    password: str,
    expected: str,
    start_etcd: StartEtcd,
    connect: Connect,
    tmp_path: Path,
) -> None:
    cluster = await start_etcd(1)
    ask_for_passwords(cluster)
    file = tmp_path / "password"
    file.write_bytes(password.encode("latin-1"))
    url = cluster.url(user=user, password_file=file) if user else cluster.url()
    etcd = connect(url)
    with pytest.raises(EtcdRefuses, match=expected):
        await written(etcd)
    ear = Ear()
    etcd.watch(b"test/", 1, ear.hear, ear.lost.append)
    await until(lambda: ear.lost != [])
    assert isinstance(ear.lost[0], EtcdRefuses)


#: Makes a client, forks as a daemon does, and asks.
DAEMON = """
import os, sys
from twisted.internet import reactor
from heartbeat_service.storage.etcd.client import EtcdClient
from heartbeat_service.storage.etcd.url import parse

etcd = EtcdClient(reactor, parse(sys.argv[1]))
if os.fork() == 0:
    def end(answer):
        told = answer if isinstance(answer, int) else answer.getErrorMessage()
        print(told, flush=True)
        etcd.close().addBoth(lambda _: reactor.stop())
    reactor.callWhenRunning(lambda: etcd.grant(5).addBoth(end))
    reactor.run()
else:
    os.wait()
"""


@pytest_twisted.ensureDeferred
async def test_daemon_asks_after_its_fork_and_grpc_prints_nothing(
    start_etcd: StartEtcd, spawn: Spawn
) -> None:
    cluster = await start_etcd(1)
    (member,) = cluster.members
    for expected in (r"\d+", rf"etcd at {member.endpoint}: failed to connect to .*"):
        daemon = spawn(sys.executable, "-c", DAEMON, cluster.url())
        assert await daemon.ends() == 0
        assert re.fullmatch(rf"{expected}\n", daemon.output), daemon.output
        await member.kill()
