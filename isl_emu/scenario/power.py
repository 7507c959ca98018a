"""What keeps satellites running: solar panel, battery and radiator, and the rule that limits their computers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from pydantic import Field, model_validator

from isl_emu.scenario.boards import Board
from isl_emu.scenario.compute import BoardName, Compute
from isl_emu.scenario.constellation import Constellation
from isl_emu.scenario.matching import Satellites, matching, unmatched
from isl_emu.scenario.quantities import (
    Area,
    ElectricPower,
    Energy,
    HeatCapacity,
    MostPower,
    Record,
    Temperature,
)

WHOLE = "all with power"  # the part that is all others together

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


def power_groups(groups: Sequence[Power], names: Sequence[str]) -> dict[str, int]:
    """The number of the group of each satellite that is in one."""
    return {name: number for number, group in enumerate(groups) for name in matching(group.satellites, names)}


def power_parts(constellation: Constellation, groups: Sequence[Power]) -> dict[str, set[str]]:
    """The satellites with power in parts of the same orbits and power, by a name for the part, and all of them.

    A part is a shell, or one `[[power]]` group of it where it has several. If there is one part only, it is all.
    """
    group_of = power_groups(groups, constellation.satellite_names)
    parts: dict[str, set[str]] = {}
    for shell, names in constellation.satellites_by_shell:
        numbers = sorted({group_of[name] for name in names if name in group_of})
        for number in numbers:
            label = shell.name if len(numbers) == 1 else f"{shell.name}, power[{number}]"
            parts[label] = {name for name in names if group_of.get(name) == number}
    return {**(parts if len(parts) > 1 else {}), WHOLE: set(group_of)}


def power_contradictions(
    groups: Sequence[Power],
    names: Sequence[str],
    boards: Mapping[str, Board],
    computing: Sequence[tuple[str, Satellites]],
    visited: Sequence[str],
    compute: Sequence[Compute],
) -> Iterator[str]:
    """Problems of the groups that show beside the satellites and what computes on them.

    Args:
        names: of all satellites.
        boards: of each satellite that is known to have one.
        computing: whatever computes on satellites: where it stands in the scenario, and on which.
        visited: nodes that run a user's programs and workloads.
        compute: the groups of model servers.
    """
    taken: dict[str, str] = {}
    for index, group in enumerate(groups):
        where = f"power[{index}].satellites"
        yield from unmatched(where, group.satellites, names)
        for name in matching(group.satellites, names):
            if name in taken:
                yield f"{where} has {name!r}, but {taken[name]} has it too; a satellite has one panel and battery"
            taken.setdefault(name, where)
    group_of = power_groups(groups, names)
    for where, satellites in computing:
        without = (name for name in matching(satellites, names) if name in group_of and name not in boards)
        if missing := next(without, None):
            yield (
                f"{where}.board is missing, but power[{group_of[missing]}] has {missing!r}, whose computer's power "
                f"follows from its board; name one there, or in the power group"
            )
    for name in dict.fromkeys(name for name in visited if name in group_of and name not in boards):
        yield (
            f"power[{group_of[name]}].board is missing, but it has {name!r}, which runs programs or workloads, and its "
            f"computer's power follows from its board; name one"
        )
    for index, servers in enumerate(compute):  # nobody can slow a server elsewhere, or say what it does
        named = [name for name in matching(servers.satellites, names) if name in group_of]
        if servers.url is not None and named:
            yield (
                f"compute[{index}].url is set, but power[{group_of[named[0]]}] has {named[0]!r}, and a server "
                f"elsewhere cannot be slowed; leave the satellite out of one of them"
            )
