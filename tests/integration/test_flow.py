"""A client's whole life by plain HTTP and plain ZeroMQ (contract, sections 2 to 5)."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import suppress
from threading import Thread
from typing import Any

import pytest
import pytest_twisted
import zmq

from tests.integration.conftest import Peer, Running, Serve, port_of
from tests.integration.waiting import patiently, reactor
from tests.messages import envelope, heartbeat, message

HOUR = 3600.0


def get_state(client_id: str) -> bytes:
    """Asks which state a client is in."""
    return message("GetClientState", clientID=client_id)


def set_state(client_id: str, state: str, **more: Any) -> bytes:
    """A client has entered another state."""
    return message("SetClientState", clientID=client_id, clientState=state, **more)


def goodbye(client_id: str, **more: Any) -> bytes:
    """A client leaves."""
    return message("Goodbye", clientID=client_id, **more)


@pytest_twisted.ensureDeferred
async def test_the_order_that_loses_nothing(running: Running) -> None:
    reply = await running.beat("1")
    assert reply["clientState"] == "UNCALIBRATED"
    assert reply["sequence"] == 1

    topic = b"OnStateChange/1/"
    subscriber = await running.subscriber(topic)
    dealer = running.peer(zmq.DEALER, reply["requestEndpoint"])
    answer = await dealer.ask(get_state("1"))
    assert answer["messageType"] == "ClientState"
    assert answer["body"] == reply

    answer = await dealer.ask(set_state("1", "CALIBRATED"))
    assert answer["body"]["clientState"] == "CALIBRATED"
    frames = await subscriber.receive()
    assert frames[0] == topic
    assert json.loads(frames[1])["body"] == {
        "clientID": "1",
        "clientState": "CALIBRATED",
        "previousState": "UNCALIBRATED",
        "reason": "client",
        "sequence": 2,
        "incarnation": reply["incarnation"],
    }


@pytest.mark.parametrize("socket_type", [zmq.DEALER, zmq.REQ])
@pytest_twisted.ensureDeferred
async def test_a_whole_life_by_router_alone(running: Running, socket_type: int) -> None:
    subscriber = await running.subscriber()
    peer = running.peer(socket_type, running.service.router)

    async def ask(request: bytes) -> tuple[str, int, int]:
        reply = await peer.ask(request)
        body = reply["body"]
        assert reply["messageType"] == "ClientState"
        assert body["clientID"] == "1"
        return body["clientState"], body["sequence"], body["incarnation"]

    _, _, life = await ask(heartbeat("1"))
    assert await ask(heartbeat("1", "UNCALIBRATED")) == ("UNCALIBRATED", 1, life)
    assert await ask(set_state("1", "CALIBRATED")) == ("CALIBRATED", 2, life)
    assert await ask(set_state("1", "RUNNING", incarnation=life)) == (
        "RUNNING",
        3,
        life,
    )
    assert await ask(get_state("1")) == ("RUNNING", 3, life)
    assert await ask(goodbye("1")) == ("DISCONNECTED", 4, life)
    refusal = await peer.ask(get_state("1"))
    assert refusal["messageType"] == "Error"
    assert refusal["body"]["code"] == "UNKNOWN_CLIENT"
    assert refusal["body"]["clientID"] == "1"

    published = [await subscriber.change() for _ in range(4)]
    assert [
        (one["previousState"], one["clientState"], one["sequence"], one["reason"])
        for one in published
    ] == [
        ("DISCONNECTED", "UNCALIBRATED", 1, "heartbeat"),
        ("UNCALIBRATED", "CALIBRATED", 2, "client"),
        ("CALIBRATED", "RUNNING", 3, "client"),
        ("RUNNING", "DISCONNECTED", 4, "goodbye"),
    ]
    assert {one["incarnation"] for one in published} == {life}


@pytest_twisted.ensureDeferred
async def test_a_reply_has_the_shape_of_its_request(running: Running) -> None:
    dealer = running.dealer()
    for request in (heartbeat("1"), get_state("nobody"), b"no message"):
        dealer.send_multipart([request])
        assert len(await dealer.receive()) == 1
        dealer.send_multipart([b"", request])
        delimiter, _ = await dealer.receive()
        assert delimiter == b""

    # REQ passes on only what comes behind the delimiter that it has sent.
    req = running.peer(zmq.REQ, running.service.router)
    for request in (heartbeat("1"), get_state("nobody"), b"no message"):
        req.send_multipart([request])
        assert len(await req.receive()) == 1


@pytest_twisted.ensureDeferred
async def test_a_reply_goes_back_through_all_the_frames_it_came_by(
    running: Running,
) -> None:
    dealer = running.dealer()
    dealer.send_multipart([b"a proxy", b"another", b"", heartbeat("1")])
    *envelope, reply = await dealer.receive()
    assert envelope == [b"a proxy", b"another", b""]
    assert json.loads(reply)["messageType"] == "ClientState"
    correlated = Peer(running.factory, zmq.REQ)
    correlated.socket.set(zmq.REQ_CORRELATE, 1)
    correlated.connect(running.service.router)
    assert (await correlated.ask(heartbeat("1")))["messageType"] == "ClientState"


@pytest.fixture
def proxy(running: Running) -> Iterator[str]:
    """A ROUTER-DEALER proxy of libzmq's own before the service: where it listens."""
    context = zmq.Context()
    context.linger = 0
    front, back = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
    port = front.bind_to_random_port("tcp://127.0.0.1")
    back.connect(running.service.router)

    def carry() -> None:
        with front, back, suppress(zmq.ContextTerminated):
            zmq.proxy(front, back)

    thread = Thread(target=carry)
    thread.start()
    yield f"tcp://127.0.0.1:{port}"
    context.term()
    thread.join()


