"""The client's side: what a session makes of what happens, in whatever order.

The first part has one test for each rule; the last lets Hypothesis lose, repeat
and reorder what a real registry says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import UNSET, Raw, UnsetType
from msgspec.structs import replace
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from heartbeat_service.core.changes import Change, Fact, Reason
from heartbeat_service.core.errors import HeartbeatError
from heartbeat_service.core.heartbeat import LONGEST_FUSE, SHORTEST_FUSE
from heartbeat_service.core.registry import Registry
from heartbeat_service.core.states import ClientState
from heartbeat_service.game_client.actions import (
    LONGEST_TEXT,
    Action,
    AskAgainAfter,
    BeatAfter,
    OpenSockets,
    Refused,
    SendHeartbeat,
    SendRequest,
    ServerLost,
    StateChanged,
    Superseded,
    ZmqBack,
    ZmqLost,
)
from heartbeat_service.game_client.session import (
    ANSWER_PATIENCE,
    FIRST_INTERVAL,
    FIRST_TIMEBOMB,
    LONGEST_BACKOFF,
    LONGEST_PATIENCE,
    SHORTEST_INTERVAL,
    Session,
)
from heartbeat_service.protocol.messages import (
    ClientID,
    ClientStateMessage,
    ErrorMessage,
    GetClientState,
    Goodbye,
    HeartbeatMessage,
    OnStateChange,
    Request,
    SetClientState,
    as_state,
)

DISCONNECTED, UNCALIBRATED, CALIBRATED, RUNNING = ClientState
LIVING = (UNCALIBRATED, CALIBRATED, RUNNING)

CLIENT = ClientID("1")
INSTANCE = "this process"
INTERVAL = 2.0
SOCKETS = OpenSockets("tcp://server:8765", "tcp://server:4321")
ASK = SendRequest(GetClientState(client_id=CLIENT, instance_id=INSTANCE))
NOW = BeatAfter(SHORTEST_INTERVAL)
AGAIN = AskAgainAfter(ANSWER_PATIENCE)
SUPERSEDED = ErrorMessage(code="INSTANCE_SUPERSEDED", detail="another is here")
OVERLOADED = ErrorMessage(code="OVERLOADED", detail="later", client_id=CLIENT)
SUPERSESSION = Superseded("another is here")

T = TypeVar("T")


def new_session(random: float = 0.0, own_timebomb: float | None = None) -> Session:
    """A session that has not begun, whose random number is always the same."""
    return Session(CLIENT, INSTANCE, lambda: random, own_timebomb)


def says(
    incarnation: int,
    sequence: int,
    state: ClientState = UNCALIBRATED,
    sockets: OpenSockets = SOCKETS,
    interval: float = INTERVAL,
    timebomb: float = 10.0,
) -> ClientStateMessage:
    """What the server replies."""
    return ClientStateMessage(
        client_id=CLIENT,
        client_state=state,
        sequence=sequence,
        incarnation=incarnation,
        timebomb_seconds=timebomb,
        heartbeat_interval_seconds=interval,
        request_endpoint=sockets.request_endpoint,
        state_change_endpoint=sockets.state_change_endpoint,
    )


def publishes(
    incarnation: int, sequence: int, state: ClientState = UNCALIBRATED
) -> OnStateChange:
    """What the server publishes."""
    return OnStateChange(
        client_id=CLIENT,
        client_state=state,
        previous_state=DISCONNECTED,
        reason=Reason.OPERATOR,
        sequence=sequence,
        incarnation=incarnation,
    )


def initialised(session: Session | None = None) -> Session:
    """A session in its first life, 7, UNCALIBRATED with sequence 1."""
    session = session or new_session()
    session.beat_answered(says(7, 1))
    session.zmq_connected()
    session.request_answered(says(7, 1))
    return session


def told(actions: Sequence[Action], type_: type[T]) -> list[T]:
    """The actions of one kind."""
    return [action for action in actions if isinstance(action, type_)]


def next_beat(actions: Sequence[Action]) -> float:
    """When the one next beat is due."""
    (after,) = told(actions, BeatAfter)
    return after.seconds


class TestBeginning(SynchronousTestCase):
    def test_first_heartbeat_says_disconnected_and_names_the_process(self) -> None:
        self.assertEqual(
            new_session().beat(Raw(b'{"fps":60}')),
            [
                SendHeartbeat(
                    HeartbeatMessage(
                        client_id=CLIENT,
                        client_state=DISCONNECTED,
                        instance_id=INSTANCE,
                        values=Raw(b'{"fps":60}'),
                    )
                )
            ],
        )

    def test_order_of_the_seed(self) -> None:
        session = new_session()
        self.assertEqual(len(told(session.beat(), SendHeartbeat)), 1)
        self.assertEqual(
            session.beat_answered(says(7, 1)), [SOCKETS, ASK, BeatAfter(INTERVAL)]
        )
        self.assertFalse(session.initialised)
        self.assertEqual(
            session.request_answered(says(7, 1)), [StateChanged(UNCALIBRATED, 7, 1)]
        )
        self.assertTrue(session.initialised)

    def test_state_stays_disconnected_until_the_answer(self) -> None:
        session = new_session()
        session.beat_answered(says(7, 1))
        self.assertEqual(session.state, DISCONNECTED)
        (again,) = told(session.beat(), SendHeartbeat)
        self.assertEqual(again.message.client_state, DISCONNECTED)

    def test_asks_again_at_each_beat_until_answered(self) -> None:
        session = new_session()
        for _ in range(3):
            self.assertIn(ASK, session.beat_answered(says(7, 1)))
        session.request_answered(says(7, 1))
        self.assertNotIn(ASK, session.beat_answered(says(7, 1)))

    def test_initialised_once_however_often_it_is_answered(self) -> None:
        session = new_session()
        session.beat_answered(says(7, 1))
        session.beat_answered(says(7, 1))
        events = [
            event
            for _ in range(3)
            for event in session.request_answered(says(7, 2, CALIBRATED))
        ]
        self.assertEqual(events, [StateChanged(CALIBRATED, 7, 2)])

    def test_answers_that_overtake_each_other_initialise_once(self) -> None:
        session = new_session()
        session.beat_answered(says(7, 1))
        newer = session.request_answered(says(7, 2, CALIBRATED))
        older = session.request_answered(says(7, 1))
        self.assertEqual(newer, [StateChanged(CALIBRATED, 7, 2)])
        self.assertEqual(older, [])

    def test_without_any_answer_it_agrees_one_beat_later(self) -> None:
        session = new_session()
        session.beat_answered(says(7, 1))
        actions = session.beat_answered(says(7, 2, RUNNING))
        self.assertEqual(told(actions, StateChanged), [StateChanged(RUNNING, 7, 2)])
        self.assertIn(ASK, actions)
        actions = session.beat_answered(says(8, 1))
        self.assertEqual(
            told(actions, StateChanged), [StateChanged(UNCALIBRATED, 8, 1)]
        )

    def test_answer_about_another_life_initialises_nothing(self) -> None:
        session = new_session()
        session.beat_answered(says(7, 1))
        self.assertEqual(session.request_answered(says(6, 4, RUNNING)), [])
        self.assertEqual(session.request_answered(says(8, 1)), [])
        self.assertFalse(session.initialised)

    def test_own_timebomb_is_asked_for_in_each_beat(self) -> None:
        for wanted, sent in ((None, UNSET), (0.5, 0.5)):
            session = new_session(own_timebomb=wanted)
            for _ in range(2):
                (beat,) = told(session.beat(), SendHeartbeat)
                self.assertEqual(beat.message.timebomb_seconds, sent)


class TestFollowing(SynchronousTestCase):
    def test_applies_what_is_published(self) -> None:
        session = initialised()
        self.assertEqual(
            session.state_published(publishes(7, 2, CALIBRATED)),
            [StateChanged(CALIBRATED, 7, 2)],
        )

    def test_never_goes_back_within_a_life(self) -> None:
        session = initialised()
        session.state_published(publishes(7, 2, CALIBRATED))
        session.state_published(publishes(7, 3, RUNNING))
        for sequence in (1, 2, 3):
            self.assertEqual(session.state_published(publishes(7, sequence)), [])
            self.assertEqual(session.request_answered(says(7, sequence)), [])
            self.assertEqual(
                session.beat_answered(says(7, sequence)), [BeatAfter(INTERVAL)]
            )
        self.assertEqual((session.state, session.sequence), (RUNNING, 3))

    def test_new_life_is_taken_up_from_a_beats_reply_only(self) -> None:
        session = initialised()
        session.state_published(publishes(7, 2, RUNNING))
        own = replace(publishes(8, 1), instance_id=INSTANCE)
        self.assertEqual(session.state_published(own), [])
        self.assertEqual(session.request_answered(says(8, 1)), [])
        self.assertEqual((session.incarnation, session.state), (7, RUNNING))
        self.assertEqual(
            session.beat_answered(says(8, 1)),
            [StateChanged(UNCALIBRATED, 8, 1), BeatAfter(INTERVAL)],
        )

    def test_former_life_is_never_heard_again(self) -> None:
        session = initialised()
        session.beat_answered(says(8, 1))
        self.assertEqual(session.state_published(publishes(7, 9, RUNNING)), [])
        self.assertEqual(session.request_answered(says(7, 9, RUNNING)), [])
        self.assertEqual((session.incarnation, session.sequence), (8, 1))

    def test_repairs_what_it_missed_from_the_next_beats_reply(self) -> None:
        session = initialised()
        self.assertEqual(
            session.beat_answered(says(7, 4, RUNNING)),
            [StateChanged(RUNNING, 7, 4), BeatAfter(INTERVAL)],
        )

    def test_asks_again_on_a_gap(self) -> None:
        session = initialised()
        self.assertEqual(
            session.state_published(publishes(7, 3, RUNNING)),
            [StateChanged(RUNNING, 7, 3), ASK],
        )
        self.assertEqual(
            session.state_published(publishes(7, 4, CALIBRATED)),
            [StateChanged(CALIBRATED, 7, 4)],
        )

    def test_death_is_told_and_the_next_beat_begins_anew(self) -> None:
        session = initialised()
        self.assertEqual(
            session.state_published(publishes(7, 2, DISCONNECTED)),
            [StateChanged(DISCONNECTED, 7, 2), NOW],
        )
        (beat,) = told(session.beat(), SendHeartbeat)
        self.assertEqual(beat.message.client_state, DISCONNECTED)
        self.assertIn(
            StateChanged(UNCALIBRATED, 8, 1), session.beat_answered(says(8, 1))
        )

    def test_death_that_is_told_while_it_beats_waits_for_that_beat(self) -> None:
        session = initialised()
        session.beat()
        self.assertEqual(
            session.state_published(publishes(7, 2, DISCONNECTED)),
            [StateChanged(DISCONNECTED, 7, 2)],
        )

    def test_who_is_not_known_any_more_beats_at_once(self) -> None:
        for code in ("UNKNOWN_CLIENT", "STALE_INCARNATION"):
            session = initialised()
            asked = session.state_published(publishes(7, 3))
            actions = session.request_refused(error(code), id_of(asked))
            self.assertEqual(actions, [Refused(code, "no"), NOW])
            actions = session.request_refused(
                error(code), id_of(session.report(RUNNING))
            )
            self.assertEqual(actions, [Refused(code, "no"), NOW])

    def test_beats_report_the_applied_state(self) -> None:
        session = initialised()
        for sequence, state in enumerate((CALIBRATED, RUNNING, UNCALIBRATED), start=2):
            session.state_published(publishes(7, sequence, state))
            (beat,) = told(session.beat(), SendHeartbeat)
            self.assertEqual(beat.message.client_state, state)

    def test_sockets_are_opened_again_only_when_the_endpoints_changed(self) -> None:
        session = initialised()
        self.assertEqual(told(session.beat_answered(says(7, 1)), OpenSockets), [])
        self.assertEqual(told(session.beat_answered(says(8, 1)), OpenSockets), [])
        for moved in (
            OpenSockets("tcp://server:1", SOCKETS.state_change_endpoint),
            OpenSockets("tcp://server:1", "tcp://server:2"),
        ):
            for expected in ([moved], []):
                session.zmq_connected()
                actions = session.beat_answered(says(8, 1, sockets=moved))
                self.assertEqual(told(actions, OpenSockets), expected)


class TestOutage(SynchronousTestCase):
    def waits(self, session: Session, failures: int) -> list[float]:
        """How long it waits after each of so many failures."""
        return [next_beat(session.beat_failed("refused")) for _ in range(failures)]

    def test_beats_come_at_the_interval_that_the_server_names(self) -> None:
        for interval in (0.05, 2.0, 60.0):
            actions = new_session().beat_answered(
                says(7, 1, interval=interval, timebomb=120.0)
            )
            self.assertEqual(next_beat(actions), interval)

    def test_no_server_makes_it_wait_for_more_than_half_its_fuse(self) -> None:
        for interval, timebomb, waits in (
            (1e300, 10.0, 5.0),
            (5.1, 10.0, 5.0),
            (1e300, 1e300, LONGEST_FUSE / 2),
            (1e300, 1e-300, SHORTEST_FUSE / 2),
        ):
            session = new_session(random=1.0)
            reply = says(7, 1, interval=interval, timebomb=timebomb)
            self.assertEqual(next_beat(session.beat_answered(reply)), waits)
            self.assertLessEqual(max(self.waits(session, 20)), waits)
            self.assertLessEqual(session.patience, waits)

    def test_no_server_makes_it_beat_without_a_pause(self) -> None:
        for interval in (0.0, -1.0):
            actions = new_session().beat_answered(says(7, 1, interval=interval))
            self.assertEqual(next_beat(actions), SHORTEST_INTERVAL)

    def test_backoff_is_never_faster_than_the_interval(self) -> None:
        for interval in (0.5, 2.0, 60.0):
            session = new_session(random=0.0)
            session.beat_answered(says(7, 1, interval=interval, timebomb=120.0))
            self.assertGreaterEqual(min(self.waits(session, 40)), interval)

    def test_backoff_grows_and_is_bounded(self) -> None:
        session = new_session(random=1.0)
        waits = self.waits(session, 2000)
        self.assertEqual(waits, sorted(waits))
        self.assertLess(waits[0], waits[1])
        self.assertEqual(waits[-1], FIRST_TIMEBOMB / 2)
        session.beat_answered(says(7, 1, timebomb=3600.0))
        self.assertEqual(self.waits(session, 20)[-1], LONGEST_BACKOFF)

    def test_backoff_leaves_a_stalled_server_half_a_fuse(self) -> None:
        session = new_session(random=1.0)
        session.beat_answered(says(7, 1, interval=0.2, timebomb=1.0))
        self.assertEqual(max(self.waits(session, 20)), 0.5)

    def test_interval_longer_than_the_longest_backoff_is_kept(self) -> None:
        session = new_session(random=1.0)
        session.beat_answered(says(7, 1, interval=60.0, timebomb=120.0))
        self.assertEqual(set(self.waits(session, 5)), {60.0})

    def test_backoff_is_jittered_by_the_injected_random(self) -> None:
        waits = [self.waits(new_session(number), 4)[-1] for number in (0.0, 0.5, 1.0)]
        self.assertEqual(waits[0], FIRST_INTERVAL)
        self.assertEqual(waits[2], FIRST_TIMEBOMB / 2)
        self.assertEqual(waits[1], (waits[0] + waits[2]) / 2)

    def test_answer_resets_the_backoff(self) -> None:
        session = new_session(random=1.0)
        first, *_ = self.waits(session, 5)
        self.assertEqual(next_beat(session.beat_answered(says(7, 1))), INTERVAL)
        self.assertEqual(self.waits(session, 1), [first])

    def test_server_lost_is_told_once_for_each_outage(self) -> None:
        session = initialised()
        for outage in ("refused", "timed out"):
            actions = [a for _ in range(4) for a in session.beat_failed(outage)]
            self.assertEqual(told(actions, ServerLost), [ServerLost(outage)])
            session.beat_answered(says(7, 1))

    def test_outage_after_a_refusal_is_told_too(self) -> None:
        session = initialised()
        for _ in range(2):
            session.beat_refused(ErrorMessage(code="UNAUTHORIZED", detail="no"))
            actions = session.beat_failed("refused")
            self.assertEqual(told(actions, ServerLost), [ServerLost("refused")])

    def test_outage_before_the_first_answer_is_told_too(self) -> None:
        actions = new_session().beat_failed("refused")
        self.assertEqual(told(actions, ServerLost), [ServerLost("refused")])

    def test_outage_changes_no_state(self) -> None:
        session = initialised()
        session.state_published(publishes(7, 2, RUNNING))
        session.beat_failed("refused")
        self.assertEqual((session.state, session.sequence), (RUNNING, 2))

    def test_refused_beat_is_told_once_and_tried_again_later(self) -> None:
        session = new_session(random=1.0)
        error = ErrorMessage(code="UNAUTHORIZED", detail="no", client_id=CLIENT)
        first, *more = (session.beat_refused(error) for _ in range(20))
        self.assertEqual(first[0], Refused("UNAUTHORIZED", "no"))
        waits = [next_beat(actions) for actions in (first, *more)]
        self.assertEqual(more, [[BeatAfter(wait)] for wait in waits[1:]])
        self.assertEqual(waits, sorted(waits))
        self.assertGreaterEqual(waits[0], FIRST_INTERVAL)
        self.assertEqual(waits[-1], FIRST_TIMEBOMB / 2)

    def test_refusal_is_told_again_after_an_answer_or_another_refusal(self) -> None:
        session = initialised()
        forbidden = ErrorMessage(code="FORBIDDEN", detail="no")
        unauthorized = ErrorMessage(code="UNAUTHORIZED", detail="no")
        for error in (forbidden, unauthorized, forbidden):
            actions = session.beat_refused(error)
            self.assertEqual(told(actions, Refused), [Refused(error.code, "no")])
        session.beat_answered(says(7, 1))
        actions = session.beat_refused(forbidden)
        self.assertEqual(told(actions, Refused), [Refused("FORBIDDEN", "no")])

    def test_locked_out_client_says_so_once_and_beats_at_its_interval(self) -> None:
        locked_out = ErrorMessage(code="LOCKED_OUT", detail="later", client_id=CLIENT)
        session = initialised(new_session(random=1.0))
        self.assertEqual(
            session.beat_refused(locked_out),
            [Refused("LOCKED_OUT", "later"), BeatAfter(INTERVAL)],
        )
        for _ in range(20):
            self.assertEqual(session.beat_refused(locked_out), [BeatAfter(INTERVAL)])
        self.assertEqual(
            session.beat_answered(says(8, 1)),
            [StateChanged(UNCALIBRATED, 8, 1), BeatAfter(INTERVAL)],
        )

    def test_overloaded_server_is_a_lost_one_until_it_answers(self) -> None:
        session = initialised(new_session(random=1.0))
        for _ in range(2):
            first, *more = (session.beat_refused(OVERLOADED) for _ in range(5))
            self.assertEqual(told(first, ServerLost), [ServerLost("later")])
            waits = [next_beat(actions) for actions in more]
            self.assertEqual(more, [[BeatAfter(wait)] for wait in waits])
            self.assertEqual(waits, sorted(waits))
            self.assertGreater(waits[0], next_beat(first))
            session.beat_answered(says(7, 1))

    def test_overloaded_server_gets_the_time_that_it_asks_for(self) -> None:
        for asked, waits in ((3.0, 3.0), (0.5, INTERVAL), (0.0, INTERVAL)):
            session = initialised()
            actions = session.beat_refused(
                replace(OVERLOADED, retry_after_seconds=asked)
            )
            self.assertEqual(next_beat(actions), waits)

    def test_no_overload_silences_it_for_more_than_half_its_fuse(self) -> None:
        for asked in (1e300, float("inf"), float("nan"), -1.0, -1e300):
            session = initialised()
            for _ in range(20):
                error = replace(OVERLOADED, retry_after_seconds=asked)
                wait = next_beat(session.beat_refused(error))
                self.assertTrue(INTERVAL <= wait <= 5.0)

    def test_overload_and_silence_are_one_outage(self) -> None:
        session = initialised()
        session.beat_refused(ErrorMessage(code="OVERLOADED", detail="later"))
        self.assertEqual(told(session.beat_failed("refused"), ServerLost), [])

    def test_patience_outlasts_the_interval_and_leaves_time_to_try_again(self) -> None:
        session = new_session()
        self.assertEqual(session.patience, FIRST_TIMEBOMB / 2)
        session.beat_answered(says(7, 1, interval=2.0, timebomb=30.0))
        self.assertEqual(session.patience, 15.0)
        session.beat_answered(says(7, 1, interval=20.0, timebomb=40.0))
        self.assertEqual(session.patience, 20.0)
        session.beat_answered(says(7, 1, interval=2.0, timebomb=3600.0))
        self.assertEqual(session.patience, LONGEST_PATIENCE)


class TestBadServer(SynchronousTestCase):
    def test_beats_answer_for_another_client_is_none(self) -> None:
        others = ClientID("2")
        for answer in (
            lambda one: one.beat_answered(
                replace(says(9, 5, RUNNING), client_id=others)
            ),
            lambda one: one.beat_refused(replace(SUPERSEDED, client_id=others)),
        ):
            session = initialised()
            actions = answer(session)
            self.assertEqual(len(told(actions, ServerLost)), 1)
            self.assertGreaterEqual(next_beat(actions), INTERVAL)
            self.assertEqual(
                (session.incarnation, session.sequence, session.state),
                (7, 1, UNCALIBRATED),
            )
            self.assertFalse(session.superseded)

    def test_all_else_about_another_client_is_ignored(self) -> None:
        others = ClientID("2")
        session = initialised()
        for ignored in (
            session.state_published(
                replace(publishes(7, 2, RUNNING), client_id=others)
            ),
            session.request_answered(replace(says(7, 2, RUNNING), client_id=others)),
            session.request_refused(replace(SUPERSEDED, client_id=others)),
        ):
            self.assertEqual(ignored, [])
        self.assertEqual((session.sequence, session.superseded), (1, False))

    def test_sequence_too_high_does_not_block_what_beats_say_later(self) -> None:
        session = initialised()
        session.state_published(publishes(7, 2**63 - 1, RUNNING))
        session.beat()
        self.assertEqual(
            told(session.beat_answered(says(7, 3, CALIBRATED)), StateChanged),
            [StateChanged(CALIBRATED, 7, 3)],
        )
        self.assertEqual(
            session.state_published(publishes(7, 4, RUNNING)),
            [StateChanged(RUNNING, 7, 4)],
        )

    def test_answer_that_a_publication_has_overtaken_takes_nothing_back(self) -> None:
        session = initialised()
        session.beat()
        session.state_published(publishes(7, 2, CALIBRATED))
        self.assertEqual(session.beat_answered(says(7, 1)), [BeatAfter(INTERVAL)])
        self.assertEqual((session.sequence, session.state), (2, CALIBRATED))

    def test_change_that_is_not_even_published_has_the_sockets_opened_anew(
        self,
    ) -> None:
        session = initialised()
        session.beat_answered(says(7, 2, CALIBRATED))
        for expected in ([SOCKETS], []):
            actions = session.beat_answered(says(7, 2, CALIBRATED))
            self.assertEqual(told(actions, OpenSockets), expected)

    def test_change_that_is_published_later_leaves_the_sockets_alone(self) -> None:
        session = initialised()
        session.beat_answered(says(7, 2, CALIBRATED))
        session.state_published(publishes(7, 2, CALIBRATED))
        self.assertEqual(
            session.beat_answered(says(7, 2, CALIBRATED)), [BeatAfter(INTERVAL)]
        )

    def test_refusal_makes_it_ask_for_nothing_so_that_no_server_keeps_it_asking(
        self,
    ) -> None:
        for code in ("STALE_SEQUENCE", "FORBIDDEN", "LOCKED_OUT"):
            self.assertEqual(
                initialised().request_refused(error(code)), [Refused(code, "no")]
            )

    def test_no_event_carries_what_a_terminal_would_obey(self) -> None:
        hostile = "\x1b[2Jno\r\n\x9b1m\u202e\u2028\0\ud800 é"
        shown = r"\x1b[2Jno\r\n\x9b1m\u202e\u2028\x00\ud800 é"
        for event in (
            Refused(hostile, hostile),
            ServerLost(hostile),
            ZmqLost(hostile),
            Superseded(hostile),
        ):
            self.assertEqual(event.detail, shown)
        self.assertEqual(Refused(hostile, "").code, shown)
        self.assertEqual(len(ServerLost("x" * 60_000).detail), LONGEST_TEXT + 2)


def sets(state: ClientState, sequence: int, incarnation: int = 7) -> SendRequest:
    """What the session sends for a report that was decided on that sequence."""
    return SendRequest(
        SetClientState(
            client_id=CLIENT,
            client_state=state,
            incarnation=incarnation,
            instance_id=INSTANCE,
            sequence=sequence,
        )
    )


def id_of(actions: Sequence[Action]) -> str:
    """The name of the one request among the actions."""
    (request,) = told(actions, SendRequest)
    return request.request_id


def error(code: str, **more: float) -> ErrorMessage:
    """An error of the server about this client."""
    return ErrorMessage(code=code, detail="no", client_id=CLIENT, **more)


class TestReports(SynchronousTestCase):
    def refusals(self, actions: Sequence[Action]) -> list[str]:
        """The codes that the game is told."""
        return [event.code for event in told(actions, Refused)]

    def test_report_is_fenced_and_changes_nothing_by_itself(self) -> None:
        session = initialised()
        self.assertEqual(session.report(CALIBRATED), [sets(CALIBRATED, 1), AGAIN])
        self.assertEqual(session.state, UNCALIBRATED)

    def test_two_reports_at_once_are_carried_out_one_after_the_other(self) -> None:
        session = initialised()
        first = session.report(CALIBRATED)
        self.assertEqual(session.report(RUNNING), [])
        then = session.request_answered(says(7, 2, CALIBRATED), id_of(first))
        self.assertEqual(
            then, [StateChanged(CALIBRATED, 7, 2), sets(RUNNING, 2), AGAIN]
        )
        self.assertEqual(
            session.request_answered(says(7, 3, RUNNING), id_of(then)),
            [StateChanged(RUNNING, 7, 3)],
        )
        self.assertEqual(session.ask_again(), [])

    def test_next_one_follows_whatever_tells_that_the_first_was_taken(self) -> None:
        for tell in (
            lambda one: one.state_published(publishes(7, 2, CALIBRATED)),
            lambda one: one.beat_answered(says(7, 2, CALIBRATED)),
        ):
            session = initialised()
            first = session.report(CALIBRATED)
            session.report(RUNNING)
            then = tell(session)
            self.assertEqual(told(then, SendRequest), [sets(RUNNING, 2)])
            # The answer itself comes late, and is not taken for that of the second.
            late = session.request_answered(says(7, 2, CALIBRATED), id_of(first))
            self.assertEqual(late, [])
            self.assertEqual(session.ask_again(), [sets(RUNNING, 2), AGAIN])

    def test_late_refusal_is_not_taken_for_that_of_the_next(self) -> None:
        session = initialised()
        first = session.report(CALIBRATED)
        session.report(RUNNING)
        session.state_published(publishes(7, 2, CALIBRATED))
        for code in ("STALE_SEQUENCE", "UNKNOWN_CLIENT"):
            self.assertEqual(session.request_refused(error(code), id_of(first)), [])
        self.assertEqual(session.ask_again(), [sets(RUNNING, 2), AGAIN])

    def test_state_that_it_has_already_lets_the_next_one_go_on(self) -> None:
        session = initialised()
        first = session.report(UNCALIBRATED)
        session.report(CALIBRATED)
        self.assertEqual(
            session.request_answered(says(7, 1, UNCALIBRATED), id_of(first)),
            [sets(CALIBRATED, 1), AGAIN],
        )

    def test_without_an_answer_the_very_same_is_sent_again(self) -> None:
        session = initialised()
        first = session.report(CALIBRATED)
        for _ in range(3):
            again = session.ask_again()
            self.assertEqual(again, first)
            self.assertEqual(id_of(again), id_of(first))

    def test_lost_answer_of_a_report_that_was_taken_is_found_out(self) -> None:
        session = initialised()
        first = session.report(CALIBRATED)
        session.report(RUNNING)
        session.ask_again()
        asked = session.request_refused(error("STALE_SEQUENCE"), id_of(first))
        self.assertEqual(asked, [ASK, AGAIN])
        self.assertEqual(session.ask_again(), [ASK, AGAIN])  # that may be lost, too
        self.assertEqual(
            session.request_answered(says(7, 2, CALIBRATED), id_of(asked)),
            [StateChanged(CALIBRATED, 7, 2), sets(RUNNING, 2), AGAIN],
        )

    def test_operators_order_in_between_is_followed_and_the_game_told(self) -> None:
        for sequence in (2, 3):  # the report may have been taken before it, or not
            session = initialised()
            first = session.report(CALIBRATED)
            session.report(UNCALIBRATED)
            asked = session.request_refused(error("STALE_SEQUENCE"), id_of(first))
            actions = session.request_answered(says(7, sequence, RUNNING), id_of(asked))
            self.assertEqual(actions[0], StateChanged(RUNNING, 7, sequence))
            self.assertEqual(self.refusals(actions), ["STALE_SEQUENCE"] * 2)
            self.assertEqual(told(actions, SendRequest), [])
            self.assertEqual(session.ask_again(), [])

    def test_operators_order_to_the_wanted_state_is_no_refusal(self) -> None:
        session = initialised()
        first = session.report(CALIBRATED)
        asked = session.request_refused(error("STALE_SEQUENCE"), id_of(first))
        self.assertEqual(
            session.request_answered(says(7, 4, CALIBRATED), id_of(asked)),
            [StateChanged(CALIBRATED, 7, 4)],
        )
        self.assertEqual(session.ask_again(), [])

    def test_what_waits_was_not_decided_on_an_operators_order(self) -> None:
        session = initialised()
        session.report(CALIBRATED)
        session.report(RUNNING)
        actions = session.state_published(publishes(7, 4, CALIBRATED))
        self.assertEqual(self.refusals(actions), ["STALE_SEQUENCE"])
        self.assertEqual(told(actions, SendRequest), [ASK])  # of the gap

    def test_server_that_contradicts_itself_is_not_asked_for_ever(self) -> None:
        session = initialised()
        first = session.report(CALIBRATED)
        asked = session.request_refused(error("STALE_SEQUENCE"), id_of(first))
        actions = session.request_answered(says(7, 1), id_of(asked))
        self.assertEqual(self.refusals(actions), ["STALE_SEQUENCE"])
        self.assertEqual(session.ask_again(), [])

    def test_refusal_of_the_question_ends_it_too(self) -> None:
        session = initialised()
        first = session.report(CALIBRATED)
        asked = session.request_refused(error("STALE_SEQUENCE"), id_of(first))
        actions = session.request_refused(error("UNKNOWN_CLIENT"), id_of(asked))
        self.assertIn("UNKNOWN_CLIENT", self.refusals(actions))
        self.assertEqual(session.ask_again(), [])

    def test_illegal_one_is_told_and_the_next_goes_on(self) -> None:
        session = initialised()
        first = session.report(RUNNING)
        session.report(CALIBRATED)
        self.assertEqual(
            session.request_refused(error("ILLEGAL_TRANSITION"), id_of(first)),
            [Refused("ILLEGAL_TRANSITION", "no"), sets(CALIBRATED, 1), AGAIN],
        )

    def test_any_other_refusal_is_told_and_ends_what_waits(self) -> None:
        for code in ("UNKNOWN_CLIENT", "STALE_INCARNATION", "UNAUTHORIZED"):
            session = initialised()
            first = session.report(CALIBRATED)
            session.report(RUNNING)
            actions = session.request_refused(error(code), id_of(first))
            self.assertEqual(self.refusals(actions), [code] * 2)
            self.assertEqual(told(actions, SendRequest), [])

    def test_overloaded_server_is_sent_it_again_when_it_asks_for_that(self) -> None:
        session = initialised()
        first = session.report(CALIBRATED)
        for asked, waits in ((3.0, 3.0), (0.0, 2.0), (1e300, 5.0), (float("nan"), 2.0)):
            overloaded = error("OVERLOADED", retry_after_seconds=asked)
            self.assertEqual(
                session.request_refused(overloaded, id_of(first)),
                [AskAgainAfter(waits)],
            )
        self.assertEqual(session.ask_again(), first)

    def test_new_life_drops_what_waits_and_tells_the_game(self) -> None:
        session = initialised()
        session.report(CALIBRATED)
        session.report(RUNNING)
        actions = session.beat_answered(says(8, 1))
        self.assertEqual(self.refusals(actions), ["STALE_INCARNATION"] * 2)
        self.assertEqual(session.ask_again(), [])
        self.assertEqual(
            session.report(CALIBRATED), [sets(CALIBRATED, 1, incarnation=8), AGAIN]
        )

    def test_death_drops_what_waits_and_tells_the_game(self) -> None:
        session = initialised()
        session.report(CALIBRATED)
        session.report(RUNNING)
        actions = session.state_published(publishes(7, 2, DISCONNECTED))
        self.assertEqual(actions[0], StateChanged(DISCONNECTED, 7, 2))
        self.assertEqual(self.refusals(actions), ["STALE_SEQUENCE"] * 2)
        self.assertEqual(session.ask_again(), [])

    def test_takeover_drops_what_waits(self) -> None:
        session = initialised()
        session.report(CALIBRATED)
        self.assertEqual(session.beat_refused(SUPERSEDED), [SUPERSESSION])
        self.assertEqual(session.ask_again(), [])

    def test_who_leaves_reports_nothing_any_more(self) -> None:
        session = initialised()
        session.report(CALIBRATED)
        session.report(RUNNING)
        session.leave()
        actions = session.request_answered(says(7, 2, CALIBRATED), "1")
        self.assertEqual(told(actions, SendRequest), [])
        self.assertEqual(session.ask_again(), [])

    def test_thousands_of_reports_to_a_silent_server_send_and_keep_few(self) -> None:
        session = initialised()
        sent = [session.report(LIVING[number % 3]) for number in range(1000)]
        self.assertEqual([actions for actions in sent if actions], [sent[0]])
        then: Sequence[Action] = sent[0]
        states = []
        for sequence in range(2, 10):
            if not told(then, SendRequest):
                break
            report = told(then, SendRequest)[0].message
            assert isinstance(report, SetClientState)
            states.append(as_state(report.client_state))
            then = session.state_published(publishes(7, sequence, states[-1]))
        self.assertLessEqual(len(states), 4)
        self.assertEqual(states[-1], LIVING[999 % 3])

    def test_server_of_version_1_names_no_request_and_is_understood(self) -> None:
        session = initialised()
        session.report(CALIBRATED)
        session.report(RUNNING)
        then = session.request_answered(says(7, 2, CALIBRATED))
        self.assertEqual(told(then, SendRequest), [sets(RUNNING, 2)])
        self.assertEqual(session.request_answered(says(7, 2, CALIBRATED)), [])
        self.assertEqual(
            session.request_refused(error("ILLEGAL_TRANSITION")),
            [Refused("ILLEGAL_TRANSITION", "no")],
        )
        self.assertEqual(session.ask_again(), [])

    def test_requests_have_names_of_their_own(self) -> None:
        session = initialised()
        (question,) = told(session.state_published(publishes(7, 3)), SendRequest)
        names = {question.request_id, id_of(session.report(CALIBRATED))}
        names.add(id_of(session.leave()))
        self.assertEqual(len(names), 3)
        self.assertNotIn("", names)


class TestOtherProcesses(SynchronousTestCase):
    """Another process of the same client, and what is said of it."""

    def test_what_is_said_of_another_process_changes_nothing(self) -> None:
        for tell in (
            lambda one: one.state_published(
                replace(publishes(7, 2, RUNNING), instance_id="another")
            ),
            lambda one: one.request_answered(
                replace(says(7, 2, RUNNING), instance_id="another")
            ),
        ):
            session = initialised()
            self.assertEqual(tell(session), [])
            self.assertEqual((session.sequence, session.state), (1, UNCALIBRATED))

    def test_what_names_this_process_or_none_is_followed(self) -> None:
        for instance in (INSTANCE, UNSET):
            session = initialised()
            self.assertEqual(
                session.state_published(
                    replace(publishes(7, 2, RUNNING), instance_id=instance)
                ),
                [StateChanged(RUNNING, 7, 2)],
            )

    def test_beats_answer_for_another_process_is_none(self) -> None:
        session = initialised()
        actions = session.beat_answered(
            replace(says(8, 1, RUNNING), instance_id="another")
        )
        self.assertEqual(len(told(actions, ServerLost)), 1)
        self.assertEqual((session.incarnation, session.state), (7, UNCALIBRATED))

    def test_newer_life_of_another_process_has_the_server_asked_at_once(self) -> None:
        for instance in ("another", UNSET):
            session = initialised()
            newer = replace(publishes(8, 1, RUNNING), instance_id=instance)
            asked = session.state_published(newer)
            self.assertEqual(asked, [ASK])
            self.assertFalse(session.superseded)
            self.assertEqual(
                session.request_refused(SUPERSEDED, id_of(asked)), [SUPERSESSION]
            )

    def test_no_publication_stops_it_if_the_server_does_not_agree(self) -> None:
        session = initialised()
        newer = replace(publishes(8, 1, RUNNING), instance_id="another")
        asked = session.state_published(newer)
        self.assertEqual(session.request_answered(says(7, 1), id_of(asked)), [])
        self.assertEqual((session.incarnation, session.state), (7, UNCALIBRATED))
        self.assertEqual(len(told(session.beat(), SendHeartbeat)), 1)

    def test_older_life_of_another_process_is_past(self) -> None:
        session = initialised()
        older = replace(publishes(6, 9, RUNNING), instance_id="another")
        self.assertEqual(session.state_published(older), [])

    def test_flood_of_publications_makes_one_question_until_it_is_answered(
        self,
    ) -> None:
        session = initialised()
        newer = replace(publishes(8, 1, RUNNING), instance_id="another")
        for settle in (
            lambda asked: session.request_answered(says(7, 1), id_of(asked)),
            lambda _: session.beat_answered(says(7, 1)),  # the answer is lost
        ):
            first, *more = (session.state_published(newer) for _ in range(100))
            self.assertEqual(first, [ASK])
            self.assertEqual(more, [[]] * 99)
            settle(first)
        self.assertEqual(session.state_published(newer), [ASK])


class TestZeroMQ(SynchronousTestCase):
    """ZeroMQ that doesn't get through while beats do."""

    def beats(self, session: Session, count: int) -> list[Sequence[Action]]:
        """What so many beats lead to that are answered."""
        return [session.beat_answered(says(7, 1)) for _ in range(count)]

    def test_is_told_once_it_has_lasted_for_longer_than_the_patience(self) -> None:
        session = initialised()
        session.zmq_failed("no way")
        *before, last = self.beats(session, 3)  # 2 s each, and a patience of 5 s
        self.assertEqual(before, [[BeatAfter(INTERVAL)]] * 2)
        self.assertEqual(last, [ZmqLost("no way"), SOCKETS, BeatAfter(INTERVAL)])

    def test_is_told_once_and_tried_anew_again_and_again(self) -> None:
        session = initialised()
        session.zmq_failed("no way")
        actions = [one for beat in self.beats(session, 30) for one in beat]
        self.assertEqual(len(told(actions, ZmqLost)), 1)
        self.assertEqual(len(told(actions, OpenSockets)), 10)

    def test_is_told_once_when_it_is_over(self) -> None:
        session = initialised()
        for _ in range(2):
            session.zmq_failed("no way")
            self.beats(session, 3)
            self.assertEqual(session.zmq_connected(), [ZmqBack()])
            self.assertEqual(session.zmq_connected(), [])

    def test_sockets_that_were_never_connected_are_told_of_too(self) -> None:
        session = new_session()
        session.beat_answered(says(7, 1))
        session.zmq_failed("no way")
        actions = [one for beat in self.beats(session, 3) for one in beat]
        self.assertEqual(told(actions, ZmqLost), [ZmqLost("no way")])

    def test_short_interruptions_are_not_told(self) -> None:
        session = initialised()
        for _ in range(20):
            session.zmq_failed("restarting")
            for actions in self.beats(session, 2):
                self.assertEqual(actions, [BeatAfter(INTERVAL)])
            self.assertEqual(session.zmq_connected(), [])

    def test_outage_of_the_whole_server_is_told_as_that_alone(self) -> None:
        session = initialised()
        session.zmq_failed("refused")
        actions = [one for _ in range(50) for one in session.beat_failed("refused")]
        actions += session.beat_answered(says(7, 1))
        actions += session.zmq_connected()
        self.assertEqual(told(actions, ServerLost), [ServerLost("refused")])
        self.assertEqual(told(actions, ZmqLost) + told(actions, ZmqBack), [])

    def test_superseded_process_is_told_no_more_of_it(self) -> None:
        session = initialised()
        session.beat_refused(SUPERSEDED)
        self.assertEqual(session.zmq_failed("no way"), [])
        self.assertEqual(session.zmq_connected(), [])


