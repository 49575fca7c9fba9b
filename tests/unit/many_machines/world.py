"""Nodes, clients, operators and an etcd on one clock, and what goes wrong with them.

Each node is a real engine with a real store, on a machine that can be stopped, with a
line to the fake etcd that can be cut. Messages between clients and nodes, and between
nodes, come as structs after a moment; bytes are other modules' business. After each
call of the clock a :class:`Referee` looks at what has become of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from itertools import count
from random import Random
from typing import Any, cast

from attrs import define, field
from msgspec import UNSET, UnsetType
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.python.failure import Failure
from typing_extensions import override

from heartbeat_service.core.changes import Change
from heartbeat_service.core.errors import HeartbeatError, Overloaded
from heartbeat_service.core.heartbeat import Stage
from heartbeat_service.core.states import ClientState
from heartbeat_service.engine.engine import Engine
from heartbeat_service.protocol.messages import (
    ClientID,
    ClientStateMessage,
    Goodbye,
    HeartbeatMessage,
    InstanceID,
    Request,
    SetClientState,
)
from heartbeat_service.simulator.virtual_clock import Stallable, VirtualClock
from heartbeat_service.storage.etcd.keys import Keys
from heartbeat_service.storage.etcd.store import EtcdStore
from heartbeat_service.storage.nodes import Node as Other
from heartbeat_service.storage.nodes import Standing
from tests.unit.many_machines.referee import HAIR, Reader, Referee, Told
from tests.unit.storage.fake_etcd import FakeClient, FakeEtcd

_, UNCALIBRATED, CALIBRATED, RUNNING = ClientState

#: The wall clock's time when a run begins, in seconds since the epoch.
EPOCH = 1_800_000_000.0

PREFIX = "p"

#: How long a client waits for an answer, and a node for that of another, in seconds.
PATIENCE, WORD_PATIENCE = 2.0, 1.0

INTERVAL = 1.0

#: Seconds to the timebomb: of who asks for none, and what is asked for.
FUSE = 5.0
FUSES = (None, None, 2.5, 8.0)

#: How long a planned silence is, in seconds.
SILENCE = 6.0

#: How long it may take, once all is well, until who is silent is dead, in seconds: a
#: session ends, its heirs are written, a planned silence and a fuse burn, twice.
LATEST_DEATH = 40.0


class CheckedClock(VirtualClock):
    """A clock after each call of which is looked whether all that must, holds."""

    def __init__(self, check: Callable[[], object]) -> None:
        super().__init__()
        self._check = check

    @override
    def run_until(self, end: float) -> None:
        heap = self._heap
        while heap and heap[0][0] <= end:
            super().run_until(heap[0][0])
            self._check()
        super().run_until(end)


class World:
    """All of it.

    :param random: decides how long everything is on its way.
    """

    def __init__(self, random: Random, nodes: int = 3, clients: int = 6) -> None:
        self.random = random
        self.clock = CheckedClock(self._check)
        self.etcd = FakeEtcd(self.clock, random=random)
        self.keys = Keys(PREFIX)
        self.referee = Referee(self.etcd, self.keys)
        self.tokens = count(1)
        self.failures: list[str] = []
        self._looked_at: object = None
        self._observer = cast(ILogObserver, self._log)
        globalLogPublisher.addObserver(self._observer)
        self.nodes = [Node(self, f"node{number}") for number in range(nodes)]
        self.clients = [Client(self, f"c{number}") for number in range(clients)]

    def close(self) -> None:
        """Nobody looks at it any more."""
        globalLogPublisher.removeObserver(self._observer)

    def start(self, number: int) -> None:
        """Start a node's program, unless it runs."""
        if not self.nodes[number].runs:
            self.nodes[number] = Node(self, f"node{number}")

    def mend(self, number: int) -> None:
        """Let a node be well, whatever was done to it."""
        node = self.nodes[number]
        node.heal()
        node.lag(0.0)
        node.wake()
        if node.standing.is_drained:
            node.kill()
        self.start(number)

    def pass_time(self, seconds: float) -> None:
        """Let it go on."""
        self.clock.run_until(self.clock.seconds() + seconds)

    def delay(self) -> float:
        """How long a message is on its way, in seconds."""
        return self.random.uniform(0.0005, 0.01)

    def expect_refusal(self, failure: Failure) -> None:
        """Somebody was refused what he asked for; whatever else failed, is noted."""
        if not failure.check(HeartbeatError):
            self.failures.append(failure.getTraceback())

    def node_called(self, name: str) -> Node | None:
        """The process that runs at that address: a new one is at its former one's."""
        for node in self.nodes:
            if node.runs and node.name == name:
                return node
        return None

    def end_well(self) -> None:
        """Mend everything, let some fall silent, and see who lives and who dies.

        :raises Violation: if somebody dies who beats, or doesn't who is silent, or if
            the nodes don't come to know the same.
        """
        if not self.etcd.is_up:
            self.etcd.start()
        for number in range(len(self.nodes)):
            self.mend(number)
        beating = self.clients[::2]
        for client in self.clients:
            client.be_silent(client not in beating)
            client.is_steady = True
        self.pass_time(LATEST_DEATH)
        living = self.referee.present()
        for client in self.clients:
            if (client.name in living) is not (client in beating):
                self.referee.fail(f"{client.name} is silent or not, and lives or not")
        lives = {name: record.point for name, record in living.items()}
        for node in self.nodes:
            known = {
                client.client_id: (client.incarnation, client.sequence)
                for client in node.engine.registry
            }
            if known != lives:
                self.referee.fail(f"{node.name} knows {known}, but etcd has {lives}")
            self.referee.check_all_read(node.reader)
        for name in lives:
            lit = [node.name for node in self.nodes if node.burns(name)]
            if len(lit) != 1:
                self.referee.fail(f"the timebomb of {name} burns at {lit}")

    def _check(self) -> None:
        self.referee.look()
        if self.referee.found is not None:
            raise self.referee.found
        if self.failures:
            self.referee.fail(self.failures[0])
        for node in self.nodes:
            if not node.standing.may_kill():
                node.unsure_at = self.clock.seconds()
        seen = [
            (node.name, node.runs, node.store.own, node.revision) for node in self.nodes
        ]
        if self._looked_at != (seen, self.etcd.revision):
            self._looked_at = seen, self.etcd.revision
            self._check_timebombs()

    def _check_timebombs(self) -> None:
        """A client has one valid timebomb at the most."""
        for name in self.referee.present():
            valid = [node.name for node in self.nodes if node.may_kill(name)]
            if len(valid) > 1:
                self.referee.fail(f"the timebomb of {name} is valid at {valid}")

    def _log(self, event: LogEvent) -> None:
        if "log_failure" in event:
            failure = event["log_failure"]
            self.failures.append(f"{failure.getTraceback()}")


