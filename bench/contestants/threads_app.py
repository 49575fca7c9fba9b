"""The seed's own way: a ``threading.Timer`` for each client, in FastAPI on uvicorn.

``python -m bench.contestants.threads_app FUSE``. Each beat cancels the client's timer
and starts another, of so many seconds. Who dies is written to the file ``deaths`` in
the current folder: a line of the moment, by the machine's monotonic clock in seconds,
and the client's ID.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from threading import Timer
from typing import Any

import uvicorn
from fastapi import FastAPI

from bench.contestants import reply
from bench.contestants.fastapi_app import Heartbeat

FUSE = float(sys.argv[1])

app = FastAPI()
timebombs: dict[str, Timer] = {}
deaths = Path("deaths").open("w", buffering=1)  # noqa: SIM115 - until the process ends


@app.post("/heartbeat")
async def heartbeat(beat: Heartbeat) -> dict[str, Any]:
    """Reset its timebomb."""
    client_id = beat.body.clientID
    if client_id in timebombs:
        timebombs[client_id].cancel()
    timebombs[client_id] = timebomb = Timer(FUSE, die, (client_id,))
    timebomb.daemon = True
    timebomb.start()
    return reply(client_id, beat.body.instanceID)


def die(client_id: str) -> None:
    """Tell of a death."""
    deaths.write(f"{time.monotonic()} {client_id}\n")


if __name__ == "__main__":
    uvicorn.run(app, port=0, loop="uvloop", http="httptools", access_log=False)
