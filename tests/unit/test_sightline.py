from __future__ import annotations

import math

import numpy as np
import pytest

from isl_emu.geometry.elements import EARTH_RADIUS_KM
from isl_emu.geometry.sightline import elevation_rad, grazing_altitude_km, one_way_delay_ns, range_km

ONE_METRE_KM = 1e-3
TEN_METRES_KM = 1e-2


def on_circle(radius_km, angle_deg):
    angle = math.radians(angle_deg)
    return np.array([radius_km * math.cos(angle), radius_km * math.sin(angle), 0.0])


def test_two_of_22_in_a_plane_at_550_km():
    a_km, b_km = on_circle(EARTH_RADIUS_KM + 550, 0), on_circle(EARTH_RADIUS_KM + 550, 360 / 22)
    assert range_km(a_km, b_km) == pytest.approx(1971.95, abs=TEN_METRES_KM)
    assert grazing_altitude_km(a_km, b_km) == pytest.approx(479.48, abs=TEN_METRES_KM)
    assert one_way_delay_ns(range_km(a_km, b_km)) == pytest.approx(6_578_000, abs=500)


@pytest.mark.parametrize("apart_deg", [0.001, 5, 30, 60, 120, 179])
def test_the_closed_forms_of_a_chord(apart_deg):
    radius_km = EARTH_RADIUS_KM + 550
    a_km, b_km = on_circle(radius_km, 10), on_circle(radius_km, 10 + apart_deg)
    half_rad = math.radians(apart_deg / 2)
    assert range_km(a_km, b_km) == pytest.approx(2 * radius_km * math.sin(half_rad))
    assert grazing_altitude_km(a_km, b_km) == pytest.approx(radius_km * math.cos(half_rad) - EARTH_RADIUS_KM)


def test_a_line_that_ends_before_it_comes_lower_grazes_at_its_lower_end():
    low_km, high_km = on_circle(7000, 0), on_circle(9000, 1)
    assert grazing_altitude_km(low_km, high_km) == pytest.approx(7000 - EARTH_RADIUS_KM)
    assert grazing_altitude_km(high_km, low_km) == pytest.approx(7000 - EARTH_RADIUS_KM)


def test_satellites_in_one_place_have_no_range_and_their_own_altitude():
    place_km = on_circle(7000, 33)
    assert range_km(place_km, place_km) == 0.0
    assert grazing_altitude_km(place_km, place_km) == pytest.approx(7000 - EARTH_RADIUS_KM)
    assert one_way_delay_ns(np.array(0.0)) == 0


def test_the_earth_blocks_opposite_satellites():
    assert grazing_altitude_km(on_circle(7000, 0), on_circle(7000, 180)) == pytest.approx(-EARTH_RADIUS_KM)


@pytest.mark.parametrize("elevation_deg", [0, 5, 25, 60, 89.9])
@pytest.mark.parametrize("altitude_km", [525, 1200])
def test_the_slant_range_at_an_elevation(elevation_deg, altitude_km):
    radius_km, e = EARTH_RADIUS_KM, math.radians(elevation_deg)
    orbit_km = radius_km + altitude_km
    slant_km = math.sqrt(orbit_km**2 - (radius_km * math.cos(e)) ** 2) - radius_km * math.sin(e)
    site_km, zenith = np.array([radius_km, 0.0, 0.0]), np.array([1.0, 0.0, 0.0])
    satellite_km = site_km + slant_km * np.array([math.sin(e), math.cos(e), 0.0])
    assert np.linalg.norm(satellite_km) == pytest.approx(orbit_km, abs=ONE_METRE_KM)
    assert elevation_rad(site_km, zenith, satellite_km) == pytest.approx(e)
    assert range_km(site_km, satellite_km) == pytest.approx(slant_km)


def test_delays_are_whole_nanoseconds_over_c():
    assert one_way_delay_ns(np.array([299_792.458, 0.299792458, 0.0001])).tolist() == [1_000_000_000, 1_000, 0]
    assert one_way_delay_ns(np.array([1.0])).dtype == np.int64
