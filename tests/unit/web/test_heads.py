"""A request whose head was read before is answered as if it had been read again."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any
from unittest.mock import Mock

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from heartbeat_service.web.access import Door, Pass
from heartbeat_service.web.app import HeartbeatApp
from heartbeat_service.web.events import EventStreams
from heartbeat_service.web.heads import (
    LONGEST_HEAD,
    MOST_HEADS,
    MOST_LINES,
    Head,
    KnownHeads,
)
from heartbeat_service.web.names import Names
from heartbeat_service.web.peers import Peers
from heartbeat_service.web.site import HeartbeatSite
from tests.messages import heartbeat, message, over_http
from tests.unit.engine.test_dispatch import House
from tests.unit.web.test_listing import Wire

TOKEN = b"a-token-of-a-client"
ORIGIN = "http://show.example"

#: What differs from one moment to the next.
MOMENT = re.compile(rb'(?<=\nDate: )[^\r]*|(?<="timestamp":")[^"]*')

#: Has no length.
CHUNKED = (
    b"POST /heartbeat HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"2\r\n{}\r\n0\r\n\r\n"
)

PLAIN = over_http("POST /heartbeat", "Content-Type: application/json", body=heartbeat())


class Tokens:
    """A door's tokens; a test may take the one that there is away."""

    good = True

    def find(self, token: bytes) -> Pass | None:
        return Pass() if self.good and token == TOKEN else None


class Unread(KnownHeads):
    """Has every head read."""

    def find(self, _: bytes) -> None:
        return None


class Service:
    """A site that is asked over some connections."""

    def __init__(self, known: KnownHeads, tokens: Tokens | None = None) -> None:
        self.house = House()
        self.tokens = tokens or Tokens()
        doors: Any = Door() if tokens is None else Door(tokens)  # type: ignore[arg-type]  # a fake
        app = HeartbeatApp(
            self.house.dispatcher,
            self.house.engine.orders,
            self.house.engine.trouble,
            doors,
            Door(),
            Names(["show"], [ORIGIN]),
            EventStreams(self.house.engine.events, self.house.clock, 1),
            Peers(
                self.house.clock,
                self.house.engine.nodes,
                self.house.engine.standing,
                bytes,
            ),
        )
        clock = self.house.clock
        resource = app.resource()
        self.refused: list[object] = []
        self.site = HeartbeatSite(
            resource,
            clock,
            100,
            self.house.engine.clock,
            app.gate,
            self.refused.append,
            resource.at_once,
        )
        self.site.heads = known
        self.wires = [Wire(clock, self.site) for _ in range(3)]

    def do(self, step: tuple[str, Any]) -> None:
        """A peer sends something, time passes, the store has written, or the like."""
        what, how = step
        if what == "send":
            number, data = how
            self.wires[number].channel.dataReceived(data)
        elif what == "wait":
            self.house.listen(how)
        elif what == "tokens":
            self.tokens.good = how
        elif what == "commit":
            self.house.store.finish_all()
        else:
            self.wires[how].turn()
            self.wires[how].read()

    def picture(self) -> object:
        """All that anybody can see of it, and what its peers' deadlines are."""
        return (
            [self._seen(wire) for wire in self.wires],
            [self._client(client) for client in self.house.registry],
            self.refused,
            [len(self.site.channels), self.site._kept_in_all],
            [len(self.site._never_answered), len(self.site._answered)],
        )

    @staticmethod
    def _seen(wire: Wire) -> object:
        transport, channel = wire.transport, wire.channel
        received = MOMENT.sub(b"now", wire.received + transport.value())
        ends = transport.disconnecting, transport.aborted
        left = channel._deadline if channel.timeOut is not None else None
        return received, ends, left, channel._kept

    @staticmethod
    def _client(client: Any) -> object:
        beat = client.heartbeat
        return client.snapshot(), bytes(beat.values), beat.seconds_left()


