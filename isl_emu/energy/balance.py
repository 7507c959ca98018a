"""The power balance of a fleet over time without a network: what a constant demand for computing leads to."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from isl_emu.arrays import Floats
from isl_emu.energy.fleet import Fleet, scenario_fleet
from isl_emu.energy.satellite import Mode
from isl_emu.energy.sky import Sunshine, find_sunshine
from isl_emu.errors import ScenarioError
from isl_emu.limits import POWERS, size_text
from isl_emu.scenario.model import Scenario
from isl_emu.timebase import TimeGrid
from isl_emu.units import NS_PER_S

BYTE_OF_A_POWER = 50  # with what is worked out from it
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


@dataclass(frozen=True)
class FleetBalance:
    """What a constant demand for computing leads to on N satellites with power, over K steps.

    Args:
        demand_ratio: the share of its full work that every computer is wanted for.
        grid: the steps.
        series: charges, temperatures, paces and powers, each of shape (K, N).
    """

    scenario: Scenario
    demand_ratio: float
    grid: TimeGrid
    fleet: Fleet
    sunshine: Sunshine
    series: Balance

    @property
    def names(self) -> tuple[str, ...]:
        """The N satellites."""
        return self.fleet.names

    @property
    def parts(self) -> dict[str, np.ndarray]:
        """The numbers of the satellites in each part of the same orbits and power, and last of all together."""
        numbers = {name: n for n, name in enumerate(self.names)}
        return {
            label: np.array(sorted(numbers[name] for name in members))
            for label, members in self.scenario.power_parts.items()
        }

    @property
    def flop_s(self) -> np.ndarray:
        """What each computer can do, 16 bits, 0 where there is none, float64, shape (N,)."""
        boards = self.scenario.boards
        return np.array([boards[name].fp16_flop_s if name in boards else 0.0 for name in self.names])

    @cached_property
    def satellites(self) -> pa.Table:
        """A row for each satellite: shares of the time, extremes of charge and temperature, and mean powers."""
        series, computes = self.series, self.fleet.busy_w > 0.0

        def of_computers(values: np.ndarray) -> pa.Array:
            return pa.array(values, mask=~computes)

        columns = {
            "satellite": pa.array(self.names),
            "eclipse_ratio": 1.0 - self.sunshine.sunlit.mean(axis=0),
            "charge_min_ratio": series.charge_ratio.min(axis=0).astype(float),
            "charge_end_ratio": series.charge_ratio[-1].astype(float),
            "temperature_min_k": series.temperature_k.min(axis=0).astype(float),
            "temperature_max_k": series.temperature_k.max(axis=0).astype(float),
            "limited_ratio": of_computers((series.mode != Mode.NOMINAL).mean(axis=0)),
            "off_ratio": of_computers((series.mode == Mode.OFF).mean(axis=0)),
            "pace_ratio": of_computers(series.pace_ratio.mean(axis=0, dtype=float)),
            "sustainable_ratio": of_computers(sustainable_ratio(self.fleet, self.sunshine)),
            "solar_w": series.solar_w.mean(axis=0, dtype=float),
            "board_w": series.board_w.mean(axis=0, dtype=float),
            "unmet_w": series.unmet_w.mean(axis=0, dtype=float),
        }
        return pa.table(columns)


def scenario_balance(scenario: Scenario, grid: TimeGrid, demand_ratio: float) -> FleetBalance:
    """The power balance of all satellites of a scenario that have power.

    Raises:
        ScenarioError: there are more values than are followed.
    """
    fleet = scenario_fleet(scenario)
    count = grid.count * len(fleet.names)
    if excess := POWERS.excess(count, size_text(count * BYTE_OF_A_POWER)):
        raise ScenarioError(f"power balance, {grid.count:,} steps of {len(fleet.names):,} satellites: {excess}")
    sunshine = find_sunshine(scenario, grid.start, grid.offsets_ns, fleet.chosen, fleet.pointing)
    series = simulate(fleet, sunshine, demand_ratio, grid.step_ns / NS_PER_S)
    return FleetBalance(scenario, demand_ratio, grid, fleet, sunshine, series)


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
    stored_w: Floats = np.where(surplus_w > 0.0, surplus_w * charge, surplus_w / discharge).mean(axis=0)
    return stored_w
