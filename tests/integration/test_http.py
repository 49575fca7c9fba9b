"""Every route of HTTP: its statuses, content types and fields (contract, section 3)."""

from __future__ import annotations

import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted

from tests.integration.conftest import FUSE, Answer, Running, Serve, Wire
from tests.integration.waiting import pause, until
from tests.messages import heartbeat, message, over_http

RECORD = {
    "clientID",
    "clientState",
    "reportedState",
    "sequence",
    "incarnation",
    "instanceID",
    "values",
    "timebombSeconds",
    "secondsSinceHeartbeat",
    "secondsToTimebomb",
    "registeredAt",
    "labels",
    "late",
    "held",
    "silentSeconds",
    "stateSince",
    "deathsInTenMinutes",
}
LIFE = {
    "incarnation",
    "registeredAt",
    "endedAt",
    "reason",
    "lastState",
    "beats",
    "longestGapSeconds",
    "by",
}
GONE = (LIFE - {"incarnation", "by"}) | {"clientID", "labels"}
STATE = {
    "clientID",
    "clientState",
    "sequence",
    "incarnation",
    "timebombSeconds",
    "heartbeatIntervalSeconds",
    "requestEndpoint",
    "stateChangeEndpoint",
}

TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}")


def send(
    wire: Wire, method: str, path: str, body: bytes | None = None, *headers: str
) -> None:
    """Write one request, byte by byte as told."""
    wire.send(over_http(f"{method} {path}", *headers, body=body))


async def ask(
    running: Running, method: str, path: str, content: Any = None
) -> tuple[int, Any]:
    """One request with JSON; its status and its JSON, with the right type."""
    wire = await running.wire()
    send(wire, method, path, None if content is None else json.dumps(content).encode())
    answer = await wire.answer()
    if answer.status == 204:
        assert answer.body == b""
        return answer.status, None
    kind = "application/json" if answer.status < 400 else "application/problem+json"
    assert answer.headers["content-type"] == kind
    return answer.status, answer.json()


def is_moment(text: str) -> bool:
    """It is a moment in UTC as people read it."""
    return text.endswith("Z") and datetime.fromisoformat(text).tzinfo is not None


@pytest.mark.parametrize("path", ["/heartbeat", "/Heartbeat/Update"])
@pytest_twisted.ensureDeferred
async def test_post_heartbeat_replies_with_the_clients_state(
    running: Running, path: str
) -> None:
    wire = await running.wire()
    send(wire, "POST", path, heartbeat("1"))
    answer = await wire.answer()
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    reply = answer.json()
    assert set(reply) == {"sdkVersion", "timestamp", "messageType", "body"}
    assert reply["messageType"] == "ClientState"
    assert isinstance(reply["sdkVersion"], float)
    assert TIMESTAMP.fullmatch(reply["timestamp"])
    assert set(reply["body"]) == STATE


@pytest_twisted.ensureDeferred
async def test_post_heartbeat_takes_every_request_of_a_client(running: Running) -> None:
    life = {"clientID": "1", "incarnation": (await running.beat("1"))["incarnation"]}
    for asked, state in (
        (message("GetClientState", clientID="1"), "UNCALIBRATED"),
        (message("SetClientState", **life, clientState="CALIBRATED"), "CALIBRATED"),
        (message("Goodbye", **life), "DISCONNECTED"),
    ):
        status, reply, _ = await running.http("POST", "/heartbeat", asked)
        assert (status, reply["messageType"]) == (200, "ClientState")
        assert reply["body"]["clientState"] == state
    (life,) = (await running.get("/clients/1/history"))["lives"]
    assert life["reason"] == "goodbye"


@pytest_twisted.ensureDeferred
async def test_post_heartbeat_refuses_what_zeromq_refuses(running: Running) -> None:
    now = (await running.beat("1"))["incarnation"]
    running_now = message("SetClientState", clientID="1", clientState="RUNNING")
    for asked, refused in (
        (message("GetClientState", clientID="2"), (404, "UNKNOWN_CLIENT")),
        (running_now, (409, "ILLEGAL_TRANSITION")),
        (
            message("Goodbye", clientID="1", incarnation=now + 1),
            (409, "STALE_INCARNATION"),
        ),
        (
            message(
                "SetClientState", clientID="1", clientState="CALIBRATED", sequence=2
            ),
            (409, "STALE_SEQUENCE"),
        ),
        (message("OnStateChange", clientID="1"), (400, "BAD_MESSAGE")),
    ):
        status, problem, _ = await running.http("POST", "/heartbeat", asked)
        assert (status, problem["code"]) == refused
    assert (await running.beat("1"))["sequence"] == 1


