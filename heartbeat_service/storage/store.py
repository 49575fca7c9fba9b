"""What the service asks of a store. Each implementation passes one test suite."""

from __future__ import annotations

from typing import Protocol

from twisted.internet.defer import Deferred

from heartbeat_service.core.changes import Change, Life

#: How many former lives of a client a store keeps, at the least and at the most.
KEPT_LIVES = 20


class Store(Protocol):
    """Keeps changes. Its methods are called from the reactor's thread."""

    def open(self) -> Deferred[int]:
        """Get ready; fires with the last incarnation ever handed out."""

    def commit(self, change: Change) -> Deferred[None]:
        """Fires once ``change`` is durable; it never fails.

        A store that can't write keeps the change, tries again, and tells
        :meth:`trouble` of it. Changes become durable in the order they came.
        """

    def former_lives(self, client_id: str) -> Deferred[list[Life]]:
        """The last :data:`KEPT_LIVES` lives of a client that ended, newest first."""

    def trouble(self) -> str | None:
        """Why the store can't take a change now; None if it can."""

    def close(self) -> Deferred[None]:
        """Write what is left, and let go."""
