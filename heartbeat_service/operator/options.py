"""The options that commands share, and what they are read as.

A command that asks the service is handed it, connected; a command returns its exit
status. Knows no command.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem
from typing_extensions import override

from heartbeat_service.operator.server import NoServer, Record, Refused, Server
from heartbeat_service.operator.settings import NAMES, SettingError, read_settings
from heartbeat_service.operator.text import parse_duration

if TYPE_CHECKING:
    import httpx

#: The exit statuses of the contract's section 6.
DONE, REFUSED, WRONG_USAGE, NO_SERVER = range(4)

STATES = ("RUNNING", "CALIBRATED", "UNCALIBRATED")

_Command = TypeVar("_Command", bound=Callable[..., Any])


class ClientIDType(click.ParamType[str]):
    """A client ID; completed with those of the living."""

    name = "id"

    @override
    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> str:
        """Read it."""
        from heartbeat_service.protocol.messages import ClientID  # takes a while

        try:
            return ClientID.parse(value)
        except ValueError as error:
            self.fail(f"{value!r}: {error}", param, ctx)

    @override
    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """The first hundred who live and whose IDs begin so."""
        answer = complete(ctx, "/clients", limit=100, prefix=incomplete or None)
        return [CompletionItem(one["clientID"]) for one in answer.get("clients", ())]


class StateType(click.Choice[str]):
    """A living state, in capitals or not."""

    def __init__(self) -> None:
        super().__init__(STATES)

    @override
    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> str:
        """Read it."""
        return super().convert(value.upper(), param, ctx)

    @override
    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Those that begin so."""
        return super().shell_complete(ctx, param, incomplete.upper())


class DurationType(click.ParamType[float]):
    """Seconds, or such as 5m."""

    name = "duration"

    @override
    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Read it."""
        try:
            return parse_duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class LabelType(click.ParamType[str]):
    """A label, NAME:VALUE."""

    name = "name:value"

    @override
    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> str:
        """Read it."""
        label_name, _, label_value = value.partition(":")
        if not (label_name and label_value):
            self.fail(f"expected NAME:VALUE, as room:A; got {value!r}", param, ctx)
        return str(value)


CLIENT_ID, DURATION, STATE = ClientIDType(), DurationType(), StateType()

by_label = click.option(
    "--label",
    "labelled",
    type=LabelType(),
    multiple=True,
    metavar="NAME:VALUE",
    help="Those that have this label; if repeated, those that have all of them.",
)


def connection_options(command: _Command) -> _Command:
    """Have options that say which service, and how to get in."""
    for option in (
        click.option(
            "--ca", metavar="FILE", help="PEM file of whose certificates to trust."
        ),
        click.option(
            "--token-file",
            metavar="FILE",
            help="File whose first word is an operator's token.",
        ),
        click.option("--server", metavar="URL", help="Where the service serves HTTP."),
    ):
        command = option(command)
    return command


def asks(command: Callable[..., int]) -> Callable[..., int]:
    """Have the options of all that ask the service, and be handed it, connected."""

    @connection_options
    @click.option("--json", "as_json", is_flag=True, help="Print JSON, nothing else.")
    @click.pass_context
    @wraps(command)
    def ask(ctx: click.Context, /, **given: Any) -> int:
        for name in NAMES:
            given.pop(name.replace("-", "_"))
        with _connect(ctx) as server:
            return command(server, **given)

    return ask


def complete(ctx: click.Context, path: str, **parameters: Any) -> Record:
    """What the service answers while somebody types; empty if it doesn't, in time."""
    try:
        with _connect(ctx, quick=True) as server:
            return server.get(path, **parameters)
    except (Refused, NoServer, click.UsageError):
        return {}


def print_json(answer: Record) -> None:
    """Print a line of JSON, in ASCII."""
    click.echo(json.dumps(answer))


def _connect(ctx: click.Context, quick: bool = False) -> Server:
    """The service that options, the environment or the user's file name.

    Options may stand before the command or behind it.
    """
    options: dict[str, str | None] = {}
    for each in (ctx.find_root(), ctx):
        for name in NAMES:
            if value := each.params.get(name.replace("-", "_")):
                options[name] = value
    transport: httpx.BaseTransport | None = ctx.find_root().obj  # in tests
    try:
        return Server(read_settings(options, os.environ), transport, quick)
    except SettingError as error:
        raise click.UsageError(str(error), ctx) from None
