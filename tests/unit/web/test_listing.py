"""Long answers: as fast as they are read, and nothing in them that isn't durable.

The site, the app and the engine are the real ones; the test moves the clock and the
store, and reads when it likes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from msgspec import Raw
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import Clock, Cooperator
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from heartbeat_service.core.errors import Overloaded
from heartbeat_service.core.notices import MassLossOver
from heartbeat_service.core.states import ClientState
from heartbeat_service.engine.orders import MOST_ORDERS, Answer, Orders
from heartbeat_service.web import listing as listing_module
from heartbeat_service.web.access import Door, Pass
from heartbeat_service.web.app import MOST_LISTINGS, HeartbeatApp
from heartbeat_service.web.channel import IDLE, LINGER, REQUEST_DEADLINE
from heartbeat_service.web.events import EventStreams
from heartbeat_service.web.listing import CHUNK
from heartbeat_service.web.names import Names
from heartbeat_service.web.peers import Peers
from heartbeat_service.web.site import HeartbeatSite
from tests.unit.engine.test_dispatch import House
from tests.unit.fakes import listen

DISCONNECTED, RUNNING = ClientState.DISCONNECTED, ClientState.RUNNING

#: Some telemetry, so that few clients make a long listing.
VALUES = Raw(b'{"x":"%s"}' % (b"x" * 4000))

#: The longest record of these tests, in bytes.
RECORD = 5000

#: How many of them don't fit in three chunks.
MANY = 3 * CHUNK // 4000 + 1


class Reader(StringTransport):
    """The server's side of a connection; takes what is written when a test says so.

    Asks for a pause as TCP's transport does.

    :ivar most: how many bytes ever waited.
    """

    most = 0
    aborted = False
    _paused = False

    def _note(self) -> None:
        waiting = len(self.value())
        self.most = max(self.most, waiting)
        if self.producer is not None and waiting > CHUNK:
            self._paused = True
            self.producer.pauseProducing()

    def write(self, data: bytes) -> None:
        """Keep it."""
        super().write(data)
        self._note()

    def writeSequence(self, data: Any) -> None:
        """Keep all of it."""
        super().writeSequence(data)
        self._note()

    def abortConnection(self) -> None:
        """Remember that it was cut."""
        self.aborted = True
        super().abortConnection()

    def take(self) -> bytes:
        """Read all that waits."""
        taken: bytes = self.value()
        self.clear()
        if self._paused and self.producer is not None:
            self._paused = False
            self.producer.resumeProducing()
        return taken


class Wire:
    """A connection to the site, and what has come over it."""

    def __init__(self, clock: Clock, site: HeartbeatSite) -> None:
        self._clock = clock
        self.transport = Reader()
        self.channel = site.buildProtocol(None)
        self.channel.makeConnection(self.transport)
        self.received = b""

    def ask(
        self, method: str, path: str, body: bytes = b"", version: str = "1.1"
    ) -> None:
        """Send a request."""
        head = f"{method} {path} HTTP/{version}\r\nHost: localhost\r\n"
        head += f"Content-Length: {len(body)}\r\n\r\n"
        self.channel.dataReceived(head.encode() + body)
        self.turn()

    def turn(self) -> None:
        """Let the reactor turn until nothing more is done at once."""
        for _ in range(20):
            self._clock.advance(0)

    def read(self) -> None:
        """Take all that comes until nothing comes any more."""
        while taken := self.transport.take():
            self.received += taken
            self.turn()

    def vanish(self) -> None:
        """Be gone."""
        self.channel.connectionLost(Failure(ConnectionLost()))

    @property
    def head(self) -> bytes:
        """The status line and the headers."""
        return self.received.partition(b"\r\n\r\n")[0]

    @property
    def body(self) -> bytes:
        """What is behind them, without the chunks' lengths."""
        body = self.received.partition(b"\r\n\r\n")[2]
        if b"chunked" not in self.head:
            return body
        pieces = []
        while body:
            length, _, rest = body.partition(b"\r\n")
            count = int(length, 16)
            pieces.append(rest[:count])
            body = rest[count + 2 :]
        assert count == 0, "it isn't whole"
        return b"".join(pieces)

    def names(self) -> list[str]:
        """Who is listed."""
        return [client["clientID"] for client in json.loads(self.body)["clients"]]


class ListingTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        """Begin with nobody."""
        self.house = House()
        self.clock = self.house.clock
        self.turns, self.one_step_a_turn = 0, False
        cooperator = Cooperator(
            lambda: lambda: self.one_step_a_turn,
            self.take_turn,
        )
        self.patch(listing_module, "cooperate", cooperator.cooperate)
        app = HeartbeatApp(
            self.house.dispatcher,
            self.house.engine.orders,
            self.house.engine.trouble,
            Door(),
            Door(),
            Names([]),
            EventStreams(self.house.engine.events, self.clock, 1),
            Peers(
                self.clock, self.house.engine.nodes, self.house.engine.standing, bytes
            ),
        )
        self.site = HeartbeatSite(app.resource(), self.clock, 100, self.clock, app.gate)

    def take_turn(self, turn: Callable[[], None]) -> IDelayedCall:
        """Go on in the reactor's next turn."""
        self.turns += 1
        return self.clock.callLater(0, turn)

    def register(self, count: int) -> list[str]:
        """So many clients live, with VALUES; their names."""
        names = [f"c{number}" for number in range(count)]
        for name in names:
            self.house.beat(name, values=VALUES, timebomb_seconds=3600.0)
        self.house.store.finish_all()
        return names

    def ask(
        self,
        method: str = "GET",
        path: str = "/clients",
        body: bytes = b"",
        version: str = "1.1",
    ) -> Wire:
        """A connection that has asked, and has read nothing yet."""
        wire = Wire(self.clock, self.site)
        wire.ask(method, path, body, version)
        return wire

    def order(self) -> Wire:
        """A connection that has told all clients to calibrate."""
        return self.ask(
            "PUT", "/clients/state", b'{"clientState":"CALIBRATED","all":true}'
        )


class PagesTestCase(ListingTestCase):
    def get(self, query: str) -> dict[str, Any]:
        """The JSON of one listing."""
        wire = self.ask(path=f"/clients?{query}")
        wire.read()
        self.assertIn(b" 200 ", wire.head)
        listed: dict[str, Any] = json.loads(wire.body)
        return listed

    def pages(self, query: str) -> list[list[str]]:
        """Who is on each page, to the last one."""
        pages, after = [], ""
        while True:
            page = self.get(query + after)
            pages.append([client["clientID"] for client in page["clients"]])
            if page["next"] is None:
                return pages
            after = f"&after={page['next']}"


