"""A peer that sends requests to a ROUTER as fast as it can, and reads no reply.

``python -m tests.faults.flood ADDRESS SECONDS [lives]``; prints how many it has sent:
of all kinds, or takeovers of one client by ever other processes.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence

import zmq

from tests.messages import heartbeat, message

DEALERS = 4
ROUND = 100


MIXED = [
    [heartbeat("flood")],
    [b"", message("GetClientState", clientID="flood")],
    [os.urandom(200)],
    [b'{"messageType": "HEARTBEAT", "body": '],
    [b"x"] * 50,
    [bytes(70_000)],
]
LIVES = [
    [heartbeat("flood", instanceID=f"process-{number}", timebombSeconds=1e9)]
    for number in range(ROUND)
]


def main(address: str, seconds: float, requests: Sequence[Sequence[bytes]]) -> int:
    """Flood; how many requests left."""
    context = zmq.Context()
    dealers = [context.socket(zmq.DEALER) for _ in range(DEALERS)]
    for dealer in dealers:
        dealer.setsockopt(zmq.LINGER, 0)
        dealer.connect(address)
    sent = 0
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for number in range(ROUND):
            for dealer in dealers:
                try:
                    dealer.send_multipart(requests[number % len(requests)], zmq.NOBLOCK)
                    sent += 1
                except zmq.Again:
                    pass
    context.destroy(linger=0)
    return sent


if __name__ == "__main__":
    flood = LIVES if sys.argv[3:] == ["lives"] else MIXED
    sys.stdout.write(f"sent {main(sys.argv[1], float(sys.argv[2]), flood)}\n")
