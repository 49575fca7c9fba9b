"""The service without sockets, files and signals: what is put together, in one order.

A clock that knows stalls, a journal in front of the store, the registry, and the
dispatcher that answers requests. The service, the tests and a simulator build the same
engine; each hands it a clock and a store. Knows no transport.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.task import deferLater
from twisted.logger import Logger

from heartbeat_service.core.changes import Change, Snapshot
from heartbeat_service.core.heartbeat import LONGEST_FUSE
from heartbeat_service.core.listening_clock import ListeningClock
from heartbeat_service.core.notices import News, Stalled
from heartbeat_service.core.rate_limit import RateLimit
from heartbeat_service.core.registry import Registry
from heartbeat_service.core.states import ClientState
from heartbeat_service.engine.availability import PAUSE
from heartbeat_service.engine.counters import Counters
from heartbeat_service.engine.deaths import Deaths
from heartbeat_service.engine.dispatch import Dispatcher
from heartbeat_service.engine.events import EventLog
from heartbeat_service.engine.gone import GoneClients
from heartbeat_service.engine.journal import ChangeJournal
from heartbeat_service.engine.orders import Orders
from heartbeat_service.engine.others import OtherNodes
from heartbeat_service.engine.slices import in_slices
from heartbeat_service.storage.nodes import Node, Nodes, OneNode, Standing
from heartbeat_service.storage.store import Store, StoreTrouble

#: The share of the clients that may live from which on the log warns; and below which
#: it will do so again.
NEARLY_FULL, ROOM_AGAIN = 0.9, 0.8

#: What the log says of a stall of the service, once it is over.
STALLED = "stalled for {seconds:.1f} s: no timebomb has burnt meanwhile"

_log = Logger()


class NotRestored(Exception):
    """The store can be read, but it holds what no client can be; the text says what."""


class Engine:
    """Everything between the transports and the store.

    :param reactor: how late it is, and turns in which to do long work: a reactor or a
        ``task.Clock``.
    :param listeners: each hears every change, in order, once the store has it.
    :param watchers: each hears of all that operators are told, in order.
    :param timebomb: seconds from a beat to a client's death, unless it asks for others.
    :param interval: seconds between two beats, as clients are told.
    :param max_clients: how many clients may live at once.
    :param max_registrations: how many lives may begin a second; None for any number.
    :param max_timebomb: the most seconds that a client gets if it asks.
    :param wall_clock: seconds since the epoch, for people.
    :param mass_loss_share: how many of all must be late for a hold; None for none.
    :param mass_loss_hold: how long a hold may last, in seconds.
    :param worked: seconds of processor time that the reactor's thread has used.
    :param nodes: all that are this service; None if it is alone.
    :param standing: whether this node may speak for the service; a single one may.
    :ivar opened: whether its clients are known.
    :ivar gone: who was here and is not.
    :ivar counters: what has happened, in numbers.
    :ivar events: what operators were told.
    :ivar deaths: how many went lately, and who flaps.
    """

    def __init__(
        self,
        reactor: Any,
        store: Store,
        listeners: Iterable[Callable[[Change], None]] = (),
        *,
        watchers: Iterable[Callable[[News], None]] = (),
        timebomb: float = 10.0,
        interval: float = 2.0,
        max_clients: int = 250_000,
        max_registrations: int | None = None,
        max_timebomb: float = LONGEST_FUSE,
        mass_loss_share: float | None = None,
        mass_loss_hold: float = 60.0,
        wall_clock: Callable[[], float] = time.time,
        worked: Callable[[], float] = lambda: 0.0,
        nodes: Nodes | None = None,
        standing: Standing | None = None,
    ) -> None:
        self.opened = False
        self.standing = standing or Standing(reactor)
        self.gone = GoneClients()
        self.events = EventLog(wall_clock)
        self.deaths = Deaths(reactor)
        self._reactor = reactor
        self._store = store
        self.clock = ListeningClock(reactor, self._stalled, worked)
        self.counters = Counters(self.clock)
        self.clock.on_turn = self.counters.lags.add
        self.journal = ChangeJournal(
            store,
            self.clock,
            reactor,
            [
                _log_change,
                self.gone.hear,
                self.counters.hear,
                self.deaths.hear,
                self._look_for_room,
                *listeners,
            ],
            self._refused,
            [
                self.events.hear,
                self.counters.watch,
                *watchers,
            ],
            self.counters.count_commit,
        )
        self.registry = Registry(
            clock=self.clock,
            wall_clock=wall_clock,
            listener=self.journal.record,
            default_fuse=timebomb,
            admit=self.journal.admit,
            max_clients=max_clients,
            registrations=_limit(reactor, max_registrations),
            longest_fuse=max_timebomb,
            tell=self.journal.tell,
            interval=interval,
            mass_loss_share=mass_loss_share,
            mass_loss_hold=mass_loss_hold,
            on_gap=self.counters.count_gap,
            on_timebomb=self.counters.count_timebomb,
            is_sure=self.standing.may_kill,
            on_arrival=self.counters.count_arrival,
        )
        self.dispatcher = Dispatcher(
            self.registry,
            self.journal,
            self.gone,
            self.counters,
            self.deaths,
            interval,
            self.standing,
            events=self.events,
        )
        self.orders = Orders(self.dispatcher, reactor)
        self._others = OtherNodes(
            self.registry, self.journal, self.counters, self.gone, store.beats_here
        )
        store.listen(self._others)
        self.nodes: Nodes = nodes or OneNode(
            self.counters.alive, Node(session="", name="", since=wall_clock())
        )
        self._nearly_full = False

    async def open(self) -> bool:
        """Open the store, and know its clients before anybody asks for them.

        :return: whether it could be opened; the journal has said why not.
        :raises NotRestored: if there is no way to go on with what it holds.
        """
        try:
            stored = await self.journal.open()
        except StoreTrouble:
            return False
        try:
            deque(self.registry.restore(stored), maxlen=0)
            self.gone.restore(stored)
            self.counters.restore(stored, self.registry.wall_clock())
            self.deaths.restore(stored, self.registry.wall_clock())
        except Exception as error:  # whatever somebody has written into the store
            self.clock.stop()  # nobody dies who was taken in before it came to that
            raise NotRestored(f"what it holds can't be restored: {error!r}") from error
        self.opened = True
        _log_restored(self.registry)
        self._look_for_room()
        return True

    async def keep_opening(self) -> None:
        """Try until it is open: a disk may be mended, a lock be given back.

        :raises NotRestored: as :meth:`open`.
        """
        while not self.opened:
            await deferLater(self._reactor, PAUSE)
            await self.open()

    async def close(self) -> None:
        """Write down what was counted, and let the store go; nobody asks any more."""
        self.orders.stop()
        if self.opened:  # else nobody has beaten, and nothing is written back
            # Other nodes take them over, to whom a write would be in the way.
            keep = not self._store.is_shared
            await in_slices(self._reactor, self.registry.defuse_all(keep))
        await self.journal.close()
        self.clock.stop()
        self.opened = False

    async def trouble(self) -> str | None:
        """Why it can't serve now; None if it can."""
        if not self.opened:
            return await self.journal.check() or "the service is starting or stopping"
        if self._store.is_shared:
            return self.standing.trouble()
        return await self.journal.check()

    async def wants_restart(self) -> str | None:
        """What is wrong that a new process may mend; None if nothing is.

        With a store that others write to, it may mend nothing: a node that is emptied,
        or has lost etcd, would take clients again.
        """
        return None if self._store.is_shared else await self.trouble()

    def _look_for_room(self, _change: Change | None = None) -> None:
        """Warn before newcomers are refused, once each time that it comes to that."""
        alive, most = len(self.registry), self.registry.max_clients
        if alive >= NEARLY_FULL * most and not self._nearly_full:
            self._nearly_full = True
            _log.warn(
                "{alive} clients live, and no more than {most} may: see --max-clients",
                alive=alive,
                most=most,
            )
        elif alive < ROOM_AGAIN * most:
            self._nearly_full = False

    def _stalled(self, seconds: float) -> None:
        self.counters.count_stall(seconds)
        _log.warn(STALLED, seconds=seconds)
        self.journal.tell(Stalled(seconds))

    def _refused(self, client_id: str, record: Snapshot | None) -> None:
        self._others.refused(client_id, record)


def _limit(clock: Any, per_second: int | None) -> RateLimit | None:
    return None if per_second is None else RateLimit(clock, per_second)


def _log_restored(registry: Registry) -> None:
    """How many came back, for whoever looks at the log after a restart."""
    states = Counter(client.state for client in registry)
    text = f"restored {_counted(len(registry), 'client')}"
    if states:
        text += ": " + ", ".join(
            f"{states[s]} {s.value}" for s in ClientState if states[s]
        )
    lockouts = registry.lockouts
    locked_out = sum(1 for one in lockouts.client_ids() if lockouts.seconds_left(one))
    if locked_out:
        text += f"; {_counted(locked_out, 'client ID')} locked out"
    _log.info("{text}", text=text)


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _log_change(change: Change) -> None:
    # Put together here: to let the log do it takes five times as long.
    _log.info(
        "{change}",
        change=f"client {change.client_id}: {change.previous_state.value} -> "
        f"{change.state.value} ({change.reason.value}), "
        f"incarnation {change.incarnation}, sequence {change.sequence}",
    )
