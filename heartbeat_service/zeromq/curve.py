"""ZeroMQ's encryption at the server: who is let in. The files are read in ``keys.py``.

Knows nothing of messages.
"""

from __future__ import annotations

from pathlib import Path

import zmq
from twisted.logger import Logger
from txzmq import ZmqFactory
from typing_extensions import override
from zmq.utils import z85

from heartbeat_service.core.tally import is_time_to_tell
from heartbeat_service.protocol.scope import NOBODY
from heartbeat_service.zeromq.connection import HardenedConnection
from heartbeat_service.zeromq.keys import BadKeys, read_clients, read_server_pair

#: Where libzmq asks whether a key may come in (RFC 27).
ZAP_ADDRESS = "inproc://zeromq.zap.01"

#: What libzmq names when it asks; any name, as without one it lets everybody in
#: where nobody answers.
ZAP_DOMAIN = b"heartbeat"

#: How many refused keys are told of, one line each; after that only their number.
MOST_TOLD = 100


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
