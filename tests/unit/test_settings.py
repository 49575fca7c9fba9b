"""What can be set, and what is refused (contract, section 6)."""

from __future__ import annotations

import math
import sys
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from attrs import fields_dict
from attrs.exceptions import FrozenInstanceError
from twisted.trial.unittest import SynchronousTestCase

from heartbeat_service.options import Options
from heartbeat_service.settings import Settings, SettingsError


class OptionsTestCase(SynchronousTestCase):
    """Options as twistd reads them."""

    def parse(self, *arguments: str) -> Settings:
        """The settings that a command line comes to."""
        options = Options()
        options.parseOptions(list(arguments))
        return options.settings

    def refusal(self, *arguments: str) -> str:
        """The sentence that a bad command line is refused with."""
        return str(self.assertRaises(SystemExit, self.parse, *arguments))

    def config(self, content: str | bytes) -> str:
        """The path of a configuration file."""
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        path = Path(folder.name, "heartbeat.toml")
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)


class TestGoodOptions(OptionsTestCase):
    """Each option, with its default."""

    def test_the_defaults_are_the_contracts(self) -> None:
        self.assertEqual(
            self.parse(),
            Settings(
                http=("tcp:6969:interface=127.0.0.1",),
                router="tcp://127.0.0.1:8765",
                pub="tcp://127.0.0.1:4321",
                advertise=None,
                timebomb=10.0,
                interval=2.0,
                store="sqlite:heartbeat.sqlite",
                node=None,
                operator_token_file=None,
                client_token_file=None,
                curve_keys=None,
                allow_open_control=False,
                allow_origin=(),
                host=(),
                max_clients=250_000,
                max_registrations=None,
                max_timebomb=3600.0,
                mass_loss=None,
                mass_loss_hold=60.0,
            ),
        )

    def test_each_option_is_taken(self) -> None:
        settings = self.parse(
            *("--http", "tcp6:1", "--router", "tcp://*:*"),
            *("--pub", "ipc:///run/heartbeat", "--advertise", "show-server.local"),
            *("--timebomb", "0.5", "--interval", "0.1", "--store", "memory:"),
            *("--node", "rack-2:a"),
            *("--operator-token-file", "/run/operator", "--allow-open-control"),
            *("--client-token-file", "/run/client", "--curve-keys", "/run/keys"),
            *("--max-clients", "3", "--max-registrations", "7"),
            *("--max-timebomb", "60"),
            *("--mass-loss", "0.3", "--mass-loss-hold", "20"),
            *("--allow-origin", "https://console.example:8443"),
            *("--allow-origin", "http://a", "--host", "show", "--host", "show.example"),
        )
        self.assertEqual(
            settings,
            Settings(
                http="tcp6:1",
                router="tcp://*:*",
                pub="ipc:///run/heartbeat",
                advertise="show-server.local",
                timebomb=0.5,
                interval=0.1,
                store="memory:",
                node="rack-2:a",
                operator_token_file="/run/operator",
                client_token_file="/run/client",
                curve_keys="/run/keys",
                allow_open_control=True,
                max_clients=3,
                max_registrations=7,
                max_timebomb=60.0,
                mass_loss=0.3,
                mass_loss_hold=20.0,
                allow_origin=("https://console.example:8443", "http://a"),
                host=("show", "show.example"),
            ),
        )

    def test_http_may_be_given_more_than_once(self) -> None:
        settings = self.parse("--http", "tcp:1", "--http", "tcp:2")
        self.assertEqual(settings.http, ("tcp:1", "tcp:2"))

    def test_a_port_of_http_may_be_an_asterisk_too(self) -> None:
        settings = self.parse("--http", "tcp:*:interface=127.0.0.1", "--http", "tcp:*")
        self.assertEqual(settings.http, ("tcp:0:interface=127.0.0.1", "tcp:0"))

    def test_an_address_may_be_advertised(self) -> None:
        self.assertEqual(self.parse("--advertise", "10.0.0.7").advertise, "10.0.0.7")
        self.assertEqual(self.parse("--advertise", "fe80::1").advertise, "[fe80::1]")
        self.assertEqual(self.parse("--advertise", "[::1]").advertise, "[::1]")

    def test_settings_are_frozen(self) -> None:
        with self.assertRaises(FrozenInstanceError):
            Settings().timebomb = 3  # type: ignore[misc]  # the very thing refused


