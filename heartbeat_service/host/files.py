"""Reads small files that people have put there: tokens, keys, a configuration.

Only regular files, and of those no more than :data:`LARGEST` bytes: whoever opens a
named pipe waits until somebody writes into it, and a device may never end. Knows
nothing of what is in them.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from twisted.logger import Logger

#: The largest file that is read, in bytes: 100,000 tokens fit in.
LARGEST = 16 * 1024 * 1024

_log = Logger()


class UnreadableFile(ValueError):
    """A file that isn't read; the text says why, and not what it is called."""


def read_file(path: str | Path) -> bytes:
    """What is in a regular file.

    :raises UnreadableFile: if it can't be read, or is none, or is too large.
    """
    return _read(path)[0]


def read_secret(path: str | Path) -> bytes:
    """What is in a regular file that nobody else should read or write.

    If others may, the log has a warning. It isn't refused, since pyzmq itself makes
    its key files like that.

    :raises UnreadableFile: as :func:`read_file`.
    """
    content, status = _read(path)
    # As PostgreSQL has it for its keys: a group may read only what is root's.
    if status.st_mode & (0o027 if status.st_uid == 0 else 0o077):
        _log.warn(
            "others may read or change {path}, {mode}: let only its owner",
            path=str(path),
            mode=stat.filemode(status.st_mode),
        )
    return content


def _read(path: str | Path) -> tuple[bytes, os.stat_result]:
    try:
        # A pipe without a writer is opened at once then, rather than waited for.
        opened = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        with os.fdopen(opened, "rb") as file:
            status = os.fstat(opened)
            if not stat.S_ISREG(status.st_mode):
                raise UnreadableFile("not a regular file")
            content = file.read(LARGEST + 1)
    except OSError as error:
        raise UnreadableFile(error.strerror) from None
    if len(content) > LARGEST:
        raise UnreadableFile(f"larger than {LARGEST} bytes")
    return content, status
