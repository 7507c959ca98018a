"""Laws of the ground segment, for any stations, tracks, policies and weather."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from isl_emu.errors import ScenarioError
from isl_emu.geometry.tracks import track_points
from isl_emu.linkplan import build
from isl_emu.linkplan.build import plan_links
from isl_emu.linkplan.events import LinkState
from isl_emu.linkplan.weather import clear_sky, weather_place
from isl_emu.scenario.parse import format_scenario, parse_scenario
from isl_emu.units import NS_PER_S

SKY = """
name = "x"
seed = {seed}
[time]
start = 2026-03-20T14:00:00Z
duration = "{instants} min"
step = "1 min"
[[shell]]
name = "s"
walker = {{ pattern = "delta", total = 40, planes = 5, phasing = 2 }}
altitude = "1400 km"
inclination = "80 deg"
lasers = {{ topology = "none" }}
"""
STATION = """
[[station]]
name = "gs-{number}"
min_elevation = "{elevation} deg"
antennas = {antennas}
handover = "{handover}"
uplink = "10 Mbit/s"
downlink = "20 Mbit/s"
handover_gap = "{gap} s"
acquisition = "{acquisition} s"
"""
PLACES = st.tuples(st.integers(-90, 90), st.integers(-180, 180))
CLOUDS = 'access = "optical"\nweather = { clouds = { availability = 0.5, mean_duration = "4 min" } }\n'
RAIN = (
    'weather = { rain = { downlink_frequency = "20 GHz", uplink_frequency = "30 GHz", rain_rate = "80 mm/h", '
    'rain_height = "4 km", rain_probability = 0.5, exceeded_at_start = 0.01 } }\n'
)


@st.composite
def stations(draw, number):
    antennas = draw(st.integers(1, 3))
    text = STATION.format(
        number=number,
        elevation=draw(st.integers(0, 40)),
        antennas=antennas,
        handover=draw(st.sampled_from(["highest-elevation", "longest-contact", "least-change"])),
        gap=draw(st.sampled_from([0, 30, 150])),
        acquisition=draw(st.sampled_from([0, 15, 120])),
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
    sky = SKY.format(seed=draw(st.integers(0, 99)), instants=draw(st.integers(1, 60)))
    return sky + "".join(draw(stations(number)) for number in range(count))


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
    for number, station in enumerate(scenario.station, start=40):
        rows = plan.links.b[plan.row_link] == number
        assert np.bincount(k[rows], minlength=1).max() <= station.antennas
        assert (plan.row_rate_ab_bit_s[rows] <= station.downlink_bit_s).all()
        assert (plan.row_rate_ba_bit_s[rows] <= station.uplink_bit_s).all()
        assert (plan.row_rate_ba_bit_s[rows] > 0).all()
        if station.weather and station.weather.clouds:
            clear = clear_sky(scenario.seed, station.weather.clouds, weather_place(station), plan.grid.offsets_ns)
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
    text = SKY.format(seed=1, instants=1) + STATION.format(
        number=0, elevation=0, antennas=1, handover="least-change", gap=0, acquisition=0
    )
    text += 'kind = "aircraft"\ntrack = [' + ", ".join(
        "{ " + ", ".join(f'{key} = "{value}"' for key, value in point.items()) + " }" for point in track
    )
    try:
        station = parse_scenario(text + "]\n", "test").station[0]
    except ScenarioError as error:  # opposite points have no great circle of their own
        assert "not unique" in str(error)
        return
    times_ns = np.array([0.0, ratio, 1.0]) * hours * 3600 * NS_PER_S
    (a, here, b), _ = track_points(station, times_ns)

    def angle_rad(p, q):
        return math.atan2(np.linalg.norm(np.cross(p, q)), p @ q)

    whole_rad = angle_rad(a, b)
    assert abs(np.linalg.norm(here) - 1) < 1e-12
    assert abs(angle_rad(a, here) - ratio * whole_rad) < 1e-7
    assert abs(angle_rad(here, b) - (1 - ratio) * whole_rad) < 1e-7
