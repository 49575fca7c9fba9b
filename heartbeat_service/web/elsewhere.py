"""What beats bring at other nodes, told to who reads this one's events (section 7).

No node writes down who is late, or what a client says of itself: it is no change, and
must not cost etcd anything. So while somebody reads events here, the other nodes are
asked each second who is late there, and who has reported another state, and that is
told as if it had happened here. Knows who hears it, and nothing of how events are read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from attrs import define, field, frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from heartbeat_service.core.heartbeat import Stage
from heartbeat_service.core.local_client import LocalClient
from heartbeat_service.core.notices import Held, Late, News, Recovered, Reported
from heartbeat_service.core.registry import Registry
from heartbeat_service.protocol.nodes import BeatsAnswer, BeatsRecord
from heartbeat_service.web.peers import Peers

#: How often the others are asked, in seconds.
ASK_EVERY = 1.0

#: For how long they are still asked when nobody reads any more, in seconds: a reader
#: who was cut off comes back, and goes on where it was.
COMES_BACK = 60.0


@frozen
class _Told:
    """Of whom it was told that it is late.

    :ivar session: of the node where it beats.
    """

    session: str
    incarnation: int
    held: bool


@define(eq=False)
class BeatsElsewhere:
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
    _heard: dict[str, str] = field(factory=dict, init=False)
    _goes_on: bool = field(default=False, init=False)
    _read_until: float = field(default=-math.inf, init=False)
    _loop: LoopingCall = field(init=False)
    _asked: Deferred[Any] | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self._loop = LoopingCall(self._ask)
        self._loop.clock = self.reactor

    def start(self) -> None:
        """Ask from now on."""
        self._loop.start(ASK_EVERY, now=False).addErrback(
            lambda failure: self._log.failure("Nobody asks what beats bring", failure)
        )

    def stop(self) -> None:
        """Ask nobody any more."""
        if self._loop.running:
            self._loop.stop()
        if self._asked is not None:
            self._asked.cancel()

    def _ask(self) -> Deferred[Any] | None:
        now = self.reactor.seconds()
        if self.is_read():
            self._read_until = now + COMES_BACK
        if now >= self._read_until:
            self._told.clear()
            self._heard.clear()
            self._goes_on = False
            return None
        asked = self.peers.late_or_reported(self._heard)
        self._asked = Deferred.fromCoroutine(asked)
        self._asked.addCallback(self.take)
        return self._asked.addErrback(Failure.trap, CancelledError)

    def take(self, answers: Mapping[str, BeatsAnswer | None]) -> None:
        """Tell what is otherwise than it was told.

        :param answers: of each other node, by its session; None of one that says
            nothing: what was told of its clients stays.
        """
        late, whole = set[str](), set[str]()
        for session, answer in answers.items():
            if answer is not None:
                late.update(self._take_one(session, answer))
                if sum(beats.late for beats in answer.beats.values()) == answer.late:
                    whole.add(session)
        self._goes_on = True
        for gone in self._heard.keys() - answers.keys():
            del self._heard[gone]
        for client_id, told in list(self._told.items()):
            if client_id not in late and self._is_over(client_id, told, whole):
                self._tell_over(client_id)

    def _take_one(self, session: str, answer: BeatsAnswer) -> Iterator[str]:
        """Tell what a node says; who is late there."""
        self._heard[session] = answer.as_of or ""
        known: dict[str, tuple[LocalClient, BeatsRecord]] = {}
        for client_id, beats in answer.beats.items():
            client = self.registry.find(client_id)
            if client is not None and _is_of(client, beats):
                known[client_id] = client, beats
        for client_id in answer.reported:
            if client_id in known:
                self._tell_reported(*known[client_id])
        for client_id, (client, beats) in known.items():
            if beats.late:
                self._tell_late(client, beats, session)
                yield client_id

    def _tell_reported(self, client: LocalClient, beats: BeatsRecord) -> None:
        """Tell it; of what was reported before anybody read, only what is new."""
        reported = beats.reported_state
        if self._goes_on or reported is not client.reported_state:
            self.tell(client.notice(Reported, reported_state=reported))
        client.reported_state = reported  # it may beat here the next time

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

    def _is_over(self, client_id: str, told: _Told, whole: set[str]) -> bool:
        if self.peers.session_of(client_id) != told.session:
            return True  # it was taken over, or has moved
        return told.session in whole

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
