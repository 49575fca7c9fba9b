"""What may go wrong and what people do, each by one word, and a run of it by a seed.

A run takes some kinds of trouble only, and more or less of each: what comes of two of
them together is hidden where everything happens at once. Most of it is over after a
while, so that in between things are well.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from random import Random

from attrs import define, field

from heartbeat_service.core.states import ClientState
from heartbeat_service.engine import slices
from heartbeat_service.engine.engine import Engine
from tests.unit.many_machines.referee import Violation
from tests.unit.many_machines.world import SILENCE, Client, Node, World

_, UNCALIBRATED, CALIBRATED, RUNNING = LIVING = ClientState

#: How long a run is before all is mended, in seconds.
SECONDS = 60.0

#: How much later than others a node's watch hears what has happened, in seconds.
LAG = 0.4

#: How long a trouble lasts, in seconds: of most, and of some.
SHORT, LONG = 3.0, 12.0


@define(eq=False)
class Trouble:
    """A world, and what is done to it at random.

    :ivar done: how often each was done.
    :ivar is_over: whether nothing is to be done any more.
    """

    world: World
    done: Counter[str] = field(factory=Counter)
    is_over: bool = False

    @property
    def random(self) -> Random:
        """The one that decides everything."""
        return self.world.random

    def do(self, kind: str) -> None:
        """Let that happen, to a node and a client at random."""
        self.done[kind] += 1
        KINDS[kind](self)

    def soon(self, action: Callable[[], object]) -> None:
        """Do it after a while: a trouble is over."""
        most = LONG if self.random.random() < 0.3 else SHORT

        def act() -> None:
            if not self.is_over:
                action()

        self.world.clock.callLater(self.random.uniform(0.05, most), act)

    def node(self) -> Node:
        """One of the nodes."""
        return self.random.choice(self.world.nodes)

    def client(self) -> Client:
        """One of the clients."""
        return self.random.choice(self.world.clients)

    # Nodes.

    def kill(self) -> None:
        number = self.random.randrange(len(self.world.nodes))
        self.world.nodes[number].kill()
        self.soon(lambda: self.world.start(number))

    def restart(self) -> None:
        number = self.random.randrange(len(self.world.nodes))
        node = self.world.nodes[number]
        if self.random.random() < 0.5:
            node.drain()
        self.soon(node.close)
        self.soon(lambda: self.world.start(number))

    def drain(self) -> None:
        number = self.random.randrange(len(self.world.nodes))
        node = self.world.nodes[number]
        node.drain()

        def start_anew() -> None:
            node.close()
            self.world.start(number)

        self.soon(start_anew)

    def stall(self) -> None:
        node = self.node()
        node.stall()
        self.soon(node.wake)

    # Their lines to etcd.

    def cut(self) -> None:
        node = self.node()
        node.cut("requests", "answers")
        self.soon(lambda: node.heal(late=self.random.random() < 0.5))

    def cut_requests(self) -> None:
        node = self.node()
        node.cut("requests")
        self.soon(lambda: node.heal(late=self.random.random() < 0.5))

    def cut_answers(self) -> None:
        node = self.node()
        node.cut("answers")
        self.soon(node.heal)

    def cut_all(self) -> None:
        for node in list(self.world.nodes):
            node.cut("requests", "answers")
            self.soon(partial(node.heal, late=self.random.random() < 0.5))

    def cut_long(self) -> None:
        node = self.node()
        node.cut("requests", "answers")
        heal = partial(node.heal, late=self.random.random() < 0.5)
        self.world.clock.callLater(self.random.uniform(5.0, 9.0), heal)

    def lag(self) -> None:
        node = self.node()
        node.lag(self.random.uniform(0.05, LAG))
        self.soon(lambda: node.lag(0.0))

    def lose_watch(self) -> None:
        self.node().lose_watch()

    # Etcd.

    def stop_etcd(self) -> None:
        if self.world.etcd.is_up:
            self.world.etcd.stop()
            self.soon(self._start_etcd)

    def _start_etcd(self) -> None:
        if not self.world.etcd.is_up:
            self.world.etcd.start()

    def compact(self) -> None:
        self.world.etcd.compact(self.world.etcd.revision)

    # Clients.

    def silence(self) -> None:
        client = self.client()
        client.be_silent(True)
        self.soon(lambda: client.be_silent(False))

    def move(self) -> None:
        self.client().move(self.random.randrange(len(self.world.nodes)))

    def begin_anew(self) -> None:
        self.client().restart()

    def enter(self) -> None:
        state = self.random.choice([UNCALIBRATED, CALIBRATED, RUNNING])
        self.client().set_state(state, fenced=self.random.random() < 0.5)

    def leave(self) -> None:
        self.client().leave()

    # Operators.

    def steer(self) -> None:
        name = self.client().name
        state = self.random.choice([UNCALIBRATED, CALIBRATED, RUNNING])
        self._order(name, lambda engine: engine.registry.steer(name, state))

    def kick(self) -> None:
        name = self.client().name
        self._order(name, lambda engine: engine.registry.kick(name))

    def lock_out(self) -> None:
        name, seconds = self.client().name, self.random.choice([0, 1, 3])
        self._order(name, lambda engine: engine.registry.lock_out(name, seconds))

    def plan_silence(self) -> None:
        name, seconds = self.client().name, self.random.choice([0.0, SILENCE])
        self._order(name, lambda engine: engine.registry.silence(name, seconds))

    def _order(self, name: str, action: Callable[[Engine], object]) -> None:
        def ask(engine: Engine) -> None:
            asked = engine.dispatcher.for_operator(name, lambda: action(engine))
            asked.addErrback(self.world.expect_refusal)

        self.node().order(ask)


#: All that may happen, and how often, against each other.
OFTEN: Mapping[str, float] = {
    "kill": 1,
    "restart": 1,
    "drain": 1,
    "stall": 2,
    "cut": 1,
    "cut_all": 0.5,
    "cut_long": 0.5,
    "cut_requests": 1,
    "cut_answers": 1,
    "lag": 2,
    "lose_watch": 1,
    "stop_etcd": 0.5,
    "compact": 0.5,
    "silence": 3,
    "move": 3,
    "begin_anew": 1,
    "enter": 4,
    "leave": 0.5,
    "steer": 3,
    "kick": 0.5,
    "lock_out": 0.3,
    "plan_silence": 0.5,
}

KINDS: Mapping[str, Callable[[Trouble], None]] = {
    kind: getattr(Trouble, kind) for kind in OFTEN
}

#: What makes no trouble: every run has it.
PEOPLE = ("silence", "move", "enter", "steer")


def run(
    seed: int, kinds: Sequence[str] | None = None, seconds: float = SECONDS
) -> Trouble:
    """One run, which a seed decides.

    :param kinds: what happens in it; None for what the seed decides.
    :raises Violation: if something doesn't hold.
    """
    random = Random(seed)  # noqa: S311 - so that it can be repeated
    world = World(random)
    trouble = Trouble(world)
    taken = kinds or [
        kind for kind in OFTEN if kind in PEOPLE or random.random() < random.random()
    ]
    weights = [OFTEN[kind] * random.uniform(0.2, 1.8) for kind in taken]
    pause = random.choice([0.2, 0.5, 1.0, 2.0])
    # In half of them, each change is announced in a turn of its own.
    slices.SLICE, usual = random.choice([0.0, slices.SLICE]), slices.SLICE
    # A node that was killed leaves coroutines behind, which end where they are found.
    gc.disable()
    try:
        world.pass_time(3.0)
        while world.clock.seconds() < seconds:
            world.pass_time(random.expovariate(1 / pause))
            trouble.do(random.choices(taken, weights)[0])
        trouble.is_over = True
        world.end_well()
    except Violation as error:
        raise Violation(f"seed {seed}: {error}") from error
    finally:
        world.close()
        slices.SLICE = usual
        gc.enable()
    return trouble
