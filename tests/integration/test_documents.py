"""What README and docs/ tell to type works, and prints what they show.

Each page's commands are read from it and run in its order, in one shell: in a copy of
the project with other ports than the real ones, where a user's home and the folders of
a real installation are folders of that copy. What can't be run here is named, with
the reason. A page has no marks for this test but the kinds of its blocks:

- ``sh``: commands; each must succeed.
- ``console``: commands behind a ``$``, each with what it prints, compared but for
  numbers, dates and names made at random.
- no kind: lines that something on the page prints, compared likewise.
- ``json``: a message, read by the program's own code; a reply is printed by something.
- ``toml``: the file that its first line names.
- ``text``, ``mermaid``: to look at.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from attrs import frozen

from heartbeat_service.operator.settings import read_settings
from heartbeat_service.options import Options
from heartbeat_service.protocol.codec import decode_from_server, decode_request
from tests.integration.processes import ROOT, free_ports
from tests.integration.waiting import PATIENCE

PAGES = [
    *(ROOT / "README.md", ROOT / "CONTRIBUTING.md"),
    *sorted(ROOT.joinpath("docs").glob("*.md")),
]
REQUESTS = {"HEARTBEAT", "GetClientState", "SetClientState", "Goodbye"}
KINDS = {"sh", "console", "", "csharp", "json", "toml", "text", "mermaid"}

#: What is not run, by how it begins, and why.
NOT_HERE = {
    "make demo": "has tests of its own",
    "make cluster-demo": "has a test of its own",
    "make cluster-faults": "takes minutes; `make check` runs its short form",
    "make cluster-model": "takes half a minute; test_model.py has it small",
    "make test": "this test is a part of it",
    "make units": "this test is run beside them",
    "make openapi": "takes a minute",
    "make conformance": "`make check` tries its cases, a minute long",
    "make virtual-hour": "`make check` runs it, on both cores",
    "make costs": "`make check` runs it, on both cores",
    "make page": "takes two minutes, in a browser",
    "make pictures": "changes what the pages show",
    "make faults": "takes minutes",
    "make bench": "takes minutes",
    "make lint": "checks nothing that a page tells",
    "make check": "this test is a part of it",
    "make format": "changes the code",
    "make dist": "`make package` does it, and tries what it makes",
    "/usr/bin/python3 -m venv": "`make package` does it",
    "/opt/heartbeat-service/bin/pip install": "`make package` does it",
    "useradd": "changes the machine; here, this user stands for it",
    "podman": "there may be none; where there is, `make faults` does it",
    "chown -R 999:999": "needs root",
    "cp /opt/heartbeat-service/share": "there may be no systemd",
    "systemctl": "there may be no systemd",
    "install -m 644 /opt/heartbeat-service/share": "there may be no haproxy",
    "apt-get install": "changes the machine",
    "heartbeatctl nodes": "there is one service, not three",
    "heartbeatctl drain": "there is one service, not three",
    "etcdctl": "there may be no etcd; test_backup.py restores one as the page does",
    "mv /var/lib/heartbeat-etcd": "there is no etcd",
    "chown -R etcd": "there is no etcd",
}

READY = "heartbeat service ready"
#: What goes on until it is stopped, by how it begins, and what it prints once it runs.
GOES_ON = {
    "make run": READY,
    ".venv/bin/heartbeat-service": READY,
    "/opt/heartbeat-service/bin/python examples/watch.py": "^connected",
    "runuser -u heartbeat -- /opt/heartbeat-service/bin/heartbeat-service": READY,
    "heartbeat-service --store memory:": READY,
    "heartbeatctl events": "may be wrong",
    ".venv/bin/python examples/watch.py": "^connected",
    # With its second beat what it subscribed to has got to the service.
    ".venv/bin/python examples/plain_client.py": "HEARTBEAT.*UNCALIBRATED",
    ".venv/bin/heartbeat-client": "UNCALIBRATED",
    "/opt/heartbeat-service/bin/heartbeat-client": "UNCALIBRATED",
}

#: Folders of a real installation, and where they are in the copy.
FOLDERS = {
    "/opt/heartbeat-service/": "/.venv/",
    "/etc/": "/etc/",
    "/var/lib/": "/var/lib/",
}
#: Names, users and addresses, and which stand for them: this user, and loopback.
INSTEAD = {
    "runuser -u heartbeat -- ": "",
    "-o heartbeat": f"-o {os.getuid()}",
    "-g heartbeat": f"-g {os.getgid()}",
    "show-server.local": "localhost",
    "0.0.0.0": "127.0.0.1",  # noqa: S104 - it is what is taken out
    "tcp://*:": "tcp://127.0.0.1:",
}
PORTS = ("6969", "8765", "4321")

#: Programs that pages call, and that not each machine has.
MISSING = [name for name in ("curl", "openssl") if shutil.which(name) is None]

#: Precedes the line of a command in what the shell prints, and its exit status.
MARK = "@@@"
#: What the shell knows besides: a curl that fails where the service says no, unless the
#: page shows what it prints then; systemd's journal, which is what was logged; a way to
#: start what goes on. Services have the same ports: the next one ends the one before.
PRELUDE = f"""
trap 'trap "" TERM; kill 0; wait; exit' TERM
curl() {{ command curl -sS $strictly --max-time {PATIENCE} "$@"; }}
journalctl() {{ cat "$LOGS"/[0-9]*; }}
go_on() {{  # LINE PATTERN COMMAND
    if [ "$2" = "{READY}" ] && [ -n "$service" ]; then
        kill "$service"; wait "$service"
    fi 2>/dev/null
    eval "exec $3" >"$LOGS/$1" 2>&1 &
    [ "$2" != "{READY}" ] || service=$!
    until grep -qs -- "$2" "$LOGS/$1"; do
        kill -0 $! 2>/dev/null || {{ cat "$LOGS/$1"; return 1; }}
        sleep 0.05
    done
}}
"""


@frozen
class Block:
    """A block of a page: its kind, the number of its first line, its text."""

    kind: str
    line: int
    text: str


@frozen
class Command:
    """What is typed at a line; ``shown`` is what it prints, if the page says so."""

    line: int
    text: str
    shown: str | None = None

    def among(self, table: Mapping[str, str]) -> str | None:
        """The key of a table by which it begins."""
        return next((key for key in table if self.text.startswith(key)), None)


def blocks_of(page: Path) -> list[Block]:
    """The fenced blocks of a page."""
    blocks: list[Block] = []
    lines = enumerate(page.read_text("utf-8").splitlines(), 1)
    for number, line in lines:
        if fence := re.fullmatch(r"```(\w*)", line):
            inside = itertools.takewhile(lambda each: each[1] != "```", lines)
            text = "\n".join(each for _, each in inside)
            blocks.append(Block(fence[1], number + 1, text))
        assert fence or not line.strip().startswith("```"), f"{page}, line {number}"
    return blocks


def commands_of(block: Block) -> Iterator[Command]:
    """What is typed in a block, if it is one of commands."""
    if block.kind not in {"sh", "console"}:
        return
    session = block.kind == "console"
    lines = [*enumerate(block.text.splitlines(), block.line)]
    while lines:
        number, text = lines.pop(0)
        assert text.startswith("$ ") or not session, f"line {number}: {text}"
        text = text.removeprefix("$ ")
        while not is_whole(text):
            text += "\n" + lines.pop(0)[1]
        shown: list[str] = []
        while session and lines and not lines[0][1].startswith("$ "):
            shown.append(lines.pop(0)[1])
        if shlex.split(text, comments=True):
            yield Command(number, text, "\n".join(shown) if session else None)


def is_whole(text: str) -> bool:
    """Whether a command ends here, not within quotes or behind a backslash."""
    try:
        shlex.split(text, comments=True)
    except ValueError:
        return False
    return True


def shape(text: str) -> str:
    """A text without what differs each time: UUIDs, times, numbers but for statuses."""
    random = r"\b\w{8}-\w{4}-\w{4}-\w{4}-\w{12}\b|\b\w{3}, \d\d \w{3} \d{4} [\d:]+ GMT"
    # Of a time that isn't today's the date is shown, too, as around midnight.
    time = r"(?:\d{4}-\d\d-\d\d[ T])?\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d{4})?"
    number = r'(?<![\d.])(?<!HTTP/1\.1 )(?<!"status":)\d+(?:\.\d+)*(?:e-?\d+)?'
    text = re.sub(f"{random}|{time}|{number}", "#", text)
    text = re.sub(" {2,}", "  ", text)  # a column is as wide as what is in it
    return "\n".join(line.strip() for line in text.strip().splitlines())


def dense(text: str) -> str:
    """The shape of JSON, however it is laid out."""
    return "".join(shape(text).split())


@frozen
class Copy:
    """A copy of the project, and of the folders around it, with ports of its own."""

    folder: Path
    ports: Mapping[str, str]

    def localised(self, text: str) -> str:
        """What a page says, as it has to be said here."""
        for there, here in FOLDERS.items():
            text = text.replace(there, f"{self.folder}{here}")
        for there, here in INSTEAD.items():
            text = text.replace(there, here)
        return self.with_ports(text)

    def with_ports(self, text: str) -> str:
        """With this copy's ports in place of the real ones."""
        real = rf"\b({'|'.join(PORTS)})\b"
        return re.sub(real, lambda port: self.ports[port[0]], text)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    folder = tmp_path_factory.mktemp("copy")
    ports = dict(zip(PORTS, map(str, free_ports(len(PORTS))), strict=True))
    made = Copy(folder, ports)
    without = shutil.ignore_patterns("__pycache__", "dropin.cache")
    for name in ("deploy", "examples", "heartbeat_service", "tac", "twisted"):
        shutil.copytree(ROOT / name, folder / name, ignore=without)
    for file in folder.rglob("*.py"):
        file.write_text(made.with_ports(file.read_text("utf-8")), "utf-8")
    for file in (*ROOT.glob("*.txt"), ROOT / "pyproject.toml", ROOT / "Makefile"):
        shutil.copy(file, folder)
    for name in ("etc", "var/lib", "home", ".venv"):
        folder.joinpath(name).mkdir(parents=True)
    for file in Path(sys.prefix).iterdir():
        folder.joinpath(".venv", file.name).symlink_to(file)
    # What make would install is there, and is the real one.
    touch = ["make", "--touch", "--silent", "run", "dist"]
    subprocess.run(touch, cwd=folder, check=True)
    return made


