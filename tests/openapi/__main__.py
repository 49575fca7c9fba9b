"""``python -m tests.openapi``: the real service, asked what its document allows.

Starts the service with tokens on a store of its own, lets some clients beat, and has
schemathesis ask what the document says can be asked, and what it says can't. Fails if
one answer isn't as the document says, or if the service's log has a traceback.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from http.client import HTTPConnection
from pathlib import Path

from tests.messages import heartbeat
from tests.openapi.hooks import CLIENTS

HERE = Path(__file__).parent
BIN = Path(sys.executable).parent

TOKENS = {
    f"{who}_TOKEN": f"the-{who.lower()}s-token-of-this-test"
    for who in ("OPERATOR", "CLIENT")
}

#: The longest that it may take, in seconds; it takes a fifth of that.
LONGEST = 300.0


def main() -> int:
    """Ask; the exit status."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        with log.open("wb") as output:
            service = subprocess.Popen(
                [*command(Path(folder))], cwd=folder, stdout=output, stderr=output
            )
            try:
                address = ready(log, service)
                threading.Thread(target=beat, args=[address], daemon=True).start()
                status = ask(address)
            finally:
                service.send_signal(signal.SIGTERM)
                ended = service.wait(30)
        text = log.read_text("utf-8")
    if "Traceback" in text or ended != -signal.SIGTERM:
        sys.stderr.write(f"{text}\nThe service ended with {ended}.\n")
        return 1
    return status


def command(folder: Path) -> list[str]:
    """Start the service, with all its doors."""
    options = []
    for option, token in TOKENS.items():
        path = folder / option
        path.touch(0o600)
        path.write_text(f"{token}\n")
        options += [f"--{option.lower().replace('_', '-')}-file", str(path)]
    return [
        str(BIN / "heartbeat-service"),
        *("--http", "tcp:0:interface=127.0.0.1"),
        *("--router", "tcp://127.0.0.1:0", "--pub", "tcp://127.0.0.1:0"),
        *("--store", f"sqlite:{folder}/store.sqlite", "--timebomb", "2"),
        *options,
    ]


def ready(log: Path, service: subprocess.Popen[bytes]) -> str:
    """Where it listens, once it does."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and service.poll() is None:
        found = re.search(r"service ready http=(\S+)", log.read_text("utf-8"))
        if found:
            return found[1]
        time.sleep(0.05)  # there is nothing to wait for but its log
    raise SystemExit(f"the service doesn't start:\n{log.read_text('utf-8')}")


def beat(address: str) -> None:
    """Let some clients live, whatever is done to them."""
    bearer = {"Authorization": f"Bearer {TOKENS['CLIENT_TOKEN']}"}
    while True:
        for client_id in CLIENTS:
            body = heartbeat(client_id, "UNCALIBRATED", labels={"room": "A"})
            service = HTTPConnection(address, timeout=5)
            with suppress(OSError):  # at the end
                service.request("POST", "/heartbeat", body, bearer)
                service.getresponse().read()
            service.close()
        time.sleep(0.5)  # a quarter of their fuse


def ask(address: str) -> int:
    """Run schemathesis; its exit status."""
    return subprocess.run(
        [
            *(str(BIN / "schemathesis"), "--config-file"),
            *(str(HERE / "schemathesis.toml"), "run", f"http://{address}/openapi.json"),
            *sys.argv[1:],
        ],
        env={
            **os.environ,
            **TOKENS,
            "SCHEMATHESIS_HOOKS": str(HERE / "hooks.py"),
            "NO_COLOR": "1",
        },
        timeout=LONGEST,
        check=False,
    ).returncode


if __name__ == "__main__":
    sys.exit(main())
