"""Streams of events: what a reader gets, when, and how a stream ends.

The site, the app and the engine are the real ones; the test moves the clock and the
store.
"""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from heartbeat_service.core.notices import StoreNotice
from heartbeat_service.core.states import ClientState
from heartbeat_service.engine import events as event_log
from heartbeat_service.protocol.scope import Scope
from heartbeat_service.web.access import Door, Pass
from heartbeat_service.web.app import HeartbeatApp
from heartbeat_service.web.events import (
    COMMENT_EVERY,
    GATHER,
    MOST_OF_ONE,
    PIECE,
    EventStreams,
)
from heartbeat_service.web.names import Names
from heartbeat_service.web.peers import Peers
from heartbeat_service.web.site import HeartbeatSite
from tests.event_stream import Event, EventReader
from tests.unit.engine.test_dispatch import House
from tests.unit.fakes import listen
from tests.unit.web.test_listing import Wire

CALIBRATED, RUNNING = ClientState.CALIBRATED, ClientState.RUNNING
MOST = 5
TOKEN = b"a-token-of-a-test"


class Tokens:
    """A door's only token, which a test may take away."""

    def __init__(self, clients: str) -> None:
        self.good = True
        self._clients = Scope.parse(clients)

    def find(self, token: bytes) -> Pass | None:
        """What the token is good for."""
        return Pass(self._clients) if self.good and token == TOKEN else None


class Stream(Wire):
    """A connection that reads events."""

    def __init__(self, clock: Clock, site: HeartbeatSite) -> None:
        super().__init__(clock, site)
        self._parsed = 0
        self.reader = EventReader()
        self.pieces = 0

    def follow(self, path: str, *headers: str, method: str = "GET") -> None:
        """Ask for events, and read as far as they go."""
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost", *headers, "", ""]
        self.channel.dataReceived("\r\n".join(lines).encode())
        self.read()

    def read(self) -> None:
        """Take all that has come by now."""
        self.turn()
        while taken := self.transport.take():
            self.received += taken
            self.turn()
        body = self.received.partition(b"\r\n\r\n")[2]
        while b"\r\n" in body[self._parsed :]:
            length, _, rest = body[self._parsed :].partition(b"\r\n")
            count = int(length, 16)
            assert rest[count : count + 2] == b"\r\n", "a chunk isn't whole"
            self.pieces += 1
            self.reader.feed(rest[:count])
            self._parsed += len(length) + 2 + count + 2

    @property
    def ended(self) -> bool:
        """Whether it was told that nothing more comes."""
        return self.received.endswith(b"\r\n0\r\n\r\n")

    @property
    def events(self) -> list[Event]:
        """All that was told."""
        return self.reader.events

    def told(self) -> list[str]:
        """The names of all that was told, after the reset."""
        return [event.name for event in self.events[1:]]


class StreamsTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        """Begin with nobody."""
        self.house = House()
        self.clock, self.log = self.house.clock, self.house.engine.events
        self.streams = EventStreams(self.log, self.clock, MOST)
        self.site = self.serve()

    def serve(self, *tokens: Tokens) -> HeartbeatSite:
        """A site that wants these tokens, of clients and of operators."""
        make: Any = Door  # typed for a file's tokens
        client_door, operator_door = map(make, tokens or (None, None))
        app = HeartbeatApp(
            self.house.dispatcher,
            self.house.orders,
            self.house.engine.trouble,
            client_door,
            operator_door,
            Names([]),
            self.streams,
            Peers(
                self.clock, self.house.engine.nodes, self.house.engine.standing, bytes
            ),
        )
        return HeartbeatSite(app.resource(), self.clock, 100, self.clock, app.gate)

    def follow(
        self, path: str = "/events", *headers: str, method: str = "GET"
    ) -> Stream:
        """Somebody who has asked for events, and reads."""
        stream = Stream(self.clock, self.site)
        stream.follow(path, *headers, method=method)
        return stream

    def come_back(self, last_id: str, path: str = "/events") -> Stream:
        """Somebody who has read up to that event before."""
        return self.follow(path, f"Last-Event-ID: {last_id}")

    def register(self, *client_ids: str) -> None:
        """These clients come, and the store knows it."""
        for client_id in client_ids:
            self.house.beat(client_id)
        self.house.store.finish_all()

    def trouble(self, count: int, text: str = "") -> None:
        """So many things happen that are no client's."""
        for _ in range(count):
            self.log.hear(StoreNotice(text))

    def pass_by(self, seconds: float) -> None:
        """Let time pass."""
        listen(self.clock, seconds)

    def read(self, *streams: Stream, after: float = 2 * GATHER) -> None:
        """Let time pass, and these take what came."""
        self.pass_by(after)
        for stream in streams:
            stream.read()

    def assert_refused(self, stream: Stream, status: int, code: str) -> Any:
        """It got a problem instead of events; what that says."""
        self.assertIn(b" %d " % status, stream.head)
        problem = json.loads(stream.received.partition(b"\r\n\r\n")[2])
        self.assertEqual(problem["code"], code)
        return problem


