from __future__ import annotations

import math
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from importlib.resources import files

import numpy as np
import pytest
from sgp4.api import Satrec, accelerated

from isl_emu.errors import ScenarioError
from isl_emu.geometry import orbits
from isl_emu.geometry.elements import EARTH_RADIUS_KM, Elements, shell_elements
from isl_emu.geometry.orbits import propagate
from isl_emu.scenario.model import Orbits, Shell
from isl_emu.units import NS_PER_S
from tests.orbits import circular_elements

EPOCH = datetime(2026, 3, 20, 14, tzinfo=timezone.utc)
ONE_MILLIMETRE_KM = 1e-6
ONE_CENTIMETRE_KM = 1e-5  # tcppver.out's own digits are finer; the epoch of a TLE is not a whole microsecond
BROKEN = 33334  # the set's example of elements that SGP4 refuses


OSCULATING_KM = 11.0  # what J2 and J3 add to or take from the mean radius of low orbits


def ring(count, altitude_km=525.0, inclination_deg=97.5):
    names = [f"p00s{slot:02d}" for slot in range(count)]
    arg_lat_rad = np.arange(count) * 2 * math.pi / count
    return circular_elements(
        names, EPOCH, EARTH_RADIUS_KM + altitude_km, math.radians(inclination_deg), np.zeros(count), arg_lat_rad
    )


def test_sgp4_runs_as_machine_code():
    assert accelerated, "sgp4 came without its C++ build: the same positions, a hundred times slower"


def test_positions_have_instants_first():
    assert propagate(ring(12), EPOCH, np.arange(5) * NS_PER_S).shape == (5, 12, 3)


@pytest.mark.parametrize("inclination_deg", [0, 53, 97.5])
def test_the_radius_is_the_mean_one_but_for_j2_and_j3(inclination_deg):
    r_km = propagate(ring(12, 525.0, inclination_deg), EPOCH, np.arange(0, 6000, 60) * NS_PER_S)
    assert np.abs(np.linalg.norm(r_km, axis=-1) - (EARTH_RADIUS_KM + 525.0)).max() < OSCULATING_KM


@pytest.mark.parametrize(("count", "altitude_km"), [(12, 525.0), (22, 550.0)])
def test_neighbours_are_a_chord_apart_but_for_j2_and_j3(count, altitude_km):
    r_km = propagate(ring(count, altitude_km, 53.0), EPOCH, np.arange(0, 6000, 60) * NS_PER_S)
    chord_ratio = 2 * math.sin(math.pi / count)
    found_km = np.linalg.norm(r_km - np.roll(r_km, 1, axis=1), axis=-1)
    assert np.abs(found_km - (EARTH_RADIUS_KM + altitude_km) * chord_ratio).max() < OSCULATING_KM * chord_ratio


@pytest.mark.parametrize(
    ("revolutions_per_day", "slots", "inclination_deg", "chord_km"),
    [(15.19, 22, 53.0, 1960.2), (14.80, 34, 51.9, 1293.1), (13.66, 13, 98.98, 3538.1)],
    ids=["starlink-550", "kuiper-630", "telesat-1015"],
)
def test_neighbours_of_published_shells(revolutions_per_day, slots, inclination_deg, chord_km):
    mean_motion_rad_min = np.full(slots, revolutions_per_day * 2 * math.pi / 1440)
    elements = replace(ring(slots, inclination_deg=inclination_deg), mean_motion_rad_min=mean_motion_rad_min)
    r_km = propagate(elements, EPOCH, np.arange(0, 6000, 60) * NS_PER_S)
    found_km = np.linalg.norm(r_km - np.roll(r_km, 1, axis=1), axis=-1)
    assert np.abs(found_km - chord_km).max() < OSCULATING_KM * 2 * math.sin(math.pi / slots)


def test_a_later_start_equals_a_later_instant():
    late = propagate(ring(3), EPOCH + timedelta(seconds=90), np.array([0, 5 * NS_PER_S]))
    assert late == pytest.approx(propagate(ring(3), EPOCH, np.array([90, 95]) * NS_PER_S), abs=ONE_MILLIMETRE_KM)


