"""From a scenario's faults to their events: who is hit, from which instant, and until when.

Faults happen at instants of the plan, because nothing else does: each begins at the first instant that is not before
its time, ends at the first one not before its end, and lasts an instant at least. Each fault draws by its own seed and
name, and by what it hits: neither another fault, nor more satellites, nor a longer run change what it does.

Times between failures and to repair are Weibull-distributed; the exponential distribution is that of shape 1. At the
start everything works, and the time to its first failure begins. A fault's clock may run faster or slower (a solar
storm's profile), and in a region it runs only while its satellite is inside, as is looked at once in each step.

It is long because whom, when and for how long are drawn together, from the same seed.
"""

from __future__ import annotations

import math
import zlib
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np

from isl_emu.arrays import Bools, Floats, Ints
from isl_emu.errors import ScenarioError
from isl_emu.limits import FAULTS
from isl_emu.linkplan.candidates import pair_keys
from isl_emu.linkplan.contacts import find_contacts
from isl_emu.linkplan.draws import uniform
from isl_emu.linkplan.fault_events import TERMS, Faults, FaultThing
from isl_emu.linkplan.plan import LinkPlan
from isl_emu.linkplan.terminals import Terminals
from isl_emu.scenario.faults import Fault, Region, hit_at_once, selected_satellites, strikes
from isl_emu.scenario.matching import matching
from isl_emu.scenario.model import Scenario

ANYWHERE = -1  # the node of what no region is asked about

GroundPoints = Callable[[], tuple[Floats, Floats]]
"""Latitude and longitude of the points below all satellites at all instants, rad, both shape (K, satellites)."""
Stretches = tuple[Ints, Floats, Floats]
"""Targets (E,), and when each is hit and is right again, in ns since the start; float64 (E,)."""


@dataclass(frozen=True)
class Targets:
    """T things that a fault may hit; arrays have shape (T,)."""

    thing: FaultThing
    index: Ints
    node: Ints  # of a satellite whose place matters in a region; ANYWHERE for what is nowhere
    keys: tuple[Ints, Ints]  # what tells one from another when numbers are drawn


@dataclass(frozen=True)
class Carried:
    """Which laser terminals carried which links; a row for each end of a link in each contact, shape (C,)."""

    satellite: Ints  # node index
    mount: tuple[str, ...]  # of its terminal
    link: Ints  # of the plan
    k_from: Ints
    k_until: Ints


def carried_links(sky: LinkPlan, terminals: Terminals, engagements: tuple[Ints, Ints, Ints]) -> Carried:
    """Which terminals carried which links of a plan, by when links got their terminals (`Acquisition.engagements`).

    A link keeps its terminals through a contact, so they are those that it got last before.
    """
    k, pair, taken = engagements
    contacts, step_ns = find_contacts(sky), sky.grid.step_ns
    laser = sky.links.laser[contacts.link]
    link, start_k, end_k = contacts.link[laser], contacts.start_ns[laser] // step_ns, contacts.end_ns[laser] // step_ns
    order = np.lexsort((np.arange(len(k)), k, pair))  # of several at an instant the last counts
    moments = list(zip(pair[order].tolist(), k[order].tolist(), strict=True))
    keys = pair_keys(sky.links.a, sky.links.b)[link]
    at = np.array([bisect_right(moments, moment) - 1 for moment in zip(keys.tolist(), start_k.tolist())], np.int64)
    got = at >= 0
    got[got] = pair[order][at[got]] == keys[got]  # others have ideal terminals
    which = taken[order][at[got]]
    return Carried(
        terminals.satellite[which].T.ravel(),
        tuple(terminals.mount[terminal] for terminal in which.T.ravel().tolist()),
        *(np.tile(column[got], 2).astype(np.int64) for column in (link, start_k, end_k)),
    )


def drawn_faults(scenario: Scenario, sky: LinkPlan, ground_points: GroundPoints, carried: Carried | None) -> Faults:
    """All events of a scenario's faults.

    Args:
        scenario: whose faults.
        sky: its plan without them.
        ground_points: called if there are faults that hit a region.
        carried: by terminals; None where all are ideal.
    """
    none = np.empty(0, np.int64)
    carried = carried or Carried(none, (), none, none, none)
    parts = [
        _events(number, fault, scenario, sky, ground_points, carried) for number, fault in enumerate(scenario.fault)
    ]
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    fault, thing, target, *instants = columns
    return Faults(
        tuple(fault.name for fault in scenario.fault),
        tuple(fault.effect for fault in scenario.fault),
        np.array([_terms(fault) for fault in scenario.fault], TERMS),
        fault.astype(np.int32),
        thing.astype(np.uint8),
        target.astype(np.int32),
        *(instant.astype(np.int64) for instant in instants),
    )


