"""The service as a process behind the page, and the clients that beat at it.

What tests do to the service is done from outside: signals, and HTTP as anybody speaks
it. Knows no browser.
"""

from __future__ import annotations

import heapq
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from threading import Condition, Thread
from typing import Any

import zmq
from attrs import define, field

from bench.drivers import drive_router
from tests.integration.processes import BIN, READY, free_ports
from tests.messages import heartbeat, message

#: How long anything that must come may take, in seconds: slow machines are no defect.
PATIENCE = 30.0

#: How long one answer may take, in seconds: a stopped service gives none.
ANSWER = 5.0


def until(holds: Callable[[], Any], bound: float = PATIENCE) -> float:
    """Ask again and again until it holds; how long that took, in seconds."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() < began + bound, f"it never came true in {bound} s"
        time.sleep(0.02)  # between two questions
    return time.monotonic() - began


class Service:
    """``twistd -n heartbeat``, at the same ports each time that it is started.

    :ivar url: where its page is.
    """

    def __init__(self, folder: Path, *options: str | Path) -> None:
        self._folder = folder
        http, router, pub = free_ports(3)
        self.http, self.url = f"127.0.0.1:{http}", f"http://127.0.0.1:{http}/"
        self.router = f"tcp://127.0.0.1:{router}"
        self._listening = (
            *("--http", f"tcp:{http}:interface=127.0.0.1"),
            *("--router", self.router, "--pub", f"tcp://127.0.0.1:{pub}"),
        )
        self._options = options
        self._starts = 0
        self.token: str | None = None
        self.start()

    def start(self, *others: str | Path) -> None:
        """Start it, with other options if there are any, and wait until it listens."""
        self._options = others or self._options
        self._starts += 1
        log = self._folder / f"service-{self._starts}.log"
        # It must not outlive a test run that is killed.
        words = ["setpriv", "--pdeathsig", "TERM", str(BIN / "twistd"), "-n"]
        words += ["--pidfile=", "heartbeat", *self._listening, *map(str, self._options)]
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                words, cwd=self._folder, stdout=output, stderr=subprocess.STDOUT
            )
        until(lambda: self._is_ready(log))

    def _is_ready(self, log: Path) -> bool:
        text = log.read_text()
        assert self._process.poll() is None, text
        return re.search(READY, text, re.MULTILINE) is not None

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it at once, without a last word."""
        self._process.kill()
        assert self._process.wait(PATIENCE) == -signal.SIGKILL

    def end(self) -> None:
        """Stop it, whatever state it is in."""
        if self._process.poll() is None:
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGTERM)
        self._process.wait(PATIENCE)
        for log in self._folder.glob("service-*.log"):
            assert "Traceback" not in log.read_text(), log.read_text()

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """One request; the JSON of its answer, None where it has none."""
        line = HTTPConnection(self.http, timeout=PATIENCE)
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        sent = body if isinstance(body, bytes) or body is None else json.dumps(body)
        try:
            line.request(method, path, sent, headers)
            answer = line.getresponse()
            content = answer.read()
        finally:
            line.close()
        assert answer.status < 300, content
        kind = answer.headers.get_content_type()
        return json.loads(content) if kind == "application/json" else content.decode()

    def beat(self, *client_ids: str, **more: Any) -> None:
        """One heartbeat of each; with ``more`` in its body."""
        for client_id in client_ids:
            body = heartbeat(
                client_id,
                more.get("state", "DISCONNECTED"),
                **{name: value for name, value in more.items() if name != "state"},
            )
            self.ask("POST", "/heartbeat", body)

    def flood(self, beats: Iterable[bytes]) -> None:
        """Many heartbeats by ZeroMQ, as fast as it takes them."""
        drive_router(self.router, iter(beats))

    def say(self, what: str, client_id: str, **more: Any) -> None:
        """One other message of a client, which only ZeroMQ carries."""
        with zmq.Context() as context, context.socket(zmq.REQ) as mouth:
            mouth.linger = 0
            mouth.rcvtimeo = int(PATIENCE * 1000)
            mouth.connect(self.router)
            mouth.send(message(what, clientID=client_id, **more))
            assert b'"Error"' not in mouth.recv()

    def steer(self, state: str, *client_ids: str) -> None:
        """Set clients' states as an operator."""
        order = {"clientState": state, "clientIDs": client_ids}
        self.ask("PUT", "/clients/state", order)

    def die(self, *client_ids: str, times: int = 1, **more: Any) -> None:
        """Let clients live and die by timebomb, that often."""
        for _ in range(times):
            self.beat(*client_ids, timebombSeconds=0.1, **more)
            until(lambda: not self.states.keys() & set(client_ids))

    @property
    def records(self) -> dict[str, dict[str, Any]]:
        """What it shows of each client that lives."""
        return {one["clientID"]: one for one in self.ask("GET", "/clients")["clients"]}

    @property
    def states(self) -> dict[str, str]:
        """The state of each client that lives."""
        return {name: record["clientState"] for name, record in self.records.items()}


