from __future__ import annotations

import math
from datetime import datetime, timezone

import numpy as np
import pytest

from isl_emu.geometry.elements import EARTH_RADIUS_KM
from isl_emu.geometry.orbits import propagate
from isl_emu.linkplan.handover import every_visible, highest_elevation
from isl_emu.linkplan.sightings import View, station_view
from isl_emu.scenario.model import GroundStation
from isl_emu.units import NS_PER_S
from tests.orbits import circular_elements

EPOCH = datetime(2026, 3, 20, 14, tzinfo=timezone.utc)


def view(*sightings: tuple[int, int, float]) -> View:
    k, satellite, elevation_deg = (np.array(column) for column in zip(*sightings, strict=True))
    return View(k, satellite, np.radians(elevation_deg), np.full(len(k), 1000.0))


def station(latitude="0 deg", longitude="0 deg", min_elevation="10 deg", height="0 km"):
    place = {"latitude": latitude, "longitude": longitude, "height": height, "min_elevation": min_elevation}
    if height == "18 km":
        there = {"latitude": latitude, "longitude": longitude, "height": height}
        place |= {"kind": "aircraft", "track": ({"after": "0 s", **there},)}
    return GroundStation.model_validate({"name": "gs", **place, "uplink": "1 Gbit/s", "downlink": "1 Gbit/s"})


def test_each_antenna_takes_the_next_highest():
    seen = view((0, 1, 20.0), (0, 2, 50.0), (0, 7, 30.0), (1, 1, 80.0), (3, 2, 11.0))
    assert highest_elevation(seen, 1).tolist() == [False, True, False, True, True]
    assert highest_elevation(seen, 2).tolist() == [False, True, True, True, True]
    assert highest_elevation(seen, 9).all()


def test_equally_high_satellites_are_taken_by_index():
    assert highest_elevation(view((0, 3, 40.0), (0, 5, 40.0)), 1).tolist() == [True, False]


def test_no_sightings_give_no_links():
    nothing = np.empty(0)
    empty = View(nothing.astype(int), nothing.astype(int), nothing, nothing)
    assert highest_elevation(empty, 2).shape == every_visible(empty, 2).shape == (0,)


def test_every_visible_ignores_the_antennas():
    assert every_visible(view((0, 1, 20.0), (0, 2, 50.0)), 1).all()


def test_two_antennas_make_the_new_link_before_they_break_the_old():
    falling, rising, third = np.linspace(60, 20, 9), np.linspace(12, 60, 9), np.linspace(30, 11, 9)
    sightings = [(k, n, track[k]) for k in range(9) for n, track in enumerate((falling, rising, third))]
    seen = view(*sightings)
    linked = [set(seen.satellite[highest_elevation(seen, 2) & (seen.k == k)].tolist()) for k in range(9)]
    assert linked[0] == {0, 2}
    assert linked[-1] == {0, 1}
    assert all(before & after for before, after in zip(linked, linked[1:], strict=False))


def _ring_km(inclination_deg, count=24):
    u = np.arange(count) * 2 * math.pi / count
    over_the_date_line_rad = 0.0 * u + math.radians(30)
    names, inclination_rad = [f"s{n}" for n in range(count)], math.radians(inclination_deg)
    orbit = circular_elements(names, EPOCH, EARTH_RADIUS_KM + 1200, inclination_rad, over_the_date_line_rad, u)
    return propagate(orbit, EPOCH, np.arange(0, 7200, 60) * NS_PER_S)


@pytest.mark.parametrize(("latitude", "longitude"), [("90 deg", "0 deg"), ("-90 deg", "0 deg"), ("5 deg", "180 deg")])
def test_a_polar_ring_passes_over_poles_and_date_line(latitude, longitude):
    seen = station_view(station(latitude, longitude), _ring_km(90), EPOCH, np.arange(0, 7200, 60) * NS_PER_S)
    assert (seen.elevation_rad >= math.radians(10)).all()
    assert np.degrees(seen.elevation_rad).max() > 80
    if latitude != "5 deg":
        assert set(seen.k.tolist()) == set(range(120)), "someone is always above a pole"


def test_the_two_names_of_the_date_line_see_the_same():
    r_km, offsets_ns = _ring_km(90), np.arange(0, 7200, 60) * NS_PER_S
    east = station_view(station(longitude="180 deg"), r_km, EPOCH, offsets_ns)
    west = station_view(station(longitude="-180 deg"), r_km, EPOCH, offsets_ns)
    assert len(east.k) > 0
    assert (east.satellite == west.satellite).all()
    assert east.range_km == pytest.approx(west.range_km)


def test_an_equatorial_ring_is_never_seen_from_a_pole():
    assert len(station_view(station("90 deg"), _ring_km(0), EPOCH, np.arange(0, 7200, 60) * NS_PER_S).k) == 0


def test_from_a_height_satellites_are_seen_below_the_horizon_plane():
    places_rad, names = np.linspace(0, 2 * np.pi, 24, endpoint=False), [f"s{n}" for n in range(24)]
    elements = circular_elements(names, EPOCH, 6_928.0, math.radians(53), 5 * places_rad, places_rad)
    offsets_ns = np.arange(0, 5700, 30, dtype=np.int64) * NS_PER_S
    r_km = propagate(elements, EPOCH, offsets_ns)
    high = station("40 deg", min_elevation="-4 deg", height="18 km")
    everything = station_view(station("40 deg", min_elevation="0 deg", height="18 km"), r_km, EPOCH, offsets_ns)
    seen = station_view(high, r_km, EPOCH, offsets_ns)
    level = seen.elevation_rad >= 0
    assert seen.k[level].tolist() == everything.k.tolist()
    assert seen.satellite[level].tolist() == everything.satellite.tolist()
    assert np.degrees(seen.elevation_rad).min() == pytest.approx(-4.0, abs=0.5)
    assert (np.diff(np.sort(np.degrees(seen.elevation_rad[~level]))) < 2.0).all(), "none is missed in between"


@pytest.mark.parametrize(("height", "lowest"), [("0 km", "-1 deg"), ("3 km", "-2.5 deg"), ("9 km", "-4 deg")])
def test_nothing_is_seen_below_the_edge_of_the_earth(height, lowest):
    station("40 deg", min_elevation=lowest, height=height)
    with pytest.raises(ValueError, match="Earth's edge is at"):
        station("40 deg", min_elevation=f"{float(lowest.split()[0]) - 1.5} deg", height=height)
