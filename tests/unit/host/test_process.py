"""What is told of this process is what else is known of it."""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from heartbeat_service.host.process import memory, open_descriptors, started_at
from tests.unit.fakes import folder_for


class TestProcess(SynchronousTestCase):
    def test_each_open_descriptor_counts(self) -> None:
        path = folder_for(self) / "file"
        path.touch()
        before = open_descriptors()
        opened = [os.open(path, os.O_RDONLY) for _ in range(50)]
        during = open_descriptors()
        for one in opened:
            os.close(one)
        self.assertEqual(during - before, 50)
        self.assertLessEqual(during, resource.getrlimit(resource.RLIMIT_NOFILE)[0])

    def test_memory_is_told_in_bytes(self) -> None:
        addressed, resident = memory()
        [line] = [
            one
            for one in Path("/proc/self/status").read_text("ascii").splitlines()
            if one.startswith("VmRSS:")
        ]
        kilobytes = int(line.split()[1])
        self.assertLess(resident, addressed)
        self.assertLess(abs(resident / 1024 / kilobytes - 1), 0.1)

    def test_it_was_started_once_and_before_now(self) -> None:
        first, now = started_at(), time.time()
        self.assertLess(first, now)
        self.assertLess(now - first, 24 * 3600)
        self.assertLess(abs(started_at() - first), 1)
