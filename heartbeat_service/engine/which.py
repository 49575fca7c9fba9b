"""Which clients an operator asks for: by ID, state, labels and lateness.

A listing looks at each client before it makes its record, which takes longer. Knows no
registry and no route.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from attrs import frozen

from heartbeat_service.core.states import ClientState

#: Labels, each a name and a value, of which one is meant: in ``NAME:VALUE`` both may
#: have colons of their own.
AnyOf = Collection[tuple[str, str]]


def has_labels(labels: Mapping[str, str], wanted: Collection[AnyOf]) -> bool:
    """Whether somebody with these labels has all that are wanted."""
    return all(any(labels.get(name) == v for name, v in one) for one in wanted)


@frozen
class Which:
    """Those for whom all of this holds.

    :ivar prefix: their IDs begin so.
    :ivar state: they are in it; None for any.
    :ivar label: they have each of these.
    :ivar late: whether they are late; None for both.
    """

    prefix: str = ""
    state: ClientState | None = None
    label: Collection[AnyOf] = ()
    late: bool | None = None

    def has(
        self, state: ClientState, labels: Mapping[str, str], late: bool | None
    ) -> bool:
        """Whether a client is one of them whose ID begins so.

        :param late: None if that isn't known here: then it may be.
        """
        return (
            self.state in (None, state)
            and (late is None or self.late in (None, late))
            and has_labels(labels, self.label)
        )


#: Everybody.
EVERYBODY = Which()
