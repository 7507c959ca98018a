"""The shipped Kuiper-630 scenario between other cities and in other seasons, against Skyfield and plain Dijkstra."""

from __future__ import annotations

import itertools
import math
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pytest
from sgp4.api import WGS72, Satrec
from skyfield.api import EarthSatellite, wgs84

import isl_emu
from isl_emu.scenario.model import GroundStation
from tests.skyfield_reference import C_KM_S, TIMESCALE, least_delays_s

PRESET = Path(__file__).parents[2] / "topologies" / "kuiper-630.toml"
PLANES = SLOTS = 34
LONGEST_GROUND_KM, LONGEST_LASER_KM = 1260.0, 5442.958
CITIES = {
    "gs-auckland": (-36.85, 174.76),
    "gs-suva": (-18.14, -178.44),
    "gs-quito": (-0.18, -78.47),
    "gs-ushuaia": (-54.8, -68.3),
    "gs-edmonton": (53.55, -113.49),
    "gs-nairobi": (-1.29, 36.82),
    "gs-delhi": (28.61, 77.21),
    "gs-alert": (82.5, -62.35),  # too far north for this shell
}
SEASONS = [
    datetime(1996, 6, 21, 23, 59, 58, tzinfo=timezone.utc),
    datetime(2016, 12, 31, 23, 59, 30, tzinfo=timezone.utc),  # half a minute before a leap second
    datetime(2024, 2, 29, 6, 30, tzinfo=timezone.utc),
    datetime(2043, 9, 23, 15, 0, tzinfo=timezone.utc),
]
TWO_METRES_NS = 0.002 / C_KM_S * 1e9 + 0.5


def _preset(start: datetime):
    """The preset with our cities."""
    terms = {"min_elevation": "0 deg", "max_range": f"{LONGEST_GROUND_KM} km", "antennas": 40}
    rates = {"uplink": "1 Gbit/s", "downlink": "1 Gbit/s"}
    stations = tuple(
        GroundStation.model_validate(
            {"name": name, "latitude": f"{lat} deg", "longitude": f"{lon} deg", **terms, **rates}
        )
        for name, (lat, lon) in CITIES.items()
    )
    scenario = isl_emu.load(PRESET)
    probes = scenario.probes.model_copy(update={"pairs": ()})
    scenario = scenario.model_copy(update={"station": stations, "probes": probes})
    return isl_emu.plan(scenario, start=start, duration_s=1, step_s=1)


def _satellite(plane: int, slot: int, epoch: datetime) -> EarthSatellite:
    satrec = Satrec()
    angles = (
        plane * 360 / PLANES,
        slot * 360 / SLOTS + plane % 2 * 180 / SLOTS,
    )
    raan_rad, anomaly_rad = (math.radians(angle % 360) for angle in angles)
    days = (epoch - datetime(1949, 12, 31, tzinfo=timezone.utc)).total_seconds() / 86_400
    motion_rad_min = 14.80 * 2 * math.pi / 1440
    satrec.sgp4init(
        WGS72, "i", 1, days, 0.0, 0.0, 0.0, 1e-7, 0.0, math.radians(51.9), anomaly_rad, motion_rad_min, raan_rad
    )
    return EarthSatellite.from_satrec(satrec, TIMESCALE)


def _links_s(epoch: datetime) -> dict[tuple[int, int], float]:
    """All links of Hypatia's rules and their delays, cities numbered after the satellites."""
    t = TIMESCALE.from_datetime(epoch)
    places = itertools.product(range(PLANES), range(SLOTS))
    satellites_km = np.array([_satellite(plane, slot, epoch).at(t).position.km for plane, slot in places])
    links = {}
    for plane, slot in itertools.product(range(PLANES), range(SLOTS)):
        here = plane * SLOTS + slot
        for other in (plane * SLOTS + (slot + 1) % SLOTS, (plane + 1) % PLANES * SLOTS + slot):
            distance_km = math.dist(satellites_km[here], satellites_km[other])
            if distance_km <= LONGEST_LASER_KM:
                links[here, other] = distance_km / C_KM_S
    for city, (latitude, longitude) in enumerate(CITIES.values(), start=len(satellites_km)):
        slant_km = np.linalg.norm(satellites_km - wgs84.latlon(latitude, longitude).at(t).position.km, axis=1)
        links |= {(n, city): slant_km[n] / C_KM_S for n in np.flatnonzero(slant_km <= LONGEST_GROUND_KM).tolist()}
    return links


@pytest.mark.parametrize("start", SEASONS, ids=lambda start: f"{start:%Y-%m-%d}")
def test_delays_between_all_cities_are_skyfields(start):
    plan, links = _preset(start), _links_s(start)
    number = {name: PLANES * SLOTS + city for city, name in enumerate(CITIES)}
    connected = 0
    for a in CITIES:
        least_s = least_delays_s(links, number[a], set(number.values()))
        for b in set(CITIES) - {a}:
            found_ns = plan.path_delay_ns(a, b)[0]
            assert np.ma.is_masked(found_ns) == (number[b] not in least_s), (a, b)
            if number[b] in least_s:
                hops = len(plan.path(a, b, 0).nodes) - 1
                assert abs(int(found_ns) - least_s[number[b]] * 1e9) <= TWO_METRES_NS * hops, (a, b)
                connected += 1
    assert connected >= 20
    assert np.ma.is_masked(plan.path_delay_ns("gs-alert", "gs-delhi")[0])