class TestPages(PagesTestCase):
    """``GET /clients`` a page at a time, and of some clients only."""

    def test_pages_have_everyone_once_in_the_order_of_registration(self) -> None:
        names = self.register(10)
        for limit in (1, 3, 5, 9, 10, 11, 10_000):
            with self.subTest(limit=limit):
                pages = self.pages(f"limit={limit}")
                self.assertEqual([name for page in pages for name in page], names)
                self.assertEqual({len(page) for page in pages[:-1]} - {limit}, set())
                self.assertTrue(pages[-1])

    def test_who_stays_is_on_one_page_whoever_comes_and_goes(self) -> None:
        names = self.register(6)
        first = self.get("limit=3")
        for name in ("c1", "c4"):
            self.house.kick(name)
        self.house.beat("c0", RUNNING)
        self.house.beat("c0", DISCONNECTED)  # a new life: it moves to the end
        self.house.beat("new")
        self.house.store.finish_all()
        second = self.get(f"limit=3&after={first['next']}")
        third = self.get(f"limit=3&after={second['next']}")
        listed = [
            [client["clientID"] for client in page["clients"]]
            for page in (first, second, third)
        ]
        self.assertEqual(listed, [names[:3], ["c3", "c5", "c0"], ["new"]])
        self.assertIsNone(third["next"])

    def test_pages_have_everyone_though_nodes_give_the_same_incarnation(self) -> None:
        names = self.register(6)
        incarnations = [7, 7, 8, 9, 9, 9]
        for name, incarnation in zip(names, incarnations, strict=True):
            self.house.registry.get(name).incarnation = incarnation
        for limit, lengths in ((1, [2, 1, 3]), (2, [2, 4]), (3, [3, 3]), (5, [6])):
            with self.subTest(limit=limit):
                pages = self.pages(f"limit={limit}")
                self.assertEqual([name for page in pages for name in page], names)
                self.assertEqual([len(page) for page in pages], lengths)

    def test_nobody_is_a_page_without_a_next_one(self) -> None:
        self.assertEqual(self.pages("limit=1"), [[]])
        self.register(1)
        self.assertEqual(self.pages(f"limit=1&after={2**63 - 1}"), [[]])

    def test_clients_are_chosen_by_state_and_by_how_their_names_begin(self) -> None:
        self.register(12)
        for name in ("c1", "c3", "c10", "c11"):
            self.house.steer(name, RUNNING)
        self.house.store.finish_all()
        for query, names in (
            ("state=RUNNING", ["c1", "c3", "c10", "c11"]),
            ("prefix=c1", ["c1", "c10", "c11"]),
            ("prefix=c1&state=RUNNING", ["c1", "c10", "c11"]),
            ("prefix=x", []),
            ("state=CALIBRATED", []),
        ):
            with self.subTest(query=query):
                listed = self.get(query)
                self.assertEqual([c["clientID"] for c in listed["clients"]], names)
                self.assertNotIn("next", listed)
                for page in self.pages(f"{query}&limit=2")[:-1]:
                    self.assertEqual(len(page), 2)

    def test_after_without_a_limit_lists_all_the_rest(self) -> None:
        names = self.register(5)
        after = self.get("limit=2")["next"]
        listed = self.get(f"after={after}")
        self.assertEqual([c["clientID"] for c in listed["clients"]], names[2:])
        self.assertNotIn("next", listed)

    def test_page_of_a_store_in_trouble_shows_what_it_has(self) -> None:
        names = self.register(5)
        for change in (self.house.beat("new"), self.house.kick("c3")):
            change.addErrback(lambda failure: failure.trap(Overloaded))
        self.house.store.break_down()
        pages = self.pages("limit=2")
        self.assertEqual([name for page in pages for name in page], names)

    def test_clients_are_chosen_by_labels_and_by_lateness(self) -> None:
        for name, labels in (
            ("1", {"room": "a", "x:y": "z"}),
            ("2", {"room": "b", "x": "y:z"}),
            ("3", {"room": "a", "seat": "4"}),
            ("4", {}),
        ):
            self.house.beat(name, labels=labels)
        self.house.store.finish_all()
        self.house.listen(5)
        self.house.beat("1")
        self.house.beat("2")
        for query, names in (
            ("label=room:a", "13"),
            ("label=room:a&label=seat:4", "3"),
            ("label=room:a&label=room:b", ""),
            ("label=room:A", ""),
            ("label=x:y:z", "12"),
            ("label=x:y:z&label=room:b", "2"),
            ("late=true", "34"),
            ("late=false", "12"),
            ("late=true&label=room:a", "3"),
            ("late=true&label=room:a&prefix=1", ""),
        ):
            with self.subTest(query=query):
                listed = self.get(query)["clients"]
                self.assertEqual([one["clientID"] for one in listed], list(names))
                pages = self.pages(f"{query}&limit=1")
                self.assertEqual([name for page in pages for name in page], list(names))

    def test_listing_is_as_of_the_last_event_before_its_first_record(self) -> None:
        names = self.register(MANY)
        before = self.house.engine.events.last_id
        wire = self.ask()
        self.house.kick(names[-1])
        self.house.store.finish_all()
        wire.read()
        self.assertEqual(wire.names(), names[:-1])
        self.assertEqual(json.loads(wire.body)["asOf"], before)
        self.assertNotEqual(self.house.engine.events.last_id, before)

    def test_listing_tells_the_servers_time(self) -> None:
        self.assertEqual(self.get("")["serverTime"], "2022-03-29T12:00:00.000Z")


