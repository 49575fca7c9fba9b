"""A contestant as a process of its own: pinned to one core, its driver to another.

What it costs is told by the kernel: the processor time that all its threads have used.
Knows no contestant.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from attrs import frozen

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent

#: How long a contestant may take until it listens, and to end, in seconds.
PATIENCE = 60.0

#: The cores that this process may use: the first is the contestant's.
CORES = sorted(os.sched_getaffinity(0))


@frozen
class Server:
    """A contestant that listens.

    :ivar match: what its line says of where.
    """

    process: psutil.Popen
    match: re.Match[str]

    def cpu_seconds(self) -> float:
        """The processor time that it has used so far, and its children, in seconds."""
        family = [self.process, *self.process.children(recursive=True)]
        # Of itself and of children that have ended, in user's code and in the kernel.
        return sum(sum(one.cpu_times()[:4]) for one in family)

    def memory(self) -> int:
        """What it has in memory, in bytes."""
        return int(self.process.memory_info().rss)


@contextmanager
def started(
    command: Sequence[str | Path],
    ready: str,
    cwd: Path,
    cores: Collection[int] = CORES[:1],
) -> Iterator[Server]:
    """Run a contestant until the end of the block, or until somebody kills it.

    :param ready: the expression that its line matches when it listens.
    :param cwd: the folder that it runs in, and leaves its files in: what it prints is
        in the file ``log``.
    :raises RuntimeError: if it doesn't say so in :data:`PATIENCE` seconds.
    """
    listed = ",".join(map(str, cores))
    pinned = ["taskset", "--cpu-list", listed, *map(str, command)]
    # It must not outlive a measurement that is killed.
    mortal = ["setpriv", "--pdeathsig", "TERM", *pinned]
    log = cwd / "log"
    with log.open("w") as output:
        process = psutil.Popen(
            mortal,
            cwd=cwd,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "PYTHONUNBUFFERED": "1",  # else what it prints may stay in it
            },
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield Server(process, _listening(process, log, re.compile(ready, re.MULTILINE)))
    finally:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
        try:
            process.wait(PATIENCE)
        except psutil.TimeoutExpired:
            process.kill()
            process.wait()


def drive_from_another_core() -> None:
    """Pin this process, and what it starts without pinning, to the other cores."""
    os.sched_setaffinity(0, CORES[1:] or CORES)


def _listening(
    process: psutil.Popen, log: Path, ready: re.Pattern[str]
) -> re.Match[str]:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and process.poll() is None:
        if match := ready.search(log.read_text()):
            return match
        time.sleep(0.01)  # a file tells nobody that it has grown
    raise RuntimeError(
        f"{shlex.join(process.args)} does not listen in {PATIENCE:.0f} s; it said:\n"
        + log.read_text()
    )
