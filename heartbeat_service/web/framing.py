"""How a request's body is framed: only in ways that nobody on the way reads otherwise.

A proxy that takes a body's length, its coding or a header for another than the service
does can be made to see two requests where the service sees one (RFC 9112, section 11).
And a body may come in chunks, but not in so many that to take them apart is work. Knows
no connection, and nothing of what is asked.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from twisted.web.http import (
    Request,
    _ChunkedTransferDecoder,
    _MalformedChunkedDataError,
)
from typing_extensions import override

from heartbeat_service.core.errors import BadMessage
from heartbeat_service.web.problem import Problem

#: In how many chunks a body may come, besides one for each :data:`WORTH` bytes of
#: content: to take a chunk apart costs as much as these.
MAX_CHUNKS = 64
WORTH = 1024

#: By how many bytes the framing may be longer than the content.
MAX_FRAMING = 1024


class Chunks(_ChunkedTransferDecoder):
    """Takes chunks apart, as long as they are worth it."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._maxTrailerHeadersSize = MAX_FRAMING
        self._count = self._framing = self._content = 0

    @override
    def _dataReceived_CHUNK_LENGTH(self) -> bool:
        before = len(self._buffer)
        found = super()._dataReceived_CHUNK_LENGTH()
        if found:
            self._count += 1
            self._framing += before - len(self._buffer)
            self._content += self.length
            if (
                self._count > MAX_CHUNKS + self._content // WORTH
                or self._framing > self._content + MAX_FRAMING
            ):
                raise _MalformedChunkedDataError("It comes in too many pieces")
        return found


def is_well_framed(request: Request, version: bytes) -> bool:
    """Whether nobody on the way can take it for another request (RFC 9112)."""
    values = request.requestHeaders.getRawHeaders
    hosts = values(b"Host", ())
    codings = values(b"Transfer-Encoding", ())
    return (
        len(hosts) <= 1
        and len(values(b"Authorization", ())) <= 1
        and (len(hosts) == 1 or version == b"HTTP/1.0")
        and (not codings or (len(codings) == 1 and version == b"HTTP/1.1"))
        and b"identity" not in map(bytes.lower, codings)
    )


def unread_coding(request: Request) -> Problem | None:
    """What is wrong with how a body is coded; None if it is taken as it is."""
    for coding in request.requestHeaders.getRawHeaders(b"Content-Encoding", ()):
        if coding.lower() != b"identity":
            return Problem(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                BadMessage.code,
                "A body is taken as it is, without a Content-Encoding",
            )
    return None
