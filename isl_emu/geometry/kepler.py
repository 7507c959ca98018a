"""Kepler's ellipse, turned by the secular rates that J2 gives it: fast, and coarser than SGP4."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from isl_emu.geometry.elements import EARTH_RADIUS_WGS72_KM, J2, XKE, Elements, kozai_correction

MIN_PER_DAY = 1440.0
SETTLED_RAD = 1e-13  # a change of the eccentric anomaly by which Newton's method has converged
MOST_ROUNDS = 50
NO_ELLIPSE, UNDERGROUND = 1, 8  # the first as SGP4 numbers its errors, the second beyond its numbers


def kepler_j2_km(elements: Elements, since_day: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions on ellipses whose node, perigee and mean anomaly drift at the first-order secular rates of J2.

    Neglects what SGP4 adds: J2's short-period swing (up to 11 km in low orbits), J3's long-period one, drag, the Sun
    and the Moon. `docs/limits.md` states the difference. The mean motion is SGP4's Brouwer one, so nothing else drifts
    apart within a day.

    Args:
        elements: of the N satellites; `bstar` is not used.
        since_day: K instants in days after the common epoch, shape (K,).

    Returns:
        km in TEME, shape (K, N, 3), and error codes, shape (K, N): `NO_ELLIPSE`, `UNDERGROUND`, or 0 where the position
        is good.

    Source: D. Vallado, Fundamentals of Astrodynamics and Applications, 4th edition, section 9.6 and algorithm 2.
    """
    usable = elements.eccentricity < 1.0
    eccentricity = np.where(usable, elements.eccentricity, 0.0)
    semi_major_axis_km, rates = secular_rates(elements)
    since_min = (since_day[:, np.newaxis] - elements.epoch_day) * MIN_PER_DAY
    raan_rad = elements.raan_rad + rates.raan_rad_min * since_min
    arg_perigee_rad = elements.arg_perigee_rad + rates.arg_perigee_rad_min * since_min
    mean_anomaly_rad = elements.mean_anomaly_rad + rates.mean_anomaly_rad_min * since_min
    anomaly_rad = eccentric_anomaly_rad(mean_anomaly_rad, eccentricity)
    x_km = semi_major_axis_km * (np.cos(anomaly_rad) - eccentricity)  # towards the perigee
    y_km = semi_major_axis_km * np.sqrt(1.0 - eccentricity**2) * np.sin(anomaly_rad)
    across_km, along_km = _turned(x_km, y_km, arg_perigee_rad)
    r_km = np.empty((*since_min.shape, 3))
    r_km[..., 0], r_km[..., 1] = _turned(across_km, along_km * np.cos(elements.inclination_rad), raan_rad)
    r_km[..., 2] = along_km * np.sin(elements.inclination_rad)
    below_ground = np.hypot(x_km, y_km) < EARTH_RADIUS_WGS72_KM
    return r_km, np.where(usable, np.where(below_ground, UNDERGROUND, 0), NO_ELLIPSE)


@dataclass(frozen=True)
class SecularRates:
    """How fast N orbits turn and are flown, rad/min; arrays of shape (N,)."""

    raan_rad_min: np.ndarray
    arg_perigee_rad_min: np.ndarray
    mean_anomaly_rad_min: np.ndarray


def secular_rates(elements: Elements) -> tuple[np.ndarray, SecularRates]:
    """The Brouwer semi-major axes in km, shape (N,), and the first-order secular rates by J2."""
    eccentricity = np.where(elements.eccentricity < 1.0, elements.eccentricity, 0.0)
    cos_i, axis_ratio2 = np.cos(elements.inclination_rad), 1.0 - eccentricity**2
    d1 = 0.75 * J2 * (3.0 * cos_i**2 - 1.0) / axis_ratio2**1.5
    mean_motion = elements.mean_motion_rad_min / (1.0 + kozai_correction(elements.mean_motion_rad_min, d1))
    semi_major_axis = (XKE / mean_motion) ** (2.0 / 3.0)  # Earth radii
    j2_rate = 1.5 * J2 * mean_motion / (semi_major_axis * axis_ratio2) ** 2
    return semi_major_axis * EARTH_RADIUS_WGS72_KM, SecularRates(
        raan_rad_min=-j2_rate * cos_i,
        arg_perigee_rad_min=0.5 * j2_rate * (5.0 * cos_i**2 - 1.0),
        mean_anomaly_rad_min=mean_motion + 0.5 * j2_rate * np.sqrt(axis_ratio2) * (3.0 * cos_i**2 - 1.0),
    )


def eccentric_anomaly_rad(mean_anomaly_rad: np.ndarray, eccentricity: np.ndarray) -> np.ndarray:
    """The solution E of Kepler's equation E - e sin E = M, for ellipses, by Newton's method.

    Args:
        mean_anomaly_rad: any shape; of any turn.
        eccentricity: 0 <= e < 1, of a shape that fits.

    Returns:
        rad within half a turn of 0, shape of both.

    Source: J. M. A. Danby, Fundamentals of Celestial Mechanics, section 6.6, for where to begin.
    """
    mean_rad = np.remainder(mean_anomaly_rad + np.pi, 2 * np.pi) - np.pi
    if not np.any(eccentricity):
        return mean_rad
    found_rad = mean_rad + 0.85 * eccentricity * np.sign(mean_rad)
    for _ in range(MOST_ROUNDS):
        step_rad = (found_rad - eccentricity * np.sin(found_rad) - mean_rad) / (1.0 - eccentricity * np.cos(found_rad))
        found_rad -= step_rad
        if not np.any(np.abs(step_rad) > SETTLED_RAD):
            break
    return found_rad


def _turned(x: np.ndarray, y: np.ndarray, angle_rad: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A vector turned from the first axis toward the second."""
    cos, sin = np.cos(angle_rad), np.sin(angle_rad)
    return x * cos - y * sin, x * sin + y * cos
