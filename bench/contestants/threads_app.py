"""The seed's own way: a ``threading.Timer`` for each client, in FastAPI on uvicorn.

Each beat cancels the client's timer and starts another. Who dies is written to the file
``deaths`` in the current folder: a line of the moment by the machine's monotonic clock,
in seconds, and the client's ID.
"""

from __future__ import annotations

import time
from pathlib import Path
from threading import Timer

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel


class Body(BaseModel):
    """What a client says of itself."""

    clientID: str
    clientState: str
    timebombSeconds: float


class Heartbeat(BaseModel):
    """The message of a beat."""

    sdkVersion: float
    timestamp: str
    messageType: str
    body: Body


app = FastAPI()
timebombs: dict[str, Timer] = {}
deaths = Path("deaths").open("a", buffering=1)  # noqa: SIM115 - as long as the process


@app.post("/heartbeat")
async def heartbeat(message: Heartbeat) -> Body:
    """Reset the client's timebomb."""
    client = message.body.clientID
    if former := timebombs.get(client):
        former.cancel()
    timebomb = Timer(message.body.timebombSeconds, die, (client,))
    timebomb.daemon = True
    timebomb.start()
    timebombs[client] = timebomb
    return message.body


def die(client: str) -> None:
    """Tell of a death."""
    deaths.write(f"{time.monotonic()} {client}\n")


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=0, access_log=False)
