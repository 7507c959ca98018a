"""Shortest paths of one snapshot, as next hops.

Ground stations are ends only: no path leads through one, as no operator lends its antennas to strangers' traffic.
Delays are whole nanoseconds, so sums are exact and equal paths are really equal; of equal next hops the link with the
lower index wins, whatever order the search found them in.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra

from isl_emu.linkplan.plan import LinkKind, LinkPlan

NO_ROUTE = -1
FAR_NS = 1 << 40  # 18 minutes, longer than any path


def next_links(plan: LinkPlan, k: int, destinations: np.ndarray) -> np.ndarray:
    """The link on which each node sends towards each destination at instant `k`, by least total delay.

    Args:
        plan: with N nodes.
        k: instant.
        destinations: node indices, shape (D,).

    Returns:
        Link indices or NO_ROUTE, int32, shape (D, N).
    """
    table = np.full((len(destinations), len(plan.nodes.names)), NO_ROUTE, dtype=np.int32)
    sender, receiver, link, delay_ns = _directed(plan, k)
    if not len(link) or not len(destinations):
        return table
    rest_ns = _delay_to_destinations(plan, k, destinations)
    total_ns = delay_ns + rest_ns[:, receiver]
    first = np.flatnonzero(np.diff(sender, prepend=-1))
    # delay and link in one integer: the least of a sender's is its shortest way and, among equals, its lowest link
    links = len(plan.links.a)
    best = np.minimum.reduceat(total_ns * links + link, first, axis=1)
    table[:, sender[first]] = np.where(best // links < FAR_NS, best % links, NO_ROUTE)
    table[np.arange(len(destinations)), destinations] = NO_ROUTE
    return table


def _directed(plan: LinkPlan, k: int) -> tuple[np.ndarray, ...]:
    """Sender, receiver, link and delay of both directions of every link that is up, ordered by sender."""
    snapshot = plan.snapshot(k)
    a, b = plan.links.a[snapshot.link], plan.links.b[snapshot.link]
    sender = np.concatenate([a, b])
    order = np.argsort(sender, kind="stable")
    link = np.concatenate([snapshot.link, snapshot.link]).astype(np.int64)
    delay_ns = np.tile(_search_delay_ns(snapshot.delay_ns), 2)
    return sender[order], np.concatenate([b, a])[order], link[order], delay_ns[order]


def _delay_to_destinations(plan: LinkPlan, k: int, destinations: np.ndarray) -> np.ndarray:
    """Least delay from each satellite to each destination, and FAR_NS from stations; int64, shape (D, N).

    The search runs backwards from the destinations. A ground link has only the arc from its station, so a station
    starts a search but is never reached by one.
    """
    snapshot = plan.snapshot(k)
    a, b = plan.links.a[snapshot.link], plan.links.b[snapshot.link]
    laser = plan.links.kind[snapshot.link] != LinkKind.GROUND
    delay_ns = _search_delay_ns(snapshot.delay_ns).astype(np.float64)
    arcs = (np.concatenate([b, a[laser]]), np.concatenate([a, b[laser]]))
    size = len(plan.nodes.names)
    graph = csr_array((np.concatenate([delay_ns, delay_ns[laser]]), arcs), shape=(size, size))
    found_ns = dijkstra(graph, directed=True, indices=destinations)
    return np.where(np.isfinite(found_ns), found_ns, FAR_NS).astype(np.int64)


def _search_delay_ns(delay_ns: np.ndarray) -> np.ndarray:
    """Delays of at least 1 ns: with none at all, two equal next hops could point at each other."""
    return np.maximum(delay_ns, 1)
