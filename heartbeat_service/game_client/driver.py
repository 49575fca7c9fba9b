"""Does what a session says: HTTP by treq, ZeroMQ by txZMQ.

Decides nothing itself.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from http import HTTPStatus
from typing import Any, ClassVar

import zmq
from msgspec import Raw
from treq.client import HTTPClient
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.ssl import trustRootFromCertificates
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.client import (
    Agent,
    BrowserLikePolicyForHTTPS,
    HTTPConnectionPool,
)
from txzmq import ZmqFactory
from typing_extensions import override

from heartbeat_service.core.errors import HeartbeatError
from heartbeat_service.core.heartbeat import NO_VALUES
from heartbeat_service.core.states import ClientState
from heartbeat_service.game_client.credentials import NO_CREDENTIALS, Credentials
from heartbeat_service.game_client.session import (
    Action,
    BeatAfter,
    Event,
    OpenSockets,
    Refused,
    SendHeartbeat,
    SendRequest,
    ServerLost,
    Session,
    Superseded,
)
from heartbeat_service.protocol.codec import (
    decode_body,
    decode_from_server,
    encode,
    encode_json,
    topic_of,
)
from heartbeat_service.protocol.messages import (
    ClientID,
    ClientStateMessage,
    ErrorMessage,
    HeartbeatMessage,
    OnStateChange,
    compact_values,
)
from heartbeat_service.zeromq.connection import HardenedConnection, make_factory

#: How often the client pings the server over ZeroMQ, and how long an answer may take,
#: in milliseconds; as long as that the server keeps the connection of a client that is
#: gone.
PING_INTERVAL_MILLISECONDS = 5_000
PING_TIMEOUT_MILLISECONDS = 15_000

#: How long a stopping client waits for its last answers, in seconds.
FAREWELL = 1.0

_HEADERS: dict[bytes | str, bytes | str] = {"Content-Type": "application/json"}


class _Requests(HardenedConnection):
    socketType = zmq.DEALER
    options: ClassVar[dict[int, int]] = {
        zmq.HEARTBEAT_IVL: PING_INTERVAL_MILLISECONDS,
        zmq.HEARTBEAT_TIMEOUT: PING_TIMEOUT_MILLISECONDS,
        zmq.HEARTBEAT_TTL: PING_TIMEOUT_MILLISECONDS,
        # A queue that is never full: one that pings must have none other
        # (zeromq/connection.py). What a server says of one client is little.
        zmq.RCVHWM: 0,
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
        :class:`ServerLost` and :class:`Superseded`; after the last it is silent.
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
        self._url = f"{server.rstrip('/')}/heartbeat"
        self._on_event = on_event
        self._values = values
        self._pool = HTTPConnectionPool(reactor)
        authorities = credentials.authorities
        trust = BrowserLikePolicyForHTTPS(
            trustRootFromCertificates(authorities) if authorities else None
        )
        self._http = HTTPClient(Agent(reactor, trust, pool=self._pool))
        self._headers = dict(_HEADERS)
        if credentials.token is not None:
            self._headers["Authorization"] = f"Bearer {credentials.token}"
        self._keys = credentials.keys
        self._sent_at = 0.0
        self._next_beat: IDelayedCall | None = None
        self._in_flight: Deferred[None] | None = None
        self._factory: ZmqFactory | None = None
        self._requests: _Requests | None = None
        self._subscription: _Subscription | None = None
        self._gone: Deferred[None] | None = None

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
        """Ask the server to change this client's state; it answers by an event."""
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
                case SendRequest():
                    if self._requests is not None:
                        self._requests.send_multipart([encode(action.message)])
                case _:
                    self._tell(action)

    def _tell(self, event: Event) -> None:
        if isinstance(event, Superseded):
            self._cancel_beat()
        if not self.running and isinstance(event, ServerLost | Refused):
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
        if self.running:
            delay = self._sent_at + seconds - self._reactor.seconds()
            self._next_beat = self._reactor.callLater(max(0.0, delay), self._beat)

    def _cancel_beat(self) -> None:
        next_beat, self._next_beat = self._next_beat, None
        if next_beat is not None:
            next_beat.cancel()

    def _post(self, message: HeartbeatMessage) -> Deferred[None]:
        return (
            Deferred.fromCoroutine(self._exchange(encode(message)))
            .addTimeout(self.session.patience, self._reactor)
            .addCallbacks(self._understand, self._unanswered)
            .addCallback(self._perform)
            .addErrback(self._stumbled)
        )

    async def _exchange(self, body: bytes) -> tuple[int, bytes]:
        response = await self._http.post(
            self._url, data=body, headers=self._headers, allow_redirects=False
        )
        return response.code, await response.content()

    def _understand(self, answer: tuple[int, bytes]) -> Sequence[Action]:
        status, body = answer
        try:
            if status != HTTPStatus.OK:
                return self.session.beat_refused(decode_body(body, ErrorMessage))
            reply = decode_from_server(body)
            if isinstance(reply, ClientStateMessage):
                return self.session.beat_answered(reply)
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
        for connection in (self._requests, self._subscription):
            if connection is not None:
                connection.shutdown()
        self._requests = self._subscription = None
        topic = topic_of(self.session.client_id)
        try:
            self._requests = _Requests(self._factory, self._received)
            self._subscription = _Subscription(self._factory, self._received)
            if self._keys is not None:
                self._keys.protect(self._requests)
                self._keys.protect(self._subscription)
            self._subscription.socket.set(zmq.SUBSCRIBE, topic)
            self._subscription.connect(endpoints.state_change_endpoint)
            self._requests.connect(endpoints.request_endpoint)
        except zmq.ZMQError as error:
            # It can still beat, and the server may name better ones tomorrow.
            self._log.error(
                "Can't connect to {endpoints}: {error}",
                endpoints=endpoints,
                error=str(error),
            )

    def _received(self, frames: list[bytes]) -> None:
        try:
            message = decode_from_server(frames[-1])
        except HeartbeatError as error:
            self._log.warn("The server sent {detail}", detail=error.detail)
            return
        match message:
            case OnStateChange():
                self._perform(self.session.state_published(message))
            case ClientStateMessage():
                self._perform(self.session.request_answered(message))
            case ErrorMessage():
                self._perform(self.session.request_refused(message))
        # The reply to the Goodbye, not its publication: nothing is left unread.
        gone, over = self._gone, self.session.state is ClientState.DISCONNECTED
        if gone is not None and (
            isinstance(message, ErrorMessage)
            or (over and isinstance(message, ClientStateMessage))
        ):
            self._gone = None
            gone.callback(None)

    async def _leave(self) -> None:
        self._cancel_beat()
        if self._in_flight is not None:
            # A beat that overtakes the Goodbye would register the client anew.
            await self._in_flight.addTimeout(FAREWELL, self._reactor)
        farewell = self.session.leave()
        if farewell:
            gone: Deferred[None] = Deferred()
            self._gone = gone
            self._perform(farewell)
            gone.addTimeout(FAREWELL, self._reactor).addErrback(lambda _: None)
            await gone
            self._gone = None
        if self._factory is not None:
            self._factory.shutdown()
            self._factory = self._requests = self._subscription = None
        await self._pool.closeCachedConnections()
