"""What the service answers, and that no answer shows more than the store has.

The registry and the journal are the real ones; the store is moved by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import UNSET, Raw
from twisted.internet.defer import CancelledError, Deferred, fail, maybeDeferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from heartbeat_service.core.changes import (
    Change,
    Fact,
    Life,
    Lockout,
    Reason,
    Snapshot,
    StoredState,
)
from heartbeat_service.core.errors import (
    HeartbeatError,
    IllegalTransition,
    InstanceSuperseded,
    Overloaded,
    StaleIncarnation,
    StaleSequence,
    UnknownClient,
)
from heartbeat_service.core.local_client import LocalClient
from heartbeat_service.core.registry import Registry
from heartbeat_service.core.states import ClientState
from heartbeat_service.engine.availability import PATIENCE, PAUSE
from heartbeat_service.engine.dispatch import TRIES, Shown, error_message
from heartbeat_service.engine.engine import Engine
from heartbeat_service.engine.orders import Answer
from heartbeat_service.engine.slices import SLICE
from heartbeat_service.protocol.codec import moment
from heartbeat_service.protocol.messages import (
    ClientID,
    ClientRecord,
    ClientStateMessage,
    ErrorMessage,
    GetClientState,
    Goodbye,
    HeartbeatMessage,
    LifeRecord,
    Request,
    SetClientState,
    StateNumber,
    as_state,
)
from heartbeat_service.protocol.orders import KickOrder, StateOrder, StateOrders
from heartbeat_service.storage.store import LARGEST_BATCH
from tests.unit.fakes import HandStore, listen, stored_state
from tests.unit.storage.store_suite import snapshot

DISCONNECTED, UNCALIBRATED, CALIBRATED, RUNNING = ClientState

FUSE = 10.0
INTERVAL = 2.0
NOON = 1648555200.0

T = TypeVar("T")


class House:
    """All that answers a request, on a clock and a store that a test moves.

    :param noon: when it begins, in seconds since the epoch.
    :param options: what else the engine is made with.
    """

    def __init__(
        self,
        stored: StoredState = StoredState(100),  # noqa: B008 - frozen
        noon: float = NOON,
        **options: Any,
    ) -> None:
        self.clock = Clock()
        self.store = HandStore(stored)
        self.heard: list[Change] = []
        self.told: list[Any] = []
        self.engine = Engine(
            self.clock,
            self.store,
            [self.heard.append],
            watchers=[self.told.append],
            timebomb=FUSE,
            interval=INTERVAL,
            wall_clock=lambda: noon + self.clock.seconds(),
            **options,
        )
        self.registry = self.engine.registry
        self.journal = self.engine.journal
        self.dispatcher = self.engine.dispatcher
        self.orders = self.engine.orders
        self.dispatcher.request_endpoint = "tcp://h:8765"
        self.dispatcher.state_change_endpoint = "tcp://h:4321"
        Deferred.fromCoroutine(self.engine.open())

    def listen(self, seconds: float) -> None:
        """Let time pass."""
        listen(self.clock, seconds)

    def dispatch(self, request: Request) -> Deferred[ClientStateMessage]:
        """A client asks for something."""
        dispatch: Callable[[Request], Any] = self.dispatcher.dispatch
        answer: Deferred[ClientStateMessage] = maybeDeferred(dispatch, request)
        return answer

    def beat(
        self, client_id: str = "1", state: ClientState = DISCONNECTED, **more: Any
    ) -> Deferred[ClientStateMessage]:
        """A client beats."""
        return self.dispatch(HeartbeatMessage(ClientID(client_id), state, **more))

    def ask(self, client_id: str = "1", **more: Any) -> Deferred[ClientStateMessage]:
        """A client asks for its state."""
        return self.dispatch(GetClientState(ClientID(client_id), **more))

    def set(
        self, state: ClientState, client_id: str = "1", **more: Any
    ) -> Deferred[ClientStateMessage]:
        """A client sets its state."""
        return self.dispatch(SetClientState(ClientID(client_id), state, **more))

    def leave(self, client_id: str = "1", **more: Any) -> Deferred[ClientStateMessage]:
        """A client says goodbye."""
        return self.dispatch(Goodbye(ClientID(client_id), **more))

    def request(
        self, what: str, client_id: str, state: ClientState
    ) -> Deferred[ClientStateMessage]:
        """Any of the requests that are answered with a client's state."""
        match what:
            case "beat":
                return self.beat(client_id, state)
            case "set":
                return self.set(state, client_id)
            case "steer":
                return self.steer(client_id, state)
            case "ask":
                return self.ask(client_id)
            case "leave":
                return self.leave(client_id)
            case _:
                return self.kick(client_id)

    def steer(self, client_id: str, state: ClientState) -> Deferred[Any]:
        """An operator sets a client's state."""
        return self.orders.to_one(client_id, StateOrder(client_state=state))

    def kick(self, client_id: str) -> Deferred[Any]:
        """An operator removes a client."""
        return self.orders.to_one(client_id, KickOrder())

    def steer_many(
        self, state: ClientState, client_ids: list[str] | None = None
    ) -> Deferred[list[Answer]]:
        """An operator sets the state of many, or of all."""
        whom: Any = {"all_": True} if client_ids is None else {"client_ids": client_ids}
        return self.orders.to_many(StateOrders(client_state=state, **whom))

    def listing(self) -> Deferred[list[ClientRecord]]:
        """An operator lists who lives, all in one turn, so that nobody has to wait."""

        def take(steps: Iterator[Shown]) -> list[ClientRecord]:
            records = [step for step in steps if step is not None]
            assert not any(isinstance(record, Deferred) for record in records)
            return cast(list[ClientRecord], records)

        return self.dispatcher.clients().addCallback(take)

    def move(self, what: str) -> None:
        """The commit under way succeeds, or fails."""
        if what == "finish":
            self.store.finish()
        else:
            self.store.break_down()

    def kept_changes(self) -> list[Change]:
        """What the store has, of changes."""
        return [fact for fact in self.store.kept if isinstance(fact, Change)]

    def snapshots(self) -> list[Snapshot]:
        """What the store has besides changes."""
        return [fact for fact in self.store.kept if isinstance(fact, Snapshot)]

    def calm_down(self) -> None:
        """The store is well again and has all."""
        while self.store.waiting is not None or self.journal.trouble is not None:
            self.store.finish_all()
            self.listen(PAUSE)

    def register(self, *client_ids: str) -> None:
        """These clients live, and the store knows it."""
        for client_id in client_ids:
            self.beat(client_id)
        self.store.finish_all()


