"""The game client's program: a bad option is named."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from heartbeat_service.game_client.__main__ import Options


class TestOptions(SynchronousTestCase):
    def test_a_bad_option_is_named(self) -> None:
        for named, *arguments in (
            ("--id",),
            ("--id", "--id", "..", "--server", "http://127.0.0.1:1"),
            ("--server", "--id", "1"),
            ("--server", "--id", "1", "--server", "127.0.0.1:6969"),
            ("--server", "--id", "1", "--server", "http://127.0.0.1:x"),
        ):
            with self.assertRaises(SystemExit) as refusal:
                Options().parseOptions(arguments)
            self.assertTrue(str(refusal.exception).startswith(named))
