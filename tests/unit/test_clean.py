"""Cleaning keeps its hands off whatever is not a dead run's."""

from __future__ import annotations

import json
import os
from pathlib import Path

from isl_emu.nodes.processes import kill_processes_in, namespace_ids
from isl_emu.recovery import clean_runs
from isl_emu.runs.directory import RunDirectory


def test_a_folder_that_is_no_run_is_left_alone(tmp_path: Path) -> None:
    for name in ("", "..", "0a1b2", "0A1B2C", "0a1b2c3", "notes."):
        (tmp_path / "kept").touch()
        assert clean_runs([RunDirectory(name, tmp_path)]) == []
    assert (tmp_path / "kept").exists()


def test_a_living_run_is_left_alone(tmp_path: Path) -> None:
    start_ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    (tmp_path / "owner.json").write_text(json.dumps({"pid": os.getpid(), "start_ticks": start_ticks}))
    assert clean_runs([RunDirectory("0a1b2c", tmp_path)]) == []
    assert (tmp_path / "owner.json").exists()


def test_namespaces_that_are_gone_have_no_processes() -> None:
    assert namespace_ids(["/run/netns/isl-0a1b2c-never"]) == set()
    assert kill_processes_in(set()) == []
