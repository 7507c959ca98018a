"""The space segment of a scenario: shells, where their satellites come from, and how their orbits are computed."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from isl_emu.scenario.lasers import LaserLinks
from isl_emu.scenario.quantities import (
    Altitude,
    Angle,
    Duration,
    Inclination,
    MeanMotion,
    NodeName,
    RaanSpread,
    Record,
    SemiMajorAxis,
    UtcTime,
)
from isl_emu.scenario.tle import check_tle

SOURCES = ("walker", "satellite", "tle", "omm")
PATTERN_KEYS = {  # only these place a Walker pattern: as an attribute -> as in TOML
    "altitude_km": "altitude",
    "mean_motion_rev_day": "mean_motion",
    "inclination_rad": "inclination",
    "eccentricity": "eccentricity",
    "arg_perigee_rad": "argument_of_perigee",
    "raan_rad": "raan",
    "ltan": "ltan",
    "arg_lat_rad": "argument_of_latitude",
}
LOCAL_TIMES = {"dawn-dusk": "06:00", "dusk-dawn": "18:00", "noon-midnight": "12:00"}
LocalTime = Annotated[  # of an ascending node, or a word for one
    str,
    BeforeValidator(lambda ltan: LOCAL_TIMES.get(ltan, ltan) if isinstance(ltan, str) else ltan),
    Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$"),
]
WALKER_CODE = re.compile(r"([DS]):([\d.]+):([\d.]+):(\d+)/(\d+)/(\d+)")


class Walker(Record):
    """A Walker pattern `i: t/p/f` (Walker 1984): delta spreads RAAN over 360 deg, star over 180 deg.

    `raan_spread`: a star's other width; p planes are that divided by p apart. `alternate`: the phase difference of f x
    360/t deg does not add up from plane to plane, but odd planes are ahead of even ones by it; "half-slot": by half of
    what is between two slots, whatever f would make that. Of an odd number of planes the last and the first are alike.
    """

    pattern: Literal["delta", "star"]
    total: int = Field(ge=1, le=100_000)
    planes: int = Field(ge=1, le=100_000)
    phasing: int = Field(ge=0, default=0)
    raan_spread_rad: RaanSpread | None = Field(alias="raan_spread", default=None)
    alternate: bool | Literal["half-slot"] = False

    @model_validator(mode="after")
    def _divides(self) -> Walker:
        problems = []
        if self.total % self.planes:
            problems.append(
                f"total is {self.total}, but all {self.planes} planes hold equally many; make it a multiple of planes"
            )
        if self.phasing >= self.planes:
            problems.append(f"phasing is {self.phasing}, but f is at most p - 1 = {self.planes - 1}; lower it")
        if self.raan_spread_rad is not None and self.pattern == "delta":
            problems.append("raan_spread is given, but a delta spreads over 360 deg; remove it, or make it a star")
        if self.alternate is True and self.pattern == "delta" and self.planes % 2:
            problems.append(
                f"alternate is true with {self.planes} planes, but around a delta only an even number can alternate; "
                'change planes, or let two neighbours be alike with alternate = "half-slot"'
            )
        if self.alternate == "half-slot" and self.phasing:
            problems.append('alternate is "half-slot", which is a phase difference, but phasing is another; remove it')
        if problems:
            raise ValueError(", and ".join(problems))
        return self

    @property
    def slots(self) -> int:
        """Satellites in each plane."""
        return self.total // self.planes

    @property
    def slot_names(self) -> tuple[str, ...]:
        """`p03s11` for slot 11 of plane 3; numbers have at least two digits, and all of them equally many."""
        plane_digits, slot_digits = (max(2, len(str(count - 1))) for count in (self.planes, self.slots))
        return tuple(
            f"p{plane:0{plane_digits}d}s{slot:0{slot_digits}d}"
            for plane in range(self.planes)
            for slot in range(self.slots)
        )


class Satellite(Record):
    """One satellite by its mean elements in the sense of SGP4, or by the two lines of a TLE.

    Elements hold at `epoch`, or without one at the epoch of the scenario. `bstar` is SGP4's drag term.
    """

    name: NodeName
    tle: tuple[str, str] | None = Field(examples=[["1 25544U ...", "2 25544 ..."]], default=None)
    epoch: UtcTime | None = None
    altitude_km: Altitude | None = Field(alias="altitude", default=None)
    semi_major_axis_km: SemiMajorAxis | None = Field(alias="semi_major_axis", default=None)
    mean_motion_rev_day: MeanMotion | None = Field(alias="mean_motion", default=None)
    eccentricity: float = Field(ge=0.0, le=100.0, default=0.0)
    inclination_rad: Inclination | None = Field(alias="inclination", default=None)
    raan_rad: Angle = Field(alias="raan", default=0.0)
    arg_perigee_rad: Angle = Field(alias="argument_of_perigee", default=0.0)
    mean_anomaly_rad: Angle = Field(alias="mean_anomaly", default=0.0)
    bstar: float = 0.0

    @model_validator(mode="after")
    def _one_description(self) -> Satellite:
        if self.tle is None:
            self._check_elements()
        elif others := sorted(self.model_fields_set - {"name", "tle"}):
            raise ValueError(f"has a tle and also {_written(others)}, but a TLE holds all elements; remove either")
        else:
            check_tle(self.tle)
        return self

    def _check_elements(self) -> None:
        sizes = self.model_fields_set & {"altitude_km", "semi_major_axis_km", "mean_motion_rev_day"}
        if len(sizes) != 1:
            found = _written(sorted(sizes)) if sizes else "nothing"
            raise ValueError(
                f"has {found} for its size, but exactly one of altitude, semi_major_axis and mean_motion fixes it; "
                f"give one of them, or a tle"
            )
        if self.inclination_rad is None:
            raise ValueError("has no inclination, but elements need one; add it, or give a tle")

    @model_serializer(mode="wrap")
    def _lines_alone(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A satellite with a TLE is written without the elements that it does not use."""
        table = handler(self)
        return table if self.tle is None else {key: table[key] for key in ("name", "tle")}


