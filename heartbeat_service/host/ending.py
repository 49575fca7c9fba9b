"""How the process ends: at the first signal, and with a status that tells a failure.

Changes both for the whole process. Knows nothing of what is stopped.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from heartbeat_service.host.starting import end_by_interrupt


def stop_once(reactor: Any) -> None:
    """Let the first SIGINT or SIGTERM stop ``reactor``, and no other do anything.

    Twisted would stop it again with each, and log a traceback. Before it runs, both end
    the process at once.
    """
    end_by_interrupt()
    stopping = False

    def begin() -> None:
        nonlocal stopping
        stopping = True

    def listen() -> None:
        # Twisted's own handler, which it doesn't set where there is another one.
        signal.signal(signal.SIGINT, lambda *args: first(reactor.sigInt, *args))
        signal.signal(signal.SIGTERM, lambda *args: first(reactor.sigTerm, *args))

    def first(stop: Callable[..., object], *args: object) -> None:
        if not stopping:
            begin()
            stop(*args)

    reactor.callWhenRunning(listen)  # Twisted sets its own before that
    reactor.addSystemEventTrigger("before", "shutdown", begin)


def fail_at_exit(failed: Callable[[], bool]) -> None:
    """Let the process end with status 1 if it has ``failed`` by then.

    twistd ends with 0 whenever its reactor was stopped, and has no way to say
    another. So this comes last, when twistd has tidied up.
    """

    def end() -> None:
        if failed():
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(1)

    atexit.register(end)
