"""Walker patterns: where the ascending nodes and the satellites of a shell lie."""

from __future__ import annotations

import math

import numpy as np

from isl_emu.scenario.model import Walker

RAAN_SPREAD_RAD = {"delta": 2 * math.pi, "star": math.pi}


def plane_spacing_rad(walker: Walker) -> float:
    """The difference in RAAN between adjacent planes."""
    spread_rad = RAAN_SPREAD_RAD[walker.pattern] if walker.raan_spread_rad is None else walker.raan_spread_rad
    return spread_rad / walker.planes


def slot_spacing_rad(walker: Walker) -> float:
    """The difference in argument of latitude between neighbours in one plane."""
    return 2 * math.pi / walker.slots


def phase_spacing_rad(walker: Walker) -> float:
    """The difference in argument of latitude between equal slots of the first and second plane, f x 360/t deg."""
    if walker.alternate == "half-slot":
        return slot_spacing_rad(walker) / 2
    return walker.phasing * 2 * math.pi / walker.total


def plane_phase_rad(walker: Walker, plane: int | np.ndarray) -> float | np.ndarray:
    """How far slot 0 of a plane is ahead of slot 0 of plane 0 in argument of latitude."""
    return (plane % 2 if walker.alternate else plane) * phase_spacing_rad(walker)


def walker_angles(walker: Walker) -> tuple[np.ndarray, np.ndarray]:
    """The places of all satellites, relative to the one in plane 0, slot 0.

    Returns:
        RAAN and argument of latitude in rad, each of shape (P, S); not reduced to one turn.

    Source: J. G. Walker, Satellite constellations, Journal of the British Interplanetary Society 37, 1984.
    """
    plane = np.arange(walker.planes)[:, np.newaxis]
    slot = np.arange(walker.slots)[np.newaxis, :]
    raan_rad = plane * plane_spacing_rad(walker) + 0.0 * slot
    arg_lat_rad = slot * slot_spacing_rad(walker) + plane_phase_rad(walker, plane)
    return raan_rad, arg_lat_rad
