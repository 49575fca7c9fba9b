"""heartbeatctl: whom it means, what it sends, how it ends, what it prints."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import httpx
from twisted.trial.unittest import SynchronousTestCase

from heartbeat_service.operator import stream as stream_module
from tests.unit.fakes import folder_for
from tests.unit.operator.answers import (
    NOW,
    Answer,
    FakeService,
    client,
    listing,
    problem,
    stream,
)

#: The commands that steer, without whom they mean.
STEER = (
    ("set", "RUNNING"),
    ("kick",),
    ("lockout", "--seconds", "5m"),
    ("silence", "--seconds", "5m"),
)


def obeys(request: httpx.Request) -> dict[str, Any]:
    """Say of each whom an order names that it is done."""
    named = json.loads(request.content)["clientIDs"]
    return {"clients": [{"clientID": one} for one in named]}


def service(answers: Mapping[str, Any] | None = None) -> FakeService:
    """A service with three clients, which obeys but for these answers."""
    clients = [
        client("headset-1", "CALIBRATED"),
        client("headset-2", "CALIBRATED", late=True, sequence=9),
        client("headset-10", "RUNNING"),
    ]
    usual: dict[str, Answer] = {
        "GET /clients": listing(clients),
        "PUT /clients/state": obeys,
        "PUT /clients/lockout": obeys,
        "PUT /clients/silence": obeys,
        "POST /clients/kick": obeys,
    }
    usual.update((f"GET /clients/{one['clientID']}", one) for one in clients)
    return FakeService({**usual, **(answers or {})})


class TestWhom(SynchronousTestCase):
    def test_whom_it_means_is_said_exactly_once_or_nobody_is_asked(self) -> None:
        for command in STEER:
            for whom in ((), ("--all", "headset-1"), ("--all", "--label", "room:A")):
                fake = service()
                ended = fake.run(*command, *whom, "--yes")
                self.assertEqual((ended.status, fake.asked), (2, []))
                self.assertIn("--label NAME:VALUE", ended.err)

    def test_without_a_terminal_it_wants_a_yes(self) -> None:
        for command in STEER:
            fake = service()
            ended = fake.run(*command, "--all")
            self.assertEqual((ended.status, fake.asked), (2, []))
            self.assertIn("--yes", ended.err)

    def test_an_order_goes_to_those_who_were_shown_as_they_were_shown(self) -> None:
        fake = service()
        ended = fake.run("set", "running", "--all", "--from", "CALIBRATED", typed="y\n")
        self.assertEqual(ended.status, 0)
        [_, (target, body)] = fake.asked
        self.assertEqual(target, "PUT /clients/state")
        self.assertEqual(
            body,
            {
                "clientState": "RUNNING",
                "clientIDs": ["headset-1", "headset-2"],
                "expected": {"headset-1": [7, 3], "headset-2": [7, 9]},
                "from": ["CALIBRATED"],
            },
        )

    def test_it_says_before_whom_it_reaches_and_what_becomes_of_them(self) -> None:
        fake = service()
        ended = fake.run("set", "RUNNING", "--all", typed="n\n")
        self.assertEqual(
            ended.err,
            "2 CALIBRATED -> RUNNING: headset-1, headset-2\n"
            "1 of them late: headset-2\n"
            "1 RUNNING already, left alone: headset-10\n"
            "Set 2 clients to RUNNING? [y/N] Nothing is done.\n",
        )
        self.assertEqual((ended.status, len(fake.asked)), (1, 1))

    def test_labels_are_the_services_business(self) -> None:
        fake = service()
        fake.run("kick", "--label", "room:A", "--label", "kind:kiosk", "--yes")
        target, _ = fake.asked[0]
        self.assertEqual(
            target, "GET /clients?limit=1000&label=room%3AA&label=kind%3Akiosk"
        )

    def test_many_ids_are_looked_up_in_one_list(self) -> None:
        crowd = [client(f"{number}") for number in range(20)]
        fake = service({"GET /clients": listing(crowd)})
        ids = [f"{number}" for number in range(1, 21)]
        ended = fake.run("kick", *ids, "--yes")
        targets = [target for target, _ in fake.asked]
        looked_up = ["GET /clients?limit=1000", "GET /clients/20"]
        self.assertEqual(targets, [*looked_up, "POST /clients/kick"])
        self.assertEqual(fake.asked[-1][1]["clientIDs"], ids[:-1])
        self.assertEqual(ended.status, 1)

    def test_many_are_steered_in_batches(self) -> None:
        crowd = [client(f"{number}") for number in range(2100)]
        fake = service({"GET /clients": listing(crowd)})
        ended = fake.run("kick", "--all", "--yes")
        sizes = [len(body["clientIDs"]) for _, body in fake.asked[1:]]
        self.assertEqual(sizes, [1000, 1000, 100])
        self.assertEqual((ended.status, ended.out), (0, "2,100 clients kicked\n"))

    def test_who_is_not_here_is_locked_out_all_the_same(self) -> None:
        fake = service()
        words = ("lockout", "--seconds", "1h30m", "headset-1", "nobody", "--yes")
        ended = fake.run(*words)
        body = fake.asked[-1][1]
        self.assertEqual(body["clientIDs"], ["headset-1", "nobody"])
        self.assertEqual(body["expected"], {"headset-1": [7, 3]})
        self.assertEqual((ended.status, body["seconds"]), (0, 5400))

    def test_all_to_let_in_again_are_those_who_are_kept_out(self) -> None:
        kept_out = {"lockouts": [{"clientID": "x", "seconds": 9, "by": None}]}
        fake = service({"GET /lockouts": kept_out})
        ended = fake.run("lockout", "--seconds", "0", "--all", "--yes")
        body = fake.asked[-1][1]
        self.assertEqual(body, {"seconds": 0, "clientIDs": ["x"]})
        self.assertEqual((ended.status, ended.out), (0, "x let in again\n"))
        ended = fake.run("lockout", "--seconds", "0", "y", "--yes")
        self.assertEqual((ended.status, ended.err), (1, "y isn't kept out\n"))

    def test_silence_is_taken_back_from_those_who_have_it(self) -> None:
        clients = [client("1", silentSeconds=20.0), client("2")]
        fake = service({"GET /clients": listing(clients)})
        fake.run("silence", "--seconds", "0", "--all", "--yes")
        self.assertEqual(fake.asked[-1][1]["clientIDs"], ["1"])


class TestRefusals(SynchronousTestCase):
    def test_who_has_gone_since_is_told_with_when_and_how(self) -> None:
        gone = {
            "clientID": "headset-2",
            "reason": "timebomb",
            "endedAt": "2026-11-27T20:00:09.000Z",
        }

        def listed(request: httpx.Request) -> dict[str, Any]:
            if "gone" in request.url.params:
                return listing([gone])
            return listing([client("headset-1"), client("headset-2"), client("3")])

        answers = [
            {"clientID": "headset-1"},
            {"clientID": "headset-2", "code": "STALE_SEQUENCE", "detail": "x"},
            {"clientID": "3", "code": "STALE_SEQUENCE", "detail": "x"},
        ]
        fake = service(
            {"GET /clients": listed, "POST /clients/kick": {"clients": answers}}
        )
        ended = fake.run("kick", "--all", "--yes")
        self.assertEqual(ended.status, 1)
        self.assertRegex(
            ended.err,
            r"^headset-2 isn't here any more: lost, no beat in its time at .*\d\d:09\n"
            r"3 left alone: it has changed since you were asked\n$",
        )
        self.assertEqual(ended.out, "headset-1 kicked\n1 of 3 clients kicked\n")
        self.assertEqual(
            fake.run("kick", "--all", "--yes", "--json").json(), {"clients": answers}
        )

    def test_what_was_done_is_told_though_nobody_says_who_has_gone(self) -> None:
        def listed(request: httpx.Request) -> Any:
            if "gone" in request.url.params:
                return problem(503, "OVERLOADED", "too many listings")
            return listing([client("1"), client("2")])

        answers = [{"clientID": "1"}, {"clientID": "2", "code": "STALE_SEQUENCE"}]
        fake = service(
            {"GET /clients": listed, "POST /clients/kick": {"clients": answers}}
        )
        ended = fake.run("kick", "--all", "--yes")
        self.assertEqual(ended.out.splitlines()[0], "1 kicked")
        self.assertEqual(
            ended.err, "2 left alone: it has changed since you were asked\n"
        )

    def test_who_is_not_here_is_told_and_the_others_are_steered(self) -> None:
        detail = "headset-9 is not here: it was kicked"
        fake = service(
            {"GET /clients/headset-9": lambda _: problem(404, "UNKNOWN_CLIENT", detail)}
        )
        ended = fake.run("kick", "headset-9", "headset-1", "--yes")
        self.assertEqual(fake.asked[-1][1]["clientIDs"], ["headset-1"])
        self.assertEqual(ended.status, 1)
        self.assertEqual(ended.err, f"{detail}\n")

    def test_nobody_left_is_done_if_all_is_so_already_else_not_found(self) -> None:
        for words, status in (
            (("set", "RUNNING", "headset-10"), 0),
            (("set", "CALIBRATED", "headset-10", "--from", "UNCALIBRATED"), 1),
            (("kick", "nobody"), 1),
        ):
            fake = service()
            self.assertEqual(fake.run(*words, "--yes").status, status, words)
            self.assertNotIn("PUT", fake.asked[-1][0])
        nobody = service({"GET /clients": listing([])})
        self.assertEqual(nobody.run("kick", "--all", "--yes").status, 1)

    def test_what_is_known_is_told_when_the_server_goes_away(self) -> None:
        crowd = [client(f"{number}") for number in range(2001)]
        answers = iter((obeys, httpx.ReadTimeout("timed out")))

        def kicks(request: httpx.Request) -> Any:
            answer = next(answers)
            if isinstance(answer, Exception):
                raise answer
            return answer(request)

        fake = service({"GET /clients": listing(crowd), "POST /clients/kick": kicks})
        ended = fake.run("kick", "--all", "--yes", "--json")
        codes = [each.get("code") for each in ended.json()["clients"]]
        unknown, unsent = ["NO_ANSWER"] * 1000, ["NOT_SENT"]
        self.assertEqual(codes, [None] * 1000 + unknown + unsent)
        self.assertEqual(ended.status, 3)

    def test_each_way_to_end_has_its_status_and_a_sentence(self) -> None:
        wants = "this route wants a token"
        for answer, status, said in (
            (lambda _: problem(401, "UNAUTHORIZED", wants), 1, "--token-file FILE"),
            (lambda _: problem(503, "OVERLOADED", "it stops"), 1, "it stops"),
            (httpx.ConnectError("refused"), 3, "no answer from http://127.0.0.1"),
            (lambda _: httpx.Response(200, text="<html>"), 3, "no answer of a heart"),
            (lambda _: httpx.Response(502, text="Bad gateway"), 3, "502"),
            ({"else": []}, 3, "is not a heartbeat service's"),
        ):
            fake = service({"GET /clients": answer})
            ended = fake.run("list", "--json")
            self.assertEqual((ended.status, ended.out), (status, ""))
            self.assertIn(said, ended.err)
            self.assertNotIn("Traceback", ended.err)

    def test_a_wrong_token_is_told_by_its_file(self) -> None:
        file = folder_for(self) / "token"
        file.write_text("this-is-a-token-1 Ada\nanother-token-2222 Bob\n")
        seen = []

        def refuses(request: httpx.Request) -> httpx.Response:
            seen.append(request.headers["Authorization"])
            return problem(401, "UNAUTHORIZED", "no good token")

        fake = service({"GET /clients": refuses})
        ended = fake.run("list", HEARTBEAT_TOKEN_FILE=str(file))
        self.assertEqual(seen, ["Bearer this-is-a-token-1"])
        self.assertIn(f"{file} (HEARTBEAT_TOKEN_FILE)", ended.err)
        self.assertNotIn("this-is", ended.out + ended.err)


class TestShowing(SynchronousTestCase):
    def test_all_pages_are_listed_in_natural_order(self) -> None:
        pages = iter(
            (
                listing([client("headset-10"), client("headset-9")], next=7),
                listing([client("a", late=True, labels={"room": "A"})], asOf="r-9"),
            )
        )
        fake = service({"GET /clients": lambda _: next(pages)})
        ended = fake.run("list", "--state", "running", "--late")
        self.assertEqual(
            [target for target, _ in fake.asked],
            [
                "GET /clients?limit=1000&state=RUNNING&late=true",
                "GET /clients?limit=1000&after=7&state=RUNNING&late=true",
            ],
        )
        lines = [line.split("  ") for line in ended.out.splitlines()]
        self.assertEqual(
            [line[0] for line in lines], ["CLIENT", "a", "headset-9", "headset-10"]
        )
        self.assertIn("late, no beat for 1 s", ended.out)
        self.assertIn("room:A", ended.out)

    def test_json_is_all_pages_and_the_first_ones_id(self) -> None:
        pages = iter(
            (listing([client("1")], next=7), listing([client("2")], asOf="r-9"))
        )
        fake = service({"GET /clients": lambda _: next(pages)})
        answer = fake.run("list", "--json").json()
        self.assertEqual([one["clientID"] for one in answer["clients"]], ["1", "2"])
        self.assertEqual(answer["asOf"], "r-0")

    def test_what_no_node_says_of_a_life_is_a_question_mark(self) -> None:
        life = {
            **client("1"),
            "endedAt": None,
            "reason": None,
            "lastState": "RUNNING",
            "beats": None,
            "longestGapSeconds": None,
        }
        fake = service({"GET /clients/1/history": {"lives": [life]}})
        ended = fake.run("history", "1")
        self.assertEqual(ended.status, 0)
        self.assertEqual(ended.out.split()[-3:-1], ["?", "?"])

    def test_nothing_that_a_client_sends_steers_the_terminal(self) -> None:
        bad = "\x1b[31m\u202e\x07"
        life = {
            **client("1"),
            "endedAt": "2026-11-27T20:00:09.000Z",
            "reason": bad,
            "by": bad,
            "lastState": "RUNNING",
            "beats": 1,
            "longestGapSeconds": 1,
        }
        fake = service(
            {
                "GET /clients": listing([{**life, "labels": {bad: bad}}]),
                "GET /clients/1/history": {"lives": [life]},
                "GET /clients/2": lambda _: problem(404, "UNKNOWN_CLIENT", bad),
            }
        )
        for words in (
            ("list",),
            ("gone",),
            ("history", "1"),
            ("kick", "2", "--yes"),
            ("list", "--json"),
        ):
            ended = fake.run(*words)
            for line in (ended.out + ended.err).splitlines():
                self.assertTrue(line.isprintable(), (words, line))
            self.assertIn("x1b" if "--json" not in words else "u001b", str(ended))
        on_screen = fake.run("list", on_screen=True, TERM="xterm", COLUMNS="200")
        self.assertIn("\x1b[", on_screen.out)  # its own colours
        self.assertNotIn("\x1b[31m\u202e", on_screen.out)

    def test_events_are_lines_until_the_service_says_no(self) -> None:
        events: tuple[tuple[str, dict[str, Any]], ...] = (
            ("Reset", {"run": "r", "serverTime": NOW}),
            ("Store", {"trouble": "disk full"}),
            ("Recovered", {"clientID": "1", "incarnation": 7}),
            ("Recovered", {"clientID": "2", "incarnation": 7}),
        )
        self.patch(stream_module, "RETRIES", (0,))
        for words, said in (((), [0, 1, 2, 3]), (("--id", "2"), [0, 3])):
            answers = iter((stream(*events), problem(401, "UNAUTHORIZED", "no")))
            fake = service({"GET /events": lambda _, left=answers: next(left)})
            ended = fake.run("events", "--json", *words)
            self.assertEqual(ended.status, 1)
            self.assertEqual(
                [json.loads(line) for line in ended.out.splitlines()],
                [{"event": events[n][0], "id": f"r-{n}", **events[n][1]} for n in said],
            )

    def test_status_is_well_or_says_what_is_not(self) -> None:
        well = {
            "alive": 3,
            "states": {"RUNNING": 1, "CALIBRATED": 2},
            **dict.fromkeys(("late", "held", "flapping", "silent"), 0),
            "goneLastHour": 2,
            "lostLastHour": 1,
            "store": None,
            "startedAt": "2026-11-27T19:00:10.000Z",
            "serverTime": "2026-11-27T20:00:10.000Z",
        }
        nobody: dict[str, Any] = {
            "hold": None,
            "held": [],
            "since": None,
            "secondsLeft": None,
        }
        hold = {"hold": "h", "held": ["1"], "since": "x", "secondsLeft": 5.0}
        for summary, loss, wrong in (
            (well, nobody, []),
            ({**well, "late": 2, "flapping": 1}, nobody, ["2 late", "1 flapping"]),
            ({**well, "store": "disk full"}, nobody, ["the store: disk full"]),
            ({**well, "held": 1}, hold, ["mass loss", "1 held"]),
        ):
            fake = service(
                {
                    "GET /readyz": {},
                    "GET /summary": summary,
                    "GET /mass-loss": loss,
                }
            )
            ended = fake.run("status", "--json")
            self.assertEqual(ended.json()["wrong"], wrong)
            self.assertEqual(ended.status, 1 if wrong else 0)
            shown = fake.run("status")
            self.assertEqual(shown.status, ended.status)
            verdict = f"Not well: {', '.join(wrong)}" if wrong else "All well"
            self.assertEqual(shown.out.splitlines()[0], verdict)
        away = service({"GET /readyz": httpx.ConnectError("refused")})
        self.assertEqual(away.run("status").status, 3)

    def test_a_service_that_is_not_ready_is_not_well(self) -> None:
        def stopped(_: httpx.Request) -> httpx.Response:
            return problem(503, "OVERLOADED", "the disk is full")

        fake = service(
            {
                "GET /readyz": stopped,
                "GET /summary": stopped,
                "GET /mass-loss": stopped,
            }
        )
        ended = fake.run("status")
        self.assertEqual(ended.status, 1)
        self.assertEqual(ended.out, "Not well: not ready: the disk is full\n")

    def test_ids_are_completed(self) -> None:
        fake = service()
        ended = fake.run(
            _HEARTBEATCTL_COMPLETE="bash_complete",
            COMP_WORDS="heartbeatctl kick headset-",
            COMP_CWORD="2",
        )
        self.assertEqual(fake.asked[0][0], "GET /clients?limit=100&prefix=headset-")
        self.assertIn("plain,headset-10\n", ended.out)


def node(name: str, clients: int, here: bool = False) -> dict[str, Any]:
    """A node's record."""
    return {
        "node": name,
        "clients": clients,
        "http": f"{name}.local:6969",
        "requestEndpoint": f"tcp://{name}.local:8765",
        "stateChangeEndpoint": f"tcp://{name}.local:4321",
        "since": NOW,
        "self": here,
    }


