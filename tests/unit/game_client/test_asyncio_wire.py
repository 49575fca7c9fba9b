"""ZeroMQ in asyncio's loop: opened anew while what was open is being closed."""

from __future__ import annotations

import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

#: What would stand still for good if it went wrong, so it is a process of its own.
OPENED_ANEW = """
import asyncio
from heartbeat_service.game_client.asyncio_transports import ZmqWire

class Nobody:
    received = connected = disconnected = lambda *_: None

async def main():
    wire = ZmqWire(None)
    for turns in range(4):
        wire.open("tcp://127.0.0.1:9", "tcp://127.0.0.1:9", b"topic", Nobody())
        await asyncio.sleep(0)
        first, second = asyncio.Event(), asyncio.Event()
        wire.close(first.set)
        for _ in range(turns):
            await asyncio.sleep(0)
        wire.open("tcp://127.0.0.1:9", "tcp://127.0.0.1:9", b"topic", Nobody())
        await first.wait()
        wire.close(second.set)
        await second.wait()
    print("closed", flush=True)

asyncio.run(main())
"""


class TestWire(SynchronousTestCase):
    def test_it_may_be_opened_anew_before_it_is_closed(self) -> None:
        ended = subprocess.run(
            [sys.executable, "-c", OPENED_ANEW],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        self.assertEqual((ended.stdout, ended.stderr), ("closed\n", ""))
