"""Operators' orders: on which terms they are carried out, and what is answered."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from heartbeat_service.core.changes import Lockout
from heartbeat_service.core.errors import (
    HeartbeatError,
    IllegalTransition,
    LockedOut,
    Overloaded,
    StaleSequence,
    UnknownClient,
)
from heartbeat_service.core.heartbeat import Heartbeat
from heartbeat_service.core.states import ClientState
from heartbeat_service.engine.engine import Engine
from heartbeat_service.engine.orders import Answer, ManyOrder, OneOrder
from heartbeat_service.engine.slices import SLICE
from heartbeat_service.protocol.messages import (
    ClientRecord,
    ClientStateMessage,
    ErrorMessage,
)
from heartbeat_service.protocol.orders import (
    KickOrder,
    KickOrders,
    LockoutOrder,
    LockoutOrders,
    LockoutRecord,
    SilenceOrder,
    SilenceOrders,
    SilenceRecord,
    StateOrder,
    StateOrders,
)
from heartbeat_service.storage.store import LARGEST_BATCH
from tests.unit.engine.test_dispatch import NOON, DispatchTestCase, House
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

    def one(self, client_id: str, order: OneOrder, by: str | None = None) -> Any:
        """What an order to one has come to: what is answered, or the error."""
        answer = self.house.orders.to_one(client_id, order, by)
        self.store.finish_all()
        outcome: list[Any] = []
        answer.addErrback(lambda failure: failure.value).addCallback(outcome.append)
        return outcome[0]

    def many(self, order: ManyOrder, by: str | None = None) -> list[Answer]:
        """What an order to many has come to."""
        answer = self.house.orders.to_many(order, by)
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
            case LockoutRecord() | SilenceRecord():
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
        silences = SilenceOrders(seconds=60, dry_run=True, **ALL)
        self.assertEqual(brief(self.many(silences)), [(name, 60) for name in "123"])
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


class TestLabels(OrdersTestCase):
    """``labels``: for those that have all of them."""

    def setUp(self) -> None:
        """Give the three clients labels."""
        super().setUp()
        for name, labels in (
            ("1", {"room": "a", "seat": "1"}),
            ("2", {"room": "b", "seat": "1"}),
            ("3", {"room": "a", "seat": "2"}),
        ):
            self.house.beat(name, labels=labels)
        self.store.finish_all()

    def test_order_is_for_those_that_have_all_as_they_registered(self) -> None:
        for labels, names in (
            ({"room": "a"}, ["1", "3"]),
            ({"seat": "1"}, ["1", "2"]),
            ({"seat": "1", "room": "b"}, ["2"]),
            ({"seat": "2", "room": "b"}, []),
            ({"place": "a"}, []),
        ):
            answers = self.many(KickOrders(labels=labels, dry_run=True))
            self.assertEqual([cast(Any, one).client_id for one in answers], names)

    def test_each_order_to_many_may_say_it(self) -> None:
        room: Any = {"labels": {"room": "a"}, "dry_run": True}
        for order in (
            StateOrders(client_state=RUNNING, **room),
            SilenceOrders(seconds=60, **room),
            LockoutOrders(seconds=60, **room),
            KickOrders(**room),
        ):
            answers = self.many(order)
            self.assertEqual([cast(Any, one).client_id for one in answers], ["1", "3"])

    def test_they_are_chosen_when_the_order_is_carried_out(self) -> None:
        first = self.house.orders.to_many(StateOrders(client_state=RUNNING, **ALL))
        second = self.house.orders.to_many(KickOrders(labels={"room": "a"}))
        self.house.beat("1", labels={"room": "b"})
        self.house.beat("2", labels={"room": "a"})
        self.store.finish_all()
        self.successResultOf(first)
        self.assertEqual(
            brief(self.successResultOf(second)),
            [("2", DISCONNECTED, 4), ("3", DISCONNECTED, 4)],
        )

    def test_terms_hold_for_them_as_well(self) -> None:
        order = KickOrders(
            labels={"room": "a"},
            from_states=[RUNNING],
            expected={"3": (103, 9), "2": (1, 1)},
        )
        self.assertEqual(
            brief(self.many(order)),
            [("1", "ILLEGAL_TRANSITION"), ("3", "STALE_SEQUENCE")],
        )

    def test_choosing_among_many_gives_others_their_turn(self) -> None:
        self.store.be_quick()
        clock, is_for = self.house.clock, KickOrders.is_for

        def look_slowly(order: KickOrders, labels: dict[str, str]) -> bool:
            clock.rightNow += SLICE
            return is_for(order, labels)

        self.patch(KickOrders, "is_for", look_slowly)
        answer = self.house.orders.to_many(KickOrders(labels={"room": "a"}))
        self.assertNoResult(answer)
        for _ in range(4):
            clock.advance(0)
        self.assertEqual(len(self.successResultOf(answer)), 2)


class TestSilences(OrdersTestCase):
    """Planned silences, as they are ordered and answered."""

    def shown(self, client_id: str) -> ClientRecord:
        """The client's record."""
        return self.successResultOf(self.house.dispatcher.client(client_id))

    def test_one_is_answered_with_the_record_once_it_is_durable(self) -> None:
        self.house.listen(5)
        self.assertTrue(self.shown("1").late)
        answer = self.house.orders.to_one("1", SilenceOrder(seconds=300))
        record = self.expect_answer_after(self.store.finish, answer)
        self.assertEqual(record, self.shown("1"))
        self.assertEqual((record.silent_seconds, record.late), (300, False))
        self.assertEqual(record.seconds_to_timebomb, 300)
        self.house.listen(100)
        self.assertEqual(self.shown("1").silent_seconds, 200)
        self.house.beat("1")
        self.assertIsNone(self.shown("1").silent_seconds)

    def test_it_is_at_least_what_was_left_and_at_most_a_day(self) -> None:
        self.house.listen(2)
        self.assertEqual(self.one("1", SilenceOrder(seconds=1)).silent_seconds, 8)
        record = self.one("1", SilenceOrder(seconds=1e9))
        self.assertEqual(record.silent_seconds, 86_400)

    def test_zero_takes_it_back(self) -> None:
        self.one("1", SilenceOrder(seconds=300))
        self.house.listen(3)
        record = self.one("1", SilenceOrder(seconds=0))
        self.assertEqual(
            (record.silent_seconds, record.seconds_to_timebomb), (None, 10)
        )
        before = self.shown("2")
        self.assertEqual(self.one("2", SilenceOrder(seconds=0)), before)

    def test_many_are_told_how_long_each_may_be_silent(self) -> None:
        self.house.listen(2)
        self.house.beat("2", timebomb_seconds=100.0)
        order = SilenceOrders(seconds=60, client_ids=["3", "4", "2"])
        self.assertEqual(
            brief(self.many(order)), [("3", 60), ("4", "UNKNOWN_CLIENT"), ("2", 100)]
        )
        order = SilenceOrders(seconds=0, **ALL)
        self.assertEqual(brief(self.many(order)), [("1", 0), ("2", 0), ("3", 0)])

    def test_terms_hold_as_for_all_orders(self) -> None:
        for order, error in (
            (SilenceOrder(seconds=60, from_states=[RUNNING]), IllegalTransition),
            (SilenceOrder(seconds=60, expected=(101, 2)), StaleSequence),
        ):
            self.assertIsInstance(self.one("1", order), error)
        self.assertIsNone(self.shown("1").silent_seconds)
        self.assertIsInstance(self.one("4", SilenceOrder(seconds=60)), UnknownClient)

    def test_dry_run_shows_the_record_that_would_be(self) -> None:
        self.house.listen(5)
        for seconds in (300, 1, 1e9, 0):
            for name in ("1", "2"):
                before = self.shown(name)
                would_be = self.one(name, SilenceOrder(seconds=seconds, dry_run=True))
                self.assertEqual(self.shown(name), before)
                self.assertEqual(
                    self.one(name, SilenceOrder(seconds=seconds)), would_be
                )


