"""Facts as rows of a database, and back: all the SQL of reading and writing.

Each statement may be repeated, as a commit is whose outcome nobody knows. Knows the
tables of ``schema/``; nothing of files, threads or transactions.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from sqlite3 import Connection
from typing import Any

from heartbeat_service.core.changes import (
    Change,
    Fact,
    Life,
    Reason,
    Snapshot,
    StoredState,
)
from heartbeat_service.core.instances import Instances
from heartbeat_service.core.registry import MOST_DEAD
from heartbeat_service.core.states import ClientState
from heartbeat_service.storage.store import KEPT_LIVES, MOST_LIVES

_WRITE_CLIENT = """
    REPLACE INTO clients (
        client_id, incarnation, sequence, state, instance_id, former_instances,
        fuse, registered_at, has_reported, reported_state, beats,
        longest_gap_seconds
    ) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_READ_CLIENTS = """
    SELECT
        client_id, incarnation, sequence, state, instance_id, former_instances,
        fuse, registered_at, has_reported, reported_state, beats,
        longest_gap_seconds
    FROM clients ORDER BY incarnation
"""
_FORGET_CLIENT = "DELETE FROM clients WHERE client_id = ?"

_WRITE_DEAD = """
    REPLACE INTO graves (client_id, instance_id, former_instances) VALUES (?, ?, ?)
"""
_READ_DEAD = """
    SELECT client_id, instance_id, former_instances FROM graves ORDER BY rowid
"""
_FORGET_DEAD = "DELETE FROM graves WHERE client_id = ?"
_FORGET_OLD_DEAD = """
    DELETE FROM graves WHERE rowid <= (
        SELECT rowid FROM graves ORDER BY rowid DESC LIMIT 1 OFFSET ?
    )
"""

_WRITE_LIFE = """
    REPLACE INTO lives (
        client_id, incarnation, registered_at, ended_at, reason, last_state, beats,
        longest_gap_seconds
    ) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
"""
_READ_LIVES = """
    SELECT
        incarnation, registered_at, ended_at, reason, last_state, beats,
        longest_gap_seconds
    FROM lives WHERE client_id = ? ORDER BY incarnation DESC LIMIT ?
"""
_FORGET_OLD_LIVES_OF = """
    DELETE FROM lives WHERE client_id = ?1 AND incarnation <= (
        SELECT incarnation FROM lives WHERE client_id = ?1
        ORDER BY incarnation DESC LIMIT 1 OFFSET ?2
    )
"""
_FORGET_OLD_LIVES = """
    DELETE FROM lives WHERE rowid <= (
        SELECT rowid FROM lives ORDER BY rowid DESC LIMIT 1 OFFSET ?
    )
"""

_WRITE_SERVICE = """
    UPDATE service
    SET written_at = ?, last_incarnation = max(last_incarnation, ?)
"""
_READ_SERVICE = "SELECT last_incarnation FROM service"


def read(connection: Connection) -> StoredState:
    """All that a restarted service has to know."""
    (last_incarnation,) = connection.execute(_READ_SERVICE).fetchone()
    return StoredState(
        last_incarnation=last_incarnation,
        clients=[_snapshot(row) for row in connection.execute(_READ_CLIENTS)],
        instances_of_dead={
            client_id: _instances(*row)
            for client_id, *row in connection.execute(_READ_DEAD)
        },
    )


def read_lives(connection: Connection, client_id: str) -> list[Life]:
    """The lives of a client that ended, newest first."""
    rows = connection.execute(_READ_LIVES, (client_id, KEPT_LIVES))
    return [_life(row) for row in rows]


def write(connection: Connection, facts: Sequence[Fact], now: float) -> None:
    """Write facts, in order, and forget what is too old.

    :param now: seconds since the epoch.
    """
    for fact in facts:
        if isinstance(fact, Change):
            _write_change(connection, fact)
        else:
            _write_client(connection, fact)
    _forget(connection, facts)
    last = max((fact.incarnation for fact in facts), default=0)
    connection.execute(_WRITE_SERVICE, (now, last))


def _write_change(connection: Connection, change: Change) -> None:
    client = change.client
    if change.ended is not None:
        _write_life(connection, client.client_id, change.ended)
    if client.state is not ClientState.DISCONNECTED:
        _write_client(connection, client)
        connection.execute(_FORGET_DEAD, (client.client_id,))
        return
    connection.execute(_FORGET_CLIENT, (client.client_id,))
    if client.instances != Instances():
        row = (client.client_id, *_of_instances(client.instances))
        connection.execute(_WRITE_DEAD, row)


def _write_client(connection: Connection, client: Snapshot) -> None:
    connection.execute(
        _WRITE_CLIENT,
        (
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
        ),
    )


def _write_life(connection: Connection, client_id: str, life: Life) -> None:
    connection.execute(
        _WRITE_LIFE,
        (
            client_id,
            life.incarnation,
            life.registered_at,
            life.ended_at,
            None if life.reason is None else life.reason.value,
            life.last_state.value,
            life.beats,
            life.longest_gap_seconds,
        ),
    )


def _forget(connection: Connection, facts: Sequence[Fact]) -> None:
    who_died = {
        fact.client_id
        for fact in facts
        if isinstance(fact, Change) and fact.ended is not None
    }
    for client_id in who_died:
        connection.execute(_FORGET_OLD_LIVES_OF, (client_id, KEPT_LIVES))
    if who_died:
        connection.execute(_FORGET_OLD_LIVES, (MOST_LIVES,))
        connection.execute(_FORGET_OLD_DEAD, (MOST_DEAD,))


def _snapshot(row: Sequence[Any]) -> Snapshot:
    return Snapshot(
        client_id=row[0],
        incarnation=row[1],
        sequence=row[2],
        state=ClientState(row[3]),
        instances=_instances(row[4], row[5]),
        fuse=row[6],
        registered_at=row[7],
        has_reported=bool(row[8]),
        reported_state=ClientState(row[9]),
        beats=row[10],
        longest_gap_seconds=row[11],
    )


def _life(row: Sequence[Any]) -> Life:
    return Life(
        incarnation=row[0],
        registered_at=row[1],
        ended_at=row[2],
        reason=None if row[3] is None else Reason(row[3]),
        last_state=ClientState(row[4]),
        beats=row[5],
        longest_gap_seconds=row[6],
    )


def _of_instances(instances: Instances) -> tuple[str | None, str]:
    return instances.present, json.dumps(instances.former)


def _instances(present: str | None, former: str) -> Instances:
    return Instances(present, tuple(json.loads(former)))
