from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isl_emu import units
from isl_emu.units import (
    ANGLE_RAD,
    DURATION_NS,
    LENGTH_KM,
    RATE_BIT_S,
    SIZE_BYTE,
    Dimension,
    format_quantity,
    format_rate,
    parse_quantity,
)

DIMENSIONS = [value for value in vars(units).values() if isinstance(value, Dimension)]
WHOLE = [dimension for dimension in DIMENSIONS if dimension.kind is int]


@pytest.mark.parametrize(
    ("text", "dimension", "value"),
    [
        ("525 km", LENGTH_KM, 525.0),
        ("450m", LENGTH_KM, 0.45),
        ("-0.5 km", LENGTH_KM, -0.5),
        ("2 min", DURATION_NS, 120_000_000_000),
        ("0.25 ms", DURATION_NS, 250_000),
        ("90 deg", ANGLE_RAD, math.pi / 2),
        ("100 Gbit/s", RATE_BIT_S, 100_000_000_000),
        ("1.5 kbit/s", RATE_BIT_S, 1_500),
        ("256 MiB", SIZE_BYTE, 268_435_456),
        ("1e3 MB", SIZE_BYTE, 1_000_000_000),
    ],
)
def test_text_with_a_unit_becomes_inner_units(text, dimension, value):
    assert parse_quantity(text, dimension) == pytest.approx(value, rel=1e-15)
    assert isinstance(parse_quantity(text, dimension), int if dimension in WHOLE else float)


@pytest.mark.parametrize(
    ("text", "dimension", "complaint"),
    [
        ("525", LENGTH_KM, "without a unit"),
        (525, LENGTH_KM, "written with its unit"),
        ("525 miles", LENGTH_KM, "'miles'"),
        ("10 Gbps", RATE_BIT_S, "'Gbps'"),
        ("10 gbit/s", RATE_BIT_S, "'gbit/s'"),
        ("0.5 bit/s", RATE_BIT_S, "whole number"),
        ("0.1 ns", DURATION_NS, "whole number"),
        ("", LENGTH_KM, "written with its unit"),
        ("km", LENGTH_KM, "written with its unit"),
        ("1 2 km", LENGTH_KM, "written with its unit"),
        ("nan km", LENGTH_KM, "written with its unit"),
        ("inf s", DURATION_NS, "written with its unit"),
    ],
)
def test_anything_else_is_refused(text, dimension, complaint):
    with pytest.raises(ValueError, match="but") as caught:
        parse_quantity(text, dimension)
    assert complaint in str(caught.value)


@given(st.sampled_from(WHOLE), st.integers(-(2**62), 2**62))
def test_formatting_a_whole_quantity_loses_nothing(dimension, value):
    assert parse_quantity(format_quantity(value, dimension), dimension) == value


@given(st.sampled_from([d for d in DIMENSIONS if d not in WHOLE]), st.floats(-1e6, 1e6))
def test_formatting_a_real_quantity_loses_nothing(dimension, value):
    assert parse_quantity(format_quantity(value, dimension), dimension) == value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1e20, "100,000 PFLOPS"),
        (1234.0, "1.23 kFLOPS"),
        (0.0, "0.00 FLOPS"),
        (9.996e14, "1.00 PFLOPS"),
        (42.5e12, "42.5 TFLOPS"),
        (12.0, "12.0 FLOPS"),
    ],
)
def test_rates_have_three_digits(value, text):
    assert format_rate(value, "FLOPS") == text
