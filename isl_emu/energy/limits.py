"""The rule that slows the computers of satellites, or switches them off, by battery and temperature."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from isl_emu.arrays import Bools, Floats, Ints


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
