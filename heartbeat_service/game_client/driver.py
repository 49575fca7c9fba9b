"""Does what a session says: HTTP by ``post.py``, ZeroMQ by txZMQ.

Decides nothing itself.
"""

from __future__ import annotations

import random
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from http import HTTPStatus
from typing import Any, ClassVar

import zmq
from msgspec import Raw
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from txzmq import ZmqFactory
from typing_extensions import override

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
from heartbeat_service.game_client.credentials import NO_CREDENTIALS, Credentials
from heartbeat_service.game_client.link import Link
from heartbeat_service.game_client.post import Post
from heartbeat_service.game_client.session import Session
from heartbeat_service.protocol.codec import (
    MAX_MESSAGE,
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
    HeartbeatMessage,
    OnStateChange,
    Reply,
    compact_values,
)
from heartbeat_service.zeromq.connection import HardenedConnection, make_factory

#: Messages of a server that wait here until they are read; the rest waits at the
#: server. What it says of one client is little; with the longest they are 6 MiB.
MAX_UNREAD = 100

#: Requests that wait here while the server can't be reached; the rest is dropped, since
#: what matters is asked again.
MAX_UNSENT = 10

#: How long a stopping client waits for its last answers, in seconds.
FAREWELL = 1.0

# No ipc:// or inproc://, which mean this machine; no source address (``;``), no
# wildcard.
_ENDPOINT = re.compile(r"tcp://(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):([0-9]{1,5})")
_LAST_PORT = 65535


class _Requests(HardenedConnection):
    socketType = zmq.DEALER
    options: ClassVar[dict[int, int]] = {
        zmq.MAXMSGSIZE: MAX_MESSAGE,
        zmq.RCVHWM: MAX_UNREAD,
        zmq.SNDHWM: MAX_UNSENT,
    }

    def __init__(
        self, factory: ZmqFactory, received: Callable[[list[bytes]], None]
    ) -> None:
        self._received = received
        super().__init__(factory)

    @override
    def messageReceived(self, message: list[bytes]) -> None:
        self._received(message)


class _Subscription(_Requests):
    socketType = zmq.SUB


