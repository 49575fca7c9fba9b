"""Tests of the verdict on what a beat costs."""

from __future__ import annotations

import json
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

from twisted.trial.unittest import SynchronousTestCase

from bench.check import COMPARISONS, RECORDED, Comparison, main


class TestCheck(SynchronousTestCase):
    def setUp(self) -> None:
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.file = Path(folder.name, "recorded.json")
        self.file.write_text('{"beat": 2.0}')
        self.output = StringIO()

    def status(self, *ratios: float, arguments: tuple[str, ...] = ()) -> int:
        """Of a check that measures these, one after the other."""
        beat = Comparison("A beat", "Peer", iter(ratios).__next__)
        with redirect_stdout(self.output), redirect_stderr(self.output):
            return main(arguments, {"beat": beat}, self.file)

    def test_what_costs_a_quarter_more_passes(self) -> None:
        self.assertEqual(self.status(2.5), 0)
        self.assertIn("A beat costs 2.50 times", self.output.getvalue())
        self.assertIn("plain Peer, 2.00 is recorded", self.output.getvalue())

    def test_what_costs_even_more_fails_and_says_so(self) -> None:
        self.assertEqual(self.status(2.6, 2.7), 1)
        self.assertIn("A beat costs 2.60 times", self.output.getvalue())
        self.assertIn("more than a quarter too much", self.output.getvalue())

    def test_what_looked_dear_once_passes(self) -> None:
        self.assertEqual(self.status(9.0, 2.0), 0)
        self.assertIn("A beat costs 2.00 times", self.output.getvalue())

    def test_the_ratio_is_recorded_where_that_is_asked_for(self) -> None:
        self.assertEqual(self.status(3.126, arguments=("--record",)), 0)
        self.assertEqual(json.loads(self.file.read_text()), {"beat": 3.13})

    def test_each_comparison_is_recorded(self) -> None:
        recorded = json.loads(RECORDED.read_text())
        self.assertEqual(set(recorded), set(COMPARISONS))
        self.assertTrue(all(0 < ratio < 10 for ratio in recorded.values()))
