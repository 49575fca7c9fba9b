"""Heads of requests that were read before, so that they aren't read again.

A client sends the same head with each beat, but for one that has another length. So a
head that was read and found plain is kept, with what was read: the next request that
begins with these very bytes is made of that. There is one parser, and nothing that is
one byte off passes for what it has read. Whether a request is let in depends on more
than its head, so that is asked each time. Knows no connection and no route.
"""

from __future__ import annotations

from attrs import frozen
from twisted.web.http_headers import Headers

#: How many heads are kept, and how long one may be, in bytes and in lines: 24 MiB at
#: the most, with what was read from them, as each line takes 200 bytes of its own. A
#: browser's beat has some 18 lines, and a proxy adds three or four.
MOST_HEADS = 4_096
LONGEST_HEAD = 1_024
MOST_LINES = 25

_END = b"\r\n\r\n"


@frozen
class Head:
    """What was read from a head.

    :ivar target: as it is in the request's first line, without an authority.
    :ivar length: of the body that follows, in bytes.
    """

    method: bytes
    target: bytes
    path: bytes
    headers: Headers
    length: int


class KnownHeads:
    """Those that were read before; all are forgotten when there are too many."""

    def __init__(self) -> None:
        self._heads: dict[bytes, Head] = {}

    def find(self, data: bytes) -> tuple[Head, bytes] | None:
        """The known head that ``data`` begins with, and its body.

        None if there is no such head, or if ``data`` is more or less than one request.
        """
        end = data.find(_END, 0, LONGEST_HEAD) + len(_END)  # 3 if there is none
        head = self._heads.get(data[:end])
        if head is None or len(data) != end + head.length:
            return None
        return head, data[end:]

    def add(self, data: bytes, head: Head) -> None:
        """Keep what was read from the head of ``data``, if all of it is there."""
        end = data.find(_END, 0, LONGEST_HEAD)
        if end < 0 or data.count(b"\r\n", 0, end) >= MOST_LINES:
            return
        if len(self._heads) >= MOST_HEADS:
            self._heads.clear()
        self._heads[data[: end + len(_END)]] = head
