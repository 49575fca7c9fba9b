"""The log of events: all that operators are told, numbered, the last of it kept.

A watcher of the journal, so nothing is in it that the store doesn't have. Each event is
encoded once, and readers come to it with the number of the one that they want next;
so none of them has a log of its own. Knows no reader and no transport.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator

from msgspec import UNSET, Struct

from heartbeat_service.core.changes import Change, Lockout
from heartbeat_service.core.notices import (
    Held,
    LabelsChanged,
    Late,
    MassLossBegun,
    MassLossOver,
    News,
    Recovered,
    Reported,
    Silence,
    Stalled,
    StoreNotice,
)
from heartbeat_service.protocol.codec import encode_json, moment
from heartbeat_service.protocol.events import (
    Event,
    HeldEvent,
    LabelsEvent,
    LateEvent,
    LockedOutEvent,
    MassLossEvent,
    MassLossOverEvent,
    RecoveredEvent,
    ReportedEvent,
    ResetEvent,
    SilenceEvent,
    StateChanged,
    StoreEvent,
)

#: How many events are kept (contract, section 3a).
MOST_EVENTS = 10_000


class Told(Struct, frozen=True, gc=False):
    """An event as it is told.

    :ivar name: what it is, as ``OnStateChange``.
    :ivar data: one line of JSON.
    :ivar client_id: whose it is; None if it is nobody's.
    """

    id: str
    name: str
    data: bytes
    client_id: str | None = None


class EventLog:
    """The last :data:`MOST_EVENTS` that were told.

    :param wall_clock: seconds since the epoch, for people.
    :ivar run: names this log, and no other, of any run of the service.
    :ivar last: the number of the last event; 0 before the first.
    :ivar told: called after each event.
    """

    def __init__(self, wall_clock: Callable[[], float] = time.time) -> None:
        self.run = secrets.token_hex(8)
        self.last = 0
        self.told: Callable[[], object] = lambda: None
        self._wall_clock = wall_clock
        self._events: list[Told] = []  # of number n, the place is n modulo MOST_EVENTS

    @property
    def first(self) -> int:
        """The number of the oldest event that is kept."""
        return max(1, self.last - MOST_EVENTS + 1)

    @property
    def last_id(self) -> str:
        """The id of the last event; of number 0 before the first."""
        return f"{self.run}-{self.last}"

    def hear(self, news: News) -> None:
        """Something happened, and the store knows it.

        Of a stall the contract has no event.
        """
        if isinstance(news, Stalled):
            return
        event = event_of(news)
        self.last += 1
        told = Told(
            self.last_id,
            event.event,
            encode_json(event),
            getattr(news, "client_id", None),
        )
        if len(self._events) < MOST_EVENTS:
            self._events.append(told)
        else:
            self._events[(self.last - 1) % MOST_EVENTS] = told
        self.told()

    def next_after(self, event_id: str) -> int | None:
        """The number of the event after that one; None if some between are lost."""
        run, _, number = event_id.rpartition("-")
        if run != self.run or not (number.isascii() and number.isdigit()):
            return None
        following = int(number) + 1 if len(number) <= len(str(self.last)) else 0
        return following if self.first <= following <= self.last + 1 else None

    def since(self, number: int) -> Iterator[Told]:
        """The event of that number, which is kept, and all after it."""
        for one in range(number, self.last + 1):
            yield self._events[(one - 1) % MOST_EVENTS]

    def who_reported(
        self, event_id: str, most: int, is_wanted: Callable[[str], bool]
    ) -> tuple[list[str], str]:
        """Who has reported another state after an event, the first of them first.

        :param event_id: if some after it are lost, the last ``most`` are told.
        :param most: of how many it is told at once.
        :param is_wanted: whether a client, by its ID, is one of those.
        :return: their IDs, and the id of the last event that was looked at.
        """
        following, who = self.next_after(event_id), dict[str, None]()
        for told in self.since(following or self.first):
            client_id = told.client_id if told.name == ReportedEvent.event else None
            if client_id is not None and is_wanted(client_id):
                who.pop(client_id, None)
                who[client_id] = None
            if following and len(who) == most:
                return list(who), told.id
        return list(who)[-most:], self.last_id

    def reset(self) -> Told:
        """What a reader is told who doesn't know all up to the last event."""
        event = ResetEvent(run=self.run, server_time=moment(self._wall_clock()))
        return Told(self.last_id, event.event, encode_json(event))


def event_of(news: News) -> Event:
    """What is told of it."""
    if isinstance(news, Change):
        return _of_change(news)
    kind = _KINDS[type(news)]  # whose fields are named as the notice's
    what = {name: getattr(news, name) for name in kind.__struct_fields__}
    if kind in _LEAVES_OUT:  # what isn't known, instead of telling null
        what = {name: value for name, value in what.items() if value is not None}
    return kind(**what)


def _of_change(change: Change) -> StateChanged:
    client = change.client
    return StateChanged(
        client_id=client.client_id,
        incarnation=client.incarnation,
        client_state=client.state,
        previous_state=change.previous_state,
        reason=change.reason,
        sequence=client.sequence,
        instance_id=client.instances.present or UNSET,
        at=moment(change.at),
        labels=client.labels if client.sequence == 1 else UNSET,  # it has registered
        by=UNSET if change.by is None else change.by,
    )


#: What is told of each kind of news, but for changes.
_KINDS: dict[type, type[Event]] = {
    Lockout: LockedOutEvent,
    Late: LateEvent,
    Recovered: RecoveredEvent,
    Held: HeldEvent,
    Silence: SilenceEvent,
    LabelsChanged: LabelsEvent,
    Reported: ReportedEvent,
    MassLossBegun: MassLossEvent,
    MassLossOver: MassLossOverEvent,
    StoreNotice: StoreEvent,
}

_LEAVES_OUT = (SilenceEvent, MassLossOverEvent)
