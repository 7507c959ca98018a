"""Runs in exact time from outside: probes and changes at their nanosecond, and two runs the same whatever the load."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from isl_emu.errors import MachineError
from isl_emu.machine.uml import find_uml
from tests.runs import ROOT, finished, isl_emu, rows
from tests.scenarios import quiet_ring, table

EXPLAINS_ITSELF = {"provenance.json", "stdout.txt"}  # when and how a run was made


def _has_exact_time() -> bool:
    try:
        return find_uml().exact
    except MachineError:
        return False


pytestmark = [
    pytest.mark.emulation,
    pytest.mark.skipif(not _has_exact_time(), reason="the kernel that has exact time is not built"),
]

TRAFFIC = (
    table("compute", satellites=["p00s01"], server="modelled", board="inference-2035", model="qwen3-8b",
          context_tokens=4096)
    + table("questions", mean_interval="1 s", target="uniform", max_answer_tokens=16, deadline="60 s",
            prompts=["What is a satellite?"])
    + table("probes", interval="200 ms", pairs=[["gs-chengdu", "p00s00"], ["p00s00", "p00s03"]])
)  # fmt: skip


@contextmanager
def _crowded_machine() -> Iterator[None]:
    """Twice as many busy programs as there are CPUs."""
    busy = [subprocess.Popen(["sh", "-c", "while :; do :; done"]) for _ in range(2 * (os.cpu_count() or 1))]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def _contents(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}


def test_changes_and_probes_come_at_their_nanosecond(tmp_path: Path) -> None:
    out = tmp_path / "out"
    finished(ROOT / "topologies" / "iridium-star.toml", out, "--duration", "8s", "--clock", "exact")
    assert json.loads((out / "fidelity.json").read_text())["verdict"] == "valid"
    assert {row["lateness_ns"] for row in rows(out, "instants")} == {0}
    probes = [row for row in rows(out, "probes") if not row["straddles_change"]]
    assert {row["hops"] for row in probes} == {5, 8}
    assert {row["error_ns"] for row in probes} == {0}


def test_two_runs_are_the_same_whatever_the_load(tmp_path: Path) -> None:
    scenario = tmp_path / "ring.toml"
    scenario.write_text(quiet_ring("8 s") + TRAFFIC)
    finished(scenario, tmp_path / "quiet", "--clock", "exact")
    with _crowded_machine():
        finished(scenario, tmp_path / "crowded", "--clock", "exact")
    quiet, crowded = _contents(tmp_path / "quiet"), _contents(tmp_path / "crowded")
    assert quiet.keys() == crowded.keys()
    assert {name for name in quiet if quiet[name] != crowded[name]} <= EXPLAINS_ITSELF
    assert any(row["outcome"] == "completed" for row in rows(tmp_path / "quiet", "requests"))


def test_what_needs_real_time_is_refused_with_the_reason(tmp_path: Path) -> None:
    done = isl_emu("run", ROOT / "topologies" / "three-body.toml", "--clock", "exact", "--out", tmp_path / "out")
    assert done.returncode == 1
    assert '--clock exact: compute.server is "real"' in done.stderr


def test_provenance_names_the_clock_and_the_kernel(tmp_path: Path) -> None:
    out = tmp_path / "out"
    scenario = tmp_path / "ring.toml"
    scenario.write_text(quiet_ring("2 s"))
    finished(scenario, out)
    place = json.loads((out / "provenance.json").read_text())["place"]
    assert place["clock"] == "exact"
    assert place["kernel"]["sha256"] == find_uml().sha256
    assert find_uml().sha256[:12] in (out / "summary.txt").read_text()
