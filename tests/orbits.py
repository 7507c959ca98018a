"""Orbits made by hand, for tests that need no scenario."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import numpy as np

from isl_emu.geometry.elements import TURN_RAD, Elements, kozai_mean_motion_rad_min


def circular_elements(
    names: Sequence[str],
    epoch: datetime,
    semi_major_axis_km: float,
    inclination_rad: float,
    raan_rad: np.ndarray,
    arg_lat_rad: np.ndarray,
) -> Elements:
    """Elements of N circular orbits of one size and inclination.

    Args:
        semi_major_axis_km: Brouwer semi-major axis.
        raan_rad: shape (N,).
        arg_lat_rad: argument of latitude, shape (N,); with the perigee at the node it is the mean anomaly.
    """
    same = np.ones(len(names))
    return Elements(
        names=tuple(names),
        epoch=epoch,
        mean_motion_rad_min=same * kozai_mean_motion_rad_min(semi_major_axis_km, inclination_rad),
        eccentricity=0.0 * same,
        inclination_rad=same * inclination_rad,
        raan_rad=np.asarray(raan_rad) % TURN_RAD,
        arg_perigee_rad=0.0 * same,
        mean_anomaly_rad=np.asarray(arg_lat_rad) % TURN_RAD,
    )
