"""Operators' orders, to one client or to many: each is a change of the registry.

An order to many is one to each of them, in slices, and no faster than the store keeps
what they change; its answer waits until all of it is durable. Knows no route.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from attrs import define, field
from msgspec.structs import replace
from twisted.internet.defer import (
    Deferred,
    DeferredLock,
    FirstError,
    fail,
    gatherResults,
    succeed,
)
from twisted.python.failure import Failure

from heartbeat_service.core.errors import HeartbeatError, Overloaded, UnknownClient
from heartbeat_service.core.registry import LONGEST_SILENCE
from heartbeat_service.core.terms import Terms
from heartbeat_service.engine.dispatch import Dispatcher, error_message
from heartbeat_service.engine.journal import Refused
from heartbeat_service.engine.slices import in_slices
from heartbeat_service.protocol.messages import (
    ClientRecord,
    ClientStateMessage,
    ErrorMessage,
    as_state,
)
from heartbeat_service.protocol.orders import (
    KickOrder,
    KickOrders,
    LockoutOrder,
    LockoutOrders,
    LockoutRecord,
    SilenceOrder,
    SilenceOrders,
    SilenceRecord,
    StateOrder,
    StateOrders,
)
from heartbeat_service.storage.store import LARGEST_BATCH

#: How many orders to many may be under way at once, also of those who have hung up.
#: Each has the IDs that it names, and its replies: 200 bytes a client.
MOST_ORDERS = 8

OneOrder = StateOrder | SilenceOrder | LockoutOrder | KickOrder
ManyOrder = StateOrders | SilenceOrders | LockoutOrders | KickOrders

#: What has become of one client.
Done = ClientStateMessage | ClientRecord | SilenceRecord | LockoutRecord
Answer = Done | ErrorMessage

#: What a list of those who are kept out has at a client's turn; None if it is over.
KeptOut = LockoutRecord | Deferred[LockoutRecord | None] | None


@define(eq=False)
class Orders:
    """Carries out what operators want.

    :ivar dispatcher: makes an answer wait until it is durable.
    :ivar reactor: gives turns in which to deal with many: the reactor, or a ``Clock``.
    """

    dispatcher: Dispatcher
    reactor: Any
    _one_by_one: DeferredLock = field(factory=DeferredLock, init=False)
    _stopped: bool = field(default=False, init=False)

    def to_one(
        self, client_id: str, order: OneOrder | ManyOrder, by: str | None = None
    ) -> Deferred[Any]:
        """Carry out an order to one client.

        :param by: which operator gives it, if that is known.
        :return: fires with a :data:`Done`, or fails with a
            :class:`HeartbeatError`.
        """
        act = partial(
            self.dispatcher.for_operator,
            client_id,
            lambda: self._act(client_id, order, by),
        )
        if not self.dispatcher.journal.is_shared:
            return act()
        # Else what another node has acknowledged before could be taken for done, or
        # for not done.
        caught_up = Deferred.fromCoroutine(self.dispatcher.journal.catch_up())
        return caught_up.addCallback(lambda _: act())

    def to_many(
        self, order: ManyOrder, by: str | None = None
    ) -> Deferred[list[Answer]]:
        """Carry out an order to many, and answer for each, in the order asked for.

        One order after the other, in slices, and no faster than the store: whom it is
        for waits for no more than two of its batches. Whoever waits for the answer may
        go away: the order is carried out to its end.

        :param by: which operator gives it, if that is known.
        :return: fails with :class:`Overloaded` while the store isn't open, or if too
            many orders are under way.
        """
        # One is carried out, the others wait for it.
        if len(self._one_by_one.waiting) >= MOST_ORDERS - 1:
            return fail(Overloaded("too many orders are being carried out"))
        answer: Deferred[list[Answer]] = Deferred()
        self._one_by_one.run(
            lambda: Deferred.fromCoroutine(self._to_each(order, by))
        ).chainDeferred(answer)
        return answer

    def end_mass_loss(
        self, hold: str | None = None, by: str | None = None
    ) -> Deferred[None]:
        """End the present hold: who is still held dies, once that is durable.

        :param hold: only if it is that one.
        :param by: which operator ends it, if that is known.
        :return: fires once their timebombs are lit, however many they are; whoever
            waits for it may go away.
        """
        answer: Deferred[None] = Deferred()
        ending = self.dispatcher.registry.end_mass_loss(hold, by)
        slices = in_slices(self.reactor, ending)
        Deferred.fromCoroutine(slices).chainDeferred(answer)
        return answer

    def stop(self) -> None:
        """Carry out nothing more: soon no client will be known here.

        What is done is done; who waits for the rest is refused.
        """
        self._stopped = True

    def lockouts(self) -> Iterator[KeptOut]:
        """Who is kept out, one with each step, as far as the store knows.

        A step is a Deferred where that is being written down; the next step has to wait
        for it. While the store is in trouble nobody is waited for.

        :raises Overloaded: if the store isn't open.
        """
        self.dispatcher.journal.held()
        return map(self._kept_out, self.dispatcher.registry.lockouts.client_ids())

    def _kept_out(self, client_id: str) -> KeptOut:
        journal = self.dispatcher.journal
        if journal.is_settled(client_id):
            return self._lockout(client_id)
        return journal.settled(client_id).addCallbacks(
            lambda _: self._lockout(client_id),
            _nobody,
        )

    def _lockout(self, client_id: str) -> LockoutRecord | None:
        lockouts = self.dispatcher.registry.lockouts
        seconds, by = lockouts.seconds_left(client_id), lockouts.by(client_id)
        return None if seconds is None else LockoutRecord(client_id, seconds, by=by)

    async def _to_each(self, order: ManyOrder, by: str | None) -> list[Answer]:
        # Else nobody is known, and "all" would mean nobody.
        self._check_running()
        self.dispatcher.journal.held()
        if self.dispatcher.journal.is_shared:
            await self.dispatcher.journal.catch_up()
        whom = await self._whom(order)
        each = list(dict.fromkeys(whom))  # who is named twice is dealt with once
        answers: dict[str, Answer] = {}
        kept: Deferred[Any] = succeed(None)
        for start in range(0, len(each), LARGEST_BATCH):
            batch = each[start : start + LARGEST_BATCH]
            await in_slices(self.reactor, self._answer_each(batch, order, by, answers))
            await kept  # the batch before: one is kept while the next is applied
            kept = self._kept(batch, order, by, answers)
        await kept
        return [answers[client_id] for client_id in whom]

    async def _whom(self, order: ManyOrder) -> list[str]:
        """For whom an order is; those whom it doesn't name as they registered."""
        named = order.named()
        if named is not None:
            return named
        chosen: list[str] = []

        def choose() -> Iterator[None]:
            for client in self.dispatcher.registry:
                if order.is_for(client.labels):
                    chosen.append(client.client_id)
                yield

        await in_slices(self.reactor, choose())
        return chosen

    def _kept(
        self,
        batch: Sequence[str],
        order: ManyOrder,
        by: str | None,
        answers: dict[str, Answer],
    ) -> Deferred[Any]:
        """Fires once what was answered is durable; fails if something can't be."""

        def say_how_it_went(_: None, client_id: str) -> None:
            answer = answers[client_id]
            if isinstance(answer, ErrorMessage) and answer.code == UnknownClient.code:
                how = self.dispatcher.how_it_went(client_id)
                answers[client_id] = error_message(how)

        def act_again(failure: Failure, client_id: str) -> Deferred[None]:
            failure.trap(Refused)
            again = self.to_one(client_id, order, by).addErrback(_as_error_message)
            return again.addCallback(partial(answers.__setitem__, client_id))

        settled = self.dispatcher.journal.settled
        waiting = [
            settled(who).addCallback(say_how_it_went, who).addErrback(act_again, who)
            for who in batch
        ]
        return gatherResults(waiting, consumeErrors=True).addErrback(_raise_first)

    def _answer_each(
        self,
        batch: Sequence[str],
        order: ManyOrder,
        by: str | None,
        answers: dict[str, Answer],
    ) -> Iterator[None]:
        for client_id in batch:
            try:
                answers[client_id] = self._act(client_id, order, by)
            except HeartbeatError as error:
                answers[client_id] = error_message(error)
            yield

    def _check_running(self, client_id: str | None = None) -> None:
        if self._stopped:
            raise Overloaded("the service is stopping", client_id)

    def _act(self, client_id: str, order: OneOrder | ManyOrder, by: str | None) -> Done:
        self._check_running(client_id)
        registry, reply = self.dispatcher.registry, self.dispatcher.reply
        terms = Terms(order.states(), order.expected_of(client_id), order.dry_run)
        match order:
            case StateOrder() | StateOrders():
                state = as_state(order.client_state)
                return reply(registry.steer(client_id, state, terms, by))
            case KickOrder() | KickOrders():
                return reply(registry.kick(client_id, terms, by))
            case SilenceOrder():
                return self._silence(client_id, order, terms, by)
            case SilenceOrders():
                record = self._silence(client_id, order, terms, by)
                return SilenceRecord(client_id, record.silent_seconds or 0.0)
            case LockoutOrder() | LockoutOrders():
                registry.lock_out(client_id, order.seconds, terms, by)
                return LockoutRecord(client_id, order.seconds)

    def _silence(
        self,
        client_id: str,
        order: SilenceOrder | SilenceOrders,
        terms: Terms,
        by: str | None,
    ) -> ClientRecord:
        registry = self.dispatcher.registry
        client = registry.silence(client_id, order.seconds, terms, by)
        record = self.dispatcher.record(client)
        return _as_if_silenced(record, order.seconds) if terms.dry_run else record


def _as_if_silenced(record: ClientRecord, seconds: float) -> ClientRecord:
    """What would be told of a client after an order to be silent for so long."""
    left = record.seconds_to_timebomb
    if seconds:
        left = max(min(seconds, LONGEST_SILENCE), left or 0.0)
    elif record.silent_seconds is not None:
        left = record.timebomb_seconds
    else:
        return record
    return replace(
        record,
        late=False,
        held=False,
        seconds_to_timebomb=left,
        silent_seconds=left if seconds else None,
    )


def _as_error_message(failure: Failure) -> ErrorMessage:
    failure.trap(HeartbeatError)
    assert isinstance(failure.value, HeartbeatError)
    return error_message(failure.value)


def _raise_first(failure: Failure) -> None:
    failure.trap(FirstError)
    assert isinstance(failure.value, FirstError)
    failure.value.subFailure.raiseException()


def _nobody(failure: Failure) -> None:
    failure.trap(Overloaded, Refused)
