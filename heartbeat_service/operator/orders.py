"""Orders: what one would do, shown before; then sent to those alone who were shown.

A plan has a client's incarnation and sequence as it was seen, and the service leaves
alone who has gone on since. Knows what the orders of the contract's section 3 look
like; asks nobody, and prints nothing.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from attrs import frozen

from heartbeat_service.operator.server import NoServer, Record, Refused, Server
from heartbeat_service.operator.text import (
    clock,
    count,
    duration,
    moment,
    names,
    printable,
)
from heartbeat_service.operator.whom import Found, by_id, gone_pages, together
from heartbeat_service.operator.wording import how_ended

#: How many clients one request is for.
BATCH = 1000

#: Beyond the time that an order took, how far back is looked for who went, in seconds.
_MARGIN = 60


@frozen
class Order:
    """What is to be done to each of some clients.

    :ivar method: of the request, and ``path``.
    :ivar body: of the request, but for whom it means.
    :ivar asks: the question, with ``{}`` for how many; ``done`` what was done.
    :ivar effect: what becomes of a client, by its state.
    :ivar told: what was done to one, by the answer; ``done``, if that is None.
    :ivar needless: why nothing has to be done to a client; None if it has.
    :ivar reaches_absent: whether it is also for IDs of which no client is here.
    """

    method: str
    path: str
    body: Mapping[str, Any]
    asks: str
    done: str
    effect: Callable[[str], str]
    needless: Callable[[Record], str | None] = lambda _: None
    told: Callable[[Record], str] | None = None
    reaches_absent: bool = False


def set_state(state: str) -> Order:
    """Set clients to a state."""
    return Order(
        *("PUT", "/clients/state", {"clientState": state}),
        asks=f"Set {{}} to {state}?",
        done=f"set to {state}",
        effect=lambda before: f"{before} -> {state}",
        needless=lambda client: (
            f"{state} already" if client["clientState"] == state else None
        ),
    )


def kick() -> Order:
    """Remove clients."""
    return Order(
        *("POST", "/clients/kick", {}),
        asks="Kick {}?",
        done="kicked",
        effect=lambda before: f"{before} -> kicked; who still beats begins a new life",
    )


def lock_out(seconds: float) -> Order:
    """Keep clients out; for 0 seconds, let them in again."""
    request = ("PUT", "/clients/lockout", {"seconds": seconds})
    if not seconds:
        return Order(
            *request,
            asks="Let {} in again?",
            done="let in again",
            effect=lambda _: "kept out -> may come back",
        )
    return Order(
        *request,
        asks=f"Kick {{}}, and keep them out for {_until(seconds)}?",
        done=f"kept out for {_until(seconds)}",
        effect=lambda before: f"{before} -> kicked and kept out",
        reaches_absent=True,
    )


def silence(seconds: float) -> Order:
    """Grant clients a pause; for 0 seconds, take it back."""
    request = ("PUT", "/clients/silence", {"seconds": seconds})
    if not seconds:
        return Order(
            *request,
            asks="Take the silence of {} back?",
            done="not silent any more",
            effect=lambda before: f"{before}, silent -> has a full fuse from now on",
            needless=lambda client: (
                "not silent" if client.get("silentSeconds") is None else None
            ),
        )
    return Order(
        *request,
        asks=f"Let {{}} be silent for {_until(seconds)}?",
        done="may be silent",
        effect=lambda before: f"{before}, may be silent",
        # At least for what was left of its fuse.
        told=lambda answer: f"may be silent for {duration(answer.get('seconds'))}",
    )


@frozen
class Outcome:
    """What has become of one client.

    :ivar answer: the service's, an ``Error``'s body if it was refused.
    :ivar said: the same for people.
    """

    client_id: str
    answer: Record
    is_done: bool
    said: str


@frozen
class Plan:
    """Whom an order would reach, as they were seen.

    :ivar targets: whom it is sent to; the record is None of one that isn't here.
    :ivar left: who is left alone, by why.
    :ivar missing: why others, that were named, aren't here.
    :ivar elsewhere: how many of those left alone are in a state that it isn't for.
    """

    order: Order
    targets: Mapping[str, Record | None]
    left: Mapping[str, Sequence[str]]
    missing: Mapping[str, str]
    from_states: Collection[str] = ()
    elsewhere: int = 0

    def question(self) -> str:
        """What is asked before it is sent."""
        return self.order.asks.format(count(len(self.targets)))

    def preview(self) -> Iterator[str]:
        """Line by line: whom it reaches and what becomes of them, and whom not."""
        groups: dict[str, list[str]] = {}
        for client_id, client in self.targets.items():
            state = "not here" if client is None else _state_of(client)
            groups.setdefault(state, []).append(client_id)
        for state, whom in groups.items():
            effect = self.order.effect(state)
            yield f"{len(whom):,} {effect}: {names(whom, len(whom))}"
        for sign in ("late", "held"):
            those = [one for one, record in self.targets.items() if _is(record, sign)]
            if those:
                yield f"{len(those):,} of them {sign}: {names(those, len(those))}"
        yield from self.left_alone()
        yield from map(printable, self.missing.values())

    def left_alone(self) -> Iterator[str]:
        """Line by line: who is here and isn't meant."""
        for why, whom in self.left.items():
            yield f"{len(whom):,} {why}, left alone: {names(whom, len(whom))}"

    def is_needless(self) -> bool:
        """Whether there is nothing to do, as all is so already."""
        return bool(self.left) and not (self.targets or self.missing or self.elsewhere)

    def not_found(self) -> Iterator[Outcome]:
        """What is told of those who aren't here."""
        for client_id, why in self.missing.items():
            answer = {"clientID": client_id, "code": "UNKNOWN_CLIENT", "detail": why}
            yield Outcome(client_id, answer, False, printable(why))