def cluster(**answers: Any) -> FakeService:
    """Three nodes, of which b can be emptied."""
    nodes = [node("a", 1200, here=True), node("b", 9), node("c", 0)]
    return FakeService(
        {
            "GET /nodes": {"nodes": nodes},
            "POST /nodes/b/drain": lambda _: httpx.Response(204),
            **answers,
        }
    )


class TestNodes(SynchronousTestCase):
    def test_nodes_are_shown_with_the_one_that_answers(self) -> None:
        ended = cluster().run("nodes")
        head, *rows = [line.split() for line in ended.out.splitlines()]
        self.assertEqual(head, ["NODE", "CLIENTS", "HTTP", "SINCE", "ANSWERS"])
        self.assertEqual(rows[0][:3], ["a", "1,200", "a.local:6969"])
        self.assertEqual([row[-1] == "yes" for row in rows], [True, False, False])
        fake = cluster()
        asked = fake.run("nodes", "--json")
        self.assertEqual(asked.json(), fake.answers["GET /nodes"])

    def test_whoever_empties_a_node_is_asked_first(self) -> None:
        fake = cluster()
        ended = fake.run("drain", "b", typed="n\n")
        self.assertEqual(
            ended.err,
            "9 clients at b, to go to a, c\nEmpty b? [y/N] Nothing is done.\n",
        )
        self.assertEqual((ended.status, len(fake.asked)), (1, 1))
        ended = fake.run("drain", "b", typed="y\n")
        self.assertEqual(fake.asked[-1], ("POST /nodes/b/drain", None))
        self.assertEqual(ended.out, "b is empty: it can be stopped\n")
        self.assertEqual(ended.status, 0)

    def test_without_a_terminal_a_node_is_emptied_only_if_that_is_said(self) -> None:
        fake = cluster()
        ended = fake.run("drain", "b")
        self.assertEqual((ended.status, fake.asked), (2, []))
        ended = fake.run("drain", "b", "--yes", "--json")
        self.assertEqual(ended.json(), {"node": "b", "drained": True})

    def test_why_a_node_cannot_be_emptied_the_service_says(self) -> None:
        no = problem(409, "ILLEGAL_TRANSITION", "a is the only node")
        alone = FakeService(
            {
                "GET /nodes": {"nodes": [node("a", 3)]},
                "POST /nodes/a/drain": lambda _: no,
            }
        )
        ended = alone.run("drain", "a", typed="")
        self.assertEqual((ended.status, ended.err), (1, "a is the only node\n"))
        ended = cluster().run("drain", "x/y", "--yes")
        self.assertEqual((ended.status, ended.out), (1, ""))

    def test_nodes_are_completed(self) -> None:
        ended = cluster().run(
            _HEARTBEATCTL_COMPLETE="bash_complete",
            COMP_WORDS="heartbeatctl drain ",
            COMP_CWORD="2",
        )
        told = [line.partition(",")[2] for line in ended.out.splitlines()]
        self.assertEqual(told, ["a", "b", "c"])

    def test_what_nobody_knows_of_a_client_is_shown_as_such(self) -> None:
        elsewhere = client(
            "headset-1",
            values=None,
            secondsSinceHeartbeat=None,
            secondsToTimebomb=None,
        )
        ended = service({"GET /clients": listing([elsewhere])}).run("list")
        self.assertEqual(
            ended.out.splitlines()[1].split()[:3], ["headset-1", "RUNNING", "?"]
        )
