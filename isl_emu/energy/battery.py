"""Batteries as stores of energy with losses and limits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from isl_emu.arrays import Floats


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