class TestReading(StreamsTestCase):
    """What a reader gets."""

    def test_stream_says_what_it_is_and_is_kept_by_nobody_on_the_way(self) -> None:
        head = self.follow().head
        for line in (
            b"HTTP/1.1 200 OK",
            b"Content-Type: text/event-stream",
            b"Cache-Control: no-store",
            b"X-Accel-Buffering: no",
        ):
            self.assertIn(line, head.split(b"\r\n"))

    def test_it_begins_with_a_reset_and_goes_on_with_what_happens(self) -> None:
        self.register("1")
        stream = self.follow()
        [reset] = stream.events
        self.assertEqual((reset.id, reset.name), (f"{self.log.run}-1", "Reset"))
        self.assertEqual(reset.data["run"], self.log.run)
        self.register("2", "3")
        self.read(stream)
        self.assertEqual(
            [(one.id, one.data["clientID"]) for one in stream.events[1:]],
            [(f"{self.log.run}-2", "2"), (f"{self.log.run}-3", "3")],
        )

    def test_nothing_is_told_before_the_store_has_it(self) -> None:
        stream = self.follow()
        self.house.beat("1")
        self.read(stream)
        self.assertEqual(stream.told(), [])
        self.house.store.finish_all()
        self.read(stream)
        self.assertEqual(stream.told(), ["OnStateChange"])

    def test_who_comes_back_gets_what_it_missed_and_no_reset(self) -> None:
        self.register("1", "2")
        stream = self.come_back(f"{self.log.run}-1")
        self.read(stream)
        self.assertEqual([one.number for one in stream.events], [2])
        self.register("3")
        self.read(stream)
        self.assertEqual([one.number for one in stream.events], [2, 3])

    def test_who_has_missed_nothing_hears_only_what_is_new(self) -> None:
        self.register("1")
        stream = self.come_back(self.log.last_id)
        self.read(stream)
        self.assertEqual(stream.events, [])
        self.register("2")
        self.read(stream)
        self.assertEqual([one.number for one in stream.events], [2])

    def test_where_the_log_does_not_reach_back_it_is_reset(self) -> None:
        self.register("1")
        for last_id in ("", "garbage", "former-1", f"{self.log.run}-2"):
            stream = self.come_back(last_id)
            self.assertEqual([one.name for one in stream.events], ["Reset"], last_id)
        self.patch(event_log, "MOST_EVENTS", 3)
        self.trouble(4)
        self.assertEqual(
            [one.name for one in self.come_back(f"{self.log.run}-1").events], ["Reset"]
        )

    def test_what_is_told_between_a_reset_and_the_next_round_comes_once(self) -> None:
        first = self.follow()
        self.register("1")  # which no round has offered yet
        second = self.follow()
        self.register("2")
        self.read(first, second)
        self.assertEqual([one.number for one in first.events], [0, 1, 2])
        self.assertEqual([one.number for one in second.events], [1, 2])

    def test_long_time_away_is_made_up_for_piece_by_piece(self) -> None:
        self.trouble(1)
        self.trouble(100, "x" * 4000)
        stream = self.come_back(f"{self.log.run}-1")
        for _ in range(10):
            self.read(stream, after=GATHER)
        self.assertEqual([one.number for one in stream.events], list(range(2, 102)))
        self.assertLess(stream.transport.most, PIECE + 5000)

    def test_who_reads_as_fast_as_it_comes_waits_for_no_further_round(self) -> None:
        streams = [self.follow() for _ in range(3)]
        self.read(*streams)
        for one in streams[:2]:  # a socket that takes all at once
            push = one.channel.push
            one.channel.push = lambda piece, push=push: not push(piece)
        self.trouble(100, "x" * 4000)
        self.read(*streams, after=GATHER)
        self.assertEqual([len(one.events) for one in streams[:2]], [101, 101])
        self.assertLess(len(streams[2].events), 50)

    def test_a_clients_stream_has_its_own_changes_silences_and_lockouts(self) -> None:
        stream = self.follow("/clients/1/events")
        self.assertEqual([one.name for one in stream.events], ["Reset"])
        self.register("1", "10")
        self.house.beat("1", RUNNING)  # which is reported
        self.house.steer("1", CALIBRATED)
        self.house.store.finish_all()
        self.house.registry.silence("1", 60.0)
        self.house.store.finish_all()
        self.house.registry.lock_out("1", 600.0)
        self.house.store.finish_all()
        self.trouble(1)
        self.read(stream)
        told = stream.events[1:]
        self.assertEqual({one.data["clientID"] for one in told}, {"1"})
        self.assertEqual(
            [(one.name, one.data.get("clientState")) for one in told],
            [
                ("OnStateChange", "UNCALIBRATED"),
                ("OnStateChange", "CALIBRATED"),
                ("Silence", None),
                ("LockedOut", None),
                ("OnStateChange", "DISCONNECTED"),
                ("Silence", None),
            ],
        )
        missed = self.come_back(told[1].id, "/clients/1/events")
        self.read(missed)
        self.assertEqual(missed.events, told[2:])

    def test_head_is_answered_at_once_without_a_stream(self) -> None:
        for path in ("/events", "/clients/1/events"):
            stream = self.follow(path, method="HEAD")
            self.assertIn(b"Content-Type: text/event-stream", stream.head)
            self.assertNotIn(b"Content-Length", stream.head)
            self.assertEqual(len(self.streams), 0)
            stream.received = b""
            stream.follow("/healthz")  # the connection is free
            self.assertIn(b"200 OK", stream.head)

    def test_comment_comes_every_five_seconds(self) -> None:
        self.assertEqual(COMMENT_EVERY, 5.0)
        streams = [self.follow("/events"), self.follow("/clients/1/events")]
        self.read(*streams, after=4.9)
        self.assertEqual([one.reader.comments for one in streams], [0, 0])
        for number in range(1, 13):
            self.read(*streams, after=5.0)
            self.assertEqual([one.reader.comments for one in streams], [number] * 2)
        self.assertEqual(len(self.streams), 2)  # which no deadline has ended

    def test_what_happens_in_one_moment_is_written_in_one_piece(self) -> None:
        streams = [self.follow() for _ in range(3)]
        self.read(*streams)
        pieces = [one.pieces for one in streams]
        self.register(*(f"c{number}" for number in range(100)))
        self.read(*streams)
        self.assertEqual([len(one.events) for one in streams], [101] * 3)
        self.assertEqual([one.pieces for one in streams], [n + 1 for n in pieces])

    def test_single_event_is_not_held_back(self) -> None:
        stream = self.follow()
        self.read(stream)
        self.register("1")
        stream.read()
        self.assertEqual(stream.told(), ["OnStateChange"])
        self.register("2")
        stream.read()
        self.assertEqual(stream.told(), ["OnStateChange"])
        self.read(stream, after=GATHER)
        self.assertEqual(stream.told(), ["OnStateChange"] * 2)