class Witness:
    """One who sees all that is told, of one house after the other.

    :ivar answers: those that are given, or will be.
    :ivar beyond: what was told beyond what was kept.
    """

    def __init__(self) -> None:
        self.house = House()
        self.answers: list[Deferred[object]] = []
        self.beyond: list[object] = []
        self._kept: list[Fact] = []
        self._states: dict[tuple[str, int, int], ClientState] = {}

    def see(self, what: str, client_id: str, state: ClientState, number: int) -> None:
        """Something happens."""
        match what:
            case "time":
                self.house.listen(number)
            case "crash":
                self._crash()
            case "finish" | "break down":
                if self.house.store.waiting is not None:
                    self.house.move(what)
            case _:
                answer = self.house.request(what, client_id, state)
                self.answers.append(answer.addCallbacks(self._look, _refused))

    def kept(self) -> list[Fact]:
        """All that the store has."""
        return [*self._kept, *self.house.store.kept]

    def _crash(self) -> None:
        """The service is killed; another one finds what was kept."""
        self.answers = [answer for answer in self.answers if answer.called]
        for change in self.house.heard:
            self._compare(change.client, change.state)
        self._kept = self.kept()
        self.house = House(stored_state(self._kept, 100))

    def _look(self, reply: ClientStateMessage) -> None:
        self._compare(reply, as_state(reply.client_state))

    def _compare(self, told: ClientStateMessage | Snapshot, state: ClientState) -> None:
        key = told.client_id, told.incarnation, told.sequence
        kept = {
            fact.state
            for fact in self.kept()
            if not isinstance(fact, Lockout)
            and (fact.client_id, fact.incarnation, fact.sequence) == key
        }
        if kept != {state} or self._states.setdefault(key, state) is not state:
            self.beyond.append(told)


def _refused(failure: Failure) -> None:
    failure.trap(HeartbeatError)


#: (what, client, state, number): what happens, and what it takes of the rest.
HAPPENINGS = st.lists(
    st.tuples(
        st.sampled_from(["beat", "beat", "set", "steer", "ask", "leave", "kick"])
        | st.sampled_from(["time", "finish", "finish", "break down", "crash"]),
        st.sampled_from(["1", "2"]),
        st.sampled_from(ClientState),
        st.integers(0, 10),
    ),
    max_size=30,
)


class DispatchTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        """Begin with nobody."""
        self.house = House()
        self.store = self.house.store
        self.dispatcher = self.house.dispatcher

    def expect_answer_after(self, finish: Callable[[], None], answer: Deferred[T]) -> T:
        """The answer, which comes once the store is done and not before."""
        self.assertNoResult(answer)
        finish()
        return self.successResultOf(answer)

    def expect_refusal(
        self, answer: Deferred[Any], error: type[HeartbeatError], client_id: str = "1"
    ) -> None:
        """The answer is an error that names its client."""
        problem = self.failureResultOf(answer, error).value
        assert isinstance(problem, HeartbeatError)
        self.assertEqual(problem.client_id, client_id)
        self.assertTrue(problem.detail)


