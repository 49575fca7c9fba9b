"""What has happened since the last message, and the message that it becomes.

Knows what operators are told, and the words for it; nothing of time passing, of URLs or
of how a message is sent.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from enum import Enum

from attrs import define, field, frozen

from heartbeat_service.core.changes import Change, Reason
from heartbeat_service.core.notices import (
    HoldEnd,
    MassLossBegun,
    MassLossOver,
    News,
    Stalled,
    StoreNotice,
)
from heartbeat_service.core.states import ClientState
from heartbeat_service.engine.deaths import FLAPS, TEN_MINUTES

#: A stall that is worth a message, in seconds.
LONG_STALL = 5.0

#: How many IDs a line names.
MOST_NAMED = 10

#: How many lines tell of the lost of one place each; the rest are told in one.
MOST_PLACES = 5

#: Of how many that were told to be lost it is known when they come back.
MOST_LOST = 10_000

_OVER: Mapping[HoldEnd, str] = {
    HoldEnd.RECOVERED: "all that were held have beaten again",
    HoldEnd.TIME: "its time was up, {held} were still silent",
    HoldEnd.OPERATOR: "an operator ended it, {held} were still silent",
}


class Kind(Enum):
    """How bad it is."""

    BAD = "failure"
    WARNING = "warning"
    OVER = "success"


@frozen
class Message:
    """What a person gets.

    :ivar at: when it was written, in seconds since the epoch.
    """

    title: str
    body: str
    kind: Kind
    at: float


@define(eq=False)
class Gathering:
    """Takes what is told to operators, and makes messages of what people want to know.

    :ivar deaths_of: how often a client died by its timebomb in the last ten minutes.
    :ivar wall_clock: seconds since the epoch.
    """

    deaths_of: Callable[[str], int]
    wall_clock: Callable[[], float]
    _lost: dict[str, str] = field(factory=dict, init=False)
    _back: dict[str, float] = field(factory=dict, init=False)
    _told_lost: OrderedDict[str, float] = field(factory=OrderedDict, init=False)
    _flaps: dict[str, int] = field(factory=dict, init=False)
    _told_flapping: dict[str, float] = field(factory=dict, init=False)
    _lines: list[tuple[Kind, str]] = field(factory=list, init=False)

    def hear(self, news: News) -> bool:
        """Something has happened; whether there is something to tell now."""
        match news:
            case Change():
                self._hear_change(news)
            case MassLossBegun():
                self._add(Kind.BAD, self._mass_loss(news))
            case MassLossOver():
                over = _OVER[news.reason].format(held=news.held)
                self._add(Kind.OVER, f"Mass loss over at {self._now()}: {over}.")
            case StoreNotice():
                self._hear_store(news.trouble)
            case Stalled() if news.seconds >= LONG_STALL:
                self._add(
                    Kind.WARNING,
                    f"The service stalled for {news.seconds:.1f} s, until"
                    f" {self._now()}; no timebomb burnt meanwhile.",
                )
        return bool(self._lines or self._lost or self._back or self._flaps)

    def message(self) -> Message | None:
        """All that there is to tell, once; None if that is nothing."""
        told = [*self._lines, *self._losses(), *self._flapping(), *self._returns()]
        self._keep_in_mind()
        if not told:
            return None
        kind = next(kind for kind in Kind if any(one is kind for one, _ in told))
        worst = [line for one, line in told if one is kind]
        title, *_ = worst[0].partition(": ")
        rest = len(told) - 1
        if rest:
            title += f", and {rest} more" if rest > 1 else ", and one more"
        body = "\n".join(line for _, line in told)
        return Message(title.rstrip("."), body, kind, self.wall_clock())

    def _hear_change(self, change: Change) -> None:
        client_id = change.client_id
        if change.reason is Reason.TIMEBOMB:
            self._back.pop(client_id, None)
            self._lost[client_id] = _place(change.client.labels)
            deaths = self.deaths_of(client_id)
            if deaths >= FLAPS and self._is_flapping_news(client_id):
                self._flaps[client_id] = deaths
        elif change.previous_state is ClientState.DISCONNECTED and (
            client_id in self._lost or client_id in self._told_lost
        ):
            since = self._told_lost.get(client_id, self.wall_clock())
            self._back[client_id] = self.wall_clock() - since

    def _is_flapping_news(self, client_id: str) -> bool:
        told = self._told_flapping.get(client_id)
        return told is None or self.wall_clock() - told >= TEN_MINUTES

    def _hear_store(self, trouble: str | None) -> None:
        if trouble is None:
            self._add(Kind.OVER, f"The store keeps changes again since {self._now()}.")
        else:
            self._add(
                Kind.BAD,
                f"The store is in trouble since {self._now()}: {trouble}. No change is"
                " accepted until it is over; beats are.",
            )

    def _mass_loss(self, begun: MassLossBegun) -> str:
        until = _time(self.wall_clock() + begun.seconds_left)
        return (
            f"Mass loss since {self._now()}: so many are silent at once that nobody"
            f" dies before {until}. Look at the network first."
        )

    def _losses(self) -> Iterable[tuple[Kind, str]]:
        places: defaultdict[str, list[str]] = defaultdict(list)
        for client_id, place in self._lost.items():
            places[place].append(client_id)
        largest_first = sorted(places.items(), key=lambda one: -len(one[1]))
        for place, lost in largest_first[:MOST_PLACES]:
            where = f" in {place}" if place else ""
            yield Kind.BAD, f"{_clients(len(lost))} lost{where}: {_named(lost)}"
        rest = sum(len(lost) for _, lost in largest_first[MOST_PLACES:])
        if rest:
            yield Kind.BAD, f"{_clients(rest)} lost elsewhere"

    def _flapping(self) -> Iterable[tuple[Kind, str]]:
        if self._flaps:
            flaps = [f"{who} ({n} deaths)" for who, n in self._flaps.items()]
            what = f"{_clients(len(flaps))} flapping, in ten minutes"
            yield Kind.WARNING, f"{what}: {_named(flaps)}"

    def _returns(self) -> Iterable[tuple[Kind, str]]:
        back = [
            who if seconds < 1 else f"{who} (after {_span(seconds)})"
            for who, seconds in self._back.items()
        ]
        if back:
            yield Kind.OVER, f"{_clients(len(back))} back: {_named(back)}"

    def _keep_in_mind(self) -> None:
        now = self.wall_clock()
        for client_id in self._lost:
            self._told_lost.setdefault(client_id, now)
        for client_id in self._back:
            self._told_lost.pop(client_id, None)
        while len(self._told_lost) > MOST_LOST:
            self._told_lost.popitem(last=False)
        fresh = now - TEN_MINUTES
        self._told_flapping.update(dict.fromkeys(self._flaps, now))
        self._told_flapping = {
            who: told for who, told in self._told_flapping.items() if told > fresh
        }
        self._lost, self._back, self._flaps, self._lines = {}, {}, {}, []

    def _add(self, kind: Kind, line: str) -> None:
        self._lines.append((kind, line))

    def _now(self) -> str:
        return _time(self.wall_clock())


def joined(messages: list[Message]) -> Message:
    """One message of those that couldn't be sent when they were written."""
    if len(messages) == 1:
        return messages[0]
    kind = next(kind for kind in Kind if any(one.kind is kind for one in messages))
    body = "\n\n".join(f"{_time(one.at)}\n{one.body}" for one in messages)
    title = f"{messages[-1].title} ({len(messages)} messages in one)"
    return Message(title, body, kind, messages[-1].at)


def _place(labels: Mapping[str, str]) -> str:
    """Where a client is: its first label, as clients name where they are first."""
    return next((f"{name} {value}" for name, value in labels.items()), "")


def _clients(number: int) -> str:
    return "1 client" if number == 1 else f"{number:,} clients"


def _named(names: list[str]) -> str:
    names = sorted(names, key=lambda name: (len(name), name))  # 2 before 10
    shown = ", ".join(names[:MOST_NAMED])
    rest = len(names) - MOST_NAMED
    return f"{shown} and {rest:,} more" if rest > 0 else shown


def _span(seconds: float) -> str:
    for size, unit in ((3600.0, "h"), (60.0, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _time(seconds: float) -> str:
    """On the service's own clock, as its people have it."""
    return datetime.fromtimestamp(seconds).strftime("%H:%M:%S")  # noqa: DTZ006 - local
