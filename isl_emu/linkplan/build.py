"""From a scenario to its link plan: positions, then which links are up, then how good they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from isl_emu.geometry.elements import Elements, constellation_elements
from isl_emu.geometry.orbits import propagate
from isl_emu.geometry.sightline import grazing_altitude_km, one_way_delay_ns, range_km
from isl_emu.linkplan.candidates import LaserCandidates, constellation_candidates
from isl_emu.linkplan.ground import GroundPolicy, highest_elevation, station_view
from isl_emu.linkplan.plan import LinkKind, LinkPlan, Links, NodeKind, Nodes
from isl_emu.scenario.model import GroundStation, Scenario
from isl_emu.timebase import TimeGrid

POSITIONS_AT_ONCE = 500_000  # satellites x instants held in memory together: about 100 MB with what is derived


@dataclass(frozen=True)
class SpaceSegment:
    """All satellites and the laser links that they try to keep; candidates index the elements."""

    elements: Elements
    lasers: LaserCandidates


@dataclass(frozen=True)
class _Rows:
    """Links found up, R of them in any order; all arrays have shape (R,)."""

    k: np.ndarray  # int64
    a: np.ndarray  # int64
    b: np.ndarray  # int64
    delay_ns: np.ndarray  # int64


def plan_links(scenario: Scenario, scenario_toml: str) -> LinkPlan:
    """The link plan of a scenario; equal scenarios give equal plans, byte for byte.

    Args:
        scenario: parsed.
        scenario_toml: its resolved text, which the plan carries along.

    Raises:
        ScenarioError: an orbit that does not exist or does not hold.
    """
    space = SpaceSegment(constellation_elements(scenario), constellation_candidates(scenario.shell))
    return plan_segments(space, scenario.station, scenario.time.grid, scenario.rate_scale, scenario_toml)


def plan_segments(
    space: SpaceSegment,
    stations: Sequence[GroundStation],
    grid: TimeGrid,
    rate_scale: float = 1.0,
    scenario_toml: str = "",
    policy: GroundPolicy = highest_elevation,
) -> LinkPlan:
    """The link plan of a space segment, given satellite by satellite, and its ground segment."""
    rows = _joined([_rows_of(space, stations, grid, policy, first) for first in range(0, grid.count, _chunk(space))])
    nodes = _nodes(space, stations)
    pairs, link = np.unique(rows.a * len(nodes.names) + rows.b, return_inverse=True)
    a, b = np.divmod(pairs, len(nodes.names))
    terms = _terms(space, stations, a, b)
    order = np.lexsort((link, rows.k))
    link = link[order].astype(np.int32)
    return LinkPlan(
        grid=grid,
        nodes=nodes,
        links=Links(a.astype(np.int32), b.astype(np.int32), terms.kind, terms.queue_ns),
        row_start=np.searchsorted(rows.k[order], np.arange(grid.count + 1)).astype(np.int64),
        row_link=link,
        row_delay_ns=rows.delay_ns[order],
        row_rate_ab_bit_s=terms.rate_ab_bit_s[link],
        row_rate_ba_bit_s=terms.rate_ba_bit_s[link],
        rate_scale=rate_scale,
        scenario_toml=scenario_toml,
    )


def _chunk(space: SpaceSegment) -> int:
    """How many instants are worked on at once."""
    return max(1, POSITIONS_AT_ONCE // len(space.elements.names))


def _rows_of(
    space: SpaceSegment, stations: Sequence[GroundStation], grid: TimeGrid, policy: GroundPolicy, first: int
) -> _Rows:
    """The links up at one chunk of instants, from `first` on."""
    offsets_ns = grid.offsets_ns[first : first + _chunk(space)]
    r_teme_km = propagate(space.elements, grid.start, offsets_ns)
    rows = [_laser_rows(space.lasers, r_teme_km)]
    for node, station in enumerate(stations, start=len(space.elements.names)):
        view = station_view(station, r_teme_km, grid.start, offsets_ns)
        view = view.only(policy(view, station.antennas))
        rows.append(_Rows(view.k, view.satellite, np.full_like(view.satellite, node), one_way_delay_ns(view.range_km)))
    found = _joined(rows)
    return _Rows(found.k + first, found.a, found.b, found.delay_ns)


def _laser_rows(lasers: LaserCandidates, r_teme_km: np.ndarray) -> _Rows:
    """The candidates within their range and clear of the Earth, at K instants."""
    a_km, b_km = r_teme_km[:, lasers.a], r_teme_km[:, lasers.b]
    distance_km = range_km(a_km, b_km)
    up = (distance_km <= lasers.max_range_km) & (grazing_altitude_km(a_km, b_km) >= lasers.grazing_altitude_km)
    k, candidate = np.nonzero(up)
    a, b = lasers.a[candidate].astype(np.int64), lasers.b[candidate].astype(np.int64)
    return _Rows(k, a, b, one_way_delay_ns(distance_km[up]))


def _joined(parts: Sequence[_Rows]) -> _Rows:
    return _Rows(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("k", "a", "b", "delay_ns")))


def _nodes(space: SpaceSegment, stations: Sequence[GroundStation]) -> Nodes:
    """Satellites first, then stations."""
    names = space.elements.names + tuple(station.name for station in stations)
    kind = np.full(len(names), NodeKind.SATELLITE, dtype=np.uint8)
    kind[len(space.elements.names) :] = NodeKind.STATION
    return Nodes(names, kind)


@dataclass(frozen=True)
class _Terms:
    """What is the same for a link at all instants; all arrays have shape (L,)."""

    kind: np.ndarray  # uint8
    queue_ns: np.ndarray  # int64
    rate_ab_bit_s: np.ndarray  # int64
    rate_ba_bit_s: np.ndarray  # int64


def _terms(space: SpaceSegment, stations: Sequence[GroundStation], a: np.ndarray, b: np.ndarray) -> _Terms:
    """The terms of the links a-b: a laser link's from its candidate, a ground link's from its station.

    The first end of a ground link is the satellite, so its rate a to b is the downlink.
    """
    lasers, satellites = space.lasers, len(space.elements.names)
    is_ground = b >= satellites
    order = np.lexsort((lasers.b, lasers.a))
    keys = lasers.a[order].astype(np.int64) * satellites + lasers.b[order]
    candidate = order[np.searchsorted(keys, a[~is_ground] * satellites + b[~is_ground])]
    station = b[is_ground] - satellites

    def merged(of_candidates: np.ndarray, of_stations: Sequence[int]) -> np.ndarray:
        values = np.empty(len(a), dtype=of_candidates.dtype)
        values[~is_ground] = of_candidates[candidate]
        values[is_ground] = np.array(of_stations, dtype=values.dtype)[station]
        return values

    return _Terms(
        kind=merged(lasers.kind, [LinkKind.GROUND] * len(stations)),
        queue_ns=merged(lasers.queue_ns, [station.queue_ns for station in stations]),
        rate_ab_bit_s=merged(lasers.rate_bit_s, [station.downlink_bit_s for station in stations]),
        rate_ba_bit_s=merged(lasers.rate_bit_s, [station.uplink_bit_s for station in stations]),
    )
