"""Does what a session says, with a clock and two transports that it is handed.

It schedules beats and questions, understands answers, tells the game, and leaves in
order: the last beat, then the Goodbye. Decides nothing itself; knows neither Twisted
nor asyncio, nor any socket (``ports.py``).
"""

from __future__ import annotations

import random
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus

from msgspec import Raw

from heartbeat_service.core.errors import HeartbeatError
from heartbeat_service.core.heartbeat import NO_VALUES
from heartbeat_service.core.states import ClientState
from heartbeat_service.core.tally import is_time_to_tell
from heartbeat_service.game_client.actions import (
    Action,
    AskAgainAfter,
    BeatAfter,
    Event,
    OpenSockets,
    SendHeartbeat,
    SendRequest,
    StateChanged,
    Superseded,
    printable,
)
from heartbeat_service.game_client.ports import Beats, Clock, Log, Timer, Wire
from heartbeat_service.game_client.session import Session
from heartbeat_service.protocol.codec import (
    decode_from_server,
    decode_problem,
    encode,
    encode_json,
    request_id_of,
    topic_of,
)
from heartbeat_service.protocol.messages import (
    ClientID,
    ClientStateMessage,
    ErrorMessage,
    OnStateChange,
    Reply,
    compact_values,
)

#: How long a stopping client waits for its last answers, in seconds.
FAREWELL = 1.0

# No ipc:// or inproc://, which mean this machine; no source address (``;``), no
# wildcard.
_ENDPOINT = re.compile(r"tcp://(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):([0-9]{1,5})")
_LAST_PORT = 65535


def new_session(client_id: str, timebomb: float | None = None) -> Session:
    """The session of a client that has just started.

    :param timebomb: seconds to the timebomb, if the client wants its own.
    :raises ValueError: if ``client_id`` is none.
    """
    return Session(
        client_id=ClientID.parse(client_id),
        instance_id=str(uuid.uuid4()),
        random=random.random,
        own_timebomb=timebomb,
    )