class GameClient(Service):
    """A game client: beats while it runs, and follows its state.

    :param server: the base URL of the service, ``http://HOST:PORT`` or ``https://…``.
    :param on_event: hears each :class:`StateChanged`, :class:`Refused`,
        :class:`ServerLost`, :class:`ZmqLost`, :class:`ZmqBack` and
        :class:`Superseded`; after the last it is silent.
    :param timebomb: seconds to the timebomb, if the client wants its own.
    :param values: returns the telemetry of a beat, a JSON object.
    :param credentials: what a guarded server wants to see.
    :ivar session: what is known of the client's life.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        server: str,
        client_id: str,
        on_event: Callable[[Event], None],
        timebomb: float | None = None,
        values: Callable[[], Mapping[str, object]] | None = None,
        credentials: Credentials = NO_CREDENTIALS,
    ) -> None:
        self._new_session = partial(
            Session,
            client_id=ClientID.parse(client_id),
            instance_id=str(uuid.uuid4()),
            random=random.random,
            own_timebomb=timebomb,
        )
        self.session = self._new_session()
        self._reactor = reactor
        self._on_event = on_event
        self._values = values
        self._http = Post(reactor, server, credentials)
        self._keys = credentials.keys
        self._sent_at = 0.0
        self._next_beat: IDelayedCall | None = None
        self._ask_again: IDelayedCall | None = None
        self._in_flight: Deferred[None] | None = None
        self._factory: ZmqFactory | None = None
        self._requests: _Requests | None = None
        self._subscription: _Subscription | None = None
        self._links: list[Link] = []
        self._gone: Deferred[None] | None = None
        self._farewell = ""
        self._unread = 0

    @override
    def startService(self) -> None:
        """Begin to beat."""
        super().startService()
        self.session = self._new_session()
        self._factory = make_factory(self._reactor)
        self._beat()

    @override
    def stopService(self) -> Deferred[None]:
        """Say Goodbye, if there is someone to say it to, and close everything."""
        super().stopService()
        return Deferred.fromCoroutine(self._leave())

    def report(self, state: ClientState) -> None:
        """Ask the server to change this client's state.

        Reports are carried out one after the other, and sent again when no answer
        comes. Each ends with an event: :class:`StateChanged`, :class:`Refused` or
        :class:`Superseded`. But for those that a later one has taken back before they
        were sent: who reports CALIBRATED, RUNNING and CALIBRATED is CALIBRATED once.
        """
        self._perform(self.session.report(state))

    def _perform(self, actions: Sequence[Action]) -> None:
        for action in actions:
            match action:
                case SendHeartbeat():
                    self._sent_at = self._reactor.seconds()
                    self._in_flight = self._post(action.message)
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
        if self._requests is not None:
            # The empty frame, as REQ sends it: a proxy needs it.
            content = encode(request.message, request.request_id)
            self._requests.send_multipart([b"", content])

    def _tell(self, event: Event) -> None:
        if isinstance(event, Superseded):
            self._cancel_beat()
            self._cancel_question()
        if not self.running and not isinstance(event, StateChanged | Superseded):
            return  # it has stopped, and asks for nothing any more
        try:
            self._on_event(event)
        except Exception:  # noqa: BLE001 - the game's own fault must not stop its heart
            self._log.failure("The game failed on {event}", event=event)

    def _beat(self) -> None:
        self._next_beat = None
        self._perform(self.session.beat(self._telemetry()))

    def _telemetry(self) -> Raw:
        if self._values is None:
            return NO_VALUES
        try:
            return compact_values(encode_json(self._values()))
        except Exception:  # noqa: BLE001 - the game's own fault must not stop its heart
            self._log.failure("The game's values failed")
            return NO_VALUES

    def _schedule_beat(self, seconds: float) -> None:
        self._cancel_beat()
        if self.running:
            delay = self._sent_at + seconds - self._reactor.seconds()
            self._next_beat = self._reactor.callLater(max(0.0, delay), self._beat)

    def _cancel_beat(self) -> None:
        next_beat, self._next_beat = self._next_beat, None
        if next_beat is not None:
            next_beat.cancel()

    def _schedule_question(self, seconds: float) -> None:
        self._cancel_question()
        if self.running:
            self._ask_again = self._reactor.callLater(seconds, self._ask)

    def _ask(self) -> None:
        self._ask_again = None
        self._perform(self.session.ask_again())

    def _cancel_question(self) -> None:
        ask_again, self._ask_again = self._ask_again, None
        if ask_again is not None:
            ask_again.cancel()

    def _post(self, message: HeartbeatMessage) -> Deferred[None]:
        return (
            self._http.send(encode(message), self.session.patience)
            .addCallbacks(self._understand, self._unanswered)
            .addCallback(self._perform)
            .addErrback(self._stumbled)
        )

    def _understand(self, answer: tuple[int, bytes]) -> Sequence[Action]:
        status, body = answer
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

    def _unanswered(self, failure: Failure) -> Sequence[Action]:
        return self.session.beat_failed(failure.getErrorMessage())

    def _stumbled(self, failure: Failure) -> None:
        self._log.failure("A beat's answer could not be followed", failure)
        if self._next_beat is None:  # whatever happens, the heart goes on
            self._perform(self.session.beat_failed(failure.getErrorMessage()))

    def _open(self, endpoints: OpenSockets) -> None:
        assert self._factory is not None
        self._close_sockets()
        try:
            _check_endpoint(endpoints.request_endpoint)
            _check_endpoint(endpoints.state_change_endpoint)
            self._requests = _Requests(self._factory, self._received)
            self._subscription = _Subscription(self._factory, self._received)
            topic = topic_of(self.session.client_id)
            self._subscription.socket.set(zmq.SUBSCRIBE, topic)
            self._connect(self._subscription, endpoints.state_change_endpoint)
            self._connect(self._requests, endpoints.request_endpoint)
            self._link_changed()
        except (zmq.ZMQError, ValueError) as error:
            # It can still beat, and the server may name better ones tomorrow.
            self._close_sockets()
            trouble = (
                f"can't connect to {endpoints.request_endpoint} and "
                f"{endpoints.state_change_endpoint}: {error}"
            )
            self._perform(self.session.zmq_failed(trouble))

    def _connect(self, connection: _Requests, address: str) -> None:
        if self._keys is not None:
            self._keys.protect(connection)
        has_keys = self._keys is not None
        link = Link(connection, address, has_keys, self._link_changed)
        self._links.append(link)
        connection.connect(address)

    def _close_sockets(self) -> None:
        for connection in (self._requests, self._subscription):
            if connection is not None:
                connection.shutdown()
        self._requests = self._subscription = None
        self._links = []

    def _link_changed(self) -> None:
        troubles = [link.trouble for link in self._links if not link.connected]
        if troubles:
            self._perform(self.session.zmq_failed(troubles[0]))
        else:
            self._perform(self.session.zmq_connected())

    def _received(self, frames: list[bytes]) -> None:
        try:
            message = decode_from_server(frames[-1])
        except HeartbeatError as error:
            self._unread += 1
            if is_time_to_tell(self._unread):
                self._log.warn(
                    "messages of the server that made no sense so far: {count}, "
                    "the last one: {detail}",
                    count=self._unread,
                    detail=printable(error.detail),
                )
            return
        if isinstance(message, OnStateChange):
            self._perform(self.session.state_published(message))
        else:
            self._answered(message, request_id_of(frames[-1]))

    def _answered(self, reply: Reply, request_id: str | None) -> None:
        if isinstance(reply, ErrorMessage):
            self._perform(self.session.request_refused(reply, request_id))
        else:
            self._perform(self.session.request_answered(reply, request_id))
        over = self.session.state is ClientState.DISCONNECTED
        if request_id is None:  # a server of version 1 doesn't say what it answers
            is_farewell = over or isinstance(reply, ErrorMessage)
        else:
            is_farewell = request_id == self._farewell
        if self._gone is not None and is_farewell:
            gone, self._gone = self._gone, None
            gone.callback(None)

    async def _leave(self) -> None:
        self._cancel_beat()
        self._cancel_question()
        if self._in_flight is not None:
            # A beat that overtakes the Goodbye would register the client anew.
            await self._in_flight.addTimeout(FAREWELL, self._reactor)
        for farewell in self.session.leave():
            gone: Deferred[None] = Deferred()
            self._gone, self._farewell = gone, farewell.request_id
            self._request(farewell)
            gone.addTimeout(FAREWELL, self._reactor).addErrback(lambda _: None)
            await gone
            self._gone = None
        if self._factory is not None:
            self._factory.shutdown()
            self._factory = self._requests = self._subscription = None
            self._links = []
        await self._http.close()


def _check_endpoint(address: str) -> None:
    """Pass if it is ``tcp://HOST:PORT``.

    :raises ValueError: if it isn't.
    """
    match = _ENDPOINT.fullmatch(address)
    if match is None or not 0 < int(match[1]) <= _LAST_PORT:
        raise ValueError("expected tcp://HOST:PORT")
