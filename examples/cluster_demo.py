"""Three nodes, three members of etcd and a balancer on one machine: make cluster-demo.

supervisord runs them (deploy/cluster/demo.supervisord.conf). Thirty headsets beat at
the balancer, and each step is told on a line: a node is killed by SIGKILL, its headsets
live on at the others, it is started again. Then it is the next node's turn, until
Ctrl-C ends all.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from threading import Event
from typing import Any
from xmlrpc.client import ServerProxy, Transport

from demo import Headset, tell

CONFIGURATION = Path(__file__).parents[1] / "deploy/cluster/demo.supervisord.conf"
BIN = Path(sys.executable).parent
#: Debian's haproxy is where not everybody looks.
PATH = f"{os.environ['PATH']}:/usr/sbin"
NODES = ("node-1", "node-2", "node-3")
BALANCER = 6970
#: By the port of its ROUTER, which replies name.
NODE_OF_PORT = {"8771": "node-1", "8772": "node-2", "8773": "node-3"}
#: All that are listened on, as the configuration has them.
PORTS = (
    BALANCER,
    *(
        first + number
        for first in (6970, 8770, 4370, 2370, 2380)
        for number in (1, 2, 3)
    ),
)

MOMENT = 0.1  # seconds: how soon it looks up from its beats
PATIENCE = 2.0  # seconds that an answer may take
STARTING = 60.0  # seconds that all may take to be up, on a slow machine
FAREWELL = 30.0  # seconds that all may take to end
INTERVAL = 2.0  # seconds from a headset's beat to its next one
LOOKED_TWICE = 3.0  # seconds that the balancer takes to believe that a node is ready
FIRST_KILL = 5.0  # seconds from the first beats to the first kill
AWAY = 12.0  # seconds that a killed node is away
BETWEEN = 40.0  # seconds from one kill to the next

TO_TRY = """
Open the page, and try, there or in a second terminal:
  export HEARTBEAT_SERVER=http://127.0.0.1:{port}
  control="{bin}/supervisorctl -s unix://{folder}/supervisord.sock"
  the nodes       {bin}/heartbeatctl nodes
  is all well?    {bin}/heartbeatctl status
  empty a node    {bin}/heartbeatctl drain node-1
  fill it again   $control restart node:node-1
  kill a node     $control signal KILL node:node-2
  kill an etcd    $control signal KILL etcd:etcd-1
A node that is gone is started again after {away:g} s, an etcd at once.
As long as the demo lasts, what each of them says is in {folder}.
Ctrl-C ends it.
"""


class UnixTransport(Transport):
    """XML-RPC over a socket in a folder, where nobody else gets at it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def make_connection(self, _host: object) -> HTTPConnection:
        """A connection to whoever listens there."""
        connection = HTTPConnection("localhost", timeout=PATIENCE)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(PATIENCE)
        connection.sock.connect(str(self._path))
        return connection


class Cluster:
    """supervisord and all that it runs, in a session that Ctrl-C doesn't reach."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._socket = folder / "supervisord.sock"
        self._process = subprocess.Popen(  # noqa: S603 - the demo's own programs
            # They must not outlive a demo that is killed.
            [
                *("setpriv", "--pdeathsig", "TERM"),
                *(str(BIN / "supervisord"), "-c", str(CONFIGURATION)),
            ],
            env={
                **os.environ,
                "PATH": PATH,
                "DEMO_BIN": str(BIN),
                "DEMO_FOLDER": str(folder),
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=(folder / "supervisord.err").open("w"),
            start_new_session=True,
        )

    def states(self) -> dict[str, str]:
        """What supervisord says of each program: RUNNING, EXITED and the like."""
        if self._process.poll() is not None:
            raise SystemExit((self._folder / "supervisord.err").read_text())
        try:
            processes: Any = self._ask().getAllProcessInfo()
        except OSError:  # it has only begun
            return {}
        return {each["name"]: each["statename"] for each in processes}

    def kill(self, node: str) -> None:
        """End it by SIGKILL: it can say nothing to anybody."""
        self._ask().signalProcess(f"node:{node}", "KILL")

    def start(self, node: str) -> None:
        """Have it started again."""
        self._ask().startProcess(f"node:{node}", False)

    def last_words(self, name: str) -> str:
        """The end of what it has said."""
        path = self._folder / f"{name}.log"
        lines = path.read_text("utf-8", "replace").splitlines() if path.exists() else []
        return "\n".join(lines[-10:])

    def end(self) -> None:
        """Stop all of them, and wait until they are gone; not for ever."""
        self._process.terminate()
        try:
            self._process.wait(FAREWELL)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _ask(self) -> Any:
        server = ServerProxy("http://localhost", transport=UnixTransport(self._socket))
        return server.supervisor


class Balancer:
    """What the nodes are asked, by the balancer."""

    def __init__(self) -> None:
        self._http = HTTPConnection("127.0.0.1", BALANCER, timeout=PATIENCE)

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """The answer's JSON; None if there is no good one."""
        try:
            text = None if body is None else json.dumps(body)
            self._http.request(method, path, text)
            response = self._http.getresponse()
            answer = json.loads(response.read())
        except (OSError, HTTPException, ValueError):
            self._http.close()
            return None
        return answer if response.status == 200 else None

    def nodes(self) -> dict[str, dict[str, Any]]:
        """What ``GET /nodes`` says of each node, by its name."""
        answer = self.ask("GET", "/nodes")
        return {node["node"]: node for node in answer["nodes"]} if answer else {}


