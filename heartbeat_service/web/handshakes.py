"""TLS handshakes in slices, between which the reactor reads its other sockets.

A handshake takes a millisecond or more, as long as ten beats, and asks for no token:
thousands in one turn of the reactor would keep everybody waiting for many seconds. The
newest come first: a stranger's crowd is not in the way of whoever comes after it.
Knows nothing of what is said inside TLS.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.protocols.tls import BufferingTLSTransport, TLSMemoryBIOFactory
from twisted.python.failure import Failure
from typing_extensions import override

#: How long handshakes may keep the reactor from its sockets in a turn, in seconds. One
#: that has begun is gone on with.
SLICE = 0.01


class Handshakes:
    """What has come in for handshakes and waits for its turn."""

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor
        self._waiting: dict[SlicedTLS, bytes] = {}
        self._turn: IDelayedCall | None = None

    def __len__(self) -> int:
        """How many connections wait."""
        return len(self._waiting)

    def add(self, connection: SlicedTLS, data: bytes) -> None:
        """Let a connection go on with what has come in, in one of the next turns."""
        self._waiting[connection] = self._waiting.get(connection, b"") + data
        self._go_on()

    def forget(self, connection: SlicedTLS) -> None:
        """A connection is at its end."""
        self._waiting.pop(connection, None)

    def _go_on(self) -> None:
        if self._waiting and self._turn is None:
            self._turn = self._reactor.callLater(0, self._take_slice)

    def _take_slice(self) -> None:
        self._turn = None
        end = self._reactor.seconds() + SLICE
        try:
            while self._waiting:
                connection, data = self._waiting.popitem()  # the newest
                connection.go_on(data)
                if self._reactor.seconds() >= end:
                    break
        finally:
            self._go_on()


class SlicedTLS(BufferingTLSTransport):
    """A connection inside TLS, once its handshake has had its turns."""

    transport: Any  # of TCP, which can pause

    def __init__(
        self, handshakes: Handshakes, factory: TLSMemoryBIOFactory, wrapped: Any
    ) -> None:
        self._handshakes = handshakes
        super().__init__(factory, wrapped)

    @override
    def dataReceived(self, data: bytes) -> None:
        if self._handshakeDone:
            super().dataReceived(data)
        else:
            self.transport.pauseProducing()
            self._handshakes.add(self, data)

    def go_on(self, data: bytes) -> None:
        """Take what has come in, and read on."""
        self.transport.resumeProducing()
        super().dataReceived(data)

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._handshakes.forget(self)
        super().connectionLost(reason)