class TestSlowReaders(StreamsTestCase):
    """What waits for whom, and for how long."""

    def stall(self, stream: Stream, waiting: int = 1) -> None:
        """So many bytes wait to be sent to it, and go on waiting."""
        stream.channel.waiting = lambda: waiting

    def test_slow_reader_has_one_piece_waiting_and_gets_the_rest_later(self) -> None:
        slow, quick = self.follow(), self.follow()
        self.stall(slow)
        self.register("1")
        self.read(quick)
        self.register("2")
        self.read(slow, quick)
        self.assertEqual(len(quick.events), 3)
        self.assertEqual(len(slow.events), 1)
        self.stall(slow, 0)
        self.read(slow)
        self.assertEqual(slow.events, quick.events)

    def test_one_for_whom_a_mebibyte_waits_is_cut_off_and_no_other(self) -> None:
        slow, quick = self.follow(), self.follow()
        client = self.follow("/clients/1/events")
        for one in (slow, client):
            self.stall(one, 1000)
        for _ in range(10):
            self.trouble(25, "x" * 4096)
            self.read(quick, after=1.0)
        self.assertFalse(slow.transport.aborted)
        self.trouble(25, "x" * 4096)
        self.read(quick, after=1.0)
        self.assertTrue(slow.transport.aborted)
        self.assertFalse(quick.transport.aborted)
        self.assertFalse(client.transport.aborted)  # for whom it wasn't
        self.assertEqual(self.streams.cut_off, 1)
        self.assertEqual(len(quick.events), 276)

    def test_one_whose_events_are_no_longer_kept_is_cut_off(self) -> None:
        self.patch(event_log, "MOST_EVENTS", 50)
        slow, client = self.follow(), self.follow("/clients/1/events")
        for one in (slow, client):
            self.stall(one)
        self.register("1")
        self.pass_by(GATHER)
        self.trouble(49)
        self.pass_by(GATHER)
        self.assertFalse(slow.transport.aborted or client.transport.aborted)
        self.trouble(1)
        self.pass_by(GATHER)
        self.assertTrue(slow.transport.aborted and client.transport.aborted)

    def test_nobody_misses_what_was_too_much_to_be_kept(self) -> None:
        self.patch(event_log, "MOST_EVENTS", 50)
        streams = [self.follow(), self.follow("/clients/1/events")]
        self.read(*streams)
        self.register("1")
        self.trouble(60)  # all between two rounds
        self.pass_by(GATHER)
        self.assertEqual([one.transport.aborted for one in streams], [True, True])


