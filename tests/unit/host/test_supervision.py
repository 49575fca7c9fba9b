"""What the supervisor is told, over a real socket; that it is gone is no trouble."""

from __future__ import annotations

import os
import socket

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from heartbeat_service.host.supervision import Supervisor
from tests.unit.fakes import folder_for

#: How long the watchdog waits, in seconds.
WATCHDOG = 30


class SupervisionTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        """Begin with a supervisor that listens."""
        self.address = f"@heartbeat-{os.getpid()}-{id(self)}"
        self.listening = self.listen("\0" + self.address[1:])
        self.clock = Clock()
        self.trouble: str | None = None
        self.asked = 0

    def listen(self, address: str) -> socket.socket:
        """A supervisor's socket."""
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(listening.close)
        listening.bind(address)
        listening.setblocking(False)
        return listening

    async def find_trouble(self) -> str | None:
        """What is wrong with the service."""
        self.asked += 1
        return self.trouble

    def supervisor(self, **environment: str) -> Supervisor:
        """The one who started this process."""
        given = {
            "NOTIFY_SOCKET": self.address,
            "WATCHDOG_USEC": str(WATCHDOG * 1_000_000),
            **environment,
        }
        return Supervisor(self.clock, given, self.find_trouble)

    def heard(self) -> list[str]:
        """What was told since the last time."""
        told: list[str] = []
        while True:
            try:
                told.append(self.listening.recv(4096).decode())
            except BlockingIOError:
                return told

    def advance(self, seconds: float) -> None:
        """Let time pass, a second at a time."""
        self.clock.pump([0.5] * int(seconds * 2))


class TestWatchdog(SupervisionTestCase):
    def test_ready_is_told_first_and_stopping_last(self) -> None:
        supervisor = self.supervisor()
        self.assertEqual(self.heard(), [])
        supervisor.ready()
        self.assertEqual(self.heard(), ["READY=1", "WATCHDOG=1"])
        supervisor.stopping()
        self.assertEqual(self.heard(), ["STOPPING=1"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_watchdog_is_fed_at_half_of_what_it_waits(self) -> None:
        self.supervisor().ready()
        self.heard()
        for _ in range(4):
            self.advance(WATCHDOG / 2 - 0.5)
            self.assertEqual(self.heard(), [])
            self.advance(0.5)
            self.assertEqual(self.heard(), ["WATCHDOG=1"])

    def test_watchdog_starves_while_there_is_trouble(self) -> None:
        supervisor = self.supervisor()
        self.trouble = "the disk is full"
        supervisor.ready()
        self.advance(WATCHDOG * 2)
        self.assertEqual(self.heard(), ["READY=1"])
        self.assertEqual(self.asked, 5)
        self.trouble = None
        self.advance(WATCHDOG / 2)
        self.assertEqual(self.heard(), ["WATCHDOG=1"])

    def test_watchdog_starves_while_nobody_can_tell_whether_there_is_trouble(self):
        answer: Deferred[str | None] = Deferred()
        environment = {"NOTIFY_SOCKET": self.address, "WATCHDOG_USEC": "30000000"}
        supervisor = Supervisor(self.clock, environment, lambda: answer)
        supervisor.ready()
        self.advance(WATCHDOG * 3)
        self.assertEqual(self.heard(), ["READY=1"])
        answer.callback(None)
        self.assertEqual(self.heard(), ["WATCHDOG=1"])
        supervisor.stopping()

    def test_stopping_ends_the_feeding_though_an_answer_is_awaited(self) -> None:
        answer: Deferred[str | None] = Deferred()
        environment = {"NOTIFY_SOCKET": self.address, "WATCHDOG_USEC": "30000000"}
        supervisor = Supervisor(self.clock, environment, lambda: answer)
        supervisor.ready()
        supervisor.stopping()
        answer.callback("the service is starting or stopping")
        self.advance(WATCHDOG)
        self.assertEqual(self.heard(), ["READY=1", "STOPPING=1"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_defect_in_looking_for_trouble_is_logged_and_ends_the_feeding(self) -> None:
        def stumble() -> Deferred[str | None]:
            raise ZeroDivisionError

        environment = {"NOTIFY_SOCKET": self.address, "WATCHDOG_USEC": "30000000"}
        supervisor = Supervisor(self.clock, environment, stumble)
        supervisor.ready()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.advance(WATCHDOG)
        supervisor.stopping()
        self.assertEqual(self.heard(), ["READY=1", "STOPPING=1"])

    def test_without_a_watchdog_there_is_nothing_to_feed(self) -> None:
        for microseconds in ("0", "", "soon", "-1", "\N{SUPERSCRIPT TWO}"):
            supervisor = self.supervisor(WATCHDOG_USEC=microseconds)
            supervisor.ready()
            self.advance(WATCHDOG)
            supervisor.stopping()
            self.assertEqual(self.heard(), ["READY=1", "STOPPING=1"])
        self.assertEqual(self.asked, 0)

    def test_watchdog_of_another_process_is_not_fed(self) -> None:
        self.supervisor(WATCHDOG_PID=str(os.getppid())).ready()
        self.advance(WATCHDOG)
        self.assertEqual(self.heard(), ["READY=1"])

    def test_watchdog_of_this_process_is_fed(self) -> None:
        self.supervisor(WATCHDOG_PID=str(os.getpid())).ready()
        self.assertEqual(self.heard(), ["READY=1", "WATCHDOG=1"])


class TestSocket(SupervisionTestCase):
    def test_socket_may_be_a_file(self) -> None:
        path = folder_for(self) / "notify"
        self.listening = self.listen(str(path))
        self.supervisor(NOTIFY_SOCKET=str(path)).ready()
        self.assertEqual(self.heard(), ["READY=1", "WATCHDOG=1"])

    def test_without_a_socket_nothing_is_told_or_asked(self) -> None:
        for environment in ({}, {"WATCHDOG_USEC": "1000000"}, {"NOTIFY_SOCKET": ""}):
            supervisor = Supervisor(self.clock, environment, self.find_trouble)
            supervisor.ready()
            self.advance(5)
            supervisor.stopping()
        self.assertEqual((self.heard(), self.asked), ([], 0))

    def test_socket_that_vanishes_is_no_trouble(self) -> None:
        supervisor = self.supervisor()
        supervisor.ready()
        self.listening.close()
        self.advance(WATCHDOG)
        supervisor.stopping()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_socket_that_nobody_reads_is_not_waited_for(self) -> None:
        self.supervisor(WATCHDOG_USEC="1000000").ready()
        self.advance(1000)  # far more than the socket holds
        self.assertIn("WATCHDOG=1", self.heard())

    def test_address_that_makes_no_sense_is_no_trouble(self) -> None:
        for address in ("nowhere/at/all", "/" + "x" * 200, "vsock:2:1234", "@" * 200):
            supervisor = self.supervisor(NOTIFY_SOCKET=address)
            supervisor.ready()
            supervisor.stopping()
        self.assertEqual(self.heard(), [])
