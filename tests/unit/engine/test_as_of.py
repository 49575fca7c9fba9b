"""Who lists after a Reset and applies the events beyond ``asOf`` ends with the truth.

Hypothesis lets clients, operators and the store do what they like while somebody lists,
one step at a time, and then reads the events: what is known in the end must be what the
registry has (contract, section 3a). It is compared once the store has everything, as
nobody may be told of it before.
"""

from __future__ import annotations

import contextlib
import json
from collections import deque
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

from attrs import define, field
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from heartbeat_service.core.errors import HeartbeatError
from heartbeat_service.core.local_client import LocalClient
from heartbeat_service.core.states import ClientState
from heartbeat_service.engine.availability import PAUSE
from heartbeat_service.engine.engine import Engine
from heartbeat_service.protocol.messages import ClientRecord
from heartbeat_service.protocol.orders import LockoutRecord
from tests.unit.fakes import HandStore, listen

DISCONNECTED, *LIVING = ClientState
CLIENTS = ("1", "2", "3")  # a mass, if all are late
FUSE, INTERVAL = 4.0, 1.0

SOME_CLIENT = st.sampled_from(CLIENTS)
SOME_STATE = st.sampled_from(ClientState)
SOME_SECONDS = st.sampled_from((0.0, 2.0, 8.0))


@define
class Known:
    """What somebody knows of a client; None of what it wasn't told."""

    incarnation: int
    sequence: int
    state: str
    labels: dict[str, str]
    reported: str | None = None
    late: bool = False
    held: bool = False
    silent: bool = False

    @classmethod
    def listed(cls, record: ClientRecord) -> Known:
        """As it is listed."""
        return cls(
            incarnation=record.incarnation,
            sequence=record.sequence,
            state=record.client_state.value,
            labels=record.labels,
            reported=record.reported_state.value,
            late=record.late,
            held=record.held,
            silent=record.silent_seconds is not None,
        )

    @classmethod
    def true(cls, client: LocalClient, engine: Engine) -> Known:
        """As it is."""
        mass_loss = engine.registry.mass_loss
        return cls(
            incarnation=client.incarnation,
            sequence=client.sequence,
            state=client.state.value,
            labels=client.labels,
            reported=client.reported_state.value,
            late=client.client_id in mass_loss.late,
            held=client.client_id in mass_loss.held,
            silent=bool(client.silent_until),
        )


@define
class Watcher:
    """Somebody who lists, and applies what happens."""

    clients: dict[str, Known] = field(factory=dict)
    kept_out: set[str] = field(factory=set)
    hold: str | None = None

    def take(self, shown: Any) -> None:
        """Somebody was listed."""
        if isinstance(shown, ClientRecord):
            self.clients[shown.client_id] = Known.listed(shown)
        elif isinstance(shown, LockoutRecord):
            self.kept_out.add(shown.client_id)

    def apply(self, event: str, data: dict[str, Any]) -> None:
        """Something has happened."""
        client_id = data.get("clientID", "")
        match event:
            case "OnStateChange":
                self._change(client_id, data)
            case "LockedOut" if data["seconds"]:
                self.kept_out.add(client_id)
            case "LockedOut":
                self.kept_out.discard(client_id)
            case "MassLoss":
                self.hold = data["hold"]
            case "MassLossOver":
                self.hold = None
            case "Store":
                pass
            case _:
                known = self.clients.get(client_id)
                if known is not None and known.incarnation == data["incarnation"]:
                    self._notice(known, event, data)

    def _change(self, client_id: str, data: dict[str, Any]) -> None:
        known = self.clients.get(client_id)
        pair = data["incarnation"], data["sequence"]
        if known is not None and pair <= (known.incarnation, known.sequence):
            return  # the listing knew it already
        if data["clientState"] == "DISCONNECTED":
            self.clients.pop(client_id, None)
        elif "labels" in data:
            self.clients[client_id] = Known(*pair, data["clientState"], data["labels"])
        elif known is not None:
            known.sequence, known.state = data["sequence"], data["clientState"]

    def _notice(self, known: Known, event: str, data: dict[str, Any]) -> None:
        match event:
            case "Labels":
                known.labels = data["labels"]
            case "Reported":
                known.reported = data["reportedState"]
            case "Late":
                known.late = True
            case "Held":
                known.late = known.held = True
            case "Recovered":
                known.late = known.held = False
            case "Silence":
                known.silent = data["seconds"] > 0
                known.late = known.held = False


