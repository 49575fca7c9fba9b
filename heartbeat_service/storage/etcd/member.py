"""One member of etcd: a gRPC channel, the calls over it, and what its errors mean.

gRPC works in threads of its own: to make a channel or to call takes no time, and what
is answered there is handed to the reactor's thread. Knows no other member.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
from aetcd.rpc import rpc_pb2, rpc_pb2_grpc
from twisted.internet.defer import Deferred
from typing_extensions import override

from heartbeat_service.storage.etcd.messages import Message
from heartbeat_service.storage.etcd.port import (
    Compacted,
    EtcdAway,
    EtcdError,
    EtcdRefuses,
    UnknownLease,
)
from heartbeat_service.storage.etcd.url import EtcdURL

_Status = grpc.StatusCode

_OPTIONS = (
    ("grpc.enable_http_proxy", 0),
    # A lost request must be told: who asked knows whether he may ask again.
    ("grpc.enable_retries", 0),
    # A channel's own connection: one that hangs isn't handed to the next channel.
    ("grpc.use_local_subchannel_pool", 1),
    # Etcd bounds what it takes; what it sends may be a big page.
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # Etcd hangs up on who pings more often than every 5 s, or without a call.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)

#: A member that has lost its leader says so, also on streams that are open. A member
#: alone would else go on answering a watch for which nothing happens any more.
_REQUIRE_LEADER = ("hasleader", "true")

#: What a status means that isn't listed: nobody knows what was done.
_REFUSALS = {
    _Status.DATA_LOSS,
    _Status.FAILED_PRECONDITION,
    _Status.INVALID_ARGUMENT,
    _Status.NOT_FOUND,
    _Status.OUT_OF_RANGE,
    _Status.PERMISSION_DENIED,
    _Status.RESOURCE_EXHAUSTED,
    _Status.UNAUTHENTICATED,
    _Status.UNIMPLEMENTED,
}

#: The last is what is answered without a token.
_TOKEN_REFUSED = (
    "invalid auth token",
    "revision of auth store is old",
    "revision in header is old",
    "user name is empty",
)


class TokenRefused(EtcdRefuses):
    """The token isn't good any more, by its age or by a change of users and roles."""


class NobodyAsked(EtcdRefuses):
    """It has no users: everyone may do everything."""


class Member:
    """A member, not connected until it is asked for something.

    :param reactor: in whose thread is answered.
    :param endpoint: its ``HOST:PORT``.
    :raises EtcdRefuses: if a file that the URL names can't be read.
    """

    def __init__(self, reactor: Any, endpoint: str, url: EtcdURL) -> None:
        self._reactor = reactor
        self._endpoint = endpoint
        self._channel = (
            grpc.secure_channel(endpoint, _credentials(url), _OPTIONS)
            if url.is_secure
            else grpc.insecure_channel(endpoint, _OPTIONS)
        )
        key_value = rpc_pb2_grpc.KVStub(self._channel)
        lease = rpc_pb2_grpc.LeaseStub(self._channel)
        self._calls = {
            "authenticate": rpc_pb2_grpc.AuthStub(self._channel).Authenticate,
            "grant": lease.LeaseGrant,
            # A stream by its nature. With one message each way it is, on the wire, the
            # same as a plain call, and needs no thread.
            "keep alive": self._channel.unary_unary(
                "/etcdserverpb.Lease/LeaseKeepAlive",
                rpc_pb2.LeaseKeepAliveRequest.SerializeToString,
                rpc_pb2.LeaseKeepAliveResponse.FromString,
            ),
            "range": key_value.Range,
            "revoke": lease.LeaseRevoke,
            "transact": key_value.Txn,
        }
        self._watch = rpc_pb2_grpc.WatchStub(self._channel).Watch

    def ask(
        self, call: str, request: Message, token: str, patience: float
    ) -> Deferred[Message]:
        """Its answer, which must come within so many seconds."""

        def settle() -> None:
            if answer.called:
                return  # cancelled
            if answering.code() is grpc.StatusCode.OK:
                answer.callback(answering.result())
            else:
                answer.errback(self.error(answering))

        answering = self._calls[call].future(
            request, timeout=patience, metadata=_metadata(token)
        )
        answer: Deferred[Message] = Deferred(lambda _: answering.cancel())
        answering.add_done_callback(lambda _: self._reactor.callFromThread(settle))
        return answer

    def watch(self, requests: Iterator[Message], token: str) -> Any:
        """A stream of what is asked, and of what happens: a call to iterate over."""
        return self._watch(requests, metadata=_metadata(token))

    def close(self) -> None:
        """Cancel what is under way, and hang up; may block."""
        self._channel.close()

    def error(self, call: Any) -> EtcdError:
        """What a call that has failed means."""
        status, details = call.code(), call.details() or ""
        return _kind(status, details)(f"{self}: {details or status}")

    @override
    def __str__(self) -> str:
        return f"etcd at {self._endpoint}"


def _metadata(token: str) -> tuple[tuple[str, str], ...]:
    """What goes with each call; the token may be empty."""
    return (_REQUIRE_LEADER, ("token", token)) if token else (_REQUIRE_LEADER,)


def read(path: Path) -> bytes:
    """What is in a file that the URL names.

    :raises EtcdRefuses: if it can't be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise EtcdRefuses(f"{path}: {error.strerror}") from error


def tells_of_token(details: str) -> bool:
    """Whether an error says that a token isn't good any more."""
    return any(words in details for words in _TOKEN_REFUSED)


def _credentials(url: EtcdURL) -> Any:
    return grpc.ssl_channel_credentials(
        root_certificates=None if url.ca is None else read(url.ca),
        private_key=None if url.key is None else read(url.key),
        certificate_chain=None if url.cert is None else read(url.cert),
    )


def _kind(status: Any, details: str) -> type[EtcdError]:
    """The kind of error; etcd's own differ in their words only (rpctypes/error.go)."""
    if "revision has been compacted" in details:
        return Compacted
    if tells_of_token(details):
        return TokenRefused
    if "authentication is not enabled" in details:
        return NobodyAsked
    if "requested lease not found" in details:
        return UnknownLease
    if "too many requests" in details or "not leader" in details:
        return EtcdAway  # for a moment
    return EtcdRefuses if status in _REFUSALS else EtcdAway
