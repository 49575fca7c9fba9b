"""What the service asks of a store. Each implementation passes one test suite."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from twisted.internet.defer import Deferred, succeed

from heartbeat_service.core.changes import Fact, Life, Snapshot, StoredState

#: How many former lives of a client a store keeps: those that ended last, and besides
#: those that got beyond UNCALIBRATED and ended last. So a client that registers and
#: dies again and again doesn't push out the failure that it began with.
KEPT_LIVES = 20

#: How many former lives it keeps of all clients together: those that ended last.
MOST_LIVES = 200_000

#: How many of those who went it tells of when it is opened: of the last.
MOST_GONE = 10_000

#: It tells as well of the lives that ended within so many seconds, of the last of them.
LATELY = 3600.0
MOST_LATELY = 100_000

#: The most facts in one commit of a file; more would be written no faster.
LARGEST_BATCH = 1_000

#: For each client whose facts were refused, its record as the store has it, or None if
#: it doesn't live there. Whoever isn't in it was kept.
Refusals = Mapping[str, Snapshot | None]

#: Everything was kept.
NO_REFUSALS: Refusals = {}


class StoreTrouble(Exception):
    """The store can't do it now; the text says why, to people."""


class Hearer(Protocol):
    """Is told what a store hears that others write to as well, in the store's order."""

    def changed(self, fact: Fact) -> None:
        """Another node has changed a client."""

    def placed(self, client_ids: Iterable[str], here: bool) -> None:
        """Without a change, these clients beat at this node now, or no longer."""

    def lost(self, kept: Callable[[str], Snapshot | None]) -> None:
        """This node has lost its session: nothing that it hasn't kept may be kept.

        :param kept: what the store has of a client.
        """

    def in_touch(self, trouble: str | None) -> None:
        """Why nothing can be kept now; None if it can again."""


class Store(Protocol):
    """Keeps facts. Its methods are called from the reactor's thread.

    :ivar largest_batch: the most facts in one commit; more would be written no faster.
    :ivar is_shared: whether others write to it as well. Then a commit has one fact of
        each client only, and what a node alone knows of its clients ends with it.
    """

    largest_batch: int = LARGEST_BATCH
    is_shared: bool = False

    def catch_up(self) -> Deferred[None]:
        """Fires once all is told that others had written when it was asked.

        Fails with :class:`StoreTrouble` if that can't be had now.
        """
        return succeed(None)

    def listen(self, hearer: Hearer) -> None:  # noqa: ARG002 - for who is shared
        """Tell of what others write, from the opening on. Where nobody does, nothing.

        Nothing of a client is told between the moment when a commit of its facts fires
        and the next turn of the reactor.
        """
        return

    def beats_here(self, client_id: str) -> bool:
        """Whether a client beats at this node, as far as the store knows."""
        return bool(client_id)

    def open(self) -> Deferred[StoredState]:
        """Get ready, and tell what former runs have left.

        Fails with :class:`StoreTrouble`; it may be asked again then.
        """

    def commit(self, facts: Sequence[Fact]) -> Deferred[Refusals]:
        """Fires once ``facts`` are durable, also if there are none.

        A store that others write to as well may refuse all facts of a client, if that
        client's record is no longer the one that they follow from; it keeps the rest.

        Fails with :class:`StoreTrouble`; none of them is kept then, and the same
        ones may be handed over again. It is not called again before it has fired.
        """

    def former_lives(self, client_id: str) -> Deferred[list[Life]]:
        """The lives of a client that ended, as far as they are kept, newest first.

        These are the last :data:`KEPT_LIVES`, and as many that got beyond UNCALIBRATED.

        Fails with :class:`StoreTrouble`.
        """

    def close(self) -> Deferred[None]:
        """Let go. A store that is closed may be opened again."""


def incarnations_so_far(wall_clock: Callable[[], float]) -> int:
    """An incarnation that no former run has reached, as far as the clock can tell.

    Its microseconds: so incarnations grow also if what a store had kept is lost, as
    long as the machine's clock goes forward and fewer than a million clients
    register a second.

    :param wall_clock: seconds since the epoch.
    """
    return int(wall_clock() * 1_000_000)
