"""A request changes the registry; its reply waits until the store has what it shows.

So nobody is told what a crash would take back (contract, section 2, "Applied means
durable"). The same for every transport. Knows the registry and the journal; no bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from heapq import merge
from itertools import islice
from operator import attrgetter
from typing import Any, TypeVar

from attrs import define, field
from msgspec import UNSET, Raw, UnsetType
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure

from heartbeat_service.core.changes import GoneClient, Life, Snapshot
from heartbeat_service.core.errors import HeartbeatError, Overloaded, UnknownClient
from heartbeat_service.core.heartbeat import (
    NO_VALUES,
    Heartbeat,
    Stage,
    told_interval,
)
from heartbeat_service.core.local_client import LocalClient
from heartbeat_service.core.registry import Registry
from heartbeat_service.engine.counters import Counters
from heartbeat_service.engine.deaths import Deaths
from heartbeat_service.engine.events import EventLog
from heartbeat_service.engine.gone import GoneClients
from heartbeat_service.engine.journal import ChangeJournal, Refused
from heartbeat_service.engine.refusals import RefusedRequests
from heartbeat_service.engine.which import EVERYBODY, AnyOf, Which
from heartbeat_service.protocol.codec import moment
from heartbeat_service.protocol.messages import (
    ClientID,
    ClientRecord,
    ClientStateMessage,
    ErrorMessage,
    GetClientState,
    GoneRecord,
    Goodbye,
    HeartbeatMessage,
    HoldRecord,
    LifeRecord,
    Request,
    SetClientState,
    SummaryRecord,
    as_state,
)
from heartbeat_service.protocol.nodes import (
    MOST_ASKED,
    BeatsAnswer,
    BeatsQuestion,
    BeatsRecord,
)
from heartbeat_service.storage.nodes import Standing
from heartbeat_service.storage.store import MOST_GONE

T = TypeVar("T")

#: What a listing has at a client's turn; None if it has died by then.
Shown = ClientRecord | Deferred[ClientRecord | None] | None

_BIRTH = attrgetter("incarnation")

#: How often a request is applied whose change the store has refused, at the most.
TRIES = 3


def error_message(error: HeartbeatError) -> ErrorMessage:
    """The contract's ``Error`` for an exception of the core."""
    wait = error.retry_after_seconds
    return ErrorMessage(
        code=error.code,
        detail=error.detail,
        client_id=UNSET if error.client_id is None else ClientID(error.client_id),
        retry_after_seconds=UNSET if wait is None else wait,
    )


