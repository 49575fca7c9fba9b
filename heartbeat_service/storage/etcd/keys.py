"""The names of keys: what is found where under the prefix. Knows no values.

=========================== ==========================================================
``n/{session}``             a node that runs, bound to its session's lease
``c/{client}``              a client as it is; one that is dead for some days
``h/{session}``             the sessions that take over the clients of one that ended
``l/{client}/{incarnation}`` a life that ended
``o/{client}``              a lock-out
=========================== ==========================================================
"""

from __future__ import annotations

from enum import Enum

from attrs import frozen


class Kind(Enum):
    """What a key is about."""

    NODE = "n"
    CLIENT = "c"
    HEIRS = "h"
    LIFE = "l"
    LOCKOUT = "o"


_KINDS = {kind.value: kind for kind in Kind}


@frozen
class Key:
    """A key, taken apart.

    :ivar name: the client's or the session's.
    :ivar incarnation: of a life; 0 of all else.
    """

    kind: Kind
    name: str
    incarnation: int = 0


class Keys:
    """All keys of one service.

    :param prefix: what they begin with, without a slash at its end.
    :ivar all: what every key begins with.
    """

    def __init__(self, prefix: str) -> None:
        self.all = f"{prefix}/".encode()

    def node(self, session: str) -> bytes:
        """Where a node says that it runs."""
        return self._key(Kind.NODE, session)

    def client(self, client_id: str) -> bytes:
        """Where a client's record is."""
        return self._key(Kind.CLIENT, client_id)

    def heirs(self, session: str) -> bytes:
        """Where it is said who takes over the clients of a session that ended."""
        return self._key(Kind.HEIRS, session)

    def lives(self, client_id: str) -> bytes:
        """What the keys of a client's former lives begin with."""
        return self._key(Kind.LIFE, f"{client_id}/")

    def life(self, client_id: str, incarnation: int) -> bytes:
        """Where a former life is; they sort as they began."""
        return self.lives(client_id) + f"{incarnation:020d}".encode()

    def lockout(self, client_id: str) -> bytes:
        """Where it is said until when a client is kept out."""
        return self._key(Kind.LOCKOUT, client_id)

    def parse(self, key: bytes) -> Key | None:
        """What a key is about; None if it is none of ours."""
        parts = key.removeprefix(self.all).decode("utf-8", "replace").split("/")
        kind = _KINDS.get(parts[0])
        match parts[1:]:
            case [name] if kind is not None and kind is not Kind.LIFE:
                return Key(kind, name)
            case [name, number] if kind is Kind.LIFE and number.isdecimal():
                return Key(kind, name, int(number))
        return None

    def _key(self, kind: Kind, name: str) -> bytes:
        return self.all + f"{kind.value}/{name}".encode()
