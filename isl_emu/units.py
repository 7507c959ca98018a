"""Quantities written with their unit, and the one unit that each has inside.

Inside isl-emu a quantity is a plain number whose name ends in its unit (``altitude_km``, ``delay_ns``). Text with a
unit exists only at the edges: scenarios, options and reports. Parsing is strict: a number without a unit, an unknown
unit, or a value that the inner unit cannot hold exactly (half a bit per second) is an error, never a guess.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Generic, TypeVar

SPEED_OF_LIGHT_KM_S = 299_792.458  # exact, BIPM SI brochure, 9th edition
NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000
NS_PER_US = 1_000
MOST_DIGITS = 60
SHOWN = 60  # characters of what was found


Number = TypeVar("Number", int, float)


@dataclass(frozen=True)
class Dimension(Generic[Number]):
    """A kind of quantity: the units that may be written, each with its size in the inner unit.

    Args:
        kind: of the inner value; text that is not a whole number of it is refused where that is `int`.
        name: what an error message calls it, with its article.
        example: shown in error messages.
        factors: unit as written -> its size in the inner unit.
    """

    kind: type[Number]
    name: str
    example: str
    factors: Mapping[str, Decimal]


def _dimension(kind: type[Number], name: str, example: str, **factors: str) -> Dimension[Number]:
    units = {unit.replace("_per_", "/"): Decimal(size) for unit, size in factors.items()}
    return Dimension(kind, name, example, MappingProxyType(units))


_DEGREE_RAD = Decimal(repr(math.pi / 180.0))

LENGTH_KM = _dimension(float, "a length", "525 km", km="1", m="0.001")
DURATION_NS = _dimension(
    int, "a duration", "120 s", ns="1", us="1000", ms="1000000", s="1000000000", min="60000000000", h="3600000000000"
)
ANGLE_RAD = _dimension(float, "an angle", "97.5 deg", deg=str(_DEGREE_RAD), rad="1")
RATE_BIT_S = _dimension(
    int,
    "a data rate",
    "100 Gbit/s",
    bit_per_s="1",
    kbit_per_s="1e3",
    Mbit_per_s="1e6",
    Gbit_per_s="1e9",
    Tbit_per_s="1e12",
)
SIZE_BYTE = _dimension(
    int, "a size", "256 MiB", B="1", kB="1e3", MB="1e6", GB="1e9", KiB="1024", MiB="1048576", GiB="1073741824"
)
POWER_W = _dimension(float, "a power", "1 W", W="1", mW="0.001", kW="1000")
LEVEL_DB = _dimension(float, "a level", "3 dB", dB="1")
LEVEL_DBM = _dimension(float, "a power level", "-35 dBm", dBm="1")
OPTICS_M = _dimension(float, "an aperture or wavelength", "80 mm", m="1", cm="0.01", mm="0.001", um="1e-6", nm="1e-9")
ANGULAR_RATE_RAD_S = _dimension(
    float, "an angular rate", "1 deg/s", deg_per_s=str(_DEGREE_RAD), mrad_per_s="0.001", rad_per_s="1"
)
FREQUENCY_GHZ = _dimension(float, "a frequency", "20 GHz", GHz="1", MHz="0.001")
RAIN_RATE_MM_H = _dimension(float, "a rain rate", "50 mm/h", mm_per_h="1")
MEAN_MOTION_REV_DAY = _dimension(float, "a mean motion", "15.05 rev/day", rev_per_day="1")
ENERGY_J = _dimension(float, "an energy", "500 Wh", Wh="3600", kWh="3.6e6", J="1", kJ="1e3", MJ="1e6")
AREA_M2 = _dimension(float, "an area", "2 m2", m2="1", cm2="1e-4")
HEAT_CAPACITY_J_K = _dimension(float, "a heat capacity", "20 kJ/K", kJ_per_K="1e3", J_per_K="1")
TEMPERATURE_K = _dimension(float, "a temperature", "293 K", K="1")
CELSIUS_DEG = _dimension(float, "a temperature", "20 degC", degC="1")

_QUANTITY = re.compile(r"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*(\S*)\s*")


def parse_quantity(text: object, dimension: Dimension[Number]) -> Number:
    """The number of inner units that `text`, such as "525 km", stands for.

    Raises:
        ValueError: no number, no unit, an unknown unit, or more precision than the inner unit has.
    """
    rule = f'{dimension.name} is written with its unit, for example "{dimension.example}"'
    match = _QUANTITY.fullmatch(text) if isinstance(text, str) else None
    if not match:
        raise ValueError(f"is {_cut(text)}, but {rule}; correct it")
    number, unit = match.groups()
    if unit not in dimension.factors:
        found = f"has the unit {_cut(unit)}" if unit else f"is {_cut(text)} without a unit"
        known = ", ".join(dimension.factors)
        raise ValueError(f'{found}, but {dimension.name} is given in {known}; write for example "{dimension.example}"')
    try:
        value = Decimal(number) * dimension.factors[unit]
    except ArithmeticError:
        raise ValueError(f"is {_cut(text)}, but {rule}; correct it") from None
    if value.adjusted() > MOST_DIGITS:  # longer whole numbers would take long to make
        raise ValueError(f"is {_cut(text)}, but no quantity has more than {MOST_DIGITS} digits; give less")
    if dimension.kind is float:
        return dimension.kind(float(Decimal(number)) * float(dimension.factors[unit]))
    if value != value.to_integral_value():
        raise ValueError(
            f"is {_cut(text)}, but {dimension.name} is a whole number of {_smallest_unit(dimension)}; round it"
        )
    return dimension.kind(value)


def _cut(found: object) -> str:
    """What was found, as far as somebody reads it."""
    shown = repr(found)
    return shown if len(shown) <= SHOWN else f"{shown[:SHOWN]}..."


def format_quantity(value: float, dimension: Dimension[Any]) -> str:
    """The shortest text that `parse_quantity` turns back into exactly `value`."""
    if dimension.kind is float:
        return _format_real(float(value), dimension)
    units = sorted(dimension.factors.items(), key=lambda item: item[1], reverse=True)
    for unit, size in units:
        if abs(value) >= size and value % int(size) == 0:
            return f"{value // int(size)} {unit}"
    return f"{value} {_smallest_unit(dimension)}"


def _format_real(value: float, dimension: Dimension[Any]) -> str:
    for unit, size in dimension.factors.items():
        for digits in (12, 15, 17):
            text = f"{value / float(size):.{digits}g} {unit}"
            if parse_quantity(text, dimension) == value:
                return text
    inner = next(unit for unit, size in dimension.factors.items() if size == 1)
    return f"{value!r} {inner}"


def _smallest_unit(dimension: Dimension[Any]) -> str:
    return min(dimension.factors, key=lambda unit: dimension.factors[unit])


def seconds_text(value_ns: float) -> str:
    """A time in seconds, in full and without an exponent: "86400 s", "0.00005 s"."""
    return f"{value_ns / NS_PER_S:.9f}".rstrip("0").rstrip(".") + " s"


def format_rate(value: float, unit: str) -> str:
    """A rate of computing, or a power, with three digits that count: "85.0 TFLOPS"; large ones in peta, as is usual."""
    for size, prefix in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * size:
            return f"{_three_digits(value / size)} {prefix}{unit}"
    return f"{_three_digits(value)} {unit}"


def _three_digits(value: float) -> str:
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}" if value < 99.95 else f"{value:,.0f}"


def is_finite(number: object) -> bool:
    """Whether something is a number that is neither infinite nor none, as a caller from Python may give it."""
    try:
        return math.isfinite(number)  # type: ignore[arg-type]
    except TypeError:
        return False
