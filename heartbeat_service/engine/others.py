"""What other nodes do, brought into this one's registry (contract, section 7).

Each change of another node goes behind what this node has kept before it, through the
journal, so that listeners hear all changes of a client in the store's order. Knows no
etcd: it is what a store that others write to as well tells.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import ClassVar

from attrs import define, field
from twisted.logger import Logger
from typing_extensions import override

from heartbeat_service.core.changes import (
    Change,
    Fact,
    Lockout,
    Reason,
    SilenceEnd,
    Snapshot,
)
from heartbeat_service.core.notices import (
    LabelsChanged,
    News,
    Silence,
)
from heartbeat_service.core.registry import Registry
from heartbeat_service.core.states import ClientState
from heartbeat_service.engine.counters import Counters
from heartbeat_service.engine.gone import GoneClients
from heartbeat_service.engine.journal import ChangeJournal
from heartbeat_service.storage.store import Hearer

#: From how many seconds on a clock that is ahead of this node's is told of.
AHEAD = 2.0

_DISCONNECTED = ClientState.DISCONNECTED

_ENDS: dict[Reason, SilenceEnd] = {
    Reason.KICK: SilenceEnd.OPERATOR,
    Reason.RECONNECT: SilenceEnd.BEAT,
}


@define(eq=False)
class OtherNodes(Hearer):
    """Takes what the store tells into the registry, and lets it be heard.

    :ivar beats_here: whether a client beats at this node.
    """

    registry: Registry
    journal: ChangeJournal
    counters: Counters
    gone: GoneClients
    beats_here: Callable[[str], bool]
    _log: ClassVar[Logger] = Logger()
    _is_ahead_told: bool = field(default=False, init=False)

    @override
    def changed(self, fact: Fact) -> None:
        match fact:
            case Change():
                apply = partial(self._change, fact)
            case Snapshot():
                apply = partial(self._take_at_once, fact)
            case Lockout():
                apply = partial(self._lock_out, fact)
        self.journal.hear(fact, apply)

    @override
    def placed(self, client_ids: Iterable[str], here: bool) -> None:
        before = self.registry.here
        for client_id in client_ids:
            self.registry.place(client_id, here)
        self.counters.taken_over += max(0, self.registry.here - before)

    @override
    def lost(self, kept: Callable[[str], Snapshot | None]) -> None:
        self.journal.set_trouble("this node has lost its session with etcd")
        self.journal.give_up_all(kept)

    @override
    def in_touch(self, trouble: str | None) -> None:
        if trouble is None:
            # Nobody could be heard, or was answered, for a while.
            deque(self.registry.renew_fuses(), maxlen=0)
        self.journal.set_trouble(trouble)

    def refused(self, client_id: str, record: Snapshot | None) -> None:
        """The store has another record of a client than the one that was changed."""
        former = self._known(client_id)
        self.counters.refused += 1
        self.counters.replace(former, record)
        self._replace(client_id, record)
        if record is not None:
            self.gone.forget(client_id)

    def _replace(self, client_id: str, record: Snapshot | None) -> None:
        # Where it beats now: it may have moved while the change waited to be heard.
        self.registry.replace(client_id, record, self.beats_here(client_id))

    def _known(self, client_id: str) -> Snapshot | None:
        """A client as the store had it; None if it didn't live there."""
        held = self.journal.held()
        if client_id in held:
            return held[client_id]
        client = self.registry.find(client_id)
        return None if client is None else client.snapshot()

    def _change(self, change: Change) -> Iterable[News]:
        self._compare_clocks(change.at)
        former, present = self._known(change.client_id), change.client
        known = ClientState.DISCONNECTED if former is None else former.state
        self.counters.correct(known, change.previous_state)
        self._replace(change.client_id, present)
        is_silent = present.silent_until and present.state is not _DISCONNECTED
        if former is not None and former.silent_until and not is_silent:
            reason = _ENDS.get(change.reason, SilenceEnd.ENDED)
            return [_silence(former, 0.0, reason)]
        return ()

    def _take_at_once(self, present: Snapshot) -> Iterable[News]:
        return list(self._take(present))  # what was held until now is forgotten then

    def _take(self, present: Snapshot) -> Iterator[News]:
        client_id, incarnation = present.client_id, present.incarnation
        former = self._known(client_id)
        self._replace(client_id, present)
        if former is None:
            self.counters.correct(ClientState.DISCONNECTED, present.state)
            return
        if present.silent_until != former.silent_until:
            left = max(0.0, present.silent_until - self.registry.wall_clock())
            end = present.silence_end or SilenceEnd.BEAT
            yield _silence(present, left, None if left else end)
        if present.labels != former.labels:
            yield LabelsChanged(
                client_id=client_id, incarnation=incarnation, labels=present.labels
            )

    def _compare_clocks(self, moment: float) -> None:
        """Tell once if another node's clock is ahead; that one can't see it.

        :param moment: of something that is over by now, however late it is heard of.
        """
        ahead = moment - self.registry.wall_clock()
        if ahead > AHEAD and not self._is_ahead_told:
            self._is_ahead_told = True
            self._log.warn(
                "another node's clock is {ahead:.0f} s ahead of this one's: silences "
                "and lock-outs end at other times there; let NTP set all clocks",
                ahead=ahead,
            )

    def _lock_out(self, lockout: Lockout) -> Iterable[News]:
        self.registry.take_lockout(lockout)
        return ()


def _silence(client: Snapshot, left: float, reason: SilenceEnd | None) -> Silence:
    return Silence(
        client_id=client.client_id,
        incarnation=client.incarnation,
        seconds=left,
        reason=reason,
    )
