"""Holds what a service said against what it was told: finds broken promises.

It hears of every beat when it leaves and when it is answered, and of every publication.
The service got an answered beat somewhere between the two moments. So a death before
the first of them and a fuse is a false one, however slow this program was; and one that
hasn't come when the second, a fuse and a margin are over is missing. The margin grows
with what the machine had to wait for.

Knows no transport and no behaviour.
"""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict

from attrs import define, field

from heartbeat_service.core.changes import Reason
from heartbeat_service.core.clock import Clock
from heartbeat_service.core.states import ClientState
from heartbeat_service.protocol.messages import (
    ErrorMessage,
    HeartbeatMessage,
    OnStateChange,
    Reply,
    Request,
    as_state,
)
from heartbeat_service.simulator.transport import NoAnswer

#: How late a death may be, in seconds, on a machine that keeps nobody waiting: what is
#: due waits a second at the most for what has piled up (docs/reliability.md).
MARGIN = 2.0

#: What two clocks that are one may differ by when they are rounded, in seconds.
ROUNDING = 1e-3

#: How many lives of a client are remembered: late answers tell of former ones.
LIVES = 4

#: How many broken promises are told in full.
MOST_TOLD = 20


@define(eq=False)
class Life:
    """What is known of one life of a client.

    :ivar heard_after: when the last beat left that was answered.
    :ivar heard_before: when that answer came.
    :ivar states: the state that each sequence stands for.
    :ivar published: the sequence that was published last.
    :ivar is_over: whether its end was published.
    """

    incarnation: int
    fuse: float = field(default=0.0, init=False)
    heard_after: float | None = field(default=None, init=False)
    heard_before: float = field(default=0.0, init=False)
    states: dict[int, ClientState] = field(factory=dict, init=False)
    published: int = field(default=0, init=False)
    is_over: bool = field(default=False, init=False)