class TestEnding(SynchronousTestCase):
    def test_superseded_is_told_whether_by_a_beat_or_a_request(self) -> None:
        for session in (new_session(), initialised()):
            self.assertEqual(session.beat_refused(SUPERSEDED), [SUPERSESSION])
        for session in (new_session(), initialised()):
            self.assertEqual(session.request_refused(SUPERSEDED), [SUPERSESSION])

    def test_superseded_is_told_once(self) -> None:
        session = initialised()
        session.request_refused(SUPERSEDED)
        self.assertEqual(session.beat_refused(SUPERSEDED), [])
        self.assertEqual(session.request_refused(SUPERSEDED), [])

    def test_superseded_process_asks_for_nothing_and_leaves_in_silence(self) -> None:
        session = initialised()
        session.beat_refused(SUPERSEDED)
        self.assertEqual(session.report(CALIBRATED), [])
        self.assertEqual(session.leave(), [])

    def test_superseded_process_hears_late_answers_no_more(self) -> None:
        session = initialised()
        session.request_refused(SUPERSEDED)
        for late in (
            session.beat_answered(says(9, 1)),
            session.beat_failed("refused"),
            session.request_answered(says(7, 2, CALIBRATED)),
            session.state_published(publishes(7, 2, CALIBRATED)),
            session.beat(),
        ):
            self.assertEqual(late, [])

    def test_refused_request_is_told(self) -> None:
        error = ErrorMessage(code="ILLEGAL_TRANSITION", detail="no", client_id=CLIENT)
        self.assertEqual(
            initialised().request_refused(error), [Refused("ILLEGAL_TRANSITION", "no")]
        )

    def test_report_before_the_first_answer_is_refused_and_sends_nothing(self) -> None:
        (refused,) = new_session().report(CALIBRATED)
        assert isinstance(refused, Refused)
        self.assertEqual(refused.code, "UNKNOWN_CLIENT")

    def test_goodbye_carries_incarnation_and_instance(self) -> None:
        session = initialised()
        session.beat_answered(says(8, 1))
        self.assertEqual(
            session.leave(),
            [
                SendRequest(
                    Goodbye(client_id=CLIENT, incarnation=8, instance_id=INSTANCE)
                )
            ],
        )

    def test_no_goodbye_if_the_server_never_answered(self) -> None:
        session = new_session()
        session.beat()
        session.beat_failed("refused")
        self.assertEqual(session.leave(), [])

    def test_answered_goodbye_is_told_as_disconnected(self) -> None:
        session = initialised()
        session.leave()
        self.assertEqual(
            session.request_answered(says(7, 2, DISCONNECTED)),
            [StateChanged(DISCONNECTED, 7, 2)],
        )


