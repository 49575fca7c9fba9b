"""Listening sockets that stand a rush, and a lack of descriptors."""

from __future__ import annotations

import errno
import math
import os
import re
import select
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IReadDescriptor
from twisted.internet.tcp import Port
from twisted.logger import Logger
from twisted.protocols.haproxy._wrapper import (
    HAProxyProtocolWrapper,
    HAProxyWrappingFactory,
)
from twisted.protocols.policies import WrappingFactory
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from typing_extensions import override
from zope.interface import implementer

from heartbeat_service.host.descriptors import allowed
from heartbeat_service.web.handshakes import Handshakes, SlicedTLS
from heartbeat_service.web.site import HeartbeatSite

#: How many new connections may wait to be taken. Those beyond it, say of a fleet
#: that comes back after a stall, would have to wait for TCP's next try.
BACKLOG = 4096

#: When to try again to take a connection that there was no descriptor for, seconds.
RETRY = 0.1

#: How many quiet connections make room at each such try.
MAKE_ROOM = 10

#: The log tells of missing descriptors no more often than this, in seconds.
TELL_EVERY = 60.0

#: How long a PROXY header may be, with what comes along with its first part, in bytes.
#: One with addresses and what a proxy knows of TLS has some hundred.
MAX_PROXY_HEADER = 8 * 1024

#: Before TLS 1.3, which has no others: ciphers whose keys are new with each connection,
#: so that a stolen private key opens nothing that was said before.
FORWARD_SECRET = (
    b"ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:DHE+CHACHA20:ECDHE+AES:DHE+AES"
)

_BACKLOG_KINDS = ("tcp", "tcp6", "ssl", "unix")
#: Endpoints that are reached where they listen. One that is inherited from systemd
#: listens where its own address says.
_PLAIN_KINDS = (*_BACKLOG_KINDS, "systemd")
_COLON = re.compile(r"(?<!\\):")


def with_backlog(description: str) -> str:
    """The endpoint string, with :data:`BACKLOG` if it says nothing of a backlog."""
    kind, *arguments = _COLON.split(description)
    # One by its place may be the backlog.
    by_name = all("=" in argument for argument in arguments[1:])
    given = any(argument.startswith("backlog=") for argument in arguments)
    if kind not in _BACKLOG_KINDS or not by_name or given:
        return description
    return f"{description}:backlog={BACKLOG}"


def is_wrapped(description: str) -> bool:
    """Whether others than those who reach its address may come in by this endpoint.

    So it is behind a proxy (``haproxy:``) or an onion service, whose peers are
    anywhere while it listens on loopback; and so, for all we know, with any other kind.
    """
    kind, *_ = _COLON.split(description)
    return kind not in _PLAIN_KINDS


