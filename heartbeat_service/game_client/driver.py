"""A game client in Twisted's reactor: HTTP by ``post.py``, ZeroMQ by txZMQ.

Decides nothing itself: ``runner.py`` does what the session says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar

import zmq
from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure
from txzmq import ZmqFactory
from typing_extensions import override

from heartbeat_service.core.states import ClientState
from heartbeat_service.game_client.actions import Event
from heartbeat_service.game_client.credentials import NO_CREDENTIALS, Credentials
from heartbeat_service.game_client.link import EVENTS, OPTIONS, Link, tell
from heartbeat_service.game_client.ports import Beats, Listener, Wire
from heartbeat_service.game_client.post import Post
from heartbeat_service.game_client.runner import Runner, new_session
from heartbeat_service.game_client.session import Session
from heartbeat_service.zeromq.connection import HardenedConnection, make_factory
from heartbeat_service.zeromq.keys import ClientKeys
from heartbeat_service.zeromq.monitor import Monitor


class GameClient(Service):
    """A game client: beats while it runs, and follows its state.

    :param server: the base URL of the service, ``http://HOST:PORT`` or ``https://…``.
    :param on_event: hears each :class:`StateChanged`, :class:`Refused`,
        :class:`ServerLost`, :class:`ZmqLost`, :class:`ZmqBack` and
        :class:`Superseded`; after the last it is silent.
    :param timebomb: seconds to the timebomb, if the client wants its own.
    :param values: returns the telemetry of a beat, a JSON object.
    :param credentials: what a guarded server wants to see.
    :param beats: another way to ``POST /heartbeat``, which takes care of credentials.
    :param wire: the same for ZeroMQ. Both have to work again after their ``close``, if
        the service is to be started again.
    """

    def __init__(
        self,
        reactor: Any,
        server: str,
        client_id: str,
        on_event: Callable[[Event], None],
        timebomb: float | None = None,
        values: Callable[[], Mapping[str, object]] | None = None,
        credentials: Credentials = NO_CREDENTIALS,
        beats: Beats | None = None,
        wire: Wire | None = None,
    ) -> None:
        self._new_session = partial(new_session, client_id, timebomb)
        self._new_runner = partial(
            Runner,
            clock=reactor,
            beats=Post(reactor, server, credentials) if beats is None else beats,
            wire=_ZmqWire(reactor, credentials.keys) if wire is None else wire,
            on_event=on_event,
            values=values,
            log=_Log(),
        )
        self._runner = self._new_runner(self._new_session())

    @property
    def session(self) -> Session:
        """What is known of the client's life."""
        return self._runner.session

    @override
    def startService(self) -> None:
        """Begin to beat."""
        super().startService()
        self._runner = self._new_runner(self._new_session())
        self._runner.start()

    @override
    def stopService(self) -> Deferred[None]:
        """Say Goodbye, if there is someone to say it to, and close everything."""
        if not self.running:
            return succeed(None)
        super().stopService()
        left: Deferred[None] = Deferred()
        self._runner.leave(lambda: left.callback(None))
        return left

    def report(self, state: ClientState) -> None:
        """Ask the server to change this client's state.

        Reports are carried out one after the other, and sent again when no answer
        comes. Each ends with an event: :class:`StateChanged`, :class:`Refused` or
        :class:`Superseded`. But for those that a later one has taken back before they
        were sent: who reports CALIBRATED, RUNNING and CALIBRATED is CALIBRATED once.
        """
        self._runner.report(state)


class _Log:
    """Twisted's."""

    _log = Logger(namespace="heartbeat_service.game_client")

    def warn(self, text: str) -> None:
        """Something is odd."""
        self._log.warn("{text}", text=text)

    def failed(self, text: str, error: Exception) -> None:
        """Something has failed that should not."""
        self._log.failure("{text}", Failure(error), text=text)


class _Requests(HardenedConnection):
    socketType = zmq.DEALER
    options: ClassVar[dict[int, int]] = OPTIONS

    def __init__(self, factory: ZmqFactory, received: Callable[[bytes], None]) -> None:
        self._received = received
        super().__init__(factory)

    @override
    def messageReceived(self, message: list[bytes]) -> None:
        self._received(message[-1])


class _Subscription(_Requests):
    socketType = zmq.SUB


class _ZmqWire:
    """The two sockets, in Twisted's reactor."""

    def __init__(self, reactor: Any, keys: ClientKeys | None) -> None:
        self._reactor = reactor
        self._keys = keys
        self._factory: ZmqFactory | None = None
        self._requests: _Requests | None = None
        self._subscription: _Subscription | None = None
        self._links: list[Link] = []

    def open(
        self,
        request_endpoint: str,
        state_change_endpoint: str,
        topic: bytes,
        listener: Listener,
    ) -> None:
        """Connect to these, and to none of before."""
        self._close_sockets()
        factory = self._factory = self._factory or make_factory(self._reactor)
        try:
            self._requests = _Requests(factory, listener.received)
            self._subscription = _Subscription(factory, listener.received)
            self._subscription.socket.set(zmq.SUBSCRIBE, topic)
            changed = partial(tell, listener, self._links)
            self._connect(self._subscription, state_change_endpoint, changed)
            self._connect(self._requests, request_endpoint, changed)
        except zmq.ZMQError as error:
            self._close_sockets()
            raise OSError(str(error)) from None
        changed()

    def send(self, message: bytes) -> None:
        """Send a request, if there is room for it."""
        if self._requests is not None:
            # The empty frame, as REQ sends it: a proxy needs it.
            self._requests.send_multipart([b"", message])

    def close(self, closed: Callable[[], None]) -> None:
        """Close them."""
        self._close_sockets()
        factory, self._factory = self._factory, None
        if factory is not None:
            factory.shutdown()
        closed()

    def _connect(
        self, connection: _Requests, address: str, changed: Callable[[], None]
    ) -> None:
        if self._keys is not None:
            self._keys.protect(connection.socket)
        link = Link(address, self._keys is not None, changed)
        Monitor(connection, EVENTS, link.heard)
        self._links.append(link)
        connection.connect(address)

    def _close_sockets(self) -> None:
        for connection in (self._requests, self._subscription):
            if connection is not None:
                connection.shutdown()
        self._requests = self._subscription = None
        self._links = []
