"""What a run is expected to take of guest kernels, node by node and link by link, before any is begun.

Times are of one core, as measured (docs/benchmarks.md). What models compute is not among them: nobody knows it
beforehand.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from isl_emu.arrays import Floats, Ints
from isl_emu.linkplan.plan import LinkPlan
from isl_emu.linkplan.rows import NEVER
from isl_emu.routing.forwarding import GROUP_BASE, NO_ROUTE, RoutePlan

LINK_END_S = 0.8e-3  # to build one, with its share of a node: 1,584 nodes with 6,340 in 4.9 s
SETTING_S = 7e-6  # to change one
ROUTE_S = 14e-6  # to change one, in both families of addresses
END_S = 42e-6  # a packet at an end, where a program of ours works on it
HOP_S = 1e-6  # a packet over one more link
INSTANT_S = 15e-3  # an instant on each kernel, whatever it has: 0.9 s for 60 of them with 12 nodes

SAMPLES = 8  # instants at which paths are looked at
_MOST_LINKS = 255  # of a path: the TTL is a byte (RFC 791, 3.2)


class Flow(NamedTuple):
    """Packets that are expected from one node to another in a whole run; a program works on each at both ends."""

    a: str
    b: str
    packets: float


@dataclass(frozen=True)
class Load:
    """What a run is expected to take.

    Args:
        build_s: of a core to build each node, float64 (N,).
        run_s: of a core for each node while time runs, float64 (N,).
        link_packets: over each link, both directions, float64 (L,).
        whole_s: of a core for what every kernel does for the whole network, however small its part.
    """

    build_s: np.ndarray
    run_s: np.ndarray
    link_packets: np.ndarray
    whole_s: float = 0.0


def load_of(plan: LinkPlan, routes: RoutePlan | None = None, flows: Iterable[Flow] = ()) -> Load:
    """What a run of a plan is expected to take: its links and routes, and the packets on their planned paths.

    Args:
        routes: the next hops; packets have no path without.
    """
    links, nodes = plan.links, len(plan.nodes.names)
    ends: Ints = np.concatenate([links.a, links.b]).astype(np.int64)
    build_s: Floats = LINK_END_S * np.bincount(ends, minlength=nodes)
    run_s = np.bincount(ends, np.tile(SETTING_S * _changes(plan), 2), nodes).astype(np.float64)
    link_packets: Floats = np.zeros(len(links.a))
    if routes is not None:
        built = int(routes.row_start[1])  # those of instant 0
        build_s += ROUTE_S * np.bincount(routes.row_node[:built], minlength=nodes)
        run_s += ROUTE_S * np.bincount(routes.row_node[built:], minlength=nodes)
        index = {name: node for node, name in enumerate(plan.nodes.names)}
        rows = [(index[a], index[b], packets) for a, b, packets in flows]
        source, target, packets = np.array(rows, dtype=np.float64).reshape(-1, 3).T
        for end in (source, target):
            run_s += END_S * np.bincount(end.astype(np.int64), packets, nodes)
        link_packets, sent = packets_on_paths(plan, routes, source.astype(int), target.astype(int), packets)
        run_s += HOP_S * sent
    return Load(build_s, run_s, link_packets, INSTANT_S * plan.grid.count)


def _changes(plan: LinkPlan) -> Ints:
    """How often each link's delay or rate is another than an instant before, its first time among them; (L,)."""
    columns = plan.row_delay_ns, plan.row_rate_ab_bit_s, plan.row_rate_ba_bit_s
    found, latest = np.zeros(len(plan.links.a), np.int64), np.full((len(columns), len(plan.links.a)), NEVER)
    for piece, rows in plan.pieces_by_link():
        terms = np.stack([column[piece.rows][rows.order] for column in columns])
        before, first = np.roll(terms, 1, axis=1), np.flatnonzero(np.diff(rows.link, prepend=-1))
        before[:, first] = latest[:, rows.link[first]]
        latest[:, rows.link[rows.last]] = terms[:, rows.last]
        found += np.bincount(rows.link[(terms != before).any(axis=0)], minlength=len(found))
    return found


def packets_on_paths(
    plan: LinkPlan, routes: RoutePlan, source: Ints, target: Ints, packets: Floats
) -> tuple[Floats, Floats]:
    """What flows of packets come to on their planned paths, F of them, evenly over some instants of the run.

    Where next hops are groups of links, flows take these in turn. What has no route, or no more, goes no further.

    Args:
        source, target: node indices, (F,).
        packets: of each flow in the whole run, (F,).

    Returns:
        Over each link, (L,), and sent on by each node, (N,).
    """
    nodes, links = len(plan.nodes.names), len(plan.links.a)
    on_link, sent = np.zeros(links), np.zeros(nodes)
    if not len(source) or not len(routes.destinations):
        return on_link, sent
    column = np.full(max(nodes, int(routes.destinations.max()) + 1), -1)
    column[routes.destinations] = np.arange(len(routes.destinations))
    reached = column[target] >= 0
    source, target, packets = source[reached], target[reached], packets[reached]
    table = np.full((nodes, len(routes.destinations)), NO_ROUTE, dtype=np.int64)
    instants = np.unique(np.linspace(0, plan.grid.count - 1, min(SAMPLES, plan.grid.count)).astype(int))
    done = 0
    for k in instants.tolist():
        rows = slice(done, done := int(routes.row_start[k + 1]))  # the last of several rows of an entry holds
        table[routes.row_node[rows], column[routes.row_destination[rows]]] = routes.row_link[rows]
        flow, at = np.arange(len(source)), source
        for _ in range(_MOST_LINKS):
            link = table[at, column[target[flow]]]
            for place in np.flatnonzero(link >= GROUP_BASE).tolist():
                group = routes.groups[link[place] - GROUP_BASE]
                link[place] = group[flow[place] % len(group)]
            going = (link != NO_ROUTE) & (at != target[flow])
            if not going.any():
                break
            flow, at, link = flow[going], at[going], link[going]
            share = packets[flow] / len(instants)
            on_link += np.bincount(link, share, links)
            sent += np.bincount(at, share, nodes)
            at = np.where(plan.links.a[link] == at, plan.links.b[link], plan.links.a[link])
    return on_link, sent
