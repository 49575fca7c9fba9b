"""Planned silence: an operator grants a client a pause (contract, section 2)."""

from __future__ import annotations

from itertools import count

from heartbeat_service.core.changes import SilenceEnd, Snapshot
from heartbeat_service.core.errors import (
    IllegalTransition,
    InstanceSuperseded,
    Overloaded,
    StaleSequence,
    UnknownClient,
)
from heartbeat_service.core.heartbeat import Stage
from heartbeat_service.core.notices import Silence
from heartbeat_service.core.terms import Terms
from tests.unit.core.cases import (
    DISCONNECTED,
    FUSE,
    LATE,
    NOON,
    RUNNING,
    UNCALIBRATED,
    RegistryTestCase,
)

DAY = 86_400.0


def over(reason: SilenceEnd, by: str | None = None) -> Silence:
    """What is told when the silence of client 1 in its first life is over."""
    return Silence(client_id="1", incarnation=101, seconds=0.0, reason=reason, by=by)


class SilenceTestCase(RegistryTestCase):
    def silence(self, seconds: float = 300.0) -> None:
        """Register client 1, and grant it a silence."""
        self.registry.beat("1", DISCONNECTED, "a")
        self.registry.silence("1", seconds)
        self.assertIs(self.stage(), Stage.SILENT)
        self.notices.clear()
        self.log.clear()


class TestGranting(SilenceTestCase):
    def test_the_timebomb_is_set_to_that_many_seconds_from_now(self) -> None:
        self.registry.beat("1", DISCONNECTED)
        self.clock.advance(1.0)
        client = self.registry.silence("1", 300.0, by="ada")
        self.assertEqual(self.due(), [301.0])
        self.assertEqual(client.silent_until, NOON + 301.0)
        self.assertEqual(
            self.notices,
            [Silence(client_id="1", incarnation=101, seconds=300.0, by="ada")],
        )
        self.assert_dies_in(300.0)

    def test_operators_are_told_just_what_was_granted_though_time_goes_on(self) -> None:
        self.registry.beat("1", DISCONNECTED)
        ticks = count(1)
        self.patch(self.clock, "seconds", lambda: next(ticks) / 1024)
        self.registry.silence("1", 300.0)
        self.assertEqual(self.notices, [self.granted(300.0)])

    def test_it_is_set_at_least_to_what_was_left(self) -> None:
        self.registry.beat("1", DISCONNECTED)
        self.clock.advance(1.0)
        self.registry.silence("1", 2.0)
        self.assertEqual(self.notices[-1], self.granted(FUSE - 1.0))
        self.assert_dies_in(FUSE - 1.0)

    def granted(self, seconds: float) -> Silence:
        """What is told of a silence of so many seconds."""
        return Silence(client_id="1", incarnation=101, seconds=seconds)

    def test_it_is_set_at_most_to_one_day(self) -> None:
        self.silence(10 * DAY)
        self.assert_dies_in(DAY)

    def test_it_is_not_late_meanwhile(self) -> None:
        self.silence()
        self.clock.advance(299.0)
        self.assertIs(self.stage(), Stage.SILENT)
        self.assertEqual(self.notices, [])

    def test_who_was_late_is_not_late_any_more(self) -> None:
        self.registry.beat("1", DISCONNECTED)
        self.clock.advance(LATE)
        self.assertIs(self.stage(), Stage.LATE)
        self.registry.silence("1", 1.0)
        self.assertIs(self.stage(), Stage.SILENT)
        self.assert_dies_in(FUSE - LATE)

    def test_a_second_one_does_not_shorten_the_first(self) -> None:
        self.silence(300.0)
        self.clock.advance(100.0)
        self.registry.silence("1", 50.0)
        self.assertEqual(self.seconds_left(), 200.0)
        self.registry.silence("1", 500.0)
        self.assertEqual(self.seconds_left(), 500.0)
        self.assertEqual(self.notices, [self.granted(200.0), self.granted(500.0)])

    def test_it_is_no_change_and_is_kept_before_it_is_answered(self) -> None:
        self.in_state(RUNNING)
        client = self.registry.silence("1", 300.0)
        self.assertEqual(self.changes, [])
        self.assertEqual(self.snapshots, [client.snapshot(ordered=True)])
        self.assertTrue(self.snapshots[0].holds_answers_up)
        self.assertEqual(self.log[-2:], ["Snapshot 1", "Silence 1"])
        self.assertEqual((client.state, client.sequence), (RUNNING, 2))

    def test_what_cannot_be_kept_is_not_granted(self) -> None:
        self.registry.beat("1", DISCONNECTED)

        def refuse() -> None:
            raise Overloaded("the disk is full", "1")

        self.registry.admit = refuse
        self.assert_refused(Overloaded, self.registry.silence, "1", 300.0)
        self.assert_dies_in(FUSE)

    def test_its_terms_must_hold(self) -> None:
        self.assert_refused(UnknownClient, self.registry.silence, "1", 300.0)
        self.in_state(RUNNING)
        elsewhere = Terms(states=[UNCALIBRATED])
        self.assert_refused(
            IllegalTransition, self.registry.silence, "1", 300.0, elsewhere
        )
        gone_on = Terms(expected=(101, 1))
        self.assert_refused(StaleSequence, self.registry.silence, "1", 300.0, gone_on)
        self.assertIs(self.stage(), Stage.PUNCTUAL)

    def test_a_dry_run_changes_nothing(self) -> None:
        self.registry.beat("1", DISCONNECTED)
        before = list(self.log)
        self.registry.silence("1", 300.0, Terms(dry_run=True))
        self.assertEqual((self.stage(), self.log), (Stage.PUNCTUAL, before))
        self.assert_dies_in(FUSE)


