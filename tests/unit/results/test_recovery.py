"""A killed run's journals become results, at any time later."""

from __future__ import annotations

import os
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from isl_emu.errors import ScenarioError
from isl_emu.files import read_json, write_json
from isl_emu.linkplan.plan_file import write_plan
from isl_emu.live.control import announce
from isl_emu.recovery import clean_up, conclude_folder
from isl_emu.results.provenance import file_facts
from isl_emu.routing.forwarding import read_routes, write_routes
from isl_emu.runs import directory as rundir
from isl_emu.scenario.parse import format_scenario


@pytest.fixture
def killed_run(good_run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """A run whose live part ended without a word."""
    monkeypatch.setattr(rundir, "runs_root", lambda: tmp_path / "runs")
    good_run.folder.scenario.write_text(format_scenario(good_run.scenario))
    write_plan(good_run.plan, good_run.folder.plan)
    write_routes(good_run.routes, good_run.plan, good_run.folder.routes)
    digests = {
        "plan_sha256": good_run.plan.digest(),
        "scenario_sha256": file_facts(good_run.folder.scenario)["sha256"],
    }
    write_json(good_run.folder.provenance, {**(read_json(good_run.folder.provenance) or {}), **digests})
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


@pytest.mark.parametrize("record", ['{"k": 0}', '{"k": "x", "planned_ns": [], "done_ns": {}, "begun_ns": null}'])
def test_foreign_records_are_told_of(killed_run: Any, record: str) -> None:
    with (killed_run.folder.journal / "instants.jsonl").open("a") as journal:
        journal.write(record + "\n")
    with pytest.raises(ScenarioError, match="has records that are not of this run .* but tables are made of them"):
        conclude_folder(killed_run.folder.path)


def test_torn_records_cost_themselves_alone(killed_run: Any) -> None:
    journal = killed_run.folder.journal / "instants.jsonl"
    whole = len(journal.read_bytes().splitlines())
    with journal.open("ab") as file:
        file.write(b'\x00\xff{"k": 3, "pl\n[1]\n3\n' + b"[" * 100_000)
    conclude_folder(killed_run.folder.path)
    assert pq.read_table(killed_run.folder.table("instants")).num_rows == whole


def test_a_folder_without_journals_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="has no journals"):
        conclude_folder(tmp_path)


def test_routes_survive_their_file(killed_run: Any) -> None:
    found = read_routes(killed_run.folder.routes, killed_run.plan)
    assert (found.row_link == killed_run.routes.row_link).all() and not found.row_link.flags.writeable
    with pytest.raises(ScenarioError, match="run the scenario again"):
        read_routes(killed_run.folder.path / "none", killed_run.plan)


@pytest.mark.parametrize(
    "content",
    [b"", b"PK\x03\x04torn", pickle.dumps(os.getpid), b"\x93NUMPY\x01\x00"],
    ids=["empty", "torn", "pickle", "npy"],
)
def test_what_holds_no_routes_is_refused_and_executes_nothing(killed_run: Any, content: bytes) -> None:
    killed_run.folder.routes.write_bytes(content)
    with pytest.raises(ScenarioError, match="holds the routes of the run"):
        conclude_folder(killed_run.folder.path)


def test_objects_in_it_are_not_loaded(killed_run: Any) -> None:
    with np.load(killed_run.folder.routes) as stored:
        arrays = dict(stored)
    np.savez(
        killed_run.folder.routes.with_suffix(".npz"), **{**arrays, "row_link": np.array([os.getpid], dtype=object)}
    )
    killed_run.folder.routes.with_suffix(".npz").replace(killed_run.folder.routes)
    with pytest.raises(ScenarioError, match="cannot be read"):
        conclude_folder(killed_run.folder.path)


def test_files_of_another_run_are_refused(killed_run: Any) -> None:
    text = killed_run.folder.scenario.read_text()
    killed_run.folder.scenario.write_text(text.replace("seed =", "seed = 1"))
    with pytest.raises(ScenarioError, match="not the one of this run"):
        conclude_folder(killed_run.folder.path)
    killed_run.folder.scenario.write_text(text)
    longer = replace(killed_run.plan, rate_scale=killed_run.plan.rate_scale / 2)
    write_routes(killed_run.routes, longer, killed_run.folder.routes)
    with pytest.raises(ScenarioError, match="belongs to another plan"):
        conclude_folder(killed_run.folder.path)


@pytest.mark.parametrize("place", ["summary.txt", "journal/execution.json", "provenance.json", "logs"])
@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_nothing_leads_out_of_the_results(killed_run: Any, tmp_path: Path, place: str, kind: str) -> None:
    outside, path = tmp_path / "outside", killed_run.folder.path / place
    outside.write_text("as it was")
    path.unlink(missing_ok=True)
    if kind == "link":
        path.symlink_to(outside)
    else:
        os.mkfifo(path)
    with pytest.raises(ScenarioError, match=f"{place}: is a link, a pipe or a device"):
        conclude_folder(killed_run.folder.path)
    assert outside.read_text() == "as it was"


def test_links_of_programs_are_theirs(killed_run: Any) -> None:
    files = killed_run.folder.files_of("p00s00")
    files.mkdir(parents=True)
    (files / "link").symlink_to("/etc/passwd")
    killed_run.folder.files_of("all").symlink_to("/")
    conclude_folder(killed_run.folder.path)
    assert "files/all" not in killed_run.folder.summary.read_text()
