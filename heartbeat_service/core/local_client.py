"""The server's picture of one living client.

Changes only in the registry's hands; knows nothing of transports or stores.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import define

from heartbeat_service.core.changes import Change, Life, Reason
from heartbeat_service.core.heartbeat import Heartbeat
from heartbeat_service.core.instances import Instances
from heartbeat_service.core.states import ClientState


@define(eq=False)
class LocalClient:
    """One life of one client, from its registration to its death.

    :ivar send_state: tells the world of a change; called after it was made.
    :ivar reported_state: what the client last said of itself; it decides nothing.
    :ivar has_reported: whether it has reported anything but DISCONNECTED.
    :ivar instances: which process it is, and which it was before.
    :ivar registered_at: seconds since the epoch, for people.
    """

    client_id: str
    incarnation: int
    heartbeat: Heartbeat
    send_state: Callable[[Change], None]
    registered_at: float
    reported_state: ClientState
    instances: Instances
    state: ClientState = ClientState.UNCALIBRATED
    sequence: int = 1
    has_reported: bool = False

    def report(self, state: ClientState) -> None:
        """Note what the client says of itself."""
        self.reported_state = state
        if state is not ClientState.DISCONNECTED:
            self.has_reported = True

    def set_state(self, state: ClientState, reason: Reason) -> None:
        """Enter another state of this life, and say so."""
        previous, self.state = self.state, state
        self.sequence += 1
        self.send_state(self._change(previous, reason))

    def register(self, reason: Reason, former: Life | None = None) -> None:
        """Say that this life has begun.

        :param former: the life of the same client that ended with it.
        """
        previous = ClientState.DISCONNECTED if former is None else former.last_state
        self.send_state(self._change(previous, reason, former))

    def die(self, reason: Reason, now: float) -> None:
        """End this life, and say so.

        :param now: seconds since the epoch, for people.
        """
        life = self.life(reason, now)
        self.state = ClientState.DISCONNECTED
        self.sequence += 1
        self.send_state(self._change(life.last_state, reason, life))

    def life(self, reason: Reason | None = None, ended_at: float | None = None) -> Life:
        """This life as a fact; without arguments, as one that still lasts."""
        return Life(
            incarnation=self.incarnation,
            registered_at=self.registered_at,
            ended_at=ended_at,
            reason=reason,
            last_state=self.state,
            beats=self.heartbeat.beats,
            longest_gap_seconds=self.heartbeat.longest_gap,
        )

    def _change(
        self, previous: ClientState, reason: Reason, ended: Life | None = None
    ) -> Change:
        return Change(
            client_id=self.client_id,
            state=self.state,
            previous_state=previous,
            reason=reason,
            sequence=self.sequence,
            incarnation=self.incarnation,
            ended=ended,
        )