@pytest_twisted.ensureDeferred
async def test_req_clients_behind_a_proxy_get_each_its_own_reply(
    running: Running, proxy: str
) -> None:
    clients = {str(number): running.peer(zmq.REQ, proxy) for number in range(3)}
    correlated = Peer(running.factory, zmq.REQ)
    correlated.socket.set(zmq.REQ_RELAXED, 1)
    correlated.socket.set(zmq.REQ_CORRELATE, 1)
    correlated.connect(proxy)
    clients["correlated"] = correlated
    for client_id, req in clients.items():
        assert req.send_multipart([heartbeat(client_id)])
    for client_id, req in clients.items():
        (content,) = await req.receive()
        assert json.loads(content)["body"]["clientID"] == client_id


@pytest_twisted.ensureDeferred
async def test_a_dealer_behind_a_proxy_is_answered_if_it_sends_the_empty_frame(
    running: Running, proxy: str
) -> None:
    dealer = running.peer(zmq.DEALER, proxy)
    assert dealer.send_multipart([heartbeat("lost")])  # as nobody can answer it
    for number in range(3):
        assert dealer.send_multipart([b"", heartbeat(str(number))])
        delimiter, content = await dealer.receive()
        assert delimiter == b""
        assert json.loads(content)["body"]["clientID"] == str(number)
    living = (await running.get("/clients"))["clients"]
    assert [client["clientID"] for client in living] == ["0", "1", "2"]


def has_ipv6() -> bool:
    """Whether this machine has a loopback of IPv6."""
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="no IPv6 on this machine")


@needs_ipv6
@pytest_twisted.ensureDeferred
async def test_an_address_in_brackets_is_one_of_ipv6(serve: Serve) -> None:
    running = await serve(router="tcp://[::1]:0", pub="tcp://[::1]:*")
    reply = await running.beat("1")
    for endpoint in (reply["requestEndpoint"], reply["stateChangeEndpoint"]):
        assert endpoint.startswith("tcp://[::1]:")
    dealer = running.peer(zmq.DEALER, reply["requestEndpoint"])
    assert (await dealer.ask(get_state("1")))["body"] == reply
    subscriber = await running.subscriber()
    await running.steer("1", "RUNNING")
    assert (await subscriber.change())["clientState"] == "RUNNING"


