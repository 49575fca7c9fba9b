"""The store in a file: what each store promises, and what becomes of the file."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing, contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from queue import Queue
from typing import Any
from unittest import skipIf

from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool
from twisted.trial.unittest import SynchronousTestCase

from heartbeat_service.core.changes import Fact, Lockout
from heartbeat_service.core.instances import Instances
from heartbeat_service.core.states import ClientState
from heartbeat_service.storage import rows, sqlite
from heartbeat_service.storage.sqlite import (
    APPLICATION_ID,
    LOG_LIMIT,
    Database,
    SqliteStore,
    migrations,
)
from heartbeat_service.storage.store import StoreTrouble
from tests.unit.fakes import folder_for
from tests.unit.storage.store_suite import (
    BoundedDeadSuite,
    death,
    entry,
    life,
    registration,
    snapshot,
)

_, _, CALIBRATED, RUNNING = ClientState
NOON = 1648555200.0


class InlinePool:
    """A thread pool whose thread is the caller's own."""

    def __init__(self, *_: object) -> None:
        self.started = False

    def start(self) -> None:
        """From now on it may be asked."""
        assert not self.started
        self.started = True

    def stop(self) -> None:
        """From now on it may not."""
        self.started = False

    def callInThreadWithCallback(
        self,
        done: Callable[[bool, Any], None],
        function: Callable[..., Any],
        *args: Any,
    ) -> None:
        """Do it now."""
        assert self.started
        try:
            outcome = True, function(*args)
        except Exception:  # noqa: BLE001 - as a thread pool does
            outcome = False, Failure()
        done(*outcome)


class InlineReactor(Clock):
    """A reactor that takes at once what a thread has to tell."""

    def callFromThread(
        self, function: Callable[..., object], *args: Any, **kwargs: Any
    ) -> None:
        """Do it now."""
        function(*args, **kwargs)


class QueueReactor(Clock):
    """A reactor that takes what a thread has to tell when a test says so."""

    def __init__(self) -> None:
        super().__init__()
        self._calls: Queue[Callable[[], object]] = Queue()

    def callFromThread(
        self, function: Callable[..., object], *args: Any, **kwargs: Any
    ) -> None:
        """Do it later."""
        self._calls.put(partial(function, *args, **kwargs))

    def turn(self, times: int) -> None:
        """Take what is told, as often as that."""
        for _ in range(times):
            self._calls.get(timeout=60)()


class TestSqliteStore(BoundedDeadSuite, SynchronousTestCase):
    bounds = rows

    def setUp(self) -> None:
        """Begin without a file."""
        self.patch(sqlite, "ThreadPool", InlinePool)
        self.path = folder_for(self) / "heartbeat.sqlite"

    def make_store(self) -> SqliteStore:
        """A store in the same file each time."""
        return SqliteStore(InlineReactor(), self.path, self.now, self.most_dead)

    def now(self) -> float:
        """Noon, all the time."""
        return NOON

    def test_store_that_is_not_open_keeps_nothing(self) -> None:
        store = self.make_store()
        for answer in (store.commit([registration("1", 1)]), store.former_lives("1")):
            self.failureResultOf(answer, StoreTrouble)
        self.assertFalse(self.path.exists())


class TestThread(SynchronousTestCase):
    def test_each_opening_has_a_thread_that_its_closing_ends(self) -> None:
        pools: list[ThreadPool] = []

        class Pool(ThreadPool):
            def start(self) -> None:
                pools.append(self)
                super().start()

        self.patch(sqlite, "ThreadPool", Pool)
        reactor = QueueReactor()
        store = SqliteStore(reactor, folder_for(self) / "db", lambda: NOON)
        for _ in range(2):
            self.successResultOf(store.open())  # the first time at once
            opening, closing_ = store.open(), store.close()
            reactor.turn(2)
            self.successResultOf(opening)
            self.successResultOf(closing_)
        self.assertEqual([pool.threads[0].is_alive() for pool in pools], [False] * 2)

    def test_without_a_thread_it_closes_at_once(self) -> None:
        store = SqliteStore(QueueReactor(), folder_for(self) / "db", lambda: NOON)
        self.successResultOf(store.close())
        self.successResultOf(store.open())
        self.successResultOf(store.close())


class DatabaseTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        """Begin without a file, in a folder that is there."""
        self.path = folder_for(self) / "heartbeat.sqlite"
        self.patch(sqlite, "LOCK_TIMEOUT", 0.01)

    def database(self, path: Path | None = None) -> Database:
        """One that isn't open, closed at the end of the test."""
        database = Database(path or self.path, lambda: NOON)
        self.addCleanup(database.close)
        return database

    def opened(self) -> Database:
        """One that is open."""
        database = self.database()
        database.open()
        return database

    def connection(self, database: Database) -> sqlite3.Connection:
        """What it writes through."""
        connection = database._connection
        assert connection is not None
        return connection

    def sql(self, *statements: str) -> list[Any]:
        """What another program gets for the last of these."""
        with closing(sqlite3.connect(self.path, isolation_level=None)) as other:
            for statement in statements:
                answer = other.execute(statement).fetchall()
        return answer

    def clients(self, database: Database) -> list[str]:
        """Who is remembered."""
        return [client.client_id for client in database.open().clients]

    def assert_trouble(self, reason: str, call: Callable[..., object], *args: Any):
        """It is refused with a sentence that names the file and the reason."""
        text = str(self.assertRaises(StoreTrouble, call, *args))
        self.assertIn(reason, text)
        self.assertIn(self.path.name, text)

    def assert_left_alone(self, reason: str) -> None:
        """The file isn't opened, and stays as it is."""
        before = self.path.read_bytes()
        database = self.database()
        for _ in range(2):
            self.assert_trouble(reason, database.open)
        database.close()
        self.assertEqual(self.path.read_bytes(), before)


