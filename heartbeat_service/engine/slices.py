"""Long work in slices: between two of them the reactor reads its sockets.

So nobody waits until a hundred thousand are dealt with. Knows nothing of the work.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted.internet.task import deferLater

#: How long one piece of work may keep the reactor from its sockets, in seconds.
SLICE = 0.01


async def in_slices(clock: Any, steps: Iterable[object]) -> None:
    """Take all ``steps``, as many in one turn of the reactor as fit in :data:`SLICE`.

    The first slice is taken at once.

    :param clock: the reactor, or a ``task.Clock``.
    """
    end = clock.seconds() + SLICE
    for _ in steps:
        if clock.seconds() >= end:
            await deferLater(clock, 0)
            end = clock.seconds() + SLICE
