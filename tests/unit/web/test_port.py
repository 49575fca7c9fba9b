"""Endpoint strings and their backlog."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from heartbeat_service.web.port import with_backlog


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
