"""Mean elements of satellites in the sense of SGP4, made from the shells of a scenario.

Patterns hold at the scenario's epoch; satellites with a TLE or an epoch of their own hold at theirs.

A shell's altitude is its semi-major axis minus 6,378.137 km (WGS84), and the semi-major axis is the Brouwer one that
SGP4 works with. The radius at a moment differs from it by up to 11 km in low orbits: J2 shifts it and makes it swing
twice a revolution, J3 once. Neighbours 30 deg apart are so up to 5.2 km (17 us) nearer or further than on a circle.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta, timezone
from typing import overload

import numpy as np
from sgp4.api import WGS72, Satrec
from sgp4.earth_gravity import wgs72

from isl_emu.arrays import Floats
from isl_emu.errors import ScenarioError
from isl_emu.geometry.sun import raan_of_local_time_rad
from isl_emu.geometry.walker import walker_angles
from isl_emu.scenario.model import Satellite, Scenario, Shell, Walker

TURN_RAD = 2 * math.pi
DAY = timedelta(days=1)
REV_DAY_RAD_MIN = TURN_RAD / 1440
SGP4_EPOCH = datetime(1949, 12, 31, tzinfo=timezone.utc)  # day 0 of sgp4init
SGP4_EPOCH_JD = 2_433_281.5
# as SGP4 has them, from the package sgp4: the radius that goes with its constants, rad per minute at it, and J2
EARTH_RADIUS_WGS72_KM: float = wgs72.radiusearthkm
XKE: float = wgs72.xke
J2: float = wgs72.j2
EARTH_RADIUS_KM = 6_378.137  # equatorial, WGS84, NIMA TR8350.2
SUN_SYNCHRONOUS_SCALE_KM = 12_352.0  # cos i = -(a / this)^(7/2) makes J2 turn a circular orbit once a year


def _none_given() -> Floats:
    return np.empty(0)


@dataclass(frozen=True, eq=False)  # by identity: arrays have no one truth value, and what follows from them is kept
class Elements:
    """SGP4 mean elements of N satellites.

    Arrays have shape (N,); angles in rad. `mean_motion_rad_min` is the Kozai mean motion, as in a TLE. Elements of
    satellite n hold `epoch_day[n]` days after `epoch`. `bstar` is SGP4's drag term per Earth radius. Both are 0 unless
    given.
    """

    names: tuple[str, ...]
    epoch: datetime
    mean_motion_rad_min: np.ndarray
    eccentricity: np.ndarray
    inclination_rad: np.ndarray
    raan_rad: np.ndarray
    arg_perigee_rad: np.ndarray
    mean_anomaly_rad: np.ndarray
    bstar: np.ndarray = field(default_factory=_none_given)
    epoch_day: np.ndarray = field(default_factory=_none_given)

    def __post_init__(self) -> None:
        for name in ("bstar", "epoch_day"):
            if not len(getattr(self, name)):
                object.__setattr__(self, name, np.zeros(len(self.names)))
        for column in fields(self)[2:]:
            getattr(self, column.name).setflags(write=False)


def constellation_elements(scenario: Scenario) -> Elements:
    """Elements of all satellites of `scenario`, in the order of `scenario.satellite_names`.

    Raises:
        ScenarioError: a shell asks for a sun-synchronous orbit where there is none, or its file has not been read.
    """
    names = scenario.satellite_names
    shells, first = [], 0
    for shell in scenario.shell:
        shells.append(shell_elements(shell, names[first : first + shell.count], scenario.epoch))
        first += shell.count
    return _joined(shells)


def shell_elements(shell: Shell, names: Sequence[str], epoch: datetime) -> Elements:
    """Elements of the satellites of one shell, by plane and slot, or as they are given.

    Args:
        names: of all its satellites.
        epoch: when a pattern's elements hold, and those of a satellite without an epoch.

    Raises:
        ScenarioError: the shell asks for a sun-synchronous orbit where there is none, or its file has not been read.
    """
    if not shell.resolved:
        raise ScenarioError(
            f"shell {shell.name}: its satellites are in the file {shell.tle or shell.omm}, but it has not been read; "
            f"load the scenario from its file"
        )
    if shell.walker:
        return _pattern_elements(shell, shell.walker, names, epoch)
    rows = [_tle_row(one.tle, epoch) if one.tle else _element_row(one, epoch) for one in shell.satellite]
    return Elements(tuple(names), epoch, *np.array(rows, dtype=float).T.copy())


def _pattern_elements(shell: Shell, walker: Walker, names: Sequence[str], epoch: datetime) -> Elements:
    """Elements of a Walker pattern; on an ellipse its slots are equally spaced in mean anomaly."""
    raan_rad, arg_lat_rad = walker_angles(walker)
    first_raan_rad = shell.raan_rad if shell.ltan is None else raan_of_local_time_rad(shell.ltan, epoch)
    mean_arg_lat_rad = arg_lat_rad.ravel() + shell.arg_lat_rad
    same, inclination_rad = np.ones(len(names)), shell_inclination_rad(shell)
    if shell.mean_motion_rev_day is not None:
        mean_motion_rad_min = shell.mean_motion_rev_day * REV_DAY_RAD_MIN
    else:
        semi_major_axis_km = _shell_semi_major_axis_km(shell)
        mean_motion_rad_min = kozai_mean_motion_rad_min(semi_major_axis_km, inclination_rad, shell.eccentricity)
    return Elements(
        names=tuple(names),
        epoch=epoch,
        mean_motion_rad_min=same * mean_motion_rad_min,
        eccentricity=same * shell.eccentricity,
        inclination_rad=same * inclination_rad,
        raan_rad=(raan_rad.ravel() + first_raan_rad) % TURN_RAD,
        arg_perigee_rad=same * (shell.arg_perigee_rad % TURN_RAD),
        mean_anomaly_rad=(mean_arg_lat_rad - shell.arg_perigee_rad) % TURN_RAD,
    )


def _element_row(satellite: Satellite, epoch: datetime) -> tuple[float, ...]:
    """The numbers of one satellite, in the order of the arrays of `Elements`."""
    inclination_rad = satellite.inclination_rad or 0.0
    if satellite.mean_motion_rev_day is not None:
        mean_motion_rad_min = satellite.mean_motion_rev_day * REV_DAY_RAD_MIN
    else:
        semi_major_axis_km = satellite.semi_major_axis_km or EARTH_RADIUS_KM + (satellite.altitude_km or 0.0)
        mean_motion_rad_min = kozai_mean_motion_rad_min(semi_major_axis_km, inclination_rad, satellite.eccentricity)
    return (
        mean_motion_rad_min,
        satellite.eccentricity,
        inclination_rad,
        satellite.raan_rad % TURN_RAD,
        satellite.arg_perigee_rad % TURN_RAD,
        satellite.mean_anomaly_rad % TURN_RAD,
        satellite.bstar,
        0.0 if satellite.epoch is None else (satellite.epoch - epoch) / DAY,
    )


def _tle_row(lines: tuple[str, str], epoch: datetime) -> tuple[float, ...]:
    """The same of a TLE, whose epoch need not be a whole microsecond."""
    tle = Satrec.twoline2rv(*lines, WGS72)
    day, fraction = julian_date(epoch)
    epoch_day = (tle.jdsatepoch - day) + (tle.jdsatepochF - fraction)
    return (tle.no_kozai, tle.ecco, tle.inclo, tle.nodeo, tle.argpo, tle.mo, tle.bstar, epoch_day)


def julian_date(moment: datetime) -> tuple[float, float]:
    """The Julian date of a UTC moment as a day that begins at midnight (so it ends in .5), and the fraction of it."""
    since = moment - SGP4_EPOCH
    return SGP4_EPOCH_JD + since.days, (since - timedelta(days=since.days)) / DAY


def shell_inclination_rad(shell: Shell) -> float:
    """The inclination of a shell with a pattern, worked out where the scenario says "sun-synchronous".

    Raises:
        ScenarioError: no orbit of the shell's size is sun-synchronous.
    """
    if isinstance(shell.inclination_rad, float):
        return shell.inclination_rad
    semi_major_axis_km = _shell_semi_major_axis_km(shell)
    semi_latus_ratio = 1.0 - shell.eccentricity**2
    highest_km = SUN_SYNCHRONOUS_SCALE_KM * semi_latus_ratio ** (-4 / 7)
    if semi_major_axis_km > highest_km:
        raise ScenarioError(
            f"shell {shell.name}: altitude is {semi_major_axis_km - EARTH_RADIUS_KM:g} km, but no "
            f"{'elliptic' if shell.eccentricity else 'circular'} orbit above {highest_km - EARTH_RADIUS_KM:.0f} km is "
            f"sun-synchronous; lower it or give the inclination as an angle"
        )
    return math.acos(-((semi_major_axis_km / SUN_SYNCHRONOUS_SCALE_KM) ** 3.5) * semi_latus_ratio**2)


def _shell_semi_major_axis_km(shell: Shell) -> float:
    """From the altitude, or from the mean motion by Kepler's third law: within a thousandth, and so is its use."""
    if shell.mean_motion_rev_day is None:
        return EARTH_RADIUS_KM + (shell.altitude_km or 0.0)
    return EARTH_RADIUS_WGS72_KM * math.pow(XKE / (shell.mean_motion_rev_day * REV_DAY_RAD_MIN), 2 / 3)