class Node:
    """A process of the service, from its start to its end.

    :ivar runs: whether it wasn't ended.
    :ivar reader: what it has published.
    :ivar unsure_at: when it wasn't sure of itself last.
    :ivar skew: how far its wall clock is ahead, in seconds.
    """

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.runs = True
        self.reader = Reader(name)
        self.unsure_at = world.clock.seconds()
        self.machine = Stallable(world.clock)
        self.standing = Standing(self.machine)
        self.line: FakeClient | None = None
        self.skew = world.random.uniform(-3.0, 3.0)
        self._cuts: set[str] = set()
        self._lag = 0.0
        self._inbox: deque[Callable[[], object]] = deque()
        self.store = EtcdStore(
            self.machine,
            self._connect,
            PREFIX,
            self.name,
            self._wall_clock,
            self.standing,
            lambda: f"{self.name}-{next(world.tokens)}",
        )
        self.engine = Engine(
            self.machine,
            self.store,
            [self._publish],
            standing=self.standing,
            timebomb=FUSE,
            interval=INTERVAL,
            wall_clock=self._wall_clock,
        )
        self._count_timebomb = self.engine.registry.on_timebomb
        self.engine.registry.on_timebomb = self._kill
        self.engine.clock.unread = lambda: bool(self._inbox)
        self._do(self._open())
        self._ask_others()

    # What is done to it.

    def kill(self) -> None:
        """End it without a word."""
        self.runs = False
        self.machine.stall()
        if self.line is not None:
            self.line.stall()

    def close(self) -> None:
        """End it as it should be."""
        if self.is_open:
            self.runs = False
            self._do(self.engine.close())

    def drain(self) -> None:
        """Let its clients go to others, as an operator asks for."""
        if self.is_open:
            others = [one for one in self.store.all() if one != self.store.own]
            if others:
                self.standing.is_drained = True
                Deferred.fromCoroutine(_ignoring(self.store.leave()))

    def stall(self) -> None:
        """Stop the process, as SIGSTOP does."""
        if self.runs:
            self.machine.stall()
            if self.line is not None:
                self.line.stall()

    def wake(self) -> None:
        """Let it run again: what has waited comes in some order."""
        if not self.runs or not self.machine.stalled:
            return
        self.machine.stalled = False
        waiting = [self.machine.go_on, self._read_inbox]
        if self.line is not None:
            waiting.append(self.line.wake)
        self.world.random.shuffle(waiting)
        for each in waiting:
            each()

    def cut(self, *what: str) -> None:
        """Cut its line to etcd: ``requests``, ``answers``, or both."""
        self._cuts.update(what)
        self._apply_cuts()

    def heal(self, late: bool = False) -> None:
        """Let its line be whole again."""
        self._cuts.clear()
        if self.line is not None:
            self.line.heal(late=late)

    def lag(self, seconds: float) -> None:
        """Let its watch hear so much later what has happened."""
        self._lag = seconds
        if self.line is not None:
            self.line.delay_watch(seconds)

    def lose_watch(self) -> None:
        """Let its watch be lost."""
        if self.line is not None:
            self.line.lose_watch()

    # What others ask.

    @property
    def is_open(self) -> bool:
        """Whether it serves."""
        return self.runs and not self.machine.stalled and self.engine.opened

    @property
    def answers(self) -> bool:
        """Whether it answers beats."""
        try:
            self.standing.admit_beat()
        except Overloaded:
            return False
        return True

    def receive(
        self, request: Request, answer: Callable[[float, object], object]
    ) -> None:
        """A message has come.

        :param answer: takes when it was read, and what it came to.
        """
        if not self.runs:
            return
        self._inbox.append(partial(self._serve, request, answer))
        if not self.machine.stalled:
            self._read_inbox()

    def order(self, action: Callable[[Engine], object]) -> None:
        """An operator asks for something."""
        if self.is_open:
            action(self.engine)

    @property
    def revision(self) -> int:
        """Up to which its store has been told all."""
        return self.store._watching.revision if self.engine.opened else 0

    def burns(self, client_id: str) -> bool:
        """Whether the client's timebomb burns here."""
        client = self.engine.registry.find(client_id)
        return (
            self.runs
            and client is not None
            and client.heartbeat.stage is not Stage.ELSEWHERE
        )

    def may_kill(self, client_id: str) -> bool:
        """Whether etcd would take a death by its timebomb, as far as it can tell."""
        if not self.runs or not self.engine.opened:
            return False
        session = self.store._member.session
        known = self.store._replica.clients.get(client_id)
        if session is None or known is None or not self.burns(client_id):
            return False
        etcd, keys = self.world.etcd, self.world.keys
        key, record = etcd.get(session.key), etcd.get(keys.client(client_id))
        return (
            key is not None
            and key.create_revision == session.made_at
            and etcd.get(keys.heirs(session.name)) is None
            and record is not None
            and record.mod_revision == known.revision
            and self.store.beats_here(client_id)
        )

    # How it is made.

    def _wall_clock(self) -> float:
        return EPOCH + self.world.clock.seconds() + self.skew

    def _connect(self) -> FakeClient:
        self.line = self.world.etcd.client(self.name)
        self.line.delay_watch(self._lag)
        self._apply_cuts()
        return self.line

    def _apply_cuts(self) -> None:
        if self.line is not None and self._cuts:
            requests, answers = "requests" in self._cuts, "answers" in self._cuts
            self.line.cut(requests=requests, answers=answers)

    def _do(self, work: Any) -> None:
        def failed(failure: Failure) -> None:
            self.world.failures.append(failure.getTraceback())

        Deferred.fromCoroutine(work).addErrback(failed)

    async def _open(self) -> None:
        if not await self.engine.open():
            await self.engine.keep_opening()
        self.world.referee.look()
        changes, scanned_at = self.world.referee.changes, self.revision
        self.reader.place = sum(revision <= scanned_at for revision, _ in changes)

    def _publish(self, change: Change) -> None:
        client = change.client
        told = Told(client.client_id, client.incarnation, client.sequence, client.state)
        self.world.referee.published(self.reader, told)

    def _kill(self, incarnation: int, due: float) -> None:
        """A timebomb has gone off: its client could be heard for its whole fuse."""
        self._count_timebomb(incarnation, due)
        now, registry = self.world.clock.seconds(), self.engine.registry
        for client in registry:
            fuse = client.heartbeat.fuse
            is_it = client.incarnation == incarnation and client.heartbeat.due() == due
            if is_it and now < self.unsure_at + fuse - HAIR:
                self.world.referee.fail(
                    f"{self.name} lets {client.client_id} die, with a fuse of {fuse} s,"
                    f" though it wasn't sure of itself at {self.unsure_at:.3f}"
                )

    def _read_inbox(self) -> None:
        while self._inbox and not self.machine.stalled:
            self._inbox.popleft()()

    def _serve(
        self, request: Request, answer: Callable[[float, object], object]
    ) -> None:
        taken_at, world = self.world.clock.seconds(), self.world
        dispatch: Callable[..., Any] = self.engine.dispatcher.dispatch

        def send(reply: object) -> None:
            if isinstance(reply, Failure) and not reply.check(HeartbeatError):
                world.failures.append(reply.getTraceback())
            world.clock.send(world.delay(), answer, taken_at, reply)

        maybeDeferred(dispatch, request).addBoth(send)

    # What nodes ask each other while etcd doesn't answer.

    def _ask_others(self) -> None:
        if not self.runs:
            return
        self.machine.callLater(1.0, self._ask_others)
        if self.standing.in_touch or not self.engine.opened:
            return
        own = self.store.own
        others = [one for one in self.store.all() if one.session != own.session]
        departed = self.store.departed()
        asked_at = self.machine.seconds()
        answers: dict[Other, float | None] = dict.fromkeys([*others, *departed])
        standing = self.standing

        def hear() -> None:
            standing.hear(list(answers.values()), asked_at)

        for other in answers:
            node = self.world.node_called(other.name)
            if node is not None:
                self.world.clock.send(
                    self.world.delay(), node._say, partial(answers.__setitem__, other)
                )
        self.machine.callLater(WORD_PATIENCE if others else 0, hear)

    def _say(self, answer: Callable[[float | None], object]) -> None:
        """Another node asks for how long this one was quiet; None if etcd is there."""

        def say() -> None:
            standing = self.standing
            answer(None if standing.in_touch else standing.quiet_for())

        if self.runs:
            self._inbox.append(say)
            if not self.machine.stalled:
                self._read_inbox()


