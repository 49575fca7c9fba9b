"""Who is late at other nodes, told to those who read this one's events (section 7).

No node writes down who is late: it is no change, and must not cost etcd anything. So
while somebody reads events here, the other nodes are asked each second who is late
there, and what has become otherwise is told as if it had happened here. Knows who hears
it, and nothing of how events are read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attrs import define, field, frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from heartbeat_service.core.heartbeat import Stage
from heartbeat_service.core.local_client import LocalClient
from heartbeat_service.core.notices import Held, Late, News, Recovered
from heartbeat_service.core.registry import Registry
from heartbeat_service.protocol.nodes import BeatsAnswer, BeatsRecord
from heartbeat_service.web.peers import Peers

#: How often the others are asked, in seconds.
ASK_EVERY = 1.0


@frozen
class _Told:
    """Of whom it was told that it is late.

    :ivar session: of the node where it beats.
    """

    session: str
    incarnation: int
    held: bool


@define(eq=False)
class LateElsewhere:
    """Asks, and tells what has become otherwise.

    :ivar reactor: the real one, or what takes its place in tests.
    :ivar registry: has the clients of all nodes.
    :ivar tell: hears what operators are told.
    :ivar is_read: whether somebody reads events.
    """

    reactor: Any
    peers: Peers
    registry: Registry
    tell: Callable[[News], object]
    is_read: Callable[[], bool]
    _log = Logger()
    _told: dict[str, _Told] = field(factory=dict, init=False)
    _loop: LoopingCall = field(init=False)
    _asked: Deferred[Any] | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self._loop = LoopingCall(self._ask)
        self._loop.clock = self.reactor

    def start(self) -> None:
        """Ask from now on."""
        self._loop.start(ASK_EVERY, now=False).addErrback(
            lambda failure: self._log.failure("Nobody asks who is late", failure)
        )

    def stop(self) -> None:
        """Ask nobody any more."""
        if self._loop.running:
            self._loop.stop()
        if self._asked is not None:
            self._asked.cancel()

    def _ask(self) -> Deferred[Any] | None:
        if not self.is_read():
            self._told.clear()
            return None
        self._asked = Deferred.fromCoroutine(self.peers.who_is_late())
        self._asked.addCallback(self.take)
        return self._asked.addErrback(Failure.trap, CancelledError)

    def take(self, answers: Mapping[str, BeatsAnswer | None]) -> None:
        """Tell what is otherwise than it was told.

        :param answers: of each other node, by its session; None of one that says
            nothing: what was told of its clients stays.
        """
        late: set[str] = set()
        for session, answer in answers.items():
            for client_id, beats in ({} if answer is None else answer.beats).items():
                client = self.registry.find(client_id)
                if client is not None and _is_of(client, beats):
                    self._tell_late(client, beats, session)
                    late.add(client_id)
        for client_id, told in list(self._told.items()):
            if client_id not in late and self._is_over(client_id, told, answers):
                self._tell_over(client_id)

    def _tell_late(self, client: LocalClient, beats: BeatsRecord, session: str) -> None:
        since, told = beats.seconds_since_heartbeat, self._told.get(client.client_id)
        if told is None or told.incarnation != client.incarnation:
            told = None
            self.tell(
                client.notice(
                    Late,
                    seconds_since_heartbeat=since,
                    seconds_to_timebomb=beats.seconds_to_timebomb,
                    timebomb_seconds=client.heartbeat.fuse,
                )
            )
        if beats.held and not (told is not None and told.held):
            self.tell(client.notice(Held, seconds_since_heartbeat=since))
        self._told[client.client_id] = _Told(session, client.incarnation, beats.held)

    def _is_over(
        self, client_id: str, told: _Told, answers: Mapping[str, BeatsAnswer | None]
    ) -> bool:
        if self.peers.session_of(client_id) != told.session:
            return True  # it was taken over, or has moved
        answer = answers.get(told.session)
        return answer is not None and len(answer.beats) == answer.late

    def _tell_over(self, client_id: str) -> None:
        told = self._told.pop(client_id)
        client = self.registry.find(client_id)
        if client is None or client.incarnation != told.incarnation:
            return  # it has died
        if client_id not in self.registry.mass_loss.late:
            self.tell(client.notice(Recovered))


def _is_of(client: LocalClient, beats: BeatsRecord) -> bool:
    return (
        client.incarnation == beats.incarnation
        and client.heartbeat.stage is Stage.ELSEWHERE
    )
