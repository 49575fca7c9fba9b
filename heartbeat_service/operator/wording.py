"""What an event says, and what is to be known of a client, in a line for people.

Knows the events of the contract's section 3a and the records of section 3; one that it
doesn't know is shown as it is, but for control codes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from heartbeat_service.operator.stream import Event
from heartbeat_service.operator.text import (
    clock,
    count,
    duration,
    labels,
    moment,
    printable,
)

Record = Mapping[str, Any]

#: As many deaths in ten minutes are called flapping.
FLAPPING = 3

#: How a life ended, by its reason.
ENDS = {
    "timebomb": "lost, no beat in its time",
    "kick": "kicked",
    "goodbye": "said goodbye",
    "reconnect": "restarted",
}


def how_ended(record: Record) -> str:
    """How a life ended."""
    reason = record.get("reason")
    how = ENDS.get(str(reason), printable(reason or "nobody knows"))
    return how + _by(record)


def attention(client: Record) -> str:
    """What a person should know of a living client; empty if nothing."""
    silence = duration(client["secondsSinceHeartbeat"])
    signs = []
    if client.get("held"):
        signs.append(f"held, no beat for {silence}")
    elif client.get("late"):
        signs.append(f"late, no beat for {silence}")
    if (deaths := client.get("deathsInTenMinutes", 0)) >= FLAPPING:
        signs.append(f"flapping, {deaths} deaths in 10 min")
    if (silent := client.get("silentSeconds")) is not None:
        signs.append(f"silent for {duration(silent)} more")
    # DISCONNECTED is what one says that hasn't read its first reply.
    reported = client["reportedState"]
    if reported not in (client["clientState"], "DISCONNECTED"):
        signs.append(f"says {reported}")
    return "; ".join(signs)


def style_of(client: Record) -> str:
    """The colour of :func:`attention`, where there are colours."""
    if client.get("held"):
        return "magenta"
    if client.get("late") or client.get("deathsInTenMinutes", 0) >= FLAPPING:
        return "yellow"
    return "cyan" if client.get("silentSeconds") is not None else ""


def line_of(event: Event) -> str:
    """An event with its time: when the service says that it was, else now."""
    at = event.data.get("at") or event.data.get("serverTime")
    try:
        time = moment(str(at))
    except ValueError:
        time = datetime.now().astimezone()
    return f"{clock(time)} {sentence(event)}"


def sentence(event: Event) -> str:
    """What an event says."""
    try:
        said = _SENTENCES[event.name](event.data)
    except (KeyError, TypeError, ValueError):  # of a service that is newer
        data = {key: event.data[key] for key in event.data if key != "clientID"}
        said = f"{event.name} {json.dumps(data, ensure_ascii=False)}"
    client_id = event.data.get("clientID")
    return printable(said if client_id is None else f"{client_id} {said}")


def _by(data: Record) -> str:
    return f", by {printable(data['by'])}" if data.get("by") else ""


def _changed(data: Record) -> str:
    text = f"{data['previousState']} -> {data['clientState']} ({data['reason']}"
    given = f" {labels(data['labels'])}" if data.get("labels") else ""
    return f"{text}{_by(data)}){given}"


def _late(data: Record) -> str:
    return (
        f"late, no beat for {duration(data['secondsSinceHeartbeat'])}, "
        f"{duration(data['secondsToTimebomb'])} left"
    )


def _silence(data: Record) -> str:
    if data["seconds"]:
        return f"may be silent for {duration(data['seconds'])}{_by(data)}"
    why = {"beat": "it beats", "operator": "taken back", "ended": "ended"}
    return f"silence over: {why.get(data['reason'], data['reason'])}{_by(data)}"


def _locked_out(data: Record) -> str:
    if data["seconds"]:
        return f"kept out for {duration(data['seconds'])}{_by(data)}"
    return f"may come back{_by(data)}"


def _mass_loss(data: Record) -> str:
    left = duration(data["secondsLeft"])
    return (
        f"Mass loss: {count(data['held'])} held, nobody dies for {left}: "
        f"look at the network first (hold {data['hold']})"
    )


def _store(data: Record) -> str:
    trouble = data["trouble"]
    return "The store is well again" if trouble is None else f"The store: {trouble}"


_SENTENCES: Mapping[str, Callable[[Record], str]] = {
    "OnStateChange": _changed,
    "Late": _late,
    "Recovered": lambda _: "beats again",
    "Held": lambda data: f"held, no beat for {duration(data['secondsSinceHeartbeat'])}",
    "Silence": _silence,
    "LockedOut": _locked_out,
    "Labels": lambda data: f"has labels {labels(data['labels']) or 'no more'}",
    "Reported": lambda data: f"says {data['reportedState']}",
    "MassLoss": _mass_loss,
    "MassLossOver": lambda data: f"Mass loss over ({data['reason']}){_by(data)}",
    "Store": _store,
    "Reset": lambda _: "What was told before may be wrong",
}
