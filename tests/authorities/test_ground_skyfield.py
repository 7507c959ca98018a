"""Moving terminals and passes against Skyfield, object by object."""

from __future__ import annotations

import math
from datetime import timedelta

import pytest
from skyfield.api import wgs84

from isl_emu.geometry.elements import constellation_elements
from isl_emu.geometry.orbits import propagate
from isl_emu.geometry.places import track_points
from isl_emu.linkplan.sightings import find_passes, station_view
from isl_emu.scenario.parse import parse_scenario
from tests.scenarios import head, shell, station
from tests.skyfield_reference import TIMESCALE, latitude_longitude_rad, shell_satellites

TWO_METRES_KM = 2e-3
SKYFIELDS_SEARCH_S = 1.0  # find_events stops half a second from the moment
ONE_ARCSECOND_RAD = math.radians(1 / 3600)
SCENARIO = (
    head("movers", start="2031-08-15T22:10:00Z", duration="8 h", step="20 s")
    + shell(24, 4, 1, name="s", altitude="1100 km", inclination="74 deg", lasers="none")
    + station("over-the-pole", kind="aircraft", min_elevation="10 deg", track=[
        {"after": "0 s", "latitude": "80 deg", "longitude": "40 deg", "height": "10 km"},
        {"after": "8 h", "latitude": "85 deg", "longitude": "-140 deg", "height": "12 km"},
    ])
    + station("over-the-date-line", kind="ship", min_elevation="15 deg", track=[
        {"after": "10 min", "latitude": "-20 deg", "longitude": "179.9 deg"},
        {"after": "90 min", "latitude": "-20.2 deg", "longitude": "-179.9 deg"},
    ])
)  # fmt: skip


@pytest.fixture(scope="module")
def scenario():
    return parse_scenario(SCENARIO, "test")


@pytest.mark.parametrize("index", [0, 1])
def test_a_moving_terminal_sees_what_skyfield_sees_from_each_of_its_places(scenario, index):
    grid, station = scenario.time.grid, scenario.station[index]
    r_km = propagate(constellation_elements(scenario), grid.start, grid.offsets_ns)
    view = station_view(station, r_km, grid.start, grid.offsets_ns)
    satellites = shell_satellites(scenario.shell[0], grid.start)
    zenith, height_km = track_points(station, grid.offsets_ns)
    latitude_rad, longitude_rad = latitude_longitude_rad(zenith)
    assert len(view.k) > 50
    for row in range(0, len(view.k), 11):
        k = view.k[row]
        site = wgs84.latlon(math.degrees(latitude_rad[k]), math.degrees(longitude_rad[k]), height_km[k] * 1000)
        t = TIMESCALE.from_datetime(grid.start + timedelta(seconds=int(k) * 20))
        elevation, _, distance = (satellites[view.satellite[row]] - site).at(t).altaz()
        assert view.elevation_rad[row] == pytest.approx(elevation.radians, abs=ONE_ARCSECOND_RAD)
        assert view.range_km[row] == pytest.approx(distance.km, abs=TWO_METRES_KM)


def test_passes_begin_and_end_between_the_instants_around_skyfields_events(scenario):
    """A ship at anchor, and Skyfield's own search for risings and settings."""
    anchored = scenario.station[1].model_copy(update={"track": scenario.station[1].track[:1]})
    grid = scenario.time.grid
    r_km = propagate(constellation_elements(scenario), grid.start, grid.offsets_ns)
    passes = find_passes(view := station_view(anchored, r_km, grid.start, grid.offsets_ns))
    site = wgs84.latlon(-20.0, 179.9, 0)
    ends = grid.start, grid.start + timedelta(seconds=(grid.count - 1) * 20)
    begin, end = (TIMESCALE.from_datetime(moment) for moment in ends)
    expected = []
    for number, satellite in enumerate(shell_satellites(scenario.shell[0], grid.start)):
        times, events = satellite.find_events(site, begin, end, altitude_degrees=15.0)
        for time, event in zip(times, events, strict=True):
            happened_s = (time.utc_datetime() - grid.start).total_seconds()
            expected.append((number, ("rise", "culminate", "set")[event], happened_s))
    expected = sorted(event for event in expected if event[1] != "culminate")
    satellite = view.satellite[passes.order[passes.first[:-1]]].tolist()
    found = [(n, "rise", k * 20) for n, k in zip(satellite, passes.start_k.tolist(), strict=True) if k > 0]
    found += [(n, "set", k * 20) for n, k in zip(satellite, passes.end_k.tolist(), strict=True) if k < grid.count]
    assert len(expected) > 30
    assert [event[:2] for event in sorted(found)] == [event[:2] for event in expected]
    late_s = [seen[2] - happened[2] for seen, happened in zip(sorted(found), expected, strict=True)]
    assert min(late_s) > -SKYFIELDS_SEARCH_S
    assert max(late_s) < 20 + SKYFIELDS_SEARCH_S
