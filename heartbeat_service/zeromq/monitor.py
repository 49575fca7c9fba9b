"""libzmq's monitor of a socket: tells the reactor who connects to it, and who leaves.

libzmq writes each event into a PAIR socket, in the thread that also moves all messages.
When the queue is full, that thread waits until it is read, so no event is ever lost.
But with nobody left to read, it would wait for ever: a monitor is told to end before
its PAIR socket is closed.

Knows nothing of what the events are used for.
"""

from __future__ import annotations

from collections.abc import Callable

import zmq
from typing_extensions import override

from heartbeat_service.zeromq.connection import READ_BUDGET, HardenedConnection
from heartbeat_service.zeromq.socket_options import EVENT

#: Events read in one turn of the reactor, of two frames each.
EVENT_BUDGET = READ_BUDGET // 2


class Monitor(HardenedConnection):
    """Hears of the events of one socket; ends with it, or sooner.

    :param watched: the socket; before it is bound or connected, to miss nothing.
    :param events: ``zmq.EVENT_…``, added up. Not ``MONITOR_STOPPED``.
    :param heard: called with an event, its value (for most, a descriptor) and the
        endpoint.
    """

    socketType = zmq.PAIR
    # On top of the 1,000 of libzmq's own end, which can't be set. Not 0: no limit.
    highWaterMark = 1

    def __init__(
        self,
        watched: HardenedConnection,
        events: int,
        heard: Callable[[int, int, str], None],
    ) -> None:
        assert watched.factory is not None
        self._heard = heard
        self._watched = watched
        super().__init__(watched.factory)
        address = f"inproc://monitor-{watched.fileno()}"
        watched.socket.monitor(address, events)
        watched.monitor = self
        self.connect(address)

    @override
    def messageReceived(self, message: list[bytes]) -> None:
        """One event."""
        event, value = EVENT.unpack(message[0])
        self._heard(event, value, message[1].decode(errors="replace"))

    @override
    def shutdown(self) -> None:
        """Hear no more; the socket that was watched goes on."""
        if self.factory is not None:
            self._watched.monitor = None
            # libzmq's thread may wait for room here, with the lock that is needed next.
            while self._has_frame():
                self.socket.recv(zmq.NOBLOCK)
            self._watched.socket.monitor(None, 0)
        super().shutdown()
