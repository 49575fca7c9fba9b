"""Late: a client that has missed two beats (contract, section 2)."""

from __future__ import annotations

from msgspec.structs import replace

from heartbeat_service.core.errors import InstanceSuperseded, Overloaded
from heartbeat_service.core.heartbeat import Stage
from heartbeat_service.core.notices import Late, Recovered, Reported
from heartbeat_service.core.registry import MOST_LIVES_A_SECOND
from tests.unit.core.cases import (
    CALIBRATED,
    DISCONNECTED,
    FUSE,
    HAIR,
    LATE,
    RUNNING,
    UNCALIBRATED,
    RegistryTestCase,
)


class LateTestCase(RegistryTestCase):
    def fall_late(self, client_id: str = "1") -> None:
        """Register a client, and let it be late."""
        self.registry.beat(client_id, DISCONNECTED, "a")
        self.clock.advance(LATE)
        self.assertIs(self.stage(client_id), Stage.LATE)
        self.notices.clear()


class TestFallingLate(LateTestCase):
    def assert_late_after(self, seconds: float) -> None:
        """Client 1, which has just beaten, is late after so long, and not before."""
        self.clock.advance(seconds - HAIR)
        self.assertIs(self.stage(), Stage.PUNCTUAL)
        self.clock.advance(HAIR)
        self.assertIs(self.stage(), Stage.LATE)

    def test_late_when_two_intervals_have_passed_and_not_before(self) -> None:
        for interval, fuse in ((2.0, 10.0), (2.0, 3600.0), (0.5, 10.0), (3.0, 9.0)):
            self.registry = self.new_registry(interval=interval)
            self.registry.beat("1", DISCONNECTED, fuse=fuse)
            self.assert_late_after(2 * interval)

    def test_late_when_three_quarters_of_its_fuse_have_burnt_if_that_is_sooner(
        self,
    ) -> None:
        for fuse in (0.125, 1.0, 2.0, 3.0, 5.0):
            self.registry = self.new_registry()
            self.registry.beat("1", DISCONNECTED, fuse=fuse)
            self.assert_late_after(0.75 * fuse)

    def test_every_beat_puts_it_off(self) -> None:
        self.registry.beat("1", DISCONNECTED)
        for _ in range(5):
            self.clock.advance(LATE - HAIR)
            self.registry.beat("1", DISCONNECTED)
        self.assertEqual(self.notices, [])
        self.assert_late_after(LATE)

    def test_another_fuse_is_late_in_its_own_time(self) -> None:
        for fuse in (3.0, 60.0, 1.0, FUSE):
            self.registry.beat("1", DISCONNECTED, fuse=fuse)
            self.clock.advance(0.5)
            self.registry.beat("1", DISCONNECTED)
            self.assert_late_after(min(LATE, 0.75 * fuse))
            self.assertAlmostEqual(self.seconds_left(), fuse - min(LATE, 0.75 * fuse))

    def test_operators_are_told_at_once(self) -> None:
        self.registry.beat("1", DISCONNECTED)
        self.clock.advance(LATE)
        self.clock.advance(FUSE - LATE)
        self.assertEqual(
            self.notices,
            [
                Late(
                    client_id="1",
                    incarnation=101,
                    seconds_since_heartbeat=LATE,
                    seconds_to_timebomb=FUSE - LATE,
                    timebomb_seconds=FUSE,
                )
            ],
        )

    def test_late_is_no_change_and_nothing_to_keep(self) -> None:
        self.in_state(RUNNING)
        client = self.registry.get("1")
        before, kept = client.snapshot(), list(self.facts)
        self.clock.advance(LATE)
        self.assertEqual((client.snapshot(), self.facts), (before, kept))

    def test_the_fuse_burns_on_as_ever(self) -> None:
        self.fall_late()
        self.assertEqual(self.seconds_left(), FUSE - LATE)
        self.assert_dies_in(FUSE - LATE)
        self.assertEqual(self.registry.mass_loss.late, set())
        self.assertEqual(self.notices, [], "its death says all")

    def test_no_other_message_ends_it(self) -> None:
        self.fall_late()
        self.registry.get("1")
        self.registry.set_state("1", CALIBRATED)
        self.registry.steer("1", RUNNING)
        self.assertIs(self.stage(), Stage.LATE)
        self.assert_dies_in(FUSE - LATE)


