"""The program that makes keys: what it writes, for whom, and what it leaves alone."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import redirect_stdout
from errno import ENOSPC
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase
from zmq.auth import create_certificates, load_certificate

from heartbeat_service import curve_keys
from heartbeat_service.curve_keys import main
from heartbeat_service.protocol.scope import NOBODY, Scope
from heartbeat_service.zeromq.keys import (
    BadKeys,
    read_clients,
    read_pair,
    read_public,
    read_server_pair,
)


def new_place(test: SynchronousTestCase) -> Path:
    """A folder that is gone after the test, with all the secrets in it."""
    place = TemporaryDirectory()
    test.addCleanup(place.cleanup)
    return Path(place.name)


class TestCurveKeys(SynchronousTestCase):
    def setUp(self) -> None:
        place = new_place(self)
        self.folder, self.out = place / "server", place / "client"

    def run_it(self, *arguments: object) -> str:
        """Run the program; what it prints."""
        self.patch(sys, "argv", ["curve_keys", *map(str, arguments)])
        with redirect_stdout(StringIO()) as printed:
            main()
        return printed.getvalue()

    def fails(self, *arguments: object) -> str:
        """Run the program, which must fail; its last line."""
        with self.assertRaises(SystemExit) as caught:
            self.run_it(*arguments)
        assert isinstance(caught.exception.code, str)  # a text: exit status 1
        return caught.exception.code.splitlines()[0]

    def test_makes_the_servers_pair(self) -> None:
        printed = self.run_it(self.folder)
        pair = read_server_pair(self.folder)
        self.assertEqual(read_clients(self.folder), {})
        self.assertIn(str(self.folder / "server.key_secret"), printed)
        self.assertNotIn(pair.secret.decode(), printed)
        self.assertNotIn(pair.secret.decode(), repr(pair))

    def test_leaves_the_servers_pair_as_it_is(self) -> None:
        self.run_it(self.folder)
        pair = read_server_pair(self.folder)
        self.assertIn("already", self.run_it(self.folder))
        self.assertEqual(read_server_pair(self.folder), pair)

    def test_half_a_pair_is_not_made_whole(self) -> None:
        for lost in ("server.key", "server.key_secret"):
            folder = self.folder / lost
            self.run_it(folder)
            (folder / lost).unlink()
            before = [path.read_text() for path in folder.iterdir()]
            self.assertIn("it is there already", self.fails(folder))
            self.assertEqual([path.read_text() for path in folder.iterdir()], before)

    def test_makes_a_clients_pair_and_what_is_carried_to_it(self) -> None:
        self.run_it(self.folder)
        self.run_it(self.folder, "--client", "one", "--out", self.out)
        self.run_it("--client", "two", "--out", self.out, self.folder)
        pairs = [read_pair(self.out / f"{name}.key_secret") for name in ("one", "two")]
        self.assertEqual(
            read_clients(self.folder),
            {pairs[0].public: Scope.of("one"), pairs[1].public: Scope.of("two")},
        )
        server = read_server_pair(self.folder)
        self.assertEqual(read_public(self.out / "server.key"), server.public)
        self.assertEqual(
            {path.name for path in (*self.folder.iterdir(), *self.out.iterdir())},
            {"server.key", "server.key_secret", "one.key", "two.key"}
            | {"one.key_secret", "two.key_secret"},
        )

    def test_a_key_may_speak_for_more_clients_than_one(self) -> None:
        self.run_it(self.folder)
        printed = self.run_it(
            *(self.folder, "--client", "wall", "--clients", "wall-* a:b"),
            *("--out", self.out),
        )
        self.assertIn("wall wall-* a:b", printed)
        [clients] = read_clients(self.folder).values()
        self.assertEqual(clients, Scope.parse("wall wall-* a:b"))
        self.assertEqual(
            read_public(self.folder / "wall.key"),
            load_certificate(self.folder / "wall.key")[0],  # pyzmq reads it, too
        )

    def test_secrets_are_nobody_elses_whatever_the_umask(self) -> None:
        former = os.umask(0)
        try:
            self.run_it(self.folder)
            self.run_it(self.folder, "--client", "one", "--out", self.out)
        finally:
            os.umask(former)
        secrets = self.folder / "server.key_secret", self.out / "one.key_secret"
        for path in secrets:
            self.assertEqual(path.stat().st_mode & 0o777, 0o600)

    def test_no_client_is_made_twice(self) -> None:
        self.run_it(self.folder)
        self.run_it(self.folder, "--client", "one", "--out", self.out)
        before = read_clients(self.folder)
        elsewhere = self.out / "elsewhere"
        for out in (self.out, elsewhere):
            failed = self.fails(self.folder, "--client", "one", "--out", out)
            self.assertIn("it is there already", failed)
        self.assertEqual(read_clients(self.folder), before)
        self.assertEqual(list(elsewhere.iterdir()), [])

    def test_what_cannot_be_written_whole_leaves_nothing_and_may_be_tried_again(
        self,
    ) -> None:
        write = Path.write_bytes
        for arguments, files in [
            ((self.folder,), {"server.key_secret", "server.key"}),
            (
                (self.folder, "--client", "one", "--out", self.out),
                {"one.key_secret", "one.key", "server.key"},
            ),
        ]:
            before = set(self.folder.parent.rglob("*.key*"))
            for full in files:

                def write_half(path: Path, data: bytes, full: str = full) -> int:
                    if path.name == full:
                        write(path, data[:10])
                        raise OSError(ENOSPC, os.strerror(ENOSPC))
                    return write(path, data)

                patched = self.patch(Path, "write_bytes", write_half)
                self.assertIn("No space left", self.fails(*arguments))
                patched.restore()
                self.assertEqual(set(self.folder.parent.rglob("*.key*")), before)
            self.run_it(*arguments)
        self.assertEqual(len(read_clients(self.folder)), 1)

    def test_keys_of_two_servers_are_not_mixed(self) -> None:
        for folder in (self.folder, self.folder / "other"):
            self.run_it(folder)
        self.run_it(self.folder, "--client", "one", "--out", self.out)
        failed = self.fails(self.folder / "other", "--client", "two", "--out", self.out)
        self.assertIn("of another server", failed)
        self.assertEqual(read_clients(self.folder / "other"), {})

    def test_without_a_server_there_is_no_client(self) -> None:
        failed = self.fails(self.folder, "--client", "one", "--out", self.out)
        self.assertIn(
            "server.key: it isn't there; make the server's pair first", failed
        )
        self.assertTrue(failed.endswith(f" {self.folder}"))
        self.assertFalse(self.out.exists())

    def test_bad_arguments_are_named(self) -> None:
        self.run_it(self.folder)
        for arguments, named in [
            ((), "DIR"),
            ((self.folder, "--out", self.out), "--out"),
            ((self.folder, "--client", "server"), "--client"),
            ((self.folder, "--client", "../x"), "--client"),
            ((self.folder, "--client", ""), "--client"),
            ((self.folder, "--client", "one", "--out", self.folder), "--out"),
            ((self.folder, "--clients", "one"), "--clients"),
            ((self.folder, "--client", "one", "--clients", "a,b"), "--clients"),
            ((self.folder, "--client", "one", "--clients", "a\nb"), "--clients"),
            ((self.folder, "and more"), "DIR"),
            ((self.folder, "--unknown"), "--unknown"),
        ]:
            self.assertIn(named, self.fails(*arguments))
        self.assertEqual(read_clients(self.folder), {})

    def test_a_signal_waits_until_a_pair_is_whole(self) -> None:
        came: list[object] = []
        former = signal.signal(signal.SIGINT, lambda *_: came.append("signal"))
        self.addCleanup(signal.signal, signal.SIGINT, former)

        def create(folder: Path, name: str) -> tuple[str, str]:
            signal.raise_signal(signal.SIGINT)  # to this thread: others take it, too
            came.append("made")
            return create_certificates(folder, name)

        self.patch(curve_keys, "create_certificates", create)
        self.run_it(self.folder)
        self.assertEqual(came, ["made", "signal"])
        self.assertTrue(read_server_pair(self.folder))


class TestReadingKeys(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = new_place(self)
        self.patch(sys, "argv", ["curve_keys", str(self.folder)])
        with redirect_stdout(StringIO()):
            main()
        self.secret = self.folder / "server.key_secret"

    def refusal(self) -> str:
        """Why the server's pair is not taken."""
        with self.assertRaises(BadKeys) as caught:
            read_server_pair(self.folder)
        return str(caught.exception)

    def test_a_secret_that_others_may_read_is_warned_of(self) -> None:
        for mode in (0o604, 0o644, 0o660, 0o666):
            self.secret.chmod(mode)
            with capturedLogs() as log:
                read_server_pair(self.folder)
            [event] = log
            self.assertIn("others may read", event["log_format"])
            self.assertNotIn(read_server_pair(self.folder).secret, repr(event).encode())
        self.secret.chmod(0o400)
        with capturedLogs() as log:
            read_server_pair(self.folder)
        self.assertEqual(len(log), 0)

    def test_pipe_in_place_of_a_key_is_refused_and_not_waited_for(self) -> None:
        os.mkfifo(self.folder / "headset-1.key")
        with self.assertRaisesRegex(BadKeys, "headset-1.key: not a regular file"):
            read_clients(self.folder)
        self.secret.unlink()
        os.mkfifo(self.secret)
        self.assertIn("not a regular file", self.refusal())

    def test_two_keys_that_are_no_pair_are_refused(self) -> None:
        public = read_public(self.secret).decode()
        other = public[:-1] + ("0" if public[-1] != "0" else "1")
        self.secret.write_text(self.secret.read_text().replace(public, other))
        self.assertIn("no pair", self.refusal())

    def test_two_files_that_disagree_are_refused(self) -> None:
        public = self.folder / "server.key"
        public.write_text('curve\n    public-key = "%s"\n' % ("1" * 40))
        self.assertIn("not the key of", self.refusal())

    def test_a_public_key_alone_is_no_pair(self) -> None:
        self.secret.write_bytes((self.folder / "server.key").read_bytes())
        self.assertIn("no secret key", self.refusal())

    def test_what_is_no_key_is_refused_and_not_shown(self) -> None:
        secret = read_pair(self.secret).secret.decode()
        text = self.secret.read_text()
        for bad in (secret[:-1], secret + secret, secret[:-1] + "~", ""):
            self.secret.write_text(text.replace(secret, bad))
            refusal = self.refusal()
            self.assertIn("its secret key is none", refusal)
            self.assertNotIn(secret[:-1], refusal)


