"""The judge of a cluster's faults: what it takes for wrong, and what not."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.cluster.judge import Judge
from tests.cluster.records import GONE, Record, Shown, Word

FUSE = 4.0


class TestJudge(SynchronousTestCase):
    """A cluster of the nodes a and b, and a client that beats."""

    def setUp(self) -> None:
        self.judge = Judge()
        for node in ("a", "b"):
            self.hear(0, "reset", node=node, number=1)

    def hear(self, at: float, kind: str, **more: Any) -> None:
        self.judge.hear(Record(at, kind, **more))

    def answer(
        self, at: float, word: Word, kind: str = "beat", node: str = "a", **more: Any
    ) -> None:
        """It is answered at once, and both nodes tell of it."""
        about = {"client": "balanced-1", "word": word, **more}
        sent = about.pop("sent", at)
        self.hear(at, kind, node=node, sent=sent, fuse=FUSE, **about)

    def tell(self, at: float, word: Word, reason: str = "client", **more: Any) -> None:
        """A node publishes it."""
        about = {"client": "balanced-1", "node": "a", **more}
        self.hear(at, "published", word=word, reason=reason, **about)

    def list_all(
        self, at: float, node: str = "a", *words: Word, age: float = 1
    ) -> None:
        shown = {f"balanced-{n}": Shown(word, age) for n, word in enumerate(words, 1)}
        self.hear(at, "list", node=node, sent=at, shown=shown)

    def test_a_pair_has_one_meaning_whoever_says_it(self) -> None:
        self.answer(1, Word(7, 2, "CALIBRATED"))
        self.tell(2, Word(7, 2, "CALIBRATED"), node="b")
        assert not self.judge.two_states
        self.tell(3, Word(7, 2, "RUNNING"), node="b")
        [found] = self.judge.two_states
        assert "balanced-1 (7, 2): CALIBRATED" in found

    def test_a_timebomb_within_a_fuse_of_an_answered_beat_is_wrong(self) -> None:
        self.answer(1.5, Word(7, 1, "UNCALIBRATED"), sent=1)
        self.tell(4.9, Word(7, 2, GONE), "timebomb")
        assert len(self.judge.wrongly_dead()) == 1

    def test_a_timebomb_after_the_fuse_is_right(self) -> None:
        self.answer(1.5, Word(7, 1, "UNCALIBRATED"), sent=1)
        self.hear(3, "beat", client="balanced-1", sent=2, code="TimeoutError")
        self.tell(5.1, Word(7, 2, GONE), "timebomb")
        assert not self.judge.wrongly_dead()

    def test_the_dead_are_answered_by_nobody(self) -> None:
        self.answer(1, Word(7, 1, "UNCALIBRATED"))
        self.tell(5.1, Word(7, 2, GONE), "timebomb")
        self.answer(5.5, Word(7, 1, "UNCALIBRATED"), sent=5, node="b")
        assert len(self.judge.wrongly_dead()) == 1

    def test_a_life_of_which_no_end_was_told_has_ended_too(self) -> None:
        self.answer(1, Word(7, 1, "UNCALIBRATED"))
        self.answer(2, Word(8, 1, "UNCALIBRATED"), node="b")
        assert len(self.judge.wrongly_dead()) == 1

    def test_who_leaves_or_begins_anew_is_not_wronged(self) -> None:
        self.answer(1, Word(7, 1, "UNCALIBRATED"))
        self.hear(1.5, "over", client="balanced-1", life=7)
        self.answer(2, Word(8, 1, "UNCALIBRATED"))
        self.answer(3, Word(9, 1, "UNCALIBRATED"))
        self.tell(3.1, Word(9, 1, "UNCALIBRATED"), "reconnect")
        assert not self.judge.wrongly_dead()

    def test_a_client_that_a_node_knew_and_knows_no_more_is_lost(self) -> None:
        self.answer(1, Word(7, 1, "UNCALIBRATED"))
        unknown = {"client": "balanced-1", "code": "UNKNOWN_CLIENT", "life": 7}
        self.hear(2, "set", node="b", sent=1.9, **unknown)  # it may not have heard yet
        assert not self.judge.wrongly_dead()
        self.hear(2, "set", node="a", sent=1.9, **unknown)
        assert len(self.judge.wrongly_dead()) == 1

    def test_no_node_goes_back(self) -> None:
        self.answer(1, Word(7, 2, "CALIBRATED"), "set")
        self.answer(2, Word(7, 1, "UNCALIBRATED"), "get", node="b")
        self.answer(2, Word(7, 1, "UNCALIBRATED"), "get", sent=0.9)
        assert not self.judge.backwards
        self.answer(3, Word(7, 1, "UNCALIBRATED"), "get")
        assert len(self.judge.backwards) == 1

    def test_a_node_tells_what_was_first_first(self) -> None:
        self.tell(1, Word(7, 2, "CALIBRATED"))
        self.tell(1, Word(7, 1, "UNCALIBRATED"), node="b")
        assert not self.judge.backwards
        self.tell(2, Word(7, 1, "UNCALIBRATED"))
        assert len(self.judge.backwards) == 1

    def test_what_was_acknowledged_is_listed_by_each_node(self) -> None:
        self.answer(1, Word(7, 2, "CALIBRATED"), "set")
        self.list_all(2, "a", Word(7, 2, "CALIBRATED"))
        assert len(self.judge.missing(("a", "b"), 1)) == 1  # b has said nothing
        self.list_all(2, "b", Word(7, 1, "UNCALIBRATED"))
        assert len(self.judge.missing(("a", "b"), 1)) == 1
        self.list_all(3, "b", Word(7, 3, "RUNNING"))
        assert len(self.judge.missing(("a",), 1)) == 1  # what b knows, a has to know
        self.list_all(4, "a", Word(7, 3, "RUNNING"))
        assert not self.judge.missing(("a", "b"), 1)

    def test_who_is_alive_is_listed_and_who_is_dead_is_not(self) -> None:
        self.answer(1, Word(7, 1, "UNCALIBRATED"))
        self.list_all(2)
        assert len(self.judge.missing(("a",), 1)) == 1
        self.list_all(9)  # it may have died since
        assert not self.judge.missing(("a",), 1)
        self.tell(10, Word(7, 2, GONE), "timebomb")
        self.list_all(11, "a", Word(7, 1, "UNCALIBRATED"))
        assert len(self.judge.missing(("a",), 1)) == 1

    def test_each_node_tells_of_what_was_acknowledged(self) -> None:
        word = Word(7, 1, "UNCALIBRATED")
        self.answer(3, word)
        told = {"client": "balanced-1", "word": word, "reason": "heartbeat"}
        self.hear(3, "event", node="a", number=2, **told)
        assert len(self.judge.untold(("a", "b"), 0, 4)) == 1
        self.hear(4, "event", node="b", number=2, **told)
        assert not self.judge.untold(("a", "b"), 0, 4)
        self.hear(5, "notice", node="b", number=4)
        assert len(self.judge.untold(("a", "b"), 0, 4)) == 1  # its event 3 is missing

    def test_a_node_that_began_anew_need_not_tell_what_was_before(self) -> None:
        self.answer(3, Word(7, 1, "UNCALIBRATED"))
        for node in ("a", "b"):
            self.hear(4, "reset", node=node, number=1)
        assert not self.judge.untold(("a", "b"), 0, 4)

    def test_a_silence_that_was_granted_counts_until_the_next_beat(self) -> None:
        self.answer(1, Word(7, 1, "UNCALIBRATED"))
        about = {"client": "balanced-1", "word": Word(7, 1, "UNCALIBRATED")}
        self.hear(2, "grant", node="b", sent=2, fuse=20.0, **about)
        self.tell(21, Word(7, 2, GONE), "timebomb")
        assert len(self.judge.wrongly_dead()) == 1
        self.answer(23, Word(8, 1, "UNCALIBRATED"))
        about["word"] = Word(8, 1, "UNCALIBRATED")
        self.hear(24, "grant", node="b", sent=24, fuse=20.0, **about)
        self.answer(30, Word(8, 1, "UNCALIBRATED"))
        self.tell(35, Word(8, 2, GONE), "timebomb")
        assert len(self.judge.wrongly_dead()) == 1

    def test_who_is_kicked_is_not_wronged(self) -> None:
        self.answer(1, Word(7, 1, "UNCALIBRATED"))
        self.hear(1.5, "over", client="balanced-1")
        self.answer(2, Word(8, 1, "UNCALIBRATED"))
        assert not self.judge.wrongly_dead()

    def test_who_fell_silent_must_die(self) -> None:
        self.answer(1, Word(7, 1, "UNCALIBRATED"), client="silent0-1")
        self.hear(2, "silent", client="silent0-1")
        assert self.judge.alive_though_silent() == {"silent0-1"}
        self.tell(5.5, Word(7, 2, GONE), "timebomb", client="silent0-1")
        assert not self.judge.alive_though_silent()
        assert not self.judge.wrongly_dead()
        self.answer(8, Word(8, 1, "UNCALIBRATED"), client="silent0-1")  # a late beat
        assert self.judge.alive_though_silent() == {"silent0-1"}

    def test_all_is_well_once_all_are_answered_and_shown(self) -> None:
        word = Word(7, 1, "UNCALIBRATED")
        self.answer(1, word)
        self.answer(1, word, client="balanced-2")
        self.answer(5, word)
        self.list_all(6, "a", word, word)
        assert self.judge.all_alive_since(4, ("a",)) is None
        self.answer(7, word, client="balanced-2")
        assert self.judge.all_alive_since(4, ("a",)) == 7
        assert self.judge.all_alive_since(4, ("a", "b")) is None
        assert self.judge.longest_unanswered(0, 8) == (6, "balanced-2")

    def test_a_change_is_accepted_when_something_has_changed(self) -> None:
        self.answer(1, Word(7, 1, "UNCALIBRATED"))
        self.answer(2, Word(7, 1, "UNCALIBRATED"), "set")
        assert self.judge.changes_since(0) is None
        self.tell(2.9, Word(7, 2, "CALIBRATED"))
        self.answer(3, Word(7, 2, "CALIBRATED"), "set", sent=2.8)
        assert self.judge.changes_since(0) == 3
        assert self.judge.accepted(0, 4) == 1
