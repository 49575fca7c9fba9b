"""Sockets and signals around an engine: ``makeService``.

Binds the addresses that the options name, hands the engine its store, and lets SIGHUP
and the supervisor have their word. Holds no rule of the contract.
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import zmq
from attrs import evolve
from twisted.application.service import IService, Service
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred, succeed
from twisted.internet.endpoints import serverFromString
from twisted.logger import Logger
from twisted.python.failure import Failure
from txzmq import ZmqFactory
from typing_extensions import override

from heartbeat_service.engine.engine import Engine, NotRestored
from heartbeat_service.host.descriptors import allow_most, allowed
from heartbeat_service.host.ending import fail_at_exit, stop_once
from heartbeat_service.host.hangup import on_hangup
from heartbeat_service.host.interpreter import shorten_pauses
from heartbeat_service.host.monotonic import use_monotonic_time
from heartbeat_service.host.starting import outlive_hangup
from heartbeat_service.host.supervision import Supervisor
from heartbeat_service.notify.delivery import (
    Notifier,
    Outbox,
    UnusableURL,
    in_thread,
    open_url,
    scheme_of,
)
from heartbeat_service.notify.gathering import Gathering
from heartbeat_service.options import Options as Options  # noqa: PLC0414 - for twistd
from heartbeat_service.protocol.messages import are_client_ids
from heartbeat_service.settings import Settings
from heartbeat_service.storage.etcd.store import EtcdStore
from heartbeat_service.storage.etcd.url import SCHEME, EtcdURL, parse
from heartbeat_service.storage.memory import MemoryStore
from heartbeat_service.storage.nodes import Node, Standing
from heartbeat_service.storage.sqlite import SqliteStore
from heartbeat_service.storage.store import Store
from heartbeat_service.web.access import (
    OPEN_CONTROL,
    Door,
    Grant,
    TokenFile,
    TokenFileError,
    client_pass,
    is_local,
    operator_pass,
)
from heartbeat_service.web.app import HeartbeatApp
from heartbeat_service.web.elsewhere import BeatsElsewhere
from heartbeat_service.web.events import MOST_STREAMS, EventStreams
from heartbeat_service.web.metrics import Metrics
from heartbeat_service.web.names import Names, machine_names
from heartbeat_service.web.peers import Peers
from heartbeat_service.web.port import (
    ForwardSecret,
    PatientPort,
    is_wrapped,
    with_backlog,
)
from heartbeat_service.web.site import HeartbeatSite
from heartbeat_service.zeromq.connection import HardenedConnection, make_factory
from heartbeat_service.zeromq.curve import KeyCheck
from heartbeat_service.zeromq.handshakes import FailedHandshakes
from heartbeat_service.zeromq.keys import BadKeys
from heartbeat_service.zeromq.peer_limit import PeerLimit
from heartbeat_service.zeromq.publisher import StatePublisher
from heartbeat_service.zeromq.router import RequestRouter

_log = Logger()
CANNOT_START = "The heartbeat service can't start"

#: How long a node's name can be, in characters.
LONGEST_NAME = 64

_BOUND_TCP = re.compile(r"tcp://(?P<host>.+):(?P<port>\d+)")


def makeService(options: Options) -> IService:
    """What twistd and ``tac/heartbeat.tac`` run."""
    outlive_hangup()  # first: everything else takes its time
    from twisted.internet import reactor

    stop_once(reactor)
    use_monotonic_time(reactor)
    allow_most()
    service = HeartbeatService(reactor, options.settings)
    fail_at_exit(lambda: service.failed)
    return service


class CannotStart(SystemExit, Exception):
    """Something that the service needs isn't to be had; the text names the option.

    Ends the program with that sentence. An Exception as well, since that is what
    twistd catches to tidy up when it daemonises.
    """


class HeartbeatService(Service):
    """The whole service; may be started again after it was stopped.

    :param reactor: its sockets and its clock.
    :ivar started: fires once it serves, which needs its store to be open.
    :ivar failed: whether it has stopped the reactor, as it couldn't be started.
    :ivar http: what HTTP listens on, each ``HOST:PORT``, while it runs.
    :ivar router: the address of the ROUTER socket, while it runs.
    :ivar pub: the address of the PUB socket, while it runs.
    :ivar key_check: says which keys may connect by ZeroMQ; None if anyone may.
    """

    name = "heartbeat"

    def __init__(self, reactor: Any, settings: Settings) -> None:
        self._reactor = reactor
        self._settings = settings
        self._closers: list[Callable[[], object]] = []
        self._reloads: list[Callable[[], object]] = []
        self.started: Deferred[None] = succeed(None)
        self.failed = False
        self.http: list[str] = []
        self.router = ""
        self.pub = ""
        self.key_check: KeyCheck | None = None

    @override
    def startService(self) -> None:
        """Open everything, or end the program with a sentence."""
        super().startService()
        failures: list[Failure] = []
        self.started = Deferred.fromCoroutine(self._start())
        self.started.addErrback(failures.append)
        if failures:
            Deferred.fromCoroutine(self._close())
            failures[0].raiseException()
        self.started.addCallback(lambda _: self._give_up(failures))

    @override
    def stopService(self) -> Deferred[None]:
        """Close everything, in reverse; what is published gets out."""
        super().stopService()
        self.started.cancel()
        return Deferred.fromCoroutine(self._close())

    async def _start(self) -> None:
        settings = self._settings
        # The first to come and the last to go: without it SIGHUP ends the process.
        self._closers.append(on_hangup(self._reactor, self._reloads))

        factory = make_factory(self._reactor)
        self._closers.append(factory.shutdown)
        self.key_check = _key_check(factory, settings.curve_keys)
        if self.key_check is not None:
            self._reloads.append(self.key_check.reload)
        # HTTP has half of the descriptors. The fourth quarter is for the store and the
        # rest, and for peers that are about to be turned away.
        handshakes = FailedHandshakes(with_keys=self.key_check is not None)
        limit = PeerLimit(self._reactor, allowed() // 4, handshakes)
        self._closers.append(limit.stop)
        publisher = StatePublisher(factory)
        limit.watch(publisher)
        self.pub = self._bind("pub", publisher, settings.pub)

        def deaths_of(client_id: str) -> int:
            return engine.deaths.deaths_in_ten_minutes(client_id)

        notifier = self._notifier(deaths_of)
        self._closers.append(notifier.close)
        standing = Standing(self._reactor)
        store = _make_store(settings, self._reactor, standing)
        engine = Engine(
            self._reactor,
            store,
            [publisher.publish],
            watchers=[notifier.hear],
            timebomb=settings.timebomb,
            interval=settings.interval,
            max_clients=settings.max_clients,
            max_registrations=settings.max_registrations,
            max_timebomb=settings.max_timebomb,
            mass_loss_share=settings.mass_loss,
            mass_loss_hold=settings.mass_loss_hold,
            worked=time.thread_time,
            nodes=store if isinstance(store, EtcdStore) else None,
            standing=standing,
        )
        supervisor = Supervisor(self._reactor, os.environ, engine.wants_restart)
        self._closers.append(engine.close)
        # Before anything listens: nobody is told that he is unknown who isn't.
        await self._restored(engine.open())

        router = RequestRouter(
            factory,
            engine.dispatcher.dispatch,
            engine.dispatcher.refusals.add,
            # Their key stands for the token; without one, they can't show it here.
            heartbeats_allowed=bool(settings.curve_keys)
            or not settings.client_token_file,
            speaks_for=None if self.key_check is None else self.key_check.speaks_for,
        )
        limit.watch(router)
        self.router = self._bind("router", router, settings.router)
        self._closers.append(router.shutdown)
        if self.key_check is None and _is_beyond_loopback(self.router):
            _log.warn(
                "whoever reaches {router} can speak for any client: "
                "--curve-keys lets in known keys only",
                router=self.router,
            )
        engine.dispatcher.request_endpoint = advertised(self.router, settings.advertise)
        engine.dispatcher.state_change_endpoint = advertised(
            self.pub, settings.advertise
        )

        ports = await self._serve_http(engine, router, publisher, limit)
        engine.clock.unread = lambda: (
            router.has_unread()
            or limit.has_unread()
            or any(port.has_unread() for port in ports)
        )
        engine.nodes.introduce(self._node(engine))
        await self._reactor_running()
        _log.info(
            "heartbeat service ready http={http} router={router} pub={pub}",
            http=",".join(self.http),
            router=self.router,
            pub=self.pub,
        )

        await self._restored(engine.keep_opening())
        shorten_pauses()
        supervisor.ready()
        self._closers.append(supervisor.stopping)

    def _node(self, engine: Engine) -> Node:
        """What operators and other nodes are told of this one."""
        settings = self._settings
        # Neither a UNIX socket nor one behind a proxy is of use to other machines.
        reachable = [
            (bound, description)
            for bound, description in zip(self.http, settings.http, strict=True)
            if not bound.startswith("unix:") and not is_wrapped(description)
        ]
        bound, description = (*reachable, (self.http[0], ""))[0]
        http = advertised(f"tcp://{bound}", settings.advertise).removeprefix("tcp://")
        scheme = "https" if description.startswith("ssl:") else "http"
        return evolve(
            engine.nodes.own,
            name=node_name(settings),
            http=http,
            url=f"{scheme}://{http}" if reachable else "",
            request_endpoint=engine.dispatcher.request_endpoint,
            state_change_endpoint=engine.dispatcher.state_change_endpoint,
        )

    async def _restored(self, opening: Awaitable[object]) -> None:
        try:
            await opening
        except NotRestored as error:
            store = self._settings.store
            raise CannotStart(f"{CANNOT_START}: --store {store}: {error}") from None

    def _reactor_running(self) -> Deferred[None]:
        """Fires once a signal would stop the service rather than kill it."""
        running: Deferred[None] = Deferred()
        self._reactor.callWhenRunning(running.callback, None)
        return running

    async def _serve_http(
        self,
        engine: Engine,
        router: RequestRouter,
        publisher: StatePublisher,
        limit: PeerLimit,
    ) -> list[PatientPort]:
        settings = self._settings
        clients = self._door(
            "client-token-file", settings.client_token_file, client_pass
        )
        operators = self._door(
            "operator-token-file", settings.operator_token_file, operator_pass
        )
        names = Names(_hosts(settings), settings.allow_origin)
        # The other half is for ZeroMQ's peers, the store and the rest (see _start).
        connections = allowed() // 2
        streams = EventStreams(
            engine.events, self._reactor, min(MOST_STREAMS, connections // 4)
        )
        peers = Peers(
            self._reactor, engine.nodes, engine.standing, operators.authorization
        )
        elsewhere = BeatsElsewhere(
            self._reactor,
            peers,
            engine.registry,
            engine.events.hear,
            lambda: streams.readers()["operator"] > 0,
        )
        for each in (peers, elsewhere):
            each.start()
            self._closers.append(each.stop)
        app = HeartbeatApp(
            engine.dispatcher,
            engine.orders,
            engine.trouble,
            clients,
            operators,
            names,
            streams,
            peers,
        )
        resource = app.resource()
        site = HeartbeatSite(
            resource,
            self._reactor,
            connections,
            engine.clock,
            app.gate,
            engine.dispatcher.refusals.add,
            resource.at_once,
        )
        routes = {name: route.targets[0] for name, route in app.routes.items()}
        metrics = Metrics(engine, router, publisher, limit, site, streams, routes)
        app.read_metrics = metrics.text
        site.route_of = app.route_of
        self._closers.append(site.disconnect_all)
        self._closers.append(streams.stop)
        self._closers.append(engine.journal.flush)
        guarded = settings.operator_token_file or settings.allow_open_control
        if not guarded:  # until it is known who can reach it
            operators.shut = OPEN_CONTROL
        ports = [await self._listen(site, one) for one in settings.http]
        if all(
            is_local(port.address) and not is_wrapped(description)
            for description, port in zip(settings.http, ports, strict=True)
        ):
            operators.shut = None
        elif not guarded:
            _log.warn("operators are locked out: {reason}", reason=OPEN_CONTROL)
        elif not settings.operator_token_file:
            _log.warn("whoever reaches {http} may steer", http=",".join(self.http))
        return ports

    def _notifier(self, deaths_of: Callable[[str], int]) -> Notifier:
        outboxes = []
        for number, url in enumerate(self._settings.notify, start=1):
            try:
                send = open_url(url)
            except UnusableURL as error:
                raise CannotStart(
                    f"{CANNOT_START}: --notify, number {number}: {error}"
                ) from None
            name = f"{scheme_of(url)} (--notify, number {number})"
            deliver = partial(in_thread, self._reactor, send)
            outboxes.append(Outbox(self._reactor, name, deliver))
        gathering = Gathering(deaths_of, time.time)
        return Notifier(self._reactor, gathering, outboxes, self._settings.notify_pause)

    def _bind(self, option: str, connection: HardenedConnection, address: str) -> str:
        if self.key_check is not None:
            self.key_check.protect(connection)
        try:
            return connection.bind(address)
        except zmq.ZMQError as error:
            raise CannotStart(
                f"{CANNOT_START}: --{option} {address}: {error}"
            ) from None

    def _door(self, option: str, path: str | None, grant: Grant) -> Door:
        if path is None:
            return Door()
        try:
            tokens = TokenFile(path, grant)
        except TokenFileError as error:
            raise CannotStart(f"{CANNOT_START}: --{option} {error}") from None
        self._reloads.append(tokens.reload)
        return Door(tokens)

    async def _listen(self, site: HeartbeatSite, description: str) -> PatientPort:
        try:
            endpoint = serverFromString(
                ForwardSecret(self._reactor), with_backlog(description)
            )
            port = PatientPort(self._reactor, await endpoint.listen(site), site)
            self._closers.append(port.stop)
            self.http.append(_host_port(port.address))
        except Exception as error:  # noqa: BLE001 - each endpoint fails in its own way
            raise CannotStart(
                f"{CANNOT_START}: --http {description}: {error}"
            ) from None
        return port

    async def _close(self) -> None:
        self.http = []
        self._reloads.clear()
        closers, self._closers = self._closers, []
        while closers:
            await maybeDeferred(closers.pop()).addErrback(
                lambda failure: _log.failure("Something did not close", failure)
            )

    def _give_up(self, failures: list[Failure]) -> None:
        """End the program, if it failed to start after startService returned."""
        for failure in failures:
            if failure.check(CancelledError):
                continue
            if failure.check(CannotStart):
                _log.critical("{error}", error=failure.getErrorMessage())
            else:
                _log.failure(CANNOT_START, failure)
            self.failed = True
            self._reactor.stop()


def _make_store(settings: Settings, reactor: Any, standing: Standing) -> Store:
    url = settings.store
    if url == "memory:":
        return MemoryStore(time.time)
    if url.startswith(SCHEME):
        return _make_etcd_store(parse(url), settings, reactor, standing)
    path = Path(url.removeprefix("sqlite:"))
    try:
        possible = path.parent.is_dir() and not path.is_dir()
        path = path.absolute()
    except OSError as error:  # a folder that may not be entered, a name too long
        raise CannotStart(f"{CANNOT_START}: --store {url}: {error.strerror}") from None
    if not possible:
        raise CannotStart(f"{CANNOT_START}: --store {url}: not a file in a folder")
    return SqliteStore(reactor, path, time.time, settings.max_clients)


def node_name(settings: Settings) -> str:
    """How people know this node."""
    if settings.node is not None:
        return settings.node
    name = re.sub(r"[^A-Za-z0-9._:@-]", "-", socket.gethostname())[:LONGEST_NAME]
    return name if are_client_ids([name]) else "node"


def _make_etcd_store(
    url: EtcdURL, settings: Settings, reactor: Any, standing: Standing
) -> Store:
    try:
        from heartbeat_service.storage.etcd.client import EtcdClient
    except ImportError as error:
        raise CannotStart(
            f"{CANNOT_START}: --store etcd://… needs what is installed by "
            f"`pip install 'heartbeat-service[cluster]'`: {error}"
        ) from None
    return EtcdStore(
        reactor,
        partial(EtcdClient, reactor, url),
        url.prefix,
        node_name(settings),
        time.time,
        standing,
    )


def advertised(bound: str, host: str | None) -> str:
    """The address that replies carry for one that a socket is bound to.

    :param host: the name to put into it; without one, the one bound to, or this
        machine's name if that is all interfaces.
    """
    match = _BOUND_TCP.fullmatch(bound)
    if match is None:  # ipc: there is no host in it
        return bound
    if host is None:
        wildcard = match["host"] in ("0.0.0.0", "[::]")  # noqa: S104 - compared only
        host = socket.gethostname() if wildcard else match["host"]
    return f"tcp://{host}:{match['port']}"


def _hosts(settings: Settings) -> set[str]:
    given = {settings.advertise} if settings.advertise else set()
    return {*settings.host, *given, *machine_names(socket.gethostname())}


def _is_beyond_loopback(bound: str) -> bool:
    match = _BOUND_TCP.fullmatch(bound)
    if match is None:
        return False
    return not is_local(IPv4Address("TCP", match["host"].strip("[]"), 0))


def _key_check(factory: ZmqFactory, folder: str | None) -> KeyCheck | None:
    try:
        return None if folder is None else KeyCheck(factory, Path(folder))
    except BadKeys as error:
        raise CannotStart(f"{CANNOT_START}: --curve-keys: {error}") from None


def _host_port(address: Any) -> str:
    if isinstance(address, UNIXAddress):
        return f"unix:{os.fsdecode(address.name or b'')}"
    host = f"[{address.host}]" if ":" in address.host else address.host
    return f"{host}:{address.port}"
