"""Server-sent events: answers without an end, fed from one log (contract, section 3a).

A reader is a place in the log. What has happened is offered to all of them together, a
few times a second and in slices of 10 ms, piece by piece, each once the one before has
left. So nobody is held up by many readers or by many events; what is written to many is
put together once; all that waits for a slow reader is one piece.
Knows no route, and no rule of who may read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.web.iweb import IRequest

from heartbeat_service.core.errors import HeartbeatError, Overloaded
from heartbeat_service.engine.events import EventLog, Told
from heartbeat_service.engine.slices import in_slices
from heartbeat_service.protocol.events import (
    LockedOutEvent,
    ResetEvent,
    SilenceEvent,
    StateChanged,
)
from heartbeat_service.web.channel import HardenedChannel
from heartbeat_service.web.listing import Places

#: How many operators may read events at once, and how many streams clients may have.
MOST_STREAMS = 1_000

#: How many of one client; one more takes the place of the oldest, as a client that lost
#: its line leaves one behind that nobody reads.
MOST_OF_ONE = 4

#: How often a comment shows that the line is alive, in seconds (contract, section 3a).
COMMENT_EVERY = 5.0

#: How much may wait for a reader before it is cut off, in bytes (contract, section 3a).
MOST_WAITING = 1024 * 1024

#: How long events are gathered before they are written to all readers, in seconds.
GATHER = 0.05

#: How much is written to a reader at once, in bytes; an event may go beyond it.
PIECE = 64 * 1024

#: How many pieces are kept for other readers that get there.
MOST_PIECES = 16

#: What a client is told of.
FOR_CLIENTS = frozenset(
    kind.event for kind in (StateChanged, SilenceEvent, LockedOutEvent, ResetEvent)
)

_COMMENT = b":\n\n"

#: How often a reader that has said its last word is tried at once: if it is gone, the
#: first try makes its machine say so, and the second is told.
_TRIES = 2


@define(eq=False)
class _Stream:
    """One reader, and how far it has come.

    :ivar client_id: whose events it reads; None for everybody's.
    :ivar may_stay: raises what is wrong with its token by now.
    :ivar next: the number of the first event that it has still to get; None if it
        has all that was offered.
    :ivar owed: how much that is, in bytes, as far as it was offered.
    :ivar comments: how many are to be written.
    :ivar ended: fires when nothing more is told to it.
    """

    request: Any  # one of ours, with its channel
    client_id: str | None
    may_stay: Callable[[], object]
    next: int | None
    owed: int = 0
    comments: int = 0
    ended: Deferred[None] = field(factory=Deferred)

    @property
    def channel(self) -> HardenedChannel:
        """Its connection."""
        channel: HardenedChannel = self.request.channel
        return channel

    def wants(self, event: Told) -> bool:
        """Whether it is told of that."""
        if self.client_id is None:
            return True
        return event.client_id == self.client_id and event.name in FOR_CLIENTS

    def push(self, piece: bytes) -> bool:
        """Write a piece, in its framing; whether all of it has left."""
        return self.channel.push(_chunk(piece) if self.request.chunked else piece)


class EventStreams:
    """All who read events.

    :ivar most: how many of operators there may be, and as many of clients.
    :ivar cut_off: how many were ended as their readers were too slow.
    """

    _log = Logger()

    def __init__(self, events: EventLog, reactor: Any, most: int) -> None:
        self.most = most
        self.cut_off = 0
        self._events = events
        self._reactor = reactor
        self._operators = Places(most, "too many operators read events")
        self._clients = Places(most, "too many clients read events")
        self._of_all: set[_Stream] = set()
        self._of_one: dict[str | None, dict[_Stream, None]] = {}  # None isn't in it
        self._restless: dict[_Stream, None] = {}  # who may have something to get
        self._offered = 0  # the number of the last event that was offered
        self._pieces: dict[int, tuple[bytes, int]] = {}  # those that were made last
        self._round: IDelayedCall | None = None
        self._working = False
        self._rests_until = 0.0
        self._comments: IDelayedCall | None = None
        self._stopped = False
        events.told = self._wake

    def __len__(self) -> int:
        return sum(self.readers().values())

    def readers(self) -> dict[str, int]:
        """How many there are, of operators and of clients."""
        of_clients = sum(map(len, self._of_one.values()))
        return {"operator": len(self._of_all), "client": of_clients}

    def __iter__(self) -> Iterator[_Stream]:
        yield from list(self._of_all)
        for streams in list(self._of_one.values()):
            yield from list(streams)

    async def follow(
        self,
        request: IRequest,
        may_stay: Callable[[], object],
        client_id: str | None = None,
    ) -> None:
        """Tell a reader what it has missed and what happens, until one of them ends.

        :param may_stay: asked from time to time; raises a :class:`HeartbeatError` once
            its token is no longer good.
        :param client_id: only what a client is told of itself; None for everything.
        :raises Overloaded: if there are too many.
        """
        request.setHeader(b"Content-Type", b"text/event-stream")
        request.setHeader(b"Cache-Control", b"no-store")
        request.setHeader(b"X-Accel-Buffering", b"no")
        if request.method == b"HEAD":
            return
        if self._stopped:
            raise Overloaded("the service is stopping")
        if len(self._of_one.get(client_id, ())) >= MOST_OF_ONE:
            self._cut(next(iter(self._of_one[client_id])))
        places = self._operators if client_id is None else self._clients
        with places.taken():
            stream = self._open(request, may_stay, client_id)
            try:
                await stream.ended
            finally:
                self._forget(stream)

    def stop(self) -> None:
        """Tell everybody what is left to tell, and end all streams."""
        self._stopped = True
        self._offer()
        for stream in list(self._restless):
            self._serve(stream)
        for stream in self:
            if stream.next is not None or stream.channel.waiting():
                self._cut(stream)  # nobody waits for a slow one
            else:
                self._end(stream)
        self._rest()

    def _open(
        self, request: IRequest, may_stay: Callable[[], object], client_id: str | None
    ) -> _Stream:
        if not self._of_all and not self._of_one:
            self._offered = self._events.last
        last_id = request.getHeader(b"last-event-id") or b""
        following = self._events.next_after(last_id.decode("latin-1"))
        begin = _COMMENT
        if following is None:
            following = self._events.last + 1
            begin = _sse(self._events.reset())
        stream = _Stream(request, client_id, may_stay, following)
        request.write(begin)
        stream.channel.stream(lambda: self._try(stream))
        if client_id is None:
            self._of_all.add(stream)
        else:
            self._of_one.setdefault(client_id, {})[stream] = None
        self._restless[stream] = None
        self._wake()
        if self._comments is None:
            self._comments = self._reactor.callLater(COMMENT_EVERY, self._comment)
        return stream

    def _forget(self, stream: _Stream) -> None:
        self._restless.pop(stream, None)
        self._of_all.discard(stream)
        of_one = self._of_one.get(stream.client_id, {})
        of_one.pop(stream, None)
        if not of_one:
            self._of_one.pop(stream.client_id, None)
        if not self._of_all and not self._of_one:
            self._rest()

    def _cut(self, stream: _Stream) -> None:
        """End one at once."""
        self._forget(stream)
        stream.channel.cut()

    def _end(self, stream: _Stream) -> None:
        """End one, so that its reader sees that it is whole."""
        if not stream.ended.called:
            stream.ended.callback(None)

    def _rest(self) -> None:
        """Nobody reads."""
        for call in (self._round, self._comments):
            if call is not None and call.active():
                call.cancel()
        self._round = self._comments = None

    def _comment(self) -> None:
        self._comments = self._reactor.callLater(COMMENT_EVERY, self._comment)
        for stream in self:
            stream.comments = max(1, stream.comments)
            self._restless[stream] = None
            try:
                stream.may_stay()
            except HeartbeatError:
                self._end(stream)
        self._wake()

    def _try(self, stream: _Stream) -> None:
        """Find out whether a reader is gone that has said its last word."""
        stream.comments = _TRIES
        self._restless[stream] = None
        self._wake()

    def _wake(self) -> None:
        """Have a round, not too soon after the one before."""
        idle = self._round is None and not self._working
        if idle and not self._stopped and (self._of_all or self._of_one):
            delay = max(0.0, self._rests_until - self._reactor.seconds())
            self._round = self._reactor.callLater(delay, self._begin_round)

    def _begin_round(self) -> None:
        self._round = None
        Deferred.fromCoroutine(self._have_round()).addErrback(
            lambda failure: self._log.failure("Events were not told", failure)
        )

    async def _have_round(self) -> None:
        self._working = True
        try:
            await in_slices(self._reactor, self._offer_and_serve())
        finally:
            self._working = False
            self._rests_until = self._reactor.seconds() + GATHER
        if self._restless or self._offered < self._events.last:
            self._wake()

    def _offer_and_serve(self) -> Iterator[None]:
        self._offer()
        end = self._reactor.seconds() + GATHER  # others wait for what happens meanwhile
        ready = list(self._restless)
        while ready and self._reactor.seconds() <= end:
            following = []
            for stream in ready:
                if stream in self._restless and self._serve(stream):
                    following.append(stream)
                yield
            ready = following

    def _offer(self) -> None:
        """Tell the streams that there is more for them."""
        first, self._offered = self._offered + 1, self._events.last
        if first > self._offered:
            return
        self._pieces.clear()  # some end at what was the last
        kept = max(first, self._events.first)
        size = sum(len(event.data) for event in self._events.since(kept))
        # Nobody knows for whom it was what is no longer kept.
        for stream in self._of_all if kept == first else self:
            self._offer_to(stream, first, size)
        for number, event in enumerate(self._events.since(kept), kept):
            if event.client_id in self._of_one and event.name in FOR_CLIENTS:
                for stream in self._of_one[event.client_id]:
                    self._offer_to(stream, number, len(event.data))

    def _offer_to(self, stream: _Stream, first: int, size: int) -> None:
        if stream.next is None:
            stream.next = first
        stream.owed += size
        self._restless[stream] = None

    def _serve(self, stream: _Stream) -> bool:
        """Write the next piece to one that has taken the former.

        :return: whether it has taken this one as well, and there is more for it.
        """
        waiting = stream.channel.waiting()
        lost = stream.next is not None and stream.next < self._events.first
        if lost or (waiting and waiting + stream.owed > MOST_WAITING):
            self.cut_off += 1
            self._cut(stream)
            return False
        if waiting:
            return False
        has_left = True
        if stream.comments:
            stream.comments -= 1
            has_left = stream.push(_COMMENT)
        if stream.next is not None and stream.next <= self._offered:
            piece, stream.next = self._piece(stream)
            if piece:
                has_left = stream.push(piece)
                stream.owed = max(0, stream.owed - len(piece))
        if stream.next == self._offered + 1:
            stream.next, stream.owed = None, 0
        if stream.next is None and not stream.comments:
            self._restless.pop(stream)
        return has_left and stream.next is not None and stream.next <= self._offered

    def _piece(self, stream: _Stream) -> tuple[bytes, int]:
        """What a stream gets next, and the number of the event after that."""
        assert stream.next is not None
        if stream.client_id is not None:
            return self._read(stream, stream.next)
        piece = self._pieces.get(stream.next)
        if piece is None:  # else another reader has come as far
            if len(self._pieces) >= MOST_PIECES:
                self._pieces.clear()
            self._pieces[stream.next] = piece = self._read(stream, stream.next)
        return piece

    def _read(self, stream: _Stream, number: int) -> tuple[bytes, int]:
        piece = bytearray()
        for event in self._events.since(number):
            if number > self._offered or len(piece) >= PIECE:
                break
            number += 1
            if stream.wants(event):
                piece += _sse(event)
        return bytes(piece), number


def _sse(event: Told) -> bytes:
    """An event as it goes over the wire."""
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (
        event.id.encode(),
        event.name.encode(),
        event.data,
    )


def _chunk(data: bytes) -> bytes:
    """A chunk of HTTP/1.1."""
    return b"%x\r\n%b\r\n" % (len(data), data)
