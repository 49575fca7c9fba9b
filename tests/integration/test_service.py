"""How the service starts and stops, in this process."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import deferLater
from twisted.logger import LogEvent

from heartbeat_service import service as service_module
from heartbeat_service.host.hangup import on_hangup
from heartbeat_service.service import HeartbeatService
from heartbeat_service.settings import Settings
from tests.integration.conftest import Running, Serve, port_of
from tests.integration.waiting import (
    PATIENCE,
    SILENCE,
    patiently,
    pause,
    reactor,
    until,
)
from tests.messages import heartbeat, over_http
from tests.unit.fakes import HandStore

LOOPBACK = {
    "router": "tcp://127.0.0.1:0",
    "pub": "tcp://127.0.0.1:0",
    "store": "memory:",
}


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[HandStore]:
    """The store of every service that is started: changes wait in it."""
    store = HandStore()
    monkeypatch.setattr(service_module, "MemoryStore", lambda _clock: store)
    yield store
    store.be_quick()


@pytest.mark.parametrize(
    "http",
    [
        "tcp:0:interface=nowhere.invalid",
        "unix:/no/such/folder/socket",
    ],
)
@pytest_twisted.ensureDeferred
async def test_what_it_cannot_listen_on_ends_it_with_a_sentence_that_names_it(
    http: str,
) -> None:
    service = HeartbeatService(reactor, Settings(http=http, **LOOPBACK))
    with pytest.raises(SystemExit, match=f"can't start: --http {http}: "):
        service.startService()
    assert service.http == []


@pytest_twisted.ensureDeferred
async def test_a_start_that_fails_later_ends_the_program_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class SlowEndpoint:
        def listen(self, _factory: object) -> Deferred[Any]:
            late: Deferred[Any] = deferLater(reactor, 0.01)
            return late.addCallback(lambda _: fail(OSError("no such cable")))

    class Program:
        stopped = 0

        def stop(self) -> None:
            self.stopped += 1

        def __getattr__(self, name: str) -> Any:
            return getattr(reactor, name)

    program = Program()
    monkeypatch.setattr(
        service_module, "serverFromString", lambda _reactor, _text: SlowEndpoint()
    )
    service = HeartbeatService(program, Settings(**LOOPBACK))
    service.startService()

    await until(lambda: program.stopped == 1)
    await patiently(service.stopService())
    assert program.stopped == 1
    assert not service.running


@pytest_twisted.ensureDeferred
async def test_files_are_read_once_for_all_who_ask_meanwhile_and_hold_nobody_up() -> (
    None
):
    begun: list[None] = []
    go_on = threading.Event()

    def read() -> None:
        begun.append(None)
        assert go_on.wait(PATIENCE)

    put_back = on_hangup(reactor, [read])
    try:
        for count in (1, 3, 3):
            for _ in range(count):
                os.kill(os.getpid(), signal.SIGHUP)
                await pause(0.01)  # it turns, though nothing is read to its end
        assert len(begun) == 1
        go_on.set()
        await until(lambda: len(begun) == 2)
        await pause(SILENCE)
        assert len(begun) == 2
    finally:
        go_on.set()
        put_back()


@pytest_twisted.ensureDeferred
async def test_stopped_and_started_at_once_it_serves(serve: Serve) -> None:
    running = await serve()
    await running.beat("1")
    stopping = running.service.stopService()
    running.service.startService()
    await patiently(stopping)
    await patiently(running.service.started)
    await running.beat("1")
    assert (await running.http("GET", "/readyz"))[0] == 200


@pytest_twisted.ensureDeferred
async def test_what_is_under_way_is_answered_before_it_stops(
    store: HandStore, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("heartbeat_service.web.channel.LINGER", 0.05)
    running = await serve(store="memory:")
    answer = Deferred.fromCoroutine(running.http("POST", "/heartbeat", heartbeat("1")))

    await until(lambda: bool(store.waiting))
    stopped = running.service.stopService()
    await pause(0.2)  # the store may take its time
    assert not answer.called
    store.be_quick()
    assert (await patiently(answer))[0] == 200
    await patiently(stopped)


@pytest_twisted.ensureDeferred
async def test_who_is_still_sending_is_answered_before_it_stops(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("heartbeat_service.web.channel.LINGER", PATIENCE)
    running = await serve()
    wire = await running.wire()
    body = heartbeat("1")
    wire.send(
        b"POST /heartbeat HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n"
        b"Content-Length: %d\r\n\r\n" % len(body)
    )
    go_on = b"HTTP/1.1 100 Continue\r\n\r\n"
    assert await wire.at_least(len(go_on)) == go_on
    wire.send(body[:10])
    stopped = running.service.stopService()
    await pause(0.05)
    wire.send(body[10:])
    assert (await wire.answer()).status == 200
    await wire.end()
    await patiently(stopped)


@pytest_twisted.ensureDeferred
async def test_who_leaves_before_its_answer_leaves_no_trace(
    store: HandStore, serve: Serve, tracebacks: list[LogEvent]
) -> None:
    running = await serve(store="memory:")
    wire = await running.wire()
    body = heartbeat("1")
    wire.send(over_http("POST /heartbeat", body=body))

    await until(lambda: bool(store.waiting))
    other = await running.wire()
    order = b'{"clientState": "DISCONNECTED"}'
    other.send(over_http("PUT /clients/1/state", body=order))
    wire.abort()
    await other.leave()
    store.be_quick()
    assert (await running.http("GET", "/clients/1"))[0] == 200
    assert tracebacks == []


@pytest_twisted.ensureDeferred
async def test_a_stopped_service_has_let_go_of_its_ports(serve: Serve) -> None:
    running = await serve()
    ports = [running.service.http[0], running.service.router, running.service.pub]
    await running.stop()
    second: Running = await serve(
        http=f"tcp:{port_of(ports[0])}:interface=127.0.0.1",
        router=ports[1],
        pub=ports[2],
    )
    assert (await second.beat("1"))["clientState"] == "UNCALIBRATED"
