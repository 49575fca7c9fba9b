"""A list of any length as an answer: encoded chunk by chunk, as fast as it is read.

All listings share one slice of 10 ms a turn of the reactor, and each has one chunk that
waits for its reader; so no reader holds anybody up, or fills the memory. What fits in
one chunk is sent at once. Knows no route, and nothing of what is listed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.internet.task import CooperativeTask, cooperate
from twisted.logger import Logger
from twisted.web.iweb import IRequest
from zope.interface import implementer

from heartbeat_service.core.errors import HeartbeatError, Overloaded
from heartbeat_service.protocol.codec import encode_json
from heartbeat_service.protocol.messages import Body, ClientRecord

#: How much is written at once, in bytes; a record may go beyond it. As much as
#: Twisted's transports take before they ask for a pause.
CHUNK = 64 * 1024

#: What is listed, one with each step; None is left out. A Deferred is waited for.
Steps = Iterator[Body | str | Deferred[Any] | None]


class Places:
    """A number of places, each for one of those that do the same at once.

    :param most: how many there are.
    :param detail: what is told to one more.
    """

    def __init__(self, most: int, detail: str) -> None:
        self._free = most
        self._detail = detail

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Have one of them.

        :raises Overloaded: if there is none.
        """
        if self._free <= 0:
            raise Overloaded(self._detail)
        self._free -= 1
        try:
            yield
        finally:
            self._free += 1


class Page:
    """The first of a list of clients: so many, and who has the last one's incarnation.

    Nodes give the same one to clients of theirs, and the next page begins behind it.

    :ivar next: the incarnation of the last one, once it is known that others come after
        it; None where nobody does.
    """

    def __init__(
        self, steps: Iterator[ClientRecord | Deferred[Any] | None], most: int
    ) -> None:
        self.next: int | None = None
        self._steps = steps
        self._left = most
        self._last: int | None = None

    def __iter__(self) -> Steps:
        for step in self._steps:
            if isinstance(step, Deferred):
                yield step.addCallback(self._take)
            else:
                yield self._take(step)
            if self.next is not None:
                return

    def _take(self, client: ClientRecord | None) -> ClientRecord | None:
        if client is None:
            return None
        if self._left <= 0 and client.incarnation != self._last:
            self.next = self._last
            return None
        self._left -= 1
        self._last = client.incarnation
        return client


@implementer(IPushProducer)
class Listing:
    """``{"clients": […]}`` as the answer to one request.

    :param places: where it takes one, once it turns out not to fit in one chunk.
    :param name: what the list is called.
    :param tail: what stands behind it, known once it is whole.
    """

    _log = Logger()
    _begun = False
    _paused = False
    _gone = False
    _task: CooperativeTask[Iterator[object]]

    def __init__(
        self,
        request: IRequest,
        steps: Steps,
        places: Places | None = None,
        name: str = "clients",
        tail: Callable[[], Body] = Body,
    ) -> None:
        self._request: Any = request  # which has a channel besides
        self._steps = steps
        self._places = places
        self._place = ExitStack()
        self._tail = tail
        self._chunk = bytearray(b'{"%s":[' % name.encode())
        self._comma = b""

    async def send(self) -> None:
        """Write it whole, but don't finish the request.

        If it can't be made whole, the connection is cut: a 200 has been sent already.

        :raises Overloaded: if it may not begin.
        """
        self._request.setHeader(b"Content-Type", b"application/json")
        self._task = cooperate(self._work())
        self._request.registerProducer(self, True)
        try:
            with self._place:
                await self._task.whenDone()
        except CancelledError:  # the reader is gone
            self._gone = True
            raise
        except Exception as error:  # whatever it is, the reader must see its end
            self._request.unregisterProducer()
            if not self._begun:
                raise
            if not isinstance(error, HeartbeatError):
                self._log.failure("A listing failed")
            self._request.channel.cut()
            await Deferred()  # until the connection's end is told
        self._request.unregisterProducer()

    def pauseProducing(self) -> None:
        """The reader has not taken what was written."""
        if not self._paused:
            self._paused = True
            self._task.pause()

    def resumeProducing(self) -> None:
        """The reader has taken all of it."""
        if self._paused:
            self._paused = False
            self._task.resume()

    def stopProducing(self) -> None:
        """The connection is at its end, of which the request is told as well."""

    def _work(self) -> Iterator[Deferred[None] | None]:
        """Encode and write; stops at each client, of whom all may have died."""
        for step in self._steps:
            if isinstance(step, Deferred):
                yield step.addCallback(self._add)
            else:
                self._add(step)
                yield None
            if self._gone:  # not stopped from outside: it may wait for a Deferred
                return
            if len(self._chunk) >= CHUNK:
                self._begin()
                self._write()
                if self._request.method == b"HEAD":
                    return
        tail = encode_json(self._tail())[1:]
        self._chunk += (b"]" if tail == b"}" else b"],") + tail
        if not self._begun:
            self._request.setHeader(b"Content-Length", b"%d" % len(self._chunk))
        self._write()

    def _begin(self) -> None:
        if not self._begun and self._places is not None:
            self._place.enter_context(self._places.taken())
        self._begun = True

    def _add(self, item: Body | str | None) -> None:
        if item is not None:
            self._chunk += self._comma + encode_json(item)
            self._comma = b","

    def _write(self) -> None:
        self._request.write(bytes(self._chunk))
        self._chunk.clear()
