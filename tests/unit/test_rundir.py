from __future__ import annotations

import errno
import os
import subprocess
from contextlib import nullcontext

import pytest

from isl_emu import experiment
from isl_emu.errors import FAILED, INTERRUPTED, MachineError, ScenarioError
from isl_emu.files import write_json
from isl_emu.machine.place import Place
from isl_emu.progress import Screen, Steps
from isl_emu.runs import directory as rundir
from isl_emu.runs.folder import RunFolder
from isl_emu.runs.journal import Journal, read_journal
from isl_emu.runs.wishes import Wishes
from tests.scenarios import SMALL


@pytest.fixture
def root(tmp_path, monkeypatch):
    path = tmp_path / "user" / "isl-emu"
    monkeypatch.setattr(rundir, "runs_root", lambda: path)
    return path


def test_a_run_is_registered_by_its_owner_in_private_folders(root):
    run = rundir.create_run_directory()
    assert run.owner_pid == os.getpid()
    assert rundir.registered_runs() == [run]
    assert {path.stat().st_mode & 0o777 for path in (root.parent, root, run.path)} == {0o700}


def test_a_process_with_the_same_number_is_not_the_owner(root):
    run = rundir.create_run_directory()
    (run.path / "owner.json").write_text(f'{{"pid": {os.getpid()}, "start_ticks": 1}}')
    assert run.owner_pid is None


def test_a_folder_that_its_owner_did_not_register_is_no_run(root):
    (root / "abc123" / "guest").mkdir(parents=True)
    assert rundir.registered_runs() == []


def test_a_strangers_folder_is_not_used(root, monkeypatch):
    root.mkdir(parents=True)
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    monkeypatch.setattr(rundir, "ROOT", -1)
    with pytest.raises(MachineError, match="belongs to another user"):
        rundir.create_run_directory()


def test_who_called_sudo_is_the_one_whose_run_it_is(root, monkeypatch):
    monkeypatch.delenv("SUDO_UID", raising=False)
    run = rundir.create_run_directory()
    assert run.is_ours
    monkeypatch.setenv("SUDO_UID", "12345")
    assert run.is_ours is (os.geteuid() != 0)  # who is not root has not become another


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_what_a_stranger_puts_there_is_no_run_of_ours(root):
    run = rundir.create_run_directory()
    os.chown(run.path, 12345, 12345)
    assert rundir.registered_runs() == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
def test_what_cannot_be_written_is_told_with_where_and_what_to_do(tmp_path, number):
    folder = RunFolder.create(tmp_path / "out", "test")
    with pytest.raises(MachineError) as told, folder.written_or_told():
        raise OSError(number, "Detail of a library's")
    (parts,) = told.value.parts
    assert parts.where == str(folder.path) and os.strerror(number) in parts.found and "isl-emu conclude" in parts.remedy
    with pytest.raises(FileNotFoundError), folder.written_or_told():
        (tmp_path / "never").read_text()


needs_mounts = pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 256 KiB."""
    (tmp_path / "disk").mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", tmp_path / "disk"], check=False).returncode:
        pytest.skip("mount is refused here")
    yield tmp_path / "disk"
    subprocess.run(["umount", "-l", tmp_path / "disk"], check=True)


@needs_mounts
def test_a_disk_that_fills_costs_no_record_that_was_finished(small_disk):
    folder = RunFolder.create(small_disk / "out", "test")
    written = 0
    journal = Journal(folder.journal / "load.jsonl")
    with pytest.raises(MachineError, match="No space left on device"), journal, folder.written_or_told():
        for number in range(1_000_000):
            journal.append({"number": number, "text": "x" * 100})
            written += 1
    found = read_journal(folder.journal / "load.jsonl")
    assert [record["number"] for record in found.records] == list(range(written))
    with pytest.raises(OSError):
        write_json(folder.provenance, {"text": "x" * 5_000})
    assert not folder.provenance.exists()


@needs_mounts
def test_results_are_not_made_where_nothing_can_be_written(small_disk):
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(ScenarioError, match=r"cannot be made \(Read-only file system\), but results go there; name"):
        RunFolder.create(small_disk / "out", "test")


@needs_mounts
def test_a_live_run_that_cannot_be_registered_says_where(small_disk, monkeypatch):
    monkeypatch.setattr(rundir, "runs_root", lambda: small_disk / "runs")
    rundir.create_run_directory()
    (small_disk / "large").write_bytes(bytes(os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize))
    with pytest.raises(MachineError, match="cannot be made .No space left on device., but live runs are kept there"):
        rundir.create_run_directory()
    assert len(rundir.registered_runs()) == 1


@pytest.mark.parametrize("status", [FAILED, INTERRUPTED])
def test_a_disk_that_fills_is_told_of_once(status, tmp_path, monkeypatch):
    """The live part that failed has said so; of one that was interrupted nobody has."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr(experiment, "_execute", lambda *_: status)
    monkeypatch.setattr(experiment, "conclude", refuse)
    (tmp_path / "scenario.toml").write_text(SMALL)
    source, steps = experiment.load_source(tmp_path / "scenario.toml", {}), Steps(Screen(quiet=True))
    place = Place("host", "by a test")
    told = nullcontext() if status == FAILED else pytest.raises(MachineError, match="No space left on device")
    with told:
        outcome = experiment.run_source(source, place, tmp_path / "out", Wishes(), steps)
        assert (outcome.status, outcome.fidelity) == (FAILED, None)
