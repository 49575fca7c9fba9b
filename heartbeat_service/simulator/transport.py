"""The port through which simulated clients reach a service, on sockets or without."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from attrs import frozen

from heartbeat_service.protocol.messages import Reply, Request


@frozen
class NoAnswer:
    """There was none in time, or none that makes sense; ``why``, for people."""

    why: str


#: Hears what came of a request, once.
Answered = Callable[[Reply | NoAnswer], None]


class Transport(Protocol):
    """A way to a service for one client."""

    def send(
        self, request: Request, request_id: str, patience: float, answered: Answered, /
    ) -> None:
        """Send it.

        :param request_id: goes with it.
        :param patience: seconds after which there is no answer.
        """