@needs_ipv6
@pytest_twisted.ensureDeferred
async def test_two_colons_in_brackets_are_all_interfaces_of_both_kinds(
    serve: Serve,
) -> None:
    running = await serve(router="tcp://[::]:0", pub="tcp://[::]:0")
    port = port_of(running.service.router)
    for host in ("[::1]", "127.0.0.1"):
        dealer = running.peer(zmq.DEALER, f"tcp://{host}:{port}")
        assert (await dealer.ask(heartbeat("1")))["body"]["clientID"] == "1"


@pytest_twisted.ensureDeferred
async def test_publications_name_the_instance_of_the_life_they_are_about(
    serve: Serve,
) -> None:
    running = await serve(timebomb=0.1)
    subscriber = await running.subscriber()
    dealer = running.dealer()
    for request in (
        heartbeat("1", timebombSeconds=60),
        heartbeat("1", timebombSeconds=60, instanceID="a"),
        set_state("1", "CALIBRATED"),
        heartbeat("1", instanceID="b"),  # with its own fuse: it dies of it
    ):
        reply = await dealer.ask(request)
        assert reply["messageType"] == "ClientState"
        published = await subscriber.change()
        assert published.get("instanceID") == reply["body"].get("instanceID")
        assert "instanceID" in published or request == heartbeat(
            "1", timebombSeconds=60
        )
    death = await subscriber.change()
    assert (death["reason"], death["instanceID"]) == ("timebomb", "b")


@pytest_twisted.ensureDeferred
async def test_errors_by_zeromq_name_their_request_and_when_to_try_again(
    serve: Serve,
) -> None:
    running = await serve(max_clients=1)
    dealer = running.dealer()

    def named(request_id: str, message_type: str, **body: Any) -> bytes:
        return envelope(messageType=message_type, requestID=request_id, body=body)

    replies = [
        await dealer.ask(named("a", "HEARTBEAT", clientID="1", clientState=0)),
        await dealer.ask(named("b", "HEARTBEAT", clientID="2", clientState=0)),
        await dealer.ask(named("c", "GetClientState", clientID="2")),
        await dealer.ask(get_state("2")),
    ]
    assert [
        (
            reply.get("requestID"),
            reply["body"].get("code"),
            reply["body"].get("retryAfterSeconds"),
        )
        for reply in replies
    ] == [
        ("a", None, None),
        ("b", "OVERLOADED", 1),
        ("c", "UNKNOWN_CLIENT", None),
        (None, "UNKNOWN_CLIENT", None),
    ]


@pytest_twisted.ensureDeferred
async def test_a_reply_says_all_that_the_contract_names(serve: Serve) -> None:
    running = await serve(timebomb=8, interval=3)
    _, reply, _ = await running.http("POST", "/heartbeat", heartbeat("1"))
    assert set(reply) == {"sdkVersion", "timestamp", "messageType", "body"}
    incarnation = reply["body"].pop("incarnation")
    assert isinstance(incarnation, int)
    assert reply["body"] == {
        "clientID": "1",
        "clientState": "UNCALIBRATED",
        "sequence": 1,
        "timebombSeconds": 8,
        "heartbeatIntervalSeconds": 3,
        "requestEndpoint": running.service.router,
        "stateChangeEndpoint": running.service.pub,
    }


@pytest_twisted.ensureDeferred
async def test_a_heartbeat_over_router_registers_and_resets_the_timebomb(
    running: Running,
) -> None:
    dealer = running.dealer()
    await dealer.ask(heartbeat("1", timebombSeconds=HOUR, values={"frame": 1}))
    registered = reactor.seconds()
    assert (await running.get("/clients/1"))["values"] == {"frame": 1}

    asked = reactor.seconds()
    await dealer.ask(heartbeat("1", timebombSeconds=HOUR, values={"frame": 2}))
    record = await running.get("/clients/1")
    since_asked = reactor.seconds() - asked
    # Had the beat not reset it, the former would be the longer time.
    assert (
        record["secondsSinceHeartbeat"] <= since_asked < reactor.seconds() - registered
    )
    assert record["secondsToTimebomb"] >= HOUR - since_asked
    assert record["values"] == {"frame": 2}