class TestRecovering(LateTestCase):
    def assert_recovered(self) -> None:
        """Client 1 is as one that has just beaten, and operators are told so."""
        self.assertIs(self.stage(), Stage.PUNCTUAL)
        recovered = Recovered(client_id="1", incarnation=101)
        self.assertEqual(self.notices, [recovered])

    def test_a_beat_ends_it(self) -> None:
        self.fall_late()
        kept = list(self.facts)
        self.registry.beat("1", DISCONNECTED)
        self.assert_recovered()
        self.assertEqual(self.facts, kept)
        self.assert_dies_in(FUSE)

    def test_it_may_be_late_again_and_again(self) -> None:
        for _ in range(3):
            self.fall_late()
            self.registry.beat("1", DISCONNECTED)
            self.assert_recovered()

    def test_a_beat_with_another_fuse_burns_that_one(self) -> None:
        for fuse in (2.0, 3.0, 60.0):
            self.fall_late()
            self.registry.beat("1", DISCONNECTED, fuse=fuse)
            self.assert_recovered()
            self.assertEqual(self.seconds_left(), fuse)
            self.registry.beat("1", DISCONNECTED, fuse=FUSE)

    def test_what_else_a_beat_brings_is_told_after_it(self) -> None:
        self.fall_late()
        self.registry.beat("1", RUNNING)
        told = [type(notice) for notice in self.notices]
        self.assertEqual(told, [Recovered, Reported])

    def test_a_new_life_ends_it(self) -> None:
        self.fall_late()
        self.registry.beat("1", DISCONNECTED, "b")
        self.assert_recovered()
        self.assertEqual(self.changes[-1].incarnation, 102)

    def test_a_new_life_that_is_refused_ends_it_too(self) -> None:
        self.fall_late()
        for number in range(MOST_LIVES_A_SECOND):
            self.registry.beat("2", DISCONNECTED, f"process {number}")
        self.registry.admit = self.refuse
        self.assertRaises(Overloaded, self.registry.beat, "1", DISCONNECTED, "b")
        self.assert_recovered()
        self.assertEqual(self.seconds_left(), FUSE)

    def refuse(self) -> None:
        """No change can be made."""
        raise Overloaded("the disk is full", "1")

    def test_a_beat_of_a_former_process_does_not_end_it(self) -> None:
        self.registry.beat("1", DISCONNECTED, "z")
        self.fall_late()
        self.assert_refused(
            InstanceSuperseded, self.registry.beat, "1", UNCALIBRATED, "z"
        )
        self.assertIs(self.stage(), Stage.LATE)

    def test_who_leaves_or_is_kicked_is_not_late_any_more(self) -> None:
        for leave in (self.registry.goodbye, self.registry.kick):
            self.fall_late()
            leave("1")
            self.assertEqual(self.registry.mass_loss.late, set())
            self.assertEqual(self.due(), [])
            self.assertEqual(self.notices, [])

    def test_who_is_locked_out_is_not_late_any_more(self) -> None:
        self.fall_late()
        self.registry.lock_out("1", 60)
        self.assertEqual(self.registry.mass_loss.late, set())

    def test_a_client_that_another_node_has_changed_is_as_late_as_before(self) -> None:
        self.fall_late()
        left = self.registry.get("1").heartbeat.seconds_left()
        self.registry.replace("1", self.registry.get("1").snapshot())
        self.assertIs(self.stage(), Stage.LATE)
        self.assert_dies_in(left)

    def test_who_comes_from_another_node_has_not_recovered(self) -> None:
        self.registry.beat("1", DISCONNECTED, "a")
        self.registry.place("1", here=False)
        self.notices.clear()
        self.registry.beat("1", DISCONNECTED, "a")
        self.assertIs(self.stage(), Stage.PUNCTUAL)
        self.assertEqual(self.notices, [])

    def test_another_life_of_a_client_has_a_full_fuse(self) -> None:
        self.fall_late()
        present = self.registry.get("1").snapshot()
        self.registry.replace("1", replace(present, incarnation=2**40))
        self.assertIs(self.stage(), Stage.PUNCTUAL)
        self.assert_dies_in(FUSE)

    def test_who_is_gone_in_the_store_is_not_late_any_more(self) -> None:
        self.fall_late()
        self.registry.replace("1", None)
        self.assertEqual((self.registry.mass_loss.late, self.due()), (set(), []))

    def test_after_a_restart_nobody_is_late(self) -> None:
        self.fall_late()
        self.start_again()
        self.assertIs(self.stage(), Stage.PUNCTUAL)
        self.assert_dies_in(FUSE)