class TestGone(PagesTestCase):
    """``GET /clients?gone=true``."""

    def bury(self, *names: str) -> None:
        """These clients come and go."""
        for name in names:
            self.house.register(name)
            self.house.kick(name)
            self.house.store.finish_all()

    def refused(self, query: str) -> str:
        """Why it is."""
        wire = self.ask(path=f"/clients?{query}")
        wire.read()
        self.assertIn(b" 400 ", wire.head)
        detail: str = json.loads(wire.body)["detail"]
        return detail

    def test_who_is_gone_is_listed_and_nobody_who_lives(self) -> None:
        self.house.register("lives")
        self.bury("1", "2")
        listed = self.get("gone=true")
        self.assertEqual(set(listed), {"clients", "asOf", "serverTime"})
        self.assertEqual(
            listed["clients"][1],
            {
                "clientID": "1",
                "lastState": "UNCALIBRATED",
                "reason": "kick",
                "endedAt": "2022-03-29T12:00:00.000Z",
                "registeredAt": "2022-03-29T12:00:00.000Z",
                "beats": 1,
                "longestGapSeconds": 0.0,
                "labels": {},
            },
        )
        self.assertEqual(len(listed["clients"]), 2)
        living = self.get("gone=false")["clients"]
        self.assertEqual([client["clientID"] for client in living], ["lives"])

    def test_pages_of_them_have_everyone_once_the_last_to_go_first(self) -> None:
        self.assertEqual(self.pages("gone=true&limit=3"), [[]])
        names = [f"c{number}" for number in range(10)]
        self.bury(*names)
        for limit in (1, 3, 5, 9, 10, 11, 10_000):
            pages = self.pages(f"gone=true&limit={limit}")
            self.assertEqual([name for page in pages for name in page], names[::-1])
            self.assertEqual({len(page) for page in pages[:-1]} - {limit}, set())
            self.assertTrue(pages[-1])

    def test_they_are_chosen_by_when_they_went_and_by_how_their_names_begin(self):
        self.bury("a1", "b1")
        listen(self.clock, 60)
        self.bury("a2", "b2")
        for query, names in (
            ("since=59", ["b2", "a2"]),
            ("since=60", ["b2", "a2", "b1", "a1"]),
            ("prefix=a", ["a2", "a1"]),
            ("since=59.999&prefix=a", ["a2"]),
            (f"since={2**62}", ["b2", "a2", "b1", "a1"]),
        ):
            listed = self.get(f"gone=true&{query}")["clients"]
            self.assertEqual([client["clientID"] for client in listed], names, query)

    def test_they_are_chosen_by_the_labels_that_they_had(self) -> None:
        for name, labels in (("1", {"room": "a"}), ("2", {"room": "a", "seat": "1"})):
            self.house.beat(name, labels=labels)
            self.house.kick(name)
        self.house.store.finish_all()
        for query, names in (
            ("label=room:a", ["2", "1"]),
            ("label=room:a&label=seat:1", ["2"]),
            ("label=room:b", []),
        ):
            listed = self.get(f"gone=true&{query}")["clients"]
            self.assertEqual([client["clientID"] for client in listed], names)

    def test_what_makes_no_sense_together_is_refused(self) -> None:
        for query, told in (
            ("gone=true&state=RUNNING", "`state` is about those who live"),
            ("gone=true&late=false", "`late` is about those who live"),
            ("since=60", "`since` is about those who are gone: it wants `gone=true`"),
            ("gone=false&since=60", "it wants `gone=true`"),
            ("gone=yes", "Expected one of true, false"),
            ("gone=true&since=-1", "Expected a number from 0 on"),
            ("gone=true&limit=10001", "Expected a whole number from 1 to 10000"),
        ):
            self.assertIn(told, self.refused(query))


