"""FastAPI with pydantic's models, on uvicorn with uvloop and httptools."""

from __future__ import annotations

import time
from typing import Any

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

from bench.contestants import reply


class Body(BaseModel):
    """A heartbeat's body."""

    clientID: str
    clientState: str
    instanceID: str
    values: dict[str, Any]


class Heartbeat(BaseModel):
    """A heartbeat."""

    sdkVersion: float
    timestamp: str
    messageType: str
    body: Body


app = FastAPI()
last_beats: dict[str, float] = {}


@app.post("/heartbeat")
async def heartbeat(beat: Heartbeat) -> dict[str, Any]:
    """Keep when it beat."""
    last_beats[beat.body.clientID] = time.monotonic()
    return reply(beat.body.clientID, beat.body.instanceID)


if __name__ == "__main__":
    # It prints itself where it listens.
    uvicorn.run(app, port=0, loop="uvloop", http="httptools", access_log=False)
