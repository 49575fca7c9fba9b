"""The operators' page: the files of ``page/``, read once and handed out as they are.

They hold nothing secret and need no token; what the page shows, it asks of the other
routes. Each has an ETag made of its content, so a browser asks again each time and is
sent a file anew only when it is another, and each is packed once, for browsers that
unpack. Knows no client and no other route.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Mapping
from hashlib import sha256
from http import HTTPStatus
from importlib.resources import files
from pathlib import PurePath
from types import MappingProxyType

from attrs import frozen
from twisted.web.iweb import IRequest
from werkzeug.exceptions import NotFound

#: What ``GET /`` answers with.
INDEX = "index.html"

#: Of its files, by what their names end with.
TYPES: Mapping[str, bytes] = MappingProxyType(
    {
        ".css": b"text/css; charset=utf-8",
        ".html": b"text/html; charset=utf-8",
        ".js": b"text/javascript; charset=utf-8",
        ".svg": b"image/svg+xml",
    }
)

#: What goes with each file (contract, section 3a), and with an error in its place:
#: nothing of anybody else's is loaded, and nobody else shows the page within theirs.
HEADERS: Mapping[bytes, bytes] = MappingProxyType(
    {
        b"Content-Security-Policy": (
            b"default-src 'none'; script-src 'self'; style-src 'self'; "
            b"connect-src 'self'; img-src 'self'; base-uri 'none'; "
            b"frame-ancestors 'none'; form-action 'none'"
        ),
        b"Referrer-Policy": b"no-referrer",
        b"X-Content-Type-Options": b"nosniff",
        b"Cache-Control": b"no-cache",
    }
)

#: What a coding has behind it that is not to be used.
_NEVER = re.compile(rb"q\s*=\s*0(\.0*)?")


@frozen
class PageFile:
    """A file, ready to be sent.

    :ivar packed: its content as ``gzip`` has it.
    :ivar digest: of its content, what its entity tags are made of.
    """

    content: bytes
    packed: bytes
    content_type: bytes
    digest: bytes

    @classmethod
    def of(cls, content: bytes, content_type: bytes) -> PageFile:
        """A file with that in it."""
        digest = sha256(content).hexdigest()[:32].encode()
        packed = gzip.compress(content, mtime=0)
        return cls(content, packed, content_type, digest)

    def answer(self, request: IRequest) -> bytes:
        """Answer with it, or that the browser has it already."""
        request.responseHeaders.addRawHeader(b"Vary", b"Accept-Encoding")
        packs = _unpacks(request.getHeader(b"accept-encoding") or b"")
        # What is packed is another representation (RFC 9110, section 8.8.3.3).
        etag = b'"%s%s"' % (self.digest, b"-gzip" if packs else b"")
        request.setHeader(b"ETag", etag)
        if etag in _known_tags(request):
            request.setResponseCode(HTTPStatus.NOT_MODIFIED)
            return b""
        if packs:
            request.setHeader(b"Content-Encoding", b"gzip")
        content = self.packed if packs else self.content
        request.setHeader(b"Content-Type", self.content_type)
        request.setHeader(b"Content-Length", b"%d" % len(content))
        return content


class Pages:
    """The files of the page by name; those of a kind that it doesn't need are left."""

    def __init__(self) -> None:
        self._files = {
            file.name: PageFile.of(file.read_bytes(), TYPES[_suffix(file.name)])
            for file in files("heartbeat_service.web").joinpath("page").iterdir()
            if _suffix(file.name) in TYPES
        }

    @property
    def names(self) -> frozenset[str]:
        """All that ``/page/…`` may be asked for."""
        return frozenset(self._files)

    def read(self, name: str) -> PageFile:
        """One of them.

        :raises NotFound: if there is none of that name.
        """
        try:
            return self._files[name]
        except KeyError:
            raise NotFound from None

    def answer(self, request: IRequest, name: str) -> bytes:
        """Answer with a file, or that the browser has it already.

        :raises NotFound: if there is none of that name.
        """
        return self.read(name).answer(request)


def _suffix(name: str) -> str:
    return PurePath(name).suffix


def is_of_page(path: bytes) -> bool:
    """Whether what is answered to that path goes with :data:`HEADERS`, errors too."""
    return path == b"/" or path.startswith(b"/page/")


def _unpacks(accepted: bytes) -> bool:
    """Whether a browser says that it unpacks what ``gzip`` has packed.

    It may also say how much it likes to, and that with 0 it doesn't (RFC 9110,
    section 12.5.3).
    """
    for coding in accepted.lower().split(b","):
        name, *parameters = (part.strip() for part in coding.split(b";"))
        if name == b"gzip":
            return not any(_NEVER.fullmatch(each) for each in parameters)
    return False


def _known_tags(request: IRequest) -> set[bytes]:
    """The tags that a browser has; a proxy that compresses makes them weak ones."""
    tags: bytes = request.getHeader(b"if-none-match") or b""
    return {tag.strip().removeprefix(b"W/") for tag in tags.split(b",")}
