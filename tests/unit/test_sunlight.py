"""The Sun's direction against published almanac values, and who sees it."""

from __future__ import annotations

from datetime import datetime, timezone

import numpy as np
import pytest

from isl_emu.geometry.elements import EARTH_RADIUS_KM
from isl_emu.geometry.sunlight import in_shadow, sun_direction

STATED_DEG = 0.01
NUTATION_DEG = 0.005  # published places are apparent ones, of the true equinox


def place_deg(moment: datetime) -> tuple[float, float]:
    x, y, z = sun_direction(moment, np.array([0]))[0]
    return np.degrees(np.arctan2(y, x)) % 360, np.degrees(np.arcsin(z))


def test_the_sun_of_1992_october_13():
    """J. Meeus, Astronomical Algorithms, 2nd edition, example 25.b: 1992 October 13, 0h TD, by the full VSOP87."""
    right_ascension_deg, declination_deg = place_deg(datetime(1992, 10, 12, 23, 59, 1, tzinfo=timezone.utc))
    assert right_ascension_deg == pytest.approx((13 + 13 / 60 + 30.749 / 3600) * 15, abs=STATED_DEG + NUTATION_DEG)
    assert declination_deg == pytest.approx(-(7 + 47 / 60 + 1.74 / 3600), abs=STATED_DEG)


@pytest.mark.parametrize(
    ("moment", "right_ascension_deg", "declination_deg"),
    [
        (datetime(2026, 3, 20, 14, 46, tzinfo=timezone.utc), 0.0, 0.0),  # equinoxes and solstices of 2026:
        (datetime(2026, 6, 21, 8, 24, tzinfo=timezone.utc), 90.0, 23.436),  # Astronomical Almanac 2026, page A1
        (datetime(2026, 9, 23, 0, 5, tzinfo=timezone.utc), 180.0, 0.0),
        (datetime(2026, 12, 21, 20, 50, tzinfo=timezone.utc), 270.0, -23.436),
    ],
)
def test_the_seasons_begin_when_the_almanac_says(moment, right_ascension_deg, declination_deg):
    found_deg, height_deg = place_deg(moment)
    assert abs((found_deg - right_ascension_deg + 180) % 360 - 180) < STATED_DEG + NUTATION_DEG
    assert height_deg == pytest.approx(declination_deg, abs=STATED_DEG)


def test_instants_are_counted_from_the_start():
    start, later = datetime(2026, 1, 1, tzinfo=timezone.utc), datetime(2026, 1, 2, tzinfo=timezone.utc)
    day_ns = 86_400 * 10**9
    assert sun_direction(start, np.array([0, day_ns]))[1] == pytest.approx(sun_direction(later, np.array([0]))[0])


@pytest.mark.parametrize(
    ("place_km", "hidden"),
    [
        ((7000.0, 0.0, 0.0), False),
        ((-7000.0, 0.0, 0.0), True),
        ((-7000.0, EARTH_RADIUS_KM - 1, 0.0), True),
        ((-7000.0, EARTH_RADIUS_KM + 1, 0.0), False),
        ((0.0, 7000.0, 0.0), False),
    ],
)
def test_the_shadow_is_behind_the_earth(place_km, hidden):
    assert in_shadow(np.array(place_km), np.array([1.0, 0.0, 0.0])) == hidden