class Counted(KnownHeads):
    """Counts how often a head was found."""

    def __init__(self) -> None:
        super().__init__()
        self.found = 0

    def find(self, data: bytes) -> tuple[Head, bytes] | None:
        found = super().find(data)
        self.found += found is not None
        return found


#: After these, the first head is known, and its client lives.
KNOWN: list[tuple[str, Any]] = [
    ("send", (0, PLAIN)),
    ("commit", None),
    ("read", 0),
]

BODIES = st.sampled_from(
    [
        heartbeat("1", "UNCALIBRATED"),
        heartbeat("2", "RUNNING", instanceID="a", values={"fps": 72}),
        heartbeat("2", "RUNNING", instanceID="b", timebombSeconds=2),
        heartbeat("3", "DISCONNECTED"),
        heartbeat("no such ID!"),
        message("Goodbye", clientID="1"),
        b"{}",
        b"",
        b"\xff",
        b"x" * 70_000,
    ]
)
LINES = st.lists(
    st.sampled_from(
        [
            "Content-Type: application/json",
            "content-type:text/plain",
            "Connection: close",
            "Connection: keep-alive",
            "Expect: 100-continue",
            "Transfer-Encoding: chunked",
            "Content-Encoding: gzip",
            "Content-Length: 2",
            "Authorization: Bearer " + TOKEN.decode(),
            "Authorization: Bearer another-token-of-it",
            "Origin: " + ORIGIN,
            "Origin: http://elsewhere.example",
            "Sec-Fetch-Site: cross-site",
            "Host: other",
            "Cookie: a=b",
            " folded",
            "no colon",
            "Upgrade: websocket",
        ]
    ),
    max_size=2,
)
FIRSTS = st.sampled_from(
    [
        *["POST /heartbeat"] * 4,
        "POST /Heartbeat/Update",
        "POST http://show/heartbeat",
        "POST /heartbeat?a=b",
        "GET /clients",
        "GET /healthz",
        "HEAD /healthz",
        "PUT /heartbeat",
        "post /heartbeat",
        "GET /nowhere",
        "OPTIONS *",
        "DELETE /clients/1",
        "PUT /clients/1/state",
    ]
)
HOSTS = st.sampled_from([*["localhost"] * 3, "show:80", "a..b", None])
REQUESTS = st.builds(
    lambda first, lines, body, host: over_http(first, *lines, body=body, host=host),
    *(FIRSTS, LINES, BODIES, HOSTS),
)


@st.composite
def streams(draw: st.DrawFn) -> list[tuple[str, Any]]:
    """What three peers send, many of it twice, cut anywhere or one behind the other."""
    pool = [
        *[PLAIN] * 4,
        b"\r\n",
        CHUNKED,
        *draw(st.lists(REQUESTS, min_size=1, max_size=3)),
    ]
    steps = [*KNOWN]
    for _ in range(draw(st.integers(4, 16))):
        # Most of it comes alone and whole, as only that may be known.
        data = draw(st.sampled_from(pool))
        if draw(st.integers(0, 3)) == 0:
            data += draw(st.sampled_from(pool))
        if draw(st.integers(0, 9)) == 0:  # one byte off
            place = draw(st.integers(0, min(len(data), 200) - 1))
            data = data[:place] + draw(st.binary(max_size=1)) + data[place + 1 :]
        cuts = draw(st.sampled_from([*[[]] * 6, [1], [17, 40], [len(PLAIN)]]))
        number = draw(st.integers(0, 2))
        for begin, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
            steps.append(("send", (number, data[begin:end])))
        steps += draw(
            st.lists(
                st.sampled_from(
                    [("commit", None), ("read", number), ("wait", 0.5), ("wait", 11.0)]
                ),
                max_size=3,
            )
        )
    return steps