@define(eq=False)
class Client:
    """A client: it beats, goes to another node when it isn't answered, and restarts.

    :ivar is_steady: whether it only beats, as the present instance of itself.
    """

    world: World
    name: str
    is_steady: bool = False
    _node: int = 0
    _instance: int = 0
    _silent: bool = False
    _fuse: float | None = None
    _told: ClientStateMessage | None = None
    _waiting: object = field(factory=object)

    def __attrs_post_init__(self) -> None:
        self._node = self.world.random.randrange(len(self.world.nodes))
        self._fuse = self.world.random.choice(FUSES)
        self._plan()

    def be_silent(self, silent: bool) -> None:
        """Beat no more, or again."""
        self._silent = silent

    def move(self, node: int) -> None:
        """Beat at another node from now on."""
        self._node = node

    def restart(self) -> None:
        """Be another process of the same client."""
        self._instance += 1

    def set_state(self, state: ClientState, fenced: bool = True) -> None:
        """Enter another state, as it was told last or whatever there is."""
        told = self._told
        incarnation: int | UnsetType = UNSET
        if fenced and told is not None:
            incarnation = told.incarnation
        self._send(SetClientState(ClientID(self.name), state, incarnation))

    def leave(self) -> None:
        """Say that it goes; the next beat, if there is one, registers it anew."""
        self._send(Goodbye(ClientID(self.name)))

    def _plan(self) -> None:
        jitter = self.world.random.uniform(0.8, 1.2)
        self.world.clock.callLater(INTERVAL * jitter, self._beat)

    def _beat(self) -> None:
        self._plan()
        if self._silent:
            return
        self._send(
            HeartbeatMessage(
                ClientID(self.name),
                UNCALIBRATED,
                InstanceID(f"i{self._instance}"),
                UNSET if self._fuse is None else self._fuse,
            )
        )

    def _send(self, request: Request) -> None:
        world, node = self.world, self.world.nodes[self._node]
        outcome: list[object] = []

        def answered(taken_at: float, reply: object) -> None:
            if outcome:
                return
            outcome.append(reply)
            if isinstance(reply, Failure):
                self._refused(reply)
                return
            assert isinstance(reply, ClientStateMessage)
            self._told = reply
            if isinstance(request, HeartbeatMessage):
                world.referee.beaten(reply, taken_at)
            else:
                world.referee.answered(reply)

        def lose_patience() -> None:
            if not outcome:
                outcome.append(None)
                self._go_elsewhere()

        world.clock.send(world.delay(), node.receive, request, answered)
        world.clock.send(PATIENCE, lose_patience)

    def _refused(self, failure: Failure) -> None:
        code = getattr(failure.value, "code", None)
        if code == "INSTANCE_SUPERSEDED":
            self._instance += 1
        elif code == "OVERLOADED":
            self._go_elsewhere()

    def _go_elsewhere(self) -> None:
        if self.world.random.random() < 0.7:
            self._node = self.world.random.randrange(len(self.world.nodes))


async def _ignoring(waiting: Deferred[None]) -> None:
    """Wait for it, whatever it comes to: an operator would be told."""
    await waiting.addErrback(lambda _: None)
