"""What the log says of refused requests: enough to know, never a flood."""

from __future__ import annotations

from collections.abc import Iterable

from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from heartbeat_service.core.errors import (
    BadMessage,
    HeartbeatError,
    IllegalTransition,
    Overloaded,
    StaleIncarnation,
    UnknownClient,
)
from heartbeat_service.engine.refusals import LONGEST_REASON, RefusedRequests


class TestRefusals(SynchronousTestCase):
    def setUp(self) -> None:
        self.refusals = RefusedRequests()

    def told(self, errors: Iterable[HeartbeatError]) -> list[str]:
        """What the log says when these are refused."""
        with capturedLogs() as log:
            for error in errors:
                self.refusals.add(error)
        self.assertLessEqual({event["log_level"] for event in log}, {LogLevel.warn})
        return [formatEvent(event) or "" for event in log]

    def test_first_and_each_doubling_is_told_by_code(self) -> None:
        begin = "requests refused with OVERLOADED so far"
        told = self.told(Overloaded("full", f"c{number}") for number in range(1, 1067))
        self.assertEqual(
            told,
            [
                f"{begin}: {count}; now of c{count}: full"
                for count in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
            ],
        )
        [line] = self.told([BadMessage("no JSON")])
        self.assertIn("BAD_MESSAGE so far: 1; now of somebody without an ID", line)

    def test_ordinary_life_is_not_told(self) -> None:
        ordinary = (UnknownClient, IllegalTransition, StaleIncarnation)
        self.assertEqual(self.told(kind("so it goes", "1") for kind in ordinary), [])

    def test_no_line_holds_what_a_terminal_obeys_or_grows_with_what_was_sent(self):
        bad = "\x1b[2J\r\n\u202e\udc80 {count} %s" + "x" * 10_000
        [line] = self.told([BadMessage(bad, "\x1b]0;\x07")])
        self.assertTrue(line.isascii())
        self.assertTrue(line.isprintable())
        self.assertIn(r"\x1b[2J\r\n\u202e\udc80 {count} %s", line)
        self.assertLess(len(line), 2 * LONGEST_REASON)
