"""What the watch has told: every record as it is, and at which node each client beats.

A client beats at the node that its record names. When that one's session has ended, its
heirs are written once; which of them has the client follows from its ID alone, and so
on from heir to heir, so all nodes come to the same one without asking. Knows no etcd
but by what is told here, and nothing of timebombs.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from hashlib import blake2b

from attrs import define, field, frozen

from heartbeat_service.core.changes import Life
from heartbeat_service.storage.etcd.records import Record, decode
from heartbeat_service.storage.lives import KeptLives, Which
from heartbeat_service.storage.nodes import Node

#: For how long a node that went may be expected back, in seconds.
LATELY_GONE = 600.0


@frozen
class Known:
    """A client's record as the watch has told it last.

    :ivar revision: of the write, by which a later one is known.
    :ivar value: the record itself, encoded: so many are kept.
    """

    revision: int
    owner: str
    value: bytes

    def record(self) -> Record:
        """What it says."""
        return decode(Record, self.value)


@define(eq=False)
class Replica:
    """All that is under the prefix, but for what is in the former lives.

    :ivar clients: each with its record, the dead among them.
    :ivar nodes: the sessions that run.
    :ivar heirs: of sessions that ended, or that an operator has emptied.
    :ivar lockouts: the revision of each.
    :ivar lives: which former lives are kept.
    """

    clients: dict[str, Known] = field(factory=dict, init=False)
    nodes: dict[str, Node] = field(factory=dict, init=False)
    _departed: dict[str, tuple[float, Node]] = field(factory=dict, init=False)
    heirs: dict[str, Sequence[str]] = field(factory=dict, init=False)
    lockouts: dict[str, int] = field(factory=dict, init=False)
    lives: KeptLives = field(factory=KeptLives, init=False)
    _at: dict[str, dict[str, None]] = field(factory=dict, init=False)
    _place: dict[str, str] = field(factory=dict, init=False)

    def put(self, client_id: str, known: Known, lives: bool) -> None:
        """A client's record has been written."""
        self.clients[client_id] = known
        if lives:
            self._settle(client_id, self._last_heir(known.owner, client_id))
        else:
            self._leave(client_id)

    def remove(self, client_id: str) -> None:
        """A client's record is there no more: it has been dead for days."""
        self.clients.pop(client_id, None)
        self._leave(client_id)

    def add_life(self, client_id: str, life: Life) -> Collection[Which]:
        """A life has ended; which are kept no longer."""
        too_old = self.lives.add(client_id, life.incarnation, life.left_uncalibrated)
        for which in too_old:
            self.lives.remove(*which)
        return too_old

    def remove_node(self, session: str, now: float) -> None:
        """A session has ended.

        :param now: the time, on any clock.
        """
        node = self.nodes.pop(session, None)
        if node is not None:
            self._departed[node.name] = now, node
            self.departed(now)  # forgets who went long ago

    def departed(self, now: float) -> Sequence[Node]:
        """The nodes that went lately, and whose names nobody has who runs."""
        running = {node.name for node in self.nodes.values()}
        for name, (went_at, _) in list(self._departed.items()):
            if name in running or now - went_at > LATELY_GONE:
                del self._departed[name]
        return [node for _, node in self._departed.values()]

    def place(self, client_id: str) -> str | None:
        """The session at which a living client beats, or has to be heard."""
        return self._place.get(client_id)

    def at(self, session: str) -> Sequence[str]:
        """Who beats there."""
        return list(self._at.get(session, ()))

    def count_at(self, session: str) -> int:
        """How many beat there."""
        return len(self._at.get(session, ()))

    def bequeath(self, session: str, heirs: Sequence[str]) -> Sequence[str]:
        """The heirs of a session are known; whose place has changed."""
        moved = self.at(session)
        self.heirs[session] = heirs
        for client_id in moved:
            self._settle(client_id, self._last_heir(session, client_id))
        return moved

    def living(self) -> Sequence[str]:
        """The sessions that can have clients, in one order for all nodes."""
        return sorted(one for one in self.nodes if one not in self.heirs)

    def orphanages(self) -> Sequence[str]:
        """The sessions that ended, and whose clients nobody has taken over."""
        return sorted(
            one
            for one, clients in self._at.items()
            if clients and one not in self.nodes and one not in self.heirs
        )

    def needless_heirs(self) -> Sequence[str]:
        """Of whose heirs nobody has to know any more: no client leads there."""
        led: set[str] = {known.owner for known in self.clients.values()}
        waiting = list(led)
        while waiting:
            for heir in self.heirs.get(waiting.pop(), ()):
                if heir not in led:
                    led.add(heir)
                    waiting.append(heir)
        return sorted(
            one for one in self.heirs if one not in led and one not in self.nodes
        )

    def _last_heir(self, session: str, client_id: str) -> str:
        seen = {session}
        while heirs := self.heirs.get(session):
            session = heir_of(session, heirs, client_id)
            if session in seen:  # nobody writes that, but it must not be endless
                break
            seen.add(session)
        return session

    def _settle(self, client_id: str, session: str) -> None:
        if self._place.get(client_id) == session:
            return
        self._leave(client_id)
        self._place[client_id] = session
        self._at.setdefault(session, {})[client_id] = None

    def _leave(self, client_id: str) -> None:
        session = self._place.pop(client_id, None)
        if session is not None:
            del self._at[session][client_id]
            if not self._at[session]:
                del self._at[session]


def heir_of(session: str, heirs: Sequence[str], client_id: str) -> str:
    """Which of the heirs of a session has a client.

    Python's own hash differs from one process to the next; and without the session in
    it, all clients that came from one heir would go on to one again.
    """
    digest = blake2b(f"{session}/{client_id}".encode(), digest_size=8).digest()
    return heirs[int.from_bytes(digest) % len(heirs)]
