"""Files of keys for ZeroMQ's encryption, and whom each key speaks for.

Key files are pyzmq's certificates: ``NAME.key`` holds a public key,
``NAME.key_secret`` the whole pair. A key speaks for the client that its file is named
after, and for those that a line ``# clients: …`` in it lists (contract, section 6).
Knows nothing of connections.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zmq
from attrs import field, frozen
from twisted.logger import Logger

from heartbeat_service.host.files import read_file, read_secret
from heartbeat_service.protocol.scope import NOBODY, Scope

#: The name of the server's own key files.
SERVER = "server"

_log = Logger()
_KEY = re.compile(r"[0-9A-Za-z.:+=^!/*?&<>()\[\]{}@%$#-]{40}")  # Z85, 32 bytes
_KEY_LINE = re.compile(r"""\s*(public|secret)-key\s*=\s*["']?([^"']*?)["']?\s*""")
_CLIENTS_LINE = re.compile(r"\s*#\s*clients:(.*)")


class BadKeys(Exception):
    """Keys that can't be used; the text names the file."""


@frozen
class KeyPair:
    """A public key and its secret one."""

    public: bytes
    secret: bytes = field(repr=False)


@frozen
class ClientKeys:
    """What a client needs: a pair of its own, and the server's public key."""

    own: KeyPair
    server: bytes

    def protect(self, socket: zmq.Socket[Any]) -> None:
        """Make it a CURVE client; before it connects."""
        socket.set(zmq.CURVE_PUBLICKEY, self.own.public)
        socket.set(zmq.CURVE_SECRETKEY, self.own.secret)
        socket.set(zmq.CURVE_SERVERKEY, self.server)


def read_public(path: Path) -> bytes:
    """The public key in a file.

    :raises BadKeys: if there is none.
    """
    return _read(path, read_file).public


def read_pair(path: Path) -> KeyPair:
    """The pair in a ``.key_secret`` file; a file that others can read is warned of.

    :raises BadKeys: if there is none.
    """
    file = _read(path, read_secret)
    if file.secret is None:
        raise BadKeys(f"{path}: there is no secret key in it")
    if zmq.curve_public(file.secret) != file.public:
        raise BadKeys(f"{path}: its two keys are no pair")
    return KeyPair(file.public, file.secret)


def read_server_pair(folder: Path) -> KeyPair:
    """The server's own pair in a folder of keys.

    :raises BadKeys: if it isn't there, or its two files disagree.
    """
    pair = read_pair(folder / f"{SERVER}.key_secret")
    if read_public(folder / f"{SERVER}.key") != pair.public:
        raise BadKeys(f"{folder / SERVER}.key: not the key of {SERVER}.key_secret")
    return pair


def read_clients(folder: Path) -> dict[bytes, Scope]:
    """The public keys of the clients in a folder of keys, and whom each speaks for.

    Says in the log which of them speak for anybody or for nobody.

    :raises BadKeys: if the folder or one of its keys can't be read.
    """
    try:
        paths = [path for path in folder.iterdir() if path.suffix == ".key"]
    except OSError as error:
        raise BadKeys(str(error)) from None
    clients: dict[bytes, Scope] = {}
    for path in sorted(paths):
        if path.stem == SERVER:
            continue
        file = _read(path, read_file)
        scope = file.clients | Scope.of(path.stem)
        if scope.is_everybody():
            _log.info("the key {name!r} may speak for any client", name=path.name)
        elif scope == NOBODY:
            _log.info(
                "the key {name!r} names no client: it may subscribe, and ask nothing",
                name=path.name,
            )
        # One key in two files speaks for the clients of both.
        clients[file.public] = clients.get(file.public, NOBODY) | scope
    return clients


@frozen
class _KeyFile:
    public: bytes
    secret: bytes | None = field(repr=False)
    clients: Scope


def _read(path: Path, read: Callable[[Path], bytes]) -> _KeyFile:
    try:
        return _parse(read(path))
    except ValueError as error:
        raise BadKeys(f"{path}: {error}") from None


def _parse(content: bytes) -> _KeyFile:
    # Not by pyzmq's load_certificate, which opens the file by itself and passes its
    # comments over: a key and its clients have to be of one reading.
    keys: dict[str, bytes] = {}
    clients = NOBODY
    for one in content.splitlines():
        line = one.decode("utf-8", "surrogateescape")
        if match := _CLIENTS_LINE.fullmatch(line):
            clients |= _listed(match[1])
        elif match := _KEY_LINE.fullmatch(line):
            kind, key = match.groups()
            if not _KEY.fullmatch(key):
                raise ValueError(f"its {kind} key is none")
            keys[kind] = key.encode()
    if "public" not in keys:
        raise ValueError("there is no public key in it")
    return _KeyFile(keys["public"], keys.get("secret"), clients)


def _listed(words: str) -> Scope:
    try:
        return Scope.parse(words)
    except ValueError as error:
        raise ValueError(f"after `clients:` {error}") from None