class Demo:
    """The headsets, and what befalls the nodes."""

    def __init__(self, cluster: Cluster) -> None:
        now = time.monotonic()
        self._cluster = cluster
        self._balancer = Balancer()
        self._headsets = [Headset(number, now) for number in range(1, 31)]
        #: The last answer to each, and when it came.
        self._answers: dict[str, tuple[dict[str, Any], float]] = {}
        #: Since when a node doesn't run.
        self._gone: dict[str, float] = {}
        self._look_again = now
        self._story = self._tell_the_story()
        self.broken = False

    def turn(self) -> None:
        """Do what is due."""
        now = time.monotonic()
        for headset in self._headsets:
            if headset.next_beat <= now:
                self._beat(headset)
        if now >= self._look_again:
            self._look_again = now + 1
            self._look_after_nodes(now)
        next(self._story)

    def _beat(self, headset: Headset) -> None:
        headset.next_beat = time.monotonic() + 1  # if there is no answer
        beat = headset.beat(time.monotonic())
        reply = self._balancer.ask("POST", "/heartbeat", beat)
        if reply is not None:
            now = time.monotonic()
            headset.obey(reply["body"], now)
            self._answers[headset.id] = reply["body"], now

    def _look_after_nodes(self, now: float) -> None:
        states = self._cluster.states()
        for node in NODES:
            if states.get(node) in ("STARTING", "RUNNING"):
                self._gone.pop(node, None)
            elif now - self._gone.setdefault(node, now) >= AWAY:
                self._cluster.start(node)
                tell(node, "is started again by supervisord")

    def _tell_the_story(self) -> Iterator[None]:
        everybody = {headset.id for headset in self._headsets}
        yield from self._until(lambda: set(self._answers) == everybody)
        tell("headsets", f"all {len(everybody)} beat: {counted(self._where())}")
        self._order("CALIBRATED", {"all": True})
        self._order("RUNNING", {"labels": {"room": "A"}})
        yield from self._wait(FIRST_KILL)
        for victim in itertools.cycle(NODES):
            if victim not in self._gone:
                killed = time.monotonic()
                yield from self._lose(victim)
                yield from self._see_it_come_back(victim)
                yield from self._wait(killed + BETWEEN - time.monotonic())
            yield

    def _lose(self, victim: str) -> Iterator[None]:
        before = {one: answer for one, (answer, _) in self._answers.items()}
        theirs = [one for one, node in self._where().items() if node == victim]
        self._cluster.kill(victim)
        killed = time.monotonic()
        tell(victim, f"is killed by SIGKILL; {len(theirs)} headsets beat there")

        yield from self._until(
            lambda: all(self._answers[one][1] > killed for one in theirs)
        )
        took = time.monotonic() - killed
        where = self._where()
        found = counted({one: where[one] for one in theirs})
        tell("headsets", f"all {len(theirs)} are answered after {took:.1f} s: {found}")
        changed = [one for one in theirs if not self._lives_on(one, before[one])]
        if changed:
            self.broken = True
            tell("headsets", f"BROKEN: another life or state: {', '.join(changed)}")
        else:
            tell("headsets", "each is in the life and in the state that it had")

        yield from self._until(lambda: self._lists(victim) is False)
        took = time.monotonic() - killed
        tell("GET /nodes", f"{self._nodes_in_words()}, {took:.1f} s after the kill")
        tell("GET /summary", self._summary_in_words())

    def _see_it_come_back(self, node: str) -> Iterator[None]:
        yield from self._until(lambda: self._lists(node) is True)
        tell(node, "is back")
        yield from self._wait(LOOKED_TWICE + INTERVAL)
        tell("GET /nodes", self._nodes_in_words())

    def _lives_on(self, one: str, before: dict[str, Any]) -> bool:
        now, _ = self._answers[one]
        steered = now["sequence"] > before["sequence"]  # by somebody at the page
        return now["incarnation"] == before["incarnation"] and (
            steered
            or all(now[name] == before[name] for name in ("sequence", "clientState"))
        )

    def _where(self) -> dict[str, str]:
        """At which node each headset was answered last."""
        return {
            one: NODE_OF_PORT.get(answer["requestEndpoint"].rpartition(":")[2], "?")
            for one, (answer, _) in self._answers.items()
        }

    def _order(self, state: str, whom: dict[str, Any]) -> None:
        order = {"clientState": state, **whom}
        answer = self._balancer.ask("PUT", "/clients/state", order) or {"clients": ()}
        done = [one for one in answer["clients"] if "clientState" in one]
        tell("operator", f"sets {len(done)} headsets to {state}")

    def _lists(self, node: str) -> bool | None:
        """Whether the nodes know of it; None if they don't say."""
        nodes = self._balancer.nodes()
        return node in nodes if nodes else None

    def _nodes_in_words(self) -> str:
        nodes = sorted(self._balancer.nodes().items())
        return ", ".join(f"{name} has {node['clients']}" for name, node in nodes)

    def _summary_in_words(self) -> str:
        told = self._balancer.ask("GET", "/summary") or {}
        names = ("alive", "late", "lostLastHour")
        return ", ".join(f"{name} {told.get(name)}" for name in names)

    def _until(self, holds: Callable[[], bool]) -> Iterator[None]:
        while not holds():
            yield

    def _wait(self, seconds: float) -> Iterator[None]:
        end = time.monotonic() + seconds
        yield from self._until(lambda: time.monotonic() >= end)


