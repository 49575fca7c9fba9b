"""Tests of turns and of what is made of their figures."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.trial.unittest import SynchronousTestCase

from bench.scenario import Figures, Scenario, medians, ratio, run, turns


def scenario(contestants: Sequence[str], told: list[tuple[str, bool]]) -> Scenario:
    """One whose figure is how many turns there were before."""

    def measure(name: str, quick: bool) -> Figures:
        told.append((name, quick))
        return {"cpu_us": float(len(told))}

    return Scenario("name", "title", contestants, measure)


class TestRun(SynchronousTestCase):
    def setUp(self) -> None:
        self.told: list[tuple[str, bool]] = []
        self.begun: list[str] = []
        self.ended = 0

    def run_quick(self, quick: bool) -> dict[str, Figures]:
        def end() -> None:
            self.ended += 1

        return run(scenario("ab", self.told), quick, self.begun.append, end)

    def test_contestants_take_turns_for_three_rounds(self) -> None:
        figures = self.run_quick(quick=False)
        self.assertEqual(self.told, [("a", False), ("b", False)] * 3)
        self.assertEqual(figures, {"a": {"cpu_us": 3.0}, "b": {"cpu_us": 4.0}})

    def test_a_quick_run_gives_each_one_turn(self) -> None:
        figures = self.run_quick(quick=True)
        self.assertEqual(self.told, [("a", True), ("b", True)])
        self.assertEqual(figures, {"a": {"cpu_us": 1.0}, "b": {"cpu_us": 2.0}})

    def test_each_turn_is_told_and_counted(self) -> None:
        for quick in (False, True):
            self.begun, self.ended = [], 0
            self.run_quick(quick=quick)
            expected = turns(scenario("ab", []), quick)
            self.assertEqual(self.begun, ["a", "b"] * (expected // 2))
            self.assertEqual(self.ended, expected)


class TestFigures(SynchronousTestCase):
    def test_each_figure_has_its_own_median(self) -> None:
        samples = [
            {"cpu_us": 1.0, "p99_ms": 9.0},
            {"cpu_us": 90.0, "p99_ms": 1.0},
            {"cpu_us": 2.0, "p99_ms": 5.0},
        ]
        self.assertEqual(medians(samples), {"cpu_us": 2.0, "p99_ms": 5.0})

    def test_a_ratio_above_one_means_that_ours_is_more(self) -> None:
        results = {"ours": {"cpu_us": 30.0}, "peer": {"cpu_us": 20.0}}
        self.assertEqual(ratio(results, "cpu_us", "ours", "peer"), 1.5)