class ForwardSecret:
    """The reactor, for endpoints: TLS that it listens with is :data:`FORWARD_SECRET`.

    Endpoint strings can't say which ciphers to offer, and Twisted offers others, too.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def listenSSL(
        self, port: int, factory: Any, contextFactory: Any, **how: Any
    ) -> Any:
        """As the reactor does, with fewer ciphers."""
        contextFactory.getContext().set_cipher_list(FORWARD_SECRET)
        return self._reactor.listenSSL(port, factory, contextFactory, **how)


class ProxyHeader(HAProxyProtocolWrapper):
    """A connection by a ``haproxy:`` endpoint; one without a good header is cut off.

    Twisted's lets an address that is none be logged with a traceback, keeps up to
    64 KiB of a header, and inside TLS goes on reading what it has refused.
    """

    _size = 0

    @override
    def dataReceived(self, data: bytes) -> None:
        if self._proxyInfo is not None:
            super().dataReceived(data)
            return
        self._size += len(data)
        try:
            super().dataReceived(data)
        except ValueError:
            if self._proxyInfo is not None:  # it isn't the header's
                raise
            self.disconnecting = True
        if self._proxyInfo is None and (
            self.disconnecting or self._size > MAX_PROXY_HEADER
        ):
            self.abortConnection()


def _harden(factory: object, handshakes: Handshakes) -> None:
    """Have what is around a site, if anything, stand strangers, too."""
    while isinstance(factory, WrappingFactory):
        if isinstance(factory, HAProxyWrappingFactory):
            factory.protocol = ProxyHeader  # type: ignore[assignment]  # typed as final
        elif isinstance(factory, TLSMemoryBIOFactory):
            make: Any = partial(SlicedTLS, handshakes)
            factory.protocol = make
        factory = factory.wrappedFactory


@implementer(IReadDescriptor)
class PatientPort:
    """Lets a port accept no more connections than there are descriptors for.

    Twisted's Port closes whatever it has no descriptor for, or turns idly for it,
    and logs a line for each. Here it is left to wait, and quiet connections make
    room.

    :param port: what an endpoint listens with; left as it is if it is no TCP or
        UNIX port.
    """

    _log = Logger()

    def __init__(self, reactor: Any, port: Any, site: HeartbeatSite) -> None:
        self._reactor = reactor
        self._port = port
        self._stop_listening = port.stopListening
        self._site = site
        self._retry: IDelayedCall | None = None
        self._waited = False
        self._told = -math.inf
        self._poll = select.poll()
        self._handshakes = Handshakes(reactor)
        if isinstance(port, Port):
            _harden(port.factory, self._handshakes)
            port.stopReading()
            reactor.addReader(self)
            self._poll.register(port, select.POLLIN)

    @property
    def address(self) -> Any:
        """Where it listens, as Twisted tells it."""
        return self._port.getHost()

    def has_unread(self) -> bool:
        """Whether somebody waits to be let in."""
        return bool(self._handshakes) or bool(self._poll.poll(0))

    def stop(self) -> Deferred[object]:
        """Listen no more."""
        self._poll = select.poll()  # the descriptor may soon be somebody else's
        if self._retry is not None:
            self._retry.cancel()
        elif isinstance(self._port, Port):
            self._reactor.removeReader(self)
        return maybeDeferred(self._stop_listening)

    def fileno(self) -> int:
        """The port's own."""
        descriptor: int = self._port.fileno()
        return descriptor

    def logPrefix(self) -> str:
        """The port's own."""
        prefix: str = self._port.logPrefix()
        return prefix

    def connectionLost(self, reason: Failure) -> None:
        """The reactor ends, or the socket is no more."""
        self._port.connectionLost(reason)

    def doRead(self) -> None:
        """Somebody wants to connect."""
        room = self._room()
        if room:
            self._waited = False
            self._port.numberAccepts = min(self._port.numberAccepts, room)
            self._port.doRead()
        else:
            self._wait()

    def _room(self) -> int:
        # Tried, since those that are free may lie anywhere among those that are taken.
        free: list[int] = []
        try:
            for _ in range(2 * self._port.numberAccepts):
                free.append(os.dup(self.fileno()))  # noqa: PERF401 - it may stop midway
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
        finally:
            for descriptor in free:
                os.close(descriptor)
        # Never many at once: who was let in last turn is to be answered before others
        # want its place.
        return min(len(free), max(1, min(len(free) // 2, allowed() // 8)))

    def _wait(self) -> None:
        self._reactor.removeReader(self)
        self._retry = self._reactor.callLater(RETRY, self._try_again)
        if self._waited:  # at first, those that were let in have their turn
            for _ in range(MAKE_ROOM):
                self._site.displace()
        self._waited = True
        now = self._reactor.seconds()
        if now >= self._told + TELL_EVERY:
            self._told = now
            self._log.warn(
                "out of descriptors, of which there may be {limit}: new connections "
                "wait until quiet ones have made room",
                limit=allowed(),
            )

    def _try_again(self) -> None:
        # After a stall the reactor looks at its timers first: what those who were let
        # in have sent meanwhile is read before they may have to make room.
        self._retry = self._reactor.callLater(0, self._listen_again)

    def _listen_again(self) -> None:
        self._retry = None
        self._reactor.addReader(self)
