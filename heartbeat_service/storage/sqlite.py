"""The store that outlives the service: ``sqlite:PATH``.

SQLite in WAL mode and in a thread of its own, one transaction for each commit.
Whatever is wrong with the file is told as :class:`StoreTrouble`; a file that isn't
ours, or that is damaged, is left as it is.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from attrs import evolve
from twisted.internet.defer import Deferred, execute, fail
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool
from typing_extensions import override

from heartbeat_service.core.changes import Fact, Life, StoredState
from heartbeat_service.storage import rows
from heartbeat_service.storage.files import Files
from heartbeat_service.storage.store import (
    NO_REFUSALS,
    Refusals,
    Store,
    StoreTrouble,
    incarnations_so_far,
)

T = TypeVar("T")

#: "hbsv": what the header of each of our files says (schema/0001.sql).
APPLICATION_ID = 0x68627376

#: The size of the smallest database, in bytes: one page.
SMALLEST = 512

_READ_TABLES = "SELECT type, name, sql FROM sqlite_schema"
_COUNT_TABLES = "SELECT count(*) FROM sqlite_schema"

#: How much of the write-ahead log stays on the disk, in bytes: as much as SQLite lets
#: gather before it writes it into the file. While another program reads, it may grow
#: beyond; it is cut with the second commit after that.
LOG_LIMIT = 4 * 1024 * 1024

#: How long a lock of another program is waited for before it is told, in seconds.
LOCK_TIMEOUT = 1.0


def migrations() -> list[str]:
    """The schema's versions, from the first: each is the SQL that leads to it."""
    folder = resources.files(__package__) / "schema"
    return [
        file.read_text("utf-8")
        for file in sorted(folder.iterdir(), key=lambda file: file.name)
        if file.name.endswith(".sql")
    ]


class SqliteStore(Store):
    """Keeps facts in a file.

    :param reactor: takes what the thread has to tell.
    :param path: the file; made if it isn't there.
    :param wall_clock: seconds since the epoch.
    :param most_dead: how many dead clients' instances it keeps, at the most.
    """

    def __init__(
        self,
        reactor: Any,
        path: Path,
        wall_clock: Callable[[], float],
        most_dead: int = 250_000,
    ) -> None:
        self._reactor = reactor
        self._database = Database(path, wall_clock, most_dead)
        self._thread: ThreadPool | None = None

    @override
    def open(self) -> Deferred[StoredState]:
        if self._thread is not None:
            return self._in_thread(self._database.open)
        # The first time at once, so that a service knows its clients before it
        # listens. Later others wait for the reactor.
        self._thread = ThreadPool(1, 1, "sqlite")
        return execute(self._database.open)

    @override
    def commit(self, facts: Sequence[Fact]) -> Deferred[Refusals]:
        return self._in_thread(self._database.write, facts)

    @override
    def former_lives(self, client_id: str) -> Deferred[list[Life]]:
        return self._in_thread(self._database.former_lives, client_id)

    @override
    def close(self) -> Deferred[None]:
        if self._thread is None or not self._thread.started:
            self._thread = None
            return execute(self._database.close)
        thread, closing = self._thread, self._in_thread(self._database.close)
        self._thread = None

        def stop(outcome: Failure | None) -> Failure | None:
            thread.stop()
            return outcome

        return closing.addBoth(stop)

    def _in_thread(self, function: Callable[..., T], *args: object) -> Deferred[T]:
        if self._thread is None:
            return fail(StoreTrouble("the store is not open"))
        if not self._thread.started:
            self._thread.start()
        return deferToThreadPool(self._reactor, self._thread, function, *args)


