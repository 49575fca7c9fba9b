"""A game client in asyncio's loop; ``asyncio_transports.py`` has its sockets.

Decides nothing itself: ``runner.py`` does what the session says. Windows: pyzmq needs
the selector's loop there, not the proactor's, which is the default.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Self

from attrs import frozen

from heartbeat_service.core.states import ClientState
from heartbeat_service.game_client.actions import Event
from heartbeat_service.game_client.asyncio_transports import HttpBeats, ZmqWire
from heartbeat_service.game_client.credentials import NO_CREDENTIALS, Credentials
from heartbeat_service.game_client.ports import Beats, Timer, Wire
from heartbeat_service.game_client.runner import Runner, new_session

_log = logging.getLogger("heartbeat_service.game_client")


class GameClient:
    """A game client: beats in an ``async with``, and follows its state.

    ::

        async with GameClient("http://10.0.0.1:8080", "wall-1", print) as game:
            ...  # game.session.state tells its state; game.report(…) asks for another

    At the end it says Goodbye, also when it is cancelled; when it is cancelled once
    more, it waits for no answer. One is good for one life; a loop may have several.

    :param server: the base URL of the service, ``http://HOST:PORT`` or ``https://…``.
    :param on_event: hears each :class:`StateChanged`, :class:`Refused`,
        :class:`ServerLost`, :class:`ZmqLost`, :class:`ZmqBack` and
        :class:`Superseded`; after the last it is silent. Called in the loop.
    :param timebomb: seconds to the timebomb, if the client wants its own.
    :param values: returns the telemetry of a beat, a JSON object.
    :param credentials: what a guarded server wants to see.
    :param beats: another way to ``POST /heartbeat``, which takes care of credentials.
    :param wire: the same for ZeroMQ.
    :raises ValueError: if ``server`` or ``client_id`` is none.
    :ivar session: what is known of the client's life.
    """

    def __init__(
        self,
        server: str,
        client_id: str,
        on_event: Callable[[Event], None],
        timebomb: float | None = None,
        values: Callable[[], Mapping[str, object]] | None = None,
        credentials: Credentials = NO_CREDENTIALS,
        beats: Beats | None = None,
        wire: Wire | None = None,
    ) -> None:
        self.session = new_session(client_id, timebomb)
        self._new_runner = partial(
            Runner,
            self.session,
            beats=HttpBeats(server, credentials) if beats is None else beats,
            wire=ZmqWire(credentials.keys) if wire is None else wire,
            on_event=on_event,
            values=values,
            log=_Log(),
        )
        self._runner: Runner | None = None

    async def __aenter__(self) -> Self:
        if self._runner is not None:
            raise RuntimeError("A GameClient is good for one life: make another one")
        self._runner = self._new_runner(clock=_Clock(asyncio.get_running_loop()))
        self._runner.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        left = asyncio.Event()
        self._runner.leave(left.set)
        try:
            await left.wait()
        except asyncio.CancelledError:
            self._runner.hurry()
            await left.wait()
            raise

    def report(self, state: ClientState) -> None:
        """Ask the server to change this client's state; called in the loop.

        Reports are carried out one after the other, and sent again when no answer
        comes. Each ends with an event: :class:`StateChanged`, :class:`Refused` or
        :class:`Superseded`. But for those that a later one has taken back before they
        were sent: who reports CALIBRATED, RUNNING and CALIBRATED is CALIBRATED once.

        :raises RuntimeError: outside of its ``async with``.
        """
        if self._runner is None:
            raise RuntimeError("A GameClient reports in its async with")
        self._runner.report(state)


@frozen
class _Clock:
    """A loop's time."""

    loop: asyncio.AbstractEventLoop

    def seconds(self) -> float:
        """How late it is."""
        return self.loop.time()

    def callLater(
        self, delay: float, what: Callable[..., object], /, *args: object
    ) -> Timer:
        """Call ``what`` in ``delay`` seconds."""
        return self.loop.call_later(delay, what, *args)


class _Log:
    """Python's."""

    def warn(self, text: str) -> None:
        """Something is odd."""
        _log.warning("%s", text)

    def failed(self, text: str, error: Exception) -> None:
        """Something has failed that should not."""
        _log.error("%s", text, exc_info=error)