class TestEnding(SilenceTestCase):
    def test_the_first_beat_ends_it(self) -> None:
        self.silence()
        self.clock.advance(200.0)
        client = self.registry.beat("1", DISCONNECTED)
        self.assertIs(self.stage(), Stage.PUNCTUAL)
        self.assertEqual(self.notices, [over(SilenceEnd.BEAT)])
        self.assertEqual(self.snapshots[-1], client.snapshot())
        self.assertEqual(self.log, ["Snapshot 1", "Silence 1"])
        self.assert_dies_in(FUSE)

    def test_no_other_message_ends_it(self) -> None:
        self.silence()
        self.registry.get("1")
        self.registry.set_state("1", UNCALIBRATED)
        self.registry.steer("1", RUNNING)
        self.assertIs(self.stage(), Stage.SILENT)
        self.assertEqual(self.notices, [])

    def test_a_beat_of_a_former_process_does_not_end_it(self) -> None:
        self.registry.beat("1", DISCONNECTED, "z")
        self.silence()
        self.assert_refused(
            InstanceSuperseded, self.registry.beat, "1", UNCALIBRATED, "z"
        )
        self.assertIs(self.stage(), Stage.SILENT)

    def test_a_beat_with_another_fuse_burns_that_one(self) -> None:
        for fuse in (1.0, 60.0):
            self.silence()
            self.registry.beat("1", DISCONNECTED, fuse=fuse)
            self.assertIs(self.stage(), Stage.PUNCTUAL)
            self.assertEqual(self.snapshots[-1].fuse, fuse)
            self.assertEqual(self.seconds_left(), fuse)

    def test_a_new_life_ends_it_and_is_told_first(self) -> None:
        self.silence()
        self.registry.beat("1", DISCONNECTED, "b")
        self.assertEqual(self.notices, [over(SilenceEnd.BEAT)])
        self.assertEqual(self.log, ["Change 1", "Silence 1"])
        self.assertEqual(self.changes[-1].client.silent_until, 0.0)
        self.assertIs(self.stage(), Stage.PUNCTUAL)

    def test_a_new_life_that_is_refused_ends_it_and_that_is_kept(self) -> None:
        self.silence()

        def refuse() -> None:
            raise Overloaded("the disk is full", "1")

        self.registry.admit = refuse
        self.assertRaises(Overloaded, self.registry.beat, "1", DISCONNECTED, "b")
        self.assertIs(self.stage(), Stage.PUNCTUAL)
        self.assertEqual(self.notices, [over(SilenceEnd.BEAT)])
        self.assertEqual(self.snapshots[-1].silent_until, 0.0)
        self.assert_dies_in(FUSE)

    def test_taken_back_it_leaves_a_full_fuse_from_now(self) -> None:
        self.silence()
        self.clock.advance(200.0)
        self.registry.silence("1", 0, by="ada")
        self.assertIs(self.stage(), Stage.PUNCTUAL)
        self.assertEqual(self.notices, [over(SilenceEnd.OPERATOR, by="ada")])
        self.assertEqual(self.log, ["Snapshot 1", "Silence 1"])
        self.assertTrue(self.snapshots[-1].ordered)
        self.assertEqual(self.due(), [200.0 + LATE])
        self.assert_dies_in(FUSE)

    def test_to_take_back_what_was_not_granted_changes_nothing(self) -> None:
        self.registry.beat("1", DISCONNECTED)
        self.clock.advance(LATE)
        before = list(self.log)
        self.registry.silence("1", 0)
        self.assertEqual((self.stage(), self.log), (Stage.LATE, before))
        self.assert_dies_in(FUSE - LATE)

    def test_with_its_end_the_client_dies_and_that_is_told_first(self) -> None:
        self.silence()
        self.clock.advance(300.0)
        self.assert_dead()
        self.assertEqual(self.log, ["Change 1", "Silence 1"])
        self.assertEqual(self.notices, [over(SilenceEnd.ENDED)])
        ended = self.changes[-1].ended
        assert ended is not None
        self.assertEqual(ended.longest_gap_seconds, 300.0)

    def test_who_leaves_or_is_kicked_is_not_silent_any_more(self) -> None:
        self.silence()
        self.registry.goodbye("1")
        self.assertEqual(self.notices, [over(SilenceEnd.ENDED)])
        self.registry.last_incarnation = 100
        self.silence()
        self.registry.kick("1", by="ada")
        self.assertEqual(self.log, ["Change 1", "Silence 1"])
        self.assertEqual(self.notices, [over(SilenceEnd.OPERATOR, by="ada")])
        self.assertEqual(self.due(), [])

    def test_who_registers_anew_after_it_is_not_silent(self) -> None:
        self.silence()
        self.registry.kick("1")
        self.registry.beat("1", DISCONNECTED)
        self.assertIs(self.stage(), Stage.PUNCTUAL)


