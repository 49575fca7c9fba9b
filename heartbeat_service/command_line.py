"""How each program here reads its command line.

Twisted's options, with three things of our own: what is wrong is said first, in a
sentence, and then how to get help; the version is this package's; a usage names the
program as it was started. Knows no option, and imports no reactor.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from twisted.python import usage
from typing_extensions import override

from heartbeat_service import __version__


class CommandLine(usage.Options):
    """The base of the options of each program.

    :cvar synopsis: what may stand behind the program's name.
    """

    synopsis = "[options]"

    @override
    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Take the arguments; ``sys.argv``'s, if there are none given.

        :raises SystemExit: with a sentence that names the option and what is allowed,
            and then how to get help. Status 1, as twistd has it for its own options.
        """
        try:
            super().parseOptions(options)
        except usage.UsageError as error:
            # Not left to twistd: it prints the whole usage before the reason.
            raise SystemExit(f"{error}\nHelp: {program()} --help") from None

    @override
    def parseArgs(self, *arguments: str) -> None:
        """Take what is no option: nothing, unless a program says more."""
        if arguments:
            raise usage.UsageError(f"expected options only, got {arguments[0]!r}")

    @override
    def opt_help(self) -> None:
        """Display this help and exit."""
        say(str(self))
        raise SystemExit(0)

    @override
    def opt_version(self) -> None:
        """Display the version of heartbeat-service and exit."""
        say(f"heartbeat-service {__version__}")
        raise SystemExit(0)

    @override
    def getSynopsis(self) -> str:
        """The first line of the usage."""
        return f"Usage: {program()} {self.synopsis}"


def say(text: str) -> None:
    """Print it at once.

    :raises SystemExit: with status 1, if it can't be: without a word if nobody reads.
    """
    # What can't be written here, such as a path that is no UTF-8, is escaped.
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    printable = text.encode(encoding, "backslashreplace").decode(encoding)
    try:
        print(printable, flush=True)
    except OSError as error:
        # Python would try again when it ends, and complain in its own way.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        nobody_reads = isinstance(error, BrokenPipeError)
        raise SystemExit(
            1 if nobody_reads else f"can't print: {error.strerror}"
        ) from None


def program() -> str:
    """The words that start this program, as far as its own options."""
    spec = sys.modules["__main__"].__spec__
    if spec is not None:  # python -m
        return f"python -m {spec.name.removesuffix('.__main__')}"
    name = Path(sys.argv[0]).name
    return f"{name} heartbeat" if name in {"twistd", "twist"} else name
