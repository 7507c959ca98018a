"""The plan of an uplink: which satellite gets the file from which stations when, and who passes it on to whom.

It is made by what is known of faults when the uplink begins, as if that stayed so; only which station sends follows
what is known at each instant.

A file can be sent from the ground to a satellite in the passes of its stations, one of which is used at a time. Over
the lasers it goes by a ring, a tree, or a swarm. Each is a table: satellite -> the satellites that it fetches from, the
best one first. It is drawn from the planned paths at one instant; what the sky does later is met by trying the next
one in the list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Literal

import numpy as np

from isl_emu.linkplan.plan import LinkPlan
from isl_emu.parts.uplink.pieces import describe
from isl_emu.parts.uplink.plan import Receiver, StationPass, TransferPlan
from isl_emu.routing.forwarding import plan_routes
from isl_emu.routing.paths import NodePath, PathFinder
from isl_emu.scenario.model import Scenario
from isl_emu.timebase import TimeGrid
from isl_emu.units import NS_PER_S

NEIGHBOURS = 6  # of a satellite in a swarm, at the most

Way = Literal["ring", "tree", "swarm"]
Sources = dict[str, tuple[str, ...]]
PathOf = Callable[[str, str], "Sequence[str] | None"]  # (from, to) -> the nodes of the planned path


def spread(way: Way, first: str, others: Iterable[str], delay_ns: Callable[[str, str], int | None],
           path: PathOf) -> Sources:  # fmt: skip
    """Whom each of the others fetches from.

    Args:
        delay_ns: of the planned path between two satellites; None where there is none.
        path: the nodes of it.
    """
    others = tuple(others)
    if way == "ring":
        return ring(first, others, delay_ns)
    parents = tree_parents(first, others, path)
    if way == "tree":
        upwards: Sources = {}
        for name in others:
            above = [parents[name]]  # and so on, up to the root
            while above[-1] in parents:
                above.append(parents[above[-1]])
            upwards[name] = tuple(above)
        return upwards
    return {name: neighbours(name, parents[name], (first, *others), delay_ns, path) for name in others}


def ring(first: str, others: Sequence[str], delay_ns: Callable[[str, str], int | None]) -> Sources:
    """One after the other, each time the nearest that has not got it; if one fails, the next asks the one before it."""
    order, left = [first], list(others)
    while left:
        nearest = min(left, key=lambda name: _far_if_none(delay_ns(order[-1], name)))
        left.remove(nearest)
        order.append(nearest)
    return {name: tuple(reversed(order[:place])) for place, name in enumerate(order) if place}


def tree_parents(first: str, others: Sequence[str], path: PathOf) -> dict[str, str]:
    """For each satellite the last one before it, on the path from the first, that gets the file too.

    So each laser carries the file once, as in a multicast; one without a path asks the first itself.
    """
    receivers = {first, *others}
    return {name: _last_before(path(first, name), receivers) or first for name in others}


def neighbours(
    name: str, parent: str, receivers: Sequence[str], delay_ns: Callable[[str, str], int | None], path: PathOf
) -> tuple[str, ...]:
    """The satellites that one reaches without passing another that gets the file, the nearest ones; with its parent.

    Then no laser carries a piece to a satellite past another that needs it too.
    """
    near = [other for other in receivers if other != name and _last_before(path(other, name), receivers) == other]
    near.sort(key=lambda other: _far_if_none(delay_ns(other, name)))
    chosen = near[:NEIGHBOURS]
    return tuple(chosen if parent in chosen else [parent, *chosen[: NEIGHBOURS - 1]])


def _last_before(path: Sequence[str] | None, receivers: Iterable[str]) -> str | None:
    """The last node of a path, its end left out, that is a receiver."""
    receivers = set(receivers)
    return next((node for node in reversed((path or ())[:-1]) if node in receivers), None)


def _far_if_none(delay_ns: int | None) -> float:
    return float("inf") if delay_ns is None else delay_ns


@dataclass(frozen=True)
class Contact:
    """The planned path from a station to the satellite at an instant.

    Args:
        rate_bit_s: of its slowest link, as shaped.
    """

    delay_ns: int
    rate_bit_s: int


ContactOf = Callable[[str, int], "Contact | None"]  # (station, instant) -> its contact


def plan_passes(stations: Sequence[str], grid: TimeGrid, begin_ns: int, contact: ContactOf) -> list[StationPass]:
    """The passes to use, one at a time: a station is kept while it has a path; then the nearest by delay follows."""
    passes: list[StationPass] = []
    station: str | None = None
    for k in range(grid.count):
        start_ns, end_ns = max(k * grid.step_ns, begin_ns), (k + 1) * grid.step_ns
        if end_ns <= begin_ns:
            continue
        if station is None or contact(station, k) is None:
            seen = [(found.delay_ns, name) for name in stations if (found := contact(name, k))]
            station = min(seen)[1] if seen else None
        if station is None:
            continue
        if passes and (passes[-1].station, passes[-1].end_ns) == (station, start_ns):
            start_ns = passes.pop().start_ns
        passes.append(StationPass(station, start_ns, end_ns))
    return passes


def planned_end_ns(passes: Iterable[StationPass], grid: TimeGrid, size_byte: int, contact: ContactOf) -> int | None:
    """When `size_byte` would be up at the planned rates, without headers and losses; None if not in this run."""
    left_bit = 8.0 * size_byte
    for each in passes:
        for k in range(each.start_ns // grid.step_ns, -(-each.end_ns // grid.step_ns)):
            start_ns, end_ns = max(k * grid.step_ns, each.start_ns), (k + 1) * grid.step_ns
            found = contact(each.station, k)
            assert found is not None, "a pass lasts as long as its contact"
            rate_bit_s = found.rate_bit_s
            if rate_bit_s * (end_ns - start_ns) >= left_bit * NS_PER_S:
                return start_ns + round(left_bit * NS_PER_S / rate_bit_s)
            left_bit -= rate_bit_s * (end_ns - start_ns) / NS_PER_S
    return None


def plan_transfer(scenario: Scenario, plan: LinkPlan, finder: PathFinder, file: Path) -> TransferPlan:
    """Plan the uplink of a scenario, and read the file for its digests.

    Args:
        file: the weights.
    """
    uplink, receivers, stations = scenario.uplink, scenario.uplinked_satellites, scenario.uplink_stations
    assert uplink is not None, "there is one to be planned"
    manifest = describe(file, uplink.piece_byte)
    paths = _Paths(plan, finder)
    ahead = paths.expected(scenario, receivers, min(uplink.begin_ns, plan.grid.duration_ns - 1))
    candidates = receivers if uplink.first == "earliest" else (uplink.first,)
    first, end_ns = _first(candidates, stations, ahead, uplink.begin_ns, manifest.size_byte)
    k = plan.grid.instant_at(plan.grid.duration_ns - 1 if end_ns is None else end_ns)
    others = tuple(name for name in receivers if name != first)
    sources = spread(uplink.spread, first, others, partial(ahead.delay_ns, k), partial(ahead.names, k))
    passes = plan_passes(stations, plan.grid, uplink.begin_ns, paths.contacts(first))
    table = {first: Receiver("uplink", stations, tuple(passes))}
    table |= {name: Receiver(uplink.spread, sources[name]) for name in others}
    return TransferPlan(
        file,
        manifest,
        table,
        begin_ns=uplink.begin_ns,
        stall_ns=uplink.stall_ns,
        seed=scenario.seed,
        planned_end_ns=end_ns,
    )


def _first(
    candidates: Sequence[str], stations: Sequence[str], paths: _Paths, begin_ns: int, size_byte: int
) -> tuple[str, int | None]:
    """The satellite that would have the file first, and when; of equals, the one that the passes reach with the least
    delay."""
    found = []
    for place, name in enumerate(candidates):
        contact = paths.contacts(name)
        passes = plan_passes(stations, paths.grid, begin_ns, contact)
        end_ns = planned_end_ns(passes, paths.grid, size_byte, contact)
        begun = [contact(each.station, paths.grid.instant_at(each.start_ns)) for each in passes]
        delays = [found.delay_ns for found in begun if found]
        order = end_ns is None, end_ns, np.mean(delays) if delays else np.inf, place
        found.append((order, name, end_ns))
    return min(found)[1:]


class _Paths:
    """The plan's paths by node name."""

    def __init__(self, plan: LinkPlan, finder: PathFinder):
        self._plan = plan
        self._finder = finder
        self._index = {name: index for index, name in enumerate(plan.nodes.names)}
        self.grid = plan.grid

    def expected(self, scenario: Scenario, satellites: Sequence[str], t_ns: int) -> _Paths:
        """The paths to some satellites as those at a time expect them."""
        if not self._plan.faults.names:
            return self
        from isl_emu.linkplan.build import plan_expected  # noqa: PLC0415  slow to import, and few runs need it

        plan = plan_expected(scenario, self._plan, self.grid.instant_at(t_ns))
        ends = [self._index[name] for name in satellites]
        return _Paths(plan, PathFinder(plan, plan_routes(plan, scenario.routing, ends)))

    def contacts(self, satellite: str) -> ContactOf:
        """How each station reaches a satellite at each instant."""

        @cache
        def contact(station: str, k: int) -> Contact | None:
            path = self._path(station, satellite, k)
            if path is None:
                return None
            links, _ = self._plan.known.rows_of(k, path.links)
            forth = self._plan.links.a[links.link] == np.array(path.nodes[:-1])
            rates_bit_s = np.where(forth, links.rate_ab_bit_s, links.rate_ba_bit_s)
            return Contact(path.delay_ns, round(int(rates_bit_s.min()) * self._plan.rate_scale))

        return contact

    def delay_ns(self, k: int, a: str, b: str) -> int | None:
        """Of the path at instant `k`."""
        path = self._path(a, b, k)
        return None if path is None else path.delay_ns

    def names(self, k: int, a: str, b: str) -> list[str] | None:
        """The nodes of the path at instant `k`."""
        path = self._path(a, b, k)
        return None if path is None else [self._plan.nodes.names[node] for node in path.nodes]

    def _path(self, a: str, b: str, k: int) -> NodePath | None:
        return self._finder.path(self._index[a], self._index[b], k)
