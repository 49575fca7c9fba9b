"""A service with three simulated headsets and an operator, told in words.

Real processes: the service as twistd runs it, and three game clients. The operator
calibrates and starts them, removes one, and pulls the plug of another, over and over.
What is told of the headsets is what the service publishes.
"""

from __future__ import annotations

import os
import signal

if __name__ == "__main__":  # Ctrl-C ends it also while the imports take their time
    signal.signal(signal.SIGINT, lambda *_: os._exit(0))

import argparse
import json
import re
import subprocess
import sys
import time
from collections import Counter, deque
from contextlib import suppress
from pathlib import Path
from queue import Queue
from threading import Event, Thread
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

import zmq

#: Ports that the system chooses: another service may be running.
SERVICE = [
    str(Path(sys.executable).parent / "twistd"), "-n", "--pidfile=", "heartbeat",
    "--http", "tcp:0:interface=127.0.0.1", "--router", "tcp://127.0.0.1:0",
    "--pub", "tcp://127.0.0.1:0", "--store", "memory:",
    "--timebomb", "3", "--interval", "0.5",
]  # fmt: skip
READY = re.compile(r"heartbeat service ready http=([^\s,]+) \S+ pub=(\S+)")
GAME_CLIENT = [sys.executable, "-m", "heartbeat_service.game_client"]
HEADSETS = ["headset-1", "headset-2", "headset-3"]
STEP = 4.0  # seconds between two acts of the operator
BURST = 0.2  # seconds: what changes within them is counted once
PATIENCE = 20.0  # seconds that the headsets have to begin, on a slow machine
FAREWELL = 5.0  # seconds that a process may take to end

# No proxy, whatever the environment says of one.
OPENER = build_opener(ProxyHandler({}))

#: What a change means, by its reason.
MEANING = {
    "heartbeat": "registered, waiting to be calibrated",
    "reconnect": "was restarted, waiting to be calibrated",
    "client": "is {clientState}, as it wished",
    "operator": "is {clientState}",
    "timebomb": "no heartbeat for {fuse:g} s, lost",
    "goodbye": "said goodbye",
    "kick": "was removed by the operator",
}


class Stopped(Exception):
    """Somebody has pressed Ctrl-C."""


