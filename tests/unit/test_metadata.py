"""What nodes know of themselves, without a run."""

from __future__ import annotations

import numpy as np

from isl_emu.geometry.sunlight import sun_direction
from isl_emu.linkplan.build import plan_links
from isl_emu.parts.metadata.view import NodeViews
from isl_emu.routing.forwarding import no_routes
from isl_emu.scenario.parse import parse_scenario
from tests.scenarios import quiet_ring, table


def test_the_sun_of_who_is_on_the_ground_is_that_of_a_horizon() -> None:
    """Near the terminator and high up it is not what a satellite there would see: the Earth's shadow begins lower."""
    text = quiet_ring("2 s", step="1 s").replace("antennas = 2", "antennas = 2\nforwards = true")
    for number in range(16):
        where = {"latitude": "0 deg", "longitude": f"{50 + number / 2} deg", "height": "9 km"}
        text += table("[place]", name=f"on-{number}", **where)
    scenario = parse_scenario(text, "x")
    plan = plan_links(scenario, "")
    views, sun = NodeViews(scenario, plan, no_routes(plan), "exact"), sun_direction(plan.grid.start, np.zeros(1))[0]
    told = [views.of(node, 0, {}) for node in range(12, 12 + 17)]
    assert [one["kind"] for one in told] == ["gateway", *16 * ["place"]]
    dark = [one["sun"]["eclipse"] for one in told]
    assert dark == [bool(np.array(one["position"]["teme_km"]) @ sun < 0) for one in told]
    assert True in dark[1:] and False in dark[1:]
