"""Operators' orders: on which terms they are carried out, and what is answered."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from heartbeat_service.core.changes import Lockout
from heartbeat_service.core.errors import (
    HeartbeatError,
    IllegalTransition,
    LockedOut,
    Overloaded,
    StaleSequence,
    UnknownClient,
)
from heartbeat_service.core.states import ClientState
from heartbeat_service.engine.engine import Engine
from heartbeat_service.engine.journal import LARGEST_BATCH
from heartbeat_service.engine.orders import Answer, ManyOrder, OneOrder
from heartbeat_service.protocol.messages import ClientStateMessage, ErrorMessage
from heartbeat_service.protocol.orders import (
    KickOrder,
    KickOrders,
    LockoutOrder,
    LockoutOrders,
    LockoutRecord,
    StateOrder,
    StateOrders,
)
from tests.unit.engine.test_dispatch import NOON, DispatchTestCase
from tests.unit.fakes import HandStore
from tests.unit.storage.store_suite import snapshot

DISCONNECTED, UNCALIBRATED, CALIBRATED, RUNNING = ClientState
ALL: Any = {"all_": True}


class OrdersTestCase(DispatchTestCase):
    def setUp(self) -> None:
        """Begin with three clients, in three states, whose sequence is their number."""
        super().setUp()
        self.house.register("1", "2", "3")
        self.house.steer("2", CALIBRATED)
        self.house.set(CALIBRATED, "3")
        self.house.set(RUNNING, "3")
        self.store.finish_all()

    def points(self) -> dict[str, tuple[ClientState, int, int]]:
        """Who lives, in which state, and at which point."""
        return {
            client.client_id: (client.state, client.incarnation, client.sequence)
            for client in self.house.registry
        }

    def one(self, client_id: str, order: OneOrder) -> Any:
        """What an order to one has come to: what is answered, or the error."""
        answer = self.house.orders.to_one(client_id, order)
        self.store.finish_all()
        outcome: list[Any] = []
        answer.addErrback(lambda failure: failure.value).addCallback(outcome.append)
        return outcome[0]

    def many(self, order: ManyOrder) -> list[Answer]:
        """What an order to many has come to."""
        answer = self.house.orders.to_many(order)
        self.store.finish_all()
        return self.successResultOf(answer)


def brief(answers: list[Answer]) -> list[Any]:
    """Of each answer what matters: its code, or the state and the sequence."""
    told: list[Any] = []
    for answer in answers:
        match answer:
            case ErrorMessage():
                told.append((answer.client_id, answer.code))
            case ClientStateMessage():
                told.append((answer.client_id, answer.client_state, answer.sequence))
            case LockoutRecord():
                told.append((answer.client_id, answer.seconds))
    return told


class TestTerms(OrdersTestCase):
    """``from`` and ``expected``."""

    def test_whoever_is_in_another_state_is_left_alone(self) -> None:
        before = self.points()
        for order in (
            StateOrder(client_state=RUNNING, from_states=[CALIBRATED, RUNNING]),
            KickOrder(from_states=[CALIBRATED, RUNNING]),
            LockoutOrder(seconds=60, from_states=[CALIBRATED, RUNNING]),
        ):
            with self.subTest(order=order):
                error = self.one("1", order)
                self.assertIsInstance(error, IllegalTransition)
                self.assertEqual(
                    error.detail,
                    "it is UNCALIBRATED, and the order is for CALIBRATED, RUNNING",
                )
                self.assertEqual((error.client_id, self.points()), ("1", before))
        answers = self.many(
            StateOrders(client_state=UNCALIBRATED, from_states=[CALIBRATED], **ALL)
        )
        self.assertEqual(
            brief(answers),
            [
                ("1", "ILLEGAL_TRANSITION"),
                ("2", UNCALIBRATED, 3),
                ("3", "ILLEGAL_TRANSITION"),
            ],
        )

    def test_whoever_has_gone_on_is_left_alone(self) -> None:
        before = self.points()
        for point in ((101, 2), (100, 1), (102, 1)):
            for order in (
                StateOrder(client_state=RUNNING, expected=point),
                KickOrder(expected=point),
                LockoutOrder(seconds=60, expected=point),
            ):
                with self.subTest(order=order):
                    error = self.one("1", order)
                    self.assertIsInstance(error, StaleSequence)
                    self.assertEqual(
                        error.detail,
                        "it has gone on: it is at [101, 1], "
                        f"and {list(point)} was expected",
                    )
                    self.assertEqual(self.points(), before)
        answers = self.many(
            KickOrders(
                client_ids=["3", "1", "2"], expected={"1": (101, 1), "2": (102, 3)}
            )
        )
        self.assertEqual(
            brief(answers),
            [
                ("3", DISCONNECTED, 4),
                ("1", DISCONNECTED, 2),
                ("2", "STALE_SEQUENCE"),
            ],
        )

    def test_terms_that_hold_change_nothing_in_what_is_done(self) -> None:
        order = StateOrder(
            client_state=RUNNING, from_states=[UNCALIBRATED], expected=(101, 1)
        )
        self.assertEqual(brief([self.one("1", order)]), [("1", RUNNING, 2)])
        self.assertIsInstance(self.one("1", order), StaleSequence)

    def test_who_is_not_here_is_unknown_to_all_orders_but_a_lock_out(self) -> None:
        for order in (
            StateOrder(client_state=RUNNING, from_states=[DISCONNECTED]),
            KickOrder(from_states=[DISCONNECTED]),
            KickOrder(expected=(100, 1)),
        ):
            with self.subTest(order=order):
                self.assertIsInstance(self.one("4", order), UnknownClient)
        lockout = LockoutOrder(seconds=60, from_states=[RUNNING])
        self.assertIsInstance(self.one("4", lockout), IllegalTransition)
        lockout = LockoutOrder(seconds=60, expected=(100, 1))
        self.assertIsInstance(self.one("4", lockout), StaleSequence)
        self.house.registry.lockouts.check("4")
        lockout = LockoutOrder(seconds=60, from_states=[DISCONNECTED])
        self.assertIsInstance(self.one("4", lockout), LockoutRecord)
        self.assertRaises(LockedOut, self.house.registry.lockouts.check, "4")

    def test_terms_are_looked_at_again_when_the_store_knows_better(self) -> None:
        answer = self.house.orders.to_one(
            "1", StateOrder(client_state=RUNNING, from_states=[UNCALIBRATED])
        )
        kept = snapshot("1", incarnation=101, sequence=7, state=CALIBRATED)
        self.store.finish({"1": kept})
        self.store.finish_all()
        self.failureResultOf(answer, IllegalTransition)
        self.assertEqual(self.points()["1"], (CALIBRATED, 101, 7))

    def test_so_they_are_in_an_order_to_many(self) -> None:
        answer = self.house.orders.to_many(
            StateOrders(client_state=RUNNING, from_states=[UNCALIBRATED], **ALL)
        )
        kept = snapshot("1", incarnation=101, sequence=7, state=CALIBRATED)
        self.store.finish({"1": kept})
        self.store.finish_all()
        self.assertEqual(
            brief(self.successResultOf(answer))[0], ("1", "ILLEGAL_TRANSITION")
        )
        self.assertEqual(self.points()["1"], (CALIBRATED, 101, 7))

    def test_what_the_store_refused_is_done_on_what_it_has(self) -> None:
        answer = self.house.orders.to_many(StateOrders(client_state=RUNNING, **ALL))
        kept = snapshot("1", incarnation=101, sequence=7, state=CALIBRATED)
        self.store.finish({"1": kept, "2": None})
        self.store.finish_all()
        self.assertEqual(
            brief(self.successResultOf(answer)),
            [("1", RUNNING, 8), ("2", "UNKNOWN_CLIENT"), ("3", RUNNING, 3)],
        )
        self.assertEqual(list(self.points()), ["1", "3"])


class TestDryRuns(OrdersTestCase):
    """``dryRun``."""

    def all_there_is(self) -> tuple[object, ...]:
        """Whatever an order can change."""
        return (
            self.points(),
            list(self.store.kept),
            self.store.commits,
            list(self.house.heard),
            self.house.registry.lockouts.client_ids(),
            self.house.registry.last_incarnation,
            [call.getTime() for call in self.house.clock.getDelayedCalls()],
            [c.heartbeat.seconds_left() for c in self.house.registry],
        )

    def test_each_order_says_what_would_be_and_changes_nothing(self) -> None:
        before = self.all_there_is()
        for order, told in (
            (StateOrder(client_state=RUNNING, dry_run=True), ("2", RUNNING, 3)),
            (StateOrder(client_state=CALIBRATED, dry_run=True), ("2", CALIBRATED, 2)),
            (KickOrder(dry_run=True), ("2", DISCONNECTED, 3)),
            (LockoutOrder(seconds=60, dry_run=True), ("2", 60)),
            (LockoutOrder(seconds=0, dry_run=True), ("2", 0)),
        ):
            with self.subTest(order=order):
                self.assertEqual(brief([self.one("2", order)]), [told])
                self.assertEqual(self.all_there_is(), before)

    def test_orders_to_many_say_it_of_each(self) -> None:
        before = self.all_there_is()
        self.assertEqual(
            brief(
                self.many(
                    StateOrders(
                        client_state=RUNNING,
                        client_ids=["3", "2", "4", "1", "2"],
                        expected={"1": (1, 1)},
                        dry_run=True,
                    )
                )
            ),
            [
                ("3", RUNNING, 3),
                ("2", RUNNING, 3),
                ("4", "UNKNOWN_CLIENT"),
                ("1", "STALE_SEQUENCE"),
                ("2", RUNNING, 3),
            ],
        )
        self.assertEqual(
            brief(self.many(KickOrders(dry_run=True, **ALL))),
            [(name, DISCONNECTED, int(name) + 1) for name in "123"],
        )
        lockouts = LockoutOrders(seconds=9, dry_run=True, **ALL)
        self.assertEqual(brief(self.many(lockouts)), [(name, 9) for name in "123"])
        self.assertEqual(self.all_there_is(), before)

    def test_errors_are_those_of_the_order_itself(self) -> None:
        for client_id, order, error in (
            (
                "1",
                StateOrder(client_state=DISCONNECTED, dry_run=True),
                IllegalTransition,
            ),
            ("1", KickOrder(from_states=[RUNNING], dry_run=True), IllegalTransition),
            ("1", KickOrder(expected=(101, 9), dry_run=True), StaleSequence),
            ("4", KickOrder(dry_run=True), UnknownClient),
        ):
            with self.subTest(order=order):
                self.assertIsInstance(self.one(client_id, order), error)

    def test_in_trouble_nothing_would_be_done(self) -> None:
        self.house.steer("1", RUNNING).addErrback(
            lambda failure: failure.trap(Overloaded)
        )
        self.store.break_down()
        for order in (
            StateOrder(client_state=RUNNING, dry_run=True),
            KickOrder(dry_run=True),
            LockoutOrder(seconds=60, dry_run=True),
        ):
            answer = self.house.orders.to_one("2", order)
            self.failureResultOf(answer, Overloaded)

    def test_what_would_be_is_not_told_of_what_is_not_durable(self) -> None:
        self.house.steer("1", RUNNING)
        answer = self.house.orders.to_one(
            "1", StateOrder(client_state=CALIBRATED, dry_run=True)
        )
        told = self.expect_answer_after(self.store.finish_all, answer)
        self.assertEqual(brief([told]), [("1", CALIBRATED, 3)])


class TestMany(OrdersTestCase):
    """Orders to many."""

    def test_who_is_named_twice_is_dealt_with_once_and_answered_twice(self) -> None:
        answers = self.many(
            KickOrders(client_ids=["2", "1", "2"], expected={"2": (102, 2)})
        )
        self.assertEqual(
            brief(answers),
            [("2", DISCONNECTED, 3), ("1", DISCONNECTED, 2), ("2", DISCONNECTED, 3)],
        )
        self.assertEqual(list(self.points()), ["3"])

    def test_lock_out_of_all_kicks_all_and_keeps_them_out(self) -> None:
        answers = self.many(LockoutOrders(seconds=60, **ALL))
        self.assertEqual(brief(answers), [("1", 60), ("2", 60), ("3", 60)])
        self.assertEqual(self.points(), {})
        for name in "123":
            self.expect_refusal(self.house.beat(name), LockedOut, name)
        answers = self.many(LockoutOrders(seconds=0, client_ids=["1", "4"]))
        self.assertEqual(brief(answers), [("1", 0), ("4", 0)])
        self.house.beat("1")
        self.assertEqual(list(self.points()), ["1"])

    def test_lock_outs_are_answered_once_they_are_durable(self) -> None:
        answer = self.house.orders.to_many(LockoutOrders(seconds=9, client_ids=["4"]))
        self.expect_answer_after(self.store.finish, answer)
        self.assertEqual(self.store.kept[-1], Lockout("4", NOON + 9, seconds=9))

    def test_who_dies_before_its_turn_is_unknown(self) -> None:
        self.house.register(*map(str, range(1000, 1000 + 2 * LARGEST_BATCH)))
        answer = self.house.orders.to_many(StateOrders(client_state=RUNNING, **ALL))
        last = str(999 + 2 * LARGEST_BATCH)
        self.assertIs(self.points()[last][0], UNCALIBRATED)
        self.house.leave(last)
        self.store.finish_all()
        answers = brief(self.successResultOf(answer))
        self.assertEqual(answers[-2:], [(str(int(last) - 1), RUNNING, 2), answers[-1]])
        self.assertEqual(answers[-1], (last, "UNKNOWN_CLIENT"))

    def test_disconnected_is_refused_to_each_and_says_how_to_kick(self) -> None:
        before = self.points()
        answers = self.many(StateOrders(client_state=DISCONNECTED, **ALL))
        for answer in answers:
            assert isinstance(answer, ErrorMessage)
            self.assertEqual(answer.code, "ILLEGAL_TRANSITION")
            self.assertIn("`DELETE /clients/{id}`", answer.detail)
        self.assertEqual((len(answers), self.points()), (3, before))

    def test_one_that_the_store_cannot_keep_refuses_the_whole_order(self) -> None:
        answer = self.house.orders.to_many(StateOrders(client_state=CALIBRATED, **ALL))
        self.store.break_down()
        self.failureResultOf(answer, Overloaded)
        self.house.calm_down()
        self.assertEqual({point[0] for point in self.points().values()}, {CALIBRATED})

    def test_before_the_store_is_open_all_does_not_mean_nobody(self) -> None:
        engine = Engine(Clock(), HandStore())
        for order in (KickOrders(**ALL), KickOrders(dry_run=True, **ALL)):
            self.failureResultOf(engine.orders.to_many(order), Overloaded)

    def test_after_a_stop_nobody_is_told_to_be_unknown_who_lives(self) -> None:
        self.house.register(*map(str, range(1000, 1000 + 2 * LARGEST_BATCH)))
        everybody = self.house.registry.client_ids()
        answer = self.house.orders.to_many(StateOrders(client_state=RUNNING, **ALL))
        waiting = self.house.orders.to_many(KickOrders(**ALL))
        self.assertNoResult(answer)
        closed = Deferred.fromCoroutine(self.house.engine.close())
        self.store.finish_all()
        self.house.listen(1)
        self.store.finish_all()
        self.successResultOf(closed)
        told = self.successResultOf(answer)
        self.assertEqual([one.client_id for one in told], everybody)
        codes = {getattr(one, "code", "done") for one in told}
        self.assertEqual(codes, {"done", "OVERLOADED"})
        self.failureResultOf(waiting, Overloaded)
        for call in self.house.clock.getDelayedCalls():
            self.assertFalse(call.active(), call)


class TestLockouts(OrdersTestCase):
    """Who is kept out."""

    def listed(self) -> list[tuple[str, float]]:
        """Who is kept out, and for how long; nobody has to wait."""
        records = [step for step in self.house.orders.lockouts() if step is not None]
        assert all(isinstance(record, LockoutRecord) for record in records)
        return brief(cast(list[Answer], records))

    def test_each_is_listed_with_the_seconds_that_are_left(self) -> None:
        self.assertEqual(self.listed(), [])
        self.many(LockoutOrders(seconds=60, client_ids=["4", "1"]))
        self.one("5", LockoutOrder(seconds=5))
        self.house.listen(2.5)
        self.assertEqual(self.listed(), [("4", 57.5), ("1", 57.5), ("5", 2.5)])
        self.house.listen(2.5)
        self.store.finish_all()
        self.assertEqual(self.listed(), [("4", 55.0), ("1", 55.0)])

    def test_it_is_told_which_operator_keeps_a_client_out(self) -> None:
        self.house.registry.lock_out("1", 60, by="Anna")
        self.house.registry.lock_out("5", 60)
        self.store.finish_all()
        self.assertEqual(
            list(self.house.orders.lockouts()),
            [LockoutRecord("1", 60.0, by="Anna"), LockoutRecord("5", 60.0, by=None)],
        )

    def test_what_is_not_durable_is_waited_for(self) -> None:
        self.one("5", LockoutOrder(seconds=60))
        self.house.orders.to_one("4", LockoutOrder(seconds=60))
        durable, waits = self.house.orders.lockouts()
        self.assertEqual(durable, LockoutRecord("5", 60.0, by=None))
        assert isinstance(waits, Deferred)
        record = self.expect_answer_after(self.store.finish, waits)
        self.assertEqual(record, LockoutRecord("4", 60.0, by=None))

    def test_in_trouble_it_is_not_shown(self) -> None:
        self.one("5", LockoutOrder(seconds=60))
        answer = self.house.orders.to_one("4", LockoutOrder(seconds=60))
        self.store.break_down()
        self.failureResultOf(answer, Overloaded)
        durable, waits = self.house.orders.lockouts()
        self.assertEqual(durable, LockoutRecord("5", 60.0, by=None))
        assert isinstance(waits, Deferred)
        self.assertIsNone(self.successResultOf(waits))

    def test_when_the_store_is_not_open_nothing_is_said(self) -> None:
        closed = Deferred.fromCoroutine(self.house.engine.close())
        self.store.finish_all()
        self.successResultOf(closed)
        self.assertRaises(HeartbeatError, self.house.orders.lockouts)
