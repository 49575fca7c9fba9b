"""One kept connection of HTTP/1.1, for beats alone, at a tenth of what an Agent costs.

Two thousand clients that beat every two seconds took an Agent more than a core, so this
is by hand. It reads the answers that the service gives to a POST: a status, a length,
a body. Anything else is no answer, and the connection is cut. Knows no message.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from typing import Any

from attrs import define, frozen
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.ssl import optionsForClientTLS, trustRootFromCertificates
from twisted.python.failure import Failure
from twisted.python.url import URL
from typing_extensions import override

from heartbeat_service.core.clock import Timer
from heartbeat_service.game_client.credentials import Credentials
from heartbeat_service.game_client.post import LONGEST_ANSWER, base_url

_STATUS = re.compile(rb"HTTP/1\.1 (\d\d\d) ")
_CLOSE = re.compile(rb"\r\nconnection: *close\r\n", re.IGNORECASE)
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d{1,6})\r\n", re.IGNORECASE)

#: Hears an answer's status and body; or why there is none.
Heard = Callable[[int, bytes], None]
Failed = Callable[[str], None]


@frozen
class Server:
    """Where beats go, and what each request begins with."""

    endpoint: IStreamClientEndpoint
    head: bytes

    @classmethod
    def of(cls, reactor: Any, server: str, credentials: Credentials) -> Server:
        """The one at a base URL.

        :raises ValueError: if it is none.
        """
        url = URL.fromText(base_url(server))
        host = f"[{url.host}]" if ":" in url.host else url.host
        lines = [
            f"POST /{'/'.join((*url.path, 'heartbeat')).lstrip('/')} HTTP/1.1",
            f"Host: {host}:{url.port}",
            "Content-Type: application/json",
        ]
        if credentials.token is not None:
            lines.append(f"Authorization: Bearer {credentials.token}")
        endpoint: Any = HostnameEndpoint(reactor, url.host, url.port or 0)
        if url.scheme == "https":
            authorities = credentials.authorities
            trust = trustRootFromCertificates(authorities) if authorities else None
            endpoint = wrapClientTLS(
                optionsForClientTLS(url.host, trustRoot=trust), endpoint
            )
        return cls(endpoint, "\r\n".join([*lines, "Content-Length: "]).encode("ascii"))


@define(eq=False)
class _Asked:
    body: bytes
    heard: Heard
    failed: Failed
    timer: Timer | None = None


class HTTPLine(Protocol):
    """A way for one client's requests, one after the other."""

    def __init__(self, reactor: Any, server: Server) -> None:
        self._reactor = reactor
        self._server = server
        self._asked: deque[_Asked] = deque()
        self._received = b""
        self._connected = self._connecting = self._waits = self._is_cut = False

    def post(self, body: bytes, patience: float, heard: Heard, failed: Failed) -> None:
        """POST it; one of the two hears what came of it within ``patience`` seconds."""
        asked = _Asked(body, heard, failed)
        asked.timer = self._reactor.callLater(patience, self._give_up, asked)
        self._asked.append(asked)
        self._go_on()

    def cut(self) -> None:
        """End the connection; the next request makes another."""
        if self._connected and not self._is_cut:
            self._is_cut = (
                True  # its end comes later, and nothing may be sent till then
            )
            transport: Any = self.transport
            transport.abortConnection()

    @override
    def connectionMade(self) -> None:
        self._connected, self._connecting, self._waits = True, False, False
        self._received = b""
        self._go_on()

    @override
    def dataReceived(self, data: bytes) -> None:
        self._received += data
        head, end, rest = self._received.partition(b"\r\n\r\n")
        if not end:
            if len(head) > LONGEST_ANSWER:
                self.cut()
            return
        head += b"\r\n"
        status, length = _STATUS.match(head), _LENGTH.search(head)
        if status is None or length is None or not self._waits:
            self.cut()
        elif len(rest) >= int(length[1]):
            self._received = b""
            self._waits = False
            if _CLOSE.search(head) or len(rest) > int(length[1]):
                self.cut()
            asked = self._asked.popleft()
            _stop(asked)
            asked.heard(int(status[1]), rest[: int(length[1])])
            self._go_on()

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._connected = self._is_cut = False
        if self._waits:
            self._fail("The connection was lost")
        self._go_on()

    def _go_on(self) -> None:
        if not self._asked or self._waits or self._connecting or self._is_cut:
            return
        if not self._connected:
            self._connecting = True
            factory = Factory.forProtocol(lambda: self)
            factory.noisy = False
            self._server.endpoint.connect(factory).addErrback(self._unreachable)
            return
        self._waits = True
        body = self._asked[0].body
        transport: Any = self.transport
        transport.write(b"%b%d\r\n\r\n%b" % (self._server.head, len(body), body))

    def _unreachable(self, failure: Failure) -> None:
        self._connecting = False
        for _ in range(len(self._asked)):  # who hears of it may ask anew
            self._fail(failure.getErrorMessage())

    def _fail(self, why: str) -> None:
        self._waits = False
        asked = self._asked.popleft()
        _stop(asked)
        asked.failed(why)

    def _give_up(self, asked: _Asked) -> None:
        if self._waits and self._asked[0] is asked:
            self._waits = False
            self.cut()
        self._asked.remove(asked)
        asked.failed("There was no answer in time")


def _stop(asked: _Asked) -> None:
    if asked.timer is not None and asked.timer.active():
        asked.timer.cancel()
