"""What the query of an operator's request may say, and what is told of a slip in it."""

from __future__ import annotations

import math

from twisted.trial.unittest import SynchronousTestCase

from heartbeat_service.core.errors import BadMessage
from heartbeat_service.web.query import (
    Kind,
    Parameter,
    Parameters,
    decimal,
    label,
    one_of,
    read_query,
    whole_number,
)

PARAMETERS: Parameters = {
    "limit": Parameter(whole_number(1, 10_000), ""),
    "state": Parameter(one_of({"RUNNING": 3, "DISCONNECTED": 0}), ""),
    "prefix": Parameter(Kind(str, {}), ""),
    "since": Parameter(decimal, ""),
}
LABELS: Parameters = {"label": Parameter(label, "", repeated=True)}


class TestQuery(SynchronousTestCase):
    def test_each_parameter_is_read_as_its_kind(self) -> None:
        for query, read in (
            ("", {}),
            ("?", {}),
            ("?limit=10000", {"limit": 10_000}),
            ("?state=DISCONNECTED&limit=1", {"state": 0, "limit": 1}),
            ("?prefix=", {"prefix": ""}),
            ("?prefix=a%3Ab%20", {"prefix": "a:b "}),
            ("?%6cimit=%31", {"limit": 1}),
            ("?since=0", {"since": 0.0}),
            ("?since=0.5", {"since": 0.5}),
            (f"?since={'9' * 400}", {"since": math.inf}),
        ):
            with self.subTest(query=query):
                target = f"/clients{query}".encode()
                self.assertEqual(read_query(target, PARAMETERS), read)

    def test_a_slip_is_told_with_what_is_allowed(self) -> None:
        pairs = "Expected `?NAME=VALUE&NAME=VALUE…` in UTF-8"
        known = "expected `limit`, `state`, `prefix`, `since`"
        number = "Expected a whole number from 1 to 10000, got "
        decimals = "Expected a number from 0 on, as 600 or 0.5, got "
        states = "Expected one of RUNNING, DISCONNECTED, got "
        for query, detail in (
            (b"limits=1", f"Unknown parameter `limits`; {known}"),
            (b"Limit=1", f"Unknown parameter `Limit`; {known}"),
            (b"=1", f"Unknown parameter ``; {known}"),
            (b"limit=1&limit=1", "The parameter `limit` is given twice"),
            (b"limit=0", f"{number}'0' - at the parameter `limit`"),
            (b"limit=10001", f"{number}'10001' - at the parameter `limit`"),
            (b"limit=-1", f"{number}'-1' - at the parameter `limit`"),
            (b"limit=1_0", f"{number}'1_0' - at the parameter `limit`"),
            (b"limit=+1", f"{number}' 1' - at the parameter `limit`"),
            (b"limit=%D9%A1", f"{number}'\u0661' - at the parameter `limit`"),
            (b"limit=", f"{number}'' - at the parameter `limit`"),
            (b"limit=" + b"9" * 5000, f"{number}'{'9' * 64}' - at the parameter"),
            *(
                (f"since={bad}".encode(), f"{decimals}{bad!r} - at the parameter")
                for bad in ("", "-1", ".5", "5.", "1e3", "1_0", "inf", "nan", "٣")
            ),
            (b"state=Running", f"{states}'Running' - at the parameter `state`"),
            (b"limit", pairs),
            (b"limit=1&", pairs),
            (b"&", pairs),
            (b"prefix=\xff", pairs),
            (b"prefix=%FF", pairs),
            (
                b"limit=1;state=RUNNING",
                f"{number}'1;state=RUNNING' - at the parameter ",
            ),
        ):
            with self.subTest(query=query):
                error = self.assertRaises(
                    BadMessage, read_query, b"/clients?" + query, PARAMETERS
                )
                self.assertIn(detail, error.detail)

    def test_a_route_without_parameters_says_so(self) -> None:
        error = self.assertRaises(BadMessage, read_query, b"/?limit=1", {})
        self.assertEqual(error.detail, "Unknown parameter `limit`; this route has none")

    def test_a_parameter_that_may_be_repeated_is_read_as_often(self) -> None:
        for query, read in (
            (b"", {}),
            (b"?label=a:b", {"label": ([("a", "b")],)}),
            (b"?label=a:b&label=c:d", {"label": ([("a", "b")], [("c", "d")])}),
        ):
            self.assertEqual(read_query(b"/clients" + query, LABELS), read)

    def test_a_label_is_read_as_all_that_its_colons_can_mean(self) -> None:
        longest = "x" * 64
        for text, labels in (
            ("room:a", [("room", "a")]),
            ("x:y:z", [("x", "y:z"), ("x:y", "z")]),
            ("::", []),
            (":::", [(":", ":")]),
            ("a:", []),
            (":a", []),
            (f"{longest}:{longest}", [(longest, longest)]),
            (f"x{longest}:a", []),
            (f"a:x{longest}", []),
            (f"a:b:{longest}", [("a:b", longest)]),
            ("a b:c", []),
            ("a:b\n", []),
            ("room", []),
        ):
            with self.subTest(text=text):
                if labels:
                    self.assertEqual(label.read(text), labels)
                else:
                    error = self.assertRaises(ValueError, label.read, text)
                    self.assertIn("Expected NAME:VALUE, each 1 to 64", str(error))
