"""SIGHUP, as a word to a running service: read your files again."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Sequence
from typing import Any

from twisted.logger import Logger

_log = Logger()


def on_hangup(
    reactor: Any, actions: Sequence[Callable[[], object]]
) -> Callable[[], None]:
    """Do all ``actions`` at each SIGHUP, in the reactor's own time.

    Also if there are none: SIGHUP ends a process that doesn't know what to do with it.

    Python takes signals in the main thread only: elsewhere this does nothing.

    :return: what puts the former handler back.
    """
    if threading.current_thread() is not threading.main_thread():
        return lambda: None

    def act() -> None:
        for action in actions:
            try:
                action()
            except Exception:  # noqa: BLE001 - the other ones are to be done
                _log.failure("Something could not be read again")

    former = signal.signal(
        signal.SIGHUP, lambda _signal, _frame: reactor.callFromThread(act)
    )

    def put_back() -> None:
        # None was not set by Python, and can't be set by it either.
        signal.signal(signal.SIGHUP, signal.SIG_DFL if former is None else former)

    return put_back
