"""What a ground terminal sees of the satellites: sightings, and the passes that they form."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Any

import numpy as np

from isl_emu.geometry.frames import itrs_to_teme, sidereal_angle_rad
from isl_emu.geometry.places import terminal_itrs
from isl_emu.geometry.sightline import elevation_rad, range_km
from isl_emu.linkplan.rows import Empty
from isl_emu.scenario.model import GroundStation

GSO_RADIUS_KM = 42_164.0  # of the geostationary orbit; ITU-R S.1503
NARROW = {"k": np.int32, "satellite": np.int32}  # columns of views that are kept in less
ARC_RAD = np.radians(np.arange(-81.0, 82.0))  # from the site's meridian, as far as the arc is seen from the equator


@dataclass(frozen=True)
class View:
    """The satellites that one station sees, V sightings ordered by (k, satellite); all arrays have shape (V,).

    `set_k` is the instant, with its fraction, at which the satellite of a sighting sets; where it is not given, a pass
    is taken to end with its last sighting. `gso_rad` is how far from the geostationary arc the satellite is seen, nan
    where that was not asked for. `avoided` are satellites that the station knows to be dead then; none if not given.
    """

    k: np.ndarray  # int64, instant
    satellite: np.ndarray  # int64, node index
    elevation_rad: np.ndarray  # float64
    range_km: np.ndarray  # float64
    set_k: np.ndarray | None = None  # float64
    gso_rad: np.ndarray | None = None  # float64
    avoided: np.ndarray | None = None  # bool

    def only(self, chosen: np.ndarray) -> View:
        """The sightings that the bool array `chosen`, shape (V,), is true for."""
        columns = ((one.name, getattr(self, one.name)) for one in fields(self))
        kept: dict[str, Any] = {name: None if column is None else column[chosen] for name, column in columns}
        return View(**kept)


@dataclass(frozen=True)
class Passes:
    """The Q passes of a view, ordered by (satellite, start): sightings of one satellite without a break.

    The sightings of pass q are `order[first[q]:first[q + 1]]`, one for each instant.
    """

    order: np.ndarray  # int64 (V,), sightings by satellite and time
    first: np.ndarray  # int64 (Q+1,)
    start_k: np.ndarray  # int64 (Q,), the first instant
    end_k: np.ndarray  # int64 (Q,), the instant after the last
    set_k: np.ndarray  # float64 (Q,), when the satellite sets; end_k unless the view goes on beyond its end
    of_sighting: np.ndarray  # int64 (V,), the pass of each sighting


def find_passes(view: View) -> Passes:
    """The passes of `view`."""
    order = np.lexsort((view.k, view.satellite))
    k, satellite = view.k[order], view.satellite[order]
    begins = np.ones(len(order), dtype=bool)
    begins[1:] = (satellite[1:] != satellite[:-1]) | (k[1:] != k[:-1] + 1)
    first = np.append(np.flatnonzero(begins), len(order))
    of_sighting = np.empty(len(order), dtype=np.int64)
    of_sighting[order] = np.cumsum(begins) - 1
    last = order[first[1:] - 1]
    set_k = view.k[last] + 1.0 if view.set_k is None else view.set_k[last]
    return Passes(order, first, k[first[:-1]], view.k[last] + 1, set_k, of_sighting)


class GatheredViews:
    """What one station sees, some instants after others, each sighting in as few bytes as may be.

    Args:
        empty: makes long arrays.
    """

    def __init__(self, empty: Empty):
        self._empty = empty
        self._kept: list[dict[str, np.ndarray]] = []

    def add(self, view: View) -> None:
        """Keep what it sees next."""
        given = {one.name: column for one in fields(view) if (column := getattr(view, one.name)) is not None}
        kept = {name: self._empty(len(column), NARROW.get(name, column.dtype)) for name, column in given.items()}
        for name, column in given.items():
            kept[name][:] = column
        self._kept.append(kept)

    def taken(self) -> View:
        """All of it as one view, which is not kept any longer."""
        kept, self._kept = self._kept, []
        columns = {name: np.concatenate([one[name] for one in kept]) for name in kept[0]}
        return View(**{name: one.astype(np.int64) if name in NARROW else one for name, one in columns.items()})


def station_view(
    station: GroundStation, r_teme_km: np.ndarray, start: datetime, offsets_ns: np.ndarray, first_k: int = 0
) -> View:
    """What a station sees at K instants.

    The exact elevation is worked out only for what can be above it, by the horizon plane: a few in a hundred.

    Args:
        station: the site or track, its minimum elevation above the WGS84 horizon, and its longest link.
        r_teme_km: positions of N satellites, shape (K, N, 3).
        start: UTC.
        offsets_ns: instants in ns since `start`, shape (K,).
        first_k: the number of the first of these instants.
    """
    sidereal_rad = sidereal_angle_rad(start, offsets_ns)
    site_km, zenith = (itrs_to_teme(xyz, sidereal_rad) for xyz in terminal_itrs(station, offsets_ns))
    level_km = np.einsum("kj,kj->k", site_km, zenith)
    if station.min_elevation_rad < 0:  # also what is lower than the plane by the sine of that, over its distance
        farthest_km = np.fmax.reduce(range_km(site_km[:, np.newaxis], r_teme_km), axis=1, initial=0.0)
        level_km = level_km + farthest_km * np.sin(station.min_elevation_rad)
    above = np.matmul(r_teme_km, zenith[:, :, np.newaxis])[..., 0] >= level_km[:, np.newaxis] - 1e-6  # 1 mm of rounding
    k, satellite = np.nonzero(above)
    seen_km = r_teme_km[k, satellite]
    elevations_rad = elevation_rad(site_km[k], zenith[k], seen_km)
    seen = elevations_rad >= station.min_elevation_rad
    distance_km = range_km(site_km[k], seen_km)
    if station.max_range_km is not None:
        seen &= distance_km <= station.max_range_km
    return View(k[seen] + first_k, satellite[seen], elevations_rad[seen], distance_km[seen])


def with_set_times(view: View, count: int, beyond: View, beyond_k: np.ndarray) -> View:
    """`view` with the times at which its satellites set, also of those that are still up when the run ends.

    Args:
        view: of the K = `count` instants of a run.
        beyond: what is seen at instants from the run's last one on, further apart than the run's.
        beyond_k: those instants in steps of the run, the first being count - 1, shape (H,).

    Returns:
        The view with `set_k`. After the run it is taken as half way between the last sighting and the next instant; a
        satellite that is up at the end of `beyond` is taken to set then.
    """
    passes, ahead = find_passes(view), find_passes(beyond)
    half_way_k = np.append((beyond_k[:-1] + beyond_k[1:]) / 2, beyond_k[-1])
    from_end = ahead.start_k == 0
    set_k = np.full(1 + max(view.satellite.max(initial=0), beyond.satellite.max(initial=0)), float(count))
    set_k[beyond.satellite[ahead.order[ahead.first[:-1]]][from_end]] = half_way_k[ahead.end_k[from_end] - 1]
    of_pass = passes.end_k.astype(np.float64)
    still_up = passes.end_k == count
    of_pass[still_up] = np.maximum(set_k[view.satellite[passes.order[passes.first[:-1]]][still_up]], count)
    return replace(view, set_k=of_pass[passes.of_sighting])


def with_gso_separation(
    view: View,
    station: GroundStation,
    r_teme_km: np.ndarray,
    start: datetime,
    offsets_ns: np.ndarray,
    asked: np.ndarray,
) -> View:
    """`view` with how far from the geostationary arc its satellites are seen, at some of its instants.

    The arc is a circle over the equator, of which points are a degree apart, so the angle is right to 0.1 deg from
    4 deg on. Where no part of it is above the horizon, it is what the horizon hides that counts.

    Args:
        view, station, r_teme_km, start, offsets_ns: as of `station_view`, with `first_k` = 0.
        asked: at which of the K instants; bool, shape (K,).
    """
    sidereal_rad = sidereal_angle_rad(start, offsets_ns)
    site_km = itrs_to_teme(terminal_itrs(station, offsets_ns)[0], sidereal_rad)
    separation_rad = np.full(len(view.k), np.nan)
    some = np.flatnonzero(asked[view.k])
    k = view.k[some]
    sight = r_teme_km[k, view.satellite[some]] - site_km[k]
    around_rad = np.arctan2(site_km[:, 1], site_km[:, 0])[:, np.newaxis] + ARC_RAD
    arc_km = GSO_RADIUS_KM * np.stack([np.cos(around_rad), np.sin(around_rad), 0 * around_rad], axis=-1)
    arc = arc_km - site_km[:, np.newaxis]
    arc /= np.linalg.norm(arc, axis=-1, keepdims=True)
    sight /= np.linalg.norm(sight, axis=-1, keepdims=True)
    nearest = np.einsum("vmj,vj->vm", arc[k], sight).max(axis=1, initial=-1.0)
    separation_rad[some] = np.arccos(np.clip(nearest, -1.0, 1.0))
    return replace(view, gso_rad=separation_rad)