class TestFile(DatabaseTestCase):
    def test_file_is_made_and_says_whose_it_is(self) -> None:
        self.opened()
        self.assertEqual(self.sql("PRAGMA application_id"), [(APPLICATION_ID,)])
        self.assertEqual(APPLICATION_ID.to_bytes(4, "big"), b"hbsv")
        self.assertEqual(self.sql("PRAGMA user_version"), [(len(migrations()),)])
        self.assertEqual(self.sql("PRAGMA integrity_check"), [("ok",)])

    def test_each_commit_is_synced_to_a_write_ahead_log(self) -> None:
        connection = self.connection(self.opened())
        self.assertEqual(connection.execute("PRAGMA journal_mode").fetchone(), ("wal",))
        full = connection.execute("PRAGMA synchronous").fetchone()
        self.assertEqual(full, (2,))

    def test_empty_file_is_as_good_as_none(self) -> None:
        self.path.touch()
        self.assertEqual(self.clients(self.database()), [])

    def test_what_was_committed_is_there_without_any_closing(self) -> None:
        """As it is when the process is killed: the log alone may have it."""
        database = self.opened()
        database.write([registration("1", 1), registration("2", 2)])
        database.write([entry("1", 1, 2), death("2", life(2))])
        killed = self.path.with_name("killed.sqlite")
        shutil.copy(self.path, killed)
        shutil.copy(f"{self.path}-wal", f"{killed}-wal")
        database.write([registration("3", 3)])
        told = self.database(killed).open()
        self.assertEqual(
            [(client.client_id, client.sequence) for client in told.clients],
            [("1", 2)],
        )

    def test_half_of_a_commit_in_the_log_counts_for_nothing(self) -> None:
        database = self.opened()
        database.write([registration("1", 1)])
        whole = Path(f"{self.path}-wal").stat().st_size
        database.write([registration(str(n), n) for n in range(2, 200)])
        killed = self.path.with_name("killed.sqlite")
        shutil.copy(self.path, killed)
        log = Path(f"{self.path}-wal").read_bytes()
        for length in range(whole, len(log), 1 + (len(log) - whole) // 7):
            Path(f"{killed}-wal").write_bytes(log[:length])
            torn = self.database(killed)
            self.assertEqual(self.clients(torn), ["1"])
            torn.close()
            shutil.copy(self.path, killed)

    def test_commit_is_all_or_nothing(self) -> None:
        database = self.opened()
        database.write([registration("1", 1)])
        impossible: list[Fact] = [
            registration("2", 2),
            death("1", life(1)),
            registration("3", 3, fuse="long"),
        ]
        self.assert_trouble("cannot store TEXT", database.write, impossible)
        database.write([])
        database.close()
        self.assertEqual(self.clients(database), ["1"])

    def test_to_close_twice_does_nothing(self) -> None:
        database = self.opened()
        database.close()
        database.close()
        self.assert_trouble("not open", database.write, [])
        self.assert_trouble("not open", database.former_lives, "1")

    def test_commit_of_nothing_finds_out_whether_the_disk_takes_it(self) -> None:
        moments = iter((NOON, NOON + 1))
        database = Database(self.path, lambda: next(moments, NOON + 2))
        self.addCleanup(database.close)
        database.open()
        database.write([])
        [(written_at,)] = self.sql("SELECT written_at FROM service")
        self.assertEqual(written_at, NOON + 2)


class TestMigrations(DatabaseTestCase):
    def opened_once(self) -> None:
        """A file that this version has written."""
        database = self.opened()
        database.write([registration("1", 1)])
        database.close()

    def add_migration(self, sql: str) -> None:
        """There is a newer version of this program."""
        newer = [*migrations(), sql]
        self.patch(sqlite, "migrations", lambda: newer)

    def test_each_runs_once(self) -> None:
        self.add_migration("CREATE TABLE extra (only_once); ")
        for _ in range(3):
            self.opened().close()
        self.assertEqual(self.sql("PRAGMA user_version"), [(len(migrations()) + 1,)])

    def test_older_file_is_brought_up_to_date_and_keeps_what_it_has(self) -> None:
        self.opened_once()
        self.add_migration("ALTER TABLE clients ADD COLUMN extra TEXT;")
        self.assertEqual(self.clients(self.database()), ["1"])
        self.assertEqual(self.sql("SELECT extra FROM clients"), [(None,)])

    def test_one_that_fails_leaves_what_was_there(self) -> None:
        self.opened_once()
        dump = (
            self.sql("SELECT * FROM sqlite_schema"),
            self.sql("SELECT * FROM clients"),
        )
        self.add_migration(
            "DELETE FROM clients; DROP TABLE lives; CREATE TABLE clients (x);"
        )
        newer = self.database()
        self.assert_trouble("already exists", newer.open)
        newer.close()
        self.assertEqual(
            (
                self.sql("SELECT * FROM sqlite_schema"),
                self.sql("SELECT * FROM clients"),
            ),
            dump,
        )
        self.assertEqual(self.sql("PRAGMA user_version"), [(len(migrations()),)])

    def test_file_of_the_first_version_keeps_what_it_has_and_its_bounds(self) -> None:
        all_versions = migrations()
        self.patch(sqlite, "migrations", lambda: all_versions[:1])
        with closing(sqlite3.connect(self.path)) as connection:
            Database._migrate(connection)
        self.patch(sqlite, "migrations", lambda: all_versions)
        self.sql(
            "INSERT INTO graves VALUES ('1', 'a', '[]'), ('2', 'b', '[\"a\"]')",
            "INSERT INTO lives VALUES"
            " ('1', 1, 0.5, 1.5, 'kick', 'RUNNING', 3, 0.25),"
            " ('2', 2, 0.5, 1.5, 'kick', 'RUNNING', 3, 0.25)",
        )
        self.patch(rows, "MOST_LIVES", 2)
        database = Database(self.path, time.time, 2)
        self.addCleanup(database.close)
        told = database.open().instances_of_dead
        self.assertEqual(
            [(name, dead.instances) for name, dead in told.items()],
            [("1", Instances("a")), ("2", Instances("b", ("a",)))],
        )
        for dead in told.values():  # they are kept for a day from now
            self.assertLess(abs(dead.ended_at - time.time()), 600)
        database.write([death("3", life(3), instances=Instances("c"))])
        kept = [name for name in "123" if database.former_lives(name)]
        self.assertEqual(kept, ["2", "3"])
        database.close()
        self.assertEqual(list(database.open().instances_of_dead), ["2", "3"])

    def test_lives_of_an_older_file_got_as_far_as_the_state_they_ended_in(self) -> None:
        all_versions = migrations()
        self.patch(sqlite, "migrations", lambda: all_versions[:4])
        with closing(sqlite3.connect(self.path)) as connection:
            Database._migrate(connection)
        self.patch(sqlite, "migrations", lambda: all_versions)
        self.sql(
            "INSERT INTO lives VALUES"
            " ('1', 1, 0.5, 1.5, 'kick', 'RUNNING', 3, 0.25),"
            " ('1', 2, 0.5, 1.5, 'kick', 'UNCALIBRATED', 3, 0.25),"
            " ('1', 3, 0.5, 1.5, 'kick', 'CALIBRATED', 3, 0.25)",
        )
        lives = self.opened().former_lives("1")
        self.assertEqual([one.left_uncalibrated for one in lives], [True, False, True])

    def test_file_of_version_five_keeps_its_clients_lives_and_lockouts(self) -> None:
        all_versions = migrations()
        self.patch(sqlite, "migrations", lambda: all_versions[:5])
        with closing(sqlite3.connect(self.path)) as connection:
            Database._migrate(connection)
        self.patch(sqlite, "migrations", lambda: all_versions)
        self.sql(
            "INSERT INTO clients VALUES ('1', 101, 4, 'RUNNING', 'b', '[\"a\"]', 2.5,"
            " 1001.5, 1, 'CALIBRATED', 7, 0.25)",
            "INSERT INTO lives VALUES"
            " ('2', 102, 0.5, 1.5, 'kick', 'RUNNING', 3, 0.25, 1)",
            "INSERT INTO lockouts VALUES ('2', 2000.5)",
        )
        told = self.database().open()
        self.assertEqual(
            list(told.clients),
            [
                snapshot(
                    "1",
                    101,
                    sequence=4,
                    state=RUNNING,
                    instances=Instances("b", ("a",)),
                    fuse=2.5,
                    registered_at=1001.5,
                    has_reported=True,
                    reported_state=CALIBRATED,
                    beats=7,
                    longest_gap_seconds=0.25,
                    labels={},
                    state_since=1001.5,
                    silent_until=0.0,
                )
            ],
        )
        self.assertEqual(list(told.lockouts), [Lockout("2", 2000.5, by=None)])
        (gone,) = told.gone
        self.assertEqual((gone.life.labels, gone.life.by), ({}, None))

    def test_names_are_numbered_without_a_gap(self) -> None:
        folder = Path(sqlite.__file__).with_name("schema")
        names = sorted(file.name for file in folder.glob("*.sql"))
        numbers = [f"{number:04}.sql" for number in range(1, len(names) + 1)]
        self.assertEqual(names, numbers)
        self.assertEqual(len(migrations()), len(names))


class TestFileThatIsNotOurs(DatabaseTestCase):
    def test_file_of_a_newer_version(self) -> None:
        self.opened().close()
        self.sql(f"PRAGMA user_version = {len(migrations()) + 1}")
        self.assert_left_alone(f"version {len(migrations()) + 1}")

    def test_file_of_another_program(self) -> None:
        self.sql("CREATE TABLE theirs (x)")
        self.assert_left_alone("another program")

    def test_file_that_another_program_has_signed(self) -> None:
        self.sql("PRAGMA application_id = 7")
        self.assert_left_alone("another program")

    def test_file_in_which_another_program_keeps_its_version(self) -> None:
        self.sql("PRAGMA user_version = 1")
        self.assert_left_alone("another program")

    def test_text(self) -> None:
        self.path.write_text("[server]\n# this is no database\n" * 100)
        self.assert_left_alone("not a database")

    def test_file_that_was_cut_short(self) -> None:
        self.opened().close()
        whole = self.path.read_bytes()
        for length in (10, 100, 1000, 4096, len(whole) // 2, len(whole) - 4096):
            self.path.write_bytes(whole[:length])
            self.assert_left_alone("")

    def test_file_with_a_garbled_page(self) -> None:
        self.opened().close()
        whole = bytearray(self.path.read_bytes())
        for page in range(1, len(whole) // 4096):
            garbled = whole.copy()
            garbled[page * 4096 : page * 4096 + 512] = b"\xa5" * 512
            self.path.write_bytes(garbled)
            self.assert_left_alone("")

    def test_folder(self) -> None:
        self.path.mkdir()
        self.assert_trouble("", self.database().open)

    def test_file_of_a_single_byte(self) -> None:
        self.path.write_bytes(b"a")
        self.assert_left_alone("not a database")

    def test_file_that_is_gone_while_its_log_is_there(self) -> None:
        database = self.opened()
        database.write([registration("1", 101)])
        log = self.path.with_name(f"{self.path.name}-wal")
        kept = log.read_bytes()
        for cut_short in (True, False):
            whole = self.path.read_bytes()
            for file in self.path.parent.iterdir():
                if not file.name.endswith("-wal"):
                    file.unlink()
            database.close()
            log.write_bytes(kept)
            if cut_short:
                self.path.touch()
            refused = self.database()
            self.assert_trouble("write-ahead log", refused.open)
            refused.close()
            self.assertEqual(log.read_bytes(), kept)
            self.path.write_bytes(whole)
            database = self.database()
            self.assertEqual(self.clients(database), ["1"])

    def test_damaged_file_is_not_mended_by_its_log(self) -> None:
        self.opened().close()
        database = self.opened()
        database.write([registration("1", 101)])
        log = self.path.with_name(f"{self.path.name}-wal")
        kept, whole = log.read_bytes(), bytearray(self.path.read_bytes())
        database.close()
        damages = 0
        for page in range(1, len(whole) // 4096):
            damaged = whole.copy()
            damaged[page * 4096 : page * 4096 + 512] = b"\xa5" * 512
            self.path.write_bytes(damaged)
            log.write_bytes(kept)
            refused = self.database()
            try:
                refused.open()
            except StoreTrouble:
                damages += 1
                refused.close()
                self.assertEqual(self.path.read_bytes(), bytes(damaged))
                self.assertEqual(log.read_bytes(), kept)
            refused.close()  # a page of which the log has a newer one isn't missed
        self.assertGreater(damages, 0)

    def test_file_in_a_folder_that_is_not_there(self) -> None:
        self.path = self.path.parent / "nowhere" / "heartbeat.sqlite"
        self.assert_trouble("No such file or directory", self.database().open)
        self.path.parent.mkdir()
        self.opened()

    @skipIf(os.geteuid() == 0, "root may write to anything")
    def test_file_that_must_not_be_written_to(self) -> None:
        self.opened().close()
        self.path.chmod(0o400)
        self.assert_left_alone("readonly")

    @skipIf(os.geteuid() == 0, "root may write to anything")
    def test_folder_that_must_not_be_written_to(self) -> None:
        self.path.parent.chmod(0o500)
        self.addCleanup(self.path.parent.chmod, 0o700)
        self.assert_trouble("Permission denied", self.database().open)


class TestFileInUse(DatabaseTestCase):
    def test_second_service_is_refused_while_the_first_runs(self) -> None:
        first, second = self.opened(), self.database()
        self.assert_trouble("another heartbeat service", second.open)
        first.write([registration("1", 1)])
        first.close()
        self.assertEqual(self.clients(second), ["1"])

    def test_file_that_another_program_has_locked(self) -> None:
        self.opened().close()
        database = self.database()
        with self.locked():
            for _ in range(2):
                self.assert_trouble("locked", database.open)
        self.assertEqual(self.clients(database), [])

    def test_new_file_that_another_program_has_locked(self) -> None:
        self.path.touch()
        database = self.database()
        with self.locked():
            self.assert_trouble("locked", database.open)
        database.open()

    def test_file_that_is_locked_while_it_is_open(self) -> None:
        database = self.opened()
        with self.locked():
            self.assert_trouble("locked", database.write, [registration("1", 1)])
        database.write([registration("2", 2)])
        database.close()
        self.assertEqual(self.clients(database), ["2"])

    @contextmanager
    def locked(self):
        """Another program writes, and takes its time."""
        with closing(sqlite3.connect(self.path, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            yield
            other.execute("ROLLBACK")

    def test_reader_holds_up_nobody(self) -> None:
        database = self.opened()
        with closing(sqlite3.connect(self.path, isolation_level=None)) as other:
            other.execute("BEGIN")
            other.execute("SELECT * FROM clients").fetchall()
            database.write([registration("1", 1)])
            self.assertEqual(other.execute("SELECT * FROM clients").fetchall(), [])

    def test_log_that_grew_behind_a_reader_is_cut_when_the_reader_is_gone(self) -> None:
        moments = count(NOON)  # else a commit of nothing writes nothing
        database = Database(self.path, lambda: next(moments))
        self.addCleanup(database.close)
        database.open()
        log = Path(f"{self.path}-wal")
        with closing(sqlite3.connect(self.path, isolation_level=None)) as other:
            other.execute("BEGIN")
            other.execute("SELECT * FROM clients").fetchall()
            number = 0
            while log.stat().st_size < 2 * LOG_LIMIT:
                number += 1000
                many = range(number, number + 1000)
                database.write([registration(f"{n:064}", n) for n in many])
        for _ in range(2):
            database.write([])
        self.assertLessEqual(log.stat().st_size, LOG_LIMIT)
        self.assertEqual(
            len(rows.read(self.connection(database), NOON).clients), number
        )


class TestFileTakenAway(DatabaseTestCase):
    def setUp(self) -> None:
        """Begin with an open file that holds something."""
        super().setUp()
        self.open_one = self.opened()
        self.open_one.write([registration("1", 1)])

    def assert_never_acknowledged(self, reason: str = "") -> None:
        """No commit succeeds any more."""
        for facts in ([], [registration("2", 2)]):
            self.assert_trouble(reason, self.open_one.write, facts)

    def test_removed(self) -> None:
        self.path.unlink()
        self.assert_never_acknowledged("No such file")

    def test_replaced(self) -> None:
        other = self.path.with_name("other")
        shutil.copy(self.path, other)
        other.rename(self.path)
        self.assert_never_acknowledged("replaced")

    def test_cut_short(self) -> None:
        connection = self.connection(self.open_one)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self.open_one.write([])
        for length in (self.path.stat().st_size // 2, 0):
            os.truncate(self.path, length)
            self.assert_never_acknowledged("cut short")

    def test_made_smaller_by_a_vacuum_it_is_used_on(self) -> None:
        many = [registration(f"{n:064}", n) for n in range(2, 3000)]
        self.open_one.write(many)
        self.open_one.write([death(c.client_id, life(c.incarnation)) for c in many])
        self.sql("PRAGMA wal_checkpoint(TRUNCATE)")
        self.open_one.write([])
        before = self.path.stat().st_size
        for number, forget in enumerate(
            ("DELETE FROM lives WHERE rowid % 2", "DELETE FROM lives")
        ):
            self.sql(forget, "VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)")
            self.assertLess(self.path.stat().st_size, before)
            before = self.path.stat().st_size
            self.open_one.write([])
            self.open_one.write([registration(f"new-{number}", 4000 + number)])
        self.open_one.close()
        self.assertEqual(self.clients(self.open_one), ["1", "new-0", "new-1"])

    def test_cut_short_and_put_back_whole_it_is_used_on(self) -> None:
        self.sql("PRAGMA wal_checkpoint(TRUNCATE)")
        self.open_one.write([])
        whole = self.path.read_bytes()
        os.truncate(self.path, len(whole) // 2)
        self.assert_never_acknowledged("cut short")
        with self.path.open("r+b") as file:
            file.write(whole)
        self.open_one.write([registration("2", 2)])
        self.open_one.close()
        self.assertEqual(self.clients(self.open_one), ["1", "2"])

    def test_no_message_advises_to_remove_anything(self) -> None:
        spoilers: list[Callable[[], object]] = [
            Path(f"{self.path}-wal").unlink,
            Path(f"{self.path}-shm").unlink,
            partial(os.truncate, self.path, 4096),
            self.path.unlink,
        ]
        for spoil in spoilers:
            with self.subTest(spoil):
                self.open_one.close()
                for file in self.path.parent.iterdir():
                    file.unlink()
                self.open_one.open()
                self.open_one.write([registration("1", 1)])
                self.sql("PRAGMA wal_checkpoint(TRUNCATE)")
                self.open_one.write([])
                spoil()
                text = str(self.assertRaises(StoreTrouble, self.open_one.write, []))
                self.assertIn("put", text)
                self.assertNotRegex(text, "take away|delete|remove |give up")

    def test_without_its_log(self) -> None:
        Path(f"{self.path}-wal").unlink()
        self.assert_never_acknowledged("No such file")

    def test_during_a_commit(self) -> None:
        def write_and_remove(*args: Any) -> None:
            rows_write(*args)
            self.path.unlink()

        rows_write = rows.write
        self.patch(rows, "write", write_and_remove)
        self.assert_trouble("No such file", self.open_one.write, [registration("2", 2)])

    def test_moved_and_put_back(self) -> None:
        aside = self.path.with_name("aside")
        self.path.rename(aside)
        self.assert_trouble("No such file", self.open_one.write, [])
        aside.rename(self.path)
        self.open_one.write([registration("2", 2)])
        self.open_one.close()
        self.assertEqual(self.clients(self.open_one), ["1", "2"])


class TestCost(DatabaseTestCase):
    """Counted in steps of SQLite's machine, which are always the same."""

    def fill(self, database: Database, dead: int, lives: int, former: str) -> None:
        """Let it keep so many dead clients' instances, and so many former lives."""
        connection = self.connection(database)
        connection.execute(
            """
            WITH RECURSIVE number(n) AS (
                SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < ?
            )
            INSERT INTO lives SELECT
                'former ' || n, n, 0, 0, 'kick', 'RUNNING', 1, 0, 1, '{}', NULL
            FROM number
            """,
            (lives,),
        )
        connection.execute(
            "INSERT INTO dead_clients"
            " SELECT client_id, 'i', ?, registered_at FROM lives LIMIT ?",
            (former, dead),
        )

    most_dead = 10_000

    def steps_of_a_death(self, dead: int, lives: int, former: str = "[]") -> int:
        """The steps of a commit with one death, if so much is kept already."""
        path = folder_for(self) / "heartbeat.sqlite"
        database = Database(path, lambda: 0.0, self.most_dead)
        self.addCleanup(database.close)
        database.open()
        self.fill(database, dead, lives, former)
        database.write([registration("1", 10**6, instances=Instances("a"))])
        return self.steps(database, death("1", life(10**6), instances=Instances("a")))

    def steps(self, database: Database, fact: Fact) -> int:
        """The steps of a commit of that."""
        steps = 0

        def count() -> None:
            nonlocal steps
            steps += 1

        self.connection(database).set_progress_handler(count, 1)
        database.write([fact])
        self.connection(database).set_progress_handler(None, 1)
        return steps

    def test_death_costs_the_same_however_much_is_kept(self) -> None:
        few = self.steps_of_a_death(dead=10, lives=10)
        many = self.steps_of_a_death(dead=5_000, lives=50_000)
        self.assertEqual(many, few)

    def test_death_costs_the_same_however_much_is_kept_at_the_most(self) -> None:
        steps = []
        for dead, lives in ((10, 10), (5_000, 50_000)):
            self.most_dead = dead
            self.patch(rows, "MOST_LIVES", lives)
            steps.append(self.steps_of_a_death(dead, lives))
        self.assertEqual(steps[0], steps[1])

    def test_death_of_who_flaps_costs_the_same_however_often(self) -> None:
        steps = []
        for deaths in (100, 1_000):
            self.path = folder_for(self) / "heartbeat.sqlite"
            database = self.opened()
            for number in range(deaths):
                ended = life(number, left_uncalibrated=number % 2 == 0)
                database.write([death("1", ended)])
            steps.append(self.steps(database, death("1", life(10**6))))
        self.assertEqual(steps[0], steps[1])

    def test_so_does_a_death_for_which_nobody_makes_room(self) -> None:
        steps = []
        for dead in (10, 5_000):
            self.most_dead = dead
            steps.append(self.steps_of_a_death(dead, dead, '["former"]'))
        self.assertEqual(steps[0], steps[1])


class TestBatches(DatabaseTestCase):
    def test_each_size_of_a_batch_is_kept_whole(self) -> None:
        """Some statements write many rows, some one."""
        self.patch(rows, "ROWS", 3)
        for size in range(11):
            self.path = folder_for(self) / "heartbeat.sqlite"
            names = [str(number) for number in range(size)]
            born: list[Fact] = [registration(name, int(name)) for name in names]
            database = self.opened()
            database.write(born)
            database.close()
            self.assertEqual(self.clients(database), names)
            database.write([death(name, life(int(name))) for name in names])
            for name in names:
                self.assertEqual(database.former_lives(name), [life(int(name))])
            database.close()
            self.assertEqual(self.clients(database), [])


class TestFullDisk(DatabaseTestCase):
    def test_nothing_is_half_written_and_later_it_works_again(self) -> None:
        database = self.opened()
        database.write([registration("1", 1)])
        connection = self.connection(database)
        many: list[Fact] = [registration(f"{n:064}", n) for n in range(2, 500)]
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")
        for _ in range(2):
            self.assert_trouble("full", database.write, [death("1", life(1)), *many])
        self.assertEqual(database.former_lives("1"), [])
        connection.execute("PRAGMA max_page_count = 1000000")
        database.write(many)
        database.close()
        self.assertEqual(len(self.clients(database)), 1 + len(many))
