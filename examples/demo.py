"""The real service with thirty simulated headsets, to be seen and steered on its page.

The service is a process of its own, which is started again when somebody kills it. The
headsets are one loop here, which sends their heartbeats one after the other. Each does
what the reply tells it, so operators steer it by the page or by ``heartbeatctl``. What
goes wrong comes from a plan that is the same each time.
"""

from __future__ import annotations

import os
import signal

if __name__ == "__main__":  # Ctrl-C ends it also while the imports take their time
    signal.signal(signal.SIGINT, lambda *_: os._exit(0))

import argparse
import json
import re
import select
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from http.client import HTTPConnection, HTTPException
from math import sin
from pathlib import Path
from random import Random
from threading import Event, Thread
from typing import IO, Any

READY = re.compile(r"heartbeat service ready http=([^\s,]+)")
MOMENT = 0.2  # seconds: how soon it looks up from its beats
PATIENCE = 2.0  # seconds that an answer may take
FAREWELL = 5.0  # seconds that the service may take to end

#: What befalls a headset: for how many of its fuses it is silent, how often that comes
#: among the others, and how it is told.
MISHAPS = {
    "late": (0.6, 6, "is out of reach for {:g} s: late, and back before its end"),
    "lost": (1.4, 1, "falls from its hook, silent for {:g} s: lost, then a new life"),
    "loads": (4.0, 1, "loads a scene for {:g} s: silence it while it is late"),
    "restarted": (0.3, 1, "its game is started anew"),
    "flaps": (
        1.2,
        0,
        "its loose battery fails for {:g} s: flapping, when it has died three times",
    ),
}
BETWEEN = 6.0  # seconds from one mishap to the next
FLAPPING, FLAPS_EVERY = "headset-30", 30.0
STUBBORN = "headset-17"  # always says that it is calibrated

TO_TRY = """
Open it, and try, there or in a second terminal:
  calibrate all   {bin}/heartbeatctl set CALIBRATED --all --from UNCALIBRATED
  start room A    {bin}/heartbeatctl set RUNNING --label room:A --from CALIBRATED
  is all well?    {bin}/heartbeatctl status
  one headset     click it: its lives, its telemetry; stop it, kick it, lock it out
  a mass loss     press Enter here: all of room B fall silent, and nobody dies of it
  a crash         kill -9 {pid}: the service is started again, and forgets everybody
                  (with ARGS="--store sqlite:demo.sqlite" it forgets nobody)
Ctrl-C ends it.
"""


