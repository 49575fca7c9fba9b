"""Machines that a cable joins: a network namespace each, and a bridge in one more.

Nothing of this machine's own network is touched. A cut is made in the bridge: what is
sent from one machine to the other is dropped there, and nobody is told. It knows
nothing of what runs on the machines.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

#: Where ``ip netns`` keeps them.
NAMESPACES = Path("/run/netns")

#: What namespaces are called here: who made them, and which machine each is.
NAME = "heartbeat-{}-{}"

_CUTS = """
add table bridge cuts
add chain bridge cuts forward {{ type filter hook forward priority 0; }}
flush chain bridge cuts forward
{}
"""


class Network:
    """Machines of these names, each at an address of its own."""

    def __init__(self, machines: Sequence[str]) -> None:
        _sweep()
        self._machines = machines
        self._cuts: list[tuple[str, str]] = []
        try:
            self._lay()
        except BaseException:
            self.remove()
            raise

    def address(self, machine: str) -> str:
        """Its IPv4 address, as all others reach it."""
        return f"10.77.0.{1 + self._machines.index(machine)}"

    def on(self, machine: str) -> tuple[str, ...]:
        """The words before a command that is to run there."""
        return ("nsenter", f"--net={NAMESPACES / self._name(machine)}")

    def cut(self, sources: Iterable[str], targets: Iterable[str]) -> None:
        """From now on, nothing that one of these sends to one of those arrives."""
        targets = tuple(targets)
        self._cuts += [(source, target) for source in sources for target in targets]
        self._apply()

    def part(self, some: Iterable[str], others: Iterable[str]) -> None:
        """Cut it in both directions."""
        some, others = tuple(some), tuple(others)
        self.cut(some, others)
        self.cut(others, some)

    def join(self) -> None:
        """All arrives again."""
        self._cuts.clear()
        self._apply()

    def remove(self) -> None:
        """Take it away, as far as it was laid."""
        for machine in ("bridge", *self._machines):
            _remove(self._name(machine))

    def _lay(self) -> None:
        bridge = self._name("bridge")
        for machine in ("bridge", *self._machines):
            _run("ip", "netns", "add", self._name(machine))
            _run("ip", "-n", self._name(machine), "link", "set", "dev", "lo", "up")
        _run("ip", "-n", bridge, "link", "add", "bridge", "type", "bridge")
        _run("ip", "-n", bridge, "link", "set", "dev", "bridge", "up")
        for machine in self._machines:
            there = ("ip", "-n", self._name(machine))
            end = ("type", "veth", "peer", "name", machine, "netns", bridge)
            _run(*there, "link", "add", "cable", *end)
            _run(
                *there, "address", "add", f"{self.address(machine)}/24", "dev", "cable"
            )
            _run(*there, "link", "set", "dev", "cable", "up")
            _run(
                "ip",
                "-n",
                bridge,
                "link",
                "set",
                "dev",
                machine,
                "master",
                "bridge",
                "up",
            )
        self._apply()

    def _apply(self) -> None:
        """All cuts at one moment."""
        rules = [
            f"add rule bridge cuts forward ip saddr {self.address(source)} "
            f"ip daddr {self.address(target)} drop"
            for source, target in self._cuts
        ]
        command = (*self.on("bridge"), "nft", "--file", "-")
        _run(*command, told=_CUTS.format("\n".join(rules)))

    def _name(self, machine: str) -> str:
        return NAME.format(os.getpid(), machine)


def _sweep() -> None:
    """Remove what was left by runs that were killed."""
    for path in NAMESPACES.glob(NAME.format("*", "*")):
        run = path.name.split("-")[1]
        if run.isdecimal() and not Path("/proc", run).exists():
            _remove(path.name)


def _remove(namespace: str) -> None:
    if (NAMESPACES / namespace).exists():
        with suppress(OSError):  # another run sweeps, too
            _run("ip", "netns", "delete", namespace)


def _run(*command: str, told: str = "") -> None:
    done = subprocess.run(
        command, input=told, check=False, capture_output=True, text=True
    )
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")
