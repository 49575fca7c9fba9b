"""A simulated client: what its session says, and what befalls it.

The session is that of the real game client. Around it are processes that end without a
Goodbye, pause, come twice; messages that get lost; clocks that run wrong. All of it is
drawn from the client's own source of random numbers, in the same order each time.

Knows a clock and a way to the service, no socket.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from msgspec import UNSET

from heartbeat_service.core.clock import Clock, Timer
from heartbeat_service.core.heartbeat import NO_VALUES
from heartbeat_service.core.states import ClientState
from heartbeat_service.game_client.actions import (
    Action,
    AskAgainAfter,
    BeatAfter,
    OpenSockets,
    SendHeartbeat,
    SendRequest,
    StateChanged,
    Superseded,
)
from heartbeat_service.game_client.session import Session
from heartbeat_service.protocol.messages import (
    ClientID,
    ErrorMessage,
    OnStateChange,
    Reply,
    Request,
)
from heartbeat_service.simulator.plan import (
    LONGEST_ABSENCE,
    SHORTEST_ABSENCE,
    Mishap,
    Plan,
)
from heartbeat_service.simulator.referee import Referee
from heartbeat_service.simulator.transport import Answered, NoAnswer, Transport
from heartbeat_service.simulator.virtual_clock import Stallable

#: Seconds that a request other than a beat waits for its answer (contract, section 5).
PATIENCE = 2.0

#: How long a game stays in a state before it reports the next: on average, in beats.
STAY = {
    ClientState.UNCALIBRATED: 2.5,
    ClientState.CALIBRATED: 5,
    ClientState.RUNNING: 60,
}
NEXT = {
    ClientState.UNCALIBRATED: ClientState.CALIBRATED,
    ClientState.CALIBRATED: ClientState.RUNNING,
    ClientState.RUNNING: ClientState.CALIBRATED,
}

LOST = NoAnswer("lost on its way")


class Skewed:
    """A clock that runs fast or slow.

    :param rate: how many of its seconds pass in one.
    """

    def __init__(self, clock: Clock, rate: float) -> None:
        self._clock = clock
        self._rate = rate

    def seconds(self) -> float:
        """How late it is, as it has it."""
        return self._clock.seconds() * self._rate

    def callLater(
        self, delay: float, what: Callable[..., Any], /, *args: object
    ) -> Timer:
        """Call ``what`` once so many of its seconds are over."""
        return self._clock.callLater(delay / self._rate, what, *args)


class SimulatedClient:
    """One client of the fleet, process after process.

    :ivar happened: counts each mishap of the fleet.
    """

    def __init__(
        self,
        number: int,
        plan: Plan,
        clock: Clock,
        transport: Transport,
        referee: Referee,
        happened: Callable[[Mishap], None],
    ) -> None:
        self.client_id = ClientID(plan.client_id(number))
        self.plan = plan
        self.random = plan.random(number)
        rate = 1 + self.random.uniform(-plan.skew, plan.skew)
        self.clock = clock if rate == 1 else Skewed(clock, rate)
        self.referee = referee
        self._number = number
        self._transport = transport
        self._happened = happened
        self._process: Process | None = None
        self._former: list[Process] = []
        self._processes = 0
        self._left = False

    @property
    def state(self) -> ClientState:
        """That of its present process."""
        if self._process is None or self._process.ended:
            return ClientState.DISCONNECTED
        return self._process.session.state

    def start(self) -> None:
        """Begin the first process."""
        self._begin()
        self._plan_mishap()

    def leave(self) -> None:
        """Say Goodbye, once the beat that is under way is answered; for good."""
        self._left = True
        for process in (*self._former, self._process):
            if process is not None and not process.ended:
                process.leave()

    def hear(self, change: OnStateChange) -> None:
        """A publication about it."""
        for process in (*self._former, self._process):
            if process is not None and not self._is_lost():
                process.hear(change)

    def send(
        self, request: Request, request_id: str, patience: float, answered: Answered
    ) -> None:
        """Send it, unless it gets lost."""
        if self._is_lost():
            self.clock.callLater(patience, answered, LOST)
            return
        sent_at = self.referee.sent(request)
        answer_is_lost = self._is_lost()

        def arrived(answer: Reply | NoAnswer) -> None:
            self.referee.answered(request, sent_at, answer)
            if answer_is_lost:
                return
            if self.plan.slow:
                late = self.random.uniform(0, self.plan.slow)
                self.clock.callLater(late, answered, answer)
            else:
                answered(answer)

        if answer_is_lost:
            self.clock.callLater(patience, answered, LOST)
        self._transport.send(request, request_id, patience, arrived)

    def _is_lost(self) -> bool:
        return bool(self.plan.lossy) and self.random.random() < self.plan.lossy

    def _begin(self) -> None:
        if self._left:
            return
        self._processes += 1
        instance = f"{self.client_id}.{self.plan.run}{self._processes}"
        labels = self.plan.labels_of(self._number)
        session = Session(
            client_id=self.client_id,
            instance_id=instance,
            random=self.random.random,
            own_timebomb=self.plan.timebomb,
            labels=labels or UNSET,
        )
        self._process = Process(self, session)
        self._process.start()

    def _plan_mishap(self) -> None:
        planned = self.plan.next_mishap(self.random)
        if planned is not None and not self._left:
            seconds, mishap = planned
            self.clock.callLater(seconds, self._suffer, mishap)

    def _suffer(self, mishap: Mishap) -> None:
        if self._left:
            return
        self._happened(mishap)
        process = self._process
        if process is None or process.ended:
            self._begin()
            self._plan_mishap()
            return
        fuse = process.session.patience * 2
        away = self.random.uniform(SHORTEST_ABSENCE, LONGEST_ABSENCE) * fuse
        match mishap:
            case Mishap.CRASH:
                process.end()
                self._silent_for(away, self._begin)
            case Mishap.PAUSE:
                process.clock.stall()
                self._silent_for(away, process.clock.go_on)
            case Mishap.RESTART:
                process.leave()
                self.clock.callLater(0.1, self._begin_again)
            case Mishap.DUPLICATE:
                self._former = [one for one in self._former if not one.ended]
                self._former.append(process)
                self._begin()
                self._plan_mishap()

    def _silent_for(self, seconds: float, then: Callable[[], None]) -> None:
        if all(one.ended for one in self._former):
            self.referee.will_be_silent(self.client_id)

        def back() -> None:
            then()
            self._plan_mishap()

        self.clock.callLater(seconds, back)

    def _begin_again(self) -> None:
        self._begin()
        self._plan_mishap()


class Process:
    """One process of a client: does what its session says.

    :ivar clock: that of its client, which stands still for it while it is paused.
    :ivar ended: whether it does nothing any more.
    """

    def __init__(self, client: SimulatedClient, session: Session) -> None:
        self.session = session
        self.clock = Stallable(client.clock)
        self.ended = False
        self._client = client
        self._is_beating = self._leaves = False
        self._sent_at = 0.0
        self._timers: dict[str, Timer] = {}

    def start(self) -> None:
        """Beat for the first time, not all of a fleet in one moment."""
        self._after("beat", self._client.random.uniform(0, 1), self._beat)

    def end(self) -> None:
        """Do nothing any more, as a process that is killed."""
        self.ended = True
        for timer in self._timers.values():
            if timer.active():
                timer.cancel()

    def leave(self) -> None:
        """Say Goodbye; first wait for the beat that is under way."""
        self._leaves = True
        if not self._is_beating:
            self._say_goodbye()

    def hear(self, change: OnStateChange) -> None:
        """A publication: it waits while the process is paused."""
        self.clock.run(self._do, self.session.state_published, change)

    def _say_goodbye(self) -> None:
        farewell = self.session.leave()
        self.end()
        for action in farewell:
            self._send(action, lambda _: None)

    def _beat(self) -> None:
        self._do(self.session.beat, NO_VALUES)

    def _do(self, event: Callable[..., Sequence[Action]], *args: Any) -> None:
        if self.ended:
            return
        for action in event(*args):
            match action:
                case SendHeartbeat():
                    self._is_beating, self._sent_at = True, self.clock.seconds()
                    self._client.send(
                        action.message, "", self.session.patience, self._beat_answered
                    )
                case BeatAfter():
                    wait = self._sent_at + action.seconds - self.clock.seconds()
                    self._after("beat", wait, self._beat)
                case SendRequest():
                    answered = partial(self._request_answered, action.request_id)
                    self._send(action, answered)
                case AskAgainAfter():
                    self._after("ask", action.seconds, self._do, self.session.ask_again)
                case StateChanged():
                    self._play(action.state)
                case Superseded():
                    self.end()
                case OpenSockets():  # the fleet has one ear for all, which is open
                    self._do(self.session.zmq_connected)
                case _:
                    pass  # what a game is told, and the referee knows

    def _send(self, action: SendRequest, answered: Answered) -> None:
        self._client.send(action.message, action.request_id, PATIENCE, answered)

    def _beat_answered(self, answer: Reply | NoAnswer) -> None:
        self.clock.run(self._beat_is_over, answer)

    def _beat_is_over(self, answer: Reply | NoAnswer) -> None:
        self._is_beating = False
        if isinstance(answer, NoAnswer):
            self._do(self.session.beat_failed, answer.why)
        elif isinstance(answer, ErrorMessage):
            self._do(self.session.beat_refused, answer)
        else:
            self._do(self.session.beat_answered, answer)
        if self._leaves and not self.ended:
            self._say_goodbye()

    def _request_answered(self, request_id: str, answer: Reply | NoAnswer) -> None:
        if isinstance(answer, NoAnswer):
            return  # the session asks again, or finds out by its next beat
        heard = (
            self.session.request_refused
            if isinstance(answer, ErrorMessage)
            else self.session.request_answered
        )
        self.clock.run(self._do, heard, answer, request_id)

    def _play(self, state: ClientState) -> None:
        """The game goes on from that state after a while."""
        if state in NEXT:
            stay = STAY[state] * self._client.random.expovariate(
                1 / self.session.interval
            )
            self._after("game", stay, self._do, self.session.report, NEXT[state])

    def _after(
        self, name: str, seconds: float, what: Callable[..., Any], *args: Any
    ) -> None:
        former = self._timers.get(name)
        if former is not None and former.active():
            former.cancel()
        self._timers[name] = self.clock.callLater(max(0.0, seconds), what, *args)
