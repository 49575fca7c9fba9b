"""The JavaScript client's own tests, by Node (clients/javascript/test/)."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.integration.processes import ROOT
from tests.integration.waiting import PATIENCE

NODE = shutil.which("node")


@pytest.mark.skipif(NODE is None, reason="there is no node here")
def test_the_tests_of_the_javascript_client_pass() -> None:
    tests = sorted((ROOT / "clients/javascript/test").glob("*.test.mjs"))
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
