"""Real members of etcd on loopback, which can be killed, stopped and started again."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from urllib.request import urlopen

import pytest
from attrs import define, field

from tests.integration.processes import Process, Spawn, free_ports
from tests.integration.waiting import PATIENCE

#: A member tells the others that it leads so often, in milliseconds, and they elect
#: another one when they haven't heard of it for so long: etcd's own times, halved.
HEARTBEAT, ELECTION = 50, 500


@define
class EtcdMember:
    """A member. What it has stored outlives it.

    :ivar endpoint: its ``HOST:PORT`` for clients.
    :ivar data: the folder in which it stores.
    :ivar process: what runs, or has run last.
    """

    endpoint: str
    data: Path
    command: Sequence[str | Path]
    spawn: Spawn
    process: Process = field(init=False)

    def begin(self) -> None:
        """Run, for the first time or again."""
        self.process = self.spawn(*self.command)

    async def ready(self) -> None:
        """Wait until it serves clients: it has found enough of the others."""
        await self.process.says("ready to serve client requests")

    def forget(self) -> None:
        """Lose, while it doesn't run, all that it has stored."""
        shutil.rmtree(self.data)

    async def kill(self) -> None:
        """End it without a word."""
        await self.process.ends("KILL")

    def stop(self) -> None:
        """Let it stand still: what is sent to it arrives, and nobody answers."""
        os.kill(self.process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it run on after a stop."""
        os.kill(self.process.pid, signal.SIGCONT)


@define
class EtcdCluster:
    """Members that know each other."""

    members: list[EtcdMember]

    def url(self, *, prefix: str = "test", user: str = "", **files: str | Path) -> str:
        """What ``--store`` is told; of files' names a ``_`` is a ``-``."""
        endpoints = ",".join(member.endpoint for member in self.members)
        query = "&".join(f"{name.replace('_', '-')}={files[name]}" for name in files)
        return f"etcd://{user}{endpoints}/{prefix}" + (f"?{query}" if query else "")

    def leader(self) -> EtcdMember:
        """Who leads now; each of them must answer."""
        for member in self.members:
            with urlopen(
                f"http://{member.endpoint}/v3/maintenance/status", b"{}", PATIENCE
            ) as answer:
                status = json.load(answer)
            if status["leader"] == status["header"]["member_id"]:
                return member
        raise AssertionError("nobody leads")

    async def ready(self) -> None:
        """Wait until each of them serves clients."""
        for member in self.members:
            await member.ready()

    async def kill(self) -> None:
        """End all of them, also those that stand still."""
        for member in self.members:
            await member.kill()


#: Starts a cluster, which is ended after the test.
StartEtcd = Callable[..., Awaitable[EtcdCluster]]


def begin_etcd(
    spawn: Spawn, folder: Path, members: int = 1, *options: str | Path
) -> EtcdCluster:
    """Start a cluster of etcd, with its data in that folder.

    Without etcd, the test is skipped; with ``ETCD=required`` it fails.

    :param options: more words for each member's command; with ``--cert-file`` among
        them, clients come by TLS.
    """
    if shutil.which("etcd") is None:
        reason = "there is no etcd here"
        assert os.environ.get("ETCD") != "required", reason
        pytest.skip(reason)
    scheme = "https" if "--cert-file" in options else "http"
    ports = free_ports(2 * members)
    names = [f"m{number}" for number in range(members)]
    clients = [f"127.0.0.1:{port}" for port in ports[:members]]
    peers = [f"http://127.0.0.1:{port}" for port in ports[members:]]
    everyone = ",".join(
        f"{name}={peer}" for name, peer in zip(names, peers, strict=True)
    )
    cluster = EtcdCluster(
        [
            EtcdMember(
                endpoint,
                folder / name,
                [
                    *("etcd", "--name", name, "--data-dir", folder / name),
                    *("--listen-client-urls", f"{scheme}://{endpoint}"),
                    *("--advertise-client-urls", f"{scheme}://{endpoint}"),
                    *("--listen-peer-urls", peer),
                    *("--initial-advertise-peer-urls", peer),
                    *("--initial-cluster", everyone),
                    *("--heartbeat-interval", str(HEARTBEAT)),
                    *("--election-timeout", str(ELECTION)),
                    *options,
                ],
                spawn,
            )
            for name, endpoint, peer in zip(names, clients, peers, strict=True)
        ]
    )
    for member in cluster.members:
        member.begin()
    return cluster
