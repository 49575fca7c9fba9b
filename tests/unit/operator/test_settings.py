"""Where heartbeatctl's settings come from."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from heartbeat_service.operator.settings import SettingError, read_settings
from tests.unit.fakes import folder_for


class TestSettings(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = folder_for(self)
        self.environment = {"XDG_CONFIG_HOME": str(self.folder)}
        self.file = self.folder / "heartbeatctl.toml"

    def test_options_go_before_the_environment_and_that_before_the_file(self) -> None:
        self.file.write_text('server = "http://file:1/"\nca = "ca.pem"\n')
        environment = {**self.environment, "HEARTBEAT_SERVER": "http://environment:1"}
        for options, there, server in (
            ({"server": "http://option:1"}, environment, "http://option:1"),
            ({"server": None}, environment, "http://environment:1"),
            ({}, {**environment, "HEARTBEAT_SERVER": ""}, "http://file:1"),
        ):
            settings = read_settings(options, there)
            self.assertEqual(settings.server, server)
            self.assertEqual(settings.ca, str(self.folder / "ca.pem"))

    def test_without_any_it_is_this_machine(self) -> None:
        settings = read_settings({}, self.environment)
        self.assertEqual(settings.server, "http://127.0.0.1:6969")
        self.assertIsNone(settings.token)

    def test_the_first_word_of_a_token_file_counts(self) -> None:
        self.folder.joinpath("tokens").write_text("0123456789abcdef Ada L.\nother x\n")
        self.file.write_text('token-file = "tokens"')
        settings = read_settings({}, self.environment)
        self.assertEqual(settings.token, "0123456789abcdef")
        self.assertNotIn("0123456789abcdef", repr(settings))

    def test_what_is_wrong_is_told_by_where_it_stands(self) -> None:
        self.folder.joinpath("empty").write_text("\n")
        self.folder.joinpath("binary").write_bytes(b"\xff\xfe")
        for option in ("empty", "binary", "missing"):
            path = str(self.folder / option)
            with self.assertRaises(SettingError) as refusal:
                read_settings({"token-file": path}, self.environment)
            self.assertTrue(str(refusal.exception).startswith("--token-file: "))
        for server in (
            "h:1",
            "ftp://h:1",
            "http://",
            "http://h:x",
            "http://h:0",
            "http://a:b@h:1",
            "http://h:1?x",
            "http://h:99999",
        ):
            with self.assertRaises(SettingError) as refusal:
                read_settings({}, {**self.environment, "HEARTBEAT_SERVER": server})
            self.assertTrue(str(refusal.exception).startswith("HEARTBEAT_SERVER: "))
        for content in ("servr = 'x'", "server = 1", "server", "server = [1]"):
            self.file.write_text(content)
            with self.assertRaises(SettingError) as refusal:
                read_settings({}, self.environment)
            self.assertTrue(str(refusal.exception).startswith(str(self.file)))
