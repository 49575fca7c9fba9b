"""When to tell of what happens again and again: at first, and at each doubling."""

from __future__ import annotations


def is_time_to_tell(count: int) -> bool:
    """Whether the ``count``-th time is one to tell of: 1, 2, 4, 8, and so on.

    So what begins is told at once, and a flood of a million writes twenty lines.
    """
    return count.bit_count() == 1
