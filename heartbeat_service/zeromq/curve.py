"""ZeroMQ's encryption: key files, who is let in, and whom each key speaks for.

Key files are pyzmq's certificates: ``NAME.key`` holds a public key,
``NAME.key_secret`` the whole pair. A key speaks for the client that its file is named
after, and for those that a line ``# clients: …`` in it lists (contract, section 6).
Knows nothing of messages.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import zmq
from attrs import field, frozen
from twisted.logger import Logger
from txzmq import ZmqFactory
from typing_extensions import override
from zmq.utils import z85

from heartbeat_service.core.tally import is_time_to_tell
from heartbeat_service.host.files import read_file, read_secret
from heartbeat_service.protocol.scope import NOBODY, Scope
from heartbeat_service.zeromq.connection import HardenedConnection

#: The name of the server's own key files.
SERVER = "server"

#: Where libzmq asks whether a key may come in (RFC 27).
ZAP_ADDRESS = "inproc://zeromq.zap.01"

#: What libzmq names when it asks; any name, as without one it lets everybody in
#: where nobody answers.
ZAP_DOMAIN = b"heartbeat"

#: How many refused keys are told of, one line each; after that only their number.
MOST_TOLD = 100

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

    @property
    def options(self) -> dict[int, bytes]:
        """What makes a socket a CURVE client; before it connects."""
        return {
            zmq.CURVE_PUBLICKEY: self.own.public,
            zmq.CURVE_SECRETKEY: self.own.secret,
            zmq.CURVE_SERVERKEY: self.server,
        }

    def protect(self, connection: HardenedConnection) -> None:
        """Make it a CURVE client; before it connects."""
        for option, value in self.options.items():
            connection.socket.set(option, value)


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


class KeyCheck(HardenedConnection):
    """Tells libzmq which keys may come in: the ZAP handler of a CURVE server.

    libzmq asks it once for each connection that is made, so who is let in stays in
    until the connection ends. The key is the name that it gives to the connection;
    libzmq puts that into each message (``User-Id``), and whom the key speaks for is
    looked up then, so that a key that was taken off the list speaks for nobody.

    :param folder: the server's pair, and one public key a file for each client.
    :raises BadKeys: if they can't be used; nothing is open then.
    """

    socketType = zmq.ROUTER
    _log = Logger()

    def __init__(self, factory: ZmqFactory, folder: Path) -> None:
        self._folder = folder
        self._pair = read_server_pair(folder)
        self._clients = read_clients(folder)
        self._told: set[bytes] = set()
        self._refusals = 0
        super().__init__(factory)
        self.bind(ZAP_ADDRESS)

    def protect(self, connection: HardenedConnection) -> None:
        """Let only known keys connect to it; before it is bound."""
        connection.socket.set(zmq.CURVE_SERVER, 1)
        connection.socket.set(zmq.CURVE_SECRETKEY, self._pair.secret)
        connection.socket.set(zmq.ZAP_DOMAIN, ZAP_DOMAIN)
        # If nobody answers the question, nobody comes in.
        connection.socket.set(zmq.ZAP_ENFORCE_DOMAIN, 1)

    def reload(self) -> None:
        """Read the clients' keys again; if that fails, keep those there are."""
        try:
            self._clients = read_clients(self._folder)
        except BadKeys as error:
            self._log.error("keys not reloaded: --curve-keys: {error}", error=error)
            return
        self._told.clear()
        self._log.info("keys reloaded: {count} clients", count=len(self._clients))

    def speaks_for(self, key: str, client_id: str) -> bool:
        """Whether who shows this key may speak for this client, as the list is now.

        :param key: a public key (Z85).
        """
        return client_id in self._clients.get(key.encode(), NOBODY)

    @override
    def messageReceived(self, message: list[bytes]) -> None:
        """One question of libzmq (RFC 27), which always has these frames."""
        *envelope, version, number, _domain, address, _, _mechanism, key = message
        public = z85.encode(key)
        if public in self._clients:
            answer = [b"200", b"OK", public]
        else:
            self._refuse(public, address)
            # 300, "temporary": the client tries again, and may be known by then. After
            # a 400 libzmq's clients give up for good.
            answer = [b"300", b"Unknown key", b""]
        self.send_multipart([*envelope, version, number, *answer, b""])

    def _refuse(self, public: bytes, address: bytes) -> None:
        self._refusals += 1
        new = public not in self._told and len(self._told) < MOST_TOLD
        if new:
            self._told.add(public)
        if new or is_time_to_tell(self._refusals):
            self._log.warn(
                "refused the key {key} from {address}: if it is yours, put its .key "
                "file into --curve-keys {folder} and send SIGHUP; refusals so far: "
                "{count}",
                key=public.decode(),
                address=address.decode(errors="replace"),
                folder=str(self._folder),
                count=self._refusals,
            )