def _terms(fault: Fault) -> tuple[bool, float, float, float, int, float, float]:
    cut = fault.effect in ("cut", "power-off")
    ratios = fault.loss, fault.corruption, fault.duplication
    return cut, *ratios, fault.jitter_ns, fault.rate_factor, fault.delay_factor


def _events(
    number: int, fault: Fault, scenario: Scenario, sky: LinkPlan, ground_points: GroundPoints, carried: Carried
) -> tuple[Ints, ...]:
    """The events of one fault, as the columns of `Faults`."""
    grid = sky.grid
    terminals = _terminals_named(fault, carried, sky) if fault.thing == "terminals" else ()
    targets = _terminal_targets(terminals) if fault.thing == "terminals" else _targets(fault, scenario, sky)
    if excess := FAULTS.excess(strikes(fault, grid.duration_ns) * hit_at_once(fault, len(targets.index))):
        raise ScenarioError(
            f"fault {fault.name}: {excess}"
        )  # of links and terminals nobody knew before how many there are
    inside = _inside(fault.region, targets, ground_points) if fault.region else None
    draw = _Draw(fault, scenario.seed, targets)
    if times_ns := fault.times_ns(grid.duration_ns):
        hit = _at_given_times(times_ns, draw, inside, sky)
    elif fault.mtbf_ns is not None:
        hit = _at_random(draw, inside, sky)
    else:
        hit = _as_long_as_inside(inside, sky)
    place, from_ns, until_ns = hit
    first = np.ceil(from_ns / grid.step_ns).astype(np.int64)
    last = np.ceil((until_ns + (fault.reboot_ns or 0)) / grid.step_ns).clip(max=grid.count).astype(np.int64)
    last = first + 1 if fault.momentary else np.maximum(last, first + 1)
    within = first < grid.count
    found = place[within], first[within], last[within]
    struck, k_from, k_until = found if fault.momentary else _merged(*found)
    after_ns = fault.known_after_ns
    late = grid.count if after_ns is None else -(-after_ns // grid.step_ns)
    times = np.stack([k_from, k_until, *(np.minimum(k + late, grid.count) for k in (k_from, k_until))])
    target: Ints = targets.index[struck]
    if fault.thing == "terminals":
        target, times = _on_their_links(struck, times, terminals, carried)
    order = np.lexsort((target, times[0]))
    count = len(order)
    return np.full(count, number), np.full(count, targets.thing), target[order], *times[:, order]


def _targets(fault: Fault, scenario: Scenario, sky: LinkPlan) -> Targets:
    names, links = sky.nodes.names, sky.links
    number_of = {name: number for number, name in enumerate(names)}
    nowhere = np.full(len(links.a), ANYWHERE)
    if fault.thing == "links":
        hit = _links_named(fault.links, sky)
        found = FaultThing.LINK, hit, nowhere[hit], (links.a[hit], links.b[hit])
    elif fault.thing == "programs":
        own = scenario.own_programs
        selected = set(selected_satellites(fault, scenario))
        restricted = bool(fault.shells or fault.planes)
        index = [
            n
            for n, (program, nodes) in enumerate(own.items())
            if program in matching(fault.programs, tuple(own)) and (nodes[0] in selected or not restricted)
        ]
        first = np.array([number_of[nodes[0]] for nodes in own.values()], np.int64)
        hit = np.array(index, np.int64)
        found = FaultThing.PROGRAM, hit, first[hit], (first[hit], hit)
    else:
        chosen: Sequence[str] = matching(fault.stations, scenario.station_names)
        if fault.thing != "stations":
            chosen = selected_satellites(fault, scenario)
        if fault.thing == "servers":
            serving = matching(fault.servers or (), scenario.computing_satellites)
            chosen = tuple(name for name in chosen if name in serving)
        hit = np.array([number_of[name] for name in chosen], np.int64)
        thing = FaultThing.SERVER if fault.thing == "servers" else FaultThing.NODE
        found = thing, hit, hit, (hit, np.zeros_like(hit))
    return Targets(*found)


def _links_named(patterns: Sequence[str], sky: LinkPlan) -> Ints:
    """The links whose two ends match any of the pairs of patterns, in either order."""
    names, hit = sky.nodes.names, np.zeros(len(sky.links.a), dtype=bool)
    for text in patterns:
        one, other = (np.array([fnmatchcase(name, end) for name in names], bool) for end in text.split(" - "))
        a, b = sky.links.a, sky.links.b
        hit |= (one[a] & other[b]) | (one[b] & other[a])
    return np.flatnonzero(hit)


def _terminals_named(fault: Fault, carried: Carried, sky: LinkPlan) -> tuple[tuple[int, str], ...]:
    """The terminals that a fault names, of those that ever carry a link: satellite and mount, ascending."""
    there = sorted(set(zip(carried.satellite.tolist(), carried.mount, strict=True)))
    patterns = [text.split() for text in fault.terminals]
    return tuple(
        (node, mount)
        for node, mount in there
        if any(fnmatchcase(sky.nodes.names[node], name) and own in (mount, "*") for name, own in patterns)
    )


def _terminal_targets(terminals: Sequence[tuple[int, str]]) -> Targets:
    node = np.array([node for node, _ in terminals], np.int64)
    mount = np.array([zlib.crc32(mount.encode()) for _, mount in terminals], np.int64)
    return Targets(FaultThing.LINK, node, node, (node, mount))


def _on_their_links(
    target: Ints, times: Ints, terminals: Sequence[tuple[int, str]], carried: Carried
) -> tuple[Ints, Ints]:
    """The links that terminals carry while they are hit, or while that is known, and when; (E,) and (4, E)."""
    number = {terminal: place for place, terminal in enumerate(terminals)}
    of = np.array([number.get(one, ANYWHERE) for one in zip(carried.satellite.tolist(), carried.mount)], np.int64)
    links, parts = [np.empty(0, np.int64)], [np.empty((4, 0), np.int64)]
    for place, stretch in zip(target.tolist(), times.T, strict=True):
        which = np.flatnonzero(of == place)
        part = np.clip(stretch[:, np.newaxis], carried.k_from[which], carried.k_until[which])
        some = (part[0] < part[1]) | (part[2] < part[3])
        links.append(carried.link[which][some])
        parts.append(part[:, some])
    return np.concatenate(links), np.concatenate(parts, axis=1)


class _Draw:
    """The random numbers of a fault. What is hit together is a unit, and draws by the first thing in it."""

    def __init__(self, fault: Fault, seed: int, targets: Targets):
        self.fault = fault
        places = np.arange(len(targets.index))
        self._unit = places * 0 if fault.together else places // (fault.batch or 1)
        self.units = int(self._unit.max(initial=-1)) + 1
        first = np.searchsorted(self._unit, np.arange(self.units))
        self._keys = targets.keys[0][first], targets.keys[1][first]
        self._seed = seed if fault.seed is None else fault.seed

    def chosen(self, occasion: int) -> Ints:
        """The units that are hit, if only some are."""
        fault, count = self.fault, self.units
        if fault.count is not None or fault.fraction is not None:
            wanted = fault.count if fault.count is not None else round((fault.fraction or 0.0) * count)
            order = np.argsort(self._uniform("chosen", np.arange(count), occasion), kind="stable")
            return np.sort(order[:wanted])
        return np.arange(count)

    def failure_ns(self, unit: Ints, occasion: int) -> Floats:
        """Times to failure, by a clock of its own."""
        u = self._uniform("failure", unit, occasion)
        return weibull(float(self.fault.mtbf_ns or 0), self.fault.shape, u)

    def repair_ns(self, unit: Ints, occasion: int) -> Floats | None:
        """Times until it is right again; None for those that have none."""
        if self.fault.for_ns is not None:
            return np.full(len(unit), float(self.fault.for_ns))
        if self.fault.mttr_ns is None:
            return None
        return weibull(float(self.fault.mttr_ns), self.fault.repair_shape, self._uniform("repair", unit, occasion))

    def members(self, unit: Ints) -> tuple[Ints, Ints]:
        """What is hit with each of some units: places in `unit`, and targets."""
        place = np.full(self.units, -1)
        place[unit] = np.arange(len(unit))
        target = np.flatnonzero(place[self._unit] >= 0)
        return place[self._unit[target]], target

    def _uniform(self, what: str, unit: Ints, occasion: int) -> Floats:
        keys = (key[unit] for key in self._keys)
        return uniform(self._seed, f"fault {self.fault.name}: {what}", *keys, occasion)


def weibull(mean: float, shape: float, u: Floats) -> Floats:
    """Weibull-distributed numbers of this mean, from uniform ones; of shape 1 they are exponentially distributed."""
    numbers: Floats = mean / math.gamma(1 + 1 / shape) * (-np.log(u)) ** (1 / shape)
    return numbers


def _at_given_times(times_ns: Sequence[int], draw: _Draw, inside: Bools | None, sky: LinkPlan) -> Stretches:
    grid, parts = sky.grid, list[Stretches]()
    for occasion, t_ns in enumerate(times_ns):
        unit = draw.chosen(occasion)
        place, target = draw.members(unit)
        from_ns = np.full(len(target), float(t_ns))
        repair_ns = draw.repair_ns(unit, occasion)
        k = -(-t_ns // grid.step_ns)
        if repair_ns is not None:
            until_ns: Floats = from_ns + repair_ns[place]
        elif inside is not None and k < grid.count:
            until_ns = _leaving_k(inside[:, target], np.full(len(target), k)) * float(grid.step_ns)
        else:
            until_ns = np.full(len(target), float(grid.duration_ns + grid.step_ns))
        there = inside[k, target] if inside is not None and k < grid.count else np.ones(len(target), dtype=bool)
        parts.append((target[there], from_ns[there], until_ns[there]))
    return _joined(parts)


def _at_random(draw: _Draw, inside: Bools | None, sky: LinkPlan) -> Stretches:
    """Failures and repairs in turn, of each unit by its own clock, until the end of the run."""
    grid, reboot_ns = sky.grid, draw.fault.reboot_ns or 0
    unit = draw.chosen(0)
    t_ns: Floats = np.zeros(len(unit))
    edges_ns = np.arange(grid.count + 1) * float(grid.step_ns)
    shown_ns = _clock_ns(draw.fault.profile, edges_ns, None if inside is None else inside[:, unit])
    parts, count = list[Stretches](), 0
    while len(unit):
        due_ns = _read(shown_ns, edges_ns, t_ns) + draw.failure_ns(unit, count)
        within = due_ns < shown_ns[-1]
        unit, due_ns, shown_ns = (
            unit[within],
            due_ns[within],
            shown_ns[:, within] if shown_ns.shape[1] > 1 else shown_ns,
        )
        from_ns = _when(shown_ns, edges_ns, due_ns)
        repair_ns = draw.repair_ns(unit, count)
        if repair_ns is not None:
            until_ns: Floats = from_ns + repair_ns
        elif draw.fault.momentary:
            until_ns = from_ns
        elif inside is not None:
            k = np.minimum(np.ceil(from_ns / grid.step_ns).astype(np.int64), grid.count - 1)
            until_ns = _leaving_k(inside[:, unit], k) * float(grid.step_ns)
        else:
            until_ns = np.full(len(unit), float(grid.duration_ns + grid.step_ns))
        place, target = draw.members(unit)
        parts.append((target, from_ns[place], until_ns[place]))
        t_ns = until_ns + reboot_ns
        count += 1
    return _joined(parts)


def _clock_ns(profile: Sequence[tuple[int, float]], edges_ns: Floats, inside: Bools | None) -> Floats:
    """What a fault's clock shows at the edges of all steps, one column for all units or one for each; (K+1, 1 or U)."""
    steps_ns = np.diff(edges_ns)[:, np.newaxis]
    if profile:
        times, factors = zip(*profile, strict=True)
        # between its points a profile is straight: what it adds up to is exact at these and at the edges
        t_ns = np.union1d(edges_ns, np.clip(np.array(times, np.float64), 0.0, edges_ns[-1]))
        factor = np.interp(t_ns, times, factors)
        total = np.concatenate([[0.0], np.cumsum(np.diff(t_ns) * (factor[1:] + factor[:-1]) / 2)])
        steps_ns = np.diff(np.interp(edges_ns, t_ns, total))[:, np.newaxis]
    counted_ns: Floats = steps_ns if inside is None else steps_ns * inside
    return np.concatenate([np.zeros((1, counted_ns.shape[1])), np.cumsum(counted_ns, axis=0)])


def _read(shown_ns: Floats, edges_ns: Floats, t_ns: Floats) -> Floats:
    """What the clocks show at a time for each unit."""
    if shown_ns.shape[1] == 1:
        return np.interp(t_ns, edges_ns, shown_ns[:, 0])
    return np.array([np.interp(t, edges_ns, shown_ns[:, n]) for n, t in enumerate(t_ns)])


def _when(shown_ns: Floats, edges_ns: Floats, due_ns: Floats) -> Floats:
    """When the clocks show a time for each unit, which they all do before the end."""
    if shown_ns.shape[1] == 1:
        return np.interp(due_ns, shown_ns[:, 0], edges_ns)
    return np.array([np.interp(due, shown_ns[:, n], edges_ns) for n, due in enumerate(due_ns)])


def _as_long_as_inside(inside: Bools | None, sky: LinkPlan) -> Stretches:
    assert inside is not None, "what has no time has a region"
    padded = np.zeros((inside.shape[0] + 2, inside.shape[1]), dtype=np.int8)
    padded[1:-1] = inside
    change = np.diff(padded, axis=0).T  # each target's changes together, by time
    target, k_from = np.nonzero(change == 1)
    _, k_until = np.nonzero(change == -1)
    step_ns = float(sky.grid.step_ns)
    return target, k_from * step_ns, k_until * step_ns


def _inside(region: Region, targets: Targets, ground_points: GroundPoints) -> Bools:
    """Which targets are in a region at each instant; bool (K, T). What is on no satellite never is."""
    latitude_rad, longitude_rad = ground_points()
    there = (targets.node >= 0) & (targets.node < latitude_rad.shape[1])
    inside = np.zeros((len(latitude_rad), len(targets.node)), dtype=bool)
    node = targets.node[there]
    inside[:, there] = within(region, latitude_rad[:, node], longitude_rad[:, node])
    return inside


def within(region: Region, latitude_rad: Floats, longitude_rad: Floats) -> Bools:
    """Which points lie in a region; bool, of their common shape. A place that is nan is in none."""
    if region.polygon_rad:
        turns = (-2 * math.pi, 0.0, 2 * math.pi)
        copies = [_enclosed(region.polygon_rad, latitude_rad, longitude_rad + turn) for turn in turns]
        return copies[0] | copies[1] | copies[2]
    south, north = region.latitude_rad or (-math.pi / 2, math.pi / 2)
    inside: Bools = (south <= latitude_rad) & (latitude_rad <= north)
    if region.longitude_rad:
        west, east = region.longitude_rad
        width = east - west if abs(east - west) >= 2 * math.pi else (east - west) % (2 * math.pi)
        inside &= (longitude_rad - west) % (2 * math.pi) <= width
    return inside


def _enclosed(polygon_rad: Sequence[tuple[float, float]], y: Floats, x: Floats) -> Bools:
    """Which points a polygon encloses: those from which a line to the east crosses its sides an odd number of times."""
    enclosed = np.zeros(np.shape(x), dtype=bool)
    for (y1, x1), (y2, x2) in zip(polygon_rad, (*polygon_rad[1:], polygon_rad[0]), strict=True):
        if y1 != y2:
            enclosed ^= ((y1 > y) != (y2 > y)) & (x < x1 + (y - y1) * (x2 - x1) / (y2 - y1))
    return enclosed


def _leaving_k(inside: Bools, k: Ints) -> Ints:
    """The first instant from `k` (T,) on at which each target is outside, K if it never is; inside is (K, T)."""
    outside_from = np.where(inside, len(inside), np.arange(len(inside))[:, np.newaxis])
    following = np.minimum.accumulate(outside_from[::-1], axis=0)[::-1]
    leaving: Ints = following[k, np.arange(len(k))]
    return leaving


def _joined(parts: Sequence[Stretches]) -> Stretches:
    if not parts:
        return np.empty(0, np.int64), np.empty(0), np.empty(0)
    places, starts_ns, ends_ns = zip(*parts, strict=True)
    return np.concatenate(places), np.concatenate(starts_ns), np.concatenate(ends_ns)


def _merged(target: Ints, k_from: Ints, k_until: Ints) -> tuple[Ints, Ints, Ints]:
    """The same with stretches of one target that overlap or touch made one."""
    order = np.lexsort((k_from, target))
    kept: list[list[int]] = []
    for one, begin, end in zip(target[order].tolist(), k_from[order].tolist(), k_until[order].tolist(), strict=True):
        if kept and kept[-1][0] == one and begin <= kept[-1][2]:
            kept[-1][2] = max(kept[-1][2], end)
        else:
            kept.append([one, begin, end])
    columns = np.array(kept, np.int64).reshape(-1, 3).T
    return columns[0], columns[1], columns[2]
