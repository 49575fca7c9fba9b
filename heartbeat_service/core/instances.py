"""Which process a client is, and which ones it was before (contract, section 2).

Knows nothing of lives, states or time.
"""

from __future__ import annotations

from msgspec import Struct

#: How many former instances of a client are remembered.
REMEMBERED_INSTANCES = 8


class Instances(Struct, frozen=True, gc=False):
    """The processes behind one client ID.

    :ivar present: the instanceID of the present life; None if it has none.
    :ivar former: those that were superseded, latest last.
    """

    present: str | None = None
    former: tuple[str, ...] = ()

    def succeeded_by(self, instance_id: str | None) -> Instances:
        """The same client in a new life, begun by that process."""
        if self.present == instance_id:
            return self
        if self.present is None:
            return Instances(instance_id, self.former)
        former = (*self.former, self.present)
        return Instances(instance_id, former[-REMEMBERED_INSTANCES:])


#: Those of a client that names none: one object for all of them.
NO_INSTANCES = Instances()