class TestPlaces(StreamsTestCase):
    """How many there may be."""

    def test_one_too_many_is_told_to_come_again(self) -> None:
        for kind in ("/events", "/clients/{}/events"):
            streams = [self.follow(kind.format(number)) for number in range(MOST)]
            refused = self.follow(kind.format("x"))
            problem = self.assert_refused(refused, 503, "OVERLOADED")
            self.assertIn("retryAfterSeconds", problem)
            streams[0].vanish()
            again = self.follow(kind.format("x"))
            self.assertEqual([one.name for one in again.events], ["Reset"])

    def test_client_that_comes_back_takes_the_place_of_its_oldest_stream(self) -> None:
        path = "/clients/1/events"
        streams = [self.follow(path) for _ in range(MOST_OF_ONE)]
        other = self.follow("/clients/2/events")
        streams[0].vanish()
        streams.append(self.follow(path))
        self.assertFalse(any(one.transport.aborted for one in streams))
        streams.append(self.follow(path))
        cut = [one.transport.aborted for one in (*streams, other)]
        self.assertEqual(cut, [False, True, *[False] * 5])

    def test_stream_counts_as_a_connection_that_is_never_displaced(self) -> None:
        self.site.max_connections = 2
        stream = self.follow()
        idle = Stream(self.clock, self.site)
        newcomer = Stream(self.clock, self.site)
        self.assertEqual(
            [one.transport.aborted for one in (stream, idle, newcomer)],
            [False, True, False],
        )
        self.register("1")
        self.read(stream)
        self.assertEqual(stream.told(), ["OnStateChange"])

    def test_reader_that_hangs_up_leaves_nothing_behind(self) -> None:
        self.pass_by(1.0)
        calls = self.clock.getDelayedCalls()
        for path in ("/events", "/clients/1/events"):
            stream = self.follow(path)
            self.assertEqual(len(self.streams), 1)
            stream.vanish()
            self.assertEqual(len(self.streams), 0)
        self.pass_by(1.0)
        self.assertEqual(len(self.clock.getDelayedCalls()), len(calls))
        self.assertEqual(self.site.channels, set())

    def test_reader_that_sends_no_more_is_tried_twice_at_once(self) -> None:
        stream = self.follow()
        stream.channel.readConnectionLost()
        self.read(stream, after=4 * GATHER)
        self.assertEqual(stream.reader.comments, 2)
        self.register("1")
        self.read(stream)
        self.assertEqual(stream.told(), ["OnStateChange"])  # it still listens


