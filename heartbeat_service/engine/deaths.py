"""How many went lately, and who dies again and again: a listener that counts.

Of each client it keeps when it went, and when it was lost, in whole seconds; and of
each second, for how many of them it is the one that matters. So a death costs the same,
and a question too, however many die at once, or again and again.

The seconds are those of a clock that only goes forward: a wall clock that is set
changes no number. After a restart the wall clock has to tell how long ago a life ended;
if it was set meanwhile, the numbers are wrong for an hour. Being a listener, it counts
nothing that the store doesn't have. Knows no transport.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import OrderedDict
from operator import itemgetter
from typing import Any

from attrs import define, field
from msgspec import Struct

from heartbeat_service.core.changes import Change, Reason, StoredState
from heartbeat_service.storage.store import LATELY, MOST_LATELY

#: A client flaps that was lost so many times within so many seconds (contract, section
#: 3, ``GET /summary``).
FLAPS, TEN_MINUTES = 3, 600

#: How many losses of one client are counted at the most: as many as one has that comes
#: back at once and is lost each time, with the usual fuse.
MOST_LOSSES = 60

#: How a client goes. A reconnect ends a life, too, and nobody has gone.
_GOES = frozenset({Reason.TIMEBOMB, Reason.GOODBYE, Reason.KICK})


class _Record(Struct, gc=False):
    """When a client went last, and when it was lost, latest last."""

    went: int
    losses: array[int]


@define(eq=False)
class _Window:
    """How many there are within so many seconds; each counts for one second."""

    seconds: int
    _at: dict[int, int] = field(factory=dict, init=False)

    def add(self, at: int) -> None:
        """There is one more."""
        if len(self._at) > 2 * self.seconds:
            for old in [each for each in self._at if each < at - self.seconds]:
                del self._at[old]
        self._at[at] = self._at.get(at, 0) + 1

    def take_out(self, at: int) -> None:
        """There is one less."""
        if at in self._at:  # else it was too old in any case
            self._at[at] -= 1

    def count(self, now: int) -> int:
        """How many there are."""
        begin = now - self.seconds
        return sum(count for at, count in self._at.items() if at >= begin)


@define(eq=False)
class Deaths:
    """Who went within the last hour: of these the last :data:`MOST_LATELY`.

    :param clock: its ``seconds`` only go forward: the reactor, or a ``task.Clock``.
    """

    _clock: Any
    # In the order in which they went. A dict whose oldest go looks for the next oldest
    # from its very beginning.
    _records: OrderedDict[str, _Record] = field(factory=OrderedDict, init=False)
    _gone: _Window = field(factory=lambda: _Window(int(LATELY)), init=False)
    _lost: _Window = field(factory=lambda: _Window(int(LATELY)), init=False)
    _flapping: _Window = field(factory=lambda: _Window(TEN_MINUTES), init=False)

    def restore(self, stored: StoredState, wall_clock: float) -> None:
        """Go on after a restart.

        :param wall_clock: seconds since the epoch, now.
        """
        now = self._now()
        ends = [
            (now - max(0, int(wall_clock - life.ended_at)), client_id, life.reason)
            for client_id, life in stored.ended_lately
            if life.ended_at is not None
        ]
        # Not in order, if the wall clock was set meanwhile.
        for at, client_id, reason in sorted(ends, key=itemgetter(0)):
            self._count(client_id, reason, at)

    def hear(self, change: Change) -> None:
        """A client has changed, and the store knows it."""
        if change.ended is not None:
            self._count(change.client_id, change.reason, self._now())

    def deaths_in_ten_minutes(self, client_id: str) -> int:
        """How often a client was lost; :data:`MOST_LOSSES` at the most."""
        record = self._records.get(client_id)
        if record is None:
            return 0
        losses = record.losses
        return len(losses) - bisect_left(losses, self._now() - TEN_MINUTES)

    def flapping(self) -> int:
        """How many flap, whether they live at this moment or not."""
        return self._flapping.count(self._now())

    def gone_last_hour(self) -> int:
        """How many client IDs went, also of those that came back."""
        return self._gone.count(self._now())

    def lost_last_hour(self) -> int:
        """How many client IDs were lost by timebomb, also of those that came back."""
        return self._lost.count(self._now())

    def _now(self) -> int:
        return int(self._clock.seconds())

    def _count(self, client_id: str, reason: Reason | None, at: int) -> None:
        if reason not in _GOES:
            return
        record = self._records.pop(client_id, None)
        if record is None:
            record = _Record(at, array("q"))
            self._make_room(at)
        else:
            self._take_out(record)
        record.went = at
        if reason is Reason.TIMEBOMB:
            record.losses.append(at)
            del record.losses[: bisect_left(record.losses, at - TEN_MINUTES)]
            del record.losses[:-MOST_LOSSES]
        self._put_in(record)
        self._records[client_id] = record

    def _make_room(self, now: int) -> None:
        """Forget the oldest, if it is too old or one too many; two, so that it ends."""
        for _ in range(2):
            oldest = next(iter(self._records.values()), None)
            if oldest is None or (
                len(self._records) < MOST_LATELY and oldest.went >= now - LATELY
            ):
                return
            self._take_out(oldest)
            self._records.popitem(last=False)

    def _put_in(self, record: _Record) -> None:
        self._gone.add(record.went)
        if record.losses:
            self._lost.add(record.losses[-1])
        if len(record.losses) >= FLAPS:
            self._flapping.add(record.losses[-FLAPS])

    def _take_out(self, record: _Record) -> None:
        self._gone.take_out(record.went)
        if record.losses:
            self._lost.take_out(record.losses[-1])
        if len(record.losses) >= FLAPS:
            self._flapping.take_out(record.losses[-FLAPS])
