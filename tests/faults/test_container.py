"""The Containerfile, built and run with podman.

No registry is asked: Debian's own packages make the image that it begins with. It is
not the published one, but of the same release, and has less in it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.service import LONG, Row
from tests.integration.processes import ROOT
from tests.messages import heartbeat

CONTAINERFILE = (ROOT / "Containerfile").read_text("utf-8")
TOKEN = "operator-token-of-tests"  # noqa: S105 - good in these tests only
#: Here the machine's own list of authorities is trusted, also where a proxy needs it.
AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"
#: What asks the service in the container, which has no curl: method, path, body.
ASK = """
import sys
from urllib.request import Request, urlopen
token, method, path, body = sys.argv[1:]
url, headers = "http://127.0.0.1:6969" + path, {"Authorization": "Bearer " + token}
request = Request(url, body.encode() or None, headers, method=method)
print(urlopen(request, timeout=30).read().decode())
"""
#: Waits in there until it is ready, half a minute at most.
READY = (
    "for try in $(seq 60); do /opt/heartbeat-service/bin/python -c "
    "\"from urllib.request import urlopen; urlopen('http://127.0.0.1:6969/readyz')\" "
    "2>/dev/null && exit 0; sleep 0.5; done; exit 1"
)

Podman = Callable[..., str]


@pytest.fixture
def podman() -> Iterator[Podman]:
    """What runs podman, with images of the test's own, and gives what it prints."""
    if not LONG:
        pytest.skip("it takes minutes: only in the long form")
    for program in ("podman", "runc", "mmdebstrap"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    if os.geteuid() != 0:
        pytest.skip("only root can make Debian's image")
    folder = Path(tempfile.mkdtemp())  # podman wants its path to be short
    where = (
        *("--root", folder / "images", "--runroot", folder / "run"),
        *("--storage-driver", "overlay", "--cgroup-manager", "cgroupfs"),
        *("--runtime", "runc"),
    )

    def run(*words: str | Path) -> str:
        command = ["podman", *where, *words]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=600, check=False
        )
        assert done.returncode == 0, f"{command}:\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    yield run
    run("rm", "--force", "--all")
    run("rmi", "--force", "--all")
    shutil.rmtree(folder)


@pytest.mark.fault("built and run in a container")
def test_the_container_serves_as_another_user_and_keeps_its_clients(
    podman: Podman, tmp_path: Path, row: Row
) -> None:
    [base] = {
        line.split()[1]
        for line in CONTAINERFILE.splitlines()
        if line.startswith("FROM debian:")
    }
    release = base.rpartition(":")[2].partition("-")[0]
    debian = tmp_path / "debian.tar"
    subprocess.run(
        ["mmdebstrap", "--quiet", "--variant=minbase", release, debian],
        check=True,
        timeout=600,
    )
    podman("import", debian, base)
    (tmp_path / "pip.conf").write_text("[global]\ncert = /run/authorities.crt\n")
    podman(
        *("build", "--isolation", "chroot", "--format", "docker"),
        *("--volume", f"{AUTHORITIES}:/run/authorities.crt:ro"),
        *("--volume", f"{tmp_path / 'pip.conf'}:/etc/pip.conf:ro"),
        *("-t", "heartbeat-service", "-f", ROOT / "Containerfile", ROOT),
    )
    secrets, data = tmp_path / "secrets", tmp_path / "data"
    secrets.mkdir()
    (secrets / "operator-token").write_text(f"{TOKEN}\n")
    (secrets / "operator-token").chmod(0o400)
    data.mkdir(0o700)
    for path in (secrets, secrets / "operator-token", data):
        os.chown(path, 999, 999)
    create = (
        *("create", "--network", "none", "--no-healthcheck"),
        # More than the tests may have themselves can't be given.
        *("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096"),
        *("--volume", f"{secrets}:/run/secrets:ro", "--volume", f"{data}:/data"),
        *("--name", "heartbeat", "heartbeat-service"),
        *("--operator-token-file", "/run/secrets/operator-token", "--timebomb", "600"),
    )
    podman(*create)

    def ask(method: str, path: str, body: bytes = b"") -> str:
        python = "/opt/heartbeat-service/bin/python"
        words = ("exec", "heartbeat", python, "-c", ASK)
        return podman(*words, TOKEN, method, path, body.decode())

    def start() -> None:
        podman("start", "heartbeat")
        [check] = json.loads(podman("inspect", "--type", "image", "heartbeat-service"))
        words = check["Healthcheck"]["Test"]
        assert words[0] == "CMD"
        podman("exec", "heartbeat", "sh", "-c", READY)
        podman("exec", "heartbeat", *words[1:])

    start()
    assert "UNCALIBRATED" in ask("POST", "/heartbeat", heartbeat("1"))
    state = json.dumps({"clientState": "RUNNING"}).encode()
    assert "RUNNING" in ask("PUT", "/clients/1/state", state)
    podman("stop", "--time", "20", "heartbeat")
    said = podman("logs", "heartbeat")
    assert "Server Shut Down" in said
    assert "others may read" not in said
    assert "plugin cache" not in said
    start()
    assert '"RUNNING"' in ask("GET", "/clients/1")
    podman("stop", "--time", "20", "heartbeat")
    assert "Traceback" not in podman("logs", "heartbeat")
    row.tried = "two starts"
