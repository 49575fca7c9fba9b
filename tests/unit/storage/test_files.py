"""One store has one service, by whatever name it is reached, and stays its own."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

from twisted.logger import capturedLogs, formatEvent

from heartbeat_service.storage.files import Files
from heartbeat_service.storage.sqlite import Database
from tests.unit.storage.store_suite import registration
from tests.unit.storage.test_sqlite import NOON, DatabaseTestCase

#: Opens databases as services do, and says what came of each.
_OPEN = """
import sys
from pathlib import Path
from heartbeat_service.storage.sqlite import Database

for path in sys.argv[1:]:
    try:
        Database(Path(path), lambda: 0.0).open()
        print("opened")
    except Exception as error:  # the test reads what it was
        print(error)
"""


def opened_by_another_process(*paths: Path) -> list[str]:
    """What a second service says when it opens each of those files."""
    done = subprocess.run(
        [sys.executable, "-c", _OPEN, *paths],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.splitlines()


class TestNames(DatabaseTestCase):
    def setUp(self) -> None:
        """Begin with an open file that holds something."""
        super().setUp()
        self.first = self.opened()
        self.first.write([registration("1", 1)])

    def other_name(self, name: str = "other.sqlite") -> Path:
        """Where another name of the file would be."""
        folder = self.path.parent / "elsewhere"
        folder.mkdir(exist_ok=True)
        return folder / name

    def assert_taken(self, *names: Path) -> None:
        """No second service can open it, in this process or in another.

        A refusal must not free it either: so each is tried before and after the other.
        """
        for name in names:
            self.assert_taken_here(name)
        for name, said in zip(
            names * 2, opened_by_another_process(*names * 2), strict=True
        ):
            self.assertIn("another heartbeat service", said, name)
        for name in names:
            self.assert_taken_here(name)
        self.first.write([registration("2", 2)])

    def assert_taken_here(self, name: Path) -> None:
        """Nor can this process open it once more."""
        with self.assertRaisesRegex(Exception, "another heartbeat service"):
            self.database(name).open()

    def test_symbolic_link_leads_to_the_file_that_is_taken(self) -> None:
        link, further = self.other_name(), self.other_name("further.sqlite")
        link.symlink_to(self.path)
        further.symlink_to(link)
        self.assert_taken(link, further)

    def test_link_to_its_folder_leads_to_the_file_that_is_taken(self) -> None:
        folder = self.other_name("folder")
        folder.symlink_to(self.path.parent)
        self.assert_taken(folder / self.path.name)

    def test_hard_link_is_the_file_that_is_taken(self) -> None:
        self.other_name().hardlink_to(self.path)
        self.assert_taken(self.other_name())

    def test_no_file_beside_it_can_be_removed_to_get_in(self) -> None:
        """As it was with a file for the lock alone."""
        needed = {f"{self.path.name}{end}" for end in ("", "-wal", "-shm")}
        for file in self.path.parent.iterdir():
            if file.name not in needed:
                file.unlink()
        self.assert_taken(self.path)

    def test_file_that_was_closed_may_be_opened_by_another_process(self) -> None:
        self.first.close()
        self.assertEqual(opened_by_another_process(self.path), ["opened"])

    def test_refused_service_takes_no_lock_of_the_first_away(self) -> None:
        """An outsider that closes the file would else write and remove the log."""
        with self.assertRaisesRegex(Exception, "another heartbeat service"):
            self.database().open()
        script = (
            "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]);"
            " c.execute('SELECT * FROM clients').fetchall(); c.close()"
        )
        subprocess.run([sys.executable, "-c", script, self.path], check=True)
        self.assertTrue(Path(f"{self.path}-wal").exists())
        self.first.write([registration("2", 2)])

    def test_second_name_is_refused_as_the_log_may_lie_beside_the_first(self) -> None:
        self.first.close()
        self.other_name().hardlink_to(self.path)
        for name in (self.path, self.other_name()):
            with self.assertRaisesRegex(Exception, "more than one name"):
                self.database(name).open()
        self.other_name().unlink()
        self.assertEqual(self.clients(self.database()), ["1"])

    def test_file_is_found_through_a_link_and_made_where_it_leads(self) -> None:
        link, target = self.other_name(), self.other_name("target.sqlite")
        link.symlink_to(target)
        database = self.database(link)
        database.open()
        database.write([registration("7", 7)])
        self.assertTrue(Path(f"{target}-wal").exists())
        database.close()
        self.assertEqual(self.clients(self.database(target)), ["7"])


class TestTakenAwayBehindALink(DatabaseTestCase):
    def setUp(self) -> None:
        """Begin with a file that was opened through a link."""
        super().setUp()
        self.link = self.path.with_name("link.sqlite")
        self.link.symlink_to(self.path)
        self.database_ = self.database(self.link)
        self.database_.open()
        self.database_.write([registration("1", 1)])

    def refusal(self) -> str:
        """Why it takes no change any more."""
        with self.assertRaises(Exception) as raised:
            self.database_.write([registration("2", 2)])
        return str(raised.exception)

    def test_removed_log(self) -> None:
        Path(f"{self.path}-wal").unlink()
        self.assertIn("heartbeat.sqlite-wal: No such file", self.refusal())

    def test_removed_index(self) -> None:
        Path(f"{self.path}-shm").unlink()
        self.assertIn("heartbeat.sqlite-shm: No such file", self.refusal())

    def test_link_that_leads_to_another_file(self) -> None:
        other = Database(self.path.with_name("other.sqlite"), lambda: NOON)
        other.open()
        other.close()
        self.link.unlink()
        self.link.symlink_to("other.sqlite")
        self.assertIn("replaced", self.refusal())

    def test_what_was_in_a_removed_log_is_kept_by_a_clean_stop(self) -> None:
        """So the message that advises to stop loses nothing."""
        Path(f"{self.path}-wal").unlink()
        self.assertIn("SIGTERM", self.refusal())
        self.database_.close()
        self.assertIn("1", self.clients(self.database()))


class TestModes(DatabaseTestCase):
    def modes(self) -> dict[str, int]:
        """The mode of each file."""
        return {
            file.name: stat.S_IMODE(file.stat().st_mode)
            for file in self.path.parent.iterdir()
        }

    def all_private(self) -> dict[str, int]:
        """What the modes should be."""
        return {f"{self.path.name}{end}": 0o600 for end in ("", "-wal", "-shm")}

    def test_whatever_is_made_can_be_opened_by_its_owner_alone(self) -> None:
        self.addCleanup(os.umask, os.umask(0))
        self.opened()
        self.assertEqual(self.modes(), self.all_private())

    def test_files_that_others_could_open_are_narrowed(self) -> None:
        self.opened().close()
        database = self.opened()
        copies = {file: file.read_bytes() for file in self.path.parent.iterdir()}
        database.close()
        for file, content in copies.items():
            file.write_bytes(content)  # as a kill leaves them
            file.chmod(0o664)
        self.opened()
        self.assertEqual(self.modes(), self.all_private())

    def test_what_was_narrowed_is_told_once_however_often_it_is_tried(self) -> None:
        files = Files(self.path)
        with capturedLogs() as log:
            for _ in range(3):
                self.path.touch()
                self.path.chmod(0o644)
                files.claim()
                files.release()
        told = [formatEvent(event) for event in log]
        self.assertEqual(told, ["heartbeat.sqlite had the mode 0644: now 0600"])

    def test_link_beside_it_is_not_followed(self) -> None:
        self.opened().close()
        victim = self.path.with_name("victim")
        victim.write_bytes(b"")
        victim.chmod(0o644)
        for end in ("-wal", "-shm"):
            link = Path(f"{self.path}{end}")
            link.symlink_to(victim)
            self.assert_trouble("symbolic link", self.database().open)
            link.unlink()
        self.assertEqual(victim.read_bytes(), b"")
        self.assertEqual(stat.S_IMODE(victim.stat().st_mode), 0o644)

    def test_other_file_is_not_written_to_by_a_hard_link_beside_it(self) -> None:
        self.opened().close()
        victim = self.path.with_name("victim")
        victim.write_bytes(b"precious" * 1000)
        victim.chmod(0o644)
        for end in ("-wal", "-shm"):
            link = Path(f"{self.path}{end}")
            link.hardlink_to(victim)
            self.assert_trouble(
                f"{link.name} is not a file of its", self.database().open
            )
            self.assertEqual(victim.read_bytes(), b"precious" * 1000)
            self.assertEqual(self.modes()["victim"], 0o644)
            link.unlink()
        self.opened().write([registration("1", 1)])

    def test_pipe_beside_it_is_left_as_it_is(self) -> None:
        self.opened().close()
        for end in ("-wal", "-shm"):
            pipe = Path(f"{self.path}{end}")
            os.mkfifo(pipe)
            self.assert_trouble(
                f"{pipe.name} is not a file of its", self.database().open
            )
            self.assertTrue(pipe.is_fifo())
            pipe.unlink()

    def test_pipe_is_refused_and_not_waited_for(self) -> None:
        os.mkfifo(self.path)
        self.assert_trouble("not a regular file", self.database().open)
