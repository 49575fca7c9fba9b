"""A bare loop on pyzmq's ROUTER, with the standard library's JSON."""

from __future__ import annotations

import json
import time

import zmq

from bench.contestants import reply

last_beats: dict[str, float] = {}


def answer(message: bytes) -> bytes:
    """Keep when it beat."""
    body = json.loads(message)["body"]
    last_beats[body["clientID"]] = time.monotonic()
    return json.dumps(reply(body["clientID"], body["instanceID"])).encode()


if __name__ == "__main__":
    router = zmq.Context().socket(zmq.ROUTER)
    router.bind("tcp://127.0.0.1:*")
    print("listens on", router.getsockopt_string(zmq.LAST_ENDPOINT), flush=True)
    while True:
        *way, message = router.recv_multipart()
        router.send_multipart([*way, answer(message)])
