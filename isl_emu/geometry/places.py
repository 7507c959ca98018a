"""Where all nodes of a scenario are in the Earth-fixed frame, for maps and exports."""

from __future__ import annotations

from datetime import datetime

import numpy as np

from isl_emu.geometry.elements import constellation_elements
from isl_emu.geometry.frames import WGS84_FLATTENING, WGS84_RADIUS_KM, sidereal_angle_rad
from isl_emu.geometry.orbits import propagate
from isl_emu.geometry.tracks import terminal_itrs
from isl_emu.scenario.model import Scenario


def places_itrs_km(scenario: Scenario, start: datetime, offsets_ns: np.ndarray) -> np.ndarray:
    """Positions of all N nodes, satellites first, at K instants, km in ITRS, shape (K, N, 3).

    A satellite without a position (where the scenario masks them) is nan.

    Args:
        scenario: whose nodes.
        start: UTC.
        offsets_ns: instants in ns since `start`, shape (K,).
    """
    r_teme_km = propagate(constellation_elements(scenario), start, offsets_ns, scenario.orbits)
    satellites = teme_to_itrs(r_teme_km, sidereal_angle_rad(start, offsets_ns))
    shape = (len(offsets_ns), 3)
    stations = [np.broadcast_to(terminal_itrs(station, offsets_ns)[0], shape) for station in scenario.station]
    return np.concatenate([satellites, *(station[:, np.newaxis] for station in stations)], axis=1)


def teme_to_itrs(xyz_teme: np.ndarray, sidereal_rad: np.ndarray) -> np.ndarray:
    """Vectors in TEME at K instants, Earth-fixed; polar motion (some 10 m on the ground) is neglected.

    Args:
        xyz_teme: shape (K, N, 3).
        sidereal_rad: from `frames.sidereal_angle_rad`, shape (K,).

    Returns:
        Shape (K, N, 3), in the unit of `xyz_teme`.
    """
    cos, sin = np.cos(sidereal_rad)[:, np.newaxis], np.sin(sidereal_rad)[:, np.newaxis]
    x, y, z = np.moveaxis(xyz_teme, -1, 0)
    return np.stack([x * cos + y * sin, y * cos - x * sin, z], axis=-1)


def geodetic(xyz_itrs_km: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Geodetic latitude and longitude (rad) and height (km) on WGS84 of points of shape (..., 3).

    Two rounds of Bowring's formula: less than a micrometre off from the ground to geostationary orbit.

    Source: B. Bowring, Transformation from spatial to geographical coordinates, Survey Review 23, 1976.
    """
    x, y, z = np.moveaxis(xyz_itrs_km, -1, 0)
    polar_km, axis_km = WGS84_RADIUS_KM * (1 - WGS84_FLATTENING), np.hypot(x, y)
    e2 = WGS84_FLATTENING * (2 - WGS84_FLATTENING)
    parametric_rad = np.arctan2(z * WGS84_RADIUS_KM, axis_km * polar_km)
    for _ in range(2):
        up_km = z + e2 / (1 - e2) * polar_km * np.sin(parametric_rad) ** 3
        out_km = axis_km - e2 * WGS84_RADIUS_KM * np.cos(parametric_rad) ** 3
        latitude_rad = np.arctan2(up_km, out_km)
        parametric_rad = np.arctan2((1 - WGS84_FLATTENING) * np.sin(latitude_rad), np.cos(latitude_rad))
    sin, cos = np.sin(latitude_rad), np.cos(latitude_rad)
    height_km = axis_km * cos + z * sin - WGS84_RADIUS_KM * np.sqrt(1 - e2 * sin**2)
    return latitude_rad, np.arctan2(y, x), height_km