@pytest_twisted.ensureDeferred
async def test_nothing_but_a_heartbeat_resets_the_timebomb(running: Running) -> None:
    await running.beat("1", timebombSeconds=HOUR)
    beaten = reactor.seconds()
    dealer = running.dealer()
    await dealer.ask(get_state("1"))
    await dealer.ask(set_state("1", "CALIBRATED"))
    await running.steer("1", "RUNNING")
    asked = reactor.seconds()
    record = await running.get("/clients/1")
    assert record["secondsSinceHeartbeat"] >= asked - beaten
    assert record["secondsToTimebomb"] <= HOUR - (asked - beaten)


@pytest_twisted.ensureDeferred
async def test_goodbye_removes_the_client_and_is_published(running: Running) -> None:
    life = (await running.beat("1"))["incarnation"]
    subscriber = await running.subscriber()
    reply = await running.dealer().ask(goodbye("1", incarnation=life))
    assert reply["body"]["clientState"] == "DISCONNECTED"
    assert reply["body"]["sequence"] == 2
    assert await subscriber.change() == {
        "clientID": "1",
        "clientState": "DISCONNECTED",
        "previousState": "UNCALIBRATED",
        "reason": "goodbye",
        "sequence": 2,
        "incarnation": life,
    }
    assert (await running.get("/clients"))["clients"] == []
    (ended,) = (await running.get("/clients/1/history"))["lives"]
    assert ended["reason"] == "goodbye"


@pytest_twisted.ensureDeferred
async def test_a_silent_client_dies_by_its_timebomb(running: Running) -> None:
    subscriber = await running.subscriber()
    dealer = running.dealer()
    await dealer.ask(heartbeat("1", timebombSeconds=HOUR))
    await dealer.ask(set_state("1", "CALIBRATED"))
    last = await dealer.ask(heartbeat("1", "CALIBRATED", timebombSeconds=0.1))
    life = last["body"]["incarnation"]
    assert last["body"]["timebombSeconds"] == 0.1

    for expected in ("heartbeat", "client"):
        assert (await subscriber.change())["reason"] == expected
    assert await subscriber.change() == {
        "clientID": "1",
        "clientState": "DISCONNECTED",
        "previousState": "CALIBRATED",
        "reason": "timebomb",
        "sequence": 3,
        "incarnation": life,
    }
    answer = await dealer.ask(get_state("1"))
    assert answer["body"]["code"] == "UNKNOWN_CLIENT"
    (ended,) = (await running.get("/clients/1/history"))["lives"]
    assert (ended["reason"], ended["beats"]) == ("timebomb", 2)

    again = await running.beat("1")
    assert (again["clientState"], again["sequence"]) == ("UNCALIBRATED", 1)
    assert again["incarnation"] > life


@pytest_twisted.ensureDeferred
async def test_the_services_own_timebomb_holds_for_who_asks_for_none(
    serve: Serve,
) -> None:
    running = await serve(timebomb=0.2)
    subscriber = await running.subscriber(b"OnStateChange/1/")
    reply = await running.beat("1")
    assert reply["timebombSeconds"] == 0.2
    reasons = [(await subscriber.change())["reason"] for _ in range(2)]
    assert reasons == ["heartbeat", "timebomb"]


@pytest_twisted.ensureDeferred
async def test_both_paths_of_a_heartbeat_are_one(running: Running) -> None:
    first, second = [
        await running.http("POST", path, heartbeat("1", timebombSeconds=HOUR))
        for path in ("/heartbeat", "/Heartbeat/Update")
    ]
    assert first[0] == second[0] == 200
    assert first[1]["body"] == second[1]["body"]
    (life,) = (await running.get("/clients/1/history"))["lives"]
    assert life["beats"] == 2


@pytest_twisted.ensureDeferred
async def test_a_number_and_its_decimal_are_one_client(running: Running) -> None:
    first = await running.beat(1)
    assert first["clientID"] == "1"
    assert await running.beat("1") == first