@define(eq=False)
class Dispatcher:
    """Turns requests into what the registry does, and that into replies.

    :ivar gone: who was here and is not.
    :ivar counters: how many are in which state, and whose silence is planned.
    :ivar deaths: how many went lately, and who flaps.
    :ivar interval: seconds between two beats, as clients are told.
    :ivar standing: whether this node may answer beats.
    :ivar request_endpoint: where clients send requests; known once it is bound.
    :ivar state_change_endpoint: where they subscribe; known once it is bound.
    :ivar events: what operators were told.
    :ivar refusals: is told by each transport of what it refuses.
    """

    registry: Registry
    journal: ChangeJournal
    gone: GoneClients
    counters: Counters
    deaths: Deaths
    interval: float
    standing: Standing
    request_endpoint: str = ""
    state_change_endpoint: str = ""
    events: EventLog = field(factory=EventLog)
    refusals: RefusedRequests = field(factory=RefusedRequests, init=False)
    _started_at: float = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._started_at = self.registry.wall_clock()

    def dispatch(
        self, request: Request
    ) -> ClientStateMessage | Deferred[ClientStateMessage]:
        """Answer a client's request.

        :return: the reply, or fires with it where it has to wait for the store.
        :raises HeartbeatError: if there is nothing to wait for; else it fails with it.
        """
        act = partial(
            self._once_kept,
            request.client_id,
            lambda: self.reply(self._apply(request)),
        )
        if isinstance(request, SetClientState | Goodbye) and self._may_be_elsewhere(
            request.client_id
        ):
            # Decided on what is out of date, it would be refused, or change nothing.
            caught_up = Deferred.fromCoroutine(self.journal.catch_up())
            return caught_up.addCallbacks(
                lambda _: act(), _name, errbackArgs=(request.client_id,)
            )
        return act()

    def _may_be_elsewhere(self, client_id: str) -> bool:
        """Whether other nodes may know better what a client is."""
        if not self.journal.is_shared:
            return False
        client = self.registry.find(client_id)
        return client is None or client.heartbeat.stage is Stage.ELSEWHERE

    def client(self, client_id: str) -> Deferred[ClientRecord]:
        """One living client, or :class:`UnknownClient`.

        If it can't be waited for, as the store has it.
        """

        def as_kept(failure: Failure) -> ClientRecord:
            failure.trap(Overloaded)
            record = self._kept(client_id)
            if record is None:
                failure.raiseException()
            return record

        return self.for_operator(
            client_id, lambda: self.record(self.registry.get(client_id))
        ).addErrback(as_kept)

    def clients(
        self, after: int = 0, which: Which = EVERYBODY
    ) -> Deferred[Iterator[Shown]]:
        """The living clients, one with each step, in the order of registration.

        :param after: only those of a later incarnation.

        A step is a Deferred where the client has a change that waits for the store;
        it fires with the record, and the next step has to wait for it. Whoever dies
        before its turn is left out. While the store is in trouble nobody is waited
        for: who has such a change is shown as the store has it, or not yet.
        """

        def without_waiting(failure: Failure) -> None:
            failure.trap(Overloaded)
            self.journal.held()  # if it is open

        waiting = self.journal.all_settled().addErrback(without_waiting)
        return waiting.addCallback(lambda _: self._each_shown(after, which))

    def server_time(self) -> str:
        """What time it is here, for people."""
        return moment(self.registry.wall_clock())

    def gone_clients(
        self,
        since: float | None = None,
        prefix: str = "",
        label: Collection[AnyOf] = (),
        after: int | None = None,
        limit: int | None = None,
    ) -> tuple[Iterator[GoneRecord], int | None]:
        """Who was here and is not, as far as the store knows, the last to go first.

        :param since: only those who went within so many seconds.
        :param prefix: only those whose ID begins so.
        :param label: only those that had each of these.
        :param after: only those who went before the one at that place.
        :param limit: how many, at the most.
        :return: besides, the ``after`` of the next page; None if there is none.
        :raises Overloaded: if the store isn't open.
        """
        self.journal.held()
        begin = -math.inf if since is None else self.registry.wall_clock() - since
        page, following = self.gone.page(begin, prefix, label, after, limit)
        return map(_gone_record, page), following

    def summarized(self) -> SummaryRecord:
        """How the service and its clients are, in one look.

        :raises Overloaded: if the store isn't open.
        """
        self.journal.held()
        deaths = self.deaths
        counters, mass_loss, hold = self.counters, self.registry.mass_loss, self.hold()
        return SummaryRecord(
            alive=counters.alive(),
            states=dict(counters.states),
            late=len(mass_loss.late),
            held=len(mass_loss.held),
            silent=len(counters.silent),
            flapping=deaths.flapping(),
            gone_last_hour=deaths.gone_last_hour(),
            lost_last_hour=deaths.lost_last_hour(),
            mass_loss=None if hold.hold is None else hold,
            store=self.journal.trouble,
            started_at=moment(self._started_at),
            as_of=self.events.last_id,
            server_time=self.server_time(),
        )

    def hold(self) -> HoldRecord:
        """The present hold of a mass loss; all null without one.

        :raises Overloaded: if the store isn't open.
        """
        self.journal.held()
        mass_loss = self.registry.mass_loss
        hold = mass_loss.hold
        if hold is None:
            return HoldRecord()
        return HoldRecord(hold.name, moment(hold.since), mass_loss.seconds_left())

    def held(self) -> list[str]:
        """Who is held, the first whose fuse ran out first."""
        return list(self.registry.mass_loss.held)

    async def history(self, client_id: str) -> list[LifeRecord]:
        """The lives of a client, newest first; in trouble those that the store has.

        :raises UnknownClient: if it has none that is remembered.
        """
        client = self.registry.find(client_id)
        present = None if client is None else client.life()
        nothing: HeartbeatError = UnknownClient("no life of this client is remembered")
        try:
            await self.journal.settled(client_id)
        except Refused:
            return await self.history(client_id)
        except Overloaded as error:
            nothing = error
            held = self.journal.held()
            if client_id in held:
                kept = held[client_id]
                present = None if kept is None else kept.life()
        former = await self.journal.former_lives(client_id)
        # The present life may have ended while the store was read.
        living = [] if present is None else [present]
        lives = {life.incarnation: life for life in (*living, *former)}
        if not lives:
            nothing.client_id = client_id
            raise nothing
        return [_life_record(lives[number]) for number in sorted(lives, reverse=True)]

    def durably(self, client_id: str, action: Callable[[], T]) -> Deferred[T]:
        """Act now; answer, also with an error, once the store has what it shows.

        If the store refuses the change, act again on the record that it has.
        """
        act: Callable[..., Any] = self._once_kept  # it may be a Deferred, or not
        answer: Deferred[T] = maybeDeferred(act, client_id, action)
        return answer

    def _once_kept(
        self, client_id: str, action: Callable[[], T], tries: int = TRIES
    ) -> T | Deferred[T]:
        """As :meth:`durably`, but without a Deferred where nobody has to wait."""
        try:
            outcome: T | HeartbeatError = action()
        except HeartbeatError as error:
            error.client_id = error.client_id or client_id
            outcome = error
        if self.journal.is_settled(client_id):
            return _answer(None, outcome)

        def again(failure: Failure) -> Any:
            failure.trap(Refused)
            if tries > 1:
                return self._once_kept(client_id, action, tries - 1)
            raise Overloaded("Others change this client, too; try again")

        answer: Deferred[T] = self.journal.settled(client_id).addCallback(
            _answer, outcome
        )
        return answer.addErrback(again).addErrback(_name, client_id)

    def for_operator(self, client_id: str, action: Callable[[], T]) -> Deferred[T]:
        """As :meth:`durably`; of who isn't here, the error says how it went."""

        def say_how_it_went(failure: Failure) -> Failure:
            is_unknown = failure.check(UnknownClient) is not None
            return Failure(self.how_it_went(client_id)) if is_unknown else failure

        return self.durably(client_id, action).addErrback(say_how_it_went)

    def how_it_went(self, client_id: str) -> UnknownClient:
        """What operators are told of who wasn't here, once that is durable."""
        seconds = self.registry.lockouts.seconds_left(client_id)
        if (how := self.gone.how(client_id)) is not None:
            detail = f"{client_id} is not here: {how}"
        elif self.registry.find(client_id) is not None:
            detail = f"{client_id} came only after it was asked for: ask again"
        else:
            detail = (
                f"no client {client_id} is here, nor among the last {MOST_GONE:,} that"
                " went: is its ID spelt right?"
            )
        if seconds is not None:
            detail += f"; an operator keeps it out for {seconds:.0f} s more"
        return UnknownClient(detail, client_id)

    def _apply(self, request: Request) -> LocalClient:
        registry = self.registry
        match request:
            case HeartbeatMessage():
                self.standing.admit_beat()
                return registry.beat(
                    request.client_id,
                    as_state(request.client_state),
                    _given(request.instance_id),
                    _given(request.timebomb_seconds),
                    request.values,
                    _given(request.labels),
                )
            case GetClientState():
                return registry.get(request.client_id, _given(request.instance_id))
            case SetClientState():
                return registry.set_state(
                    request.client_id,
                    as_state(request.client_state),
                    _given(request.incarnation),
                    _given(request.instance_id),
                    _given(request.sequence),
                )
            case Goodbye():
                return registry.goodbye(
                    request.client_id,
                    _given(request.incarnation),
                    _given(request.instance_id),
                )

    def _each_shown(self, after: int, which: Which) -> Iterator[Shown]:
        def chosen(record: ClientRecord | None) -> ClientRecord | None:
            if record is None:
                return None
            known = record.seconds_since_heartbeat is not None
            late = record.late if known else None
            fits = which.has(record.client_state, record.labels, late)
            return record if fits else None

        # The names are taken with the first step, which is in somebody's slice.
        for client_id in self._names(after):
            if not client_id.startswith(which.prefix):
                yield None
                continue
            shown = self._shown(client_id, which)
            yield shown.addCallback(chosen) if isinstance(shown, Deferred) else shown

    def _names(self, after: int) -> Iterable[str]:
        """Who is to be shown; in trouble whoever lives as far as the store knows."""
        if self.journal.trouble is None:
            return self.registry.client_ids(after)
        held = dict(self.journal.held())
        settled: Iterable[LocalClient | Snapshot] = (
            client for client in self.registry if client.client_id not in held
        )
        kept = sorted(filter(None, held.values()), key=_BIRTH)
        living = merge(settled, kept, key=_BIRTH)
        return (client.client_id for client in living if client.incarnation > after)

    def _shown(self, client_id: str, which: Which) -> Shown:
        if self.journal.is_settled(client_id) or self.journal.trouble is not None:
            return self._kept(client_id, which)
        return self.client(client_id).addErrback(_nobody)

    def _kept(self, client_id: str, which: Which = EVERYBODY) -> ClientRecord | None:
        """A client as the store has it; None if it doesn't live there.

        :param which: None, too, if it is none of these.
        :raises Overloaded: if the store isn't open.
        """
        client, held = self.registry.find(client_id), self.journal.held()
        kept = held.get(client_id, client)
        late: bool | None = client_id in self.registry.mass_loss.late
        if client is not None and client.heartbeat.stage is Stage.ELSEWHERE:
            late = None
        if kept is None or not which.has(kept.state, kept.labels, late):
            return None
        if isinstance(kept, LocalClient):
            return self.record(kept)
        if client is None:
            return self._record_of(kept, kept.fuse, None)
        return self._record_of(kept, client.heartbeat.fuse, client.heartbeat)

    def record(self, client: LocalClient) -> ClientRecord:
        """A client as operators are shown it."""
        return self._record_of(client, client.heartbeat.fuse, client.heartbeat)

    def _record_of(
        self, client: LocalClient | Snapshot, fuse: float, heartbeat: Heartbeat | None
    ) -> ClientRecord:
        """A client as operators are shown it.

        :param heartbeat: None if it has died, which the store doesn't know yet.
        """
        client_id, mass_loss = client.client_id, self.registry.mass_loss
        values, since, left = _of_beats(fuse, heartbeat)
        return ClientRecord(
            client_id=client_id,
            client_state=client.state,
            reported_state=client.reported_state,
            sequence=client.sequence,
            incarnation=client.incarnation,
            instance_id=client.instances.present,
            values=values,
            timebomb_seconds=fuse,
            seconds_since_heartbeat=since,
            seconds_to_timebomb=left,
            registered_at=moment(client.registered_at),
            labels=client.labels,
            late=client_id in mass_loss.late,
            held=client_id in mass_loss.held,
            silent_seconds=self._silent_seconds(client, heartbeat),
            state_since=moment(client.state_since),
            deaths_in_ten_minutes=self.deaths.deaths_in_ten_minutes(client_id),
        )

    def _silent_seconds(
        self, client: LocalClient | Snapshot, heartbeat: Heartbeat | None
    ) -> float | None:
        if not client.silent_until:
            return None
        if heartbeat is not None and heartbeat.stage is Stage.SILENT:
            return heartbeat.seconds_left()  # the service may have stalled meanwhile
        return max(0.0, client.silent_until - self.registry.wall_clock())

    def beats_of(self, question: BeatsQuestion) -> BeatsAnswer:
        """What other nodes can't know of clients that beat here.

        :raises Overloaded: if the store isn't open.
        """
        held, mass_loss = self.journal.held(), self.registry.mass_loss
        beats: dict[str, BeatsRecord] = {}
        late = islice(mass_loss.late, MOST_ASKED) if question.late else ()
        reported, as_of = self._who_reported(question.reported_after)
        whole = {
            **dict.fromkeys((*late, *reported), False),
            **dict.fromkeys(question.client_ids, True),
        }
        for client_id, with_values in whole.items():
            client = self.registry.find(client_id)
            if client is None or client.heartbeat.stage is Stage.ELSEWHERE:
                continue
            kept = held.get(client_id, client)
            # Nobody is told of a life that the store doesn't have yet.
            if kept is not None and kept.incarnation == client.incarnation:
                values = client.heartbeat.values if with_values else NO_VALUES
                beats[client_id] = self._beats(client, values)
        return BeatsAnswer(
            beats,
            late=len(mass_loss.late),
            held=len(mass_loss.held),
            reported=[one for one in reported if one in beats],
            as_of=as_of,
        )

    def _who_reported(self, after: str | None) -> tuple[list[str], str | None]:
        if after is None:
            return [], None
        return self.events.who_reported(after, MOST_ASKED, self._beats_here)

    def _beats_here(self, client_id: str) -> bool:
        client = self.registry.find(client_id)
        return client is not None and client.heartbeat.stage is not Stage.ELSEWHERE

    def _beats(self, client: LocalClient, values: Raw) -> BeatsRecord:
        heartbeat, mass_loss = client.heartbeat, self.registry.mass_loss
        return BeatsRecord(
            incarnation=client.incarnation,
            values=values,
            seconds_since_heartbeat=heartbeat.seconds_since(),
            seconds_to_timebomb=heartbeat.seconds_left(),
            reported_state=client.reported_state,
            late=client.client_id in mass_loss.late,
            held=client.client_id in mass_loss.held,
            silent_seconds=self._silent_seconds(client, heartbeat),
            beats=heartbeat.beats,
            longest_gap_seconds=heartbeat.longest_gap,
        )

    def reply(self, client: LocalClient) -> ClientStateMessage:
        """What is told of a client."""
        fuse = client.heartbeat.fuse
        return ClientStateMessage(
            client_id=ClientID(client.client_id),
            client_state=client.state,
            sequence=client.sequence,
            incarnation=client.incarnation,
            timebomb_seconds=fuse,
            heartbeat_interval_seconds=told_interval(fuse, self.interval),
            request_endpoint=self.request_endpoint,
            state_change_endpoint=self.state_change_endpoint,
            instance_id=client.instances.present or UNSET,
        )


