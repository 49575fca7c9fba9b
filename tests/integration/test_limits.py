"""Nobody fills the memory with invented IDs: limits on clients and registrations."""

from __future__ import annotations

import json

import pytest_twisted

from tests.integration.conftest import Running, Serve
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
