"""Tokens and addresses: who is let in, and which files are refused."""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from twisted.internet.address import (
    HostnameAddress,
    IPv4Address,
    IPv6Address,
    UNIXAddress,
)
from twisted.logger import LogLevel, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from heartbeat_service.core.errors import Unauthorized
from heartbeat_service.protocol.scope import Scope
from heartbeat_service.web.access import (
    Door,
    TokenFile,
    TokenFileError,
    client_pass,
    is_local,
    operator_pass,
)


class TestDoor(SynchronousTestCase):
    """A door with a file of tokens."""

    def setUp(self) -> None:
        """A file of two tokens, and what is logged."""
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name, "tokens")
        self.path.touch(0o600)  # what others may read is warned of
        self.path.write_bytes(b"first-token-of-2\nsecond=/+token-2\n")
        self.tokens = TokenFile(str(self.path), client_pass)
        self.door = Door(self.tokens)
        self.logged: list[Any] = []
        keep: Any = self.logged.append
        globalLogPublisher.addObserver(keep)
        self.addCleanup(globalLogPublisher.removeObserver, keep)

    def levels(self) -> list[Any]:
        """The levels of what was logged since the last look."""
        levels = [event["log_level"] for event in self.logged]
        self.logged.clear()
        return levels

    def test_each_token_of_the_file_opens(self) -> None:
        for good in (
            b"Bearer first-token-of-2",
            b"bearer second=/+token-2",
            b"BEARER  first-token-of-2 ",
        ):
            self.door.admit(good)

    def test_its_first_token_is_what_a_node_shows_at_others(self) -> None:
        self.assertEqual(self.door.authorization(), b"Bearer first-token-of-2")
        self.door.admit(self.door.authorization())
        self.path.write_bytes(b"a-newer-token-of-2 Ann\nfirst-token-of-2\n")
        self.tokens.reload()
        self.assertEqual(self.door.authorization(), b"Bearer a-newer-token-of-2")
        self.path.write_bytes(b"short\n")
        self.tokens.reload()
        self.assertEqual(self.door.authorization(), b"Bearer a-newer-token-of-2")
        self.assertEqual(Door().authorization(), b"")

    def test_nothing_else_opens(self) -> None:
        for bad in (
            None,
            b"",
            b"first-token-of-2",
            b"Bearer",
            b"Bearer ",
            b"Bearer first-token-of-",
            b"Bearer first-token-of-2t",
            b"Bearer FIRST-TOKEN-OF-2",
            b"Bearer first-token-of-2 second=/+token-2",
            b"Bearer first-token-of-2\n",
            b"Bearer \xff",
            b"Bearerfirst-token-of-2",
            b"Basic first-token-of-2",
        ):
            with self.subTest(bad=bad), self.assertRaises(Unauthorized):
                self.door.admit(bad)

    def test_a_door_without_tokens_is_open_unless_it_is_shut(self) -> None:
        door = Door()
        door.admit(None)
        door.shut = "go away"
        with self.assertRaisesRegex(Unauthorized, "go away"):
            door.admit(None)

    def test_a_shut_door_opens_to_no_token(self) -> None:
        self.door.shut = "go away"
        with self.assertRaisesRegex(Unauthorized, "go away"):
            self.door.admit(b"Bearer first-token-of-2")

    def test_lines_may_end_as_on_windows_and_the_last_one_not_at_all(self) -> None:
        self.path.write_bytes(b"first-token-of-2\r\nthe-last-token-of-2")
        self.tokens.reload()
        self.door.admit(b"Bearer first-token-of-2")
        self.door.admit(b"Bearer the-last-token-of-2")

    def test_a_file_that_cannot_be_used_is_refused_and_not_shown(self) -> None:
        for content in (
            b"",
            b"\n",
            b"sesame-open-sesame\n\nother-open-sesame\n",
            b"sesame-open-sesam\xc3\xa4\n",
            b"short-of-sesame\n",  # 15 characters
            b"sesame\n",
            b"sesame-open-sesame\nsesame-open-sesame\n",
            b"sesame-open-sesame 1\nsesame-open-sesame 2\n",
            b"sesame-open-sesame \n",  # whoever wrote that forgot the clients
            b"sesame-open-sesame   \n",
            b"sesame-open-sesame\t1\n",
            b"sesame-open-sesame 1\t2\n",
            b"sesame-open-sesame other/open/sesame\n",
            b"sesame-open-sesame 1,2\n",
            b"sesame-open-sesame 1 ..\n",
            b"sesame-open-sesame [12]\n",
            b"sesame-open-sesame headset-?\n",
            b"sesame-open-sesame !*\n",
            b"sesame-open-sesame # all\n",
            b"sesame-open-sesame \xc3\xa4\n",
            b"sesame-open-sesame \xff\n",
            b"sesame-open-sesame " + b"1" * 65 + b"\n",
            b"# sesame-open-sesame\n",
            b" sesame-open-sesame\n",
            b"sesame-open-sesame\n\xc3\xa4\n",
            b"sesame-open-sesame\0\n",
        ):
            with self.subTest(content=content):
                self.path.write_bytes(content)
                with self.assertRaisesRegex(TokenFileError, str(self.path)) as caught:
                    TokenFile(str(self.path), client_pass)
                self.assertNotIn("sesame", str(caught.exception))

    def test_a_file_that_cannot_be_read_is_refused(self) -> None:
        for path in (f"{self.path}.missing", str(self.path.parent)):
            with self.assertRaisesRegex(TokenFileError, path):
                TokenFile(path, client_pass)

    def test_a_reload_takes_the_new_tokens_and_drops_the_old(self) -> None:
        self.path.write_bytes(b"second=/+token-2\nthird-token-of-3\n")
        self.tokens.reload()
        self.assertEqual(self.levels(), [LogLevel.info])
        self.door.admit(b"Bearer second=/+token-2")
        self.door.admit(b"Bearer third-token-of-3")
        with self.assertRaises(Unauthorized):
            self.door.admit(b"Bearer first-token-of-2")

    def test_a_reload_of_a_bad_file_keeps_the_old_tokens(self) -> None:
        for spoil in (lambda: self.path.write_bytes(b"a b\n"), self.path.unlink):
            spoil()
            self.tokens.reload()
            self.assertEqual(self.levels(), [LogLevel.error])
            self.door.admit(b"Bearer first-token-of-2")

    def test_no_token_is_shown_by_what_people_print(self) -> None:
        self.path.write_bytes(b"sesame-open-sesame\n")
        self.tokens.reload()
        self.assertNotIn("sesame", f"{self.tokens!r} {self.door!r} {self.logged!r}")

    def clients(self, line: bytes) -> Scope:
        """Whom a token speaks for that has this on its line."""
        self.path.write_bytes(b"first-token-of-2" + line)
        self.tokens.reload()
        return self.door.admit(b"Bearer first-token-of-2").clients

    def test_a_token_alone_is_good_for_any_client(self) -> None:
        for line in (b"", b"\n", b" *\n", b"\r\nsecond=/+token-2 1"):
            clients = self.clients(line)
            for client_id in ("1", "headset-1", "a:b@c", "..x"):
                self.assertIn(client_id, clients)

    def test_a_token_with_clients_is_good_for_these_alone(self) -> None:
        for line, known, unknown in (
            (b" 1", "1", "11 01 2 *"),
            (b" 1  a:b@c  ", "1 a:b@c", "a:b@ a b@c A:B@C"),
            (b" headset-* 7", "headset- headset-1 headset-* 7", "Headset-1 headset 77"),
            (b" *-left", "1-left -left a-left-left", "left 1-lefty 1-right"),
            (b" a*b*c", "abc a-b-c abcbc aXbbXc", "ab acb abcd xabc"),
            (b" a.c", "a.c", "abc a-c"),
            (b" **a", "a ba", "ab"),
        ):
            clients = self.clients(line)
            for client_id in known.split():
                self.assertIn(client_id, clients, line)
            for client_id in unknown.split():
                self.assertNotIn(client_id, clients, line)

    def test_no_pattern_takes_long_over_an_id(self) -> None:
        clients = self.clients(b" " + b"*a" * 31 + b"*b")
        before = time.thread_time()
        self.assertNotIn("a" * 64, clients)
        self.assertLess(time.thread_time() - before, 1)

    def test_what_is_said_for_another_client_is_refused_and_names_it(self) -> None:
        self.path.write_bytes(b"first-token-of-2 1 2")
        self.tokens.reload()
        bearer = self.door.admit(b"Bearer first-token-of-2")
        bearer.must_speak_for("2")
        with self.assertRaisesRegex(Unauthorized, "client 3") as caught:
            bearer.must_speak_for("3")
        self.assertEqual(caught.exception.client_id, "3")
        self.assertNotIn("first", caught.exception.detail)

    def test_a_door_without_tokens_lets_speak_for_anybody(self) -> None:
        self.assertIn("1", Door().admit(None).clients)

    def test_an_operators_token_may_have_a_name(self) -> None:
        self.path.write_bytes(
            b"first-token-of-2\nsecond=/+token-2 J\xc3\xb6rg of the night shift\n"
        )
        door = Door(TokenFile(str(self.path), operator_pass))
        self.assertEqual(door.admit(b"Bearer first-token-of-2").name, "")
        self.assertEqual(
            door.admit(b"Bearer second=/+token-2").name, "Jörg of the night shift"
        )

    def test_a_name_that_cannot_be_is_refused(self) -> None:
        for name in (
            b"",
            b"  ",
            b"a\tb",
            b"\x1b[2J",
            b"\xff",
            b"a" * 65,
            b"a\xc2\x85b",
        ):
            self.path.write_bytes(b"first-token-of-2 " + name)
            with self.assertRaisesRegex(TokenFileError, "line 1: after the token"):
                TokenFile(str(self.path), operator_pass)

    def test_only_loopback_and_unix_sockets_are_local(self) -> None:
        for address, local in (
            (IPv4Address("TCP", "127.0.0.1", 1), True),
            (IPv4Address("TCP", "127.255.0.9", 1), True),
            (IPv6Address("TCP", "::1", 1), True),
            (UNIXAddress(b"/run/socket"), True),
            (IPv4Address("TCP", "0.0.0.0", 1), False),  # noqa: S104 - looked at only
            (IPv4Address("TCP", "10.0.0.1", 1), False),
            (IPv6Address("TCP", "::", 1), False),
            (IPv6Address("TCP", "fe80::1%eth0", 1), False),
            (HostnameAddress(b"localhost", 1), False),
            (object(), False),
        ):
            with self.subTest(address=address):
                self.assertIs(is_local(address), local)
