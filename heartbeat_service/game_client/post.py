"""Posts beats by HTTP to a server that may be broken, or hostile.

Twisted's ``Agent`` alone: it keeps no cookie, follows no redirect and unpacks nothing.
An answer costs at most :data:`LONGEST_ANSWER` bytes and the patience of its beat; then
its connection is cut, not closed politely, since a peer may never take part in that.
Knows nothing of what a beat says, or an answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from io import BytesIO
from typing import Any, NoReturn

import treq
from attrs import frozen
from twisted.internet import defer
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import connectionDone
from twisted.internet.ssl import trustRootFromCertificates
from twisted.internet.task import deferLater
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from twisted.python.url import URL
from twisted.web.client import (
    Agent,
    BrowserLikePolicyForHTTPS,
    FileBodyProducer,
    HTTPConnectionPool,
)
from twisted.web.http_headers import Headers
from typing_extensions import override
from zope.interface import implementer

from heartbeat_service.game_client.credentials import Credentials
from heartbeat_service.protocol.codec import MAX_MESSAGE

#: The longest answer, in bytes: its headers, its body, and all that frames them.
LONGEST_ANSWER = MAX_MESSAGE


# A name, in ASCII by now, or an address.
_HOST = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+")
_LAST_PORT = 65535


def base_url(server: str) -> str:
    """A server's URL as HTTP wants it: in ASCII, without a slash at its end.

    :raises ValueError: unless it is ``http[s]://HOST:PORT``, with a path at most.
    """
    parsed = URL.fromText(server.rstrip("/"))
    url = parsed.replace(scheme=parsed.scheme.lower())
    # Not by to_uri(), to which an IPv6 address is no name, nor one with an underscore.
    host = url.host.encode("idna").decode("ascii")
    if url.scheme not in ("http", "https") or not _HOST.fullmatch(host):
        raise ValueError("expected http[s]://HOST:PORT")
    if (
        url.userinfo
        or url.query
        or url.fragment
        or not 0 < (url.port or 0) <= _LAST_PORT
    ):
        raise ValueError("expected http[s]://HOST:PORT, and a path at most")
    return url.replace(host="").to_uri().replace(host=host).to_text()


class AnswerTooLong(Exception):
    """The server sent more than :data:`LONGEST_ANSWER` bytes."""

    def __str__(self) -> str:
        return f"The answer is longer than {LONGEST_ANSWER} bytes"


class NoAnswer(Exception):
    """There is no answer; the text says why, perhaps in words of the server."""


class Post:
    """The way to one server's ``POST /heartbeat``, over one connection at a time.

    :param server: its base URL.
    :raises ValueError: if it is none.
    """

    def __init__(self, reactor: Any, server: str, credentials: Credentials) -> None:
        self._reactor = reactor
        self._url = f"{base_url(server)}/heartbeat".encode("ascii")
        self._headers = Headers({"Content-Type": ["application/json"]})
        if credentials.token is not None:
            self._headers.addRawHeader("Authorization", f"Bearer {credentials.token}")
        authorities = credentials.authorities
        trust = BrowserLikePolicyForHTTPS(
            trustRootFromCertificates(authorities) if authorities else None
        )
        self._pool = _Pool(reactor)
        self._agent = Agent(reactor, trust, pool=self._pool)
        self._sending: Deferred[None] = succeed(None)

    def post(
        self,
        body: bytes,
        patience: float,
        answered: Callable[[int, bytes], None],
        failed: Callable[[str], None],
    ) -> None:
        """POST it. Nothing is open any more when it has failed."""
        self._sending = (
            Deferred.fromCoroutine(self._exchange(body))
            .addTimeout(patience, self._reactor)
            .addErrback(self._failed)
            .addCallbacks(
                lambda answer: answered(*answer),
                lambda failure: failed(failure.getErrorMessage()),
            )
        )

    def close(self, closed: Callable[[], None]) -> None:
        """Cut all connections; it may post again afterwards."""
        self._sending.cancel()
        Deferred.fromCoroutine(self._close()).addCallback(lambda _: closed())

    async def _close(self) -> None:
        self._pool.cut()
        await self._pool.closeCachedConnections()
        while self._pool.open:
            await deferLater(self._reactor, 0)

    async def _exchange(self, body: bytes) -> tuple[int, bytes]:
        producer = FileBodyProducer(BytesIO(body))
        response = await self._agent.request(
            b"POST", self._url, self._headers, producer
        )
        return response.code, await treq.content(response)

    def _failed(self, failure: Failure) -> NoReturn:
        self._pool.cut()
        error = failure.value
        while reasons := getattr(error, "reasons", None):  # Twisted wraps the cause
            error = reasons[0].value
        if isinstance(error, defer.CancelledError | defer.TimeoutError):
            raise NoAnswer("There was no answer in time")
        raise NoAnswer(str(error) or type(error).__name__)


class _Connection(ProtocolWrapper):
    """A connection that ends when more comes in than an answer may have."""

    transport: Any  # Twisted's interface knows nothing of abortConnection

    def __init__(self, factory: Any, protocol: Any) -> None:
        super().__init__(factory, protocol)
        self._left = LONGEST_ANSWER

    @override
    def write(self, data: bytes) -> None:
        self._left = LONGEST_ANSWER  # for the answer to what is sent now
        super().write(data)

    @override
    def writeSequence(self, data: Sequence[bytes]) -> None:
        self.write(b"".join(data))

    @override
    def dataReceived(self, data: bytes) -> None:
        self._left -= len(data)
        if self._left < 0:
            self.transport.abortConnection()
        else:
            super().dataReceived(data)

    @override
    def loseConnection(self) -> None:
        # TLS would wait for a last word of the peer, for ever.
        self.transport.abortConnection()

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._left < 0:
            reason = Failure(AnswerTooLong())
        super().connectionLost(reason)


class _Pool(HTTPConnectionPool):
    """Kept connections, each of which counts what comes in.

    :ivar open: all that are open, in use or not.
    """

    def __init__(self, reactor: Any) -> None:
        super().__init__(reactor)
        self.open: dict[_Connection, int] = {}

    @override
    def getConnection(self, key: Any, endpoint: IStreamClientEndpoint) -> Any:
        return super().getConnection(key, _Counted(endpoint, self.open))

    def cut(self) -> None:
        """End all of them at once."""
        for connection in list(self.open):
            connection.loseConnection()


@implementer(IStreamClientEndpoint)
@frozen
class _Counted:
    """An endpoint whose connections are noted while they are open."""

    endpoint: IStreamClientEndpoint
    open: dict[_Connection, int]

    def connect(self, protocolFactory: IProtocolFactory) -> Any:
        """Connect; fires with the protocol that the factory has built."""
        factory: Any = WrappingFactory(protocolFactory)
        factory.noisy = False
        factory.protocol = _Connection
        factory.protocols = self.open
        connecting: Deferred[Any] = self.endpoint.connect(factory)
        return connecting.addCallback(lambda connection: connection.wrappedProtocol)
