"""The cheapest next hops of one snapshot, the one or all that are about as good.

Ground stations are ends only, unless they forward: no path leads through one, as no operator lends its antennas to
strangers' traffic.
Costs are whole numbers, so sums are exact and equal paths are really equal; of equal next hops the link with the lower
index wins, whatever order the search found them in.

Equal-cost multipath takes every next hop that is about as good as the best, and comes nearer to the destination. What
is left to go falls at each hop, so whatever next hops the nodes take, no path is a loop. A set of several next hops is
a group, and is written in tables as GROUP_BASE + its number; a single one as its link, as ever.
"""

from __future__ import annotations

import numpy as np

from isl_emu.arrays import Ints
from isl_emu.linkplan.plan import LinkPlan

NO_ROUTE = -1
HOP = 1 << 36  # in ns 69 s: one link more outweighs any difference in delay; 65,000 hops stay below FAR
FAR = 1 << 52  # costs beyond are not reached; below 2^53, so floats are exact


class Search:
    """The cost of sending on each directed arc of a snapshot, and on from its receiver to each destination.

    Arcs are both directions of every link that is up, M of them, ordered by sender.

    Args:
        hop_cost: what each link costs besides its delay.
        by_delay: whether the delay counts.
    """

    def __init__(self, plan: LinkPlan, k: int, destinations: np.ndarray, hop_cost: int, *, by_delay: bool = True):
        self._plan, self._destinations = plan, destinations
        snapshot = plan.snapshot(k)
        a, b = plan.links.a[snapshot.link], plan.links.b[snapshot.link]
        # with no cost at all, two equal next hops could point at each other
        cost = np.maximum(snapshot.delay_ns, 1) * by_delay + hop_cost
        sender = np.concatenate([a, b])
        order = np.argsort(sender, kind="stable")
        self._sender, self._receiver = sender[order], np.concatenate([b, a])[order]
        self._link = np.concatenate([snapshot.link, snapshot.link])[order].astype(np.int64)
        self._cost = np.tile(cost, 2)[order]
        self._rest = self._least_costs(a, b, cost.astype(np.float64))

    def next_links(self) -> np.ndarray:
        """The cheapest arc of each sender to each destination, as links; (D, N)."""
        return self._cheapest(self._cost + self._rest[:, self._receiver])

    def next_links_near(self, before: np.ndarray, margin: int) -> np.ndarray:
        """The same, but what was chosen `before` counts as cheaper by `margin`, if it still comes nearer."""
        total = self._cost + self._rest[:, self._receiver]
        kept = before[:, self._sender] == self._link
        nearer = self._rest[:, self._receiver] < self._rest[:, self._sender]
        return self._cheapest(np.where(kept & nearer, total - margin, total), preferred=kept & nearer)

    def near_least(self, tolerance: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """All arcs that come nearer to a destination and cost at most `tolerance` more than the sender's cheapest.

        Returns:
            Row of the destination, sender, link and total cost of each, shape (C,), ordered by the first two.
        """
        total = self._cost + self._rest[:, self._receiver]
        nearer = self._rest[:, self._receiver] < np.minimum(self._rest[:, self._sender], FAR)
        first = np.flatnonzero(np.diff(self._sender, prepend=-1))
        least = np.minimum.reduceat(np.where(nearer, total, 2 * FAR), first, axis=1)
        least = np.repeat(least, np.diff(first, append=len(self._link)), axis=1)
        leads_on = self._sender != self._destinations[:, np.newaxis]
        row, arc = np.nonzero(nearer & leads_on & (total <= least + tolerance))
        return row, self._sender[arc], self._link[arc], total[row, arc]

    def _cheapest(self, total: np.ndarray, preferred: np.ndarray | bool = False) -> np.ndarray:
        """The arc of each sender with the least total; of equal ones a preferred, then the one with the lowest link."""
        table = np.full((len(self._destinations), len(self._plan.nodes.names)), NO_ROUTE, dtype=np.int32)
        if not len(self._link) or not len(self._destinations):
            return table
        first = np.flatnonzero(np.diff(self._sender, prepend=-1))
        least = np.minimum.reduceat(total, first, axis=1)
        counts = np.diff(first, append=len(self._link))
        is_least = total == np.repeat(least, counts, axis=1)
        rank = np.where(preferred, self._link, self._link + len(self._plan.links.a))
        chosen = np.minimum.reduceat(np.where(is_least, rank, np.iinfo(np.int64).max), first, axis=1)
        chosen %= len(self._plan.links.a)
        table[:, self._sender[first]] = np.where(least < FAR, chosen, NO_ROUTE)
        table[np.arange(len(self._destinations)), self._destinations] = NO_ROUTE
        return table

    def _least_costs(self, a: np.ndarray, b: np.ndarray, cost: np.ndarray) -> np.ndarray:
        """Least cost from each node that forwards to each destination, and FAR from the others; int64, shape (D, N).

        The search runs backwards from the destinations. No arc leads to a node that does not forward, so that starts a
        search but is never reached by one.
        """
        from scipy.sparse import csr_array  # noqa: PLC0415  scipy is slow to import, and a live run needs none
        from scipy.sparse.csgraph import dijkstra  # noqa: PLC0415

        to_a, to_b = self._plan.nodes.forwards[a], self._plan.nodes.forwards[b]
        arcs = (np.concatenate([b[to_a], a[to_b]]), np.concatenate([a[to_a], b[to_b]]))
        size = len(self._plan.nodes.names)
        graph = csr_array((np.concatenate([cost[to_a], cost[to_b]]), arcs), shape=(size, size))
        if not len(self._destinations):
            return np.empty((0, size), dtype=np.int64)
        found = dijkstra(graph, directed=True, indices=self._destinations)
        return np.where(np.isfinite(found), found, FAR).astype(np.int64)


GROUP_BASE = 1 << 30  # far above any link


class EqualCost:
    """A routing policy whose next hops may be groups of links.

    Args:
        by_hops: whether the number of links counts, or the sum of their delays.
        tolerance_ns: how much longer than the shortest way a next hop's may be; of no effect by hops.
        most: next hops in a group; of more, the best are taken, and of equal ones those with the lowest link.
    """

    def __init__(self, *, by_hops: bool, tolerance_ns: int, most: int):
        self._by_hops, self._tolerance_ns, self._most = by_hops, tolerance_ns, most
        self._number: dict[tuple[int, ...], int] = {}

    @property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """The links of each group that any table named so far."""
        return tuple(self._number)

    def __call__(self, plan: LinkPlan, k: int, destinations: np.ndarray, before: np.ndarray) -> np.ndarray:
        del before
        table = np.full((len(destinations), len(plan.nodes.names)), NO_ROUTE, dtype=np.int32)
        if not len(plan.snapshot(k).link) or not len(destinations):
            return table
        search = Search(plan, k, destinations, hop_cost=int(self._by_hops), by_delay=not self._by_hops)
        row, sender, link, total = search.near_least(0 if self._by_hops else self._tolerance_ns)
        place = row * table.shape[1] + sender
        _, counts = _runs(place)
        crowded = np.flatnonzero(np.repeat(counts > self._most, counts))
        order = crowded[np.lexsort((link[crowded], total[crowded], place[crowded]))]
        kept = np.ones(len(place), dtype=bool)
        kept[order] = _rank(place[order]) < self._most
        place, link = place[kept], link[kept]
        first, counts = _runs(place)
        several = np.repeat(counts > 1, counts)
        flat = table.ravel()
        flat[place[first]] = link[first]
        self._write_groups(flat, place[several], link[several])
        return table

    def _write_groups(self, flat: np.ndarray, place: np.ndarray, link: np.ndarray) -> None:
        """Put the group's number wherever a place has several links."""
        first, counts = _runs(place)
        links = np.full((len(first), self._most), -1, dtype=np.int64)
        links[np.repeat(np.arange(len(first)), counts), _rank(place)] = link
        links.sort(axis=1)  # the empty places come first
        which = np.zeros(len(links), dtype=np.int64)
        for column in links.T:  # much faster than comparing whole rows
            _, which = np.unique(which * (links.max(initial=0) + 2) + column + 1, return_inverse=True)
        _, example = np.unique(which, return_index=True)
        groups = [tuple(row[row >= 0].tolist()) for row in links[example]]
        numbers = [GROUP_BASE + self._number.setdefault(group, len(self._number)) for group in groups]
        flat[place[first]] = np.array(numbers, dtype=np.int32)[which]


def _runs(place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each run of equal places begins, and how long it is."""
    first = np.flatnonzero(np.diff(place, prepend=-1))
    return first, np.diff(first, append=len(place))


def _rank(place: Ints) -> Ints:
    """How many of the same place come before each, in an array ordered by place."""
    first, counts = _runs(place)
    rank: Ints = np.arange(len(place)) - np.repeat(first, counts)
    return rank
