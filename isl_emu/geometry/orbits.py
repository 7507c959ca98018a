"""Positions of satellites by SGP4, for all satellites and instants at once.

Everything in a run lives in one frame, TEME of date, the one that SGP4 computes in; `frames` brings the ground
stations into it.
"""

from __future__ import annotations

from datetime import datetime, timezone

import numpy as np
from sgp4.api import SGP4_ERRORS, WGS72, Satrec, SatrecArray

from isl_emu.errors import ScenarioError
from isl_emu.geometry.elements import Elements
from isl_emu.units import NS_PER_S

SGP4_EPOCH = datetime(1949, 12, 31, tzinfo=timezone.utc)  # day 0 of sgp4init
NS_PER_DAY = 86_400 * NS_PER_S


def propagate(elements: Elements, start: datetime, offsets_ns: np.ndarray) -> np.ndarray:
    """Positions of N satellites at K instants.

    SGP4 with the WGS72 constants, as elements in its sense demand, and without drag. For elements of a real satellite
    it is good to about a kilometre at their epoch and loses one to three a day; of a pattern the elements are exact.

    Args:
        elements: of the N satellites.
        start: UTC.
        offsets_ns: instants in ns since `start`, shape (K,).

    Returns:
        km in TEME, shape (K, N, 3).

    Raises:
        ScenarioError: SGP4 cannot compute a satellite, for example because it has decayed.
    """
    satellites = [_satrec(elements, n) for n in range(len(elements.names))]
    jd, fraction = satellites[0].jdsatepoch, satellites[0].jdsatepochF
    since_epoch_ns = round((start - elements.epoch).total_seconds() * NS_PER_S) + np.asarray(offsets_ns, dtype=np.int64)
    fractions = fraction + since_epoch_ns / NS_PER_DAY
    errors, r_km, _ = SatrecArray(satellites).sgp4(np.full(len(fractions), jd), fractions)
    if errors.any():
        raise ScenarioError(*_sgp4_problems(elements, errors, offsets_ns))
    return np.ascontiguousarray(np.swapaxes(r_km, 0, 1))


def _satrec(elements: Elements, n: int) -> Satrec:
    """SGP4's own record of satellite `n`."""
    satrec = Satrec()
    satrec.sgp4init(
        WGS72,
        "i",  # the improved mode, as in AIAA 2006-6753
        n % 100_000,  # satellite number, not used
        (elements.epoch - SGP4_EPOCH).total_seconds() / 86_400,
        0.0,  # B*
        0.0,  # not used by SGP4
        0.0,  # not used by SGP4
        elements.eccentricity[n],
        elements.arg_perigee_rad[n],
        elements.inclination_rad[n],
        elements.mean_anomaly_rad[n],
        elements.mean_motion_rad_min[n],
        elements.raan_rad[n],
    )
    return satrec


def _sgp4_problems(elements: Elements, errors: np.ndarray, offsets_ns: np.ndarray) -> list[str]:
    """One sentence for each satellite that fails, at its first failure."""
    problems = []
    for n in np.flatnonzero(errors.any(axis=1)):
        k = int(np.argmax(errors[n] > 0))
        problems.append(
            f"satellite {elements.names[n]}: SGP4 reports \"{SGP4_ERRORS[int(errors[n, k])]}\" at "
            f"{offsets_ns[k] / NS_PER_S:g} s, but an orbit must hold for the whole run; raise the shell's altitude"
        )
    return problems