@pytest_twisted.ensureDeferred
async def test_a_topic_is_exact_and_the_prefix_hears_everyone(running: Running) -> None:
    exact = await running.subscriber(b"OnStateChange/1/")
    everyone = await running.subscriber(b"OnStateChange/")
    await running.beat("1")
    await running.beat("10")
    await running.beat("1")
    await running.steer("10", "RUNNING")
    await running.steer("1", "CALIBRATED")
    # Publications keep their order: had client 10 been heard, it came before.
    heard = [await exact.change() for _ in range(2)]
    assert [(one["clientID"], one["clientState"]) for one in heard] == [
        ("1", "UNCALIBRATED"),
        ("1", "CALIBRATED"),
    ]
    heard = [await everyone.change() for _ in range(4)]
    assert [(one["clientID"], one["clientState"]) for one in heard] == [
        ("1", "UNCALIBRATED"),
        ("10", "UNCALIBRATED"),
        ("10", "RUNNING"),
        ("1", "CALIBRATED"),
    ]


@pytest_twisted.ensureDeferred
async def test_a_restarted_client_gets_one_new_life(running: Running) -> None:
    former = await running.beat("1")
    await running.beat("1", "UNCALIBRATED")
    await running.steer("1", "RUNNING")
    subscriber = await running.subscriber()

    reply = await running.beat("1")
    assert (reply["clientState"], reply["sequence"]) == ("UNCALIBRATED", 1)
    assert reply["incarnation"] > former["incarnation"]
    # It says so several times before it has read its first reply.
    assert await running.beat("1") == reply
    await running.kick("1")

    assert await subscriber.change() == {
        "clientID": "1",
        "clientState": "UNCALIBRATED",
        "previousState": "RUNNING",
        "reason": "reconnect",
        "sequence": 1,
        "incarnation": reply["incarnation"],
    }
    assert (await subscriber.change())["reason"] == "kick"
    lives = (await running.get("/clients/1/history"))["lives"]
    assert [(life["reason"], life["lastState"]) for life in lives] == [
        ("kick", "UNCALIBRATED"),
        ("reconnect", "RUNNING"),
    ]


@pytest_twisted.ensureDeferred
async def test_a_new_instance_takes_over_and_the_old_one_is_refused(
    running: Running,
) -> None:
    old = await running.beat("1", instanceID="old")
    await running.steer("1", "CALIBRATED")
    subscriber = await running.subscriber()
    new = await running.beat("1", instanceID="new")
    assert (new["clientState"], new["sequence"]) == ("UNCALIBRATED", 1)
    assert new["incarnation"] > old["incarnation"]

    dealer = running.dealer()
    for request in (
        heartbeat("1", instanceID="old"),
        set_state("1", "CALIBRATED", instanceID="old"),
        set_state("1", "CALIBRATED", instanceID="old", incarnation=new["incarnation"]),
        goodbye("1", instanceID="old"),
    ):
        refusal = (await dealer.ask(request))["body"]
        assert (refusal["code"], refusal["clientID"]) == ("INSTANCE_SUPERSEDED", "1")
    assert (await dealer.ask(get_state("1")))["body"] == new
    reply = await dealer.ask(set_state("1", "CALIBRATED", instanceID="new"))
    assert reply["body"]["sequence"] == 2

    change = await subscriber.change()
    assert (change["reason"], change["previousState"]) == ("reconnect", "CALIBRATED")
    assert (await subscriber.change())["reason"] == "client"


@pytest_twisted.ensureDeferred
async def test_a_stale_incarnation_changes_nothing(running: Running) -> None:
    former = await running.beat("1")
    await running.kick("1")
    present = await running.beat("1")
    subscriber = await running.subscriber()

    dealer = running.dealer()
    for stale in (former["incarnation"], present["incarnation"] + 1, 0, -1):
        for request in (
            set_state("1", "CALIBRATED", incarnation=stale),
            goodbye("1", incarnation=stale),
        ):
            refusal = (await dealer.ask(request))["body"]
            assert (refusal["code"], refusal["clientID"]) == ("STALE_INCARNATION", "1")
    assert (await dealer.ask(get_state("1")))["body"] == present
    await dealer.ask(goodbye("1", incarnation=present["incarnation"]))
    assert (await subscriber.change())["reason"] == "goodbye"