@define
class Beating:
    """A client that beats again and again, and reports what it was told.

    :ivar every: seconds between two beats; who is given more than the interval is late.
    :ivar reports: a state that it reports instead.
    :ivar second: seconds from its first beat to its second.
    """

    client_id: str
    every: float
    more: dict[str, Any]
    reports: str | None
    second: float
    state: str = "DISCONNECTED"
    beats: int = 0
    silent: bool = False

    @property
    def beat(self) -> bytes:
        """Its next heartbeat."""
        return heartbeat(self.client_id, self.reports or self.state, **self.more)


@define
class Fleet:
    """Clients that beat, over one kept connection and in a thread of their own."""

    service: Service
    _clients: dict[str, Beating] = field(factory=dict)
    _due: list[tuple[float, str]] = field(factory=list)
    _changed: Condition = field(factory=Condition)
    _ends: bool = False
    _thread: Thread = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    def add(self, *client_ids: str, every: float = 1.0, **more: Any) -> None:
        """Clients join, and are registered when this returns."""
        reports, second = more.pop("reports", None), more.pop("second", every)
        with self._changed:
            for client_id in client_ids:
                client = Beating(client_id, every, more, reports, second)
                self._clients[client_id] = client
                heapq.heappush(self._due, (time.monotonic(), client_id))
            self._changed.notify_all()
        until(lambda: all(self._clients[one].beats for one in client_ids))

    def hush(self, *client_ids: str) -> None:
        """These beat no more."""
        for client_id in client_ids:
            self._clients[client_id].silent = True

    def wake(self, *client_ids: str) -> None:
        """These beat again."""
        for client_id in client_ids:
            self._clients[client_id].silent = False

    def end(self) -> None:
        """Nobody beats any more."""
        with self._changed:
            self._ends = True
            self._changed.notify_all()
        self._thread.join(PATIENCE)

    def _run(self) -> None:
        line = HTTPConnection(self.service.http, timeout=ANSWER)
        while (client := self._next()) is not None:
            try:
                self._beat(line, client)
            except (OSError, HTTPException):  # stopped or gone, as tests will have it
                line.close()
                time.sleep(0.1)  # it may come back
        line.close()

    def _next(self) -> Beating | None:
        """Who is to beat now; None at the end."""
        with self._changed:
            while not self._ends:
                now = time.monotonic()
                if not self._due or self._due[0][0] > now:
                    self._changed.wait(self._due[0][0] - now if self._due else None)
                    continue
                _, client_id = heapq.heappop(self._due)
                client = self._clients[client_id]
                pause = client.every if client.beats else client.second
                if client.silent:
                    pause = 0.2
                heapq.heappush(self._due, (now + pause, client_id))
                if not client.silent:
                    return client
        return None

    def _beat(self, line: HTTPConnection, client: Beating) -> None:
        line.request("POST", "/heartbeat", client.beat)
        answer = line.getresponse()
        body = json.loads(answer.read())
        if answer.status == 200:
            client.state = body["body"]["clientState"]
        client.beats += 1


def is_root() -> bool:
    """Whether a browser has to do without its sandbox."""
    return os.geteuid() == 0
