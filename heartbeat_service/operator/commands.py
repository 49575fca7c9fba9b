"""The commands of ``heartbeatctl``: what is asked of the service, and what is printed.

What a command answers goes to standard output, or its JSON and nothing else; questions,
progress and refusals go to standard error. A command returns its exit status. Knows
what is asked, and leaves to others how.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem, get_completion_class
from typing_extensions import override

from heartbeat_service import __version__
from heartbeat_service.operator import orders, watching
from heartbeat_service.operator.orders import Order, Outcome, Plan, plan, send, tally
from heartbeat_service.operator.server import NoServer, Record, Refused, Server
from heartbeat_service.operator.settings import NAMES, SettingError, read_settings
from heartbeat_service.operator.stream import Event, LineLost, follow
from heartbeat_service.operator.tables import Cell, show_table
from heartbeat_service.operator.text import (
    clock,
    count,
    duration,
    labels,
    moment,
    natural,
    parse_duration,
    printable,
)
from heartbeat_service.operator.whom import Found, Whom, by_id, find
from heartbeat_service.operator.wording import (
    attention,
    how_ended,
    line_of,
    style_of,
)

if TYPE_CHECKING:
    import httpx

#: Up to so many clients, what became of each of them is told; beyond, of those who
#: were refused.
MOST_TOLD = 40

#: The exit statuses of the contract's section 6.
DONE, REFUSED, WRONG_USAGE, NO_SERVER = range(4)

STATES = ("UNCALIBRATED", "CALIBRATED", "RUNNING")

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
        try:
            with _connect(ctx) as server:
                answer = server.get("/clients", limit=100, prefix=incomplete or None)
        except (Refused, NoServer, click.UsageError):
            return []
        return [CompletionItem(client["clientID"]) for client in answer["clients"]]


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
        label_name, colon, label_value = value.partition(":")
        if not (label_name and colon and label_value):
            self.fail(f"expected NAME:VALUE, as room:A; got {value!r}", param, ctx)
        return str(value)


STATE = click.Choice(STATES, case_sensitive=False)

_labelled = click.option(
    "--label",
    "labelled",
    type=LabelType(),
    multiple=True,
    metavar="NAME:VALUE",
    help="Those that have this label; if repeated, those that have all of them.",
)


def _connection_options(command: _Command) -> _Command:
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


def _connect(ctx: click.Context) -> Server:
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
        return Server(read_settings(options, os.environ), transport)
    except SettingError as error:
        raise click.UsageError(str(error), ctx) from None


def _asks(command: Callable[..., int]) -> Callable[..., int]:
    """Have the options of all that ask the service, and hand it over, connected."""

    @_connection_options
    @click.option("--json", "as_json", is_flag=True, help="Print JSON, nothing else.")
    @click.pass_context
    @wraps(command)
    def ask(ctx: click.Context, /, **given: Any) -> int:
        for name in NAMES:
            given.pop(name.replace("-", "_"))
        with _connect(ctx) as server:
            return command(server, **given)

    return ask


def _steers(command: Callable[..., tuple[Order, Found]]) -> Callable[..., int]:
    """Have the options of all that steer; the command says what, and finds whom."""

    @click.argument("client_ids", metavar="[ID]...", type=ClientIDType(), nargs=-1)
    @_labelled
    @click.option("--all", "everybody", is_flag=True, help="Everybody who is here.")
    @click.option(
        "--from",
        "from_states",
        type=STATE,
        multiple=True,
        metavar="STATE",
        help="Leave alone who is in another state. May be repeated.",
    )
    @click.option("--yes", is_flag=True, help="Don't ask.")
    @_asks
    @wraps(command)
    def steer(
        server: Server,
        client_ids: Sequence[str],
        labelled: Sequence[str],
        everybody: bool,
        from_states: Sequence[str],
        yes: bool,
        as_json: bool,
        **given: Any,
    ) -> int:
        try:
            whom = Whom(client_ids, labelled, everybody)
        except ValueError as error:
            raise click.UsageError(str(error)) from None
        if not yes and not sys.stdin.isatty():
            raise click.UsageError("There is no terminal to ask at: say --yes")
        order, found = command(server, whom, from_states, **given)
        return _carry_out(server, plan(order, found, from_states), yes, as_json)

    return steer


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 88}
)
@_connection_options
@click.version_option(
    __version__, "--version", message=f"heartbeat-service {__version__}"
)
def cli(**_: str | None) -> None:
    """Ask and steer a heartbeat service.

    Server, token and CA come from options, from the environment (HEARTBEAT_SERVER,
    HEARTBEAT_TOKEN_FILE, HEARTBEAT_CA) or from ~/.config/heartbeatctl.toml (server,
    token-file, ca), in that order; the server is http://127.0.0.1:6969 if nobody says
    another.

    Exit status: 0 done, 1 refused or not found (also: some of many), 2 wrong usage,
    3 no server.
    """


@cli.command("list")
@click.option("--state", type=STATE, metavar="STATE", help="Those in this state.")
@_labelled
@click.option("--late", is_flag=True, help="Those that are late.")
@click.option("--prefix", help="Those whose IDs begin so.")
@_asks
def list_(
    server: Server,
    state: str | None,
    labelled: Sequence[str],
    late: bool,
    prefix: str | None,
    as_json: bool,
) -> int:
    """Show who lives."""
    which = {
        "state": state,
        "label": list(labelled) or None,
        "late": "true" if late else None,
        "prefix": prefix,
    }
    pages = list(server.pages(**which))
    clients = _together(pages)
    if as_json:
        _print_json(_listing(pages, clients))
        return DONE
    now = moment(pages[0]["serverTime"])
    clients.sort(key=lambda client: natural(client["clientID"]))
    _show_clients(
        ("CLIENT", "STATE", "ATTENTION", "FUSE LEFT", "LABELS", "ALIVE FOR"),
        [
            (
                Cell(client["clientID"]),
                Cell(client["clientState"]),
                Cell(attention(client), style_of(client)),
                Cell(duration(max(client["secondsToTimebomb"], 0))),
                Cell(labels(client.get("labels", {}))),
                Cell(_since(client["registeredAt"], now)),
            )
            for client in clients
        ],
    )
    return DONE


@cli.command()
@click.option("--prefix", help="Those whose IDs begin so.")
@click.option(
    "--since",
    type=DurationType(),
    metavar="DURATION",
    help="Those that went so long ago at most: seconds, or such as 10m, 1h.",
)
@_labelled
@_asks
def gone(
    server: Server,
    prefix: str | None,
    since: float | None,
    labelled: Sequence[str],
    as_json: bool,
) -> int:
    """Show who was here and is not, the last to go first."""
    pages = list(_gone_pages(server, prefix=prefix, since=since))
    clients = [one for one in _together(pages) if _has(one, labelled)]
    if as_json:
        _print_json(_listing(pages, clients))
        return DONE
    now = moment(pages[0]["serverTime"])
    _show_clients(
        ("CLIENT", "WENT AT", "AGO", "HOW", "WAS", "LABELS", "BEATS", "LONGEST GAP"),
        [
            (
                Cell(client["clientID"]),
                Cell(clock(moment(client["endedAt"]))),
                Cell(_since(client["endedAt"], now)),
                Cell(how_ended(client), _end_style(client)),
                Cell(client["lastState"]),
                Cell(labels(client.get("labels", {}))),
                Cell(f"{client['beats']}"),
                Cell(duration(client["longestGapSeconds"])),
            )
            for client in clients
        ],
    )
    return DONE


@cli.command()
@click.argument("client_id", metavar="ID", type=ClientIDType())
@_asks
def history(server: Server, client_id: str, as_json: bool) -> int:
    """Show a client's lives, the present one first."""
    answer = server.get(f"/clients/{client_id}/history")
    if as_json:
        _print_json(answer)
        return DONE
    rows = []
    for life in answer["lives"]:
        ended = life["endedAt"]
        rows.append(
            (
                Cell(clock(moment(life["registeredAt"]))),
                Cell("" if ended is None else clock(moment(ended))),
                Cell("lives", "green")
                if ended is None
                else Cell(how_ended(life), _end_style(life)),
                Cell(life["lastState"]),
                Cell(f"{life['beats']}"),
                Cell(duration(life["longestGapSeconds"])),
                Cell(f"{life['incarnation']}"),
            )
        )
    headings = ("BEGAN", "ENDED", "HOW", "STATE", "BEATS", "LONGEST GAP", "LIFE")
    show_table(headings, rows)
    return DONE


