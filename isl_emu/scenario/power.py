"""What keeps satellites running: solar panel, battery and radiator, and the rule that limits their computers."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from isl_emu.scenario.compute import BoardName
from isl_emu.scenario.matching import Satellites
from isl_emu.scenario.quantities import (
    Area,
    ElectricPower,
    Energy,
    HeatCapacity,
    MostPower,
    Record,
    Temperature,
)

Pointing = Literal["sun", "zenith", "nadir", "fore", "aft", "port", "starboard"]


class Panel(Record):
    """A solar panel, flat, that looks at the Sun or stands still on the satellite's body.

    `efficiency`: of the whole area; of a triple-junction cell 30 % at its beginning of life, times the share of the
    area that cells cover, times wear.
    """

    area_m2: Area = Field(alias="area")
    efficiency: float = Field(gt=0.0, le=1.0, default=0.27)  # 0.30 (AZUR SPACE 3G30C data sheet) x 0.9, assumed
    pointing: Pointing = "sun"


class Battery(Record):
    """A battery, and how far the computer may empty it.

    Below `throttle_below` of its charge the computer is slowed, and at 1 - `depth_of_discharge` it is switched off,
    until the charge is `resume_above`.
    """

    capacity_j: Energy = Field(alias="capacity")
    start_charge: float = Field(ge=0.0, le=1.0, default=1.0)
    # typical for years in low orbits: NASA, State-of-the-Art of Small Spacecraft Technology, chapter 3
    depth_of_discharge: float = Field(gt=0.0, le=1.0, default=0.3)
    throttle_below: float | None = Field(gt=0.0, le=1.0, default=None)
    resume_above: float | None = Field(gt=0.0, le=1.0, default=None)
    charge_efficiency: float = Field(gt=0.0, le=1.0, default=0.95)  # assumed: 90 % there and back
    discharge_efficiency: float = Field(gt=0.0, le=1.0, default=0.95)
    max_charge_w: MostPower | None = Field(alias="max_charge", default=None)
    max_discharge_w: MostPower | None = Field(alias="max_discharge", default=None)

    @property
    def reserve_ratio(self) -> float:
        """The charge at which the computer is switched off."""
        return 1.0 - self.depth_of_discharge

    @property
    def throttle_ratio(self) -> float:
        """The charge below which the computer is slowed: by default a third of the allowed depth above the reserve."""
        return self.reserve_ratio + self.depth_of_discharge / 3 if self.throttle_below is None else self.throttle_below

    @property
    def resume_ratio(self) -> float:
        """The charge at which the computer is switched on again: by default half-way between the other two."""
        return (self.reserve_ratio + self.throttle_ratio) / 2 if self.resume_above is None else self.resume_above

    @model_validator(mode="after")
    def _in_order(self) -> Battery:
        if not self.reserve_ratio < self.throttle_ratio:
            raise ValueError(
                f"throttle_below is {self.throttle_ratio:g}, but the computer is switched off at "
                f"{self.reserve_ratio:g} (1 - depth_of_discharge) already; raise it"
            )
        if not self.reserve_ratio < self.resume_ratio:
            raise ValueError(
                f"resume_above is {self.resume_ratio:g}, but it must be above {self.reserve_ratio:g} "
                f"(1 - depth_of_discharge); raise it"
            )
        return self


class Radiator(Record):
    """A radiator and the heat capacity of what it cools, which have one temperature.

    Above `throttle_above` the computer is slowed, and at `off_above` it is switched off, until the temperature is
    `resume_below`.
    """

    area_m2: Area = Field(alias="area")
    heat_capacity_j_k: HeatCapacity = Field(alias="heat_capacity")
    # quartz mirrors: D. Gilmore, Spacecraft Thermal Control Handbook, volume 1, 2nd edition, appendix A
    emissivity: float = Field(gt=0.0, le=1.0, default=0.80)
    absorptivity: float = Field(ge=0.0, le=1.0, default=0.10)
    earth_view: float = Field(ge=0.0, le=1.0, default=0.26)  # a vertical plate at 525 km: `energy.radiator.earth_view`
    start_temperature_k: Temperature = Field(alias="start_temperature", default=293.15)
    # electronics are commonly qualified to 50..60 degC: Gilmore, table 1.1
    throttle_above_k: Temperature = Field(alias="throttle_above", default=318.15)
    off_above_k: Temperature = Field(alias="off_above", default=333.15)
    resume_below_k: Temperature | None = Field(alias="resume_below", default=None)

    @property
    def resume_k(self) -> float:
        """The temperature at which the computer is switched on again: by default half-way between the other two."""
        return (self.throttle_above_k + self.off_above_k) / 2 if self.resume_below_k is None else self.resume_below_k

    @model_validator(mode="after")
    def _in_order(self) -> Radiator:
        if not self.throttle_above_k < self.off_above_k:
            raise ValueError(
                f"off_above is {self.off_above_k:g} K, but it must be above throttle_above, which is "
                f"{self.throttle_above_k:g} K; raise it"
            )
        if not self.resume_k < self.off_above_k:
            raise ValueError(
                f"resume_below is {self.resume_k:g} K, but it must be below off_above, which is "
                f"{self.off_above_k:g} K; lower it"
            )
        return self


class Power(Record):
    """A group of satellites with the same panel, battery and radiator.

    `bus`: what the satellite draws all the time besides its computer, lasers and radios included. `board`: of those
    whose `[compute]` group names none, such as satellites that train. `least_pace`: how far the computer is slowed at
    the most before it is switched off.
    """

    satellites: Satellites = "all"
    bus_w: ElectricPower = Field(alias="bus")
    panel: Panel
    battery: Battery
    radiator: Radiator
    board: BoardName | None = None
    least_pace: float = Field(gt=0.0, le=1.0, default=0.1)
