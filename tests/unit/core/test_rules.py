"""The rules of a client's life (contract, section 2), one test for each.

What waits for the store is tested with the dispatcher and the journal.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from time import thread_time
from typing import Any, cast

from msgspec import Raw
from msgspec.structs import replace
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from heartbeat_service.core.changes import (
    Change,
    DeadClient,
    Life,
    Lockout,
    Reason,
    Snapshot,
    StoredState,
)
from heartbeat_service.core.dead import KEPT_FOR, DeadClients
from heartbeat_service.core.errors import (
    HeartbeatError,
    IllegalTransition,
    InstanceSuperseded,
    LockedOut,
    Overloaded,
    StaleIncarnation,
    StaleSequence,
    UnknownClient,
)
from heartbeat_service.core.instances import Instances
from heartbeat_service.core.rate_limit import RateLimit
from heartbeat_service.core.states import ClientState
from heartbeat_service.protocol.messages import ClientID
from tests.unit.core.cases import (
    CALIBRATED,
    DISCONNECTED,
    FUSE,
    LATE,
    RUNNING,
    UNCALIBRATED,
    RegistryTestCase,
)
from tests.unit.fakes import stored_state

LIVING = (UNCALIBRATED, CALIBRATED, RUNNING)


class TestRegistration(RegistryTestCase):
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
                state_since=1_000_000.0,
            ),
        )

    def test_the_first_heartbeat_lights_the_timebomb(self) -> None:
        self.registry.beat("1", DISCONNECTED)
        self.assertEqual(self.due(), [LATE])
        self.clock.advance(LATE)
        self.assertEqual(self.due(), [FUSE])

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


class TestHeartbeat(RegistryTestCase):
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

    def test_an_ordinary_beat_asks_once_how_late_it_is(self) -> None:
        asked: list[float] = []
        seconds = self.clock.seconds

        def ask() -> float:
            asked.append(seconds())
            return asked[-1]

        self.clock.seconds = ask  # type: ignore[method-assign]  # to count
        self.registry.beat("1", DISCONNECTED)
        [timebomb] = self.clock.getDelayedCalls()
        self.clock.advance(1)
        asked.clear()
        client = self.registry.beat("1", UNCALIBRATED)
        self.assertEqual((asked, timebomb.getTime()), ([1.0], 1.0 + LATE))
        self.assertEqual(client.heartbeat.seconds_left(), FUSE)

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


class TestTimebomb(RegistryTestCase):
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
        self.assertEqual((life.beats, life.longest_gap_seconds), (2, FUSE))

    def ended_after(self, silent: float, end: Callable[[], object]) -> Life:
        """A life with a gap of 2 s, that ended so many seconds after its last beat."""
        self.registry.beat("1", UNCALIBRATED)
        self.clock.advance(2)
        self.registry.beat("1", UNCALIBRATED)
        self.clock.advance(silent)
        end()
        ended = self.changes[-1].ended
        assert ended is not None
        return ended

    def test_the_silence_that_a_life_ended_with_is_one_of_its_gaps(self) -> None:
        for end, reason in (
            (lambda: self.registry.goodbye("1"), Reason.GOODBYE),
            (lambda: self.registry.kick("1"), Reason.KICK),
            (lambda: self.registry.beat("1", DISCONNECTED), Reason.RECONNECT),
            (lambda: self.registry.beat("1", RUNNING, "another"), Reason.RECONNECT),
        ):
            for silent, longest in ((6.0, 6.0), (1.0, 2.0)):
                ended = self.ended_after(silent, end)
                self.assertEqual(ended.reason, reason)
                self.assertEqual(ended.longest_gap_seconds, longest, reason)
                self.registry = self.new_registry()
        ended = self.ended_after(FUSE - 1, lambda: self.clock.advance(1))
        self.assertEqual(
            (ended.reason, ended.longest_gap_seconds), (Reason.TIMEBOMB, FUSE)
        )

    def test_a_life_knows_whether_it_ever_left_its_first_state(self) -> None:
        for states in ((), (RUNNING,), (RUNNING, UNCALIBRATED)):
            client = self.registry.beat("1", DISCONNECTED)
            for state in states:
                self.registry.steer("1", state)
            left = bool(states)
            self.assertEqual(client.life().left_uncalibrated, left)
            self.assertEqual(client.snapshot().life().left_uncalibrated, left)
            self.registry.kick("1")
            ended = self.changes[-1].ended
            assert ended is not None
            self.assertEqual(ended.left_uncalibrated, left)

    def test_the_silence_of_a_life_that_lasts_is_no_gap_yet(self) -> None:
        client = self.registry.beat("1", DISCONNECTED)
        self.clock.advance(4)
        self.assertEqual(client.life().longest_gap_seconds, 0)


class TestTransition(RegistryTestCase):
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


class TestLeaving(RegistryTestCase):
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


class TestNewLife(RegistryTestCase):
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


class TestInstance(RegistryTestCase):
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
            lambda: self.registry.get("1", "a"),
        ):
            self.assert_refused(InstanceSuperseded, call)
        heartbeat = self.registry.get("1").heartbeat
        self.assertEqual((heartbeat.beats, heartbeat.seconds_since()), (1, 1.0))

    def test_the_last_eight_instances_are_remembered(self) -> None:
        for instance in "abcdefghi":
            self.registry.beat("1", DISCONNECTED, instance)
        self.clock.advance(1)
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

    def come_and_go(self, client_id: str, *instances: str) -> None:
        """A client has lived as each of these, one after the other."""
        for instance in instances:
            self.registry.beat(client_id, DISCONNECTED, instance)
        self.registry.goodbye(client_id)

    def assert_superseded(self, *client_ids: str) -> None:
        """Their instance "a" was taken over, and doesn't come back."""
        for client_id in client_ids:
            self.assertRaises(
                InstanceSuperseded, self.registry.beat, client_id, DISCONNECTED, "a"
            )

    def test_the_memory_of_dead_clients_is_bounded(self) -> None:
        self.registry = self.new_registry(max_clients=2)
        for client_id in "123":
            self.come_and_go(client_id, "a", "b")
        self.assert_superseded("1", "2")
        self.registry.beat("3", DISCONNECTED, "a")
        self.assert_alive("3")

    def test_strangers_push_nobody_out_of_it_for_a_day(self) -> None:
        self.registry = self.new_registry(max_clients=3)
        self.come_and_go("1", "a", "b")
        for hour in range(24):
            self.clock.advance(KEPT_FOR / 24)
            for number in range(10):
                self.come_and_go(f"stranger-{hour}-{number}", "a", "b")
                self.come_and_go(f"another-{hour}-{number}", "a")
            self.assert_superseded("1")

    def test_after_a_day_the_oldest_makes_room_for_others(self) -> None:
        self.registry = self.new_registry(max_clients=2)
        self.come_and_go("1", "a", "b")
        self.come_and_go("2", "a", "b")
        self.clock.advance(KEPT_FOR + 1)
        self.come_and_go("3", "a", "b")
        self.assert_superseded("2", "3")
        self.registry.beat("1", DISCONNECTED, "a")
        self.assert_alive("1")

    def test_who_never_superseded_anybody_makes_room_first(self) -> None:
        self.registry = self.new_registry(max_clients=2)
        self.come_and_go("1", "a", "b")
        self.come_and_go("2", "x")
        self.come_and_go("3", "a", "b")
        self.assert_superseded("1", "3")

    def test_one_more_costs_the_same_however_many_are_kept(self) -> None:
        def seconds(most: int, instances: Instances) -> float:
            dead = DeadClients(most)
            for number in range(most):
                dead.add(f"former-{number}", DeadClient(instances, 0.0), 0.0)
            start = thread_time()
            for number in range(50_000):
                dead.add(str(number), DeadClient(instances, 0.0), KEPT_FOR + 1)
            return thread_time() - start

        for instances in (Instances("a"), Instances("b", ("a",))):
            few, many = seconds(10, instances), seconds(200_000, instances)
            self.assertLess(many, 6 * few)

    def test_a_lower_bound_holds_after_a_restart(self) -> None:
        of_dead = {
            str(number): DeadClient(Instances("b", ("a",)), self.wall_clock())
            for number in range(5)
        }
        self.registry = self.new_registry(max_clients=2)
        list(self.registry.restore(StoredState(100, (), of_dead)))
        self.assert_superseded("0", "1")
        self.registry.beat("2", DISCONNECTED, "a")
        self.assert_alive("2")

    def test_an_instance_that_never_beat_has_to_send_a_heartbeat_first(self) -> None:
        self.registry.beat("1", DISCONNECTED, "a")
        self.assert_refused(UnknownClient, self.registry.goodbye, "1", None, "z")
        self.assert_refused(
            UnknownClient, self.registry.set_state, "1", CALIBRATED, None, "z"
        )

    def test_a_superseded_instance_may_not_ask_though_the_client_is_dead(self) -> None:
        self.registry.beat("1", DISCONNECTED, "a")
        self.registry.beat("1", DISCONNECTED, "b")
        self.clock.advance(FUSE)
        self.assert_refused(InstanceSuperseded, self.registry.get, "1", "a")
        self.assert_refused(UnknownClient, self.registry.get, "1", "b")

    def test_an_instance_that_never_beat_may_ask(self) -> None:
        client = self.registry.beat("1", DISCONNECTED, "a")
        for instance in (None, "a", "z"):
            self.assertIs(self.registry.get("1", instance), client)

    def test_a_beat_without_an_instance_keeps_the_one_there_is(self) -> None:
        self.registry.beat("1", DISCONNECTED, "a")
        client = self.registry.beat("1", UNCALIBRATED)
        self.assertEqual((client.instances.present, client.incarnation), ("a", 101))

    def test_a_restart_of_the_same_instance_does_not_supersede_it(self) -> None:
        self.registry.beat("1", RUNNING, "a")
        self.registry.beat("1", DISCONNECTED, "a")
        client = self.registry.beat("1", UNCALIBRATED, "a")
        self.assertEqual((client.instances.present, client.incarnation), ("a", 102))


