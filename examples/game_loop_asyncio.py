"""A game with a loop of its own in asyncio: five lines join it to the installation.

``python examples/game_loop_asyncio.py ID http://HOST:PORT``; Ctrl-C ends it. It
calibrates itself, and plays while an operator has it RUNNING.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress

from heartbeat_service.core.states import ClientState
from heartbeat_service.game_client.actions import Event, StateChanged
from heartbeat_service.game_client.asyncio_driver import GameClient


async def play(client_id: str, server: str) -> None:
    """Play for ever."""

    def on_event(event: Event) -> None:
        print(event, flush=True)
        if isinstance(event, StateChanged) and event.state is ClientState.UNCALIBRATED:
            client.report(ClientState.CALIBRATED)

    frames = 0
    async with GameClient(
        server, client_id, on_event, values=lambda: {"frames": frames}
    ) as client:
        while True:
            if client.session.state is ClientState.RUNNING:
                frames += 1  # the game's own work
            await asyncio.sleep(1 / 60)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    with suppress(KeyboardInterrupt):
        asyncio.run(play(*sys.argv[1:]))
