"""The instances of clients that died, so that one that was superseded stays so.

Their number is bounded, and strangers can invent any number of clients; so who has
superseded somebody is not forgotten for a day, whoever comes after. Knows nothing of
who lives.
"""

from __future__ import annotations

from collections import OrderedDict

from heartbeat_service.core.changes import DeadClient
from heartbeat_service.core.instances import NO_INSTANCES, Instances

#: How long the instances of one who has superseded others are kept, in seconds, before
#: they make room for those of another.
KEPT_FOR = 86_400.0


class DeadClients:
    """Those that are kept, in the order of their deaths.

    :param most: how many, at the most. If there is one too many, the oldest goes that
        never superseded anybody; without one, the oldest, if it died more than
        :data:`KEPT_FOR` ago; without that, the newest.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        # A dict whose oldest go looks for the next oldest from its very beginning.
        self._superseded_others: OrderedDict[str, DeadClient] = OrderedDict()
        self._superseded_nobody: OrderedDict[str, DeadClient] = OrderedDict()

    def instances(self, client_id: str) -> Instances:
        """Those of a client; of one that isn't kept, none."""
        dead = self._superseded_others.get(client_id) or self._superseded_nobody.get(
            client_id
        )
        return NO_INSTANCES if dead is None else dead.instances

    def add(self, client_id: str, dead: DeadClient, now: float) -> None:
        """Keep one that isn't kept yet, if it has any instances.

        :param now: seconds since the epoch.
        """
        if dead.instances.former:
            self._superseded_others[client_id] = dead
        elif dead.instances.present is not None:
            self._superseded_nobody[client_id] = dead
        if len(self._superseded_others) + len(self._superseded_nobody) > self._most:
            self._make_room(client_id, now)

    def remove(self, client_id: str) -> None:
        """Forget one that lives again, if it is kept."""
        self._superseded_others.pop(client_id, None)
        self._superseded_nobody.pop(client_id, None)

    def _make_room(self, newest: str, now: float) -> None:
        if self._superseded_nobody:
            self._superseded_nobody.popitem(last=False)
            return
        oldest, dead = next(iter(self._superseded_others.items()))
        is_old = now - dead.ended_at > KEPT_FOR
        del self._superseded_others[oldest if is_old else newest]