class TestWhomAKeySpeaksFor(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = new_place(self)

    def write(self, name: str, *lines: str, key: str = "1" * 40) -> None:
        """A file with a public key."""
        text = "\n".join([*lines, f'    public-key = "{key}"', ""])
        (self.folder / name).write_text(text)

    def scope(self) -> Scope:
        """Whom the only key speaks for."""
        [clients] = read_clients(self.folder).values()
        return clients

    def test_it_speaks_for_the_client_that_its_file_is_named_after(self) -> None:
        for name in ("headset-1", "a.b", "a:b@c", "a.key", "-x", ".x", "1" * 64):
            self.write(f"{name}.key")
            self.assertEqual(self.scope(), Scope.of(name))
            self.assertIn(name, self.scope())
            (self.folder / f"{name}.key").unlink()

    def test_a_name_that_no_client_can_have_is_nobodys_and_told(self) -> None:
        for name in ("the tool", "*", "headset-*", ".", "..", "1" * 65, "a\nb"):
            self.write(f"{name}.key")
            with capturedLogs() as log:
                self.assertEqual(self.scope(), NOBODY)
            [event] = log
            self.assertIn("names no client", event["log_format"])
            self.assertNotIn("\n", formatEvent(event))
            (self.folder / f"{name}.key").unlink()

    def test_it_speaks_for_those_that_its_comments_list_too(self) -> None:
        self.write(
            *("1.key", "# clients: 2 3-*", "metadata", "  #clients:  4 ", "# clients 5")
        )
        self.assertEqual(self.scope(), Scope.parse("1 2 3-* 4"))

    def test_one_that_speaks_for_anybody_is_told(self) -> None:
        for words in ("*", "2 **"):
            self.write("1.key", f"# clients: {words}")
            with capturedLogs() as log:
                self.assertIn("anybody", self.scope())
            self.assertIn("any client", log[0]["log_format"])
        self.write("1.key", "# clients: 2-*")
        with capturedLogs() as log:
            self.assertNotIn("anybody", self.scope())
        self.assertEqual(len(log), 0)

    def test_one_key_in_two_files_speaks_for_both(self) -> None:
        self.write("1.key")
        self.write("2.key", "# clients: 3")
        self.assertEqual(self.scope(), Scope.parse("1 2 3"))

    def test_the_servers_file_lets_nobody_speak_for_server(self) -> None:
        self.write("server.key", "# clients: *")
        self.assertEqual(read_clients(self.folder), {})

    def test_a_list_that_cannot_be_is_refused(self) -> None:
        for words in ("", " ", "1, 2", "headset-?", "[12]", "..", "1\t2", "ä"):
            self.write("1.key", f"# clients: {words}")
            with self.assertRaisesRegex(BadKeys, "1.key: after `clients:`"):
                read_clients(self.folder)
