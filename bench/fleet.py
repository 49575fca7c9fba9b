"""Clients, as a driver plays them: all of them by one DEALER, with many in flight.

Messages are made before anything is measured. Knows nobody but a ROUTER that answers.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import zmq

#: How many requests may be unanswered. More than 1,000 answers to one peer are more
#: than the service keeps.
IN_FLIGHT = 200

#: How long an answer, or whatever else must come, may take, in seconds.
PATIENCE = 60.0


def beat(client: str, fuse: float) -> bytes:
    """A heartbeat.

    :param fuse: the ``timebombSeconds`` that it asks for.
    """
    body = {"clientID": client, "clientState": "RUNNING", "timebombSeconds": fuse}
    envelope = {
        "sdkVersion": 0.1,
        "timestamp": "2022-03-29 12:21:25.153292",
        "messageType": "HEARTBEAT",
        "body": body,
    }
    return json.dumps(envelope).encode()


@contextmanager
def sockets(most: int = 10) -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    """A ZeroMQ context for so many sockets, until the end of the block."""
    context: zmq.Context[Any] = zmq.Context()
    context.set(zmq.MAX_SOCKETS, most)
    try:
        yield context
    finally:
        context.destroy(linger=0)


def connected(context: Any, kind: int, address: str) -> Any:
    """A socket that waits :data:`PATIENCE` for what must come, and loses nothing."""
    socket = context.socket(kind)
    socket.set_hwm(0)
    socket.setsockopt(zmq.RCVTIMEO, int(PATIENCE * 1000))
    socket.connect(address)
    return socket


def subscribed(context: Any, address: str, *topics: bytes) -> Any:
    """A SUB socket; to everything, if no topics are given."""
    socket = connected(context, zmq.SUB, address)
    for topic in topics or (b"",):
        socket.setsockopt(zmq.SUBSCRIBE, topic)
    return socket


def ask_all(
    dealer: Any, requests: Iterable[bytes], in_flight: int = IN_FLIGHT
) -> float:
    """Send all of them and wait for all answers.

    :return: the seconds from the first request to the last answer.
    :raises RuntimeError: if one of them is refused.
    """
    began = time.monotonic()
    waiting = iter(requests)
    unanswered = 0
    for request in islice(waiting, in_flight):
        dealer.send(request)
        unanswered += 1
    while unanswered:
        answer = dealer.recv()
        unanswered -= 1
        if b'"Error"' in answer:
            raise RuntimeError(f"It was refused: {answer.decode()}")
        for request in islice(waiting, 1):
            dealer.send(request)
            unanswered += 1
    return time.monotonic() - began
