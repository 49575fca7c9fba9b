"""``watch``: who is here, kept up by the events, on a terminal or as lines.

Each ``Reset`` is followed by a new listing. On a terminal there is also one each
minute, as deaths of ten minutes ago are forgotten without an event. Draws what a
:class:`Board` knows.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from threading import Lock
from typing import TYPE_CHECKING

import click
from attrs import define, field

from heartbeat_service.operator.board import Board, Shown, cells
from heartbeat_service.operator.server import NoServer, Record, Refused, Server
from heartbeat_service.operator.stream import Event, LineBack, LineLost, Told, follow
from heartbeat_service.operator.tables import Cell, show_table
from heartbeat_service.operator.text import clock, printable
from heartbeat_service.operator.wording import line_of

if TYPE_CHECKING:
    from rich.console import RenderableType

#: Seconds after which is listed anew, on a terminal.
LISTING_AGE = 60.0

#: How many of the last changes the screen shows.
CHANGES = 8

_HEADINGS = ("CLIENT", "STATE", "ATTENTION", "LABELS")
#: By urgency: held, late, flapping, silent, nothing.
_STYLES = ("magenta", "yellow", "yellow", "cyan", "")


def print_json(server: Server) -> None:
    """A line with the listing after each Reset, and one for each event beyond it."""
    for told in Watch(server).told():
        match told:
            case Event():
                line = {"event": told.name, "id": told.id, **told.data}
                click.echo(json.dumps(line))
            case dict():
                click.echo(json.dumps(told))
            case LineLost():
                click.echo(line_lost(told), err=True)


def print_lines(server: Server) -> None:
    """The list after each Reset, and a line for each change beyond it."""
    watch = Watch(server)
    for told in watch.told():
        match told:
            case Event(name="Reset"):
                pass  # the list comes next
            case Event():
                click.echo(line_of(told))
            case dict():
                rows = list(_rows(watch.board.by_urgency(), time.monotonic()))
                if rows:
                    show_table(_HEADINGS, rows)
                click.echo(watch.board.counts())
            case LineLost():
                click.echo(line_lost(told), err=True)


def show_live(server: Server) -> None:
    """All of it on the whole screen, drawn twice a second."""
    from rich.console import Console  # takes a while, and not each command needs it
    from rich.live import Live

    watch, console = Watch(server, LISTING_AGE), Console()

    def draw() -> RenderableType:
        with watch.lock:
            return screen(watch.board, console.height)

    told = watch.told()
    next(told)  # what is wrong at first is told without a screen
    with Live(get_renderable=draw, console=console, screen=True, refresh_per_second=2):
        for _ in told:
            pass  # it is drawn by a thread of its own


def line_lost(told: LineLost) -> str:
    """A lost line, in a line."""
    return f"no line, trying again: {printable(told.why)}"


@define(eq=False)
class Watch:
    """Keeps a board up.

    :ivar lock: held while the board changes.
    :param listing_age: seconds after which is listed anew; None for never.
    """

    _server: Server
    _listing_age: float | None = None
    board: Board = field(factory=Board, init=False)
    lock: Lock = field(factory=Lock, init=False)
    _listed: float | None = field(default=None, init=False)

    def told(self) -> Iterator[Told | Record]:
        """What is told, after the board knows it; a listing is a record.

        Events that the last listing knows of are left out.

        :raises Refused: if the service says no.
        :raises NoServer: if it can't be reached at first.
        """
        for told in follow(self._server, "/events"):
            if self._take(told):
                yield told
            if not isinstance(told, LineLost) and self._is_old():
                try:
                    listing = self._list()
                except (NoServer, Refused) as error:
                    if isinstance(error, Refused) and error.code != "OVERLOADED":
                        raise
                    lost = LineLost(str(error))  # and again with what is told next
                    self._take(lost)
                    yield lost
                else:
                    yield listing

    def _take(self, told: Told) -> bool:
        with self.lock:
            match told:
                case Event():
                    if told.name == "Reset":
                        self._listed = None
                    return self.board.apply(told, time.monotonic())
                case LineLost():
                    since = f"{clock(datetime.now())}: {told.why}"
                    self.board.lose_line(since, time.monotonic())
                case LineBack():
                    self.board.lost_line = None
        return True

    def _is_old(self) -> bool:
        if self._listed is None:
            return True
        age = time.monotonic() - self._listed
        return self._listing_age is not None and age > self._listing_age

    def _list(self) -> Record:
        pages = list(self._server.pages())
        clients = [client for page in pages for client in page["clients"]]
        # Of several pages, what was told after the first isn't in all.
        as_of = pages[0].get("asOf")
        now = time.monotonic()
        hold = self._server.get("/mass-loss").get("hold")
        with self.lock:
            self.board.list_anew(clients, as_of, now)
            self.board.mass_loss = hold is not None
            self.board.lost_line = None
        self._listed = now
        return {"clients": clients, "asOf": as_of}


def _rows(clients: list[Shown], now: float) -> Iterator[list[Cell]]:
    for client in clients:
        client_id, state, attention, labels = cells(client, now)
        style = _STYLES[client.urgency()]
        yield [Cell(client_id), Cell(state), Cell(attention, style), Cell(labels)]


def screen(board: Board, height: int) -> RenderableType:
    """What is seen of a board, on so many lines."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    # Without a line no fuse is known to burn.
    now = time.monotonic() if board.lost_line is None else board.lost_at
    changes = list(islice(reversed(board.changes), CHANGES))[::-1]
    head = [Text(board.counts(), style="bold", no_wrap=True)]
    if board.lost_line is not None:
        warning = f"NO LINE since {printable(board.lost_line)}"
        head.append(Text(warning, style="bold red", no_wrap=True))
        head.append(Text("Below stands what was known then.", style="red"))
    if board.mass_loss:
        text = "Mass loss: nobody dies for now. Look at the network first"
        head.append(Text(text, style="bold magenta"))
    if board.store is not None:
        text = f"The store: {printable(board.store)}"
        head.append(Text(text, style="bold red", no_wrap=True))
    # The table's heading, a blank line around it, the line of those that don't fit.
    room = max(height - len(head) - len(changes) - 4, 1)
    clients = board.by_urgency()
    faded = "dim" if board.lost_line is not None else ""
    table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))
    for heading in _HEADINGS:
        table.add_column(heading, no_wrap=True)
    for row in _rows(clients[:room], now):
        table.add_row(*(Text(cell.text, style=faded or cell.style) for cell in row))
    more = Text(f"and {len(clients) - room:,} more" if len(clients) > room else "")
    last = [Text(line, style="dim", no_wrap=True) for line in changes]
    return Group(*head, Text(), table, more, *last)
