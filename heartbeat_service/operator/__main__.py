"""``heartbeatctl``: how the program begins and ends.

``python -m heartbeat_service.operator`` is the same. Each way to end has its exit
status (contract, section 6), and none of them a traceback.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports, which take their time
    from heartbeat_service.host.starting import end_by_interrupt

    end_by_interrupt()

import io
import os
import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from heartbeat_service.operator.commands import cli
from heartbeat_service.operator.options import NO_SERVER, REFUSED
from heartbeat_service.operator.server import NoServer, Refused
from heartbeat_service.operator.text import printable

if TYPE_CHECKING:
    import httpx

#: As shells tell of a program that a signal has ended: SIGINT, SIGTERM.
INTERRUPTED, TERMINATED = 130, 143


def run(arguments: Sequence[str], transport: httpx.BaseTransport | None = None) -> int:
    """Run a command; its exit status. Ends with 1 if nobody reads, as click has it.

    :param transport: takes the place of the network, in tests.
    """
    try:
        status: int = cli.main(
            list(arguments), "heartbeatctl", standalone_mode=False, obj=transport
        )
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except Refused as error:
        click.echo(printable(error), err=True)
        return REFUSED
    except NoServer as error:
        click.echo(printable(error), err=True)
        return NO_SERVER
    except OSError as error:  # of a disk that is full, say
        click.echo(f"can't print: {error.strerror}", err=True)
        return REFUSED
    except (KeyboardInterrupt, click.Abort):
        if sys.stderr.isatty():
            click.echo(err=True)  # the shell goes on in a line of its own
        return INTERRUPTED
    return status


def main() -> None:
    """Run the program."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what can't be written is escaped
            stream.reconfigure(errors="backslashreplace")
    # So that a terminal is left as it was found.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda _signal, _frame: sys.exit(TERMINATED))
    sys.exit(_printed(run(sys.argv[1:])))


def _printed(status: int) -> int:
    """The exit status, once all that was said has left; Python would try again."""
    try:
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not status:
            click.echo(f"can't print: {error.strerror}", err=True)
            return REFUSED
    return status


if __name__ == "__main__":
    main()
