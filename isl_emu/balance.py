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
from pathlib import Path

from isl_emu.energy.balance import FleetBalance, scenario_balance
from isl_emu.errors import ScenarioError
from isl_emu.scenario.model import Scenario
from isl_emu.scenario.parse import load_scenario
from isl_emu.show.text import balance_text
from isl_emu.timebase import TimeGrid
from isl_emu.units import NS_PER_S, is_finite

DAY_S = 86_400.0
STEP_S = 60.0


@dataclass(frozen=True)
class PowerBalance(FleetBalance):
    """A power balance, and what can be made of it: text and a picture."""

    def summary(self) -> str:
        """The balance by shell, and what the constellation can compute, as text."""
        return balance_text(self)

    def draw(self, folder: str | os.PathLike[str], picture_format: str = "png") -> Path:
        """Write a picture of sunlight, charge, temperature and pace over time, by shell.

        Args:
            folder: made if need be.
            picture_format: "png", "svg" or "pdf".

        Returns:
            The file.

        Raises:
            ScenarioError: the folder cannot be written, or there is no such format.
        """
        from isl_emu.show.over_time import draw_balance  # matplotlib is slow to import, and few balances are drawn
        from isl_emu.show.style import check_formats, save

        check_formats([picture_format])
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
            return save(draw_balance(self), Path(folder) / f"energy.{picture_format}")
        except OSError as error:
            raise ScenarioError(
                f"{folder}: cannot be written ({error.strerror}), but the picture goes there; name another folder"
            ) from None


def power_balance(
    scenario: Scenario | str | os.PathLike[str],
    *,
    duration_s: float = DAY_S,
    step_s: float = STEP_S,
    demand: float = 1.0,
) -> PowerBalance:
    """The power balance of a scenario's satellites from its start on.

    Args:
        scenario: with `[[power]]`, or the path of one.
        duration_s: how long, also beyond the scenario's own duration.
        step_s: powers are constant in one; well below the tenth of an orbit.
        demand: the share of its full work that every computer is wanted for, 0 to 1.

    Raises:
        ScenarioError: no satellite has power, or a figure that cannot be.
    """
    scenario = scenario if isinstance(scenario, Scenario) else load_scenario(Path(scenario))
    figures = {"duration": duration_s, "step": step_s, "demand": demand}
    if wrong := [name for name, one in figures.items() if not is_finite(one)]:
        raise ScenarioError(f"{wrong[0]}: is {figures[wrong[0]]!r}, but it is a number; give one")
    if not scenario.power:
        raise ScenarioError(f"power: {scenario.name} has none, but its balance is asked for; add a [[power]] group")
    if not 0.0 <= demand <= 1.0:
        raise ScenarioError(f"demand: is {demand:g}, but it is a share of full work; choose one from 0 to 1")
    if not 0.0 < step_s <= duration_s:
        raise ScenarioError(
            f"step: is {step_s:g} s, but it must be more than 0 and at most the duration, {duration_s:g} s; change one"
        )
    grid = TimeGrid.covering(scenario.time.start, round(duration_s * NS_PER_S), round(step_s * NS_PER_S))
    found = scenario_balance(scenario, grid, demand)
    return PowerBalance(scenario, demand, grid, found.fleet, found.sunshine, found.series)
