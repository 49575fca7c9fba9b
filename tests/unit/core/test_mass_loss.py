"""Mass loss: when so many are late at once, nobody dies of it (contract, section 2)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from msgspec.structs import replace

from heartbeat_service.core.changes import Reason, SilenceEnd
from heartbeat_service.core.errors import Overloaded
from heartbeat_service.core.heartbeat import Stage
from heartbeat_service.core.notices import (
    Held,
    HoldEnd,
    MassLossBegun,
    MassLossOver,
    Recovered,
    Silence,
)
from tests.unit.core.cases import (
    DISCONNECTED,
    FUSE,
    HAIR,
    LATE,
    NOON,
    RUNNING,
    UNCALIBRATED,
    RegistryTestCase,
)

HOLD = 60.0
ALL = "0123456789"


class MassLossTestCase(RegistryTestCase):
    """Ten clients, of which three late ones are a mass."""

    def setUp(self) -> None:
        """Register them all, and bring two of them into other states."""
        super().setUp()
        self.registry = self.new_registry(mass_loss_share=0.3, mass_loss_hold=HOLD)
        self.beat(ALL)
        self.registry.steer("1", RUNNING)
        self.forget()

    def forget(self) -> None:
        """What was told so far is of no interest."""
        self.changes.clear()
        self.notices.clear()
        self.log.clear()

    def beat(self, names: Iterable[str]) -> None:
        """These beat."""
        for name in names:
            self.registry.beat(name, DISCONNECTED)

    def lose(self, names: str, others: str | None = None) -> None:
        """Let the fuses of these run out, which beat last now, and let no others.

        :param others: who beats on; all others, if that isn't said.
        """
        beat_on = set(ALL) - set(names) if others is None else others
        self.beat(names)
        for _ in range(5):
            self.beat(beat_on)
            self.clock.advance(2.0)
        self.beat(beat_on)

    def wait(self, seconds: float, beating: Iterable[str] = ()) -> None:
        """Let time pass while these beat."""
        for _ in range(int(seconds)):
            self.beat(beating)
            self.clock.advance(1.0)
        self.clock.advance(seconds % 1)

    def kinds(self, *kinds: type) -> list[Any]:
        """Those notices that are of these kinds."""
        return [one for one in self.notices if isinstance(one, kinds)]

    def alive(self) -> str:
        """Who lives."""
        return "".join(sorted(self.registry.client_ids()))

    def held(self) -> str:
        """Who is held, in the order in which their fuses ran out."""
        held = "".join(self.registry.mass_loss.held)
        self.assertEqual(
            [name for name in held if self.stage(name) is Stage.HELD], [*held]
        )
        return held

    @property
    def hold(self) -> str:
        """The name of the present hold."""
        assert self.registry.mass_loss.hold is not None
        return self.registry.mass_loss.hold.name


class TestBeginning(MassLossTestCase):
    def test_nobody_dies_while_so_many_are_late(self) -> None:
        self.lose("123")
        self.assertEqual((self.alive(), self.held()), (ALL, "123"))
        self.assertEqual(self.changes, [])
        self.assertEqual(
            self.kinds(MassLossBegun, Held),
            [
                MassLossBegun(self.hold, 1, HOLD),
                *(
                    Held(
                        client_id=name,
                        incarnation=101 + int(name),
                        seconds_since_heartbeat=FUSE,
                    )
                    for name in "123"
                ),
            ],
        )

    def test_fewer_than_that_share_die(self) -> None:
        self.registry.mass_loss.share = 0.5
        self.lose("1234")
        self.assertEqual(self.alive(), "056789")
        self.assertIsNone(self.registry.mass_loss.hold)

    def test_fewer_than_three_die_whatever_the_share(self) -> None:
        for name in "3456789":
            self.registry.goodbye(name)
        self.lose("12", others="0")
        self.assertEqual((self.alive(), self.kinds(MassLossBegun)), ("0", []))

    def test_exactly_that_share_is_enough(self) -> None:
        # 0.07 * 100 is more than 7.
        self.registry = self.new_registry(mass_loss_share=0.07)
        for number in range(100):
            self.registry.beat(str(number), DISCONNECTED)
        for _ in range(5):
            self.beat(str(number) for number in range(7, 100))
            self.clock.advance(2.0)
        self.assertEqual(len(self.registry), 100)

    def test_without_a_share_nobody_is_ever_held(self) -> None:
        list(self.registry.defuse_all())
        self.registry = self.new_registry()
        self.beat(ALL)
        self.clock.advance(LATE)
        self.clock.advance(FUSE)
        self.assertEqual((len(self.registry), self.kinds(MassLossBegun)), (0, []))

    def test_who_is_silent_as_planned_counts_among_all_and_not_as_late(self) -> None:
        for name in "123456789":
            self.registry.silence(name, 300.0)
        self.wait(FUSE)
        self.assertEqual(self.alive(), "123456789")
        self.assertEqual(self.changes[-1].client_id, "0")

    def test_a_held_client_is_late_and_its_fuse_has_run_out(self) -> None:
        self.lose("123")
        self.assertEqual(self.registry.mass_loss.late, set("123"))
        self.assertEqual(self.seconds_left("1"), 0.0)

    def test_to_be_held_is_nothing_to_keep(self) -> None:
        kept = list(self.facts)
        self.lose("123")
        self.assertEqual(self.facts, kept)

    def test_one_whose_planned_silence_runs_out_in_a_hold_is_held(self) -> None:
        self.registry.silence("4", FUSE + 2.0, by="ada")
        self.lose("123", others="056789")
        self.forget()
        self.wait(2.0, beating="056789")
        self.assertEqual(self.held(), "1234")
        self.assertEqual(self.log[-3:], ["Snapshot 4", "Silence 4", "Held 4"])
        self.assertEqual(
            self.kinds(Silence),
            [
                Silence(
                    client_id="4",
                    incarnation=105,
                    seconds=0.0,
                    reason=SilenceEnd.ENDED,
                )
            ],
        )
        self.assertEqual(self.snapshots[-1].silent_until, 0.0)


class TestRecovering(MassLossTestCase):
    def test_who_beats_lives_on_in_its_life_and_state(self) -> None:
        self.lose("123")
        client = self.registry.get("1")
        self.wait(30.0, beating="0456789")
        self.forget()
        self.beat("1")
        self.assertIs(self.registry.get("1"), client)
        self.assertEqual((client.state, client.sequence), (RUNNING, 2))
        self.assertIs(self.stage("1"), Stage.PUNCTUAL)
        self.assertEqual(self.notices, [Recovered(client_id="1", incarnation=102)])
        self.assertEqual((self.changes, self.held()), ([], "23"))
        self.assertEqual(self.seconds_left("1"), FUSE)

    def test_when_nobody_is_late_any_more_it_is_over(self) -> None:
        self.lose("123")
        hold = self.hold
        self.wait(5.0, beating="0456789")
        self.beat("12")
        self.assertEqual(self.hold, hold)
        self.beat("3")
        self.assertEqual(
            self.notices[-1], MassLossOver(hold, 0, HOLD - 5.0, HoldEnd.RECOVERED)
        )
        self.assertIsNone(self.registry.mass_loss.hold)
        self.wait(HOLD, beating=ALL)
        self.assertEqual(
            (self.alive(), self.kinds(MassLossOver)), (ALL, self.notices[-1:])
        )

    def test_it_lasts_while_others_of_the_same_loss_are_late(self) -> None:
        self.beat("123")
        self.clock.advance(1.0)
        self.beat("4")
        self.clock.advance(1.0)
        for _ in range(4):
            self.beat("056789")
            self.clock.advance(2.0)
        self.assertEqual(self.held(), "123")
        self.beat("123")  # the network is back
        self.clock.advance(1.0)
        self.assertEqual(self.held(), "4")
        self.beat("4")
        self.assertEqual(self.kinds(MassLossOver)[0].reason, HoldEnd.RECOVERED)
        self.assertEqual((self.alive(), self.changes), (ALL, []))

    def test_a_beat_with_another_fuse_burns_that_one(self) -> None:
        self.lose("123")
        for name, fuse in zip("123", (2.0, 60.0, 3600.0), strict=True):
            self.registry.beat(name, DISCONNECTED, fuse=fuse)
            self.assertIs(self.stage(name), Stage.PUNCTUAL)
            self.assertEqual(self.seconds_left(name), fuse)

    def test_a_new_life_is_held_no_longer(self) -> None:
        self.lose("123")
        self.registry.beat("1", UNCALIBRATED, "another process")
        self.assertEqual(
            (self.held(), self.changes[-1].reason), ("23", Reason.RECONNECT)
        )
        self.assertEqual(self.notices[-1], Recovered(client_id="1", incarnation=102))

    def test_a_new_life_that_is_refused_is_held_no_longer(self) -> None:
        self.lose("123")

        def refuse() -> None:
            raise Overloaded("the disk is full")

        self.registry.admit = refuse
        beat = self.registry.beat
        self.assertRaises(Overloaded, beat, "1", UNCALIBRATED, "another process")
        self.assertEqual((self.held(), self.seconds_left("1")), ("23", FUSE))

    def test_who_leaves_is_kicked_or_may_be_silent_is_held_no_longer(self) -> None:
        self.lose("123")
        self.registry.goodbye("1")
        self.registry.kick("2")
        self.assertEqual(self.held(), "3")
        self.registry.silence("3", 300.0)
        self.assertEqual((self.held(), self.stage("3")), ("", Stage.SILENT))
        self.assertEqual(self.kinds(MassLossOver)[0].reason, HoldEnd.RECOVERED)
        self.assertEqual(self.kinds(Recovered), [], "nobody has beaten")
        self.wait(HOLD, beating="0456789")
        self.assertEqual(self.alive(), "03456789")

    def test_a_client_that_another_node_has_changed_is_held_on(self) -> None:
        self.lose("123")
        self.registry.replace("1", self.registry.get("1").snapshot())
        self.registry.replace("2", None)
        self.assertEqual((self.held(), self.seconds_left("1")), ("13", 0.0))

    def test_another_life_of_a_client_is_not_held(self) -> None:
        self.lose("123")
        present = self.registry.get("1").snapshot()
        self.registry.replace("1", replace(present, incarnation=2**40))
        self.assertEqual((self.held(), self.seconds_left("1")), ("23", FUSE))


class TestEnding(MassLossTestCase):
    def test_what_is_still_silent_dies_when_its_time_is_up(self) -> None:
        self.lose("123")
        hold = self.hold
        self.wait(HOLD - 1.0, beating="0456789")
        self.beat("2")
        self.clock.advance(1.0 - HAIR)
        self.assertEqual(self.alive(), ALL)
        self.forget()
        self.clock.advance(HAIR)
        self.assertEqual(self.alive(), "02456789")
        self.assertEqual(self.notices, [MassLossOver(hold, 2, 0.0, HoldEnd.TIME)])
        self.assertEqual(self.log[0], "MassLossOver")
        self.assertEqual({one.reason for one in self.changes}, {Reason.TIMEBOMB})
        self.assertEqual([one.client_id for one in self.changes], ["1", "3"])

    def test_its_end_is_told_before_a_death_whichever_timer_is_first(self) -> None:
        self.lose("123")
        hold = self.registry.mass_loss.hold
        assert hold is not None
        hold.end.delay(HAIR)
        self.wait(HOLD - 1.0, beating="0456789")
        self.forget()
        self.wait(1.0, beating="0456789")
        self.assertEqual(self.log[0], "MassLossOver")
        self.assertEqual(self.alive(), "0456789")
        self.clock.advance(HAIR)
        self.assertEqual(len(self.kinds(MassLossOver)), 1)

    def test_its_time_counts_from_the_first_who_was_held(self) -> None:
        self.lose("123")
        self.lose("45", others="06789")
        self.assertEqual(self.held(), "12345")
        self.wait(HOLD - FUSE, beating="06789")
        self.assertEqual(self.alive(), "06789")
        self.assertEqual(len(self.kinds(MassLossOver)), 1)

    def test_its_time_ends_it_though_nobody_is_held(self) -> None:
        self.lose("123")
        self.wait(HOLD - 5.0, beating="0456789")
        self.beat("4")
        self.wait(4.0, beating="056789")
        self.beat("123")
        self.assertEqual((self.held(), self.registry.mass_loss.late), ("", {"4"}))
        self.clock.advance(1.0)
        self.assertEqual(self.kinds(MassLossOver)[0].reason, HoldEnd.TIME)
        self.assertEqual(self.alive(), ALL)

    def test_it_never_begins_again_before_a_whole_holds_time_has_passed(self) -> None:
        self.lose("123")
        self.wait(HOLD, beating="0456789")
        self.wait(HOLD - FUSE - 1.0, beating="0456789")
        self.lose("045", others="6789")
        self.assertEqual(self.alive(), "6789")
        self.assertEqual(len(self.kinds(MassLossBegun)), 1)

    def test_after_a_whole_holds_time_without_one_it_may_begin_again(self) -> None:
        self.lose("123")
        first = self.hold
        self.wait(HOLD, beating="0456789")
        self.wait(HOLD - FUSE, beating="0456789")
        self.lose("045", others="6789")
        self.assertEqual((self.alive(), self.held()), ("0456789", "045"))
        self.assertNotEqual(self.hold, first)

    def test_one_that_was_over_early_rests_as_long(self) -> None:
        for rest, alive in ((HOLD - FUSE - 1.0, "456789"), (HOLD - FUSE, ALL)):
            self.setUp()
            self.lose("123")
            self.beat("123")
            self.wait(rest, beating=ALL)
            self.lose("0123")
            self.assertEqual(self.alive(), alive)

    def test_it_tells_since_when_and_how_long_it_lasts(self) -> None:
        self.lose("123")
        mass_loss = self.registry.mass_loss
        assert mass_loss.hold is not None
        self.assertEqual(mass_loss.hold.since, NOON + FUSE)
        self.wait(5.0, beating="0456789")
        self.assertEqual(mass_loss.seconds_left(), HOLD - 5.0)
        self.wait(HOLD - 5.0)
        self.assertEqual((mass_loss.hold, mass_loss.seconds_left()), (None, 0.0))


class TestOperators(MassLossTestCase):
    def test_everybody_held_dies_as_soon_as_an_operator_says_so(self) -> None:
        self.lose("123")
        hold = self.hold
        self.wait(5.0, beating="0456789")
        self.forget()
        list(self.registry.end_mass_loss())
        self.clock.advance(0.0)
        self.assertEqual(self.alive(), "0456789")
        self.assertEqual(
            self.notices, [MassLossOver(hold, 3, HOLD - 5.0, HoldEnd.OPERATOR)]
        )
        self.assertEqual(self.log[0], "MassLossOver")
        self.assertEqual({one.reason for one in self.changes}, {Reason.TIMEBOMB})

    def test_who_beats_before_its_turn_lives(self) -> None:
        self.lose("123")
        ending = self.registry.end_mass_loss()
        next(ending)
        self.beat("12")
        list(ending)
        self.clock.advance(0.0)
        self.assertEqual(self.alive(), "012456789")
        self.assertEqual(len(self.kinds(MassLossOver)), 1)

    def test_who_is_late_then_has_the_rest_of_its_fuse(self) -> None:
        self.lose("123")
        self.beat("4")
        self.wait(5.0, beating="056789")
        list(self.registry.end_mass_loss())
        self.clock.advance(0.0)
        self.assertEqual(self.seconds_left("4"), FUSE - 5.0)
        self.assert_dies_in(FUSE - 5.0, "4")

    def test_one_that_is_named_is_ended_and_no_other(self) -> None:
        self.lose("123")
        list(self.registry.end_mass_loss("an earlier one"))
        self.assertEqual(self.held(), "123")
        list(self.registry.end_mass_loss(self.hold))
        self.clock.advance(0.0)
        self.assertEqual(self.alive(), "0456789")

    def test_without_a_hold_there_is_nothing_to_end(self) -> None:
        list(self.registry.end_mass_loss())
        self.assertEqual((self.log, self.alive()), ([], ALL))


class TestStopping(MassLossTestCase):
    def test_a_restart_ends_it_and_everybody_has_a_full_fuse(self) -> None:
        self.lose("123")
        self.start_again()
        self.assertIsNone(self.registry.mass_loss.hold)
        self.assertEqual(self.registry.mass_loss.late, set())
        for name in ALL:
            self.assertIs(self.stage(name), Stage.PUNCTUAL)
            self.assertEqual(self.seconds_left(name), FUSE)
        self.assertEqual(self.registry.get("1").state, RUNNING)

    def test_a_stop_kills_nobody_and_tells_nothing(self) -> None:
        self.lose("123")
        self.forget()
        list(self.registry.defuse_all())
        self.clock.advance(2 * HOLD)
        self.assertEqual(self.notices, [])
        self.assertEqual((self.changes, self.due()), ([], []))
