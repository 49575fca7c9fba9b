"""The game client's program: a bad option is named."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from heartbeat_service.game_client.__main__ import Options
from heartbeat_service.game_client.post import base_url


class TestOptions(SynchronousTestCase):
    def test_a_bad_option_is_named(self) -> None:
        for named, *arguments in (
            ("--id",),
            ("--id", "--id", "..", "--server", "http://127.0.0.1:1"),
            ("--server", "--id", "1"),
            ("--server", "--id", "1", "--server", "127.0.0.1:6969"),
            ("--server", "--id", "1", "--server", "http://127.0.0.1:x"),
            ("--server", "--id", "1", "--server", "http://h st:1"),
            ("--server", "--id", "1", "--server", "http://\udcff:1"),
            ("--server", "--id", "1", "--server", "http://h:0"),
            ("--server", "--id", "1", "--server", "http://h:65536"),
            ("--server", "--id", "1", "--server", "http://user:word@h:1"),
            ("--server", "--id", "1", "--server", "http://h:1?token=x"),
        ):
            with self.assertRaises(SystemExit) as refusal:
                Options().parseOptions(arguments)
            self.assertTrue(str(refusal.exception).startswith(named))

    def test_a_server_is_a_name_or_an_address_of_either_kind(self) -> None:
        for server, url in (
            ("http://127.0.0.1:6969/", "http://127.0.0.1:6969"),
            ("http://[::1]:6969", "http://[::1]:6969"),
            ("http://heartbeat_1:6969", "http://heartbeat_1:6969"),
            ("HTTPS://bücher.example", "https://xn--bcher-kva.example"),
            ("https://h:1/be hind", "https://h:1/be%20hind"),
        ):
            self.assertEqual(base_url(server), url)
