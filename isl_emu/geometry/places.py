"""Where the nodes of a scenario are in the Earth-fixed frame: terminals on the ground and all nodes at once.

A terminal is a fixed site, or a ship or aircraft that follows a track of waypoints. Between two waypoints it follows
the great circle of the directions that point up (geodetic latitude and longitude as on a sphere) at constant angular
speed, and its height changes linearly. On the ellipsoid this line is not quite the shortest one (by up to some 20 km to
the side on legs across an ocean) and the speed varies by up to 0.5 %. Before the first waypoint's time the terminal
waits there, and so it does at the last one.
"""

from __future__ import annotations

from datetime import datetime

import numpy as np

from isl_emu.arrays import Floats, Ints
from isl_emu.geometry.elements import constellation_elements
from isl_emu.geometry.frames import (
    WGS84_FLATTENING,
    WGS84_RADIUS_KM,
    ellipsoid_itrs_km,
    sidereal_angle_rad,
    site_itrs_km,
    zenith_itrs,
)
from isl_emu.geometry.orbits import propagate
from isl_emu.scenario.model import GroundStation, Scenario


def terminal_itrs(station: GroundStation, offsets_ns: Ints) -> tuple[Floats, Floats]:
    """The place and the upward direction of a ground terminal.

    Args:
        station: the site, or the track.
        offsets_ns: instants in ns since the start of the run, shape (K,).

    Returns:
        The place in km and the unit vector up from the WGS84 ellipsoid, both in ITRS; shape (3,) each for a site and
        (K, 3) for a track.
    """
    if not station.track:
        place = station.latitude_rad, station.longitude_rad
        return site_itrs_km(*place, station.height_km), zenith_itrs(*place)
    zenith, height_km = track_points(station, offsets_ns)
    return ellipsoid_itrs_km(zenith, height_km), zenith


def track_points(station: GroundStation, offsets_ns: Ints) -> tuple[Floats, Floats]:
    """A moving terminal at K instants: the unit vector up in ITRS, shape (K, 3), and its height in km, shape (K,)."""
    track = station.track
    after_ns = np.array([point.after_ns for point in track], dtype=np.float64)
    up = np.array([zenith_itrs(point.latitude_rad, point.longitude_rad) for point in track])
    height_km = np.array([point.height_km for point in track])
    t_ns = np.clip(np.asarray(offsets_ns, dtype=np.float64), after_ns[0], after_ns[-1])
    leg = np.clip(np.searchsorted(after_ns, t_ns, side="right") - 1, 0, max(len(track) - 2, 0))
    until = np.minimum(leg + 1, len(track) - 1)
    done_ratio = (t_ns - after_ns[leg]) / np.where(until > leg, after_ns[until] - after_ns[leg], 1.0)
    heights_km = height_km[leg] + done_ratio * (height_km[until] - height_km[leg])
    return _between(up[leg], up[until], done_ratio), heights_km


def _between(a: Floats, b: Floats, ratio: Floats) -> Floats:
    """The unit vectors at `ratio` of the way along the great circle from `a` to `b`; shapes (K, 3), (K, 3), (K,)."""
    cross = np.linalg.norm(np.cross(a, b), axis=-1)
    angle_rad = np.arctan2(cross, np.einsum("kj,kj->k", a, b))
    small = angle_rad < 1e-9  # 6 mm: on so short a leg the line is straight
    sin = np.where(small, 1.0, np.sin(angle_rad))
    of_a = np.where(small, 1.0 - ratio, np.sin((1.0 - ratio) * angle_rad) / sin)
    of_b = np.where(small, ratio, np.sin(ratio * angle_rad) / sin)
    point = of_a[:, np.newaxis] * a + of_b[:, np.newaxis] * b
    places: Floats = point / np.linalg.norm(point, axis=-1, keepdims=True)
    return places


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
    places = [
        np.broadcast_to(site_itrs_km(place.latitude_rad, place.longitude_rad, place.height_km), shape)
        for place in scenario.place
    ]
    return np.concatenate([satellites, *(place[:, np.newaxis] for place in (*stations, *places))], axis=1)


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
