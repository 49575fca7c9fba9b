"""How a fact is written down, on the condition that nobody was first.

That is, that the client's record is still the one that the fact follows from; else the
present one is read. And of a batch of facts, how far the watch must be heard to know
which were kept. Asks etcd nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from heartbeat_service.core.changes import Change, Fact, Lockout, Reason, Snapshot
from heartbeat_service.core.states import ClientState
from heartbeat_service.storage.etcd.keys import Keys
from heartbeat_service.storage.etcd.port import (
    Compare,
    Get,
    Outcome,
    Put,
    Transaction,
)
from heartbeat_service.storage.etcd.records import (
    EndedRecord,
    LockoutRecord,
    encode,
    of_change,
    of_snapshot,
)
from heartbeat_service.storage.etcd.replica import Known, Replica

#: The most facts in one transaction: etcd takes 128 operations, those of one fact among
#: them.
LARGEST_TRANSACTION = 100


@define(eq=False)
class Flight:
    """A transaction under way.

    :ivar nonces: of all its writes, each with whose it is; None for a lock-out's.
    :ivar kept: of those that the watch has brought.
    :ivar until: up to which revision the watch must be heard, once that is known.
    :ivar is_disowned: whether the session was lost meanwhile: what was kept all the
        same, is told as another node's.
    :ivar decided: fires once it is known what was kept.
    """

    nonces: dict[str, str | None] = field(factory=dict)
    kept: set[str] = field(factory=set)
    until: int | None = None
    is_disowned: bool = False
    decided: Deferred[None] = field(factory=Deferred)

    def add(self, nonce: str, fact: Fact) -> None:
        """A fact is one of it."""
        self.nonces[nonce] = None if isinstance(fact, Lockout) else fact.client_id

    def has(self, nonce: str) -> bool:
        """Whether a write that was heard of is one of it; then it is kept."""
        if self.is_disowned or nonce not in self.nonces:
            return False
        self.kept.add(nonce)
        return True

    def decide(self) -> None:
        """What was kept is known."""
        if not self.decided.called:
            self.decided.callback(None)

    def fail(self, failure: Failure) -> None:
        """Nothing was kept."""
        if not failure.check(CancelledError) and not self.decided.called:
            self.decided.errback(failure)

    def refused(self) -> list[str]:
        """Whose facts weren't kept."""
        each = self.nonces.items()
        return [name for nonce, name in each if name and nonce not in self.kept]


def write(
    fact: Fact, nonce: str, keys: Keys, replica: Replica, session: str, tomb: int
) -> Transaction:
    """Keep a fact, if nobody was first.

    :param nonce: names this write, and no other.
    :param session: of the node that writes.
    :param tomb: the lease with which the dead are forgotten.
    """
    lease = tomb if _is_forgotten(fact) else 0
    if isinstance(fact, Lockout):
        key = keys.lockout(fact.client_id)
        puts = [Put(key, encode(LockoutRecord(nonce, fact)), lease)]
        # An operator's last word counts; but an end by time is none.
        revision = replica.lockouts.get(fact.client_id, 0)
        conditions = [] if fact.until else [Compare(key, revision)]
        return Transaction(conditions, puts, [Get(key)])
    key = keys.client(fact.client_id)
    known = replica.clients.get(fact.client_id)
    owner = _owner(fact, known, replica, session)
    if isinstance(fact, Change):
        record = of_change(fact, owner, nonce)
    else:
        former = None if known is None else known.record()
        record = of_snapshot(fact, former, owner, nonce)
    puts = [Put(key, encode(record), lease)]
    if isinstance(fact, Change) and fact.ended is not None:
        life = keys.life(fact.client_id, fact.ended.incarnation)
        puts.append(Put(life, encode(EndedRecord(nonce, fact.ended))))
    return Transaction([Compare(key, known.revision if known else 0)], puts, [Get(key)])


def once_each(facts: Sequence[Fact]) -> Iterable[Sequence[Fact]]:
    """Facts in batches that have no client twice, and aren't too large."""
    batch: dict[str, Fact] = {}
    for fact in facts:
        if fact.client_id in batch or len(batch) >= LARGEST_TRANSACTION:
            yield list(batch.values())
            batch = {}
        batch[fact.client_id] = fact
    if batch:
        yield list(batch.values())


def last_write(outcome: Outcome) -> int:
    """Up to which revision the watch must be heard to know what of a batch was kept."""
    latest = 0
    for result in outcome.results:
        if isinstance(result, Outcome):
            latest = max(
                latest, outcome.revision if result.held else last_write(result)
            )
        elif result is not None:
            latest = max(latest, result.mod_revision)
    return latest


def _owner(
    fact: Change | Snapshot, known: Known | None, replica: Replica, session: str
) -> str:
    """At which session a client beats after a fact."""
    if isinstance(fact, Change):
        came = fact.reason in (Reason.HEARTBEAT, Reason.RECONNECT)
    else:
        came = fact.arrived
    if came or known is None or replica.place(fact.client_id) == session:
        return session
    return known.owner


def _is_forgotten(fact: Fact) -> bool:
    """Whether what is written of it may be forgotten after a day."""
    if isinstance(fact, Lockout):
        return not fact.until
    state = fact.state
    return state is ClientState.DISCONNECTED
