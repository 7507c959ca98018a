"""Mean elements of satellites in the sense of SGP4, made from the shells of a scenario.

A shell's altitude is its semi-major axis minus 6,378.137 km (WGS84), and the semi-major axis is the Brouwer one that
SGP4 works with. The radius at a moment differs from it by up to 11 km in low orbits: J2 shifts it and makes it swing
twice a revolution, J3 once. Neighbours 30 deg apart are so up to 5.2 km (17 us) nearer or further than on a circle.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime

import numpy as np
from sgp4.earth_gravity import wgs72

from isl_emu.errors import ScenarioError
from isl_emu.geometry.sun import raan_of_local_time_rad
from isl_emu.geometry.walker import walker_angles
from isl_emu.scenario.model import Scenario, Shell

EARTH_RADIUS_KM = 6_378.137  # equatorial, WGS84, NIMA TR8350.2
SUN_SYNCHRONOUS_SCALE_KM = 12_352.0  # cos i = -(a / this)^(7/2) makes J2 turn a circular orbit once a year


@dataclass(frozen=True)
class Elements:
    """SGP4 mean elements of N satellites at one epoch; no drag (B* is 0).

    Arrays have shape (N,); angles in rad. `mean_motion_rad_min` is the Kozai mean motion, as in a TLE.
    """

    names: tuple[str, ...]
    epoch: datetime
    mean_motion_rad_min: np.ndarray
    eccentricity: np.ndarray
    inclination_rad: np.ndarray
    raan_rad: np.ndarray
    arg_perigee_rad: np.ndarray
    mean_anomaly_rad: np.ndarray

    def __post_init__(self) -> None:
        for field in fields(self)[2:]:
            getattr(self, field.name).setflags(write=False)


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
        raan_rad=np.asarray(raan_rad) % (2 * math.pi),
        arg_perigee_rad=0.0 * same,
        mean_anomaly_rad=np.asarray(arg_lat_rad) % (2 * math.pi),
    )


def constellation_elements(scenario: Scenario) -> Elements:
    """Elements of all satellites of `scenario` at its start, in the order of `scenario.satellite_names`.

    Raises:
        ScenarioError: a shell asks for a sun-synchronous orbit where there is none.
    """
    names = scenario.satellite_names
    shells, first = [], 0
    for shell in scenario.shell:
        shells.append(shell_elements(shell, names[first : first + shell.walker.total], scenario.time.start))
        first += shell.walker.total
    return _joined(shells)


def shell_elements(shell: Shell, names: Sequence[str], epoch: datetime) -> Elements:
    """Elements of the satellites of one shell at `epoch`, by plane and slot.

    Raises:
        ScenarioError: the shell asks for a sun-synchronous orbit where there is none.
    """
    raan_rad, arg_lat_rad = walker_angles(shell.walker)
    first_raan_rad = shell.raan_rad if shell.ltan is None else raan_of_local_time_rad(shell.ltan, epoch)
    return circular_elements(
        names,
        epoch,
        EARTH_RADIUS_KM + shell.altitude_km,
        shell_inclination_rad(shell),
        raan_rad.ravel() + first_raan_rad,
        arg_lat_rad.ravel() + shell.arg_lat_rad,
    )


def shell_inclination_rad(shell: Shell) -> float:
    """The inclination of a shell, worked out where the scenario says "sun-synchronous".

    Raises:
        ScenarioError: no circular orbit of the shell's altitude is sun-synchronous.
    """
    if shell.inclination_rad != "sun-synchronous":
        return float(shell.inclination_rad)
    semi_major_axis_km = EARTH_RADIUS_KM + shell.altitude_km
    if semi_major_axis_km > SUN_SYNCHRONOUS_SCALE_KM:
        highest_km = SUN_SYNCHRONOUS_SCALE_KM - EARTH_RADIUS_KM
        raise ScenarioError(
            f"shell {shell.name}: altitude is {shell.altitude_km:g} km, but no circular orbit above "
            f"{highest_km:.0f} km is sun-synchronous; lower it or give the inclination as an angle"
        )
    return math.acos(-((semi_major_axis_km / SUN_SYNCHRONOUS_SCALE_KM) ** 3.5))


def kozai_mean_motion_rad_min(semi_major_axis_km: float, inclination_rad: float) -> float:
    """The mean motion that a TLE would carry so that SGP4 recovers the given Brouwer semi-major axis (circular orbit).

    SGP4 turns the Kozai mean motion of a TLE into a Brouwer one; this is the inverse, by fixed-point iteration: the
    correction is a thousandth and changes by a millionth a round, so it settles in a few.

    Source: D. Vallado et al., Revisiting Spacetrack Report #3, AIAA 2006-6753, routine initl.
    """
    brouwer_rad_min = wgs72.xke * (semi_major_axis_km / wgs72.radiusearthkm) ** -1.5
    d1 = 0.75 * wgs72.j2 * (3.0 * math.cos(inclination_rad) ** 2 - 1.0)
    kozai_rad_min = brouwer_rad_min
    for _ in range(20):
        kozai_rad_min = brouwer_rad_min * (1.0 + _kozai_correction(kozai_rad_min, d1))
    return kozai_rad_min


def _kozai_correction(kozai_rad_min: float, d1: float) -> float:
    """SGP4's relative difference between the Kozai and the Brouwer mean motion."""
    ak = (wgs72.xke / kozai_rad_min) ** (2.0 / 3.0)
    delta = d1 / ak**2
    adel = ak * (1.0 - delta**2 - delta * (1.0 / 3.0 + 134.0 * delta**2 / 81.0))
    return d1 / adel**2


def _joined(parts: Sequence[Elements]) -> Elements:
    """One record of several of the same epoch."""
    names = tuple(name for part in parts for name in part.names)
    arrays = [field.name for field in fields(Elements)[2:]]
    joined = [np.concatenate([getattr(part, array) for part in parts]) for array in arrays]
    return Elements(names, parts[0].epoch, *joined)
