"""The power balance of a fleet over time without a network: what a constant demand for computing leads to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from isl_emu.energy.fleet import Fleet
from isl_emu.energy.limits import Mode
from isl_emu.energy.sky import Sunshine


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


def limited_ratio(mode: np.ndarray) -> np.ndarray:
    """The share of the steps in which each of N computers ran more slowly than it can, or not at all; shape (N,)."""
    return (mode != Mode.NOMINAL).mean(axis=0)
