"""What a node keeps of the others that its watch has told it of."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from heartbeat_service.storage.etcd.replica import LATELY_GONE, Replica
from heartbeat_service.storage.nodes import Node


class TestDeparted(SynchronousTestCase):
    def test_nodes_that_went_long_ago_are_forgotten_though_nobody_asks(self) -> None:
        replica, day = Replica(), 86_400
        for number in range(0, day, 60):
            session, name = f"session-{number}", f"pod-{number}"
            replica.nodes[session] = Node(session, name, 0.0)
            replica.remove_node(session, float(number))
        self.assertLessEqual(len(replica._departed), LATELY_GONE / 60 + 1)
        names = [node.name for node in replica.departed(float(number))]
        self.assertEqual(names[-1], f"pod-{number}")