def script_of(blocks: list[Block], copy: Copy) -> tuple[str, list[Command]]:
    """A page as a script for the shell, and the commands that it runs."""
    script, run = [PRELUDE], []
    for block in blocks:
        if block.kind == "toml":
            name = block.text.splitlines()[0].removeprefix("# ")
            file = f"cat >{name} <<'END'\n{block.text}\nEND"
            script.append(copy.localised(file))
        for command in commands_of(block):
            if command.among(NOT_HERE):
                continue
            run.append(command)
            text = copy.localised(command.text)
            key = command.among(GOES_ON)
            if key and command.shown is None:
                words = (str(command.line), GOES_ON[key], text)
                text = f"go_on {shlex.join(words)}"
            strictly = "--fail-with-body" if command.shown is None else ""
            script.append(f"strictly={strictly}; echo; echo {MARK} {command.line}")
            script.append(f"{text}\nstatus=$?; echo; echo {MARK} status $status")
            if strictly:
                script.append("[ $status = 0 ] || exit")
    return "\n".join([*script, f"sleep infinity & echo {MARK} end; wait"]), run


@contextmanager
def running(script: str, copy: Copy, logs: Path) -> Iterator[Callable[[], bool]]:
    """Run a script, then end all that it started; tells whether it is at its end.

    What it prints is in the file ``shell`` of that folder; what goes on has files.
    """
    logs.mkdir()
    output = logs / "shell"
    environment = {
        "HOME": str(copy.folder / "home"),
        "LOGS": str(logs),
        "PYTHONPATH": str(copy.folder),
        "ARGS": "--timebomb 4 --interval 1",  # of make run: so deaths come soon
    }
    with output.open("w") as file:
        shell = subprocess.Popen(
            # It must not outlive a test run that is killed.
            ["setpriv", "--pdeathsig", "TERM", "bash", "-c", script],
            cwd=copy.folder,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield (
            lambda: (
                shell.poll() is not None or f"{MARK} end" in output.read_text("utf-8")
            )
        )
    finally:
        with suppress(ProcessLookupError):
            os.killpg(shell.pid, signal.SIGTERM)
        shell.wait(PATIENCE)


def wait_until(holds: Callable[[], bool]) -> bool:
    """Whether it came true, in the time that a slow machine may take."""
    deadline = time.monotonic() + 4 * PATIENCE
    while not (held := holds()) and time.monotonic() < deadline:
        time.sleep(0.05)  # other processes are at work, this one's reactor is not
    return held


@pytest.mark.skipif(bool(MISSING), reason=f"pages call {MISSING}, which isn't here")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_a_page_tells_to_type_works(
    page: Path, copy: Copy, tmp_path: Path
) -> None:
    blocks = blocks_of(page)
    assert {block.kind for block in blocks} <= KINDS
    script, commands = script_of(blocks, copy)
    logs = tmp_path / "logs"

    def printed() -> str:
        return "\n".join(file.read_text("utf-8") for file in logs.iterdir())

    with running(script, copy, logs) as ended:
        assert wait_until(ended), f"{page.name} never comes to its end:\n{printed()}"
        for command in commands:
            check_command(command, page, copy, logs.joinpath("shell").read_text())
        for block in blocks:
            check_block(block, page, copy, printed)


def check_command(command: Command, page: Path, copy: Copy, output: str) -> None:
    """It was run, and did or printed what it should."""
    at = f"{page.name}, line {command.line}: {command.text}"
    pattern = rf"^{MARK} {command.line}\n(.*?)^{MARK} status (\d+)$"
    found = re.search(pattern, output, re.MULTILINE | re.DOTALL)
    assert found, f"{at}\nwas not run, or never ended:\n{output}"
    if command.shown is None:
        assert found[2] == "0", f"{at}\n{found[1]}"
    else:
        assert shape(found[1]) == shape(copy.localised(command.shown)), at


def check_block(
    block: Block, page: Path, copy: Copy, printed: Callable[[], str]
) -> None:
    """What isn't typed is read by the program, or was printed by one."""
    at = f"{page.name}, line {block.line}"
    if block.kind == "toml":
        name = copy.localised(block.text.splitlines()[0].removeprefix("# "))
        if name == "~/.config/heartbeatctl.toml":
            folder = copy.folder / "home" / ".config"
            assert read_settings({}, {"XDG_CONFIG_HOME": str(folder)})
        else:
            Options().parseOptions(["--config", name])
    elif block.kind == "json" and json.loads(block.text)["messageType"] in REQUESTS:
        decode_request(block.text.encode())
    elif block.kind == "json":
        decode_from_server(block.text.encode())
        assert wait_until(lambda: dense(block.text) in dense(printed())), (
            f"{at} was printed by nobody:\n{printed()}"
        )
    elif not block.kind:
        lines = shape(copy.localised(block.text)).splitlines()
        assert wait_until(lambda: all(line in shape(printed()) for line in lines)), (
            f"{at} was printed by nobody:\n{printed()}"
        )


def test_what_is_not_run_is_still_told() -> None:
    typed = [
        command
        for page in PAGES
        for block in blocks_of(page)
        for command in commands_of(block)
    ]
    for table in (NOT_HERE, GOES_ON):
        assert {command.among(table) for command in typed} >= set(table)
