"""A test that makes worlds, and lets go of them in its own time."""

from __future__ import annotations

import gc

from twisted.trial.unittest import SynchronousTestCase


class WorldTestCase(SynchronousTestCase):
    """What nodes that were killed leave behind, ends before the next test begins.

    Their coroutines end as garbage, which logs errors: nobody is to count them.
    """

    def setUp(self) -> None:
        """Remember what is no world's."""
        self.addCleanup(self._end_worlds, set(vars(self)))

    def _end_worlds(self, before: set[str]) -> None:
        """Forget all that the test has kept of them, in attributes and in errors."""
        for name in set(vars(self)) - before:
            if not name.startswith("_"):
                delattr(self, name)
        gc.collect()
        while errors := self.flushLoggedErrors():
            for error in errors:
                error.cleanFailure()  # its frames have nodes
            del errors, error
            gc.collect()
