"""Wall time is never used for liveness (contract, section 1)."""

from __future__ import annotations

import time

from twisted.internet.selectreactor import SelectReactor
from twisted.trial.unittest import SynchronousTestCase

from heartbeat_service.host.monotonic import use_monotonic_time


class TestMonotonic(SynchronousTestCase):
    """A reactor of its own, whose wall clock somebody sets."""

    def setUp(self) -> None:
        """Begin at a wall time far from the monotonic one."""
        self.wall = 1_000_000_000.0
        self.reactor = SelectReactor()
        self.addCleanup(self.reactor.waker.connectionLost, None)
        self.reactor.seconds = lambda: self.wall

    def test_a_wall_clock_that_is_set_moves_no_timer(self) -> None:
        use_monotonic_time(self.reactor)
        fired: list[str] = []
        self.reactor.callLater(0, fired.append, "due")
        self.reactor.callLater(3600, fired.append, "early")
        for step in (+7200, -86400):
            self.wall += step
            self.reactor.runUntilCurrent()
        self.assertEqual(fired, ["due"])

    def test_a_call_that_waits_already_keeps_its_delay(self) -> None:
        calls = [self.reactor.callLater(delay, list) for delay in (60, 0, 3600)]
        self.wall += 1
        before = time.monotonic()
        use_monotonic_time(self.reactor)
        after = time.monotonic()
        for call, left in zip(calls, (59, 0, 3599), strict=True):
            self.assertTrue(before + left <= call.getTime() <= after + left)
        self.reactor.runUntilCurrent()
        self.assertEqual([call.active() for call in calls], [True, False, True])
