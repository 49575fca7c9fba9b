"""Limits: on clients, on lives begun, on fuses; and who is kept out altogether."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest_twisted

from tests.integration.conftest import Running, Serve
from tests.integration.waiting import until
from tests.messages import heartbeat


async def refused(running: Running, client_id: str) -> None:
    """A client can't register, and is told to try again later."""
    status, problem, headers = await running.http(
        "POST", "/heartbeat", heartbeat(client_id)
    )
    assert (status, problem["code"]) == (503, "OVERLOADED")
    assert int(headers.getRawHeaders("Retry-After")[0]) > 0
    reply = await running.dealer().ask(heartbeat(client_id))
    assert (reply["messageType"], reply["body"]["code"]) == ("Error", "OVERLOADED")
    assert (await running.http("GET", f"/clients/{client_id}"))[0] == 404


@pytest_twisted.ensureDeferred
async def test_no_more_clients_live_than_may(serve: Serve) -> None:
    running = await serve(max_clients=2)
    await running.beat("1")
    await running.beat("2")
    await refused(running, "3")
    await running.beat("1", "UNCALIBRATED")
    again = await running.beat("1", "DISCONNECTED")  # a new life is no more clients
    assert again["sequence"] == 1
    await running.kick("2")
    await running.beat("3")


@pytest_twisted.ensureDeferred
async def test_no_more_clients_register_a_second_than_may(serve: Serve) -> None:
    running = await serve(max_registrations=1)
    await running.beat("1")
    dealer = running.dealer()
    names = [f"crowd-{number}" for number in range(20)]
    for name in names:  # all of them in far less than 20 s
        assert dealer.send_multipart([heartbeat(name)])
    replies = [json.loads((await dealer.receive())[-1])["body"] for _ in names]
    assert "OVERLOADED" in {reply.get("code") for reply in replies}
    for _ in range(3):  # who has registered beats as often as it likes
        await running.beat("1")


@pytest_twisted.ensureDeferred
async def test_without_a_limit_any_number_registers(running: Running) -> None:
    for number in range(50):
        await running.beat(f"client-{number}")
    assert len((await running.get("/clients"))["clients"]) == 50


@pytest_twisted.ensureDeferred
async def test_new_lives_count_as_registrations(serve: Serve) -> None:
    running = await serve(max_registrations=5)
    dealer = running.dealer()
    for number in range(50):
        assert dealer.send_multipart([heartbeat("1", instanceID=f"process-{number}")])
    replies = [json.loads((await dealer.receive())[-1])["body"] for _ in range(50)]
    refused = [reply for reply in replies if reply.get("code") == "OVERLOADED"]
    assert len(refused) >= 30


@pytest_twisted.ensureDeferred
async def test_one_client_begins_no_more_than_ten_lives_a_second(
    running: Running,
) -> None:
    begun = time.monotonic()
    dealer = running.dealer()
    for number in range(100):
        assert dealer.send_multipart([heartbeat("1", instanceID=f"process-{number}")])
    replies = [json.loads((await dealer.receive())[-1])["body"] for _ in range(100)]
    lives = [reply for reply in replies if "incarnation" in reply]
    assert 10 <= len(lives) <= 10 + 10 * (time.monotonic() - begun)
    assert {reply.get("code") for reply in replies} == {None, "OVERLOADED"}


@pytest_twisted.ensureDeferred
async def test_no_client_gets_a_longer_timebomb_than_may_be(serve: Serve) -> None:
    running = await serve(max_timebomb=60)
    told = await running.beat("1", timebombSeconds=1e9)
    assert told["timebombSeconds"] == 60
    told = await running.beat("1", "UNCALIBRATED", timebombSeconds=50)
    assert told["timebombSeconds"] == 50


async def lock_out(running: Running, client_id: str, seconds: Any) -> int:
    """An operator keeps a client out; the status of the answer."""
    body = json.dumps({"seconds": seconds}).encode()
    status, _, _ = await running.http("PUT", f"/clients/{client_id}/lockout", body)
    return status


async def kept_out(running: Running, client_id: str) -> None:
    """A client's heartbeats are refused, on either way."""
    status, problem, _ = await running.http("POST", "/heartbeat", heartbeat(client_id))
    assert (status, problem["code"], problem["clientID"]) == (
        403,
        "LOCKED_OUT",
        client_id,
    )
    reply = await running.dealer().ask(heartbeat(client_id))
    assert (reply["messageType"], reply["body"]["code"]) == ("Error", "LOCKED_OUT")


@pytest_twisted.ensureDeferred
async def test_who_is_locked_out_is_kicked_and_can_not_come_back(
    running: Running,
) -> None:
    subscriber = await running.subscriber(b"OnStateChange/1/")
    await running.beat("1")
    await running.beat("10")
    assert await lock_out(running, "1", 600) == 204
    assert (await subscriber.change())["reason"] == "heartbeat"
    assert (await subscriber.change())["reason"] == "kick"
    await kept_out(running, "1")
    await running.beat("10", "UNCALIBRATED")
    assert await lock_out(running, "1", 0) == 204
    assert (await running.beat("1"))["sequence"] == 1


@pytest_twisted.ensureDeferred
async def test_who_never_was_here_can_be_locked_out(running: Running) -> None:
    assert await lock_out(running, "1", 0.2) == 204
    await kept_out(running, "1")

    async def comes_back() -> bool:
        return (await running.http("POST", "/heartbeat", heartbeat("1")))[0] == 200

    await until(comes_back)


@pytest_twisted.ensureDeferred
async def test_a_lockout_outlives_a_restart(serve: Serve, tmp_path: Path) -> None:
    store = f"sqlite:{tmp_path / 'lockouts.sqlite'}"
    running = await serve(store=store)
    assert await lock_out(running, "1", 600) == 204
    assert await lock_out(running, "2", 600) == 204
    assert await lock_out(running, "2", 0) == 204
    await running.stop()
    running = await serve(store=store)
    await kept_out(running, "1")
    await running.beat("2")


@pytest_twisted.ensureDeferred
async def test_a_lockout_that_makes_no_sense_is_an_error(running: Running) -> None:
    for body in (
        *(b"", b"{}", b'{"seconds":-1}', b'{"seconds":"60"}', b'{"seconds":null}'),
        *(
            b'{"seconds":1e999}',
            b'{"seconds":1e11}',
            b'{"seconds":NaN}',
            b'{"seconds":60,"second":6}',
        ),
    ):
        status, problem, _ = await running.http("PUT", "/clients/1/lockout", body)
        assert (status, problem["code"]) == (400, "BAD_MESSAGE"), body
    await running.beat("1")
