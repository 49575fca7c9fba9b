"""The fleet at the real engine in virtual time: repeatable, and nobody is wronged."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from heartbeat_service.core.heartbeat import Heartbeat, Stage
from heartbeat_service.core.registry import Registry
from heartbeat_service.simulator import __main__ as program
from heartbeat_service.simulator import virtual
from heartbeat_service.simulator.plan import Plan
from heartbeat_service.simulator.report import as_json

INTERVAL, FUSE = 2.0, 6.0

CALM = Plan(clients=20, seconds=120)

#: All that can go wrong at once, and often.
WILD = Plan(
    clients=40,
    seconds=300,
    crash_rate=0.1,
    pause_rate=0.2,
    restart_rate=0.1,
    duplicate_rate=0.1,
    lossy=0.02,
    skew=0.05,
    slow=0.5,
    stall_rate=0.5,
    labels={"room": ("a", "b")},
)
WILD_OPTIONS = (
    *("--clients=40", "--seconds=300", "--crash-rate=0.1", "--pause-rate=0.2"),
    *("--restart-rate=0.1", "--duplicate-rate=0.1", "--lossy=0.02", "--skew=0.05"),
    *("--slow=0.5", "--stall-rate=0.5", "--label=room:a,b"),
)
VIRTUAL = ("--virtual", f"--interval={INTERVAL:g}", f"--fuse={FUSE:g}")


def run(plan: Plan) -> dict[str, Any]:
    return virtual.run(plan, INTERVAL, FUSE)


def printed(seed: str, hashes: str, *options: str) -> bytes:
    """What the program prints as JSON in a process of its own."""
    # The arguments are this test's own.
    return subprocess.run(
        [
            *(sys.executable, "-m", "heartbeat_service.simulator", "--json"),
            *(*VIRTUAL, *WILD_OPTIONS, f"--seed={seed}", *options),
        ],
        env={**os.environ, "PYTHONHASHSEED": hashes},
        stdout=subprocess.PIPE,
        timeout=120,
        check=True,
    ).stdout


class TestVirtualTime(SynchronousTestCase):
    """Days pass in no time, and each time in the same way."""

    def test_a_calm_fleet_lives(self) -> None:
        told = run(CALM)
        self.assertTrue(told["kept"])
        self.assertEqual(told["registrations"], CALM.clients)
        self.assertEqual(told["deathsSeen"], 0)
        beats = CALM.clients * CALM.seconds / INTERVAL
        self.assertAlmostEqual(told["beats"] / beats, 1, delta=0.05)

    def test_an_hour_of_a_hundred_takes_seconds(self) -> None:
        plan = evolve(WILD, clients=100, seconds=3600, stall_rate=0.05)
        told = virtual.run(plan, 30, 90)
        self.assertTrue(told["kept"], told["broken"])
        self.assertGreater(told["beats"], 8_000)
        self.assertGreater(told["deathsSeen"], 50)

    def test_whoever_falls_silent_dies_and_nobody_else(self) -> None:
        told = run(evolve(WILD, stall_rate=0))
        self.assertTrue(told["kept"], told["broken"])
        self.assertGreater(told["deathsSeen"], 20)
        self.assertEqual(told["deathsSeen"], told["deathsExpected"])

    def test_jumps_of_the_clock_are_no_stalls(self) -> None:
        told = run(WILD)
        self.assertGreater(told["stalls"]["ordered"], 0)
        calm = run(evolve(WILD, stall_rate=0))
        self.assertEqual(calm["stalls"], {"ordered": 0, "told": 0, "seconds": 0})

    def test_the_seed_decides_to_the_byte_in_whatever_process(self) -> None:
        first, second = printed("7", "1"), printed("7", "2")
        self.assertEqual(first, second)
        self.assertNotEqual(first, printed("8", "1"))
        self.assertEqual(
            first.decode().rstrip("\n"), as_json(run(evolve(WILD, seed="7")))
        )


class TestStalls(SynchronousTestCase):
    """A service that is kept from running lets nobody die of it."""

    def test_nobody_dies_of_a_stall(self) -> None:
        told = run(evolve(CALM, seconds=1200, stall_rate=1.0))
        self.assertTrue(told["kept"], told["broken"])
        self.assertGreater(told["stalls"]["ordered"], 5)
        self.assertGreater(told["stalls"]["seconds"], 3 * FUSE)
        self.assertEqual(told["deathsSeen"], 0)

    def test_whoever_was_gone_dies_after_a_stall(self) -> None:
        told = run(evolve(CALM, seconds=1200, stall_rate=0.5, pause_rate=0.2))
        self.assertTrue(told["kept"], told["broken"])
        self.assertGreater(told["deathsSeen"], 10)


class TestBrokenPromises(SynchronousTestCase):
    """A service that breaks one is found out."""

    def status(self, *options: str) -> int:
        """That of the program, in this process."""
        arguments: Sequence[str] = ("heartbeat-fleet", *VIRTUAL, "--clients=20")
        self.patch(sys, "argv", [*arguments, *options])
        self.patch(program, "have_nothing_else_to_do", lambda: None)
        end = self.assertRaises(SystemExit, program.main)
        return int(end.code or 0)

    def test_one_that_keeps_them_all_ends_with_0(self) -> None:
        self.assertEqual(self.status("--seconds=60"), 0)

    def test_a_timebomb_that_goes_off_early_is_a_false_death(self) -> None:
        def too_soon(heartbeat: Heartbeat) -> None:
            heartbeat._light(Stage.LATE, 0.1)  # 1.9 s too early

        self.patch(Heartbeat, "fall_late", too_soon)
        plan = evolve(CALM, pause_rate=1.0)
        told = run(plan)
        self.assertFalse(told["kept"])
        self.assertGreater(told["falseDeaths"], 0)
        self.assertIn("with a fuse of 6 s", told["broken"][0])
        self.assertEqual(self.status("--seconds=120", "--pause-rate=1"), 1)

    def test_a_timebomb_that_never_goes_off_is_a_missed_death(self) -> None:
        def spare(registry: Registry, client_id: str) -> None:
            registry.get(client_id).heartbeat.hold(3600.0)

        self.patch(Registry, "_explode", spare)
        told = run(evolve(CALM, pause_rate=1.0))
        self.assertFalse(told["kept"])
        self.assertGreater(told["missedDeaths"], 0)
