"""Results get a folder of their own, or a sentence that says why not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from isl_emu.errors import ScenarioError
from isl_emu.runs.folder import RunFolder


def test_an_empty_folder_is_taken_and_a_full_one_is_not(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "a b", "any")
    assert folder.journal.is_dir()
    with pytest.raises(ScenarioError, match="is not empty"):
        RunFolder.create(tmp_path / "a b", "any")


def test_a_new_folder_is_its_users_alone(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "new", "any")
    assert {path.stat().st_mode & 0o777 for path in (folder.path, folder.journal)} == {0o700}
    (tmp_path / "own").mkdir(mode=0o750)
    assert RunFolder.create(tmp_path / "own", "any").path.stat().st_mode & 0o777 == 0o750


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_who_called_sudo_gets_the_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder.create(tmp_path / "new", "any")
    folder.give_to_caller()
    assert folder.path.stat().st_uid == 0
    monkeypatch.setenv("SUDO_UID", "12345")
    monkeypatch.setenv("SUDO_GID", "12346")
    folder.give_to_caller()
    assert (folder.path.stat().st_uid, folder.path.stat().st_gid) == (12345, 12346)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ScenarioError, match="--out: .*file/below cannot be made"):
        RunFolder.create(tmp_path / "file" / "below", "any")


def test_a_folder_that_may_not_be_seen_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(_: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "is_dir", forbidden)
    with pytest.raises(ScenarioError, match=r"cannot be made \(Permission denied\)"):
        RunFolder.create(tmp_path / "secret", "any")
