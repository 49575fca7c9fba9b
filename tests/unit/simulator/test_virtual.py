"""The fleet at the real engine in virtual time: repeatable, and nobody is wronged."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from heartbeat_service.core.changes import Reason
from heartbeat_service.core.heartbeat import Heartbeat, Stage
from heartbeat_service.core.registry import Registry
from heartbeat_service.core.states import ClientState
from heartbeat_service.protocol.messages import (
    ClientID,
    ClientStateMessage,
    HeartbeatMessage,
    OnStateChange,
)
from heartbeat_service.simulator import __main__ as program
from heartbeat_service.simulator import virtual
from heartbeat_service.simulator.plan import Plan
from heartbeat_service.simulator.referee import MARGIN, Referee
from heartbeat_service.simulator.report import as_json
from heartbeat_service.simulator.virtual_clock import VirtualClock

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


class TestMissedDeaths(SynchronousTestCase):
    """When a death has to have been heard of, and not sooner."""

    def setUp(self) -> None:
        self.clock = VirtualClock()
        self.referee = Referee(self.clock)
        self.beat = HeartbeatMessage(
            client_id=ClientID("head-1"), client_state=ClientState.DISCONNECTED
        )

    def answer(self) -> None:
        """The beat is answered now."""
        reply = ClientStateMessage(
            client_id=self.beat.client_id,
            client_state=ClientState.UNCALIBRATED,
            sequence=1,
            incarnation=1,
            timebomb_seconds=FUSE,
            heartbeat_interval_seconds=INTERVAL,
            request_endpoint="",
            state_change_endpoint="",
        )
        self.referee.answered(self.beat, self.clock.seconds(), reply)

    def missed_by(self, seconds: float) -> int:
        self.clock.run_until(seconds)
        return self.referee.missed_deaths

    def test_a_fuse_and_a_margin_after_the_last_beat(self) -> None:
        self.referee.sent(self.beat)
        self.answer()
        self.referee.will_be_silent("head-1")
        due = FUSE + MARGIN
        self.assertEqual((self.missed_by(due - 0.1), self.missed_by(due + 0.1)), (0, 1))

    def test_while_the_service_is_stalled_nobody_has_to_die(self) -> None:
        self.referee.sent(self.beat)
        self.answer()
        self.referee.will_be_silent("head-1")
        self.clock.run_until(1)
        self.referee.stalled(30)
        due = 31 + FUSE + MARGIN
        self.assertEqual((self.missed_by(due - 0.1), self.missed_by(due + 0.1)), (0, 1))

    def test_whose_first_answer_is_on_its_way_has_no_fuse_yet(self) -> None:
        self.referee.sent(self.beat)
        self.referee.heard(
            OnStateChange(
                client_id=self.beat.client_id,
                client_state=ClientState.UNCALIBRATED,
                previous_state=ClientState.DISCONNECTED,
                reason=Reason.HEARTBEAT,
                sequence=1,
                incarnation=1,
            )
        )
        self.referee.will_be_silent("head-1")
        self.assertEqual(self.missed_by(60), 0)
        self.answer()
        self.assertEqual((self.missed_by(66), self.missed_by(72)), (0, 1))
