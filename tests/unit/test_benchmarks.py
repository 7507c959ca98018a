"""The benchmarks stay runnable: their scenarios are valid, and their ways compute the same."""

from __future__ import annotations

import json

import numpy as np
import pytest

from isl_emu.geometry.elements import constellation_elements
from isl_emu.geometry.orbits import satrecs as our_satrecs
from isl_emu.results.provenance import kernel_facts
from isl_emu.scenario.parse import parse_scenario
from tests.benchmarks import bench_exact, bench_growth, bench_long_plans, bench_sky, plot_growth


@pytest.mark.parametrize("name", bench_sky.BUILT_IN)
def test_built_in_scenarios_have_the_satellites_that_they_are_named_for(name):
    assert len(parse_scenario(bench_sky.scenario_text(name), name).satellite_names) == int(name)


@pytest.mark.parametrize("size", bench_exact.PLANES)
@pytest.mark.parametrize("way", bench_exact.WAYS)
def test_runs_in_exact_time_are_of_the_sizes_that_they_are_named_for(size, way):
    text = bench_exact.scenario_text(size, way, 10.0)
    assert len(parse_scenario(text, "exact").satellite_names) == size


def test_a_small_plan_is_measured():
    found = bench_sky.plan_once("66", "2s", threads=2)
    assert (found["satellites"], found["instants"]) == (66, 2)
    assert found["rows"] > 0
    assert found["peak_mib"] > 10


def test_a_long_plan_is_the_same_however_it_is_made(tmp_path):
    source = bench_long_plans.ROOT / "topologies" / "three-body.toml"
    ways = [bench_long_plans.make(source, "20s", way, True, tmp_path / way) for way in ("held", "streamed")]
    assert ways[0]["digest"] == ways[1]["digest"]
    assert ways[0]["rows"] > 0
    assert (tmp_path / "held").read_bytes() == (tmp_path / "streamed").read_bytes()


def test_the_satellites_that_sgp4_is_measured_with_are_ours():
    elements = constellation_elements(parse_scenario(bench_sky.scenario_text("66"), "66"))
    for theirs, ours in zip(bench_sky.satrecs(elements, 66), our_satrecs(elements), strict=True):
        assert np.abs(np.subtract(theirs.sgp4_tsince(90.0)[1], ours.sgp4_tsince(90.0)[1])).max() < 1e-6


def test_growth_is_measured_with_the_sizes_that_it_is_named_for_and_drawn(tmp_path):
    plan = bench_growth.sky(66)
    assert len(plan.nodes.names) == 66 and plan.grid.count == 12
    keys = ("build_s", "floor_build_s", "memory_mib", "full_update_s", "floor_update_s", "typical_update_s")
    sizes = [{"satellites": size, **dict.fromkeys(keys, size / 100)} for size in bench_growth.PLANES]
    (tmp_path / "growth.json").write_text(json.dumps({"machine": kernel_facts(), "sizes": sizes}))
    plot_growth.main(tmp_path / "growth.json", tmp_path / "growth.png")
    assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")
    assert "around" in json.loads((tmp_path / "growth.json").read_text())
