"""How the Sun shines on satellites over time: on their panels, and on the ground below them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from isl_emu.arrays import unit
from isl_emu.geometry.elements import EARTH_RADIUS_KM, Elements, constellation_elements
from isl_emu.geometry.orbits import propagate
from isl_emu.geometry.pointing import VELOCITY_STEP_NS, local_axes, velocity_km_s
from isl_emu.geometry.sunlight import in_shadow, sun_direction
from isl_emu.scenario.model import Orbits, Scenario

POSITIONS_AT_ONCE = 200_000  # satellites x instants held in memory together: about 40 MB with what is derived
MOUNTS = {  # a panel's normal by its components fore, starboard and zenith
    "fore": (1.0, 0.0, 0.0),
    "aft": (-1.0, 0.0, 0.0),
    "starboard": (0.0, 1.0, 0.0),
    "port": (0.0, -1.0, 0.0),
    "zenith": (0.0, 0.0, 1.0),
    "nadir": (0.0, 0.0, -1.0),
}


@dataclass(frozen=True)
class Sunshine:
    """The Sun on N satellites at K instants; arrays of shape (K, N).

    Args:
        sunlit: the satellite is outside the Earth's shadow, bool.
        incidence: cosine between the panel's normal and the Sun, 0 in the shadow or with the Sun behind it, float32.
        albedo: how high the Sun stands over the ground below, as a cosine, 0 where it is night there, float32.
    """

    sunlit: np.ndarray
    incidence: np.ndarray
    albedo: np.ndarray


def find_sunshine(
    scenario: Scenario, start: datetime, offsets_ns: np.ndarray, chosen: np.ndarray, pointing: Sequence[str]
) -> Sunshine:
    """The Sun on some satellites of a scenario.

    The Earth's shadow is a cylinder, so the penumbra (some 8 s in low orbits) is neglected. The state of an instant
    holds until the next: an eclipse begins and ends at instants. A satellite without a position has no Sun.

    Args:
        start: UTC.
        offsets_ns: instants in ns since `start`, shape (K,).
        chosen: numbers of the N satellites.
        pointing: of each one's panel: "sun", or a mount of `MOUNTS`.
    """
    elements, count = constellation_elements(scenario), len(scenario.satellite_names)
    at_once = max(1, POSITIONS_AT_ONCE // count)
    chunks = [offsets_ns[first : first + at_once] for first in range(0, len(offsets_ns), at_once)]
    parts = [_chunk(elements, scenario.orbits, start, t_ns, chosen, pointing) for t_ns in chunks]
    return Sunshine(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def eclipse_ratio(altitude_km: float, beta_rad: float) -> float:
    """The share of a circular orbit that is in the Earth's cylindrical shadow.

    Args:
        beta_rad: angle between the orbit's plane and the Sun.

    Source: D. Vallado, Fundamentals of Astrodynamics and Applications, 4th edition, section 5.3.
    """
    radius = 1.0 + altitude_km / EARTH_RADIUS_KM
    depth = np.sqrt(radius**2 - 1.0) / (radius * np.cos(beta_rad))
    return float(np.arccos(np.clip(depth, -1.0, 1.0)) / np.pi)


def _chunk(
    elements: Elements,
    orbits: Orbits,
    start: datetime,
    t_ns: np.ndarray,
    chosen: np.ndarray,
    pointing: Sequence[str],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sunlit, incidence and albedo at some instants."""
    r_km = propagate(elements, start, t_ns, orbits)[:, chosen]
    sun = sun_direction(start, t_ns)[:, np.newaxis]
    known = np.isfinite(r_km[..., 0])
    sunlit = known & ~in_shadow(r_km, sun)
    incidence = sunlit.astype(np.float32)
    if fixed := [n for n, mount in enumerate(pointing) if mount != "sun"]:
        later_km = propagate(elements, start, t_ns + VELOCITY_STEP_NS, orbits)[:, chosen[fixed]]
        axes = local_axes(r_km[:, fixed], velocity_km_s(r_km[:, fixed], later_km))
        normal = np.einsum("knij,ni->knj", axes, np.array([MOUNTS[pointing[n]] for n in fixed]))
        cosine = np.einsum("knj,kmj->kn", normal, sun)
        incidence[:, fixed] *= np.clip(np.nan_to_num(cosine), 0.0, 1.0)
    albedo = np.clip(np.nan_to_num(np.einsum("knj,kmj->kn", unit(r_km), sun)), 0.0, 1.0)
    return sunlit, incidence, albedo.astype(np.float32)
