"""The optical link budget against sums done by hand in decibels."""

from __future__ import annotations

import math

import numpy as np
import pytest

from isl_emu.linkplan.budget import PLANCK_J_S, closing_rate_bit_s, energy_per_bit_j, received_power_w
from isl_emu.scenario.lasers import Budget

TABLE = {
    "transmit_power": "1 W", "wavelength": "1550 nm", "transmit_aperture": "80 mm", "pointing_loss": "2 dB",
    "system_loss": "4 dB", "photons_per_bit": 100.0, "margin": "3 dB",
}  # fmt: skip
ONE_HUNDREDTH_DB = 0.01


def budget(**changes) -> Budget:
    return Budget.model_validate({**TABLE, **changes})


def test_received_power_is_the_sum_of_decibels():
    # 1 W = 30 dBm; each aperture 20 log10(pi x 0.08 / 1.55e-6) = 104.197 dB; 4,000 km of space
    # 20 log10(4 pi x 4e6 / 1.55e-6) = 270.218 dB; 6 dB of losses
    expected_dbm = 30 + 2 * 104.197 - 270.218 - 6
    found_dbm = 10 * math.log10(received_power_w(budget(), np.array([4_000.0]))[0] * 1e3)
    assert found_dbm == pytest.approx(expected_dbm, abs=ONE_HUNDREDTH_DB)


def test_photons_and_watts_say_the_same():
    # a photon of 1550 nm has 1.2816e-19 J; 100 of them at 10 Gbit/s are 1.2816e-7 W = -38.922 dBm
    assert energy_per_bit_j(budget()) == pytest.approx(100 * 1.2816e-19, rel=1e-4)
    table = {key: value for key, value in TABLE.items() if key != "photons_per_bit"}
    watts = Budget.model_validate({**table, "sensitivity": "-38.922 dBm", "sensitivity_rate": "10 Gbit/s"})
    assert energy_per_bit_j(watts) == pytest.approx(energy_per_bit_j(budget()), rel=1e-3)


def test_the_rate_is_power_over_energy_and_margin():
    power_w = received_power_w(budget(), np.array([4_000.0]))[0]
    expected_bit_s = power_w / 10**0.3 / (100 * PLANCK_J_S * 299_792_458 / 1.55e-6)
    assert closing_rate_bit_s(budget(), np.array([4_000.0]), 10**15)[0] == math.floor(expected_bit_s)


def test_twice_the_range_is_a_quarter_of_the_rate():
    near, far = closing_rate_bit_s(budget(), np.array([2_000.0, 4_000.0]), 10**15)
    assert near == pytest.approx(4 * far, rel=1e-9)


def test_the_modem_bounds_the_rate():
    assert closing_rate_bit_s(budget(), np.array([1.0]), 10**11).tolist() == [10**11]


def test_steps_are_taken_down_to_nothing():
    steps = budget(rates=("1 Gbit/s", "10 Gbit/s", "100 Gbit/s"))
    reach_km = 4_000.0 * math.sqrt(closing_rate_bit_s(budget(), np.array([4_000.0]), 10**15)[0] / 10**10)
    ranges = np.array([reach_km * 0.999, reach_km * 1.001, reach_km * 3.15, reach_km * 3.17])
    assert closing_rate_bit_s(steps, ranges, 10**11).tolist() == [10**10, 10**9, 10**9, 0]


def test_a_smaller_receiver_gets_less():
    half = received_power_w(budget(receive_aperture="40 mm"), np.array([1_000.0]))
    assert half * 4 == pytest.approx(received_power_w(budget(), np.array([1_000.0])))