class Network:
    """A session and a real registry, with an unreliable network between them.

    Beats are answered one by one and in order, or fail, as HTTP does it. All else
    lies in ``on_the_way`` until it is delivered, which may happen in any order,
    often or never.

    :ivar changes: all that became of the client: each life's own by its sequence.
    :ivar reports: what the game wanted, and in which life and sequence it was then.
    :ivar sent: the reports that the server has read, in the same way.
    """

    def __init__(self) -> None:
        self.clock = Clock()
        self.on_the_way: list[
            tuple[ClientStateMessage | OnStateChange | ErrorMessage, str]
        ] = []
        self.events: list[StateChanged] = []
        self.asked: list[SendRequest] = []
        self.changes: dict[int, dict[int, Change]] = {}
        self.reports: list[tuple[int, int, ClientState]] = []
        self.sent: list[tuple[int, int, ClientState]] = []
        self.registry = Registry(
            clock=self.clock,
            wall_clock=self.clock.seconds,
            listener=self._publish,
            default_fuse=10.0,
        )
        self.session = new_session()

    def beat(self, *, heard: bool = True, answered: bool = True) -> None:
        """One beat, which may be lost on its way there or on its way back."""
        for beat in told(self.session.beat(), SendHeartbeat):
            reply = self._serve(beat.message) if heard else None
            match reply if answered else None:
                case ClientStateMessage() as answer:
                    self._perform(self.session.beat_answered(answer))
                case ErrorMessage() as refusal:
                    self._perform(self.session.beat_refused(refusal))
                case None:
                    self._perform(self.session.beat_failed("lost"))

    def steer(self, state: ClientState) -> None:
        """An operator sets the state, or kicks the client."""
        if self.registry.find(CLIENT) is None:
            return
        if state is DISCONNECTED:
            self.registry.kick(CLIENT)
        else:
            self.registry.steer(CLIENT, state)

    def take_over(self) -> int:
        """Another process becomes the client, and runs; its incarnation."""
        self.registry.beat(CLIENT, RUNNING, "another")
        return self.registry.steer(CLIENT, RUNNING).incarnation

    def report(self, state: ClientState) -> None:
        """The game asks for another state; the answer is on its way."""
        session = self.session
        self.reports.append((session.incarnation, session.sequence, state))
        self._perform(session.report(state))

    def connect(self, *, well: bool) -> None:
        """ZeroMQ gets through, or doesn't any more."""
        session = self.session
        self._perform(session.zmq_connected() if well else session.zmq_failed("no"))

    def ask_again(self) -> None:
        """The session has waited for its answer for long enough."""
        self._perform(self.session.ask_again())

    def serve(self, pick: int) -> None:
        """The server reads one of all requests ever sent, perhaps once more."""
        if self.asked:
            self._answer(self.asked[pick % len(self.asked)])

    def deliver(self, pick: int, *, last: bool = False) -> None:
        """One of all that is on its way comes in, and may do so again, unless last."""
        if not self.on_the_way:
            return
        index = pick % len(self.on_the_way)
        message, request_id = self.on_the_way[index]
        if last:
            del self.on_the_way[index]
        match message:
            case OnStateChange():
                self._perform(self.session.state_published(message))
            case ClientStateMessage():
                self._perform(self.session.request_answered(message, request_id))
            case ErrorMessage():
                self._perform(self.session.request_refused(message, request_id))

    def calm_down(self) -> None:
        """A beat is answered, and so is what the session asks from then on."""
        self.asked.clear()
        self.clock.advance(1.0)  # it may have begun too many lives in this second
        self.beat()
        self.connect(well=True)
        self.ask_again()
        for _ in range(10):  # few wait, and each asks once more at the most
            asked, self.asked = self.asked, []
            for request in asked:
                self._answer(request)
                self.deliver(-1, last=True)

    def _answer(self, request: SendRequest) -> None:
        self.on_the_way.append((self._serve(request.message), request.request_id))

    def _serve(self, request: Request) -> ClientStateMessage | ErrorMessage:
        try:
            client = self._apply(request)
        except HeartbeatError as error:
            return ErrorMessage(code=error.code, detail=error.detail, client_id=CLIENT)
        return replace(
            says(client.incarnation, client.sequence, client.state),
            instance_id=client.instances.present,
        )

    def _apply(self, request: Request):
        match request:
            case HeartbeatMessage():
                return self.registry.beat(
                    CLIENT, as_state(request.client_state), INSTANCE
                )
            case SetClientState():
                state = as_state(request.client_state)
                assert not isinstance(request.incarnation, UnsetType)
                assert not isinstance(request.sequence, UnsetType)
                self.sent.append((request.incarnation, request.sequence, state))
                return self.registry.set_state(
                    CLIENT,
                    state,
                    request.incarnation,
                    INSTANCE,
                    request.sequence,
                )
            case GetClientState():
                return self.registry.get(CLIENT, INSTANCE)
            case Goodbye():
                raise AssertionError("nobody leaves here")

    def _publish(self, change: Fact) -> None:
        if not isinstance(change, Change):
            return
        self.changes.setdefault(change.incarnation, {})[change.sequence] = change
        published = replace(
            publishes(change.incarnation, change.sequence, change.state),
            previous_state=change.previous_state,
            reason=change.reason,
            instance_id=change.client.instances.present or UNSET,
        )
        # Its order among the others is of no account, but the last is delivered first.
        self.on_the_way.insert(0, (published, ""))

    def _perform(self, actions: Sequence[Action]) -> None:
        self.events += told(actions, StateChanged)
        self.asked += told(actions, SendRequest)