@cli.command()
@_asks
def status(server: Server, as_json: bool) -> int:
    """Say whether all is well; the exit status is 1 if not.

    It is not if the service isn't ready, its store is in trouble, deaths are held for a
    mass loss, or somebody is late, held or flapping. Who went in the last hour is told,
    and is no fault by itself.
    """
    try:
        server.get("/readyz")
        trouble = None
    except Refused as error:
        if error.code != "OVERLOADED":
            raise
        trouble = str(error)
    try:
        summary, hold = server.get("/summary"), server.get("/mass-loss")
    except Refused as error:
        if error.code != "OVERLOADED":
            raise
        summary, hold = {}, {}  # which need the store
    wrong = _what_is_wrong(trouble, summary, hold)
    if as_json:
        answers = {"ready": trouble is None, "trouble": trouble}
        _print_json(
            {
                "well": not wrong,
                "wrong": wrong,
                **answers,
                "summary": summary or None,
                "massLoss": hold or None,
            }
        )
        return REFUSED if wrong else DONE
    verdict = f"Not well: {', '.join(wrong)}" if wrong else "All well"
    click.secho(printable(verdict), fg="red" if wrong else "green", bold=True)
    if summary:
        for line in _figures(summary):
            click.echo(line)
    if hold.get("hold") is not None:
        left = duration(hold["secondsLeft"])
        click.echo(
            f"Mass loss: {count(len(hold['held']))} held, nobody dies for {left}. "
            "Look at the network first"
        )
    return REFUSED if wrong else DONE