class Process:
    """A child process, in a session of its own, which Ctrl-C doesn't reach.

    :ivar ready: gets the line that says where it listens, or None once it is gone.
    :ivar last: the last lines that it has printed.
    """

    def __init__(self, name: str, command: list[str], *, log: bool) -> None:
        self.ready: Queue[re.Match[str] | None] = Queue()
        self.last: deque[str] = deque(maxlen=20)
        self._name = name
        self._log = log
        self._process = subprocess.Popen(  # noqa: S603 - the demo's own programs
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._reader = Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.last.append(line.rstrip())
            if self._log:
                print(f"{self._name:>10} | {line.rstrip()}", flush=True)
            if match := READY.search(line):
                self.ready.put(match)
        self.ready.put(None)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, unless it is gone."""
        self._process.send_signal(number)

    def end(self) -> None:
        """Wait until it is gone, which it was told to be; not for ever."""
        try:
            self._process.wait(FAREWELL)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()


class Demo:
    """The headsets, their service and its operator.

    :param stop: is set when all shall end.
    """

    def __init__(self, stop: Event, *, log: bool) -> None:
        self._stop = stop
        self._log = log
        self._service: Process | None = None
        self._headsets: dict[str, Process] = {}
        self._states: dict[str, str] = {}
        self._fuse = 0.0
        self._url = ""
        self._changes: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.SUB)
        self._changes.subscribe("OnStateChange/")

    def start(self, options: list[str]) -> None:
        """Start the service.

        :raises SystemExit: if it doesn't start.
        :raises Stopped: if it is stopped before it has.
        """
        self._service = Process("service", [*SERVICE, *options], log=self._log)
        while self._service.ready.empty():
            self._pause(BURST)
        ready = self._service.ready.get()
        if ready is None:
            raise SystemExit("\n".join(self._service.last))
        self._url = f"http://{ready[1]}"
        self._changes.connect(ready[2])

    def play(self) -> None:
        """Go on until somebody stops it.

        :raises Stopped: then.
        """
        for headset in HEADSETS:
            self._switch_on(headset)
        while True:
            self._watch_until_all_live()
            self._watch()
            self._set_all("CALIBRATED")
            self._watch()
            self._set_all("RUNNING")
            self._watch()
            tell("operator", "removes headset-2, which beats on and so comes back")
            self._order("DELETE", "/clients/headset-2")
            self._watch()
            tell("operator", "pulls the plug of headset-3")
            self._headsets["headset-3"].signal(signal.SIGKILL)
            self._watch(max(STEP, self._fuse + 1))
            self._headsets["headset-3"].end()
            self._switch_on("headset-3")

    def end(self) -> None:
        """End the headsets, which say goodbye, and then the service."""
        for headset in self._headsets.values():
            headset.signal(signal.SIGTERM)
        for headset in self._headsets.values():
            headset.end()
        with suppress(OSError):  # nobody reads any more
            self._tell_changes()
        if self._service is not None:
            self._service.signal(signal.SIGTERM)
            self._service.end()
        self._changes.close(linger=0)

    def _switch_on(self, headset: str) -> None:
        tell("operator", f"switches {headset} on")
        command = [*GAME_CLIENT, "--id", headset, "--server", self._url]
        self._headsets[headset] = Process(headset, command, log=self._log)

    def _set_all(self, state: str) -> None:
        tell("operator", f"sets all to {state}")
        order = {"clientState": state, "all": True}
        for client in self._order("PUT", "/clients/state", order).get("clients", []):
            self._fuse = client.get("timebombSeconds", self._fuse)

    def _order(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = Request(f"{self._url}{path}", data, method=method)
        try:
            with OPENER.open(request, timeout=FAREWELL) as response:
                answer: dict[str, Any] = json.loads(response.read() or b"{}")
                return answer
        except HTTPError as error:
            tell("service", f"refuses: {error.read().decode()}")
            return {}
        except OSError as error:
            raise SystemExit(f"The service is gone: {error}") from None

    def _watch(self, seconds: float = STEP) -> None:
        """Tell of what happens meanwhile."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._pause(BURST)
            self._tell_changes()

    def _watch_until_all_live(self) -> None:
        end = time.monotonic() + PATIENCE
        while self._alive().total() < len(HEADSETS) and time.monotonic() < end:
            self._watch(BURST)

    def _pause(self, seconds: float) -> None:
        if self._stop.wait(seconds):
            raise Stopped

    def _tell_changes(self) -> None:
        changed = False
        while self._changes.poll(0):
            _topic, published = self._changes.recv_multipart()
            body = json.loads(published)["body"]
            meaning = MEANING.get(body["reason"], body["reason"])
            tell(body["clientID"], meaning.format(fuse=self._fuse, **body))
            self._states[body["clientID"]] = body["clientState"]
            changed = True
        if changed:
            alive = self._alive()
            states = ", ".join(f"{count} {state}" for state, count in alive.items())
            tell(f"{alive.total()} alive", states)

    def _alive(self) -> Counter[str]:
        """How many are in each state."""
        states = self._states.values()
        return Counter(state for state in states if state != "DISCONNECTED")


def tell(who: str, what: str) -> None:
    """Tell of one event on a line."""
    print(f"{who}: {what}" if what else who, flush=True)


def main() -> None:
    """Play until Ctrl-C."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog="All other options go to the service."
    )
    parser.add_argument(
        "--log", action="store_true", help="show what each program says"
    )
    options, for_the_service = parser.parse_known_args()
    stop = Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.set())
    print(
        "Three simulated headsets, their service and an operator. Ctrl-C ends it.",
        flush=True,
    )
    demo = Demo(stop, log=options.log)
    try:
        with suppress(Stopped, BrokenPipeError):
            demo.start(for_the_service)
            demo.play()
    finally:
        demo.end()
    with suppress(OSError):
        print("All of them have ended.", flush=True)


if __name__ == "__main__":
    main()