class Shell(Record):
    """Satellites that share their laser terminals' description: a Walker pattern, or given one by one, or from a file.

    A pattern is a `walker` table with altitude (or mean motion) and inclination, or all of it as a one-line `code`,
    which is expanded here. The other sources are a list of satellites, and a TLE or an OMM file, whose satellites are
    put in its place when the scenario is resolved. `altitude_between`: only satellites of the file whose mean orbit is
    that high fly. `launched`: when, for schedulers that ask for the age. `left_out`: elements in that file that were
    passed over for others of the same object.
    """

    SHORTHANDS: ClassVar[tuple[str, ...]] = ("code",)  # keys that are expanded into others

    name: NodeName
    walker: Walker | None = None
    altitude_km: Altitude | None = Field(alias="altitude", default=None)
    mean_motion_rev_day: MeanMotion | None = Field(alias="mean_motion", default=None)
    inclination_rad: Inclination | Literal["sun-synchronous"] | None = Field(alias="inclination", default=None)
    eccentricity: float = Field(ge=0.0, lt=1.0, default=0.0)
    arg_perigee_rad: Angle = Field(alias="argument_of_perigee", default=0.0)
    raan_rad: Angle = Field(alias="raan", default=0.0)
    ltan: LocalTime | None = None
    arg_lat_rad: Angle = Field(alias="argument_of_latitude", default=0.0)
    satellite: tuple[Satellite, ...] = ()
    tle: str | None = None
    omm: str | None = None
    altitude_between_km: tuple[Altitude, Altitude] | None = Field(
        alias="altitude_between", examples=[["520 km", "580 km"]], default=None
    )
    launched: UtcTime | None = None
    left_out: tuple[str, ...] = Field(examples=[["ISS (25544) of 2026-03-20T04:00:00Z"]], default=())
    lasers: LaserLinks

    @model_validator(mode="before")
    @classmethod
    def _expand_code(cls, table: Any) -> Any:
        if not isinstance(table, dict) or "code" not in table:
            return table
        taken = sorted(table.keys() & {"walker", "altitude", "mean_motion", "inclination"})
        if taken:
            raise ValueError(f"code and {' and '.join(taken)} are both given, but the code holds them; remove either")
        return {**{key: value for key, value in table.items() if key != "code"}, **walker_code(table["code"])}

    @model_validator(mode="after")
    def _one_source(self) -> Shell:
        given = [source for source in SOURCES if getattr(self, source)]
        if len(given) != 1:
            found = " and ".join(given) or "no satellites"
            raise ValueError(f"has {found}, but it needs exactly one of code, walker, satellite, tle and omm; give one")
        if self.altitude_between_km and not (self.tle or self.omm):
            raise ValueError(
                "has altitude_between, but only satellites of a tle or omm file are chosen by it; remove it"
            )
        if self.altitude_between_km and self.altitude_between_km[0] >= self.altitude_between_km[1]:
            raise ValueError("has an altitude_between that falls, but the lower altitude comes first; exchange them")
        if self.walker is None:
            self._check_free()
            return self
        sizes = [self.altitude_km, self.mean_motion_rev_day]
        if sizes.count(None) != 1:
            raise ValueError(
                "a walker pattern has neither or both of altitude and mean_motion, but needs one; give one"
            )
        if self.inclination_rad is None:
            raise ValueError("a walker pattern has no inclination, but needs one; add it")
        if self.ltan is not None and "raan_rad" in self.model_fields_set:
            raise ValueError("raan and ltan are both given, but either fixes the ascending node; remove one")
        return self

    def _check_free(self) -> None:
        if placing := sorted(self.model_fields_set & PATTERN_KEYS.keys()):
            raise ValueError(
                f"has {_written(placing)}, but only a walker pattern is placed by it; remove it, or give a walker"
            )
        if self.lasers.topology in ("ring", "+grid"):
            raise ValueError(
                f"lasers.topology is {self.lasers.topology!r}, but only a walker pattern has planes and slots; "
                f"choose another topology"
            )

    @property
    def resolved(self) -> bool:
        """Whether the satellites are known, and not only the file that holds them."""
        return self.tle is None and self.omm is None

    @property
    def local_names(self) -> tuple[str, ...]:
        """Names of the satellites within the shell, by plane and slot, or as given."""
        return self.walker.slot_names if self.walker else tuple(satellite.name for satellite in self.satellite)

    @property
    def count(self) -> int:
        """Satellites in the shell."""
        return self.walker.total if self.walker else len(self.satellite)

    @model_serializer(mode="wrap")
    def _used_alone(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Keys that the shell does not use are not written: some exclude each other and have defaults."""
        unused = set() if self.walker else {*PATTERN_KEYS, *PATTERN_KEYS.values()}
        if self.ltan is not None:
            unused |= {"raan", "raan_rad"}
        if not self.left_out:
            unused.add("left_out")
        if not self.satellite:
            unused.add("satellite")
        return {key: value for key, value in handler(self).items() if key not in unused}


def walker_code(code: Any) -> dict[str, Any]:
    """The tables that a one-line code such as "D:550:53.0:1584/22/17" stands for, as in TOML.

    The code is type:altitude in km:inclination in deg:T/P/F, with D for delta and S for star.

    Raises:
        ValueError: it is not of that form.
    """
    match = WALKER_CODE.fullmatch(code) if isinstance(code, str) else None
    if match is None:
        raise ValueError(
            f"code is {code!r}, but it is type:altitude:inclination:T/P/F with D (delta) or S (star), km and deg; "
            f'write for example "D:550:53.0:1584/22/17"'
        )
    kind, altitude, inclination, total, planes, phasing = match.groups()
    pattern = {"D": "delta", "S": "star"}[kind]
    return {
        "walker": {"pattern": pattern, "total": int(total), "planes": int(planes), "phasing": int(phasing)},
        "altitude": f"{altitude} km",
        "inclination": f"{inclination} deg",
    }


class Orbits(Record):
    """How all orbits are computed, and what happens to one that cannot be.

    `epoch`: when the elements of patterns hold, and of satellites without an epoch of their own; else at the start.
    `on_bad`: "error" refuses a scenario with an orbit that does not hold for the whole run, "mask" flies it without
    links where it has no position, with a warning. `stale_after`: elements further from the start are warned of.
    """

    propagator: Literal["sgp4", "kepler_j2"] = "sgp4"
    epoch: UtcTime | None = None
    on_bad: Literal["error", "mask"] = "error"
    stale_after_ns: Duration = Field(alias="stale_after", default=7 * 86_400_000_000_000)


def _written(attributes: list[str]) -> str:
    """Attributes as they are written in TOML, without their inner unit."""
    aliases = {
        name: field.alias or name for record in (Satellite, Shell) for name, field in record.model_fields.items()
    }
    return " and ".join(aliases[attribute] for attribute in attributes)
