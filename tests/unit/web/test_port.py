"""Endpoint strings: their backlog, and who is behind them."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from heartbeat_service.web.port import is_wrapped, with_backlog


class TestBacklog(SynchronousTestCase):
    """How many connections may wait is named where it isn't yet."""

    def test_an_endpoint_without_a_backlog_gets_one(self) -> None:
        for description in (
            "tcp:6969",
            "tcp:0:interface=127.0.0.1",
            "tcp:port=6969",
            r"tcp6:6969:interface=\:\:1",
            "ssl:443:privateKey=a.pem:certKey=b.pem",
            r"unix:/run/a\:b:mode=660",
        ):
            self.assertEqual(with_backlog(description), f"{description}:backlog=4096")

    def test_what_names_one_or_may_name_it_by_its_place_is_left_alone(self) -> None:
        for description in (
            "tcp:6969:backlog=5",
            "tcp:6969:127.0.0.1:5",
            "tcp6:6969:5",
            "systemd:domain=INET:index=0",
            "haproxy:tcp:6969",
        ):
            self.assertEqual(with_backlog(description), description)


class TestWrapped(SynchronousTestCase):
    """Whose address says who can reach them, and whose doesn't."""

    def test_the_kinds_of_twisted_that_listen_themselves_are_plain(self) -> None:
        for description in (
            "tcp:6969",
            r"tcp6:6969:interface=\:\:1",
            "ssl:443:privateKey=a.pem:certKey=b.pem",
            "unix:/run/a",
            "systemd:domain=INET:index=0",
        ):
            self.assertFalse(is_wrapped(description))

    def test_whatever_is_not_known_to_be_plain_is_wrapped(self) -> None:
        for description in (
            "haproxy:tcp:6969:interface=127.0.0.1",
            "HAPROXY:tcp:6969",
            "onion:80",
            "tls:/etc/keys:tcp:443",
            r"t\cp:6969",
            "TCP:6969",
            "",
        ):
            self.assertTrue(is_wrapped(description))