class Database:
    """The file itself. Each method blocks, and raises :class:`StoreTrouble`."""

    def __init__(
        self, path: Path, wall_clock: Callable[[], float], most_dead: int = 250_000
    ) -> None:
        self._most_dead = most_dead
        self._name = path.name
        self._files = Files(path)
        self._wall_clock = wall_clock
        self._connection: sqlite3.Connection | None = None
        self._path = path
        self._size = 0
        self._tables: set[tuple[str, str, str]] = set()

    def open(self) -> StoredState:
        """Make the file ours, bring it up to date, and read what it has kept."""
        with self._trouble():
            self.close()
            try:
                return self._open()
            except BaseException:
                self.close()
                raise

    def write(self, facts: Sequence[Fact]) -> Refusals:
        """Write all of ``facts`` in one transaction, or none; nobody else writes."""
        with self._trouble():
            connection = self._opened()
            self._expect_same_files()
            self._commit(connection, facts)
            self._expect_same_files()  # else it may be gone with the process
            return NO_REFUSALS

    def former_lives(self, client_id: str) -> list[Life]:
        """The lives of a client that ended, newest first."""
        with self._trouble():
            return rows.read_lives(self._opened(), client_id)

    def close(self) -> None:
        """Close the file; to close it again does nothing."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
        self._files.release()

    @contextmanager
    def _trouble(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError, ValueError) as error:
            # Clients are told, too: they needn't know where the file is.
            reason = error.strerror if isinstance(error, OSError) else error
            raise StoreTrouble(f"{self._name}: {reason}") from error

    def _open(self) -> StoredState:
        self._path = self._files.claim()
        if self._path.stat().st_size > 0:
            self._look_over()
        connection = self._connection = sqlite3.connect(
            self._path,
            timeout=LOCK_TIMEOUT,
            isolation_level=None,
            check_same_thread=False,
        )
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA journal_size_limit = {LOG_LIMIT}")
        self._migrate(connection)
        self._tables = set(connection.execute(_READ_TABLES))
        stored = self._read(connection)
        self._commit(connection, ())  # find out whether it can be written to
        self._files.remember(self._path)
        self._size = 0
        self._expect_same_files()
        return stored

    def _look_over(self) -> None:
        """Refuse a file that must not be written to; only reads."""
        # SQLite takes the very smallest for new ones.
        if self._path.stat().st_size < SMALLEST:
            raise ValueError("file is not a database")
        # To close a connection that may write would write the log into the file.
        uri = f"{self._path.as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, LOCK_TIMEOUT, uri=True)) as connection:
            owner = _pragma(connection, "application_id")
            version = _version(connection)
            (tables,) = connection.execute(_COUNT_TABLES).fetchone()
            if owner != APPLICATION_ID and (owner, version, tables) != (0, 0, 0):
                raise ValueError("it is the file of another program")
            newest = len(migrations())
            if version > newest:
                raise ValueError(
                    f"its schema has version {version}, this program knows {newest}"
                )
            if (damage := _pragma(connection, "quick_check(1)")) != "ok":
                raise ValueError(f"it is damaged: {damage}")

    @staticmethod
    def _migrate(connection: sqlite3.Connection) -> None:
        for number, sql in enumerate(migrations(), start=1):
            if number > _version(connection):
                with _all_or_nothing(connection):
                    connection.executescript(
                        f"BEGIN IMMEDIATE;\n{sql}\n"
                        f"PRAGMA user_version = {number};\nCOMMIT;"
                    )

    def _read(self, connection: sqlite3.Connection) -> StoredState:
        stored = rows.read(connection, self._wall_clock())
        past = incarnations_so_far(self._wall_clock)
        return evolve(stored, last_incarnation=max(past, stored.last_incarnation))

    def _commit(self, connection: sqlite3.Connection, facts: Sequence[Fact]) -> None:
        with _all_or_nothing(connection):
            connection.execute("BEGIN IMMEDIATE")
            if not facts:  # then somebody asks whether all is well
                self._expect_same_tables(connection)
            rows.write(connection, facts, self._wall_clock(), self._most_dead)
            connection.execute("COMMIT")

    def _expect_same_tables(self, connection: sqlite3.Connection) -> None:
        missing = self._tables.difference(connection.execute(_READ_TABLES))
        if missing:
            names = ", ".join(sorted(f"{kind} {name}" for kind, name, _ in missing))
            raise ValueError(f"gone, or no longer as they were: {names}")

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            raise ValueError("it is not open")
        return self._connection

    def _expect_same_files(self) -> None:
        """Find out whether somebody has taken a file away from under us.

        What is written to a removed file is gone with the process, and what was
        committed last is in the write-ahead log alone. A database in use gets smaller
        by a VACUUM, which leaves it whole, or by being cut short.
        """
        size = self._files.expect_same()
        if size < self._size:
            try:
                self._look_over()
            except (sqlite3.DatabaseError, ValueError) as error:
                raise ValueError(
                    f"it was cut short by another program ({error}); put it back whole,"
                    " beside its log"
                ) from error
        self._size = size


@contextmanager
def _all_or_nothing(connection: sqlite3.Connection) -> Iterator[None]:
    try:
        yield
    except BaseException:
        if connection.in_transaction:  # SQLite itself may have rolled back
            connection.execute("ROLLBACK")
        raise


def _pragma(connection: sqlite3.Connection, name: str) -> Any:
    (value,) = connection.execute(f"PRAGMA {name}").fetchone()
    return value


def _version(connection: sqlite3.Connection) -> int:
    version: int = _pragma(connection, "user_version")
    return version
