"""What the clients of a cluster write down, a line each, and the judge reads."""

from __future__ import annotations

import msgspec
from msgspec import Struct

#: Incarnation and sequence: a place in the order of all that happens to a client.
Pair = tuple[int, int]

GONE = "DISCONNECTED"


class Word(Struct, frozen=True, array_like=True):
    """What was said of a client."""

    incarnation: int
    sequence: int
    state: str

    @property
    def pair(self) -> Pair:
        """Its place in the order."""
        return self.incarnation, self.sequence


class Shown(Struct, frozen=True, array_like=True):
    """A client in a listing.

    :ivar age: seconds since its last heartbeat; None if that node doesn't know.
    """

    word: Word
    age: float | None


class Record(Struct, omit_defaults=True):
    """Something that was heard.

    :ivar at: when, by the monotonic clock of this machine.
    :ivar kind: ``beat``, ``set``, ``get``, ``bye``, ``steer``, ``grant`` and ``kick``
        are answers, or say that none came; ``published``, ``event``, ``notice`` and
        ``reset`` came from a node by itself, ``list`` is its listing; ``over`` says
        that a client's life is ended on purpose, ``silent`` that it won't beat again,
        ``stalled`` that the clients had no processor.
    :ivar node: who said it, if that is known.
    :ivar sent: when it was asked.
    :ivar code: of a refusal; or what came in place of an answer.
    :ivar life: the incarnation that was asked about; 0 for the present one.
    :ivar fuse: the client's, in seconds, as a beat was told; or the granted silence.
    :ivar number: of an event.
    :ivar seconds: that a stall took.
    """

    at: float
    kind: str
    client: str = ""
    node: str = ""
    sent: float = 0.0
    word: Word | None = None
    code: str = ""
    life: int = 0
    fuse: float = 0.0
    reason: str = ""
    number: int = 0
    seconds: float = 0.0
    shown: dict[str, Shown] | None = None


encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(Record).decode
