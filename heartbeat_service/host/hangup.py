"""SIGHUP, as a word to a running service: read your files again."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

_log = Logger()


def on_hangup(
    reactor: Any, actions: Sequence[Callable[[], object]]
) -> Callable[[], None]:
    """Do all ``actions`` at each SIGHUP, one after the other, in another thread.

    In another, as to read thousands of files takes a second. So each of them has to
    put the new in the place of the old by one assignment. What is asked for while they
    are being done is done once more afterwards, however often it was asked for.

    Python takes signals in the main thread only: elsewhere this does nothing.

    :return: what puts the former handler back.
    """
    if threading.current_thread() is not threading.main_thread():
        return lambda: None
    gathered = _Gathered(reactor, actions)

    def handler(_signal: int, _frame: object) -> None:
        reactor.callFromThread(gathered.ask)

    former = signal.signal(signal.SIGHUP, handler)

    def put_back() -> None:
        if signal.getsignal(signal.SIGHUP) is handler:
            # None was not set by Python, and can't be set by it either.
            signal.signal(signal.SIGHUP, signal.SIG_DFL if former is None else former)

    return put_back


class _Gathered:
    """Does actions once for all who ask while they are being done."""

    def __init__(self, reactor: Any, actions: Sequence[Callable[[], object]]) -> None:
        self._reactor = reactor
        self._actions = actions
        self._asked = False
        self._busy = False

    def ask(self) -> None:
        """Have them done, from the beginning."""
        self._asked = True
        if not self._busy:
            self._busy = True
            Deferred.fromCoroutine(self._act())

    async def _act(self) -> None:
        while self._asked:
            self._asked = False
            for action in tuple(self._actions):
                try:
                    await deferToThreadPool(
                        self._reactor, self._reactor.getThreadPool(), action
                    )
                except Exception:  # noqa: BLE001 - the other ones are to be done
                    _log.failure("Something could not be read again")
        self._busy = False
