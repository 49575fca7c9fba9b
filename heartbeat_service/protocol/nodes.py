"""What is told of many machines (contract, section 7): to operators, and among nodes.

Structs only. Knows no route, and nothing of who asks whom.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

from msgspec import Meta

from heartbeat_service.core.states import ClientState
from heartbeat_service.protocol.messages import Body, ClientID, Moment, Values

#: Of how many clients one node asks another at once, at the most.
MOST_ASKED = 1_000


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
    :ivar quiet_seconds: for how long it has neither learned from etcd what happened,
        nor taken over another node's clients.
    """

    node: str
    etcd: bool
    quiet_seconds: float = 0.0


class BeatsQuestion(Body, frozen=True):
    """What a node asks another one: how some clients beat there.

    A newer version may ask for more, while one node after the other is made to run it.

    :cvar fields: what it has, for people.
    :ivar late: whether it asks as well of those who are late there, of the first 1,000.
    :ivar reported_after: the id of an event there: it asks as well who has reported
        another state after it, of the first 1,000. None: of nobody.
    """

    fields: ClassVar[str] = (
        f"`clientIDs`, a list of at most {MOST_ASKED:,}, and if you like `late` and "
        "`reportedAfter`"
    )

    client_ids: Annotated[list[ClientID], Meta(max_length=MOST_ASKED)]
    late: bool = False
    reported_after: str | None = None


class BeatsRecord(Body, frozen=True):
    """What only the node knows where a client beats.

    :ivar incarnation: the life that it is about.
    :ivar silent_seconds: what is left of a planned silence; None without one.
    """

    incarnation: int
    values: Values
    seconds_since_heartbeat: float
    seconds_to_timebomb: float
    reported_state: ClientState
    late: bool
    held: bool
    silent_seconds: float | None
    beats: int
    longest_gap_seconds: float


class BeatsAnswer(Body, frozen=True):
    """What a node answers.

    :ivar beats: by client ID; of who doesn't beat there, nothing. Of those who were
        not asked for by their IDs, without `values`.
    :ivar late: how many of all who beat there are late.
    :ivar held: how many of them are held.
    :ivar reported: who has reported another state since it was asked after.
    :ivar as_of: the id of the last event that was looked at for it.
    """

    beats: dict[str, BeatsRecord]
    late: int
    held: int
    reported: Sequence[str] = ()
    as_of: str | None = None
