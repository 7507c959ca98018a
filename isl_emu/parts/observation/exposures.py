"""When which satellite takes an image, and of what place: known before a run, by geometry."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from isl_emu.arrays import dot
from isl_emu.geometry.elements import constellation_elements
from isl_emu.geometry.frames import sidereal_angle_rad, zenith_itrs
from isl_emu.geometry.orbits import propagate
from isl_emu.geometry.places import geodetic, teme_to_itrs
from isl_emu.geometry.sunlight import sun_direction
from isl_emu.scenario.model import Scenario
from isl_emu.scenario.observation import LOOK_NS, Area, Observation

POSITIONS_AT_ONCE = 200_000
EARTH_MEAN_RADIUS_KM = 6_371.0088  # IUGG; of the sphere on which distances on the ground are taken, good to 0.5 %


@dataclass(frozen=True)
class Exposure:
    """An image that is taken.

    Args:
        observation: number of the scenario's table.
        number: of the image, among all of that table.
    """

    observation: int
    number: int
    satellite: str
    t_ns: int
    latitude_deg: float
    longitude_deg: float


@dataclass(frozen=True)
class _Ground:
    """What is below N satellites at K instants; arrays of shape (K, N), nan for one without a position."""

    latitude_rad: np.ndarray
    longitude_rad: np.ndarray
    sun: np.ndarray  # unit vectors towards the Sun, Earth-fixed, shape (K, 1, 3)

    def distance_km(self, area: Area) -> np.ndarray:
        """From the middle of an area, along the ground."""
        up, middle = self.zenith, zenith_itrs(area.latitude_rad, area.longitude_rad)
        return EARTH_MEAN_RADIUS_KM * np.arccos(np.clip(up @ middle, -1.0, 1.0))

    @property
    def zenith(self) -> np.ndarray:
        """The direction up, Earth-fixed, shape (K, N, 3)."""
        level = np.cos(self.latitude_rad)
        x, y = level * np.cos(self.longitude_rad), level * np.sin(self.longitude_rad)
        return np.stack([x, y, np.sin(self.latitude_rad)], axis=-1)


def exposures(scenario: Scenario, number: int) -> list[Exposure]:
    """All images of a scenario's observation `number`, in the order of their times."""
    wanted, names = scenario.observation[number], scenario.satellite_names
    chosen = np.array([names.index(name) for name in wanted.observers(names)])
    found: list[tuple[int, int, float, float]] = []
    if wanted.first_ns >= scenario.time.duration_ns:
        return []
    if wanted.over and not wanted.every_ns:
        t_ns = np.arange(wanted.first_ns, scenario.time.duration_ns, LOOK_NS, dtype=np.int64)
        ground = _ground(scenario, chosen, t_ns)
        rows = _closest(wanted, wanted.over, ground)
    else:
        every_ns = wanted.every_ns or scenario.time.duration_ns  # the first one alone
        t_ns = np.arange(wanted.first_ns, scenario.time.duration_ns, every_ns, dtype=np.int64)
        ground = _ground(scenario, chosen, t_ns)
        rows = zip(*(places.tolist() for places in np.nonzero(_there(wanted, ground))))
    taken = np.zeros(len(chosen), dtype=int)
    for k, n in rows:
        taken[n] += 1
        if wanted.count is None or taken[n] <= wanted.count:
            place = float(np.degrees(ground.latitude_rad[k, n])), float(np.degrees(ground.longitude_rad[k, n]))
            found.append((int(t_ns[k]), n, *place))
    return [
        Exposure(number, place, names[chosen[n]], t_ns, round(latitude, 4), round(longitude, 4))
        for place, (t_ns, n, latitude, longitude) in enumerate(sorted(found))
    ]


def _there(wanted: Observation, ground: _Ground) -> np.ndarray:
    """Where an image may be taken, bool, shape (K, N)."""
    there: np.ndarray = np.isfinite(ground.latitude_rad)
    if wanted.over:
        there &= ground.distance_km(wanted.over) <= wanted.over.radius_km
    if wanted.daylight:
        there &= dot(ground.zenith, ground.sun) > 0.0
    return there


def _closest(wanted: Observation, area: Area, ground: _Ground) -> Iterator[tuple[int, int]]:
    """The instant and satellite of each pass over an area: where an image may be taken nearest to the middle."""
    there, distance_km = _there(wanted, ground), ground.distance_km(area)
    for n in range(there.shape[1]):
        edges = np.flatnonzero(np.diff(np.concatenate([[False], there[:, n], [False]]).astype(np.int8)))
        for begin, end in edges.reshape(-1, 2).tolist():
            yield begin + int(np.argmin(distance_km[begin:end, n])), n


def _ground(scenario: Scenario, chosen: np.ndarray, t_ns: np.ndarray) -> _Ground:
    """What is below some satellites at K instants."""
    elements, start = constellation_elements(scenario), scenario.time.start
    at_once = max(1, POSITIONS_AT_ONCE // len(scenario.satellite_names))
    parts = []
    for first in range(0, len(t_ns), at_once):
        own_ns = t_ns[first : first + at_once]
        sidereal_rad = sidereal_angle_rad(start, own_ns)
        r_itrs_km = teme_to_itrs(propagate(elements, start, own_ns, scenario.orbits)[:, chosen], sidereal_rad)
        latitude_rad, longitude_rad, _ = geodetic(r_itrs_km)
        sun = teme_to_itrs(sun_direction(start, own_ns)[:, np.newaxis], sidereal_rad)
        parts.append((latitude_rad, longitude_rad, sun))
    return _Ground(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))
