"""Which service the program talks to, and what it shows there.

Each setting comes from the first that has it: an option, the environment, the user's
file. Knows no command, and opens no connection.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from attrs import field, frozen

#: The settings, as options and the file name them, and the environment.
NAMES = {
    "server": "HEARTBEAT_SERVER",
    "token-file": "HEARTBEAT_TOKEN_FILE",
    "ca": "HEARTBEAT_CA",
}

#: The service that is asked where nothing else is said.
DEFAULT_SERVER = "http://127.0.0.1:6969"

_TOKEN = re.compile(r"[!-~]+")


class SettingError(ValueError):
    """A setting that can't be used; the text says where it stands, and no token."""


@frozen
class Settings:
    """A service, and how to get in.

    :ivar server: its base URL, without a slash at its end.
    :ivar token: an operator's, or None.
    :ivar token_from: where that was read, for people.
    :ivar ca: a PEM file of whose certificates to trust; None for the system's list.
    """

    server: str = DEFAULT_SERVER
    token: str | None = field(default=None, repr=False)
    token_from: str | None = None
    ca: str | None = None


@frozen
class _Setting:
    value: str
    origin: str


def read_settings(
    options: Mapping[str, str | None], environment: Mapping[str, str]
) -> Settings:
    """What the three of them say.

    :param options: by their names in :data:`NAMES`; None for one that isn't given.
    :raises SettingError: if one of them can't be used.
    """
    found: dict[str, _Setting] = {}
    in_file, file = _read_file(config_file(environment))
    for name, variable in NAMES.items():
        if value := options.get(name):
            found[name] = _Setting(value, f"--{name}")
        elif value := environment.get(variable):
            found[name] = _Setting(value, variable)
        elif value := in_file.get(name):
            # A path in the file is meant from where the file is.
            path = str(file.parent / _expanded(value))
            at = f"{name} in {file}"
            found[name] = _Setting(value if name == "server" else path, at)
    token = found.get("token-file")
    ca = found.get("ca")
    return Settings(
        server=_base_url(found.get("server")),
        token=None if token is None else _first_token(token),
        token_from=None if token is None else f"{token.value} ({token.origin})",
        ca=None if ca is None else str(_expanded(ca.value)),
    )


def config_file(environment: Mapping[str, str]) -> Path:
    """Where the user's file is, if there is one."""
    home = environment.get("HOME") or "/"  # a service's user may have none
    folder = environment.get("XDG_CONFIG_HOME") or Path(home, ".config")
    return Path(folder, "heartbeatctl.toml")


def _read_file(file: Path) -> tuple[dict[str, str], Path]:
    try:
        content = tomllib.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        return {}, file
    except OSError as error:
        raise SettingError(f"{file}: {error.strerror}") from None
    except ValueError as error:  # no UTF-8, or no TOML
        raise SettingError(f"{file}: {error}") from None
    for name, value in content.items():
        if name not in NAMES:
            raise SettingError(
                f"{file}: unknown setting {name!r}; expected {', '.join(NAMES)}"
            )
        if not isinstance(value, str):
            raise SettingError(f"{file}: {name}: expected text in quotes")
    return content, file


def _base_url(setting: _Setting | None) -> str:
    if setting is None:
        return DEFAULT_SERVER
    url = setting.value.rstrip("/")
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port that is no number
        good = False
    if not good or "@" in parts.netloc or parts.query or parts.fragment:
        raise SettingError(
            f"{setting.origin}: expected http[s]://HOST:PORT, got {setting.value!r}"
        )
    return url


def _expanded(path: str) -> Path:
    """A path that may begin with ``~``."""
    try:
        return Path(path).expanduser()
    except RuntimeError:  # of nobody who is known
        return Path(path)


def _first_token(setting: _Setting) -> str:
    """The first word in a file: the service's own has a token and a name a line."""
    try:
        words = _expanded(setting.value).read_text("utf-8").split(maxsplit=1)
    except OSError as error:
        problem = error.strerror
    except ValueError:
        problem = "it is not UTF-8"
    else:
        if words and _TOKEN.fullmatch(words[0]):
            return words[0]
        problem = "expected a token of visible ASCII characters at its beginning"
    raise SettingError(f"{setting.origin}: {setting.value}: {problem}")
