"""Tokens and addresses: who is let in, and which files are refused."""

from __future__ import annotations

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
from heartbeat_service.web.access import Door, TokenFile, TokenFileError, is_local


class TestDoor(SynchronousTestCase):
    """A door with a file of tokens."""

    def setUp(self) -> None:
        """A file of two tokens, and what is logged."""
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name, "tokens")
        self.path.touch(0o600)  # what others may read is warned of
        self.path.write_bytes(b"first\nsecond=/+\n")
        self.tokens = TokenFile(str(self.path))
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
        for good in (b"Bearer first", b"bearer second=/+", b"BEARER  first "):
            self.door.admit(good)

    def test_nothing_else_opens(self) -> None:
        for bad in (
            None,
            b"",
            b"first",
            b"Bearer",
            b"Bearer ",
            b"Bearer firs",
            b"Bearer firstt",
            b"Bearer FIRST",
            b"Bearer first second=/+",
            b"Bearer first\n",
            b"Bearer \xff",
            b"Bearerfirst",
            b"Basic first",
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
            self.door.admit(b"Bearer first")

    def test_lines_may_end_as_on_windows_and_the_last_one_not_at_all(self) -> None:
        self.path.write_bytes(b"first\r\nlast")
        self.tokens.reload()
        self.door.admit(b"Bearer first")
        self.door.admit(b"Bearer last")

    def test_a_file_that_cannot_be_used_is_refused_and_not_shown(self) -> None:
        for content in (
            b"",
            b"\n",
            b"sesame\n\nsesame\n",
            b"sesame sesame\n",
            b" sesame\n",
            b"sesame\n\xc3\xa4\n",
            b"sesame\0\n",
        ):
            with self.subTest(content=content):
                self.path.write_bytes(content)
                with self.assertRaisesRegex(TokenFileError, str(self.path)) as caught:
                    TokenFile(str(self.path))
                self.assertNotIn("sesame", str(caught.exception))

    def test_a_file_that_cannot_be_read_is_refused(self) -> None:
        for path in (f"{self.path}.missing", str(self.path.parent)):
            with self.assertRaisesRegex(TokenFileError, path):
                TokenFile(path)

    def test_a_reload_takes_the_new_tokens_and_drops_the_old(self) -> None:
        self.path.write_bytes(b"second=/+\nthird\n")
        self.tokens.reload()
        self.assertEqual(self.levels(), [LogLevel.info])
        self.door.admit(b"Bearer second=/+")
        self.door.admit(b"Bearer third")
        with self.assertRaises(Unauthorized):
            self.door.admit(b"Bearer first")

    def test_a_reload_of_a_bad_file_keeps_the_old_tokens(self) -> None:
        for spoil in (lambda: self.path.write_bytes(b"a b\n"), self.path.unlink):
            spoil()
            self.tokens.reload()
            self.assertEqual(self.levels(), [LogLevel.error])
            self.door.admit(b"Bearer first")

    def test_no_token_is_shown_by_what_people_print(self) -> None:
        self.path.write_bytes(b"sesame\n")
        self.tokens.reload()
        self.assertNotIn("sesame", f"{self.tokens!r} {self.door!r} {self.logged!r}")

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