class TestFencing(RegistryTestCase):
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


class TestSequence(RegistryTestCase):
    """A change that was decided on a state which is gone changes nothing."""

    def set_state(
        self, sequence: int | None, state: ClientState = CALIBRATED, **fence: Any
    ) -> ClientState:
        """Client 1 asks for a state; the one that it has then."""
        return self.registry.set_state("1", state, sequence=sequence, **fence).state

    def test_another_sequence_than_the_present_one_is_stale(self) -> None:
        self.registry.beat("1", DISCONNECTED)
        self.registry.steer("1", CALIBRATED)
        for sequence in (1, 3, 0, -2, 2**70):
            error = self.assert_refused(StaleSequence, self.set_state, sequence)
            self.assertIn("present one, 2", error.detail)
        self.assertEqual(self.set_state(2, RUNNING), RUNNING)

    def test_it_is_stale_also_where_nothing_would_change(self) -> None:
        self.in_state(CALIBRATED)
        self.assert_refused(StaleSequence, self.set_state, 1, CALIBRATED)
        self.assertEqual(self.set_state(2, CALIBRATED), CALIBRATED)

    def test_what_is_sent_again_does_not_undo_what_came_in_between(self) -> None:
        self.registry.beat("1", DISCONNECTED)
        self.set_state(1)
        self.registry.steer("1", RUNNING)
        self.assert_refused(StaleSequence, self.set_state, 1)

    def test_other_fences_are_looked_at_before_it_and_the_transition_after(self):
        self.assert_refused(UnknownClient, self.set_state, 1)
        self.registry.beat("1", DISCONNECTED, "a")
        self.registry.beat("1", DISCONNECTED, "b")
        for error, instance_id, incarnation in (
            (InstanceSuperseded, "a", 101),
            (UnknownClient, "z", 101),
            (StaleIncarnation, "b", 101),
            (StaleSequence, "b", 102),
        ):
            call = partial(self.set_state, 9, CALIBRATED)
            self.assert_refused(
                error, partial(call, incarnation=incarnation, instance_id=instance_id)
            )
        self.assert_refused(StaleSequence, self.set_state, 9, RUNNING)
        self.assert_refused(IllegalTransition, self.set_state, 1, RUNNING)


