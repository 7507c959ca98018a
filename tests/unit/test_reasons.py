"""Why a link is down, and when it comes back: each reason from a sky in which nothing else keeps the link down."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from isl_emu.linkplan.build import plan_links
from isl_emu.linkplan.contacts import comes_back
from isl_emu.linkplan.plan import LinkPlan
from isl_emu.linkplan.reasons import why_down
from isl_emu.scenario.model import Scenario
from isl_emu.scenario.parse import parse_scenario
from tests.scenarios import head, shell, station, table

TERMINAL = '[[shell.lasers.terminal]]\nmounts = ["free", "free"]\nacquisition = "15 s"\nslew_rate = "10 deg/s"\n'


def sky(text: str, duration: str = "6000 s", step: str = "60 s") -> tuple[Scenario, LinkPlan]:
    toml = head(duration=duration, step=step) + text
    scenario = parse_scenario(toml, "test")
    return scenario, plan_links(scenario, toml)


def grid(planes: int = 12, **limits: Any) -> str:
    """Of six planes, neighbours lose sight of each other; of twelve they do not."""
    terms = {"topology": "+grid", "rate": "1 Gbit/s", **limits}
    return shell(11 * planes, planes, 1, altitude="780 km", inclination="86.4 deg", lasers=terms)


def reasons(scenario: Scenario, plan: LinkPlan) -> dict[tuple[int, int], str]:
    """Of all links that are down, by instant and link."""
    found = {}
    for k in range(0, plan.grid.count, 7):
        for link in np.setdiff1d(np.arange(len(plan.links.a)), plan.snapshot(k).link).tolist():
            found[k, link] = why_down(scenario, plan, link, k)
    return found


@pytest.mark.parametrize(
    ("text", "begins"),
    [
        (grid(6, max_range="3000 km"), "out of range ("),
        (grid(polar_cutoff="60 deg"), "an end is beyond the polar cutoff"),
        (grid(sun_exclusion="20 deg"), "dazzled by the Sun"),
        (grid(6, grazing_altitude="200 km"), "behind the Earth (the line passes"),
        (grid(max_angular_rate="0.1 deg/s"), "an end would have to turn its terminal faster than it can"),
        (grid(outages={"mean_time_to_failure": "20 min", "mean_time_to_repair": "5 min"}), "a fault: it has an outage"),
    ],
)  # fmt: skip
def test_a_laser_that_is_down_says_which_limit_it_breaks(text: str, begins: str) -> None:
    scenario, plan = sky(text)
    found = set(reasons(scenario, plan).values())
    assert found and all(reason.startswith(begins) for reason in found), found


def test_a_ground_link_is_down_because_of_the_earth_or_for_want_of_an_antenna() -> None:
    place = station(latitude="30.66 deg", longitude="104.06 deg", antennas=1)
    scenario, plan = sky(shell(66, 6, 1, altitude="780 km", inclination="86.4 deg", lasers="none") + place)
    assert set(reasons(scenario, plan).values()) == {
        "behind the Earth or too low for the station",
        "the station's antennas are not assigned to it",
    }


def test_terminals_slew_and_acquire_and_the_link_comes_back_when_they_have() -> None:
    terms = {"topology": "ring", "rate": "1 Gbit/s", "at_start": "idle"}
    scenario, plan = sky(shell(12, lasers=terms) + TERMINAL, "60 s", "1 s")
    told = [why_down(scenario, plan, 0, k) for k in range(comes_back(plan, 0, 0) or 0)]
    slewing = told.count("slewing to each other")
    assert slewing >= 1 and told == ["slewing to each other"] * slewing + ["acquiring each other"] * 15


def test_a_link_comes_back_at_the_first_instant_that_has_it_again_or_never() -> None:
    _, plan = sky(grid(polar_cutoff="60 deg"))
    for link in range(0, len(plan.links.a), 5):
        up = [link in plan.snapshot(k).link for k in range(plan.grid.count)]
        for k in range(0, plan.grid.count, 9):
            later = [one for one in range(k + 1, plan.grid.count) if up[one]]
            assert comes_back(plan, link, k) == (later[0] if later else None)


def test_a_link_that_a_fault_cuts_says_which() -> None:
    text = head("cut", duration="6 s") + shell(8, altitude="1200 km", inclination="60 deg", lasers="ring")
    text += table("[fault]", name="storm", links=["p00s00 - p00s01"], at="2 s", effect="cut", **{"for": "2 s"})
    text += table("[fault]", name="dark", satellites=["p00s01"], at="3 s", effect="cut", **{"for": "1 s"})
    scenario = parse_scenario(text, "cut.toml")
    plan = plan_links(scenario, text)
    assert [why_down(scenario, plan, 0, k) for k in (2, 3)] == [
        "cut by the fault storm", "cut by the fault storm and dark",
    ]  # fmt: skip
    assert comes_back(plan, 0, 2) == 4
