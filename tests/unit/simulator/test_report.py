"""The report of a fleet, for people and for machines."""

from __future__ import annotations

import json
from collections import Counter

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from heartbeat_service.simulator.plan import Mishap, Plan
from heartbeat_service.simulator.referee import Referee
from heartbeat_service.simulator.report import as_json, as_text, figures


class TestReport(SynchronousTestCase):
    """Of what a referee has counted."""

    def setUp(self) -> None:
        """A referee that has watched for ten seconds."""
        clock = Clock()
        self.referee = Referee(clock)
        clock.advance(10)

    def told(self) -> dict[str, object]:
        """Its figures."""
        return figures(Plan(clients=1000), self.referee, Counter({Mishap.CRASH: 3}))

    def test_it_is_json_that_says_the_same(self) -> None:
        self.referee.beats = 50
        told = self.told()
        self.assertEqual(json.loads(as_json(told)), told)
        self.assertEqual((told["seconds"], told["beatsPerSecond"]), (10.0, 5.0))
        self.assertEqual(told["kept"], True)

    def test_a_fleet_that_heard_nothing_has_no_times(self) -> None:
        text = as_text(self.told())
        self.assertIn("pushes took  none", text)
        self.assertIn("1,000, seed 1", text)
        self.assertIn("3 crash", text)
        self.assertTrue(text.endswith("No promise was broken."), text)

    def test_times_are_told_by_their_median_and_their_99_per_cent(self) -> None:
        self.referee.push_times.extend(each / 1000 for each in range(101))
        self.assertEqual(self.told()["pushMilliseconds"], {"p50": 50.0, "p99": 99.0})

    def test_a_broken_promise_is_named_and_is_the_last_word(self) -> None:
        self.referee.false_deaths = 1
        self.referee.broken.append("9.000 s: C died")
        text = as_text(self.told())
        self.assertIn("BROKEN  9.000 s: C died", text)
        self.assertTrue(text.endswith("A promise was broken."), text)
