"""A game with a loop of its own in Twisted: five lines join it to the installation.

``python examples/game_loop_twisted.py ID http://HOST:PORT``; Ctrl-C ends it. It
calibrates itself, and plays while an operator has it RUNNING.
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall, react

from heartbeat_service.core.states import ClientState
from heartbeat_service.game_client.actions import Event, StateChanged
from heartbeat_service.game_client.driver import GameClient


def play(reactor: Any, client_id: str, server: str) -> Deferred[Any]:
    """Play for ever."""

    def on_event(event: Event) -> None:
        print(event, flush=True)
        if isinstance(event, StateChanged) and event.state is ClientState.UNCALIBRATED:
            client.report(ClientState.CALIBRATED)

    frames = 0

    def step() -> None:
        nonlocal frames
        if client.session.state is ClientState.RUNNING:
            frames += 1  # the game's own work

    client = GameClient(
        reactor, server, client_id, on_event, values=lambda: {"frames": frames}
    )
    client.startService()
    reactor.addSystemEventTrigger("before", "shutdown", client.stopService)
    return LoopingCall(step).start(1 / 60)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    react(play, sys.argv[1:])
