"""What beats bring at other nodes is told here: who is late, and what they report."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from msgspec import Raw
from msgspec.structs import replace
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from heartbeat_service.core.notices import Reported
from heartbeat_service.core.states import ClientState
from heartbeat_service.protocol.nodes import BeatsAnswer, BeatsRecord
from heartbeat_service.web.elsewhere import COMES_BACK, BeatsElsewhere
from tests.unit.engine.test_dispatch import House
from tests.unit.storage.store_suite import snapshot

B, C = "session-of-b", "session-of-c"
RUNNING = ClientState.RUNNING


def late(incarnation: int = 7, *, held: bool = False) -> BeatsRecord:
    """How a late client beats at its node."""
    return replace(beats(incarnation), late=True, held=held)


def beats(
    incarnation: int = 7, reported: ClientState = ClientState.UNCALIBRATED
) -> BeatsRecord:
    """How a client beats at its node."""
    return BeatsRecord(
        incarnation=incarnation,
        values=Raw(b"{}"),
        seconds_since_heartbeat=4.5,
        seconds_to_timebomb=5.5,
        reported_state=reported,
        late=False,
        held=False,
        silent_seconds=None,
        beats=3,
        longest_gap_seconds=2.0,
    )


def says(beats: dict[str, BeatsRecord] | None = None, more: int = 0) -> BeatsAnswer:
    """What a node says.

    :param more: how many are late whom it doesn't name.
    """
    beats = beats or {}
    named = sum(one.late for one in beats.values())
    return BeatsAnswer(beats, late=named + more, held=0)


def reports(as_of: str, **reported: ClientState) -> BeatsAnswer:
    """What a node says whose clients have reported other states.

    :param as_of: the last event that it has looked at.
    """
    those = {f"{name[1:]}": beats(reported=state) for name, state in reported.items()}
    return BeatsAnswer(those, late=0, held=0, reported=[*those], as_of=as_of)


class TestBeatsElsewhere(SynchronousTestCase):
    def setUp(self) -> None:
        """Two clients beat at b, one at c."""
        self.house = House()
        for client_id in ("1", "2", "3"):
            self.house.registry.replace(client_id, snapshot(client_id, 7), here=False)
        self.at = {"1": B, "2": B, "3": C}
        self.answers: dict[str, BeatsAnswer | None] = {}
        self.asked = 0
        self.asked_after: dict[str, str] = {}
        self.read = True
        peers: Any = SimpleNamespace(
            late_or_reported=self.late_or_reported, session_of=self.at.get
        )
        self.told: list[Any] = []
        self.elsewhere = BeatsElsewhere(
            self.house.clock,
            peers,
            self.house.registry,
            self.told.append,
            lambda: self.read,
        )
        self.elsewhere.start()
        self.addCleanup(self.elsewhere.stop)

    async def late_or_reported(
        self, after: Mapping[str, str]
    ) -> dict[str, BeatsAnswer | None]:
        """What the others say now."""
        self.asked += 1
        self.asked_after = dict(after)
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

    def test_each_report_is_told_once_a_node_was_asked(self) -> None:
        self.hear(reports("b-5"), reports("c-9"))
        self.assertEqual(self.hear(reports("b-6", c1=RUNNING)), ["Reported 1"])
        self.assertEqual(self.asked_after, {B: "b-5", C: "c-9"})
        [news] = self.told
        self.assertEqual((news.incarnation, news.reported_state), (7, RUNNING))
        self.assertEqual(self.hear(None), [])
        answer = reports("b-8", c2=RUNNING, c1=RUNNING)  # with another one in between
        self.assertEqual(self.hear(answer), ["Reported 2", "Reported 1"])
        self.assertEqual(self.asked_after[B], "b-6")

    def test_of_former_reports_only_what_is_not_known_is_told(self) -> None:
        known = snapshot("2", 7).reported_state
        answer = reports("b-5", c1=RUNNING, c2=known)
        self.assertIsNot(known, RUNNING)
        self.assertEqual(self.hear(answer), ["Reported 1"])
        self.read = False
        for _ in range(int(COMES_BACK) + 1):
            self.hear(None)
        self.read = True
        self.assertEqual(self.hear(answer), [])
        self.assertEqual(self.asked_after, {})

    def test_who_comes_back_within_a_minute_has_missed_nothing(self) -> None:
        self.hear(reports("b-5"))
        self.read = False
        for _ in range(int(COMES_BACK) - 2):
            self.hear(None)
        self.assertEqual(self.hear(reports("b-6", c1=RUNNING)), ["Reported 1"])
        asked = self.asked
        for _ in range(3):
            self.hear(None)
        self.assertEqual(self.asked, asked)

    def test_all_reports_at_a_node_that_has_begun_since_are_told(self) -> None:
        self.hear(None)
        ran = snapshot("1", 7, reported_state=RUNNING)  # its record came first
        self.house.registry.replace("1", ran, here=False)
        answer = reports("b-2", c1=RUNNING)
        self.assertEqual(self.hear(answer), ["Reported 1"])

    def test_a_report_of_who_beats_here_or_in_another_life_is_not_told(self) -> None:
        self.hear(reports("b-5"))
        self.house.registry.place("1", here=True)
        self.house.registry.replace("2", snapshot("2", 8), here=False)
        answer = reports("b-6", c1=RUNNING, c2=RUNNING, c4=RUNNING)
        self.assertEqual(self.hear(answer), [])

    def test_what_was_told_of_a_client_is_not_told_again_when_it_moves_here(
        self,
    ) -> None:
        self.hear(reports("b-5"))
        self.hear(reports("b-6", c1=RUNNING))
        for client_id in ("1", "2"):
            self.house.beat(client_id, RUNNING)
        self.house.store.finish_all()
        told = [one.client_id for one in self.house.told if isinstance(one, Reported)]
        self.assertEqual(told, ["2"])

    def test_nodes_that_are_gone_are_asked_for_nothing_any_more(self) -> None:
        self.hear(reports("b-5"), reports("c-9"))
        self.answers = {B: reports("b-5")}
        for _ in range(2):
            self.house.clock.advance(1.0)
        self.assertEqual(self.asked_after, {B: "b-5"})

    def test_nobody_is_asked_while_nobody_reads(self) -> None:
        self.read = False
        self.assertEqual(self.hear(says({"1": late()})), [])
        self.assertEqual(self.asked, 0)
        self.read = True
        self.assertEqual(self.hear(says({"1": late()})), ["Late 1"])

    def test_when_it_stops_nobody_is_asked_any_more(self) -> None:
        waiting: Deferred[Any] = Deferred()

        async def wait(_: object) -> Any:
            return await waiting

        peers: Any = self.elsewhere.peers
        peers.late_or_reported = wait
        self.house.clock.advance(1.0)
        self.elsewhere.stop()
        self.assertTrue(waiting.called)
        self.house.clock.advance(5.0)
        self.assertEqual(self.told, [])