def counted(where: dict[str, str]) -> str:
    """How many are where, in words."""
    counts = sorted(Counter(where.values()).items())
    return ", ".join(f"{count} at {name}" for name, count in counts)


def refuse_taken_ports() -> None:
    """End with a sentence if the demo can't have one of its ports."""
    for port in PORTS:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                raise SystemExit(
                    f"Port {port} of 127.0.0.1 is needed here, and can't be had: "
                    f"{error.strerror}. docs/many-machines.md lists those of the demo."
                ) from None


def wait_until_all_are_up(cluster: Cluster, stop: Event) -> None:
    """Until all nodes are listed; if one can't start, end with what it has said."""
    balancer = Balancer()
    deadline = time.monotonic() + STARTING
    while set(balancer.nodes()) != set(NODES) and not stop.is_set():
        states = cluster.states()
        ended = [name for name, state in states.items() if state in ("EXITED", "FATAL")]
        if not ended and time.monotonic() > deadline:
            ended = [*NODES]
        if ended:
            words = "\n".join(f"{name}:\n{cluster.last_words(name)}" for name in ended)
            raise SystemExit(f"Not all of them came up.\n{words}")
        stop.wait(MOMENT)


def welcome(folder: Path) -> None:
    """Where the page is, and what there is to try."""
    print(f"The operators' page: http://127.0.0.1:{BALANCER}/", flush=True)
    programs = os.path.relpath(BIN)
    text = TO_TRY.format(port=BALANCER, bin=programs, folder=folder, away=AWAY)
    print(text, flush=True)


def play(folder: Path, seconds: float, stop: Event) -> int:
    """The whole show; the exit status."""
    cluster = Cluster(folder)
    try:
        tell("cluster", "three members of etcd, three nodes and a balancer are started")
        began = time.monotonic()
        wait_until_all_are_up(cluster, stop)
        tell("cluster", f"all of them are up after {time.monotonic() - began:.1f} s")
        welcome(folder)
        stop.wait(LOOKED_TWICE)
        demo = Demo(cluster)
        end = time.monotonic() + seconds
        while not stop.is_set() and time.monotonic() < end:
            demo.turn()
            stop.wait(MOMENT)
        return int(demo.broken)
    finally:
        cluster.end()


def main() -> None:
    """Play until Ctrl-C."""
    parser = argparse.ArgumentParser(
        description="Three nodes on one machine, one of which is killed now and then."
    )
    add = parser.add_argument
    add("--seconds", type=float, default=float("inf"), help="end by itself after them")
    options = parser.parse_args()
    for program in ("etcd", "haproxy", "setpriv"):
        if shutil.which(program, path=PATH) is None:
            raise SystemExit(f"{program} is needed here, and isn't installed")
    refuse_taken_ports()
    stop = Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.set())
    status = 0
    with (
        suppress(BrokenPipeError),  # nobody reads any more
        tempfile.TemporaryDirectory(prefix="heartbeat-cluster-") as folder,
    ):
        status = play(Path(folder), options.seconds, stop)
    with suppress(OSError):
        print("All of them have ended.", flush=True)
    raise SystemExit(status)


if __name__ == "__main__":
    main()
