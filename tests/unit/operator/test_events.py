"""heartbeatctl and events: read from bytes, followed over breaks, told, kept up."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from typing import Any

import httpx
from twisted.trial.unittest import SynchronousTestCase

from heartbeat_service.operator.board import Board
from heartbeat_service.operator.server import NoServer, Refused, Server
from heartbeat_service.operator.settings import Settings
from heartbeat_service.operator.stream import (
    Event,
    EventParser,
    LineAlive,
    LineBack,
    LineLost,
    Told,
    follow,
    is_beyond,
)
from heartbeat_service.operator.wording import sentence
from tests.unit.operator.answers import client, problem

STREAM = (
    b'id: r-1\nevent: Reset\ndata: {"run": "r"}\n\n: alive\n\n'
    b'id:r-2\r\nevent:Store\r\ndata:{"trouble": "a\xe2\x80\xa8b"}\r\n\r\n'
)
READ = [
    Event("Reset", "r-1", {"run": "r"}),
    Event("Store", "r-2", {"trouble": "a\u2028b"}),
]


class Body(httpx.SyncByteStream):
    """A stream's bytes, and how it ends."""

    def __init__(self, content: bytes, end: Exception | None = None) -> None:
        self._content = content
        self._end = end

    def __iter__(self) -> Iterator[bytes]:
        yield self._content
        if self._end is not None:
            raise self._end


def streams(*answers: httpx.Response | Exception) -> tuple[Server, list[Any]]:
    """A server that gives one of the answers after the other, and what is asked for."""
    left, asked = iter(answers), []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.headers.get("Last-Event-ID"))
        each = next(left)
        if isinstance(each, Exception):
            raise each
        return each

    return Server(Settings(), httpx.MockTransport(answer)), asked


def stream(content: bytes, end: Exception | None = None) -> httpx.Response:
    """An answer that is an event stream."""
    kind = {"Content-Type": "text/event-stream"}
    return httpx.Response(200, headers=kind, stream=Body(content, end))


class TestStream(SynchronousTestCase):
    def test_events_are_read_however_the_bytes_are_cut(self) -> None:
        for size in range(1, len(STREAM) + 1):
            parser = EventParser()
            pieces = [STREAM[at : at + size] for at in range(0, len(STREAM), size)]
            read = [event for piece in pieces for event in parser.feed(piece)]
            self.assertEqual(read, READ)

    def test_what_a_listing_knows_is_not_beyond_it(self) -> None:
        for event_id, as_of, beyond in (
            ("r-10", "r-9", True),
            ("r-9", "r-9", False),
            ("r-9", "r-10", False),
            ("s-1", "r-9", True),
            ("r-1", None, True),
            ("a-b-2", "a-b-1", True),
        ):
            self.assertIs(is_beyond(event_id, as_of), beyond)

    def test_after_a_break_it_asks_for_what_was_missed(self) -> None:
        later = b"id: r-3\nevent: X\ndata: {}\n\n"
        server, asked = streams(
            stream(STREAM, httpx.ReadError("reset")),
            httpx.ConnectError("refused"),
            problem(503, "OVERLOADED", "too many streams"),
            stream(later),
        )
        pauses: list[float] = []
        with server:
            told: list[Told] = list(
                islice(follow(server, "/events", pauses.append), 10)
            )
        lost = [each for each in told if isinstance(each, LineLost)]
        self.assertEqual(len(lost), 4)
        self.assertEqual(
            [each for each in told if each not in lost],
            [*READ, LineAlive(), LineBack(), Event("X", "r-3", {}), LineAlive()],
        )
        self.assertEqual(asked, [None, "r-2", "r-2", "r-2"])
        self.assertEqual(len(pauses), 3)
        for pause, most in zip(pauses, (0.6, 1.2, 2.4), strict=True):
            self.assertLessEqual(pause, most)

    def test_at_first_and_where_it_is_refused_it_ends(self) -> None:
        for answer, error in (
            (httpx.ConnectError("refused"), NoServer),
            (problem(401, "UNAUTHORIZED", "no"), Refused),
            (httpx.Response(200, json={}), NoServer),
            (stream(b"data: [1]\n\n"), NoServer),
        ):
            server, _ = streams(answer)
            with server:
                self.assertRaises(error, next, follow(server, "/events"))