def plan(order: Order, found: Found, from_states: Collection[str] = ()) -> Plan:
    """Whom of those who were found an order is for.

    :param from_states: those that they must be in; any, if there are none.
    """
    targets: dict[str, Record | None] = {}
    left: dict[str, list[str]] = {}
    elsewhere = 0
    for client_id, client in found.clients.items():
        why = order.needless(client)
        if why is None and from_states and client["clientState"] not in from_states:
            why = client["clientState"]
            elsewhere += 1
        if why is None:
            targets[client_id] = client
        else:
            left.setdefault(why, []).append(client_id)
    missing = dict(found.missing)
    if order.reaches_absent and not from_states:
        targets.update(dict.fromkeys(missing))
        missing.clear()
    return Plan(order, targets, left, missing, from_states, elsewhere)


def send(server: Server, plan: Plan) -> Iterator[list[Outcome]]:
    """Send the order in batches; what has become of each batch.

    After a request that fails nothing more is sent, and it is told of all who are left.
    """
    began = time.monotonic()
    left = list(plan.targets)
    while left:
        batch, left = left[:BATCH], left[BATCH:]
        try:
            answers = server.order(
                plan.order.method, plan.order.path, _body(plan, batch)
            )
        except (Refused, NoServer) as error:
            yield [*_failed(batch, error), *(_not_sent(one) for one in left)]
            if isinstance(error, NoServer):
                raise
            return
        gone: Mapping[str, Record] = {}
        if any(answer.get("code") in _GONE_ON for answer in answers):
            since = time.monotonic() - began + _MARGIN
            gone = _gone_since(server, since)
        yield [
            _outcome(plan, client_id, answer, gone)
            for client_id, answer in zip(batch, answers, strict=True)
        ]


#: The codes of a client that isn't as it was seen.
_GONE_ON = {"STALE_SEQUENCE", "UNKNOWN_CLIENT"}


def _until(seconds: float) -> str:
    try:
        end = clock(datetime.now() + timedelta(seconds=seconds))
    except OverflowError:  # beyond the year 9999
        return duration(seconds)
    return f"{duration(seconds)} (until {end})"


def _state_of(client: Record) -> str:
    return str(client.get("clientState", "kept out"))


def _is(client: Record | None, sign: str) -> bool:
    return client is not None and bool(client.get(sign))


def _body(plan: Plan, batch: Sequence[str]) -> Record:
    seen = ((one, plan.targets[one]) for one in batch)
    expected = {
        one: [client["incarnation"], client["sequence"]]
        for one, client in seen
        if client is not None and "incarnation" in client
    }
    body: Record = {**plan.order.body, "clientIDs": list(batch)}
    if expected:
        body["expected"] = expected
    if plan.from_states:
        body["from"] = list(plan.from_states)
    return body


def _outcome(
    plan: Plan, client_id: str, answer: Record, gone: Mapping[str, Record]
) -> Outcome:
    if "code" not in answer:
        told = plan.order.told
        done = plan.order.done if told is None else told(answer)
        return Outcome(client_id, answer, True, f"{client_id} {done}")
    if answer["code"] in _GONE_ON and client_id in gone:
        at = clock(moment(gone[client_id]["endedAt"]))
        why = f"isn't here any more: {how_ended(gone[client_id])} at {at}"
    elif answer["code"] == "STALE_SEQUENCE":
        why = "left alone: it has changed since you were asked"
    else:
        why = f"left alone: {printable(answer.get('detail'))}"
    return Outcome(client_id, answer, False, f"{client_id} {why}")


def _gone_since(server: Server, seconds: float) -> dict[str, Record]:
    try:
        return by_id(together(gone_pages(server, since=f"{seconds:.0f}")))
    except (Refused, NoServer):
        return {}  # what was done is told all the same


def _failed(batch: Sequence[str], error: Refused | NoServer) -> Iterator[Outcome]:
    if isinstance(error, Refused):
        code, why = error.code, f"refused: {error}"
    else:  # it may have been carried out, and the answer lost
        code, why = "NO_ANSWER", f"not known what became of it: {error}"
    for client_id in batch:
        answer = {"clientID": client_id, "code": code, "detail": why}
        yield Outcome(client_id, answer, False, f"{client_id} {printable(why)}")


def _not_sent(client_id: str) -> Outcome:
    answer = {"clientID": client_id, "code": "NOT_SENT", "detail": "not sent"}
    return Outcome(client_id, answer, False, f"{client_id} not sent")


def tally(outcomes: Sequence[Outcome], done: str) -> str:
    """How it went, in a line: ``11 of 12 clients set to RUNNING``."""
    counts = Counter(outcome.is_done for outcome in outcomes)
    of = "" if not counts[False] else f"{counts[True]:,} of "
    return f"{of}{count(len(outcomes))} {done}"
