"""What the tests of the rules share: a registry on a clock that the test turns."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from heartbeat_service.core.changes import Change, Fact, Snapshot
from heartbeat_service.core.errors import HeartbeatError
from heartbeat_service.core.heartbeat import Stage
from heartbeat_service.core.notices import ClientNotice, Notice
from heartbeat_service.core.registry import Registry
from heartbeat_service.core.states import ClientState
from tests.unit.fakes import stored_state

DISCONNECTED = ClientState.DISCONNECTED
UNCALIBRATED = ClientState.UNCALIBRATED
CALIBRATED = ClientState.CALIBRATED
RUNNING = ClientState.RUNNING

FUSE = 10.0

#: When who has that fuse is late: the interval of two seconds, missed twice.
LATE = 4.0

#: A moment; a power of two, so that no deadline is missed by rounding.
HAIR = 2**-10

#: What people's clocks show when the registry's shows 0.
NOON = 1_000_000.0


class RegistryTestCase(SynchronousTestCase):
    """A registry on a clock that the test turns."""

    def setUp(self) -> None:
        """Begin with nobody, at incarnation 100."""
        self.clock = Clock()
        self.set_back = 0.0
        self.facts: list[Fact] = []
        self.changes: list[Change] = []
        self.snapshots: list[Snapshot] = []
        self.notices: list[Notice] = []
        self.log: list[str] = []
        self.registry = self.new_registry()

    def wall_clock(self) -> float:
        """What people's clocks show."""
        return NOON + self.clock.seconds() - self.set_back

    def new_registry(
        self,
        max_clients: int = 1000,
        interval: float = 2.0,
        mass_loss_share: float | None = None,
        mass_loss_hold: float = 60.0,
    ) -> Registry:
        """A registry of nobody, at incarnation 100."""
        return Registry(
            clock=self.clock,
            wall_clock=self.wall_clock,
            max_clients=max_clients,
            listener=self.hear,
            default_fuse=FUSE,
            last_incarnation=100,
            tell=self.hear_notice,
            interval=interval,
            mass_loss_share=mass_loss_share,
            mass_loss_hold=mass_loss_hold,
        )

    def start_again(self, downtime: float = 0.0) -> None:
        """Stop the service, and start another one on what was kept."""
        list(self.registry.defuse_all())
        self.assertEqual(self.due(), [], "nothing is left of the former run")
        self.clock.advance(downtime)
        self.registry = self.new_registry()
        list(self.registry.restore(stored_state(self.facts)))
        self.notices.clear()

    def hear(self, fact: Fact) -> None:
        """The registry tells this."""
        self.facts.append(fact)
        self.log.append(f"{type(fact).__name__} {fact.client_id}")
        if isinstance(fact, Change):
            self.changes.append(fact)
        elif isinstance(fact, Snapshot):
            self.snapshots.append(fact)

    def hear_notice(self, notice: Notice) -> None:
        """The registry tells operators this."""
        self.notices.append(notice)
        of = f" {notice.client_id}" if isinstance(notice, ClientNotice) else ""
        self.log.append(f"{type(notice).__name__}{of}")

    def due(self) -> list[float]:
        """When the timers go off."""
        return [call.getTime() for call in self.clock.getDelayedCalls()]

    def stage(self, client_id: str = "1") -> Stage:
        """How far the timebomb of a living client has burnt."""
        stage = self.registry.get(client_id).heartbeat.stage
        is_late = stage in (Stage.LATE, Stage.HELD)
        self.assertEqual(client_id in self.registry.mass_loss.late, is_late)
        is_held = stage is Stage.HELD
        self.assertEqual(client_id in self.registry.mass_loss.held, is_held)
        is_silent = stage is Stage.SILENT
        self.assertEqual(bool(self.registry.get(client_id).silent_until), is_silent)
        return stage

    def seconds_left(self, client_id: str = "1") -> float:
        """Seconds to the timebomb of a living client."""
        return self.registry.get(client_id).heartbeat.seconds_left()

    def assert_alive(self, client_id: str = "1") -> None:
        """The client lives."""
        self.assertIsNotNone(self.registry.find(client_id))

    def assert_dead(self, client_id: str = "1") -> None:
        """The client does not live."""
        self.assertIsNone(self.registry.find(client_id))

    def assert_dies_in(self, seconds: float, client_id: str = "1") -> None:
        """The client lives for so long, if nobody does anything, and no longer."""
        self.clock.advance(seconds - HAIR)
        self.assert_alive(client_id)
        self.clock.advance(HAIR)
        self.assert_dead(client_id)

    def assert_refused(
        self, error: type[HeartbeatError], call: Callable[..., object], *args: object
    ) -> HeartbeatError:
        """The call fails with ``error``, names the client and changes nothing."""
        before = list(self.facts)
        client = self.registry.find("1")
        seen = client and (client.state, client.sequence, client.incarnation)
        failure = self.assertRaises(error, call, *args)
        self.assertEqual(self.facts, before)
        self.assertIs(self.registry.find("1"), client)
        self.assertEqual(
            client and (client.state, client.sequence, client.incarnation), seen
        )
        self.assertEqual(failure.client_id, "1")
        return cast("HeartbeatError", failure)

    def in_state(self, state: ClientState) -> None:
        """Register client 1 and bring it into a state."""
        self.registry.beat("1", DISCONNECTED)
        self.registry.steer("1", state)
        self.changes.clear()
