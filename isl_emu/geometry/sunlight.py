"""Where the Sun is, and whether a satellite sees it."""

from __future__ import annotations

from datetime import datetime

import numpy as np

from isl_emu.arrays import Bools, Floats, Ints, dot
from isl_emu.geometry.elements import EARTH_RADIUS_KM
from isl_emu.geometry.sun import J2000
from isl_emu.units import NS_PER_S

SECONDS_PER_DAY = 86_400.0


def sun_direction(start: datetime, offsets_ns: Ints) -> Floats:
    """The unit vector from the Earth to the Sun at K instants, in the frame of the satellites (TEME); shape (K, 3).

    Good to 0.01 deg between 1950 and 2050. Neglected besides: nutation in longitude (0.005 deg, TEME's equinox is the
    mean one), UT1 - TT (0.001 deg), and the parallax of a satellite (0.003 deg).

    Args:
        start: UTC.
        offsets_ns: instants in ns since `start`, shape (K,).

    Source: The Astronomical Almanac, page C5, low-precision formulas for the Sun.
    """
    day = (start - J2000).total_seconds() / SECONDS_PER_DAY + np.asarray(offsets_ns) / (SECONDS_PER_DAY * NS_PER_S)
    anomaly_rad = np.radians(357.528 + 0.985_600_3 * day)
    longitude_deg = 280.460 + 0.985_647_4 * day + 1.915 * np.sin(anomaly_rad) + 0.020 * np.sin(2 * anomaly_rad)
    longitude_rad, obliquity_rad = np.radians(longitude_deg), np.radians(23.439 - 4e-7 * day)
    east = np.sin(longitude_rad)
    return np.stack([np.cos(longitude_rad), east * np.cos(obliquity_rad), east * np.sin(obliquity_rad)], axis=-1)


def in_shadow(r_km: Floats, sun: Floats) -> Bools:
    """Whether the Earth hides the Sun from positions of shape (..., 3), bool, shape (...).

    The shadow is a cylinder: at 1,000 km half the penumbra's width, 0.27 deg of the orbit, is neglected.

    Args:
        sun: unit vectors towards the Sun, shape (..., 3).
    """
    along_km = dot(r_km, sun)
    aside_km2 = dot(r_km, r_km) - along_km**2
    return (along_km < 0) & (aside_km2 < EARTH_RADIUS_KM**2)