SOME = st.integers(0, 50)
HAPPENINGS = st.lists(
    st.one_of(
        st.tuples(st.just("beat"), st.booleans(), st.booleans()),
        st.tuples(st.just("time"), st.sampled_from([2.0, 11.0])),
        st.tuples(st.just("steer"), st.sampled_from(ClientState)),
        st.tuples(st.just("report"), st.sampled_from(LIVING)),
        st.tuples(st.just("connect"), st.booleans()),
        st.tuples(st.just("ask again")),
        st.tuples(st.just("serve"), SOME),
        st.tuples(st.just("deliver"), SOME, st.booleans()),
    ),
    max_size=40,
)
#: Those of a client that lives on, where reports and orders meet.
RACES = st.lists(
    st.one_of(
        st.tuples(st.just("steer"), st.sampled_from(LIVING)),
        st.tuples(st.just("report"), st.sampled_from(LIVING)),
        st.tuples(st.just("ask again")),
        st.tuples(st.just("serve"), SOME),
        st.tuples(st.just("deliver"), SOME, st.booleans()),
    ),
    min_size=5,
    max_size=30,
)


def undergo(network: Network, happenings: Sequence[tuple[Any, ...]]) -> None:
    """Let all that happen."""
    for happening in happenings:
        match happening:
            case "beat", heard, answered:
                network.beat(heard=heard, answered=answered)
            case "time", seconds:
                network.clock.advance(seconds)
            case "steer", state:
                network.steer(state)
            case "report", state:
                network.report(state)
            case "connect", well:
                network.connect(well=well)
            case ("ask again",):
                network.ask_again()
            case "serve", pick:
                network.serve(pick)
            case "deliver", pick, last:
                network.deliver(pick, last=last)


