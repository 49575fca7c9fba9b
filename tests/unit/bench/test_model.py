"""Tests of the model of many machines: queues on virtual time."""

from __future__ import annotations

from math import inf
from random import Random

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from bench.cluster.model import MEASURED, Flow, Queue, reckon


def chance() -> Random:
    """The same chances for each test."""
    return Random(1)  # noqa: S311 - no secret


class TestReckon(SynchronousTestCase):
    def test_the_same_seed_has_the_same_outcome(self) -> None:
        first, again = (reckon(10, 20_000, seed=7) for _ in range(2))
        self.assertEqual(first.figures, again.figures)
        self.assertNotEqual(first.figures, reckon(10, 20_000, seed=8).figures)

    def test_what_fits_breaks_nothing(self) -> None:
        self.assertEqual(reckon(10, 10_000, seed=1).breaks, [])

    def test_what_is_furthest_from_enough_is_told_first(self) -> None:
        outcome = reckon(1_000, 10_000_000, seed=1)
        first, *_, last = outcome.breaks
        self.assertGreater(outcome.used[first], outcome.used[last])
        self.assertGreater(outcome.used[last], 1)

    def test_nodes_that_have_no_time_for_changes_are_not_let_go_on(self) -> None:
        outcome = reckon(1, 1_000_000, seed=1)
        self.assertIn("node's processor", outcome.breaks)
        self.assertNotIn("p50_ms", outcome.figures)

    def test_one_node_alone_has_nobody_to_take_its_clients(self) -> None:
        self.assertNotIn("moved_s", reckon(1, 1_000, seed=1).figures)

    def test_where_two_nodes_were_the_one_left_is_every_heir(self) -> None:
        self.assertEqual(reckon(2, 1_000, seed=1).figures["moves"], 0)


class TestFlow(SynchronousTestCase):
    def test_a_lone_change_waits_for_each_step_once(self) -> None:
        flow = Flow(1, 10, MEASURED, chance())
        flow.run(until=3_600.0)
        costs = MEASURED
        steps = costs.transaction_ms + costs.change_ms + costs.watch_ms
        self.assertAlmostEqual(
            flow.latency(0.5) * 1e3, steps + costs.own_us / 1e3, places=2
        )

    def test_more_than_etcd_can_commit_waits_longer_and_longer(self) -> None:
        slow = evolve(MEASURED, change_ms=1_000.0)
        latencies = []
        for until in (10.0, 100.0):
            flow = Flow(3, 10_000, slow, chance())
            flow.run(until)
            latencies.append(flow.latency(0.99))
        self.assertGreater(latencies[1], 2 * latencies[0])

    def test_all_moves_are_done(self) -> None:
        flow = Flow(3, 1_000, MEASURED, chance(), moves=500)
        flow.run(until=60.0)
        self.assertGreater(flow.moved_at, 1.9)  # the last of them comes by then
        self.assertLess(flow.moved_at, 3.0)

    def test_moves_that_time_is_too_short_for_have_no_end(self) -> None:
        flow = Flow(3, 1_000, MEASURED, chance(), moves=500)
        flow.run(until=1.0)
        self.assertEqual(flow.moved_at, inf)


class TestQueue(SynchronousTestCase):
    def test_a_transaction_takes_a_hundred_and_the_rest_waits(self) -> None:
        queue = Queue(100.0, 0, chance())
        taken = [len(queue.take(3.0)) for _ in range(2)]
        self.assertEqual(taken, [100, 100])

    def test_nothing_comes_before_its_time(self) -> None:
        queue = Queue(1.0, 10, chance())
        due = queue.due()
        self.assertEqual(len(queue.take(due / 2)), 0)
        self.assertEqual(len(queue.take(due)), 1)

    def test_each_client_moves_once(self) -> None:
        queue = Queue(0.001, 10, chance())
        self.assertEqual([is_move for _, is_move in queue.take(5.0)], [True] * 10)
