"""The shipped Kuiper-630 scenario, planned as a user would, against Hypatia's published series."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import isl_emu
from isl_emu.validate import kuiper

PRESET = Path(__file__).parents[2] / "topologies" / "kuiper-630.toml"
PAIRS = {
    "manila-dalian": ("gs-manila", "gs-dalian"),
    "st-petersburg-dalian": ("gs-st-petersburg", "gs-dalian"),
}
FIVE_US_MS = 0.005


@pytest.fixture(scope="module")
def plan():
    return isl_emu.plan(isl_emu.load(PRESET))


@pytest.mark.parametrize("pair", PAIRS)
def test_round_trips_of_the_preset_are_the_published_ones(plan, pair):
    delays_ns, checked = plan.path_delay_ns(*PAIRS[pair]), 0
    for row in kuiper.GOLDEN["rtt_ms"][pair]:
        if row["t_s"] == int(row["t_s"]):
            found = delays_ns[int(row["t_s"])]
            assert np.ma.is_masked(found) == ("rtt_ms" not in row), row
            if "rtt_ms" in row:
                assert 2 * int(found) / 1e6 == pytest.approx(row["rtt_ms"], abs=FIVE_US_MS), row
            checked += 1
    assert checked >= 6


@pytest.mark.parametrize("pair", PAIRS)
def test_paths_of_the_preset_are_the_published_ones_at_every_second(plan, pair):
    number = {name: index for index, name in enumerate(plan.nodes)}
    for k in range(plan.link_plan.grid.count):
        path = plan.path(*PAIRS[pair], k)
        found = [] if path is None else [number[name] for name in path.nodes[1:-1]]
        assert found == kuiper.published_satellites(pair, float(k)), k
