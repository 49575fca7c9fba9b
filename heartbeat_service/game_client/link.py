"""Whether one ZeroMQ socket of the client is connected; if not, why, for people.

libzmq connects by itself, again and again, and says nothing when it can't. Its monitor
tells of each try, and of each handshake: what the last one came to is kept here.

After some failures libzmq gives up for good (it read what is no ZMTP, or one side alone
has CURVE keys), so whoever waits for too long has to open the socket anew. Knows
nothing of messages, nothing of how long is too long, and nothing of who reads the
monitor: Twisted or asyncio.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import zmq

from heartbeat_service.game_client.ports import Listener
from heartbeat_service.protocol.codec import MAX_MESSAGE

#: Messages of a server that wait here until they are read; the rest waits at the
#: server. What it says of one client is little; with the longest they are 6 MiB.
MAX_UNREAD = 100

#: Requests that wait here while the server can't be reached; the rest is dropped, since
#: what matters is asked again.
MAX_UNSENT = 10

#: What both sockets of a client are set to, on top of what every socket is.
OPTIONS: dict[int, int] = {
    zmq.MAXMSGSIZE: MAX_MESSAGE,
    zmq.RCVHWM: MAX_UNREAD,
    zmq.SNDHWM: MAX_UNSENT,
}

#: What the monitor is asked for.
EVENTS = (
    zmq.EVENT_CONNECTED
    | zmq.EVENT_CLOSED
    | zmq.EVENT_DISCONNECTED
    | zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
)

_UNREACHABLE = (
    "can't be reached: is the name right that the server advertises, "
    "does a firewall stand between?"
)
# With keys, and without. A server that refuses a key says nothing; and where one side
# alone has keys, the server may see that first, and hang up.
_NO_HANDSHAKE = {
    True: "does not shake hands: does it know this client's CURVE key, "
    "is the server's the right one, has the server any?",
    False: "does not shake hands: does it want CURVE keys, is it ZeroMQ?",
}
_OTHER_MECHANISM = {
    True: "is no server with CURVE keys, and this client has some",
    False: "wants CURVE keys, and this client has none",
}


class Link:
    """What became of one socket's connection.

    :param address: where it connects to.
    :param has_keys: whether it shows a CURVE key.
    :param changed: called whenever any of this may have changed.
    :ivar connected: whether the last handshake succeeded, and that holds.
    """

    def __init__(
        self, address: str, has_keys: bool, changed: Callable[[], None]
    ) -> None:
        self.connected = False
        self._address = address
        self._has_keys = has_keys
        self._changed = changed
        self._why = _UNREACHABLE

    @property
    def trouble(self) -> str:
        """What goes wrong, in a sentence; of no use while it is connected."""
        return f"{self._address} {self._why}"

    def heard(self, event: int, value: int, _endpoint: str = "") -> None:
        """An event of the socket's monitor."""
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self.connected = True
        elif event == zmq.EVENT_CONNECTED:
            self._why = _NO_HANDSHAKE[self._has_keys]  # as long as that is all
        elif event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
            if value == zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH:
                self._why = _OTHER_MECHANISM[self._has_keys]
        elif self.connected or event == zmq.EVENT_CLOSED:
            self.connected, self._why = False, _UNREACHABLE
        self._changed()


def tell(listener: Listener, links: Sequence[Link]) -> None:
    """Tell whether all of them are connected; if not, why the first isn't."""
    troubles = [link.trouble for link in links if not link.connected]
    if troubles:
        listener.disconnected(troubles[0])
    else:
        listener.connected()
