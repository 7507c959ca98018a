"""Cleaning keeps its hands off whatever is not a dead run's."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from isl_emu import recovery
from isl_emu.errors import MachineError
from isl_emu.nodes.processes import kill_processes_in, namespace_ids
from isl_emu.recovery import clean_runs, clean_up
from isl_emu.runs import directory as rundir
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


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where runs are registered."""
    monkeypatch.setattr(rundir, "runs_root", lambda: tmp_path / "runs")
    return tmp_path / "runs"


@contextmanager
def _at_work_in(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process as one of a guest is: what it has in common with the others is its current folder."""
    folder.mkdir(parents=True)
    with subprocess.Popen(["sleep", "600"], cwd=folder) as process:
        try:
            yield process
        finally:
            process.kill()


def _dead() -> RunDirectory:
    run = rundir.create_run_directory()
    (run.path / "owner.json").write_text('{"pid": 1, "start_ticks": -1}')
    return run


def test_a_guest_is_found_by_its_run_when_nobody_else_knows_of_it(root: Path) -> None:
    alive = rundir.create_run_directory()
    with _at_work_in(root / "0a1b2c" / "guest") as lost, _at_work_in(alive.path / "guest") as other:
        shutil.rmtree(root / "0a1b2c")
        assert clean_up() == ["run 0a1b2c: its folder was gone, and 1 processes of its guest are now"]
        assert lost.wait() == -signal.SIGKILL
        assert other.poll() is None and alive.owner_pid == os.getpid()
    assert clean_up() == []


def test_a_guest_whose_launcher_is_gone_ends(root: Path) -> None:
    run = _dead()
    with _at_work_in(run.path / "guest") as guest, _at_work_in(run.path / "time") as calendar:
        (removed,) = clean_up()
        assert {guest.wait(), calendar.wait()} == {-signal.SIGKILL}
    assert removed.startswith(f"run {run.run_id}: removed") and not run.path.exists()


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"pid": "1", "start_ticks": 2}', "{}", "[" * 100_000])
def test_a_broken_owner_file_is_told_of_and_stops_no_other_run(root: Path, text: str) -> None:
    broken, dead, alive = rundir.create_run_directory(), _dead(), rundir.create_run_directory()
    (broken.path / "owner.json").write_text(text)
    removed, told = clean_up()
    assert removed.startswith(f"run {dead.run_id}: removed")
    assert told.startswith(f"{broken.path / 'owner.json'}: is damaged, but it tells whether the run")
    assert broken.path.exists() and alive.path.exists()
    assert broken.owner_pid is None and not broken.is_ours

    (broken.path / "owner.json").unlink()  # as the sentence says
    (removed,) = clean_up()
    assert removed.startswith(f"run {broken.run_id}: removed") and not broken.path.exists() and alive.path.exists()


def test_a_run_that_cannot_be_removed_stops_no_other(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = sorted((_dead(), _dead()), key=lambda run: run.run_id)

    def refused(run_id: str) -> list[str]:
        if run_id == first.run_id:
            raise PermissionError(1, "Operation not permitted", "/sys/fs/cgroup/isl")
        return []

    monkeypatch.setattr(recovery, "remove_run_cgroups", refused)
    stays, removed = clean_up()
    assert "cannot be removed wholly (/sys/fs/cgroup/isl: Operation not permitted), but" in stays
    assert first.path.exists() and not second.path.exists() and second.run_id in removed


def test_the_present_run_is_never_made_over_another(root: Path) -> None:
    run = rundir.create_run_directory()
    with pytest.raises(MachineError, match="is there already, but"):
        rundir.create_run_directory(run.run_id)
