"""Who may use which routes: tokens, and where they are read from.

Knows tokens, headers and addresses; knows no route. No token is ever logged or
put into an error.
"""

from __future__ import annotations

import hmac
import re
from ipaddress import ip_address
from typing import Any

from twisted.internet.address import UNIXAddress
from twisted.logger import Logger

from heartbeat_service.core.errors import Unauthorized
from heartbeat_service.host.files import UnreadableFile, read_secret

_TOKEN = re.compile(rb"[!-~]+")
_BEARER = re.compile(rb"bearer +([!-~]+) *", re.IGNORECASE)

#: What operators are told by a service that strangers can reach and that has no
#: token for them.
OPEN_CONTROL = (
    "This service listens beyond its own machine and has no operator token: "
    "start it with --operator-token-file, or with --allow-open-control"
)


class TokenFileError(ValueError):
    """A token file that can't be used; the text says why and shows no token."""


class TokenFile:
    """The tokens of a file, one a line.

    Each of them is good, so that they can be changed without a gap.

    :param path: the file's.
    :raises TokenFileError: if it can't be used.
    """

    _log = Logger()

    def __init__(self, path: str) -> None:
        self._path = path
        self._tokens = _read_tokens(path)

    def reload(self) -> None:
        """Read the file again; one that can't be used changes nothing."""
        try:
            self._tokens = _read_tokens(self._path)
        except TokenFileError as error:
            self._log.error("{error}; the former tokens stay good", error=error)
        else:
            self._log.info(
                "{path}: {count} tokens are good now",
                path=self._path,
                count=len(self._tokens),
            )

    def accepts(self, token: bytes) -> bool:
        """Whether it is one of them; how long that takes tells nothing of it."""
        known = False
        for good in self._tokens:
            known |= hmac.compare_digest(good, token)
        return known


class Door:
    """What a request must show to get at some routes.

    :param tokens: those that open it; None if it is open to anyone.
    :ivar shut: why it opens to nobody; None if it may open.
    """

    def __init__(self, tokens: TokenFile | None = None) -> None:
        self._tokens = tokens
        self.shut: str | None = None

    def admit(self, authorization: bytes | None) -> None:
        """Let a request pass.

        :param authorization: its header of that name.
        :raises Unauthorized: if it may not.
        """
        if self.shut is not None:
            raise Unauthorized(self.shut)
        if self._tokens is None:
            return
        bearer = _BEARER.fullmatch(authorization or b"")
        if bearer is None:
            raise Unauthorized("A token is needed here: Authorization: Bearer TOKEN")
        if not self._tokens.accepts(bearer[1]):
            raise Unauthorized("This token is not good here")


def is_local(address: Any) -> bool:
    """Whether only this machine can reach what listens there."""
    if isinstance(address, UNIXAddress):
        return True
    try:
        return ip_address(address.host).is_loopback
    except (AttributeError, ValueError):
        return False  # whatever it is, nobody knows it to be safe


def _read_tokens(path: str) -> list[bytes]:
    try:
        tokens = read_secret(path).splitlines()
    except UnreadableFile as error:
        raise TokenFileError(f"{path}: {error}") from None
    if not tokens:
        raise TokenFileError(f"{path}: there is no token in it")
    for number, token in enumerate(tokens, 1):
        if not _TOKEN.fullmatch(token):
            raise TokenFileError(
                f"{path}: line {number} is no token: visible ASCII characters only"
            )
    return tokens