class TestReplies(DispatchTestCase):
    def test_reply_to_a_registration_says_all_that_a_client_needs(self) -> None:
        self.assertEqual(
            self.expect_answer_after(self.store.finish, self.house.beat("1")),
            ClientStateMessage(
                client_id=ClientID("1"),
                client_state=UNCALIBRATED,
                sequence=1,
                incarnation=101,
                timebomb_seconds=FUSE,
                heartbeat_interval_seconds=INTERVAL,
                request_endpoint="tcp://h:8765",
                state_change_endpoint="tcp://h:4321",
            ),
        )

    def test_every_request_is_answered_with_the_present_state(self) -> None:
        self.house.register("1")
        for request, state, sequence in (
            (lambda: self.house.set(CALIBRATED), CALIBRATED, 2),
            (lambda: self.house.beat("1", CALIBRATED), CALIBRATED, 2),
            (lambda: self.house.steer("1", RUNNING), RUNNING, 3),
            (self.house.ask, RUNNING, 3),
            (lambda: self.house.set(RUNNING), RUNNING, 3),
            (self.house.leave, DISCONNECTED, 4),
        ):
            answer = request()
            self.store.finish_all()
            reply = self.successResultOf(answer)
            self.assertEqual((reply.client_state, reply.sequence), (state, sequence))
            self.assertEqual(reply.incarnation, 101)

    def test_states_by_number_do_what_their_names_do(self) -> None:
        beat = HeartbeatMessage(ClientID("1"), StateNumber.RUNNING)
        self.house.dispatch(beat)
        change = SetClientState(ClientID("1"), StateNumber.CALIBRATED)
        answer = self.house.dispatch(change)
        self.store.finish_all()
        self.assertIs(self.successResultOf(answer).client_state, CALIBRATED)
        self.assertIs(self.house.registry.get("1").reported_state, RUNNING)

    def test_interval_told_is_shorter_than_the_fuse(self) -> None:
        for fuse, interval in ((0.5, 0.25), (2.0, 1.0), (2.5, 2.0), (60.0, 2.0)):
            answer = self.house.beat("1", timebomb_seconds=fuse)
            self.store.finish_all()
            reply = self.successResultOf(answer)
            self.assertEqual(reply.timebomb_seconds, fuse)
            self.assertEqual(reply.heartbeat_interval_seconds, interval)

    def test_fuse_told_is_the_one_that_burns(self) -> None:
        for asked, burns in ((0.001, 0.1), (1e300, 3600.0)):
            answer = self.house.beat("1", timebomb_seconds=asked)
            self.store.finish_all()
            self.assertEqual(self.successResultOf(answer).timebomb_seconds, burns)

    def test_broken_rules_are_answered_with_their_errors(self) -> None:
        house = self.house
        self.expect_refusal(house.ask(), UnknownClient)
        self.expect_refusal(house.set(CALIBRATED), UnknownClient)
        self.expect_refusal(house.leave(), UnknownClient)
        self.expect_refusal(self.house.steer("1", RUNNING), UnknownClient)
        self.expect_refusal(self.house.kick("1"), UnknownClient)
        self.expect_refusal(self.dispatcher.client("1"), UnknownClient)
        house.beat("1", instance_id="old")
        house.beat("1", instance_id="new")
        self.store.finish_all()
        self.expect_refusal(house.beat("1", instance_id="old"), InstanceSuperseded)
        self.expect_refusal(
            house.set(CALIBRATED, instance_id="old"), InstanceSuperseded
        )
        self.expect_refusal(house.leave(instance_id="old"), InstanceSuperseded)
        self.expect_refusal(house.ask(instance_id="old"), InstanceSuperseded)
        self.expect_refusal(house.set(CALIBRATED, incarnation=101), StaleIncarnation)
        self.expect_refusal(house.leave(incarnation=101), StaleIncarnation)
        self.expect_refusal(house.set(CALIBRATED, sequence=2), StaleSequence)
        self.expect_refusal(house.set(RUNNING, incarnation=102), IllegalTransition)
        self.expect_refusal(self.house.steer("1", DISCONNECTED), IllegalTransition)
        self.assertEqual(self.store.commits, 2)

    def test_errors_keep_their_code_their_detail_and_their_client(self) -> None:
        self.assertEqual(
            error_message(StaleIncarnation("no", "1")),
            ErrorMessage("STALE_INCARNATION", "no", ClientID("1")),
        )
        self.assertIs(error_message(StaleIncarnation("no")).client_id, UNSET)

    def test_only_overloaded_says_when_to_try_again(self) -> None:
        self.assertEqual(
            error_message(Overloaded("later", "1")),
            ErrorMessage("OVERLOADED", "later", ClientID("1"), 1),
        )
        self.assertIs(error_message(StaleIncarnation("no")).retry_after_seconds, UNSET)

    def test_every_reply_names_the_instance_of_the_life_it_is_about(self) -> None:
        replies = [
            self.house.beat("1", instance_id="a"),
            self.house.beat("1"),
            self.house.ask(),
            self.house.ask(instance_id="never registered"),
            self.house.set(CALIBRATED),
            self.house.steer("1", RUNNING),
            self.house.beat("1", instance_id="b"),
            self.house.ask(),
            self.house.leave(),
        ]
        many = self.house.steer_many(RUNNING, ["1"])
        self.store.finish_all()
        self.assertEqual(
            [self.successResultOf(reply).instance_id for reply in replies],
            [*"aaaaaabbb"],
        )
        self.assertEqual(len(self.successResultOf(many)), 1)

    def test_a_reply_about_a_life_without_an_instance_names_none(self) -> None:
        replies = [
            self.house.beat("1"),
            self.house.ask(instance_id="never registered"),
            self.house.steer("1", RUNNING),
        ]
        self.store.finish_all()
        for reply in replies:
            self.assertIs(self.successResultOf(reply).instance_id, UNSET)


