"""A cluster on machines of its own: three etcd, three nodes, a balancer, and clients.

Each program runs on a machine of the network, and can be killed, stopped or started
there; what it prints goes into a file. The balancer is the one of ``deploy/cluster``.
It knows how they are started and mended, and leaves to the judge what is right.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO

from attrs import define, field

from tests.cluster.judge import Judge
from tests.cluster.network import Network
from tests.cluster.records import decode

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent

ETCDS = ("etcd1", "etcd2", "etcd3")
NODES = ("a", "b", "c")

#: A client's fuse, and how often it is told to beat, in seconds.
FUSE, INTERVAL = 4.0, 1.0

#: How long anything may take on a busy machine, in seconds.
PATIENCE = 60.0

READY = r"heartbeat service ready http=\S+ router=\S+ pub=\S+$"


@define
class Program:
    """A program on its machine, as often as it is started.

    :ivar output: where all goes that it ever printed.
    """

    name: str
    command: tuple[str, ...]
    output: Path
    environment: dict[str, str] = field(factory=dict)
    process: subprocess.Popen[bytes] | None = None
    _before: int = 0

    def start(self, told: int | IO[bytes] = subprocess.DEVNULL) -> None:
        """Start it."""
        self._before = self.output.stat().st_size if self.output.exists() else 0
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                # It must not outlive a run that is killed, also while it is stopped.
                ["setpriv", "--pdeathsig", "KILL", *self.command],
                stdin=told,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self.output.parent,
                env={**os.environ, **self.environment},
            )

    @property
    def runs(self) -> bool:
        """Whether it was started and hasn't ended."""
        return self.process is not None and self.process.poll() is None

    def printed(self) -> str:
        """What it has printed since its last start."""
        return self.output.read_bytes()[self._before :].decode(errors="replace")

    def says(self, pattern: str) -> None:
        """Wait until it has printed that, since its last start."""
        found = re.compile(pattern, re.MULTILINE)
        wait(
            lambda: found.search(self.printed()) is not None,
            lambda: f"{self.name} doesn't say {pattern!r}: {self.printed()[-3000:]}",
            or_ends=self,
        )

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """End it at once, without a last word."""
        self.signal(signal.SIGKILL)
        assert self.process is not None
        self.process.wait()

    def stop(self) -> None:
        """Have it end by itself, with what that takes."""
        self.signal(signal.SIGTERM)
        assert self.process is not None
        self.process.wait(PATIENCE)

    def end(self) -> None:
        """End it, whatever state it is in."""
        if self.process is not None and self.process.poll() is None:
            self.kill()
        if self.process is not None and self.process.stdin is not None:
            with suppress(BrokenPipeError):
                self.process.stdin.close()


def wait(
    holds: Callable[[], bool],
    otherwise: Callable[[], str],
    seconds: float = PATIENCE,
    or_ends: Program | None = None,
) -> None:
    """Wait until something holds; say what is instead if it doesn't in so long."""
    deadline = time.monotonic() + seconds
    while not holds():
        ended = or_ends is not None and not or_ends.runs
        assert not ended, f"It has ended. {otherwise()}"
        assert time.monotonic() < deadline, otherwise()
        time.sleep(0.05)  # what other processes do, they tell in files alone


