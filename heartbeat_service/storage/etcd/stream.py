"""A watch at one member: a stream, a thread that reads it, and a dog that watches it.

gRPC gives a stream's messages to a thread that waits for them; it hands them to the
reactor's. Each second the member is asked for a word, so that its silence is noticed:
the keepalives of a connection didn't tell of a member that was stopped. Knows no other
member.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread
from typing import Any

import grpc
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall

from heartbeat_service.storage.etcd import messages
from heartbeat_service.storage.etcd.member import Member, TokenRefused, tells_of_token
from heartbeat_service.storage.etcd.messages import Message
from heartbeat_service.storage.etcd.port import (
    Compacted,
    EtcdAway,
    EtcdError,
    EtcdRefuses,
    Event,
)

#: How often a member is asked for a word, in seconds.
PROGRESS = 1.0

#: After how many of them without a word it is given up.
SILENT = 3


class Stream:
    """Hears what happens, until the stream ends.

    :param prefix: and ``revision`` and ``hear``: as of
        :meth:`heartbeat_service.storage.etcd.port.Etcd.watch`.
    :ivar reader: the thread; it ends with the stream.
    """

    def __init__(
        self,
        reactor: Any,
        member: Member,
        prefix: bytes,
        revision: int,
        hear: Callable[[Sequence[Event]], object],
    ) -> None:
        self._reactor = reactor
        self._member = member
        self._prefix = prefix
        self._revision = revision
        self._hear = hear
        self._requests: SimpleQueue[Message | None] = SimpleQueue()
        self._ticking = LoopingCall(self._tick)
        self._ticking.clock = reactor
        self._silent = 0
        self._created = False
        self._behind: EtcdError | None = None
        self._lost: Deferred[None] = Deferred(lambda _: self._end())
        self._call: Any = None
        self.reader = Thread(target=self._read, name="etcd watch", daemon=True)

    def follow(self, token: str) -> Deferred[None]:
        """Begin. Never called back: it fails, or is cancelled.

        :raises TokenRefused: if the token is why it couldn't begin.
        """
        self._requests.put(messages.watch_request(self._prefix, self._revision))
        self._call = self._member.watch(iter(self._requests.get, None), token)
        self.reader.start()
        self._ticking.start(PROGRESS, now=False)
        return self._lost

    def _read(self) -> None:
        try:
            with suppress(grpc.RpcError):  # the call knows it
                for response in self._call:
                    self._reactor.callFromThread(self._heard, response)
        finally:
            self._reactor.callFromThread(self._fail, None)

    def _tick(self) -> None:
        self._silent += 1
        if self._silent == SILENT:
            self._fail(self._behind or EtcdAway(f"{self._member} is silent"))
        elif self._created:
            self._requests.put(messages.progress_request())

    def _heard(self, response: Message) -> None:
        if self._lost.called:
            return
        if response.canceled:
            self._fail(self._cancelled(response))
            return
        self._created = True
        revision = response.header.revision
        if revision < self._revision - 1:
            # It may not have got so far. Or a backup has been restored, and it would
            # leave out what happens until it has got there again.
            self._behind = Compacted(
                f"{self._member} has got to revision {revision} only, "
                f"not to {self._revision - 1}"
            )
            return
        self._behind = None
        self._silent = 0
        self._hear(messages.events(response))

    def _cancelled(self, response: Message) -> EtcdError:
        reason = f"{self._member}: {response.cancel_reason or 'the watch was ended'}"
        if response.compact_revision:
            return Compacted(reason)
        if self._created:
            return EtcdAway(reason)
        # Some versions don't say that it is the token that isn't good any more.
        if "permission denied" in reason or tells_of_token(reason):
            return TokenRefused(reason)
        return EtcdRefuses(reason)

    def _fail(self, error: EtcdError | None) -> None:
        if self._lost.called:
            return
        error = error or self._member.error(self._call)
        if self._created and isinstance(error, TokenRefused):
            error = EtcdAway(str(error))  # it isn't to begin again where it began
        self._end()
        self._lost.errback(error)

    def _end(self) -> None:
        self._ticking.stop()
        self._requests.put(None)  # gRPC has a thread that waits for it
        self._call.cancel()
