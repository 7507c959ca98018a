"""The scripts of docs/reproduce print what docs/reproduce.md says, to the digit: exact time has no other result."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from tests.runs import PATIENCE_S, ROOT

pytestmark = pytest.mark.emulation

PAGE = (ROOT / "docs" / "reproduce.md").read_text(encoding="utf-8")


def _lines(script: str, *words: str) -> list[str]:
    """What a script prints, the progress of its run included."""
    argv = [sys.executable, str(ROOT / "docs" / "reproduce" / script), *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        argv, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE_S
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_figures_of_lasers_and_nights_are_those_of_the_page():
    for script in ("laser_figures.py", "energy_figures.py"):
        printed = _lines(script)
        assert len(printed) >= 5
        assert "\n".join(printed) in PAGE


def test_a_window_overflows_the_queue_at_hypatias_line_and_a_shorter_path_lets_packets_be_overtaken(tmp_path):
    printed = _lines("tcp_path_change.py", "--duration", "24", "--out", str(tmp_path / "out"))
    windows = [line for line in printed if re.fullmatch(r" *[\d.]+ +[\d.]+ +[\d.]+ +\d+ +[-\d.]+", line)]
    (change,) = (line for line in printed if line.strip().startswith("18 "))
    assert len(windows) == 2
    assert all(line in PAGE for line in (*windows, change))


def test_a_warning_keeps_the_window_over_a_handover(tmp_path):
    printed = _lines("handover.py", "--duration", "14s", "--out", str(tmp_path / "out"))
    rows = {line.split()[0]: line for line in printed if "->" in line}
    assert set(rows) == {"unwarned", "warned", "instant"}
    assert all(row in PAGE for row in rows.values())
    assert all(line in PAGE for line in printed if line.startswith(("LeoEM", "what the link")))
    assert int(rows["warned"].split()[2]) == 0 < int(rows["unwarned"].split()[2])


def test_answers_come_within_the_published_two_minutes(tmp_path):
    """With modelled servers, which have the same board's pace, and load no model."""
    text = (ROOT / "topologies" / "three-body.toml").read_text(encoding="utf-8")
    text = re.sub(r"^(cpus|memory|model) = .*", "", text, flags=re.MULTILINE)
    scenario = tmp_path / "modelled.toml"
    scenario.write_text(text.replace("pace_model =", 'server = "modelled"\nmodel ='), encoding="utf-8")
    printed = _lines("two_minutes.py", str(scenario), "--out", str(tmp_path / "out"))
    assert "three-body: 9 of 9 answered, 9 within 120 s" in printed
    (pace,) = re.findall(r"^at its pace of ([\d.]+) tokens/s", "\n".join(printed), flags=re.MULTILINE)
    assert f"at its pace of {pace} tokens/s" in PAGE
