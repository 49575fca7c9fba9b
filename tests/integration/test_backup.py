"""Etcd backed up and restored as docs/many-machines.md tells, with a real one."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
import treq
from attrs import frozen

from tests.integration.processes import BIN, LOOPBACK, READY, Process, Spawn, free_ports
from tests.integration.waiting import patiently, until
from tests.messages import heartbeat

MISSING = [name for name in ("etcd", "etcdctl") if shutil.which(name) is None]
pytestmark = [
    pytest.mark.skipif(bool(MISSING), reason=f"{MISSING} isn't installed"),
    pytest.mark.cluster,
]


@frozen
class Machine:
    """A machine with one member of etcd, and a node that can be asked."""

    spawn: Spawn
    folder: Path
    client_port: int
    peer_port: int

    @property
    def peer_url(self) -> str:
        """Where its member of etcd listens for others."""
        return f"http://127.0.0.1:{self.peer_port}"

    async def etcd(self) -> Process:
        """Start etcd, on the data that is there."""
        url = f"http://127.0.0.1:{self.client_port}"
        process = self.spawn(
            *("etcd", "--name", "etcd-1", "--data-dir", self.folder / "data"),
            *("--listen-client-urls", url, "--advertise-client-urls", url),
            *("--listen-peer-urls", self.peer_url),
            *("--initial-advertise-peer-urls", self.peer_url),
            *("--initial-cluster", f"etcd-1={self.peer_url}"),
        )
        await process.says("ready to serve client requests")
        return process

    def etcdctl(self, *words: str) -> None:
        """Let it do something, which must succeed."""
        endpoint = f"127.0.0.1:{self.client_port}"
        command = ("etcdctl", "--endpoints", endpoint, *words)
        subprocess.run(command, cwd=self.folder, check=True, capture_output=True)

    async def node(self) -> tuple[Process, str]:
        """Start a node, and wait until it takes changes; its process, and its URL."""
        store = f"etcd://127.0.0.1:{self.client_port}/heartbeat"
        process = self.spawn(
            *(BIN / "heartbeat-service", "--store", store, "--timebomb", "600"),
            *LOOPBACK,
        )
        url = f"http://{(await process.says(READY))[1]}"

        async def takes_changes() -> bool:
            body = heartbeat("a-stranger")
            answer = treq.post(f"{url}/heartbeat", data=body, persistent=False)
            response = await patiently(answer)
            await patiently(response.content())
            return bool(response.code == 200)

        await until(takes_changes)
        return process, url


async def ask(method: str, url: str, body: bytes | None = None) -> dict[str, Any]:
    """What is answered with 200, as JSON; 204 is nothing."""
    response = await patiently(treq.request(method, url, data=body, persistent=False))
    assert response.code in (200, 204), await patiently(response.text())
    if response.code == 204:
        return {}
    answer: dict[str, Any] = await patiently(response.json())
    return answer


async def life_of(url: str, client_id: str) -> tuple[Any, ...]:
    """Its incarnation, its sequence and its state."""
    record = await ask("GET", f"{url}/clients/{client_id}")
    return tuple(record[name] for name in ("incarnation", "sequence", "clientState"))


@pytest.fixture
def machine(spawn: Spawn, tmp_path: Path) -> Machine:
    return Machine(spawn, tmp_path, *free_ports(2))


@pytest_twisted.ensureDeferred
async def test_after_a_restore_everybody_is_in_a_newer_life_and_the_history_is_kept(
    machine: Machine,
) -> None:
    etcd = await machine.etcd()
    node, url = await machine.node()
    beat, order = heartbeat("1"), f"{url}/clients/1/state"
    await ask("POST", f"{url}/heartbeat", beat)
    await ask("DELETE", f"{url}/clients/1")
    await ask("POST", f"{url}/heartbeat", beat)
    await ask("PUT", order, b'{"clientState": "CALIBRATED"}')
    machine.etcdctl("snapshot", "save", "heartbeat.snapshot")
    saved = await life_of(url, "1")
    await ask("PUT", order, b'{"clientState": "RUNNING"}')
    last = await life_of(url, "1")
    assert last > saved

    await node.ends("TERM")
    await etcd.ends("TERM")
    shutil.move(machine.folder / "data", machine.folder / "former-data")
    machine.etcdctl(
        *("snapshot", "restore", "heartbeat.snapshot"),
        *("--data-dir", str(machine.folder / "data"), "--name", "etcd-1"),
        *("--initial-advertise-peer-urls", machine.peer_url),
        *("--initial-cluster", f"etcd-1={machine.peer_url}"),
        *("--initial-cluster-token", "heartbeat-restored"),
    )
    etcd = await machine.etcd()
    node, url = await machine.node()
    assert await life_of(url, "1") == saved, "this is why the next step is told"
    await node.ends("TERM")

    machine.etcdctl("del", "--prefix", "heartbeat/c/")
    node, url = await machine.node()
    listed = await ask("GET", f"{url}/clients")
    assert [one["clientID"] for one in listed["clients"]] == ["a-stranger"]
    await ask("POST", f"{url}/heartbeat", beat)
    incarnation, *life = await life_of(url, "1")
    assert (incarnation, *life) > last
    assert life == [1, "UNCALIBRATED"]
    history = await ask("GET", f"{url}/clients/1/history")
    assert [one["reason"] for one in history["lives"]] == [None, "kick"]
    await node.ends("TERM")
    await etcd.ends("TERM")
