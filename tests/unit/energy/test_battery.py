"""Batteries: discharge by hand, limits, and that no energy is made or lost."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isl_emu.energy.satellite import Batteries

WH_J = 3600.0
CAPACITY_J = 100 * WH_J


def batteries(charge=1.0, discharge=1.0, most_charge_w=np.inf, most_discharge_w=np.inf) -> Batteries:
    return Batteries(*(np.array([value]) for value in (CAPACITY_J, charge, discharge, most_charge_w, most_discharge_w)))


def after(store: Batteries, energy_j: float, surplus_w: float, steps: int, step_s: float = 1.0) -> float:
    energy = np.array([energy_j])
    for _ in range(steps):
        energy = store.exchange(energy, np.array([surplus_w]), step_s).energy_j
    return float(energy[0])


def test_a_constant_load_empties_it_in_capacity_over_load():
    """100 Wh at 50 W and 80 % of efficiency last 100 Wh x 0.8 / 50 W = 96 min."""
    store = batteries(discharge=0.8)
    assert after(store, CAPACITY_J, -50.0, 96 * 60 - 1) > 0.0
    assert after(store, CAPACITY_J, -50.0, 96 * 60) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("step_s", [1.0, 7.0, 60.0])
def test_the_length_of_the_step_does_not_matter(step_s):
    steps = round(4200 / step_s)
    assert after(batteries(discharge=0.9), CAPACITY_J, -30.0, steps, step_s) == pytest.approx(
        CAPACITY_J - 30.0 / 0.9 * 4200
    )


def test_charging_and_discharging_cost_what_the_efficiencies_say():
    store = batteries(charge=0.95, discharge=0.9)
    full_j = after(store, 0.0, 40.0, 1000)
    assert full_j == pytest.approx(0.95 * 40.0 * 1000)
    given_w = store.exchange(np.array([full_j]), np.array([-1e9]), 1000.0).discharge_w
    assert given_w[0] * 1000 == pytest.approx(0.95 * 0.9 * 40.0 * 1000)


def test_limits_of_power_hold_and_the_rest_is_told():
    store = batteries(most_charge_w=20.0, most_discharge_w=30.0)
    charged = store.exchange(np.array([0.0]), np.array([50.0]), 1.0)
    assert (charged.charge_w[0], charged.spilled_w[0], charged.unmet_w[0]) == (20.0, 30.0, 0.0)
    drained = store.exchange(np.array([CAPACITY_J]), np.array([-50.0]), 1.0)
    assert (drained.discharge_w[0], drained.unmet_w[0], drained.spilled_w[0]) == (30.0, 20.0, 0.0)


def test_a_full_battery_takes_nothing_and_an_empty_one_gives_nothing():
    store = batteries(charge=0.9, discharge=0.9)
    assert store.exchange(np.array([CAPACITY_J]), np.array([50.0]), 1.0).spilled_w[0] == 50.0
    assert store.exchange(np.array([0.0]), np.array([-50.0]), 1.0).unmet_w[0] == 50.0


ratios, powers = st.floats(0.01, 1.0), st.floats(-1e4, 1e4)


@given(ratios, ratios, st.floats(0.0, 1.0), st.floats(0.1, 1e4), st.floats(0.1, 1e4), powers, st.floats(0.01, 600.0))
def test_energy_is_conserved(charge, discharge, full, most_charge_w, most_discharge_w, surplus_w, step_s):
    store = batteries(charge, discharge, most_charge_w, most_discharge_w)
    before_j = np.array([full * CAPACITY_J])
    done = store.exchange(before_j, np.array([surplus_w]), step_s)
    one_joule_in_a_million = 1e-6 * (CAPACITY_J + abs(surplus_w) * step_s)
    taken_w = done.charge_w - done.discharge_w - done.loss_w
    assert done.energy_j - before_j == pytest.approx(taken_w * step_s, abs=one_joule_in_a_million)
    assert surplus_w == pytest.approx(done.charge_w - done.discharge_w + done.spilled_w - done.unmet_w, abs=1e-6)
    assert 0.0 <= done.energy_j[0] <= CAPACITY_J
    powers = done.charge_w, done.discharge_w, done.loss_w, done.spilled_w, done.unmet_w
    assert all(power[0] >= -1e-9 for power in powers)
