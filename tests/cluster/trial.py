"""One fault, from a cluster that is well to one that is well again; and its row."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import ClassVar

from attrs import define, field

from tests.cluster.clients import KINDS, SILENT
from tests.cluster.cluster import FUSE, NODES, PATIENCE, Cluster, wait
from tests.cluster.judge import TALKERS

#: The long form, unless the short one was asked for.
LONG = os.environ.get("CLUSTER") != "short"

#: A node's session with etcd ends so many seconds after it was last heard of (contract:
#: CLUSTER.md); up to twice as many where etcd has a new leader meanwhile.
SESSION = 5.0

#: How many clients beat all the time, wherever they are answered.
TALKING = sum(count for kind, count in KINDS.items() if f"{kind}-" in TALKERS)

#: A silent client may live so long after all is well: a full fuse from its new node,
#: and what a busy machine takes.
DEAD_WITHIN = 2 * SESSION + FUSE + 15.0


def either(short: float, long: float) -> float:
    """The one for the form that was asked for."""
    return long if LONG else short


@define
class Row:
    """One row of the table.

    :ivar changes: seconds until a change was accepted again.
    :ivar everybody: seconds until all clients were seen alive at the living nodes.
    """

    HEADS: ClassVar = (
        "fault",
        "tried",
        "lost",
        "meant two states",
        "wrongly dead",
        "silent, not dead",
        "back in: changes",
        "everybody",
    )

    fault: str
    tried: str = ""
    lost: int | None = None
    two_states: int | None = None
    wrongly_dead: int | None = None
    undead: int | None = None
    changes: float | None = None
    everybody: float | None = None
    note: str = ""

    def add(self, note: str) -> None:
        """Note something besides."""
        self.note += f"; {note}" if self.note else note

    def cells(self) -> tuple[str, ...]:
        """What is shown."""
        counts = (self.lost, self.two_states, self.wrongly_dead, self.undead)
        times = (self.changes, self.everybody)
        return (
            self.fault,
            self.tried,
            *("-" if count is None else f"{count}" for count in counts),
            *("-" if seconds is None else f"{seconds:.1f} s" for seconds in times),
        )


@define
class Trial:
    """Begins with a cluster that is well.

    :ivar begun: when it began; ``struck``: when the fault did.
    """

    cluster: Cluster
    row: Row
    begun: float = 0.0
    struck: float = 0.0
    _known: set[str] = field(factory=set)  # what was wrong before
    _times: list[tuple[float, float]] = field(factory=list)

    def begin(self) -> None:
        """All is well, and three clients are about to fall silent."""
        self.cluster.heal()
        self.begun = time.monotonic()
        self._everybody_alive(self.begun, NODES)
        self._known = self._wrong()
        self.cluster.judge.silent.clear()
        self.cluster.tell(f"silent silent-{self.begun:.0f}")
        self._until(
            lambda: len(self.cluster.judge.silent) == SILENT or None,
            lambda: "the clients don't fall silent",
        )

    @contextmanager
    def strikes(self, living: Collection[str] = NODES) -> Iterator[None]:
        """What is done within is the fault: from then on, it is counted how long it is.

        :param living: the nodes where everybody is to be seen alive.
        """
        yield
        self.struck = time.monotonic()
        self.is_back(self.struck, living)

    def is_back(self, since: float, living: Collection[str] = NODES) -> None:
        """Wait until it is; the slowest counts."""
        judge = self.cluster.judge
        everybody = self._everybody_alive(since, living)
        changes = self._until(
            lambda: judge.changes_since(since),
            lambda: f"no change is accepted: {judge.answers}",
        )
        self.row.changes = max(self.row.changes or 0.0, changes - since)
        self.row.everybody = max(self.row.everybody or 0.0, everybody - since)

    def lasts(self, seconds: float) -> None:
        """Let time pass, and the judge hear of it."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(min(1.0, max(0.0, end - time.monotonic())))  # a fault's duration
            self.cluster.read()

    def ends(self) -> None:
        """All is mended: who is silent dies; in calm, nothing is missing anywhere."""
        cluster, judge = self.cluster, self.cluster.judge
        cluster.heal()
        mended = time.monotonic()
        self._everybody_alive(mended, NODES)
        undead = self._patiently(judge.alive_though_silent, mended + DEAD_WITHIN)
        wrong = self.count(self._missing_in_calm(), undead)
        told = [f"{what}: {sorted(one)[:10]}" for what, one in wrong.items() if one]
        assert not told, f"{'; '.join(told)}\nSee {cluster.folder}"
        for node in cluster.nodes.values():
            assert "Traceback" not in node.printed(), node.printed()[-5000:]

    def count(
        self, missing: Collection[str] = (), undead: Collection[str] | None = None
    ) -> dict[str, Collection[str]]:
        """Enter what the judge knows into the row; what is wrong, by what it is called.

        :param undead: who is silent and not dead; None if that wasn't waited for.
        """
        judge, row, now = self.cluster.judge, self.row, time.monotonic()
        stale = [each for each in judge.stale if each[1].sent > self.begun]
        lost = {
            *missing,
            *(judge.backwards - self._known),
            *(
                f"{each.node} answered {each.client} {each.word} at {each.at:.3f}, "
                f"which had been out of date for {seconds:.1f} s"
                for seconds, each in stale
                if seconds > 2 * SESSION
            ),
        }
        two_states = judge.two_states - self._known
        dead = judge.wrongly_dead() - self._known
        row.lost, row.two_states, row.wrongly_dead = map(len, (lost, two_states, dead))
        row.undead = None if undead is None else len(undead)
        beats = judge.beats(self.begun, now)
        row.tried = f"{beats} beats, {judge.accepted(self.begun, now)} changes"
        longest, who = judge.longest_unanswered(self.begun, now)
        row.add(f"longest without an answer {longest:.1f} s ({who})")
        stalls = [each.seconds for each in judge.stalls if each.at > self.begun]
        if stalls:
            row.add(f"the clients stalled for {max(stalls):.1f} s")
        if stale:
            seconds, record = max(stale, key=lambda each: each[0])
            row.add(f"a beat's answer {seconds:.1f} s old ({record.client})")
        return {
            "lost": lost,
            "meant two states": two_states,
            "wrongly dead": dead,
            "silent and not dead": undead or (),
        }

    def _missing_in_calm(self) -> set[str]:
        """What a node doesn't show or hasn't told, though nothing changes any more."""
        judge, hushed = self.cluster.judge, time.monotonic()
        self.cluster.tell("hush")
        deadline = hushed + PATIENCE / 2
        missing = self._patiently(lambda: judge.missing(NODES, hushed + 1), deadline)
        untold = self._patiently(
            lambda: judge.untold(NODES, self.begun, hushed), deadline
        )
        self.cluster.tell("go on")
        return missing | untold

    def _everybody_alive(self, since: float, living: Collection[str]) -> float:
        judge = self.cluster.judge
        return self._until(
            lambda: judge.all_alive_since(since, living),
            lambda: f"not everybody is alive at {living}: {judge.answers}",
        )

    def _wrong(self) -> set[str]:
        judge = self.cluster.judge
        return judge.backwards | judge.two_states | judge.wrongly_dead()

    def _until(
        self, known: Callable[[], float | None], otherwise: Callable[[], str]
    ) -> float:
        """Wait for what the judge comes to know."""
        found: list[float] = []

        def reads() -> bool:
            self.cluster.read()
            what = known()
            found.extend(() if what is None else (what,))
            return bool(found)

        wait(reads, lambda: f"{otherwise()}\nSee {self.cluster.folder}")
        return found[0]

    def _patiently(self, wrong: Callable[[], set[str]], deadline: float) -> set[str]:
        """What is still wrong then, or nothing as soon as nothing is."""
        self.cluster.read()
        while (what := wrong()) and time.monotonic() < deadline:
            time.sleep(0.1)  # the records are looked at again and again
            self.cluster.read()
        return what
