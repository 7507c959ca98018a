"""Where ground terminals are: fixed sites, and ships and aircraft that follow a track of waypoints.

Between two waypoints a terminal follows the great circle of the directions that point up (geodetic latitude and
longitude as on a sphere) at constant angular speed, and its height changes linearly. On the ellipsoid this line is not
quite the shortest one (by up to some 20 km to the side on legs across an ocean) and the speed varies by up to 0.5 %.
Before the first waypoint's time the terminal waits there, and so it does at the last one.
"""

from __future__ import annotations

import numpy as np

from isl_emu.arrays import Floats, Ints
from isl_emu.geometry.frames import ellipsoid_itrs_km, site_itrs_km, zenith_itrs
from isl_emu.scenario.model import GroundStation


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
