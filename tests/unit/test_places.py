from __future__ import annotations

import math

import numpy as np
import pytest
from skyfield.api import wgs84

from isl_emu.geometry.frames import itrs_to_teme, sidereal_angle_rad, site_itrs_km
from isl_emu.geometry.places import geodetic, places_itrs_km, teme_to_itrs
from isl_emu.linkplan.build import plan_links
from isl_emu.scenario.parse import parse_scenario
from isl_emu.units import SPEED_OF_LIGHT_KM_S
from tests.golden.test_exports import SCENARIO

MILLIMETRE_KM = 1e-6


@pytest.mark.parametrize("latitude_deg", [-90, -89.999, -51.9, 0, 1e-6, 45, 90])
@pytest.mark.parametrize("longitude_deg", [-180, -12.5, 0, 179.9])
@pytest.mark.parametrize("height_km", [0, 8.8, 550, 35_786])
def test_geodetic_inverts_the_ellipsoid(latitude_deg, longitude_deg, height_km):
    there = np.asarray(wgs84.latlon(latitude_deg, longitude_deg, height_km * 1000).itrs_xyz.km)
    latitude_rad, longitude_rad, found_km = geodetic(there)
    again = site_itrs_km(float(latitude_rad), float(longitude_rad), float(found_km))
    assert np.linalg.norm(again - there) < MILLIMETRE_KM
    assert math.degrees(latitude_rad) == pytest.approx(latitude_deg, abs=1e-8)
    assert found_km == pytest.approx(height_km, abs=MILLIMETRE_KM)


def test_turning_to_the_earth_and_back_changes_nothing():
    scenario = parse_scenario(SCENARIO, "test")
    angle_rad = sidereal_angle_rad(scenario.time.start, np.array([0, 3_600_000_000_000]))
    site = np.array([4000.0, -2000.0, 4500.0])
    turned = teme_to_itrs(itrs_to_teme(site, angle_rad)[:, np.newaxis, :], angle_rad)
    assert np.allclose(turned, site, atol=MILLIMETRE_KM)


def test_distances_between_places_are_those_of_the_plan():
    text = SCENARIO.replace('"10 s"', '"6000 s"').replace("2500 ms", "30 s").replace('"10 deg"', '"80 deg"')
    scenario = parse_scenario(text, "test")
    plan = plan_links(scenario, text)
    r_km = places_itrs_km(scenario, plan.grid.start, plan.grid.offsets_ns)
    assert r_km.shape == (plan.grid.count, 4, 3)
    assert len(plan.row_link), "the station sees a satellite at times"
    k = np.repeat(np.arange(plan.grid.count), np.diff(plan.row_start))
    a, b = plan.links.a[plan.row_link], plan.links.b[plan.row_link]
    delay_ns = np.linalg.norm(r_km[k, a] - r_km[k, b], axis=1) / SPEED_OF_LIGHT_KM_S * 1e9
    assert np.abs(delay_ns - plan.row_delay_ns).max() < 1.0
