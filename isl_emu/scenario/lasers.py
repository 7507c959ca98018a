"""The laser terminals of a scenario's satellites, and which neighbours they point at."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from isl_emu.scenario.quantities import Duration, GrazingAltitude, Range, Rate, Record


class LaserLinks(Record):
    """The laser terminals of a shell and which neighbours they point at.

    `ring`: fore and aft in the same plane. `+grid`: also one neighbour in each adjacent plane. `none`: no lasers.
    """

    topology: Literal["ring", "+grid", "none"]
    rate_bit_s: Rate = Field(alias="rate", default=100_000_000_000)
    max_range_km: Range | None = Field(alias="max_range", default=None)
    grazing_altitude_km: GrazingAltitude = Field(alias="grazing_altitude", default=80.0)
    queue_ns: Duration = Field(alias="queue", default=20_000_000)