@define(eq=False)
class Referee:
    """Watches one service and its fleet.

    :ivar beats: beats that were answered.
    :ivar registrations: lives that a beat's answer told of.
    :ivar errors: refusals, by their code.
    :ivar unanswered: requests that got no answer in time.
    :ivar slowest: seconds that the slowest answer took.
    :ivar lag: by how many seconds this program was late at the most.
    :ivar deaths_expected: timebombs that had to go off.
    :ivar deaths_seen: those that did.
    :ivar false_deaths: those that had no right to.
    :ivar missed_deaths: those that had to and didn't.
    :ivar publications: how many were heard.
    :ivar lost_publications: gaps in their sequences. That is no promise: PUB drops what
        a subscriber is too slow for.
    :ivar push_times: seconds from a client's request to the publication that it caused.
    :ivar death_times: seconds from a death's due time to its publication.
    :ivar contradictions: what can't be true together with something else that was said.
    :ivar broken: the first broken promises, in words.
    """

    _clock: Clock
    beats: int = field(default=0, init=False)
    registrations: int = field(default=0, init=False)
    errors: Counter[str] = field(factory=Counter, init=False)
    unanswered: int = field(default=0, init=False)
    slowest: float = field(default=0.0, init=False)
    lag: float = field(default=0.0, init=False)
    deaths_expected: int = field(default=0, init=False)
    deaths_seen: int = field(default=0, init=False)
    false_deaths: int = field(default=0, init=False)
    missed_deaths: int = field(default=0, init=False)
    publications: int = field(default=0, init=False)
    lost_publications: int = field(default=0, init=False)
    push_times: array[float] = field(factory=lambda: array("d"), init=False)
    death_times: array[float] = field(factory=lambda: array("d"), init=False)
    contradictions: int = field(default=0, init=False)
    broken: list[str] = field(factory=list, init=False)
    _lives: defaultdict[str, list[Life]] = field(
        factory=lambda: defaultdict(list), init=False
    )
    _sent_at: dict[str, float] = field(factory=dict, init=False)
    _beat_sent_at: dict[str, float] = field(factory=dict, init=False)
    _trouble_at: float = field(default=float("-inf"), init=False)
    _era: int = field(default=0, init=False)
    _sees: bool = field(default=True, init=False)
    _began: float = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._began = self._clock.seconds()

    @property
    def kept(self) -> bool:
        """Whether no promise was broken."""
        return not (self.false_deaths or self.missed_deaths or self.contradictions)

    @property
    def seconds(self) -> float:
        """For how long it has watched."""
        return self._clock.seconds() - self._began

    def sent(self, request: Request) -> float:
        """A request leaves now; that moment."""
        now = self._clock.seconds()
        self._sent_at[request.client_id] = now
        if isinstance(request, HeartbeatMessage):
            self._beat_sent_at[request.client_id] = now
        return now

    def answered(
        self, request: Request, sent_at: float, answer: Reply | NoAnswer
    ) -> None:
        """What has come of a request, also where its client doesn't get to know."""
        now = self._clock.seconds()
        if isinstance(answer, NoAnswer):
            self.unanswered += 1
            self._trouble_at = max(self._trouble_at, now)
            return
        self.slowest = max(self.slowest, now - sent_at)
        if isinstance(answer, ErrorMessage):
            self.errors[answer.code] += 1
            return
        if answer.client_id != request.client_id:
            self._contradict(f"{request.client_id} was answered for another")
            return
        life = self._life(answer.client_id, answer.incarnation)
        self._note(
            answer.client_id, life, answer.sequence, as_state(answer.client_state)
        )
        if isinstance(request, HeartbeatMessage):
            self.beats += 1
            if life.heard_after is None:
                self.registrations += 1
            life.heard_after = max(life.heard_after or 0.0, sent_at)
            life.heard_before = now
            life.fuse = answer.timebomb_seconds

    def heard(self, change: OnStateChange) -> None:
        """A publication."""
        now, client_id = self._clock.seconds(), change.client_id
        life = self._life(client_id, change.incarnation)
        self.publications += 1
        if change.sequence <= life.published:
            self._contradict(
                f"{client_id}: {change.sequence} was published after {life.published}"
            )
            return
        if life.published:
            self.lost_publications += change.sequence - life.published - 1
        life.published = change.sequence
        state = as_state(change.client_state)
        self._note(client_id, life, change.sequence, state)
        if state is ClientState.DISCONNECTED:
            life.is_over = True
        if change.reason is Reason.TIMEBOMB:
            self._died(client_id, life, now)
        elif change.reason not in (Reason.OPERATOR, Reason.KICK):
            sent_at = self._sent_at.get(client_id)
            if sent_at is not None:  # else it is nobody of this fleet's
                self.push_times.append(now - sent_at)

    def stalled(self, seconds: float = 0.0) -> None:
        """The service is kept from listening up to now, and for so long: no fuse burns.

        :param seconds: how much longer; 0 if it is over.
        """
        self._trouble_at = max(self._trouble_at, self._clock.seconds() + seconds)

    def lost_sight(self) -> None:
        """Publications are missed from now on: nobody's death is waited for."""
        self._sees = False

    def sees_again(self) -> None:
        """Publications are heard again: who is silent already may have died unheard."""
        self._sees = True
        self._era += 1
        self.stalled()

    def was_late(self, seconds: float) -> None:
        """This program itself was kept from running for so long."""
        self.lag = max(self.lag, seconds)

    def will_be_silent(self, client_id: str) -> None:
        """A client beats no more for a while: its timebomb has to go off."""
        life = self._present(client_id)
        if life is not None:
            self._look_in(self._due(life) - self._clock.seconds(), client_id, life)

    def _look_in(self, seconds: float, client_id: str, life: Life) -> None:
        began, era = self._beat_sent_at.get(client_id), self._era

        def look() -> None:
            if not self._sees or self._era != era:
                return
            if life.is_over or self._present(client_id) is not life:
                return
            if self._beat_sent_at.get(client_id) != began:
                return  # it has beaten again
            left = self._due(life) - self._clock.seconds()
            if left > 0:
                self._look_in(left, client_id, life)
                return
            self.deaths_expected += 1
            self.missed_deaths += 1
            self._tell(
                f"{client_id} lives, {self._clock.seconds() - life.heard_before:.3f} s "
                f"after its last beat, with a fuse of {life.fuse:g} s"
            )

        self._clock.callLater(max(seconds, ROUNDING), look)

    def _due(self, life: Life) -> float:
        """When its death must have been heard of, if nobody beats for it any more.

        While the first answer is on its way, its fuse isn't known: look again later.
        """
        if life.heard_after is None:
            return self._clock.seconds() + MARGIN
        margin = MARGIN + self.slowest + 2 * self.lag
        return max(life.heard_before, self._trouble_at) + life.fuse + margin

    def _died(self, client_id: str, life: Life, now: float) -> None:
        self.deaths_seen += 1
        if life.heard_after is None:
            self.deaths_expected += 1  # it was registered, and its answer was lost
            return
        if now < life.heard_after + life.fuse - ROUNDING:
            self.false_deaths += 1
            self._tell(
                f"{client_id} died {now - life.heard_after:.3f} s after a beat was "
                f"answered, with a fuse of {life.fuse:g} s"
            )
            return
        self.deaths_expected += 1
        self.death_times.append(max(0.0, now - life.heard_before - life.fuse))

    def _life(self, client_id: str, incarnation: int) -> Life:
        lives = self._lives[client_id]
        for life in reversed(lives):
            if life.incarnation == incarnation:
                return life
        life = Life(incarnation)
        lives.append(life)
        lives.sort(key=lambda one: one.incarnation)
        del lives[:-LIVES]
        return life

    def _present(self, client_id: str) -> Life | None:
        lives = self._lives.get(client_id)
        return lives[-1] if lives else None

    def _note(
        self, client_id: str, life: Life, sequence: int, state: ClientState
    ) -> None:
        known = life.states.setdefault(sequence, state)
        if known is not state:
            self._contradict(
                f"{client_id}: ({life.incarnation}, {sequence}) is {state.value}, and "
                f"was {known.value}"
            )
        elif sequence == 1 and state is not ClientState.UNCALIBRATED:
            self._contradict(f"{client_id} began a life as {state.value}")

    def _contradict(self, what: str) -> None:
        self.contradictions += 1
        self._tell(what)

    def _tell(self, what: str) -> None:
        if len(self.broken) < MOST_TOLD:
            self.broken.append(f"{self.seconds:.3f} s: {what}")
