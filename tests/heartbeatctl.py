"""One way for all tests to run ``heartbeatctl`` without a process of its own."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from typing import Any
from unittest.mock import patch

import httpx
from attrs import frozen
from typing_extensions import override

from heartbeat_service.operator.__main__ import run


class Terminal(io.StringIO):
    """Somebody types there."""

    @override
    def isatty(self) -> bool:
        return True


class Screen(io.TextIOWrapper):
    """Somebody looks at it."""

    @override
    def isatty(self) -> bool:
        return True


@frozen
class Ended:
    """How a run of the program went."""

    status: int
    out: str
    err: str

    def json(self) -> Any:
        """What it printed, which must be one line of JSON."""
        [line] = self.out.splitlines()
        return json.loads(line)


def run_program(
    words: Sequence[str],
    transport: httpx.BaseTransport | None = None,
    stdin: Any = None,
    on_screen: bool = False,
    **environment: str,
) -> Ended:
    """Run it, and wait until it ends.

    :param transport: in place of the network.
    :param stdin: such as a :class:`Terminal`; it has none if that is None.
    :param on_screen: whether standard output is a terminal.
    """
    kind = Screen if on_screen else io.TextIOWrapper
    out, err = kind(io.BytesIO(), "utf-8"), io.StringIO()
    with (
        redirect_stdout(out),
        redirect_stderr(err),
        patch.object(sys, "stdin", stdin or io.StringIO()),
        patch.dict("os.environ", {"XDG_CONFIG_HOME": "/nonexistent", **environment}),
    ):
        try:
            status = run(words, transport)
        except SystemExit as end:  # so click ends a completion
            status = int(end.code or 0)
    out.seek(0)
    return Ended(status, out.read(), err.getvalue())
