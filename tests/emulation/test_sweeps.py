"""A sweep runs from Python as docs/sweeps.md says, and goes on where it was cut off, with the same to the bit."""

from __future__ import annotations

import filecmp
import json
import os
import re
import shutil

import pytest
from click.testing import CliRunner

import isl_emu
from isl_emu.cli import cli
from tests.exact_guest import needs_exact_time
from tests.runs import ROOT
from tests.scenarios import head, ring_over_china, station, table

pytestmark = [pytest.mark.emulation, needs_exact_time]


def test_a_sweep_goes_on_where_it_was_cut_off(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "topologies").symlink_to(ROOT / "topologies")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})  # one guest at a time, as other tests have theirs
    (block,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "sweeps.md").read_text(), re.DOTALL | re.MULTILINE)
    exec(compile(block, "docs/sweeps.md", "exec"), {})
    assert re.search(r"requests.ttft_ns +0001_mean_interval=1-s_duration=4-s +1 ", capsys.readouterr().out)

    sweep = isl_emu.Sweep(tmp_path / "results" / "load")
    assert len(sweep.finished) == 2
    cell, run = sweep.finished[1]
    kept, before = sweep.folder(sweep.cells[0]).stat(), run.path.with_name("before")
    shutil.copytree(run.path, before)
    (run.path / "provenance.json").write_text(json.dumps({**run.provenance, "execution": None}))
    done = CliRunner().invoke(cli, ["run", "--resume", str(sweep.path)])
    assert done.exit_code == 0, done.output
    assert "2 of 2 runs, 1 of them from before" in done.output
    assert sweep.folder(sweep.cells[0]).stat() == kept
    assert run.path.with_name(f"{cell.name}.cut-off-1").is_dir()
    for name in ("requests", "probes", "changes"):
        assert (run.path / f"{name}.parquet").read_bytes() == (before / f"{name}.parquet").read_bytes()

    pytest.importorskip("distributed")  # on the workers of a cluster both again, and again the same
    for cell in sweep.cells:
        shutil.copytree(sweep.folder(cell), tmp_path / cell.name)
        (sweep.folder(cell) / "provenance.json").write_text("{}")
    done = CliRunner().invoke(cli, ["run", "--resume", str(sweep.path), "--cluster", "local:2"])
    assert done.exit_code == 0, done.output
    assert "dashboard: http://" in done.output
    for cell in sweep.cells:
        compared = filecmp.dircmp(tmp_path / cell.name, sweep.folder(cell), ignore=[])
        assert (compared.left_only, compared.right_only) == ([], [])
        assert {"provenance.json"} <= set(compared.diff_files) <= {"provenance.json", "report.html"}
        assert len(compared.same_files) > 10
    assert not (sweep.path / "under-way").exists()


def test_a_search_on_a_cluster_that_finds_no_value_has_failed(tmp_path):
    pytest.importorskip("distributed")
    (tmp_path / "load.toml").write_text(
        head("load", rate_scale=0.001, start="2026-03-20T14:30:00Z", duration="3 s")
        + ring_over_china()
        + station("gs-chengdu", site="chengdu", uplink="10 Gbit/s", downlink="10 Gbit/s")
        + table("[compute]", satellites="all", server="modelled", board="jetson-agx-thor", model="qwen3-8b", slots=1)
        + table("questions", arrivals="constant", rate=1.0, stop_after="2 s", max_answer_tokens=8)
    )
    words = ["--search", "questions.rate=1.0..4.0", "--slo", "ttft_p90 <= 1 ms", "--out", str(tmp_path / "out")]
    words = ["sweep", str(tmp_path / "load.toml"), *words, "--cluster", "local:2"]
    done = CliRunner().invoke(cli, words, standalone_mode=False)
    told = re.search(
        r"questions.rate: even 1, the least, does not keep ttft_p90 <= 1 ms \(ttft_p90 is (.*) ms\)", done.output
    )
    assert told and float(told[1]) > 1, done.output
    assert done.return_value == 1
    assert len(isl_emu.Sweep(tmp_path / "out").finished) == 2  # both ends, each on a worker
