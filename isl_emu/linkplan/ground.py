"""Which satellites each ground station is linked to.

A station sees what is above its minimum elevation; a policy picks from that. Policies are functions of the same
signature, so others (longest remaining contact, fewest handovers) can stand beside the one that is here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from isl_emu.geometry.frames import itrs_to_teme, sidereal_angle_rad, site_itrs_km, zenith_itrs
from isl_emu.geometry.sightline import elevation_rad, range_km
from isl_emu.scenario.model import GroundStation


@dataclass(frozen=True)
class View:
    """The satellites that one station sees, V sightings ordered by (k, satellite); all arrays have shape (V,)."""

    k: np.ndarray  # int64, instant
    satellite: np.ndarray  # int64, node index
    elevation_rad: np.ndarray  # float64
    range_km: np.ndarray  # float64

    def only(self, chosen: np.ndarray) -> View:
        """The sightings that the bool array `chosen`, shape (V,), is true for."""
        return View(self.k[chosen], self.satellite[chosen], self.elevation_rad[chosen], self.range_km[chosen])


GroundPolicy = Callable[[View, int], np.ndarray]
"""From what a station sees and how many antennas it has: which sightings become links, bool (V,)."""


def station_view(station: GroundStation, r_teme_km: np.ndarray, start: datetime, offsets_ns: np.ndarray) -> View:
    """What a station sees at K instants.

    Args:
        station: the site and its minimum elevation above the WGS84 horizon.
        r_teme_km: positions of N satellites, shape (K, N, 3).
        start: UTC.
        offsets_ns: instants in ns since `start`, shape (K,).
    """
    sidereal_rad = sidereal_angle_rad(start, offsets_ns)
    site_km = site_itrs_km(station.latitude_rad, station.longitude_rad, station.height_km)
    site_teme_km = itrs_to_teme(site_km, sidereal_rad)[:, np.newaxis, :]
    zenith = itrs_to_teme(zenith_itrs(station.latitude_rad, station.longitude_rad), sidereal_rad)[:, np.newaxis, :]
    elevations_rad = elevation_rad(site_teme_km, zenith, r_teme_km)
    k, satellite = np.nonzero(elevations_rad >= station.min_elevation_rad)
    return View(k, satellite, elevations_rad[k, satellite], range_km(site_teme_km[k, 0], r_teme_km[k, satellite]))


def highest_elevation(view: View, antennas: int) -> np.ndarray:
    """Each instant's `antennas` highest satellites; of equally high ones the one with the lower index.

    The choice depends on nothing before, so a plan that starts later agrees with the rest of one that starts earlier.
    With one antenna the link jumps when another satellite rises above the current one. With two or more it is made
    before the old one breaks: the highest satellite has been the second highest first.
    """
    order = np.lexsort((view.satellite, -view.elevation_rad, view.k))
    k = view.k[order]
    place = np.arange(len(k)) - np.searchsorted(k, k, side="left")
    chosen = np.zeros(len(k), dtype=bool)
    chosen[order] = place < antennas
    return chosen


def every_visible(view: View, antennas: int) -> np.ndarray:
    """All satellites in view, whatever the number of antennas; for studies of what geometry alone allows."""
    del antennas
    return np.ones(len(view.k), dtype=bool)
