"""Whether the store can keep changes now: patience with it, and trying again.

While it can't, the store is in trouble: what would change a client is refused, and what
was asked of the store is asked again. Knows nothing of what is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger

from heartbeat_service.core.errors import Overloaded
from heartbeat_service.storage.store import StoreTrouble

T = TypeVar("T")

#: A store that takes longer than this to answer is in trouble, in seconds.
PATIENCE = 5.0

#: How long a store in trouble is left alone before it is asked again, in seconds.
PAUSE = 0.5


class Availability:
    """Asks the store, and knows whether it is in trouble.

    :param clock: for patience and pauses: a :class:`ListeningClock`, so that a store
        isn't blamed for a stall, or any other with ``callLater``.
    :param on_trouble: called each time that the store turns out to be in trouble.
    :param tell: hears why it is in trouble, and None when that is over; each once.
    :ivar trouble: why no change can be made durable now; None if it can.
    """

    _log = Logger()

    def __init__(
        self,
        clock: Any,
        on_trouble: Callable[[], object],
        tell: Callable[[str | None], object] = lambda _: None,
    ) -> None:
        self.trouble: str | None = "the store is not open yet"
        self._clock = clock
        self._on_trouble = on_trouble
        self._tell = tell
        self._troubled_since: float | None = None

    def admit(self) -> None:
        """Pass if a change can be made durable now.

        :raises Overloaded: if it can't.
        """
        if self.trouble is not None:
            raise self.overloaded()

    def overloaded(self) -> Overloaded:
        """What is told to whoever asks for a change that can't be kept."""
        return Overloaded(f"Nothing can be kept now: {self.trouble}")

    def set(self, trouble: str | None) -> None:
        """The store says so by itself, before it is asked.

        :param trouble: why nothing can be kept; None if it can again.
        """
        if trouble is None:
            self._leave()
        else:
            self._enter(trouble)

    def close(self) -> None:
        """From now on nothing is kept."""
        self.trouble = "the store is closed"

    async def insist(self, ask: Callable[[], Deferred[T]]) -> T:
        """Ask the store until it answers; what it answers."""
        while True:
            try:
                return await self.attempt(ask)
            except StoreTrouble:
                await deferLater(self._clock, PAUSE)

    async def attempt(self, ask: Callable[[], Deferred[T]]) -> T:
        """Ask the store once; what it answers.

        :raises StoreTrouble: if it fails, in whatever way.
        """
        asked = ask()
        slow = None
        if not asked.called:
            slow = self._clock.callLater(
                PATIENCE, self._enter, f"no answer from the store in {PATIENCE:g} s"
            )
        try:
            answer = await asked
        except CancelledError:
            raise
        except StoreTrouble as error:
            self._enter(str(error))
            raise
        except Exception as error:  # a defect of the store must not end the service
            if self._troubled_since is None:
                self._log.failure("The store failed")
            self._enter(f"the store failed: {error!r}")
            raise StoreTrouble(self.trouble) from error
        finally:
            if slow is not None and slow.active():
                slow.cancel()
        self._leave()
        return answer

    def _enter(self, reason: str) -> None:
        self.trouble = reason
        if self._troubled_since is None:
            self._troubled_since = self._clock.seconds()
            self._log.error(
                "No change is accepted until the store can keep it: {reason}",
                reason=reason,
            )
            self._tell(reason)
        self._on_trouble()

    def _leave(self) -> None:
        self.trouble = None
        if self._troubled_since is not None:
            seconds = self._clock.seconds() - self._troubled_since
            self._troubled_since = None
            self._log.info(
                "The store keeps changes again, after {seconds:.1f} s", seconds=seconds
            )
            self._tell(None)
