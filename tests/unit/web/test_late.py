"""Who is late at other nodes is told here, once, and that it is over."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from msgspec import Raw
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from heartbeat_service.core.states import ClientState
from heartbeat_service.protocol.nodes import BeatsAnswer, BeatsRecord
from heartbeat_service.web.late import LateElsewhere
from tests.unit.engine.test_dispatch import House
from tests.unit.storage.store_suite import snapshot

B, C = "session-of-b", "session-of-c"


def late(incarnation: int = 7, *, held: bool = False) -> BeatsRecord:
    """How a late client beats at its node."""
    return BeatsRecord(
        incarnation=incarnation,
        values=Raw(b"{}"),
        seconds_since_heartbeat=4.5,
        seconds_to_timebomb=5.5,
        reported_state=ClientState.UNCALIBRATED,
        late=True,
        held=held,
        silent_seconds=None,
        beats=3,
        longest_gap_seconds=2.0,
    )


def says(beats: dict[str, BeatsRecord] | None = None, more: int = 0) -> BeatsAnswer:
    """What a node says.

    :param more: how many are late whom it doesn't name.
    """
    beats = beats or {}
    return BeatsAnswer(beats, late=len(beats) + more, held=0)


class TestLateElsewhere(SynchronousTestCase):
    def setUp(self) -> None:
        """Two clients beat at b, one at c."""
        self.house = House()
        for client_id in ("1", "2", "3"):
            self.house.registry.replace(client_id, snapshot(client_id, 7), here=False)
        self.at = {"1": B, "2": B, "3": C}
        self.answers: dict[str, BeatsAnswer | None] = {}
        self.asked = 0
        self.read = True
        peers: Any = SimpleNamespace(
            who_is_late=self.who_is_late, session_of=self.at.get
        )
        self.told: list[Any] = []
        self.late = LateElsewhere(
            self.house.clock,
            peers,
            self.house.registry,
            self.told.append,
            lambda: self.read,
        )
        self.late.start()
        self.addCleanup(self.late.stop)

    async def who_is_late(self) -> dict[str, BeatsAnswer | None]:
        """What the others say now."""
        self.asked += 1
        return self.answers

    def hear(self, b: BeatsAnswer | None, c: BeatsAnswer | None = None) -> list[str]:
        """What is told once they have said so: kinds and IDs."""
        self.answers = {B: b, C: says() if c is None else c}
        self.told.clear()
        self.house.clock.advance(1.0)
        return [f"{type(one).__name__} {one.client_id}" for one in self.told]

    def test_who_becomes_late_and_is_held_is_told_once(self) -> None:
        self.assertEqual(self.hear(says({"1": late()})), ["Late 1"])
        [news] = self.told
        self.assertEqual(news.incarnation, 7)
        self.assertEqual(news.seconds_since_heartbeat, 4.5)
        self.assertEqual(news.timebomb_seconds, 10.0)
        self.assertEqual(self.hear(says({"1": late()})), [])
        self.assertEqual(self.hear(says({"1": late(held=True)})), ["Held 1"])
        self.assertEqual(self.hear(says({"1": late(held=True)})), [])
        self.assertEqual(self.hear(says()), ["Recovered 1"])
        self.assertEqual(self.hear(says()), [])

    def test_who_dies_has_not_recovered(self) -> None:
        self.hear(says({"1": late(), "2": late()}))
        self.house.registry.replace("1", None)
        self.house.registry.replace("2", snapshot("2", 8), here=False)
        self.assertEqual(self.hear(says()), [])

    def test_what_was_told_stays_while_its_node_says_nothing_or_not_all(self) -> None:
        self.hear(says({"1": late()}))
        self.assertEqual(self.hear(None), [])
        self.assertEqual(self.hear(says(more=1)), [])
        self.at["1"] = C  # its node is gone, or it has moved
        self.assertEqual(self.hear(None), ["Recovered 1"])

    def test_who_beats_here_or_in_another_life_is_not_told_of(self) -> None:
        self.house.registry.place("1", here=True)
        answer = says({"1": late(), "2": late(6), "unknown": late()})
        self.assertEqual(self.hear(answer), [])

    def test_nobody_is_asked_while_nobody_reads(self) -> None:
        self.read = False
        self.assertEqual(self.hear(says({"1": late()})), [])
        self.assertEqual(self.asked, 0)
        self.read = True
        self.assertEqual(self.hear(says({"1": late()})), ["Late 1"])

    def test_when_it_stops_nobody_is_asked_any_more(self) -> None:
        waiting: Deferred[Any] = Deferred()

        async def wait() -> Any:
            return await waiting

        peers: Any = self.late.peers
        peers.who_is_late = wait
        self.house.clock.advance(1.0)
        self.late.stop()
        self.assertTrue(waiting.called)
        self.house.clock.advance(5.0)
        self.assertEqual(self.told, [])
