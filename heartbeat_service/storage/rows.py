"""Facts as rows of a database, and back: all the SQL of reading and writing.

A batch is written by few statements, each for many rows: SQLite lets go of Python's
lock during each, and beside a busy reactor it takes up to 5 ms to get it back. A batch
may be written again, as a commit is whose outcome nobody knows. Knows the tables of
``schema/``; nothing of files, threads or transactions.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from itertools import chain
from sqlite3 import Connection
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from heartbeat_service.core.changes import (
    Change,
    DeadClient,
    Fact,
    GoneClient,
    Life,
    Lockout,
    Number,
    Snapshot,
    StoredState,
)
from heartbeat_service.core.dead import KEPT_FOR
from heartbeat_service.core.instances import REMEMBERED_INSTANCES, Instances
from heartbeat_service.core.labels import NO_LABELS, Labels
from heartbeat_service.core.states import ClientState
from heartbeat_service.protocol import messages
from heartbeat_service.protocol.messages import ClientID, InstanceID
from heartbeat_service.storage.store import (
    KEPT_LIVES,
    LATELY,
    MOST_GONE,
    MOST_LATELY,
    MOST_LIVES,
)

T = TypeVar("T")

Row = tuple[Any, ...]

# What most clients have.
NO_INSTANCES = Instances()
NO_FORMER = "[]"
NO_LABELS_TEXT = "{}"

_LABELS = msgspec.json.Decoder(messages.Labels)
_FORMER = msgspec.json.Decoder(
    Annotated[tuple[InstanceID, ...], Meta(max_length=REMEMBERED_INSTANCES)]
)

#: How many rows one statement writes.
ROWS = 50

_WRITE_CLIENTS = """
    INSERT INTO clients (
        client_id, incarnation, sequence, state, instance_id, former_instances,
        fuse, registered_at, has_reported, reported_state, beats,
        longest_gap_seconds, labels, state_since, silent_until
    ) VALUES {rows} ON CONFLICT (client_id) DO UPDATE SET
        incarnation = excluded.incarnation,
        sequence = excluded.sequence,
        state = excluded.state,
        instance_id = excluded.instance_id,
        former_instances = excluded.former_instances,
        fuse = excluded.fuse,
        registered_at = excluded.registered_at,
        has_reported = excluded.has_reported,
        reported_state = excluded.reported_state,
        beats = excluded.beats,
        longest_gap_seconds = excluded.longest_gap_seconds,
        labels = excluded.labels,
        state_since = excluded.state_since,
        silent_until = excluded.silent_until
"""
_READ_CLIENTS = """
    SELECT
        client_id, incarnation, sequence, state, instance_id, former_instances,
        fuse, registered_at, has_reported, reported_state, beats,
        longest_gap_seconds, labels, state_since, silent_until
    FROM clients ORDER BY incarnation
"""
_FORGET_CLIENTS = """
    DELETE FROM clients WHERE client_id IN (SELECT value FROM json_each(?))
"""

_WRITE_DEAD = """
    INSERT INTO dead_clients (
        client_id, ended_at, instance_id, former_instances
    ) VALUES {rows}
"""
_READ_DEAD = """
    SELECT client_id, ended_at, instance_id, former_instances
    FROM dead_clients ORDER BY rowid
"""
_FORGET_DEAD = """
    DELETE FROM dead_clients WHERE client_id IN (SELECT value FROM json_each(?))
"""
_COUNT_DEAD = "SELECT kept_dead FROM service"
# The rule of core/dead.py, for as many as there are too many: each statement finds what
# the one before has left.
_MAKE_ROOM = (
    """
    DELETE FROM dead_clients WHERE rowid IN (
        SELECT rowid FROM dead_clients WHERE former_instances = '[]'
        ORDER BY rowid LIMIT :too_many
    )
    """,
    """
    DELETE FROM dead_clients WHERE rowid IN (
        SELECT rowid FROM (
            SELECT rowid, ended_at FROM dead_clients ORDER BY rowid LIMIT :too_many
        ) WHERE :now - ended_at > :kept_for
    )
    """,
    """
    DELETE FROM dead_clients WHERE rowid IN (
        SELECT rowid FROM dead_clients ORDER BY rowid DESC LIMIT :too_many
    )
    """,
)

_WRITE_LIVES = """
    INSERT INTO lives (
        client_id, incarnation, registered_at, ended_at, reason, last_state, beats,
        longest_gap_seconds, left_uncalibrated, labels, by_whom
    ) VALUES {rows} ON CONFLICT (client_id, incarnation) DO NOTHING
