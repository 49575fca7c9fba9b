"""The JavaScript client's own tests, by Node (clients/javascript/test/)."""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import pytest

from heartbeat_service import __version__
from tests.integration.processes import ROOT
from tests.integration.waiting import PATIENCE

NODE = shutil.which("node")
MODULE = ROOT / "clients/javascript"


@pytest.mark.skipif(NODE is None, reason="there is no node here")
def test_the_tests_of_the_javascript_client_pass() -> None:
    tests = sorted((MODULE / "test").glob("*.test.mjs"))
    assert tests
    ended = subprocess.run(
        ["node", "--test", "--test-reporter=spec", *tests],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    # What failed stands behind all that passed.
    _, _, failures = ended.stdout.partition("failing tests:")
    assert ended.returncode == 0, failures or ended.stdout + ended.stderr


def test_the_types_of_the_javascript_client_name_all_that_it_exports() -> None:
    exports = re.compile(
        r"^export (?:declare )?(?:async )?(?:const|class|function) (\w+)", re.MULTILINE
    )
    module = set(exports.findall((MODULE / "heartbeat.js").read_text("utf-8")))
    types = set(exports.findall((MODULE / "heartbeat.d.ts").read_text("utf-8")))
    assert "GameClient" in module
    assert types == module


def test_the_package_of_the_javascript_client_has_the_services_version() -> None:
    package = json.loads((MODULE / "package.json").read_text("utf-8"))
    assert package["version"] == __version__
    assert "dependencies" not in package
    assert all((MODULE / name).exists() for name in package["files"])
