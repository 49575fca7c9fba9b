"""What a game client does, and when: events in, actions out (contract, section 5).

Each method is something that happened; it returns what is to be done about it,
in order. Knows no socket, no clock and no reactor, so that every order in which
replies can overtake each other can be tried.

What the game reports is fenced (``reports.py``): it is taken on the state that it was
decided on, or not at all, so a report that is sent again undoes nobody's order. Each
ends with the game being told: the state that it wanted, or :class:`Refused`, or
:class:`Superseded`.

The server may be broken, or hostile. It can't make a client fall silent, or beat
without a pause; what it says of another client is ignored; its words are printable in
events.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import ParamSpec, TypeVar

from attrs import define, field
from msgspec import UNSET, Raw, UnsetType

from heartbeat_service.core.heartbeat import LONGEST_FUSE, NO_VALUES, SHORTEST_FUSE
from heartbeat_service.core.labels import Labels
from heartbeat_service.core.states import ClientState
from heartbeat_service.game_client.actions import (
    Action,
    AskAgainAfter,
    BeatAfter,
    Event,
    OpenSockets,
    Refused,
    SendHeartbeat,
    SendRequest,
    ServerLost,
    StateChanged,
    Superseded,
    ZmqBack,
    ZmqLost,
)
from heartbeat_service.game_client.outage import ZmqOutage
from heartbeat_service.game_client.reports import Reports
from heartbeat_service.protocol.messages import (
    ClientID,
    ClientStateMessage,
    ErrorMessage,
    GetClientState,
    Goodbye,
    HeartbeatMessage,
    OnStateChange,
    SetClientState,
    as_state,
)

_P = ParamSpec("_P")

#: Seconds between beats, and to a timebomb, until the server has told its own.
FIRST_INTERVAL = 2.0
FIRST_TIMEBOMB = 10.0

#: No server makes a client beat faster than this, in seconds.
SHORTEST_INTERVAL = 0.01

#: The longest that a client waits before it tries a lost server again, in seconds.
#: It never waits for more than half of its fuse, so that it lives when the server
#: was only stalled; nor for less than its interval.
LONGEST_BACKOFF = 15.0

#: The longest that it waits for an answer, in seconds, unless its interval is longer.
LONGEST_PATIENCE = 15.0

#: How long a request by ZeroMQ waits for its answer before it is sent again, in
#: seconds (contract, section 5).
ANSWER_PATIENCE = 2.0


_A = TypeVar("_A")


def _silent_once_superseded(
    event: Callable[_P, Sequence[_A]],
) -> Callable[_P, Sequence[_A]]:
    """A method of a session, which does nothing once another process took over."""

    @wraps(event)
    def unless_superseded(*args: _P.args, **kwargs: _P.kwargs) -> Sequence[_A]:
        session = args[0]
        assert isinstance(session, Session)
        return [] if session.superseded else event(*args, **kwargs)

    return unless_superseded


@define(eq=False)
class Session:
    """One process of one client.

    :ivar instance_id: names this process, so that a former one can't pass for it.
    :ivar random: a number from 0 to 1, for the jitter of the backoff.
    :ivar own_timebomb: seconds to the timebomb, if the client wants its own.
    :ivar labels: where the client is and what it is, if it says so.
    :ivar state: the state that was last applied.
    :ivar incarnation: this client's life, as the last beat's reply named it.
    :ivar sequence: that of the last applied state of this life; 0 before any.
    :ivar initialised: whether GetClientState was answered once.
    :ivar superseded: whether another process is this client now.
    """

    client_id: ClientID
    instance_id: str
    random: Callable[[], float]
    own_timebomb: float | None = None
    labels: Labels | UnsetType = UNSET
    state: ClientState = field(default=ClientState.DISCONNECTED, init=False)
    incarnation: int = field(default=0, init=False)
    sequence: int = field(default=0, init=False)
    initialised: bool = field(default=False, init=False)
    superseded: bool = field(default=False, init=False)
    _endpoints: OpenSockets | None = field(default=None, init=False)
    _interval: float = field(default=FIRST_INTERVAL, init=False)
    _timebomb: float = field(default=FIRST_TIMEBOMB, init=False)
    _failures: int = field(default=0, init=False)
    _trouble: str | None = field(default=None, init=False)
    _is_beating: bool = field(default=False, init=False)
    _sequence_at_beat: int = field(default=0, init=False)
    _told_by_beat: int = field(default=0, init=False)
    _published: int = field(default=0, init=False)
    _reports: Reports = field(factory=Reports, init=False)
    _requests: int = field(default=0, init=False)
    _asking: str | None = field(default=None, init=False)
    _may_ask: bool = field(default=True, init=False)
    _outage: ZmqOutage = field(factory=ZmqOutage, init=False)

    @property
    def interval(self) -> float:
        """Seconds between two beats, as the server told."""
        return self._interval

    @property
    def patience(self) -> float:
        """Seconds after which a beat without an answer has failed."""
        return max(self._interval, min(LONGEST_PATIENCE, self._timebomb / 2))

    @_silent_once_superseded
    def beat(self, values: Raw = NO_VALUES) -> Sequence[Action]:
        """It is time to beat. Not before the last beat was answered or failed."""
        self._is_beating, self._sequence_at_beat = True, self.sequence
        message = HeartbeatMessage(
            client_id=self.client_id,
            client_state=self.state,
            instance_id=self.instance_id,
            timebomb_seconds=UNSET if self.own_timebomb is None else self.own_timebomb,
            values=values,
            labels=self.labels,
        )
        return [SendHeartbeat(message)]

    @_silent_once_superseded
    def beat_answered(self, reply: ClientStateMessage) -> Sequence[Action]:
        """A beat's reply: the only word that can tell of a new life.

        Beats are answered one by one, so what it says of the incarnation is
        never out of date, and never about another process. A sequence below the one
        at which the beat was sent tells that the server itself has gone back, or
        that a former word was wrong: what it says now holds.
        """
        if reply.client_id != self.client_id or not self._is_this_process(reply):
            return self.beat_failed("The server answered for another client")
        self._is_beating, self._failures = False, 0
        self._trouble, self._may_ask = None, True
        self._timebomb = min(max(reply.timebomb_seconds, SHORTEST_FUSE), LONGEST_FUSE)
        self._interval = max(
            min(reply.heartbeat_interval_seconds, self._timebomb / 2), SHORTEST_INTERVAL
        )
        actions: list[Action] = []
        gone_back = reply.sequence < self._sequence_at_beat
        if reply.incarnation != self.incarnation or gone_back:
            self.incarnation, self.sequence = reply.incarnation, 0
            self._told_by_beat = self._published = 0
            actions += self._give_up("STALE_INCARNATION", "a new life has begun")
        endpoints = OpenSockets(reply.request_endpoint, reply.state_change_endpoint)
        first = self._endpoints is None
        # What a beat told first was not even published since: libzmq gives a connection
        # up for good once it has read what is no ZMTP, or too long.
        deaf = self._told_by_beat > self._published
        self._told_by_beat = reply.sequence if 0 < self.sequence < reply.sequence else 0
        cut_off = not first and self._outage.lasts(self._interval, self.patience)
        if cut_off and self._outage.tell():
            actions.append(ZmqLost(self._outage.trouble))
        if endpoints != self._endpoints or deaf or cut_off:
            self._endpoints = endpoints
            self._outage.begins()
            actions.append(endpoints)
        if not self.initialised:
            actions.append(self._ask())
        if not first:  # the first state is that of GetClientState's answer
            actions += self._apply(reply)
        return [*actions, BeatAfter(self._interval)]

    @_silent_once_superseded
    def beat_failed(
        self, detail: str, retry_after: float | UnsetType = UNSET
    ) -> Sequence[Action]:
        """A beat got no answer that makes sense, or the server has no time for it.

        :param retry_after: seconds that the server asks for; it gets half the fuse.
        """
        self._is_beating = False
        self._failures += 1
        wait = max(self._backoff(), self._no_longer_than_half_the_fuse(retry_after))
        return [*self._told_once("", ServerLost(detail)), BeatAfter(wait)]

    @_silent_once_superseded
    def beat_refused(self, error: ErrorMessage) -> Sequence[Action]:
        """A beat was answered with an error."""
        if self._is_anothers(error):
            return self.beat_failed("The server answered for another client")
        if error.code == "INSTANCE_SUPERSEDED":
            return self._stop(error.detail)
        if error.code == "OVERLOADED":  # it passes, as an outage does
            return self.beat_failed(error.detail, error.retry_after_seconds)
        self._is_beating = False
        refused = self._told_once(error.code, Refused(error.code, error.detail))
        if error.code == "LOCKED_OUT":  # it is let in by a beat, so it goes on beating
            return [*refused, BeatAfter(self._interval)]
        self._failures += 1
        return [*refused, BeatAfter(self._backoff())]

    @_silent_once_superseded
    def request_answered(
        self, reply: ClientStateMessage, request_id: str | None = None
    ) -> Sequence[Action]:
        """GetClientState, SetClientState or Goodbye was answered.

        :param request_id: which of them; None from a server of version 1.
        """
        if not self._is_of_this_life(reply):
            return []
        self.initialised = True
        applied = self._apply(reply)
        asked = request_id in (None, self._asking)
        if asked:
            self._asking, self._may_ask = None, True
        report = self._reports.under_way
        if report is None:
            return applied
        if request_id == report.request_id or (
            request_id is None and as_state(reply.client_state) is report.state
        ):  # it was there already, so nothing has changed
            self._reports.settle()
            return [*applied, *self._report_next()]
        if asked and self._reports.is_stale:  # so it says, and yet it knows no other
            return [*applied, *self._give_up("STALE_SEQUENCE", "the server says so")]
        return applied

    @_silent_once_superseded
    def request_refused(
        self, error: ErrorMessage, request_id: str | None = None
    ) -> Sequence[Action]:
        """GetClientState, SetClientState or Goodbye was answered with an error.

        :param request_id: which of them; None from a server of version 1.
        """
        if self._is_anothers(error):
            return []
        if error.code == "INSTANCE_SUPERSEDED":
            return self._stop(error.detail)
        report, is_stale = self._reports.under_way, self._reports.is_stale
        if report and not is_stale and request_id in (None, report.request_id):
            return self._report_refused(error)
        if request_id not in (None, self._asking):
            return []  # it comes late: what was asked is settled
        self._asking = None
        return self._refused_for_good(error) if is_stale else self._refused(error)

    @_silent_once_superseded
    def state_published(self, change: OnStateChange) -> Sequence[Action]:
        """A publication came in. One of another life waits for a beat's reply.

        If that one may be another process's, the server is asked at once: it alone can
        say that this process is superseded. If it tells of this life's death, a beat
        begins the next.
        """
        if change.client_id != self.client_id:
            return []
        if not self._is_of_this_life(change):
            newer = change.incarnation > self.incarnation
            own = change.instance_id == self.instance_id
            return self._ask_once() if newer and not own else []
        self._published = max(self._published, change.sequence)
        missed_some = change.sequence > self.sequence + 1
        applied = self._apply(change)
        if applied and self.state is ClientState.DISCONNECTED:
            return [*applied, *self._beat_now()]
        return [*applied, *(self._ask_once() if missed_some else [])]

    @_silent_once_superseded
    def report(self, state: ClientState) -> Sequence[Action]:
        """The game wants to be in another state; the server decides.

        It waits for what was reported before.
        """
        if not self.sequence:
            return [Refused("UNKNOWN_CLIENT", "not registered yet")]
        self._reports.add(state)
        return self._report_next()

    @_silent_once_superseded
    def ask_again(self) -> Sequence[Action]:
        """An answer has been waited for long enough."""
        if self._reports.under_way is None:
            return []
        return self._find_out() if self._reports.is_stale else self._send_report()

    @_silent_once_superseded
    def zmq_connected(self) -> Sequence[Action]:
        """Both ZeroMQ sockets have shaken hands with the server."""
        return [ZmqBack()] if self._outage.ends() else []

    @_silent_once_superseded
    def zmq_failed(self, detail: str) -> Sequence[Action]:
        """One of them has lost the server, or can't reach it; it tries again.

        That is told when it lasts (:class:`ZmqLost`).
        """
        self._outage.begins(detail)
        return []

    @_silent_once_superseded
    def leave(self) -> Sequence[SendRequest]:
        """The game ends; if the server knows of this life, say Goodbye."""
        self._reports.drop()
        if self._endpoints is None:
            return []
        farewell = Goodbye(
            client_id=self.client_id,
            incarnation=self.incarnation,
            instance_id=self.instance_id,
        )
        return [SendRequest(farewell, self._new_id())]

    def _is_of_this_life(self, news: ClientStateMessage | OnStateChange) -> bool:
        life = (news.client_id, news.incarnation)
        return life == (self.client_id, self.incarnation) and self._is_this_process(
            news
        )

    def _is_this_process(self, news: ClientStateMessage | OnStateChange) -> bool:
        return news.instance_id in (UNSET, self.instance_id)

    def _is_anothers(self, error: ErrorMessage) -> bool:
        return error.client_id not in (UNSET, self.client_id)

    def _told_once(self, trouble: str, event: Event) -> Sequence[Event]:
        """The event, unless the beat before was in the same trouble."""
        known, self._trouble = self._trouble == trouble, trouble
        return [] if known else [event]

    def _stop(self, detail: str) -> Sequence[Action]:
        self.superseded = True
        self._reports.drop()
        return [Superseded(detail)]

    def _new_id(self) -> str:
        self._requests += 1
        return str(self._requests)

    def _ask(self) -> SendRequest:
        self._asking, self._may_ask = self._new_id(), False
        question = GetClientState(
            client_id=self.client_id, instance_id=self.instance_id
        )
        return SendRequest(question, self._asking)

    def _ask_once(self) -> Sequence[Action]:
        """Ask, unless that is under way: no flood of publications makes another one.

        An answer that is lost is waited for until the next beat.
        """
        return [self._ask()] if self._may_ask else []

    def _report_next(self) -> Sequence[Action]:
        begun = self._reports.begin(self.sequence, self._new_id())
        return self._send_report() if begun else []

    def _send_report(self) -> Sequence[Action]:
        report = self._reports.under_way
        assert report is not None
        message = SetClientState(
            client_id=self.client_id,
            client_state=report.state,
            incarnation=self.incarnation,
            instance_id=self.instance_id,
            sequence=report.sequence,
        )
        return [SendRequest(message, report.request_id), AskAgainAfter(ANSWER_PATIENCE)]

    def _find_out(self) -> Sequence[Action]:
        return [self._ask(), AskAgainAfter(ANSWER_PATIENCE)]

    def _report_refused(self, error: ErrorMessage) -> Sequence[Action]:
        if error.code == "OVERLOADED":
            wait = self._no_longer_than_half_the_fuse(error.retry_after_seconds)
            return [AskAgainAfter(max(ANSWER_PATIENCE, wait))]
        if error.code == "STALE_SEQUENCE":
            # Perhaps by itself, and its answer was lost: what it is in now will tell.
            self._reports.is_stale = True
            return self._find_out()
        self._reports.settle()
        if error.code == "ILLEGAL_TRANSITION":
            return [*self._refused(error), *self._report_next()]
        return self._refused_for_good(error)

    def _refused_for_good(self, error: ErrorMessage) -> Sequence[Action]:
        return [*self._refused(error), *self._give_up(error.code, error.detail)]

    def _refused(self, error: ErrorMessage) -> Sequence[Action]:
        refused = Refused(error.code, error.detail)
        is_over = error.code in ("UNKNOWN_CLIENT", "STALE_INCARNATION")
        return [refused, *(self._beat_now() if is_over else [])]

    def _beat_now(self) -> Sequence[Action]:
        """This life is over: a beat tells what is. One that is under way does."""
        return [] if self._is_beating else [BeatAfter(SHORTEST_INTERVAL)]

    def _give_up(self, code: str, why: str) -> Sequence[Refused]:
        return [
            Refused(code, f"{state.value} was not reached: {why}")
            for state in self._reports.drop()
        ]

    def _apply(self, news: ClientStateMessage | OnStateChange) -> Sequence[Action]:
        if news.sequence <= self.sequence:
            return []
        self.sequence = news.sequence
        self.state = as_state(news.client_state)
        changed = StateChanged(self.state, self.incarnation, self.sequence)
        return [changed, *self._settle_report()]

    def _settle_report(self) -> Sequence[Action]:
        """The client has left the state that the one under way was decided on."""
        report = self._reports.under_way
        if report is None:
            return []
        if self.state is report.state:
            self._reports.settle()
        if report.is_taken_by(self.state, self.sequence):
            return self._report_next()
        return self._give_up("STALE_SEQUENCE", "another change came before it")

    def _no_longer_than_half_the_fuse(self, seconds: float | UnsetType) -> float:
        """What a server asks for, within bounds; 0 if it is nothing, or no number."""
        if isinstance(seconds, UnsetType):
            return 0.0
        return max(0.0, min(seconds, self._timebomb / 2))  # in this order: NaN is 0

    def _backoff(self) -> float:
        ceiling = max(min(LONGEST_BACKOFF, self._timebomb / 2), self._interval)
        longest = min(self._interval * 2.0 ** min(self._failures, 16), ceiling)
        return self._interval + self.random() * (longest - self._interval)
