"""What signals do to a process that is still starting.

Changes it for the whole process. Imports next to nothing, as these come first: until
then Python ends at SIGINT with a traceback. Knows nothing of what is started.
"""

from __future__ import annotations

import signal


def end_by_interrupt() -> None:
    """Let SIGINT end the process like SIGTERM, at once and without a word.

    For a program, at its start: what comes later may stop more gently.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def outlive_hangup() -> None:
    """From now on no SIGHUP ends the process, whatever else it does or doesn't do.

    For a program, at its start: it covers the time before a service listens to
    SIGHUP, and the time after.
    """
    # Not SIG_IGN, which the programs that it starts would inherit.
    signal.signal(signal.SIGHUP, lambda _signal, _frame: None)