@pytest_twisted.ensureDeferred
async def test_get_clients_lists_everyone(running: Running) -> None:
    status, content = await ask(running, "GET", "/clients")
    assert (status, content["clients"]) == (200, [])
    for client_id in ("1", "10"):
        await running.beat(client_id)
    status, content = await ask(running, "GET", "/clients")
    assert (status, set(content)) == (200, {"clients", "asOf", "serverTime"})
    assert is_moment(content["serverTime"])
    assert [record["clientID"] for record in content["clients"]] == ["1", "10"]
    assert all(set(record) == RECORD for record in content["clients"])


@pytest_twisted.ensureDeferred
async def test_get_client_shows_every_field(running: Running) -> None:
    reply = await running.beat(
        "1",
        "RUNNING",
        instanceID="a",
        timebombSeconds=60,
        values={"fps": [59.9, None]},
        labels={"room": "a"},
    )
    status, record = await ask(running, "GET", "/clients/1")
    assert status == 200
    assert is_moment(record.pop("registeredAt"))
    assert is_moment(record.pop("stateSince"))
    since, left = record.pop("secondsSinceHeartbeat"), record.pop("secondsToTimebomb")
    assert 0 <= since < 60
    assert 0 < left <= 60
    assert since + left == pytest.approx(60, abs=1)  # each asks the clock by itself
    assert record == {
        "clientID": "1",
        "clientState": "UNCALIBRATED",
        "reportedState": "RUNNING",
        "sequence": 1,
        "incarnation": reply["incarnation"],
        "instanceID": "a",
        "values": {"fps": [59.9, None]},
        "timebombSeconds": 60,
        "labels": {"room": "a"},
        "late": False,
        "held": False,
        "silentSeconds": None,
        "deathsInTenMinutes": 0,
    }


