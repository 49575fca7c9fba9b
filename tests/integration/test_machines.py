"""The contract for machines, over HTTP: /openapi.json and /asyncapi.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest_twisted
from jsonschema import Draft202012Validator

from tests.integration.conftest import Running, Serve
from tests.integration.test_events import follow
from tests.integration.test_pages import ask


async def read(running: Running, path: str) -> Any:
    answer = await ask(running, f"GET {path}")
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    return json.loads(answer.body)


def strictly(document: Any, name: str) -> Draft202012Validator:
    """As a schema of a document says, and with no field that it doesn't name."""
    schemas = {
        name: {**schema, "additionalProperties": False}
        if schema.get("type") == "object"
        else schema
        for name, schema in document["components"]["schemas"].items()
    }
    return Draft202012Validator(
        {"$ref": f"#/components/schemas/{name}", "components": {"schemas": schemas}}
    )


@pytest_twisted.ensureDeferred
async def test_anybody_reads_what_is_asked_and_with_which_tokens(
    serve: Serve, tmp_path: Path
) -> None:
    path = tmp_path / "operators"
    path.write_text("a-token-of-operators\n")
    running = await serve(operator_token_file=str(path))
    document = await read(running, "/openapi.json")
    assert document["openapi"].startswith("3.1.")
    assert document["paths"]["/clients"]["get"]["security"] == [{"operatorToken": []}]
    assert document["paths"]["/heartbeat"]["post"]["security"][0] == {}
    events = await read(running, "/asyncapi.json")
    assert events["asyncapi"] == "3.0.0"
    host = events["servers"]["router"]["host"]
    assert f"tcp://{host}" == running.service.router


@pytest_twisted.ensureDeferred
async def test_a_document_that_is_known_is_not_sent_again(running: Running) -> None:
    for path in ("/openapi.json", "/asyncapi.json"):
        etag = (await ask(running, f"GET {path}")).headers["etag"]
        answer = await ask(running, f"GET {path}", f"If-None-Match: {etag}")
        assert (answer.status, answer.body) == (304, b"")


@pytest_twisted.ensureDeferred
async def test_what_is_answered_and_told_has_the_documents_fields_and_no_others(
    running: Running,
) -> None:
    answers = await read(running, "/openapi.json")
    events = await read(running, "/asyncapi.json")
    stream = await follow(running)
    await running.beat("1", labels={"room": "A"}, instanceID="i", values={"fps": 1})
    await running.beat("1", "CALIBRATED", labels={"room": "B"}, instanceID="i")
    await running.steer("1", "RUNNING")
    order = b'{"seconds": 60}'
    status, record, _ = await running.http("PUT", "/clients/1/silence", order)
    assert status == 200
    strictly(answers, "ClientRecord").validate(record)
    status, _, _ = await running.http("PUT", "/clients/1/lockout", order)
    assert status == 204
    told = await stream.read(9)
    for event in told:
        payload = events["components"]["messages"][f"event.{event.name}"]["payload"]
        name = payload["$ref"].rpartition("/")[2]
        strictly(events, name).validate(event.data)
    assert {event.name for event in told} == {
        *("Reset", "OnStateChange", "Labels", "Reported", "Silence", "LockedOut")
    }
    for path, name, kind in (
        ("/clients/1/history", "lives", "LifeRecord"),
        ("/clients?gone=true", "clients", "GoneRecord"),
        ("/lockouts", "lockouts", "LockoutRecord"),
    ):
        [item] = (await running.get(path))[name]
        strictly(answers, kind).validate(item)
    strictly(answers, "SummaryRecord").validate(await running.get("/summary"))
    status, problem, _ = await running.http("GET", "/clients/nobody")
    assert status == 404
    strictly(answers, "ProblemRecord").validate(problem)
