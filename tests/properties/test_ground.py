"""Laws of the ground segment, for any stations, tracks, policies and weather."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from isl_emu.errors import ScenarioError
from isl_emu.geometry.places import track_points
from isl_emu.linkplan import build
from isl_emu.linkplan.build import plan_links
from isl_emu.linkplan.events import LinkState
from isl_emu.linkplan.weather import clear_sky, weather_place
from isl_emu.scenario.parse import format_scenario, parse_scenario
from isl_emu.units import NS_PER_S
from tests.scenarios import head, shell, station

SHELL = shell(40, 5, 2, altitude="1400 km", inclination="80 deg", lasers="none")
PLACES = st.tuples(st.integers(-90, 90), st.integers(-180, 180))
CLOUDS = 'access = "optical"\nweather = { clouds = { availability = 0.5, mean_duration = "4 min" } }\n'
RAIN = (
    'weather = { rain = { downlink_frequency = "20 GHz", uplink_frequency = "30 GHz", rain_rate = "80 mm/h", '
    'rain_height = "4 km", rain_probability = 0.5, exceeded_at_start = 0.01 } }\n'
)


@st.composite
def stations(draw, number):
    antennas = draw(st.integers(1, 3))
    text = station(
        f"gs-{number}",
        min_elevation=f"{draw(st.integers(0, 40))} deg",
        antennas=antennas,
        handover=draw(st.sampled_from(["highest-elevation", "longest-contact", "least-change"])),
        handover_gap=f"{draw(st.sampled_from([0, 30, 150]))} s",
        acquisition=f"{draw(st.sampled_from([0, 15, 120]))} s",
    )
    if antennas > 1 and draw(st.booleans()):
        text += f'make_before_break = "{draw(st.sampled_from([5, 60, 200]))} s"\n'
    latitude, longitude = draw(PLACES)
    if draw(st.booleans()):
        text += f'latitude = "{latitude} deg"\nlongitude = "{longitude} deg"\n'
    else:
        text += f'kind = "aircraft"\ntrack = [{{ after = "0 s", latitude = "{latitude} deg", '
        text += f'longitude = "{longitude} deg" }}, {{ after = "2 h", latitude = "{latitude / 1.1} deg", '
        text += f'longitude = "{(longitude + 5) % 360} deg", height = "11 km" }}]\n'
    return text + draw(st.sampled_from(["", CLOUDS, RAIN]))


@st.composite
def skies(draw):
    count = draw(st.integers(1, 3))
    sky = head(seed=draw(st.integers(0, 99)), duration=f"{draw(st.integers(1, 60))} min", step="1 min")
    return sky + SHELL + "".join(draw(stations(number)) for number in range(count))


@settings(deadline=None, max_examples=40)
@given(skies(), st.integers(1, 9))
def test_ground_links_keep_the_rules_however_time_is_cut(text, instants_at_once):
    scenario = parse_scenario(text, "test")
    assert parse_scenario(format_scenario(scenario), "again") == scenario
    plan, before = plan_links(scenario, "text"), build.POSITIONS_AT_ONCE
    try:
        build.POSITIONS_AT_ONCE = 40 * instants_at_once
        assert plan_links(scenario, "text").digest() == plan.digest()
    finally:
        build.POSITIONS_AT_ONCE = before
    k = np.repeat(np.arange(plan.grid.count), np.diff(plan.row_start))
    for number, terminal in enumerate(scenario.station, start=40):
        rows = plan.links.b[plan.row_link] == number
        assert np.bincount(k[rows], minlength=1).max() <= terminal.antennas
        assert (plan.row_rate_ab_bit_s[rows] <= terminal.downlink_bit_s).all()
        assert (plan.row_rate_ba_bit_s[rows] <= terminal.uplink_bit_s).all()
        assert (plan.row_rate_ba_bit_s[rows] > 0).all()
        if terminal.weather and terminal.weather.clouds:
            clear = clear_sky(scenario.seed, terminal.weather.clouds, weather_place(terminal), plan.grid.offsets_ns)
            assert clear[k[rows]].all()
    for instant in range(plan.grid.count):
        tracking = np.flatnonzero(plan.events.states(instant, len(plan.links.a)) == LinkState.TRACKING)
        assert tracking.tolist() == plan.snapshot(instant).link.tolist()


@given(PLACES, PLACES, st.floats(0, 1))
def test_a_track_keeps_its_speed_and_stays_on_its_great_circle(start, end, ratio):
    hours = 40
    track = [
        {"after": f"{after} h", "latitude": f"{place[0]} deg", "longitude": f"{place[1]} deg"}
        for after, place in ((0, start), (hours, end))
    ]
    text = head() + SHELL + station(kind="aircraft", track=track)
    try:
        moving = parse_scenario(text, "test").station[0]
    except ScenarioError as error:  # opposite points have no great circle of their own
        assert "not unique" in str(error)
        return
    times_ns = np.array([0.0, ratio, 1.0]) * hours * 3600 * NS_PER_S
    (a, here, b), _ = track_points(moving, times_ns)

    def angle_rad(p, q):
        return math.atan2(np.linalg.norm(np.cross(p, q)), p @ q)

    whole_rad = angle_rad(a, b)
    assert abs(np.linalg.norm(here) - 1) < 1e-12
    assert abs(angle_rad(a, here) - ratio * whole_rad) < 1e-7
    assert abs(angle_rad(here, b) - (1 - ratio) * whole_rad) < 1e-7
