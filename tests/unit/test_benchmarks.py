"""The benchmarks stay runnable: their scenarios are valid, and their ways compute the same."""

from __future__ import annotations

import numpy as np
import pytest

from isl_emu.geometry.elements import constellation_elements
from isl_emu.geometry.orbits import satrecs as our_satrecs
from isl_emu.scenario.parse import parse_scenario
from tests.benchmarks import bench_sky


@pytest.mark.parametrize("name", bench_sky.BUILT_IN)
def test_built_in_scenarios_have_the_satellites_that_they_are_named_for(name):
    assert len(parse_scenario(bench_sky.scenario_text(name), name).satellite_names) == int(name)


def test_a_small_plan_is_measured():
    found = bench_sky.plan_once("66", "2s")
    assert (found["satellites"], found["instants"]) == (66, 2)
    assert found["rows"] > 0
    assert found["peak_mib"] > 10


def test_the_satellites_that_sgp4_is_measured_with_are_ours():
    elements = constellation_elements(parse_scenario(bench_sky.scenario_text("66"), "66"))
    for theirs, ours in zip(bench_sky.satrecs(elements, 66), our_satrecs(elements), strict=True):
        assert np.abs(np.subtract(theirs.sgp4_tsince(90.0)[1], ours.sgp4_tsince(90.0)[1])).max() < 1e-6
