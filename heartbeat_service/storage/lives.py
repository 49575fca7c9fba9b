"""Which former lives are kept: the last of each client, and the last of all.

Of a client those that ended last, and besides those that got beyond UNCALIBRATED and
ended last; see ``KEPT_LIVES``. Knows which lives there are, and not what is in them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Mapping

from heartbeat_service.storage.store import KEPT_LIVES, MOST_LIVES

#: A client's ID, and an incarnation of it.
Which = tuple[str, int]


class KeptLives:
    """The lives that are kept, in the order of their ends."""

    def __init__(self) -> None:
        self._of_client: dict[str, dict[int, bool]] = {}
        # A dict whose oldest go looks for the next oldest from its very beginning.
        self._ends: OrderedDict[Which, None] = OrderedDict()

    def add(
        self, client_id: str, incarnation: int, left_uncalibrated: bool
    ) -> Collection[Which]:
        """A life has ended; the same one may come twice.

        :return: which are kept no longer; :meth:`remove` them.
        """
        lives = self._of_client.setdefault(client_id, {})
        lives[incarnation] = left_uncalibrated
        self._ends[client_id, incarnation] = None
        too_old = [(client_id, number) for number in _too_old(lives)]
        if len(self._ends) - len(too_old) > MOST_LIVES:
            too_old.append(next(one for one in self._ends if one not in too_old))
        return too_old

    def has(self, client_id: str, incarnation: int) -> bool:
        """Whether one is kept."""
        return (client_id, incarnation) in self._ends

    def remove(self, client_id: str, incarnation: int) -> None:
        """One is kept no longer, if it was."""
        if (client_id, incarnation) not in self._ends:
            return
        del self._ends[client_id, incarnation]
        del self._of_client[client_id][incarnation]
        if not self._of_client[client_id]:
            del self._of_client[client_id]


def _too_old(lives: Mapping[int, bool]) -> Collection[int]:
    """Which of one client's lives are kept no longer."""
    if len(lives) <= KEPT_LIVES:
        return ()
    newest = sorted(lives, reverse=True)
    beyond = [number for number in newest if lives[number]]
    return set(newest).difference(newest[:KEPT_LIVES], beyond[:KEPT_LIVES])
