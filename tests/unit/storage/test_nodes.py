"""Whether a node may speak for the service, by what etcd and the others say."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from heartbeat_service.core.errors import Overloaded
from heartbeat_service.storage.nodes import WORD_HOLDS, Standing


class TestStanding(SynchronousTestCase):
    def setUp(self) -> None:
        """A node that has just lost etcd, and is sure for three seconds more."""
        self.clock = Clock()
        self.standing = Standing(self.clock)
        self.standing.reckon(3.0, in_touch=False)

    def answers(self) -> bool:
        """Whether it answers beats."""
        try:
            self.standing.admit_beat()
        except Overloaded:
            return False
        return True

    def hear_at(self, now: float, *quiet: float | None) -> bool:
        """What the others say at that time; whether it answers beats then."""
        self.clock.advance(now - self.clock.seconds())
        self.standing.hear(quiet, asked_at=now)
        return self.answers()

    def test_it_answers_as_long_as_the_others_are_away(self) -> None:
        self.assertTrue(all(self.hear_at(now, now, now + 1) for now in range(1, 20)))
        self.clock.advance(WORD_HOLDS)
        self.assertFalse(self.answers())

    def test_it_answers_too_where_they_were_slow_to_miss_etcd(self) -> None:
        self.assertTrue(self.hear_at(2.0, None, None))
        self.assertFalse(self.hear_at(3.5, 4.0, None))
        self.assertTrue(self.hear_at(4.5, 5.0, 2.0))

    def test_it_answers_again_where_one_was_slow_to_answer(self) -> None:
        self.assertTrue(self.hear_at(2.5, 3.0))
        self.assertFalse(self.hear_at(5.0, None))
        self.assertTrue(self.hear_at(6.0, 6.0))

    def test_it_refuses_until_it_is_sure_once_another_may_have_taken_over(self) -> None:
        self.assertTrue(self.hear_at(2.5, 3.0, 3.0))
        self.assertFalse(self.hear_at(6.0, None, 7.0))
        for now in range(7, 20):
            self.assertFalse(self.hear_at(now, now - 5.0, now))
        self.standing.reckon(23.0, in_touch=True)
        self.assertTrue(self.answers())
        self.standing.reckon(None, in_touch=False)
        self.assertFalse(self.answers())
        self.assertTrue(self.hear_at(23.5, 1.0, 25.0))

    def test_one_that_had_no_session_yet_takes_nobodys_word(self) -> None:
        self.standing = Standing(self.clock)
        self.standing.reckon(None, in_touch=False)
        self.assertFalse(self.hear_at(1.0, 1.0))

    def test_the_only_one_needs_nobodys_word(self) -> None:
        self.assertTrue(self.hear_at(30.0))

    def test_for_how_long_it_was_quiet_is_known(self) -> None:
        self.clock.advance(2.0)
        self.assertEqual(self.standing.quiet_for(), 2.0)
        self.standing.stir()
        self.clock.advance(0.5)
        self.assertEqual(self.standing.quiet_for(), 0.5)
