"""Operators' orders over HTTP, to one and to many (contract, section 3)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted

from heartbeat_service.protocol.codec import MAX_ORDER
from tests.integration.conftest import Running, Serve
from tests.integration.test_bad_input import assert_problem
from tests.integration.waiting import PATIENCE, until
from tests.messages import over_http


async def give(running: Running, first: str, **body: Any) -> tuple[int, Any]:
    """Give an order; its status and its JSON."""
    method, path = first.split()
    status, content, _ = await running.http(method, path, json.dumps(body).encode())
    return status, content


@pytest_twisted.ensureDeferred
async def test_many_are_kicked_in_one_order_and_each_is_told(running: Running) -> None:
    lives = {name: await running.beat(name) for name in ("1", "2", "3")}
    subscriber = await running.subscriber()
    expected = {
        "1": [lives["1"]["incarnation"], 1],
        "2": [lives["2"]["incarnation"], 9],
    }
    order = {"clientIDs": ["2", "3", "1"], "expected": expected}
    status, dry = await give(running, "POST /clients/kick", **order, dryRun=True)
    assert status == 200
    status, content = await give(running, "POST /clients/kick", **order)
    assert (status, content) == (200, dry)
    second, third, first = content["clients"]
    assert (second["code"], second["clientID"]) == ("STALE_SEQUENCE", "2")
    assert third == {**lives["3"], "clientState": "DISCONNECTED", "sequence": 2}
    assert first == {**lives["1"], "clientState": "DISCONNECTED", "sequence": 2}
    told = [await subscriber.change() for _ in range(2)]
    assert [(c["clientID"], c["reason"]) for c in told] == [
        ("3", "kick"),
        ("1", "kick"),
    ]
    listed = (await running.get("/clients"))["clients"]
    assert [client["clientID"] for client in listed] == ["2"]


@pytest_twisted.ensureDeferred
async def test_who_is_kept_out_is_listed(running: Running) -> None:
    await running.beat("1")
    order = {"seconds": 600, "clientIDs": ["1", "2"], "from": ["DISCONNECTED"]}
    status, content = await give(running, "PUT /clients/lockout", **order)
    assert status == 200
    error, done = content["clients"]
    assert error["code"] == "ILLEGAL_TRANSITION"
    assert done == {"clientID": "2", "seconds": 600}
    [kept_out] = (await running.get("/lockouts"))["lockouts"]
    assert 500 < kept_out.pop("seconds") <= 600
    assert kept_out == {"clientID": "2", "by": None}
    status, _ = await give(running, "PUT /clients/lockout", seconds=0, clientIDs=["2"])
    assert (status, (await running.get("/lockouts"))["lockouts"]) == (200, [])


@pytest_twisted.ensureDeferred
async def test_a_kick_takes_a_body_with_terms_or_none(running: Running) -> None:
    life = (await running.beat("1"))["incarnation"]
    for terms, refused in (
        ({"expected": [life, 2]}, (409, "STALE_SEQUENCE")),
        ({"from": ["RUNNING", 2]}, (409, "ILLEGAL_TRANSITION")),
    ):
        status, problem = await give(running, "DELETE /clients/1", **terms)
        assert (status, problem["code"]) == refused
    status, content = await give(
        running, "DELETE /clients/1", expected=[life, 1], dryRun=True
    )
    assert (status, content) == (204, None)
    assert (await running.beat("1"))["sequence"] == 1
    status, content = await give(running, "DELETE /clients/1", expected=[life, 1])
    assert (status, content) == (204, None)
    status, _ = await give(running, "DELETE /clients/1")
    assert status == 404


@pytest_twisted.ensureDeferred
async def test_an_order_may_have_2_mib_and_not_a_byte_more(running: Running) -> None:
    data = b'{"clientState": "RUNNING", "clientIDs": ["1"]}'.ljust(MAX_ORDER)
    wire = await running.wire()
    wire.send(over_http("PUT /clients/state", body=data))
    answer = await wire.answer()
    assert answer.status == 200
    assert answer.json()["clients"][0]["code"] == "UNKNOWN_CLIENT"
    wire.send(over_http("PUT /clients/state", body=data + b" "))
    problem = assert_problem(await wire.answer(), 413, "TOO_LARGE")
    assert problem["detail"] == f"At most {MAX_ORDER} bytes"


@pytest_twisted.ensureDeferred
async def test_a_long_order_may_come_in_chunks_as_programs_send_them(
    running: Running,
) -> None:
    data = b'{"clientState": "RUNNING", "clientIDs": ["1"]}'.ljust(MAX_ORDER)
    wire = await running.wire()
    wire.send(over_http("PUT /clients/state", "Transfer-Encoding: chunked"))
    for start in range(0, len(data), 0x2000):
        wire.send(b"2000\r\n" + data[start : start + 0x2000] + b"\r\n")
    wire.send(b"0\r\n\r\n")
    assert (await wire.answer()).status == 200


@pytest_twisted.ensureDeferred
async def test_a_long_order_in_chunks_is_bounded_too(running: Running) -> None:
    wire = await running.wire()
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    wire.send(over_http("PUT /clients/state", "Transfer-Encoding: chunked"))
    for _ in range(MAX_ORDER // 0x10000 + 1):
        wire.send(chunk)
    assert_problem(await wire.answer(), 413, "TOO_LARGE")


@pytest.mark.parametrize("first", ["POST /heartbeat", "PUT /clients/state"])
@pytest_twisted.ensureDeferred
async def test_only_an_operator_may_send_more_than_64_kib(
    serve: Serve, tmp_path: Path, first: str
) -> None:
    tokens = tmp_path / "operators"
    tokens.write_text("operator-token-1\n")
    tokens.chmod(0o600)
    running = await serve(operator_token_file=str(tokens))
    wire = await running.wire()
    wire.send(over_http(first, "Content-Length: 70000"))
    status = 413 if "heartbeat" in first else 401
    assert (await wire.answer()).status == status


@pytest_twisted.ensureDeferred
async def test_a_room_is_granted_a_silence_which_is_listed_and_taken_back(
    running: Running,
) -> None:
    for name, room in (("1", "a"), ("2", "b"), ("3", "a")):
        await running.beat(name, labels={"room": room})
    order = {"seconds": 300, "labels": {"room": "a"}}
    status, content = await give(running, "PUT /clients/silence", **order)
    assert status == 200
    assert [sorted(one) for one in content["clients"]] == [["clientID", "seconds"]] * 2
    listed = (await running.get("/clients?label=room:a"))["clients"]
    assert [one["clientID"] for one in listed] == ["1", "3"]
    least = 300 - PATIENCE
    assert all(least < one["silentSeconds"] <= 300 for one in listed)
    assert (await running.get("/summary"))["silent"] == 2
    status, record = await give(running, "PUT /clients/1/silence", seconds=0)
    assert (status, record["silentSeconds"]) == (200, None)
    assert record.keys() == listed[0].keys()
    await running.beat("3")

    async def is_over() -> bool:
        silent: int = (await running.get("/summary"))["silent"]
        return silent == 0

    await until(is_over)  # it counts until its end is durable


@pytest_twisted.ensureDeferred
async def test_who_gives_an_order_is_the_name_of_the_token(
    serve: Serve, tmp_path: Path
) -> None:
    tokens = tmp_path / "operators"
    tokens.write_text("token-of-anna-123 Anna B.\ntoken-of-nobody-1\n")
    tokens.chmod(0o600)
    running = await serve(operator_token_file=str(tokens))
    anna, nobody = "Bearer token-of-anna-123", "Bearer token-of-nobody-1"
    for name, order, bearer in (
        ("1", "DELETE /clients/1", anna),
        ("2", "DELETE /clients/2", nobody),
        ("3", "PUT /clients/lockout", anna),
    ):
        await running.beat(name)
        method, path = order.split()
        body = b'{"seconds": 60, "all": true}' if "lockout" in path else None
        status, content, _ = await running.http(
            method, path, body, Authorization=bearer
        )
        assert status in (200, 204), content
    by = []
    for name in "123":
        path = f"/clients/{name}/history"
        _, content, _ = await running.http("GET", path, Authorization=anna)
        by.append(content["lives"][0]["by"])
    assert by == ["Anna B.", None, "Anna B."]
    _, content, _ = await running.http("GET", "/lockouts", Authorization=nobody)
    assert [one["by"] for one in content["lockouts"]] == ["Anna B."]


@pytest_twisted.ensureDeferred
async def test_labels_silences_and_who_did_what_outlive_a_restart(
    serve: Serve, tmp_path: Path
) -> None:
    tokens = tmp_path / "operators"
    tokens.write_text("token-of-anna-123 Anna B.\n")
    tokens.chmod(0o600)
    settings = {
        "operator_token_file": str(tokens),
        "store": f"sqlite:{tmp_path / 'kept.sqlite'}",
    }
    running = await serve(**settings)

    async def operate(first: str, body: bytes | None = None) -> Any:
        """An operator does what must succeed."""
        method, path = first.split()
        status, content, _ = await running.http(
            method, path, body, Authorization="Bearer token-of-anna-123"
        )
        assert status in (200, 204), content
        return content

    async def seen() -> tuple[Any, ...]:
        """What an operator sees of all that."""
        (here,) = (await operate("GET /clients"))["clients"]
        (gone,) = (await operate("GET /clients?gone=true"))["clients"]
        (life,) = (await operate("GET /clients/2/history"))["lives"]
        (kept_out,) = (await operate("GET /lockouts"))["lockouts"]
        summary = await operate("GET /summary")
        assert 500 < here["silentSeconds"] <= 600
        return (
            *(here["clientID"], here["labels"], here["stateSince"]),
            *(gone["clientID"], gone["labels"], life["by"]),
            *(kept_out["clientID"], kept_out["by"], summary["goneLastHour"]),
        )

    for name in ("1", "2"):
        await running.beat(name, labels={"room": name})
        await running.beat(name, labels={"room": "b", "seat": name})
    await operate("PUT /clients/1/state", b'{"clientState": "RUNNING"}')
    await operate("PUT /clients/1/silence", b'{"seconds": 600}')
    await operate("PUT /clients/2/lockout", b'{"seconds": 600}')
    before = await seen()
    since = before[2]
    assert before == (
        *("1", {"room": "b", "seat": "1"}, since),
        *("2", {"room": "b", "seat": "2"}, "Anna B."),
        *("2", "Anna B.", 1),
    )
    await running.stop()
    running = await serve(**settings)
    assert await seen() == before