class TestOverARestart(SilenceTestCase):
    def test_it_outlives_a_restart(self) -> None:
        self.silence()
        self.clock.advance(100.0)
        self.start_again(downtime=50.0)
        self.assertIs(self.stage(), Stage.SILENT)
        self.assertEqual(self.registry.get("1").silent_until, NOON + 300.0)
        self.assert_dies_in(150.0)

    def test_it_lasts_a_full_fuse_at_least(self) -> None:
        self.silence()
        self.start_again(downtime=299.0)
        self.assertIs(self.stage(), Stage.SILENT)
        self.assert_dies_in(FUSE)

    def test_one_that_has_ended_meanwhile_leaves_a_full_fuse(self) -> None:
        self.silence()
        self.start_again(downtime=300.0)
        self.assertIs(self.stage(), Stage.PUNCTUAL)
        self.assert_dies_in(FUSE)

    def test_one_that_a_beat_has_ended_does_not_come_back(self) -> None:
        self.silence()
        self.registry.beat("1", DISCONNECTED)
        self.start_again()
        self.assertIs(self.stage(), Stage.PUNCTUAL)

    def test_one_that_was_taken_back_does_not_come_back(self) -> None:
        self.silence()
        self.registry.silence("1", 0)
        self.start_again()
        self.assertIs(self.stage(), Stage.PUNCTUAL)

    def test_a_clock_that_was_set_back_makes_it_no_longer_than_a_day(self) -> None:
        self.silence()
        self.set_back = 30 * DAY
        self.start_again()
        self.assert_dies_in(DAY)

    def test_a_client_as_the_store_has_it_is_silent_as_there(self) -> None:
        self.registry.beat("1", DISCONNECTED)
        silent = self.registry.silence("1", 300.0).snapshot()
        awake = self.registry.beat("1", DISCONNECTED).snapshot()
        for record, stage in ((silent, Stage.SILENT), (awake, Stage.PUNCTUAL)):
            self.registry.replace("1", record)
            self.assertIs(self.stage(), stage)
            self.assertEqual(len(self.due()), 1)

    def test_a_stop_keeps_it(self) -> None:
        self.silence()
        list(self.registry.defuse_all())
        kept = self.facts[-1]
        assert isinstance(kept, Snapshot)
        self.assertEqual((kept.silent_until, self.due()), (NOON + 300.0, []))
