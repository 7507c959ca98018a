"""The power balance of a scenario's satellites over a day or more, without a run: what their orbits let them compute.

import isl_emu

balance = isl_emu.power_balance(isl_emu.load("topologies/dawn-dusk-energy.toml"), duration_s=86400)
balance.satellites.to_pandas()   # a row for each satellite (Arrow)
balance.series.charge_ratio      # numpy, shape (K, N)
balance.draw("pictures")
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa

from isl_emu.energy.balance import Balance, simulate, sustainable_ratio
from isl_emu.energy.fleet import Fleet
from isl_emu.energy.groups import scenario_fleet
from isl_emu.energy.limits import Mode
from isl_emu.energy.sky import Sunshine, find_sunshine
from isl_emu.errors import ScenarioError
from isl_emu.scenario.model import Scenario
from isl_emu.scenario.power_groups import power_parts
from isl_emu.timebase import TimeGrid
from isl_emu.units import NS_PER_S

MOST_VALUES = 20_000_000  # satellites x steps: a gigabyte
DAY_S = 86_400.0
STEP_S = 60.0


@dataclass(frozen=True)
class PowerBalance:
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
        """The numbers of the satellites in each shell, and of all "all with power"."""
        numbers = {name: n for n, name in enumerate(self.names)}
        return {
            label: np.array(sorted(numbers[name] for name in members))
            for label, members in power_parts(self.scenario).items()
        }

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

    def summary(self) -> str:
        """The balance by shell, and what the constellation can compute, as text."""
        from isl_emu.show.energy_text import balance_text

        return balance_text(self)

    def draw(self, folder: str | os.PathLike[str]) -> Path:
        """Write a picture (PNG) of sunlight, charge, temperature and pace over time, by shell.

        Args:
            folder: made if need be.

        Returns:
            The file.

        Raises:
            ScenarioError: the folder cannot be written.
        """
        from isl_emu.show.energy import draw_balance
        from isl_emu.show.style import save

        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
            return save(draw_balance(self), Path(folder) / "energy.png")
        except OSError as error:
            raise ScenarioError(f"{folder}: cannot be written ({error.strerror}); name another folder") from None


def power_balance(
    scenario: Scenario, *, duration_s: float = DAY_S, step_s: float = STEP_S, demand: float = 1.0
) -> PowerBalance:
    """The power balance of a scenario's satellites from its start on.

    Args:
        scenario: with `[[power]]`.
        duration_s: how long, also beyond the scenario's own duration.
        step_s: powers are constant in one; well below the tenth of an orbit.
        demand: the share of its full work that every computer is wanted for, 0 to 1.

    Raises:
        ScenarioError: no satellite has power, or a figure that cannot be.
    """
    _check(scenario, duration_s, step_s, demand)
    grid = TimeGrid.covering(scenario.time.start, round(duration_s * NS_PER_S), round(step_s * NS_PER_S))
    fleet = scenario_fleet(scenario)
    if grid.count * len(fleet.names) > MOST_VALUES:
        raise ScenarioError(
            f"power balance: it has {grid.count:,} steps of {len(fleet.names):,} satellites, but at most "
            f"{MOST_VALUES:,} values are followed; lengthen the step, or shorten the duration"
        )
    sunshine = find_sunshine(scenario, grid.start, grid.offsets_ns, fleet.chosen, fleet.pointing)
    series = simulate(fleet, sunshine, demand, grid.step_ns / NS_PER_S)
    return PowerBalance(scenario, demand, grid, fleet, sunshine, series)


def _check(scenario: Scenario, duration_s: float, step_s: float, demand: float) -> None:
    if not scenario.power:
        raise ScenarioError(f"power: {scenario.name} has none, but its balance is asked for; add a [[power]] group")
    if not 0.0 <= demand <= 1.0:
        raise ScenarioError(f"demand: is {demand:g}, but it is a share of full work; choose one from 0 to 1")
    if not 0.0 < step_s <= duration_s:
        raise ScenarioError(
            f"step: is {step_s:g} s, but it must be more than 0 and at most the duration, {duration_s:g} s; change one"
        )