@pytest_twisted.ensureDeferred
async def test_an_illegal_transition_changes_nothing(running: Running) -> None:
    present = await running.beat("1")
    subscriber = await running.subscriber()
    dealer = running.dealer()
    for state in ("RUNNING", "DISCONNECTED"):
        refusal = (await dealer.ask(set_state("1", state)))["body"]
        assert (refusal["code"], refusal["clientID"]) == ("ILLEGAL_TRANSITION", "1")
    assert (await dealer.ask(get_state("1")))["body"] == present
    await running.kick("1")
    assert (await subscriber.change())["reason"] == "kick"


@pytest_twisted.ensureDeferred
async def test_to_stay_in_a_state_is_accepted_and_not_published(
    running: Running,
) -> None:
    present = await running.beat("1")
    subscriber = await running.subscriber()
    reply = await running.dealer().ask(set_state("1", "UNCALIBRATED"))
    assert reply["body"] == present
    assert await running.steer("1", "UNCALIBRATED") == present
    await running.kick("1")
    change = await subscriber.change()
    assert (change["reason"], change["sequence"]) == ("kick", 2)


@pytest_twisted.ensureDeferred
async def test_who_lost_every_publication_agrees_one_beat_later(
    running: Running,
) -> None:
    life = (await running.beat("1"))["incarnation"]
    await running.steer("1", "RUNNING")
    await running.steer("1", "CALIBRATED")
    reply = await running.beat("1", "UNCALIBRATED")
    assert (reply["clientState"], reply["sequence"]) == ("CALIBRATED", 3)
    assert reply["incarnation"] == life


@pytest.mark.parametrize(
    ("host", "advertise", "told"),
    [
        ("127.0.0.1", None, "127.0.0.1"),
        ("127.0.0.1", "localhost", "localhost"),
        ("0.0.0.0", "game-server.example", "game-server.example"),  # noqa: S104 - replies only name it
        ("127.0.0.1", "::1", "[::1]"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_replies_carry_the_bound_endpoints_with_the_advertised_host(
    serve: Serve, host: str, advertise: str | None, told: str
) -> None:
    running = await serve(
        router=f"tcp://{host}:0", pub=f"tcp://{host}:*", advertise=advertise
    )
    router, pub = port_of(running.service.router), port_of(running.service.pub)
    reply = await running.beat("1")
    assert reply["requestEndpoint"] == f"tcp://{told}:{router}"
    assert reply["stateChangeEndpoint"] == f"tcp://{told}:{pub}"

    # And there they are.
    dealer = running.peer(zmq.DEALER, f"tcp://127.0.0.1:{router}")
    assert (await dealer.ask(get_state("1")))["body"] == reply
    assert router != pub


@pytest_twisted.ensureDeferred
async def test_a_service_that_was_stopped_can_be_started_again(
    running: Running,
) -> None:
    await running.beat("1")
    former = await running.steer("1", "CALIBRATED")
    await running.service.stopService()
    running.service.startService()
    await patiently(running.service.started)
    [record] = (await running.get("/clients"))["clients"]
    assert record["clientState"] == "CALIBRATED"
    present = await running.beat("1", "CALIBRATED")
    assert present["incarnation"] == former["incarnation"]
    assert present["sequence"] == former["sequence"]
    dealer = running.peer(zmq.DEALER, present["requestEndpoint"])
    assert (await dealer.ask(get_state("1")))["body"] == present


@pytest_twisted.ensureDeferred
async def test_with_memory_a_service_that_is_started_again_knows_nobody(
    serve: Serve,
) -> None:
    running = await serve(store="memory:")
    former = await running.beat("1")
    await running.service.stopService()
    running.service.startService()
    await patiently(running.service.started)
    assert (await running.get("/clients"))["clients"] == []
    assert (await running.beat("1"))["incarnation"] > former["incarnation"]
