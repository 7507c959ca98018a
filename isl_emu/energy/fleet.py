"""All satellites with power at once: panels, batteries, radiators and computers as arrays, and one step of time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from isl_emu.arrays import Floats
from isl_emu.energy.satellite import Batteries, Limits, Mode, Panels, Radiators
from isl_emu.scenario.model import Scenario


@dataclass(frozen=True)
class State:
    """How N satellites are at one moment; arrays of shape (N,).

    Args:
        energy_j: in the batteries.
        temperature_k: of radiators and all that they cool.
        pace_ratio: at which the computers may run until the next moment, 0 where they are off.
        mode: why, of `Mode`, uint8.
    """

    energy_j: np.ndarray
    temperature_k: np.ndarray
    pace_ratio: np.ndarray
    mode: np.ndarray


@dataclass(frozen=True)
class Flow:
    """Mean powers of N satellites during one step, W, shape (N,)."""

    solar_w: np.ndarray
    board_w: np.ndarray
    charge_w: np.ndarray
    discharge_w: np.ndarray
    loss_w: np.ndarray
    spilled_w: np.ndarray
    unmet_w: np.ndarray
    heat_w: np.ndarray  # all that comes into the radiator


@dataclass(frozen=True)
class Fleet:
    """N satellites with power; arrays of shape (N,).

    Args:
        names: of the nodes.
        chosen: their numbers among all satellites of the scenario.
        pointing: of the panels.
        bus_w: drawn all the time, besides the computer.
        idle_w: of a computer that waits; 0 without a computer.
        busy_w: of a computer that works at its full pace; 0 without a computer.
    """

    names: tuple[str, ...]
    chosen: np.ndarray
    pointing: tuple[str, ...]
    bus_w: np.ndarray
    idle_w: np.ndarray
    busy_w: np.ndarray
    panels: Panels
    batteries: Batteries
    radiators: Radiators
    limits: Limits
    start_energy_j: np.ndarray
    start_k: np.ndarray

    def begin(self, incidence: np.ndarray, step_s: float) -> State:
        """The state before the first step.

        Args:
            incidence: of the Sun on the panels, shape (N,).
            step_s: of the steps to come.
        """
        running = np.full(len(self.names), Mode.NOMINAL, dtype=np.uint8)
        energy_j, solar_w = self.start_energy_j, self.panels.power_w(incidence)
        return self._decided(energy_j, self.start_k, solar_w, running, step_s)

    def advance(
        self, state: State, incidence: np.ndarray, albedo: np.ndarray, busy_ratio: np.ndarray, step_s: float
    ) -> tuple[State, Flow]:
        """One step with constant powers.

        All electric power becomes heat in the satellite, losses of the battery included; what a laser or radio sends
        away is neglected. A computer draws power in proportion between idle and busy, and none while it is off.

        Args:
            incidence: of the Sun on the panels, shape (N,).
            albedo: as in `Sunshine`, shape (N,).
            busy_ratio: which share of its full work each computer did in the step, shape (N,).
            step_s: its length.
        """
        on = state.mode != Mode.OFF
        board_w = np.where(on, self.idle_w + (self.busy_w - self.idle_w) * busy_ratio, 0.0)
        solar_w = self.panels.power_w(incidence)
        done = self.batteries.exchange(state.energy_j, solar_w - self.bus_w - board_w, step_s)
        electric_w = self.bus_w + board_w - done.unmet_w + done.loss_w
        heat_w = electric_w + self.radiators.environment_w(albedo)
        temperature_k = self.radiators.temperature_after_k(state.temperature_k, heat_w, step_s)
        after = self._decided(done.energy_j, temperature_k, solar_w, state.mode, step_s)
        powers = solar_w, board_w, done.charge_w, done.discharge_w, done.loss_w, done.spilled_w, done.unmet_w, heat_w
        return after, Flow(*powers)

    def charge_ratio(self, state: State) -> np.ndarray:
        """The state of charge, 0..1, shape (N,)."""
        charge_ratio: Floats = state.energy_j / self.batteries.capacity_j
        return charge_ratio

    def _decided(
        self, energy_j: np.ndarray, temperature_k: np.ndarray, solar_w: np.ndarray, mode: np.ndarray, step_s: float
    ) -> State:
        """The state with the pace until the next step."""
        left_w = solar_w + self.batteries.available_w(energy_j, step_s) - self.bus_w - self.idle_w
        span_w = self.busy_w - self.idle_w
        affordable = np.divide(left_w, span_w, out=np.where(left_w >= 0.0, 1.0, -1.0), where=span_w > 0.0)
        charge = energy_j / self.batteries.capacity_j
        decision = self.limits.decide(charge, temperature_k, affordable, mode == Mode.OFF)
        computes = self.busy_w > 0.0
        pace_ratio = np.where(computes, decision.pace_ratio, 1.0)
        return State(energy_j, temperature_k, pace_ratio, np.where(computes, decision.mode, Mode.NOMINAL))


def scenario_fleet(scenario: Scenario) -> Fleet:
    """The satellites of all `[[power]]` groups, in node order; those that do not compute have a computer of 0 W."""
    group_of, boards, every = scenario.power_by_satellite, scenario.boards, scenario.satellite_names
    chosen = [number for number, name in enumerate(every) if name in group_of]
    names = tuple(every[number] for number in chosen)
    groups, computers = [group_of[name] for name in names], [boards.get(name) for name in names]
    batteries, radiators = [group.battery for group in groups], [group.radiator for group in groups]
    return Fleet(
        names=names,
        chosen=np.array(chosen, dtype=np.int64),
        pointing=tuple(group.panel.pointing for group in groups),
        bus_w=np.array([group.bus_w for group in groups]),
        idle_w=np.array([board.idle_w if board else 0.0 for board in computers]),
        busy_w=np.array([board.busy_w if board else 0.0 for board in computers]),
        panels=Panels(
            area_m2=np.array([group.panel.area_m2 for group in groups]),
            efficiency=np.array([group.panel.efficiency for group in groups]),
        ),
        batteries=Batteries(
            capacity_j=np.array([battery.capacity_j for battery in batteries]),
            charge_efficiency=np.array([battery.charge_efficiency for battery in batteries]),
            discharge_efficiency=np.array([battery.discharge_efficiency for battery in batteries]),
            max_charge_w=np.array([battery.max_charge_w or np.inf for battery in batteries]),
            max_discharge_w=np.array([battery.max_discharge_w or np.inf for battery in batteries]),
        ),
        radiators=Radiators(
            area_m2=np.array([radiator.area_m2 for radiator in radiators]),
            heat_capacity_j_k=np.array([radiator.heat_capacity_j_k for radiator in radiators]),
            emissivity=np.array([radiator.emissivity for radiator in radiators]),
            absorptivity=np.array([radiator.absorptivity for radiator in radiators]),
            earth_view=np.array([radiator.earth_view for radiator in radiators]),
        ),
        limits=Limits(
            reserve_charge=np.array([battery.reserve_ratio for battery in batteries]),
            throttle_charge=np.array([battery.throttle_ratio for battery in batteries]),
            resume_charge=np.array([battery.resume_ratio for battery in batteries]),
            throttle_k=np.array([radiator.throttle_above_k for radiator in radiators]),
            off_k=np.array([radiator.off_above_k for radiator in radiators]),
            resume_k=np.array([radiator.resume_k for radiator in radiators]),
            least_pace=np.array([group.least_pace for group in groups]),
        ),
        start_energy_j=np.array([battery.capacity_j * battery.start_charge for battery in batteries]),
        start_k=np.array([radiator.start_temperature_k for radiator in radiators]),
    )