class TestSentences(SynchronousTestCase):
    def test_each_event_says_what_has_happened(self) -> None:
        for name, data, said in (
            (
                "OnStateChange",
                {
                    "previousState": "RUNNING",
                    "clientState": "CALIBRATED",
                    "reason": "operator",
                    "by": "Ada",
                },
                "1 RUNNING -> CALIBRATED (operator, by Ada)",
            ),
            (
                "Late",
                {"secondsSinceHeartbeat": 4.12, "secondsToTimebomb": 5.9},
                "1 late, no beat for 4.1 s, 5.9 s left",
            ),
            ("Recovered", {}, "1 beats again"),
            ("Silence", {"seconds": 300}, "1 may be silent for 5 min"),
            ("Silence", {"seconds": 0, "reason": "beat"}, "1 silence over: it beats"),
            ("LockedOut", {"seconds": 0, "by": "Ada"}, "1 may come back, by Ada"),
            ("Labels", {"labels": {"room": "A", "n": "1"}}, "1 has labels room:A n:1"),
            ("Later", {"x": "\x1b["}, '1 Later {"x": "\\u001b["}'),
            ("Late", {"odd": 1}, '1 Late {"odd": 1}'),
        ):
            event = Event(name, "r-1", {"clientID": "1", "incarnation": 7, **data})
            self.assertEqual(sentence(event).replace('"incarnation": 7, ', ""), said)
        store = Event("Store", "r-1", {"trouble": "disk\x1b[31m full"})
        self.assertEqual(sentence(store), "The store: disk\\x1b[31m full")


class TestBoard(SynchronousTestCase):
    def setUp(self) -> None:
        self.board = Board()
        clients = [client("2"), client("1", late=True, labels={"room": "A"})]
        self.board.list_anew(clients, "r-5", 100.0)

    def event(self, name: str, client_id: str, number: int = 6, **data: Any) -> None:
        """Something happens 10 s after the listing."""
        data = {"clientID": client_id, "incarnation": 7, **data}
        self.board.apply(Event(name, f"r-{number}", data), 110.0)

    def change(self, client_id: str, state: str, reason: str) -> None:
        """A client's state changes."""
        self.event(
            "OnStateChange",
            client_id,
            previousState="RUNNING",
            clientState=state,
            reason=reason,
        )

    def order(self) -> list[str]:
        return [shown.client_id for shown in self.board.by_urgency()]

    def test_who_needs_a_person_comes_first(self) -> None:
        self.assertEqual(self.order(), ["1", "2"])
        self.event("Held", "2", secondsSinceHeartbeat=10.0)
        self.assertEqual(self.order(), ["2", "1"])
        self.assertEqual(
            self.board.counts(),
            "2 alive: 2 RUNNING, 0 CALIBRATED, 0 UNCALIBRATED; 1 late; 1 held",
        )
        self.assertEqual(
            self.board.clients["2"].attention(115.0), "held, no beat for 15 s"
        )

    def test_late_counts_down_until_it_beats(self) -> None:
        self.event("Late", "2", secondsSinceHeartbeat=4.0, secondsToTimebomb=6.0)
        self.assertEqual(self.board.clients["2"].attention(112.0), "late, 4 s left")
        self.event("Recovered", "2")
        self.assertEqual(self.board.clients["2"].attention(112.0), "")

    def test_who_dies_three_times_is_flapping(self) -> None:
        for _ in range(3):
            self.change("2", "DISCONNECTED", "timebomb")
            self.assertEqual(self.order(), ["1"])
            self.change("2", "UNCALIBRATED", "heartbeat")
        self.assertIn("3 deaths", self.board.clients["2"].attention(110.0))

    def test_a_new_life_keeps_its_labels_and_no_sign(self) -> None:
        self.change("1", "UNCALIBRATED", "reconnect")
        shown = self.board.clients["1"]
        self.assertEqual((shown.attention(110.0), shown.labels), ("", {"room": "A"}))

    def test_who_only_says_what_it_was_told_is_no_news(self) -> None:
        self.event("Reported", "2", reportedState="RUNNING")
        self.event("Reported", "1", reportedState="CALIBRATED")
        [news] = self.board.changes
        self.assertTrue(news.endswith("1 says CALIBRATED"))

    def test_what_the_listing_knows_changes_nothing(self) -> None:
        before = json.dumps(self.order())
        self.event("Held", "2", number=5, secondsSinceHeartbeat=10.0)
        self.assertEqual(json.dumps(self.order()), before)
