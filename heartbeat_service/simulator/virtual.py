"""The fleet at an engine of its own, in virtual time and without a socket.

The engine is the service's: registry, journal, dispatcher, a store in memory. Messages
take a moment on their way and come as structs; bytes are other modules' business. As
no call is ever late on a virtual clock, the engine's listening time takes no jump for a
stall, but for those that are ordered: then the engine's calls wait, and what was sent
to it piles up.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from heartbeat_service.core.changes import Change
from heartbeat_service.core.errors import HeartbeatError
from heartbeat_service.core.notices import News, Stalled
from heartbeat_service.engine.dispatch import error_message
from heartbeat_service.engine.engine import Engine
from heartbeat_service.protocol.messages import OnStateChange, Reply, Request
from heartbeat_service.simulator.client import SimulatedClient
from heartbeat_service.simulator.plan import Mishap, Plan
from heartbeat_service.simulator.referee import Referee
from heartbeat_service.simulator.report import figures
from heartbeat_service.simulator.transport import Answered, NoAnswer
from heartbeat_service.simulator.virtual_clock import Stallable, VirtualClock
from heartbeat_service.storage.memory import MemoryStore

#: The wall clock's time when a run begins, in seconds since the epoch.
EPOCH = 1_800_000_000.0

#: How long a message is on its way, in seconds.
LATENCY = 0.0005, 0.02

#: How long a publication is, in seconds; the same for each, so that none overtakes.
PUSH_LATENCY = 0.005

#: How many messages that have piled up are read in one turn.
AT_ONCE = 100

#: How long a stall lasts, in fuses.
SHORTEST_STALL, LONGEST_STALL = 0.1, 2.0

#: For how long the last messages are waited for when a run ends, in seconds.
SETTLING = 3.0


class VirtualService:
    """An engine on a virtual clock, and the way to it.

    :param interval: seconds between two beats, as clients are told.
    :param timebomb: seconds from a beat to a client's death.
    :ivar clients: who hears of publications, by their IDs.
    :ivar stalls: how often it was kept from running ...
    :ivar stalls_told: ... and how often it noticed, and told operators ...
    :ivar stalled: ... and for how many seconds, all in all.
    """

    def __init__(
        self,
        clock: VirtualClock,
        plan: Plan,
        referee: Referee,
        interval: float,
        timebomb: float,
    ) -> None:
        self.clients: dict[str, SimulatedClient] = {}
        self.stalls = self.stalls_told = 0
        self.stalled = 0.0
        self._clock = clock
        self._machine = Stallable(clock)
        self._random = plan.random("service")
        self._referee = referee
        self._piled_up: deque[tuple[Request, Answered]] = deque()
        self._timebomb = timebomb
        self.engine = Engine(
            self._machine,
            MemoryStore(self._wall_clock),
            [self._publish],
            watchers=[self._watch],
            timebomb=timebomb,
            interval=interval,
            wall_clock=self._wall_clock,
        )
        self.engine.clock.unread = lambda: bool(self._piled_up)
        self._stall_rate = plan.stall_rate / 60

    def open(self) -> None:
        """Begin to answer."""
        opened = Deferred.fromCoroutine(self.engine.open())
        assert opened.called, "a store in memory is open at once"
        self._plan_stall()

    def close(self) -> None:
        """Stop; nothing is left on the clock that goes on for ever."""
        Deferred.fromCoroutine(self.engine.close())

    def send(
        self, request: Request, _request_id: str, patience: float, answered: Answered
    ) -> None:
        """Send it; a moment later it arrives."""
        self._clock.send(self._latency(), self._arrive, request, patience, answered)

    def _latency(self) -> float:
        least, most = LATENCY
        return least + self._random.random() * (most - least)

    def _arrive(self, request: Request, patience: float, answered: Answered) -> None:
        if self._machine.stalled or self._piled_up:
            self._piled_up.append((request, _Once(self._clock, patience, answered)))
        else:
            self._serve(request, answered)

    def _serve(self, request: Request, answered: Answered) -> None:
        def answer(reply: Reply) -> None:
            self._clock.send(self._latency(), answered, reply)

        def refuse(failure: Failure) -> None:
            failure.trap(HeartbeatError)
            answer(error_message(failure.value))  # type: ignore[arg-type]  # trapped

        try:
            reply = self.engine.dispatcher.dispatch(request)
        except HeartbeatError as error:
            answer(error_message(error))
            return
        if isinstance(reply, Deferred):
            reply.addCallbacks(answer, refuse)
        else:
            answer(reply)

    def _publish(self, change: Change) -> None:
        message = OnStateChange.of(change)
        self._clock.send(PUSH_LATENCY, self._heard, message)

    def _watch(self, news: News) -> None:
        self.stalls_told += isinstance(news, Stalled)

    def _heard(self, message: OnStateChange) -> None:
        self._referee.heard(message)
        self.clients[message.client_id].hear(message)

    def _plan_stall(self) -> None:
        if self._stall_rate:
            wait = self._random.expovariate(self._stall_rate)
            self._clock.send(wait, self._stall)

    def _stall(self) -> None:
        fuses = self._random.uniform(SHORTEST_STALL, LONGEST_STALL)
        seconds = fuses * self._timebomb
        self.stalls += 1
        self.stalled += seconds
        self._machine.stall()
        self._referee.stalled(seconds)
        self._clock.send(seconds, self._go_on)

    def _go_on(self) -> None:
        # A reactor's timers come before its sockets: the worst order for a timebomb.
        self._machine.go_on()
        self._read()
        self._plan_stall()

    def _read(self) -> None:
        for _ in range(min(AT_ONCE, len(self._piled_up))):
            self._serve(*self._piled_up.popleft())
        if self._piled_up:
            self._clock.send(0, self._read)

    def _wall_clock(self) -> float:
        return EPOCH + self._clock.seconds()


class _Once:
    """Hears the first of two: an answer, or that patience is over."""

    def __init__(
        self, clock: VirtualClock, patience: float, answered: Answered
    ) -> None:
        self._answered = answered
        self._timer = clock.callLater(
            patience, answered, NoAnswer("There was no answer in time")
        )

    def __call__(self, answer: Reply | NoAnswer) -> None:
        if self._timer.active():
            self._timer.cancel()
            self._answered(answer)


def run(plan: Plan, interval: float, timebomb: float) -> dict[str, Any]:
    """A whole run; its figures, which depend on nothing but these arguments."""
    clock = VirtualClock()
    referee = Referee(clock)
    service = VirtualService(clock, plan, referee, interval, timebomb)
    mishaps: Counter[Mishap] = Counter()

    def happened(mishap: Mishap) -> None:
        mishaps[mishap] += 1

    service.open()
    for number in range(1, plan.clients + 1):
        client = SimulatedClient(number, plan, clock, service, referee, happened)
        service.clients[client.client_id] = client
        client.start()
    clock.run_until(plan.seconds)
    for client in service.clients.values():
        client.leave()
    clock.run_until(plan.seconds + SETTLING)
    service.close()
    stalls = {
        "ordered": service.stalls,
        "told": service.stalls_told,
        "seconds": round(service.stalled, 1),
    }
    return {**figures(plan, referee, mishaps), "stalls": stalls}
