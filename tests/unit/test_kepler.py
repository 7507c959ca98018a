"""Kepler's ellipse with J2's secular rates: by closed forms, and against SGP4."""

from __future__ import annotations

import math
from datetime import datetime, timezone

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sgp4.api import Satrec

from isl_emu.errors import ScenarioError
from isl_emu.geometry.elements import EARTH_RADIUS_KM, Elements, kozai_mean_motion_rad_min
from isl_emu.geometry.kepler import eccentric_anomaly_rad, kepler_j2_km, secular_rates
from isl_emu.geometry.orbits import propagate, satrecs
from isl_emu.scenario.model import Orbits
from isl_emu.units import NS_PER_S

EPOCH = datetime(2026, 3, 20, tzinfo=timezone.utc)
KEPLER = Orbits(propagator="kepler_j2")
HOUR_NS = 3600 * NS_PER_S
MOLNIYA = (26_553.0, 63.4, 0.722)


def plane(semi_major_axis_km, inclination_deg, eccentricity=0.0, slots=24):
    same, inclination_rad = np.ones(slots), math.radians(inclination_deg)
    return Elements(
        names=tuple(f"p00s{slot:02d}" for slot in range(slots)),
        epoch=EPOCH,
        mean_motion_rad_min=same * kozai_mean_motion_rad_min(semi_major_axis_km, inclination_rad, eccentricity),
        eccentricity=same * eccentricity,
        inclination_rad=same * inclination_rad,
        raan_rad=same * 1.0,
        arg_perigee_rad=same * 4.0,
        mean_anomaly_rad=np.arange(slots) * 2 * math.pi / slots,
    )


@given(st.floats(-20.0, 20.0), st.floats(0.0, 0.999))
def test_keplers_equation_is_solved(mean_rad, eccentricity):
    found_rad = eccentric_anomaly_rad(np.array([mean_rad]), np.array([eccentricity]))[0]
    residual_rad = found_rad - eccentricity * math.sin(found_rad) - mean_rad
    assert abs(math.remainder(residual_rad, 2 * math.pi)) < 1e-12


def test_an_ellipse_runs_from_perigee_to_apogee():
    semi_major_axis_km, inclination_deg, eccentricity = MOLNIYA
    r_km, errors = kepler_j2_km(plane(*MOLNIYA, slots=2), np.zeros(1))
    assert not errors.any()
    assert np.linalg.norm(r_km[0], axis=-1) == pytest.approx(
        [semi_major_axis_km * (1 - eccentricity), semi_major_axis_km * (1 + eccentricity)]
    )
    assert r_km[0, 0, 2] / np.linalg.norm(r_km[0, 0]) == pytest.approx(
        math.sin(4.0) * math.sin(math.radians(inclination_deg))
    )


@pytest.mark.parametrize("orbit", [(6903.0, 97.5), (6928.0, 53.0), (7578.0, 87.9), (26_560.0, 55.0, 0.01), MOLNIYA])
def test_secular_rates_are_those_that_sgp4_works_with(orbit):
    elements = plane(*orbit)
    satrec: Satrec = satrecs(elements)[0]
    semi_major_axis_km, rates = secular_rates(elements)
    first_order = 4e-3  # what SGP4's terms of second order add to J2's
    assert semi_major_axis_km[0] == pytest.approx(orbit[0], abs=1e-6)
    assert rates.raan_rad_min[0] == pytest.approx(satrec.nodedot, rel=first_order)
    assert rates.mean_anomaly_rad_min[0] == pytest.approx(satrec.mdot, rel=1e-5)
    turn = abs(satrec.argpdot) or 1e-9
    assert abs(rates.arg_perigee_rad_min[0] - satrec.argpdot) < first_order * max(turn, abs(satrec.nodedot))


def test_a_critical_inclination_keeps_its_perigee():
    _, rates = secular_rates(plane(26_553.0, math.degrees(math.acos(math.sqrt(0.2))), 0.7))
    assert rates.arg_perigee_rad_min[0] == pytest.approx(0.0, abs=1e-15)


# the errors that docs/limits.md states: over a day of the position, and of the distance between neighbours 15 deg off
WITHIN_20_KM, NEIGHBOURS_WITHIN_3_KM = 20.0, 3.0


@pytest.mark.parametrize("altitude_km", [500.0, 780.0, 1200.0])
@pytest.mark.parametrize("inclination_deg", [0.1, 30.0, 53.0, 86.4, 97.6])
def test_over_a_day_it_stays_within_20_km_of_sgp4(altitude_km, inclination_deg):
    elements, offsets_ns = plane(EARTH_RADIUS_KM + altitude_km, inclination_deg), np.linspace(0, 24 * HOUR_NS, 300)
    sgp4_km, kepler_km = (propagate(elements, EPOCH, offsets_ns, orbits) for orbits in (Orbits(), KEPLER))
    assert 1.0 < np.linalg.norm(sgp4_km - kepler_km, axis=-1).max() < WITHIN_20_KM
    chords_km = [np.linalg.norm(r_km - np.roll(r_km, 1, axis=1), axis=-1) for r_km in (sgp4_km, kepler_km)]
    assert np.abs(chords_km[0] - chords_km[1]).max() < NEIGHBOURS_WITHIN_3_KM


@pytest.mark.parametrize(
    ("propagator", "reason"), [("sgp4", "SGP4 reports"), ("kepler_j2", "its ellipse lies below the ground at 0 s")]
)
def test_an_orbit_that_does_not_hold_is_named_or_masked(propagator, reason):
    elements = plane(7000.0, 53.0, slots=4)
    eccentricity = np.array([0.0, 0.2, 1.5, 0.0])
    broken = Elements(
        elements.names, EPOCH, elements.mean_motion_rad_min.copy(), eccentricity,
        *(getattr(elements, name).copy() for name in ("inclination_rad", "raan_rad", "arg_perigee_rad")),
        np.array([0.0, 0.0, 0.0, 1.0]),
    )  # fmt: skip
    offsets_ns = np.arange(3) * NS_PER_S
    with pytest.raises(ScenarioError) as caught:
        propagate(broken, EPOCH, offsets_ns, Orbits(propagator=propagator))
    assert [problem.split(":")[0] for problem in caught.value.problems] == ["satellite p00s01", "satellite p00s02"]
    assert reason in caught.value.problems[0]
    assert "eccentricity is 1.5, which is hyperbolic" in caught.value.problems[1]
    r_km = propagate(broken, EPOCH, offsets_ns, Orbits(propagator=propagator, on_bad="mask"))
    assert np.isnan(r_km).all(axis=(0, 2)).tolist() == [False, True, True, False]
    assert not np.isnan(r_km[:, [0, 3]]).any()
