"""Clients in a process of their own, so that the test's own work never delays them.

``python -m tests.faults.crowd WHAT …``, where what it does is one of:

- ``peers ROUTER COUNT``: so many DEALERs; with each line that it reads, all send a
  beat at once, and then wait for the answers;
- ``fuses HTTP ROUTER PUB``: a few clients with short fuses, that beat every half of
  one and wait for no answer; tells of each of their deaths, and when it was late;
  with the first line that it reads, they fall silent, and it waits for their deaths;
- ``doomed ROUTER PUB COUNT``: so many clients by one DEALER, that all die at one
  moment; tells of the deaths that it has heard;
- ``probe HTTP``: a client that beats every 10 ms, until it reads a line; tells how
  long its slowest beat took, and how many took more than LONG;
- ``watchers HTTP COUNT``: so many readers of ``GET /events``, until it reads a line;
  tells how many were cut off, of how many changes the slowest has heard, and how many
  bytes came in all.

Moments are those of ``time.monotonic``, which is the same in all processes.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

import zmq

from tests.messages import heartbeat, over_http

FUSES = (0.1, 0.2, 0.4)

#: How many requests of the doomed may be unanswered.
WINDOW = 1000

#: How long a child waits for what must come, in seconds.
PATIENCE = 60.0

#: A beat that takes longer is told of, in seconds.
LONG = 0.1

#: How long late beats are remembered, in seconds.
MEMORY = 10.0


def tell(what: str, **more: Any) -> None:
    """A line for the test."""
    sys.stdout.write(f"{what} {json.dumps(more)}\n")
    sys.stdout.flush()


def peers(router: str, count: str) -> None:
    """Many that beat at once."""
    context = zmq.Context()
    context.set(zmq.MAX_SOCKETS, int(count) + 1)
    dealers = []
    for number in range(int(count)):
        dealer = context.socket(zmq.DEALER)
        dealer.setsockopt(zmq.IDENTITY, b"peer-%d" % number)
        dealer.setsockopt(zmq.RCVTIMEO, int(PATIENCE * 1000))
        dealer.connect(router)
        dealers.append(dealer)

    def beat() -> None:
        for number, dealer in enumerate(dealers):
            dealer.send(heartbeat(f"peer-{number}", timebombSeconds=600))
        tell("sent")
        for dealer in dealers:
            dealer.recv()
        tell("answered")

    beat()
    for _ in sys.stdin:
        beat()
    context.destroy(linger=0)


class Beating:
    """A client that beats in time, or knows that it was late.

    :param send: sends a beat.
    :ivar late: from when to when a beat was due and had not left.
    """

    def __init__(self, name: str, fuse: float, send: Callable[[bytes], object]) -> None:
        self.fuse = fuse
        self.due = time.monotonic()
        self.late: deque[tuple[float, float]] = deque()
        self._beat = heartbeat(name, timebombSeconds=fuse)
        self._send = send

    def beat(self) -> None:
        """Beat, if it is time to."""
        if time.monotonic() < self.due:
            return
        self._send(self._beat)
        sent = time.monotonic()
        if sent > self.due + self.fuse / 4:
            self.late.append((self.due, sent))
        while self.late and self.late[0][1] < sent - MEMORY:
            self.late.popleft()
        self.due = max(self.due + self.fuse / 2, sent)


def fuses(http: str, router: str, pub: str) -> None:
    """A few that have short fuses."""
    context = zmq.Context()
    ear = _ear(context, pub)
    poller = zmq.Poller()
    poller.register(ear, zmq.POLLIN)
    dealer = _dealer(context, router)
    poller.register(dealer, zmq.POLLIN)
    poller.register(sys.stdin, zmq.POLLIN)
    beating = {}
    lines = {}
    for fuse in FUSES:
        line = _connect(http)
        lines[line.fileno()] = line
        poller.register(line, zmq.POLLIN)
        by_http, by_zeromq = f"http-{fuse}", f"zeromq-{fuse}"
        beating[by_http] = Beating(by_http, fuse, _sender(line))
        beating[by_zeromq] = Beating(by_zeromq, fuse, dealer.send)
    tell("beating")
    while True:
        for one in beating.values():
            one.beat()
        wait = min(one.due for one in beating.values()) - time.monotonic()
        for ready, _ in poller.poll(max(0, int(wait * 1000))):
            if ready is ear:
                client_id = _death(ear.recv_multipart())
                if client_id in beating:
                    one = beating[client_id]
                    now = time.monotonic()
                    late = [*one.late, *([(one.due, now)] if now > one.due else [])]
                    tell("dead", name=client_id, fuse=one.fuse, at=now, late=late)
            elif ready is dealer:
                dealer.recv()
            elif ready == sys.stdin.fileno():
                _hear_all_die(ear, set(beating))
                tell("done")
                return
            elif not lines[ready].recv(65536):
                raise ConnectionError("the service has hung up")


def _hear_all_die(ear: Any, silent: set[str]) -> None:
    """Now that they beat no more: so deaths are heard of here."""
    while silent:
        assert ear.poll(PATIENCE * 1000), f"not heard to die: {silent}"
        silent.discard(_death(ear.recv_multipart()))


def doomed(router: str, pub: str, count: str) -> None:
    """Many that die at once."""
    context, everybody = zmq.Context(), int(count)
    dealer, ear = _dealer(context, router), _ear(context, pub)

    def beat(fuse: Callable[[], float]) -> float:
        began = time.monotonic()
        sent = 0
        for answered in range(everybody):
            while sent < min(everybody, answered + WINDOW):
                name = f"doomed-{sent}"
                dealer.send(heartbeat(name, timebombSeconds=fuse()))
                sent += 1
            dealer.recv()
        return time.monotonic() - began

    took = beat(lambda: 3600.0)
    moment = time.monotonic() + 1.5 * took + 2
    beat(lambda: moment - time.monotonic())
    left = moment - time.monotonic()
    assert left > 0.5, f"all had beaten {left:.1f} s before they were to die"
    tell("doomed", registered=took, moment=moment)
    heard: Counter[str] = Counter()
    last = moment
    # Until all are heard; and a little longer, to hear nobody twice.
    while ear.poll(PATIENCE * 1000 if len(heard) < everybody else 1000):
        client_id = _death(ear.recv_multipart())
        if client_id.startswith("doomed-"):
            heard[client_id] += 1
            last = time.monotonic()
    tell("heard", died=len(heard), deaths=heard.total(), last=last - moment)


def probe(http: str) -> None:
    """One that measures."""
    line = _connect(http)
    send = _sender(line)
    beat = heartbeat("probe", timebombSeconds=600)
    beats, long, slowest, at = 0, 0, 0.0, 0.0
    tell("probing")
    while not select.select([sys.stdin], [], [], 0.01)[0]:
        sent = time.monotonic()
        send(beat)
        answer = b""
        while not answer.endswith(b"}"):
            received = line.recv(65536)
            assert received, "the service has hung up"
            answer += received
        took = time.monotonic() - sent
        beats += 1
        long += took > LONG
        if took > slowest:
            slowest, at = took, sent
    tell("probed", beats=beats, long=long, slowest=slowest, at=at)


def watchers(http: str, count: str) -> None:
    """Many that read events."""
    poll = select.poll()
    lines = {}
    for _ in range(int(count)):
        line = _connect(http)
        line.sendall(over_http("GET /events"))
        line.setblocking(False)
        lines[line.fileno()] = line
        poll.register(line, select.POLLIN)
    poll.register(sys.stdin, select.POLLIN)
    name = b"event: OnStateChange\n"
    changes, ends = dict.fromkeys(lines, 0), dict.fromkeys(lines, b"")
    received, cut, told = 0, 0, False
    while True:
        for ready, _ in poll.poll():
            if ready == sys.stdin.fileno():
                fewest = min(changes.values())
                tell("watched", changes=fewest, cut=cut, received=received)
                return
            piece = lines[ready].recv(1024 * 1024)
            received += len(piece)
            text = ends[ready] + piece
            changes[ready] += text.count(name)
            ends[ready] = text[1 - len(name) :]
            if not piece:
                cut += 1
                poll.unregister(ready)
        if not told and received >= len(lines) * 200:  # a head, and a reset
            told = True
            tell("watching")


def _dealer(context: Any, router: str) -> Any:
    dealer = context.socket(zmq.DEALER)
    dealer.set_hwm(0)
    dealer.setsockopt(zmq.LINGER, 0)
    dealer.setsockopt(zmq.RCVTIMEO, int(PATIENCE * 1000))
    dealer.connect(router)
    return dealer


def _ear(context: Any, pub: str) -> Any:
    ear = context.socket(zmq.SUB)
    ear.set_hwm(0)
    ear.setsockopt(zmq.LINGER, 0)
    ear.setsockopt(zmq.SUBSCRIBE, b"OnStateChange/")
    ear.connect(pub)
    return ear


def _death(publication: list[bytes]) -> str:
    """Who has died by timebomb, if that is what it tells."""
    body: dict[str, Any] = json.loads(publication[1])["body"]
    return str(body["clientID"]) if body.get("reason") == "timebomb" else ""


def _connect(http: str) -> socket.socket:
    host, _, port = http.rpartition(":")
    line = socket.create_connection((host, int(port)), PATIENCE)
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return line


def _sender(line: socket.socket) -> Callable[[bytes], None]:
    def send(body: bytes) -> None:
        head = f"POST /heartbeat HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}"
        line.sendall(head.encode() + b"\r\n\r\n" + body)

    return send


PROGRAMS: dict[str, Callable[..., None]] = {
    "peers": peers,
    "fuses": fuses,
    "doomed": doomed,
    "probe": probe,
    "watchers": watchers,
}

if __name__ == "__main__":
    PROGRAMS[sys.argv[1]](*sys.argv[2:])
