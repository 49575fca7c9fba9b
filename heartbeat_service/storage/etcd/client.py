"""Ask etcd by gRPC: one member at a time, and the next one when it doesn't answer.

A request is a call with a deadline; gRPC's thread hands its answer to the reactor's.
What has failed isn't repeated: the next request goes to the next member. Where none of
them answers, failures are held back a little: who tries again at once is no burden.

Nothing of gRPC is made before the first request: it doesn't survive a fork.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar, cast

from attrs import frozen
from twisted.internet.defer import (
    CancelledError,
    Deferred,
    DeferredLock,
    fail,
    succeed,
)
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from typing_extensions import override

from heartbeat_service.storage.etcd import messages
from heartbeat_service.storage.etcd.member import (
    Member,
    NobodyAsked,
    TokenRefused,
    read,
)
from heartbeat_service.storage.etcd.messages import Message
from heartbeat_service.storage.etcd.port import (
    Etcd,
    EtcdAway,
    EtcdError,
    EtcdRefuses,
    Event,
    Outcome,
    Page,
    Transaction,
    UnknownLease,
    Watch,
)
from heartbeat_service.storage.etcd.stream import Stream
from heartbeat_service.storage.etcd.url import EtcdURL

T = TypeVar("T")

#: How long a member may take for an answer, in seconds.
PATIENCE = 2.0

#: How long a failure is held back while no member answers, in seconds.
BACKOFF = 0.2


class EtcdClient(Etcd):
    """Asks etcd.

    :param reactor: a real one, in whose thread is answered.
    :param patience: how long a member may take for an answer, in seconds.
    """

    def __init__(self, reactor: Any, url: EtcdURL, patience: float = PATIENCE) -> None:
        self._reactor = reactor
        self._url = url
        self._patience = patience
        self._members: dict[str, Member] = {}
        self._endpoints = list(url.endpoints)  # the first of them is asked
        self._failures = 0  # in a row
        #: None until it is asked for, empty where none is needed.
        self._token: str | None = "" if url.user is None else None
        self._logging_in = DeferredLock()
        self._waiting: set[Deferred[Any]] = set()
        self._readers: list[Thread] = []
        self._closed = False

    @override
    def scan(
        self, prefix: bytes, after: bytes = b"", revision: int = 0, limit: int = 0
    ) -> Deferred[Page]:
        async def ask() -> Page:
            request = messages.scan_request(prefix, after, revision, limit)
            return messages.page(await self._ask("range", request), revision)

        return self._start(ask())

    @override
    def transact(self, transaction: Transaction) -> Deferred[Outcome]:
        async def ask() -> Outcome:
            request = messages.transaction_request(transaction)
            return messages.outcome(await self._ask("transact", request))

        return self._start(ask())

    @override
    def grant(self, seconds: int) -> Deferred[int]:
        async def ask() -> int:
            granted = await self._ask("grant", messages.grant_request(seconds))
            return int(granted.ID)

        return self._start(ask())

    @override
    def keep_alive(self, lease: int) -> Deferred[int]:
        async def ask() -> int:
            kept = await self._ask("keep alive", messages.keep_alive_request(lease))
            return int(kept.TTL)

        return self._start(ask())

    @override
    def revoke(self, lease: int) -> Deferred[None]:
        async def ask() -> None:
            with suppress(UnknownLease):
                await self._ask("revoke", messages.revoke_request(lease))

        return self._start(ask())

    @override
    def watch(
        self,
        prefix: bytes,
        revision: int,
        hear: Callable[[Sequence[Event]], object],
        lost: Callable[[EtcdError], object],
    ) -> Watch:
        async def watch() -> None:
            await deferLater(self._reactor, 0)  # it isn't lost before who asks has it
            await self._with_token(follow)

        async def follow(member: Member, token: str) -> None:
            stream = Stream(self._reactor, member, prefix, revision, hear)
            self._readers = [each for each in self._readers if each.is_alive()]
            following = stream.follow(token)
            self._readers.append(stream.reader)
            await following

        def end(failure: Failure) -> None:
            if self._closed or failure.check(CancelledError):
                return
            failure.trap(EtcdError)
            lost(cast(EtcdError, failure.value))

        watching = self._start(watch())
        watching.addErrback(end)
        return _Watching(watching)

    @override
    def close(self) -> Deferred[None]:
        self._closed = True
        for waiting in list(self._waiting):
            waiting.cancel()
        if not self._members:
            return succeed(None)
        closed: Deferred[None] = Deferred()
        members, self._members = self._members, {}

        def close() -> None:
            for member in members.values():
                member.close()
            for reader in self._readers:
                reader.join()
            self._reactor.callFromThread(closed.callback, None)

        Thread(target=close, name="etcd closes", daemon=True).start()
        return closed

    def _start(self, asking: Coroutine[Deferred[Any], Any, T]) -> Deferred[T]:
        if self._closed:
            asking.close()
            return fail(EtcdAway("etcd isn't asked any more"))
        asked = Deferred.fromCoroutine(asking)
        self._waiting.add(asked)

        def end(result: T | Failure) -> T | Failure:
            self._waiting.discard(asked)
            if self._closed and isinstance(result, Failure):
                raise EtcdAway("etcd isn't asked any more") from result.value
            return result

        return asked.addBoth(end)

    def _ask(self, name: str, request: Message) -> Awaitable[Message]:
        def call(member: Member, token: str) -> Deferred[Message]:
            return member.ask(name, request, token, self._patience)

        return self._with_token(call)

    async def _with_token(self, call: Callable[[Member, str], Awaitable[T]]) -> T:
        """The result of a call; where its token is refused, with a new one."""
        token = await self._authenticated()
        try:
            return await self._somewhere(lambda member: call(member, token))
        except TokenRefused:
            if self._url.user is None:
                raise
            if self._token == token:  # else others have a new one already
                self._token = None
        token = await self._authenticated()
        return await self._somewhere(lambda member: call(member, token))

    async def _authenticated(self) -> str:
        """A token; empty if none is needed."""
        async with self._logging_in:
            if self._token is None:
                try:
                    self._token = await self._somewhere(self._authenticate)
                except NobodyAsked:
                    self._token = ""
            return self._token

    async def _authenticate(self, member: Member) -> str:
        user, file = self._url.user, self._url.password_file
        if user is None or file is None:
            return ""
        request = messages.authenticate_request(user, _password(file))
        answer = await member.ask("authenticate", request, "", self._patience)
        return str(answer.token)

    async def _somewhere(self, call: Callable[[Member], Awaitable[T]]) -> T:
        """The result of a call at the member whose turn it is."""
        endpoint = self._endpoints[0]
        if endpoint not in self._members:
            self._members[endpoint] = Member(self._reactor, endpoint, self._url)
        try:
            result = await call(self._members[endpoint])
        except EtcdAway:
            if self._endpoints[0] == endpoint:  # else others have left it already
                self._endpoints.append(self._endpoints.pop(0))
                self._failures += 1
            if self._failures >= len(self._endpoints):
                await deferLater(self._reactor, BACKOFF)
            raise
        self._failures = 0
        return result


def _password(file: Path) -> str:
    first, _, _ = read(file).partition(b"\n")
    try:
        return first.rstrip(b"\r").decode()
    except UnicodeDecodeError:
        raise EtcdRefuses(f"{file}: a password is text in UTF-8") from None


@frozen(eq=False)
class _Watching(Watch):
    """What goes on until it is cancelled."""

    going_on: Deferred[None]

    @override
    def stop(self) -> None:
        self.going_on.cancel()
