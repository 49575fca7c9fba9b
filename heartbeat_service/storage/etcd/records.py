"""What the keys hold, as JSON: structs, and how they are read and written.

A client's record holds its last change whole, so that a node that hears of it can tell
of it as the one that made it. Knows no keys and nothing of etcd.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec
from attrs import asdict
from msgspec import Struct
from msgspec.structs import replace

from heartbeat_service.core.changes import (
    Change,
    Life,
    Lockout,
    Name,
    Reason,
    Snapshot,
)
from heartbeat_service.core.states import ClientState
from heartbeat_service.storage.nodes import Node

R = TypeVar("R", bound="Struct")


class Record(Struct, frozen=True, omit_defaults=True, gc=False):
    """A client, and the change that it is the outcome of.

    :ivar owner: the session of the node where it beats, or beat last.
    :ivar nonce: names this write, and no other.
    :ivar ended: the life that the change ended, if it ended one.
    """

    owner: str
    nonce: str
    client: Snapshot
    previous_state: ClientState
    reason: Reason
    ended: Life | None = None
    by: Name | None = None
    previous_since: float = 0.0

    @property
    def point(self) -> tuple[int, int]:
        """Which change it is of its client."""
        return self.client.incarnation, self.client.sequence

    @property
    def lives(self) -> bool:
        """Whether the client lives."""
        return self.client.state is not ClientState.DISCONNECTED

    def change(self) -> Change:
        """The change, as it was told by the node that made it."""
        return Change(
            client=self.client,
            previous_state=self.previous_state,
            reason=self.reason,
            ended=self.ended,
            by=self.by,
            previous_since=self.previous_since,
        )


class EndedRecord(Struct, frozen=True):
    """A life that ended.

    :ivar nonce: names the write that ended it.
    """

    nonce: str
    life: Life


class LockoutRecord(Struct, frozen=True, omit_defaults=True):
    """A lock-out, or that it is over.

    :ivar nonce: names this write, and no other.
    """

    nonce: str
    lockout: Lockout


class NodeRecord(Struct, frozen=True, omit_defaults=True):
    """A node that runs; the fields are those of ``Node``, but for its session."""

    name: str
    since: float
    http: str = ""
    url: str = ""
    request_endpoint: str = ""
    state_change_endpoint: str = ""


class HeirsRecord(Struct, frozen=True):
    """Who takes over the clients of a session that ended, each some of them."""

    heirs: tuple[str, ...]


def place_of(nonce: str) -> int:
    """Which of the writes of one revision it was."""
    return int(nonce.rpartition(".")[2])


def of_change(change: Change, owner: str, nonce: str) -> Record:
    """What is written of a change."""
    return Record(
        owner=owner,
        nonce=nonce,
        client=_without_marks(change.client),
        previous_state=change.previous_state,
        reason=change.reason,
        ended=change.ended,
        by=change.by,
        previous_since=change.previous_since,
    )


def of_snapshot(
    snapshot: Snapshot, former: Record | None, owner: str, nonce: str
) -> Record:
    """What is written where a client hasn't changed, but something of it has.

    :param former: what is there.
    """
    client = _without_marks(snapshot)
    if former is None:
        return Record(owner, nonce, client, ClientState.DISCONNECTED, Reason.HEARTBEAT)
    return replace(former, owner=owner, nonce=nonce, client=client)


def encode_node(node: Node) -> bytes:
    """What a node says of itself."""
    fields = asdict(node, filter=lambda field, _: field.name != "session")
    return encode(NodeRecord(**fields))


def decode_node(session: str, value: bytes) -> Node:
    """What the node of a session says of itself.

    :raises ValueError: as :func:`decode`.
    """
    return Node(session=session, **msgspec.structs.asdict(decode(NodeRecord, value)))


def encode(record: Struct) -> bytes:
    """What a key holds."""
    return msgspec.json.encode(record)


def decode(kind: type[R], value: bytes) -> R:
    """What is in a key.

    :raises ValueError: if it isn't that, as of a later version of the service.
    """
    return msgspec.json.decode(value, type=kind)


def _without_marks(client: Snapshot) -> Snapshot:
    return replace(client, ordered=False, arrived=False)