@pytest_twisted.ensureDeferred
async def test_get_client_shows_what_a_heartbeat_left_out(running: Running) -> None:
    await running.beat("1", values={"a": 1})
    await running.beat("1")
    _, record = await ask(running, "GET", "/clients/1")
    assert set(record) == RECORD
    assert (record["instanceID"], record["values"]) == (None, {})
    assert record["reportedState"] == "DISCONNECTED"
    assert record["timebombSeconds"] == FUSE


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/clients/1"),
        ("DELETE", "/clients/1"),
        ("GET", "/clients/1/history"),
        ("PUT", "/clients/1/state"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_an_unknown_client_is_not_found(
    running: Running, method: str, path: str
) -> None:
    await running.beat("10")
    content = {"clientState": "RUNNING"} if method == "PUT" else None
    status, problem = await ask(running, method, path, content)
    assert (status, problem["code"], problem["clientID"]) == (
        404,
        "UNKNOWN_CLIENT",
        "1",
    )


@pytest.mark.parametrize("state", ["RUNNING", 3])
@pytest_twisted.ensureDeferred
async def test_put_state_sets_one_clients_state(
    running: Running, state: str | int
) -> None:
    former = await running.beat("1")
    other = await running.beat("10")
    subscriber = await running.subscriber()
    status, reply = await ask(
        running, "PUT", "/clients/1/state", {"clientState": state}
    )
    assert (status, reply["messageType"]) == (200, "ClientState")
    assert reply["body"] == {**former, "clientState": "RUNNING", "sequence": 2}
    assert await subscriber.change() == {
        "clientID": "1",
        "clientState": "RUNNING",
        "previousState": "UNCALIBRATED",
        "reason": "operator",
        "sequence": 2,
        "incarnation": former["incarnation"],
    }
    assert await running.beat("10") == other


@pytest_twisted.ensureDeferred
async def test_put_state_reaches_every_living_state_from_any(running: Running) -> None:
    await running.beat("1")
    living = ("UNCALIBRATED", "CALIBRATED", "RUNNING")
    sequence = 1
    for start in living:
        for target in living:
            await running.steer("1", start)
            reply = await running.steer("1", target)
            assert reply["clientState"] == target
            assert reply["sequence"] >= sequence
            sequence = reply["sequence"]


@pytest_twisted.ensureDeferred
async def test_put_state_disconnected_is_an_illegal_transition(
    running: Running,
) -> None:
    present = await running.beat("1")
    status, problem = await ask(
        running, "PUT", "/clients/1/state", {"clientState": "DISCONNECTED"}
    )
    assert (status, problem["code"]) == (409, "ILLEGAL_TRANSITION")
    assert await running.beat("1") == present


@pytest_twisted.ensureDeferred
async def test_put_states_of_all_sets_everyone(running: Running) -> None:
    order = {"clientState": "RUNNING", "all": True}
    status, content = await ask(running, "PUT", "/clients/state", order)
    assert (status, content) == (200, {"clients": []})
    replies = [await running.beat(client_id) for client_id in ("1", "2", "3")]
    status, content = await ask(running, "PUT", "/clients/state", order)
    assert status == 200
    assert content == {
        "clients": [
            {**reply, "clientState": "RUNNING", "sequence": 2} for reply in replies
        ]
    }


@pytest_twisted.ensureDeferred
async def test_put_states_with_ids_sets_these_and_tells_of_the_unknown(
    running: Running,
) -> None:
    replies = {client_id: await running.beat(client_id) for client_id in "123"}
    status, content = await ask(
        running,
        "PUT",
        "/clients/state",
        {"clientState": "CALIBRATED", "clientIDs": ["3", "unknown", 1]},
    )
    assert (status, set(content)) == (200, {"clients"})
    third, unknown, first = content["clients"]
    assert third == {**replies["3"], "clientState": "CALIBRATED", "sequence": 2}
    assert first == {**replies["1"], "clientState": "CALIBRATED", "sequence": 2}
    assert set(unknown) == {"code", "detail", "clientID"}
    assert (unknown["code"], unknown["clientID"]) == ("UNKNOWN_CLIENT", "unknown")
    assert await running.beat("2") == replies["2"]


@pytest_twisted.ensureDeferred
async def test_put_states_with_no_ids_at_all_sets_nobody(running: Running) -> None:
    present = await running.beat("1")
    status, content = await ask(
        running, "PUT", "/clients/state", {"clientState": "RUNNING", "clientIDs": []}
    )
    assert (status, content) == (200, {"clients": []})
    assert await running.beat("1") == present


@pytest_twisted.ensureDeferred
async def test_history_tells_of_every_life_newest_first(running: Running) -> None:
    first = await running.beat("1")
    await running.steer("1", "RUNNING")
    await running.kick("1")
    second = await running.beat("1")
    await running.beat("1")
    status, content = await ask(running, "GET", "/clients/1/history")
    assert (status, set(content)) == (200, {"lives"})
    present, former = content["lives"]
    assert set(present) == set(former) == LIFE

    assert is_moment(present["registeredAt"])
    assert present["longestGapSeconds"] > 0
    assert (present["endedAt"], present["reason"]) == (None, None)
    assert (present["incarnation"], present["beats"]) == (second["incarnation"], 2)
    assert present["lastState"] == "UNCALIBRATED"

    assert former["registeredAt"] <= former["endedAt"] <= present["registeredAt"]
    assert is_moment(former["endedAt"])
    assert (former["incarnation"], former["beats"]) == (first["incarnation"], 1)
    assert (former["reason"], former["lastState"]) == ("kick", "RUNNING")
    assert former["longestGapSeconds"] > 0


@pytest_twisted.ensureDeferred
async def test_delete_kicks_a_client_once(running: Running) -> None:
    life = (await running.beat("1"))["incarnation"]
    subscriber = await running.subscriber()
    wire = await running.wire()
    send(wire, "DELETE", "/clients/1")
    answer = await wire.answer()
    assert (answer.status, answer.body) == (204, b"")
    assert "content-type" not in answer.headers
    status, problem = await ask(running, "DELETE", "/clients/1")
    assert (status, problem["code"]) == (404, "UNKNOWN_CLIENT")
    assert await subscriber.change() == {
        "clientID": "1",
        "clientState": "DISCONNECTED",
        "previousState": "UNCALIBRATED",
        "reason": "kick",
        "sequence": 2,
        "incarnation": life,
    }


@pytest_twisted.ensureDeferred
async def test_a_client_may_be_called_state(running: Running) -> None:
    reply = await running.beat("state")
    assert (await running.steer("state", "RUNNING"))["sequence"] == 2
    status, record = await ask(running, "GET", "/clients/state")
    assert (status, record["incarnation"]) == (200, reply["incarnation"])
    assert await ask(running, "DELETE", "/clients/state") == (204, None)
    status, _ = await ask(running, "GET", "/clients/state")
    assert status == 404
    assert (await ask(running, "GET", "/clients/state/history"))[0] == 200


@pytest.mark.parametrize("client_id", ["history", "a:b@c", "...", "-1", "x" * 64])
@pytest_twisted.ensureDeferred
async def test_every_id_that_can_register_can_be_asked_for(
    running: Running, client_id: str
) -> None:
    await running.beat(client_id)
    for path in (client_id, "".join(f"%{ord(c):02X}" for c in client_id)):
        status, record = await ask(running, "GET", f"/clients/{path}")
        assert (status, record["clientID"]) == (200, client_id)
    await running.kick(client_id)


@pytest_twisted.ensureDeferred
async def test_what_is_out_of_date_is_a_conflict(running: Running) -> None:
    await running.beat("1", instanceID="old")
    await running.beat("1", instanceID="new")
    status, problem, headers = await running.http(
        "POST", "/heartbeat", heartbeat("1", instanceID="old")
    )
    assert (status, problem["status"], problem["code"]) == (
        409,
        409,
        "INSTANCE_SUPERSEDED",
    )
    assert headers.getRawHeaders("content-type") == ["application/problem+json"]
    assert problem["clientID"] == "1"


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
@pytest_twisted.ensureDeferred
async def test_a_running_service_is_alive_and_ready(
    running: Running, path: str
) -> None:
    status, content = await ask(running, "GET", path)
    assert status == 200
    assert isinstance(content, dict)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/clients", 200),
        ("/clients/1", 200),
        ("/clients/1/history", 200),
        ("/healthz", 200),
        ("/readyz", 200),
        ("/clients/2", 404),
        ("/nowhere", 404),
        ("*", 404),
        ("/heartbeat", 405),
        ("/clients/%ff", 400),
    ],
)
@pytest_twisted.ensureDeferred
async def test_head_says_what_get_says_without_its_body(
    running: Running, path: str, status: int
) -> None:
    await running.beat("1")
    wire = await running.wire()
    send(wire, "HEAD", path)
    send(wire, "GET", path)
    head = await wire.answer(to_head=True)
    get = await wire.answer()
    assert head.status == get.status == status
    for name in ("content-type", "allow"):
        assert head.headers.get(name) == get.headers.get(name)
    assert "content-length" in head.headers


