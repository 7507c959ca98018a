"""Ground stations in TEME, the frame of the satellites.

The Earth-fixed frame (ITRS) and TEME share the true pole and differ by one rotation, Greenwich mean sidereal time of
1982. Polar motion is neglected: some 10 m on the ground. UT1 comes from the tables inside Skyfield, so nothing is
ever downloaded; for dates after them it is predicted, and 0.1 s of error would be 46 m at the equator.
"""

from __future__ import annotations

import math
from datetime import datetime
from functools import lru_cache

import numpy as np
from skyfield.api import load, wgs84
from skyfield.sgp4lib import theta_GMST1982
from skyfield.timelib import Timescale

from isl_emu.arrays import Floats, Ints
from isl_emu.units import NS_PER_S

WGS84_RADIUS_KM = 6_378.137  # NIMA TR8350.2
WGS84_FLATTENING = 1 / 298.257223563  # NIMA TR8350.2


@lru_cache(maxsize=1)
def timescale() -> Timescale:
    """Skyfield's time scale with the leap seconds and UT1 tables that it ships."""
    return load.timescale(builtin=True)


def sidereal_angle_rad(start: datetime, offsets_ns: Ints) -> Floats:
    """The angle from TEME's x axis to the Greenwich meridian at K instants, rad, shape (K,).

    Args:
        start: UTC.
        offsets_ns: instants in ns since `start`, shape (K,).
    """
    seconds = start.second + start.microsecond / 1e6 + np.asarray(offsets_ns) / NS_PER_S
    t = timescale().utc(start.year, start.month, start.day, start.hour, start.minute, seconds)
    angle_rad: Floats = theta_GMST1982(t.whole, t.ut1_fraction)[0]
    return angle_rad


def site_itrs_km(latitude_rad: float, longitude_rad: float, height_km: float) -> Floats:
    """The place of a site given by geodetic coordinates on WGS84, km in ITRS, shape (3,)."""
    site = wgs84.latlon(math.degrees(latitude_rad), math.degrees(longitude_rad), height_km * 1000.0)
    return np.asarray(site.itrs_xyz.km)


def ellipsoid_itrs_km(zenith: Floats, height_km: Floats) -> Floats:
    """The places at given heights above WGS84 from the unit vectors that point up there, km in ITRS.

    Args:
        zenith: shape (..., 3).
        height_km: shape (...).

    Returns:
        Shape (..., 3).
    """
    squared = np.array([1.0, 1.0, (1.0 - WGS84_FLATTENING) ** 2])
    normal_km = WGS84_RADIUS_KM / np.sqrt(np.einsum("...i,...i,i", zenith, zenith, squared))
    places_km: Floats = zenith * (normal_km[..., np.newaxis] * squared + np.asarray(height_km)[..., np.newaxis])
    return places_km


def zenith_itrs(latitude_rad: float, longitude_rad: float) -> Floats:
    """The unit vector that points up from the WGS84 ellipsoid at a site, in ITRS, shape (3,)."""
    level = math.cos(latitude_rad)
    return np.array([level * math.cos(longitude_rad), level * math.sin(longitude_rad), math.sin(latitude_rad)])


def itrs_to_teme(xyz_itrs: Floats, sidereal_rad: Floats) -> Floats:
    """An Earth-fixed vector at K instants, in TEME.

    Args:
        xyz_itrs: shape (3,), or (K, 3) where it moves.
        sidereal_rad: from `sidereal_angle_rad`, shape (K,).

    Returns:
        Shape (K, 3), in the unit of `xyz_itrs`.
    """
    x, y, z = np.moveaxis(np.asarray(xyz_itrs), -1, 0)
    cos, sin = np.cos(sidereal_rad), np.sin(sidereal_rad)
    return np.stack([x * cos - y * sin, x * sin + y * cos, z + 0.0 * cos], axis=-1)
