"""What can be set, with its defaults and its checks (contract, section 6).

Frozen and validated: whoever holds settings holds good ones. Knows no command
line, reads no file and opens nothing.
"""

from __future__ import annotations

import math
import re
from ipaddress import IPv6Address
from typing import Any

from attrs import field, frozen

from heartbeat_service.core.heartbeat import LONGEST_FUSE, SHORTEST_FUSE
from heartbeat_service.protocol.messages import are_client_ids
from heartbeat_service.storage.etcd import url as etcd_url
from heartbeat_service.web.names import Origin

_ZMQ_ADDRESS = re.compile(
    r"tcp://(\[[0-9A-Fa-f:.%]+\]|[^\s:/\[\]]+):(?P<port>[0-9]{1,5}|\*)|ipc://.+"
)
_LAST_PORT = 65535
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
_PATH = re.compile(r"[^\0]+", re.DOTALL)
_STORE = re.compile(r"memory:|sqlite:[^\0]+|etcd://.*", re.DOTALL)
_COUNT = re.compile(r"[1-9][0-9]{0,8}")
_ANY_TCP_PORT = re.compile(r"(tcp6?|ssl):\*(?=:|$)")

#: No two messages to people come sooner after each other, in seconds.
SHORTEST_PAUSE = 0.1

#: The most that a limit can be set to.
MOST = 10_000_000

#: How much of a bad value is shown, in characters.
MOST_SHOWN = 200

#: The smallest share of all clients that is a mass; see ``--mass-loss``.
SMALLEST_SHARE = 0.05

#: No client is told to beat faster than this, in seconds.
SHORTEST_INTERVAL = 0.01


class SettingsError(ValueError):
    """A setting that can't be; the text names it as ``--option``."""


def _fail(name: str, expected: str, value: object) -> SettingsError:
    return SettingsError(f"--{name}: expected {expected}, got {_shown(value)}")


def _shown(value: object) -> str:
    try:
        shown = repr(value)
    except ValueError:  # TOML has 0xfff…, and Python writes no 5,000 digits
        return "a huge number"
    return shown if len(shown) <= MOST_SHOWN else f"{shown[:MOST_SHOWN]}…"


def _strings(name: str, expected: str, value: Any) -> tuple[str, ...]:
    strings = [value] if isinstance(value, str) else value
    if not isinstance(strings, list | tuple) or not all(
        isinstance(one, str) for one in strings
    ):
        raise _fail(name, f"{expected}, or a list of them", value)
    return tuple(strings)


def _endpoints(value: Any) -> tuple[str, ...]:
    expected = "a Twisted endpoint string"
    descriptions = _strings("http", expected, value or None)
    return tuple(_ANY_TCP_PORT.sub(r"\1:0", one) for one in descriptions)


def _origins(value: Any) -> tuple[str, ...]:
    expected = "an origin like https://console.example:8443"
    origins = _strings("allow-origin", expected, value)
    for one in origins:
        try:
            Origin.parse(one)
        except ValueError:
            raise _fail("allow-origin", expected, one) from None
    return origins


def _hosts(value: Any) -> tuple[str, ...]:
    expected = "a host name without a port"
    hosts = _strings("host", expected, value)
    for one in hosts:
        if not _HOST.fullmatch(one.removesuffix(".")):
            raise _fail("host", expected, one)
    return hosts


def _urls(value: Any) -> tuple[str, ...]:
    urls = [value] if isinstance(value, str) else value
    if not isinstance(urls, list | tuple) or not all(
        isinstance(one, str) and one for one in urls
    ):  # what was given may hold a secret
        raise SettingsError("--notify: expected a URL that Apprise knows, or a list")
    return tuple(urls)


def _number(name: str, what: str, least: float, most: float, value: Any) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not least <= number <= most:
        raise _fail(name, f"{what} from {least:g} to {most:g}", value)
    return number


def _seconds(name: str, least: float, value: Any) -> float:
    return _number(name, "seconds", least, LONGEST_FUSE, value)


def _mass_loss(value: Any) -> float | None:
    if value is None:
        return None
    return _number("mass-loss", "a share of all clients", SMALLEST_SHARE, 1, value)


def _mass_loss_hold(value: Any) -> float:
    return _seconds("mass-loss-hold", SHORTEST_FUSE, value)


def _zmq_address(name: str, value: Any) -> str:
    match = _ZMQ_ADDRESS.fullmatch(value) if isinstance(value, str) else None
    if match is None or int((match["port"] or "*").replace("*", "0")) > _LAST_PORT:
        raise _fail(name, "a ZeroMQ address like tcp://127.0.0.1:8765", value)
    return match[0]


def _router(value: Any) -> str:
    return _zmq_address("router", value)


def _pub(value: Any) -> str:
    return _zmq_address("pub", value)


def _timebomb(value: Any) -> float:
    return _seconds("timebomb", SHORTEST_FUSE, value)


def _notify_pause(value: Any) -> float:
    return _seconds("notify-pause", SHORTEST_PAUSE, value)


def _max_timebomb(value: Any) -> float:
    return _seconds("max-timebomb", SHORTEST_FUSE, value)


def _interval(value: Any) -> float:
    return _seconds("interval", SHORTEST_INTERVAL, value)


