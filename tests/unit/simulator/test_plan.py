"""The plan of a fleet: what is refused, and that a seed decides everything."""

from __future__ import annotations

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from heartbeat_service.simulator.plan import Mishap, Plan, Transport


class TestPlan(SynchronousTestCase):
    """A plan checks itself, and draws."""

    def test_bad_values_are_refused_in_sentences_that_name_the_option(self) -> None:
        for name, value, why in (
            ("clients", 0, "--clients: expected 1 to 1e+06, got 0"),
            ("seconds", 0.5, "--seconds: expected 1 to 2.6784e+06, got 0.5"),
            ("crash_rate", -1, "--crash-rate: expected 0 to 60, got -1"),
            ("duplicate_rate", float("nan"), "--duplicate-rate: expected 0 to 60"),
            ("lossy", 1, "--lossy: expected 0 to 0.9, got 1"),
            ("skew", 0.6, "--skew: expected 0 to 0.5, got 0.6"),
            ("timebomb", 0.001, "--timebomb: expected "),
        ):
            with self.subTest(name):
                error = self.assertRaises(ValueError, Plan, **{name: value})
                self.assertIn(why, str(error))

    def test_ids_sort_as_their_numbers(self) -> None:
        plan = Plan(clients=100)
        self.assertEqual(plan.client_id(1), "fleet-001")
        self.assertEqual(plan.client_id(100), "fleet-100")

    def test_labels_are_had_in_turn_and_may_hold_the_number(self) -> None:
        plan = Plan(labels={"room": ("a", "b"), "seat": ("s{n}",)})
        self.assertEqual(
            [plan.labels_of(number) for number in (1, 2, 3)],
            [
                {"room": "a", "seat": "s1"},
                {"room": "b", "seat": "s2"},
                {"room": "a", "seat": "s3"},
            ],
        )

    def test_every_second_client_of_a_mixed_fleet_beats_by_zeromq(self) -> None:
        for transport, by_zeromq in (
            (Transport.HTTP, [False, False]),
            (Transport.MIXED, [False, True]),
            (Transport.ZEROMQ, [True, True]),
        ):
            plan = Plan(transport=transport)
            self.assertEqual([plan.by_zeromq(each) for each in (1, 2)], by_zeromq)

    def test_each_client_draws_the_same_in_each_run_and_from_a_source_of_its_own(
        self,
    ) -> None:
        plan = Plan(seed="s")
        drawn = [plan.random(number).random() for number in (1, 2)]
        self.assertEqual(
            [Plan(seed="s").random(each).random() for each in (1, 2)], drawn
        )
        self.assertNotEqual(*drawn)
        self.assertNotEqual(Plan(seed="t").random(1).random(), drawn[0])

    def test_one_more_client_changes_nothing_for_the_others(self) -> None:
        plan = Plan(clients=50, crash_rate=1, pause_rate=1)
        more = evolve(plan, clients=51)
        for number in (1, 50):
            self.assertEqual(
                plan.next_mishap(plan.random(number)),
                more.next_mishap(more.random(number)),
            )

    def test_nothing_befalls_a_client_without_rates(self) -> None:
        plan = Plan()
        self.assertIsNone(plan.next_mishap(plan.random(1)))

    def test_mishaps_are_as_frequent_as_their_rates(self) -> None:
        plan = Plan(crash_rate=3, pause_rate=1)
        random = plan.random(1)
        drawn = [plan.next_mishap(random) for _ in range(2000)]
        mishaps = [one[1] for one in drawn if one is not None]
        seconds = sum(one[0] for one in drawn if one is not None)
        self.assertEqual(set(mishaps), {Mishap.CRASH, Mishap.PAUSE})
        self.assertApproximates(mishaps.count(Mishap.CRASH) / 2000, 0.75, 0.05)
        self.assertApproximates(seconds / 2000, 60 / 4, 1.5)
