"""How clients of a cluster talk: HTTP on a connection kept alive, and ZeroMQ.

Each asks once and waits so long; then whatever it asked on is given up, and the next
request is on a new one. It knows the messages as far as they must be read, no rule.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import zmq
import zmq.asyncio

#: How long an answer is waited for, in seconds.
PATIENCE = 1.0

#: A line of events says something every 5 s.
QUIET = 8.0

#: What a socket is to find out by itself, in milliseconds: who is gone.
_ZMQ_PING, _ZMQ_GONE = 1_000, 4_000


class UnansweredError(Exception):
    """No answer came; what was asked may have been done."""


class Line:
    """A keep-alive connection to ``HOST:PORT``, with one request at a time."""

    def __init__(self, place: str, token: str = "") -> None:
        self._host, _, self._port = place.rpartition(":")
        self._head = f"Host: {place}\r\n"
        if token:
            self._head += f"Authorization: Bearer {token}\r\n"
        self._ends: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(
        self, method: str, path: str, body: bytes = b"", patience: float = PATIENCE
    ) -> tuple[int, dict[str, Any]]:
        """One request; the answer's status, and what its JSON says."""
        keeps = False
        try:
            async with asyncio.timeout(patience):
                status, headers = await self._send(method, path, "", body)
                content = await self._content(headers)
            keeps = headers.get("connection") != "close"
        except (OSError, EOFError, ValueError) as error:  # TimeoutError is an OSError
            raise UnansweredError(type(error).__name__) from None
        finally:
            if not keeps:
                self.hang_up()
        return status, _object(content)

    async def events(self, path: str, last: str) -> AsyncIterator[dict[str, str]]:
        """A stream of events: the fields of each; of a comment, none."""
        more = f"Last-Event-ID: {last}\r\n" if last else ""
        try:
            async with asyncio.timeout(PATIENCE):
                status, headers = await self._send("GET", path, more, b"")
            if status != 200:
                raise UnansweredError(str(status))
            waiting = b""
            while True:
                async with asyncio.timeout(QUIET):
                    waiting += await self._piece(headers)
                *blocks, waiting = waiting.split(b"\n\n")
                for block in blocks:
                    yield _fields(block.decode())
        except (OSError, EOFError, ValueError) as error:
            raise UnansweredError(type(error).__name__) from None
        finally:
            self.hang_up()

    def hang_up(self) -> None:
        """Give the connection up, with all that is on it."""
        if self._ends is not None:
            self._ends[1].transport.abort()
            self._ends = None

    async def _send(
        self, method: str, path: str, more: str, body: bytes
    ) -> tuple[int, dict[str, str]]:
        if self._ends is None:
            self._ends = await asyncio.open_connection(self._host, int(self._port))
        reader, writer = self._ends
        head = f"{method} {path} HTTP/1.1\r\n{self._head}{more}"
        head += f"Content-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        pairs = (line.split(": ", 1) for line in lines if line)
        return int(first.split(" ")[1]), {name.lower(): text for name, text in pairs}

    async def _content(self, headers: dict[str, str]) -> bytes:
        if headers.get("transfer-encoding") == "chunked":
            content = b""
            while piece := await self._piece(headers):
                content += piece
            return content
        assert self._ends is not None
        return await self._ends[0].readexactly(int(headers.get("content-length", 0)))

    async def _piece(self, headers: dict[str, str]) -> bytes:
        assert self._ends is not None
        reader, _ = self._ends
        if headers.get("transfer-encoding") != "chunked":
            piece = await reader.read(65_536)
            if not piece:
                raise EOFError
            return piece
        size = int(await reader.readuntil(b"\r\n"), 16)
        return (await reader.readexactly(size + 2))[:-2]


class Dealer:
    """A DEALER socket to a node's ROUTER, for all who ask it."""

    def __init__(self, context: zmq.asyncio.Context, address: str) -> None:
        self._context = context
        self._address = address
        self._numbers = itertools.count()
        self._waiting: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._socket: zmq.asyncio.Socket | None = None
        self._reading: asyncio.Task[None] | None = None

    async def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        """One request; the reply."""
        if self._socket is None:
            self._open()
        assert self._socket is not None
        name = f"{next(self._numbers)}"
        reply: asyncio.Future[dict[str, Any]] = asyncio.Future()
        self._waiting[name] = reply
        try:
            async with asyncio.timeout(PATIENCE):
                request = json.dumps({**message, "requestID": name}).encode()
                await self._socket.send_multipart([b"", request])
                return await reply
        except OSError as error:
            self.close()
            raise UnansweredError(type(error).__name__) from None
        finally:
            self._waiting.pop(name, None)

    def close(self) -> None:
        """Give it up, with all that is under way."""
        if self._socket is not None and self._reading is not None:
            self._reading.cancel()
            self._socket.close(linger=0)
        self._socket = self._reading = None
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(UnansweredError("closed"))

    def _open(self) -> None:
        self._socket = self._context.socket(zmq.DEALER)
        _watch(self._socket)
        self._socket.connect(self._address)
        self._reading = asyncio.ensure_future(self._read(self._socket))

    async def _read(self, socket: zmq.asyncio.Socket) -> None:
        while True:
            reply = _object((await socket.recv_multipart())[-1])
            waiting = self._waiting.get(reply.get("requestID", ""))
            if waiting is not None and not waiting.done():
                waiting.set_result(reply)


async def publications(
    context: zmq.asyncio.Context, address: str
) -> AsyncIterator[dict[str, Any]]:
    """The body of each ``OnStateChange`` that a node publishes."""
    with context.socket(zmq.SUB) as socket:
        _watch(socket)
        socket.set(zmq.SUBSCRIBE, b"OnStateChange/")
        socket.connect(address)
        while True:
            _, content = await socket.recv_multipart()
            yield _object(content)["body"]


def _watch(socket: zmq.asyncio.Socket) -> None:
    socket.set(zmq.HEARTBEAT_IVL, _ZMQ_PING)
    socket.set(zmq.HEARTBEAT_TIMEOUT, _ZMQ_GONE)
    socket.set(zmq.CONNECT_TIMEOUT, _ZMQ_GONE)
    socket.set(zmq.RECONNECT_IVL_MAX, 500)
    socket.set(zmq.LINGER, 0)


def _object(content: bytes) -> dict[str, Any]:
    """What JSON says; nothing, if it isn't an object: a proxy may answer anything."""
    with suppress(ValueError):
        said = json.loads(content)
        if isinstance(said, dict):
            return said
    return {}


def _fields(block: str) -> dict[str, str]:
    lines = (line.partition(": ") for line in block.splitlines())
    return {name: text for name, _, text in lines if name}
