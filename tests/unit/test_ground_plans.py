"""Ground links in whole plans: passes against closed forms, handovers as stated, the same however time is cut up."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from isl_emu.geometry.elements import EARTH_RADIUS_KM
from isl_emu.linkplan import build
from isl_emu.linkplan.build import plan_links
from isl_emu.linkplan.contacts import find_contacts
from isl_emu.linkplan.events import LinkState
from isl_emu.linkplan.plan import LinkKind
from isl_emu.scenario.parse import load_scenario, parse_scenario, with_changes
from isl_emu.units import NS_PER_S
from tests.scenarios import head, shell, station

MOVING = Path(__file__).parents[2] / "topologies" / "moving-terminals.toml"
SIDEREAL_DAY_S = 86_164.0905
GM_KM3_S2 = 398_600.8  # WGS72, as SGP4 uses it

EQUATOR = head(duration="3 h", step="1 s") + shell(1, altitude="1000 km", inclination="0 deg", lasers="none")
STATION = station(latitude="0 deg", longitude="50 deg", min_elevation="10 deg")


def contacts_of(plan, name: str) -> list[tuple[int, int]]:
    """The contacts of a station's links in s, by their begin."""
    contacts = find_contacts(plan)
    of_station = plan.links.b[contacts.link] == plan.nodes.index(name)
    spans = (contacts.start_ns[of_station] // NS_PER_S, contacts.end_ns[of_station] // NS_PER_S)
    return sorted(zip(*(span.tolist() for span in spans), strict=True))


def test_a_pass_overhead_lasts_as_long_as_geometry_says():
    """A satellite over the equator is above elevation e for 2 acos(R/a cos e) - 2e of its motion over the ground."""
    (begin_s, end_s), *_ = contacts_of(plan_links(parse_scenario(EQUATOR + STATION, "test"), ""), "gs")
    a_km, e_rad = EARTH_RADIUS_KM + 1000, math.radians(10)
    half_rad = math.acos(EARTH_RADIUS_KM / a_km * math.cos(e_rad)) - e_rad
    rate_rad_s = math.sqrt(GM_KM3_S2 / a_km**3) - 2 * math.pi / SIDEREAL_DAY_S
    assert end_s - begin_s == pytest.approx(2 * half_rad / rate_rad_s, rel=0.01), "J2 is worth half a per cent"


def test_a_terminal_that_runs_ahead_of_the_satellite_sees_it_longer():
    track = 'kind = "aircraft"\ntrack = [{ after = "0 s", latitude = "0 deg", longitude = "50 deg", height = "0 km" }, '
    track += '{ after = "3 h", latitude = "0 deg", longitude = "80 deg", height = "0 km" }]'
    moving = STATION.replace('latitude = "0 deg"\nlongitude = "50 deg"', track)
    plan = plan_links(parse_scenario(EQUATOR + STATION + moving.replace('"gs"', '"plane"'), "test"), "")
    (fixed_begin_s, fixed_end_s), *_ = contacts_of(plan, "gs")
    (begin_s, end_s), *_ = contacts_of(plan, "plane")
    rate_rad_s = math.sqrt(GM_KM3_S2 / (EARTH_RADIUS_KM + 1000) ** 3) - 2 * math.pi / SIDEREAL_DAY_S
    speed_rad_s = math.radians(30) / 10800
    expected = rate_rad_s / (rate_rad_s - speed_rad_s)
    assert (end_s - begin_s) / (fixed_end_s - fixed_begin_s) == pytest.approx(expected, abs=0.003)
    assert expected > 1.04


@pytest.fixture(scope="module")
def moving():
    scenario = load_scenario(MOVING)
    return scenario, plan_links(scenario, "text")


def test_no_terminal_exceeds_its_antennas(moving):
    scenario, plan = moving
    for terminal in scenario.station:
        of_station = plan.links.b[plan.row_link] == plan.nodes.index(terminal.name)
        links_up = np.bincount(np.repeat(np.arange(plan.grid.count), np.diff(plan.row_start))[of_station])
        assert links_up.max() == terminal.antennas


def test_the_ship_is_without_a_link_while_its_antenna_turns(moving):
    spans = contacts_of(moving[1], "ship-pacific")
    assert len(spans) >= 2
    assert [after[0] - before[1] for before, after in zip(spans, spans[1:], strict=False)] == [2] * (len(spans) - 1)


def test_the_aircraft_has_its_next_satellite_before_it_loses_the_last(moving):
    spans = contacts_of(moving[1], "aircraft-pacific")
    assert len(spans) >= 2
    overlaps = [before[1] - after[0] for before, after in zip(spans, spans[1:], strict=False)]
    assert overlaps == [5] * len(overlaps)
    assert (spans[0][0], spans[-1][1]) == (0, 1200), "never without a link"


def test_the_gateway_keeps_the_old_satellite_for_five_seconds(moving):
    dry = tuple(station.model_copy(update={"weather": None}) for station in moving[0].station)
    spans = contacts_of(plan_links(moving[0].model_copy(update={"station": dry}), "text"), "gs-tokyo")
    assert len(spans) >= 3
    assert {before[1] - after[0] for before, after in zip(spans, spans[1:], strict=False)} == {5}


def test_rain_holds_the_gateway_down_and_clouds_the_telescope(moving):
    _, plan = moving
    far_end = plan.links.b[plan.row_link]
    tokyo, haleakala = (far_end == plan.nodes.index(name) for name in ("gs-tokyo", "gs-haleakala"))
    assert plan.row_rate_ba_bit_s[tokyo].min() < plan.row_rate_ab_bit_s[tokyo].min() < 1_000_000_000
    assert (plan.row_rate_ba_bit_s[tokyo] <= plan.row_rate_ab_bit_s[tokyo]).all()
    assert (plan.row_loss_ratio[haleakala] > 0).all()
    assert not plan.row_loss_ratio[~haleakala].any()
    assert 0 < haleakala.sum() < 0.8 * plan.grid.count


def _story(plan, name: str) -> list[list[tuple[str, int]]]:
    """What becomes of each link of a station: states with the time in s at which they begin, by link."""
    events = plan.events
    links = np.flatnonzero(plan.links.b == plan.nodes.index(name))
    return [
        [(LinkState(s).name, k) for k, s in zip(events.k[here].tolist(), events.state[here].tolist(), strict=True)]
        for here in (events.link == link for link in links)
    ]


def test_events_tell_how_links_of_terminals_come_and_go(moving):
    _, plan = moving
    assert _story(plan, "ship-pacific")[::-1] == [
        [("TRACKING", 0), ("IDLE", 379)],
        [("SLEWING", 379), ("TRACKING", 381), ("IDLE", 924)],
        [("SLEWING", 924), ("TRACKING", 926)],
    ]
    for story in _story(plan, "aircraft-pacific"):
        if story[0] != ("TRACKING", 0):
            assert [state for state, _ in story[:2]] == ["ACQUIRING", "TRACKING"]
            assert story[1][1] - story[0][1] == 15
    states = [state for story in _story(plan, "gs-haleakala") for state, _ in story]
    assert {"LOST", "ACQUIRING", "TRACKING", "IDLE"} <= set(states)
    for story in _story(plan, "gs-haleakala"):
        for (state, _), (after, _) in zip(story, story[1:], strict=False):
            assert (state, after) != ("LOST", "TRACKING"), "after a cloud the link is acquired anew"
    assert "LOST" in {state for story in _story(plan, "gs-tokyo") for state, _ in story}, "rain"


def test_chunks_of_time_leave_no_trace(moving, monkeypatch):
    scenario, plan = moving
    monkeypatch.setattr(build, "POSITIONS_AT_ONCE", 66 * 97)
    assert plan_links(scenario, "text").digest() == plan.digest()


def test_a_longer_run_begins_with_the_shorter_one(moving):
    scenario, plan = moving
    shorter = plan_links(with_changes(scenario, time={"duration": "700 s"}), "text")

    def rows(of, name):
        last = of.row_start[700]
        mine = of.links.b[of.row_link[:last]] == of.nodes.index(name)
        k = np.repeat(np.arange(of.grid.count), np.diff(of.row_start))[:last]
        return k[mine].tolist(), of.links.a[of.row_link[:last]][mine].tolist(), of.row_delay_ns[:last][mine].tolist()

    for terminal in scenario.station:
        assert rows(plan, terminal.name) == rows(shorter, terminal.name)


def test_every_ground_link_is_between_a_satellite_and_a_terminal(moving):
    scenario, plan = moving
    ground = plan.links.kind == LinkKind.GROUND
    assert plan.links.a[ground].max() < 66 <= plan.links.b[ground].min()
    assert set(plan.links.b[ground].tolist()) == {66 + n for n in range(len(scenario.station))}
