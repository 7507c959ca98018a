"""Closed forms of the geometry (ranges, numbers of links, the turns of orbits and Earth), and of energy and heat.

The expected values are written down or follow from trigonometry and calculus here; ours come from the functions that
make link plans and that runs use."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

import numpy as np
from sgp4.api import WGS72, Satrec

from isl_emu.energy.satellite import STEFAN_BOLTZMANN_W_M2_K4, Batteries, Radiators
from isl_emu.geometry.elements import EARTH_RADIUS_KM, Elements, constellation_elements
from isl_emu.geometry.frames import sidereal_angle_rad
from isl_emu.geometry.orbits import propagate
from isl_emu.geometry.sightline import elevation_rad, grazing_altitude_km, one_way_delay_ns, range_km
from isl_emu.geometry.sunlight import in_shadow
from isl_emu.linkplan.candidates import shell_pairs
from isl_emu.scenario.model import Scenario, Shell
from isl_emu.units import NS_PER_S
from isl_emu.validate.check import Check

GROUP = "Closed forms"
EPOCH = datetime(2026, 3, 20, 14, tzinfo=timezone.utc)
MU_KM3_S2 = 398_600.8  # WGS72, as in SGP4
TROPICAL_YEAR_DAYS = 365.2422  # Astronomical Almanac
SIDEREAL_DAY_S = 86_164.0905  # relative to the equinox; Astronomical Almanac

# a mean motion in revolutions a day, satellites in a plane, inclination in degrees; chord and delay from golden series
PUBLISHED_SHELLS = {
    "Starlink-550": (15.19, 22, 53.0, 1960.2, 6.5387),
    "Kuiper-630": (14.80, 34, 51.9, 1293.1, 4.3134),
    "Telesat-1015": (13.66, 13, 98.98, 3538.1, 11.8018),
}
# pattern, t/p/f, laser topology, links: 2t on a delta, s fewer on a star, one link for two that meet twice
LINK_COUNTS = {
    "+grid, Starlink shell 1": ("delta", 1584, 72, 17, "+grid", 2 * 1584),
    "+grid, Kuiper-630": ("delta", 1156, 34, 1, "+grid", 2 * 1156),
    "+grid, 3 planes of 3": ("delta", 9, 3, 1, "+grid", 2 * 9),
    "+grid, Iridium's star, 6 planes of 11": ("star", 66, 6, 2, "+grid", 2 * 66 - 11),
    "+grid, OneWeb's star, 12 planes of 49": ("star", 588, 12, 1, "+grid", 2 * 588 - 49),
    "+grid, a single plane of 12": ("delta", 12, 1, 0, "+grid", 12),
    "+grid, 2 planes of 6": ("delta", 12, 2, 0, "+grid", 12 + 6),
    "+grid, 6 planes of 2": ("delta", 12, 6, 0, "+grid", 6 + 12),
    "ring, a single plane of 12": ("delta", 12, 1, 0, "ring", 12),
}


def checks() -> Iterator[Check]:
    """All closed forms of golden.md, and the turn of the Earth."""
    # two of 22 in a plane at 550 km; the expected values have the digits that are given
    a_km, b_km = _on_circle(EARTH_RADIUS_KM + 550.0, np.array([0.0, 2 * math.pi / 22]))
    distance_km = range_km(a_km, b_km)
    name = "two of 22 in a plane at 550 km"
    yield Check(GROUP, f"{name}: range", 1971.95, float(distance_km), 0.005, "km")
    yield Check(GROUP, f"{name}: grazing altitude", 479.48, float(grazing_altitude_km(a_km, b_km)), 0.005, "km")
    yield Check(GROUP, f"{name}: one way", 6.578, float(one_way_delay_ns(distance_km)) / 1e6, 0.0005, "ms")
    yield from _published_shells()
    yield from _slant_ranges()
    for shape, (pattern, total, planes, phasing, topology, expected) in LINK_COUNTS.items():
        a, b = shell_pairs(_shell(pattern, total, planes, phasing, topology))[:2]
        yield Check(GROUP, f"links of {shape}", expected, len(set(zip(a.tolist(), b.tolist()))))
    yield from _sun_synchronous()
    noon = datetime(2000, 1, 1, 12, tzinfo=timezone.utc)
    day_ns = np.array([0, round(SIDEREAL_DAY_S * NS_PER_S)])
    start_rad, end_rad = sidereal_angle_rad(noon, day_ns)
    turned_deg = math.degrees((float(end_rad - start_rad) + math.pi) % (2 * math.pi) - math.pi)
    # days differ by some milliseconds, 1e-5 deg each
    yield Check(GROUP, "the Earth's turn in a sidereal day, less one", 0.0, turned_deg, 2e-5, "deg")
    # 18 h 41 m 50.548 s of UT1 (Aoki et al. 1982); UT1 - UTC was 0.3554 s then
    expected_deg = (18 + 41 / 60 + 50.54841 / 3600) * 15 + 0.3554 * 15 * 1.002738 / 3600
    yield Check(GROUP, "Greenwich at J2000", expected_deg, math.degrees(float(start_rad)), 1e-5, "deg")


def _published_shells() -> Iterator[Check]:
    """Neighbours in a plane by mean motion: on the two-body circle, and along the orbit that SGP4 makes of it."""
    for name, (revolutions_per_day, slots, inclination_deg, chord_km, delay_ms) in PUBLISHED_SHELLS.items():
        radius_km = (MU_KM3_S2 / (revolutions_per_day * 2 * math.pi / 86_400) ** 2) ** (1 / 3)
        a_km, b_km = _on_circle(radius_km, np.array([0.0, 2 * math.pi / slots]))
        distance_km = range_km(a_km, b_km)
        yield Check(GROUP, f"{name}: neighbours in a plane, by mean motion", chord_km, float(distance_km), 0.05, "km")
        found_ms = float(one_way_delay_ns(distance_km)) / 1e6
        yield Check(GROUP, f"{name}: the same, one way", delay_ms, found_ms, 0.0002, "ms")
        same = np.ones(slots)
        ring = Elements(
            names=tuple(f"p00s{slot:02d}" for slot in range(slots)),
            epoch=EPOCH,
            mean_motion_rad_min=same * revolutions_per_day * 2 * math.pi / 1440,
            eccentricity=0.0 * same,
            inclination_rad=same * math.radians(inclination_deg),
            raan_rad=0.0 * same,
            arg_perigee_rad=0.0 * same,
            mean_anomaly_rad=np.arange(slots) * 2 * math.pi / slots,
        )
        r_km = propagate(ring, EPOCH, np.arange(0, 6_600, 60) * NS_PER_S)  # along one revolution
        found_km = range_km(r_km, np.roll(r_km, -1, axis=1))
        worst_km = float(found_km.flat[np.argmax(np.abs(found_km - chord_km))])
        # J2 and J3 move the radius by up to 11 km, and a chord by as much in proportion
        tolerance_km = 11.0 * chord_km / radius_km
        yield Check(GROUP, f"{name}: the same by SGP4, furthest of a turn", chord_km, worst_km, tolerance_km, "km")


def _slant_ranges() -> Iterator[Check]:
    """Range and elevation of a satellite seen from a sphere: sqrt((R+h)^2 - R^2 cos^2 e) - R sin e."""
    radius_km = EARTH_RADIUS_KM
    for altitude_km in (550.0, 1200.0):
        for elevation_deg in (0.0, 10.0, 25.0, 40.0, 90.0):
            e, orbit_km = math.radians(elevation_deg), radius_km + altitude_km
            expected_km = math.sqrt(orbit_km**2 - (radius_km * math.cos(e)) ** 2) - radius_km * math.sin(e)
            # by the law of sines: the angle at the centre of the Earth
            centre_rad = math.acos(radius_km * math.cos(e) / orbit_km) - e
            site_km = np.array([radius_km, 0.0, 0.0])
            satellite_km = orbit_km * np.array([math.cos(centre_rad), math.sin(centre_rad), 0.0])
            name = f"slant range to {altitude_km:g} km at {elevation_deg:g} deg"
            yield Check(GROUP, name, expected_km, float(range_km(site_km, satellite_km)), 1e-6, "km")
            found_deg = math.degrees(float(elevation_rad(site_km, site_km / radius_km, satellite_km)))
            # at the zenith an arcsine has half the digits
            tolerance_deg = 1e-5 if elevation_deg == 90.0 else 1e-9
            yield Check(
                GROUP,
                f"elevation at that range to {altitude_km:g} km, {elevation_deg:g} deg",
                elevation_deg,
                found_deg,
                tolerance_deg,
                "deg",
            )


def _sun_synchronous() -> Iterator[Check]:
    """The inclination by its closed form, and the turn of the node that SGP4 gives such an orbit."""
    for altitude_km in (500.0, 525.0, 800.0, 1000.0):
        expected_deg = math.degrees(math.acos(-(((EARTH_RADIUS_KM + altitude_km) / 12_352.0) ** 3.5)))
        shell = _shell("delta", 1, 1, 0, "none", altitude=f"{altitude_km:g} km", inclination="sun-synchronous")
        time = {"start": EPOCH, "duration": "60 s"}
        elements = constellation_elements(Scenario.model_validate({"name": "x", "time": time, "shell": (shell,)}))
        found_deg = math.degrees(float(elements.inclination_rad[0]))
        yield Check(GROUP, f"sun-synchronous inclination at {altitude_km:g} km", expected_deg, found_deg, 0.001, "deg")
        # the closed form's constant has five digits, and higher terms of J2 count one in a thousand
        satrec = Satrec()
        orbit = (
            *(elements.eccentricity, elements.arg_perigee_rad, elements.inclination_rad),
            *(elements.mean_anomaly_rad, elements.mean_motion_rad_min, elements.raan_rad),
        )
        satrec.sgp4init(WGS72, "i", 1, 0.0, 0.0, 0.0, 0.0, *(float(values[0]) for values in orbit))
        yield Check(
            GROUP,
            f"turn of its node by SGP4 at {altitude_km:g} km",
            360.0 / TROPICAL_YEAR_DAYS,
            math.degrees(satrec.nodedot) * 1440,
            0.005,
            "deg/day",
        )


def _on_circle(radius_km: float, angle_rad: np.ndarray) -> np.ndarray:
    """Points of a circle in the xy plane, shape (..., 3)."""
    return radius_km * np.stack([np.cos(angle_rad), np.sin(angle_rad), np.zeros_like(angle_rad)], axis=-1)


def _shell(pattern: str, total: int, planes: int, phasing: int, topology: str, **orbit: Any) -> Shell:
    walker = {"pattern": pattern, "total": total, "planes": planes, "phasing": phasing}
    orbit = {"altitude": "780 km", "inclination": "86.4 deg", **orbit}
    return Shell.model_validate({"name": "s", "walker": walker, "lasers": {"topology": topology}, **orbit})


ENERGY_GROUP = "Energy and heat, closed forms"
POINTS = 100_000  # of an orbit
STEP_S = 1.0
J_PER_WH = 3600.0


def energy_checks() -> Iterator[Check]:
    """All closed forms of docs/energy.md that need no fleet."""
    # The share in shadow of a circular orbit, the Sun beta over it: acos(sqrt(1 - (R/r)^2) / cos(beta)) / pi
    angle_rad = np.arange(POINTS) * (2 * math.pi / POINTS)
    for altitude_km in (525.0, 1000.0):
        ratio = EARTH_RADIUS_KM / (EARTH_RADIUS_KM + altitude_km)
        for beta_deg in (0.0, 40.0, 60.0, 75.0):
            beta_rad = math.radians(beta_deg)
            depth = math.sqrt(1.0 - ratio**2) / math.cos(beta_rad)
            expected = math.acos(depth) / math.pi if depth < 1.0 else 0.0
            across = np.stack([np.cos(angle_rad), np.sin(angle_rad), np.zeros(POINTS)], axis=-1)
            sun = np.array([math.cos(beta_rad), 0.0, math.sin(beta_rad)])
            got = float(in_shadow(across * (EARTH_RADIUS_KM + altitude_km), sun).mean())
            name = f"share of an orbit at {altitude_km:g} km in shadow, the Sun {beta_deg:g} deg over its plane"
            yield Check(ENERGY_GROUP, name, expected, got, 2.0 / POINTS)
    # 100 Wh at 80 % of efficiency feed 50 W for 100 Wh x 0.8 / 50 W = 96 min
    store = Batteries(*(np.array([value]) for value in (100 * J_PER_WH, 1.0, 0.8, np.inf, np.inf)))
    energy_j, load_w, steps = store.capacity_j, np.array([-50.0]), 0
    while not (done := store.exchange(energy_j, load_w, STEP_S)).unmet_w[0] > 1e-6:
        energy_j, steps = done.energy_j, steps + 1
    yield Check(
        ENERGY_GROUP, "a battery of 100 Wh, 80 % efficient, feeds 50 W", 96.0, steps * STEP_S / 60, STEP_S / 60, "min"
    )
    # 1 m2 of emissivity 0.8 with 20 kJ/K: cooling by the fourth power, and where 400 W keep it
    plate = Radiators(*(np.array([value]) for value in (1.0, 20_000.0, 0.8, 0.1, 0.26)))
    rate = 0.8 * STEFAN_BOLTZMANN_W_M2_K4 / 20_000.0
    cooled_k = (350.0**-3 + 3 * rate * 3600.0) ** (-1 / 3)
    name = "1 m2 of radiator, 20 kJ/K: from 350 K after an hour without heat"
    yield Check(ENERGY_GROUP, name, cooled_k, _after_k(plate, 350.0, 0.0, 3600), 0.001, "K")
    settled_k = (400.0 / (0.8 * STEFAN_BOLTZMANN_W_M2_K4)) ** 0.25
    name = "the same: where 400 W keep it, (P / (eps sigma A))^(1/4)"
    yield Check(ENERGY_GROUP, name, settled_k, _after_k(plate, 350.0, 400.0, 50_000), 0.01, "K")


def _after_k(plate: Radiators, start_k: float, heat_w: float, steps: int) -> float:
    temperature_k, heat = np.array([start_k]), np.array([heat_w])
    for _ in range(steps):
        temperature_k = plate.temperature_after_k(temperature_k, heat, STEP_S)
    return float(temperature_k[0])
