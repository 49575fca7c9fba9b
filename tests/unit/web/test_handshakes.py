"""Handshakes take turns: whose comes first, and when the others have theirs."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from heartbeat_service.web.handshakes import SLICE, Handshakes


class _Connection:
    """One whose handshake takes as long as a slice."""

    def __init__(self, name: str, clock: Clock, done: list[tuple[str, bytes]]) -> None:
        self._name, self._clock, self._done = name, clock, done

    def go_on(self, data: bytes) -> None:
        self._done.append((self._name, data))
        self._clock.rightNow += SLICE


class TestHandshakes(SynchronousTestCase):
    """One slice of them a turn of the reactor."""

    def setUp(self) -> None:
        """Three that wait."""
        self.clock = Clock()
        self.done: list[tuple[str, bytes]] = []
        self.handshakes = Handshakes(self.clock)
        self.a, self.b, self.c = (self.connection(name) for name in "abc")
        for one in (self.a, self.b, self.c):
            self.handshakes.add(one, b"hello")

    def connection(self, name: str) -> Any:
        """A connection that writes down when it goes on."""
        return _Connection(name, self.clock, self.done)

    def turn(self) -> None:
        """One turn of the reactor; Clock's own would take in what is called later."""
        call = self.clock.calls.pop(0)
        assert call.func is not None
        call.func()

    def test_the_newest_is_first_and_the_others_wait_for_further_turns(self) -> None:
        self.assertEqual((self.done, len(self.handshakes)), ([], 3))
        self.turn()
        self.assertEqual(self.done, [("c", b"hello")])
        self.handshakes.add(self.connection("d"), b"hello")
        for _ in range(3):
            self.turn()
        self.assertEqual([name for name, _ in self.done], ["c", "d", "b", "a"])
        self.assertEqual((len(self.handshakes), self.clock.getDelayedCalls()), (0, []))

    def test_what_comes_in_parts_is_kept_in_order(self) -> None:
        self.handshakes.add(self.c, b" again")
        self.turn()
        self.assertEqual(self.done, [("c", b"hello again")])

    def test_who_has_left_has_no_turn(self) -> None:
        for one in (self.b, self.c, self.c):
            self.handshakes.forget(one)
        self.turn()
        self.assertEqual(self.done, [("a", b"hello")])

    def test_one_that_fails_keeps_no_other_from_its_turn(self) -> None:
        def fail(_: bytes) -> None:
            raise ValueError

        self.c.go_on = fail
        self.assertRaises(ValueError, self.turn)
        self.turn()
        self.assertEqual(self.done, [("b", b"hello")])
