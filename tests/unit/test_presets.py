"""Every shipped scenario can be planned, and its probes have a way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import isl_emu

TOPOLOGIES = Path(__file__).parents[2] / "topologies"
SATELLITES = {
    "iridium-next": 66,
    "iridium-star": 66,
    "kuiper-630": 1156,
    "oneweb": 588,
    "starcloud-1": 1,
    "starlink-shell-1": 1584,
    "telesat-1015": 351,
    "three-body": 12,
    "three-body-2": 14,
    "three-body-3": 14,
    "three-body-2030": 1000,
    "three-body-2035": 2800,
}
MOST_SERVERS = 12  # that a small machine carries


@pytest.mark.parametrize("path", sorted(TOPOLOGIES.glob("*.toml")), ids=lambda path: path.stem)
def test_a_shipped_scenario_plans_and_its_probes_have_a_way(path):
    scenario = isl_emu.load(path)
    assert len(scenario.satellite_names) == SATELLITES.get(scenario.name, len(scenario.satellite_names))
    groups = map(scenario.compute_of, scenario.computing_satellites)
    assert sum(group.server != "modelled" for group in groups) <= MOST_SERVERS
    plan = isl_emu.plan(scenario, duration_s=3)
    assert set(plan.nodes) == {*scenario.satellite_names, *scenario.station_names}
    assert scenario.probes.pairs, "a shipped scenario compares measured with planned delays"
    if scenario.name not in SATELLITES:  # a demonstration, where clouds or tracks may cut a station off
        return
    for pair in scenario.probes.pairs:
        assert not np.ma.getmaskarray(plan.path_delay_ns(*pair)).all(), pair


def test_every_promised_preset_is_there_and_says_where_it_comes_from():
    assert {path.stem for path in TOPOLOGIES.glob("*.toml")} >= SATELLITES.keys()
    for name in SATELLITES:
        head = (TOPOLOGIES / f"{name}.toml").read_text().split("name =")[0]
        assert any(word in head for word in ("Source:", "known", "FCC filing")), name


def test_the_network_of_2035_is_split_as_it_says():
    scenario = isl_emu.load(TOPOLOGIES / "three-body-2035.toml")
    by_shell = {shell.name: shell.count for shell in scenario.shell}
    assert by_shell["train"] == 400 and sum(by_shell.values()) - by_shell["train"] == 2400
    modelled = [name for name in scenario.computing_satellites if scenario.compute_of(name).server == "modelled"]
    assert (len(scenario.computing_satellites), len(modelled)) == (2400, 2396)
    assert all(500.0 <= shell.altitude_km <= 1000.0 for shell in scenario.shell)
