"""Radiators against closed forms: equilibrium, cooling by the fourth power, and the time constant."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isl_emu.energy.satellite import STEFAN_BOLTZMANN_W_M2_K4, Radiators, earth_view
from isl_emu.geometry.elements import EARTH_RADIUS_KM

A_HUNDREDTH_OF_A_KELVIN = 0.01


def radiator(area_m2=1.0, heat_capacity_j_k=20_000.0, emissivity=0.8, absorptivity=0.1, view=0.26) -> Radiators:
    return Radiators(*(np.array([value]) for value in (area_m2, heat_capacity_j_k, emissivity, absorptivity, view)))


def after_k(plate: Radiators, start_k: float, heat_w: float, duration_s: float, step_s: float = 1.0) -> float:
    temperature_k = np.array([start_k])
    for _ in range(round(duration_s / step_s)):
        temperature_k = plate.temperature_after_k(temperature_k, np.array([heat_w]), step_s)
    return float(temperature_k[0])


def equilibrium_k(heat_w):
    """Where the plate of `radiator` sheds as much as comes in: 1 m2 with emissivity 0.8."""
    return (heat_w / (0.8 * STEFAN_BOLTZMANN_W_M2_K4)) ** 0.25


def test_the_equilibrium_is_that_of_stefan_and_boltzmann():
    """400 W from 1 m2 with emissivity 0.8: (400 / (0.8 sigma))^(1/4) = 306.4 K."""
    plate = radiator()
    assert equilibrium_k(400.0) == pytest.approx(306.44, abs=A_HUNDREDTH_OF_A_KELVIN)
    for start_k in (200.0, 306.4, 420.0):
        settled_k = after_k(plate, start_k, 400.0, 100_000, step_s=50.0)
        assert settled_k == pytest.approx(equilibrium_k(400.0), abs=1e-6)


@pytest.mark.parametrize("step_s", [1.0, 10.0, 60.0])
def test_without_heat_it_cools_as_the_closed_form_says(step_s):
    """dT/dt = -k T^4 / C has the solution T = (T0^-3 + 3 k t / C)^(-1/3)."""
    plate, duration_s = radiator(), 3600.0
    rate = 0.8 * STEFAN_BOLTZMANN_W_M2_K4 / 20_000.0
    expected_k = (350.0**-3 + 3 * rate * duration_s) ** (-1 / 3)
    assert after_k(plate, 350.0, 0.0, duration_s, step_s) == pytest.approx(expected_k, abs=A_HUNDREDTH_OF_A_KELVIN)


def test_small_differences_vanish_exponentially():
    plate = radiator()
    settled_k = np.array([equilibrium_k(400.0)])
    time_constant_s = float(plate.time_constant_s(settled_k)[0])
    assert time_constant_s == pytest.approx(20_000.0 / (4 * 400.0 / settled_k[0]))
    end_k = after_k(plate, float(settled_k[0]) + 0.1, 400.0, time_constant_s, step_s=time_constant_s / 100)
    assert end_k - settled_k[0] == pytest.approx(0.1 / math.e, rel=2e-3)


@given(st.floats(150.0, 450.0), st.floats(0.0, 2000.0), st.floats(0.1, 1e5))
def test_it_moves_towards_the_equilibrium_at_any_step(start_k, heat_w, step_s):
    plate = radiator()
    settled_k, end_k = equilibrium_k(heat_w), after_k(plate, start_k, heat_w, step_s, step_s)
    assert (end_k - start_k) * (settled_k - start_k) >= -1e-9


@given(st.floats(150.0, 450.0), st.floats(0.0, 2000.0))
def test_heat_that_stays_warms_and_heat_that_leaves_is_radiated(start_k, heat_w):
    """Over a short step: C dT = (heat - radiated) dt."""
    plate, step_s = radiator(), 0.01
    end_k = plate.temperature_after_k(np.array([start_k]), np.array([heat_w]), step_s)
    stored_w = 20_000.0 * (end_k - start_k) / step_s
    assert stored_w == pytest.approx(heat_w - plate.radiated_w(np.array([start_k])), rel=1e-4, abs=1e-2)


def test_the_environment_is_infrared_by_day_and_night_and_albedo_by_day():
    plate = radiator(area_m2=2.0, emissivity=0.8, absorptivity=0.1, view=0.25)
    night_w, noon_w = plate.environment_w(np.array([0.0])), plate.environment_w(np.array([1.0]))
    assert night_w[0] == pytest.approx(2.0 * 0.25 * 0.8 * 240.0)
    assert noon_w[0] - night_w[0] == pytest.approx(2.0 * 0.25 * 0.1 * 0.29 * 1361.0)


def test_an_upright_plate_on_the_ground_sees_half_of_the_world_as_earth():
    assert earth_view(0.0, EARTH_RADIUS_KM) == pytest.approx(0.5)
    assert earth_view(525.0, EARTH_RADIUS_KM) == pytest.approx(0.26, abs=0.005)
    assert earth_view(1e6, EARTH_RADIUS_KM) == pytest.approx(0.0, abs=1e-4)