@cli.command()
@click.option(
    "--id",
    "client_id",
    type=ClientIDType(),
    metavar="ID",
    help="Only this client's changes of state, silences and lock-outs.",
)
@_asks
def events(server: Server, client_id: str | None, as_json: bool) -> int:
    """Print each event on a line, as it happens, until Ctrl-C.

    With --json a line is the event's data, with its name and id.
    """
    path = "/events" if client_id is None else f"/clients/{client_id}/events"
    for told in follow(server, path):
        match told:
            case Event() if as_json:
                click.echo(json.dumps({"event": told.name, "id": told.id, **told.data}))
            case Event():
                click.echo(line_of(told))
            case LineLost():
                click.echo(watching.line_lost(told), err=True)
    return DONE


@cli.command()
@_asks
def watch(server: Server, as_json: bool) -> int:
    """Show who is here and what changes, live, until Ctrl-C.

    Where standard output is no terminal: the list, and then a line for each change.
    With --json: a line with the whole listing, at the beginning and after each Reset,
    and one for each event.
    """
    if as_json:
        watching.print_json(server)
    elif sys.stdout.isatty():
        watching.show_live(server)
    else:
        watching.print_lines(server)
    return DONE


@cli.command("set")
@click.argument("state", metavar="STATE", type=STATE)
@_steers
def set_(
    server: Server, whom: Whom, _: Sequence[str], state: str
) -> tuple[Order, Found]:
    """Set clients to a STATE: UNCALIBRATED, CALIBRATED or RUNNING."""
    return orders.set_state(state), find(server, whom)


@cli.command()
@_steers
def kick(server: Server, whom: Whom, _: Sequence[str]) -> tuple[Order, Found]:
    """Remove clients; who still beats begins a new life."""
    return orders.kick(), find(server, whom)


@cli.command()
@click.option(
    "--seconds",
    type=DurationType(),
    required=True,
    metavar="DURATION",
    help="For how long: seconds, or such as 10m, 1h; 0 lets them in again.",
)
@_steers
def lockout(
    server: Server, whom: Whom, from_states: Sequence[str], seconds: float
) -> tuple[Order, Found]:
    """Keep clients out: they are kicked, and their beats refused until then.

    IDs that aren't here are kept out, too. With --seconds 0, --all means all who are
    kept out.
    """
    if seconds:
        return orders.lock_out(seconds), find(server, whom)
    if from_states:
        raise click.UsageError("--from: who is kept out is in no state")
    return orders.lock_out(0), _find_locked_out(server, whom)


@cli.command()
@click.option(
    "--seconds",
    type=DurationType(),
    required=True,
    metavar="DURATION",
    help="For how long, a day at most: seconds, or such as 5m, 1h; 0 takes it back.",
)
@_steers
def silence(
    server: Server, whom: Whom, _: Sequence[str], seconds: float
) -> tuple[Order, Found]:
    """Let clients be silent for a while without being late or lost."""
    return orders.silence(seconds), find(server, whom)


@cli.command()
@click.argument("shell", type=click.Choice(["bash", "zsh"]))
def completion(shell: str) -> int:
    """Print what completes commands, options and client IDs in a shell.

    For bash: heartbeatctl completion bash > ~/.local/share/bash-completion/completions/heartbeatctl.
    For zsh: a file named _heartbeatctl in a folder of its $fpath.
    """  # noqa: E501 - a path to copy
    made = get_completion_class(shell)
    assert made is not None  # click has both
    click.echo(made(cli, {}, "heartbeatctl", "_HEARTBEATCTL_COMPLETE").source())
    return DONE


