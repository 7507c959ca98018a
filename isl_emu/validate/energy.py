"""Closed forms of energy and heat: eclipses of circular orbits, a battery under constant load, and a radiator.

The expected values follow from trigonometry and calculus here; ours come from the functions that runs use.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from isl_emu.energy.battery import Batteries
from isl_emu.energy.radiator import STEFAN_BOLTZMANN_W_M2_K4, Radiators
from isl_emu.geometry.elements import EARTH_RADIUS_KM
from isl_emu.geometry.sunlight import in_shadow
from isl_emu.validate.check import Check

GROUP = "Energy and heat, closed forms"
POINTS = 100_000  # of an orbit
STEP_S = 1.0
J_PER_WH = 3600.0


def checks() -> Iterator[Check]:
    """All closed forms of docs/energy.md that need no fleet."""
    yield from _eclipses()
    yield from _discharge()
    yield from _radiator()


def _eclipses() -> Iterator[Check]:
    """The share in shadow of a circular orbit, the Sun beta over it: acos(sqrt(1 - (R/r)^2) / cos(beta)) / pi."""
    angle_rad = np.arange(POINTS) * (2 * math.pi / POINTS)
    for altitude_km in (525.0, 1000.0):
        ratio = EARTH_RADIUS_KM / (EARTH_RADIUS_KM + altitude_km)
        for beta_deg in (0.0, 40.0, 60.0, 75.0):
            beta_rad = math.radians(beta_deg)
            depth = math.sqrt(1.0 - ratio**2) / math.cos(beta_rad)
            expected = math.acos(depth) / math.pi if depth < 1.0 else 0.0
            across = np.stack([np.cos(angle_rad), np.sin(angle_rad), np.zeros(POINTS)], axis=-1)
            sun = np.array([math.cos(beta_rad), 0.0, math.sin(beta_rad)])
            got = float(in_shadow(across * (EARTH_RADIUS_KM + altitude_km), sun).mean())
            name = f"share of an orbit at {altitude_km:g} km in shadow, the Sun {beta_deg:g} deg over its plane"
            yield Check(GROUP, name, expected, got, 2.0 / POINTS)


def _discharge() -> Iterator[Check]:
    """100 Wh at 80 % of efficiency feed 50 W for 100 Wh x 0.8 / 50 W = 96 min."""
    store = Batteries(*(np.array([value]) for value in (100 * J_PER_WH, 1.0, 0.8, np.inf, np.inf)))
    energy_j, load_w, steps = store.capacity_j, np.array([-50.0]), 0
    while not (done := store.exchange(energy_j, load_w, STEP_S)).unmet_w[0] > 1e-6:
        energy_j, steps = done.energy_j, steps + 1
    yield Check(GROUP, "a battery of 100 Wh, 80 % efficient, feeds 50 W", 96.0, steps * STEP_S / 60, STEP_S / 60, "min")


def _radiator() -> Iterator[Check]:
    """1 m2 of emissivity 0.8 with 20 kJ/K: cooling by the fourth power, and where 400 W keep it."""
    plate = Radiators(*(np.array([value]) for value in (1.0, 20_000.0, 0.8, 0.1, 0.26)))
    rate = 0.8 * STEFAN_BOLTZMANN_W_M2_K4 / 20_000.0
    cooled_k = (350.0**-3 + 3 * rate * 3600.0) ** (-1 / 3)
    name = "1 m2 of radiator, 20 kJ/K: from 350 K after an hour without heat"
    yield Check(GROUP, name, cooled_k, _after_k(plate, 350.0, 0.0, 3600), 0.001, "K")
    settled_k = (400.0 / (0.8 * STEFAN_BOLTZMANN_W_M2_K4)) ** 0.25
    name = "the same: where 400 W keep it, (P / (eps sigma A))^(1/4)"
    yield Check(GROUP, name, settled_k, _after_k(plate, 350.0, 400.0, 50_000), 0.01, "K")


def _after_k(plate: Radiators, start_k: float, heat_w: float, steps: int) -> float:
    temperature_k, heat = np.array([start_k]), np.array([heat_w])
    for _ in range(steps):
        temperature_k = plate.temperature_after_k(temperature_k, heat, STEP_S)
    return float(temperature_k[0])
