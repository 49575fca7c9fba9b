"""The referee finds each kind of broken promise, and accuses nobody else."""

from __future__ import annotations

from typing import Any

from msgspec import UNSET
from twisted.trial.unittest import SynchronousTestCase

from heartbeat_service.core.changes import Reason
from heartbeat_service.core.states import ClientState
from heartbeat_service.protocol.messages import (
    ClientID,
    ClientStateMessage,
    ErrorMessage,
    HeartbeatMessage,
    OnStateChange,
)
from heartbeat_service.simulator.referee import MARGIN, MOST_TOLD, Referee
from heartbeat_service.simulator.transport import NoAnswer
from heartbeat_service.simulator.virtual_clock import VirtualClock

FUSE = 10.0
ONE = ClientID("1")
BEAT = HeartbeatMessage(client_id=ONE, client_state=ClientState.DISCONNECTED)


def reply(
    state: ClientState = ClientState.UNCALIBRATED,
    sequence: int = 1,
    incarnation: int = 7,
    client_id: ClientID = ONE,
) -> ClientStateMessage:
    return ClientStateMessage(
        client_id=client_id,
        client_state=state,
        sequence=sequence,
        incarnation=incarnation,
        timebomb_seconds=FUSE,
        heartbeat_interval_seconds=2.0,
        request_endpoint="",
        state_change_endpoint="",
    )


def change(
    state: ClientState, sequence: int, reason: Reason, incarnation: int = 7
) -> OnStateChange:
    return OnStateChange(
        client_id=ONE,
        client_state=state,
        previous_state=ClientState.UNCALIBRATED,
        reason=reason,
        sequence=sequence,
        incarnation=incarnation,
        instance_id=UNSET,
    )