class Headset:
    """A simulated game client: what it says in a beat, and how it obeys the reply.

    :ivar next_beat: when it beats again, on this machine's monotonic clock.
    """

    def __init__(self, number: int, now: float) -> None:
        self.id = f"headset-{number:02}"
        self.room = "ABC"[(number - 1) // 10]
        self.fuse = 10.0
        self.next_beat = now + number / 15  # they don't all beat in one moment
        self._number = number
        self._labels = {
            "room": self.room,
            "model": "pico-4" if number % 3 else "quest-3",
            "build": "1.8.1" if number % 7 == 0 else "1.8.2",
        }
        self._state = "DISCONNECTED"
        self._games = 1

    def be_silent(self, seconds: float, now: float) -> None:
        """Don't beat for so long."""
        self.next_beat = max(self.next_beat, now + seconds)

    def restart(self) -> None:
        """Another process of its game: it knows of no state, and has another name."""
        self._games += 1
        self._state = "DISCONNECTED"

    def beat(self, now: float) -> dict[str, Any]:
        """What it POSTs (docs/protocol.md)."""
        says = "CALIBRATED" if self.id == STUBBORN else self._state
        return {
            "sdkVersion": 0.1,
            "timestamp": str(datetime.now()),
            "messageType": "HEARTBEAT",
            "body": {
                "clientID": self.id,
                "clientState": says,
                "instanceID": f"{self.id}.{self._games}",
                "labels": self._labels,
                "values": {
                    "battery": round(100 - (now / 60 + 7 * self._number) % 80),
                    "fps": round(72 + 3 * sin(now + self._number)),
                    "x": round(4 * sin(now / 7 + self._number), 2),
                    "y": round(4 * sin(now / 11 + 2 * self._number), 2),
                },
            },
        }

    def obey(self, reply: dict[str, Any], now: float) -> None:
        """Be in the state that the service has for it, beat as often as it wants."""
        self._state = reply["clientState"]
        self.fuse = reply["timebombSeconds"]
        self.next_beat = now + reply["heartbeatIntervalSeconds"]

    def be_refused(self) -> None:
        """It is kept out, say: its life is over."""
        self._state = "DISCONNECTED"


class HeartbeatService:
    """The real service, on loopback, in a session that Ctrl-C doesn't reach.

    :param options: of its own, besides those that the demo gives it.
    :param log: whether to show what it says.
    """

    def __init__(self, options: list[str], *, log: bool) -> None:
        self._command = [
            *(sys.executable, "-m", "heartbeat_service", "--store", "memory:"),
            *("--http", f"tcp:{free_port(6969)}:interface=127.0.0.1"),
            *("--router", f"tcp://127.0.0.1:{free_port(8765)}"),
            *("--pub", f"tcp://127.0.0.1:{free_port(4321)}"),
            *("--mass-loss", "0.3", *options),
        ]
        self._log = log
        self._process = self._start()

    @property
    def pid(self) -> int:
        """Its process, for who wants to kill it."""
        return self._process.pid

    def is_gone(self) -> bool:
        """Whether somebody has killed it."""
        return self._process.poll() is not None

    def start_again(self) -> None:
        """Be what systemd is to a real one."""
        self._process = self._start()

    def end(self) -> None:
        """Stop it, and wait until it is gone; not for ever."""
        self._process.terminate()
        try:
            self._process.wait(FAREWELL)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _start(self) -> subprocess.Popen[str]:
        process = subprocess.Popen(  # noqa: S603 - the demo's own program
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        assert process.stdout is not None
        last: deque[str] = deque(maxlen=20)
        for line in process.stdout:
            last.append(line.rstrip())
            self._show(line)
            if match := READY.search(line):
                self.address = match[1]
                Thread(target=self._read, args=[process.stdout], daemon=True).start()
                return process
        process.wait()
        raise SystemExit("\n".join(last))

    def _read(self, lines: IO[str]) -> None:
        for line in lines:
            self._show(line)

    def _show(self, line: str) -> None:
        if self._log:
            print(f"service | {line.rstrip()}", flush=True)


class Demo:
    """The headsets and what befalls them."""

    def __init__(self, service: HeartbeatService, mass_loss_at: float | None) -> None:
        now = time.monotonic()
        self._service = service
        self._http = HTTPConnection(service.address, timeout=PATIENCE)
        self._headsets = {
            headset.id: headset
            for headset in (Headset(number, now) for number in range(1, 31))
        }
        self._began = now
        self._mishaps = plan([*self._headsets])
        self._next = next(self._mishaps)
        self._mass_loss_at = mass_loss_at
        self._keys = [sys.stdin]

    def turn(self) -> None:
        """Do what is due, and wait a moment."""
        now = time.monotonic()
        if self._service.is_gone():
            self._service.start_again()
            tell("the service", f"was ended; started again, as {self._service.pid}")
        if now - self._began >= self._next[0]:
            self._befall(*self._next[1:], now)
            self._next = next(self._mishaps)
        if self._mass_loss_at is not None and now - self._began >= self._mass_loss_at:
            self._mass_loss_at = None
            self._lose_room_b(now)
        for headset in self._headsets.values():
            if headset.next_beat <= now:
                self._beat(headset)
        if self._enter_pressed():
            self._lose_room_b(now)

    def _befall(self, whom: str, what: str, now: float) -> None:
        headset = self._headsets[whom]
        fuses, _, words = MISHAPS[what]
        if what == "restarted":
            headset.restart()
        headset.be_silent(fuses * headset.fuse, now)
        tell(whom, words.format(fuses * headset.fuse))

    def _lose_room_b(self, now: float) -> None:
        room = [one for one in self._headsets.values() if one.room == "B"]
        seconds = 2 * room[0].fuse
        tell("room B", f"loses its network for {seconds:g} s, {len(room)} headsets")
        for headset in room:
            headset.be_silent(seconds, now)

    def _beat(self, headset: Headset) -> None:
        now = time.monotonic()
        headset.next_beat = now + 1  # if there is no answer
        try:
            self._http.request("POST", "/heartbeat", json.dumps(headset.beat(now)))
            response = self._http.getresponse()
            reply = json.loads(response.read())
        except (OSError, HTTPException, ValueError):
            self._http.close()
            return
        if response.status == 200:
            headset.obey(reply["body"], now)
        else:
            headset.be_refused()

    def _enter_pressed(self) -> bool:
        """Wait for a moment, unless somebody presses Enter."""
        if not select.select(self._keys, [], [], MOMENT)[0]:
            return False
        pressed = b""
        with suppress(OSError):  # the terminal was closed
            pressed = os.read(sys.stdin.fileno(), 1024)
        if not pressed:  # there is no keyboard
            self._keys = []
        return bool(pressed)


def plan(headsets: list[str]) -> Iterator[tuple[float, str, str]]:
    """What befalls whom, and when, in seconds from the start; the same each time."""
    random = Random(16)  # noqa: S311 - it guards nothing
    weights = [often for _, often, _ in MISHAPS.values()]
    others = [one for one in headsets if one not in (FLAPPING, STUBBORN)]
    at, flaps_at = 10.0, 12.0
    while True:
        for whom in random.sample(others, len(others)):
            if flaps_at < at:
                yield flaps_at, FLAPPING, "flaps"
                flaps_at += FLAPS_EVERY
            yield at, whom, random.choices([*MISHAPS], weights)[0]
            at += BETWEEN


def free_port(wanted: int) -> int:
    """That port of loopback, or one that the system chooses if it is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def tell(who: str, what: str) -> None:
    """Tell of one event on a line, with the time that the page shows."""
    print(f"{time.strftime('%H:%M:%S')} {who}: {what}", flush=True)


def welcome(service: HeartbeatService) -> None:
    """Where the page is, and what there is to try."""
    url = f"http://{service.address}"
    print(f"The operators' page: {url}/", flush=True)
    if not url.endswith(":6969"):
        print(f"For heartbeatctl: export HEARTBEAT_SERVER={url}")
    programs = os.path.relpath(Path(sys.executable).parent)
    print(TO_TRY.format(bin=programs, pid=service.pid), flush=True)


def main() -> None:
    """Play until Ctrl-C."""
    parser = argparse.ArgumentParser(
        description="The real service with thirty simulated headsets.",
        epilog="All other options go to the service.",
    )
    add = parser.add_argument
    add("--seconds", type=float, default=float("inf"), help="end by itself after them")
    add("--mass-loss-at", type=float, metavar="SECONDS", help="as if Enter was pressed")
    add("--log", action="store_true", help="show what the service says")
    options, for_the_service = parser.parse_known_args()
    stop = Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.set())
    service = HeartbeatService(for_the_service, log=options.log)
    try:
        with suppress(BrokenPipeError):  # nobody reads any more
            welcome(service)
            demo = Demo(service, options.mass_loss_at)
            end = time.monotonic() + options.seconds
            while not stop.is_set() and time.monotonic() < end:
                demo.turn()
    finally:
        service.end()
    with suppress(OSError):
        print("All of them have ended.", flush=True)


if __name__ == "__main__":
    main()
