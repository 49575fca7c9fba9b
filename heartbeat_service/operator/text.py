"""Words and numbers for people, and nothing that a terminal would obey.

Knows no client and no event.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from itertools import islice
from math import isfinite

_DURATION = re.compile(r"(?:\d+(?:\.\d+)?[smhd])+|\d+(?:\.\d+)?", re.ASCII)
_PART = re.compile(r"([\d.]+)([smhd]?)", re.ASCII)
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 24 * 3600}

#: How many IDs a sentence names.
MOST_NAMED = 12


def printable(text: object) -> str:
    """A text that moves no cursor and sets no colour: all else is escaped."""
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode()
        for each in str(text)
    )


def parse_duration(text: str) -> float:
    """Seconds, of such as ``90``, ``0.5``, ``5m``, ``1h30m``, ``1d``.

    :raises ValueError: for anything else.
    """
    parts = _PART.findall(text if _DURATION.fullmatch(text) else "")
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if not parts or not isfinite(seconds):
        raise ValueError(f"expected seconds, or such as 30s, 5m, 1h, 1d; got {text!r}")
    return seconds


def duration(seconds: float | None) -> str:
    """Such as ``4.1 s``, ``5 min``, ``1 h 30 min``, ``2 d 3 h``: at most two units.

    What the service doesn't know is None, and a question mark.
    """
    if seconds is None:
        return "?"
    seconds = max(seconds, 0)
    if seconds < 60:  # noqa: PLR2004 - of a minute
        return f"{seconds:.1f} s".replace(".0 ", " ")
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = ((days, "d"), (hours, "h"), (minutes, "min"), (seconds, "s"))
    first = next(place for place, (count, _) in enumerate(parts) if count)
    two = parts[first : first + 2]
    return " ".join(f"{count} {unit}" for count, unit in two if count)


def moment(text: str) -> datetime:
    """A time of the service, as this machine's local time."""
    return datetime.fromisoformat(text).astimezone()


def clock(time: datetime) -> str:
    """A time of day; with the date, if that isn't today."""
    shown = f"{time:%H:%M:%S}"
    return shown if time.date() == datetime.now().date() else f"{time:%Y-%m-%d} {shown}"


def natural(client_id: str) -> list[tuple[int, int, str]]:
    """A key that sorts headset-9 before headset-10."""
    return [
        (0, int(part), part) if part.isdigit() else (1, 0, part)
        for part in re.split(r"(\d+)", client_id)
    ]


def count(number: int, of: str = "client") -> str:
    """Such as ``1 client``, ``2,000 clients``."""
    return f"{number:,} {of}{'' if number == 1 else 's'}"


def names(client_ids: Iterable[str], number: int) -> str:
    """The first of so many IDs."""
    named = ", ".join(islice(client_ids, MOST_NAMED))
    return f"{named} and {number - MOST_NAMED:,} more" if number > MOST_NAMED else named


def labels(given: dict[str, str]) -> str:
    """Labels as they are written in options."""
    return printable(" ".join(f"{name}:{value}" for name, value in given.items()))
