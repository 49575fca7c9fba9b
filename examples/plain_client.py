"""A game client that follows docs/protocol.md alone: urllib and pyzmq, no Twisted.

Shows each message that it sends (>) and receives (<), in the order that loses
nothing: POST a heartbeat, subscribe, ask for the state, apply what is newer.

usage: python examples/plain_client.py ID [http://HOST:PORT]
"""

from __future__ import annotations

import json
import sys
import time
from datetime import datetime
from typing import Any
from urllib.request import Request, urlopen
from uuid import uuid4

import zmq

if len(sys.argv) == 1:
    sys.exit(__doc__)
CLIENT = sys.argv[1]
INSTANCE = str(uuid4())  # names this process, so that a former one can't pass for it
SERVER = sys.argv[2] if len(sys.argv) > 2 else "http://127.0.0.1:6969"


def message(message_type: str, **body: Any) -> bytes:
    """A message of the contract."""
    sent = {
        "sdkVersion": 0.1,
        "timestamp": str(datetime.now()),
        "messageType": message_type,
        "body": {"clientID": CLIENT, **body},
    }
    print(">", json.dumps(sent), flush=True)
    return json.dumps(sent).encode()


def body_of(received: bytes) -> dict[str, Any]:
    """The body of a message from the server."""
    print("<", received.decode(), flush=True)
    body: dict[str, Any] = json.loads(received)["body"]
    return body


def beat(state: str) -> dict[str, Any]:
    """One heartbeat; the server's reply."""
    data = message("HEARTBEAT", clientState=state, instanceID=INSTANCE)
    request = Request(f"{SERVER}/heartbeat", data, method="POST")
    with urlopen(request, timeout=5) as response:
        return body_of(response.read())


def main() -> None:
    """Register, follow the state until RUNNING, and leave."""
    life = beat("DISCONNECTED")

    context = zmq.Context()
    changes = context.socket(zmq.SUB)
    changes.subscribe(f"OnStateChange/{CLIENT}/")  # the closing slash is part of it
    changes.connect(life["stateChangeEndpoint"])
    requests = context.socket(zmq.REQ)
    requests.connect(life["requestEndpoint"])

    requests.send(message("GetClientState"))
    known = body_of(requests.recv())
    print(CLIENT, "is", known["clientState"], flush=True)
    next_beat = time.monotonic() + life["heartbeatIntervalSeconds"]
    while known["clientState"] not in ("RUNNING", "DISCONNECTED"):
        if changes.poll(max(0, 1000 * (next_beat - time.monotonic()))):
            _topic, published = changes.recv_multipart()
            news = body_of(published)
        else:
            news = life = beat(known["clientState"])
            next_beat = time.monotonic() + life["heartbeatIntervalSeconds"]
        newer = (news["incarnation"], news["sequence"])
        if newer > (known["incarnation"], known["sequence"]):
            known = news
            print(CLIENT, "is", known["clientState"], flush=True)

    life = {"incarnation": known["incarnation"], "instanceID": INSTANCE}
    requests.send(message("Goodbye", **life))
    body_of(requests.recv())
    context.destroy(linger=500)


if __name__ == "__main__":
    main()