class TestStopping(RegistryTestCase):
    """The service stops; its clients do not die of it."""

    def test_no_timebomb_is_left_and_nobody_has_died(self) -> None:
        for client_id in "123":
            self.registry.beat(client_id, DISCONNECTED)
        self.changes.clear()
        list(self.registry.defuse_all())
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.changes, [])


class TestNews(RegistryTestCase):
    """What a store is told besides changes: nothing that it needn't know."""

    def test_ordinary_beats_make_no_fact(self) -> None:
        self.registry.beat("1", RUNNING, fuse=5.0)
        for state in LIVING:
            self.clock.advance(1)
            self.registry.beat("1", state, values=Raw(b'{"fps":72}'))
            self.registry.beat("1", state, fuse=5.0)
        self.registry.beat("2", DISCONNECTED)
        self.registry.beat("2", DISCONNECTED)
        self.assertEqual((len(self.changes), self.snapshots), (2, []))

    def test_first_report_of_another_state_is_news(self) -> None:
        self.registry.beat("1", DISCONNECTED)
        for state in LIVING:
            client = self.registry.beat("1", state)
        [news] = self.snapshots
        self.assertEqual((news.has_reported, news.reported_state), (True, LIVING[0]))
        self.assertEqual((news.incarnation, news.sequence), (101, client.sequence))
        self.registry.beat("1", DISCONNECTED)
        self.registry.beat("1", UNCALIBRATED)
        self.assertEqual([fact.incarnation for fact in self.snapshots], [101, 102])

    def test_another_fuse_is_news(self) -> None:
        self.registry.beat("1", RUNNING)
        for fuse in (5.0, 5.0, 7200.0, 3600.0, FUSE):
            self.registry.beat("1", RUNNING, fuse=fuse)
        self.assertEqual([fact.fuse for fact in self.snapshots], [5.0, 3600.0, FUSE])
        self.assertEqual(len(self.changes), 1)


