"""The command line and the configuration file: strings in, settings out.

Whatever is wrong becomes a usage error that names the option.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

from attrs import fields_dict
from twisted.internet.endpoints import serverFromString
from twisted.python import usage
from typing_extensions import override

from heartbeat_service.command_line import CommandLine
from heartbeat_service.host.files import read_file
from heartbeat_service.settings import Settings, SettingsError


class Options(CommandLine):
    """Options of ``twistd heartbeat`` (contract, section 6).

    :ivar settings: what they come to, once they are parsed.
    """

    longdesc = (
        "Knows which game clients are alive, and in what state they are. "
        "Options given here go before those of the configuration file."
    )
    settings: Settings

    optParameters = [  # noqa: RUF012 - usage.Options wants a list
        ["router", None, None, "ZeroMQ address for requests [tcp://127.0.0.1:8765]"],
        ["pub", None, None, "ZeroMQ address for publications [tcp://127.0.0.1:4321]"],
        ["advertise", None, None, "Host that replies name [the one listened on]"],
        ["timebomb", None, None, "Seconds from a client's last beat to its death [10]"],
        ["interval", None, None, "Seconds between beats, as clients are told [2]"],
        [
            "store",
            None,
            None,
            "sqlite:PATH, memory:, etcd://HOSTS [sqlite:heartbeat.sqlite]",
        ],
        ["node", None, None, "What people call this node [the machine's name]"],
        [
            "operator-token-file",
            None,
            None,
            "File of the tokens that operators need [none]",
        ],
        [
            "client-token-file",
            None,
            None,
            "File of the tokens that heartbeats need [none]",
        ],
        ["curve-keys", None, None, "Folder of keys for ZeroMQ's encryption [none]"],
        ["max-clients", None, None, "Clients that may live at once [250000]"],
        ["max-registrations", None, None, "Lives begun a second [any number]"],
        ["max-timebomb", None, None, "Most seconds that a client may ask for [3600]"],
        ["mass-loss", None, None, "If that share is late at once, nobody dies [off]"],
        ["mass-loss-hold", None, None, "Most seconds for which nobody dies then [60]"],
        ["notify-pause", None, None, "Seconds that --notify tells of at once [60]"],
        ["config", None, None, "TOML file with these names as keys [none]"],
    ]
    optFlags = [  # noqa: RUF012 - usage.Options wants a list
        [
            "allow-open-control",
            None,
            "Let anyone steer, also from other machines, without a token [off]",
        ],
    ]

    def __init__(self) -> None:
        super().__init__()
        self["http"] = []
        self["allow-origin"] = []
        self["host"] = []
        self["notify"] = []

    def opt_http(self, endpoint: str) -> None:
        """Endpoint for HTTP, repeatable [tcp:6969:interface=127.0.0.1]."""
        self["http"].append(endpoint)

    def opt_allow_origin(self, origin: str) -> None:
        """Another site whose pages may use it, repeatable [none]."""
        self["allow-origin"].append(origin)

    def opt_host(self, name: str) -> None:
        """A name that browsers may know it by, repeatable [this machine's]."""
        self["host"].append(name)

    def opt_notify(self, url: str) -> None:
        """A URL of Apprise's where people are told what is wrong, repeatable [none]."""
        self["notify"].append(url)

    @override
    def postOptions(self) -> None:
        """Make the settings."""
        given = {
            name: self[_option(name)]
            for name in fields_dict(Settings)
            if self[_option(name)] not in (None, [], 0)
        }
        try:
            self.settings = Settings(**{**self._read_config(), **given})
        except SettingsError as error:
            raise usage.UsageError(str(error)) from None
        for description in self.settings.http:
            _check_endpoint(description)
        if self.parent is not None:
            _check_pid_file(self.parent)

    def _read_config(self) -> dict[str, Any]:
        path = self["config"]
        if path is None:
            return {}
        try:
            values = tomllib.loads(read_file(path).decode())
        except ValueError as error:
            raise usage.UsageError(f"--config: cannot read {path!r}: {error}") from None
        except RecursionError:
            raise usage.UsageError(f"--config: {path!r} is nested too deep") from None
        names = {_option(name): name for name in fields_dict(Settings)}
        unknown = sorted(values.keys() - names.keys())
        if unknown:
            raise usage.UsageError(f"--config: {path!r} has unknown names: {unknown}")
        return {names[option]: value for option, value in values.items()}


def _option(name: str) -> str:
    return name.replace("_", "-")


def _check_pid_file(twistd: usage.Options) -> None:
    """Twistd would not get beyond its pid file, and say so by a traceback."""
    given = twistd.get("pidfile")
    if not given:
        return
    path = Path(given)
    written = path if os.access(path, os.F_OK) else path.parent
    if not os.access(written, os.W_OK):
        raise usage.UsageError(
            f"--pidfile: {given!r} can't be written; `twistd -n --pidfile= heartbeat`"
            " needs none"
        )


def _check_endpoint(description: str) -> None:
    from twisted.internet import reactor  # here, so that twistd -r comes first

    try:
        serverFromString(reactor, description)
    except Exception as error:  # noqa: BLE001 - each endpoint parser fails in its own way
        raise usage.UsageError(
            f"--http: {description!r} is no endpoint: {error}"
        ) from None
