"""Link plans and routes made by hand, for tests that need no sky."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone

import numpy as np

from isl_emu.linkplan.plan import AQM, LinkKind, LinkPlan, Links, NodeKind, Nodes, QueueKind
from isl_emu.routing.forwarding import NO_ROUTE, RoutePlan
from isl_emu.timebase import TimeGrid

START = datetime(2026, 3, 20, 4, 0, tzinfo=timezone.utc)
MS = 1_000_000
SECOND = 1_000_000_000
AIM = 5 * MS, 100 * MS  # of managed queues: target and interval
Edge = tuple[int, int]
Delays = Mapping[Edge, int]  # (a, b) -> one-way delay in ns, for the links that are up


def make_plan(satellites: int, stations: Sequence[str], instants: Sequence[Delays], *, rate_bit_s: int = 1_000_000_000,
              step_ns: int = SECOND, queue_ns: int = 50 * MS, rate_scale: float = 1.0,
              aqm: QueueKind = QueueKind.NONE) -> LinkPlan:  # fmt: skip
    """A plan with the links that are up at each instant; satellites are called p00s00, p00s01, ..."""
    edges = sorted({edge for delays in instants for edge in delays})
    number = {edge: link for link, edge in enumerate(edges)}
    count = satellites + len(stations)
    names = (*(f"p00s{slot:02d}" for slot in range(satellites)), *stations)
    kind = np.where(np.arange(count) < satellites, NodeKind.SATELLITE, NodeKind.STATION).astype(np.uint8)
    a, b = np.array(edges, np.int32).reshape(-1, 2).T.copy()
    link_kind = np.where(b < satellites, LinkKind.INTRA_PLANE, LinkKind.GROUND).astype(np.uint8)
    rows = [(number[edge], delays[edge]) for delays in instants for edge in sorted(delays)]
    link, delay_ns = np.array(rows, np.int64).reshape(-1, 2).T
    rate = np.full(len(rows), rate_bit_s, np.int64)
    return LinkPlan(
        TimeGrid(START, step_ns, len(instants)),
        Nodes(names, kind),
        Links(a, b, link_kind, np.full(len(edges), queue_ns), np.array([(aqm, True, *AIM)] * len(edges), AQM)),
        np.cumsum([0, *(len(delays) for delays in instants)]).astype(np.int64),
        link.astype(np.int32),
        delay_ns.copy(),
        rate,
        rate.copy(),
        rate_scale,
        "",
    )


def ring_edges(satellites: int, delay_ns: int) -> dict[Edge, int]:
    """A ring of satellites, each link with the same delay."""
    return {tuple(sorted((slot, (slot + 1) % satellites))): delay_ns for slot in range(satellites)}


def make_routes(plan: LinkPlan) -> RoutePlan:
    """Shortest paths between all nodes at each instant, by Dijkstra's algorithm in its plainest form."""
    tables = [_table(plan, k) for k in range(plan.grid.count)]
    before = np.full_like(tables[0], NO_ROUTE)
    start, rows = [0], []
    for table in tables:
        node, destination = np.nonzero(table != before)
        rows += list(zip(node, destination, table[node, destination], strict=True))
        start.append(len(rows))
        before = table
    node, destination, link = np.array(rows, np.int32).reshape(-1, 3).T.copy()
    count = len(plan.nodes.names)
    return RoutePlan(np.arange(count, dtype=np.int32), np.array(start, np.int64), node, destination, link)


def _table(plan: LinkPlan, k: int) -> np.ndarray:
    """The link to each destination; int32 (N, N)."""
    count, snapshot = len(plan.nodes.names), plan.snapshot(k)
    neighbours: list[list[tuple[int, int, int]]] = [[] for _ in range(count)]
    for link, delay_ns in zip(snapshot.link.tolist(), snapshot.delay_ns.tolist(), strict=True):
        a, b = int(plan.links.a[link]), int(plan.links.b[link])
        neighbours[a].append((b, link, delay_ns))
        neighbours[b].append((a, link, delay_ns))
    table = np.full((count, count), NO_ROUTE, np.int32)
    for destination in range(count):
        table[:, destination] = _tree(neighbours, destination)
    return table


def _tree(neighbours: list[list[tuple[int, int, int]]], root: int) -> np.ndarray:
    """Each node's link towards `root`."""
    towards, distance, todo = np.full(len(neighbours), NO_ROUTE, np.int32), {root: 0}, {root}
    while todo:
        here = min(todo, key=lambda node: (distance[node], node))
        todo.remove(here)
        for node, link, delay_ns in neighbours[here]:
            if distance[here] + delay_ns < distance.get(node, 1 << 62):
                distance[node], towards[node] = distance[here] + delay_ns, link
                todo.add(node)
    return towards
