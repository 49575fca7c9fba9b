"""How each program reads its command line: help, version, and what it is called."""

from __future__ import annotations

import os
import sys
from contextlib import redirect_stdout
from importlib.machinery import ModuleSpec
from io import StringIO
from pathlib import Path
from tempfile import TemporaryFile

from twisted.trial.unittest import SynchronousTestCase

from heartbeat_service import curve_keys, options
from heartbeat_service.command_line import CommandLine, program, say
from heartbeat_service.game_client import __main__ as game_client

PROGRAMS: tuple[type[CommandLine], ...] = (
    options.Options,
    game_client.Options,
    curve_keys.Options,
)


class TestCommandLine(SynchronousTestCase):
    def started(self, path: str, module: str | None = None) -> None:
        """As if this process had been started so."""
        self.patch(sys, "argv", [path])
        spec = None if module is None else ModuleSpec(module, None)
        self.patch(sys.modules["__main__"], "__spec__", spec)

    def prints(self, read: CommandLine, *arguments: str) -> str:
        """What it prints before it ends with status 0."""
        with redirect_stdout(StringIO()) as printed:
            end = self.assertRaises(SystemExit, read.parseOptions, list(arguments))
        self.assertEqual(end.code, 0)
        return printed.getvalue()

    def test_a_program_is_called_as_it_was_started(self) -> None:
        for path, module, called in (
            ("/opt/bin/heartbeat-client", None, "heartbeat-client"),
            ("/opt/bin/twistd", None, "twistd heartbeat"),
            ("x.py", "heartbeat_service.__main__", "python -m heartbeat_service"),
            (
                "x.py",
                "heartbeat_service.curve_keys",
                "python -m heartbeat_service.curve_keys",
            ),
        ):
            self.started(path, module)
            self.assertEqual(program(), called)
            for each in PROGRAMS:
                usage = self.prints(each(), "--help")
                self.assertTrue(usage.startswith(f"Usage: {called} "))

    def test_the_version_is_the_services(self) -> None:
        for each in PROGRAMS:
            self.assertEqual(
                self.prints(each(), "--version"), "heartbeat-service 0.1.0\n"
            )

    def test_help_names_each_option_with_its_default(self) -> None:
        for each in PROGRAMS:
            read = each()
            self.prints(read, "--help")
            for option in read.longOpt:
                name = option.removesuffix("=")
                if name in {"help", "version"}:
                    continue
                told = str(read.docs[name])
                self.assertRegex(told, r"\[[^]]+\]\.?$|always needed$", name)

    def test_a_word_that_is_no_option_is_refused(self) -> None:
        for each in PROGRAMS:
            refusal = self.assertRaises(SystemExit, each().parseOptions, ["a", "b"])
            self.assertIn("expected", str(refusal).splitlines()[0])

    def test_what_cannot_be_printed_as_it_is_is_escaped(self) -> None:
        with TemporaryFile("w+", encoding="ascii") as printed:
            with redirect_stdout(printed):
                say("key \udcff \xe9")
            printed.seek(0)
            self.assertEqual(printed.read(), "key \\udcff \\xe9\n")

    def test_who_cannot_be_told_ends_it_with_a_status(self) -> None:
        with Path("/dev/full").open("w") as full, redirect_stdout(full):
            refusal = self.assertRaises(SystemExit, say, "anything")
            self.assertEqual(refusal.code, "can't print: No space left on device")
        reading, writing = os.pipe()
        os.close(reading)
        with os.fdopen(writing, "w") as broken, redirect_stdout(broken):
            self.assertEqual(self.assertRaises(SystemExit, say, "anything").code, 1)
