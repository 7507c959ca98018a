"""What a scenario may do is listed, refused and allowed by name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from isl_emu.cli import cli
from isl_emu.errors import ScenarioError
from isl_emu.runs.process import module_command
from isl_emu.runs.wishes import Trust
from isl_emu.scenario.parse import load_scenario
from tests.scenarios import head, shell, table


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    """One of each that a scenario can have of its own."""
    text = head("strange", duration="2 s") + shell(4, 1, 0, lasers="ring")
    text += table("routing", policy="strange_policies:detour")
    text += table(
        "compute", satellites=["p00s00"], server="external", url="http://gpu.example:8000", key_variable="STRANGE_KEY"
    )
    text += table("[program]", name="traffic", node="p00s01", command=["iperf3", "-s"])
    text += table("[workload]", name="jobs", nodes=["p00s02"], function="strange_jobs:main")
    path = tmp_path / "strange.toml"
    path.write_text(text)
    return path


def test_check_lists_what_is_not_our_own(scenario: Path) -> None:
    done = CliRunner().invoke(cli, ["check", str(scenario)])
    assert [line for line in done.output.splitlines() if line.startswith("# ")] == [
        "# routing.policy: imports strange_policies:detour",
        "# workload.jobs.function: imports strange_jobs:main",
        "# program.traffic: runs iperf3 -s",
        "# compute[0].url: asks http://gpu.example:8000",
        "# compute[0].key_variable: sends it $STRANGE_KEY",
    ]


def test_no_programs_refuses_before_anything_is_imported(
    scenario: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "strange_policies.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    done = CliRunner().invoke(cli, ["run", "--no-programs", str(scenario), "--out", str(tmp_path / "out")])
    assert done.exit_code != 0
    assert "imports strange_policies:detour" in str(done.exception)
    assert not (tmp_path / "imported").exists()


def test_a_key_is_sent_only_if_it_is_allowed(scenario: Path) -> None:
    read = load_scenario(scenario)
    assert read.has_programs
    with pytest.raises(ScenarioError, match="add --allow-key STRANGE_KEY"):
        Trust().check(read.foreign, read.keys_sent)
    Trust(keys=("STRANGE_KEY",)).check(read.foreign, read.keys_sent)


@pytest.mark.parametrize("words", [["-m", "isl_emu", "--version"], module_command("isl_emu", "--version")[1:]])
def test_what_lies_in_the_current_folder_is_not_taken_for_pythons_own(words: list[str], tmp_path: Path) -> None:
    for name in ("random", "json", "numpy", "click", "tempfile"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong one')")
    done = subprocess.run([sys.executable, *words], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "isl-emu" in done.stdout
