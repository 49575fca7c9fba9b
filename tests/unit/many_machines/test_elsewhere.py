"""What an operator orders at one node, and what becomes of it at the others."""

from __future__ import annotations

import gc
from random import Random
from typing import cast

from msgspec import UNSET
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.python.failure import Failure

from heartbeat_service.core.changes import Change, Lockout, Reason
from heartbeat_service.core.errors import LockedOut, Overloaded
from heartbeat_service.core.notices import News, Silence
from heartbeat_service.core.states import ClientState
from heartbeat_service.engine.orders import OneOrder
from heartbeat_service.protocol.messages import (
    ClientID,
    HeartbeatMessage,
    InstanceID,
)
from heartbeat_service.protocol.orders import LockoutOrder, StateOrder
from tests.unit.many_machines.case import WorldTestCase
from tests.unit.many_machines.world import RUNNING, UNCALIBRATED, Node, World

#: As little time as a node needs to hear one thing and not the next, in seconds.
MOMENT = 0.0001

#: Enough for all nodes to hear of what was done, in seconds.
SOON = 0.5


class ElsewhereTestCase(WorldTestCase):
    """Three nodes whose clocks agree, and clients that beat when they are told to."""

    def setUp(self) -> None:
        """A client ``x`` that beats at the first of them."""
        gc.disable()
        self.addCleanup(gc.enable)
        super().setUp()
        self.world = World(Random(5), clients=0)  # noqa: S311 - the same each time
        self.addCleanup(self.world.close)
        self.one, self.other, self.third = self.world.nodes
        for node in self.world.nodes:
            node.skew = 0.0
        self.world.pass_time(3.0)
        self.beat(self.one)
        self.world.pass_time(SOON)

    def beat(
        self, node: Node, client_id: str = "x", instance: str | None = None
    ) -> list[object]:
        """A heartbeat at a node; what it will be answered."""
        answers: list[object] = []
        message = HeartbeatMessage(
            ClientID(client_id),
            UNCALIBRATED,
            UNSET if instance is None else InstanceID(instance),
            UNSET,
        )
        maybeDeferred(node.engine.dispatcher.dispatch, message).addBoth(answers.append)
        return answers

    def told(self, *kinds: type) -> dict[str, list[object]]:
        """What of these kinds each node tells operators from now on, in short."""
        told: dict[str, list[object]] = {node.name: [] for node in self.world.nodes}
        for node in self.world.nodes:

            def watch(news: News, name: str = node.name) -> None:
                if isinstance(news, kinds):
                    told[name].append(short(news))

            node.engine.journal._watchers += (watch,)
        return told

    def assert_told_everywhere(
        self, told: dict[str, list[object]], *what: object
    ) -> None:
        """Each node has told just that."""
        self.assertEqual(told, {node.name: list(what) for node in self.world.nodes})

    def silent(self) -> list[set[str]]:
        """Who is silent as planned, as each node counts."""
        return [node.engine.counters.silent for node in self.world.nodes]

    def assert_refused(self, kind: type[Exception], answers: list[object]) -> None:
        """A heartbeat was refused so."""
        [answer] = answers
        self.assertIsInstance(answer, Failure)
        assert isinstance(answer, Failure)
        self.assertIsNotNone(answer.check(kind), answer)


def short(news: News) -> object:
    """What matters of it."""
    match news:
        case Silence(reason=None):
            return "silent"
        case Silence(reason=reason):
            return reason
        case Lockout(until=until):
            return "out" if until else "in"
        case Change(reason=reason):
            return reason
        case _:
            return news


