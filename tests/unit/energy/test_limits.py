"""The rule for computers: its ramps, who counts more, and its hysteresis."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isl_emu.energy.satellite import Limits, Mode

COLD_K, FULL = 280.0, 1.0
LIMITS = Limits(*(np.array([value]) for value in (0.5, 0.7, 0.6, 320.0, 340.0, 330.0, 0.2)))


def decide(charge=FULL, temperature_k=COLD_K, affordable=1.0, was_off=False) -> tuple[float, Mode]:
    decision = LIMITS.decide(*(np.array([value]) for value in (charge, temperature_k, affordable, was_off)))
    return float(decision.pace_ratio[0]), Mode(decision.mode[0])


def test_with_charge_and_cold_it_runs_at_its_full_pace():
    assert decide() == (1.0, Mode.NOMINAL)
    assert decide(charge=0.7, temperature_k=320.0) == (1.0, Mode.NOMINAL)


def test_half_way_to_the_reserve_it_runs_half_way_to_the_least_pace():
    pace, mode = decide(charge=0.6)
    assert (pace, mode) == (pytest.approx(0.6), Mode.POWER_LIMITED)
    pace, mode = decide(temperature_k=330.0)
    assert (pace, mode) == (pytest.approx(0.6), Mode.HEAT_LIMITED)


def test_the_lower_pace_counts():
    assert decide(charge=0.6, temperature_k=325.0)[1] == Mode.POWER_LIMITED
    assert decide(charge=0.65, temperature_k=335.0)[1] == Mode.HEAT_LIMITED


def test_at_a_bound_it_is_switched_off():
    assert decide(charge=0.5) == (0.0, Mode.OFF)
    assert decide(temperature_k=340.0) == (0.0, Mode.OFF)


def test_off_it_stays_until_it_has_recovered():
    assert decide(charge=0.59, was_off=True) == (0.0, Mode.OFF)
    assert decide(charge=0.60, was_off=True) == (pytest.approx(0.6), Mode.POWER_LIMITED)
    assert decide(temperature_k=331.0, was_off=True) == (0.0, Mode.OFF)
    assert decide(temperature_k=330.0, was_off=True) == (pytest.approx(0.6), Mode.HEAT_LIMITED)
    assert decide(was_off=True) == (1.0, Mode.NOMINAL)


def test_it_takes_no_more_than_panel_and_battery_give():
    assert decide(affordable=0.4) == (0.4, Mode.POWER_LIMITED)
    assert decide(affordable=0.19) == (0.0, Mode.OFF)


@given(st.floats(0.0, 1.0), st.floats(200.0, 400.0), st.floats(-2.0, 3.0), st.booleans())
def test_the_pace_is_a_share_and_zero_exactly_when_off(charge, temperature_k, affordable, was_off):
    pace, mode = decide(charge, temperature_k, affordable, was_off)
    assert pace == 0.0 if mode == Mode.OFF else 0.2 <= pace <= 1.0
    assert (pace == 1.0) == (mode == Mode.NOMINAL)


def test_names_of_modes_are_those_of_the_tables():
    assert [mode.label for mode in Mode] == ["nominal", "power-limited", "heat-limited", "off"]
