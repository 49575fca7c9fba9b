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
        before = set(vars(self))
        self.addCleanup(self.flushLoggedErrors)
        self.addCleanup(gc.collect)
        self.addCleanup(self._let_go, before)

    def _let_go(self, before: set[str]) -> None:
        """Forget all that the test has kept of its worlds in attributes."""
        for name in set(vars(self)) - before:
            if not name.startswith("_"):
                delattr(self, name)