def test_a_decayed_satellite_is_named():
    low = circular_elements(["p00s00", "p00s01"], EPOCH, 6200.0, 0.9, np.zeros(2), np.zeros(2))
    with pytest.raises(ScenarioError) as caught:
        propagate(low, EPOCH, np.array([0, NS_PER_S]))
    assert [problem.split(":")[0] for problem in caught.value.problems] == ["satellite p00s00", "satellite p00s01"]
    assert "decayed" in caught.value.problems[0]


def _verification_cases():
    """The satellites of AIAA 2006-6753 with their published rows: minutes since the epoch and the position."""
    package = files("sgp4")
    lines = (package / "SGP4-VER.TLE").read_text().splitlines()
    first, second = ([line[:69] for line in lines if line.startswith(start)] for start in ("1 ", "2 "))
    rows: dict[int, list[list[float]]] = {}
    for line in (package / "tcppver.out").read_text().splitlines():
        fields = line.split()
        if fields[-1] == "xx":
            number = int(fields[0])
            rows[number] = []
        else:
            rows[number].append([float(field) for field in fields[:4]])
    return [(Satrec.twoline2rv(*tle), rows[int(tle[0][2:7])]) for tle in zip(first, second, strict=True)]


def _elements(satrec: Satrec) -> Elements:
    since_1950 = timedelta(days=satrec.jdsatepoch - 2433281.5 + satrec.jdsatepochF)
    epoch = datetime(1949, 12, 31, tzinfo=timezone.utc) + since_1950
    fields = (satrec.no_kozai, satrec.ecco, satrec.inclo, satrec.nodeo, satrec.argpo, satrec.mo)
    return Elements((str(satrec.satnum),), epoch, *(np.array([field]) for field in fields))


def test_positions_are_those_of_the_published_verification():
    # our satellites have no drag, so of those that have some only the epoch can agree
    checked = 0
    for satrec, rows in _verification_cases():
        if satrec.satnum != BROKEN:
            elements = _elements(satrec)
            minutes = np.array([row[0] for row in rows if satrec.bstar == 0.0 or row[0] == 0.0])
            offsets_ns = np.rint(minutes * 60 * NS_PER_S).astype(np.int64)
            found_km = propagate(elements, elements.epoch, offsets_ns)[:, 0]
            expected_km = np.array([row[1:] for row in rows[: len(minutes)]])
            assert np.abs(found_km - expected_km).max() < ONE_CENTIMETRE_KM, satrec.satnum
            checked += len(minutes)
    assert checked > 30


DECAYING = (  # 45110 in August 2023, with drag that ended it within 400 days
    "1 45110U 20007A   23232.80903846 0.00110000  00000-0  32750-2 0    04",
    "2 45110  69.9913 111.5649 0009740 159.9373 200.0626 15.34502222    06",
)


@pytest.mark.parametrize("day", [-400, 400, 401.3, 760, 850, 3000])
def test_an_orbit_that_failed_between_its_epoch_and_the_run_has_failed(day):
    epoch = datetime(2023, 8, 20, 19, 25, tzinfo=timezone.utc)
    shell = Shell.model_validate(
        {"name": "s", "satellite": ({"name": "flock", "tle": DECAYING},), "lasers": {"topology": "none"}}
    )
    elements = shell_elements(shell, ["flock"], epoch)
    assert np.isfinite(propagate(elements, epoch + timedelta(days=30), np.arange(3) * NS_PER_S)).all()
    with pytest.raises(ScenarioError, match="satellite flock: "):
        propagate(elements, epoch + timedelta(days=day), np.arange(3) * NS_PER_S)
    masked = propagate(elements, epoch + timedelta(days=day), np.arange(3) * NS_PER_S, Orbits(on_bad="mask"))
    assert np.isnan(masked).all()


def test_the_way_from_the_epoch_to_the_run_is_looked_at_once_for_all_chunks_of_a_run():
    elements = replace(ring(3), bstar=np.full(3, 1e-5))
    before = orbits._failed_before.cache_info().misses
    for first in range(0, 600, 60):
        offsets_ns = np.arange(first, first + 60, dtype=np.int64) * NS_PER_S
        orbits.find_positions(elements, elements.epoch + timedelta(days=30, hours=5), offsets_ns, Orbits())
    assert orbits._failed_before.cache_info().misses == before + 1
