"""The commands for many machines: which nodes there are, and to empty one.

Knows what is asked of the service, and nothing of clients.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import click
from click.shell_completion import CompletionItem
from typing_extensions import override

from heartbeat_service.operator.options import (
    DONE,
    REFUSED,
    asks,
    complete,
    print_json,
)
from heartbeat_service.operator.server import Record, Server
from heartbeat_service.operator.tables import Cell, show_table
from heartbeat_service.operator.text import clock, count, moment, printable


class NodeType(click.ParamType[str]):
    """A node's name; completed with those that run."""

    name = "node"

    @override
    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> str:
        """Read it: the service knows which there are."""
        return str(value)

    @override
    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Those that begin so."""
        names = [node["node"] for node in complete(ctx, "/nodes").get("nodes", ())]
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]


@click.command()
@asks
def nodes(server: Server, as_json: bool) -> int:
    """Show which nodes are the service, and how many clients beat at each."""
    answer = server.get("/nodes")
    if as_json:
        print_json(answer)
        return DONE
    show_table(
        ("NODE", "CLIENTS", "HTTP", "SINCE", "ANSWERS"),
        [
            (
                Cell(printable(node["node"])),
                Cell(f"{node['clients']:,}"),
                Cell(printable(node["http"])),
                Cell(clock(moment(node["since"]))),
                Cell("yes" if node["self"] else ""),
            )
            for node in answer["nodes"]
        ],
    )
    return DONE


@click.command()
@click.argument("name", metavar="NODE", type=NodeType())
@click.option("--yes", is_flag=True, help="Don't ask.")
@asks
def drain(server: Server, name: str, yes: bool, as_json: bool) -> int:
    """Send a node's clients to the others, so that it can be stopped.

    It answers no beat from then on.
    """
    if not yes and not sys.stdin.isatty():
        raise click.UsageError("There is no terminal to ask at: say --yes")
    there = server.get("/nodes")["nodes"]
    # Where it can't be done, the service says why.
    if not yes and _can_be(name, there) and not _agreed(name, there):
        click.echo("Nothing is done.", err=True)
        return REFUSED
    server.tell(f"/nodes/{quote(name, safe='')}/drain")
    if as_json:
        print_json({"node": name, "drained": True})
    else:
        click.echo(f"{name} is empty: it can be stopped")
    return DONE


def _can_be(name: str, there: Sequence[Record]) -> bool:
    return len(there) > 1 and [node["node"] for node in there].count(name) == 1


def _agreed(name: str, there: Sequence[Record]) -> bool:
    [clients] = [node["clients"] for node in there if node["node"] == name]
    others = ", ".join(node["node"] for node in there if node["node"] != name)
    click.echo(printable(f"{count(clients)} at {name}, to go to {others}"), err=True)
    click.echo(f"Empty {name}? [y/N] ", err=True, nl=False)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
