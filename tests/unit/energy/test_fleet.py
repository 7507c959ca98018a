"""Whole satellites: where the Sun's energy goes, what the computer gets, and that no joule is lost on the way."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isl_emu.energy.balance import simulate, sustainable_ratio
from isl_emu.energy.fleet import Fleet, Flow, State
from isl_emu.energy.satellite import Mode
from isl_emu.energy.sky import Sunshine
from tests.unit.energy.fleets import WH_J, small_fleet

SOLAR_W = 1361.0 * 0.5 * 0.3


def step(fleet: Fleet, sun: float, busy: float, step_s: float = 1.0) -> tuple[State, State, Flow]:
    every = np.ones(len(fleet.names))
    begun = fleet.begin(every * sun, step_s)
    return begun, *fleet.advance(begun, every * sun, every * sun, every * busy, step_s)


def sunshine(lit: list[float], count: int = 1) -> Sunshine:
    incidence = np.repeat(np.array(lit, dtype=np.float32)[:, np.newaxis], count, axis=1)
    return Sunshine(incidence > 0, incidence, np.zeros_like(incidence))


def test_in_the_shadow_the_battery_gives_what_bus_and_computer_take():
    begun, after, flow = step(small_fleet(), sun=0.0, busy=0.5)
    assert flow.board_w[0] == 10.0 + 50.0 * 0.5
    assert flow.discharge_w[0] == pytest.approx(20.0 + 35.0)
    assert begun.energy_j[0] - after.energy_j[0] == pytest.approx(55.0 / 0.95)


def test_in_the_sun_the_panel_gives_and_the_rest_is_stored_or_spilled():
    _, _, flow = step(small_fleet(start_charge=0.8), sun=1.0, busy=1.0)
    assert flow.solar_w[0] == pytest.approx(SOLAR_W)
    assert flow.charge_w[0] == pytest.approx(SOLAR_W - 80.0)
    _, _, full = step(small_fleet(), sun=1.0, busy=1.0)
    assert full.spilled_w[0] == pytest.approx(SOLAR_W - 80.0)


def test_a_computer_that_is_off_draws_nothing_and_a_satellite_without_one_is_never_off():
    begun, _, flow = step(small_fleet(start_charge=0.4), sun=0.0, busy=1.0)
    assert begun.mode[0] == Mode.OFF
    assert flow.board_w[0] == 0.0
    begun, _, flow = step(small_fleet(start_charge=0.0, idle_w=0.0, busy_w=0.0), sun=0.0, busy=0.0)
    assert (begun.mode[0], begun.pace_ratio[0]) == (Mode.NOMINAL, 1.0)
    assert flow.unmet_w[0] == 20.0


def test_with_an_empty_battery_the_panel_alone_sets_the_pace():
    """In the Sun at an angle: 60 W less 20 W for the bus and 10 W idle leave 30 of the 50 W of full work."""
    fleet = small_fleet(start_charge=0.75, capacity_wh=1e-9)
    begun = fleet.begin(np.array([60.0 / SOLAR_W]), 1.0)
    assert begun.pace_ratio[0] == pytest.approx(0.6)
    assert begun.mode[0] == Mode.POWER_LIMITED


charges, shares = st.floats(0.0, 1.0), st.floats(0.0, 1.0)


@given(charges, st.floats(230.0, 360.0), shares, shares, st.floats(0.1, 120.0))
def test_energy_is_conserved(charge, start_k, sun, busy, step_s):
    fleet = small_fleet(start_charge=charge, start_k=start_k)
    begun, after, flow = step(fleet, sun, busy, step_s)
    one_milliwatt = 1e-3
    used_w = fleet.bus_w + flow.board_w - flow.unmet_w
    stored_w = (after.energy_j - begun.energy_j) / step_s
    assert flow.solar_w == pytest.approx(used_w + stored_w + flow.loss_w + flow.spilled_w, abs=one_milliwatt)
    environment_w = fleet.radiators.environment_w(np.array([sun]))
    assert flow.heat_w == pytest.approx(used_w + flow.loss_w + environment_w, abs=one_milliwatt)


def test_an_eclipse_slows_the_computer_then_stops_it_and_the_sun_brings_it_back():
    fleet, step_s = small_fleet(capacity_wh=40.0), 10.0
    dark, light = [0.0] * 200, [1.0] * 200
    balance = simulate(fleet, sunshine(dark + light), 1.0, step_s)
    mode = balance.mode[:, 0]
    first = [int(np.argmax(mode == wanted)) for wanted in (Mode.NOMINAL, Mode.POWER_LIMITED, Mode.OFF)]
    assert first == sorted(first)
    assert 0 < first[1] < first[2] < 200
    assert mode[-1] == Mode.NOMINAL
    assert np.all(balance.board_w[mode == Mode.OFF] == 0.0)
    # until it is slowed it draws 80 W: from 100 % down to 70 % of 40 Wh at 95 % of efficiency
    assert first[1] * step_s == pytest.approx(0.3 * 40 * WH_J * 0.95 / 80, abs=2 * step_s)


def test_a_bus_that_draws_more_than_an_orbit_gives_is_not_fed():
    fleet = small_fleet(bus_w=SOLAR_W, capacity_wh=10.0)
    balance = simulate(fleet, sunshine(([1.0] * 60 + [0.0] * 36) * 3), 0.0, 60.0)
    assert balance.unmet_w.max() > 0.0
    assert balance.charge_ratio.min() == pytest.approx(0.0, abs=1e-6)


def test_over_one_orbit_the_balance_is_that_of_the_closed_form():
    """The panel meets the load when solar x lit = load x (lit + dark / (charge x discharge efficiency))."""
    lit, dark, step_s, load_w = 60, 36, 60.0, 80.0
    needed_w = load_w * (lit + dark / 0.95**2) / lit
    for surplus, grows in ((0.98, False), (1.02, True)):
        area_m2 = needed_w * surplus / (1361.0 * 0.3)
        fleet = small_fleet(area_m2=area_m2, capacity_wh=500.0, start_charge=0.85, radiator_m2=2.0)
        balance = simulate(fleet, sunshine([1.0] * lit + [0.0] * dark), 1.0, step_s)
        assert np.all(balance.mode == Mode.NOMINAL)
        assert (balance.charge_ratio[-1, 0] > 0.85) == grows
        stored_j = (needed_w * surplus - load_w) * 0.95 * lit * step_s - load_w / 0.95 * dark * step_s
        assert (balance.charge_ratio[-1, 0] - 0.85) * 500.0 * WH_J == pytest.approx(stored_j, abs=5.0)


def test_heat_slows_a_computer_with_a_small_radiator():
    balance = simulate(small_fleet(radiator_m2=0.12, capacity_wh=1e4), sunshine([1.0] * 2000), 1.0, 10.0)
    assert balance.mode[-1, 0] == Mode.HEAT_LIMITED
    assert 318.0 < balance.temperature_k[-1, 0] < 333.0
    assert (balance.mode != Mode.NOMINAL).mean() > 0.5


def test_satellites_do_not_see_each_other():
    alone = [simulate(small_fleet(start_charge=c), sunshine([0.0] * 100), 1.0, 60.0) for c in (0.55, 1.0)]
    both = simulate(small_fleet(2, start_charge=np.array([0.55, 1.0])), sunshine([0.0] * 100, 2), 1.0, 60.0)
    for n, one in enumerate(alone):
        np.testing.assert_array_equal(both.charge_ratio[:, n], one.charge_ratio[:, 0])
        np.testing.assert_array_equal(both.mode[:, n], one.mode[:, 0])


@pytest.mark.parametrize("busy", [0.0, 0.3, 1.0])
def test_what_can_be_kept_up_is_that_of_the_closed_form(busy):
    """A panel that gives just what bus and computer need in light, and to charge for the dark, keeps them up."""
    lit, dark = 60, 36
    load_w = 20.0 + 10.0 + 50.0 * busy
    area_m2 = load_w * (lit + dark / 0.95**2) / lit / (1361.0 * 0.3)
    found = sustainable_ratio(small_fleet(area_m2=area_m2), sunshine([1.0] * lit + [0.0] * dark))
    assert found[0] == pytest.approx(busy, abs=1e-5)


def test_a_panel_that_does_not_feed_the_bus_keeps_nothing_up():
    assert sustainable_ratio(small_fleet(area_m2=0.01), sunshine([1.0, 0.0]))[0] == pytest.approx(0.0, abs=1e-5)
    assert sustainable_ratio(small_fleet(area_m2=10.0), sunshine([1.0, 0.0]))[0] == 1.0
