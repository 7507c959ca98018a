"""A small fleet for tests: alike satellites whose figures can be changed one by one."""

from __future__ import annotations

import numpy as np

from isl_emu.energy.fleet import Fleet
from isl_emu.energy.satellite import Batteries, Limits, Panels, Radiators

WH_J = 3600.0
FIGURES = {
    "bus_w": 20.0,
    "idle_w": 10.0,
    "busy_w": 60.0,
    "area_m2": 0.5,
    "efficiency": 0.3,
    "capacity_wh": 100.0,
    "charge_efficiency": 0.95,
    "discharge_efficiency": 0.95,
    "start_charge": 1.0,
    "radiator_m2": 0.5,
    "heat_capacity_j_k": 10_000.0,
    "start_k": 290.0,
}


def small_fleet(count: int = 1, **changes: float) -> Fleet:
    """`count` alike satellites; a changed figure may be one number or one a satellite."""
    figures = {**FIGURES, **changes}
    column = {name: np.broadcast_to(np.asarray(value, dtype=float), (count,)) for name, value in figures.items()}
    every = np.ones(count)
    capacity_j = column["capacity_wh"] * WH_J
    return Fleet(
        names=tuple(f"p00s{n:02}" for n in range(count)),
        chosen=np.arange(count),
        pointing=("sun",) * count,
        bus_w=column["bus_w"],
        idle_w=column["idle_w"],
        busy_w=column["busy_w"],
        panels=Panels(column["area_m2"], column["efficiency"]),
        batteries=Batteries(
            capacity_j, column["charge_efficiency"], column["discharge_efficiency"], every * np.inf, every * np.inf
        ),
        radiators=Radiators(column["radiator_m2"], column["heat_capacity_j_k"], every * 0.8, every * 0.1, every * 0.26),
        limits=Limits(every * 0.5, every * 0.7, every * 0.6, every * 318.0, every * 333.0, every * 325.0, every * 0.2),
        start_energy_j=capacity_j * column["start_charge"],
        start_k=column["start_k"] * 1.0,
    )
