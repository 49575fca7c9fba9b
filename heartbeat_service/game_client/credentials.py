"""What a game client shows to a guarded server, and what it trusts; from files."""

from __future__ import annotations

import re
from pathlib import Path

from attrs import field, frozen
from OpenSSL.crypto import Error as OpenSSLError
from twisted.internet.ssl import Certificate

from heartbeat_service.host.files import UnreadableFile, read_file, read_secret
from heartbeat_service.zeromq.keys import BadKeys, ClientKeys, read_pair, read_public

_CERTIFICATE = re.compile(
    b"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL
)
_TOKEN = re.compile(r"[!-~]+")


class BadCredentials(Exception):
    """A file that holds nothing of use; the text names it."""


@frozen
class Credentials:
    """What opens a server's doors.

    :ivar authorities: whose certificates are good; without any, the system's list.
    :ivar token: goes with each heartbeat.
    :ivar keys: for ZeroMQ's encryption.
    """

    authorities: tuple[Certificate, ...] = ()
    token: str | None = field(default=None, repr=False)
    keys: ClientKeys | None = None


#: For a server that is open to anyone.
NO_CREDENTIALS = Credentials()


def read_authorities(path: str) -> tuple[Certificate, ...]:
    """The certificates in a PEM file.

    :raises BadCredentials: if there are none.
    """
    try:
        found = _CERTIFICATE.findall(read_file(path))
        certificates = tuple(Certificate.loadPEM(pem) for pem in found)
    except (UnreadableFile, OpenSSLError) as error:
        raise BadCredentials(f"{path}: {error}") from None
    if not certificates:
        raise BadCredentials(f"{path}: no PEM certificate in it")
    return certificates


def read_token(path: str) -> str:
    """The one token in a file; a file that others can read is warned of.

    :raises BadCredentials: if there is none, or more than one word.
    """
    try:
        token = read_secret(path).decode("utf-8").strip()
    except ValueError as error:
        raise BadCredentials(f"{path}: {error}") from None
    if not _TOKEN.fullmatch(token):  # and not a part of it is shown
        raise BadCredentials(f"{path}: expected one token, without spaces, in it")
    return token


def read_keys(own: str, server: str) -> ClientKeys:
    """The keys in a client's ``.key_secret`` file and in the server's ``.key`` file.

    :raises BadCredentials: if they can't be used.
    """
    try:
        return ClientKeys(read_pair(Path(own)), read_public(Path(server)))
    except BadKeys as error:
        raise BadCredentials(str(error)) from None