class TestSilence(ElsewhereTestCase):
    def setUp(self) -> None:
        """The client is silent as planned."""
        super().setUp()
        self.one.order(lambda engine: engine.registry.silence("x", 60.0))
        self.world.pass_time(SOON)
        self.assertEqual(self.silent(), [{"x"}] * 3)

    def test_every_node_tells_that_a_beat_has_ended_it(self) -> None:
        told = self.told(Silence)
        self.beat(self.one)
        self.world.pass_time(SOON)
        self.assert_told_everywhere(told, "beat")
        self.assertEqual(self.silent(), [set()] * 3)

    def test_so_does_each_if_it_was_a_beat_at_another_node(self) -> None:
        told = self.told(Silence)
        self.beat(self.other)
        self.world.pass_time(SOON)
        self.assert_told_everywhere(told, "beat")
        self.assertEqual(self.silent(), [set()] * 3)

    def test_every_node_tells_that_an_operator_has_ended_it(self) -> None:
        told = self.told(Silence)
        for node in (self.one, self.other):
            node.order(lambda engine: engine.registry.silence("x", 0.0))
            self.world.pass_time(SOON)
            self.assert_told_everywhere(told, "operator")
            self.one.order(lambda engine: engine.registry.silence("x", 60.0))
            self.world.pass_time(SOON)
            for news in told.values():
                news.clear()

    def test_every_node_tells_that_it_was_kicked_in_it(self) -> None:
        for node in (self.one, self.other):
            told = self.told(Change, Silence)
            node.order(lambda engine: engine.registry.kick("x"))
            self.world.pass_time(SOON)
            self.assert_told_everywhere(told, Reason.KICK, "operator")
            self.assertEqual(self.silent(), [set()] * 3)
            self.beat(self.one)
            self.world.pass_time(SOON)
            self.one.order(lambda engine: engine.registry.silence("x", 60.0))
            self.world.pass_time(SOON)

    def test_every_node_tells_that_it_was_lost_after_it(self) -> None:
        told = self.told(Change, Silence)
        self.world.pass_time(70.0)
        self.assert_told_everywhere(told, Reason.TIMEBOMB, "ended")
        self.assertEqual(self.silent(), [set()] * 3)

    def test_who_is_registered_anew_is_silent_at_no_node(self) -> None:
        told = self.told(Change, Silence)
        self.beat(self.other, instance="another")
        self.world.pass_time(SOON)
        self.assert_told_everywhere(told, Reason.RECONNECT, "beat")
        self.assertEqual(self.silent(), [set()] * 3)


class TestLockout(ElsewhereTestCase):
    def test_who_is_locked_out_elsewhere_begins_no_life_before_that_is_heard(self):
        self.other.order(lambda engine: engine.registry.lock_out("x", 60.0))
        registry = self.one.engine.registry
        while registry.find("x") is not None:
            self.world.pass_time(MOMENT)
        self.assert_refused(LockedOut, self.beat(self.one))
        self.world.pass_time(10.0)
        for node in self.world.nodes:
            self.assertIn("kicked", node.engine.gone.how("x") or "")

    def test_every_node_tells_once_that_it_is_over(self) -> None:
        told = self.told(Lockout)
        self.other.order(lambda engine: engine.registry.lock_out("x", 5.0))
        self.world.pass_time(10.0)
        self.assert_told_everywhere(told, "out", "in")

    def test_if_it_is_prolonged_as_it_ends_that_is_told_last(self) -> None:
        self.other.order(lambda engine: engine.registry.lock_out("x", 5.0))
        self.world.pass_time(SOON)
        told = self.told(Lockout)
        # Before its own timer, and so late that the others' ends come first.
        seconds = self.third.engine.registry.lockouts.seconds_left("x")
        assert seconds is not None
        self.world.pass_time(seconds - MOMENT)
        self.third.order(lambda engine: engine.registry.lock_out("x", 60.0))
        self.world.pass_time(SOON)
        for node in self.world.nodes:
            self.assertEqual(told[node.name][-1], "out", node.name)
            left = node.engine.registry.lockouts.seconds_left("x")
            self.assertGreater(left or 0.0, 50.0, node.name)
            self.assert_refused(LockedOut, self.beat(node))


