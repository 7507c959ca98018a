"""The same sky computed the slow way, object by object with Skyfield, sharing no code with isl_emu.

Each satellite is an `EarthSatellite`, each site a `wgs84.latlon`; positions are GCRS, elevations `altaz()`, paths a
textbook Dijkstra. Only the scenario's records are read.
"""

from __future__ import annotations

import heapq
import itertools
import math
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

import numpy as np
from sgp4.api import WGS72, Satrec
from skyfield.api import EarthSatellite, load, wgs84

EQUATOR_KM = 6_378.137  # WGS84
C_KM_S = 299_792.458
MU_KM3_S2 = 398_600.8  # WGS72
TIMESCALE = load.timescale(builtin=True)


@dataclass(frozen=True)
class Sky:
    """Positions of all satellites and sites of a scenario, in GCRS, and what the sites see; by instant."""

    satellites_km: np.ndarray  # (K, N, 3)
    sites_km: np.ndarray  # (K, G, 3)
    elevation_deg: np.ndarray  # (K, G, N)
    slant_km: np.ndarray  # (K, G, N)


def sky_of(scenario) -> Sky:
    """Everything by Skyfield, one object at a time."""
    grid = scenario.time.grid
    times = [TIMESCALE.from_datetime(grid.start + timedelta(microseconds=ns / 1000)) for ns in grid.offsets_ns.tolist()]
    satellites = [satellite for shell in scenario.shell for satellite in shell_satellites(shell, grid.start)]
    sites = [
        wgs84.latlon(math.degrees(s.latitude_rad), math.degrees(s.longitude_rad), s.height_km * 1000)
        for s in scenario.station
    ]
    seen = [[[(satellite - site).at(t).altaz() for satellite in satellites] for site in sites] for t in times]
    count = len(times), len(sites), len(satellites)
    return Sky(
        np.array([[satellite.at(t).position.km for satellite in satellites] for t in times]),
        np.array([[site.at(t).position.km for site in sites] for t in times]).reshape(*count[:2], 3),
        np.array([[[view[0].degrees for view in row] for row in rows] for rows in seen]).reshape(count),
        np.array([[[view[2].km for view in row] for row in rows] for rows in seen]).reshape(count),
    )


def shell_satellites(shell, epoch: datetime) -> list[EarthSatellite]:
    """Plane by plane, each plane slot by slot; Walker's angles written out. Or the TLEs that it lists."""
    if shell.satellite:
        return [EarthSatellite(*one.tle, ts=TIMESCALE) for one in shell.satellite]
    walker = shell.walker
    slots = walker.total // walker.planes
    spread_deg = {"delta": 360.0, "star": 180.0}[walker.pattern]
    return [
        circular_satellite(
            EQUATOR_KM + shell.altitude_km,
            math.degrees(shell.inclination_rad),
            math.degrees(shell.raan_rad) + plane * spread_deg / walker.planes,
            math.degrees(shell.arg_lat_rad) + slot * 360.0 / slots + plane * walker.phasing * 360.0 / walker.total,
            epoch,
        )
        for plane, slot in itertools.product(range(walker.planes), range(slots))
    ]


def circular_satellite(axis_km, inclination_deg, raan_deg, anomaly_deg, epoch) -> EarthSatellite:
    """An object whose SGP4 semi-major axis is the one asked for, found by trying mean motions."""
    motion_rad_min = 60.0 * math.sqrt(MU_KM3_S2 / axis_km**3)
    for _ in range(12):
        satrec = Satrec()
        days = (epoch - datetime(1949, 12, 31, tzinfo=timezone.utc)).total_seconds() / 86_400
        angles = (math.radians(angle % 360.0) for angle in (0.0, inclination_deg, anomaly_deg))
        satrec.sgp4init(
            WGS72, "i", 1, days, 0.0, 0.0, 0.0, 0.0, *angles, motion_rad_min, math.radians(raan_deg % 360.0)
        )
        found_km = satrec.a * 6_378.135  # WGS72
        motion_rad_min *= (found_km / axis_km) ** 1.5
    return EarthSatellite.from_satrec(satrec, TIMESCALE)


def grazing_km(a_km: np.ndarray, b_km: np.ndarray) -> float:
    """The lowest point of a line over the equator's sphere, by looking along it."""
    direction = b_km - a_km
    length_km = math.dist(a_km, b_km)
    along_km = min(max(-float(a_km @ direction) / length_km, 0.0), length_km)
    return float(np.linalg.norm(a_km + direction * (along_km / length_km))) - EQUATOR_KM


def highest(elevations_deg: np.ndarray, least_deg: float, antennas: int) -> list[int]:
    """The highest satellites that a site sees."""
    order = sorted(range(len(elevations_deg)), key=lambda satellite: -elevations_deg[satellite])
    return [satellite for satellite in order[:antennas] if elevations_deg[satellite] >= least_deg]


def least_delays_s(links: dict[tuple[int, int], float], source: int, ends: set[int]) -> dict[int, float]:
    """Dijkstra's shortest delays from one node; `ends` may start and end a path but are never passed through.

    Args:
        links: delay in s of each undirected link.
    """
    neighbours: dict[int, list[tuple[int, float]]] = {}
    for (a, b), delay_s in links.items():
        neighbours.setdefault(a, []).append((b, delay_s))
        neighbours.setdefault(b, []).append((a, delay_s))
    least, queue = {source: 0.0}, [(0.0, source)]
    while queue:
        delay_s, node = heapq.heappop(queue)
        if delay_s > least[node] or (node in ends and node != source):
            continue
        for other, more_s in neighbours.get(node, []):
            if delay_s + more_s < least.get(other, math.inf):
                least[other] = delay_s + more_s
                heapq.heappush(queue, (least[other], other))
    return least


def latitude_longitude_rad(zenith: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Geodetic latitude and longitude (-pi..pi) of places from the unit vectors that point up there, shape (..., 3)."""
    latitude_rad = np.arctan2(zenith[..., 2], np.hypot(zenith[..., 0], zenith[..., 1]))
    return latitude_rad, np.arctan2(zenith[..., 1], zenith[..., 0])
