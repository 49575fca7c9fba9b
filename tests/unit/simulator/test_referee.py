"""The referee: it finds each kind of broken promise, and accuses nobody else."""

from __future__ import annotations

from twisted.internet.task import Clock
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
from heartbeat_service.simulator.referee import MARGIN, Referee
from heartbeat_service.simulator.transport import NoAnswer

FUSE = 10.0
C = ClientID("C")
DISCONNECTED, UNCALIBRATED = ClientState.DISCONNECTED, ClientState.UNCALIBRATED
CALIBRATED, RUNNING = ClientState.CALIBRATED, ClientState.RUNNING


class RefereeCase(SynchronousTestCase):
    """A referee at a clock, and a service that says what a test lets it say."""

    def setUp(self) -> None:
        """Begin at 100 s."""
        self.clock = Clock()
        self.clock.advance(100)
        self.referee = Referee(self.clock)

    def beat(
        self,
        *,
        client_id: ClientID = C,
        sequence: int = 1,
        incarnation: int = 1,
        state: ClientState = UNCALIBRATED,
        takes: float = 0.0,
    ) -> None:
        """A beat of C's, answered after so many seconds."""
        request = HeartbeatMessage(C, DISCONNECTED)
        sent_at = self.referee.sent(request)
        self.clock.advance(takes)
        answer = ClientStateMessage(
            client_id,
            state,
            sequence,
            incarnation,
            FUSE,
            2.0,
            "tcp://127.0.0.1:1",
            "tcp://127.0.0.1:2",
        )
        self.referee.answered(request, sent_at, answer)

    def publish(
        self,
        sequence: int = 1,
        state: ClientState = UNCALIBRATED,
        reason: Reason = Reason.HEARTBEAT,
        incarnation: int = 1,
    ) -> None:
        """A publication about C."""
        self.referee.heard(
            OnStateChange(C, state, DISCONNECTED, reason, sequence, incarnation)
        )

    def die(self, sequence: int = 2, incarnation: int = 1) -> None:
        """C's timebomb goes off."""
        self.publish(sequence, DISCONNECTED, Reason.TIMEBOMB, incarnation)

    def assertKept(self) -> None:
        """Nobody was accused."""
        self.assertEqual((self.referee.broken, self.referee.kept), ([], True))

    def assertBroken(self, why: str) -> None:
        """One promise was broken, and is named so."""
        self.assertEqual(len(self.referee.broken), 1, self.referee.broken)
        self.assertIn(why, self.referee.broken[0])
        self.assertFalse(self.referee.kept)


class TestDeathsThatCame(RefereeCase):
    """A death may come a fuse after the last answered beat, not before."""

    def test_one_before_the_fuse_has_burnt_is_false(self) -> None:
        self.beat()
        self.clock.advance(FUSE - 0.1)
        self.die()
        self.assertBroken("C died 9.900 s after a beat was answered")
        self.assertEqual(self.referee.false_deaths, 1)

    def test_one_when_the_fuse_has_burnt_is_none(self) -> None:
        self.beat()
        self.clock.advance(FUSE)
        self.die()
        self.assertKept()
        self.assertEqual(
            (self.referee.deaths_seen, self.referee.deaths_expected), (1, 1)
        )

    def test_the_fuse_may_burn_from_when_the_beat_left(self) -> None:
        self.beat(takes=1)
        self.clock.advance(FUSE - 1)
        self.die()
        self.assertKept()

    def test_a_beat_that_nobody_answered_puts_off_nothing(self) -> None:
        self.beat()
        self.clock.advance(FUSE / 2)
        lost = HeartbeatMessage(C, UNCALIBRATED)
        self.referee.answered(lost, self.referee.sent(lost), NoAnswer("lost"))
        self.clock.advance(FUSE / 2)
        self.die()
        self.assertKept()

    def test_an_answer_that_overtakes_another_does_not_shorten_a_fuse(self) -> None:
        first = HeartbeatMessage(C, DISCONNECTED)
        sent_at = self.referee.sent(first)
        self.clock.advance(1)
        self.beat()
        answer = ClientStateMessage(
            C, UNCALIBRATED, 1, 1, FUSE, 2.0, "tcp://a:1", "tcp://a:2"
        )
        self.referee.answered(first, sent_at, answer)
        self.clock.advance(FUSE - 0.5)
        self.die()
        self.assertBroken("died")

    def test_how_late_it_was_is_told(self) -> None:
        self.beat(takes=0.5)
        self.clock.advance(FUSE + 0.25)
        self.die()
        self.assertEqual(list(self.referee.death_times), [0.25])


