"""A reader of server-sent events, for all tests (the HTML standard, 9.2.6).

It is fed with what comes, in any pieces, and keeps what was told and how often a
comment came.
"""

from __future__ import annotations

import json
from typing import Any

from attrs import define, field, frozen


@frozen
class Event:
    """What was told once.

    :ivar data: what its JSON says.
    """

    id: str
    name: str
    data: dict[str, Any]

    @property
    def run(self) -> str:
        """Which run of the service has told it."""
        return self.id.rpartition("-")[0]

    @property
    def number(self) -> int:
        """Which one of that run it is."""
        return int(self.id.rpartition("-")[2])


@define
class EventReader:
    """All that a stream has told so far."""

    events: list[Event] = field(factory=list)
    comments: int = 0
    _line: bytes = b""
    _fields: dict[str, str] = field(factory=dict)

    def feed(self, data: bytes) -> None:
        """Take what has come."""
        *lines, self._line = (self._line + data).split(b"\n")
        for line in lines:
            self._take(line.decode("utf-8"))

    def _take(self, line: str) -> None:
        name, _, value = line.partition(": ")
        if line.startswith(":"):
            self.comments += 1
        elif line:
            assert name in ("id", "event", "data"), (
                f"not a field of the contract: {line}"
            )
            assert name not in self._fields, f"{name} twice in one event"
            self._fields[name] = value
        elif self._fields:
            fields, self._fields = self._fields, {}
            data = json.loads(fields["data"])
            self.events.append(Event(fields["id"], fields["event"], data))
