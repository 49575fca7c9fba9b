"""Turns ZeroMQ peers away when there are as many as may be.

libzmq accepts whoever connects, and has no limit. Here each of its sockets has a
monitor that tells of every connection, also of one that never says a word. One that
is too many is shut down at once; who was there before is served on.

A handshake that fails is handed on, with where the peer comes from.

A newcomer holds a descriptor until the reactor has heard of it, which is no longer
than a turn of the reactor. So the limit must leave some descriptors free.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import zmq
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from heartbeat_service.zeromq.connection import HardenedConnection
from heartbeat_service.zeromq.handshakes import LEFT, FailedHandshakes
from heartbeat_service.zeromq.monitor import Monitor

#: The log tells of the limit, and that it is over, no more often than this, in seconds.
TELL_EVERY = 10.0


class PeerLimit:
    """Bounds the connections to some sockets, all together.

    :param most: how many there may be.
    :param handshakes: hears of those that failed.
    :ivar turned_away: how many were, so far.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        most: int,
        handshakes: FailedHandshakes | None = None,
    ) -> None:
        self._reactor = reactor
        self.most = most
        self._handshakes = handshakes
        self._monitors: list[Monitor] = []
        self._peers: dict[tuple[HardenedConnection, int], str] = {}  # their addresses
        self.turned_away = 0
        self._told_away = 0
        self._tell: IDelayedCall | None = None

    def __len__(self) -> int:
        """How many there are, also those who are about to be turned away."""
        return len(self._peers)

    def watch(self, connection: HardenedConnection) -> None:
        """Count its peers; before it is bound."""
        error: int | None = None

        def heard(event: int, value: int, endpoint: str) -> None:
            nonlocal error
            if event == zmq.EVENT_ACCEPTED:
                self._accepted((connection, value), endpoint)
            elif event == zmq.EVENT_DISCONNECTED:
                address = self._peers.pop((connection, value), "")
                if self._handshakes is not None and error is not None:
                    self._handshakes.add(error, address)
                error = None
            else:  # whose handshake it is, the next event says
                error = value if event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL else LEFT

        events = int(zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED)
        if self._handshakes is not None:
            events |= self._handshakes.events
        self._monitors.append(Monitor(connection, events, heard))

    def has_unread(self) -> bool:
        """Whether somebody has come or left that nobody has heard of yet.

        Then libzmq's thread may be waiting, and hold back messages that have come in.
        """
        return any(monitor.has_unread() for monitor in self._monitors)

    def stop(self) -> None:
        """Write no more into the log; the monitors end with their sockets."""
        if self._tell is not None:
            self._tell.cancel()
            self._tell = None

    def _accepted(self, peer: tuple[HardenedConnection, int], endpoint: str) -> None:
        self._peers[peer] = _address_of(peer[1], endpoint)
        if len(self._peers) <= self.most:
            return
        _hang_up(peer[1], endpoint)
        self.turned_away += 1
        if self._tell is None:
            self._log.warn(
                "as many ZeroMQ peers as may be, {most}: more are turned away",
                most=self.most,
            )
            self._tell_later()

    def _tell_later(self) -> None:
        self._told_away = self.turned_away
        self._tell = self._reactor.callLater(TELL_EVERY, self._tell_if_over)

    def _tell_if_over(self) -> None:
        self._tell = None
        if len(self._peers) >= self.most or self.turned_away > self._told_away:
            self._tell_later()
            return
        self._log.info(
            "there is room for ZeroMQ peers again; turned away so far: {count}",
            count=self.turned_away,
        )


def _hang_up(descriptor: int, endpoint: str) -> None:
    """Shut a connection down, for libzmq to close it.

    It may have left by itself.
    """
    with suppress(OSError), _connection(descriptor, endpoint) as peer:
        peer.shutdown(socket.SHUT_RDWR)


def _address_of(descriptor: int, endpoint: str) -> str:
    """Where a connection comes from; empty if it is closed, or not from a network."""
    try:
        with _connection(descriptor, endpoint) as peer:
            name = peer.getpeername()
    except OSError:
        return ""
    return str(name[0]) if isinstance(name, tuple) else ""


@contextmanager
def _connection(descriptor: int, endpoint: str) -> Iterator[socket.socket]:
    """A connection of libzmq's, to look at while it stays libzmq's.

    It may have been closed by now, and the descriptor be somebody else's: that of
    one that came later is taken for it, any other is left alone.

    :raises OSError: if it is closed, or no connection to that endpoint.
    """
    peer = socket.socket(fileno=descriptor)
    try:
        if not _is_at(peer.getsockname(), endpoint):
            raise OSError("it is somebody else's")
        yield peer
    finally:
        peer.detach()


def _is_at(name: object, endpoint: str) -> bool:
    if isinstance(name, tuple):
        return endpoint.endswith(f":{name[1]}")
    assert isinstance(name, str | bytes)
    # An abstract name begins with a zero byte, for which ZeroMQ writes @.
    path = os.fsencode(name).replace(b"\0", b"@", 1)
    return os.fsencode(endpoint) == b"ipc://" + path
