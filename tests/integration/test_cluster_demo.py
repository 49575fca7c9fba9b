"""``make cluster-demo``: what it tells, and that it leaves nothing behind.

Its ports are fixed, so it is run in a network of its own.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import pytest_twisted

from tests.integration.processes import BIN, ROOT, Spawn
from tests.integration.test_examples import TERMINAL, processes_with

DEMO = ROOT / "examples" / "cluster_demo.py"
PATH = f"{os.environ['PATH']}:/usr/sbin"
MISSING = [
    program
    for program in ("etcd", "haproxy", "unshare", "ip")
    if shutil.which(program, path=PATH) is None
]
#: Runs a command in a network of its own, as root there.
ALONE = (
    *("unshare", *(() if os.geteuid() == 0 else ("--map-root-user",)), "--net"),
    *("sh", "-c", 'ip link set lo up && exec "$@"', "sh"),
)

pytestmark = [
    pytest.mark.skipif(bool(MISSING), reason=f"{MISSING} isn't installed"),
    pytest.mark.cluster,
]


@pytest.fixture(autouse=True)
def _may_have_a_network() -> None:
    if not MISSING and subprocess.run([*ALONE, "true"], check=False).returncode != 0:
        pytest.skip("this user may not make a network of its own")


@pytest_twisted.ensureDeferred
async def test_it_kills_a_node_whose_headsets_live_on_and_ends_all_at_ctrl_c(
    spawn: Spawn, tmp_path: Path
) -> None:
    make = ("make", "-C", ROOT, "cluster-demo", f"BIN={BIN}", "DEV=")
    keys = json.dumps([("node-1: is back", "\3")])
    demo = spawn(
        *(*ALONE, sys.executable, "-c", TERMINAL, keys, *make),
        THIS_TEST=str(tmp_path),
        PATH=PATH,
    )
    await demo.says(r"page: http://127\.0\.0\.1:6970/")
    await demo.says(r"all 30 beat: \d+ at node-1, \d+ at node-2, \d+ at node-3")
    await demo.says("sets 10 headsets to RUNNING")
    killed = await demo.says(r"node-1: is killed by SIGKILL; (\d+) headsets beat there")
    await demo.says(rf"all {killed[1]} are answered after \d+\.\d s")
    await demo.says("each is in the life and in the state that it had")
    await demo.says(r"GET /nodes: node-2 has \d+, node-3 has \d+, \d+\.\d s after")
    await demo.says(r"GET /summary: alive 30, late \d+, lostLastHour 0")
    await demo.says("node-1: is started again by supervisord")
    # Make itself dies by the signal, as it always does.
    await demo.says(rf"it ended with (0|-{signal.SIGINT.value})\.")
    assert "All of them have ended." in demo.output
    assert not re.search(r"\*\*\*|Error|Traceback|BROKEN", demo.output)
    assert await demo.ends() == 0
    assert processes_with(f"THIS_TEST={tmp_path}") == []


@pytest_twisted.ensureDeferred
async def test_it_names_a_port_that_it_cannot_have(spawn: Spawn) -> None:
    taken = "import socket; s = socket.create_server(('127.0.0.1', 8772)); "
    script = f"{taken}import runpy; runpy.run_path({str(DEMO)!r}, run_name='__main__')"
    demo = spawn(*ALONE, sys.executable, "-c", script, PYTHONPATH=str(DEMO.parent))
    await demo.says(
        r"^Port 8772 of 127\.0\.0\.1 is needed here, and can't be had: Addr"
    )
    assert await demo.ends() == 1
    assert "Traceback" not in demo.output
