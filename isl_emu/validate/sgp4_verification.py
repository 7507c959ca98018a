"""SGP4's own verification: every case of AIAA 2006-6753, position and velocity.

`tcppver.out` and its elements ship with the sgp4 package. Positions go our way: the elements as ours, propagated as
those of any satellite. Velocities, which only pointing needs and takes from positions, are those of the package.

Source: D. Vallado et al., Revisiting Spacetrack Report #3, AIAA 2006-6753.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from importlib.resources import files

import numpy as np
from sgp4.api import Satrec, accelerated

from isl_emu.geometry.elements import SGP4_EPOCH, SGP4_EPOCH_JD, Elements
from isl_emu.geometry.orbits import sgp4_km
from isl_emu.validate.check import Check

GROUP = "SGP4 verification (AIAA 2006-6753)"
POSITION_KM = 2e-7  # the file has eight decimals, and platforms differ in the last of a deep-space case
VELOCITY_KM_S = 1e-9  # nine decimals
REFUSED = {33334: 3}  # its error code: the perturbed eccentricity leaves 0..1; the file repeats the case before


@dataclass(frozen=True)
class VerificationCase:
    """One satellite of the set, with R published rows."""

    satrec: Satrec
    tsince_min: np.ndarray  # (R,), minutes since its epoch
    r_teme_km: np.ndarray  # (R, 3)
    v_teme_km_s: np.ndarray  # (R, 3)


def verification_cases() -> list[VerificationCase]:
    """All satellites of the published set."""
    lines = (files("sgp4") / "SGP4-VER.TLE").read_text().splitlines()
    first, second = ([line[:69] for line in lines if line.startswith(start)] for start in ("1 ", "2 "))
    found: dict[int, list[list[float]]] = {}  # minutes, position and velocity of each satellite in the file
    for line in (files("sgp4") / "tcppver.out").read_text().splitlines():
        fields = line.split()
        if fields[-1] == "xx":
            satellite = found.setdefault(int(fields[0]), [])
        else:
            satellite.append([float(field) for field in fields[:7]])
    rows = {number: np.array(table) for number, table in found.items()}
    satrecs = {satrec.satnum: satrec for satrec in map(Satrec.twoline2rv, first, second)}  # 20413 is there twice
    return [
        VerificationCase(satrec, rows[number][:, 0], rows[number][:, 1:4], rows[number][:, 4:7])
        for number, satrec in satrecs.items()
    ]


def checks() -> Iterator[Check]:
    """Worst error of each satellite over all its rows, and the refusal of the one that SGP4 refuses."""
    yield Check(GROUP, "sgp4 runs as machine code", "yes", "yes" if accelerated else "no")
    for case in verification_cases():
        satrec, rows = case.satrec, len(case.tsince_min)
        elements = elements_of(satrec)
        r_km, errors = sgp4_km(elements, elements.epoch_day + case.tsince_min / 1440.0)
        expected = REFUSED.get(satrec.satnum, 0)
        if expected or errors.any():
            yield Check(GROUP, f"{satrec.satnum}: SGP4 error code", expected, int(errors.max()))
            continue
        r_error_km = float(np.abs(r_km[:, 0] - case.r_teme_km).max())
        fractions = satrec.jdsatepochF + case.tsince_min / 1440.0
        _, _, v_km_s = satrec.sgp4_array(np.full(rows, satrec.jdsatepoch), fractions)
        v_error_km_s = float(np.abs(v_km_s - case.v_teme_km_s).max())
        yield Check(GROUP, f"{satrec.satnum}: worst position error of {rows}", 0.0, r_error_km, POSITION_KM, "km")
        yield Check(GROUP, f"{satrec.satnum}: worst velocity error of {rows}", 0.0, v_error_km_s, VELOCITY_KM_S, "km/s")


def elements_of(satrec: Satrec) -> Elements:
    """A satellite's elements as ours, relative to the midnight before its epoch."""
    since = timedelta(days=satrec.jdsatepoch - SGP4_EPOCH_JD)
    orbit = (satrec.no_kozai, satrec.ecco, satrec.inclo, satrec.nodeo, satrec.argpo, satrec.mo)
    columns = (np.array([value]) for value in (*orbit, satrec.bstar, satrec.jdsatepochF))
    return Elements((str(satrec.satnum),), SGP4_EPOCH + since, *columns)
