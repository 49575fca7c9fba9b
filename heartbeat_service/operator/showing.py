"""The commands that show: what is asked of the service, and what is printed.

Answers go to standard output, or their JSON and nothing else; what went wrong goes to
standard error. Knows what is asked, and leaves to others how.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from datetime import datetime

import click

from heartbeat_service.operator import watching
from heartbeat_service.operator.options import (
    CLIENT_ID,
    DONE,
    DURATION,
    REFUSED,
    STATE,
    STATES,
    asks,
    by_label,
    print_json,
)
from heartbeat_service.operator.server import Record, Refused, Server
from heartbeat_service.operator.stream import Event, LineLost, follow
from heartbeat_service.operator.tables import Cell, show_table
from heartbeat_service.operator.text import (
    clock,
    count,
    duration,
    labels,
    moment,
    natural,
    printable,
)
from heartbeat_service.operator.whom import gone_pages, has_labels, together
from heartbeat_service.operator.wording import (
    attention,
    how_ended,
    line_of,
    style_of,
)


@click.command("list")
@click.option("--state", type=STATE, metavar="STATE", help="Those in this state.")
@by_label
@click.option("--late", is_flag=True, help="Those that are late.")
@click.option("--prefix", help="Those whose IDs begin so.")
@asks
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
    clients = together(pages)
    if as_json:
        print_json(_listing(pages, clients))
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
                Cell(duration(client["secondsToTimebomb"])),
                Cell(labels(client.get("labels", {}))),
                Cell(_since(client["registeredAt"], now)),
            )
            for client in clients
        ],
    )
    return DONE


@click.command()
@click.option("--prefix", help="Those whose IDs begin so.")
@click.option(
    "--since",
    type=DURATION,
    metavar="DURATION",
    help="Those that went so long ago at most: seconds, or such as 10m, 1h.",
)
@by_label
@asks
def gone(
    server: Server,
    prefix: str | None,
    since: float | None,
    labelled: Sequence[str],
    as_json: bool,
) -> int:
    """Show who was here and is not, the last to go first."""
    pages = list(gone_pages(server, prefix=prefix, since=since))
    clients = [one for one in together(pages) if has_labels(one, labelled)]
    if as_json:
        print_json(_listing(pages, clients))
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


@click.command()
@click.argument("client_id", metavar="ID", type=CLIENT_ID)
@asks
def history(server: Server, client_id: str, as_json: bool) -> int:
    """Show a client's lives, the present one first."""
    answer = server.get(f"/clients/{client_id}/history")
    if as_json:
        print_json(answer)
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
                Cell("?" if life["beats"] is None else f"{life['beats']}"),
                Cell(duration(life["longestGapSeconds"])),
                Cell(f"{life['incarnation']}"),
            )
        )
    headings = ("BEGAN", "ENDED", "HOW", "STATE", "BEATS", "LONGEST GAP", "LIFE")
    show_table(headings, rows)
    return DONE


@click.command()
@asks
def status(server: Server, as_json: bool) -> int:
    """Say whether all is well; the exit status is 1 if not.

    It is not if the service isn't ready, its store is in trouble, deaths are held for a
    mass loss, or somebody is late, held or flapping. Who went in the last hour is told,
    and is no fault by itself.
    """
    ready, not_ready = _unless_overloaded(server, "/readyz")
    summary, _ = _unless_overloaded(server, "/summary")
    hold, not_told = _unless_overloaded(server, "/mass-loss")
    wrong = _what_is_wrong(not_ready or not_told, summary or {}, hold or {})
    verdict = f"Not well: {', '.join(wrong)}" if wrong else "All well"
    if as_json:
        answers = {"ready": ready is not None, "summary": summary, "massLoss": hold}
        print_json({"well": not wrong, "wrong": wrong, **answers})
    else:
        click.secho(printable(verdict), fg="red" if wrong else "green", bold=True)
        for line in (*_figures(summary), *_loss(hold)):
            click.echo(line)
    return REFUSED if wrong else DONE


@click.command()
@click.option(
    "--id",
    "client_id",
    type=CLIENT_ID,
    metavar="ID",
    help="Only those of this client.",
)
@asks
def events(server: Server, client_id: str | None, as_json: bool) -> int:
    """Print each event on a line, as it happens, until Ctrl-C.

    With --json a line is the event's data, with its name and id.
    """
    # Not by the client's own stream, which may want a client's token.
    for told in follow(server, "/events"):
        match told:
            case Event() if not _is_of(told, client_id):
                pass
            case Event() if as_json:
                print_json({"event": told.name, "id": told.id, **told.data})
            case Event():
                click.echo(line_of(told))
            case LineLost():
                click.echo(watching.line_lost(told), err=True)
    return DONE


@click.command()
@asks
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


def _is_of(event: Event, client_id: str | None) -> bool:
    """Whether it is of a client, if one is given; a Reset is of each."""
    return client_id in (None, event.data.get("clientID")) or event.name == "Reset"


def _listing(pages: Sequence[Record], clients: Sequence[Record]) -> Record:
    """One listing of several pages: what was told after the first, isn't in all."""
    rest = {key: pages[0].get(key) for key in ("asOf", "serverTime")}
    return {**rest, "clients": clients}


def _show_clients(headings: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
    if rows:
        show_table(headings, rows)
    else:
        click.echo("Nobody.", err=True)


def _since(then: str, now: datetime) -> str:
    return duration(round(max((now - moment(then)).total_seconds(), 0)))


def _end_style(life: Record) -> str:
    return {"timebomb": "red", "kick": "cyan"}.get(str(life.get("reason")), "")


def _unless_overloaded(server: Server, path: str) -> tuple[Record | None, str | None]:
    """What the service answers, or why it can't now."""
    try:
        return server.get(path), None
    except Refused as error:
        if error.code != "OVERLOADED":
            raise
        return None, str(error)


def _what_is_wrong(trouble: str | None, summary: Record, hold: Record) -> list[str]:
    """Each thing for which not all is well, in a few words."""
    wrong = [] if trouble is None else [f"not ready: {trouble}"]
    if trouble is None and summary.get("store") is not None:
        wrong.append(f"the store: {summary['store']}")
    if hold.get("hold") is not None:
        wrong.append("mass loss")
    signs = ("late", "held", "flapping")
    return wrong + [f"{summary[sign]:,} {sign}" for sign in signs if summary.get(sign)]


def _figures(summary: Record | None) -> Iterator[str]:
    if summary is None:
        return
    states = ", ".join(f"{summary['states'].get(each, 0):,} {each}" for each in STATES)
    yield f"{count(summary['alive'])} alive: {states}"
    signs = ("late", "held", "flapping", "silent")
    yield ", ".join(f"{summary[sign]:,} {sign}" for sign in signs)
    yield (
        f"{summary['goneLastHour']:,} gone in the last hour, "
        f"{summary['lostLastHour']:,} of them lost"
    )
    up = _since(summary["startedAt"], moment(summary["serverTime"]))
    yield f"the service is up for {up}"


def _loss(hold: Record | None) -> Iterator[str]:
    if hold is not None and hold["hold"] is not None:
        left = duration(hold["secondsLeft"])
        yield (
            f"{count(len(hold['held']))} held, nobody dies for {left}: "
            "look at the network first"
        )
