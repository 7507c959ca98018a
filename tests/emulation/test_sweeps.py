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