class TestRestart(RegistryTestCase):
    """The service was stopped or killed; its clients go on."""

    def restart(self) -> None:
        """Begin anew with what a store has kept."""
        list(self.registry.defuse_all())
        self.changes.clear()
        self.registry = self.new_registry()
        list(self.registry.restore(stored_state(self.facts, last_incarnation=100)))

    def test_who_lived_is_back_as_it_was(self) -> None:
        self.registry.beat("1", RUNNING, "a", fuse=5.0)
        self.clock.advance(3)
        self.registry.beat("1", RUNNING, "b", fuse=6.0)
        before = self.registry.set_state("1", CALIBRATED).snapshot()
        self.restart()
        self.assertEqual(self.registry.get("1").snapshot(), before)
        self.assertEqual(self.changes, [])

    def test_everyone_has_a_full_fuse(self) -> None:
        self.registry.beat("1", DISCONNECTED)
        self.registry.beat("2", DISCONNECTED, fuse=30.0)
        self.clock.advance(FUSE - 1)
        self.restart()
        self.clock.advance(FUSE - 0.001)
        self.assert_alive("1")
        self.clock.advance(0.001)
        self.assert_dead("1")
        self.clock.advance(30 - FUSE)
        self.assert_dead("2")
        self.assertEqual([change.sequence for change in self.changes], [2, 2])

    def test_who_was_dead_stays_dead(self) -> None:
        self.registry.beat("1", DISCONNECTED)
        self.registry.goodbye("1")
        self.restart()
        self.assert_dead("1")

    def test_next_beat_is_an_ordinary_one(self) -> None:
        self.registry.beat("1", DISCONNECTED, "a")
        self.registry.steer("1", RUNNING)
        self.restart()
        client = self.registry.beat("1", RUNNING, "a")
        self.assertEqual((client.incarnation, client.sequence), (101, 2))
        self.assertEqual(self.changes, [])

    def test_client_that_had_reported_and_starts_over_begins_a_new_life(self) -> None:
        self.registry.beat("1", DISCONNECTED)
        self.registry.beat("1", RUNNING)
        self.restart()
        self.assertEqual(self.registry.beat("1", DISCONNECTED).incarnation, 102)
        [change] = self.changes
        self.assertIs(change.reason, Reason.RECONNECT)

    def test_client_that_had_reported_nothing_but_disconnected_does_not(self) -> None:
        self.registry.beat("1", DISCONNECTED)
        self.restart()
        self.assertEqual(self.registry.beat("1", DISCONNECTED).incarnation, 101)

    def test_fencing_still_knows_the_life(self) -> None:
        self.registry.beat("1", DISCONNECTED)
        self.restart()
        self.assert_refused(
            StaleIncarnation, self.registry.set_state, "1", CALIBRATED, 100
        )
        self.assertEqual(self.registry.set_state("1", CALIBRATED, 101).sequence, 2)

    def test_superseded_instances_stay_superseded(self) -> None:
        self.registry.beat("1", DISCONNECTED, "a")
        self.registry.beat("1", DISCONNECTED, "b")
        self.restart()
        self.assert_refused(InstanceSuperseded, self.registry.beat, "1", RUNNING, "a")
        self.assert_refused(InstanceSuperseded, self.registry.get, "1", "a")
        self.registry.goodbye("1")
        self.restart()
        self.assert_refused(InstanceSuperseded, self.registry.beat, "1", RUNNING, "a")
        self.assert_refused(InstanceSuperseded, self.registry.get, "1", "a")

    def test_incarnations_grow_beyond_those_of_the_dead(self) -> None:
        self.registry.beat("1", DISCONNECTED)
        self.registry.beat("2", DISCONNECTED)
        self.registry.goodbye("2")
        self.restart()
        self.assertEqual(self.registry.beat("2", DISCONNECTED).incarnation, 103)

    def test_rhythm_goes_on_with_what_was_kept_of_it(self) -> None:
        self.registry.beat("1", DISCONNECTED)
        for gap in (1.0, 4.0):
            self.clock.advance(gap)
            self.registry.beat("1", RUNNING)
        self.registry.steer("1", CALIBRATED)
        self.restart()
        self.clock.advance(2)
        heartbeat = self.registry.beat("1", RUNNING).heartbeat
        self.assertEqual((heartbeat.beats, heartbeat.longest_gap), (4, 4.0))

    def test_a_silence_counts_up_to_the_stop_and_from_the_start_on(self) -> None:
        self.registry.beat("1", DISCONNECTED)
        self.clock.advance(FUSE - 1)
        self.restart()
        self.clock.advance(1)
        self.registry.kick("1")
        ended = self.changes[-1].ended
        assert ended is not None
        self.assertEqual(ended.longest_gap_seconds, FUSE - 1)


