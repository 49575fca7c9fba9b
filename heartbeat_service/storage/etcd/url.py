"""Read where etcd is, as ``--store`` says it.

``etcd://[USER@]HOST:PORT,HOST:PORT/PREFIX[?ca=FILE&cert=FILE&key=FILE&password-file=FILE]``.
Nothing is opened or connected here.
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import parse_qsl, unquote

from attrs import frozen

SCHEME = "etcd://"

#: Under which keys are kept if nothing else is said.
PREFIX = "heartbeat"

#: Where etcd listens if nothing else is said.
PORT = 2379

LAST_PORT = 65_535

_FILES = ("ca", "cert", "key", "password-file")
_MEMBER = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::(.*))?")


@frozen
class EtcdURL:
    """Where etcd is, and as whom it is asked.

    :ivar endpoints: its members, each as ``HOST:PORT``.
    :ivar prefix: with which all keys begin, and a slash behind it.
    :ivar user: as whom; None if etcd asks nobody.
    :ivar ca: who has signed its certificates; None for whom the machine trusts.
    :ivar cert: our certificate, and :ivar key: the key of it.
    :ivar password_file: the user's password, in its first line.
    """

    endpoints: tuple[str, ...]
    prefix: str = PREFIX
    user: str | None = None
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    password_file: Path | None = None

    @property
    def is_secure(self) -> bool:
        """Whether it is spoken to by TLS."""
        return self.ca is not None or self.cert is not None


def parse(url: str) -> EtcdURL:
    """What a URL says.

    :raises ValueError: with a sentence that says what is expected instead.
    """
    if not url.startswith(SCHEME):
        raise ValueError(
            f"etcd's URL begins with {SCHEME}, not {url.partition(':')[0]!r}"
        )
    place, _, query = url[len(SCHEME) :].partition("?")
    authority, _, path = place.partition("/")
    user, at, members = authority.rpartition("@")
    if at and (not user or ":" in user):
        # A command line is no place for it: every process can read it.
        raise ValueError(
            "Before the @ is a user's name alone; a password is read from a file: "
            "etcd://USER@HOST:PORT/PREFIX?password-file=FILE"
        )
    files = _files(query)
    if bool(user) != ("password-file" in files):
        raise ValueError("USER@ and password-file=FILE need each other")
    if ("cert" in files) != ("key" in files):
        raise ValueError("cert=FILE and key=FILE need each other")
    return EtcdURL(
        endpoints=tuple(_endpoint(member) for member in members.split(",")),
        prefix=_prefix(path),
        user=unquote(user) or None,
        ca=files.get("ca"),
        cert=files.get("cert"),
        key=files.get("key"),
        password_file=files.get("password-file"),
    )


def _endpoint(member: str) -> str:
    matched = _MEMBER.fullmatch(member)
    if matched is None:
        raise ValueError(
            f"A member of etcd is HOST:PORT, or [IPv6]:PORT, not {member!r}; "
            "several are separated by commas"
        )
    host, port = matched.groups()
    if port is None:
        return f"{host}:{PORT}"
    # int() alone would take signs, spaces and digits of other scripts.
    if not re.fullmatch(r"[0-9]{1,5}", port) or not 1 <= int(port) <= LAST_PORT:
        raise ValueError(f"A port is a number from 1 to {LAST_PORT}, not {port!r}")
    return f"{host}:{int(port)}"


def _prefix(path: str) -> str:
    prefix = unquote(path).strip("/") or PREFIX
    if not prefix.isprintable():
        raise ValueError(f"A prefix of keys is printable text, not {prefix!r}")
    return prefix


def _files(query: str) -> dict[str, Path]:
    files: dict[str, Path] = {}
    # A plus is a space in forms alone, and may be in the name of a file.
    query = query.replace("+", "%2B")
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in _FILES:
            raise ValueError(
                f"Unknown parameter {name!r} of etcd's URL: there are "
                f"{', '.join(_FILES[:-1])} and {_FILES[-1]}"
            )
        if not value or name in files:
            raise ValueError(f"{name} names one file: {name}=FILE")
        files[name] = Path(value)
    return files