def _of_beats(
    fuse: float, heartbeat: Heartbeat | None
) -> tuple[Raw | None, float | None, float | None]:
    """Its values, seconds since the last beat, and to the timebomb, if known here.

    :param heartbeat: as :meth:`Dispatcher._record_of` has it.
    """
    if heartbeat is None:
        return NO_VALUES, fuse, 0.0
    if heartbeat.stage is Stage.ELSEWHERE:
        return None, None, None
    return heartbeat.values, heartbeat.seconds_since(), heartbeat.seconds_left()


def _answer(_: None, outcome: T | HeartbeatError) -> T:
    if isinstance(outcome, HeartbeatError):
        raise outcome
    return outcome


def _name(failure: Failure, client_id: str) -> Failure:
    """Let an error say whom it is about, which the journal's can't know."""
    error = failure.value
    if isinstance(error, HeartbeatError) and error.client_id is None:
        error.client_id = client_id
    return failure


def _nobody(failure: Failure) -> None:
    failure.trap(UnknownClient, Overloaded)


def _given(value: T | UnsetType) -> T | None:
    return None if isinstance(value, UnsetType) else value


def _gone_record(gone: GoneClient) -> GoneRecord:
    life = gone.life
    return GoneRecord(
        client_id=gone.client_id,
        last_state=life.last_state,
        reason=life.reason,
        ended_at=moment(gone.ended_at),
        registered_at=moment(life.registered_at),
        beats=life.beats,
        longest_gap_seconds=life.longest_gap_seconds,
        labels=life.labels,
    )


def _life_record(life: Life) -> LifeRecord:
    return LifeRecord(
        incarnation=life.incarnation,
        registered_at=moment(life.registered_at),
        ended_at=None if life.ended_at is None else moment(life.ended_at),
        reason=life.reason,
        last_state=life.last_state,
        beats=life.beats,
        longest_gap_seconds=life.longest_gap_seconds,
        by=life.by,
    )
