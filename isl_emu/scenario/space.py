"""The space segment of a scenario: shells, their Walker patterns and their lasers."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from isl_emu.scenario.lasers import LaserLinks
from isl_emu.scenario.quantities import (
    Altitude,
    Angle,
    Inclination,
    NodeName,
    Record,
)


class Walker(Record):
    """A Walker pattern `i: t/p/f` (Walker 1984): delta spreads RAAN over 360 deg, star over 180 deg."""

    pattern: Literal["delta", "star"]
    total: int = Field(ge=1)
    planes: int = Field(ge=1)
    phasing: int = Field(ge=0, default=0)

    @model_validator(mode="after")
    def _divides(self) -> Walker:
        problems = []
        if self.total % self.planes:
            problems.append(
                f"total is {self.total}, but all {self.planes} planes hold equally many; make it a multiple of planes"
            )
        if self.phasing >= self.planes:
            problems.append(f"phasing is {self.phasing}, but f is at most p - 1 = {self.planes - 1}; lower it")
        if problems:
            raise ValueError(", and ".join(problems))
        return self

    @property
    def slots(self) -> int:
        """Satellites in each plane."""
        return self.total // self.planes


class Shell(Record):
    """Satellites that share altitude and inclination, in a Walker pattern."""

    name: NodeName
    walker: Walker
    altitude_km: Altitude = Field(alias="altitude")
    inclination_rad: Inclination | Literal["sun-synchronous"] = Field(alias="inclination")
    raan_rad: Angle = Field(alias="raan", default=0.0)
    ltan: str | None = Field(default=None, pattern=r"^([01]\d|2[0-3]):[0-5]\d$")
    arg_lat_rad: Angle = Field(alias="argument_of_latitude", default=0.0)
    lasers: LaserLinks

    @model_validator(mode="after")
    def _one_node_line(self) -> Shell:
        if self.ltan is not None and "raan_rad" in self.model_fields_set:
            raise ValueError("raan and ltan are both given, but either fixes the ascending node; remove one")
        return self
