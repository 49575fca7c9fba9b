"""On which terms an operator's order is carried out on a client (contract, section 3).

The registry looks at them right before the change, so that nothing comes between. Knows
one client, as it is now, and nothing of the order.
"""

from __future__ import annotations

from collections.abc import Collection

from attrs import frozen

from heartbeat_service.core.errors import IllegalTransition, StaleSequence
from heartbeat_service.core.local_client import LocalClient
from heartbeat_service.core.states import ClientState


@frozen
class Terms:
    """What must hold of a client, or it is left alone.

    :ivar states: those that it may be in; None for any.
    :ivar expected: its incarnation and sequence; None for any.
    :ivar dry_run: nothing is done, it is only told what would be.
    """

    states: Collection[ClientState] | None = None
    expected: tuple[int, int] | None = None
    dry_run: bool = False

    def check(self, client_id: str, client: LocalClient | None) -> None:
        """Pass if they hold.

        :param client: None if it isn't here: it is DISCONNECTED, and has gone on.
        :raises StaleSequence: if the client has gone on since.
        :raises IllegalTransition: if it is in another state.
        """
        if self.expected is not None:
            self._check_point(client_id, client, self.expected)
        state = ClientState.DISCONNECTED if client is None else client.state
        if self.states is not None and state not in self.states:
            wanted = ", ".join(state.value for state in self.states)
            raise IllegalTransition(
                f"it is {state.value}, and the order is for {wanted}", client_id
            )

    def _check_point(
        self, client_id: str, client: LocalClient | None, expected: tuple[int, int]
    ) -> None:
        present = None if client is None else (client.incarnation, client.sequence)
        if present != expected:
            where = "isn't here" if present is None else f"is at {list(present)}"
            raise StaleSequence(
                f"it has gone on: it {where}, and {list(expected)} was expected",
                client_id,
            )


#: Whatever the client is and does.
ANY = Terms()