class TestConfig(OptionsTestCase):
    """The same names in a TOML file."""

    def test_a_file_has_the_same_names(self) -> None:
        path = self.config(
            """
            http = ["tcp:1", "tcp:2"]
            router = "tcp://127.0.0.1:3"
            pub = "tcp://127.0.0.1:4"
            advertise = "show-server"
            timebomb = 5
            interval = 1.5
            store = "sqlite:/var/lib/heartbeat.sqlite"
            operator-token-file = "/run/operator"
            client-token-file = "/run/client"
            curve-keys = "/run/keys"
            allow-open-control = true
            max-clients = 3
            max-registrations = 7
            max-timebomb = 60
            mass-loss = 1
            mass-loss-hold = 0.5
            allow-origin = "https://console.example"
            host = ["show", "show.example"]
            """
        )
        self.assertEqual(
            self.parse("--config", path),
            Settings(
                http=["tcp:1", "tcp:2"],
                router="tcp://127.0.0.1:3",
                pub="tcp://127.0.0.1:4",
                advertise="show-server",
                timebomb=5.0,
                interval=1.5,
                store="sqlite:/var/lib/heartbeat.sqlite",
                operator_token_file="/run/operator",
                client_token_file="/run/client",
                curve_keys="/run/keys",
                allow_open_control=True,
                max_clients=3,
                max_registrations=7,
                max_timebomb=60.0,
                mass_loss=1.0,
                mass_loss_hold=0.5,
                allow_origin=("https://console.example",),
                host=("show", "show.example"),
            ),
        )

    def test_one_endpoint_needs_no_list(self) -> None:
        path = self.config('http = "tcp:1"')
        self.assertEqual(self.parse("--config", path).http, ("tcp:1",))

    def test_the_command_line_goes_before_the_file(self) -> None:
        path = self.config('http = "tcp:1"\ntimebomb = 5\ninterval = 1')
        settings = self.parse("--timebomb", "7", "--config", path, "--http", "tcp:2")
        self.assertEqual(
            (settings.http, settings.timebomb, settings.interval), (("tcp:2",), 7, 1)
        )

    def test_what_a_file_cannot_say_is_named(self) -> None:
        for text, named in (
            ("timebomb = true", "--timebomb"),
            ("timebomb = 'soon'", "--timebomb"),
            ("http = []", "--http"),
            ("http = [1]", "--http"),
            ("http = 6969", "--http"),
            ("router = 8765", "--router"),
            ("advertise = 1", "--advertise"),
            ("store = 1", "--store"),
            ("operator-token-file = 1", "--operator-token-file"),
            ("operator_token_file = '/run/operator'", "'operator_token_file'"),
            ("curve-keys = ''", "--curve-keys"),
            ("allow-open-control = 'yes'", "--allow-open-control"),
            ("max-clients = true", "--max-clients"),
            ("max-clients = 1.5", "--max-clients"),
            ("max-registrations = 0", "--max-registrations"),
            ("mass-loss = true", "--mass-loss"),
            ("mass-loss-hold = 'long'", "--mass-loss-hold"),
            ("allow-origin = [1]", "--allow-origin"),
            ("host = 1", "--host"),
            ("fuse = 1", "'fuse'"),
            ("timebomb = ", "--config"),
            ("[http]", "--http"),
        ):
            with self.subTest(text):
                self.assertIn(named, self.refusal("--config", self.config(text)))

    def test_a_file_that_is_not_there_is_named(self) -> None:
        self.assertIn("'/no/such.toml'", self.refusal("--config", "/no/such.toml"))

    def test_a_file_that_is_not_utf_8_is_named(self) -> None:
        path = self.config(b"router = '\xff'")
        self.assertIn(repr(path), self.refusal("--config", path))

    def test_no_depth_of_a_file_is_a_traceback(self) -> None:
        for text in ("x = " + "[" * 100_000, "x = " + "{a = " * 100_000):
            refusal = self.refusal("--config", self.config(text))
            self.assertTrue(refusal.startswith("--config: "))
            self.assertIn("nested too deep", refusal)

    def test_no_number_of_a_file_is_too_large_to_be_refused(self) -> None:
        for number in ("1e999", "9" * 10_000, "0x" + "f" * 10_000):
            for name in ("timebomb", "max-clients", "http", "store"):
                refusal = self.refusal("--config", self.config(f"{name} = {number}"))
                self.assertRegex(refusal, f"^--({name}: expected|config: )")


