"""How many are well and how many aren't: counted as it is told, never recounted.

A watcher of the journal, so that it shows nothing that the store doesn't have, and just
what the event stream has told. Operators may ask each second, however many clients
there are. Knows no transport.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from attrs import define, field

from heartbeat_service.core.changes import Change, Snapshot
from heartbeat_service.core.local_client import LocalClient
from heartbeat_service.core.notices import Held, Late, News, Recovered, Silence
from heartbeat_service.core.states import ClientState

_LIVING = [state for state in ClientState if state is not ClientState.DISCONNECTED]


@define(eq=False)
class Summary:
    """Who is late, held and silent, and how many are in which state.

    :ivar late: those that are held among them.
    """

    late: set[str] = field(factory=set, init=False)
    held: set[str] = field(factory=set, init=False)
    silent: set[str] = field(factory=set, init=False)
    _states: Counter[ClientState] = field(factory=Counter, init=False)

    def restore(self, clients: Iterable[LocalClient]) -> None:
        """Go on after a restart."""
        for client in clients:
            self._take(client)

    def states(self) -> dict[ClientState, int]:
        """How many are in each living state."""
        return {state: self._states[state] for state in _LIVING}

    def alive(self) -> int:
        """How many live."""
        return sum(self.states().values())

    def hear(self, news: News) -> None:
        """Operators are told of it."""
        match news:
            case Change():
                self._states[news.previous_state] -= 1
                self._states[news.state] += 1
                if news.ended is not None:
                    self._forget(news.client_id)
            case Late():
                self.late.add(news.client_id)
            case Held():
                self.late.add(news.client_id)
                self.held.add(news.client_id)
            case Recovered():
                self._forget(news.client_id)
            case Silence():
                self._forget(news.client_id)
                if news.seconds:
                    self.silent.add(news.client_id)

    def replace(
        self, client_id: str, told: ClientState | None, client: Snapshot | None
    ) -> None:
        """The store has another record of a client than was told of.

        :param told: the state that was told of; None if it didn't live.
        """
        self._forget(client_id)
        if told is not None:
            self._states[told] -= 1
        if client is not None:
            self._take(client)

    def _take(self, client: LocalClient | Snapshot) -> None:
        self._states[client.state] += 1
        if client.silent_until:
            self.silent.add(client.client_id)

    def _forget(self, client_id: str) -> None:
        self.late.discard(client_id)
        self.held.discard(client_id)
        self.silent.discard(client_id)
