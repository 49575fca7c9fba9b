"""What each ZeroMQ socket is set to, in whosever loop it is.

Knows no library but pyzmq.
"""

from __future__ import annotations

import struct

import zmq

#: The longest frame a peer may send, in bytes; a longer one disconnects it.
#: Far above a message's own limit, whose excess is answered instead.
MAX_FRAME = 1024 * 1024

#: How long a peer may take for its handshake, in milliseconds; then it is dropped.
HANDSHAKE_MILLISECONDS = 5_000

#: A peer whose machine doesn't answer is dropped after this, in seconds: three tries
#: of TCP's own keep-alive, or as long for what was sent and is not acknowledged.
SILENCE = 15

#: An event of a monitor and its value, as libzmq writes them (zmq_socket_monitor). Not
#: by pyzmq's parse_monitor_message, which keeps an Enum member for each value that it
#: ever saw.
EVENT = struct.Struct("=HI")


def common_options() -> dict[int, int]:
    """What every socket is set to, before it is bound or connected."""
    return {
        zmq.MAXMSGSIZE: MAX_FRAME,
        zmq.HANDSHAKE_IVL: HANDSHAKE_MILLISECONDS,
        # Not ZMTP's pings: libzmq 4.3.5 aborts the process when one is due to a
        # peer that has filled its queue here and hung up. Who pings is answered,
        # and dropped when it falls silent, if it asks for that.
        zmq.TCP_KEEPALIVE: 1,
        zmq.TCP_KEEPALIVE_IDLE: SILENCE // 3,
        zmq.TCP_KEEPALIVE_INTVL: SILENCE // 3,
        zmq.TCP_KEEPALIVE_CNT: 2,
        zmq.TCP_MAXRT: SILENCE * 1000,
    }