CONTENT_TYPES = [
    "application/json",
    "application/json; charset=utf-8",
    "text/plain; charset=latin-1",
    "application/x-www-form-urlencoded",
    "multipart/form-data",
    "multipart/form-data; boundary=x",
    "application/octet-stream",
    "no type at all;;",
    "",
    None,
]


@pytest.mark.parametrize("content_type", CONTENT_TYPES)
@pytest_twisted.ensureDeferred
async def test_json_is_accepted_with_any_content_type(
    running: Running, content_type: str | None
) -> None:
    headers = [] if content_type is None else [f"Content-Type: {content_type}"]
    wire = await running.wire()

    async def put(method: str, path: str, body: bytes) -> Answer:
        send(wire, method, path, body, *headers)
        return await wire.answer()

    reply = await put("POST", "/heartbeat", heartbeat("1", values={"a": "b&c=d"}))
    assert (reply.status, reply.json()["body"]["clientID"]) == (200, "1")
    order = b'{"clientState": "RUNNING"}'
    assert (await put("PUT", "/clients/1/state", order)).status == 200
    to_all = b'{"clientState": "RUNNING", "all": true}'
    assert (await put("PUT", "/clients/state", to_all)).status == 200
    record = await running.get("/clients/1")
    assert (record["clientState"], record["values"]) == ("RUNNING", {"a": "b&c=d"})


@pytest_twisted.ensureDeferred
async def test_a_connection_is_kept_for_the_next_beat(running: Running) -> None:
    wire = await running.wire()
    for _ in range(3):
        send(wire, "POST", "/heartbeat", heartbeat("1"))
        answer = await wire.answer()
        assert answer.status == 200
        assert answer.headers.get("connection") != "close"
    assert not wire.ended
    (life,) = (await running.get("/clients/1/history"))["lives"]
    assert life["beats"] == 3