class TestBadOptions(OptionsTestCase):
    """A bad option ends the program with a sentence that names it."""

    def test_a_bad_option_is_named(self) -> None:
        for option, *values in (
            ("--http", "", "foo:1", "tcp:x", "tcp", "tcp:1:nonsense=2"),
            ("--router", "", "8765", "tcp://127.0.0.1", "tcp://127.0.0.1:65536"),
            ("--pub", "", "tcp://:1", "http://127.0.0.1:1", "tcp://a b:1"),
            ("--advertise", "", "a/b", "tcp://a", "a:1", "[a]"),
            ("--timebomb", "", "0", "-1", "0.05", "3601", "nan", "inf", "soon"),
            ("--interval", "", "0", "-1", "nan", "inf", "often"),
            ("--node", "", ".", "..", "a b", "a/b", "x" * 65),
            ("--store", "", "memory", "redis:", "sqlite:", "sqlite"),
            ("--operator-token-file", ""),
            ("--client-token-file", ""),
            ("--curve-keys", ""),
            ("--max-clients", "", "0", "-1", "1.5", "many", "10000001"),
            ("--max-registrations", "", "0", "-1", "1e3"),
            ("--mass-loss", "", "0", "0.04", "1.01", "30", "30%", "nan", "off"),
            ("--mass-loss-hold", "", "0", "-1", "3601", "inf", "1m"),
            ("--allow-origin", "", "*", "null", "console.example", "https://a/"),
            ("--host", "", "*", "show:6969", "http://show", "a b", "[a]"),
        ):
            for value in values:
                with self.subTest(option=option, value=value):
                    self.assertTrue(self.refusal(option, value).startswith(option))

    def test_each_value_that_cannot_be_is_refused_in_a_short_sentence(self) -> None:
        values: tuple[Any, ...] = (
            *(None, "", [], {}, (), date(1979, 5, 27), math.nan, "\0", "\udcff"),
            *(10**5_000, -1, 2**64, "9" * 9_999, "x" * 10**6, ["tcp:1", 2]),
            "tcp://a:" + "1" * 5_000,
        )
        for name in fields_dict(Settings):
            option = name.replace("_", "-")
            for value in values:
                with self.subTest(option=option, kind=type(value)):
                    try:
                        Settings(**{name: value})
                    except SettingsError as error:
                        self.assertTrue(str(error).startswith(f"--{option}: expected "))
                        self.assertLess(len(str(error)), 500)

    def test_what_a_share_may_be_is_told(self) -> None:
        self.assertEqual(
            self.refusal("--mass-loss", "30").splitlines()[0],
            "--mass-loss: expected a share of all clients from 0.05 to 1, got '30'",
        )

    def test_the_reason_comes_first_and_then_how_to_get_help(self) -> None:
        self.patch(sys, "argv", ["/opt/bin/heartbeat-service", "--timebomb", "x"])
        self.patch(sys.modules["__main__"], "__spec__", None)
        self.assertEqual(
            self.refusal("--timebomb", "x").splitlines(),
            [
                "--timebomb: expected seconds from 0.1 to 3600, got 'x'",
                "Help: heartbeat-service --help",
            ],
        )

    def test_an_unknown_option_is_named(self) -> None:
        self.assertIn("--fuse", self.refusal("--fuse", "1"))

    def test_a_superfluous_word_is_refused(self) -> None:
        self.assertTrue(self.refusal("now"))
