"""From a scenario's groups of satellites to arrays: one column of figures for each satellite with power."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from isl_emu.energy.battery import Batteries
from isl_emu.energy.fleet import Fleet
from isl_emu.energy.limits import Limits
from isl_emu.energy.panel import Panels
from isl_emu.energy.radiator import Radiators
from isl_emu.scenario.model import Scenario
from isl_emu.scenario.power import Power
from isl_emu.scenario.power_groups import power_of_satellites, satellite_boards


def scenario_fleet(scenario: Scenario) -> Fleet:
    """The satellites of all `[[power]]` groups, in node order; those that do not compute have a computer of 0 W."""
    groups, every = power_of_satellites(scenario), scenario.satellite_names
    chosen = [number for number, name in enumerate(every) if name in groups]
    names = tuple(every[number] for number in chosen)
    rows, boards = [scenario.power[groups[name]] for name in names], satellite_boards(scenario)
    computers = [boards.get(name) for name in names]
    return Fleet(
        names=names,
        chosen=np.array(chosen, dtype=np.int64),
        pointing=tuple(row.panel.pointing for row in rows),
        bus_w=np.array([row.bus_w for row in rows]),
        idle_w=np.array([board.idle_w if board else 0.0 for board in computers]),
        busy_w=np.array([board.busy_w if board else 0.0 for board in computers]),
        panels=_panels(rows),
        batteries=_batteries(rows),
        radiators=_radiators(rows),
        limits=_limits(rows),
        start_energy_j=np.array([row.battery.capacity_j * row.battery.start_charge for row in rows]),
        start_k=np.array([row.radiator.start_temperature_k for row in rows]),
    )


def _panels(rows: Sequence[Power]) -> Panels:
    return Panels(np.array([row.panel.area_m2 for row in rows]), np.array([row.panel.efficiency for row in rows]))


def _batteries(rows: Sequence[Power]) -> Batteries:
    batteries = [row.battery for row in rows]
    return Batteries(
        capacity_j=np.array([battery.capacity_j for battery in batteries]),
        charge_efficiency=np.array([battery.charge_efficiency for battery in batteries]),
        discharge_efficiency=np.array([battery.discharge_efficiency for battery in batteries]),
        max_charge_w=np.array([battery.max_charge_w or np.inf for battery in batteries]),
        max_discharge_w=np.array([battery.max_discharge_w or np.inf for battery in batteries]),
    )


def _radiators(rows: Sequence[Power]) -> Radiators:
    names = "area_m2", "heat_capacity_j_k", "emissivity", "absorptivity", "earth_view"
    return Radiators(*(np.array([getattr(row.radiator, name) for row in rows]) for name in names))


def _limits(rows: Sequence[Power]) -> Limits:
    return Limits(
        reserve_charge=np.array([row.battery.reserve_ratio for row in rows]),
        throttle_charge=np.array([row.battery.throttle_ratio for row in rows]),
        resume_charge=np.array([row.battery.resume_ratio for row in rows]),
        throttle_k=np.array([row.radiator.throttle_above_k for row in rows]),
        off_k=np.array([row.radiator.off_above_k for row in rows]),
        resume_k=np.array([row.radiator.resume_k for row in rows]),
        least_pace=np.array([row.least_pace for row in rows]),
    )
