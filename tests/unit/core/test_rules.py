"""The rules of a client's life (contract, section 2), one test for each.

What waits for the store is tested with the dispatcher and the journal.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from msgspec import Raw
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from heartbeat_service.core import registry as registry_module
from heartbeat_service.core.changes import Change, Fact, Reason, Snapshot
from heartbeat_service.core.errors import (
    HeartbeatError,
    IllegalTransition,
    InstanceSuperseded,
    StaleIncarnation,
    UnknownClient,
)
from heartbeat_service.core.instances import Instances
from heartbeat_service.core.registry import Registry
from heartbeat_service.core.states import ClientState

DISCONNECTED = ClientState.DISCONNECTED
UNCALIBRATED = ClientState.UNCALIBRATED
CALIBRATED = ClientState.CALIBRATED
RUNNING = ClientState.RUNNING
LIVING = (UNCALIBRATED, CALIBRATED, RUNNING)

FUSE = 10.0


class RegistryTestCase(SynchronousTestCase):
    """A registry on a clock that the test turns."""

    def setUp(self) -> None:
        """Begin with nobody, at incarnation 100."""
        self.clock = Clock()
        self.changes: list[Change] = []
        self.snapshots: list[Snapshot] = []
        self.registry = Registry(
            clock=self.clock,
            wall_clock=lambda: 1_000_000.0 + self.clock.seconds(),
            listener=self.hear,
            default_fuse=FUSE,
            last_incarnation=100,
        )

    def hear(self, fact: Fact) -> None:
        """The registry tells this."""
        if isinstance(fact, Change):
            self.changes.append(fact)
        else:
            self.snapshots.append(fact)

    def assert_alive(self, client_id: str = "1") -> None:
        """The client lives."""
        self.assertIsNotNone(self.registry.find(client_id))

    def assert_dead(self, client_id: str = "1") -> None:
        """The client does not live."""
        self.assertIsNone(self.registry.find(client_id))

    def assert_refused(
        self, error: type[HeartbeatError], call: Callable[..., object], *args: object
    ) -> HeartbeatError:
        """The call fails with ``error``, names the client and changes nothing."""
        before = len(self.changes), len(self.snapshots)
        client = self.registry.find("1")
        seen = client and (client.state, client.sequence, client.incarnation)
        failure = self.assertRaises(error, call, *args)
        self.assertEqual((len(self.changes), len(self.snapshots)), before)
        self.assertIs(self.registry.find("1"), client)
        self.assertEqual(
            client and (client.state, client.sequence, client.incarnation), seen
        )
        self.assertEqual(failure.client_id, "1")
        return cast("HeartbeatError", failure)

    def in_state(self, state: ClientState) -> None:
        """Register client 1 and bring it into a state."""
        self.registry.beat("1", DISCONNECTED)
        self.registry.steer("1", state)
        self.changes.clear()


class RegistrationTests(RegistryTestCase):
    """Registered by its first HEARTBEAT."""

    def test_the_first_heartbeat_registers_as_uncalibrated_with_sequence_1(
        self,
    ) -> None:
        client = self.registry.beat("1", DISCONNECTED)
        self.assertEqual(client.state, UNCALIBRATED)
        self.assertEqual(client.sequence, 1)
        self.assertEqual(
            self.changes,
            [Change(client.snapshot(), DISCONNECTED, Reason.HEARTBEAT)],
        )
        self.assertEqual(
            client.snapshot(),
            Snapshot(
                client_id="1",
                incarnation=101,
                sequence=1,
                state=UNCALIBRATED,
                instances=Instances(),
                fuse=FUSE,
                registered_at=1_000_000.0,
                reported_state=DISCONNECTED,
                has_reported=False,
                beats=1,
                longest_gap_seconds=0.0,
            ),
        )

    def test_the_first_heartbeat_lights_the_timebomb(self) -> None:
        self.registry.beat("1", DISCONNECTED)
        self.assertEqual(
            [call.getTime() for call in self.clock.getDelayedCalls()], [FUSE]
        )

    def test_a_client_that_says_running_is_uncalibrated_all_the_same(self) -> None:
        client = self.registry.beat("1", RUNNING)
        self.assertEqual(client.state, UNCALIBRATED)
        self.assertEqual(client.reported_state, RUNNING)

    def test_incarnation_grows_with_each_registration(self) -> None:
        first = self.registry.beat("1", DISCONNECTED).incarnation
        self.registry.goodbye("1")
        second = self.registry.beat("1", DISCONNECTED).incarnation
        self.clock.advance(FUSE)
        third = self.registry.beat("1", DISCONNECTED).incarnation
        self.assertTrue(100 < first < second < third)

    def test_sequence_grows_by_one_with_each_change_of_state(self) -> None:
        self.registry.beat("1", DISCONNECTED)
        for state in (CALIBRATED, RUNNING, UNCALIBRATED):
            self.registry.steer("1", state)
        self.assertEqual([change.sequence for change in self.changes], [1, 2, 3, 4])


class HeartbeatTests(RegistryTestCase):
    """Every HEARTBEAT resets the timebomb and replaces the values."""

    def test_every_heartbeat_resets_the_timebomb(self) -> None:
        self.registry.beat("1", DISCONNECTED)
        for _ in range(5):
            self.clock.advance(FUSE - 1)
            self.registry.beat("1", UNCALIBRATED)
        self.assert_alive()

    def test_a_beat_reuses_the_timebomb_it_resets(self) -> None:
        self.registry.beat("1", DISCONNECTED)
        [timebomb] = self.clock.getDelayedCalls()
        self.clock.advance(1)
        self.registry.beat("1", UNCALIBRATED)
        self.assertEqual(self.clock.getDelayedCalls(), [timebomb])

    def test_no_other_message_resets_the_timebomb(self) -> None:
        self.registry.beat("1", DISCONNECTED)
        self.clock.advance(FUSE - 1)
        self.registry.get("1")
        self.registry.set_state("1", CALIBRATED)
        self.registry.steer("1", RUNNING)
        self.clock.advance(1)
        self.assert_dead()

    def test_a_heartbeat_replaces_the_values(self) -> None:
        self.registry.beat("1", DISCONNECTED, values=Raw(b'{"fps":90,"t":1}'))
        client = self.registry.beat("1", UNCALIBRATED, values=Raw(b'{"fps":72}'))
        self.assertEqual(bytes(client.heartbeat.values), b'{"fps":72}')
        client = self.registry.beat("1", UNCALIBRATED)
        self.assertEqual(bytes(client.heartbeat.values), b"{}")

    def test_what_a_client_reports_is_recorded_and_decides_nothing(self) -> None:
        self.registry.beat("1", DISCONNECTED)
        client = self.registry.beat("1", RUNNING)
        self.assertEqual(client.reported_state, RUNNING)
        self.assertEqual(client.state, UNCALIBRATED)
        self.assertEqual(len(self.changes), 1)

    def test_the_rhythm_of_a_life_is_kept(self) -> None:
        self.registry.beat("1", DISCONNECTED)
        for gap in (1.0, 4.0, 2.0):
            self.clock.advance(gap)
            client = self.registry.beat("1", UNCALIBRATED)
        self.clock.advance(3.0)
        self.assertEqual(client.heartbeat.beats, 4)
        self.assertEqual(client.heartbeat.longest_gap, 4.0)
        self.assertEqual(client.heartbeat.seconds_since(), 3.0)
        self.assertEqual(client.heartbeat.seconds_left(), FUSE - 3.0)


class TimebombTests(RegistryTestCase):
    """When the fuse has burnt down, the client is removed."""

    def test_a_silent_client_dies_at_its_deadline_and_not_before(self) -> None:
        self.registry.beat("1", DISCONNECTED)
        self.registry.steer("1", RUNNING)
        self.clock.advance(FUSE - 0.001)
        self.assert_alive()
        self.clock.advance(0.001)
        self.assert_dead()
        death = self.changes[-1]
        self.assertEqual(
            (death.state, death.previous_state, death.reason),
            (DISCONNECTED, RUNNING, Reason.TIMEBOMB),
        )

    def test_the_deaths_sequence_is_one_more_than_the_lifes_last(self) -> None:
        self.registry.beat("1", DISCONNECTED)
        self.registry.steer("1", RUNNING)
        self.clock.advance(FUSE)
        self.assertEqual([c.sequence for c in self.changes], [1, 2, 3])
        self.assertEqual({c.incarnation for c in self.changes}, {101})

    def test_the_delegate_is_fired_with_the_client_id(self) -> None:
        self.registry.beat("1", DISCONNECTED)
        self.registry.beat("2", DISCONNECTED)
        self.clock.advance(1)
        self.registry.beat("2", UNCALIBRATED)
        self.clock.advance(FUSE - 1)
        self.assert_dead("1")
        self.assert_alive("2")

    def test_a_client_may_ask_for_its_own_timebomb(self) -> None:
        self.registry.beat("1", DISCONNECTED, fuse=30)
        self.clock.advance(29)
        self.assert_alive()
        self.clock.advance(1)
        self.assert_dead()

    def test_the_servers_clamps_are_a_tenth_of_a_second_and_one_hour(self) -> None:
        shortest = self.registry.beat("1", DISCONNECTED, fuse=0.001)
        longest = self.registry.beat("2", DISCONNECTED, fuse=1e9)
        self.assertEqual(shortest.heartbeat.fuse, 0.1)
        self.assertEqual(longest.heartbeat.fuse, 3600)
        longest = self.registry.beat("2", UNCALIBRATED, fuse=1e12)
        self.assertEqual(longest.heartbeat.fuse, 3600)

    def test_what_a_client_asked_for_lasts_for_its_life(self) -> None:
        self.registry.beat("1", DISCONNECTED, fuse=30)
        client = self.registry.beat("1", UNCALIBRATED)
        self.assertEqual(client.heartbeat.fuse, 30)
        client = self.registry.beat("1", DISCONNECTED)
        self.assertEqual(client.heartbeat.fuse, FUSE)

    def test_a_shorter_fuse_takes_effect_at_once(self) -> None:
        self.registry.beat("1", DISCONNECTED, fuse=60)
        self.registry.beat("1", UNCALIBRATED, fuse=1)
        self.clock.advance(1)
        self.assert_dead()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_death_remembers_the_life_that_it_ended(self) -> None:
        self.registry.beat("1", DISCONNECTED)
        self.clock.advance(3)
        self.registry.beat("1", UNCALIBRATED)
        self.registry.steer("1", RUNNING)
        self.clock.advance(FUSE)
        life = self.changes[-1].ended
        assert life is not None
        self.assertEqual(life.incarnation, 101)
        self.assertEqual((life.registered_at, life.ended_at), (1e6, 1e6 + 13))
        self.assertEqual((life.reason, life.last_state), (Reason.TIMEBOMB, RUNNING))
        self.assertEqual((life.beats, life.longest_gap_seconds), (2, 3.0))


class TransitionTests(RegistryTestCase):
    """Who may change what into what."""

    LEGAL = frozenset(
        {
            (UNCALIBRATED, CALIBRATED),
            (CALIBRATED, RUNNING),
            (CALIBRATED, UNCALIBRATED),
            (RUNNING, CALIBRATED),
            (RUNNING, UNCALIBRATED),
        }
    )

    def test_a_client_may_make_the_contracts_five_transitions(self) -> None:
        for current, wanted in self.LEGAL:
            self.in_state(current)
            self.registry.set_state("1", wanted)
            [change] = self.changes
            self.assertEqual(
                (change.previous_state, change.state, change.reason),
                (current, wanted, Reason.CLIENT),
            )
            self.registry.kick("1")

    def test_a_client_may_make_no_other_transition(self) -> None:
        for current in LIVING:
            self.in_state(current)
            for wanted in ClientState:
                if wanted is not current and (current, wanted) not in self.LEGAL:
                    self.assert_refused(
                        IllegalTransition, self.registry.set_state, "1", wanted
                    )
            self.registry.kick("1")

    def test_to_the_state_it_has_already_nothing_changes(self) -> None:
        for state in LIVING:
            self.in_state(state)
            sequence = self.registry.get("1").sequence
            self.registry.set_state("1", state)
            self.registry.steer("1", state)
            self.assertEqual(self.registry.get("1").sequence, sequence)
            self.assertEqual(self.changes, [])
            self.registry.kick("1")

    def test_an_operator_may_set_any_living_state_from_any(self) -> None:
        for current in LIVING:
            for wanted in LIVING:
                self.in_state(current)
                client = self.registry.steer("1", wanted)
                self.assertEqual(client.state, wanted)
                self.assertEqual(
                    [change.reason for change in self.changes],
                    [] if wanted is current else [Reason.OPERATOR],
                )
                self.registry.kick("1")

    def test_an_operator_may_not_disconnect(self) -> None:
        for current in LIVING:
            self.in_state(current)
            self.assert_refused(
                IllegalTransition, self.registry.steer, "1", DISCONNECTED
            )
            self.registry.kick("1")

    def test_an_unknown_client_has_to_send_a_heartbeat_first(self) -> None:
        for call in (
            lambda: self.registry.get("1"),
            lambda: self.registry.set_state("1", CALIBRATED),
            lambda: self.registry.steer("1", CALIBRATED),
            lambda: self.registry.goodbye("1"),
            lambda: self.registry.kick("1"),
        ):
            error = self.assert_refused(UnknownClient, call)
            self.assertIn("send a heartbeat first", error.detail)


class LeavingTests(RegistryTestCase):
    """Goodbye and kick."""

    def test_a_goodbye_removes_the_client(self) -> None:
        self.in_state(CALIBRATED)
        client = self.registry.goodbye("1")
        self.assertEqual((client.state, client.sequence), (DISCONNECTED, 3))
        self.assert_dead()
        [death] = self.changes
        self.assertEqual(
            (death.previous_state, death.reason), (CALIBRATED, Reason.GOODBYE)
        )

    def test_a_kick_removes_the_client(self) -> None:
        self.in_state(RUNNING)
        self.registry.kick("1")
        self.assert_dead()
        [death] = self.changes
        self.assertEqual((death.state, death.reason), (DISCONNECTED, Reason.KICK))

    def test_who_left_does_not_die_once_more(self) -> None:
        self.in_state(RUNNING)
        self.registry.goodbye("1")
        self.clock.advance(2 * FUSE)
        self.assertEqual(len(self.changes), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class NewLifeTests(RegistryTestCase):
    """A restarted game client is registered anew."""

    def test_disconnected_after_another_report_is_a_new_life(self) -> None:
        self.registry.beat("1", DISCONNECTED)
        self.registry.beat("1", UNCALIBRATED)
        self.registry.steer("1", RUNNING)
        self.changes.clear()
        client = self.registry.beat("1", DISCONNECTED)
        self.assertEqual((client.state, client.sequence), (UNCALIBRATED, 1))
        [change] = self.changes
        self.assertEqual(
            (change.state, change.previous_state, change.reason),
            (UNCALIBRATED, RUNNING, Reason.RECONNECT),
        )
        self.assertEqual((change.sequence, change.incarnation), (1, 102))
        assert change.ended is not None
        self.assertEqual(
            (change.ended.incarnation, change.ended.reason), (101, Reason.RECONNECT)
        )

    def test_as_long_as_it_reports_disconnected_only_they_are_ordinary_beats(
        self,
    ) -> None:
        for _ in range(4):
            self.registry.beat("1", DISCONNECTED)
        self.assertEqual(len(self.changes), 1)

    def test_a_new_life_must_report_anew_before_it_can_restart(self) -> None:
        self.registry.beat("1", RUNNING)
        self.registry.beat("1", DISCONNECTED)
        self.registry.beat("1", DISCONNECTED)
        self.assertEqual([c.incarnation for c in self.changes], [101, 102])

    def test_a_timer_of_a_former_life_never_touches_the_present_one(self) -> None:
        self.registry.beat("1", RUNNING)
        self.clock.advance(FUSE - 1)
        self.registry.beat("1", DISCONNECTED)
        self.clock.advance(1)
        self.assert_alive()
        self.clock.advance(FUSE - 1)
        self.assert_dead()


class InstanceTests(RegistryTestCase):
    """instanceID names one process of a client."""

    def test_a_new_instance_takes_the_client_over(self) -> None:
        self.registry.beat("1", DISCONNECTED, "a")
        self.registry.steer("1", RUNNING)
        self.changes.clear()
        client = self.registry.beat("1", CALIBRATED, "b")
        self.assertEqual((client.state, client.sequence), (UNCALIBRATED, 1))
        self.assertEqual(client.instances.present, "b")
        [change] = self.changes
        self.assertEqual(
            (change.previous_state, change.reason, change.incarnation),
            (RUNNING, Reason.RECONNECT, 102),
        )

    def test_a_superseded_instances_messages_change_nothing(self) -> None:
        self.registry.beat("1", DISCONNECTED, "a")
        self.clock.advance(1)
        self.registry.beat("1", DISCONNECTED, "b")
        self.clock.advance(1)
        for call in (
            lambda: self.registry.beat("1", RUNNING, "a"),
            lambda: self.registry.beat("1", DISCONNECTED, "a"),
            lambda: self.registry.set_state("1", CALIBRATED, None, "a"),
            lambda: self.registry.set_state("1", CALIBRATED, 102, "a"),
            lambda: self.registry.goodbye("1", None, "a"),
        ):
            self.assert_refused(InstanceSuperseded, call)
        heartbeat = self.registry.get("1").heartbeat
        self.assertEqual((heartbeat.beats, heartbeat.seconds_since()), (1, 1.0))

    def test_the_last_eight_instances_are_remembered(self) -> None:
        for instance in "abcdefghi":
            self.registry.beat("1", DISCONNECTED, instance)
        for former in "abcdefgh":
            self.assert_refused(
                InstanceSuperseded, self.registry.beat, "1", RUNNING, former
            )
        self.registry.beat("1", DISCONNECTED, "j")
        self.registry.beat("1", DISCONNECTED, "a")
        self.assertEqual(self.registry.get("1").instances.present, "a")

    def test_a_superseded_instance_stays_superseded_when_the_client_is_dead(
        self,
    ) -> None:
        self.registry.beat("1", DISCONNECTED, "a")
        self.registry.beat("1", DISCONNECTED, "b")
        self.clock.advance(FUSE)
        self.assert_refused(
            InstanceSuperseded, self.registry.beat, "1", DISCONNECTED, "a"
        )
        self.registry.beat("1", DISCONNECTED, "b")
        self.assert_alive()
        self.assert_refused(
            InstanceSuperseded, self.registry.beat, "1", DISCONNECTED, "a"
        )

    def test_an_instance_that_died_is_superseded_by_the_next(self) -> None:
        self.registry.beat("1", DISCONNECTED, "a")
        self.clock.advance(FUSE)
        self.registry.beat("1", DISCONNECTED, "b")
        self.assert_refused(InstanceSuperseded, self.registry.beat, "1", RUNNING, "a")

    def test_an_instance_that_died_may_come_back_itself(self) -> None:
        self.registry.beat("1", RUNNING, "a")
        self.clock.advance(FUSE)
        client = self.registry.beat("1", RUNNING, "a")
        self.assertEqual((client.state, client.incarnation), (UNCALIBRATED, 102))

    def test_the_memory_of_dead_clients_is_bounded(self) -> None:
        self.patch(registry_module, "GRAVES", 2)
        for client_id in "123":
            self.registry.beat(client_id, DISCONNECTED, "a")
            self.registry.beat(client_id, DISCONNECTED, "b")
            self.registry.goodbye(client_id)
        self.registry.beat("1", DISCONNECTED, "a")
        self.assert_alive("1")
        for client_id in "23":
            self.assertRaises(
                InstanceSuperseded, self.registry.beat, client_id, DISCONNECTED, "a"
            )

    def test_an_instance_that_never_beat_has_to_send_a_heartbeat_first(self) -> None:
        self.registry.beat("1", DISCONNECTED, "a")
        self.assert_refused(UnknownClient, self.registry.goodbye, "1", None, "z")
        self.assert_refused(
            UnknownClient, self.registry.set_state, "1", CALIBRATED, None, "z"
        )

    def test_a_beat_without_an_instance_keeps_the_one_there_is(self) -> None:
        self.registry.beat("1", DISCONNECTED, "a")
        client = self.registry.beat("1", UNCALIBRATED)
        self.assertEqual((client.instances.present, client.incarnation), ("a", 101))

    def test_a_restart_of_the_same_instance_does_not_supersede_it(self) -> None:
        self.registry.beat("1", RUNNING, "a")
        self.registry.beat("1", DISCONNECTED, "a")
        client = self.registry.beat("1", UNCALIBRATED, "a")
        self.assertEqual((client.instances.present, client.incarnation), ("a", 102))


class FencingTests(RegistryTestCase):
    """A late message of a former life changes nothing."""

    def setUp(self) -> None:
        """Client 1 lives its second life, incarnation 102."""
        super().setUp()
        self.registry.beat("1", RUNNING)
        self.registry.beat("1", DISCONNECTED)

    def test_a_set_client_state_of_another_life_is_stale(self) -> None:
        for incarnation in (101, 103, -1, 10**30):
            self.assert_refused(
                StaleIncarnation, self.registry.set_state, "1", CALIBRATED, incarnation
            )

    def test_a_stale_message_is_stale_also_where_nothing_would_change(self) -> None:
        self.assert_refused(
            StaleIncarnation, self.registry.set_state, "1", UNCALIBRATED, 101
        )

    def test_a_goodbye_of_another_life_is_stale(self) -> None:
        self.assert_refused(StaleIncarnation, self.registry.goodbye, "1", 101)

    def test_a_message_of_the_present_life_passes(self) -> None:
        self.assertEqual(
            self.registry.set_state("1", CALIBRATED, 102).state, CALIBRATED
        )
        self.assertEqual(self.registry.goodbye("1", 102).state, DISCONNECTED)


class StoppingTests(RegistryTestCase):
    """The service stops; its clients do not die of it."""

    def test_no_timebomb_is_left_and_nobody_has_died(self) -> None:
        for client_id in "123":
            self.registry.beat(client_id, DISCONNECTED)
        self.changes.clear()
        self.registry.defuse_all()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.changes, [])
