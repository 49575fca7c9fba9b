"""Who is here and what has changed, kept up by events: what ``watch`` shows.

A listing says who is here, and each event beyond it changes that. Fuses burn by this
machine's own clock, from what the service said last; of a healthy client nothing of the
kind is shown, as its beats make no event. Knows no connection and no terminal.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from typing import Any

from attrs import define, field

from heartbeat_service.operator.stream import Event, is_beyond
from heartbeat_service.operator.text import duration, labels, natural
from heartbeat_service.operator.wording import FLAPPING, Record, line_of

#: How many changes are kept.
MOST_CHANGES = 100

_STATES = ("RUNNING", "CALIBRATED", "UNCALIBRATED")


@define
class Shown:
    """A living client.

    :ivar place: where it stands among others of its kind.
    :ivar silent_since: by this machine's clock, of one that is late or held.
    :ivar ends: when its fuse or its planned silence is burnt down, by that clock.
    """

    client_id: str
    state: str
    labels: dict[str, str]
    reported: str
    deaths: int = 0
    late: bool = False
    held: bool = False
    silent: bool = False
    silent_since: float = 0
    ends: float = 0
    place: list[tuple[int, int, str]] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.place = natural(self.client_id)  # once: it is asked for twice a second

    @classmethod
    def of(cls, record: Record, now: float) -> Shown:
        """As a listing has it."""
        silent = record.get("silentSeconds")
        # What the service doesn't know, of a client elsewhere, is null.
        left = (record["secondsToTimebomb"] or 0) if silent is None else silent
        return cls(
            client_id=record["clientID"],
            state=record["clientState"],
            labels=record.get("labels", {}),
            reported=record["reportedState"],
            deaths=record.get("deathsInTenMinutes", 0),
            late=bool(record.get("late")),
            held=bool(record.get("held")),
            silent=silent is not None,
            silent_since=now - (record["secondsSinceHeartbeat"] or 0),
            ends=now + left,
        )

    def urgency(self) -> int:
        """How much a person should look at it: the lowest first."""
        signs = (self.held, self.late, self.deaths >= FLAPPING, self.silent)
        return next((place for place, sign in enumerate(signs) if sign), len(signs))

    def attention(self, now: float) -> str:
        """What a person should know of it now; empty if nothing."""
        left = duration(round(max(self.ends - now, 0)))
        signs = []
        if self.held:
            signs.append(
                f"held, no beat for {duration(round(now - self.silent_since))}"
            )
        elif self.late:
            signs.append(f"late, {left} left")
        if self.deaths >= FLAPPING:
            signs.append(f"flapping, {self.deaths} deaths in 10 min")
        if self.silent:
            signs.append(f"may be silent for {left}")
        if self.reported not in (self.state, "DISCONNECTED"):
            signs.append(f"says {self.reported}")
        return "; ".join(signs)


@define
class Board:
    """What is known.

    :ivar clients: who is here, by ID.
    :ivar changes: the last of them, in words.
    :ivar mass_loss: whether deaths are held.
    :ivar store: what troubles the service's store; None if nothing.
    :ivar lost_line: why there is no line to the service, so that nothing here is fresh.
    :ivar lost_at: since when, by this machine's clock.
    """

    clients: dict[str, Shown] = field(factory=dict)
    changes: deque[str] = field(factory=lambda: deque(maxlen=MOST_CHANGES))
    mass_loss: bool = False
    store: str | None = None
    lost_line: str | None = None
    lost_at: float = 0
    _as_of: str | None = None
    _deaths: Counter[str] = field(factory=Counter)  # until the next listing

    def list_anew(
        self, records: Iterable[Record], as_of: str | None, now: float
    ) -> None:
        """Take a listing in place of all that was known."""
        self.clients = {record["clientID"]: Shown.of(record, now) for record in records}
        self._as_of = as_of
        self._deaths.clear()

    def apply(self, event: Event, now: float) -> bool:
        """Take an event; whether it is beyond the listing."""
        if not self._is_agreement(event):
            self.changes.append(line_of(event))
        if event.name != "Reset" and not is_beyond(event.id, self._as_of):
            return False
        data = event.data
        match event.name:
            case "MassLoss" | "MassLossOver":
                self.mass_loss = event.name == "MassLoss"
            case "Store":
                self.store = data.get("trouble")
            case "OnStateChange":
                self._change(data, now)
            case _:
                if (client := self.clients.get(str(data.get("clientID")))) is not None:
                    _sign(client, event.name, data, now)
        return True

    def lose_line(self, why: str, now: float) -> None:
        """There is no line any more; the first reason counts."""
        if self.lost_line is None:
            self.lost_line, self.lost_at = why, now

    def by_urgency(self) -> list[Shown]:
        """Who is here: those first who need a person, then by their IDs."""
        return sorted(
            self.clients.values(),
            key=lambda client: (client.urgency(), client.place),
        )

    def counts(self) -> str:
        """How many are here, and how they are."""
        clients = self.clients.values()
        by_state = Counter(client.state for client in clients)
        states = ", ".join(f"{by_state[state]:,} {state}" for state in _STATES)
        signs = {
            "late": sum(client.late and not client.held for client in clients),
            "held": sum(client.held for client in clients),
            "flapping": sum(client.deaths >= FLAPPING for client in clients),
            "silent": sum(client.silent for client in clients),
        }
        told = [f"{number:,} {sign}" for sign, number in signs.items() if number]
        return "; ".join([f"{len(self.clients):,} alive: {states}", *told])

    def _is_agreement(self, event: Event) -> bool:
        """Whether a client only says what it was told, as each does after an order."""
        client = self.clients.get(str(event.data.get("clientID")))
        return (
            event.name == "Reported"
            and client is not None
            and event.data.get("reportedState") == client.state
        )

    def _change(self, data: dict[str, Any], now: float) -> None:
        client_id, state = data["clientID"], data["clientState"]
        if state == "DISCONNECTED":
            gone = self.clients.pop(client_id, None)
            if data["reason"] == "timebomb":
                before = self._deaths[client_id] if gone is None else gone.deaths
                self._deaths[client_id] = before + 1
            return
        known = self.clients.get(client_id)
        if known is None or data["reason"] in ("heartbeat", "reconnect"):
            labelled = data.get("labels", {} if known is None else known.labels)
            known = Shown(client_id, state, labelled, "DISCONNECTED", silent_since=now)
            known.deaths = self._deaths[client_id]
            self.clients[client_id] = known
        known.state = state


def _sign(client: Shown, name: str, data: dict[str, Any], now: float) -> None:
    match name:
        case "Late" | "Held":
            client.late = True
            client.held = name == "Held"
            client.silent_since = now - data["secondsSinceHeartbeat"]
            client.ends = now + data.get("secondsToTimebomb", 0)
        case "Recovered":
            client.late = client.held = False
        case "Silence":
            client.silent = bool(data["seconds"])
            client.late = client.late and not client.silent
            client.ends = now + data["seconds"]
        case "Labels":
            client.labels = data["labels"]
        case "Reported":
            client.reported = data["reportedState"]


def cells(client: Shown, now: float) -> tuple[str, str, str, str]:
    """A client's row: its ID, state, what to know, labels."""
    return (
        client.client_id,
        client.state,
        client.attention(now),
        labels(client.labels),
    )