class TestClocks(ElsewhereTestCase):
    """One machine's clock is two minutes ahead."""

    def setUp(self) -> None:
        """It is the third's."""
        super().setUp()
        self.third.skew = 120.0

    def warnings(self) -> list[str]:
        """What the log has said of clocks since it was asked last."""
        logged, self.logged[:] = list(self.logged), []
        texts = [formatEvent(event) for event in logged]
        return [text for text in texts if "clock is" in text]

    def test_an_order_to_the_silent_elsewhere_leaves_them_silent(self) -> None:
        self.one.order(lambda engine: engine.registry.silence("x", 60.0))
        self.world.pass_time(SOON)
        told = self.told(Silence)
        self.third.order(lambda engine: engine.registry.steer("x", RUNNING))
        self.world.pass_time(50.0)
        self.assert_told_everywhere(told)
        for node in self.world.nodes:
            client = node.engine.registry.find("x")
            assert client is not None
            self.assertIs(client.state, RUNNING)

    def test_who_is_behind_warns_once_of_the_clock_that_is_ahead(self) -> None:
        self.logged: list[LogEvent] = []
        observer = cast(ILogObserver, self.logged.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.one.order(lambda engine: engine.registry.steer("x", RUNNING))
        self.world.pass_time(SOON)
        self.assertEqual(self.warnings(), [])
        for state in (UNCALIBRATED, RUNNING):
            self.third.engine.registry.steer("x", state)
            self.world.pass_time(SOON)
        warnings = self.warnings()
        self.assertEqual(len(warnings), 2, warnings)  # one by each of the two others
        for warning in warnings:
            self.assertIn("120 s ahead", warning)


class TestOrders(ElsewhereTestCase):
    def order(self, node: Node, order: OneOrder) -> Deferred[object]:
        """An operator orders something of ``x`` at a node."""
        return node.engine.orders.to_one("x", order)

    def state_everywhere(self) -> list[ClientState]:
        """The client's state at each node."""
        self.world.pass_time(SOON)
        return [node.engine.registry.get("x").state for node in self.world.nodes]

    def order_in_turn(self, first: OneOrder, then: OneOrder) -> None:
        """One order at one node, and once it is done another elsewhere, who is slow."""
        self.other.lag(0.3)
        done = self.order(self.one, first)
        while not done.called:
            self.world.pass_time(MOMENT)
        done = self.order(self.other, then)
        self.world.pass_time(2 * SOON)
        self.successResultOf(done)

    def test_what_was_acknowledged_elsewhere_is_known_to_the_next_order(self) -> None:
        for state in (UNCALIBRATED, RUNNING):
            self.order_in_turn(
                StateOrder(client_state=RUNNING), StateOrder(client_state=state)
            )
            self.assertEqual(self.state_everywhere(), [state] * 3)

    def test_a_lockout_that_was_taken_back_elsewhere_is_over(self) -> None:
        self.order_in_turn(LockoutOrder(seconds=600), LockoutOrder(seconds=0))
        for node in self.world.nodes:
            self.assertIsNone(node.engine.registry.lockouts.seconds_left("x"))

    def test_no_order_is_carried_out_by_who_hears_nothing_of_the_others(self) -> None:
        self.other.cut("answers")
        refused = self.order(self.other, StateOrder(client_state=UNCALIBRATED))
        self.world.pass_time(10.0)
        self.failureResultOf(refused, Overloaded)

    def test_who_begins_a_life_as_it_is_locked_out_elsewhere_lives_no_longer(
        self,
    ) -> None:
        for number in range(20):
            name = f"new-{number}"
            self.one.engine.orders.to_one(name, LockoutOrder(seconds=600))
            self.world.pass_time(number * 0.0005)
            self.beat(self.other, name)
            self.world.pass_time(SOON)
            for node in self.world.nodes:
                self.assertIsNone(node.engine.registry.find(name), (node, number))


class TestCounts(ElsewhereTestCase):
    def test_who_moves_while_its_death_waits_is_counted_once(self) -> None:
        self.one.order(lambda engine: engine.registry.kick("x"))
        self.one.cut("requests")
        self.beat(self.other)
        self.world.pass_time(SOON)
        self.one.heal()
        self.world.pass_time(SOON)
        self.assertEqual(self.alive(), [1] * 3)

    def alive(self) -> list[int]:
        """How many live, as each node counts."""
        return [node.engine.counters.alive() for node in self.world.nodes]