class TestKnownHeads(SynchronousTestCase):
    def both(self, steps: Iterable[tuple[str, Any]], *tokens: Tokens) -> None:
        """A service that knows heads again, and one that doesn't, go the same way."""
        quick, slow = Service(KnownHeads(), *tokens), Service(Unread(), *tokens)
        for step in steps:
            for service in (quick, slow):
                service.do(step)
            self.assertEqual(quick.picture(), slow.picture(), step)

    @given(streams(), st.booleans())
    @settings(
        max_examples=150,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    def test_both_ways_answer_alike(
        self, steps: list[tuple[str, Any]], guarded: bool
    ) -> None:
        self.both(steps, *([Tokens()] if guarded else []))

    def test_a_beat_that_comes_again_is_known_by_its_head(self) -> None:
        send = ("send", (0, PLAIN))
        known = Counted()
        service = Service(known)
        for step in (send, ("commit", None), ("read", 0), send, ("read", 0)):
            service.do(step)
        self.assertEqual(known.found, 1)
        self.assertEqual(service.wires[0].received.count(b" 200 OK"), 2)
        self.assertEqual(service.house.registry.get("1").heartbeat.beats, 2)

    def test_a_route_sees_no_difference(self) -> None:
        seen: list[object] = []

        def see(request: Any) -> None:
            target = request.method, request.uri, request.path, request.clientproto
            seen.append((target, request.requestHeaders, request.content.getvalue()))

        def render(request: Any) -> bytes:
            see(request)
            return b""

        service = Service(KnownHeads())
        service.site.at_once = see
        service.site._only = Mock(render=render)
        for _ in range(2):
            service.do(("send", (0, PLAIN.replace(b" HTTP", b"?a=b HTTP", 1))))
        read, *known = seen
        self.assertEqual(known, [read] * 2)  # asked for at once, and then rendered

    def test_an_empty_line_behind_each_beat_is_passed_over(self) -> None:
        beat, line = ("send", (0, PLAIN)), ("send", (0, b"\r\n"))
        commit = ("commit", None), ("read", 0)
        self.both([beat, *commit, line, beat, line, beat, line, beat, ("read", 0)])

    def test_what_is_one_byte_off_is_read(self) -> None:
        service = Service(KnownHeads())
        service.do(("send", (0, PLAIN)))
        known = service.site.heads
        for place in range(PLAIN.index(b"\r\n\r\n")):
            off = PLAIN[:place] + bytes([PLAIN[place] ^ 1]) + PLAIN[place + 1 :]
            self.assertIsNone(known.find(off), off)
        for other in (PLAIN[:-1], PLAIN + b"P", b"\r\n" + PLAIN, PLAIN + PLAIN):
            self.assertIsNone(known.find(other), other)
        self.assertIsNotNone(known.find(PLAIN))

    def test_a_token_that_is_taken_away_opens_no_known_head(self) -> None:
        tokens = Tokens()
        beat = over_http(
            "POST /heartbeat", f"Authorization: Bearer {TOKEN.decode()}", body=b"{}"
        )
        service = Service(KnownHeads(), tokens)
        service.do(("send", (0, beat)))
        service.do(("read", 0))
        tokens.good = False
        service.do(("send", (0, beat)))
        service.do(("read", 0))
        self.assertEqual(
            re.findall(rb"HTTP/1.1 (\d+)", service.wires[0].received), [b"400", b"401"]
        )

    def test_what_is_kept_of_heads_is_bounded(self) -> None:
        known = KnownHeads()
        head = Head(b"GET", b"/", b"/", Headers(), 0)
        for number in range(MOST_HEADS + 10):
            known.add(b"GET /%d HTTP/1.1\r\n\r\n" % number, head)
        self.assertEqual(len(known._heads), 10)
        known.add(b"GET /%s HTTP/1.1\r\n\r\n" % (b"x" * LONGEST_HEAD), head)
        self.assertEqual(len(known._heads), 10)

        many = b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * MOST_LINES
        known.add(many + b"\r\n", head)
        self.assertEqual(len(known._heads), 10)

    def test_an_empty_line_may_come_before_each_request(self) -> None:
        known = Counted()
        service = Service(known)
        for step in KNOWN:
            service.do(step)
        for data in (b"\r\n", PLAIN, b"\r\n", PLAIN, PLAIN):
            service.do(("send", (0, data)))
            service.do(("read", 0))
        self.assertEqual(
            re.findall(rb"HTTP/1.1 (\d+)", service.wires[0].received), [b"200"] * 4
        )
        self.assertEqual(known.found, 1)  # the one with none before it

    def test_behind_the_beginning_of_another_it_is_no_head(self) -> None:
        for begin in (b"P", b"\r", PLAIN[:40], PLAIN[:-1], CHUNKED[:-2], b"\r\n"):
            steps = [("send", (0, begin)), ("send", (0, PLAIN)), ("read", 0)]
            self.both([*KNOWN, *steps])

    def test_each_connection_has_its_deadlines(self) -> None:
        again = [("send", (1, PLAIN)), ("read", 1)]
        self.both([*KNOWN, *again, ("wait", 11.0), *again, ("wait", 61.0)])

    def test_a_deadline_that_moved_holds_where_it_is_now(self) -> None:
        service = Service(KnownHeads())
        transport = service.wires[0].transport
        for step in (("wait", 9.0), *KNOWN, ("wait", 20.0)):
            service.do(step)  # past the first request's deadline, before the next
        self.assertFalse(transport.disconnecting)
        for step in (("send", (0, b"POST")), ("wait", 9.0)):
            service.do(step)
        self.assertFalse(transport.disconnecting)
        service.do(("wait", 2.0))  # sooner than it would have been cut for its rest
        self.assertIn(b" 408 ", transport.value())

    def test_what_is_known_has_its_parameters(self) -> None:
        ask = ("send", (0, over_http("GET /clients?no-such=parameter")))
        self.both([*KNOWN, ask, ("read", 0), ask, ("read", 0)])

    def test_a_door_that_shuts_meanwhile_is_shut(self) -> None:
        token = f"Authorization: Bearer {TOKEN.decode()}"
        body = heartbeat("1", "UNCALIBRATED")
        send = ("send", (0, over_http("POST /heartbeat", token, body=body)))
        first: list[tuple[str, Any]] = [send, ("commit", None), ("read", 0)]
        self.both([*first, ("tokens", False), send, ("read", 0)], Tokens())

    def test_what_is_not_read_yet_is_not_answered(self) -> None:
        service = Service(KnownHeads())
        for step in KNOWN:
            service.do(step)
        wire = service.wires[0]
        wire.channel.pauseProducing()
        service.do(("send", (0, PLAIN)))
        self.assertEqual(wire.transport.value(), b"")
        wire.channel.resumeProducing()
        self.assertEqual(wire.transport.value().count(b" 200 OK"), 1)

    def test_what_has_no_length_is_read_each_time(self) -> None:
        service = Service(KnownHeads())
        for _ in range(2):
            service.do(("send", (0, CHUNKED)))
            service.do(("read", 0))
        self.assertEqual(service.wires[0].received.count(b" 400 Bad Request"), 2)
        self.assertEqual(len(service.site.heads._heads), 0)

    def test_what_came_of_a_head_is_kept_once(self) -> None:
        service = Service(KnownHeads())
        service.do(("send", (0, b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * 20)))
        self.assertEqual(service.wires[0].channel._begins, b"")

    def test_what_is_not_plain_is_read_each_time(self) -> None:
        for line in (
            *("Connection: close", "Expect: 100-continue", "Content-Encoding: gzip"),
            *("Transfer-Encoding: chunked", "Origin: http://elsewhere.example"),
        ):
            service = Service(KnownHeads())
            service.do(
                ("send", (0, over_http("POST /heartbeat", line, body=heartbeat())))
            )
            self.assertEqual(len(service.site.heads._heads), 0, line)
