"""The game client in asyncio's loop, at a server that answers as it is told."""

from __future__ import annotations

import asyncio
import gc
import json
import subprocess
import sys
import warnings
from collections.abc import Callable, Coroutine
from typing import Any, Self

import zmq
import zmq.asyncio
from twisted.trial.unittest import SynchronousTestCase

from heartbeat_service.core.states import ClientState
from heartbeat_service.game_client import runner
from heartbeat_service.game_client.actions import Event, ServerLost, StateChanged
from heartbeat_service.game_client.asyncio_driver import GameClient
from heartbeat_service.protocol.codec import MAX_MESSAGE
from tests.messages import envelope
from tests.unit.game_client.test_runner import STATE

#: How long anything may take on a slow machine, in seconds.
PATIENCE = 20


class Service:
    """Answers beats, and requests by ZeroMQ; each with all that it is told.

    :ivar asked: the types of all messages that came in.
    :ivar heads: of all beats, as HTTP has them.
    :ivar open: how many connections are open.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.heads: list[str] = []
        self.open = self.most = 0
        self.answer: Callable[[bytes], bytes] = ok
        self.is_silent = False

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self._context = zmq.asyncio.Context()
        self._router = self._context.socket(zmq.ROUTER)
        self._pub = self._context.socket(zmq.PUB)
        self._ends = {
            "requestEndpoint": bind(self._router),
            "stateChangeEndpoint": bind(self._pub),
        }
        self._replies = asyncio.create_task(self._reply())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._replies.cancel()
        await asyncio.wait([self._replies])
        self._server.close()
        await self._server.wait_closed()
        self._context.destroy(linger=0)

    def state(self, **fields: Any) -> bytes:
        """The state of client 1."""
        body = {**STATE, "heartbeatIntervalSeconds": 0.05, **self._ends}
        return envelope(messageType="ClientState", body=body, **fields)

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                self.heads.append(head.decode())
                length = int(head.lower().split(b"content-length: ")[1].split()[0])
                beat = json.loads(await reader.readexactly(length))
                self.asked.append(beat["messageType"])
                writer.write(self.answer(self.state()))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.open -= 1
            writer.close()

    async def _reply(self) -> None:
        while True:
            *way, data = await self._router.recv_multipart()
            request = json.loads(data)
            self.asked.append(request["messageType"])
            if not self.is_silent:
                reply = self.state(requestID=request["requestID"])
                await self._router.send_multipart([*way, reply])


def bind(socket: Any) -> str:
    socket.bind("tcp://127.0.0.1:0")
    return str(socket.get(zmq.LAST_ENDPOINT).rstrip(b"\0").decode())


def ok(body: bytes, status: str = "200 OK") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def until(holds: Callable[[], bool]) -> None:
    while not holds():
        await asyncio.sleep(0.005)


class TestImports(SynchronousTestCase):
    def test_in_asyncio_no_reactor_is_installed(self) -> None:
        code = (
            "import sys, heartbeat_service.game_client.asyncio_driver as driver; "
            "sys.exit('twisted.internet.reactor' in sys.modules)"
        )
        ended = subprocess.run([sys.executable, "-c", code], check=False)
        self.assertEqual(ended.returncode, 0)


class TestInAsyncio(SynchronousTestCase):
    def setUp(self) -> None:
        self.events: list[Event] = []

    def run_in_a_loop(
        self, scene: Callable[[Service], Coroutine[Any, Any, None]]
    ) -> None:
        """Play it; afterwards no task, no socket and no complaint may be left."""
        complaints: list[Any] = []

        async def play() -> None:
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda _, told: complaints.append(told))
            async with asyncio.timeout(PATIENCE), Service() as service:
                before = asyncio.all_tasks()
                await scene(service)
                await until(lambda: service.open == 0)
                await asyncio.sleep(0)
                self.assertEqual(asyncio.all_tasks() - before, set())

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ResourceWarning)
            asyncio.run(play())
            gc.collect()
        leaks = [one for one in caught if one.category is ResourceWarning]
        self.assertEqual((leaks, complaints), ([], []))

    def client(self, service: Service) -> GameClient:
        return GameClient(service.url, "1", self.events.append)

    def states(self) -> list[Event]:
        return [one for one in self.events if isinstance(one, StateChanged)]

    def test_it_lives_and_says_goodbye_over_one_connection(self) -> None:
        async def scene(service: Service) -> None:
            async with self.client(service) as game:
                await until(lambda: service.asked.count("HEARTBEAT") > 3)
                self.assertIs(game.session.state, ClientState.UNCALIBRATED)
                game.report(ClientState.CALIBRATED)
                await until(lambda: "SetClientState" in service.asked)
            self.assertEqual(service.asked[-1], "Goodbye")
            self.assertEqual(service.most, 1)

        self.run_in_a_loop(scene)
        self.assertEqual(self.states(), [StateChanged(ClientState.UNCALIBRATED, 1, 1)])

    def test_cancelled_it_says_goodbye_too(self) -> None:
        async def scene(service: Service) -> None:
            async def play() -> None:
                async with self.client(service):
                    await asyncio.sleep(PATIENCE)

            playing = asyncio.create_task(play())
            await until(lambda: bool(self.states()))
            playing.cancel()
            await asyncio.wait([playing])
            self.assertTrue(playing.cancelled())
            self.assertEqual(service.asked[-1], "Goodbye")

        self.run_in_a_loop(scene)

    def test_cancelled_while_it_leaves_it_waits_no_longer(self) -> None:
        self.patch(runner, "FAREWELL", 2 * PATIENCE)

        async def scene(service: Service) -> None:
            async def play() -> None:
                async with self.client(service):
                    await asyncio.sleep(PATIENCE)

            playing = asyncio.create_task(play())
            await until(lambda: bool(self.states()))
            service.is_silent = True
            playing.cancel()
            await until(lambda: "Goodbye" in service.asked)
            playing.cancel()
            await asyncio.wait([playing])
            self.assertTrue(playing.cancelled())

        self.run_in_a_loop(scene)

    def test_stopped_at_once_it_leaves_nothing(self) -> None:
        async def scene(service: Service) -> None:
            async with self.client(service):
                pass
            self.assertEqual(service.asked.count("HEARTBEAT"), 1)
            self.assertEqual(service.asked[-1], "Goodbye")

        self.run_in_a_loop(scene)

    def test_several_live_in_one_loop(self) -> None:
        async def scene(service: Service) -> None:
            async with self.client(service), self.client(service):
                await until(lambda: len(self.states()) == 2)
            # The one beats on while the other leaves.
            self.assertEqual(service.asked.count("Goodbye"), 2)
            self.assertEqual(service.asked[-1], "Goodbye")

        self.run_in_a_loop(scene)

    def test_an_answer_that_is_too_long_or_never_ends_is_cut(self) -> None:
        long = ok(b"x" * (MAX_MESSAGE + 1))
        half = ok(b"{}")[:-1]
        for answer, word in ((long, "longer than"), (half, "in time")):
            with self.subTest(word):
                self.events.clear()

                async def scene(service: Service, answer: bytes = answer) -> None:
                    async with self.client(service) as game:
                        await until(lambda: bool(self.states()))
                        game.session._timebomb = game.session._interval = 0.1
                        service.answer = lambda _: answer
                        await until(lambda: len(self.events) > 1)
                        service.answer = ok
                        heard = len(service.asked)
                        await until(lambda: len(service.asked) > heard + 2)
                    self.assertEqual(service.most, 1)

                self.run_in_a_loop(scene)
                (lost,) = [one for one in self.events if isinstance(one, ServerLost)]
                self.assertIn(word, lost.detail)

    def test_it_keeps_no_cookie_and_follows_no_redirect(self) -> None:
        heads: list[str] = []

        async def scene(service: Service) -> None:
            more = f"307 X\r\nLocation: {service.url}/else\r\nSet-Cookie: a=b"
            service.answer = lambda body: ok(body, more)
            async with self.client(service) as game:
                game.session._interval = 0.05
                await until(lambda: len(service.asked) > 1)
            heads.extend(service.heads)

        self.run_in_a_loop(scene)
        self.assertNotIn("cookie", "".join(heads).lower())
        self.assertNotIn("/else", "".join(heads))

    def test_one_is_good_for_one_life(self) -> None:
        async def scene(service: Service) -> None:
            game = self.client(service)
            with self.assertRaises(RuntimeError):
                game.report(ClientState.RUNNING)
            async with game:
                pass
            with self.assertRaises(RuntimeError):
                await game.__aenter__()

        self.run_in_a_loop(scene)
