from __future__ import annotations

import os

import pytest

from isl_emu.errors import MachineError
from isl_emu.runs import directory as rundir


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
