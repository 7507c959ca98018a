"""What rate a laser link closes at: the optical link budget in vacuum.

    received power = transmit power x (pi Dt / wavelength)^2 x (pi Dr / wavelength)^2 x (wavelength / 4 pi range)^2
                     less pointing loss and system loss

with the gains of evenly lit circular apertures; what a Gaussian beam, a central obscuration, the optics' transmission
and the receiver's implementation lose belongs into the system loss. The power that a receiver needs grows in proportion
to the rate (photons per bit constant), which holds for receivers limited by signal shot noise or preamplified ones.

Source: H. Hemmati (editor), Near-Earth Laser Communications, 2nd edition 2020, chapter 1 (the range equation);
J. Liang et al., Link budget analysis for free-space optical satellite networks, WoWMoM 2022 (the same for lasers
between satellites, with a terminal's figures).
"""

from __future__ import annotations

import math

import numpy as np

from isl_emu.arrays import Floats, Ints
from isl_emu.scenario.lasers import Budget
from isl_emu.units import SPEED_OF_LIGHT_KM_S

PLANCK_J_S = 6.626_070_15e-34  # exact, BIPM SI brochure, 9th edition
METRES_PER_KM = 1e3
LEAST_RATE_BIT_S = 1_000  # what a scenario can state as a rate


def received_power_w(budget: Budget, range_km: Floats) -> Floats:
    """The optical power at the detector over given ranges, W, same shape."""
    transmit_gain = (math.pi * budget.transmit_aperture_m / budget.wavelength_m) ** 2
    receive_gain = (math.pi * budget.receiver_aperture_m / budget.wavelength_m) ** 2
    spreading = (budget.wavelength_m / (4 * math.pi * np.asarray(range_km) * METRES_PER_KM)) ** 2
    kept = 10 ** (-(budget.pointing_loss_db + budget.system_loss_db) / 10)
    return budget.transmit_power_w * transmit_gain * receive_gain * spreading * kept


def energy_per_bit_j(budget: Budget) -> float:
    """What the receiver needs for each bit, J."""
    if budget.photons_per_bit is not None:
        return budget.photons_per_bit * PLANCK_J_S * SPEED_OF_LIGHT_KM_S * METRES_PER_KM / budget.wavelength_m
    assert budget.sensitivity_dbm is not None
    assert budget.sensitivity_rate_bit_s is not None
    return 10 ** (budget.sensitivity_dbm / 10) * 1e-3 / budget.sensitivity_rate_bit_s


def closing_rate_bit_s(budget: Budget, range_km: Floats, most_bit_s: Ints | int) -> Ints:
    """The rate at which a link closes with its margin, int64, same shape as `range_km`; 0 where none does.

    Args:
        most_bit_s: what the modem can do at best. Of its `rates`, the highest that closes is taken; without any, the
            rate follows the received power.
    """
    margin = 10 ** (budget.margin_db / 10)
    capacity_bit_s = received_power_w(budget, range_km) / (margin * energy_per_bit_j(budget))
    capacity_bit_s = np.floor(np.minimum(capacity_bit_s, most_bit_s)).astype(np.int64)
    if not budget.rates_bit_s:
        return np.where(capacity_bit_s >= LEAST_RATE_BIT_S, capacity_bit_s, 0)
    steps = np.array([0, *sorted(budget.rates_bit_s)], dtype=np.int64)
    closing_bit_s: Ints = steps[np.searchsorted(steps, capacity_bit_s, side="right") - 1]
    return closing_bit_s
