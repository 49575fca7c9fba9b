"""The service's events, one after the other, also over a line that breaks.

After a break the stream is asked for with the last id that was read: the service sends
what was missed, or a ``Reset`` where it can't. Knows how events are framed, not what
they mean.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from typing import Any

from attrs import define, field, frozen

from heartbeat_service.operator.server import NoServer, Refused, Server

#: Seconds to wait before a lost line is tried again, the last one for ever.
RETRIES = (0.5, 1.0, 2.0, 4.0, 5.0)


@frozen
class Event:
    """One event: its name, its id (``RUN-NUMBER``) and its data."""

    name: str
    id: str
    data: dict[str, Any]


@frozen
class LineLost:
    """The stream broke, or can't be opened again; the text says why."""

    why: str


@frozen
class LineBack:
    """The stream is open again."""


@frozen
class LineAlive:
    """Something was read, if only a comment; after each piece that comes."""


Told = Event | LineLost | LineBack | LineAlive


@define
class EventParser:
    """Makes events of a stream's bytes, however they are cut into pieces."""

    _rest: bytes = field(default=b"", init=False)
    _fields: dict[str, str] = field(factory=dict, init=False)

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """The events that this completes."""
        # Not by splitlines(): it would cut at characters that stand within JSON.
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            text = line.removesuffix(b"\r").decode("utf-8", "replace")
            if text:
                name, _, value = text.partition(":")
                self._fields[name] = value.removeprefix(" ")
            elif event := self._complete():
                yield event

    def _complete(self) -> Event | None:
        fields, self._fields = self._fields, {}
        if "data" not in fields:  # a comment
            return None
        try:
            data = json.loads(fields["data"])
        except ValueError:
            data = None
        if not isinstance(data, dict):
            raise NoServer("an event is no JSON object: this is no heartbeat service")
        return Event(fields.get("event", ""), fields.get("id", ""), data)


def is_beyond(event_id: str, as_of: str | None) -> bool:
    """Whether a listing doesn't know of an event yet.

    :param as_of: the id of the last event that the listing knows of.
    """
    run, _, number = event_id.rpartition("-")
    known_run, _, known = (as_of or "").rpartition("-")
    if run != known_run or not number.isdigit() or not known.isdigit():
        return True
    return int(number) > int(known)


def follow(
    server: Server, path: str, wait: Callable[[float], object] = time.sleep
) -> Iterator[Told]:
    """The events of a stream, for ever.

    :param wait: lets so many seconds pass.
    :raises Refused: if the service says no.
    :raises NoServer: if it can't be reached at first; later that is told, and tried
        again.
    """
    last_id: str | None = None
    tries = 0
    was_alive = False
    while True:
        why = "the service has ended the stream"
        try:
            with server.stream(path, last_id) as chunks:
                if was_alive:
                    yield LineBack()
                parser = EventParser()
                for chunk in chunks:
                    tries = 0
                    for event in parser.feed(chunk):
                        last_id = event.id or last_id
                        yield event
                    was_alive = True
                    yield LineAlive()
        except NoServer as error:
            if not was_alive:
                raise
            why = str(error)
        except Refused as error:
            if not was_alive or error.code != "OVERLOADED":
                raise
            why = str(error)
        yield LineLost(why)
        seconds = RETRIES[min(tries, len(RETRIES) - 1)]
        wait(seconds * random.uniform(0.8, 1.2))  # noqa: S311 - keeps no secret
        tries += 1
