"""What must hold on many machines, whatever goes wrong (contract, sections 2 and 7).

What is in etcd is the truth: it is read there, revision by revision, as it is written.
Each reply that a client gets and each publication of each node is held to it. Knows
neither why a node does what it does, nor what went wrong.
"""

from __future__ import annotations

from typing import NoReturn

from attrs import define, field, frozen

from heartbeat_service.core.changes import Reason
from heartbeat_service.core.states import ClientState
from heartbeat_service.protocol.messages import ClientStateMessage, as_state
from heartbeat_service.storage.etcd.keys import Keys, Kind
from heartbeat_service.storage.etcd.port import Event
from heartbeat_service.storage.etcd.records import Record, decode
from tests.unit.storage.fake_etcd import FakeEtcd

#: Floats are rounded.
HAIR = 1e-6


class Violation(AssertionError):
    """Something doesn't hold that must; the text says what, and when."""


@frozen
class Told:
    """A change of a client, as it is told to whoever listens."""

    client_id: str
    incarnation: int
    sequence: int
    state: ClientState


@define(eq=False)
class Reader:
    """How far a node has come with its publications.

    :ivar place: of the first change of all that it hasn't published.
    :ivar points: what it has published last of each client.
    """

    name: str
    place: int = 0
    points: dict[str, tuple[int, int]] = field(factory=dict)


@define(eq=False)
class Referee:
    """Reads what etcd has, and hears what clients and subscribers are told.

    :ivar changes: all that etcd has kept, in order, each with its revision.
    :ivar deaths: when a timebomb has ended a life, as etcd has it.
    :ivar replies: how many clients were told.
    :ivar found: what doesn't hold; whoever called may have caught it.
    """

    etcd: FakeEtcd
    keys: Keys
    changes: list[tuple[int, Told]] = field(factory=list)
    deaths: dict[tuple[str, int], float] = field(factory=dict)
    replies: int = 0
    found: Violation | None = None
    _read: int = 1
    _last: dict[str, Record] = field(factory=dict)
    _states: dict[tuple[str, int, int], ClientState] = field(factory=dict)
    _answered: dict[tuple[str, int], tuple[float, float]] = field(factory=dict)

    def look(self) -> None:
        """Read what was written since the last look."""
        if self.etcd.revision == self._read:
            return
        for event in self.etcd.happened_since(self._read + 1):
            key = self.keys.parse(event.key.key)
            if key is not None and key.kind is Kind.CLIENT and not event.deleted:
                self._written(key.name, event)
        self._read = self.etcd.revision

    def answered(self, reply: ClientStateMessage) -> None:
        """A client has got that reply."""
        self.look()
        self.replies += 1
        state = as_state(reply.client_state)
        told = Told(reply.client_id, reply.incarnation, reply.sequence, state)
        self._check_meaning(told, "a reply")

    def beaten(self, reply: ClientStateMessage, taken_at: float) -> None:
        """A client has got that reply to a beat, which a node took at that time."""
        self.answered(reply)
        life = reply.client_id, reply.incarnation
        if taken_at >= self._answered.get(life, (0.0, 0.0))[0]:
            self._answered[life] = taken_at, reply.timebomb_seconds
        self._check_death(life)

    def published(self, reader: Reader, told: Told) -> None:
        """A node has published that: the change that etcd has next.

        Where etcd has forgotten some, each client's changes are in order at least.
        """
        self.look()
        self._check_meaning(told, f"{reader.name}'s publication")
        point = told.incarnation, told.sequence
        if point <= reader.points.get(told.client_id, (0, 0)):
            self.fail(f"{reader.name} publishes {told} too late, or again")
        reader.points[told.client_id] = point
        if self.etcd.is_compacted:
            return
        following = self.changes[reader.place :]
        if not following or following[0][1] != told:
            self.fail(
                f"{reader.name} publishes {told}, but etcd has next {following[:3]}"
            )
        reader.place += 1

    def check_all_read(self, reader: Reader) -> None:
        """A node must have published all by now."""
        missing = [told for _, told in self.changes[reader.place :]]
        if self.etcd.is_compacted:
            missing = [
                told
                for told in missing
                if (told.incarnation, told.sequence)
                > reader.points.get(told.client_id, (0, 0))
            ]
        if missing:
            self.fail(f"{reader.name} hasn't published {missing}")

    def present(self) -> dict[str, Record]:
        """The records of those who live, as etcd has them."""
        self.look()
        return {name: record for name, record in self._last.items() if record.lives}

    def fail(self, what: str) -> NoReturn:
        """Something doesn't hold."""
        violation = Violation(f"at {self.etcd.clock.seconds():.3f}: {what}")
        self.found = self.found or violation
        raise violation

    def _written(self, client_id: str, event: Event) -> None:
        record = decode(Record, event.key.value)
        former = self._last.get(client_id)
        self._last[client_id] = record
        told = Told(client_id, *record.point, record.client.state)
        if former is not None and former.point == record.point:
            same = former.client.state, former.reason, former.previous_since
            now = record.client.state, record.reason, record.previous_since
            if same != now:
                self.fail(f"{told} was written where there was {former}")
            return
        if former is not None:
            self._check_order(former, record, told)
        self.changes.append((event.key.mod_revision, told))
        self._states[told.client_id, told.incarnation, told.sequence] = told.state
        if record.reason is Reason.TIMEBOMB:
            life = client_id, told.incarnation
            self.deaths[life] = self.etcd.clock.seconds()
            self._check_death(life)

    def _check_order(self, former: Record, record: Record, told: Told) -> None:
        """Incarnations grow, sequences by one, and nobody lives on after a death."""
        (life, number), (new_life, new_number) = former.point, record.point
        if new_life < life or (new_life == life and new_number != number + 1):
            self.fail(f"{told} follows {former.point}")
        if new_life > life and new_number != 1:
            self.fail(f"a new life begins with {told}")
        if new_life == life and not former.lives:
            self.fail(f"{told} lives on after its death")

    def _check_meaning(self, told: Told, where: str) -> None:
        point = told.client_id, told.incarnation, told.sequence
        if point not in self._states:
            self.fail(f"{where} tells {told}, which etcd doesn't have")
        if self._states[point] is not told.state:
            self.fail(f"{where} tells {told}, but etcd has {self._states[point]}")

    def _check_death(self, life: tuple[str, int]) -> None:
        """Who was answered within its fuse doesn't die of its timebomb."""
        if life not in self.deaths or life not in self._answered:
            return
        died_at, (taken_at, fuse) = self.deaths[life], self._answered[life]
        if died_at < taken_at + fuse - HAIR:
            self.fail(
                f"{life} was answered at {taken_at:.3f} with a fuse of {fuse} s, and "
                f"died of its timebomb at {died_at:.3f}"
            )
