"""What is in the store before anybody hears of it: registrations, an operator's change.

A registration counts when it is answered, which is after the store has it. A change is
timed from the operator's request until the last subscriber has heard of the last of its
clients.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import zmq

from bench.drivers import PATIENCE, drive_http, drive_router, heartbeat
from bench.operator import read, steer
from bench.programs import running
from bench.scenario import Figures, Scenario
from bench.sockets import Socket, context, subscribed
from heartbeat_service.host.descriptors import allow_most

#: Clients that register each way, and how many where it has to be quick.
MANY, FEW = 10_000, 2_000

#: Into which an operator changes all, in turn.
STATES = ("CALIBRATED", "RUNNING")

#: Who subscribes, each to as many of the clients as the next.
SUBSCRIBERS = 1_000


def measure(_: str, quick: bool) -> Figures:
    """Register clients, and steer those that were registered first."""
    count = FEW if quick else MANY
    with running("ours", "--timebomb", "3600") as server:
        endpoint, port = server.match["router"], int(server.match["http"])
        beats = [heartbeat(number) for number in range(2 * count)]
        began = time.monotonic()
        drive_router(endpoint, iter(beats[:count]))
        by_router = time.monotonic()
        change_s = _change(port, server.match["pub"], count)
        posting = time.monotonic()
        drive_http(port, iter(beats[count:]))
        by_http = time.monotonic()
    return {
        "router_registrations_per_s": count / (by_router - began),
        "http_registrations_per_s": count / (by_http - posting),
        "change_clients": count,
        "change_subscribers": SUBSCRIBERS,
        "change_s": change_s,
    }


def _change(port: int, pub: str, count: int) -> float:
    """Seconds until the last subscriber has heard of all of its clients."""
    allow_most()
    topics = [b"OnStateChange/headset-%06d/" % number for number in range(count)]
    each = count // SUBSCRIBERS
    with context(SUBSCRIBERS) as sockets:
        ears = [
            subscribed(sockets, pub, *topics[first : first + each])
            for first in range(0, count, each)
        ]
        # Nothing tells when the service knows of all subscriptions.
        sequence = 2
        read(steer(port, STATES[sequence % 2]))
        while not _all_hear(ears, each, sequence, 1):
            sequence += 1
            read(steer(port, STATES[sequence % 2]))
        began = time.monotonic()
        asked = steer(port, STATES[(sequence + 1) % 2])
        if not _all_hear(ears, each, sequence + 1, PATIENCE):
            raise RuntimeError("A subscriber has missed a change")
        took = time.monotonic() - began
        read(asked)
        return took


def _all_hear(ears: Sequence[Socket], each: int, sequence: int, patience: int) -> bool:
    """Whether each of them hears of so many clients that they are at that sequence.

    :param patience: seconds without anything to hear.
    """
    wanted = b'"sequence":%d,' % sequence
    for ear in ears:
        ear.set(zmq.RCVTIMEO, patience * 1000)
        missing = each
        while missing:
            try:
                _, change = ear.recv_multipart()
            except zmq.Again:
                return False
            missing -= wanted in change
    return True


SCENARIOS = (
    Scenario(
        "durable",
        f"durable registrations, and a change of all for {SUBSCRIBERS:,} subscribers",
        ("ours",),
        measure,
    ),
)
