"""Which Hosts and which Origins a service knows (contract, section 3).

A browser says with each request which page it comes from (``Origin``,
``Sec-Fetch-Site``), and which name it has asked for (``Host``). A page of another site
is refused by the first, and a page whose name was pointed at this service (DNS
rebinding) by the second. Programs send neither ``Origin`` nor ``Sec-Fetch-Site``.
Knows no route, and asks no DNS.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from ipaddress import ip_address

from attrs import frozen
from twisted.web.http_headers import Headers

from heartbeat_service.core.errors import Forbidden

#: How long a browser may remember the answer to a preflight, in seconds.
PREFLIGHT_AGE = 600

_HOST = r"(?P<host>\[[0-9a-z:.%_-]+\]|[0-9a-z._-]+)(?::(?P<port>[0-9]{1,5}))?"
_AUTHORITY = re.compile(_HOST)
_ORIGIN = re.compile(rf"(?P<scheme>[a-z][a-z0-9+.-]*)://{_HOST}")
_DEFAULT_PORTS = {"http": 80, "https": 443}


@frozen
class Origin:
    """What a browser calls a page's origin (RFC 6454, section 4).

    :ivar port: the scheme's own, if none is written; None if it has none.
    """

    scheme: str
    host: str
    port: int | None

    @classmethod
    def parse(cls, text: str) -> Origin:
        """Read ``scheme://host`` or ``scheme://host:port``, in any case.

        :raises ValueError: if it is anything else, ``null`` included.
        """
        match = _ORIGIN.fullmatch(text.lower())
        if match is None:
            raise ValueError(f"{text!r} is no origin")
        scheme, port = match["scheme"], match["port"]
        return cls(
            scheme,
            _canonical(match["host"]),
            _DEFAULT_PORTS.get(scheme) if port is None else int(port),
        )

    def is_at(self, authority: str) -> bool:
        """Whether a page of it was loaded from that Host, be it by TLS or not.

        A proxy may have ended the TLS, so http and https are one here. A Host
        without a port was asked for at the port of the page's own scheme.
        """
        match = _AUTHORITY.fullmatch(authority.lower())
        default = _DEFAULT_PORTS.get(self.scheme)
        if match is None or default is None:
            return False
        port = default if match["port"] is None else int(match["port"])
        return (_canonical(match["host"]), port) == (self.host, self.port)


class Names:
    """The names that a service answers to, and the pages that may use it.

    :param hosts: names of this service, besides ``localhost`` and all addresses.
    :param origins: pages of other sites that may use it.
    """

    def __init__(self, hosts: Iterable[str], origins: Iterable[str] = ()) -> None:
        self._hosts = {"localhost", *(_without_dot(host.lower()) for host in hosts)}
        self._origins = {Origin.parse(origin) for origin in origins}

    def check(self, headers: Headers) -> None:
        """Let a request pass that comes from a program, or a page that may ask.

        :raises Forbidden: if it comes from another page, or if it comes from a page
            and names no known Host.
        """
        origins = headers.getRawHeaders(b"origin")
        if origins is not None and self._allows(origins):
            self.check_host(headers)
            return
        # Also where no Origin goes along: a link, an image, a form that GETs.
        sites = headers.getRawHeaders(b"sec-fetch-site", ())
        if any(b"cross-site" in site.lower() for site in sites):
            raise Forbidden("A page of another site asks: --allow-origin lets it in")
        if origins is None:
            return
        origin = _read_origin(origins)
        if origin is None or not origin.is_at(_host(headers)):
            raise Forbidden("The Origin is of another site: --allow-origin lets it in")
        self.check_host(headers)

    def check_host(self, headers: Headers) -> None:
        """Let a request pass that names a known Host.

        :raises Forbidden: if it doesn't.
        """
        if not self.knows(_host(headers)):
            raise Forbidden("This service is not known by that Host: see --host")

    def knows(self, authority: str) -> bool:
        """Whether a Host is known; its port doesn't matter.

        An address always is: nobody can point an address elsewhere.
        """
        match = _AUTHORITY.fullmatch(authority.lower())
        if match is None:
            return False
        host = _without_dot(match["host"])
        return host in self._hosts or host.endswith(".localhost") or _is_address(host)

    def cors(self, method: bytes, headers: Headers) -> Iterator[tuple[bytes, bytes]]:
        """The response headers that let an allowed page read the answer.

        They belong on errors, too: else the page learns no more than that it failed.
        """
        if not self._origins:
            return
        yield b"Vary", b"Origin"
        origins = headers.getRawHeaders(b"origin", ())
        if not self._allows(origins):
            return
        yield b"Access-Control-Allow-Origin", origins[0]
        if is_preflight(method, headers):
            yield b"Access-Control-Allow-Methods", b"GET, HEAD, POST, PUT, DELETE"
            yield (
                b"Access-Control-Allow-Headers",
                b"authorization, content-type, last-event-id",
            )
            yield b"Access-Control-Max-Age", b"%d" % PREFLIGHT_AGE

    def _allows(self, origins: Iterable[bytes]) -> bool:
        return _read_origin(origins) in self._origins


def is_preflight(method: bytes, headers: Headers) -> bool:
    """Whether a browser asks what a page may ask (Fetch standard, CORS-preflight)."""
    return (
        method == b"OPTIONS"
        and headers.hasHeader(b"origin")
        and headers.hasHeader(b"access-control-request-method")
    )


def machine_names(hostname: str) -> set[str]:
    """The names by which a machine of that hostname is found in its own network."""
    short, _, _ = hostname.partition(".")
    return {hostname, short, f"{short}.local"}


def _read_origin(origins: Iterable[bytes]) -> Origin | None:
    try:
        [origin] = origins
        return Origin.parse(origin.decode("ascii"))
    except ValueError:  # none, several, ``null``, or whatever it is
        return None


def _host(headers: Headers) -> str:
    hosts = headers.getRawHeaders(b"host", ())
    return hosts[0].decode("ascii", "replace") if len(hosts) == 1 else ""


def _canonical(host: str) -> str:
    """Addresses have several spellings; what is none is left as it is."""
    try:
        return str(ip_address(host.strip("[]")))
    except ValueError:
        return host


def _is_address(host: str) -> bool:
    try:
        ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def _without_dot(host: str) -> str:
    """``show.local.`` is ``show.local`` (RFC 1034, section 3.1)."""
    return host.removesuffix(".")
