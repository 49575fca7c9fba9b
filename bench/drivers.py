"""Who sends the beats, and waits for their answers: over HTTP, and to a ROUTER.

Each connection has the next request as soon as the last one is answered, until there
are no more. An answer that isn't good ends the measurement: to refuse is cheap.
Knows neither who answers nor what it costs.
"""

from __future__ import annotations

import json
import re
import select
import socket
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import cycle, islice, takewhile

import zmq

#: How long an answer may take, in seconds.
PATIENCE = 30

CONNECTIONS = 64
DEALERS = 20
IN_FLIGHT = 200


def heartbeat(number: int, **more: object) -> bytes:
    """A beat of one of many clients, with telemetry as a headset has it.

    :param more: what else its body has.
    """
    return _message(
        "HEARTBEAT",
        number,
        clientState="UNCALIBRATED",
        instanceID=f"{number:032x}",
        values={"battery": 0.83, "fps": 71.8, "scene": "lobby"},
        **more,
    )


def change(number: int, state: str) -> bytes:
    """A client's request to enter a state."""
    return _message("SetClientState", number, clientState=state)


def _message(kind: str, number: int, **more: object) -> bytes:
    message = {
        "sdkVersion": 0.1,
        "timestamp": "2022-03-29 12:21:25.153292",
        "messageType": kind,
        "body": {"clientID": f"headset-{number:06}", **more},
    }
    return json.dumps(message).encode()


def during(seconds: float, requests: Sequence[bytes]) -> Iterator[bytes]:
    """The requests, again and again, for that long."""
    until = time.monotonic() + seconds
    return takewhile(lambda _: time.monotonic() < until, cycle(requests))


def posted(message: bytes) -> bytes:
    """The request of HTTP that carries a beat."""
    head = (
        "POST /heartbeat HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(message)}\r\n\r\n"
    )
    return head.encode() + message


def drive_http(port: int, messages: Iterator[bytes]) -> list[float]:
    """Post beats over :data:`CONNECTIONS` that are kept alive.

    :returns: how long each answer took, in seconds.
    :raises RuntimeError: if one isn't 200, or doesn't come.
    """
    times: list[float] = []
    with ExitStack() as stack:
        epoll = stack.enter_context(select.epoll())
        lines = {}
        for message in islice(messages, CONNECTIONS):
            connection = stack.enter_context(
                socket.create_connection(("127.0.0.1", port))
            )
            line = lines[connection.fileno()] = Line(connection)
            epoll.register(connection, select.EPOLLIN)
            line.send(posted(message))
        waiting = len(lines)
        while waiting:
            ready = epoll.poll(PATIENCE)
            if not ready:
                raise RuntimeError(f"No answer in {PATIENCE} s")
            for descriptor, _ in ready:
                line = lines[descriptor]
                if not line.answered():
                    continue
                times.append(time.perf_counter() - line.sent)
                if message := next(messages, b""):
                    line.send(posted(message))
                else:
                    waiting -= 1
    return times


class Line:
    """A connection, with at most one request on its way.

    :ivar sent: when that was.
    """

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.sent = 0.0
        self._answer = b""

    def send(self, request: bytes) -> None:
        """Send a request."""
        self.sent = time.perf_counter()
        self.connection.sendall(request)

    def answered(self) -> bool:
        """Read what has come; whether the answer is whole.

        :raises RuntimeError: if it isn't 200, or breaks off.
        """
        data = self.connection.recv(65_536)
        self._answer += data
        head, _, body = self._answer.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: (\d+)\r\n", head + b"\r\n")
        good = b"HTTP/1.1 200 "
        if not data or not good.startswith(head[: len(good)]):
            raise RuntimeError(f"Not a good answer: {self._answer!r}")
        if length is None or len(body) < int(length[1]):
            return False
        self._answer = b""
        return True


def drive_router(
    endpoint: str, messages: Iterator[bytes], in_flight: int = IN_FLIGHT
) -> list[float]:
    """Send requests by :data:`DEALERS`.

    :param in_flight: how many are on their way.
    :returns: how long each answer took, in seconds.
    :raises RuntimeError: if one is an error, or doesn't come.
    """
    times: list[float] = []
    with zmq.Context() as context, ExitStack() as stack:
        poller = zmq.Poller()
        sent: dict[zmq.Socket[bytes], deque[float]] = {}
        for _ in range(DEALERS):
            dealer = stack.enter_context(context.socket(zmq.DEALER))
            dealer.linger = 0
            dealer.connect(endpoint)
            poller.register(dealer, zmq.POLLIN)
            sent[dealer] = deque()
        for dealer, message in zip(
            cycle(sent), islice(messages, in_flight), strict=False
        ):
            dealer.send(message)
            sent[dealer].append(time.perf_counter())
        while any(sent.values()):
            ready = poller.poll(PATIENCE * 1000)
            if not ready:
                raise RuntimeError(f"No answer in {PATIENCE} s")
            for dealer, _ in ready:
                times += _exchange(dealer, sent[dealer], messages)
    return times


def _exchange(
    dealer: zmq.Socket[bytes], sent: deque[float], messages: Iterator[bytes]
) -> Iterator[float]:
    for _ in range(len(sent)):
        try:
            answer = dealer.recv(zmq.NOBLOCK)
        except zmq.Again:
            return
        if b'"ClientState"' not in answer:
            raise RuntimeError(f"Not a good answer: {answer!r}")
        now = time.perf_counter()
        yield now - sent.popleft()
        if message := next(messages, b""):
            dealer.send(message)
            sent.append(now)
