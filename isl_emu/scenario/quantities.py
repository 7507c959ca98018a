"""The building blocks of scenario records: quantities with units, names, times, and the base class."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    PlainSerializer,
)
from pydantic_core import CoreSchema, core_schema

from isl_emu.units import (
    ANGLE_RAD,
    ANGULAR_RATE_RAD_S,
    AREA_M2,
    CELSIUS_DEG,
    DURATION_NS,
    ENERGY_J,
    FREQUENCY_GHZ,
    HEAT_CAPACITY_J_K,
    LENGTH_KM,
    LEVEL_DB,
    LEVEL_DBM,
    MEAN_MOTION_REV_DAY,
    NS_PER_S,
    OPTICS_M,
    POWER_W,
    RAIN_RATE_MM_H,
    RATE_BIT_S,
    SIZE_BYTE,
    TEMPERATURE_K,
    Dimension,
    format_quantity,
    parse_quantity,
)


class Record(BaseModel):
    """Base of all scenario records: frozen, no conversion between types, unknown keys are errors."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, validate_by_name=False, validate_by_alias=True
    )


@dataclass(frozen=True, eq=False)  # each is itself: tables of units have no hash
class Quantity:
    """Marks a field whose value is text with a unit in TOML and a number of inner units in Python, within bounds."""

    dimension: Dimension[Any]
    low: float | None = None
    high: float | None = None
    above: float | None = None

    def __get_pydantic_core_schema__(self, kind: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        number = core_schema.no_info_before_validator_function(self._number, handler(kind))
        text = core_schema.plain_serializer_function_ser_schema(self._text, return_schema=core_schema.str_schema())
        return core_schema.no_info_after_validator_function(self._within_bounds, number, serialization=text)

    def _number(self, text: Any) -> float:
        number: float = parse_quantity(text, self.dimension)
        return number

    def _text(self, value: float) -> str:
        return format_quantity(value, self.dimension)

    def _within_bounds(self, value: float) -> float:
        def shown(limit: float) -> str:
            return self._text(type(value)(limit))

        if self.low is not None and value < self.low:
            raise ValueError(f"is {shown(value)}, but the least allowed is {shown(self.low)}; raise it")
        if self.high is not None and value > self.high:
            raise ValueError(f"is {shown(value)}, but the most allowed is {shown(self.high)}; lower it")
        if self.above is not None and value <= self.above:
            raise ValueError(f"is {shown(value)}, but it must be more than {shown(self.above)}; raise it")
        return value


Altitude = Annotated[float, Quantity(LENGTH_KM, 160.0, 50_000.0)]  # below 160 km no orbit lasts a day
SemiMajorAxis = Annotated[float, Quantity(LENGTH_KM, 6_378.137, 500_000.0)]
MeanMotion = Annotated[float, Quantity(MEAN_MOTION_REV_DAY, 0.03, 18.0)]  # from beyond the Moon to below the ground
Range = Annotated[float, Quantity(LENGTH_KM, high=1e6, above=0.0)]
GrazingAltitude = Annotated[float, Quantity(LENGTH_KM, 0.0, 1_000.0)]
FlightHeight = Annotated[float, Quantity(LENGTH_KM, -0.5, 30.0)]  # from the Dead Sea's shore to stratospheric aircraft
Angle = Annotated[float, Quantity(ANGLE_RAD, math.radians(-360_000), math.radians(360_000))]
Inclination = Annotated[float, Quantity(ANGLE_RAD, 0.0, math.pi)]
RaanSpread = Annotated[float, Quantity(ANGLE_RAD, 0.0, 2 * math.pi)]
Latitude = Annotated[float, Quantity(ANGLE_RAD, -math.pi / 2, math.pi / 2)]
Longitude = Annotated[float, Quantity(ANGLE_RAD, -math.pi, 2 * math.pi)]
Elevation = Annotated[float, Quantity(ANGLE_RAD, 0.0, math.pi / 2)]
LeastElevation = Annotated[float, Quantity(ANGLE_RAD, math.radians(-10.0), math.pi / 2)]
LONGEST_NS = 366 * 86_400 * NS_PER_S
Duration = Annotated[int, Quantity(DURATION_NS, high=LONGEST_NS, above=0)]
Delay = Annotated[int, Quantity(DURATION_NS, 0, LONGEST_NS)]
Rate = Annotated[int, Quantity(RATE_BIT_S, 1_000, 10**15)]  # far above any laser, and the sums of many fit into 64 bits
Size = Annotated[int, Quantity(SIZE_BYTE, high=2**50, above=0)]
Mtu = Annotated[int, Quantity(SIZE_BYTE, 1_280, 65_535)]  # what IPv6 asks of a link (RFC 8200), what IPv4 can say
OffAxis = Annotated[float, Quantity(ANGLE_RAD, 0.0, math.pi)]
AngularRate = Annotated[float, Quantity(ANGULAR_RATE_RAD_S, high=100.0, above=0.0)]
OpticalPower = Annotated[float, Quantity(POWER_W, high=1e6, above=0.0)]
Loss = Annotated[float, Quantity(LEVEL_DB, 0.0, 1_000.0)]
PowerLevel = Annotated[float, Quantity(LEVEL_DBM, -300.0, 100.0)]
Wavelength = Annotated[float, Quantity(OPTICS_M, 1e-7, 1e-4)]  # light, from ultraviolet to far infrared
Aperture = Annotated[float, Quantity(OPTICS_M, high=100.0, above=0.0)]
Frequency = Annotated[float, Quantity(FREQUENCY_GHZ, 1.0, 55.0)]  # what Recommendations ITU-R P.838 and P.618 cover
RainRate = Annotated[float, Quantity(RAIN_RATE_MM_H, 0.0, 300.0)]
RainHeight = Annotated[float, Quantity(LENGTH_KM, 0.0, 10.0)]
ElectricPower = Annotated[float, Quantity(POWER_W, 0.0, 1e9)]
MostPower = Annotated[float, Quantity(POWER_W, high=1e9, above=0.0)]
Energy = Annotated[float, Quantity(ENERGY_J, high=1e15, above=0.0)]
Area = Annotated[float, Quantity(AREA_M2, high=1e6, above=0.0)]
HeatCapacity = Annotated[float, Quantity(HEAT_CAPACITY_J_K, high=1e12, above=0.0)]
ZERO_CELSIUS_K = 273.15  # BIPM SI brochure, 9th edition


def _kelvin(text: Any) -> float:
    """A temperature, which alone of all quantities has units with different zeros."""
    if isinstance(text, str) and text.strip().endswith("degC"):
        return parse_quantity(text, CELSIUS_DEG) + ZERO_CELSIUS_K
    return parse_quantity(text, TEMPERATURE_K)


def _equipment_temperature(value_k: float) -> float:
    if not 150.0 <= value_k <= 450.0:
        raise ValueError(
            f"is {value_k:g} K, but a satellite's equipment is between 150 K and 450 K; write degC for Celsius"
        )
    return value_k


Temperature = Annotated[
    float,
    BeforeValidator(_kelvin),
    AfterValidator(_equipment_temperature),
    PlainSerializer(lambda value: format_quantity(value, TEMPERATURE_K), return_type=str),
]

NAME_LENGTH = 32
NODE_NAME = re.compile(rf"[a-z][a-z0-9-]{{0,{NAME_LENGTH - 1}}}")


OF_THE_MACHINE = ("localhost", "ip6-localhost", "ip6-loopback")  # in every node's /etc/hosts


def _node_name(name: str) -> str:
    if name in OF_THE_MACHINE:
        raise ValueError(f"is {name!r}, but in every node that name means the node itself; choose another")
    if not NODE_NAME.fullmatch(name):
        raise ValueError(
            f"is {name!r}, but a node name is 1 to 32 lower-case letters, digits and hyphens and starts with a letter; "
            "choose such a name"
        )
    return name


NodeName = Annotated[str, AfterValidator(_node_name)]
NodeNames = Annotated[tuple[NodeName, ...], Field(examples=[["gs-berlin", "gs-lagos"]])]
NodePair = Annotated[tuple[NodeName, NodeName], Field(examples=[["p00s00", "gs-berlin"]])]
NodePairs = Annotated[tuple[NodePair, ...], Field(examples=[[["p00s00", "p00s01"], ["p00s00", "p01s00"]]])]


def _utc(moment: Any) -> datetime:
    if not isinstance(moment, datetime):
        found = repr(moment) if isinstance(moment, str) else str(moment)
        raise ValueError(f"is {found}, but it must be a date with a time; write for example 2026-03-20T04:00:00Z")
    if moment.tzinfo is None:
        raise ValueError(f"is {moment.isoformat()} without a time zone, but it needs one; end it with Z for UTC")
    return moment.astimezone(timezone.utc)


UtcTime = Annotated[datetime, BeforeValidator(_utc)]


def _user_function(name: Any) -> str:
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", name):
        raise ValueError(f"is {name!r}, but a function of yours is written package.module:function; write it so")
    return name


UserFunction = Annotated[str, BeforeValidator(_user_function)]
