"""What geometry allows: which candidate links could be up, instant by instant, before anybody points at them.

To add a constraint: a function here, its name in `CONSTRAINTS`, and the key that it reads (`LaserCandidates.limit`) in
`LaserTerms` of `scenario/lasers.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from isl_emu.arrays import Bools, unit
from isl_emu.geometry.pointing import frame_rate_rad_s, sight_rate_rad_s
from isl_emu.geometry.sightline import grazing_altitude_km, range_km
from isl_emu.geometry.sunlight import in_shadow
from isl_emu.linkplan.candidates import LaserCandidates
from isl_emu.linkplan.plan import LinkKind


def _of_all_instants(compute: Callable[[Ephemeris], np.ndarray]) -> cached_property[np.ndarray]:
    """A property of K instants, computed for all of them at once: an instant alone takes its own from the whole."""

    def find(sky: Ephemeris) -> np.ndarray:
        if sky.whole is None:
            return compute(sky)
        whole, some = sky.whole
        found: np.ndarray = getattr(whole, compute.__name__)[some]
        return found

    find.__doc__ = compute.__doc__
    return cached_property(find)


@dataclass(frozen=True)
class Ephemeris:
    """N satellites at K instants; what only some constraints need is computed when they ask for it."""

    t_ns: np.ndarray  # int64 (K,), since the start of the run
    r_km: np.ndarray  # (K, N, 3), TEME
    velocities: Callable[[], np.ndarray]
    suns: Callable[[], np.ndarray]
    whole: tuple[Ephemeris, slice] | None = None  # whose instants these are some of

    def at(self, i: int) -> Ephemeris:
        """The i-th instant alone."""
        one = slice(i, i + 1)
        return Ephemeris(self.t_ns[one], self.r_km[one], self.velocities, self.suns, (self, one))

    @_of_all_instants
    def v_km_s(self) -> np.ndarray:
        """Velocities, shape (K, N, 3), TEME."""
        return self.velocities()

    @_of_all_instants
    def frame_rad_s(self) -> np.ndarray:
        """How the local orbital frames turn, shape (K, N, 3), TEME."""
        return frame_rate_rad_s(self.r_km, self.v_km_s)

    @_of_all_instants
    def sin_latitude(self) -> np.ndarray:
        """Of the geocentric latitudes, without their sign, shape (K, N)."""
        return np.abs(unit(self.r_km)[..., 2])

    @_of_all_instants
    def sun(self) -> np.ndarray:
        """Unit vectors to the Sun, shape (K, 3), TEME."""
        return self.suns()

    @_of_all_instants
    def lit(self) -> np.ndarray:
        """Whether the Sun shines on the satellites, bool, shape (K, N)."""
        return ~in_shadow(self.r_km, self.sun[:, np.newaxis])


def below_polar_cutoff(lasers: LaserCandidates, sky: Ephemeris, up: Bools) -> Bools:
    """Links between planes need both ends below a geocentric latitude; those within a plane do not care."""
    if not lasers.limited("polar_cutoff_rad"):
        return up
    limit_rad = lasers.limit("polar_cutoff_rad", np.pi)
    which = np.flatnonzero((limit_rad < np.pi / 2) & (lasers.kind != LinkKind.INTRA_PLANE))
    if len(which):
        highest = np.maximum(sky.sin_latitude[:, lasers.a[which]], sky.sin_latitude[:, lasers.b[which]])
        up[:, which] &= highest <= np.sin(limit_rad[which])
    return up


def clear_of_the_sun(lasers: LaserCandidates, sky: Ephemeris, up: Bools) -> Bools:
    """No receiver may look closer to the Sun than allowed, unless the Earth hides the Sun from it."""
    if not lasers.limited("sun_exclusion_rad"):
        return up
    limit_rad = lasers.limit("sun_exclusion_rad", 0.0)
    which = np.flatnonzero(limit_rad > 0)
    if len(which):
        a_km, b_km = sky.r_km[:, lasers.a[which]], sky.r_km[:, lasers.b[which]]
        towards_sun = np.einsum("kci,ki->kc", unit(b_km - a_km), sky.sun)
        least = np.cos(limit_rad[which])
        a_lit, b_lit = sky.lit[:, lasers.a[which]], sky.lit[:, lasers.b[which]]
        dazzled = (towards_sun > least) & a_lit | (-towards_sun > least) & b_lit
        up[:, which] &= ~dazzled
    return up


def slow_enough(lasers: LaserCandidates, sky: Ephemeris, up: Bools) -> Bools:
    """Neither end may have to turn its terminal faster than it can."""
    if not lasers.limited("max_angular_rate_rad_s"):
        return up
    limit_rad_s = lasers.limit("max_angular_rate_rad_s", np.inf)
    which = np.flatnonzero(np.isfinite(limit_rad_s))
    if len(which):
        a, b = lasers.a[which], lasers.b[which]
        sight_km, drift_km_s = sky.r_km[:, b] - sky.r_km[:, a], sky.v_km_s[:, b] - sky.v_km_s[:, a]
        frames_rad_s = np.stack([sky.frame_rad_s[:, a], sky.frame_rad_s[:, b]])
        up[:, which] &= sight_rate_rad_s(frames_rad_s, sight_km, drift_km_s).max(axis=0) <= limit_rad_s[which]
    return up


Constraint = Callable[[LaserCandidates, Ephemeris, Bools], Bools]
"""Which candidates are left of those that are up, of shape (K, C); it may change that array."""
CONSTRAINTS: tuple[Constraint, ...] = (below_polar_cutoff, clear_of_the_sun, slow_enough)


def feasible(lasers: LaserCandidates, sky: Ephemeris) -> tuple[np.ndarray, np.ndarray]:
    """Which candidates are within all limits of their terms, and how long they are.

    Returns:
        bool and km, each of shape (K, C).
    """
    a_km, b_km = sky.r_km[:, lasers.a], sky.r_km[:, lasers.b]
    distance_km = range_km(a_km, b_km)
    up = (distance_km <= lasers.max_range_km) & (grazing_altitude_km(a_km, b_km) >= lasers.grazing_altitude_km)
    for constraint in CONSTRAINTS:
        up = constraint(lasers, sky, up)
    return up, distance_km