class TestMassLoss(ListingTestCase):
    """``GET`` and ``DELETE /mass-loss``."""

    def lose(self, count: int) -> list[str]:
        """So many clients are silent, of all that there are; their names."""
        self.house.registry.mass_loss.share = 0.5
        names = [f"{number:064}" for number in range(count)]
        self.house.register(*names)
        self.house.listen(11)
        return names

    def shown(self) -> dict[str, Any]:
        """What is told of the hold."""
        wire = self.ask(path="/mass-loss")
        wire.read()
        told: dict[str, Any] = json.loads(wire.body)
        self.assertIn("asOf", told)
        return {name: told[name] for name in ("hold", "held", "since", "secondsLeft")}

    def end(self, query: str = "", body: bytes = b"") -> Wire:
        """An operator has ended it."""
        wire = self.ask("DELETE", f"/mass-loss{query}", body)
        wire.read()
        return wire

    def test_without_a_hold_there_is_nothing_to_tell_or_to_end(self) -> None:
        nothing: dict[str, Any] = dict.fromkeys(("hold", "since", "secondsLeft"))
        nothing["held"] = []
        self.assertEqual(self.shown(), nothing)
        for query in ("", "?hold=1"):
            self.assertIn(b" 204 ", self.end(query).head)

    def test_a_hold_is_told_and_ended(self) -> None:
        names = self.lose(3)
        told = self.shown()
        self.assertEqual((sorted(told["held"]), told["secondsLeft"]), (names, 59))
        self.assertEqual(told["since"], "2022-03-29T12:00:10.000Z")
        self.assertIn(b" 204 ", self.end("?hold=1").head)
        self.assertEqual(self.shown(), told)
        self.assertIn(b" 204 ", self.end(f"?hold={told['hold']}").head)
        self.assertIsNone(self.shown()["hold"])
        self.house.listen(3)
        self.assertEqual(len(self.house.registry), 0)

    def test_its_end_is_told_with_who_ended_it(self) -> None:
        self.lose(3)
        self.patch(Door, "admit", lambda *_: Pass(name="Anna"))
        self.end()
        [over] = [one for one in self.house.told if isinstance(one, MassLossOver)]
        self.assertEqual((over.held, over.by), (3, "Anna"))

    def test_what_could_end_another_hold_than_was_meant_is_refused(self) -> None:
        self.lose(3)
        for wire in (
            self.end("?hold="),
            self.end("?Hold=1"),
            self.end("?hold=1&hold=2"),
            self.end(body=b'{"hold":"1"}'),
        ):
            self.assertIn(b" 400 ", wire.head)
        self.assertIsNotNone(self.shown()["hold"])

    def test_however_many_are_held_they_are_told_as_fast_as_they_are_read(self):
        names = self.lose(2 * CHUNK // 64)
        wire = self.ask(path="/mass-loss")
        self.assertLess(len(wire.transport.value()), CHUNK + RECORD)
        wire.read()
        self.assertLess(wire.transport.most, CHUNK + RECORD)
        self.assertEqual(sorted(json.loads(wire.body)["held"]), names)


class TestListing(ListingTestCase):
    def test_what_fits_in_one_chunk_says_how_long_it_is(self) -> None:
        names = self.register(3)
        wire = self.ask()
        wire.read()
        self.assertIn(b"Content-Length: %d" % len(wire.body), wire.head)
        self.assertEqual(wire.names(), names)

    def test_what_does_not_is_written_as_fast_as_it_is_read(self) -> None:
        names = self.register(MANY)
        wire = self.ask()
        self.assertLess(len(wire.transport.value()), CHUNK + RECORD)
        wire.read()
        self.assertLess(wire.transport.most, CHUNK + RECORD)
        self.assertIn(b"Transfer-Encoding: chunked", wire.head)
        self.assertEqual(wire.names(), names)

    def test_connection_serves_on_after_a_long_answer(self) -> None:
        self.register(MANY)
        wire = self.ask()
        wire.read()
        wire.received = b""
        wire.ask("GET", "/healthz")
        wire.read()
        self.assertEqual(json.loads(wire.body), {"status": "alive"})

    def test_reader_of_http_1_0_gets_it_until_the_end_of_the_connection(self) -> None:
        names = self.register(MANY)
        wire = self.ask(version="1.0")
        wire.read()
        self.assertNotIn(b"chunked", wire.head)
        self.assertEqual(wire.names(), names)
        self.assertTrue(wire.transport.disconnecting)

    def test_head_of_a_long_answer_has_no_body_and_makes_none(self) -> None:
        names = self.register(MANY)
        wire = Wire(self.clock, self.site)
        wire.channel.dataReceived(b"HEAD /clients HTTP/1.1\r\nHost: localhost\r\n\r\n")
        self.house.steer(names[-1], ClientState.RUNNING)
        wire.turn()
        wire.read()
        self.assertIn(b"200 OK", wire.head)
        self.assertEqual(wire.body, b"")
        self.assertEqual(wire.channel.requests, [])

    def test_who_dies_before_its_turn_is_left_out_and_a_newcomer_is_not_in(
        self,
    ) -> None:
        names = self.register(MANY)
        wire = self.ask()
        self.house.leave(names[-1])
        self.house.beat("newcomer")
        self.house.store.finish_all()
        wire.read()
        self.assertEqual(wire.names(), names[:-1])

    def test_others_have_their_turn_though_all_have_died(self) -> None:
        names = self.register(MANY)
        wire = self.ask()
        for name in names:
            self.house.leave(name)
        self.house.store.finish_all()
        self.one_step_a_turn = True
        wire.received += wire.transport.take()
        self.turns = 0
        while wire.channel.requests:
            self.clock.advance(0)
        self.assertGreater(self.turns, MANY / 2)

    def test_death_that_is_not_durable_is_waited_for(self) -> None:
        names = self.register(MANY)
        wire = self.ask()
        self.house.leave(names[-1])
        wire.read()
        self.assertNotIn(b"serverTime", wire.received)
        self.house.store.finish_all()
        wire.turn()
        wire.read()
        self.assertEqual(wire.names(), names[:-1])

    def test_change_that_is_not_durable_is_not_shown_before_it_is(self) -> None:
        names = self.register(MANY)
        wire = self.ask()
        self.house.steer(names[-1], ClientState.RUNNING)
        wire.read()
        self.assertNotIn(names[-1].encode(), wire.received)
        self.house.store.finish_all()
        wire.turn()
        wire.read()
        last = json.loads(wire.body)["clients"][-1]
        self.assertEqual(
            (last["clientID"], last["clientState"]), (names[-1], "RUNNING")
        )

    def test_store_in_trouble_in_the_midst_shows_what_it_has(self) -> None:
        names = self.register(MANY)
        wire = self.ask()
        self.house.steer(names[-1], ClientState.RUNNING).addErrback(lambda _: None)
        wire.read()
        self.assertNotIn(names[-1].encode(), wire.received)
        self.house.store.break_down()
        wire.turn()
        wire.read()
        self.assertEqual(wire.names(), names)
        last = json.loads(wire.body)["clients"][-1]
        self.assertEqual((last["clientState"], last["sequence"]), ("UNCALIBRATED", 1))

    def test_store_that_is_closed_in_the_midst_cuts_it(self) -> None:
        names = self.register(MANY)
        wire = self.ask()
        Deferred.fromCoroutine(self.house.journal.close())
        wire.read()
        self.assertTrue(wire.transport.aborted)
        self.assertNotIn(b"\r\n0\r\n\r\n", wire.received)
        self.assertNotIn(names[-1].encode(), wire.received)
        wire.vanish()

    def test_store_in_trouble_before_it_begins_shows_what_it_has(self) -> None:
        self.register(1)
        self.house.beat("1").addErrback(lambda _: None)
        wire = self.ask()
        self.house.store.break_down()
        wire.turn()
        wire.read()
        self.assertIn(b" 200 ", wire.head)
        self.assertEqual(wire.names(), ["c0"])

    def test_store_that_is_not_open_is_a_problem(self) -> None:
        Deferred.fromCoroutine(self.house.journal.close())
        wire = self.ask()
        wire.read()
        self.assertIn(b" 503 ", wire.head)
        self.assertEqual(json.loads(wire.body)["code"], "OVERLOADED")

    def test_defect_in_the_midst_cuts_it_and_is_logged(self) -> None:
        names = self.register(MANY)
        wire = self.ask()
        client = self.house.registry.get(names[-1])
        client.registered_at = float("nan")
        wire.read()
        self.assertTrue(wire.transport.aborted)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        wire.vanish()


class TestReaders(ListingTestCase):
    """Those who read slowly, not at all, or no longer."""

    def test_who_takes_nothing_is_cut_off(self) -> None:
        self.register(MANY)
        wire = self.ask()
        self.clock.advance(IDLE - 1)
        self.assertFalse(wire.transport.aborted)
        self.clock.advance(1)
        self.assertTrue(wire.transport.aborted)

    def test_each_chunk_that_is_taken_puts_that_off(self) -> None:
        names = self.register(MANY)
        wire = self.ask()
        while b'"serverTime"' not in wire.received:
            self.clock.advance(IDLE - 1)
            wire.received += wire.transport.take()
            wire.turn()
        self.assertFalse(wire.transport.aborted)
        wire.read()
        self.assertEqual(wire.names(), names)

    def test_who_waits_for_the_store_is_not_cut_off(self) -> None:
        names = self.register(MANY)
        wire = self.ask()
        self.house.steer(names[-1], ClientState.RUNNING)
        wire.read()
        self.assertIsNone(wire.channel.timeOut)

    def test_what_it_sends_meanwhile_does_not_pile_up(self) -> None:
        self.register(MANY)
        wire = self.ask()
        self.assertEqual(wire.transport.producerState, "paused")
        wire.read()
        self.assertEqual(wire.transport.producerState, "producing")

    def test_deadline_of_the_next_request_is_the_usual_one(self) -> None:
        self.register(15)
        wire = self.ask()
        wire.read()
        rest = CHUNK - 20 - len(wire.body)  # with its head, more than one chunk
        values = Raw(b'{"x":"%s"}' % (b"x" * (4000 + rest)))
        self.house.registry.get("c0").heartbeat.values = values
        wire = self.ask()
        self.assertGreater(len(wire.transport.value()), CHUNK)
        wire.read()
        self.assertEqual(len(wire.body), CHUNK - 20)
        wire.channel.dataReceived(b"GET")
        self.clock.advance(REQUEST_DEADLINE)
        self.assertIn(b"HTTP/1.1 408 ", wire.transport.take())

    def test_at_a_stop_a_long_answer_may_linger_only_so_long(self) -> None:
        self.register(MANY)
        reading, deaf = self.ask(), self.ask()
        self.site.disconnect_all()
        reading.read()
        self.assertTrue(reading.transport.disconnecting)
        self.assertFalse(reading.transport.aborted)
        self.clock.advance(LINGER)
        self.assertTrue(deaf.transport.aborted)
        for wire in (reading, deaf):
            wire.vanish()

    def test_who_vanishes_leaves_nothing_behind(self) -> None:
        self.register(MANY)
        calls = len(self.clock.getDelayedCalls())
        wire = self.ask()
        wire.vanish()
        wire.turn()
        self.assertEqual(len(self.clock.getDelayedCalls()), calls)
        self.assertEqual(len(self.site.channels), 0)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_nor_does_one_that_waits_for_the_store_whatever_comes_of_that(self) -> None:
        names = self.register(MANY)
        for finish in (self.house.store.break_down, self.house.store.finish_all):
            wire = self.ask()
            self.house.steer(names[-1], ClientState.RUNNING).addErrback(lambda _: None)
            wire.read()
            wire.vanish()
            finish()
            wire.turn()
            self.house.calm_down()
            self.house.steer(names[-1], ClientState.UNCALIBRATED)
            self.house.calm_down()
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_no_more_than_so_many_are_read_at_once(self) -> None:
        names = self.register(MANY)
        readers = [self.ask() for _ in range(MOST_LISTINGS)]
        refused = self.ask()
        refused.read()
        self.assertIn(b" 503 ", refused.head)
        self.assertIn("too many listings", json.loads(refused.body)["detail"])
        readers[0].vanish()
        readers[1].read()
        for _ in range(2):
            wire = self.ask()
            wire.read()
            self.assertEqual(wire.names(), names)

    def test_short_ones_are_not_counted(self) -> None:
        self.register(1)
        wires = [self.ask() for _ in range(MOST_LISTINGS + 1)]
        for wire in wires:
            wire.read()
            self.assertIn(b" 200 ", wire.head)


class TestOrders(ListingTestCase):
    """Answers to those who steer many."""

    def setUp(self) -> None:
        """Begin with replies that don't fit in one chunk."""
        super().setUp()
        self.names = self.register(CHUNK // 150)

    def test_answer_is_written_as_fast_as_it_is_read(self) -> None:
        wire = self.order()
        self.house.store.finish_all()
        self.house.listen(0.1)
        wire.read()
        self.assertLess(wire.transport.most, CHUNK + RECORD)
        self.assertIn(b"Transfer-Encoding: chunked", wire.head)
        self.assertEqual(wire.names(), self.names)

    def test_order_of_who_vanishes_is_carried_out_and_leaves_nothing_behind(
        self,
    ) -> None:
        wire = self.order()
        wire.vanish()
        self.house.store.finish_all()
        self.house.listen(0.1)
        self.assertEqual(
            {client.state for client in self.house.registry}, {ClientState.CALIBRATED}
        )
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_orders_of_who_vanished_count_until_they_are_carried_out(self) -> None:
        for _ in range(MOST_ORDERS):
            self.order().vanish()
        refused = self.order()
        refused.read()
        self.assertIn(b" 503 ", refused.head)
        self.house.store.finish_all()
        self.house.listen(0.1)
        self.house.store.finish_all()
        self.house.listen(0.1)
        wire = self.order()
        self.house.store.finish_all()
        self.house.listen(0.1)
        wire.read()
        self.assertIn(b" 200 ", wire.head)

    def test_beyond_so_many_an_order_is_refused_before_it_is_carried_out(self) -> None:
        orders: list[Deferred[list[Answer]]] = []

        def to_many(*_: object) -> Deferred[list[Answer]]:
            orders.append(Deferred())
            return orders[-1]

        self.patch(Orders, "to_many", to_many)
        wires = [self.order() for _ in range(MOST_ORDERS)]
        refused = self.order()
        refused.read()
        self.assertIn(b" 503 ", refused.head)
        self.assertEqual(len(orders), MOST_ORDERS)
        for order, wire in zip(orders, wires, strict=True):
            order.callback([])
            wire.turn()
            wire.read()
            self.assertIn(b" 200 ", wire.head)
        self.order()
        self.assertEqual(len(orders), MOST_ORDERS + 1)
