"""The fleet on real sockets: started, watched, told to leave, and what came of it.

The clients start one after the other within a second or so, the first of them alone:
once its answer has named the endpoint, and publications are heard there, the rest may
begin. How late this program itself is counts as the machine's doing, not as the
service's. Knows no screen.
"""

from __future__ import annotations

from collections import Counter
from secrets import token_hex
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeoutError
from twisted.internet.task import LoopingCall, deferLater

from heartbeat_service.core.states import ClientState
from heartbeat_service.game_client.credentials import Credentials
from heartbeat_service.protocol.messages import OnStateChange
from heartbeat_service.simulator.client import SimulatedClient
from heartbeat_service.simulator.plan import Mishap, Plan
from heartbeat_service.simulator.referee import Referee
from heartbeat_service.simulator.report import figures
from heartbeat_service.simulator.sockets import Sockets

#: How often it looks how late it is, in seconds.
LOOK = 0.1

#: How long it tries to hear publications before it gives up, in seconds.
PATIENCE = 10.0

#: How long a fleet takes to leave, in seconds.
SETTLING = 3.0


class NoService(Exception):
    """There is none, or one that can't be heard; the text says which."""


class Fleet:
    """Real clients, as far as a service can tell.

    :ivar referee: watches them.
    :ivar mishaps: how often each has happened.
    """

    def __init__(
        self, reactor: Any, plan: Plan, server: str, credentials: Credentials
    ) -> None:
        self.plan = evolve(plan, run=f"{token_hex(4)}.")
        self.referee = Referee(reactor)
        self.mishaps: Counter[Mishap] = Counter()
        self._reactor = reactor
        self._hears: Deferred[None] | None = Deferred()
        self._sockets = Sockets(
            reactor,
            server,
            credentials,
            self._heard,
            self.referee.lost_sight,
            self._begin_to_hear,
        )
        self._clients: dict[str, SimulatedClient] = {}
        self._looked_at = reactor.seconds()
        self._over: Deferred[None] = Deferred()

    def states(self) -> Counter[ClientState]:
        """How many are in which state, as they know it."""
        return Counter(client.state for client in self._clients.values())

    async def run(self) -> dict[str, Any]:
        """Let it live for as long as planned, and tell its figures.

        :raises NoService: if there is nobody to talk to.
        """
        look = LoopingCall(self._look)
        look.clock = self._reactor
        look.start(LOOK, now=False)
        try:
            await self._begin()
            timer = self._reactor.callLater(self.plan.seconds, self.end)
            await self._over
            if timer.active():
                timer.cancel()
            for client in self._clients.values():
                client.leave()
            await deferLater(self._reactor, SETTLING)
            return figures(self.plan, self.referee, self.mishaps)
        finally:
            look.stop()
            self._sockets.close()

    def end(self) -> None:
        """Have it leave, now."""
        if not self._over.called:
            self._over.callback(None)

    async def _begin(self) -> None:
        self._start(1)
        assert self._hears is not None
        hears = self._hears.addTimeout(PATIENCE, self._reactor)
        try:
            await hears
        except DeferredTimeoutError as error:
            raise NoService(self._why_not()) from error
        for number in range(2, self.plan.clients + 1):
            self._start(number)
            if number % 100 == 0:  # their first beats are spread over a second anyway
                await deferLater(self._reactor, 0)

    def _why_not(self) -> str:
        if self.referee.beats:
            return f"no publication could be heard in {PATIENCE:g} s"
        if self.referee.errors:
            return f"beats are refused: {', '.join(self.referee.errors)}"
        return f"no beat was answered in {PATIENCE:g} s"

    def _start(self, number: int) -> None:
        way = self._sockets.way_of(number, self.plan.by_zeromq(number))
        client = SimulatedClient(
            number, self.plan, self._reactor, way, self.referee, self._happened
        )
        self._clients[client.client_id] = client
        client.start()

    def _happened(self, mishap: Mishap) -> None:
        self.mishaps[mishap] += 1

    def _heard(self, change: OnStateChange) -> None:
        client = self._clients.get(change.client_id)
        if client is not None:  # else it is nobody of this fleet's
            self.referee.heard(change)
            client.hear(change)

    def _begin_to_hear(self) -> None:
        self.referee.sees_again()
        hears, self._hears = self._hears, None
        if hears is not None:
            hears.callback(None)

    def _look(self) -> None:
        now = self._reactor.seconds()
        self.referee.was_late(now - self._looked_at - LOOK)
        self._looked_at = now
