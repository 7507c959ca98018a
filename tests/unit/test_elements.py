from __future__ import annotations

import math
from datetime import datetime, timezone

import numpy as np
import pytest

from isl_emu.errors import ScenarioError
from isl_emu.geometry.elements import EARTH_RADIUS_KM, kozai_mean_motion_rad_min, shell_elements, shell_inclination_rad
from isl_emu.geometry.frames import sidereal_angle_rad
from isl_emu.geometry.orbits import satrecs
from isl_emu.geometry.sun import mean_sun_right_ascension_rad, raan_of_local_time_rad
from isl_emu.scenario.model import Shell
from tests.orbits import circular_elements

EPOCH = datetime(2026, 3, 20, 14, tzinfo=timezone.utc)
ONE_MILLIMETRE_KM = 1e-6
A_HUNDREDTH_DEGREE_RAD = math.radians(0.01)
TROPICAL_YEAR_DAYS = 365.2422


def shell(**changes):
    table = {
        "name": "ring",
        "walker": {"pattern": "delta", "total": 12, "planes": 1},
        "altitude": "525 km",
        "inclination": "53 deg",
        "lasers": {"topology": "ring"},
    }
    return Shell.model_validate({**table, **changes})


def one_satellite(altitude_km, inclination_deg):
    return circular_elements(
        ["p00s00"], EPOCH, EARTH_RADIUS_KM + altitude_km, math.radians(inclination_deg), np.zeros(1), np.zeros(1)
    )


@pytest.mark.parametrize("altitude_km", [200.0, 550.0, 1200.0, 8000.0, 35786.0])
@pytest.mark.parametrize("inclination_deg", [0.0, 53.0, 97.5, 180.0])
def test_sgp4_recovers_the_semi_major_axis(altitude_km, inclination_deg):
    satrec = satrecs(one_satellite(altitude_km, inclination_deg))[0]
    assert satrec.error == 0
    assert satrec.a * satrec.radiusearthkm == pytest.approx(EARTH_RADIUS_KM + altitude_km, abs=ONE_MILLIMETRE_KM)


def test_kozai_differs_from_kepler_by_about_a_thousandth():
    kepler_rad_min = 60 * math.sqrt(398600.8 / 6928.137**3)  # WGS72's GM
    kozai_rad_min = kozai_mean_motion_rad_min(6928.137, math.radians(53))
    assert 1e-5 < abs(kozai_rad_min / kepler_rad_min - 1) < 1e-3


def test_the_sun_synchronous_inclination_is_the_published_one():
    inclination_rad = shell_inclination_rad(shell(inclination="sun-synchronous"))
    assert math.cos(inclination_rad) == pytest.approx(-(((6378.137 + 525) / 12352) ** 3.5))
    assert math.degrees(inclination_rad) == pytest.approx(97.5, abs=0.05)


def test_a_sun_synchronous_node_follows_the_mean_sun():
    satrec = satrecs(shell_elements(shell(inclination="sun-synchronous"), ["p00s00"] * 12, EPOCH))[0]
    assert satrec.nodedot * 1440 * TROPICAL_YEAR_DAYS == pytest.approx(2 * math.pi, rel=0.005)


def test_no_circular_orbit_is_sun_synchronous_above_its_limit():
    with pytest.raises(ScenarioError, match=r"shell ring: altitude is 6000 km, but no circular orbit above 5974 km"):
        shell_inclination_rad(shell(altitude="6000 km", inclination="sun-synchronous"))


@pytest.mark.parametrize("year", [1990, 2010, 2026, 2030])
def test_the_mean_sun_is_where_sidereal_time_has_it(year):
    # mean solar time is sidereal time but for the mean Sun's right ascension, by definition
    moment = datetime(year, 5, 14, 4, 12, tzinfo=timezone.utc)
    hours_after_noon = 4.2 - 12
    expected_rad = sidereal_angle_rad(moment, np.zeros(1))[0] - hours_after_noon * math.pi / 12
    apart_rad = mean_sun_right_ascension_rad(moment) - expected_rad
    assert abs(math.remainder(apart_rad, 2 * math.pi)) < A_HUNDREDTH_DEGREE_RAD


def test_noon_and_midnight_planes_lie_along_the_mean_sun():
    sun_rad = mean_sun_right_ascension_rad(EPOCH)
    assert raan_of_local_time_rad("12:00", EPOCH) == pytest.approx(sun_rad)
    assert math.cos(raan_of_local_time_rad("00:00", EPOCH) - sun_rad) == pytest.approx(-1.0)
    assert math.sin(raan_of_local_time_rad("18:00", EPOCH) - sun_rad) == pytest.approx(1.0)
    assert math.sin(raan_of_local_time_rad("06:00", EPOCH) - sun_rad) == pytest.approx(-1.0)


def test_local_time_and_raan_move_the_whole_shell():
    names = [f"p00s{slot:02d}" for slot in range(12)]
    at_ltan = shell_elements(shell(ltan="22:30"), names, EPOCH)
    assert at_ltan.raan_rad == pytest.approx(np.full(12, raan_of_local_time_rad("22:30", EPOCH)))
    turned = shell_elements(shell(raan="40 deg", argument_of_latitude="15 deg"), names, EPOCH)
    assert np.degrees(turned.raan_rad) == pytest.approx(np.full(12, 40.0))
    assert np.degrees(turned.mean_anomaly_rad) == pytest.approx((15 + 30 * np.arange(12)) % 360)
