"""The power balance of a fleet over time without a network: what a constant demand for computing leads to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from isl_emu.energy.fleet import Fleet
from isl_emu.energy.sky import Sunshine

BISECTIONS = 20  # to a millionth


@dataclass(frozen=True)
class Balance:
    """N satellites over K steps; arrays of shape (K, N), float32 but for `mode`.

    Charges and temperatures are those after each step, the others those during it.
    """

    charge_ratio: np.ndarray
    temperature_k: np.ndarray
    pace_ratio: np.ndarray
    mode: np.ndarray
    solar_w: np.ndarray
    board_w: np.ndarray
    unmet_w: np.ndarray


def simulate(fleet: Fleet, sunshine: Sunshine, demand_ratio: float, step_s: float) -> Balance:
    """The balance with every computer wanted for `demand_ratio` of its full work, as far as its limits let it.

    Args:
        sunshine: at the beginning of each of the K steps.
    """
    state = fleet.begin(sunshine.incidence[0], step_s)
    steps, count = sunshine.incidence.shape
    history = {name: np.empty((steps, count), np.float32) for name in Balance.__annotations__ if name != "mode"}
    history["mode"] = np.empty((steps, count), np.uint8)
    for k in range(steps):
        history["pace_ratio"][k], history["mode"][k] = state.pace_ratio, state.mode
        busy_ratio = np.minimum(demand_ratio, state.pace_ratio)
        state, flow = fleet.advance(state, sunshine.incidence[k], sunshine.albedo[k], busy_ratio, step_s)
        history["charge_ratio"][k], history["temperature_k"][k] = fleet.charge_ratio(state), state.temperature_k
        for name in ("solar_w", "board_w", "unmet_w"):
            history[name][k] = getattr(flow, name)
    return Balance(**history)


def sustainable_ratio(fleet: Fleet, sunshine: Sunshine) -> np.ndarray:
    """The share of its full work that each of N computers could do all the time on what its panel gives, shape (N,).

    As far as energy goes, with a battery that is large enough: what it stores over the K steps is what it gives.
    """
    low, high = np.zeros(len(fleet.names)), np.ones(len(fleet.names))
    solar_w = fleet.panels.power_w(sunshine.incidence)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        enough = _stored_w(fleet, solar_w, middle) >= 0.0
        low, high = np.where(enough, middle, low), np.where(enough, high, middle)
    return np.where(_stored_w(fleet, solar_w, np.ones_like(low)) >= 0.0, 1.0, low)


def _stored_w(fleet: Fleet, solar_w: np.ndarray, busy_ratio: np.ndarray) -> np.ndarray:
    """What a large battery would gain on average, shape (N,)."""
    surplus_w = solar_w - fleet.bus_w - fleet.idle_w - (fleet.busy_w - fleet.idle_w) * busy_ratio
    charge, discharge = fleet.batteries.charge_efficiency, fleet.batteries.discharge_efficiency
    return np.where(surplus_w > 0.0, surplus_w * charge, surplus_w / discharge).mean(axis=0)
