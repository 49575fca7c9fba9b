"""What a node reads when it begins: all keys, and what the service is told of them.

The order in which clients went is that of etcd's revisions, whatever a clock says.
Fills the replica on the way. Knows no watch and no session.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from attrs import define, field
from msgspec.structs import replace

from heartbeat_service.core.changes import (
    DeadClient,
    GoneClient,
    Lockout,
    StoredState,
)
from heartbeat_service.core.instances import NO_INSTANCES
from heartbeat_service.storage.etcd.keys import Key, Keys, Kind
from heartbeat_service.storage.etcd.port import Etcd, KeyValue
from heartbeat_service.storage.etcd.records import (
    EndedRecord,
    HeirsRecord,
    LockoutRecord,
    Record,
    decode,
    decode_node,
    place_of,
)
from heartbeat_service.storage.etcd.replica import Known, Replica
from heartbeat_service.storage.store import LATELY, MOST_GONE, MOST_LATELY, StoreTrouble

#: How many keys are read at once.
PAGE = 2_000


async def scan(etcd: Etcd, prefix: bytes) -> tuple[Sequence[KeyValue], int]:
    """All keys that begin so, as they are at one revision, and that revision.

    :raises EtcdError: if they can't be read now.
    """
    found: list[KeyValue] = []
    after, revision = b"", 0
    while True:
        page = await etcd.scan(prefix, after, revision, PAGE)
        found += page.keys
        revision = page.revision
        if page.is_last or not page.keys:
            return found, revision
        after = page.keys[-1].key


@define
class Loaded:
    """What a scan has found.

    :ivar keys: what they are called.
    :ivar replica: is filled with it.
    :ivar too_old: the lives that are kept no longer.
    """

    keys: Keys
    replica: Replica
    too_old: list[tuple[str, int]] = field(factory=list, init=False)
    _living: list[Record] = field(factory=list, init=False)
    _dead: list[tuple[int, Record]] = field(factory=list, init=False)
    _lives: list[tuple[int, str, EndedRecord]] = field(factory=list, init=False)
    _lockouts: list[Lockout] = field(factory=list, init=False)

    def take(self, found: Iterable[KeyValue]) -> None:
        """Fill in what was found.

        :raises StoreTrouble: if one of them holds what this version can't read.
        """
        named = [(self.keys.parse(each.key), each) for each in found]
        ours = [(key, each) for key, each in named if key is not None]
        # Heirs first, as it follows from them where a client beats; then as they came.
        ours.sort(key=lambda one: (one[0].kind is not Kind.HEIRS, one[1].mod_revision))
        for key, each in ours:
            try:
                self._take_one(key, each)
            except ValueError as error:
                raise StoreTrouble(
                    f"{each.key!r} holds what this version can't read: {error}"
                ) from error
        self._dead.sort(key=lambda one: (one[0], place_of(one[1].nonce)))
        self._lives.sort(key=lambda one: (one[0], place_of(one[2].nonce)))
        for _, client_id, ended in self._lives:
            self.too_old += self.replica.add_life(client_id, ended.life)

    def stored(self, now: float, least: int, elsewhere: Iterable[str]) -> StoredState:
        """What the service is told.

        :param now: seconds since the epoch.
        :param least: an incarnation that nobody has reached, by the clock.
        :param elsewhere: who beats at other nodes.
        """
        dead = [record for _, record in self._dead]
        numbers_given = [record.point[0] for record in (*self._living, *dead)]
        # Whoever had the latest may be forgotten, and not how it went.
        numbers_given += [ended.life.incarnation for _, _, ended in self._lives]
        numbers = {
            (client_id, ended.life.incarnation): number
            for number, (_, client_id, ended) in enumerate(self._lives, start=1)
        }
        gone = [
            GoneClient(numbers.get((name, each.ended.incarnation), 0), name, each.ended)
            for each in dead
            if each.ended is not None and (name := each.client.client_id)
        ]
        lately = [
            (client_id, ended.life)
            for _, client_id, ended in self._lives
            if abs(now - (ended.life.ended_at or 0.0)) <= LATELY
        ]
        births = sorted(
            self._living, key=lambda one: (one.point[0], one.client.client_id)
        )
        return StoredState(
            last_incarnation=max(least, *numbers_given, 0),
            clients=[record.client for record in births],
            instances_of_dead={
                record.client.client_id: DeadClient(
                    record.client.instances, _ended_at(record)
                )
                for record in dead
                if record.client.instances != NO_INSTANCES
            },
            lockouts=self._lockouts,
            gone=gone[-MOST_GONE:],
            lives_ended=len(self._lives),
            ended_lately=lately[-MOST_LATELY:],
            elsewhere=frozenset(elsewhere),
        )

    def living(self) -> Iterable[str]:
        """Who lives."""
        return (record.client.client_id for record in self._living)

    def _take_one(self, key: Key, each: KeyValue) -> None:
        match key.kind:
            case Kind.CLIENT:
                record = decode(Record, each.value)
                known = Known(each.mod_revision, record.owner, each.value)
                self.replica.put(key.name, known, record.lives)
                if record.lives:
                    self._living.append(record)
                else:
                    self._dead.append((each.mod_revision, record))
            case Kind.LIFE:
                ended = decode(EndedRecord, each.value)
                self._lives.append((each.mod_revision, key.name, ended))
            case Kind.LOCKOUT:
                lockout = decode(LockoutRecord, each.value).lockout
                self.replica.lockouts[key.name] = each.mod_revision
                if lockout.until:
                    # As a store of one machine tells it.
                    bare = replace(lockout, incarnation=None, seconds=0.0)
                    self._lockouts.append(bare)
            case Kind.NODE:
                self.replica.nodes[key.name] = decode_node(key.name, each.value)
            case Kind.HEIRS:
                self.replica.bequeath(key.name, decode(HeirsRecord, each.value).heirs)


def _ended_at(record: Record) -> float:
    ended = record.ended
    moment = None if ended is None else ended.ended_at
    return record.client.state_since if moment is None else moment
