"""What an operator orders at one node, and what becomes of it at the others."""

from __future__ import annotations

import gc
from random import Random

from msgspec import UNSET
from twisted.internet.defer import maybeDeferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from heartbeat_service.core.errors import LockedOut
from heartbeat_service.protocol.messages import (
    ClientID,
    HeartbeatMessage,
    InstanceID,
)
from tests.unit.many_machines.world import UNCALIBRATED, Node, World

#: As little time as a node needs to hear one thing and not the next, in seconds.
MOMENT = 0.0001

#: Enough for all nodes to hear of what was done, in seconds.
SOON = 0.5


class ElsewhereTestCase(SynchronousTestCase):
    """Three nodes whose clocks agree, and clients that beat when they are told to."""

    def setUp(self) -> None:
        """A client ``x`` that beats at the first of them."""
        gc.disable()
        self.addCleanup(gc.enable)
        self.addCleanup(self.flushLoggedErrors)
        self.addCleanup(gc.collect)
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

    def assert_refused(self, kind: type[Exception], answers: list[object]) -> None:
        """A heartbeat was refused so."""
        [answer] = answers
        self.assertIsInstance(answer, Failure)
        assert isinstance(answer, Failure)
        self.assertIsNotNone(answer.check(kind), answer)


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
