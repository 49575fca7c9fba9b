"""ZeroMQ sockets that hear what the service publishes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import zmq

from bench.drivers import PATIENCE

Socket = zmq.Socket[bytes]


@contextmanager
def context(most: int = 10) -> Iterator[zmq.Context[Socket]]:
    """A context for so many sockets, until the end of the block."""
    made: zmq.Context[Socket] = zmq.Context()
    made.set(zmq.MAX_SOCKETS, most)
    try:
        yield made
    finally:
        made.destroy(linger=0)


def connected(within: zmq.Context[Socket], kind: int, address: str) -> Socket:
    """A socket that loses nothing, and waits :data:`PATIENCE` for what must come."""
    socket = within.socket(kind)
    socket.set_hwm(0)
    socket.set(zmq.RCVTIMEO, PATIENCE * 1000)
    socket.connect(address)
    return socket


def subscribed(within: zmq.Context[Socket], address: str, *topics: bytes) -> Socket:
    """A SUB socket; for everything, if no topics are given."""
    socket = connected(within, zmq.SUB, address)
    for topic in topics or (b"",):
        socket.set(zmq.SUBSCRIBE, topic)
    return socket