class Runner:
    """Runs one session, from its first beat to its Goodbye.

    :param on_event: hears what the game has to know.
    :param values: returns the telemetry of a beat, a JSON object.
    :ivar session: what is known of the client's life.
    """

    def __init__(
        self,
        session: Session,
        clock: Clock,
        beats: Beats,
        wire: Wire,
        on_event: Callable[[Event], None],
        values: Callable[[], Mapping[str, object]] | None,
        log: Log,
    ) -> None:
        self.session = session
        self._clock = clock
        self._beats = beats
        self._wire = wire
        self._on_event = on_event
        self._values = values
        self._log = log
        self._running = False
        self._sent_at = 0.0
        self._next_beat: Timer | None = None
        self._ask_again: Timer | None = None
        self._is_beating = False
        self._farewell: str | None = None
        self._go_on: Callable[[], None] | None = None
        self._patience: Timer | None = None
        self._hurries = False
        self._unread = 0

    def start(self) -> None:
        """Begin to beat."""
        self._running = True
        self._beat()

    def report(self, state: ClientState) -> None:
        """Ask the server to change this client's state."""
        self.perform(self.session.report(state))

    def leave(self, left: Callable[[], None]) -> None:
        """Say Goodbye, if there is someone to say it to, and close the transports.

        :param left: called when nothing is left.
        """
        self._running = False
        self._cancel_beat()
        self._cancel_question()

        def close() -> None:
            self._farewell = None
            self._wire.close(left)

        def say_goodbye() -> None:
            for farewell in self.session.leave():
                self._farewell = farewell.request_id
                self._request(farewell)
                self._wait(close)
            if self._farewell is None:
                close()

        def cut_beats() -> None:
            self._beats.close(say_goodbye)

        if self._is_beating:
            # A beat that overtakes the Goodbye would register the client anew.
            self._wait(cut_beats)
        else:
            cut_beats()

    def hurry(self) -> None:
        """While it leaves: wait for no answer any more."""
        self._hurries = True
        self._leave_on()

    def _wait(self, go_on: Callable[[], None]) -> None:
        self._go_on = go_on
        patience = 0.0 if self._hurries else FAREWELL
        self._patience = self._clock.callLater(patience, self._waited_enough)

    def _waited_enough(self) -> None:
        self._patience = None
        self._leave_on()

    def _leave_on(self) -> None:
        """What was waited for came, or won't."""
        patience, self._patience = self._patience, None
        if patience is not None:
            patience.cancel()
        go_on, self._go_on = self._go_on, None
        if go_on is not None:
            go_on()

    def perform(self, actions: Sequence[Action]) -> None:
        """Do what the session says, in order."""
        for action in actions:
            match action:
                case SendHeartbeat():
                    self._post(action)
                case BeatAfter():
                    self._schedule_beat(action.seconds)
                case OpenSockets():
                    self._open(action)
                case AskAgainAfter():
                    self._schedule_question(action.seconds)
                case SendRequest():
                    self._request(action)
                case _:
                    self._tell(action)

    def _request(self, request: SendRequest) -> None:
        self._wire.send(encode(request.message, request.request_id))

    def _tell(self, event: Event) -> None:
        if isinstance(event, Superseded):
            self._cancel_beat()
            self._cancel_question()
        if not self._running and not isinstance(event, StateChanged | Superseded):
            return  # it has stopped, and asks for nothing any more
        try:
            self._on_event(event)
        except Exception as error:  # noqa: BLE001 - the game's own fault must not stop its heart
            self._log.failed(f"The game failed on {event}", error)

    def _beat(self) -> None:
        self._next_beat = None
        self.perform(self.session.beat(self._telemetry()))

    def _telemetry(self) -> Raw:
        if self._values is None:
            return NO_VALUES
        try:
            return compact_values(encode_json(self._values()))
        except Exception as error:  # noqa: BLE001 - the game's own fault must not stop its heart
            self._log.failed("The game's values failed", error)
            return NO_VALUES

    def _schedule_beat(self, seconds: float) -> None:
        self._cancel_beat()
        if self._running:
            delay = self._sent_at + seconds - self._clock.seconds()
            self._next_beat = self._clock.callLater(max(0.0, delay), self._beat)

    def _cancel_beat(self) -> None:
        next_beat, self._next_beat = self._next_beat, None
        if next_beat is not None:
            next_beat.cancel()

    def _schedule_question(self, seconds: float) -> None:
        self._cancel_question()
        if self._running:
            self._ask_again = self._clock.callLater(seconds, self._ask)

    def _ask(self) -> None:
        self._ask_again = None
        self.perform(self.session.ask_again())

    def _cancel_question(self) -> None:
        ask_again, self._ask_again = self._ask_again, None
        if ask_again is not None:
            ask_again.cancel()

    def _post(self, beat: SendHeartbeat) -> None:
        self._sent_at = self._clock.seconds()
        self._is_beating = True
        self._beats.post(
            encode(beat.message),
            self.session.patience,
            lambda status, body: self._beat_over(lambda: self._learn(status, body)),
            lambda why: self._beat_over(lambda: self.session.beat_failed(why)),
        )

    def _beat_over(self, learn: Callable[[], Sequence[Action]]) -> None:
        self._is_beating = False
        try:
            self.perform(learn())
        except Exception as error:  # noqa: BLE001 - whatever happens, the heart goes on
            self._log.failed("A beat's answer could not be followed", error)
            if self._next_beat is None:
                self.perform(self.session.beat_failed(str(error)))
        self._leave_on()

    def _learn(self, status: int, body: bytes) -> Sequence[Action]:
        try:
            if status != HTTPStatus.OK:
                return self.session.beat_refused(decode_problem(body))
            match decode_from_server(body):
                case ClientStateMessage() as reply:
                    return self.session.beat_answered(reply)
                case ErrorMessage() as error:
                    return self.session.beat_refused(error)
        except HeartbeatError:
            pass
        return self.session.beat_failed(f"The server answered {status} in no known way")

    def _open(self, endpoints: OpenSockets) -> None:
        request, state_change = (
            endpoints.request_endpoint,
            endpoints.state_change_endpoint,
        )
        try:
            _check_endpoint(request)
            _check_endpoint(state_change)
            topic = topic_of(self.session.client_id)
            self._wire.open(request, state_change, topic, self)
        except (OSError, ValueError) as error:
            # It can still beat, and the server may name better ones tomorrow.
            self._wire.close(lambda: None)
            trouble = f"can't connect to {request} and {state_change}: {error}"
            self.disconnected(trouble)

    def connected(self) -> None:
        """Both ZeroMQ sockets have shaken hands with the server."""
        self.perform(self.session.zmq_connected())

    def disconnected(self, trouble: str) -> None:
        """One of them has lost the server, or can't reach it."""
        self.perform(self.session.zmq_failed(trouble))

    def received(self, message: bytes) -> None:
        """A reply or a publication came in."""
        try:
            news = decode_from_server(message)
        except HeartbeatError as error:
            self._unread += 1
            if is_time_to_tell(self._unread):
                self._log.warn(
                    "messages of the server that made no sense so far: "
                    f"{self._unread}, the last one: {printable(error.detail)}"
                )
            return
        if isinstance(news, OnStateChange):
            self.perform(self.session.state_published(news))
        else:
            self._answered(news, request_id_of(message))

    def _answered(self, reply: Reply, request_id: str | None) -> None:
        if isinstance(reply, ErrorMessage):
            self.perform(self.session.request_refused(reply, request_id))
        else:
            self.perform(self.session.request_answered(reply, request_id))
        over = self.session.state is ClientState.DISCONNECTED
        if request_id is None:  # a server of version 1 doesn't say what it answers
            is_farewell = over or isinstance(reply, ErrorMessage)
        else:
            is_farewell = request_id == self._farewell
        if self._farewell is not None and is_farewell:
            self._leave_on()


def _check_endpoint(address: str) -> None:
    """Pass if it is ``tcp://HOST:PORT``.

    :raises ValueError: if it isn't.
    """
    match = _ENDPOINT.fullmatch(address)
    if match is None or not 0 < int(match[1]) <= _LAST_PORT:
        raise ValueError("expected tcp://HOST:PORT")
