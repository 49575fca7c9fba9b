"""What a fleet is, and what goes wrong in it: all of it follows from the seed.

Each client has a source of random numbers of its own, so one more client changes
nothing for the others. Knows no clock and no transport.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from random import Random
from typing import Any

from attrs import Attribute, Factory, field, frozen

from heartbeat_service.core.heartbeat import LONGEST_FUSE, SHORTEST_FUSE
from heartbeat_service.protocol.messages import ClientID


class Transport(str, Enum):
    """What clients beat by."""

    HTTP = "http"
    ZEROMQ = "zeromq"
    MIXED = "mixed"


class Mishap(str, Enum):
    """What befalls a client.

    A *crash* ends its process without a Goodbye, and another is started later. A
    *pause* keeps it from beating, and it goes on as if nothing had been. A *restart*
    says Goodbye first, and comes back at once. A *duplicate* is a second process with
    the same ID, which takes the client over.
    """

    CRASH = "crash"
    PAUSE = "pause"
    RESTART = "restart"
    DUPLICATE = "duplicate"


#: How long a crash or a pause lasts, in fuses: some come back in time, most don't.
SHORTEST_ABSENCE, LONGEST_ABSENCE = 0.2, 3.0


def _between(least: float, most: float) -> Callable[[Any, Attribute[Any], float], None]:
    def check(_: object, attribute: Attribute[Any], value: float) -> None:
        if not least <= value <= most:  # so NaN is none
            name = attribute.name.replace("_", "-")
            raise ValueError(f"--{name}: expected {least:g} to {most:g}, got {value:g}")

    return check


@frozen
class Plan:
    """A fleet.

    :ivar seconds: how long it is watched.
    :ivar timebomb: the fuse that its clients ask for, in seconds; None for the
        service's own.
    :ivar crash_rate: the share of the clients that this befalls in a minute; so with
        the other rates.
    :ivar lossy: the share of the requests, and of the answers, that get lost.
    :ivar skew: by how much of itself a client's clock runs fast or slow at the most.
    :ivar slow: for how many seconds at the most a client leaves an answer unread.
    :ivar stall_rate: how often in a minute the service itself is kept from running: of
        a virtual one alone.
    :ivar labels: the values of each label, which clients have in turn; ``{n}`` in one
        stands for the client's number.
    :ivar prefix: what client IDs begin with.
    :ivar run: goes into the instance of each process, which no other fleet's may have.
    """

    clients: int = field(default=500, validator=_between(1, 1_000_000))
    seconds: float = field(default=120.0, validator=_between(1, 31 * 86_400))
    seed: str = "1"
    transport: Transport = Transport.HTTP
    timebomb: float | None = None
    crash_rate: float = field(default=0.0, validator=_between(0, 60))
    pause_rate: float = field(default=0.0, validator=_between(0, 60))
    restart_rate: float = field(default=0.0, validator=_between(0, 60))
    duplicate_rate: float = field(default=0.0, validator=_between(0, 60))
    lossy: float = field(default=0.0, validator=_between(0, 0.9))
    skew: float = field(default=0.0, validator=_between(0, 0.5))
    slow: float = field(default=0.0, validator=_between(0, 60))
    stall_rate: float = field(default=0.0, validator=_between(0, 60))
    labels: Mapping[str, tuple[str, ...]] = Factory(dict)
    prefix: str = "fleet-"
    run: str = ""

    def __attrs_post_init__(self) -> None:
        try:
            ClientID.parse(self.client_id(self.clients))
        except ValueError as error:
            raise ValueError(f"--prefix: {error}") from None
        fuse = self.timebomb
        if fuse is not None and not SHORTEST_FUSE <= fuse <= LONGEST_FUSE:
            raise ValueError(
                f"--timebomb: expected {SHORTEST_FUSE:g} to {LONGEST_FUSE:g}, "
                f"got {fuse:g}"
            )

    def random(self, of: object) -> Random:
        """A source of random numbers that is the same in each run."""
        return Random(f"{self.seed}/{of}")  # noqa: S311 - no secret comes of it

    def client_id(self, number: int) -> str:
        """The ID of a client, of which the first has the number 1."""
        return f"{self.prefix}{number:0{len(str(self.clients))}}"

    def labels_of(self, number: int) -> dict[str, str]:
        """A client's labels."""
        return {
            name: values[(number - 1) % len(values)].replace("{n}", str(number))
            for name, values in self.labels.items()
        }

    def by_zeromq(self, number: int) -> bool:
        """Whether that client beats by ZeroMQ: of a mixed fleet, every second one."""
        if self.transport is Transport.MIXED:
            return number % 2 == 0
        return self.transport is Transport.ZEROMQ

    def next_mishap(self, random: Random) -> tuple[float, Mishap] | None:
        """In how many seconds what befalls a client next; None if nothing does."""
        rates = {
            Mishap.CRASH: self.crash_rate,
            Mishap.PAUSE: self.pause_rate,
            Mishap.RESTART: self.restart_rate,
            Mishap.DUPLICATE: self.duplicate_rate,
        }
        total = sum(rates.values())
        if total == 0:
            return None
        [mishap] = random.choices([*rates], [*rates.values()])
        return random.expovariate(total / 60), mishap