def _carry_out(server: Server, planned: Plan, yes: bool, as_json: bool) -> int:
    """Show it, ask, send it, and tell how it went."""
    if planned.targets and not yes and not _agreed(planned):
        click.echo("Nothing is done.", err=True)
        return REFUSED
    outcomes: list[Outcome] = []
    try:
        _send(server, planned, outcomes)
    finally:  # also where the server is gone: what is known then is told
        outcomes += planned.not_found()
        if as_json:
            _print_json({"clients": [outcome.answer for outcome in outcomes]})
        else:
            _tell(planned, outcomes, with_left=yes)
    is_fine = all(outcome.is_done for outcome in outcomes)
    return DONE if is_fine and (outcomes or planned.is_needless()) else REFUSED


def _agreed(planned: Plan) -> bool:
    for line in planned.preview():
        click.echo(line, err=True)
    click.echo(f"{planned.question()} [y/N] ", err=True, nl=False)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _send(server: Server, planned: Plan, outcomes: list[Outcome]) -> None:
    """Send it, and add what has become of whom to ``outcomes``, batch by batch."""
    batches = send(server, planned)
    number = len(planned.targets)
    if number <= orders.BATCH or not sys.stderr.isatty():
        for batch in batches:
            outcomes += batch
        return
    with click.progressbar(length=number, file=sys.stderr) as progress:
        for batch in batches:
            outcomes += batch
            progress.update(len(batch))


def _tell(planned: Plan, outcomes: Sequence[Outcome], with_left: bool) -> None:
    for outcome in outcomes:
        if not outcome.is_done:
            click.echo(outcome.said, err=True)
        elif len(outcomes) <= MOST_TOLD:
            click.echo(outcome.said)
    if with_left or not planned.targets:
        for line in planned.left_alone():
            click.echo(line, err=True)
    if len(outcomes) > 1:
        click.echo(tally(outcomes, planned.order.done))
    if not outcomes and not planned.left:
        click.echo("Nobody is here whom this is for.", err=True)


def _find_locked_out(server: Server, whom: Whom) -> Found:
    """Who of them is kept out."""
    locked_out = by_id(iter(server.get("/lockouts")["lockouts"]))
    if whom.client_ids:
        wanted: Sequence[str] = list(dict.fromkeys(whom.client_ids))
    elif whom.labels:  # they aren't here: what labels had they?
        pages = _gone_pages(server)
        wanted = [
            one["clientID"]
            for one in _together(pages)
            if one["clientID"] in locked_out and _has(one, whom.labels)
        ]
    else:
        wanted = list(locked_out)
    return Found(
        {one: locked_out[one] for one in wanted if one in locked_out},
        {one: f"{one} isn't kept out" for one in wanted if one not in locked_out},
    )


def _gone_pages(server: Server, **which: Any) -> Iterator[Record]:
    return server.pages(gone="true", **which)


def _together(pages: Iterable[Record]) -> list[Record]:
    return [client for page in pages for client in page["clients"]]


def _has(client: Record, labelled: Sequence[str]) -> bool:
    has = {f"{name}:{value}" for name, value in client.get("labels", {}).items()}
    return has.issuperset(labelled)


def _listing(pages: Sequence[Record], clients: Sequence[Record]) -> Record:
    """One listing of several pages: what was told after the first, isn't in all."""
    rest = {key: pages[0].get(key) for key in ("asOf", "serverTime")}
    return {**rest, "clients": clients}


def _print_json(answer: Record) -> None:
    click.echo(json.dumps(answer))


def _show_clients(headings: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
    if rows:
        show_table(headings, rows)
    else:
        click.echo("Nobody.", err=True)


def _since(then: str, now: datetime) -> str:
    return duration(round(max((now - moment(then)).total_seconds(), 0)))


def _end_style(life: Record) -> str:
    return {"timebomb": "red", "kick": "cyan"}.get(str(life.get("reason")), "")


def _what_is_wrong(trouble: str | None, summary: Record, hold: Record) -> list[str]:
    """Each thing for which not all is well, in a few words."""
    wrong = [] if trouble is None else [f"not ready: {trouble}"]
    if trouble is None and summary.get("store") is not None:
        wrong.append(f"the store: {summary['store']}")
    if hold.get("hold") is not None:
        wrong.append("mass loss")
    signs = ("late", "held", "flapping")
    return wrong + [f"{summary[sign]:,} {sign}" for sign in signs if summary.get(sign)]


def _figures(summary: Record) -> Iterator[str]:
    states = ", ".join(f"{summary['byState'].get(each, 0):,} {each}" for each in STATES)
    yield f"{count(summary['alive'])} alive: {states}"
    signs = ("late", "held", "flapping", "silent")
    yield ", ".join(f"{summary[sign]:,} {sign}" for sign in signs)
    yield (
        f"{summary['goneLastHour']:,} gone in the last hour, "
        f"{summary['lostLastHour']:,} of them lost"
    )
    up = _since(summary["startedAt"], moment(summary["serverTime"]))
    yield f"the service is up for {up}"