class TestDeathsThatDidNotCome(RefereeCase):
    """Who beats no more must die within a fuse and a margin."""

    def silence(self) -> None:
        """C has beaten, and beats no more."""
        self.beat()
        self.publish()
        self.referee.will_be_silent(C)

    def test_it_is_missed(self) -> None:
        self.silence()
        self.clock.pump([1] * int(FUSE + MARGIN + 1))
        self.assertBroken("C lives, ")
        self.assertEqual(
            (self.referee.missed_deaths, self.referee.deaths_expected), (1, 1)
        )

    def test_it_has_its_margin(self) -> None:
        self.silence()
        self.clock.advance(FUSE + MARGIN - 0.1)
        self.assertKept()
        self.die()
        self.clock.advance(FUSE)
        self.assertKept()

    def test_a_stall_puts_it_off(self) -> None:
        self.silence()
        self.clock.advance(FUSE - 1)
        self.referee.stalled(5)
        self.clock.advance(FUSE)
        self.assertKept()

    def test_a_stall_does_not_excuse_it_for_ever(self) -> None:
        self.silence()
        self.referee.stalled(5)
        self.clock.pump([1] * int(FUSE + MARGIN + 6))
        self.assertBroken("C lives")

    def test_nobody_waits_for_one_that_could_not_be_heard(self) -> None:
        self.silence()
        self.referee.lost_sight()
        self.clock.pump([FUSE] * 3)
        self.assertKept()

    def test_nor_for_one_that_began_to_be_silent_while_nothing_was_heard(self) -> None:
        self.beat()
        self.publish()
        self.referee.lost_sight()
        self.referee.will_be_silent(C)
        self.clock.advance(FUSE)
        self.referee.sees_again()
        self.clock.pump([FUSE] * 3)
        self.assertKept()

    def test_nor_before_anything_is_heard_again(self) -> None:
        self.beat()
        self.publish()
        self.referee.lost_sight()
        self.referee.will_be_silent(C)
        self.clock.pump([FUSE] * 3)
        self.assertKept()

    def test_once_it_sees_again_it_is_waited_for_again(self) -> None:
        self.referee.lost_sight()
        self.referee.sees_again()
        self.silence()
        self.clock.pump([1] * int(FUSE + MARGIN + 1))
        self.assertBroken("C lives")

    def test_another_beat_of_its_takes_the_expectation_back(self) -> None:
        self.silence()
        self.clock.advance(FUSE)
        self.beat()
        self.clock.advance(FUSE)
        self.assertKept()

    def test_a_newer_life_takes_the_expectation_back(self) -> None:
        self.silence()
        self.clock.advance(FUSE)
        self.publish(incarnation=2)
        self.clock.advance(FUSE)
        self.assertKept()

    def test_who_said_goodbye_needs_not_die(self) -> None:
        self.silence()
        self.publish(2, DISCONNECTED, Reason.GOODBYE)
        self.clock.pump([FUSE] * 3)
        self.assertKept()

    def test_an_answer_under_way_is_waited_for(self) -> None:
        first = HeartbeatMessage(C, DISCONNECTED)
        sent_at = self.referee.sent(first)
        self.publish()
        self.referee.will_be_silent(C)
        self.clock.advance(MARGIN)
        answer = ClientStateMessage(
            C, UNCALIBRATED, 1, 1, FUSE, 2.0, "tcp://a:1", "tcp://a:2"
        )
        self.referee.answered(first, sent_at, answer)
        self.clock.advance(FUSE - 0.1)
        self.assertKept()
        self.clock.pump([1] * int(2 * MARGIN + 2))
        self.assertBroken("C lives")


class TestContradictions(RefereeCase):
    """What can't be true together."""

    def test_a_sequence_that_is_published_twice(self) -> None:
        self.publish()
        self.publish()
        self.assertBroken("C: 1 was published after 1")

    def test_a_sequence_that_goes_back(self) -> None:
        self.publish(1)
        self.publish(3, CALIBRATED, Reason.CLIENT)
        self.publish(2, RUNNING, Reason.CLIENT)
        self.assertBroken("C: 2 was published after 3")

    def test_one_pair_that_is_two_states(self) -> None:
        self.publish(2, CALIBRATED, Reason.CLIENT)
        self.beat(sequence=2, state=RUNNING)
        self.assertBroken("C: (1, 2) is RUNNING, and was CALIBRATED")

    def test_a_life_that_begins_as_running(self) -> None:
        self.beat(state=RUNNING)
        self.assertBroken("C began a life as RUNNING")

    def test_an_answer_that_is_for_another(self) -> None:
        self.beat(client_id=ClientID("D"))
        self.assertBroken("C was answered for another")

    def test_each_life_counts_from_one(self) -> None:
        self.publish(1)
        self.publish(2, CALIBRATED, Reason.CLIENT)
        self.publish(1, incarnation=2)
        self.assertKept()

    def test_a_gap_is_a_lost_publication_and_no_lie(self) -> None:
        self.publish(1)
        self.publish(4, CALIBRATED, Reason.CLIENT)
        self.assertKept()
        self.assertEqual(self.referee.lost_publications, 2)

    def test_a_late_answer_may_tell_of_a_former_life(self) -> None:
        self.beat()
        self.publish(1, incarnation=2)
        self.beat(sequence=2, state=CALIBRATED)
        self.assertKept()

    def test_a_publication_may_come_before_its_answer(self) -> None:
        self.publish(1)
        self.publish(2, CALIBRATED, Reason.CLIENT)
        self.beat(sequence=2, state=CALIBRATED)
        self.beat(sequence=1)
        self.assertKept()


class TestFigures(RefereeCase):
    """What is counted on the way."""

    def test_a_push_takes_from_the_request_to_the_publication(self) -> None:
        self.referee.sent(HeartbeatMessage(C, DISCONNECTED))
        self.clock.advance(0.5)
        self.publish()
        self.assertEqual(list(self.referee.push_times), [0.5])

    def test_what_an_operator_does_is_no_push_of_a_clients(self) -> None:
        self.referee.sent(HeartbeatMessage(C, DISCONNECTED))
        self.publish(2, CALIBRATED, Reason.OPERATOR)
        self.assertEqual(list(self.referee.push_times), [])

    def test_refusals_are_counted_by_their_code(self) -> None:
        request = HeartbeatMessage(C, DISCONNECTED)
        sent_at = self.referee.sent(request)
        self.referee.answered(request, sent_at, ErrorMessage("OVERLOADED", "Later"))
        self.assertEqual(dict(self.referee.errors), {"OVERLOADED": 1})
        self.assertKept()

    def test_what_is_answered_is_counted(self) -> None:
        self.beat(takes=0.25)
        self.beat()
        self.assertEqual((self.referee.beats, self.referee.registrations), (2, 1))
        self.assertEqual(self.referee.slowest, 0.25)
