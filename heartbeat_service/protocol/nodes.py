"""What is told of many machines (contract, section 7): to operators, and among nodes.

Structs only. Knows no route, and nothing of who asks whom.
"""

from __future__ import annotations

from heartbeat_service.protocol.messages import Body, Moment


class NodeRecord(Body, frozen=True):
    """A running node, as an operator is shown it.

    :ivar node: how people know it.
    :ivar clients: how many beat there.
    :ivar http: where it listens, as `HOST:PORT`.
    :ivar since: when it began.
    :ivar self_: whether it is the one that answers.
    """

    node: str
    clients: int
    http: str
    request_endpoint: str
    state_change_endpoint: str
    since: Moment
    self_: bool


class NodesRecord(Body, frozen=True):
    """All nodes that run, the one that began first first."""

    nodes: list[NodeRecord]


class OwnNodeRecord(Body, frozen=True):
    """The node that answers.

    :ivar node: how people know it.
    :ivar etcd: whether etcd has answered it, the last time that it was asked; true
        where there is only this machine.
    """

    node: str
    etcd: bool
