"""The sum of two pytest runs that scripts/test ends with, and what scripts/isl-emu says before a set-up."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests import tally

ROOT = Path(__file__).parents[2]

PASSED = '<testsuites><testsuite errors="0" failures="0" skipped="1" tests="4" time="1.5"/></testsuites>'
FAILED = '<testsuites><testsuite errors="1" failures="2" skipped="0" tests="5" time="2.25"/></testsuites>'
NONE = '<testsuites><testsuite errors="0" failures="0" skipped="0" tests="0" time="0.1"/></testsuites>'


def _tally(tmp_path, *reports: str) -> int:
    paths = [tmp_path / f"{number}.xml" for number in range(len(reports))]
    for path, report in zip(paths, reports, strict=True):
        path.write_text(report)
    return tally.main([str(path) for path in paths])


@pytest.mark.parametrize(
    ("reports", "line", "status"),
    [
        ((PASSED, PASSED), " 6 passed, 2 skipped in 3.00s ", 0),
        ((PASSED, FAILED), " 2 failed, 5 passed, 1 skipped, 1 errors in 3.75s ", 1),
        ((PASSED, NONE), " 3 passed, 1 skipped in 1.60s ", 0),
        ((NONE, NONE), " no tests ran in 0.20s ", 5),
    ],
)
def test_two_runs_are_added_up(tmp_path, capsys, reports, line, status):
    assert _tally(tmp_path, *reports) == status
    assert line in capsys.readouterr().out


def test_a_run_without_a_report_is_an_error(tmp_path, capsys):
    assert tally.main([str(tmp_path / "absent.xml")]) == 1
    assert " 1 errors " in capsys.readouterr().out


def test_what_a_scenario_needs_besides_is_said_before_the_set_up(tmp_path):
    scripts, topologies = tmp_path / "scripts", tmp_path / "topologies"
    shutil.copytree(ROOT / "topologies", topologies)
    scripts.mkdir()
    shutil.copy(ROOT / "scripts" / "isl-emu", scripts)
    (scripts / "setup").write_text("#!/bin/sh\necho setting up\nexit 1\n")
    (scripts / "setup").chmod(0o755)
    environment = {**os.environ, "ISL_EMU_VENV": str(tmp_path / "venv")}

    def said(scenario: str) -> str:
        words = [str(scripts / "isl-emu"), "run", scenario]
        return subprocess.run(
            words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        ).stdout

    for scenario in ("split-model", str(topologies / "split-model.toml")):
        assert "0.9 GB" in said(scenario) and "scripts/setup pipeline" in said(scenario)
        assert "setting up" not in said(scenario)
    assert said("three-body") == "setting up\n"