class TestOperatorsNames(OrdersTestCase):
    """``by``: who has given an order."""

    def test_each_order_to_one_says_who_gave_it(self) -> None:
        for order in (
            StateOrder(client_state=RUNNING),
            SilenceOrder(seconds=60),
            SilenceOrder(seconds=0),
            LockoutOrder(seconds=60),
        ):
            self.one("1", order, "Anna")
        self.one("2", KickOrder(), "Ben")
        self.one("3", KickOrder())
        self.assertEqual(
            self.told_by(),
            [
                ("1", "Change", "Anna"),
                ("1", "Silence", "Anna"),
                ("1", "Silence", "Anna"),
                ("1", "Lockout", "Anna"),
                ("1", "Change", "Anna"),
                ("2", "Change", "Ben"),
                ("3", "Change", None),
            ],
        )

    def test_so_do_orders_to_many_also_what_is_done_again(self) -> None:
        order = StateOrders(client_state=RUNNING, client_ids=["1", "2"])
        answer = self.house.orders.to_many(order, "Anna")
        kept = snapshot("1", incarnation=101, sequence=7, state=CALIBRATED)
        self.store.finish({"1": kept})
        self.store.finish_all()
        self.successResultOf(answer)
        self.many(SilenceOrders(seconds=60, client_ids=["1"]), "Anna")
        self.many(LockoutOrders(seconds=60, client_ids=["1"]), "Anna")
        self.many(KickOrders(client_ids=["2"]), "Ben")
        self.assertCountEqual(
            self.told_by(),
            [
                ("2", "Change", "Anna"),
                ("1", "Change", "Anna"),
                ("1", "Silence", "Anna"),
                ("1", "Silence", "Anna"),
                ("1", "Change", "Anna"),
                ("1", "Lockout", "Anna"),
                ("2", "Change", "Ben"),
            ],
        )

    def told_by(self) -> list[tuple[str, str, str | None]]:
        """Of whom, what and by whom operators were told since the test began."""
        return [
            (one.client_id, type(one).__name__, one.by) for one in self.house.told[6:]
        ]