class TestOrder(RegistryTestCase):
    """In which order the clients are."""

    def test_they_are_in_the_order_of_their_registration(self) -> None:
        for client_id in ("1", "2", "3", "2"):
            self.registry.beat(client_id, RUNNING)
            self.registry.beat(client_id, DISCONNECTED)
        lives = [client.incarnation for client in self.registry]
        self.assertEqual(lives, sorted(lives))
        self.assertEqual(self.registry.client_ids(), ["1", "3", "2"])
        for number, life in enumerate(lives):
            after = self.registry.client_ids(life)
            self.assertEqual(after, ["1", "3", "2"][number + 1 :])

    def test_a_life_that_the_store_knows_better_has_its_place_there(self) -> None:
        for client_id in ("1", "2", "3"):
            self.registry.beat(client_id, RUNNING)
        former = self.registry.get("1").snapshot()
        self.registry.kick("1")
        self.registry.replace("1", former)
        self.assertEqual(self.registry.client_ids(), ["1", "2", "3"])
        self.assertEqual(self.registry.client_ids(101), ["2", "3"])


class TestAdmission(RegistryTestCase):
    """No change that is asked for happens while none can be kept."""

    def setUp(self) -> None:
        """Client 1 lives, and has reported; the store is in trouble."""
        super().setUp()
        self.registry.beat("1", RUNNING, "a")
        self.registry.admit = self.refuse

    def refuse(self) -> None:
        """Nothing can be kept now."""
        raise Overloaded("the disk is full", "1")

    def test_changes_are_refused_before_anything_happens(self) -> None:
        for call in (
            lambda: self.registry.beat("1", DISCONNECTED, "a"),
            lambda: self.registry.beat("1", RUNNING, "b"),
            lambda: self.registry.set_state("1", CALIBRATED),
            lambda: self.registry.steer("1", RUNNING),
            lambda: self.registry.goodbye("1"),
            lambda: self.registry.kick("1"),
            lambda: self.registry.beat("2", DISCONNECTED),
        ):
            self.assert_refused(Overloaded, call)
        self.assert_dead("2")
        self.registry.set_state("1", UNCALIBRATED, 101, "a")
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)

    def test_refused_registrations_use_up_no_incarnation(self) -> None:
        self.assert_refused(Overloaded, self.registry.beat, "2", DISCONNECTED)
        self.registry.admit = lambda: None
        self.assertEqual(self.registry.beat("2", DISCONNECTED).incarnation, 102)

    def test_ordinary_beats_pass_and_reset_the_timebomb(self) -> None:
        for _ in range(3):
            self.clock.advance(FUSE - 1)
            self.registry.beat("1", CALIBRATED, "a")
        self.assert_alive()

    def test_broken_rules_are_told_first(self) -> None:
        self.assert_refused(IllegalTransition, self.registry.set_state, "1", RUNNING)
        self.assert_refused(StaleIncarnation, self.registry.goodbye, "1", 7)
        self.assertRaises(UnknownClient, self.registry.kick, "2")

    def test_timebombs_explode_all_the_same(self) -> None:
        self.clock.advance(FUSE)
        self.assert_dead()
        self.assertIs(self.changes[-1].reason, Reason.TIMEBOMB)


