"""Values of the port, to and from the messages of etcd's gRPC API.

The stubs are those of ``aetcd``; nothing else of it is used. Knows no socket.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aetcd.rpc import kv_pb2, rpc_pb2

from heartbeat_service.storage.etcd.port import (
    Compare,
    Delete,
    Event,
    Get,
    KeyValue,
    Operation,
    Outcome,
    Page,
    Put,
    Transaction,
)

#: A protobuf message: aetcd has no types.
Message = Any


def scan_request(prefix: bytes, after: bytes, revision: int, limit: int) -> Message:
    """A page of the keys under a prefix, in their order."""
    return rpc_pb2.RangeRequest(
        key=max(after + b"\0" if after else b"", prefix) or b"\0",
        range_end=_end_of(prefix),
        revision=revision,
        limit=limit,
    )


def page(response: Message, revision: int) -> Page:
    """What a scan at a revision, or 0, has found."""
    return Page(
        keys=tuple(_key_value(each) for each in response.kvs),
        revision=revision or response.header.revision,
        is_last=not response.more,
    )


def transaction_request(transaction: Transaction) -> Message:
    """A transaction, with those in it."""
    return rpc_pb2.TxnRequest(
        compare=[_condition(each) for each in transaction.conditions],
        success=[_operation(each) for each in transaction.then],
        failure=[_operation(each) for each in transaction.otherwise],
    )


def outcome(response: Message, revision: int | None = None) -> Outcome:
    """What a transaction came to; one in another has the other's revision."""
    if revision is None:
        revision = response.header.revision
    return Outcome(
        held=response.succeeded,
        results=tuple(_result(each, revision) for each in response.responses),
        revision=revision,
    )


def grant_request(seconds: int) -> Message:
    """A new lease, of an ID that etcd chooses."""
    return rpc_pb2.LeaseGrantRequest(TTL=seconds)


def keep_alive_request(lease: int) -> Message:
    """Let a lease begin anew."""
    return rpc_pb2.LeaseKeepAliveRequest(ID=lease)


def revoke_request(lease: int) -> Message:
    """End a lease."""
    return rpc_pb2.LeaseRevokeRequest(ID=lease)


def authenticate_request(user: str, password: str) -> Message:
    """Ask for a token."""
    return rpc_pb2.AuthenticateRequest(name=user, password=password)


def watch_request(prefix: bytes, revision: int) -> Message:
    """Begin to watch. Not in fragments: each message holds whole revisions."""
    return rpc_pb2.WatchRequest(
        create_request=rpc_pb2.WatchCreateRequest(
            key=prefix or b"\0", range_end=_end_of(prefix), start_revision=revision
        )
    )


def progress_request() -> Message:
    """Say something on a watch's stream, even if nothing has happened."""
    return rpc_pb2.WatchRequest(progress_request=rpc_pb2.WatchProgressRequest())


def events(response: Message) -> Sequence[Event]:
    """What has happened, by a message of a watch."""
    return tuple(
        Event(_key_value(each.kv), deleted=each.type == kv_pb2.Event.DELETE)
        for each in response.events
    )


def _end_of(prefix: bytes) -> bytes:
    """The first key behind all that begin so; ``0`` stands for no end."""
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes([stem[-1] + 1]) if stem else b"\0"


def _key_value(found: Message) -> KeyValue:
    return KeyValue(
        key=found.key,
        value=found.value,
        create_revision=found.create_revision,
        mod_revision=found.mod_revision,
        lease=found.lease,
    )


def _condition(compare: Compare) -> Message:
    if compare.of_creation:
        return rpc_pb2.Compare(
            result=rpc_pb2.Compare.EQUAL,
            target=rpc_pb2.Compare.CREATE,
            key=compare.key,
            create_revision=compare.revision,
        )
    return rpc_pb2.Compare(
        result=rpc_pb2.Compare.EQUAL,
        target=rpc_pb2.Compare.MOD,
        key=compare.key,
        mod_revision=compare.revision,
    )


def _operation(operation: Operation) -> Message:
    match operation:
        case Put(key, value, lease):
            put = rpc_pb2.PutRequest(key=key, value=value, lease=lease)
            return rpc_pb2.RequestOp(request_put=put)
        case Delete(key):
            delete = rpc_pb2.DeleteRangeRequest(key=key)
            return rpc_pb2.RequestOp(request_delete_range=delete)
        case Get(key):
            return rpc_pb2.RequestOp(request_range=rpc_pb2.RangeRequest(key=key))
        case Transaction():
            return rpc_pb2.RequestOp(request_txn=transaction_request(operation))


def _result(response: Message, revision: int) -> KeyValue | Outcome | None:
    match response.WhichOneof("response"):
        case "response_range":
            found = response.response_range.kvs
            return _key_value(found[0]) if found else None
        case "response_txn":
            return outcome(response.response_txn, revision)
        case _:
            return None
