"""What a fleet is follows from its options, and from its seed."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from heartbeat_service.simulator.plan import Mishap, Plan, Transport


class TestPlan(SynchronousTestCase):
    def test_a_value_that_makes_no_sense_is_told_with_what_is_allowed(self) -> None:
        bad: tuple[tuple[str, Any], ...] = (
            ("clients", 0),
            ("seconds", float("nan")),
            ("crash_rate", -0.1),
            ("lossy", 1.0),
            ("skew", 0.6),
            ("timebomb", 0.0),
        )
        for name, value in bad:
            option = name.replace("_", "-")
            error = self.assertRaises(ValueError, Plan, **{name: value})
            self.assertRegex(str(error), rf"^--{option}: expected \S+ to \S+, got ")

    def test_clients_have_labels_in_turn_and_their_number_where_it_is_asked_for(
        self,
    ) -> None:
        plan = Plan(clients=3, labels={"room": ("A", "B"), "seat": ("s{n}",)})
        self.assertEqual(
            [plan.labels_of(number) for number in (1, 2, 3)],
            [
                {"room": "A", "seat": "s1"},
                {"room": "B", "seat": "s2"},
                {"room": "A", "seat": "s3"},
            ],
        )

    def test_their_ids_are_in_order_also_as_words(self) -> None:
        plan = Plan(clients=100)
        names = [plan.client_id(number) for number in range(1, 101)]
        self.assertEqual(names, sorted(set(names)))

    def test_every_second_client_of_a_mixed_fleet_beats_by_zeromq(self) -> None:
        plan = Plan(transport=Transport.MIXED)
        ways = [plan.by_zeromq(number) for number in (1, 2, 3, 4)]
        self.assertEqual(ways, [False, True, False, True])

    def test_what_befalls_a_client_depends_on_the_seed_and_on_nobody_else(self) -> None:
        def fate(plan: Plan) -> list[object]:
            source = plan.random(7)
            return [plan.next_mishap(source) for _ in range(20)]

        rates: dict[str, Any] = {"crash_rate": 0.1, "pause_rate": 0.2}
        first = fate(Plan(seed="a", **rates))
        self.assertEqual(fate(Plan(seed="a", clients=9, **rates)), first)
        self.assertNotEqual(fate(Plan(seed="b", **rates)), first)

    def test_what_has_no_rate_never_happens(self) -> None:
        plan = Plan(pause_rate=0.5)
        source = plan.random(1)
        befallen = [plan.next_mishap(source) for _ in range(100)]
        self.assertEqual({one[1] for one in befallen if one}, {Mishap.PAUSE})
        self.assertIsNone(Plan().next_mishap(source))
