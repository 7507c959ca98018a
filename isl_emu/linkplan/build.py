"""From a scenario to its link plan: positions, then which links are up, then how good they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache, partial
from typing import Any, Protocol

import numpy as np

from isl_emu.geometry.elements import TURN_RAD, Elements, constellation_elements
from isl_emu.geometry.frames import sidereal_angle_rad
from isl_emu.geometry.orbits import propagate
from isl_emu.geometry.places import geodetic, teme_to_itrs
from isl_emu.geometry.pointing import VELOCITY_STEP_NS, velocity_km_s
from isl_emu.geometry.sightline import grazing_altitude_km
from isl_emu.geometry.sunlight import sun_direction
from isl_emu.linkplan.acquisition import Acquisition
from isl_emu.linkplan.candidates import (
    PAIR_SHIFT,
    LaserCandidates,
    joined_candidates,
    laser_candidates,
    pair_keys,
    shell_pairs,
)
from isl_emu.linkplan.constraints import Ephemeris
from isl_emu.linkplan.events import Events, events_of_rows, no_events, ordered_events
from isl_emu.linkplan.fault_draws import carried_links, drawn_faults
from isl_emu.linkplan.fault_events import Faults, FaultThing, KnownDead
from isl_emu.linkplan.faults import with_faults
from isl_emu.linkplan.gathered import GatheredRows
from isl_emu.linkplan.ground import GroundSegment
from isl_emu.linkplan.handover import GroundPolicy
from isl_emu.linkplan.lasers import LaserQuality, ideal_rows
from isl_emu.linkplan.pairing import Pairing, ideal_candidates, listed_candidates, pairings_of, places_of
from isl_emu.linkplan.plan import AQM, LinkKind, LinkPlan, Links, NodeKind, Nodes, QueueKind, Rows
from isl_emu.linkplan.pool import Ahead
from isl_emu.linkplan.rows import Empty
from isl_emu.linkplan.scheduler import launch_years
from isl_emu.linkplan.sightings import GatheredViews, View
from isl_emu.linkplan.terminals import Terminals, constellation_terminals
from isl_emu.linkplan.terrestrial import Lines, terrestrial_lines
from isl_emu.scenario.lasers import LaserTerms
from isl_emu.scenario.model import GroundStation, Orbits, Scenario, Terrestrial
from isl_emu.scenario.nodes import LinkSettings
from isl_emu.scenario.queueing import QueueTerms
from isl_emu.timebase import TimeGrid
from isl_emu.units import NS_PER_S

POSITIONS_AT_ONCE = 100_000  # satellites x instants held in memory together: about 20 MB with what is derived
FEW = 100  # satellites of whom each may be linked with each
LOOKS = 24  # around a revolution, for links that are never possible


@dataclass(frozen=True)
class SpaceSegment:
    """All satellites and the laser links that they try to keep; candidates index the elements."""

    elements: Elements
    lasers: LaserCandidates  # whose terminals are ideal
    orbits: Orbits = Orbits()
    pairings: tuple[Pairing, ...] = ()  # whose terminals have to point and acquire
    terminals: Terminals | None = None  # those of the pairings
    launch_year: np.ndarray | None = None  # of each satellite, nan where it is not known; float64 (N,)


class InOrder(Protocol):
    """As `map`: a function of each of some numbers, in their order; several at once if it likes."""

    def __call__(self, function: Callable[[int], Any], numbers: Iterable[int], /) -> Iterable[Any]: ...


def plan_links(scenario: Scenario, scenario_toml: str, in_order: InOrder = map, empty: Empty = np.empty) -> LinkPlan:
    """The link plan of a scenario; equal scenarios give equal plans, byte for byte.

    Args:
        scenario: parsed.
        scenario_toml: its resolved text, which the plan carries along.
        in_order: how what depends on no other instant is computed: chunk after chunk by `map`, or in several threads.
        empty: makes the plan's long arrays, in memory or elsewhere.

    Raises:
        ScenarioError: an orbit that does not exist or does not hold.
    """
    space, grid = space_segment(scenario), scenario.time.grid
    followed = _follower(scenario, space, scenario_toml, in_order, empty)
    sky, pointed = followed()
    if not scenario.fault:
        return sky

    def ground_points() -> tuple[np.ndarray, np.ndarray]:
        parts = [
            geodetic(teme_to_itrs(chunk.r_km, sidereal_angle_rad(grid.start, chunk.t_ns)))[:2]
            for chunk in (_sky(space, grid, first) for first in range(0, grid.count, _chunk(space)))
        ]
        latitudes_rad, longitudes_rad = zip(*parts, strict=True)
        return np.concatenate(latitudes_rad), np.concatenate(longitudes_rad)

    points = cache(ground_points)

    def drawn() -> Faults:
        carried = carried_links(sky, space.terminals, pointed.engagements()) if space.terminals and pointed else None
        return drawn_faults(scenario, sky, points, carried)

    faults = drawn()
    dead = faults.known_dead(len(space.elements.names))
    if scenario.station and len(dead.node):  # whom stations avoid: their links are others then, those of satellites not
        sky, pointed = followed(dead=dead)
        faults = drawn()
    return with_faults(sky, faults, empty)


def plan_expected(scenario: Scenario, plan: LinkPlan, k: int) -> LinkPlan:
    """A plan as those at instant `k` expect it: what they know to be out of order stays so, and all else works."""
    if not plan.faults.names:
        return plan
    space, faults = space_segment(scenario), plan.faults.expected_at(k, plan.grid.count)
    dead = faults.known_dead(len(space.elements.names))
    sky, _ = _follower(scenario, space, plan.scenario_toml)(dead=dead)
    # its links have other numbers: stations point elsewhere
    keys, is_link = pair_keys(sky.links.a, sky.links.b), faults.thing == FaultThing.LINK
    wanted = pair_keys(plan.links.a, plan.links.b)[np.where(is_link, faults.target, 0)]
    number = np.searchsorted(keys, wanted).clip(max=max(len(keys) - 1, 0))
    there = ~is_link | (keys[number] == wanted if len(keys) else False)
    renumbered = replace(faults, target=np.where(is_link, number, faults.target).astype(np.int32))
    return with_faults(sky, renumbered.only(there))


def _follower(
    scenario: Scenario, space: SpaceSegment, scenario_toml: str, in_order: InOrder = map, empty: Empty = np.empty
) -> Callable[..., tuple[LinkPlan, Acquisition | None]]:
    """`_followed` of a scenario, whatever is known to be dead."""
    grid = scenario.time.grid
    return partial(
        _followed, space, scenario.station, grid, scenario.rate_scale, scenario_toml, seed=scenario.seed,
        places=scenario.place_names, lines=scenario.terrestrial,
        on_ground=terrestrial_lines(scenario, len(scenario.satellite_names)), settings=scenario.link_settings,
        in_order=in_order, empty=empty,
    )  # fmt: skip


def space_segment(scenario: Scenario) -> SpaceSegment:
    """The satellites of a scenario, and the laser links that they try to keep."""
    elements, grid = constellation_elements(scenario), scenario.time.grid
    bare = SpaceSegment(elements, joined_candidates([]), scenario.orbits)
    lasers = ideal_candidates(scenario, lambda: _sky(bare, grid, 0).at(0))
    pairings = tuple(pairings_of(scenario))
    terminals = constellation_terminals(scenario.shell) if pairings else None
    return SpaceSegment(elements, lasers, scenario.orbits, pairings, terminals, launch_years(scenario))


def never_linked(scenario: Scenario) -> Iterator[str]:
    """A sentence for all links within the planes of a pattern, or between them, and for each listed pair, if none of
    them is possible at any of `LOOKS` instants around a revolution from their epoch on, outages aside.
    """
    elements = constellation_elements(scenario)
    space = SpaceSegment(elements, joined_candidates([]), scenario.orbits.model_copy(update={"on_bad": "mask"}))
    step_ns = round(TURN_RAD / elements.mean_motion_rad_min.min() * 60 * NS_PER_S / LOOKS)
    grid = TimeGrid(scenario.epoch, step_ns, LOOKS)
    sky_from = cache(partial(_sky, space, grid))

    for sorts, lasers, sort in _fixed_links(scenario):
        quality, count = LaserQuality(lasers, scenario.seed, grid.duration_ns), len(sorts)
        possible = np.bincount(sort, minlength=count) == 0
        yield from (f"{sorts[n]} there are none: each plane has one satellite" for n in np.flatnonzero(possible))
        nearest_km, highest_km = np.full(count, np.inf), np.full(count, -np.inf)
        for first in range(0, LOOKS, _chunk(space)):
            if possible.all():
                break
            sky = sky_from(first)
            up, distance_km = quality.possible(sky)
            possible[sort[up.any(axis=0)]] = True
            np.fmin.at(nearest_km, sort, np.fmin.reduce(distance_km))
            lines_km = grazing_altitude_km(sky.r_km[:, lasers.a], sky.r_km[:, lasers.b])
            np.fmax.at(highest_km, sort, np.fmax.reduce(lines_km))
        yield from (
            f"{sorts[n]} none is ever possible: around a revolution their ends are at least {nearest_km[n]:,.0f} km "
            f"apart, and the line between them passes {abs(highest_km[n]):,.0f} km "
            f"{'over' if highest_km[n] >= 0 else 'below'} the ground at best; have more satellites, other pairs or "
            "other limits"
            for n in np.flatnonzero(~possible & np.isfinite(nearest_km))  # else one has no position, which is told
        )


def _fixed_links(scenario: Scenario) -> Iterator[tuple[list[str], LaserCandidates, np.ndarray]]:
    """The laser links that do not depend on time: what sorts there are, the links, and the sort of each, shape (C,)."""
    first, tables = 0, list[tuple[str, LaserTerms]]()
    for shell in scenario.shell:
        where, terms = f"shell {shell.name}", shell.lasers.model_copy(update={"outages": None})
        tables.append((where, terms))
        if terms.topology in ("ring", "+grid") and shell.walker:
            a, b, kind = shell_pairs(shell)
            sorts = [f"{where}: of the links within a plane", f"{where}: of the links between planes"]
            several = terms.topology == "+grid" and shell.walker.planes > 1
            sort = (kind == LinkKind.INTER_PLANE).astype(np.int64)
            yield sorts if several else sorts[:1], laser_candidates(a + first, b + first, kind, terms), sort
        elif terms.topology == "nearest" and shell.walker and 1 < shell.count <= FEW:
            a, b = np.triu_indices(shell.count, 1)
            kind = np.full(len(a), LinkKind.INTER_PLANE)
            sort = np.zeros(len(a), dtype=np.int64)
            yield [f"{where}: of the links to the nearest"], laser_candidates(a + first, b + first, kind, terms), sort
        first += shell.count
    tables += ((f"inter_shell[{n}]", table) for n, table in enumerate(scenario.inter_shell))
    for where, one in tables:
        if one.pairs:
            sorts = [f"{where}: of pairs[{n}] ({a} - {b})" for n, (a, b) in enumerate(one.pairs)]
            steady = one.model_copy(update={"outages": None})
            lasers = listed_candidates(steady, scenario.satellite_names, places_of(scenario))
            yield sorts, lasers, np.arange(len(sorts))


def plan_segments(
    space: SpaceSegment,
    stations: Sequence[GroundStation],
    grid: TimeGrid,
    rate_scale: float = 1.0,
    scenario_toml: str = "",
    policy: GroundPolicy | None = None,
    seed: int = 1,
) -> LinkPlan:
    """The link plan of a space segment, given satellite by satellite, and its ground segment.

    A `policy` stands in for the handover policies of all stations.
    """
    return _followed(space, stations, grid, rate_scale, scenario_toml, policy, seed)[0]


def _followed(
    space: SpaceSegment,
    stations: Sequence[GroundStation],
    grid: TimeGrid,
    rate_scale: float,
    scenario_toml: str,
    policy: GroundPolicy | None = None,
    seed: int = 1,
    places: Sequence[str] = (),
    lines: Sequence[Terrestrial] = (),
    on_ground: Lines | None = None,
    dead: KnownDead | None = None,
    settings: Sequence[LinkSettings] = (),
    in_order: InOrder = map,
    empty: Empty = np.empty,
) -> tuple[LinkPlan, Acquisition | None]:
    """The link plan, and what its terminals did, if there are any; stations know which satellites are dead."""
    lasers, pointed = LaserQuality(space.lasers, seed, grid.duration_ns), None
    if space.terminals is not None:
        pointed = Acquisition(space.terminals, space.pairings, seed, grid.duration_ns, grid.step_ns)
    launched = space.launch_year if space.launch_year is not None else np.full(len(space.elements.names), np.nan)
    ground = GroundSegment(tuple(stations), len(space.elements.names), grid, policy, seed, launched, dead)
    gathered, views = GatheredRows(grid.count, empty), [GatheredViews(empty) for _ in stations]

    def looked_at(first: int) -> tuple[int, Ephemeris, list[Rows], Ahead | None, tuple[View, ...]]:
        sky = _sky(space, grid, first)
        steady = [ideal_rows(lasers, sky).later(first)]
        steady += [on_ground.rows(first, len(sky.t_ns))] if on_ground else []
        ahead = pointed.ahead(sky) if pointed else None
        return first, sky, steady, ahead, ground.views(sky.r_km, sky.t_ns, first)

    for first, sky, steady, ahead, seen in in_order(looked_at, range(0, grid.count, _chunk(space))):
        gathered.add([*steady, *(pointed.rows(sky, ahead, first) if pointed and ahead else [])], first, len(sky.t_ns))
        for of_station, view in zip(views, seen, strict=True):
            of_station.add(view)
    later_ns = ground.horizon_ns
    beyond_km = propagate(space.elements, grid.start, later_ns, space.orbits) if len(later_ns) else None
    told = [pointed.events()] if pointed else []
    for made in ground.links(views, beyond_km):
        gathered.add_late(made.rows)
        told.append((made.k, made.pair, made.state))
    nodes = _nodes(space, stations, places)
    pairs, columns = gathered.columns()
    a, b = pairs >> PAIR_SHIFT, pairs & (2**PAIR_SHIFT - 1)
    row_start, link = columns["row_start"], columns["row_link"]
    candidates = joined_candidates([space.lasers, pointed.links()]) if pointed else space.lasers
    links = _links(candidates, len(space.elements.names), stations, lines, nodes.names, a, b)
    links = _as_nodes_want(links, settings, nodes.names)
    plan = LinkPlan(
        grid=grid,
        nodes=nodes,
        links=links,
        rate_scale=rate_scale,
        scenario_toml=scenario_toml,
        **columns,
        events=_events(told, links, row_start, link),
    )
    return plan, pointed


def _events(
    told: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]],
    links: Links,
    row_start: np.ndarray,
    row_link: np.ndarray,
) -> Events:
    """The events of all links: as terminals and stations tell (instant, pair, state), else as the rows make them.

    None if nobody tells: then the plan makes them of its rows.
    """
    if not told:
        return no_events()
    k, pair, state = (np.concatenate(parts) for parts in zip(*told, strict=True))
    keys = pair_keys(links.a, links.b)
    link = np.searchsorted(keys, pair).clip(max=max(len(keys) - 1, 0))
    known = keys[link] == pair if len(keys) else np.zeros(len(pair), dtype=bool)
    others = events_of_rows(row_start, row_link, links.kind == LinkKind.GROUND, ~np.isin(keys, pair))
    return ordered_events(
        np.concatenate([k[known], others.k]),
        np.concatenate([link[known], others.link]),
        np.concatenate([state[known], others.state]),
    )


def _chunk(space: SpaceSegment) -> int:
    """How many instants are worked on at once."""
    return max(1, POSITIONS_AT_ONCE // len(space.elements.names))


def _sky(space: SpaceSegment, grid: TimeGrid, first: int) -> Ephemeris:
    """The satellites at one chunk of instants, from `first` on."""
    return sky_at(space, grid.start, grid.offsets_ns[first : first + _chunk(space)])


def sky_at(space: SpaceSegment, start: datetime, t_ns: np.ndarray) -> Ephemeris:
    """The satellites at some times since `start`, in their order; int64, shape (K,)."""
    r_km = propagate(space.elements, start, t_ns, space.orbits)

    def velocities() -> np.ndarray:
        next_ns, r_next_km = t_ns + VELOCITY_STEP_NS, np.empty_like(r_km)
        known = np.isin(next_ns, t_ns)
        r_next_km[known] = r_km[np.searchsorted(t_ns, next_ns[known])]
        r_next_km[~known] = propagate(space.elements, start, next_ns[~known], space.orbits)
        return velocity_km_s(r_km, r_next_km)

    return Ephemeris(t_ns, r_km, velocities, lambda: sun_direction(start, t_ns))


def _nodes(space: SpaceSegment, stations: Sequence[GroundStation], places: Sequence[str]) -> Nodes:
    """Satellites first, then stations, then other places."""
    names = (*space.elements.names, *(station.name for station in stations), *places)
    of_stations = [NodeKind.GATEWAY if station.forwards else NodeKind.STATION for station in stations]
    kinds = [NodeKind.SATELLITE] * len(space.elements.names) + of_stations + [NodeKind.PLACE] * len(places)
    return Nodes(names, np.array(kinds, dtype=np.uint8))


def _links(
    lasers: LaserCandidates, satellites: int, stations: Sequence[GroundStation], lines: Sequence[Terrestrial],
    names: Sequence[str], a: np.ndarray, b: np.ndarray,
) -> Links:  # fmt: skip
    """The links a-b with what is the same for them at all instants: of their candidate, station or line."""
    is_ground = b >= satellites
    is_line = a >= satellites
    line_of = {frozenset(line.between): number for number, line in enumerate(lines)}
    order = np.lexsort((lasers.b, lasers.a))
    keys = lasers.a[order].astype(np.int64) * satellites + lasers.b[order]
    candidate = order[np.searchsorted(keys, a[~is_ground] * satellites + b[~is_ground])]
    kind = np.full(len(a), LinkKind.GROUND, dtype=np.uint8)
    kind[~is_ground] = lasers.kind[candidate]
    kind[is_line] = LinkKind.TERRESTRIAL
    on_ground = (*stations, *lines)  # whose links those with an end on the ground are
    station = b[is_ground] - satellites
    station[is_line[is_ground]] = [
        len(stations) + line_of[frozenset((names[one], names[other]))] for one, other in zip(a[is_line], b[is_line])
    ]
    queue_ns = np.empty(len(a), dtype=np.int64)
    queue_ns[~is_ground] = lasers.queue_ns[candidate]
    queue_ns[is_ground] = np.array([terms.queue_ns for terms in on_ground], dtype=np.int64)[station]
    aqm = np.empty(len(a), AQM)
    aqm[~is_ground] = _aqm(lasers.terms)[lasers.term[candidate]]
    aqm[is_ground] = _aqm(on_ground)[station]
    mtu_byte = np.empty(len(a), dtype=np.int32)
    mtu_byte[~is_ground] = np.array([term.mtu_byte for term in lasers.terms], np.int32)[lasers.term[candidate]]
    mtu_byte[is_ground] = np.array([terms.mtu_byte for terms in on_ground], np.int32)[station]
    return Links(a.astype(np.int32), b.astype(np.int32), kind, queue_ns, aqm, mtu_byte)


def _as_nodes_want(links: Links, settings: Sequence[LinkSettings], names: Sequence[str]) -> Links:
    """The links with the queues and the longest packets that tables of their nodes want; the later one holds."""
    queue_ns, aqm, mtu_byte = links.queue_ns.copy(), links.aqm.copy(), links.mtu_byte.copy()
    for table in settings:
        named = np.isin(names, table.nodes)
        which = named[links.a] | named[links.b]
        if table.queue_ns is not None:
            queue_ns[which] = table.queue_ns
        if table.aqm is not None:
            aqm[which] = _aqm([QueueTerms(aqm=table.aqm)])
        if table.mtu_byte is not None:
            mtu_byte[which] = table.mtu_byte
    return replace(links, queue_ns=queue_ns, aqm=aqm, mtu_byte=mtu_byte)


def _aqm(terms: Sequence[QueueTerms]) -> np.ndarray:
    """How each of these wants its queues managed; AQM."""
    kinds = [QueueKind[one.aqm.upper()] for one in terms]
    rows = [(kind, one.ecn, one.aqm_target_ns, one.aqm_interval_ns) for kind, one in zip(kinds, terms, strict=True)]
    return np.array(rows, AQM)
