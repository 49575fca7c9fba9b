"""The limit of descriptors, as the system tells of it."""

from __future__ import annotations

import resource

from twisted.trial.unittest import SynchronousTestCase

from heartbeat_service.host.descriptors import MOST, allow_most, allowed


class TestDescriptor(SynchronousTestCase):
    """Limits that are made up."""

    def set_limits(self, soft: int, hard: int) -> None:
        """What the system says, and what it is told."""
        self.limits = (soft, hard)
        self.patch(resource, "getrlimit", lambda _what: self.limits)
        self.patch(
            resource, "setrlimit", lambda _what, limits: setattr(self, "limits", limits)
        )

    def test_the_soft_limit_is_raised_to_the_hard_one(self) -> None:
        self.set_limits(1024, 4096)
        self.assertEqual(allowed(), 1024)
        allow_most()
        self.assertEqual(self.limits, (4096, 4096))
        self.assertEqual(allowed(), 4096)

    def test_it_is_raised_to_no_more_than_makes_sense(self) -> None:
        for hard in (resource.RLIM_INFINITY, 2**30):
            self.set_limits(1024, hard)
            allow_most()
            self.assertEqual(self.limits, (MOST, hard))

    def test_it_is_never_lowered(self) -> None:
        for soft in (resource.RLIM_INFINITY, 2**30, 4096):
            self.set_limits(soft, soft)
            allow_most()
            self.assertEqual(self.limits, (soft, soft))
        self.set_limits(resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        self.assertEqual(allowed(), MOST)