class TestLimit(RegistryTestCase):
    """How many may live, and how many may register."""

    def test_no_more_live_than_may(self) -> None:
        self.registry.max_clients = 2
        self.registry.beat("1", RUNNING)
        self.registry.beat("2", DISCONNECTED)
        error = self.assertRaises(Overloaded, self.registry.beat, "3", DISCONNECTED)
        self.assertEqual(cast("HeartbeatError", error).client_id, "3")
        self.assertIn("2 clients", str(error))
        self.registry.kick("2")
        self.registry.beat("3", DISCONNECTED)

    def test_who_lives_may_begin_a_new_life_though_the_place_is_full(self) -> None:
        self.registry.max_clients = 1
        self.registry.beat("1", RUNNING)
        self.registry.beat("1", DISCONNECTED)
        self.registry.beat("1", DISCONNECTED, "b")
        self.assertEqual(self.registry.get("1").incarnation, 103)

    def test_more_may_be_restored_than_may_register(self) -> None:
        self.registry.max_clients = 1
        clients = [self.registry.beat("1", DISCONNECTED).snapshot()]
        clients.append(replace(clients[0], client_id="2", incarnation=102))
        list(self.registry.defuse_all())
        list(self.registry.restore(StoredState(102, clients)))
        self.assertEqual(len(self.registry), 2)

    def test_no_more_register_in_a_second_than_may(self) -> None:
        self.registry.registrations = RateLimit(self.clock, 2)
        self.registry.beat("1", RUNNING)
        self.registry.beat("2", RUNNING)
        self.assertRaises(Overloaded, self.registry.beat, "3", RUNNING)
        self.assertEqual(len(self.changes), 2)
        self.registry.beat("1", RUNNING)
        self.clock.advance(0.5)
        self.registry.beat("3", RUNNING)

    def test_a_new_life_counts_as_a_registration(self) -> None:
        self.registry.registrations = RateLimit(self.clock, 1)
        self.registry.beat("1", RUNNING)
        self.assert_refused(Overloaded, self.registry.beat, "1", DISCONNECTED)
        self.assert_refused(Overloaded, self.registry.beat, "1", RUNNING, "another")
        self.registry.beat("1", RUNNING)
        self.clock.advance(1)
        self.registry.beat("1", DISCONNECTED)
        self.assertEqual(self.changes[-1].reason, Reason.RECONNECT)

    def test_one_client_begins_no_more_than_10_lives_a_second(self) -> None:
        names = itertools.count()

        def begin() -> None:
            self.registry.beat("1", RUNNING, f"process {next(names)}")

        for _ in range(10):
            begin()
        self.assert_refused(Overloaded, begin)
        self.registry.beat("2", RUNNING)
        for _ in range(3):
            self.clock.advance(0.4)
            self.registry.beat("1", RUNNING)
        begin()
        self.assertEqual(len(self.changes), 12)

    def test_who_leaves_and_comes_back_begins_no_more_lives_than_others(self) -> None:
        for _ in range(10):
            self.registry.beat("1", RUNNING)
            self.registry.goodbye("1")
        self.assert_refused(Overloaded, self.registry.beat, "1", RUNNING)

    def test_who_is_refused_a_new_life_keeps_the_one_it_has(self) -> None:
        self.registry.registrations = RateLimit(self.clock, 1)
        self.registry.beat("1", RUNNING)
        for _ in range(3):
            self.clock.advance(FUSE - 1)
            self.registry.registrations.take()
            self.assertRaises(Overloaded, self.registry.beat, "1", DISCONNECTED)
        self.assert_alive()

    def test_a_beat_that_is_refused_a_new_life_resets_the_timebomb(self) -> None:
        self.registry.beat("1", RUNNING)

        def refuse() -> None:
            raise Overloaded("the disk is full")

        self.registry.admit = refuse
        for _ in range(3):
            self.clock.advance(FUSE - 1)
            self.assertRaises(Overloaded, self.registry.beat, "1", DISCONNECTED)
        self.assert_alive()
        self.clock.advance(FUSE)
        self.assert_dead()

    def test_refused_for_another_reason_a_registration_does_not_count(self) -> None:
        self.registry.registrations = RateLimit(self.clock, 1)
        self.registry.max_clients = 0
        self.assertRaises(Overloaded, self.registry.beat, "1", DISCONNECTED)
        self.registry.max_clients = 1
        self.registry.beat("1", DISCONNECTED)