class TestMassLoss(SynchronousTestCase):
    """The hold of a mass loss, and its end by an operator."""

    def setUp(self) -> None:
        """Begin with four clients, of which three are held, and one is late."""
        self.house = House(mass_loss_share=0.5)
        self.house.store.be_quick()
        for name in "1234":
            self.house.beat(name)
        self.house.listen(5)
        self.house.beat("4")
        self.house.listen(6)

    def alive(self) -> list[str]:
        """Who lives."""
        return self.house.registry.client_ids()

    def test_it_is_shown_with_who_is_held(self) -> None:
        hold = self.house.dispatcher.hold()
        self.assertEqual(hold.since, "2022-03-29T12:00:10.000Z")
        self.assertEqual((hold.seconds_left, len(hold.hold or "")), (59, 16))
        self.assertCountEqual(self.house.dispatcher.held(), ["1", "2", "3"])
        [one, *_, four] = self.successResultOf(self.house.listing())
        self.assertEqual((one.held, one.late, one.seconds_to_timebomb), (True, True, 0))
        self.assertEqual((four.held, four.late), (False, True))

    def test_its_end_lets_those_die_who_are_held(self) -> None:
        self.house.beat("2")
        self.successResultOf(self.house.orders.end_mass_loss())
        self.assertIsNone(self.house.dispatcher.hold().hold)
        self.house.listen(3)
        self.assertEqual(self.alive(), ["2", "4"])

    def test_only_the_hold_that_was_meant_is_ended(self) -> None:
        hold = self.house.dispatcher.hold().hold
        self.successResultOf(self.house.orders.end_mass_loss("1648555200000001"))
        self.assertEqual(self.house.dispatcher.hold().hold, hold)
        self.successResultOf(self.house.orders.end_mass_loss(hold))
        self.assertIsNone(self.house.dispatcher.hold().hold)
        self.successResultOf(self.house.orders.end_mass_loss(hold))

    def test_it_is_ended_wholly_though_nobody_waits_for_it(self) -> None:
        clock, hold = self.house.clock, Heartbeat.hold

        def hold_slowly(heartbeat: Heartbeat, seconds: float) -> None:
            clock.rightNow += SLICE
            hold(heartbeat, seconds)

        self.patch(Heartbeat, "hold", hold_slowly)
        answer = self.house.orders.end_mass_loss()
        self.assertNoResult(answer)
        answer.addErrback(lambda failure: failure.trap(CancelledError))
        answer.cancel()
        self.house.listen(3)
        self.assertEqual(self.alive(), ["4"])

    def test_nothing_is_told_of_it_before_the_store_is_open(self) -> None:
        engine = Engine(Clock(), HandStore())
        self.assertRaises(Overloaded, engine.dispatcher.hold)
        self.assertRaises(Overloaded, engine.dispatcher.summarized)
