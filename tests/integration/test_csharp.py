"""The C# client's own tests, by mono: its session, what it reads, its event stream."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.integration.processes import ROOT
from tests.integration.waiting import PATIENCE
from tests.messages import CONTRACT

PACKAGE = ROOT / "clients" / "csharp"
SAMPLE = PACKAGE / "Samples~" / "Heartbeat" / "HeartbeatSample.cs"
READMES = (ROOT / "README.md", PACKAGE / "README.md")

#: Just enough of Unity for the lines of the README.
UNITY = """
namespace UnityEngine
{
    public class MonoBehaviour { }
    public static class Debug { public static void Log(object what) { } }
}
"""


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run it; fails the test if it isn't there, where all clients are wanted."""
    if shutil.which(command[0]) is None:
        reason = f"there is no {command[0]} here"
        assert os.environ.get("CLIENTS") != "all", reason
        pytest.skip(reason)
    return subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        check=False,
        timeout=4 * PATIENCE,
    )


def compiled(target: Path, *sources: Path, references: str, kind: str = "exe") -> Path:
    """What mcs makes of these, without a warning."""
    options = ["-langversion:7.2", "-warnaserror", f"-target:{kind}"]
    options += [f"-r:{name}" for name in references.split()]
    made = run("mcs", *options, f"-out:{target}", *sources)
    assert made.returncode == 0, made.stdout + made.stderr
    return target


def test_its_session_and_what_it_reads_are_as_the_contract_has_them(
    tmp_path: Path,
) -> None:
    sources = [*PACKAGE.glob("Runtime/*.cs"), *PACKAGE.glob("Tests~/*.cs")]
    tests = compiled(
        tmp_path / "Tests.exe", *sources, references="System.Net.Http System.Json"
    )
    told = run("mono", tests, CONTRACT)
    assert told.returncode == 0, told.stdout + told.stderr
    assert told.stdout.endswith(" passed, 0 failed\n")


@pytest.mark.parametrize("page", [*READMES, SAMPLE], ids=lambda page: page.parent.name)
def test_what_a_unity_programmer_begins_with_compiles(
    tmp_path: Path, page: Path
) -> None:
    text = page.read_text("utf-8")
    if page.suffix == ".md":
        text = text.partition("```csharp\n")[2].partition("```")[0]
    assert "MonoBehaviour" in text
    (tmp_path / "Unity.cs").write_text(UNITY, "utf-8")
    (tmp_path / "Heartbeat.cs").write_text(text, "utf-8")
    sources = [*tmp_path.glob("*.cs"), *PACKAGE.glob("Runtime/*.cs")]
    library = tmp_path / "Heartbeat.dll"
    compiled(library, *sources, references="System.Net.Http", kind="library")
    assert library.exists()


def test_unity_finds_a_meta_file_beside_each_asset_of_the_package() -> None:
    hidden = {"Program~", "Samples~", "Tests~"}  # a tilde at the end hides them
    assets = [
        *(one for one in PACKAGE.iterdir() if one.name not in hidden),
        *PACKAGE.joinpath("Runtime").iterdir(),
    ]
    named = {one.name for one in assets if one.suffix != ".meta"}
    metas = [one for one in assets if one.suffix == ".meta"]
    assert {one.stem for one in metas} == named
    texts = [one.read_text("utf-8") for one in metas]
    guids = {re.search(r"^guid: ([0-9a-f]{32})$", text, re.MULTILINE) for text in texts}
    assert None not in guids
    assert len({found[1] for found in guids if found}) == len(metas)
