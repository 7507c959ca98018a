"""The laser terminals of a scenario's satellites, which neighbours they point at, and what keeps them from linking."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from pydantic import Field, model_validator

from isl_emu.scenario.quantities import (
    AngularRate,
    Aperture,
    Delay,
    Duration,
    Elevation,
    GrazingAltitude,
    Loss,
    NodeName,
    NodePairs,
    OffAxis,
    OpticalPower,
    PowerLevel,
    Range,
    Rate,
    Record,
    UserFunction,
    Wavelength,
)
from isl_emu.scenario.queueing import QueueTerms


class Budget(Record):
    """An optical link budget, the same at both ends; the rate follows from the range.

    The receiver's need is given as `photons_per_bit`, or as the power `sensitivity` at the rate `sensitivity_rate`.
    `rates`: the steps that the modem can run at; without any the rate follows the power.
    """

    transmit_power_w: OpticalPower = Field(alias="transmit_power")
    wavelength_m: Wavelength = Field(alias="wavelength", default=1.55e-6)
    transmit_aperture_m: Aperture = Field(alias="transmit_aperture")
    receive_aperture_m: Aperture | None = Field(alias="receive_aperture", default=None)
    pointing_loss_db: Loss = Field(alias="pointing_loss", default=0.0)
    system_loss_db: Loss = Field(alias="system_loss", default=0.0)
    photons_per_bit: float | None = Field(gt=0.0, le=1e12, default=None)
    sensitivity_dbm: PowerLevel | None = Field(alias="sensitivity", default=None)
    sensitivity_rate_bit_s: Rate | None = Field(alias="sensitivity_rate", default=None)
    margin_db: Loss = Field(alias="margin", default=3.0)
    rates_bit_s: tuple[Rate, ...] = Field(
        alias="rates", examples=[["25 Gbit/s", "50 Gbit/s", "100 Gbit/s"]], default=()
    )

    @model_validator(mode="after")
    def _one_sensitivity(self) -> Budget:
        given = [self.sensitivity_dbm is not None, self.sensitivity_rate_bit_s is not None]
        if (self.photons_per_bit is None and not all(given)) or (self.photons_per_bit is not None and any(given)):
            raise ValueError(
                "has no clear sensitivity, but either photons_per_bit or both sensitivity and sensitivity_rate say "
                "what the receiver needs; give one of the two"
            )
        return self

    @property
    def receiver_aperture_m(self) -> float:
        """The receiver's aperture, which is the transmitter's where none is given."""
        return self.transmit_aperture_m if self.receive_aperture_m is None else self.receive_aperture_m


class Outages(Record):
    """Each link fails and is repaired at random: exponentially distributed times with these means."""

    failure_ns: Duration = Field(alias="mean_time_to_failure")
    repair_ns: Duration = Field(alias="mean_time_to_repair")


class Jitter(Record):
    """Packets lost to pointing jitter: each link's loss ratio is drawn anew in each interval, around this mean."""

    mean_loss_ratio: float = Field(ge=0.0, le=1.0)
    interval_ns: Duration = Field(alias="interval", default=1_000_000_000)


class Terminal(Record):
    """Laser terminals of one type: one at each of the named mounts, looking along it within its field of regard.

    `field_of_regard`: half-angle around the mount's axis. A terminal on a `free` mount looks everywhere.
    """

    mounts: tuple[Literal["fore", "aft", "port", "starboard", "zenith", "nadir", "free"], ...] = Field(
        examples=[["fore", "aft"]], min_length=1
    )
    field_of_regard_rad: OffAxis = Field(alias="field_of_regard", default=math.pi)
    slew_rate_rad_s: AngularRate | None = Field(alias="slew_rate", default=None)
    acquisition_ns: Delay = Field(alias="acquisition", default=0)
    serves: Literal["any", "shell", "inter-shell"] = "any"


class LaserTerms(QueueTerms):
    """What limits a laser link, and how good it is while it is up."""

    rate_bit_s: Rate = Field(alias="rate", default=100_000_000_000)
    return_rate_bit_s: Rate | None = Field(alias="return_rate", default=None)
    max_range_km: Range | None = Field(alias="max_range", default=None)
    grazing_altitude_km: GrazingAltitude = Field(alias="grazing_altitude", default=80.0)
    max_angular_rate_rad_s: AngularRate | None = Field(alias="max_angular_rate", default=None)
    polar_cutoff_rad: Elevation | None = Field(alias="polar_cutoff", default=None)
    sun_exclusion_rad: OffAxis | None = Field(alias="sun_exclusion", default=None)
    budget: Budget | None = None
    outages: Outages | None = None
    jitter: Jitter | None = None
    at_start: Literal["tracking", "idle"] = "tracking"
    pairs: NodePairs = ()
    interval_ns: Duration = Field(alias="interval", default=10_000_000_000)
    hysteresis: float = Field(ge=0.0, lt=1.0, default=0.2)

    @property
    def backward_rate_bit_s(self) -> int:
        """The rate from the second end to the first."""
        return self.rate_bit_s if self.return_rate_bit_s is None else self.return_rate_bit_s


