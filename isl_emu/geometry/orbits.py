"""Positions of satellites, for all satellites and instants at once, by SGP4 or by Kepler with J2's secular rates.

Everything in a run lives in one frame, TEME of date, the one that SGP4 computes in; `frames` brings the ground
stations into it.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from functools import lru_cache

import numpy as np
from sgp4.api import SGP4_ERRORS, WGS72, Satrec, SatrecArray

from isl_emu.errors import ScenarioError
from isl_emu.geometry.elements import (
    DAY,
    EARTH_RADIUS_WGS72_KM,
    SGP4_EPOCH_JD,
    TURN_RAD,
    Elements,
    constellation_elements,
    julian_date,
)
from isl_emu.geometry.kepler import NO_ELLIPSE, UNDERGROUND, kepler_j2_km, secular_rates
from isl_emu.scenario.model import Orbits, Scenario
from isl_emu.units import NS_PER_S, seconds_text

NS_PER_DAY = 86_400 * NS_PER_S
POSITIONS_AT_ONCE = 500_000  # satellites x instants that are propagated together to look for those without any
STRICT_SGP4 = Orbits()
SCAN_DAY = 0.1  # between epoch and run: about one revolution and a half of a low orbit
MOST_SCANNED = 100_000  # instants; 27 years, beyond any element set
LOOKS = 100  # of a check at a run
ASTRAY = 7  # a code of our own, after SGP4's: a position that no orbit with these elements has
RESONANT_MIN = 225.0  # from this period on SGP4 adds the pull of Sun and Moon, which changes the eccentricity
DRAG_SPREAD, SWING_KM = 1.1, 200.0  # of the highest range in a low orbit: drag backwards in time, short-period terms
EPOCHS_IN_CACHE = 32_768  # satellites x instants of one call to SGP4: 2 MB, which is put in order in the cache


def propagate(elements: Elements, start: datetime, offsets_ns: np.ndarray, orbits: Orbits = STRICT_SGP4) -> np.ndarray:
    """Positions of N satellites at K instants.

    SGP4 uses the WGS72 constants, as elements in its sense demand. For elements of a real satellite it is good to about
    a kilometre at their epoch and loses one to three a day; of a pattern the elements are exact. "kepler_j2" is
    described in `kepler_j2_km`.

    Args:
        elements: of the N satellites.
        start: UTC.
        offsets_ns: instants in ns since `start`, shape (K,).
        orbits: the propagator, and what happens where it has no position.

    Returns:
        km in TEME, shape (K, N, 3); nan where there is no position, if `orbits.on_bad` is "mask".

    Raises:
        ScenarioError: a satellite has no position, for example because it has decayed, and `on_bad` is "error".
    """
    r_km, errors = find_positions(elements, start, offsets_ns, orbits)
    if errors.any():
        if orbits.on_bad == "error":
            raise ScenarioError(*_refusals(elements, errors, offsets_ns))
        r_km[errors > 0] = np.nan
    return r_km


def find_positions(
    elements: Elements, start: datetime, offsets_ns: np.ndarray, orbits: Orbits
) -> tuple[np.ndarray, np.ndarray]:
    """Positions, shape (K, N, 3), and error codes, shape (K, N), 0, SGP4's or ours; one with a code is of no use.

    SGP4's code is not monotone in time: long after an orbit has decayed it gives positions again. So an orbit that has
    failed anywhere between its own epoch and an instant has failed at that instant.
    """
    since_day = days_since_epoch(elements, start, offsets_ns)
    if orbits.propagator == "kepler_j2":
        return kepler_j2_km(elements, since_day)
    r_km, errors = sgp4_km(elements, since_day)
    if not len(since_day):
        return r_km, errors
    errors = _with_sense(errors, r_km, _highest_km(elements))
    first, last = int(np.floor(since_day[0] / SCAN_DAY)), int(np.ceil(since_day[-1] / SCAN_DAY))
    before = _failed_before(elements, first, last)  # the same for all chunks of a tenth of a day
    later = since_day[:, np.newaxis] >= elements.epoch_day
    errors = np.where(before > 0, before, errors)
    errors = np.maximum(errors, np.maximum.accumulate(np.where(later, errors, 0), axis=0))
    return r_km, np.maximum(errors, np.maximum.accumulate(np.where(later, 0, errors)[::-1], axis=0)[::-1])


@lru_cache(maxsize=64)
def _failed_before(elements: Elements, first: int, last: int) -> np.ndarray:
    """The first code of each satellite between its own epoch and the nearer of two times, shape (N,).

    Args:
        first, last: in steps of `SCAN_DAY` after the common epoch.
    """
    codes = np.zeros(len(elements.names), dtype=np.uint8)
    nearer_day = np.clip(elements.epoch_day, first * SCAN_DAY, last * SCAN_DAY)
    steps = np.minimum(np.ceil(np.abs(nearer_day - elements.epoch_day) / SCAN_DAY), MOST_SCANNED).astype(int)
    axis_km, _ = secular_rates(elements)
    high = axis_km * (1.0 - elements.eccentricity) > EARTH_RADIUS_WGS72_KM + SWING_KM
    steady = (elements.bstar == 0.0) & high & ~_resonant(elements)  # nothing changes its size or shape
    away = np.flatnonzero((steps > 0) & ~steady)
    if not len(away):
        return codes
    records, (day, fraction) = satrecs(elements), julian_date(elements.epoch)
    highest_km = _highest_km(elements)
    for n in away:
        since_day = np.linspace(elements.epoch_day[n], nearer_day[n], steps[n] + 1)
        found, r_km, _ = records[n].sgp4_array(np.full(len(since_day), day), fraction + since_day)
        sensible = _with_sense(found, r_km, highest_km[n])
        codes[n] = sensible[np.argmax(sensible > 0)]
    return codes


def _highest_km(elements: Elements) -> np.ndarray:
    """No position of an orbit is farther from the Earth's centre than this, shape (N,)."""
    axis_km, _ = secular_rates(elements)
    return (
        axis_km * (1.0 + np.where(_resonant(elements), 1.0, np.minimum(elements.eccentricity, 1.0))) * DRAG_SPREAD
        + SWING_KM
    )


