"""Temperatures: heat goes into one node with a heat capacity, and a radiator sheds it into space."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from isl_emu.arrays import Floats
from isl_emu.energy.panel import SOLAR_CONSTANT_W_M2

STEFAN_BOLTZMANN_W_M2_K4 = 5.670_374_419e-8  # CODATA 2018, exact in the SI
EARTH_INFRARED_W_M2 = 240.0  # mean outgoing long-wave flux: N. Loeb et al., J. Climate 31 (2018), table 5
EARTH_ALBEDO = 0.29  # mean reflected over incident sunlight: the same


@dataclass(frozen=True)
class Radiators:
    """Radiators of N satellites, each with the heat capacity of what it cools; arrays of shape (N,).

    One node: everything inside has the radiator's temperature. The radiator never sees the Sun itself, and of the rest
    of what it sees only the Earth is warm.

    Args:
        area_m2: that radiates.
        heat_capacity_j_k: of all that is cooled.
        emissivity: in the infrared, for sending and for receiving.
        absorptivity: of sunlight.
        earth_view: view factor to the Earth.
    """

    area_m2: Floats
    heat_capacity_j_k: Floats
    emissivity: Floats
    absorptivity: Floats
    earth_view: Floats

    def environment_w(self, albedo_cosine: Floats) -> Floats:
        """Heat from the Earth: its own infrared, and the sunlight that it reflects, shape (N,).

        Args:
            albedo_cosine: how high the Sun is over the ground below, 0 where it is night there; shape (N,).
        """
        infrared_w_m2 = self.emissivity * EARTH_INFRARED_W_M2
        reflected_w_m2 = self.absorptivity * EARTH_ALBEDO * SOLAR_CONSTANT_W_M2 * albedo_cosine
        return self.area_m2 * self.earth_view * (infrared_w_m2 + reflected_w_m2)

    def radiated_w(self, temperature_k: Floats) -> Floats:
        """What is sent into space, shape (N,)."""
        return self.emissivity * STEFAN_BOLTZMANN_W_M2_K4 * self.area_m2 * temperature_k**4

    def time_constant_s(self, temperature_k: Floats) -> Floats:
        """How fast small differences from a temperature vanish, to 1/e, shape (N,)."""
        return self.heat_capacity_j_k * temperature_k / (4.0 * self.radiated_w(temperature_k))

    def temperature_after_k(self, temperature_k: Floats, heat_w: Floats, step_s: float) -> Floats:
        """The temperature after a step with constant heat, shape (N,).

        One exponential step along the tangent of the law of the fourth power: right to second order, exact in the
        limit of small differences, and stable for any step.

        Args:
            heat_w: all that comes in.
            step_s: its length; up to a tenth of the time constant it is right to a few hundredths of a kelvin.
        """
        time_constant_s = self.time_constant_s(temperature_k)
        rate_k_s = (heat_w - self.radiated_w(temperature_k)) / self.heat_capacity_j_k
        after_k: Floats = temperature_k - rate_k_s * time_constant_s * np.expm1(-step_s / time_constant_s)
        return after_k


def earth_view(altitude_km: float, earth_radius_km: float) -> float:
    """The view factor to the Earth of a plate that stands upright, its edge towards the Earth.

    Source: J. Howell, A Catalog of Radiation Heat Transfer Configuration Factors, C-96.
    """
    ratio = 1.0 + altitude_km / earth_radius_km
    return (math.asin(1.0 / ratio) - math.sqrt(ratio**2 - 1.0) / ratio**2) / math.pi
