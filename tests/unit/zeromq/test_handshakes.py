"""Handshakes that failed: what the log tells, and how often."""

from __future__ import annotations

import zmq
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from heartbeat_service.zeromq.handshakes import LEFT, FailedHandshakes

NO_KEY = zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH
OTHER_KEY = zmq.PROTOCOL_ERROR_ZMTP_CRYPTOGRAPHIC
NO_ZEROMQ = zmq.PROTOCOL_ERROR_ZMTP_UNSPECIFIED


class TestFailedHandshakes(SynchronousTestCase):
    def told(self, *errors: int, address: str = "10.0.0.7") -> list[str]:
        """What the log of a server with keys says of these, one after the other."""
        handshakes = FailedHandshakes(with_keys=True)
        with capturedLogs() as log:
            for error in errors:
                handshakes.add(error, address)
        self.assertLessEqual({event["log_level"] for event in log}, {LogLevel.warn})
        return [formatEvent(event) for event in log]

    def test_the_line_has_the_address_and_what_to_do(self) -> None:
        [no_key, other_key] = self.told(NO_KEY, OTHER_KEY)
        for line in (no_key, other_key):
            self.assertIn("refused a ZeroMQ peer from 10.0.0.7: ", line)
            self.assertTrue(line.endswith("such refusals so far: 1"))
        self.assertIn("make it one with heartbeat-curve-keys DIR --client", no_key)
        self.assertIn("give it server.key of --curve-keys DIR", other_key)

    def test_first_and_each_doubling_is_told_for_each_reason(self) -> None:
        told = self.told(*[NO_KEY, OTHER_KEY] * 1000)
        self.assertEqual(len(told), 2 * 10)  # 1, 2, 4, ... 512
        self.assertTrue(told[-1].endswith("so far: 512"))

    def test_a_stranger_that_speaks_no_zeromq_is_not_told_of(self) -> None:
        self.assertEqual(self.told(NO_ZEROMQ), [])

    def test_who_leaves_during_the_handshake_is_told_of_where_keys_are_wanted(self):
        [line] = self.told(LEFT)
        self.assertIn("as a client without keys does", line)
        with capturedLogs() as log:
            FailedHandshakes(with_keys=False).add(LEFT, "10.0.0.7")
        self.assertEqual(log, [])

    def test_a_peer_that_has_gone_too_soon_is_told_of_all_the_same(self) -> None:
        [line] = self.told(NO_KEY, address="")
        self.assertIn("from an address that isn't known any more: ", line)