class TestLockout(RegistryTestCase):
    """An operator keeps a client out."""

    def test_it_is_kicked_and_its_heartbeats_are_refused_until_then(self) -> None:
        self.registry.beat("1", RUNNING)
        self.registry.lock_out("1", 600)
        self.assert_dead()
        self.assertIs(self.changes[-1].reason, Reason.KICK)
        self.clock.advance(599)
        error = self.assert_refused(LockedOut, self.registry.beat, "1", DISCONNECTED)
        self.assertIn("1 s more", error.detail)
        self.clock.advance(1)
        self.registry.beat("1", DISCONNECTED)
        self.assert_alive()

    def test_others_are_not_kept_out(self) -> None:
        self.registry.lock_out("1", 600)
        self.registry.beat("10", DISCONNECTED)
        self.assert_alive("10")

    def test_zero_seconds_take_it_back(self) -> None:
        self.registry.lock_out("1", 600)
        self.registry.lock_out("1", 0)
        self.registry.beat("1", DISCONNECTED)
        self.registry.lock_out("1", 0)
        self.assert_alive()

    def test_a_routes_own_kind_of_string_is_not_written_down(self) -> None:
        for seconds in (600, 0):
            self.registry.lock_out(ClientID("1"), seconds)
        kinds = [type(fact.client_id) for fact in self.facts]
        self.assertEqual(kinds, [str, str])

    def test_the_last_word_counts(self) -> None:
        for first, second in ((600, 5), (5, 600)):
            self.registry.lock_out("1", first)
            self.registry.lock_out("1", second)
            self.clock.advance(second - 1)
            self.assert_refused(LockedOut, self.registry.beat, "1", DISCONNECTED)
            self.clock.advance(1)
            self.registry.beat("1", DISCONNECTED)

    def test_it_outlives_a_restart_for_as_long_as_is_left(self) -> None:
        self.registry.beat("1", RUNNING)
        self.registry.lock_out("1", 600)
        self.registry.lock_out("2", 10)
        stored = stored_state(self.facts)
        self.clock.advance(100)
        self.registry = self.new_registry()
        list(self.registry.restore(stored))
        self.clock.advance(499)
        self.registry.beat("2", RUNNING)
        self.assert_refused(LockedOut, self.registry.beat, "1", DISCONNECTED)
        self.clock.advance(1)
        self.registry.beat("1", DISCONNECTED)

    def test_it_names_the_life_that_it_ended_also_when_it_is_over(self) -> None:
        lives = [self.registry.beat(name, RUNNING).incarnation for name in "12"]
        for name in "123":
            self.registry.lock_out(name, 600)
        self.registry.lock_out("1", 300)
        self.registry.lock_out("2", 0)
        self.clock.advance(600)
        told = [fact for fact in self.facts if isinstance(fact, Lockout)]
        for name, life in zip("123", (*lives, None), strict=True):
            named = [one.incarnation for one in told if one.client_id == name]
            self.assertEqual(set(named), {life}, name)

    def test_the_store_is_told_when_it_is_over(self) -> None:
        self.registry.lock_out("1", 600)
        self.registry.lock_out("2", 600)
        self.registry.lock_out("2", 0)
        self.clock.advance(600)
        self.assertEqual(stored_state(self.facts).lockouts, [])

    def test_no_more_are_kept_out_than_may_live(self) -> None:
        self.registry = self.new_registry(max_clients=2)
        self.registry.beat("3", RUNNING)
        for client_id in ("1", "2"):
            self.registry.lock_out(client_id, 600)
        with self.assertRaisesRegex(Overloaded, "2 clients"):
            self.registry.lock_out("3", 600)
        self.assert_alive("3")
        self.registry.lock_out("2", 300)  # one who is kept out already
        self.registry.lock_out("1", 0)
        self.registry.lock_out("3", 600)
        self.assertEqual(self.registry.lockouts.client_ids(), ["2", "3"])

    def test_while_the_store_is_in_trouble_nobody_is_locked_out(self) -> None:
        self.registry.beat("1", RUNNING)

        def refuse() -> None:
            raise Overloaded("the disk is full", "1")

        self.registry.admit = refuse
        self.assert_refused(Overloaded, self.registry.lock_out, "1", 600)
        self.registry.beat("1", RUNNING)


