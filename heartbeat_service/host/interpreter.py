"""Python's own pauses, made short: its garbage collector, and turns between threads.

A full collection looks at every object, which takes 100 ms where 100,000 clients live.
And whenever the reactor has made a system call, a thread that runs Python may keep it
waiting for 5 ms. Knows nothing of what is collected, or of who has a thread.
"""

from __future__ import annotations

import gc
import sys

#: New objects before the youngest are looked at, and how often that is until the older
#: ones are. Python's own are 700, 10, 10.
THRESHOLDS = (5_000, 4, 20)

#: How long a thread may keep the others waiting, in seconds.
SWITCH_INTERVAL = 0.0005


def shorten_pauses() -> None:
    """Collect once, never look at what is left again, and let threads take turns."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
    sys.setswitchinterval(SWITCH_INTERVAL)