class Machine(RuleBasedStateMachine):
    """A service, its clients and operators, and a watcher who lists."""

    @initialize()
    def begin(self) -> None:
        """All are here, and the watcher has asked for the listings."""
        self.clock, self.store = Clock(), HandStore()
        self.engine = Engine(
            self.clock,
            self.store,
            timebomb=FUSE,
            interval=INTERVAL,
            wall_clock=lambda: 1000.0 + self.clock.seconds(),
            mass_loss_share=0.5,
            mass_loss_hold=6.0,
        )
        Deferred.fromCoroutine(self.engine.open())
        for name in CLIENTS:
            self.engine.registry.beat(name, DISCONNECTED)
        self.store.finish_all()
        self.registry, self.log = self.engine.registry, self.engine.events
        self.steps: Iterator[Any] | None = None
        self.waits_for: Deferred[Any] | None = None
        self.start_to_list()

    def attempt(self, what: Callable[..., object], *words: Any, **more: Any) -> None:
        """Try something; it may be refused."""
        with contextlib.suppress(HeartbeatError):
            what(*words, **more)

    @rule(name=SOME_CLIENT, state=SOME_STATE, label=st.sampled_from((None, "A", "B")))
    def beat(self, name: str, state: ClientState, label: str | None) -> None:
        """A client beats."""
        labels = None if label is None else {"room": label}
        self.attempt(self.registry.beat, name, state, labels=labels)

    @rule(name=SOME_CLIENT, state=SOME_STATE, what=st.integers(0, 3))
    def act(self, name: str, state: ClientState, what: int) -> None:
        """A client does something else."""
        match what:
            case 0:  # another process becomes that client
                self.attempt(self.registry.beat, name, state, f"{self.log.last}")
            case 1:
                self.attempt(self.registry.goodbye, name)
            case _:
                self.attempt(self.registry.set_state, name, state)

    @rule(
        name=SOME_CLIENT, state=SOME_STATE, seconds=SOME_SECONDS, what=st.integers(0, 6)
    )
    def order(self, name: str, state: ClientState, seconds: float, what: int) -> None:
        """An operator does something."""
        match what:
            case 0:
                self.attempt(self.registry.kick, name)
            case 1:
                self.attempt(self.registry.lock_out, name, seconds)
            case 2:
                deque(self.registry.end_mass_loss())
            case 3 | 4:
                self.attempt(self.registry.silence, name, seconds)
            case _:
                self.attempt(self.registry.steer, name, state)

    @rule(seconds=st.sampled_from((0.0, 0.5, 1.0, 2.5, 2.5, 4.0)))
    def pass_by(self, seconds: float) -> None:
        """Time passes."""
        listen(self.clock, seconds)

    @precondition(lambda self: self.store.waiting is not None)
    @rule(fails=st.integers(0, 9).map(lambda chance: chance == 9))
    def commit(self, fails: bool) -> None:
        """The store has made something durable, or is in trouble."""
        if fails:
            self.store.break_down()
        else:
            self.store.finish()
            self.clock.advance(0)

    @precondition(lambda self: self.listed)
    @rule()
    def list_anew(self) -> None:
        """The watcher begins anew, as after a Reset."""
        self.start_to_list()

    def start_to_list(self) -> None:
        """The watcher asks for the listings."""
        self.watcher, self.steps, self.as_of = Watcher(), None, self.log.last
        self.listed = False
        self.waits_for = None
        try:
            self.waits_for = self.engine.dispatcher.clients()
        except HeartbeatError:
            return
        self.waits_for.addCallbacks(self._begin_listing, lambda _: None)

    def _begin_listing(self, clients: Iterator[Any]) -> None:
        # As the routes do: first the id, then who is listed.
        self.as_of = self.log.last
        self.watcher.hold = self.engine.dispatcher.hold().hold
        self.steps = chain(self.engine.orders.lockouts(), clients)

    @precondition(lambda self: self.steps is not None)
    @rule()
    def list_on(self) -> None:
        """The next of the clients is listed."""
        if self.waits_for is not None and not self.waits_for.called:
            return
        assert self.steps is not None
        shown = next(self.steps, None)
        self.listed = shown is None
        if isinstance(shown, Deferred):
            self.waits_for = shown
            shown.addCallbacks(self.watcher.take, lambda _: self.start_to_list())
        else:
            self.watcher.take(shown)

    def teardown(self) -> None:
        """The store gets everything, the listing is read to its end, and the events."""
        if not hasattr(self, "engine"):
            return
        for _ in range(50):
            if self.store.waiting is None and self.engine.journal.trouble is None:
                break
            self.store.finish_all()
            listen(self.clock, PAUSE)
        assert self.store.waiting is None
        if self.steps is None:  # it couldn't begin
            self.start_to_list()
        for _ in range(50):
            self.list_on()
        for event in self.log.since(self.as_of + 1):
            self.watcher.apply(event.name, json.loads(event.data))
        self.compare()

    def compare(self) -> None:
        """What is known is the truth."""
        true = {
            client.client_id: Known.true(client, self.engine)
            for client in self.registry
        }
        for client_id, known in self.watcher.clients.items():
            if known.reported is None and client_id in true:  # it wasn't told yet
                true[client_id].reported = None
        assert self.watcher.clients == true
        assert self.watcher.kept_out == {*self.registry.lockouts.client_ids()}
        hold = self.registry.mass_loss.hold
        assert self.watcher.hold == (None if hold is None else hold.name)


class TestAsOf(SynchronousTestCase):
    def test_listing_and_the_events_beyond_it_are_the_truth(self) -> None:
        run_state_machine_as_test(
            Machine,
            settings=settings(
                max_examples=120,
                stateful_step_count=40,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
