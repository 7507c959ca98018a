"""What satellites have for their computers: panels, batteries and radiators, and the rule that slows or stops them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from isl_emu.arrays import Bools, Floats, Ints

SOLAR_CONSTANT_W_M2 = 1361.0  # IAU 2015 Resolution B3; G. Kopp and J. Lean, Geophys. Res. Lett. 38 (2011), L01706


@dataclass(frozen=True)
class Panels:
    """Flat solar panels of N satellites; arrays of shape (N,).

    Args:
        area_m2: of the panel.
        efficiency: electric over incident power, of the whole area.
    """

    area_m2: Floats
    efficiency: Floats

    def power_w(self, incidence: Floats) -> Floats:
        """The electric power, shape (..., N).

        At the Sun's mean distance, which neglects 3.4 % over the year. Efficiency does not depend on temperature or
        angle.

        Args:
            incidence: cosine between the panel's normal and the Sun, 0 where it sees no Sun; shape (..., N).
        """
        return SOLAR_CONSTANT_W_M2 * self.area_m2 * self.efficiency * incidence


@dataclass(frozen=True)
class Exchange:
    """What N batteries did in one step: their energy after it, and mean powers during it; shape (N,).

    What comes in goes somewhere: surplus = charge - discharge + spilled - unmet.
    """

    energy_j: Floats
    charge_w: Floats  # into the battery, at its terminals
    discharge_w: Floats  # out of it
    loss_w: Floats  # becomes heat in it
    spilled_w: Floats  # what the panel could have given, but nobody took
    unmet_w: Floats  # what the loads wanted, but nobody gave


@dataclass(frozen=True)
class Batteries:
    """Batteries of N satellites; arrays of shape (N,).

    A store of energy: voltage, temperature, self-discharge and age are neglected, and the efficiencies are constant.

    Args:
        capacity_j: full.
        charge_efficiency: stored over taken at the terminals.
        discharge_efficiency: given at the terminals over taken from the store.
        max_charge_w: at the terminals; infinite for none.
        max_discharge_w: the same.
    """

    capacity_j: Floats
    charge_efficiency: Floats
    discharge_efficiency: Floats
    max_charge_w: Floats
    max_discharge_w: Floats

    def exchange(self, energy_j: Floats, surplus_w: Floats, step_s: float) -> Exchange:
        """One step with constant powers; exact, since only a full or empty battery changes anything within it.

        Args:
            energy_j: at the beginning.
            surplus_w: what the panels give less what the loads take; negative is a deficit.
            step_s: its length.
        """
        room_w = (self.capacity_j - energy_j) / (self.charge_efficiency * step_s)
        charge_w = np.minimum(np.maximum(surplus_w, 0.0), np.minimum(room_w, self.max_charge_w))
        discharge_w = np.minimum(np.maximum(-surplus_w, 0.0), self.available_w(energy_j, step_s))
        stored_w = charge_w * self.charge_efficiency - discharge_w / self.discharge_efficiency
        return Exchange(
            energy_j=np.clip(energy_j + stored_w * step_s, 0.0, self.capacity_j),
            charge_w=charge_w,
            discharge_w=discharge_w,
            loss_w=charge_w - discharge_w - stored_w,
            spilled_w=np.maximum(surplus_w, 0.0) - charge_w,
            unmet_w=np.maximum(-surplus_w, 0.0) - discharge_w,
        )

    def available_w(self, energy_j: Floats, step_s: float) -> Floats:
        """The most that each can give evenly for so long, shape (N,)."""
        return np.minimum(energy_j * self.discharge_efficiency / step_s, self.max_discharge_w)


STEFAN_BOLTZMANN_W_M2_K4 = 5.670_374_419e-8  # CODATA 2018, exact in the SI
EARTH_INFRARED_W_M2 = 240.0  # mean outgoing long-wave flux: N. Loeb et al., J. Climate 31 (2018), table 5
EARTH_ALBEDO = 0.29  # mean reflected over incident sunlight: the same


@dataclass(frozen=True)
class Radiators:
    """Radiators of N satellites, each with the heat capacity of what it cools; arrays of shape (N,).

    One node: everything inside has the radiator's temperature. The radiator never sees the Sun itself, and of the rest
    of what it sees only the Earth is warm.

    Args:
        area_m2: that radiates.
        heat_capacity_j_k: of all that is cooled.
        emissivity: in the infrared, for sending and for receiving.
        absorptivity: of sunlight.
        earth_view: view factor to the Earth.
    """

    area_m2: Floats
    heat_capacity_j_k: Floats
    emissivity: Floats
    absorptivity: Floats
    earth_view: Floats

    def environment_w(self, albedo_cosine: Floats) -> Floats:
        """Heat from the Earth: its own infrared, and the sunlight that it reflects, shape (N,).

        Args:
            albedo_cosine: how high the Sun is over the ground below, 0 where it is night there; shape (N,).
        """
        infrared_w_m2 = self.emissivity * EARTH_INFRARED_W_M2
        reflected_w_m2 = self.absorptivity * EARTH_ALBEDO * SOLAR_CONSTANT_W_M2 * albedo_cosine
        return self.area_m2 * self.earth_view * (infrared_w_m2 + reflected_w_m2)

    def radiated_w(self, temperature_k: Floats) -> Floats:
        """What is sent into space, shape (N,)."""
        return self.emissivity * STEFAN_BOLTZMANN_W_M2_K4 * self.area_m2 * temperature_k**4

    def time_constant_s(self, temperature_k: Floats) -> Floats:
        """How fast small differences from a temperature vanish, to 1/e, shape (N,)."""
        return self.heat_capacity_j_k * temperature_k / (4.0 * self.radiated_w(temperature_k))

    def temperature_after_k(self, temperature_k: Floats, heat_w: Floats, step_s: float) -> Floats:
        """The temperature after a step with constant heat, shape (N,).

        One exponential step along the tangent of the law of the fourth power: right to second order, exact in the
        limit of small differences, and stable for any step.

        Args:
            heat_w: all that comes in.
            step_s: its length; up to a tenth of the time constant it is right to a few hundredths of a kelvin.
        """
        time_constant_s = self.time_constant_s(temperature_k)
        rate_k_s = (heat_w - self.radiated_w(temperature_k)) / self.heat_capacity_j_k
        after_k: Floats = temperature_k - rate_k_s * time_constant_s * np.expm1(-step_s / time_constant_s)
        return after_k


def earth_view(altitude_km: float, earth_radius_km: float) -> float:
    """The view factor to the Earth of a plate that stands upright, its edge towards the Earth.

    Source: J. Howell, A Catalog of Radiation Heat Transfer Configuration Factors, C-96.
    """
    ratio = 1.0 + altitude_km / earth_radius_km
    return (math.asin(1.0 / ratio) - math.sqrt(ratio**2 - 1.0) / ratio**2) / math.pi


class Mode(IntEnum):
    """Why a computer runs at its pace; the names in lower case and with hyphens are those of the tables."""

    NOMINAL = 0
    POWER_LIMITED = 1
    HEAT_LIMITED = 2
    OFF = 3

    @property
    def label(self) -> str:
        """The name in the tables."""
        return self.name.lower().replace("_", "-")


@dataclass(frozen=True)
class Decision:
    """At what pace the computers of N satellites may run, 0 where they are off, and why; shape (N,)."""

    pace_ratio: Floats
    mode: Ints  # of Mode, uint8


@dataclass(frozen=True)
class Limits:
    """The bounds of N satellites; arrays of shape (N,).

    The pace is 1 while the charge is above `throttle_charge`, falls in proportion below it, and is `least_pace` at
    `reserve_charge`, where the computer is switched off; it is on again at `resume_charge`. The same with temperature.
    The lower of both paces counts, and the computer never takes more than panel and battery can give: where that is
    less than `least_pace` needs, it is off.
    """

    reserve_charge: Floats
    throttle_charge: Floats
    resume_charge: Floats
    throttle_k: Floats
    off_k: Floats
    resume_k: Floats
    least_pace: Floats

    def decide(self, charge: Floats, temperature_k: Floats, affordable: Floats, was_off: Bools) -> Decision:
        """The pace for the next step.

        Args:
            charge: of the batteries, 0..1.
            temperature_k: of the satellites.
            affordable: the pace that panel and battery can feed now; negative if not even an idle computer.
            was_off: computers that are off now.
        """
        by_charge = self._ramp(charge - self.reserve_charge, self.throttle_charge - self.reserve_charge)
        by_power = np.minimum(by_charge, affordable)
        by_heat = self._ramp(self.off_k - temperature_k, self.off_k - self.throttle_k)
        ready = (charge >= self.resume_charge) & (temperature_k <= self.resume_k)
        exhausted = (charge <= self.reserve_charge) | (temperature_k >= self.off_k) | (affordable < self.least_pace)
        off = exhausted | (was_off & ~ready)
        pace = np.where(off, 0.0, np.minimum(by_power, by_heat))
        mode = np.where(pace >= 1.0, Mode.NOMINAL, np.where(by_heat < by_power, Mode.HEAT_LIMITED, Mode.POWER_LIMITED))
        return Decision(pace, np.where(off, Mode.OFF, mode).astype(np.uint8))

    def _ramp(self, above: Floats, span: Floats) -> Floats:
        """`least_pace` where nothing is left above the bound, 1 from `span` above it on."""
        return self.least_pace + (1.0 - self.least_pace) * np.clip(above / span, 0.0, 1.0)
