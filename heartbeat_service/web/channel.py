"""One HTTP connection: twisted.web's HTTPChannel and Request, made fit for strangers.

A request is looked at when its head is in: one that can't be right, or that the site's
gate turns away, is answered before its body is read. Nothing goes through a temporary
file, and every error, also twisted.web's own, is problem+json. Whatever a peer has to
do next, it has a deadline for, and what is kept for it, the site knows. Knows no route,
and of the other connections only that the site counts them.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from functools import lru_cache
from http import HTTPStatus
from io import BytesIO
from socket import (
    AF_INET,
    AF_INET6,
    IPPROTO_TCP,
    SO_SNDBUF,
    SOL_SOCKET,
    TCP_USER_TIMEOUT,
)
from typing import Any, Protocol

from twisted.internet.abstract import FileDescriptor
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHalfCloseableProtocol,
    IReactorTime,
    ITCPTransport,
)
from twisted.internet.protocol import connectionDone
from twisted.internet.tcp import Connection
from twisted.logger import Logger
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure
from twisted.web.http import NO_BODY_CODES, HTTPChannel, datetimeToString
from twisted.web.http_headers import Headers
from twisted.web.resource import IResource
from twisted.web.server import NOT_DONE_YET, Request, version
from typing_extensions import override
from zope.interface import implementer

from heartbeat_service.core.clock import Clock, Timer
from heartbeat_service.core.errors import BadMessage, TooLarge
from heartbeat_service.protocol.codec import MAX_MESSAGE
from heartbeat_service.web.framing import Chunks, is_well_framed, unread_coding
from heartbeat_service.web.heads import Head, KnownHeads
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

#: How much is read from a connection at once, and how much may wait to be sent to it
#: before it is asked for no more, in bytes. TLS keeps as much for ever.
READ_SIZE = 8 * 1024

#: How many lines of headers are read in a turn of the reactor: as much work as a beat.
LINES_A_TURN = 50

#: In how many pieces what waits behind a request is kept.
MOST_PIECES = 64

#: What a header takes in memory beyond its own bytes, in bytes.
HEADER_COST = 128

#: How many parameters a query may have. Twisted reads all of them: 16 KiB of only
#: ``&`` would take it as long as fifty beats.
MAX_PARAMETERS = 100

#: How a request to a proxy begins, which a server has to take as well (RFC 9112,
#: section 3.2.2). A URI of HTTP has a host, which counts whatever ``Host`` says.
_AUTHORITY = re.compile(rb"https?://([^/?#@]*@)?(?P<host>[^/?#]+)", re.IGNORECASE)

_HTTP_1_1 = b"HTTP/1.1"


class BoundedRequest(Request):
    """A request whose body is bounded and stays in memory."""

    channel: HardenedChannel
    content: BytesIO
    refusal: Problem | None = None  # what is wrong with its head
    size = 0  # of its body, in bytes, as far as it is there
    longest = MAX_MESSAGE  # that its body may be, in bytes; the gate may grant more
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
        self.size += len(data)
        if self.size > self.longest:
            self.channel.refuse(Problem.of(TooLarge(f"At most {self.longest} bytes")))
        else:
            self.content.write(data)

    @override
    def parseCookies(self) -> None:
        """No route wants them, and 16 KiB of them would take a megabyte."""

    def aim(self, method: bytes, target: bytes) -> bytes:
        """Learn what is asked for, before the body is there; the target's own path."""
        authority = _AUTHORITY.match(target)
        if authority is not None:
            self.requestHeaders.setRawHeaders(b"host", [authority["host"]])
            target = target[authority.end() :]
            if not target.startswith(b"/"):
                target = b"/" + target
        self.method = method
        self.path, _, _ = target.partition(b"?")
        return target

    @override
    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        # Not Twisted's, which reads parameters and forms that no route asks for.
        self.method, self.uri, self.clientproto = command, path, version
        self.path, _, _ = path.partition(b"?")
        self.content.seek(0)
        self.process()

    @override
    def process(self) -> None:
        # Not Twisted's, which looks for a resource and for encoders.
        site = self.channel.site
        if self.path == b"*":
            self._handleStar()
            return
        try:
            self.render(site.getResourceFor(self))
        except BaseException:  # noqa: BLE001 - as Twisted does
            self.processingFailed(Failure())

    @override
    def render(self, resrc: IResource) -> None:
        # Not Twisted's, which has log lines and HTML of its own for what it dislikes.
        if self.refusal is not None:
            self._answer(self.refusal)
            return
        body: Any = resrc.render(self)
        if body is not NOT_DONE_YET:
            self._send(body)

    def _send(self, body: bytes) -> None:
        """Write an answer that is whole, with its head in one piece."""
        if not self.responseHeaders.hasHeader(b"Content-Length"):
            self.setHeader(b"Content-Length", b"%d" % len(body))
        if self.method == b"HEAD" or self.code in NO_BODY_CODES:
            self.write(body)
            self.finish()
            return
        self.startedWriting = self.finished = 1
        self.write_whole(body)
        self._cleanup()

    def write_whole(self, body: bytes) -> None:
        """Write head and body; the length is among the headers."""
        status = self.clientproto, b"%d" % self.code, self.code_message
        self.channel.writeHeaders(*status, self.responseHeaders, body)

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
        self.channel.site.refused(problem)
        self._send(write_problem(self, problem))


