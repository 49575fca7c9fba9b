"""twisted.web's Site, Request and HTTPChannel, made fit for strangers.

A body over the limit is refused before it is read, nothing goes through a
temporary file, and every error, also twisted.web's own, is problem+json.
"""

from __future__ import annotations

from http import HTTPStatus
from io import BytesIO
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime, ITCPTransport
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.resource import IResource
from twisted.web.server import NOT_DONE_YET, Request, Site
from typing_extensions import override

from heartbeat_service.core.errors import BadMessage, TooLarge
from heartbeat_service.protocol.messages import MAX_MESSAGE
from heartbeat_service.web.problem import Problem, unavailable, write_problem

#: How long a refused peer may go on sending before it is cut off, in seconds.
#: To close at once would reset the connection and lose the answer on its way.
LINGER = 2.0


class BoundedRequest(Request):
    """A request whose body is bounded and stays in memory."""

    channel: HardenedChannel
    content: BytesIO
    _log = Logger()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # A form is no message, and to look for one costs each beat 30 µs.
        super().__init__(*args, parsePOSTFormSubmission=False, **kwargs)

    @override
    def gotLength(self, length: int | None) -> None:
        self.content = BytesIO()

    @override
    def handleContentChunk(self, data: bytes) -> None:
        if self.channel.refused:
            return
        if self.content.tell() + len(data) > MAX_MESSAGE:
            self.channel.refuse(Problem.of(TooLarge(f"At most {MAX_MESSAGE} bytes")))
        else:
            self.content.write(data)

    @override
    def processingFailed(self, reason: Failure) -> object:
        self._log.failure("A request failed", reason)
        self._answer(unavailable("The service failed; try again"))
        return NOT_DONE_YET

    @override
    def _handleStar(self) -> None:
        self._answer(
            Problem(HTTPStatus.NOT_FOUND, BadMessage.code, "Not Found: no such path")
        )

    def _answer(self, problem: Problem) -> None:
        self.write(write_problem(self, problem))
        self.finish()


class HardenedChannel(HTTPChannel):
    """A connection that answers what can't become a request, too."""

    site: HeartbeatSite
    transport: ITCPTransport
    refused = False

    @override
    def connectionMade(self) -> None:
        self.site.channels.add(self)
        super().connectionMade()

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        self.site.channels.discard(self)
        self.site.connection_lost()

    # Once refused, a peer may talk on, but nobody listens: the parser's four
    # ways in are shut, and what it sends no longer puts off the end.

    @override
    def dataReceived(self, data: bytes) -> None:
        if not self.refused:
            super().dataReceived(data)

    @override
    def lineReceived(self, line: bytes) -> None:
        if not self.refused:
            super().lineReceived(line)

    @override
    def rawDataReceived(self, data: bytes) -> None:
        if not self.refused:
            super().rawDataReceived(data)

    @override
    def allContentReceived(self) -> None:
        if not self.refused:
            super().allContentReceived()

    @override
    def headerReceived(self, line: bytes) -> bool:
        try:
            received: bool = super().headerReceived(line)
        except ValueError:  # a Content-Length of more digits than Python reads
            self.refuse(Problem.of(TooLarge(f"At most {MAX_MESSAGE} bytes")))
            return False
        return received

    @override
    def allHeadersReceived(self) -> None:
        if self.length is not None and self.length > MAX_MESSAGE:
            self.refuse(Problem.of(TooLarge(f"At most {MAX_MESSAGE} bytes")))
        else:
            super().allHeadersReceived()

    def finish(self) -> None:
        """Take no further request; close once what is under way is answered."""
        if self.requests:
            self.persistent = 0
        else:
            self.loseConnection()

    def refuse(self, problem: Problem) -> None:
        """Answer with ``problem``, read no more, and close."""
        if self.refused:
            return
        self.refused = True
        body = problem.body()
        headers = {
            **problem.headers(),
            "Content-Length": str(len(body)),
            "Connection": "close",
        }
        lines = [f"HTTP/1.1 {problem.status.value} {problem.status.phrase}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self.transport.write("\r\n".join([*lines, "", ""]).encode() + body)
        self.setTimeout(LINGER)
        if hasattr(self.transport, "loseWriteConnection"):
            self.transport.loseWriteConnection()

    @override
    def timeoutConnection(self) -> None:
        if self.refused:
            self.transport.abortConnection()
        else:
            super().timeoutConnection()

    @override
    def lineLengthExceeded(self, line: bytes) -> None:
        self._respondToBadRequestAndDisconnect()

    @override
    def _respondToBadRequestAndDisconnect(self) -> None:
        self.refuse(
            Problem(HTTPStatus.BAD_REQUEST, BadMessage.code, "Not an HTTP request")
        )


class HeartbeatSite(Site):
    """Serves the app, and keeps no access log: a beat is no news."""

    protocol = HardenedChannel  # type: ignore[assignment]  # Twisted types its own wrapper
    noisy = False

    def __init__(self, resource: IResource, reactor: IReactorTime) -> None:
        super().__init__(resource, BoundedRequest, reactor=reactor)
        self.channels: set[HardenedChannel] = set()
        self._empty: Deferred[None] | None = None

    def disconnect_all(self) -> Deferred[None]:
        """Close every connection once its answer is out; fires when they are gone.

        Who doesn't read its answer within :data:`LINGER` seconds loses it.
        """
        if not self.channels:
            return succeed(None)
        abort = self.reactor.callLater(LINGER, self._abort_all)
        empty: Deferred[None] = Deferred()
        empty.addCallback(lambda _: _cancel(abort))
        self._empty = empty
        for channel in list(self.channels):
            channel.finish()
        return empty

    def _abort_all(self) -> None:
        for channel in list(self.channels):
            channel.transport.abortConnection()

    def connection_lost(self) -> None:
        """A channel tells of its end."""
        if self._empty is not None and not self.channels:
            empty, self._empty = self._empty, None
            empty.callback(None)

    @override
    def log(self, request: object) -> None:
        """An ordinary beat leaves no line."""


def _cancel(call: IDelayedCall) -> None:
    if call.active():
        call.cancel()
