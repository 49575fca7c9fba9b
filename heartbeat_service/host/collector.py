"""Python's garbage collector, told not to hold up the reactor.

A full collection looks at every object, which takes 100 ms where 100,000 clients live.
What is there once the service serves stays, and need not be looked at again; and what
comes later is mostly freed without the collector. Knows nothing of what it frees.
"""

from __future__ import annotations

import gc

#: New objects before the youngest are looked at, and how often that is until the older
#: ones are. Python's own are 700, 10, 10.
THRESHOLDS = (20_000, 20, 50)


def spare_what_is_there() -> None:
    """Collect once, and never look at what is left again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
