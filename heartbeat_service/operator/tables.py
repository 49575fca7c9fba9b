"""Tables: with colours on a terminal, else plain columns that nothing cuts.

Knows no command.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

import click
from attrs import frozen


@frozen
class Cell:
    """A text, and how it looks where there are colours."""

    text: str
    style: str = ""


def show_table(headings: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
    """Print a table to standard output."""
    whole = list(rows)
    if sys.stdout.isatty():
        _show_on_terminal(headings, whole)
    else:
        _show_plainly([headings, *([cell.text for cell in row] for row in whole)])


def _show_plainly(lines: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = map(str.ljust, line, widths)
        click.echo("  ".join(cells).rstrip())


def _show_on_terminal(headings: Sequence[str], rows: list[Sequence[Cell]]) -> None:
    from rich.console import Console  # takes a while, and not each command needs it
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell.text, style=cell.style) for cell in row))
    Console().print(table)
