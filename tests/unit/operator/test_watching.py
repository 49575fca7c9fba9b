"""heartbeatctl watch: a list that events keep up, as lines and on a screen."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import httpx
from rich.console import Console
from twisted.trial.unittest import SynchronousTestCase

from heartbeat_service.operator import stream as stream_module
from heartbeat_service.operator.board import Board
from heartbeat_service.operator.stream import Event
from heartbeat_service.operator.watching import screen
from tests.unit.operator.answers import FakeService, client, listing, problem, stream

RESET: tuple[str, dict[str, Any]] = ("Reset", {"run": "r"})
CLIENTS = [client("1"), client("2", late=True, labels={"room": "A"})]


def late(client_id: str) -> tuple[str, dict[str, Any]]:
    """A client misses its beats."""
    seconds = {"secondsSinceHeartbeat": 4.0, "secondsToTimebomb": 6.0}
    return ("Late", {"clientID": client_id, "incarnation": 7, **seconds})


def beats_again(client_id: str) -> tuple[str, dict[str, Any]]:
    """It beats."""
    return ("Recovered", {"clientID": client_id, "incarnation": 7})


class TestWatch(SynchronousTestCase):
    def setUp(self) -> None:
        self.patch(stream_module, "RETRIES", (0,))

    def service(self) -> FakeService:
        """Events, a break, more events, and then no token any more."""
        streams: Iterator[httpx.Response] = iter(
            (
                stream(RESET, beats_again("2"), late("1"), begin=4),
                stream(beats_again("1"), begin=7),
                problem(401, "UNAUTHORIZED", "no"),
            )
        )
        return FakeService(
            {
                "GET /events": lambda _: next(streams),
                "GET /clients": listing(CLIENTS, asOf="r-5"),
                "GET /mass-loss": {"hold": None},
            }
        )

    def test_it_lists_after_a_reset_and_tells_what_the_list_does_not_know(self) -> None:
        ended = self.service().run("watch")
        table, changes = ended.out.splitlines()[:4], ended.out.splitlines()[4:]
        self.assertEqual([line.split()[0] for line in table], ["CLIENT", "2", "1", "2"])
        self.assertIn("late, 9 s left", table[1])
        self.assertEqual(
            [line.partition(" ")[2] for line in changes],
            ["1 late, no beat for 4 s, 6 s left", "1 beats again"],
        )
        told = ended.err.splitlines()
        self.assertEqual(
            told[0], "no line, trying again: the service has ended the stream"
        )
        self.assertEqual(ended.status, 1)

    def test_it_lists_anew_after_each_reset(self) -> None:
        fake = self.service()
        streams = iter(
            (stream(RESET), stream(RESET), problem(401, "UNAUTHORIZED", "no"))
        )
        fake.answers["GET /events"] = lambda _: next(streams)
        fake.run("watch")
        listings = [asked for asked, _ in fake.asked if asked.startswith("GET /cl")]
        self.assertEqual(len(listings), 2)

    def test_json_is_a_line_for_each_listing_and_event(self) -> None:
        lines = [
            json.loads(line)
            for line in self.service().run("watch", "--json").out.splitlines()
        ]
        self.assertEqual(
            [line.get("id", "listing") for line in lines],
            ["r-4", "listing", "r-6", "r-7"],
        )
        self.assertEqual(lines[1], {"clients": CLIENTS, "asOf": "r-5"})

    def test_on_a_screen_it_ends_with_what_is_wrong(self) -> None:
        ended = self.service().run("watch", on_screen=True, TERM="xterm")
        self.assertEqual(ended.status, 1)
        self.assertTrue(ended.out.endswith("\x1b[?25h\x1b[?1049l"))  # as it was
        self.assertTrue(ended.err.startswith("no. Give"))

    def test_a_listing_that_fails_is_a_lost_line_and_is_tried_again(self) -> None:
        fake = self.service()
        answers = iter((httpx.ReadTimeout("timed out"), listing(CLIENTS)))

        def lists(_: httpx.Request) -> Any:
            answer = next(answers)
            if isinstance(answer, Exception):
                raise answer
            return answer

        fake.answers["GET /clients"] = lists
        ended = fake.run("watch")
        self.assertIn("timed out", ended.err.splitlines()[0])
        self.assertIn("2 alive", ended.out)


class TestScreen(SynchronousTestCase):
    def lines(self, board: Board, height: int = 12) -> list[str]:
        """What is seen of a board."""
        out = io.StringIO()
        console = Console(file=out, width=60, height=height, force_terminal=False)
        console.print(screen(board, height))
        return [line.rstrip() for line in out.getvalue().splitlines()]

    def test_what_needs_a_person_is_seen_however_many_there_are(self) -> None:
        board = Board()
        crowd = [client(f"{number}") for number in range(500)]
        board.list_anew([*crowd, client("x", held=True)], "r-0", 0.0)
        for number in range(1, 20):
            event = Event("Recovered", f"r-{number}", {"clientID": f"{number}"})
            board.apply(event, 0.0)
        shown = self.lines(board, 24)
        self.assertEqual(len(shown), 23)
        self.assertEqual(shown[3].split()[0], "x")
        self.assertEqual(shown[-9], "and 490 more")
        self.assertTrue(shown[-1].endswith("19 beats again"))

    def test_it_says_when_there_is_no_line(self) -> None:
        board = Board()
        board.list_anew(CLIENTS, "r-0", 0.0)
        board.lose_line("21:14:03: refused\x1b[31m", 4.0)
        board.lose_line("21:15:00: refused again", 61.0)
        board.mass_loss, board.store = True, "disk full"
        shown = self.lines(board)
        self.assertEqual(shown[1], r"NO LINE since 21:14:03: refused\x1b[31m")
        self.assertIn("Mass loss", shown[3])
        self.assertEqual(shown[4], "The store: disk full")
        self.assertIn("late, 5 s left", shown[7])  # as it was then
