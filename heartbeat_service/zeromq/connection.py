"""txZMQ's connection with its holes closed: the base of every socket here.

What it adds to ``txzmq.ZmqConnection``:

- options are set before the socket is bound or connected, where they count;
- a read budget, so that a flooding peer can't starve the reactor;
- a message of too many frames is cut, not collected;
- limits on what a peer may leave in memory, and how long it may be silent;
- a send that fails leaves the socket hearing, and never half a message behind;
- what a read gives rise to may be sent together, once all that came in is read;
- an exception in a handler, also an asynchronous one, is logged and no more;
- ``shutdown`` may be called twice, and leaves no delayed call.

Knows nothing of messages.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import zmq
from twisted.internet.defer import maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from txzmq import ZmqConnection, ZmqEndpoint, ZmqEndpointType, ZmqFactory
from typing_extensions import override

from heartbeat_service.zeromq.socket_options import common_options

#: Frames read in one turn of the reactor; the rest wait for the next turn. A request
#: has two frames or three.
READ_BUDGET = 200

# Plain numbers: an operation on one of pyzmq's Enums takes longer than to read a frame.
_NO_WAIT = int(zmq.NOBLOCK)
_MORE_COMES = int(zmq.NOBLOCK | zmq.SNDMORE)
_CAN_READ = int(zmq.POLLIN)

#: libzmq's send of one frame, without what pyzmq puts before it for draft sockets.
_send = zmq.backend.Socket.send

#: The most frames that a message may have: routing frames, an empty one, and what it
#: says. Of a longer message one frame more is handed on, which tells that it was cut.
MAX_FRAMES = 10

#: How long a closed socket may go on sending what it holds, in milliseconds.
#: It blocks the reactor at stop, so it is short.
LINGER_MILLISECONDS = 500


def make_factory(reactor: Any) -> ZmqFactory:
    """A factory with a ZeroMQ context of its own, to be shut down by its maker."""
    factory = ZmqFactory()
    factory.reactor = reactor
    factory.lingerPeriod = LINGER_MILLISECONDS
    return factory


class HardenedConnection(ZmqConnection):
    """One ZeroMQ socket in the reactor. Subclasses name its type.

    :cvar options: set on top of the common ones, before bind and connect.
    :ivar monitor: what watches it, and must end before it does.
    """

    options: ClassVar[dict[int, int]] = {}
    monitor: HardenedConnection | None = None
    _log = Logger()

    def __init__(self, factory: ZmqFactory) -> None:
        # Before the base class, which reads the socket while it is made.
        self._clock: IReactorTime = factory.reactor  # type: ignore[assignment]
        self._frames: list[bytes] = []
        self._last_frame = zmq.Frame()  # it also tells who sent the message
        self._reading = False
        super().__init__(factory)
        for option, value in {**common_options(), **self.options}.items():
            self.socket.set(option, value)

    def bind(self, address: str) -> str:
        """Listen; a port of 0 or ``*`` is chosen by the system.

        :return: the address that it listens on.
        :raises zmq.ZMQError: if it can't; the connection is shut down then.
        """
        self._add(ZmqEndpoint(ZmqEndpointType.bind, address))
        bound = self.socket.get(zmq.LAST_ENDPOINT)
        assert isinstance(bound, bytes)
        return bound.rstrip(b"\0").decode()

    def connect(self, address: str) -> None:
        """Connect, and reconnect for ever.

        :raises zmq.ZMQError: if the address makes no sense; it is shut down then.
        """
        self._add(ZmqEndpoint(ZmqEndpointType.connect, address))

    def _add(self, endpoint: ZmqEndpoint) -> None:
        # Only where it is asked for: else 127.0.0.1 is told as [::ffff:127.0.0.1].
        self.socket.set(zmq.IPV6, int("[" in endpoint.address))
        try:
            self.addEndpoints([endpoint])
        except zmq.ZMQError:
            self.shutdown()
            raise
        self._read_later()

    def send_multipart(self, frames: Sequence[bytes]) -> bool:
        """Send all frames or none of them, without waiting.

        :return: False if the queue is full or the peer is gone.
        :raises TypeError: if a frame isn't bytes; nothing was sent then.
        """
        if self.factory is None:
            return False
        for frame in frames:
            if not isinstance(frame, bytes):
                raise TypeError(f"A frame is bytes, not {type(frame).__name__}")
        *first, last = frames
        try:
            # libzmq looks for room in the queue only between messages, and drops the
            # rest of one whose peer leaves meanwhile: none is ever left half sent.
            for frame in first:
                _send(self.socket, frame, _MORE_COMES)
            _send(self.socket, last, _NO_WAIT)
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EAGAIN, zmq.EHOSTUNREACH):
                raise
            return False
        finally:
            # Each touch of the socket may swallow the wake-up of what came in.
            self._read_later()
        return True

    def flush(self) -> bool:
        """Send what was to wait until everything that has come in is read.

        :return: whether there was something.
        """
        return False

    @override
    def doRead(self) -> None:
        """Read at most :data:`READ_BUDGET` frames, then yield.

        It ends when nothing is left to read, or with another read scheduled. So who
        touches the socket meanwhile, as each reply does, need not schedule one.
        """
        self._cancel_scheduled_read()
        self._reading = True
        try:
            is_empty = self._read_frames()
        finally:
            self._reading = False
        if not is_empty:
            self._read_later()

    def _read_frames(self) -> bool:
        """Whether nothing is left to read, nor to send."""
        for _ in range(READ_BUDGET):
            if self.factory is None:  # a handler has shut this connection down
                return True
            frame = self._next_frame()
            if frame is not None:
                self._frame_received(frame)
            # To ask is cheaper than to be refused once more.
            elif self._guarded(self.flush) is False or not self.has_unread():
                return True
        self._guarded(self.flush)
        return False

    def _next_frame(self) -> zmq.Frame | None:
        try:
            return self.socket.recv(_NO_WAIT, copy=False)
        except zmq.Again:
            return None
        except zmq.ZMQError:
            # A socket that only sends, or a REQ that has not asked: libzmq does its
            # work for them when it is asked for events.
            if self._has_frame():
                raise
            return None

    def _frame_received(self, frame: zmq.Frame) -> None:
        if len(self._frames) <= MAX_FRAMES:
            self._frames.append(frame.bytes)
        if frame.more:
            return
        self._last_frame = frame
        message, self._frames = self._frames, []
        pending = self._guarded(self.messageReceived, message)
        if pending is not None:
            maybeDeferred(lambda: pending).addErrback(self._log_failure)

    def _guarded(self, handler: Callable[..., Any], *arguments: object) -> Any:
        """What a handler returns; None if it fails."""
        try:
            return handler(*arguments)
        except BaseException:  # noqa: BLE001 - else the reactor would read no more
            self._log_failure(Failure())
            return None

    def _log_failure(self, failure: Failure) -> None:
        self._log.failure("A ZeroMQ handler failed", failure)

    @override
    def shutdown(self) -> None:
        """Close the socket; closing it again does nothing."""
        if self.factory is not None:
            self._guarded(self.flush)
            self._cancel_scheduled_read()
            if self.monitor is not None:
                self.monitor.shutdown()
            super().shutdown()

    def has_unread(self) -> bool:
        """Whether something has come in that nobody has read yet."""
        if self.factory is None:
            return False
        self._read_later()  # to ask may swallow the wake-up of what came in
        return self._has_frame()

    def _has_frame(self) -> bool:
        events = self.socket.get(zmq.EVENTS)
        assert isinstance(events, int)
        return bool(events & _CAN_READ)

    def _read_later(self) -> None:
        """See to it that the socket is read, unless that is being done."""
        if self._reading or self.read_scheduled is not None or self.factory is None:
            return
        self.read_scheduled = self._clock.callLater(0, self.doRead)

    def _cancel_scheduled_read(self) -> None:
        scheduled, self.read_scheduled = self.read_scheduled, None
        if scheduled is not None and scheduled.active():
            scheduled.cancel()