class TestReferee(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = VirtualClock()
        self.referee = Referee(self.clock)

    def wait(self, seconds: float) -> None:
        self.clock.run_until(self.clock.seconds() + seconds)

    def beat(self, took: float = 0.0, **of: Any) -> None:
        """A beat is sent, and answered after a while."""
        sent_at = self.referee.sent(BEAT)
        self.wait(took)
        self.referee.answered(BEAT, sent_at, reply(**of))

    def dies(self, sequence: int = 2, incarnation: int = 7) -> None:
        death = change(ClientState.DISCONNECTED, sequence, Reason.TIMEBOMB, incarnation)
        self.referee.heard(death)

    def lose_sight(self) -> None:
        self.referee.lost_sight()

    def assert_broken(self, words: str) -> None:
        self.assertFalse(self.referee.kept)
        [told] = self.referee.broken
        self.assertIn(words, told)

    def assert_kept(self) -> None:
        self.assertEqual(self.referee.broken, [])
        self.assertTrue(self.referee.kept)

    def test_a_death_before_the_fuse_is_over_is_false(self) -> None:
        self.beat()
        self.wait(FUSE - 0.1)
        self.dies()
        self.assertEqual(self.referee.false_deaths, 1)
        self.assert_broken("died 9.900 s after a beat")

    def test_a_death_when_the_fuse_is_over_is_a_death(self) -> None:
        self.beat()
        self.wait(FUSE)
        self.dies()
        self.assert_kept()
        self.assertEqual(self.referee.deaths_expected, 1)
        self.assertEqual(self.referee.deaths_seen, 1)

    def test_a_fuse_may_have_begun_when_the_beat_was_sent(self) -> None:
        self.beat(took=3.0)
        self.wait(FUSE - 3.0)
        self.dies()
        self.assert_kept()

    def test_a_late_word_of_a_former_life_is_held_against_that_life(self) -> None:
        self.beat()
        self.wait(FUSE)
        self.beat(incarnation=8)
        self.dies()
        self.assert_kept()
        self.dies(incarnation=8)
        self.assert_broken("died 0.000 s after a beat")

    def test_a_death_that_does_not_come_is_missed(self) -> None:
        self.beat()
        self.referee.will_be_silent(ONE)
        self.wait(FUSE + MARGIN - 0.1)
        self.assert_kept()
        self.wait(0.2)
        self.assertEqual(self.referee.missed_deaths, 1)
        self.assert_broken("1 lives, 12.0")

    def test_no_death_is_missed_of_who_has_beaten_again_left_or_begun_anew(
        self,
    ) -> None:
        for ends in (
            self.beat,
            lambda: self.beat(incarnation=8),
            lambda: self.referee.heard(
                change(ClientState.DISCONNECTED, 2, Reason.GOODBYE)
            ),
            self.lose_sight,
        ):
            self.setUp()
            self.beat()
            self.referee.will_be_silent(ONE)
            self.wait(FUSE / 2)
            ends()
            self.wait(2 * FUSE)
            self.assert_kept()

    def test_a_service_that_was_out_of_reach_has_a_full_fuse_more(self) -> None:
        self.beat()
        self.referee.will_be_silent(ONE)
        self.wait(FUSE / 2)
        self.referee.answered(BEAT, self.clock.seconds(), NoAnswer("it was away"))
        self.wait(FUSE + MARGIN - 0.1)
        self.assert_kept()
        self.wait(0.2)
        self.assertEqual(self.referee.missed_deaths, 1)

    def test_a_pair_stands_for_one_state(self) -> None:
        self.beat()
        self.beat(state=ClientState.CALIBRATED, sequence=2)
        self.beat(state=ClientState.RUNNING, sequence=2)
        self.assert_broken("(7, 2) is RUNNING, and was CALIBRATED")

    def test_what_is_published_and_what_is_answered_agree(self) -> None:
        self.beat()
        self.referee.heard(change(ClientState.CALIBRATED, 2, Reason.CLIENT))
        self.beat(state=ClientState.UNCALIBRATED, sequence=2)
        self.assert_broken("(7, 2) is UNCALIBRATED, and was CALIBRATED")

    def test_a_life_begins_uncalibrated(self) -> None:
        self.beat(state=ClientState.RUNNING)
        self.assert_broken("1 began a life as RUNNING")

    def test_nothing_is_published_twice_or_backwards(self) -> None:
        self.referee.heard(change(ClientState.CALIBRATED, 2, Reason.CLIENT))
        self.referee.heard(change(ClientState.CALIBRATED, 2, Reason.CLIENT))
        self.assert_broken("2 was published after 2")

    def test_nobody_is_answered_for_another(self) -> None:
        self.beat(client_id=ClientID("2"))
        self.assert_broken("1 was answered for another")

    def test_a_lost_publication_breaks_no_promise_and_is_counted(self) -> None:
        self.referee.heard(change(ClientState.UNCALIBRATED, 1, Reason.HEARTBEAT))
        self.referee.heard(change(ClientState.RUNNING, 4, Reason.OPERATOR))
        self.assert_kept()
        self.assertEqual(self.referee.lost_publications, 2)

    def test_a_push_takes_the_time_since_the_request_that_caused_it(self) -> None:
        self.referee.sent(BEAT)
        self.wait(0.25)
        self.referee.heard(change(ClientState.UNCALIBRATED, 1, Reason.HEARTBEAT))
        self.assertEqual([*self.referee.push_times], [0.25])

    def test_a_death_is_late_by_what_passes_after_its_fuse(self) -> None:
        self.beat()
        self.wait(FUSE + 0.5)
        self.dies()
        self.assertEqual([*self.referee.death_times], [0.5])

    def test_refusals_are_counted_by_their_codes(self) -> None:
        refused = ErrorMessage(code="OVERLOADED", detail="")
        self.referee.answered(BEAT, self.referee.sent(BEAT), refused)
        self.assertEqual(self.referee.errors, {"OVERLOADED": 1})
        self.assert_kept()

    def test_not_more_than_some_broken_promises_are_told_in_full(self) -> None:
        for _ in range(MOST_TOLD + 5):
            self.beat(client_id=ClientID("2"))
        self.assertEqual(self.referee.contradictions, MOST_TOLD + 5)
        self.assertEqual(len(self.referee.broken), MOST_TOLD)