class Cluster:
    """All of it, from when it was made until it is removed.

    :ivar judge: has heard what the clients have written down, as of the last ``read``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.judge = Judge()
        self.network = Network((*ETCDS, *NODES, "balancer", "clients"))
        self.etcds = {name: self._etcd(name) for name in ETCDS}
        self.token = folder / "token"
        self.token.touch(0o600)
        self.token.write_text(secrets.token_hex(16))
        self.nodes = {name: self._node(name) for name in NODES}
        self.balancer = self._balancer()
        self.records = folder / "records"
        self.clients = self._clients()
        self._read = 0

    def start(self) -> None:
        """Start all, and wait until the clients live."""
        self.heal()
        self.balancer.start()
        self.records.touch()
        self.clients.start(subprocess.PIPE)

    def remove(self) -> None:
        """End all."""
        for program in (self.clients, self.balancer, *self._servers()):
            program.end()
        self.network.remove()

    def heal(self) -> None:
        """Join what is cut, let go on what is stopped, start what is gone."""
        self.network.join()
        for program in self._servers():
            if program.runs:
                program.signal(signal.SIGCONT)
        for program in self.etcds.values():
            if not program.runs:
                program.start()
        gone = [program for program in self.nodes.values() if not program.runs]
        for program in gone:
            program.start()
        for program in gone:
            program.says(READY)

    def tell(self, order: str) -> None:
        """Tell the clients something."""
        assert self.clients.process is not None
        told = self.clients.process.stdin
        assert told is not None
        told.write(f"{order}\n".encode())
        told.flush()

    def read(self) -> None:
        """Have the judge hear what was written since."""
        assert self.clients.runs, self.clients.printed()[-5000:]
        with self.records.open("rb") as file:
            file.seek(self._read)
            for line in file:
                if line.endswith(b"\n"):
                    self._read += len(line)
                    self.judge.hear(decode(line))

    def leader(self) -> str:
        """Which member of etcd leads."""
        leaders: list[str] = []

        def found() -> bool:
            ask = ("etcdctl", "--write-out=json", "--command-timeout=3s")
            for name in ETCDS:
                endpoint = f"--endpoints={self.network.address(name)}:2379"
                answer = self.run(*ask, endpoint, "endpoint", "status")
                for said in json.loads(answer.stdout or "[]") or ():
                    status = said["Status"]
                    if status.get("leader") == status["header"]["member_id"]:
                        leaders[:] = [name]
            return bool(leaders)

        wait(found, lambda: "etcd has no leader")
        return leaders[0]

    def drain(self, node: str) -> None:
        """Have an operator drain a node, asked at another one."""
        asked = next(name for name in NODES if name != node)
        done = self.run(
            str(BIN / "heartbeatctl"),
            *("--server", f"http://{self.network.address(asked)}:6969"),
            *("--token-file", str(self.token)),
            *("drain", "--yes", node),
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a program where the clients are."""
        return subprocess.run(
            [*self.network.on("clients"), *command],
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
            env={**os.environ, "ETCDCTL_API": "3"},
        )

    def _servers(self) -> tuple[Program, ...]:
        return (*self.nodes.values(), *self.etcds.values())

    def _program(self, name: str, *command: str, **environment: str) -> Program:
        machine = self.network.on(name)
        output = self.folder / f"{name}.log"
        return Program(name, (*machine, *command), output, environment)

    def _etcd(self, name: str) -> Program:
        here = self.network.address(name)
        peers = (f"{each}=http://{self.network.address(each)}:2380" for each in ETCDS)
        return self._program(
            name,
            *("etcd", "--name", name, "--data-dir", str(self.folder / name)),
            *("--listen-client-urls", f"http://{here}:2379"),
            *("--advertise-client-urls", f"http://{here}:2379"),
            *("--listen-peer-urls", f"http://{here}:2380"),
            *("--initial-advertise-peer-urls", f"http://{here}:2380"),
            *("--initial-cluster", ",".join(peers)),
            *("--auto-compaction-mode", "revision"),
            *("--auto-compaction-retention", "1000"),
        )

    def _node(self, name: str) -> Program:
        here = self.network.address(name)
        etcd = ",".join(f"{self.network.address(each)}:2379" for each in ETCDS)
        return self._program(
            name,
            *(str(BIN / "twistd"), "-n", "--pidfile=", "heartbeat"),
            *("--http", f"tcp:6969:interface={here}"),
            *("--router", f"tcp://{here}:8765"),
            *("--pub", f"tcp://{here}:4321"),
            *("--store", f"etcd://{etcd}/heartbeat", "--node", name),
            *("--timebomb", f"{FUSE:g}", "--interval", f"{INTERVAL:g}"),
            *("--operator-token-file", str(self.token)),
        )

    def _balancer(self) -> Program:
        nodes = {
            f"NODE_{number}": f"{self.network.address(name)}:6969"
            for number, name in enumerate(NODES, 1)
        }
        return self._program(
            "balancer",
            *("haproxy", "-db", "-f", str(ROOT / "deploy/cluster/haproxy.cfg")),
            BALANCER=f"{self.network.address('balancer')}:80",
            **nodes,
        )

    def _clients(self) -> Program:
        return self._program(
            "clients",
            *(sys.executable, "-m", "tests.cluster.clients", str(self.records)),
            f"{self.network.address('balancer')}:80",
            self.token.read_text(),
            *(f"{name}={self.network.address(name)}" for name in NODES),
            PYTHONPATH=str(ROOT),
        )
