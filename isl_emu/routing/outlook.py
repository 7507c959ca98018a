"""What stations can reach, instant by instant: the nearest of some satellites, how far, and for how long overhead.

It is made before a run, in one pass over the plan, so that whoever chooses a satellite while the run is live looks it
up and follows no path.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np

from isl_emu.linkplan.contacts import find_contacts, moments
from isl_emu.linkplan.plan import LinkKind, LinkPlan
from isl_emu.routing.forwarding import NO_ROUTE, RoutePlan

NOBODY = -1
UNREACHED_NS = np.iinfo(np.int64).max
MOST_ENTRIES = 2_000_000  # of an outlook: 44 MB; what does not fit keeps only the nearest


@dataclass(frozen=True)
class Outlook:
    """For each of S stations at each of K instants up to M satellites: first those overhead, then by rising delay.

    Arrays have the shape (K, S, M); an entry without a satellite has `NOBODY` in `satellite`.
    """

    step_ns: np.ndarray  # int64, one number
    stations: np.ndarray  # text (S,)
    satellites: np.ndarray  # text (C,)
    satellite: np.ndarray  # int32, index into `satellites`
    delay_ns: np.ndarray  # int64, one way from the station
    hops: np.ndarray  # int32, links on that path
    overhead_until_ns: np.ndarray  # int64, when the station's own link to it ends; NOBODY if it has none

    def seen_from(self, station: str, t_ns: int) -> Iterator[tuple[str, int, int, int]]:
        """The satellites that a station can reach: name, delay_ns, hops and overhead_until_ns of each."""
        k = min(max(t_ns // int(self.step_ns), 0), len(self.satellite) - 1)
        row = k, self._rows[station]
        seen = self.satellite[row] != NOBODY
        columns = (self.delay_ns, self.hops, self.overhead_until_ns)
        names = self.satellites[self.satellite[row][seen]].tolist()
        return zip(names, *(column[row][seen].tolist() for column in columns))

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.stations.tolist())}

    def save(self, path: Path) -> None:
        """Write it to a file for `open_outlook`."""
        with path.open("wb") as file:
            np.savez(file, **{field.name: getattr(self, field.name) for field in fields(self)})


def open_outlook(path: Path) -> Outlook:
    """What `Outlook.save` wrote."""
    with np.load(path) as arrays:
        return Outlook(**{field.name: arrays[field.name] for field in fields(Outlook)})


def plan_outlook(plan: LinkPlan, routes: RoutePlan, stations: Sequence[str], satellites: Sequence[str]) -> Outlook:
    """The outlook of stations on satellites under a plan and its routes: as is known then, and no fault is foreseen.

    It holds as many of the nearest satellites as fit into `MOST_ENTRIES`, at least one.
    """
    names = {name: node for node, name in enumerate(plan.nodes.names)}
    start, goal = (np.array([names[name] for name in group]) for group in (stations, satellites))
    most = max(1, min(len(goal), MOST_ENTRIES // (plan.grid.count * max(1, len(start)))))
    overhead = _overhead(plan, start, goal)
    known = plan.known
    place = np.full(len(plan.nodes.names), NOBODY)
    place[goal] = np.arange(len(goal))
    table = np.full((len(goal), len(plan.nodes.names)), NO_ROUTE, dtype=np.int32)  # next links to each goal, by node
    parts = []
    for k in range(plan.grid.count):
        changes = routes.changes(k)
        row = place[changes.destination]
        table[row[row >= 0], changes.node[row >= 0]] = changes.link[row >= 0]
        delay_ns, hops = _walk(known, k, table, start, goal)
        overhead_ns = next(overhead)
        rank = np.lexsort((delay_ns, overhead_ns == NOBODY), axis=1)[:, :most]
        chosen = [np.take_along_axis(values, rank, axis=1) for values in (delay_ns, hops, overhead_ns)]
        parts.append((np.where(chosen[0] == UNREACHED_NS, NOBODY, rank).astype(np.int32), *chosen))
    return Outlook(
        np.int64(plan.grid.step_ns), np.array(stations), np.array(satellites), *(np.stack(part) for part in zip(*parts))
    )


def _walk(
    plan: LinkPlan, k: int, table: np.ndarray, start: np.ndarray, goal: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Follow the next links from every start to every goal at once: delays (int64) and hops (int32), shape (S, C)."""
    snapshot = plan.snapshot(k)
    delay_of = np.full(len(plan.links.a), UNREACHED_NS)
    delay_of[snapshot.link] = snapshot.delay_ns
    ends = plan.links.a.astype(np.int64) + plan.links.b
    at, towards = (grid.ravel() for grid in np.meshgrid(start, np.arange(len(goal)), indexing="ij"))
    delay_ns, hops = np.zeros(len(at), dtype=np.int64), np.zeros(len(at), dtype=np.int32)
    under_way = np.flatnonzero(at != goal[towards])
    while len(under_way):
        link = table[towards[under_way], at[under_way]]
        lost = (link == NO_ROUTE) | (delay_of[link] == UNREACHED_NS) | (hops[under_way] > len(plan.nodes.names))
        delay_ns[under_way[lost]] = UNREACHED_NS
        under_way, link = under_way[~lost], link[~lost]
        delay_ns[under_way] += delay_of[link]
        hops[under_way] += 1
        at[under_way] = ends[link] - at[under_way]
        under_way = under_way[at[under_way] != goal[towards[under_way]]]
    shape = (len(start), len(goal))
    return delay_ns.reshape(shape), hops.reshape(shape)


def _overhead(plan: LinkPlan, start: np.ndarray, goal: np.ndarray) -> Iterator[np.ndarray]:
    """Until when each start has a link of its own to each goal, at each instant; int64 (S, C), NOBODY where none."""
    row_of, column_of = (np.full(len(plan.nodes.names), NOBODY) for _ in range(2))
    row_of[start], column_of[goal] = np.arange(len(start)), np.arange(len(goal))
    sky, known_plan, contacts = plan.sky, plan.known, find_contacts(plan.sky)
    begins = moments(sky, contacts.link, contacts.start_ns // sky.grid.step_ns)
    ground = plan.links.kind == LinkKind.GROUND
    for k, (first, end) in enumerate(pairwise(sky.row_start)):
        link = sky.row_link[first:end]
        link = link[ground[link] & np.isin(link, known_plan.snapshot(k).link)]
        end_ns = contacts.end_ns[np.searchsorted(begins, moments(sky, link, np.full(len(link), k)), side="right") - 1]
        row, column = row_of[plan.links.b[link]], column_of[plan.links.a[link]]
        known = (row >= 0) & (column >= 0)
        overhead_ns = np.full((len(start), len(goal)), NOBODY, dtype=np.int64)
        overhead_ns[row[known], column[known]] = end_ns[known]
        yield overhead_ns
