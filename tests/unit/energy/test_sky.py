"""Sunlight on orbits: the share of an orbit in shadow against its closed form, and panels that stand still."""

from __future__ import annotations

import math
from datetime import datetime, timezone

import numpy as np
import pytest

from isl_emu.energy.sky import eclipse_ratio, find_sunshine
from isl_emu.geometry.sunlight import sun_direction
from isl_emu.scenario.parse import parse_scenario
from tests.scenarios import head, shell

EQUINOX = datetime(2026, 3, 20, 14, 46, tzinfo=timezone.utc)
A_MINUTE_OF_TEN_ORBITS = 0.002


def orbit(altitude_km: float = 525.0, **keys: str):
    text = head(start="2026-03-20T14:46:00Z") + shell(1, altitude=f"{altitude_km} km", lasers="none", **keys)
    return parse_scenario(text, "test")


def ten_orbits_ns(altitude_km: float, step_s: float = 10.0) -> np.ndarray:
    """Ten revolutions, in which the phase at the step's grid drifts through the orbit."""
    period_s = 2 * math.pi * math.sqrt((6378.137 + altitude_km) ** 3 / 398_600.8)
    return (np.arange(round(10 * period_s / step_s)) * step_s * 1e9).astype(np.int64)


@pytest.mark.parametrize("altitude_km", [400.0, 525.0, 1000.0])
@pytest.mark.parametrize("raan_deg", [0, 40, 75, 90])
def test_the_share_in_shadow_is_that_of_the_closed_form(altitude_km, raan_deg):
    """An orbit over the poles with its node `raan` from the Sun at the equinox: beta is the raan."""
    scenario = orbit(altitude_km, inclination="90 deg", raan=f"{raan_deg} deg")
    offsets_ns = ten_orbits_ns(altitude_km)
    sun = find_sunshine(scenario, EQUINOX, offsets_ns, np.array([0]), ["sun"])
    expected = eclipse_ratio(altitude_km, math.radians(raan_deg))
    assert 1.0 - sun.sunlit.mean() == pytest.approx(expected, abs=2 * A_MINUTE_OF_TEN_ORBITS)
    np.testing.assert_array_equal(sun.incidence[:, 0], sun.sunlit[:, 0].astype(np.float32))


def test_known_shares():
    """At 525 km: 38 % in the plane of the Sun, none in a dawn-dusk orbit."""
    assert eclipse_ratio(525.0, 0.0) == pytest.approx(math.asin(6378.137 / 6903.137) / math.pi)
    assert eclipse_ratio(525.0, 0.0) == pytest.approx(0.375, abs=0.002)
    assert eclipse_ratio(525.0, math.radians(90)) == 0.0
    assert eclipse_ratio(525.0, math.radians(67)) > 0.0
    assert eclipse_ratio(525.0, math.radians(68)) == 0.0


def test_a_dawn_dusk_orbit_at_the_equinox_has_no_night():
    sun = find_sunshine(
        orbit(inclination="sun-synchronous", ltan="dawn-dusk"), EQUINOX, ten_orbits_ns(525.0), np.array([0]), ["sun"]
    )
    assert sun.sunlit.all()


@pytest.mark.parametrize(
    ("mount", "mean"),
    [
        # a normal in the plane of the Sun is lit for half an orbit, which means 1 / pi over all of it; one that looks
        # down is in the Earth's shadow for most of that half
        ("nadir", (1 - 6378.137 / 6903.137) / math.pi),
        ("zenith", 1 / math.pi),
        ("port", 0.0),
        ("starboard", 0.0),
    ],
)
def test_panels_that_stand_still_see_the_sun_at_an_angle(mount, mean):
    sun = find_sunshine(
        orbit(inclination="90 deg", raan="0 deg"), EQUINOX, ten_orbits_ns(525.0), np.array([0]), [mount]
    )
    assert sun.incidence.mean() == pytest.approx(mean, abs=0.004)


def test_albedo_is_the_height_of_the_sun_over_the_ground():
    offsets_ns = ten_orbits_ns(525.0)
    sun = find_sunshine(orbit(inclination="90 deg", raan="0 deg"), EQUINOX, offsets_ns, np.array([0]), ["sun"])
    assert sun.albedo.mean() == pytest.approx(1 / math.pi, abs=0.003)
    assert sun.albedo.max() == pytest.approx(1.0, abs=1e-3)
    assert np.all(sun.albedo[~sun.sunlit] == 0.0)


def test_chunks_and_choices_do_not_change_anything(monkeypatch):
    offsets_ns, chosen = ten_orbits_ns(525.0, 300.0), np.array([0])
    whole = find_sunshine(orbit(inclination="30 deg", raan="0 deg"), EQUINOX, offsets_ns, chosen, ["zenith"])
    monkeypatch.setattr("isl_emu.energy.sky.POSITIONS_AT_ONCE", 7)
    parts = find_sunshine(orbit(inclination="30 deg", raan="0 deg"), EQUINOX, offsets_ns, chosen, ["zenith"])
    np.testing.assert_array_equal(whole.incidence, parts.incidence)


def test_the_tests_own_sun_is_along_x():
    assert sun_direction(EQUINOX, np.array([0]))[0] == pytest.approx([1.0, 0.0, 0.0], abs=1e-3)
