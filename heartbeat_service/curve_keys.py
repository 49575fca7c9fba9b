"""``heartbeat-curve-keys``: makes the keys for ``--curve-keys``.

The server's own pair, or a pair for one more client. Never overwrites a file.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports, which take their time
    from heartbeat_service.host.starting import end_by_interrupt

    end_by_interrupt()

import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from twisted.python import usage
from typing_extensions import override
from zmq.auth import create_certificates

from heartbeat_service.command_line import CommandLine, program, say
from heartbeat_service.protocol.scope import Scope
from heartbeat_service.zeromq.keys import SERVER, BadKeys, read_public

#: Writes a new file: its path, its content, its mode.
_Write = Callable[[Path, bytes, int], None]

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@-]{0,63}", re.ASCII)


class Options(CommandLine):
    """Options of the program.

    :ivar folder: the server's keys.
    :ivar out: what is carried to the client's machine.
    """

    synopsis = "DIR [--client NAME [--clients IDS] [--out FOLDER]]"
    longdesc = (
        "Makes the server's pair of keys in DIR, if there is none; with --client, "
        "a client's: its public key in DIR, its secret one and the server's public "
        "one in FOLDER, to be carried to the client's machine."
    )
    folder: Path
    out: Path

    optParameters = [  # noqa: RUF012 - usage.Options wants a list
        ["client", None, None, "The ID of a client, to make its pair [the server's]"],
        [
            "clients",
            None,
            None,
            "IDs and patterns (wall-*) that it speaks for, too [none]",
        ],
        ["out", None, None, "Where the client's files go [./NAME]"],
    ]

    @override
    def parseArgs(self, *folders: str) -> None:
        """Take the one argument."""
        if len(folders) != 1 or not folders[0]:
            raise usage.UsageError(
                f"DIR: expected one folder, of the server's keys, got {list(folders)}"
            )
        self.folder = Path(folders[0])

    @override
    def postOptions(self) -> None:
        """Check what was given."""
        name = self["client"]
        if name is None:
            for option in ("out", "clients"):
                if self[option]:
                    raise usage.UsageError(f"--{option}: only with --client")
            return
        if not _NAME.fullmatch(name) or name == SERVER:
            raise usage.UsageError(
                "--client: expected a name of A-Z a-z 0-9 . _ @ - other than "
                f"{SERVER!r}, got {name!r}"
            )
        if self["clients"]:
            try:
                Scope.parse(self["clients"])
            except ValueError as error:
                raise usage.UsageError(f"--clients: {error}") from None
        self.out = Path(self["out"] or name)
        if _is_same(self.out, self.folder):
            raise usage.UsageError(
                "--out: a client's secret has no place at the server"
            )


def _is_same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:  # one of them isn't there, or can't be used: that is told later
        return False


def make_server_keys(folder: Path) -> None:
    """Make the server's pair.

    :raises FileExistsError: if one of its files is there.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _all_or_none() as write:
        public, secret = folder / f"{SERVER}.key", folder / f"{SERVER}.key_secret"
        _make_pair(SERVER, public, secret, write)


def make_client_keys(folder: Path, name: str, out: Path, clients: str = "") -> None:
    """Make a client's pair, which the server with this folder will let in.

    :param clients: whom it may speak for besides the client of that name.
    :raises BadKeys: if the folder holds no server's key.
    :raises FileExistsError: if there is such a client, or what ``out`` holds differs.
    """
    server = folder / f"{SERVER}.key"
    if not server.exists():
        first = f"make the server's pair first: {program()} {folder}"
        raise BadKeys(f"{server}: it isn't there; {first}")
    read_public(server)
    copy = out / server.name
    copied = copy.exists()
    if copied and copy.read_bytes() != server.read_bytes():
        raise FileExistsError(f"{copy}: it is there already, of another server")
    out.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _all_or_none() as write:
        public, secret = folder / f"{name}.key", out / f"{name}.key_secret"
        _make_pair(name, public, secret, write, clients)
        if not copied:
            write(copy, server.read_bytes(), 0o644)


def _make_pair(
    name: str, public: Path, secret: Path, write: _Write, clients: str = ""
) -> None:
    for path in (public, secret):
        if path.exists():
            raise FileExistsError(f"{path}: it is there already")
    # Nobody else can look into this folder, and it is on the same disk.
    with TemporaryDirectory(dir=secret.parent) as made:
        made_public, made_secret = map(Path, create_certificates(made, name))
        write(secret, made_secret.read_bytes(), 0o600)
        listed = f"# clients: {clients}\n".encode() if clients else b""
        write(public, listed + made_public.read_bytes(), 0o644)


@contextmanager
def _all_or_none() -> Iterator[_Write]:
    """A way to write new files, which are gone again if one can't be written.

    Half a pair would be of no use, and be in the way of the next try.
    """
    with ExitStack() as undo:

        def write(path: Path, content: bytes, mode: int) -> None:
            # It has that mode before it has any content.
            path.touch(mode, exist_ok=False)
            undo.callback(path.unlink)
            path.write_bytes(content)

        yield write
        undo.pop_all()


def main() -> None:
    """Run the program."""
    options = Options()
    arguments = sys.argv[1:]
    if arguments and not arguments[0].startswith("-"):
        arguments.append(arguments.pop(0))  # usage.Options wants options first
    options.parseOptions(arguments)
    with _signals_wait():
        say(_make(options))


@contextmanager
def _signals_wait() -> Iterator[None]:
    """What would end the program does so afterwards: half a pair is of no use."""
    ending = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    former = signal.pthread_sigmask(signal.SIG_BLOCK, ending)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)


def _make(options: Options) -> str:
    try:
        if options["client"] is None:
            return _server(options.folder)
        listed = options["clients"] or ""
        return _client(options.folder, options["client"], options.out, listed)
    except (OSError, BadKeys) as error:
        raise SystemExit(f"No keys were made: {error}") from None


def _server(folder: Path) -> str:
    public, secret = folder / f"{SERVER}.key", folder / f"{SERVER}.key_secret"
    if public.exists() and secret.exists():
        return f"{folder} has the server's keys already; they stay as they are."
    make_server_keys(folder)
    return (
        f"{public}         the server's public key; clients get copies\n"
        f"{secret}  its secret one, which never leaves the server\n"
        f"Start the service with --curve-keys {folder}, as the user who owns them."
    )


def _client(folder: Path, name: str, out: Path, clients: str) -> str:
    make_client_keys(folder, name, out, clients)
    return (
        f"{folder / name}.key  stays at the server, which lets {name} in by it\n"
        f"  The clients that it speaks for: {' '.join([name, *clients.split()])}\n"
        f"{out / name}.key_secret and {out / SERVER}.key\n"
        f"  belong on the machine of {name}: carry them there, and keep no copy\n"
        "A running service reads its clients' keys again on SIGHUP."
    )


if __name__ == "__main__":
    main()