def _host(value: Any) -> str | None:
    if value is None or (isinstance(value, str) and _HOST.fullmatch(value)):
        return value
    try:
        return f"[{IPv6Address(value.strip('[]'))}]"
    except (AttributeError, ValueError):
        raise _fail("advertise", "a host name or an address", value) from None


def _store(value: Any) -> str:
    if not isinstance(value, str) or not _STORE.fullmatch(value):
        raise _fail("store", "sqlite:PATH, etcd://HOST:PORT/PREFIX or memory:", value)
    if value.startswith(etcd_url.SCHEME):
        try:
            etcd_url.parse(value)
        except ValueError as error:
            raise SettingsError(f"--store: {error}, got {_shown(value)}") from None
    return value


def _node(value: Any) -> str | None:
    if value is None:
        return None
    if not are_client_ids([value]):
        expected = "1 to 64 characters of A-Z a-z 0-9 . _ : @ -, but not . or .."
        raise _fail("node", expected, value)
    return str(value)


def _path(name: str, value: Any) -> str | None:
    if value is not None and (not isinstance(value, str) or not _PATH.fullmatch(value)):
        raise _fail(name, "a path", value)
    return value


def _operator_token_file(value: Any) -> str | None:
    return _path("operator-token-file", value)


def _client_token_file(value: Any) -> str | None:
    return _path("client-token-file", value)


def _curve_keys(value: Any) -> str | None:
    return _path("curve-keys", value)


def _flag(value: Any) -> bool:
    if value not in (0, 1):
        raise _fail("allow-open-control", "true or false", value)
    return bool(value)


def _count(name: str, value: Any) -> int:
    # A command line has strings, a TOML file integers; a bool is neither.
    number = value
    if isinstance(value, str) and _COUNT.fullmatch(value):
        number = int(value)
    if type(number) is not int or not 1 <= number <= MOST:
        raise _fail(name, f"a whole number from 1 to {MOST}", value)
    return number


def _max_clients(value: Any) -> int:
    return _count("max-clients", value)


def _max_registrations(value: Any) -> int | None:
    return None if value is None else _count("max-registrations", value)


@frozen
class Settings:
    """All settings of one service.

    :ivar http: Twisted endpoint strings to serve HTTP on.
    :ivar router: the ZeroMQ address for requests.
    :ivar pub: the ZeroMQ address for publications.
    :ivar advertise: the host that replies name; None for the one bound to.
    :ivar timebomb: seconds from a beat to a client's death, unless it asks.
    :ivar interval: seconds between beats, as clients are told.
    :ivar store: the URL of the store.
    :ivar node: how people know this node; None for the machine's name.
    :ivar operator_token_file: the tokens that open the operator's routes.
    :ivar client_token_file: the tokens that heartbeats want.
    :ivar curve_keys: the folder of the CURVE keys; None for open ZeroMQ sockets.
    :ivar allow_open_control: whether anyone may steer a service that is reachable
        from beyond this machine and has no operator's token.
    :ivar allow_origin: the pages of other sites that may use the service.
    :ivar host: names of the service that browsers may ask for.
    :ivar max_clients: how many clients may live at once.
    :ivar max_registrations: how many lives may begin a second; None for any number.
    :ivar max_timebomb: the most seconds to its death that a client may ask for.
    :ivar mass_loss: the share of all clients, from 0.05 to 1, that must be late at once
        for nobody to die of it for a while; None for never.
    :ivar mass_loss_hold: for how many seconds nobody dies then, at the most.
    :ivar notify: where people are told what is wrong; each may hold a secret.
    :ivar notify_pause: seconds that are told of in one message.
    :raises SettingsError: for the first of them that can't be.
    """

    http: tuple[str, ...] = field(
        default="tcp:6969:interface=127.0.0.1", converter=_endpoints
    )
    router: str = field(default="tcp://127.0.0.1:8765", converter=_router)
    pub: str = field(default="tcp://127.0.0.1:4321", converter=_pub)
    advertise: str | None = field(default=None, converter=_host)
    timebomb: float = field(default=10.0, converter=_timebomb)
    interval: float = field(default=2.0, converter=_interval)
    store: str = field(default="sqlite:heartbeat.sqlite", converter=_store)
    node: str | None = field(default=None, converter=_node)
    operator_token_file: str | None = field(
        default=None, converter=_operator_token_file
    )
    client_token_file: str | None = field(default=None, converter=_client_token_file)
    curve_keys: str | None = field(default=None, converter=_curve_keys)
    allow_open_control: bool = field(default=False, converter=_flag)
    allow_origin: tuple[str, ...] = field(default=(), converter=_origins)
    host: tuple[str, ...] = field(default=(), converter=_hosts)
    max_clients: int = field(default=250_000, converter=_max_clients)
    max_registrations: int | None = field(default=None, converter=_max_registrations)
    max_timebomb: float = field(default=LONGEST_FUSE, converter=_max_timebomb)
    mass_loss: float | None = field(default=None, converter=_mass_loss)
    mass_loss_hold: float = field(default=60.0, converter=_mass_loss_hold)
    notify: tuple[str, ...] = field(default=(), converter=_urls, repr=False)
    notify_pause: float = field(default=60.0, converter=_notify_pause)