"""
_READ_LIVES = """
    SELECT
        incarnation, registered_at, ended_at, reason, last_state, beats,
        longest_gap_seconds, left_uncalibrated, labels, by_whom AS "by"
    FROM lives WHERE client_id = ? ORDER BY incarnation DESC LIMIT ?
"""
# From the newest life on, and no further than it takes.
_READ_GONE = """
    SELECT
        client_id, life.rowid AS number, incarnation, registered_at, ended_at, reason,
        last_state, beats, longest_gap_seconds, left_uncalibrated, labels,
        by_whom AS "by"
    FROM lives AS life
    WHERE NOT EXISTS (SELECT 1 FROM clients WHERE client_id = life.client_id)
    AND NOT EXISTS (
        SELECT 1 FROM lives
        WHERE client_id = life.client_id AND incarnation > life.incarnation
    )
    ORDER BY life.rowid DESC LIMIT ?
"""
# Not those that ended in the time to come: the clock was set back, nobody knows by how
# much. A little ahead is as good as now.
_READ_ENDED_LATELY = """
    SELECT
        client_id, rowid AS number, incarnation, registered_at, ended_at, reason,
        last_state, beats, longest_gap_seconds, left_uncalibrated, labels,
        by_whom AS "by"
    FROM lives WHERE abs(:now - ended_at) <= :lately
    ORDER BY rowid DESC LIMIT :most
"""
_READ_LIVES_ENDED = "SELECT coalesce(max(rowid), 0) AS number FROM lives"

# CROSS: those who died are gone through, not all lives. Who got beyond UNCALIBRATED
# (1) is kept as one of the last of those who did, the others (0) as one of the last.
_FORGET_OLD_LIVES_OF = """
    DELETE FROM lives WHERE rowid IN (
        SELECT old.rowid FROM json_each(:died) AS died CROSS JOIN lives AS old
        WHERE old.client_id = died.value AND old.left_uncalibrated = :left
        AND old.incarnation <= (
            SELECT incarnation FROM lives
            WHERE client_id = died.value AND left_uncalibrated >= :left
            ORDER BY incarnation DESC LIMIT 1 OFFSET :kept
        )
    )
"""
_FORGET_OLD_LIVES = """
    DELETE FROM lives WHERE rowid IN (
        SELECT rowid FROM lives ORDER BY rowid
        LIMIT max(0, (SELECT kept_lives FROM service) - ?)
    )
"""

_WRITE_LOCKOUTS = """
    INSERT INTO lockouts (client_id, until, by_whom) VALUES {rows}
"""
_READ_LOCKOUTS = 'SELECT client_id, until, by_whom AS "by" FROM lockouts'
_FORGET_LOCKOUTS = """
    DELETE FROM lockouts WHERE client_id IN (SELECT value FROM json_each(?))
"""

_WRITE_SERVICE = """
    UPDATE service
    SET written_at = ?, last_incarnation = max(last_incarnation, ?)