class TestEnding(StreamsTestCase):
    """How a stream ends that its reader doesn't end."""

    def test_at_stop_everybody_gets_the_last_events_and_an_end(self) -> None:
        streams = [self.follow("/events"), self.follow("/clients/1/events")]
        self.read(*streams)
        self.register("1")
        self.streams.stop()  # as the service does, in this order
        gone = self.site.disconnect_all()
        for one in streams:
            one.read()
            self.assertEqual(one.told(), ["OnStateChange"])
            self.assertTrue(one.ended)
            self.assertTrue(one.transport.disconnecting)
            one.vanish()
        self.successResultOf(gone)
        self.assertEqual(len(self.streams), 0)

    def test_nobody_waits_for_a_slow_reader_then(self) -> None:
        slow = self.follow()
        slow.channel.waiting = lambda: 1
        self.streams.stop()
        self.assertTrue(slow.transport.aborted)

    def test_nor_does_anybody_begin(self) -> None:
        self.streams.stop()
        self.assert_refused(self.follow(), 503, "OVERLOADED")

    def test_token_that_is_no_longer_good_ends_the_stream(self) -> None:
        tokens = Tokens("headset-*"), Tokens("headset-*")
        self.site = self.serve(*tokens)
        header = f"Authorization: Bearer {TOKEN.decode()}"
        for token, path in zip(
            tokens, ("/clients/headset-1/events", "/events"), strict=True
        ):
            stream = self.follow(path, header)
            self.read(stream, after=3 * COMMENT_EVERY)
            self.assertFalse(stream.ended)
            token.good = False
            self.read(stream, after=COMMENT_EVERY)
            self.assertTrue(stream.ended)
            self.assert_refused(self.follow(path, header), 401, "UNAUTHORIZED")

    def test_no_stream_begins_without_a_token_that_is_good_for_it(self) -> None:
        self.site = self.serve(Tokens("headset-*"), Tokens("headset-*"))
        header = f"Authorization: Bearer {TOKEN.decode()}"
        for path, *headers in (
            ("/events",),
            ("/clients/headset-1/events",),
            ("/clients/tablet-1/events", header),
        ):
            self.assert_refused(self.follow(path, *headers), 401, "UNAUTHORIZED")
        self.assertEqual(len(self.streams), 0)

    def test_id_that_no_client_can_have_is_told_so(self) -> None:
        self.assert_refused(self.follow("/clients/a b/events"), 400, "BAD_MESSAGE")
        self.assert_refused(self.follow("/clients/a%20b/events"), 404, "UNKNOWN_CLIENT")

    def test_operators_stream_has_no_parameters(self) -> None:
        self.assert_refused(self.follow("/events?since=1"), 400, "BAD_MESSAGE")
