"""Tests of how deaths are counted: as early, late or unheard, by a clock of theirs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from types import SimpleNamespace

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from bench import lateness
from bench.lateness import Plan, measure, quantile
from bench.scenario import Figures
from bench.watchers import Death

PLAN = Plan(clients=1000, fuse=10.0, falling=4.0, patience=4.0)

#: It listens less often, in seconds: else the tests would take long.
NAP = 0.008


class FakeWatcher:
    """Tells of each death so many seconds after the fuse's end; less than 0 is early.

    :ivar most: beats that it answers.
    """

    def __init__(self, clock: Clock, delay: float, most: int = 1_000_000) -> None:
        self.server = SimpleNamespace(cpu_seconds=clock.seconds)
        self.answered = 0
        self._clock, self._fuse, self._most = clock, PLAN.fuse + delay, most
        self._alive: dict[int, float] = {}

    def beat(self, clients: Sequence[int]) -> None:
        for client in clients:
            self._alive.pop(client, None)
            self._alive[client] = self._clock.seconds()
        self.answered = min(self.answered + len(clients), self._most)

    def hear(self, seconds: float) -> list[Death]:
        self._clock.advance(seconds)
        now = self._clock.seconds()
        dead = []
        for client, beaten in self._alive.items():  # who beat first comes first
            if beaten + self._fuse > now:
                break
            dead.append((now, client))
        for _, client in dead:
            del self._alive[client]
        return dead


class LatenessTests(SynchronousTestCase):
    def test_a_death_after_the_end_of_its_fuse_is_late(self) -> None:
        figures = self._figures(delay=0.02)
        self.assertEqual(figures["deaths"], 50)
        self.assertEqual(figures["early"], 0)
        self.assertTrue(20 <= figures["p50_ms"] <= 20 + 2 * NAP * 1000, figures)

    def test_a_death_before_that_is_early(self) -> None:
        figures = self._figures(delay=-0.02)
        self.assertEqual(figures["early"], 50)

    def test_the_death_of_one_who_beats_is_early(self) -> None:
        figures = self._figures(delay=-9.0)
        self.assertGreater(figures["early"], 50)

    def test_a_death_that_nobody_hears_of_is_as_late_as_was_waited(self) -> None:
        figures = self._figures(delay=3600.0)
        self.assertEqual(figures["deaths"], 0)
        self.assertGreater(figures["p50_ms"], PLAN.patience * 1000)

    def test_who_leaves_beats_unanswered_gets_half_as_many_clients(self) -> None:
        clock = Clock()
        slow, quick = FakeWatcher(clock, 0.02, most=1500), FakeWatcher(clock, 0.02)
        figures = self._figures_of(clock, [slow, quick])
        self.assertEqual(figures["clients"], PLAN.clients // 2)

    def test_a_quantile_is_one_of_the_values(self) -> None:
        self.assertEqual(quantile(range(1, 101), 0.99), 99)
        self.assertEqual(quantile([7.0], 0.5), 7.0)

    def _figures(self, delay: float) -> Figures:
        clock = Clock()
        return self._figures_of(clock, [FakeWatcher(clock, delay)])

    def _figures_of(self, clock: Clock, watchers: list[FakeWatcher]) -> Figures:
        self.patch(lateness, "time", SimpleNamespace(monotonic=clock.seconds))
        self.patch(lateness, "FULL", PLAN)
        self.patch(lateness, "NAP", NAP)
        waiting = iter(watchers)
        self.patch(
            lateness, "WATCHERS", {"fake": lambda *_: nullcontext(next(waiting))}
        )
        return measure("fake", quick=False)
