"""Operators' orders over HTTP, to one and to many (contract, section 3)."""

from __future__ import annotations

from pathlib import Path

import pytest
import pytest_twisted

from heartbeat_service.protocol.codec import MAX_ORDER
from tests.integration.conftest import Running, Serve
from tests.integration.test_bad_input import assert_problem
from tests.messages import over_http


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