class TestDurableFirst(DispatchTestCase):
    def test_every_change_is_answered_once_the_store_has_it(self) -> None:
        self.house.register("1", "2")
        self.expect_answer_after(self.store.finish, self.house.set(CALIBRATED))
        self.expect_answer_after(self.store.finish, self.house.steer("1", RUNNING))
        self.expect_answer_after(self.store.finish, self.house.leave())
        self.expect_answer_after(self.store.finish, self.house.kick("2"))

    def test_new_life_is_answered_once_the_store_has_it(self) -> None:
        self.house.register("1")
        self.successResultOf(self.house.beat("1", RUNNING))
        self.store.finish_all()
        restart = self.expect_answer_after(self.store.finish, self.house.beat("1"))
        self.assertEqual((restart.incarnation, restart.sequence), (102, 1))
        takeover = self.house.beat("1", instance_id="another")
        reply = self.expect_answer_after(self.store.finish, takeover)
        self.assertEqual((reply.incarnation, reply.sequence), (103, 1))

    def test_whatever_is_asked_about_a_pending_client_waits(self) -> None:
        asks: tuple[Callable[[], Deferred[Any]], ...] = (
            self.house.ask,
            self.house.beat,
            lambda: self.dispatcher.client("1"),
            lambda: self.house.set(UNCALIBRATED),
            lambda: Deferred.fromCoroutine(self.dispatcher.history("1")),
        )
        for ask in asks:
            self.house.beat("1", instance_id=f"process {self.store.commits}")
            self.expect_answer_after(self.store.finish, ask())

    def test_error_about_a_pending_client_waits(self) -> None:
        self.house.beat("1")
        illegal = self.house.set(RUNNING)
        stale = self.house.leave(incarnation=7)
        late = self.house.set(CALIBRATED, sequence=7)
        for refusal in (illegal, stale, late):
            self.assertNoResult(refusal)
        self.store.finish()
        self.expect_refusal(illegal, IllegalTransition)
        self.expect_refusal(stale, StaleIncarnation)
        self.expect_refusal(late, StaleSequence)

    def test_that_a_client_is_dead_is_told_once_the_store_knows_it(self) -> None:
        self.house.register("1")
        self.house.listen(FUSE)
        answer = self.house.ask()
        self.assertNoResult(answer)
        self.store.finish()
        self.expect_refusal(answer, UnknownClient)

    def test_client_with_nothing_pending_is_answered_at_once(self) -> None:
        self.house.register("1")
        self.house.beat("2")
        self.successResultOf(self.house.beat("1"))
        self.successResultOf(self.house.ask("1"))
        self.successResultOf(self.dispatcher.client("1"))
        self.expect_refusal(self.house.set(RUNNING), IllegalTransition)
        self.expect_refusal(self.house.ask("3"), UnknownClient, "3")
        self.assertEqual([f.client_id for f in self.store.waiting or ()], ["2"])

    def test_ordinary_beat_commits_nothing(self) -> None:
        self.house.register("1")
        for _ in range(3):
            self.house.listen(1)
            self.successResultOf(self.house.beat("1", timebomb_seconds=FUSE))
        self.assertEqual(self.store.commits, 1)

    def test_beat_that_the_store_must_know_of_is_answered_at_once(self) -> None:
        self.house.register("1")
        self.successResultOf(self.house.beat("1", RUNNING))
        self.successResultOf(self.house.beat("1", RUNNING, timebomb_seconds=5.0))
        self.store.finish_all()
        self.assertEqual(
            [(kept.fuse, kept.has_reported) for kept in self.house.snapshots()],
            [(FUSE, True), (5.0, True)],
        )

    def test_state_that_stays_the_same_commits_nothing(self) -> None:
        self.house.register("1")
        self.successResultOf(self.house.set(UNCALIBRATED))
        self.successResultOf(self.house.steer("1", UNCALIBRATED))
        self.assertEqual(self.store.commits, 1)

    def test_changes_are_heard_after_the_commit_and_in_order(self) -> None:
        self.house.beat("1")
        self.house.beat("2")
        self.house.set(CALIBRATED)
        for heard in (1, 3):
            self.store.finish()
            self.assertEqual(len(self.house.heard), heard)
        self.assertEqual(
            [(change.client_id, change.sequence) for change in self.house.heard],
            [("1", 1), ("2", 1), ("1", 2)],
        )

    @settings(
        max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    @given(HAPPENINGS)
    def test_nothing_told_ever_shows_more_than_the_store_has(self, happenings):
        """Neither while the store is in trouble, nor if the service is killed."""
        witness = Witness()
        for happening in happenings:
            witness.see(*happening)
            house = witness.house
            self.assertEqual(house.heard, house.kept_changes())
        witness.house.calm_down()
        for answer in witness.answers:
            self.successResultOf(answer)
        self.assertEqual(witness.beyond, [])


class TestTrouble(DispatchTestCase):
    """The store can't keep anything now."""

    def setUp(self) -> None:
        """Begin with clients 1, which lives, and 2, whose registration isn't kept."""
        super().setUp()
        self.house.register("1")
        self.refusals: list[Failure] = []
        self.house.beat("2").addErrback(self.refusals.append)
        self.store.break_down()

    def test_change_that_was_asked_for_and_is_not_kept_is_refused(self) -> None:
        [refusal] = self.refusals
        self.expect_refusal(fail(refusal), Overloaded, "2")

    def test_ordinary_beats_are_answered_and_keep_their_clients_alive(self) -> None:
        for _ in range(10):
            self.house.listen(FUSE / 2)
            reply = self.successResultOf(self.house.beat("1"))
            self.assertEqual((reply.sequence, reply.client_state), (1, UNCALIBRATED))
            self.store.break_down()
        self.assertEqual(len(self.house.heard), 1)

    def test_beat_with_another_fuse_is_answered(self) -> None:
        answer = self.house.beat("1", RUNNING, timebomb_seconds=5.0)
        self.assertEqual(self.successResultOf(answer).timebomb_seconds, 5.0)

    def test_first_report_of_a_steered_client_is_not_answered_before_it_is_kept(
        self,
    ) -> None:
        self.house.listen(PAUSE)
        self.store.finish_all()
        steering = self.house.steer("1", RUNNING)
        self.store.finish_all()
        self.successResultOf(steering)
        refusals: list[Failure] = []
        self.house.beat("1", RUNNING).addErrback(refusals.append)
        self.store.break_down()
        for _ in range(3):
            self.house.listen(FUSE - 1)
            if self.store.waiting is not None:
                self.store.break_down()
            self.house.beat("1", RUNNING).addErrback(refusals.append)
        self.assertEqual(len(refusals), 4)
        self.house.listen(PAUSE)
        self.store.finish_all()
        reply = self.successResultOf(self.house.beat("1", RUNNING))
        self.assertEqual(reply.sequence, 2, "it has lived on")

    def test_clients_are_listed_though_a_check_waits(self) -> None:
        self.house.listen(PAUSE)
        self.store.finish_all()
        Deferred.fromCoroutine(self.house.journal.check())
        self.store.break_down()
        self.assertEqual(len(self.successResultOf(self.house.listing())), 2)

    def test_what_asks_for_no_change_is_answered(self) -> None:
        for answer in (
            self.house.ask(),
            self.house.set(UNCALIBRATED),
            self.house.steer("1", UNCALIBRATED),
        ):
            self.assertEqual(self.successResultOf(answer).sequence, 1)
        self.successResultOf(self.dispatcher.client("1"))
        self.expect_refusal(self.house.ask("7"), UnknownClient, "7")

    def test_every_change_is_refused_and_nothing_happens(self) -> None:
        self.successResultOf(self.house.beat("1", RUNNING))
        for answer in (
            self.house.beat("1", DISCONNECTED),
            self.house.beat("1", instance_id="another"),
            self.house.set(CALIBRATED),
            self.house.steer("1", RUNNING),
            self.house.leave(),
            self.house.kick("1"),
        ):
            self.expect_refusal(answer, Overloaded)
        self.expect_refusal(self.house.beat("3"), Overloaded, "3")
        client = self.house.registry.get("1")
        self.assertEqual((client.state, client.sequence), (UNCALIBRATED, 1))
        self.assertEqual((client.incarnation, len(self.house.registry)), (101, 2))

    def test_broken_rule_is_told_as_what_it_is(self) -> None:
        self.expect_refusal(self.house.set(RUNNING), IllegalTransition)
        self.expect_refusal(self.house.leave(incarnation=7), StaleIncarnation)

    def test_state_that_is_not_kept_is_shown_to_nobody(self) -> None:
        for answer in (
            self.house.ask("2"),
            self.house.beat("2"),
            self.dispatcher.client("2"),
            Deferred.fromCoroutine(self.dispatcher.history("2")),
        ):
            self.failureResultOf(answer, Overloaded)
        [listed] = self.successResultOf(self.house.listing())
        self.assertEqual(listed.client_id, "1")
        orders = self.house.steer_many(RUNNING, ["1", "2"])
        self.failureResultOf(orders, Overloaded)

    def test_deaths_are_told_once_the_store_is_well_again(self) -> None:
        self.house.listen(FUSE)
        self.assertEqual(len(self.house.registry), 0)
        self.expect_refusal(self.house.ask("1"), Overloaded)
        self.assertEqual(len(self.house.heard), 1)
        self.house.calm_down()
        self.assertEqual(
            sorted(
                (change.client_id, change.sequence, change.reason)
                for change in self.house.heard
            ),
            [
                ("1", 1, Reason.HEARTBEAT),
                ("1", 2, Reason.TIMEBOMB),
                ("2", 1, Reason.HEARTBEAT),
                ("2", 2, Reason.TIMEBOMB),
            ],
        )
        self.expect_refusal(self.house.ask("1"), UnknownClient)

    def test_once_the_store_is_well_again_changes_are_accepted(self) -> None:
        self.house.calm_down()
        self.assertEqual(self.successResultOf(self.house.ask("2")).sequence, 1)
        self.expect_answer_after(self.store.finish, self.house.set(CALIBRATED))

    def test_store_that_does_not_answer_holds_up_nobody_for_ever(self) -> None:
        self.house.calm_down()
        answer = self.house.set(CALIBRATED)
        self.house.listen(PATIENCE)
        self.expect_refusal(answer, Overloaded)
        self.successResultOf(self.house.beat("2"))

    def test_before_the_store_is_open_everything_is_refused(self) -> None:
        self.patch(HandStore, "open", lambda _: Deferred())
        house = House()
        self.expect_refusal(house.beat("1"), Overloaded)
        self.expect_refusal(house.ask("1"), Overloaded)
        self.failureResultOf(house.dispatcher.clients(), Overloaded)
        self.assertEqual(len(house.registry), 0)


class TestListingsInTrouble(DispatchTestCase):
    """Operators need to know who lives most when the store is in trouble."""

    def setUp(self) -> None:
        """Begin with five clients that the store has."""
        super().setUp()
        for name in ("left", "steered", "again", "well", "silent"):
            fuse = 5.0 if name == "silent" else 500.0
            self.house.beat(name, instance_id="a", timebomb_seconds=fuse)
        self.store.finish_all()

    def run_into_trouble(self) -> None:
        """What happens to them isn't kept any more."""
        self.house.listen(4)
        for answer in (
            self.house.beat("new"),
            self.house.leave("left"),
            self.house.steer("steered", RUNNING),
            self.house.steer("again", RUNNING),
            self.house.beat("again", instance_id="b"),
        ):
            answer.addErrback(lambda failure: failure.trap(Overloaded))
        self.store.break_down()
        self.house.listen(2)  # "silent" dies

    def test_clients_are_listed_as_the_store_has_them(self) -> None:
        self.run_into_trouble()
        records = self.successResultOf(self.house.listing())
        self.assertEqual(
            [
                (each.client_id, each.client_state, each.sequence, each.incarnation)
                for each in records
            ],
            [
                ("left", UNCALIBRATED, 1, 101),
                ("steered", UNCALIBRATED, 1, 102),
                ("again", UNCALIBRATED, 1, 103),
                ("well", UNCALIBRATED, 1, 104),
                ("silent", UNCALIBRATED, 1, 105),
            ],
        )
        self.assertEqual({each.instance_id for each in records}, {"a"})
        self.assertEqual(
            [each.seconds_since_heartbeat for each in records], [500, 6, 2, 6, 5]
        )
        self.assertEqual(
            [each.seconds_to_timebomb for each in records], [0, 494, 8, 494, 0]
        )

    def test_no_state_is_older_or_younger_than_the_store_knows(self) -> None:
        self.run_into_trouble()
        records = self.successResultOf(self.house.listing())
        self.assertEqual({each.state_since for each in records}, {moment(NOON)})

    def test_one_client_is_shown_as_it_is_listed(self) -> None:
        self.run_into_trouble()
        for record in self.successResultOf(self.house.listing()):
            alone = self.dispatcher.client(record.client_id)
            self.assertEqual(self.successResultOf(alone), record)
        self.expect_refusal(self.dispatcher.client("new"), Overloaded, "new")
        self.expect_refusal(self.dispatcher.client("7"), UnknownClient, "7")

    def test_history_is_what_the_store_has(self) -> None:
        self.run_into_trouble()
        for number, name in enumerate(("left", "steered", "again", "well", "silent")):
            history = Deferred.fromCoroutine(self.dispatcher.history(name))
            [lasting] = self.successResultOf(history)
            self.assertEqual(
                (lasting.incarnation, lasting.ended_at, lasting.last_state),
                (101 + number, None, UNCALIBRATED),
            )

    def test_client_whose_first_report_waits_has_a_history(self) -> None:
        steering = self.house.steer("well", RUNNING)
        self.store.finish_all()
        self.successResultOf(steering)
        self.house.beat("well", RUNNING).addErrback(lambda f: f.trap(Overloaded))
        self.store.break_down()
        history = Deferred.fromCoroutine(self.dispatcher.history("well"))
        [lasting] = self.successResultOf(history)
        self.assertIs(lasting.last_state, RUNNING)

    def test_list_that_waits_when_the_trouble_begins_is_answered(self) -> None:
        self.house.beat("new").addErrback(lambda failure: failure.trap(Overloaded))
        listing = self.house.listing()
        self.assertNoResult(listing)
        self.store.break_down()
        self.assertEqual(len(self.successResultOf(listing)), 5)

    def test_step_that_waits_when_the_trouble_begins_shows_what_is_kept(self) -> None:
        steps = self.successResultOf(self.dispatcher.clients())
        self.assertEqual(cast(ClientRecord, next(steps)).client_id, "left")
        self.house.steer("steered", RUNNING).addErrback(
            lambda failure: failure.trap(Overloaded)
        )
        waiting = next(steps)
        assert isinstance(waiting, Deferred)
        self.assertNoResult(waiting)
        self.store.break_down()
        kept = cast(ClientRecord, self.successResultOf(waiting))
        self.assertEqual((kept.client_state, kept.sequence), (UNCALIBRATED, 1))

    def test_list_of_a_service_that_has_stopped_is_refused(self) -> None:
        Deferred.fromCoroutine(self.house.journal.close())
        self.failureResultOf(self.dispatcher.clients(), Overloaded)

    @settings(
        max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    @given(HAPPENINGS)
    def test_list_in_trouble_is_what_the_store_has_after_anything(self, happenings):
        witness = Witness()
        for happening in happenings:
            witness.see(*happening)
            house = witness.house
            if house.journal.trouble is None:
                continue
            listed = self.successResultOf(house.listing())
            kept = stored_state(witness.kept(), 100).clients
            self.assertEqual(
                [(each.client_id, each.incarnation, each.sequence) for each in listed],
                [
                    (each.client_id, each.incarnation, each.sequence)
                    for each in sorted(kept, key=lambda each: each.incarnation)
                ],
            )
            self.assertEqual(
                {each.client_id: each.client_state for each in listed},
                {each.client_id: each.state for each in kept},
            )


class TestOperators(DispatchTestCase):
    def history(self, client_id: str = "1") -> Deferred[list[LifeRecord]]:
        """The lives of a client."""
        return Deferred.fromCoroutine(self.dispatcher.history(client_id))

    def test_record_says_all_about_a_client(self) -> None:
        said = {"values": Raw(b'{"fps":60}'), "labels": {"room": "a"}}
        self.house.beat("1", RUNNING, instance_id="i", **said)
        self.store.finish_all()
        self.house.listen(4)
        self.assertEqual(
            self.successResultOf(self.dispatcher.client("1")),
            ClientRecord(
                client_id="1",
                client_state=UNCALIBRATED,
                reported_state=RUNNING,
                sequence=1,
                incarnation=101,
                instance_id="i",
                values=Raw(b'{"fps":60}'),
                timebomb_seconds=FUSE,
                seconds_since_heartbeat=4.0,
                seconds_to_timebomb=6.0,
                registered_at="2022-03-29T12:00:00.000Z",
                labels={"room": "a"},
                late=True,
                held=False,
                silent_seconds=None,
                state_since="2022-03-29T12:00:00.000Z",
                deaths_in_ten_minutes=0,
            ),
        )

    def test_list_of_clients_waits_for_all(self) -> None:
        self.assertEqual(self.successResultOf(self.house.listing()), [])
        for process in ("a", "b"):
            self.house.beat("1", instance_id=process)
            self.house.beat("2", instance_id=process)
            answer = self.house.listing()
            self.store.finish()
            records = self.expect_answer_after(self.store.finish, answer)
            self.assertEqual({record.client_id for record in records}, {"1", "2"})

    def test_list_of_clients_is_in_order_of_registration(self) -> None:
        self.house.register("2", "1", "10")
        records = self.successResultOf(self.house.listing())
        self.assertEqual([record.client_id for record in records], ["2", "1", "10"])

    def test_list_of_clients_waits_for_a_death(self) -> None:
        self.house.register("1", "2")
        self.house.leave("1")
        records = self.expect_answer_after(self.store.finish, self.house.listing())
        self.assertEqual([record.client_id for record in records], ["2"])

    def test_steering_many_mixes_states_and_errors_in_the_order_asked(self) -> None:
        self.house.register("1", "2")
        answer = self.house.steer_many(RUNNING, ["2", "3", "1"])
        replies = self.expect_answer_after(self.store.finish_all, answer)
        second, unknown, first = replies
        assert isinstance(first, ClientStateMessage)
        assert isinstance(second, ClientStateMessage)
        assert isinstance(unknown, ErrorMessage)
        self.assertEqual((first.client_id, first.client_state), ("1", RUNNING))
        self.assertEqual((second.client_id, second.client_state), ("2", RUNNING))
        self.assertEqual((unknown.client_id, unknown.code), ("3", "UNKNOWN_CLIENT"))

    def test_steering_many_waits_for_all_of_them(self) -> None:
        self.house.register("1", "2")
        for state in (RUNNING, CALIBRATED):
            answer = self.house.steer_many(state, ["1", "2"])
            self.store.finish()
            self.expect_answer_after(self.store.finish, answer)

    def test_steering_without_ids_means_all_who_live(self) -> None:
        self.house.register("1", "2", "3")
        self.house.leave("2")
        answer = self.house.steer_many(CALIBRATED, None)
        replies = self.expect_answer_after(self.store.finish_all, answer)
        self.assertEqual([reply.client_id for reply in replies], ["1", "3"])

    def test_steering_with_no_ids_at_all_means_nobody(self) -> None:
        self.house.register("1")
        self.assertEqual(self.successResultOf(self.house.steer_many(RUNNING, [])), [])
        self.assertIs(self.house.registry.get("1").state, UNCALIBRATED)

    def test_steering_many_to_disconnected_is_an_error_for_each(self) -> None:
        self.house.register("1", "2")
        replies = self.successResultOf(self.house.steer_many(DISCONNECTED, None))
        self.assertEqual(
            [(reply.client_id, getattr(reply, "code", None)) for reply in replies],
            [("1", "ILLEGAL_TRANSITION"), ("2", "ILLEGAL_TRANSITION")],
        )

    def test_steering_many_gives_others_their_turn(self) -> None:
        self.house.register(*map(str, range(100)))
        self.store.be_quick()
        clock, steer = self.house.clock, Registry.steer

        def steer_slowly(
            registry: Registry, client_id: str, state: ClientState, *more: Any
        ) -> LocalClient:
            clock.rightNow += SLICE / 4
            return steer(registry, client_id, state, *more)

        def take_turn() -> None:
            self.turns += 1
            if not answer.called:
                clock.callLater(0, take_turn)

        self.turns = 0
        self.patch(Registry, "steer", steer_slowly)
        answer = self.house.steer_many(RUNNING, None)
        clock.callLater(0, take_turn)
        clock.advance(0)
        self.assertEqual(len(self.successResultOf(answer)), 100)
        self.assertGreaterEqual(self.turns, 100 // 5)

    def test_steering_many_goes_no_faster_than_the_store(self) -> None:
        count = 5 * LARGEST_BATCH
        self.house.register(*map(str, range(count)))
        answer = self.house.steer_many(RUNNING, None)
        steered = [c.client_id for c in self.house.registry if c.state is RUNNING]
        self.assertEqual(len(steered), 2 * LARGEST_BATCH)
        self.store.finish_all()
        self.assertEqual(len(self.successResultOf(answer)), count)

    def test_order_to_all_means_those_who_live_when_it_is_carried_out(self) -> None:
        self.house.register("1", "2")
        first = self.house.steer_many(CALIBRATED)
        second = self.house.steer_many(RUNNING)
        self.house.beat("3")
        self.assertIs(self.house.registry.get("1").state, CALIBRATED)
        self.store.finish_all()
        self.assertEqual(len(self.successResultOf(first)), 2)
        self.assertEqual(
            [reply.client_id for reply in self.successResultOf(second)], ["1", "2", "3"]
        )
        self.assertEqual({client.state for client in self.house.registry}, {RUNNING})

    def test_order_that_nobody_waits_for_any_longer_is_carried_out(self) -> None:
        self.house.register("1", "2")
        for answer in [self.house.steer_many(s, None) for s in (CALIBRATED, RUNNING)]:
            answer.cancel()
            self.failureResultOf(answer, CancelledError)
        self.store.finish_all()
        self.assertEqual({client.state for client in self.house.registry}, {RUNNING})

    def test_order_that_cannot_be_kept_is_no_obstacle_to_the_next(self) -> None:
        self.house.register("1", "2")
        answer = self.house.steer_many(CALIBRATED, None)
        self.store.break_down()
        self.failureResultOf(answer, Overloaded)
        self.house.calm_down()
        again = self.house.steer_many(RUNNING, None)
        self.assertEqual(len(self.expect_answer_after(self.store.finish_all, again)), 2)

    def test_history_of_the_present_life_has_none_for_how_it_ended(self) -> None:
        self.house.register("1")
        self.house.listen(1.5)
        self.house.beat("1")
        self.assertEqual(
            self.successResultOf(self.history()),
            [
                LifeRecord(
                    incarnation=101,
                    registered_at="2022-03-29T12:00:00.000Z",
                    ended_at=None,
                    reason=None,
                    last_state=UNCALIBRATED,
                    beats=2,
                    longest_gap_seconds=1.5,
                    by=None,
                )
            ],
        )

    def test_history_tells_which_operator_ended_a_life(self) -> None:
        for by in ("Anna", None):
            self.house.register("1")
            self.house.registry.kick("1", by=by)
            self.store.finish_all()
        told = self.successResultOf(self.history())
        self.assertEqual([life.by for life in told], [None, "Anna"])

    def test_history_is_told_newest_first(self) -> None:
        self.house.register("1")
        self.house.leave()
        self.house.beat("1", RUNNING)
        self.house.beat("1", DISCONNECTED)
        self.store.finish_all()
        self.house.listen(FUSE)
        self.house.beat("1")
        self.store.finish_all()
        self.assertEqual(
            [
                (life.incarnation, life.reason, life.ended_at is None)
                for life in self.successResultOf(self.history())
            ],
            [
                (104, None, True),
                (103, Reason.TIMEBOMB, False),
                (102, Reason.RECONNECT, False),
                (101, Reason.GOODBYE, False),
            ],
        )

    def test_history_waits_for_the_store_and_then_shows_the_end(self) -> None:
        self.house.register("1")
        self.house.steer("1", RUNNING)
        self.store.finish_all()
        self.house.listen(FUSE)
        (life,) = self.expect_answer_after(self.store.finish_all, self.history())
        self.assertEqual(life.reason, Reason.TIMEBOMB)
        self.assertEqual(life.last_state, RUNNING)
        self.assertEqual(life.ended_at, "2022-03-29T12:00:10.000Z")

    def test_life_that_ends_while_its_history_is_read_is_told_once(self) -> None:
        self.house.register("1")
        reading: Deferred[list[Life]] = Deferred()
        self.patch(HandStore, "former_lives", lambda *_: reading)
        answer = self.history()
        self.house.kick("1")
        self.store.finish()
        ended = self.house.heard[-1].ended
        assert ended is not None
        (life,) = self.expect_answer_after(lambda: reading.callback([ended]), answer)
        self.assertEqual((life.incarnation, life.reason), (101, Reason.KICK))

    def test_history_of_an_unknown_client_is_an_error(self) -> None:
        self.expect_refusal(self.history("7"), UnknownClient, "7")


class TestRefusals(DispatchTestCase):
    """Another service has changed the client in the store meanwhile."""

    def setUp(self) -> None:
        """Begin with a client that this service knows in its first life."""
        super().setUp()
        self.house.register("1")
        self.house.heard.clear()

    def test_change_is_made_again_on_the_record_in_the_store(self) -> None:
        answer = self.house.set(CALIBRATED)
        theirs = snapshot("1", 200, sequence=5)
        self.store.finish({"1": theirs})
        reply = self.expect_answer_after(self.store.finish, answer)
        self.assertEqual(
            (reply.incarnation, reply.sequence, reply.client_state),
            (200, 6, CALIBRATED),
        )

    def test_who_asks_is_told_the_record_in_the_store(self) -> None:
        self.house.set(CALIBRATED).addErrback(lambda _: None)
        asked = self.house.ask()
        self.store.finish({"1": snapshot("1", 200, sequence=5, state=CALIBRATED)})
        reply = self.successResultOf(asked)
        self.assertEqual(
            (reply.incarnation, reply.sequence, reply.client_state),
            (200, 5, CALIBRATED),
        )

    def test_record_in_the_store_may_forbid_what_was_asked_for(self) -> None:
        answer = self.house.set(CALIBRATED, incarnation=101)
        self.store.finish({"1": snapshot("1", 200)})
        self.expect_refusal(answer, StaleIncarnation)
        self.assertIsNone(self.store.waiting)

    def test_client_that_is_dead_in_the_store_is_unknown(self) -> None:
        answer = self.house.set(CALIBRATED)
        self.store.finish({"1": None})
        self.expect_refusal(answer, UnknownClient)
        self.expect_refusal(self.house.ask(), UnknownClient)

    def test_beat_of_a_client_that_is_dead_in_the_store_registers_it(self) -> None:
        answer = self.house.beat("1", instance_id="another")
        self.store.finish({"1": None})
        reply = self.expect_answer_after(self.store.finish, answer)
        self.assertEqual((reply.sequence, reply.client_state), (1, UNCALIBRATED))
        self.assertGreater(reply.incarnation, 101)

    def test_request_that_is_refused_each_time_is_told_to_come_later(self) -> None:
        answer = self.house.set(CALIBRATED)
        for number in range(TRIES):
            self.assertNoResult(answer)
            self.store.finish({"1": snapshot("1", 200 + number)})
        self.expect_refusal(answer, Overloaded)
        self.assertIsNone(self.store.waiting)
        self.assertEqual(self.successResultOf(self.house.ask()).incarnation, 202)

    def test_what_was_refused_is_heard_by_nobody(self) -> None:
        self.house.set(CALIBRATED)
        self.house.beat("2")
        self.store.finish({"1": snapshot("1", 200, sequence=5)})
        self.store.finish_all()
        self.assertEqual(
            [(c.client_id, c.incarnation, c.sequence) for c in self.house.heard],
            [("2", 102, 1), ("1", 200, 6)],
        )
        self.assertEqual(self.house.heard, self.house.kept_changes()[1:])