def _resonant(elements: Elements) -> np.ndarray:
    return TURN_RAD / elements.mean_motion_rad_min >= RESONANT_MIN


def _with_sense(errors: np.ndarray, r_km: np.ndarray, highest_km: np.ndarray) -> np.ndarray:
    """SGP4's codes, with those of ours where it reports none but its position makes no sense."""
    range_km = np.sqrt(np.einsum("...i,...i", r_km, r_km))
    astray = ~((range_km >= EARTH_RADIUS_WGS72_KM) & (range_km <= highest_km))
    return np.where((errors == 0) & astray, ASTRAY, errors).astype(np.uint8)


def days_since_epoch(elements: Elements, start: datetime, offsets_ns: np.ndarray) -> np.ndarray:
    """K instants in days after the common epoch of `elements`, shape (K,)."""
    lead_ns = round((start - elements.epoch).total_seconds() * NS_PER_S)
    return (lead_ns + np.asarray(offsets_ns, dtype=np.int64)) / NS_PER_DAY


def sgp4_km(elements: Elements, since_day: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions by SGP4.

    Args:
        since_day: K instants in days after the common epoch, shape (K,).

    Returns:
        km in TEME, shape (K, N, 3), and SGP4's error codes, shape (K, N), 0 where the position is good.
    """
    day, fraction = julian_date(elements.epoch)
    satellites = SatrecArray(_as_set_up(elements))  # copies, as SGP4 writes into them, maybe in several threads
    instants, count = len(since_day), len(elements.names)
    days, fractions = np.full(instants, day), fraction + since_day
    r_km, errors = np.empty((instants, count, 3)), np.empty((instants, count), dtype=np.uint8)
    at_once = max(1, EPOCHS_IN_CACHE // count)
    for first in range(0, instants, at_once):
        some = slice(first, first + at_once)
        found_errors, found_km, _ = satellites.sgp4(days[some], fractions[some])
        found_errors[~np.isfinite(found_km[..., 0]) & (found_errors == 0)] = NO_ELLIPSE
        r_km[some], errors[some] = np.swapaxes(found_km, 0, 1), found_errors.T
    return r_km, errors


@lru_cache(maxsize=1)
def _as_set_up(elements: Elements) -> list[Satrec]:
    """The records before SGP4 has written into them; kept, as setting up costs as much as a chunk of a plan."""
    return satrecs(elements)


def satrecs(elements: Elements) -> list[Satrec]:
    """SGP4's own records of the N satellites."""
    day, fraction = julian_date(elements.epoch)
    columns = (
        elements.epoch_day,
        elements.bstar,
        elements.eccentricity,
        elements.arg_perigee_rad,
        elements.inclination_rad,
        elements.mean_anomaly_rad,
        elements.mean_motion_rad_min,
        elements.raan_rad,
    )
    return [_satrec(n, day, fraction, *row) for n, row in enumerate(zip(*(column.tolist() for column in columns)))]


def _satrec(n: int, day: float, fraction: float, epoch_day: float, bstar: float, *orbit: float) -> Satrec:
    satrec = Satrec()
    fraction += epoch_day
    since_1950_day = (day + fraction) - SGP4_EPOCH_JD  # in this order, as for a TLE: it rounds to 40 us
    # the improved mode, as in AIAA 2006-6753; the satellite's number and two drag terms are not used
    satrec.sgp4init(WGS72, "i", n % 100_000, since_1950_day, bstar, 0.0, 0.0, *orbit)
    satrec.jdsatepoch, satrec.jdsatepochF = day, fraction  # sgp4init's own split of the sum is 0.3 us coarser
    return satrec


def failures(elements: Elements, errors: np.ndarray) -> list[tuple[int, int, str]]:
    """The satellites without a position at some instant: each with its first such instant and the reason.

    Args:
        errors: codes as of `find_positions`, shape (K, N).
    """
    first = [(int(n), int(np.argmax(errors[:, n] > 0))) for n in np.flatnonzero(errors.any(axis=0))]
    return [(n, k, _reason(elements, n, int(errors[k, n]))) for n, k in first]


def _refusals(elements: Elements, errors: np.ndarray, offsets_ns: np.ndarray) -> list[str]:
    return [
        f"satellite {elements.names[n]}: {reason} at {seconds_text(offsets_ns[k])}, but an orbit must hold for the "
        f'whole run; raise it or correct its elements, or set orbits.on_bad to "mask"'
        for n, k, reason in failures(elements, errors)
    ]


def _reason(elements: Elements, n: int, code: int) -> str:
    if elements.eccentricity[n] >= 1.0:
        return f"its eccentricity is {elements.eccentricity[n]:g}, which is hyperbolic"
    if code == ASTRAY:
        return (
            "between its epoch and here SGP4 leads it where none of its orbits can be, as drag does far from the epoch,"
        )
    if code == UNDERGROUND:
        return "its ellipse lies below the ground"
    return f'SGP4 reports "{SGP4_ERRORS[code]}"'


def check_orbits(scenario: Scenario) -> None:
    """Look at the orbits at `LOOKS` instants of the run at the most, its first and its last among them.

    Raises:
        ScenarioError: as `propagate`; the elements cannot be made.
    """
    grid = scenario.time.grid
    instants = np.unique(np.linspace(0, grid.count - 1, LOOKS).astype(np.int64))
    propagate(constellation_elements(scenario), grid.start, grid.offsets_ns[instants], scenario.orbits)


def orbit_warnings(scenario: Scenario) -> tuple[str, ...]:
    """One sentence for each shell with elements that were passed over or are stale, and for each satellite without a
    position at some instant.

    Satellites without a position are looked for only where the scenario masks them, since elsewhere planning refuses
    them; this propagates the whole run again.

    Raises:
        ScenarioError: the elements cannot be made.
    """
    return (*_left_out(scenario), *_stale(scenario), *_masked(scenario))


def _left_out(scenario: Scenario) -> Iterator[str]:
    """Shells whose file has an object more than once."""
    for shell in scenario.shell:
        if shell.left_out:
            more = f" and {len(shell.left_out) - 3} others" if len(shell.left_out) > 3 else ""
            yield (
                f"shell {shell.name}: its file has objects more than once; the elements nearest to the start fly, and "
                f"left out are {', '.join(shell.left_out[:3])}{more}"
            )


def _stale(scenario: Scenario) -> Iterator[str]:
    """Shells with satellites whose own elements hold too long before or after the start."""
    elements, first = constellation_elements(scenario), 0
    age_day = np.abs((scenario.time.start - elements.epoch) / DAY - elements.epoch_day)
    allowed_day = scenario.orbits.stale_after_ns / NS_PER_DAY
    for shell in scenario.shell:
        dated = np.array([bool(one.tle or one.epoch) for one in shell.satellite], dtype=bool)
        ages_day = np.where(dated, age_day[first : first + shell.count], 0.0) if dated.any() else np.zeros(1)
        if ages_day.max() > allowed_day:
            yield (
                f"shell {shell.name}: the elements of {int((ages_day > allowed_day).sum())} of its {shell.count} "
                f"satellites hold more than {allowed_day:g} days from the start (the furthest, of "
                f"{elements.names[first + int(ages_day.argmax())]}, {ages_day.max():.1f} days), but they lose one to "
                f"three km a day; take newer ones, or raise orbits.stale_after"
            )
        first += shell.count


def _masked(scenario: Scenario) -> Iterator[str]:
    """Satellites that fly without links because they have no position."""
    if scenario.orbits.on_bad != "mask":
        return
    elements, grid, found = constellation_elements(scenario), scenario.time.grid, set()
    chunk = max(1, POSITIONS_AT_ONCE // len(elements.names))
    for begin in range(0, grid.count, chunk):
        offsets_ns = grid.offsets_ns[begin : begin + chunk]
        _, errors = find_positions(elements, grid.start, offsets_ns, scenario.orbits)
        for n, k, reason in failures(elements, errors):
            if n not in found:
                found.add(n)
                yield (
                    f"satellite {elements.names[n]}: {reason} at {seconds_text(offsets_ns[k])}; "
                    f"it has no links while it has no position"
                )
