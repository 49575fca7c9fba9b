"""The programs that are measured: each a process that prints one line when it listens.

A peer does the least that somebody would write by hand: it reads the heartbeat's JSON,
keeps when each client beat last, and answers with JSON. Peers know nothing of the
service, and nothing of who drives them.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any


def reply(client_id: str, instance_id: str) -> dict[str, Any]:
    """What a peer answers: as many fields and bytes as the service's own answer."""
    return {
        "sdkVersion": 0.1,
        "timestamp": str(datetime.now()),
        "messageType": "ClientState",
        "body": {
            "clientID": client_id,
            "clientState": "UNCALIBRATED",
            "sequence": 1,
            "incarnation": 1648549285153292,
            "timebombSeconds": 10.0,
            "heartbeatIntervalSeconds": 2.0,
            "requestEndpoint": "tcp://127.0.0.1:18765",
            "stateChangeEndpoint": "tcp://127.0.0.1:14321",
            "instanceID": instance_id,
        },
    }
