from __future__ import annotations

import math
from datetime import datetime, timezone

import numpy as np
import pytest
from skyfield.api import EarthSatellite, load, wgs84
from skyfield.sgp4lib import TEME

from isl_emu.geometry.elements import EARTH_RADIUS_KM
from isl_emu.geometry.frames import itrs_to_teme, sidereal_angle_rad, site_itrs_km, timescale, zenith_itrs
from isl_emu.geometry.orbits import propagate, satrecs
from isl_emu.geometry.sightline import elevation_rad, range_km
from isl_emu.units import NS_PER_S
from tests.orbits import circular_elements

START = datetime(2026, 3, 20, 14, 0, 30, 250_000, tzinfo=timezone.utc)
OFFSETS_NS = np.arange(0, 86_400, 7_200) * NS_PER_S
SIDEREAL_DAY_S = 86_164.0905  # relative to the mean equinox: 86,400 s / 1.002737909
ONE_MILLIMETRE_KM = 1e-6
ONE_ARCSECOND_RAD = math.radians(1 / 3600)
SITES = [(0.0, 0.0, 0.0), (52.5, 13.4, 0.1), (-77.8, 166.7, 0.0), (90.0, 0.0, 0.0), (-90.0, 50.0, 2.8)]


def _teme_km(latitude_deg, longitude_deg, height_km, offsets_ns=OFFSETS_NS):
    site_km = site_itrs_km(math.radians(latitude_deg), math.radians(longitude_deg), height_km)
    return itrs_to_teme(site_km, sidereal_angle_rad(START, offsets_ns))


def _skyfield_times():
    seconds = START.second + START.microsecond / 1e6 + OFFSETS_NS / NS_PER_S
    return load.timescale(builtin=True).utc(START.year, START.month, START.day, START.hour, START.minute, seconds)


@pytest.mark.parametrize("site", SITES)
def test_sites_are_where_skyfield_puts_them(site):
    t = _skyfield_times()
    gcrs_km = wgs84.latlon(site[0], site[1], site[2] * 1000).at(t).position.km
    expected_km = np.einsum("ijk,jk->ki", TEME.rotation_at(t), gcrs_km)
    assert np.abs(_teme_km(*site) - expected_km).max() < ONE_MILLIMETRE_KM


def test_elevation_and_range_are_skyfields():
    elements = circular_elements(["s"], START, EARTH_RADIUS_KM + 1200, math.radians(60), np.array([4.0]), np.zeros(1))
    satellite_km = propagate(elements, START, OFFSETS_NS)[:, 0]
    zenith = itrs_to_teme(zenith_itrs(math.radians(52.5), math.radians(13.4)), sidereal_angle_rad(START, OFFSETS_NS))
    found_rad = elevation_rad(_teme_km(52.5, 13.4, 0.1), zenith, satellite_km)
    ts = load.timescale(builtin=True)
    seen = EarthSatellite.from_satrec(satrecs(elements)[0], ts) - wgs84.latlon(52.5, 13.4, 100)
    altitude, _, distance = seen.at(_skyfield_times()).altaz()
    assert np.abs(found_rad - altitude.radians).max() < ONE_ARCSECOND_RAD
    assert np.abs(range_km(_teme_km(52.5, 13.4, 0.1), satellite_km) - distance.km).max() < 1e-3


def test_longitudes_180_and_minus_180_are_one_meridian():
    assert _teme_km(10.0, 180.0, 0.0) == pytest.approx(_teme_km(10.0, -180.0, 0.0), abs=ONE_MILLIMETRE_KM)


def test_at_a_pole_every_longitude_is_the_same_place_on_the_axis():
    north_km = _teme_km(90.0, 0.0, 0.0)
    assert north_km == pytest.approx(_teme_km(90.0, 77.0, 0.0), abs=ONE_MILLIMETRE_KM)
    assert north_km == pytest.approx(np.tile([0.0, 0.0, 6356.752314], (len(OFFSETS_NS), 1)), abs=ONE_MILLIMETRE_KM)
    assert zenith_itrs(math.radians(-90.0), 1.0) == pytest.approx([0.0, 0.0, -1.0])


def test_the_earth_turns_once_in_a_sidereal_day():
    day_ns = np.array([0, round(SIDEREAL_DAY_S * NS_PER_S)])
    before_km, after_km = _teme_km(0.0, 0.0, 0.0, day_ns)
    assert np.linalg.norm(after_km - before_km) < 1e-3
    solar_km = _teme_km(0.0, 0.0, 0.0, np.array([0, 86_400 * NS_PER_S]))
    assert np.linalg.norm(solar_km[1] - solar_km[0]) == pytest.approx(110, abs=1)


def test_the_time_scale_comes_from_the_package():
    assert timescale() is timescale()
    assert timescale().polar_motion_table is None
