"""A database's file and those that SQLite lays beside it: ours alone, and still there.

The file itself is locked, and not a name of it; so a second service is kept off by
whatever path it comes. What is written to a file that was removed or replaced is gone
with the process; so that is looked for around each commit. Knows nothing of what is in
the files.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from twisted.logger import Logger

_Identity = tuple[int, int]

#: Nobody but the owner may open them: who may read them may lock them, too, and with
#: a lock on the ``-shm`` stop all changes.
PRIVATE = 0o600

_TAKEN = "another heartbeat service uses it"

#: The files that this process has locked. They must not be opened a second time: to
#: close any descriptor of a file takes away the process's POSIX locks, which SQLite
#: has on it (close(2), fcntl(2)).
_ours: set[_Identity] = set()


class Files:
    """The file of a database, its write-ahead log, and its index.

    :param given: the path by which it is known; may lead through links.
    """

    _log = Logger()

    def __init__(self, given: Path) -> None:
        self._given = given.absolute()
        self._lock: int | None = None
        self._known: dict[Path, _Identity] = {}
        # A store that can't be opened is tried twice a second, perhaps all night.
        self._told: set[str] = set()

    def claim(self) -> Path:
        """Lock the file; make it if it isn't there. Its path, without links.

        :raises ValueError: if it must not be used.
        :raises OSError: if it can't be.
        """
        path = Path(os.path.realpath(self._given))
        self._expect_no_log_alone(path)
        if path.exists() and _identity(path.stat()) in _ours:
            raise ValueError(_TAKEN)
        lock = _open(path, os.O_CREAT)
        try:
            identity = self._take(lock)
            self._narrow(lock, path)
            for file in _beside(path):
                self._narrow_beside(file)
        except BaseException:  # whatever it was, the lock is given back
            os.close(lock)
            raise
        self._lock = lock
        self._known = {path: identity, self._given: identity}
        _ours.add(identity)
        return path

    def remember(self, path: Path) -> None:
        """From now on, those beside it are expected to stay, too."""
        self._known |= {file: _identity(file.stat()) for file in _beside(path)}

    def expect_same(self) -> int:
        """Find out whether somebody has taken one away; the size of the file, in bytes.

        :raises ValueError: if so.
        """
        sizes = {}
        for file, known in self._known.items():
            try:
                status = file.stat()
            except FileNotFoundError as error:
                raise ValueError(self._missed(file, error.strerror)) from error
            if _identity(status) != known:
                raise ValueError(self._missed(file, "it was replaced"))
            sizes[file] = status.st_size
        return sizes[self._given]

    def release(self) -> None:
        """Let it go; SQLite must have let it go before."""
        lock, self._lock = self._lock, None
        if lock is not None:
            _ours.discard(_identity(os.fstat(lock)))
            os.close(lock)

    @staticmethod
    def _take(lock: int) -> _Identity:
        status = os.fstat(lock)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it is not a regular file")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ValueError(_TAKEN) from error
        if status.st_nlink != 1:  # SQLite finds the log by the file's name
            raise ValueError(
                "it has more than one name (hard links); leave it the one beside"
                " which its write-ahead log lies"
            )
        return _identity(status)

    @staticmethod
    def _expect_no_log_alone(path: Path) -> None:
        log, _ = _beside(path)
        size = path.stat().st_size if path.exists() else 0
        if size == 0 and log.exists() and log.stat().st_size > 0:
            raise ValueError(
                "its write-ahead log is there, but nothing of itself; put the file"
                " back beside its log"
            )

    def _missed(self, file: Path, what: str | None) -> str:
        return (
            f"{file.name}: {what}; put the former one back. If it is gone for good,"
            " stop the service by SIGTERM: it writes what it can still read of a"
            f" removed log into {self._given.name}"
        )

    def _narrow_beside(self, file: Path) -> None:
        with suppress(FileNotFoundError):
            descriptor = _open(file)
            try:
                status = os.fstat(descriptor)
                if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
                    raise ValueError(
                        f"{file.name} is not a file of its own (a hard link, a pipe):"
                        " what is written there might be lost, or overwrite another's"
                    )
                self._narrow(descriptor, file)
            finally:
                os.close(descriptor)

    def _narrow(self, descriptor: int, file: Path) -> None:
        mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
        if mode & ~PRIVATE == 0:
            return
        try:
            os.fchmod(descriptor, mode & PRIVATE)
        except PermissionError:
            self._tell_once(
                self._log.warn,
                f"{file.name} can be opened by others, who can stop all changes by a"
                " lock: it should have the mode 0600, and belong to the service's user",
            )
        else:
            sentence = f"{file.name} had the mode {mode:04o}: now 0600"
            self._tell_once(self._log.info, sentence)

    def _tell_once(self, log: Callable[..., None], sentence: str) -> None:
        if sentence not in self._told:
            self._told.add(sentence)
            log("{sentence}", sentence=sentence)


def _beside(path: Path) -> tuple[Path, Path]:
    return Path(f"{path}-wal"), Path(f"{path}-shm")


def _open(file: Path, more: int = 0) -> int:
    # Without write access, so that one that must not be written to is told as such;
    # and never waiting for the other end of a pipe.
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | more
    return os.open(file, flags, PRIVATE)


def _identity(status: os.stat_result) -> _Identity:
    return status.st_dev, status.st_ino
