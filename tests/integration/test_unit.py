"""The service as its unit for systemd starts it: that user, those folders and modes.

systemd itself isn't asked. What is read from the unit is who the service is, what is
started and reloaded, and where its folders are; they are below a folder of the test's.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_twisted
import treq
from twisted.web.http_headers import Headers

from heartbeat_service.curve_keys import make_client_keys, make_server_keys
from tests.integration.processes import READY, ROOT, Spawn
from tests.integration.waiting import patiently
from tests.messages import heartbeat

UNIT = dict(
    re.findall(
        r"^(\w+)=(.*)$",
        (ROOT / "deploy" / "heartbeat.service").read_text(),
        re.MULTILINE,
    )
)
#: A user, and a group of the same number, that nobody here has.
HEARTBEAT = 64_321
TOKENS = ("the-first-token-of-tests", "the-second-token-of-tests")


@pytest.fixture
def machine() -> Iterator[Path]:
    """A folder for what is in ``/`` of an operator's machine; others may enter it."""
    if os.geteuid() != 0:
        pytest.skip("only root can become the user of the unit")
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def as_the_user(folder: Path) -> tuple[str | Path, ...]:
    """What runs a command as the unit does; skips if that user can't run Python."""
    # Not the umask of the tests, and no capability that root has.
    become = (
        *("setpriv", "--reuid", str(HEARTBEAT), "--regid", str(HEARTBEAT)),
        *("--clear-groups", "--bounding-set=-all", "--no-new-privs"),
        *("sh", "-c", f'umask {UNIT["UMask"]}; cd "$0"; exec "$@"', folder),
        *("env", f"PYTHONPATH={ROOT}:{sysconfig.get_path('purelib')}"),
    )
    ours = f"/usr/bin/python{sys.version_info[0]}.{sys.version_info[1]}"
    for python in (sys.executable, ours):
        command = (*become, python, "-c", "import heartbeat_service.service")
        if subprocess.run(command, capture_output=True, check=False).returncode == 0:
            return (*become, python)
    pytest.skip("another user can't run this Python: it is in somebody's home")


def hand_over(folder: Path) -> None:
    """Let the folder's group read what is root's, as docs/operations.md has it."""
    subprocess.run(["chmod", "-R", "g+rX", folder], check=True)


async def status(host: str, token: str) -> int:
    """What the service says to an operator."""
    headers = Headers({"Authorization": [f"Bearer {token}"]})
    url = f"http://{host}/clients"
    response = await patiently(treq.get(url, headers=headers, persistent=False))
    await patiently(response.content())
    code: int = response.code
    return code


@pytest_twisted.ensureDeferred
async def test_its_user_reads_what_root_has_put_there_also_at_a_reload(
    machine: Path, spawn: Spawn
) -> None:
    assert UNIT["User"] == "heartbeat"
    etc = machine / "etc"
    secrets = etc / "heartbeat-service"
    etc.mkdir()
    make = ("install", "-d", "-g", str(HEARTBEAT), "-m", "2750", secrets)
    subprocess.run(make, check=True)
    tokens, keys = secrets / "operator-token", secrets / "keys"
    tokens.touch(0o600)
    tokens.write_text(f"{TOKENS[0]}\n")
    make_server_keys(keys)
    # What systemd does itself.
    store = machine / "var/lib" / UNIT["StateDirectory"]
    store.mkdir(parents=True)
    os.chown(store, HEARTBEAT, HEARTBEAT)
    store.chmod(int(UNIT["StateDirectoryMode"], 8))
    assert UNIT["WorkingDirectory"] == f"%S/{UNIT['StateDirectory']}"

    options = {
        "http": "tcp:0:interface=127.0.0.1",
        "router": "tcp://127.0.0.1:*",
        "pub": "tcp://127.0.0.1:*",
        "operator-token-file": str(tokens),
        "curve-keys": str(keys),
    }
    (etc / "heartbeat-service.toml").write_text(
        "".join(f"{name} = {json.dumps(value)}\n" for name, value in options.items())
    )
    hand_over(secrets)
    program, *words = shlex.split(UNIT["ExecStart"].replace("/etc/", f"{etc}/"))
    assert Path(program).name == "heartbeat-service"
    become = as_the_user(store)
    service = spawn(*become, "-m", "heartbeat_service", *words)
    host = (await service.says(READY))[1]
    beat = treq.post(f"http://{host}/heartbeat", data=heartbeat("1"), persistent=False)
    answer = await patiently(beat)
    await patiently(answer.content())  # unread, it would keep its connection open
    assert answer.code == 200
    assert [await status(host, token) for token in TOKENS] == [200, 401]

    with tokens.open("a") as file:
        file.write(f"{TOKENS[1]}\n")
    make_client_keys(keys, "headset-1", machine / "headset-1")
    hand_over(secrets)
    reload = UNIT["ExecReload"].replace("$MAINPID", str(service.pid))
    subprocess.run([*become[:-1], *shlex.split(reload)], check=True)
    await service.says("keys reloaded: 1 clients")
    await service.says("2 tokens are good now")
    assert [await status(host, token) for token in TOKENS] == [200, 200]

    kept = (store / "heartbeat.sqlite").stat()
    assert (kept.st_uid, kept.st_mode & 0o777) == (HEARTBEAT, 0o600)
    assert "others may read" not in service.output
    await service.ends("TERM")
    assert "Traceback" not in service.output