class Connections(Protocol):
    """What a channel asks its site, and tells it."""

    reactor: IReactorTime
    deadlines: Clock
    heads: KnownHeads
    answered_at_once: int

    def getResourceFor(self, request: BoundedRequest, /) -> IResource:
        """What answers a request."""

    def at_once(self, request: BoundedRequest, /) -> bytes | None:
        """The answer to a request, if there is one without any waiting."""

    def gate(self, request: BoundedRequest, /) -> Problem | None:
        """Why a request isn't taken, of which only the head is there."""

    def admit(self, channel: HardenedChannel, /) -> bool:
        """Whether a new connection may stay."""

    def keeps(self, channel: HardenedChannel, size: int, /) -> None:
        """So many bytes are kept for a peer now."""

    def answering(self, channel: HardenedChannel, /) -> None:
        """A request came in whole."""

    def answered(self, channel: HardenedChannel, /) -> None:
        """The answer is written."""

    def count(self, request: BoundedRequest, /) -> None:
        """A request was answered that came in whole, but not at once."""

    def refused(self, problem: Problem, /) -> None:
        """What came in is no request that the app could answer."""

    def forget(self, channel: HardenedChannel, /) -> None:
        """A connection is at its end."""


@implementer(IHalfCloseableProtocol)
class HardenedChannel(HTTPChannel):
    """A connection that answers what can't become a request, too.

    It has one timer, for whatever its peer has to do next: ask, go on asking, or
    take its answer, or the next piece of a long one. None runs while an answer is
    being worked on. No byte puts one off, and a peer whose time is up leaves no line
    in the log.
    """

    site: Connections
    transport: ITCPTransport
    timeOut: Any = None  # seconds; Twisted's type knows whole ones only
    refused = False
    _closing = False
    _resting = False  # whether the timer runs for a request that hasn't begun
    _deaf = False  # whether the peer has said its last word
    _kept = 0  # how many bytes the site knows of
    _direct: Connection | None = None  # the socket, if nothing is around it
    _peer: IAddress | None = None
    _host: IAddress | None = None
    _begins = b""  # the bytes that came with the beginning of the request
    _lines = 0  # of a head, read in this turn
    _turn: IDelayedCall | None = None
    _reader_is_deaf: Callable[[], object] | None = None  # of an answer without an end
    _alarm: Timer | None = None
    _deadline = 0.0  # of the peer, if timeOut says that it has one

    @override
    def connectionMade(self) -> None:
        if self.site.admit(self):
            self._socket = _innermost(self.transport)
            self._socket.bufferSize = READ_SIZE
            if isinstance(self.transport, Connection):
                self._direct = self.transport
            super().connectionMade()
        else:
            self.transport.abortConnection()

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        for call in (self._turn, self._alarm):
            if call is not None:
                cancel(call)
        # They know this channel: circles.
        self._transferDecoder = self._reader_is_deaf = None
        self.site.forget(self)

    # Not TimeoutMixin's timer, which is made anew for each answer: one call looks, when
    # it comes, whether the deadline was put off meanwhile.

    @override
    def setTimeout(self, period: float | None) -> float | None:
        """Give the peer so many seconds from now; with None, any time."""
        former: float | None = self.timeOut
        self.timeOut = period
        if period is not None:
            self._deadline = self.site.deadlines.seconds() + period
            if self._alarm is not None and self._alarm.getTime() > self._deadline:
                self._alarm.cancel()
                self._alarm = None
            if self._alarm is None:
                self._alarm = self.site.deadlines.callLater(period, self._look_at_time)
        return former

    def _look_at_time(self) -> None:
        self._alarm = None
        if self.timeOut is None:
            return
        left = self._deadline - self.site.deadlines.seconds()
        if left > 0:
            self._alarm = self.site.deadlines.callLater(left, self._look_at_time)
        else:
            self.timeoutConnection()

    def _keep_time(self) -> None:
        if self._busyReceiving or self._handlingRequest or self.refused:
            return
        if self._closing:
            return
        if self._deaf and not self.paused:
            self.loseConnection()  # all that came in whole is answered
            return
        # While it is paused, the peer has only to read.
        begun = not self.paused and bool(self.requests or self._buffer)
        if begun and (self._resting or self.timeOut is None):
            self._resting = False
            self.setTimeout(REQUEST_DEADLINE)
        elif self.timeOut is None:
            self._resting = True
            self.setTimeout(IDLE)

    def _count(self) -> None:
        """Tell the site what is kept for this peer, unless it is nothing as before."""
        kept = len(self._buffer)
        if self.requests:
            kept += self.requests[-1].size + sum(map(len, self._dataBuffer))
            kept += self._receivedHeaderSize + HEADER_COST * self._receivedHeaderCount
        if self._waitingForTransport:
            kept += self.waiting()
        if kept != self._kept:
            self._kept = kept
            self.site.keeps(self, kept)

    # Each request keeps where it came from, and to learn that is a system call.

    @override
    def getPeer(self) -> IAddress:
        if self._peer is None:
            self._peer = super().getPeer()
        return self._peer

    @override
    def getHost(self) -> IAddress:
        if self._host is None:
            self._host = super().getHost()
        return self._host

    # A long answer has a producer, which goes on whenever all that it has written is
    # taken. Its peer has IDLE seconds for that, and is not listened to: what it sends
    # would pile up until the end of the answer.

    @override
    def registerProducer(self, producer: object, streaming: bool) -> None:
        super().registerProducer(producer, streaming)
        self._bound_kernel_buffer()

    def _bound_kernel_buffer(self) -> None:
        socket = getattr(self._socket, "socket", None)
        if socket is not None:
            socket.setsockopt(SOL_SOCKET, SO_SNDBUF, KERNEL_BUFFER)

    # An answer without an end has no producer. It comes in pieces, the next one when
    # nothing waits any more; whoever pushes them ends what isn't read, and the kernel
    # finds out whose machine is gone.

    def stream(self, reader_is_deaf: Callable[[], object]) -> None:
        """Get ready for an answer without an end.

        :param reader_is_deaf: called when its reader sends no more: it may be gone.
        """
        self._bound_kernel_buffer()
        _expect_acknowledgements(self._socket)
        if self._deaf:
            reader_is_deaf()
        self._reader_is_deaf = reader_is_deaf

    def push(self, piece: bytes) -> bool:
        """Write a piece of an answer without an end; whether all of it has left."""
        return self._send_at_once(piece)

    def waiting(self) -> int:
        """How many bytes wait to be sent."""
        socket = self._socket
        return _waiting(socket) if isinstance(socket, FileDescriptor) else 0

    # Who has sent its last word may still wait for answers (RFC 9112, section 9.6).

    def readConnectionLost(self) -> None:
        """The peer sends no more."""
        self._deaf = True
        if self.refused:
            self.transport.loseConnection()
        if self._reader_is_deaf is not None:
            self._reader_is_deaf()
        self._keep_time()

    def writeConnectionLost(self) -> None:
        """Nothing more is sent to the peer."""

    def cut(self) -> None:
        """End it at once; of an answer under way, the peer sees that it isn't whole."""
        self.transport.abortConnection()

    # Pipelined requests are answered one a turn of the reactor, so that nobody
    # waits for one peer's thousands, and none while an answer waits for its reader.

    @override
    def requestDone(self, request: BoundedRequest) -> None:
        self._savedTimeOut = None  # _keep_time knows better than Twisted
        self._reader_is_deaf = None
        self.setTimeout(None)
        self.site.count(request)
        self.site.answered(self)
        super().requestDone(request)
        if self._buffer and not self._handlingRequest:
            self._await_turn()
        if self.paused and not self._closing:
            self._networkProducer.pauseProducing()
        self._keep_time()
        self._count()

    @override
    def pauseProducing(self) -> None:
        self.paused = True
        super().pauseProducing()
        if self._requestProducer is not None:
            self._networkProducer.pauseProducing()
            self.setTimeout(IDLE)
        self._count()

    @override
    def resumeProducing(self) -> None:
        if self._requestProducer is not None:
            self.setTimeout(None)
        super().resumeProducing()
        self._go_on()
        self._count()

    def _await_turn(self) -> None:
        if self._turn is None:
            self.paused = True
            self._networkProducer.pauseProducing()
            self._turn = self.site.reactor.callLater(0, self._take_turn)

    def _take_turn(self) -> None:
        self._turn = None
        self._lines = 0
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
        if self.refused or self._closing:
            return
        # An empty line may come first, and only one (RFC 9112, section 2.2).
        begun = self.requests or self._buffer or self._lines
        begins = not (begun or self.paused or self._busyReceiving)
        if not begins or not self._take_known(data):
            self._begins = data if begins else b""
            # Not HTTPChannel's, which would put its timeout off for any byte.
            LineReceiver.dataReceived(self, data)
            self._begins = b""
        self._keep_time()
        self._count()

    def _take_known(self, data: bytes) -> bool:
        """Take a request whose head was read before, if it is whole and is let in."""
        known = self.site.heads.find(data)
        if known is None:
            return False
        head, body = known
        request = BoundedRequest(self)
        request.method, request.uri = head.method, head.target
        request.path, request.requestHeaders = head.path, head.headers
        if self.site.gate(request) or head.length > request.longest:
            return False  # it is refused on the ordinary way
        request.content, request.size = BytesIO(body), head.length
        request.clientproto = _HTTP_1_1
        answer = self.site.at_once(request)
        if answer is None:
            self.requests.append(request)
            first_line = head.method, head.target, _HTTP_1_1
            self._command, self._path, self._version = first_line
            self.allContentReceived()
        else:
            self.site.answering(self)
            request.write_whole(answer)
            self.site.answered_at_once += 1
            self.site.answered(self)
            self.setTimeout(None)
        return True

    def _keep_head(self, request: BoundedRequest) -> None:
        """Have a head that was just read found by the next request that begins so."""
        data, self._begins = self._begins, b""
        headers = request.requestHeaders
        if (
            self.persistent
            and self.length is not None
            and not request.refusal
            and not headers.hasHeader(b"Expect")
            and not data.startswith(b"\r")
        ):
            head = Head(self._command, self._path, request.path, headers, self.length)
            self.site.heads.add(data, head)

    @override
    def lineReceived(self, line: bytes) -> None:
        if self.refused:
            return
        if line.startswith((b" ", b"\t")):  # obs-fold (RFC 9112, section 5.2)
            self._respondToBadRequestAndDisconnect()
            return
        self._lines += 1
        super().lineReceived(line)
        if self._lines >= LINES_A_TURN and self.line_mode:
            self._await_turn()

    @override
    def rawDataReceived(self, data: bytes) -> None:
        if self.refused:
            return
        super().rawDataReceived(data)
        if len(self._dataBuffer) > MOST_PIECES:  # each has a price of its own
            self._dataBuffer = [b"".join(self._dataBuffer)]

    @override
    def allContentReceived(self) -> None:
        if not self.refused:
            self._lines = 0
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
        request: BoundedRequest = self.requests[-1]
        if not is_well_framed(request, self._version):
            self._respondToBadRequestAndDisconnect()
            return
        self._path = request.aim(self._command, self._path)
        if sum(map(self._path.count, (b"&", b";"))) >= MAX_PARAMETERS:
            self._refuse(HTTPStatus.BAD_REQUEST, f"At most {MAX_PARAMETERS} parameters")
            return
        request.refusal = self.site.gate(request) or unread_coding(request)
        if self.length is None:
            self._transferDecoder = Chunks(
                request.handleContentChunk, self._finishRequestBody
            )
        if request.refusal and not self._has_body():
            self.refuse(request.refusal)
        elif self.length is not None and self.length > request.longest:
            self.refuse(Problem.of(TooLarge(f"At most {request.longest} bytes")))
        else:
            super().allHeadersReceived()
            self._keep_head(request)

    def _has_body(self) -> bool:
        return self.length is not None and self.length <= len(self._buffer)

    @override
    def writeHeaders(
        self,
        version: bytes,
        code: bytes,
        reason: bytes,
        headers: Headers,
        body: bytes = b"",
    ) -> None:
        # In one piece, where Twisted hands on each word.
        now = int(time.time())
        lines = [b"%b %b %b" % (version, code, reason), _server_and_date(now)]
        for name, values in headers.getAllRawHeaders():
            lines += [name + b": " + value for value in values]
        answer = b"\r\n".join([*lines, b"", body])
        if body:
            self._send_at_once(answer)
        else:  # a body may follow, and leaves with it
            self.transport.write(answer)

    def _send_at_once(self, data: bytes) -> bool:
        """Write, and at once if nothing waits: it saves the reactor a turn.

        :return: whether all of it has left.
        """
        direct = self._direct
        if direct is not None and direct.connected and not _waiting(direct):
            sent = direct.writeSomeData(data)
            # What couldn't be sent, or not all of it, the reactor finds out again.
            if isinstance(sent, int) and sent > 0:
                data = data[sent:]
        if data:
            self.transport.write(data)
        return not data

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
        self.site.refused(problem)
        body = problem.body()
        # What the gate has set for it, but for what is said here.
        headers = self.requests[-1].responseHeaders if self.requests else Headers()
        for name, value in problem.headers().items():
            headers.setRawHeaders(name, [value])
        headers.setRawHeaders(b"Content-Length", [b"%d" % len(body)])
        headers.setRawHeaders(b"Connection", [b"close"])
        status = b"%d" % problem.status, problem.status.phrase.encode()
        if getattr(self, "_command", b"") == b"HEAD":
            body = b""
        self.writeHeaders(_HTTP_1_1, *status, headers, body)
        if self.isSecure():
            # TLS ends by its own word, and then goes on reading until the peer's.
            self.loseConnection()
        elif hasattr(self.transport, "loseWriteConnection"):
            self.transport.loseWriteConnection()
        self.setTimeout(LINGER)

    @override
    def loseConnection(self) -> None:
        """Close once the answer is out; who doesn't read it in time loses it."""
        if not self._closing:
            self._closing = True
            self.setTimeout(IDLE)
        super().loseConnection()

    @override
    def timeoutConnection(self) -> None:
        if self.refused or self._closing or self._handlingRequest:
            self.cut()
        elif self.requests or self._buffer:
            seconds = f"{REQUEST_DEADLINE:g}"
            self._refuse(
                HTTPStatus.REQUEST_TIMEOUT, f"A request has {seconds} s to come in"
            )
        else:
            self.loseConnection()
            self.setTimeout(LINGER)

    @override
    def lineLengthExceeded(self, line: bytes) -> None:
        if self.requests:
            self._refuse_headers()
        elif b" " in line:  # a method, so it is the target that is too long
            self._refuse(HTTPStatus.REQUEST_URI_TOO_LONG, "The path is too long")
        else:
            self._respondToBadRequestAndDisconnect()

    @override
    def _respondToBadRequestAndDisconnect(self) -> None:
        if (
            self._receivedHeaderSize > self.totalHeadersSize
            or self._receivedHeaderCount > self.maxHeaders
        ):
            self._refuse_headers()
        else:
            self._refuse(HTTPStatus.BAD_REQUEST, "Not an HTTP request")

    def _refuse_headers(self) -> None:
        self._refuse(
            HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
            f"At most {self.totalHeadersSize} bytes of headers, "
            f"and {self.maxHeaders} of them",
        )

    def _refuse(self, status: HTTPStatus, detail: str) -> None:
        self.refuse(Problem(status, BadMessage.code, detail))


def _waiting(transport: FileDescriptor) -> int:
    """How many bytes wait to be sent."""
    later: int = transport._tempDataLen  # noqa: SLF001 - it is told nowhere else
    return len(transport.dataBuffer) + later


def _expect_acknowledgements(transport: Any) -> None:
    """Have the kernel end a connection that takes nothing for :data:`IDLE` seconds."""
    socket = getattr(transport, "socket", None)
    if socket is not None and socket.family in (AF_INET, AF_INET6):
        socket.setsockopt(IPPROTO_TCP, TCP_USER_TIMEOUT, int(IDLE * 1000))


@lru_cache(maxsize=1)
def _server_and_date(seconds: int) -> bytes:
    """Two headers that every answer has; made once a second.

    :param seconds: since the epoch.
    """
    date: bytes = datetimeToString(seconds)
    return b"Server: %b\r\nDate: %b" % (version, date)


def _innermost(transport: Any) -> Any:
    """What is below TLS, or a proxy's protocol."""
    while hasattr(transport, "transport"):
        transport = transport.transport
    return transport


def cancel(call: IDelayedCall | Timer) -> None:
    """Cancel a call that may have been made already."""
    if call.active():
        call.cancel()