def kozai_mean_motion_rad_min(semi_major_axis_km: float, inclination_rad: float, eccentricity: float = 0.0) -> float:
    """The mean motion that a TLE would carry so that SGP4 recovers the given Brouwer semi-major axis.

    SGP4 turns the Kozai mean motion of a TLE into a Brouwer one; this is the inverse, by fixed-point iteration: the
    correction is a thousandth and changes by a millionth a round, so it settles in a few.

    Returns:
        rad/min; nan for what is no ellipse.

    Source: D. Vallado et al., Revisiting Spacetrack Report #3, AIAA 2006-6753, routine initl.
    """
    if eccentricity >= 1.0:
        return math.nan
    brouwer_rad_min = XKE * math.pow(semi_major_axis_km / EARTH_RADIUS_WGS72_KM, -1.5)
    d1 = 0.75 * J2 * (3.0 * math.cos(inclination_rad) ** 2 - 1.0) / (1.0 - eccentricity**2) ** 1.5
    kozai_rad_min = brouwer_rad_min
    for _ in range(20):
        kozai_rad_min = brouwer_rad_min * (1.0 + kozai_correction(kozai_rad_min, d1))
    return kozai_rad_min


@overload
def kozai_correction(kozai_rad_min: float, d1: float) -> float: ...


@overload
def kozai_correction(kozai_rad_min: Floats, d1: Floats) -> Floats: ...


def kozai_correction(kozai_rad_min: float | Floats, d1: float | Floats) -> float | Floats:
    """SGP4's relative difference between the Kozai and the Brouwer mean motion."""
    ak = (XKE / kozai_rad_min) ** (2.0 / 3.0)
    delta = d1 / ak**2
    adel = ak * (1.0 - delta**2 - delta * (1.0 / 3.0 + 134.0 * delta**2 / 81.0))
    return d1 / adel**2


def _joined(parts: Sequence[Elements]) -> Elements:
    """One record of several of the same epoch."""
    names = tuple(name for part in parts for name in part.names)
    arrays = [column.name for column in fields(Elements)[2:]]
    joined = [np.concatenate([getattr(part, array) for part in parts]) for array in arrays]
    return Elements(names, parts[0].epoch, *joined)
