"""What an observation knows of Sun and batteries: who is in the shadow when, and whether a battery lasts for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from isl_emu.energy.sky import find_sunshine
from isl_emu.parts.power.governor import JOURNAL
from isl_emu.runs.journal import read_latest
from isl_emu.scenario.model import Scenario
from isl_emu.timebase import TimeGrid
from isl_emu.units import NS_PER_S


class Batteries:
    """Sun, charge and pace of satellites that compute.

    Args:
        journal: of the run, where the energy model writes.
    """

    def __init__(self, scenario: Scenario, grid: TimeGrid, names: Sequence[str], journal: Path):
        self._grid, self._journal = grid, journal / f"{JOURNAL}.jsonl"
        self._power, self._boards = scenario.power_by_satellite, scenario.boards
        self._column = {name: n for n, name in enumerate(names)}
        numbers = np.array([scenario.satellite_names.index(name) for name in names], dtype=np.int64)
        sunshine = find_sunshine(scenario, grid.start, grid.offsets_ns, numbers, ["sun"] * len(names))
        shadow = np.cumsum(~sunshine.sunlit, axis=0, dtype=np.int64) * grid.step_ns
        self._sunlit, self._shadow_ns = sunshine.sunlit, np.concatenate([shadow[:1] * 0, shadow])
        self._told: tuple[int, dict[str, tuple[float, float]]] = (-1, {})

    def sunlit(self, name: str, t_ns: int) -> bool:
        """Whether a satellite is in the Sun."""
        return bool(self._sunlit[self._grid.instant_at(t_ns), self._column[name]])

    def shadow_s(self, name: str, from_ns: int, to_ns: int) -> float:
        """For how long a satellite is in the shadow between two times."""
        edges = np.clip([from_ns, to_ns], 0, self._grid.duration_ns)
        steps = np.arange(self._grid.count + 1) * self._grid.step_ns
        begun, ended = np.interp(edges, steps, self._shadow_ns[:, self._column[name]])
        return float(ended - begun) / NS_PER_S

    def state(self, name: str, t_ns: int) -> tuple[float | None, float]:
        """A satellite's charge, and the pace that its computer is allowed, as was told before a time; 0 if it is off.

        Without [[power]] the charge is None, and the pace 1.
        """
        if name not in self._power:
            return None, 1.0
        if self._told[0] != t_ns:
            rows = [row for row in read_latest(self._journal) if row["t_ns"] < t_ns]
            self._told = (
                t_ns,
                {
                    row["satellite"]: (row["charge_ratio"], 0.0 if row["mode"] == "off" else row["pace_ratio"])
                    for row in rows
                },
            )
        return self._told[1].get(name, (self._power[name].battery.start_charge, 1.0))

    def lasts(self, name: str, now_ns: int, begin_ns: int, end_ns: int) -> bool:
        """Whether a battery stays above where the computer is slowed, with an image looked at in that time.

        In the Sun the panel is taken to give what is needed; in the shadow bus and computer draw on the battery until
        `end_ns`. What else the computer does is not known.
        """
        charge, _ = self.state(name, now_ns)
        if charge is None:
            return True
        power, board = self._power[name], self._boards[name]
        drawn_j = (power.bus_w + board.idle_w) * self.shadow_s(name, now_ns, end_ns)
        drawn_j += (board.busy_w - board.idle_w) * self.shadow_s(name, begin_ns, end_ns)
        left = charge - drawn_j / power.battery.discharge_efficiency / power.battery.capacity_j
        return left > power.battery.throttle_ratio or drawn_j == 0.0