@pytest_twisted.ensureDeferred
async def test_two_beats_at_once_are_answered_in_order(running: Running) -> None:
    wire = await running.wire()
    beats = [
        over_http("POST /heartbeat", body=heartbeat(client_id))
        for client_id in ("1", "2")
    ]
    wire.send(b"".join(beats))
    for client_id in ("1", "2"):
        answer = await wire.answer()
        assert (answer.status, answer.json()["body"]["clientID"]) == (200, client_id)


@pytest_twisted.ensureDeferred
async def test_a_connection_is_closed_when_the_client_asks_for_it(
    running: Running,
) -> None:
    wire = await running.wire()
    send(wire, "POST", "/heartbeat", heartbeat("1"), "Connection: close")
    assert (await wire.answer()).status == 200
    await wire.end()


@pytest_twisted.ensureDeferred
async def test_a_beat_that_comes_byte_by_byte_is_a_beat(running: Running) -> None:
    wire = await running.wire()
    wire.transport.setTcpNoDelay(True)
    for byte in over_http("POST /heartbeat", body=heartbeat("1")):
        wire.send(bytes([byte]))
        await pause(0)
    assert (await wire.answer()).status == 200


@pytest_twisted.ensureDeferred
async def test_http_is_served_on_each_endpoint_that_was_given(serve: Serve) -> None:
    running = await serve(http=["tcp:0:interface=127.0.0.1"] * 2)
    first, second = running.service.http
    assert first != second
    await running.beat("1")
    wire = await running.wire(int(second.rpartition(":")[2]))
    send(wire, "GET", "/clients/1")
    assert (await wire.answer()).json()["clientID"] == "1"


@pytest_twisted.ensureDeferred
async def test_operators_are_told_who_is_gone_also_after_a_restart(
    serve: Serve, tmp_path: Path
) -> None:
    store = f"sqlite:{tmp_path / 'gone.sqlite'}"
    running = await serve(store=store)
    for client_id in ("here", "lost", "kicked"):
        await running.beat(
            client_id, timebombSeconds=0.1 if client_id == "lost" else 60
        )
    await running.kick("kicked")

    async def is_lost() -> bool:
        return len((await running.get("/clients?gone=true"))["clients"]) == 2

    await until(is_lost)
    told = await running.get("/clients?gone=true")
    assert set(told) == {"clients", "asOf", "serverTime"}
    assert all(set(record) == GONE for record in told["clients"])
    first = await running.get("/clients?gone=true&limit=1")
    await running.stop()
    running = await serve(store=store)
    again = await running.get("/clients?gone=true")
    assert again["clients"] == told["clients"]
    second = await running.get(f"/clients?gone=true&limit=1&after={first['next']}")
    assert [*first["clients"], *second["clients"]] == told["clients"]
    assert second["next"] is None
    status, problem = await ask(running, "GET", "/clients/lost")
    assert (status, problem["code"]) == (404, "UNKNOWN_CLIENT")
    assert problem["detail"].startswith("lost is not here: no heartbeat came in its ti")
    await running.beat("lost")
    gone = (await running.get("/clients?gone=true&since=3600"))["clients"]
    assert [record["clientID"] for record in gone] == ["kicked"]


@pytest_twisted.ensureDeferred
async def test_summary_tells_how_many_are_in_which_state(running: Running) -> None:
    for client_id in ("1", "2", "3"):
        await running.beat(client_id)
    await running.steer("2", "RUNNING")
    status, summary = await ask(running, "GET", "/summary")
    assert status == 200
    assert is_moment(summary.pop("serverTime"))
    assert is_moment(summary.pop("startedAt"))
    listed = await running.get("/clients")
    assert summary.pop("asOf") == listed["asOf"] != ""
    assert summary == {
        "alive": 3,
        "states": {"UNCALIBRATED": 2, "CALIBRATED": 0, "RUNNING": 1},
        "late": 0,
        "held": 0,
        "silent": 0,
        "flapping": 0,
        "goneLastHour": 0,
        "lostLastHour": 0,
        "massLoss": None,
        "store": None,
    }


@pytest_twisted.ensureDeferred
async def test_whatever_lists_says_as_of_which_event(running: Running) -> None:
    await running.beat("1")
    for path in ("/clients", "/clients?gone=true", "/lockouts", "/mass-loss"):
        listed = await running.get(path)
        assert listed["asOf"].endswith("-1")
        assert is_moment(listed["serverTime"])
        wire = await running.wire()
        send(wire, "HEAD", path)
        head = await wire.answer(to_head=True)
        assert (head.status, head.body) == (200, b"")
