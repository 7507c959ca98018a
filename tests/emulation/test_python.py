"""Experiments from Python: isl_emu.run, a user's own programs and workloads, and what they leave."""

from __future__ import annotations

import os
import re

import pytest

import isl_emu
from isl_emu.runs.directory import registered_runs
from isl_emu.scenario.parse import parse_scenario
from tests.runs import ROOT
from tests.scenarios import head, shell

pytestmark = pytest.mark.emulation

RATE_BIT_S = 10_000_000  # as shaped
SCENARIO = (
    head("own-traffic", rate_scale=0.001, start="2026-03-20T14:30:00Z", duration="10 s")
    + shell(8, altitude="1200 km", inclination="60 deg", lasers={"topology": "ring", "rate": "10 Gbit/s"})
    + """
[[program]]
name = "echo"
node = "p00s00"
command = ["ping", "-c", "3", "-i", "0.2", "p00s02"]
at = "1 s"
[[program]]
name = "server"
node = "p00s03"
command = ["sleep", "1000"]
[[program]]
name = "missing"
node = "p00s03"
command = ["no-such-program"]
[[workload]]
name = "bulk"
function = "docs.examples.bulk_transfer:transfer"
nodes = ["p00s00", "p00s01"]
options = { size_byte = 250000 }
"""
)


def test_own_traffic_runs_over_the_planned_links_and_leaves_tables(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)  # where the workload's module is found
    results = isl_emu.run(parse_scenario(SCENARIO, "the test"), out=tmp_path / "out", seed=3)
    assert isinstance(results.valid, bool)
    assert bool(results.reasons) is not results.valid
    assert results.scenario.seed == 3
    programs = {row["name"]: row for row in results.table("programs").to_pylist()}
    assert (programs["echo"]["status"], programs["echo"]["outcome"]) == (0, "ended")
    assert programs["echo"]["t_start_ns"] >= 1_000_000_000
    assert programs["server"]["outcome"] == "ended by isl-emu"
    assert programs["missing"]["outcome"] == "cannot be started"
    assert "3 received" in (tmp_path / "out" / "programs" / "echo.log").read_text()
    bulk = results.table("bulk").to_pylist()
    assert len(bulk) >= 3
    assert max(row["goodput_bit_s"] for row in bulk) < RATE_BIT_S
    assert max(row["goodput_bit_s"] for row in bulk) > RATE_BIT_S / 3
    assert "PROGRAMS AND WORKLOADS" in results.summary
    assert {"bulk", "programs", "instants"} <= set(results.tables)
    with pytest.raises(isl_emu.ScenarioError, match="this run has only these"):
        results.table("bulks")
    assert not [run for run in registered_runs() if run.owner_pid == os.getpid()]


def test_a_broken_workload_fails_the_run_and_says_where_to_look(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    broken = SCENARIO.replace("docs.examples.bulk_transfer:transfer", "tests.user_workloads:broken")
    scenario = parse_scenario(broken, "the test")
    with pytest.raises(isl_emu.IslEmuError, match="bulk"):
        isl_emu.run(scenario, out=tmp_path / "out")
    assert not isl_emu.RunResults(tmp_path / "out").valid
    assert "this workload is broken" in (tmp_path / "out" / "programs" / "bulk.log").read_text()


def test_the_python_page_works(tmp_path, monkeypatch):
    (tmp_path / "topologies").symlink_to(ROOT / "topologies")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "python.md").read_text(), re.DOTALL | re.MULTILINE)
    assert blocks
    for block in blocks:
        exec(compile(block, "docs/python.md", "exec"), {})
    assert isl_emu.RunResults(tmp_path / "results" / "first").scenario.time.duration_ns == 10_000_000_000


def test_what_a_workload_computes_is_its_nodes_own_and_no_distortion(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    begin, _ = SCENARIO.split("[[program]]", 1)
    power = """
[[power]]
satellites = ["p00s00"]
bus = "10 W"
board = "jetson-agx-orin"
panel = { area = "1 m2" }
battery = { capacity = "100 Wh" }
radiator = { area = "1 m2", heat_capacity = "20 kJ/K" }
[[workload]]
name = "computing"
function = "tests.user_workloads:computing"
nodes = ["p00s00", "p00s01"]
cpus = 0.5
"""
    scenario = parse_scenario(begin.replace('"10 s"', '"6 s"') + power, "the test")
    results = isl_emu.run(scenario, out=tmp_path / "out")
    assert not any("saturated" in reason for reason in results.reasons)
    rows = results.table("computing").to_pylist()
    assert rows[0]["host"] == "p00s00"  # the container's name and process tree
    assert rows[0]["pid"] < 10
    assert (tmp_path / "out" / "programs" / "computing.log").read_text() == "it computes\n"
    spent = results.table("program_cpu").to_pylist()
    for node in ("p00s00", "p00s01"):
        own = [row["cpu_ns"] / row["interval_ns"] for row in spent if row["node"] == node]
        assert 0.2 < max(own) < 0.7
    assert max(row["busy_ratio"] for row in results.table("energy").to_pylist()) > 0.5
