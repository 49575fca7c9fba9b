"""The nodes that are one service, and whether this one may speak for it (section 7).

A node is sure of itself until its session may have ended: then others take over its
clients. Not sure, it lets nobody die, and answers beats only while every other node
says that etcd is away from it as well, and without a gap since this one was sure. Knows
no etcd and no transport: a store tells it what it hears, and whoever asks the other
nodes, what they say.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import Protocol

from attrs import define, field, frozen
from twisted.internet.defer import Deferred, succeed

from heartbeat_service.core.clock import Clock
from heartbeat_service.core.errors import Overloaded

#: How long what the other nodes have said holds, in seconds. A node that etcd answers
#: again waits as long before it takes anybody's clients over.
WORD_HOLDS = 2.0


@frozen
class Node:
    """A running process of the service.

    :ivar session: names this run of it, and no other.
    :ivar name: how people know it.
    :ivar http: where it listens, as ``HOST:PORT``; empty until it does.
    :ivar url: the same for other nodes, as ``http://HOST:PORT``.
    :ivar since: when it began, in seconds since the epoch.
    """

    session: str
    name: str
    since: float
    http: str = ""
    url: str = ""
    request_endpoint: str = ""
    state_change_endpoint: str = ""


class Nodes(Protocol):
    """All nodes, as this one knows them."""

    @property
    def own(self) -> Node:
        """This one."""

    def introduce(self, own: Node) -> None:
        """Let the others know where this one listens."""

    def all(self) -> Sequence[Node]:
        """Those that run, the one that began first first."""

    def departed(self) -> Sequence[Node]:
        """Those that went lately, and whose names none has that runs now.

        Such a one may have come back without this node's knowledge.
        """

    def clients_at(self, session: str) -> int:
        """How many clients beat at a node, as far as is known here."""

    def node_of(self, client_id: str) -> Node | None:
        """Where a client beats; None if no running node is known to have it."""

    def leave(self) -> Deferred[None]:
        """Let the others take this node's clients over; it writes nothing any more.

        Fails with :class:`StoreTrouble` if that can't be told them now, and with
        :class:`IllegalTransition` if nobody is there to take them.
        """


@define(eq=False)
class OneNode(Nodes):
    """This machine, where there is no other.

    :ivar count: how many clients live.
    """

    count: Callable[[], int]
    own: Node

    def introduce(self, own: Node) -> None:
        """Know where it listens; nobody else asks."""
        self.own = own

    def all(self) -> Sequence[Node]:
        """This one."""
        return [self.own]

    def departed(self) -> Sequence[Node]:
        """There never was another."""
        return []

    def clients_at(self, session: str) -> int:
        """All."""
        return self.count() if session == self.own.session else 0

    def node_of(self, client_id: str) -> Node:  # noqa: ARG002 - there is no other
        """This one."""
        return self.own

    def leave(self) -> Deferred[None]:
        """Nobody is there who could take its clients over."""
        return succeed(None)


@define(eq=False)
class Standing:
    """Whether this node may speak for the service now.

    :ivar clock: the reactor, whose time goes on while the process is stopped.
    :ivar sure_until: until when its session holds at least, on that clock.
    :ivar in_touch: whether etcd has answered it, the last time that it was asked.
    :ivar is_drained: whether an operator wants its clients to go elsewhere.
    """

    clock: Clock
    sure_until: float = math.inf
    in_touch: bool = True
    is_drained: bool = False
    _owned_until: float = field(default=-math.inf, init=False)
    _all_away_until: float = field(default=-math.inf, init=False)
    _is_lonely: bool = field(default=False, init=False)
    _stirred_at: float = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._stirred_at = self.clock.seconds()

    def reckon(self, until: float | None, in_touch: bool) -> None:
        """Know how it stands with etcd.

        :param until: until when the session holds and all is heard, on the clock's
            scale; None while this node doesn't know what has happened.
        """
        self.in_touch = in_touch
        if in_touch:
            self._is_lonely = False
        if until is None:  # nobody else has its clients before the session is over
            self.sure_until = -math.inf
        else:
            self.sure_until = self._owned_until = until

    def stir(self) -> None:
        """It has learned from etcd what happened, or takes over another's clients."""
        self._stirred_at = self.clock.seconds()

    def quiet_for(self) -> float:
        """For how long neither was so, in seconds; at most since it began."""
        return self.clock.seconds() - self._stirred_at

    def is_sure(self) -> bool:
        """Whether its clients are still its own: nobody may die of it otherwise."""
        return self.clock.seconds() < self.sure_until

    def may_kill(self) -> bool:
        """Whether a client whose fuse has run out may die of it now."""
        return self.in_touch and self.is_sure()

    def admit_beat(self) -> None:
        """Pass if a beat may be answered.

        :raises Overloaded: if another node may have taken the client over.
        """
        now = self.clock.seconds()
        if self.is_drained:
            raise Overloaded("This node is being emptied: beat at another one")
        if now >= self.sure_until and now >= self._all_away_until:
            raise Overloaded("This node is out of touch with etcd: beat at another one")

    def hear(self, answers: Collection[float | None], asked_at: float) -> None:
        """What the other nodes say: whether etcd is away from them.

        :param answers: one for each other node, those that went lately among them: for
            how many seconds it was quiet; None from whom etcd answers, and from who
            said nothing in time.
        :param asked_at: when they were asked, on the clock's scale.
        """
        quiet = [answer for answer in answers if answer is not None]
        self._is_lonely = len(quiet) < len(answers)
        if self._is_lonely:
            return
        quiet_since = self.clock.seconds() - min(quiet, default=math.inf)
        # Whoever has stirred later may have this node's clients by now. A gap in which
        # they were all quiet is none: somebody was slow to answer, or to miss etcd.
        if quiet_since <= max(self._owned_until, self._all_away_until):
            self._all_away_until = asked_at + WORD_HOLDS

    def trouble(self) -> str | None:
        """Why clients should go to another node; None if they are as well off here."""
        if self.is_drained:
            return "this node is being emptied: its clients go to others"
        if not self.in_touch and self._is_lonely:
            return "this node alone is out of touch with etcd"
        return None
