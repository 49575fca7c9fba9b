"""Who may use which routes: tokens, what each is good for, where they are read from.

Knows tokens, headers and addresses; knows no route. No token is ever logged or
put into an error.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping
from hashlib import blake2b
from ipaddress import ip_address
from typing import Any

from attrs import frozen
from twisted.internet.address import UNIXAddress
from twisted.logger import Logger
from twisted.web.iweb import IRequest

from heartbeat_service.core.changes import LONGEST_NAME
from heartbeat_service.core.errors import Unauthorized
from heartbeat_service.host.files import read_secret
from heartbeat_service.protocol.scope import EVERYBODY, Scope

#: The shortest token, in characters.
SHORTEST_TOKEN = 16

_TOKEN = re.compile(rb"[!-~]{%d,}" % SHORTEST_TOKEN)
_BEARER = re.compile(rb"bearer +([!-~]+) *", re.IGNORECASE)

#: What operators are told by a service that strangers can reach and that has no
#: token for them.
OPEN_CONTROL = (
    "This service listens beyond its own machine and has no operator token: "
    "start it with --operator-token-file, or with --allow-open-control"
)


class TokenFileError(ValueError):
    """A token file that can't be used; the text says why and shows no token."""


@frozen
class Pass:
    """What a request that was let in may do.

    :ivar clients: whom it may speak for.
    :ivar name: which operator it is of; empty where that isn't known.
    """

    clients: Scope = EVERYBODY
    name: str = ""

    def must_speak_for(self, client_id: str) -> None:
        """Refuse what is said for a client that it isn't good for.

        :raises Unauthorized: if it isn't.
        """
        if client_id not in self.clients:
            raise Unauthorized(
                f"This token is not good for client {client_id}", client_id
            )


#: Makes a pass of what follows a token on its line; raises ValueError, whose text
#: shows nothing of it.
Grant = Callable[[str], Pass]


def client_pass(words: str) -> Pass:
    """What a client's token is good for: the client IDs that follow it."""
    return Pass(clients=Scope.parse(words))


def operator_pass(name: str) -> Pass:
    """What an operator's token is good for: anything, under the name that follows."""
    if not name.isprintable() or not 1 <= len(name) <= LONGEST_NAME:
        raise ValueError(f"expected a name of 1 to {LONGEST_NAME} printable characters")
    return Pass(name=name)


class TokenFile:
    """The tokens of a file, one a line, and what follows each.

    Each of them is good, so that they can be changed without a gap.

    :param path: the file's.
    :param grant: what a token with something behind it is good for; one with nothing
        behind it is good for all.
    :ivar first: the token of the first line.
    :raises TokenFileError: if it can't be used.
    """

    _log = Logger()

    def __init__(self, path: str, grant: Grant) -> None:
        self._path = path
        self._grant = grant
        self.first = b""
        self._passes = self._read()

    def reload(self) -> None:
        """Read the file again; one that can't be used changes nothing."""
        try:
            self._passes = self._read()
        except TokenFileError as error:
            self._log.error("{error}; the former tokens stay good", error=error)
        else:
            self._log.info(
                "{path}: {count} tokens are good now",
                path=self._path,
                count=len(self._passes),
            )

    def find(self, token: bytes) -> Pass | None:
        """What a token is good for; None if it is none of them.

        How long that takes tells nothing of the good ones: what is compared is
        digests that nobody outside this process can compute.
        """
        return self._passes.get(_digest(token))

    def _read(self) -> Mapping[bytes, Pass]:
        try:
            content = read_secret(self._path)
            passes = parse_tokens(content, self._grant)
        except ValueError as error:
            raise TokenFileError(f"{self._path}: {error}") from None
        self.first = content.split(maxsplit=1)[0]
        return passes


class Door:
    """What a request must show to get at some routes.

    :param tokens: those that open it; None if it is open to anyone.
    :ivar shut: why it opens to nobody; None if it may open.
    """

    def __init__(self, tokens: TokenFile | None = None) -> None:
        self._tokens = tokens
        self.shut: str | None = None

    @property
    def wants_token(self) -> bool:
        """Whether nobody passes without a token."""
        return self._tokens is not None

    def authorization(self) -> bytes:
        """What opens it: its first token's header; empty if it needs none."""
        return b"" if self._tokens is None else b"Bearer " + self._tokens.first

    def admit(self, authorization: bytes | None) -> Pass:
        """Let a request pass.

        :param authorization: its header of that name; see :func:`authorization_of`.
        :return: what it may do, now that it is in.
        :raises Unauthorized: if it may not pass.
        """
        if self.shut is not None:
            raise Unauthorized(self.shut)
        if self._tokens is None:
            return Pass()
        bearer = _BEARER.fullmatch(authorization or b"")
        if bearer is None:
            raise Unauthorized("A token is needed here: Authorization: Bearer TOKEN")
        found = self._tokens.find(bearer[1])
        if found is None:
            raise Unauthorized("This token is not good here")
        return found


def authorization_of(request: IRequest) -> bytes:
    """What a request shows at a door.

    Two such lines are one value with a comma in it (RFC 9110, 5.3), which opens none.
    """
    lines = request.requestHeaders.getRawHeaders(b"authorization", [])
    return b", ".join(lines)


def is_local(address: Any) -> bool:
    """Whether only this machine can reach what listens there."""
    if isinstance(address, UNIXAddress):
        return True
    try:
        return ip_address(address.host).is_loopback
    except (AttributeError, ValueError):
        return False  # whatever it is, nobody knows it to be safe


def parse_tokens(content: bytes, grant: Grant) -> dict[bytes, Pass]:
    """What each token in a file's content is good for, by the token's digest.

    :raises ValueError: if they can't be used; the text names the line.
    """
    passes: dict[bytes, Pass] = {}
    for number, line in enumerate(content.splitlines(), 1):
        token, space, rest = line.partition(b" ")
        if not _TOKEN.fullmatch(token):
            raise ValueError(
                f"line {number}: expected a token of at least {SHORTEST_TOKEN} "
                "visible ASCII characters"
            )
        digest = _digest(token)
        if digest in passes:  # is it good for these, for those or for both?
            raise ValueError(f"line {number}: the same token as in a line above")
        try:
            # What is no UTF-8 becomes characters that no grant takes.
            text = rest.decode("utf-8", "surrogateescape").strip(" ")
            passes[digest] = grant(text) if space else Pass()
        except ValueError as error:
            raise ValueError(f"line {number}: after the token {error}") from None
    if not passes:
        raise ValueError("there is no token in it")
    return passes


#: Of this process, so that no digest can be foreseen.
_DIGEST_KEY = secrets.token_bytes(32)


def _digest(token: bytes) -> bytes:
    return blake2b(token, key=_DIGEST_KEY, digest_size=32).digest()
