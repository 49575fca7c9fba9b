"""Plain numbers of what has happened since the start, read when somebody asks.

A listener and a watcher of the journal, so no number is ahead of the store; the clock,
the registry and the journal tell it the rest. To count is to add to an integer: nothing
here makes a beat dearer, and who lives in which state needs no look at every client.
Knows no metrics' names and no transport; what those count, they keep themselves.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate

from attrs import define, field

from heartbeat_service.core.changes import Change, Reason, Snapshot, StoredState
from heartbeat_service.core.clock import Clock
from heartbeat_service.core.notices import (
    Late,
    MassLossBegun,
    News,
    Silence,
    StoreNotice,
)
from heartbeat_service.core.states import ClientState

#: Gaps between beats, in seconds: around the usual interval and the usual fuse.
GAPS = (0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 6.0, 8.0, 10.0, 30.0, 60.0)

#: How late something is, in seconds.
LATENESS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)

#: How long a commit takes, in seconds: from a fast disk to a store in trouble.
COMMITS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)

#: Facts in one commit: none, where only somebody asks whether the store can write.
BATCHES = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


class Histogram:
    """How many values there were up to each of some bounds.

    :ivar total: the sum of all values.
    """

    __slots__ = ("_bounds", "_counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.total = 0.0
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)

    def add(self, value: float, times: int = 1) -> None:
        """There was such a value.

        :param times: how many values it stands for.
        """
        self._counts[bisect_left(self._bounds, value)] += times
        self.total += value * times

    def __iter__(self) -> Iterator[tuple[float, int]]:
        """Each bound, infinity at the end, and how many values were no higher."""
        return zip((*self._bounds, float("inf")), accumulate(self._counts), strict=True)


@define(eq=False)
class Counters:
    """What one engine has counted.

    :ivar clock: the engine's own, on which timebombs burn.
    :ivar states: how many live in each state, as far as the store knows.
    :ivar silent: whose silence is planned.
    :ivar changes: how many there were, by their reason.
    :ivar late: how often a client became late.
    :ivar mass_losses: how many holds began.
    :ivar troubles: how often the store was found to be in trouble.
    :ivar stalls: how many were long enough to be told of.
    :ivar stalled: how long those were together, in seconds.
    :ivar moved: how many clients of other nodes came here.
    :ivar taken_over: how many clients of nodes that are gone were taken over.
    :ivar refused: how many changes another node was first with.
    :ivar gaps: seconds between two beats of a client; see :meth:`count_gap`.
    :ivar lateness: seconds from when a timebomb was due until its death was told.
    :ivar lags: seconds by which the reactor was late for the clock's own calls.
    :ivar commits: seconds until facts that were handed to the store were durable.
    :ivar batches: how many facts were handed over together.
    """

    clock: Clock
    states: dict[ClientState, int] = field(
        factory=lambda: {
            state: 0 for state in ClientState if state is not ClientState.DISCONNECTED
        },
        init=False,
    )
    silent: set[str] = field(factory=set, init=False)
    changes: dict[Reason, int] = field(
        factory=lambda: dict.fromkeys(Reason, 0), init=False
    )
    late: int = field(default=0, init=False)
    mass_losses: int = field(default=0, init=False)
    troubles: int = field(default=0, init=False)
    stalls: int = field(default=0, init=False)
    stalled: float = field(default=0.0, init=False)
    moved: int = field(default=0, init=False)
    taken_over: int = field(default=0, init=False)
    refused: int = field(default=0, init=False)
    gaps: Histogram = field(factory=lambda: Histogram(GAPS), init=False)
    lateness: Histogram = field(factory=lambda: Histogram(LATENESS), init=False)
    lags: Histogram = field(factory=lambda: Histogram(LATENESS), init=False)
    commits: Histogram = field(factory=lambda: Histogram(COMMITS), init=False)
    batches: Histogram = field(factory=lambda: Histogram(BATCHES), init=False)
    # When the timebomb of each life that waits to be told dead was due.
    _due: dict[int, float] = field(factory=dict, init=False)

    def restore(self, stored: StoredState, now: float) -> None:
        """Go on after a restart.

        :param now: seconds since the epoch.
        """
        for client in stored.clients:
            self.states[client.state] += 1
            if client.silent_until > now:
                self.silent.add(client.client_id)

    def alive(self) -> int:
        """How many live, as far as the store knows."""
        return sum(self.states.values())

    def hear(self, change: Change) -> None:
        """A client has changed, and the store knows it."""
        self.changes[change.reason] += 1
        self._move(change.previous_state, change.state)
        if change.state is ClientState.DISCONNECTED or not change.client.silent_until:
            self.silent.discard(change.client_id)
        if change.reason is Reason.TIMEBOMB:
            now = self.clock.seconds()
            due = self._due.pop(change.incarnation, now)
            self.lateness.add(max(0.0, now - due))

    def watch(self, news: News) -> None:
        """Operators are told of something."""
        match news:
            case Late():
                self.late += 1
            case Silence(client_id=client_id, seconds=seconds):
                (self.silent.add if seconds else self.silent.discard)(client_id)
            case MassLossBegun():
                self.mass_losses += 1
            case StoreNotice(trouble=str()):
                self.troubles += 1

    def replace(self, former: Snapshot | None, record: Snapshot | None) -> None:
        """The store has another record of a client than the one it had.

        :param former: what it had; None if the client didn't live there.
        """
        gone = ClientState.DISCONNECTED
        self._move(
            gone if former is None else former.state,
            gone if record is None else record.state,
        )
        if former is not None:
            self._due.pop(former.incarnation, None)
            self.silent.discard(former.client_id)
        if record is not None and record.silent_until:
            self.silent.add(record.client_id)

    def correct(self, known: ClientState, previous: ClientState) -> None:
        """A client was in another state than was known here, before its next change.

        :param known: DISCONNECTED if it wasn't known to live.
        """
        self._move(known, previous)

    def count_arrival(self) -> None:
        """A client of another node has come here."""
        self.moved += 1

    def count_gap(self, seconds: float, times: int) -> None:
        """A client has beaten so many seconds after its last beat.

        :param times: how many such gaps it stands for: of those of punctual clients,
            only some are looked at.
        """
        self.gaps.add(seconds, times)

    def count_timebomb(self, incarnation: int, due: float) -> None:
        """A life ends by its timebomb; it will be heard of once the store knows.

        :param due: when the timebomb should have gone off, on the clock's scale.
        """
        self._due[incarnation] = due

    def count_stall(self, seconds: float) -> None:
        """The service was kept from listening for so long."""
        self.stalls += 1
        self.stalled += seconds

    def count_commit(self, seconds: float, facts: int) -> None:
        """So many facts are durable, so many seconds after they were handed over."""
        self.commits.add(seconds)
        self.batches.add(facts)

    def _move(self, previous: ClientState, state: ClientState) -> None:
        if previous is not ClientState.DISCONNECTED:
            self.states[previous] -= 1
        if state is not ClientState.DISCONNECTED:
            self.states[state] += 1
