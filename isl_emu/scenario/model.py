"""What a scenario may say: frozen records, one per TOML table.

Attributes carry the inner unit in their name (`altitude_km`); in the TOML text the same key is written without it and
with the unit in the value (``altitude = "525 km"``). `docs/scenario.md` describes the format for users.
Nothing here looks at the machine: a scenario that is valid on one computer is valid on all.
"""

from __future__ import annotations

import math
import re
from datetime import datetime, timezone
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, model_validator

from isl_emu.timebase import TimeGrid
from isl_emu.units import (
    ANGLE_RAD,
    DURATION_NS,
    LENGTH_KM,
    RATE_BIT_S,
    SIZE_BYTE,
    Dimension,
    format_quantity,
    parse_quantity,
)


class Record(BaseModel):
    """Base of all scenario records: frozen, no conversion between types, unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, validate_by_name=False, validate_by_alias=True)


def _quantity(
    dimension: Dimension, low: float | None = None, high: float | None = None, *, above: float | None = None
) -> Any:
    """An annotated type: text with a unit in TOML, a number of inner units in Python."""

    def check(value: float) -> float:
        def shown(limit: float) -> str:
            return format_quantity(type(value)(limit), dimension)

        if low is not None and value < low:
            raise ValueError(f"is {shown(value)}, but the least allowed is {shown(low)}")
        if high is not None and value > high:
            raise ValueError(f"is {shown(value)}, but the most allowed is {shown(high)}")
        if above is not None and value <= above:
            raise ValueError(f"is {shown(value)}, but it must be more than {shown(above)}")
        return value

    kind = int if dimension.whole else float
    return Annotated[
        kind,
        BeforeValidator(lambda text: parse_quantity(text, dimension)),
        AfterValidator(check),
        PlainSerializer(lambda value: format_quantity(value, dimension), return_type=str),
    ]


Altitude = _quantity(LENGTH_KM, 160.0, 50_000.0)  # below 160 km no orbit lasts a day
Range = _quantity(LENGTH_KM, above=0.0)
GrazingAltitude = _quantity(LENGTH_KM, 0.0, 1_000.0)
SiteHeight = _quantity(LENGTH_KM, -0.5, 9.0)  # from the Dead Sea's shore to the highest summit
Angle = _quantity(ANGLE_RAD)
Inclination = _quantity(ANGLE_RAD, 0.0, math.pi)
Latitude = _quantity(ANGLE_RAD, -math.pi / 2, math.pi / 2)
Longitude = _quantity(ANGLE_RAD, -math.pi, 2 * math.pi)
Elevation = _quantity(ANGLE_RAD, 0.0, math.pi / 2)
Duration = _quantity(DURATION_NS, above=0)
Delay = _quantity(DURATION_NS, 0)
Rate = _quantity(RATE_BIT_S, 1_000)
Size = _quantity(SIZE_BYTE, above=0)

NODE_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")


def _node_name(name: str) -> str:
    if not NODE_NAME.fullmatch(name):
        raise ValueError(
            f"is {name!r}, but a node name is 1 to 32 lower-case letters, digits and hyphens and starts with a letter"
        )
    return name


NodeName = Annotated[str, AfterValidator(_node_name)]


def _utc(moment: Any) -> datetime:
    if not isinstance(moment, datetime):
        raise ValueError(f"is {moment!r}, but it must be a date with a time, for example 2026-03-20T04:00:00Z")
    if moment.tzinfo is None:
        raise ValueError(f"is {moment.isoformat()} without a time zone; end it with Z for UTC")
    return moment.astimezone(timezone.utc)


UtcTime = Annotated[datetime, BeforeValidator(_utc)]


class Time(Record):
    """When the run takes place, and how finely the sky is sampled."""

    start: UtcTime
    duration_ns: Duration = Field(alias="duration")
    step_ns: Duration = Field(alias="step", default=1_000_000_000)

    @model_validator(mode="after")
    def _whole_steps(self) -> Time:
        if self.duration_ns < self.step_ns:
            raise ValueError("step is longer than duration; shorten it")
        return self

    @property
    def grid(self) -> TimeGrid:
        """The instants of the run."""
        return TimeGrid.covering(self.start, self.duration_ns, self.step_ns)


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


class LaserLinks(Record):
    """The laser terminals of a shell and which neighbours they point at.

    `ring`: fore and aft in the same plane. `+grid`: also one neighbour in each adjacent plane. `none`: no lasers.
    """

    topology: Literal["ring", "+grid", "none"]
    rate_bit_s: Rate = Field(alias="rate", default=100_000_000_000)
    max_range_km: Range | None = Field(alias="max_range", default=None)
    grazing_altitude_km: GrazingAltitude = Field(alias="grazing_altitude", default=80.0)
    queue_ns: Duration = Field(alias="queue", default=20_000_000)


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


class GroundStation(Record):
    """A station on the WGS84 ellipsoid; it tracks the highest satellites, one with each antenna."""

    name: NodeName
    latitude_rad: Latitude = Field(alias="latitude")
    longitude_rad: Longitude = Field(alias="longitude")
    height_km: SiteHeight = Field(alias="height", default=0.0)
    min_elevation_rad: Elevation = Field(alias="min_elevation")
    antennas: int = Field(ge=1, default=1)
    uplink_bit_s: Rate = Field(alias="uplink")
    downlink_bit_s: Rate = Field(alias="downlink")
    queue_ns: Duration = Field(alias="queue", default=50_000_000)


class Routing(Record):
    """How paths are chosen at each instant."""

    policy: Literal["shortest-delay"] = "shortest-delay"


class Compute(Record):
    """The satellites that run a model server, and what each server gets.

    `satellites`: "all" or a list of node names. `cpus`: share of one core. `model`: "bundled" or a GGUF file.
    """

    satellites: Literal["all"] | tuple[NodeName, ...] = "all"
    cpus: float = Field(gt=0.0, le=64.0, default=1.0)
    memory_byte: Size = Field(alias="memory", default=512 * 1024 * 1024)
    model: str = "bundled"
    context_tokens: int = Field(ge=64, default=1024)


class Questions(Record):
    """Users at the ground stations ask the satellites' model: Poisson arrivals, answers streamed back.

    `target`: which computing satellite serves a question: "nearest" by delay when it is sent, "uniform" (seeded), or a
    node name.
    """

    mean_interval_ns: Duration = Field(alias="mean_interval")
    stop_after_ns: Duration | None = Field(alias="stop_after", default=None)
    stations: Literal["all"] | tuple[NodeName, ...] = "all"
    target: str = "uniform"
    max_answer_tokens: int = Field(ge=1, default=48)
    temperature: float = Field(ge=0.0, le=2.0, default=0.0)
    deadline_ns: Duration = Field(alias="deadline", default=120_000_000_000)
    system: str = ""
    prompts: tuple[str, ...] = Field(min_length=1)


class Probes(Record):
    """ICMP echo probes that compare measured with planned delay along the run."""

    interval_ns: Duration = Field(alias="interval", default=1_000_000_000)
    pairs: tuple[tuple[NodeName, NodeName], ...] = ()


class FidelityLimits(Record):
    """A run beyond any of these is marked invalid, with the reason."""

    lateness_p99_ns: Duration = Field(alias="lateness_p99", default=100_000_000)
    probe_error_per_hop_p50_ns: Duration = Field(alias="probe_error_per_hop_p50", default=500_000)
    probe_error_p95_ns: Duration = Field(alias="probe_error_p95", default=20_000_000)
    cpu_saturated_ratio: float = Field(ge=0.0, le=1.0, default=0.1)


class Scenario(Record):
    """A complete experiment."""

    name: NodeName
    description: str = ""
    seed: int = Field(ge=0, default=1)
    rate_scale: float = Field(gt=0.0, le=1.0, default=1.0)
    time: Time
    shell: tuple[Shell, ...] = Field(min_length=1)
    station: tuple[GroundStation, ...] = ()
    routing: Routing = Routing()
    compute: Compute | None = None
    questions: Questions | None = None
    probes: Probes = Probes()
    fidelity: FidelityLimits = FidelityLimits()

    @property
    def satellite_names(self) -> tuple[str, ...]:
        """Node names of all satellites, by shell, plane and slot; with several shells each begins with the shell's."""
        prefixes = ["" if len(self.shell) == 1 else f"{shell.name}-" for shell in self.shell]
        return tuple(
            f"{prefix}p{plane:02d}s{slot:02d}"
            for prefix, shell in zip(prefixes, self.shell)
            for plane in range(shell.walker.planes)
            for slot in range(shell.walker.slots)
        )

    @property
    def station_names(self) -> tuple[str, ...]:
        """Node names of all ground stations."""
        return tuple(station.name for station in self.station)

    @property
    def computing_satellites(self) -> tuple[str, ...]:
        """Names of the satellites that run a model server."""
        if self.compute is None:
            return ()
        return self.satellite_names if self.compute.satellites == "all" else self.compute.satellites

    @property
    def asking_stations(self) -> tuple[str, ...]:
        """Names of the stations from which questions come."""
        if self.questions is None:
            return ()
        return self.station_names if self.questions.stations == "all" else self.questions.stations
