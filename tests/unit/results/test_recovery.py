"""A killed run's journals become results, at any time later."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from isl_emu.errors import ScenarioError
from isl_emu.linkplan.plan_file import write_plan
from isl_emu.live.control import announce
from isl_emu.recovery import clean_up, conclude_folder
from isl_emu.routing.forwarding import read_routes, write_routes
from isl_emu.runs import directory as rundir
from isl_emu.scenario.parse import format_scenario


@pytest.fixture
def killed_run(good_run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """A run whose live part ended without a word."""
    monkeypatch.setattr(rundir, "runs_root", lambda: tmp_path / "runs")
    good_run.folder.scenario.write_text(format_scenario(good_run.scenario))
    write_plan(good_run.plan, good_run.folder.plan)
    write_routes(good_run.routes, good_run.folder.routes)
    good_run.folder.execution.unlink()
    return good_run


def test_its_journals_become_results(killed_run: Any) -> None:
    for _ in range(2):
        assert conclude_folder(killed_run.folder.path) == killed_run.folder
        summary = " ".join(killed_run.folder.summary.read_text().split())
        assert "it was killed, so run it again" in summary and "DELAY ONE WAY" in summary
    assert killed_run.journal.is_dir()


def test_a_live_run_is_left_alone(killed_run: Any) -> None:
    announce(rundir.create_run_directory(), killed_run.folder.path)
    with pytest.raises(ScenarioError, match="still alive"):
        conclude_folder(killed_run.folder.path)


def test_cleaning_says_what_becomes_of_the_journals(killed_run: Any) -> None:
    run = rundir.create_run_directory()
    announce(run, killed_run.folder.path)
    (run.path / "owner.json").write_text('{"pid": 1, "start_ticks": -1}')
    *removed, hint = clean_up()
    assert len(removed) == 1 and f"`isl-emu conclude {killed_run.folder.path}`" in hint


def test_a_folder_without_journals_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="has no journals"):
        conclude_folder(tmp_path)


def test_routes_survive_their_file(killed_run: Any) -> None:
    found = read_routes(killed_run.folder.routes)
    assert (found.row_link == killed_run.routes.row_link).all() and not found.row_link.flags.writeable
    with pytest.raises(ScenarioError, match="run the scenario again"):
        read_routes(killed_run.folder.path / "none")
