"""One HTTP connection: twisted.web's HTTPChannel and Request, made fit for strangers.

A body over the limit is refused before it is read, nothing goes through a temporary
file, and every error, also twisted.web's own, is problem+json. Whatever a peer has to
do next, it has a deadline for. Knows no route, and of the other connections only that
the site counts them.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from io import BytesIO
from socket import SO_SNDBUF, SOL_SOCKET
from typing import Any, Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime, ITCPTransport
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.server import NOT_DONE_YET, Request
from typing_extensions import override

from heartbeat_service.core.errors import BadMessage, TooLarge
from heartbeat_service.protocol.codec import MAX_MESSAGE
from heartbeat_service.web.problem import Problem, unavailable, write_problem

#: How long a request may take to come in whole, in seconds: the first from the
#: connection on, with its TLS handshake, each further one from its first byte on.
REQUEST_DEADLINE = 10.0

#: How long a connection may be kept without a further request, and how long a peer
#: may take to read what it asked for, in seconds.
IDLE = 60.0

#: How long a refused peer may go on sending before it is cut off, in seconds.
#: To close at once would reset the connection and lose the answer on its way.
LINGER = 2.0

#: How much of a long answer the kernel holds for a peer that doesn't read, in bytes.
#: Of itself it would hold 4 MiB, and tell of a slow reader's progress once a MiB.
KERNEL_BUFFER = 128 * 1024

#: How a request to a proxy begins, which a server has to take as well (RFC 9112,
#: section 3.2.2). A URI of HTTP has a host, which counts whatever ``Host`` says.
_AUTHORITY = re.compile(rb"https?://([^/?#@]*@)?(?P<host>[^/?#]+)", re.IGNORECASE)


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
    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        # Before anything else looks at it: there is one way to write each path.
        authority = _AUTHORITY.match(path)
        if authority is not None:
            self.requestHeaders.setRawHeaders(b"host", [authority["host"]])
            path = path[authority.end() :]
            if not path.startswith(b"/"):
                path = b"/" + path
        super().requestReceived(command, path, version)

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


class Connections(Protocol):
    """What a channel tells its site."""

    reactor: IReactorTime

    def admit(self, channel: HardenedChannel, /) -> bool:
        """Whether a new connection may stay."""

    def answering(self, channel: HardenedChannel, /) -> None:
        """A request came in whole."""

    def answered(self, channel: HardenedChannel, /) -> None:
        """The answer is written."""

    def forget(self, channel: HardenedChannel, /) -> None:
        """A connection is at its end."""


class HardenedChannel(HTTPChannel):
    """A connection that answers what can't become a request, too.

    It has one timer, for whatever its peer has to do next: ask, go on asking, or
    take its answer, or the next piece of a long one. None runs while an answer is
    being worked on. No byte puts one off, and a peer whose time is up leaves no line
    in the log.
    """

    site: Connections
    transport: ITCPTransport
    refused = False
    _closing = False
    _resting = False  # whether the timer runs for a request that hasn't begun
    _turn: IDelayedCall | None = None

    @override
    def connectionMade(self) -> None:
        if self.site.admit(self):
            super().connectionMade()
        else:
            self.transport.abortConnection()

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        if self._turn is not None:
            cancel(self._turn)
        self.site.forget(self)

    def _wait(self, seconds: float) -> None:
        # Not moved but made anew: to move a call to sooner is a linear search.
        self.setTimeout(None)
        self.setTimeout(seconds)

    def _keep_time(self) -> None:
        if self._busyReceiving or self._handlingRequest or self.refused:
            return
        if self._closing:
            return
        # While it is paused, the peer has only to read.
        begun = not self.paused and bool(self.requests or self._buffer)
        if begun and (self._resting or self.timeOut is None):
            self._resting = False
            self._wait(REQUEST_DEADLINE)
        elif self.timeOut is None:
            self._resting = True
            self._wait(IDLE)

    # A long answer has a producer, which goes on whenever all that it has written is
    # taken. Its peer has IDLE seconds for that, and is not listened to: what it sends
    # would pile up until the end of the answer.

    @override
    def registerProducer(self, producer: object, streaming: bool) -> None:
        super().registerProducer(producer, streaming)
        socket = getattr(self.transport, "socket", None)
        if socket is not None:
            socket.setsockopt(SOL_SOCKET, SO_SNDBUF, KERNEL_BUFFER)

    def cut(self) -> None:
        """End it at once; of an answer under way, the peer sees that it isn't whole."""
        self.transport.abortConnection()

    # Pipelined requests are answered one a turn of the reactor, so that nobody
    # waits for one peer's thousands, and none while an answer waits for its reader.

    @override
    def requestDone(self, request: Request) -> None:
        self._savedTimeOut = None  # _keep_time knows better than Twisted
        self.setTimeout(None)
        self.site.answered(self)
        super().requestDone(request)
        if self._buffer and not self._handlingRequest and self._turn is None:
            self.paused = True
            self._turn = self.site.reactor.callLater(0, self._take_turn)
        if self.paused and not self._closing:
            self._networkProducer.pauseProducing()
        self._keep_time()

    @override
    def pauseProducing(self) -> None:
        self.paused = True
        super().pauseProducing()
        if self._requestProducer is not None:
            self._networkProducer.pauseProducing()
            self._wait(IDLE)

    @override
    def resumeProducing(self) -> None:
        if self._requestProducer is not None:
            self.setTimeout(None)
        super().resumeProducing()
        self._go_on()

    def _take_turn(self) -> None:
        self._turn = None
        self._go_on()

    def _go_on(self) -> None:
        if self._waitingForTransport or self._turn is not None:
            return
        self.paused = False
        self.dataReceived(b"")
        if not self.paused and not self._handlingRequest:
            self._networkProducer.resumeProducing()

    # Once refused, a peer may talk on, but nobody listens: the parser's four
    # ways in are shut, and what it sends no longer puts off the end.

    @override
    def dataReceived(self, data: bytes) -> None:
        if not self.refused and not self._closing:
            # Not HTTPChannel's, which would put its timeout off for any byte.
            LineReceiver.dataReceived(self, data)
            self._keep_time()

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
            self.site.answering(self)
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
        if self.isSecure():
            # TLS ends by its own word, and then goes on reading until the peer's.
            self.loseConnection()
        elif hasattr(self.transport, "loseWriteConnection"):
            self.transport.loseWriteConnection()
        self._wait(LINGER)

    @override
    def loseConnection(self) -> None:
        """Close once the answer is out; who doesn't read it in time loses it."""
        if not self._closing:
            self._closing = True
            self._wait(IDLE)
        super().loseConnection()

    @override
    def timeoutConnection(self) -> None:
        if self.refused or self._closing or self._handlingRequest:
            self.cut()
        else:
            self.loseConnection()
            self._wait(LINGER)

    @override
    def lineLengthExceeded(self, line: bytes) -> None:
        self._respondToBadRequestAndDisconnect()

    @override
    def _respondToBadRequestAndDisconnect(self) -> None:
        self.refuse(
            Problem(HTTPStatus.BAD_REQUEST, BadMessage.code, "Not an HTTP request")
        )


def cancel(call: IDelayedCall) -> None:
    """Cancel a call that may have been made already."""
    if call.active():
        call.cancel()
