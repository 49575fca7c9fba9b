"""The game client's transports in asyncio's loop: HTTP by httpx, ZeroMQ by pyzmq.

Of httpx the transport alone: it keeps no cookie, follows no redirect, unpacks nothing
and asks no environment for proxies. Like ``post.py``, it reads no more of an answer
than :data:`LONGEST_ANSWER` and waits no longer than a beat's patience.

Knows nothing of what is said.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import httpx
import zmq
import zmq.asyncio

from heartbeat_service.game_client.credentials import Credentials
from heartbeat_service.game_client.link import EVENTS, OPTIONS, Link, tell
from heartbeat_service.game_client.ports import Listener
from heartbeat_service.game_client.post import LONGEST_ANSWER, AnswerTooLong, base_url
from heartbeat_service.zeromq.keys import ClientKeys
from heartbeat_service.zeromq.socket_options import EVENT, common_options

#: What each part of an answer counts besides its length, in bytes: that of a chunk. So
#: chunks of one byte don't keep the loop for longer than long ones do.
FRAMING = 6


class HttpBeats:
    """The way to one server's ``POST /heartbeat``, over one connection.

    :param server: its base URL.
    :raises ValueError: if it is none.
    """

    def __init__(self, server: str, credentials: Credentials) -> None:
        self._url = httpx.URL(f"{base_url(server)}/heartbeat")
        self._headers = {"Content-Type": "application/json"}
        if credentials.token is not None:
            self._headers["Authorization"] = f"Bearer {credentials.token}"
        is_safe = self._url.scheme == "https"
        self._transport = httpx.AsyncHTTPTransport(
            verify=_trust(credentials) if is_safe else False,
            trust_env=False,
            limits=httpx.Limits(max_connections=1, keepalive_expiry=None),
        )
        self._sending: asyncio.Task[tuple[int, bytes]] | None = None
        self._closing: asyncio.Task[None] | None = None

    def post(
        self,
        body: bytes,
        patience: float,
        answered: Callable[[int, bytes], None],
        failed: Callable[[str], None],
    ) -> None:
        """POST it. Nothing is open any more when it has failed."""

        def done(sending: asyncio.Task[tuple[int, bytes]]) -> None:
            if self._closing is not None:
                if not sending.cancelled():
                    sending.exception()  # else asyncio would complain of it
            elif sending.cancelled():  # by somebody who ends all tasks
                failed("It was cancelled")
            elif error := sending.exception():
                failed(_why(error))
            else:
                answered(*sending.result())

        exchange = self._exchange(body, patience)
        self._sending = asyncio.get_running_loop().create_task(exchange)
        self._sending.add_done_callback(done)

    def close(self, closed: Callable[[], None]) -> None:
        """Cut the connection; then it is of no use any more."""
        closing = self._close(closed)
        self._closing = asyncio.get_running_loop().create_task(closing)

    async def _close(self, closed: Callable[[], None]) -> None:
        try:
            if self._sending is not None:
                self._sending.cancel()
                await asyncio.wait([self._sending])
            await self._transport.aclose()
        finally:
            closed()

    async def _exchange(self, body: bytes, patience: float) -> tuple[int, bytes]:
        request = httpx.Request("POST", self._url, headers=self._headers, content=body)
        async with asyncio.timeout(patience):
            response = await self._transport.handle_async_request(request)
            try:
                return response.status_code, await _content(response)
            finally:
                await response.aclose()


def _trust(credentials: Credentials) -> ssl.SSLContext:
    pem = b"".join(one.dumpPEM() for one in credentials.authorities)
    return ssl.create_default_context(cadata=pem.decode("ascii") or None)


async def _content(response: httpx.Response) -> bytes:
    content, left = bytearray(), LONGEST_ANSWER
    assert isinstance(response.stream, httpx.AsyncByteStream)
    async for part in response.stream:
        content += part
        left -= len(part) + FRAMING
        if left < 0:
            raise AnswerTooLong
    return bytes(content)


def _why(error: BaseException) -> str:
    """What is at the bottom of it, for people."""
    if isinstance(error, TimeoutError):
        return "There was no answer in time"
    while error.__cause__ is not None:  # httpx wraps it, as do those below
        error = error.__cause__
    return str(error) or type(error).__name__


class ZmqWire:
    """The two sockets, in asyncio's loop."""

    def __init__(self, keys: ClientKeys | None) -> None:
        self._keys = keys
        self._context: zmq.asyncio.Context | None = None
        self._requests: zmq.asyncio.Socket | None = None
        self._sockets: list[zmq.asyncio.Socket] = []
        self._links: list[Link] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing: asyncio.Task[None] | None = None

    def open(
        self,
        request_endpoint: str,
        state_change_endpoint: str,
        topic: bytes,
        listener: Listener,
    ) -> None:
        """Connect to these, and to none of before."""
        self._close_sockets()
        self._context = self._context or zmq.asyncio.Context()
        try:
            subscription = self._socket(self._context, zmq.SUB)
            subscription.set(zmq.SUBSCRIBE, topic)
            self._connect(subscription, state_change_endpoint, listener)
            requests = self._socket(self._context, zmq.DEALER)
            self._connect(requests, request_endpoint, listener)
        except zmq.ZMQError as error:
            self._close_sockets()
            raise OSError(str(error)) from None
        self._requests = requests
        tell(listener, self._links)

    def send(self, message: bytes) -> None:
        """Send a request, if there is room for it."""
        if self._requests is not None:
            # The empty frame, as REQ sends it: a proxy needs it.
            sent = self._requests.send_multipart([b"", message], zmq.NOBLOCK)
            assert isinstance(sent, asyncio.Future)  # and it is done
            sent.exception()  # else asyncio would complain of a full queue

    def close(self, closed: Callable[[], None]) -> None:
        """Close them."""
        self._close_sockets()
        # At once: what is opened from now on is none of this close's business.
        context, self._context = self._context, None
        closing = self._close(context, set(self._tasks), closed)
        self._closing = asyncio.get_running_loop().create_task(closing)

    async def _close(
        self,
        context: zmq.asyncio.Context | None,
        reading: set[asyncio.Task[None]],
        closed: Callable[[], None],
    ) -> None:
        try:
            if reading:
                await asyncio.wait(reading)
        finally:
            if context is not None:
                context.term()
            closed()

    def _socket(self, context: zmq.asyncio.Context, kind: int) -> zmq.asyncio.Socket:
        socket = context.socket(kind)
        self._sockets.append(socket)
        for option, value in {**common_options(), **OPTIONS}.items():
            socket.set(option, value)
        if self._keys is not None:
            self._keys.protect(socket)
        return socket

    def _connect(
        self, socket: zmq.asyncio.Socket, address: str, listener: Listener
    ) -> None:
        changed = partial(tell, listener, self._links)
        link = Link(address, self._keys is not None, changed)
        self._links.append(link)
        monitor = socket.get_monitor_socket(EVENTS)
        self._read(monitor, lambda frames: link.heard(*EVENT.unpack(frames[0])))
        self._read(socket, lambda frames: listener.received(frames[-1]))
        socket.set(zmq.IPV6, int("[" in address))
        socket.connect(address)

    def _read(
        self, socket: zmq.asyncio.Socket, heard: Callable[[list[bytes]], None]
    ) -> None:
        reading = asyncio.get_running_loop().create_task(_read(socket, heard))
        self._tasks.add(reading)
        reading.add_done_callback(self._tasks.discard)

    def _close_sockets(self) -> None:
        for task in self._tasks:
            task.cancel()
        for socket in self._sockets:
            monitor = socket.get_monitor_socket(EVENTS)
            # libzmq's thread may wait for room here, with a lock that is needed next.
            raw: zmq.Socket[bytes] = zmq.Socket.shadow(monitor.underlying)
            with suppress(zmq.Again):
                while True:
                    raw.recv(zmq.NOBLOCK)
            socket.disable_monitor()
            monitor.close(linger=0)
            # What a stopping client has to say was waited for already.
            socket.close(linger=0)
        self._requests = None
        self._sockets = []
        self._links = []


async def _read(
    socket: zmq.asyncio.Socket, heard: Callable[[list[bytes]], None]
) -> None:
    loop = asyncio.get_running_loop()
    while True:
        frames = await socket.recv_multipart()
        try:
            heard(frames)
        except Exception as error:  # noqa: BLE001 - else nothing would be read any more
            message = "A ZeroMQ handler failed"
            loop.call_exception_handler({"message": message, "exception": error})
        await asyncio.sleep(0)  # a flood must not starve the loop
