"""What the service may take in all, and what its unit for systemd lets it have."""

from __future__ import annotations

import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from heartbeat_service.protocol.messages import MAX_VALUES
from heartbeat_service.settings import Settings
from heartbeat_service.web.site import BUDGET, CONNECTION_COST

UNIT = Path(__file__).parents[3].joinpath("deploy", "heartbeat.service").read_text()
UNITS = {"": 1, "M": 1024**2, "G": 1024**3}

#: What the program takes by itself, and a client beyond its values, in bytes.
PROGRAM = 128 * 1024**2
CLIENT = 2 * 1024


def limit(name: str) -> int:
    """A number of the unit."""
    match = re.search(rf"^{name}=(\d+)([MG]?)$", UNIT, re.MULTILINE)
    assert match is not None, name
    return int(match[1]) * UNITS[match[2]]


class TestUnit(SynchronousTestCase):
    """deploy/heartbeat.service against the constants."""

    def test_memory_is_enough_for_all_descriptors_and_clients(self) -> None:
        connections = limit("LimitNOFILE") // 2  # as service.py shares them out
        http = connections * CONNECTION_COST + BUDGET
        clients = Settings().max_clients * (CLIENT + MAX_VALUES)
        # ZeroMQ, whose peers have a quarter of the descriptors, has the rest.
        self.assertLess(PROGRAM + http + clients, limit("MemoryMax") * 7 // 8)

    def test_an_equal_share_of_the_budget_holds_any_beat(
        self,
    ) -> None:
        share = BUDGET * 31 // 32 // (limit("LimitNOFILE") // 2)
        self.assertGreater(share, MAX_VALUES + 2 * 1024)