def begun() -> Network:
    """A network in which the client knows its first state."""
    network = Network()
    network.beat()
    network.calm_down()
    return network


class TestUnreliableNetwork(SynchronousTestCase):
    @settings(
        max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    @given(HAPPENINGS)
    def test_agrees_one_answered_beat_later_and_never_goes_back(self, happenings):
        network = Network()
        undergo(network, happenings)
        network.calm_down()
        self.assert_they_agree(network)
        while network.on_the_way:
            network.deliver(0, last=True)
        self.assert_they_agree(network)
        self.assert_each_event_is_newer(network.events)
        self.assertEqual(network.session.ask_again(), [])  # no report is left over

    @settings(
        max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    @given(RACES)
    def test_no_report_undoes_an_order_that_the_game_had_not_heard_of(self, happenings):
        network = begun()
        undergo(network, happenings)
        for request in range(len(network.asked)):
            network.serve(request)
        network.calm_down()
        for incarnation, changes in network.changes.items():
            for sequence, change in changes.items():
                if change.reason is Reason.CLIENT:
                    self.assertTrue(self.was_wanted(network, incarnation, sequence))

    @settings(
        max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    @given(RACES, RACES)
    def test_superseded_process_follows_no_other_and_stops(self, before, meanwhile):
        network = begun()
        undergo(network, before)
        network.clock.advance(1.0)  # it may have begun too many lives in this second
        others = network.take_over()
        undergo(network, meanwhile)
        network.beat()
        self.assertTrue(network.session.superseded)
        self.assertNotIn(others, {event.incarnation for event in network.events})
        made = {change.reason for change in network.changes[others].values()}
        self.assertNotIn(Reason.CLIENT, made)

    def was_wanted(self, network: Network, incarnation: int, sequence: int) -> bool:
        """Whether the game wanted this change, and knew of each order before it.

        But for an order to the very state that was under way.
        """
        changes = network.changes[incarnation]
        return any(
            state is changes[sequence].state
            and all(
                changes[between].reason is Reason.CLIENT
                or (life, between - 1, changes[between].state) in network.sent
                for between in range(known + 1, sequence)
            )
            for life, known, state in network.reports
            if life == incarnation and known < sequence
        )

    def assert_they_agree(self, network: Network) -> None:
        """The session holds what the registry holds."""
        session, client = network.session, network.registry.get(CLIENT)
        self.assertEqual(
            (session.incarnation, session.sequence, session.state),
            (client.incarnation, client.sequence, client.state),
        )
        self.assertEqual(
            network.events[-1],
            StateChanged(client.state, client.incarnation, client.sequence),
        )

    def assert_each_event_is_newer(self, events: Sequence[StateChanged]) -> None:
        """Nothing that was told repeats or goes back."""
        pairs = [(event.incarnation, event.sequence) for event in events]
        self.assertEqual(pairs, sorted(set(pairs)))
