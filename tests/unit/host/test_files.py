"""Which files are read, and which of them are warned of; real files."""

from __future__ import annotations

import os
import socket

from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from heartbeat_service.host.files import LARGEST, UnreadableFile, read_file, read_secret
from tests.unit.fakes import folder_for


class TestFiles(SynchronousTestCase):
    def setUp(self) -> None:
        """A file that nobody else may read."""
        self.folder = folder_for(self)
        self.path = self.folder / "tokens"
        self.path.touch(0o600)
        self.path.write_bytes(b"sesame\n")

    def refused(self, path: object, why: str) -> None:
        """It isn't read, at once; and the reason names no file."""
        for read in (read_file, read_secret):
            with self.assertRaisesRegex(UnreadableFile, why) as caught:
                read(str(path))
            self.assertNotIn(str(path), str(caught.exception))

    def test_regular_file_is_read_also_by_another_name(self) -> None:
        link = self.folder / "link"
        link.symlink_to(self.path)
        self.assertEqual(read_file(self.path), b"sesame\n")
        self.assertEqual(read_secret(str(link)), b"sesame\n")

    def test_pipe_is_refused_whether_or_not_somebody_writes_into_it(self) -> None:
        pipe = self.folder / "pipe"
        os.mkfifo(pipe)
        self.refused(pipe, "^not a regular file$")
        both = os.open(pipe, os.O_RDWR)
        self.addCleanup(os.close, both)
        os.write(both, b"sesame\n")
        self.refused(pipe, "^not a regular file$")

    def test_device_socket_and_folder_are_refused(self) -> None:
        self.refused("/dev/zero", "^not a regular file$")
        self.refused(self.folder, "directory|not a regular file")
        listening = socket.socket(socket.AF_UNIX)
        self.addCleanup(listening.close)
        listening.bind(str(self.folder / "socket"))
        self.refused(self.folder / "socket", "No such device or address")

    def test_missing_file_is_refused(self) -> None:
        self.refused(self.folder / "missing", "^No such file or directory$")

    def test_file_is_read_up_to_its_limit(self) -> None:
        self.path.write_bytes(b"x" * LARGEST)
        self.assertEqual(len(read_secret(self.path)), LARGEST)
        self.path.write_bytes(b"x" * (LARGEST + 1))
        self.refused(self.path, f"^larger than {LARGEST} bytes$")

    def test_secret_that_others_may_read_or_change_is_warned_of(self) -> None:
        for mode in (0o604, 0o644, 0o602, 0o620, 0o660):
            self.path.chmod(mode)
            with capturedLogs() as log:
                self.assertEqual(read_secret(self.path), b"sesame\n")
            [event] = log
            self.assertIn("others may read or change", event["log_format"])
            self.assertEqual(event["path"], str(self.path))
            self.assertNotIn("sesame", repr(event))

    def test_secret_of_its_owner_alone_is_not_warned_of_nor_is_what_is_none(self):
        with capturedLogs() as log:
            for mode in (0o400, 0o600):
                self.path.chmod(mode)
                read_secret(self.path)
            self.path.chmod(0o666)
            read_file(self.path)
        self.assertEqual(len(log), 0)
