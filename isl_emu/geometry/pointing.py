"""Where a terminal looks: directions in a satellite's local orbital frame, and how fast they turn.

The frame's axes are fore (along the motion, level), starboard (right of it) and zenith (away from the Earth's centre);
it turns with the satellite, so a neighbour in the same circular orbit stands still in it. A satellite is assumed to
hold its body along these axes.
"""

from __future__ import annotations

import numpy as np

from isl_emu.arrays import Floats, cross, dot, length, unit
from isl_emu.units import NS_PER_S

EARTH_MU_KM3_S2 = 398_600.8  # WGS72, as in SGP4
VELOCITY_STEP_NS = 1_000_000_000  # of the difference that velocities are made from


def local_axes(r_km: Floats, v_km_s: Floats) -> Floats:
    """The axes fore, starboard and zenith as rows of a rotation matrix, shape (..., 3, 3).

    Args:
        r_km: positions, shape (..., 3).
        v_km_s: velocities, shape (..., 3).
    """
    zenith = unit(r_km)
    level_km_s = v_km_s - dot(v_km_s, zenith)[..., np.newaxis] * zenith
    fore = unit(level_km_s)
    return np.stack([fore, cross(fore, zenith), zenith], axis=-2)


def local_direction(axes: Floats, sight: Floats) -> Floats:
    """A direction of shape (..., 3) by its components fore, starboard and zenith."""
    components: Floats = np.einsum("...ij,...j", axes, sight)
    return components


def frame_rate_rad_s(r_km: Floats, v_km_s: Floats) -> Floats:
    """How the local orbital frame turns: rad/s about each axis of the frame of positions and velocities, (..., 3)."""
    rate_rad_s: Floats = cross(r_km, v_km_s) / dot(r_km, r_km)[..., np.newaxis]
    return rate_rad_s


def sight_rate_rad_s(frame_rad_s: Floats, sight_km: Floats, drift_km_s: Floats) -> Floats:
    """How fast the direction to another satellite turns in the local orbital frame, rad/s, shape (...).

    For the other satellite both vectors have the other sign, and so the same rate in its own frame: several frames
    can be asked for at once.

    Args:
        frame_rad_s: how the frame of the satellite that looks turns, shape (..., 3).
        sight_km: from it to the other.
        drift_km_s: the other's velocity less its own.
    """
    distance_km = length(sight_km)[..., np.newaxis]
    sight = sight_km / distance_km
    turn = (drift_km_s - dot(drift_km_s, sight)[..., np.newaxis] * sight) / distance_km
    turn = turn - cross(frame_rad_s, sight)
    return length(turn)


def velocity_km_s(r_km: Floats, r_next_km: Floats) -> Floats:
    """Velocities from positions now and `VELOCITY_STEP_NS` later, shape (..., 3).

    The mean velocity of the step, taken back by the Earth's pull over half of it; wrong by less than 2 cm/s.

    Args:
        r_km: shape (..., 3).
        r_next_km: shape (..., 3).
    """
    step_s = VELOCITY_STEP_NS / NS_PER_S
    pull_km_s2 = -EARTH_MU_KM3_S2 * r_km / dot(r_km, r_km)[..., np.newaxis] ** 1.5
    return (r_next_km - r_km) / step_s - pull_km_s2 * (step_s / 2)