class LaserLinks(LaserTerms):
    """The laser terminals of a shell and which neighbours they point at.

    `ring`: fore and aft in the same plane. `+grid`: also one neighbour in each adjacent plane. `nearest`: whichever
    satellites are nearest. `pairs`: those that `pairs` lists. `none`: no lasers. Or a user's function.

    Without terminals each link has ideal ones of its own, which point and acquire in no time.
    """

    topology: Literal["ring", "+grid", "nearest", "pairs", "none"] | UserFunction
    shift: int | None = None  # with "+grid": slots ahead in the next plane, instead of to the nearest
    cross_seam: bool = False
    terminal: tuple[Terminal, ...] = ()

    @model_validator(mode="after")
    def _fits_together(self) -> LaserLinks:
        _check_pairs(self.topology, self.pairs)
        wishes = {
            'topology "nearest"': self.topology == "nearest",
            "cross_seam": self.cross_seam,
            'at_start "idle"': self.at_start == "idle",
        }
        if not self.terminal and any(wishes.values()):
            wanted = " and ".join(wish for wish, is_there in wishes.items() if is_there)
            raise ValueError(f"has {wanted} but no terminals, and only terminals can do that; add a terminal table")
        return self


class InterShell(LaserTerms):
    """Laser links between the satellites of two shells, by terminals that both shells have.

    `links`: how many of these links a satellite has at most at a time.
    """

    between: tuple[NodeName, NodeName] = Field(examples=[["low", "high"]])
    topology: Literal["nearest", "pairs"] | UserFunction = "nearest"
    links: int = Field(ge=1, le=1_000, default=1)

    @model_validator(mode="after")
    def _fits_together(self) -> InterShell:
        _check_pairs(self.topology, self.pairs)
        return self


def _check_pairs(topology: str, pairs: tuple[tuple[str, str], ...]) -> None:
    if (topology == "pairs") != bool(pairs):
        found = "pairs but another topology" if pairs else 'topology "pairs" but no pairs'
        raise ValueError(f"has {found}, but the two belong together; give both or neither")


def laser_contradictions(
    shells: Sequence[tuple[str, LaserLinks]], tables: Sequence[InterShell], shell_of: Mapping[str, str]
) -> Iterator[str]:
    """One sentence for each laser pair or inter-shell table that does not fit the shells.

    Args:
        shells: the name and the lasers of each shell.
        tables: of links between shells.
        shell_of: the shell of each satellite.
    """
    for index, (name, lasers) in enumerate(shells):
        where = f"shell[{index}].lasers"
        yield from _pair_problems(where, lasers.pairs, shell_of, {name})
        if lasers.cross_seam and lasers.topology not in ("+grid", "nearest"):
            yield f'{where}.cross_seam is true, but only "+grid" and "nearest" know a seam; remove it'
    for index, table in enumerate(tables):
        where, lasers_of = f"inter_shell[{index}].between", dict(shells)
        if table.between[0] == table.between[1]:
            yield f"{where} names {table.between[0]!r} twice, but it joins two shells; name another"
        for name in dict.fromkeys(table.between):
            if name not in lasers_of:
                yield f"{where} names {name!r}, but there is no such shell; choose one of {', '.join(lasers_of)}"
            elif not lasers_of[name].terminal:
                yield f"{where} names {name!r}, but that shell has no terminals to point; add a terminal table"
        yield from _pair_problems(f"inter_shell[{index}]", table.pairs, shell_of, set(table.between))
    joined = Counter(frozenset(table.between) for table in tables)
    for between, count in joined.items():
        if count > 1:
            names = " and ".join(sorted(between))
            yield f"inter_shell joins {names} {count} times, but one table describes their links; merge them"


def _pair_problems(
    where: str, pairs: Sequence[tuple[str, str]], shell_of: Mapping[str, str], joined: set[str]
) -> Iterator[str]:
    seen: set[frozenset[str]] = set()
    for index, pair in enumerate(pairs):
        here = f"{where}.pairs[{index}]"
        strangers = [name for name in pair if name not in shell_of]
        yield from (
            f"{here} names {name!r}, but there is no such satellite; choose an existing one" for name in strangers
        )
        if pair[0] == pair[1]:
            yield f"{here} names {pair[0]!r} twice, but a link has two ends; name another"
        elif not strangers and {shell_of[name] for name in pair} != joined:
            yield f"{here} joins other shells than {' and '.join(sorted(joined))}; choose satellites of these"
        elif frozenset(pair) in seen:
            yield f"{here} repeats an earlier pair, but a pair has one link; remove it"
        seen.add(frozenset(pair))