class TestLongestFuse(RegistryTestCase):
    """How long a fuse a client may ask for."""

    def test_nobody_gets_a_longer_fuse_than_is_granted(self) -> None:
        self.registry.longest_fuse = 20.0
        for asked, granted in ((1e9, 20.0), (15.0, 15.0), (0.01, 0.1)):
            client = self.registry.beat("1", RUNNING, fuse=asked)
            self.assertEqual(client.heartbeat.fuse, granted)
            client = self.registry.beat(f"at {asked}", RUNNING, fuse=asked)
            self.assertEqual(client.heartbeat.fuse, granted)

    def test_a_lower_limit_holds_after_a_restart(self) -> None:
        for fuse in (3600.0, 5.0):
            self.registry.beat(f"fuse {fuse:g}", RUNNING, fuse=fuse)
        stored = stored_state(self.facts)
        for default, granted in ((10.0, [20.0, 5.0]), (30.0, [30.0, 5.0])):
            self.registry = self.new_registry()
            self.registry.default_fuse = default
            self.registry.longest_fuse = 20.0
            list(self.registry.restore(stored))
            fuses = [client.heartbeat.fuse for client in self.registry]
            self.assertEqual(fuses, granted)

    def test_without_a_limit_it_is_an_hour(self) -> None:
        client = self.registry.beat("1", RUNNING, fuse=1e9)
        self.assertEqual(client.heartbeat.fuse, 3600.0)


class TestRateLimit(SynchronousTestCase):
    """So many a second, and as many at once after a quiet second."""

    def setUp(self) -> None:
        """Begin with four a second."""
        self.clock = Clock()
        self.limit = RateLimit(self.clock, 4)

    def taken(self) -> int:
        """How many may happen now."""
        taken = 0
        while self.limit.take():
            taken += 1
        return taken

    def test_as_many_at_once_as_in_a_second(self) -> None:
        self.assertEqual(self.taken(), 4)
        self.assertEqual(self.taken(), 0)

    def test_after_a_while_so_many_more(self) -> None:
        self.taken()
        for seconds, more in ((0.125, 0), (0.125, 1), (0.5, 2), (1.0, 4)):
            self.clock.advance(seconds)
            self.assertEqual(self.taken(), more)

    def test_quiet_time_is_not_saved_up(self) -> None:
        self.clock.advance(3600)
        self.assertEqual(self.taken(), 4)

    def test_over_a_long_time_it_is_as_many_a_second(self) -> None:
        self.taken()
        happened = 0
        for _ in range(1000):
            self.clock.advance(0.01)
            happened += self.limit.take()
        self.assertIn(happened, (39, 40))