"""
_READ_SERVICE = "SELECT last_incarnation FROM service"


def read(connection: Connection, now: float) -> StoredState:
    """All that a restarted service has to know.

    :param now: seconds since the epoch.
    :raises ValueError: if a row makes no sense: which one, and what is wrong with it.
    """
    service = list(_each(connection, "service", _READ_SERVICE, _last_incarnation))
    if not service:
        raise ValueError("the row of service is gone")
    gone = _each(connection, "lives", _READ_GONE, _gone, (MOST_GONE,))
    which = {"now": now, "lately": LATELY, "most": MOST_LATELY}
    lately = _each(connection, "lives", _READ_ENDED_LATELY, _gone, which)
    (lives_ended,) = connection.execute(_READ_LIVES_ENDED).fetchone()
    return StoredState(
        last_incarnation=service[0],
        clients=list(_each(connection, "clients", _READ_CLIENTS, _snapshot)),
        instances_of_dead=dict(_each(connection, "dead_clients", _READ_DEAD, _dead)),
        lockouts=list(_each(connection, "lockouts", _READ_LOCKOUTS, _lockout)),
        gone=list(filter(None, gone))[::-1],
        lives_ended=lives_ended,
        ended_lately=[(one.client_id, one.life) for one in filter(None, lately)][::-1],
    )


def read_lives(connection: Connection, client_id: str) -> list[Life]:
    """The lives of a client that ended, newest first; raises as :func:`read` does."""
    which = client_id, 2 * KEPT_LIVES
    return list(_each(connection, "lives", _READ_LIVES, _life, which))


def write(
    connection: Connection, facts: Sequence[Fact], now: float, most_dead: int
) -> None:
    """Write facts, and forget what is too old.

    :param now: seconds since the epoch.
    :param most_dead: how many dead clients' instances are kept, at the most.
    :raises ValueError: if it is not the tables that we know.
    """
    changes = [fact for fact in facts if isinstance(fact, Change)]
    # The latest last, as the dead are kept in the order of their deaths.
    latest: dict[str, Snapshot] = {}
    lockouts: dict[str, Lockout] = {}
    for fact in facts:
        if isinstance(fact, Lockout):
            lockouts[fact.client_id] = fact
            continue
        latest.pop(fact.client_id, None)
        latest[fact.client_id] = fact.client if isinstance(fact, Change) else fact
    _write_living(connection, latest.values())
    if _write_dead(connection, latest.values(), changes):
        _forget_some_dead(connection, now, most_dead)
    _write_lives(connection, changes)
    _write_lockouts(connection, lockouts.values())
    last = max((client.incarnation for client in latest.values()), default=0)
    if connection.execute(_WRITE_SERVICE, (now, last)).rowcount != 1:
        raise ValueError("the row of service is gone")


def _write_living(connection: Connection, clients: Iterable[Snapshot]) -> None:
    rows = [_of_client(client) for client in clients if _lives(client)]
    _insert(connection, _WRITE_CLIENTS, rows)


def _write_dead(
    connection: Connection, clients: Iterable[Snapshot], changes: Iterable[Change]
) -> bool:
    """Whether there are any whose instances are to be kept."""
    dead = [client for client in clients if not _lives(client)]
    _delete(connection, _FORGET_CLIENTS, [client.client_id for client in dead])
    ended = {change.client_id: change.ended for change in changes}
    _delete(connection, _FORGET_DEAD, ended)
    rows = [
        (client.client_id, life.ended_at, *_of_instances(client.instances))
        for client in dead
        if client.instances != NO_INSTANCES
        and (life := ended[client.client_id]) is not None
    ]
    _insert(connection, _WRITE_DEAD, rows)
    return bool(rows)


def _forget_some_dead(connection: Connection, now: float, most: int) -> None:
    (kept,) = connection.execute(_COUNT_DEAD).fetchone()
    too_many = kept - most
    for statement in _MAKE_ROOM:
        if too_many > 0:
            which = {"too_many": too_many, "now": now, "kept_for": KEPT_FOR}
            too_many -= connection.execute(statement, which).rowcount


def _write_lives(connection: Connection, changes: Iterable[Change]) -> None:
    rows = [
        (change.client_id, *_of_life(change.ended))
        for change in changes
        if change.ended is not None
    ]
    if rows:
        _insert(connection, _WRITE_LIVES, rows)
        who_died = json.dumps(list({row[0] for row in rows}))
        for left in (0, 1):
            which = {"died": who_died, "left": left, "kept": KEPT_LIVES}
            connection.execute(_FORGET_OLD_LIVES_OF, which)
        connection.execute(_FORGET_OLD_LIVES, (MOST_LIVES,))


def _write_lockouts(connection: Connection, lockouts: Collection[Lockout]) -> None:
    _delete(connection, _FORGET_LOCKOUTS, [one.client_id for one in lockouts])
    _insert(
        connection,
        _WRITE_LOCKOUTS,
        [(one.client_id, one.until, one.by) for one in lockouts if one.until],
    )


def _insert(connection: Connection, statement: str, rows: Sequence[Row]) -> None:
    if not rows:
        return
    row = f"({', '.join('?' * len(rows[0]))})"
    many = statement.format(rows=", ".join([row] * ROWS))
    rest = len(rows) % ROWS
    for end in range(ROWS, len(rows) + 1, ROWS):
        connection.execute(many, list(chain.from_iterable(rows[end - ROWS : end])))
    connection.executemany(statement.format(rows=row), rows[len(rows) - rest :])


def _delete(
    connection: Connection, statement: str, client_ids: Collection[str]
) -> None:
    if client_ids:
        connection.execute(statement, (json.dumps(list(client_ids)),))


def _lives(client: Snapshot) -> bool:
    return client.state is not ClientState.DISCONNECTED


def _of_client(client: Snapshot) -> Row:
    return (
        client.client_id,
        client.incarnation,
        client.sequence,
        client.state.value,
        *_of_instances(client.instances),
        client.fuse,
        client.registered_at,
        client.has_reported,
        client.reported_state.value,
        client.beats,
        client.longest_gap_seconds,
        _of_labels(client.labels),
        client.state_since,
        client.silent_until,
    )


def _of_life(life: Life) -> Row:
    return (
        life.incarnation,
        life.registered_at,
        life.ended_at,
        None if life.reason is None else life.reason.value,
        life.last_state.value,
        life.beats,
        life.longest_gap_seconds,
        life.left_uncalibrated,
        _of_labels(life.labels),
        life.by,
    )


def _each(
    connection: Connection,
    table: str,
    statement: str,
    read_row: Callable[[dict[str, Any]], T],
    parameters: Sequence[Any] | Mapping[str, Any] = (),
) -> Iterator[T]:
    # A connection isn't really closed as long as it has an open cursor.
    with closing(connection.execute(statement, parameters)) as cursor:
        names = [name for name, *_ in cursor.description]
        for row in cursor:
            try:
                yield read_row(dict(zip(names, row, strict=True)))
            except ValueError as error:
                what = str(error).replace("`$.", "`")
                raise ValueError(f"{table}, the row {row[:2]!r:.150}: {what}") from None


def _last_incarnation(row: dict[str, Any]) -> int:
    return msgspec.convert(row["last_incarnation"], Number)


def _snapshot(row: dict[str, Any]) -> Snapshot:
    ClientID.parse(row["client_id"])
    row["instances"] = _instances(row.pop("instance_id"), row.pop("former_instances"))
    row["labels"] = _labels(row["labels"])
    # Not strict, as SQLite has no bool.
    return msgspec.convert(row, Snapshot, strict=False)


def _dead(row: dict[str, Any]) -> tuple[str, DeadClient]:
    client_id: str = row.pop("client_id")
    ClientID.parse(client_id)  # which is twice as long
    row["instances"] = _instances(row.pop("instance_id"), row.pop("former_instances"))
    return client_id, msgspec.convert(row, DeadClient)


def _lockout(row: dict[str, Any]) -> Lockout:
    ClientID.parse(row["client_id"])
    return msgspec.convert(row, Lockout)


def _life(row: dict[str, Any]) -> Life:
    row["labels"] = _labels(row["labels"])
    # Not strict, as SQLite has no bool.
    return msgspec.convert(row, Life, strict=False)


def _gone(row: dict[str, Any]) -> GoneClient | None:
    """None if it makes no sense, of which the client's history tells."""
    client_id, number = row.pop("client_id"), row.pop("number")
    with suppress(ValueError):
        ClientID.parse(client_id)
        life = _life(row)
        if life.ended_at is not None:
            return GoneClient(number, client_id, life)
    return None


def _of_instances(instances: Instances) -> tuple[str | None, str]:
    former = instances.former
    return instances.present, json.dumps(former) if former else NO_FORMER


def _instances(present: str | None, former: str) -> Instances:
    if present is not None:
        msgspec.convert(present, InstanceID)
    if former != NO_FORMER:
        return Instances(present, _FORMER.decode(former))
    return NO_INSTANCES if present is None else Instances(present)


def _of_labels(labels: Labels) -> str:
    return msgspec.json.encode(labels).decode() if labels else NO_LABELS_TEXT


def _labels(text: str) -> Labels:
    if text == NO_LABELS_TEXT:
        return NO_LABELS
    try:
        return _LABELS.decode(text)
    except ValueError as error:
        raise ValueError(f"labels: {error}") from None
