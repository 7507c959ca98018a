"""Results get a folder of their own, or a sentence that says why not."""

from __future__ import annotations

from pathlib import Path

import pytest

from isl_emu.errors import ScenarioError
from isl_emu.runs.folder import RunFolder


def test_an_empty_folder_is_taken_and_a_full_one_is_not(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "a b", "any")
    assert folder.journal.is_dir()
    with pytest.raises(ScenarioError, match="is not empty"):
        RunFolder.create(tmp_path / "a b", "any")


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
