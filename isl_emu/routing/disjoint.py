"""Disjoint paths between two nodes, with the least total delay: successive shortest paths with potentials.

This is Suurballe's algorithm for any number of paths, on links that can be used either way (J. W. Suurballe, Disjoint
paths in a network, Networks 4, 1974; R. Bhandari, Survivable Networks, 1999). Each search may take back what an earlier
one used, so no choice of the first path hides a better set.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from isl_emu.linkplan.plan import LinkPlan, NodeKind

if TYPE_CHECKING:
    from scipy.sparse import csr_array

Way = tuple[tuple[int, ...], tuple[int, ...]]
"""The nodes of a path from its source to its destination, and the links between them."""
INSIDE = -1  # the link of an arc that stands for passing a node


class DisjointSearch:
    """Finds disjoint paths at one instant.

    Args:
        separate_nodes: whether paths may not meet in a node either.
    """

    def __init__(self, plan: LinkPlan, k: int, *, separate_nodes: bool):
        snapshot = plan.snapshot(k)
        self._a, self._b = plan.links.a[snapshot.link], plan.links.b[snapshot.link]
        self._link, self._delay_ns = snapshot.link, np.maximum(snapshot.delay_ns, 1)
        self._station = plan.nodes.kind == NodeKind.STATION
        self._separate_nodes = separate_nodes

    def paths(self, source: int, destination: int, count: int) -> list[Way]:
        """Up to `count` disjoint paths, as many as there are, by rising delay; none leads through a station."""
        from scipy.sparse.csgraph import dijkstra  # noqa: PLC0415  scipy is slow to import, and a live run needs none

        arcs = self._arcs(source, destination)
        start, potential = arcs.leaving(source), np.zeros(arcs.places)
        for _ in range(count):
            graph = arcs.residual(potential)
            distance, before = dijkstra(graph, indices=start, return_predecessors=True)
            if not np.isfinite(distance[destination]):
                break
            potential += np.minimum(distance, distance[destination])
            arcs.take(start, destination, before)
        return arcs.ways(start, destination)

    def _arcs(self, source: int, destination: int) -> _Arcs:
        """Both directions of every link that such a path may use."""
        barred = self._station.copy()
        barred[[source, destination]] = False
        usable = ~(barred[self._a] | barred[self._b])
        a, b, link, delay_ns = (array[usable] for array in (self._a, self._b, self._link, self._delay_ns))
        if self._separate_nodes:
            # each node but the two ends is an arc too, from where it is entered to where it is left
            inner = np.setdiff1d(np.arange(len(barred)), (source, destination))
            return _Arcs(a, b, link, delay_ns, len(barred), len(barred), inner)
        none = np.empty(0, dtype=np.int64)
        return _Arcs(a, b, link, delay_ns, len(barred), 0, none)


class _Arcs:
    """Directed arcs, of which each carries at most one path, between the places of a network, and which of them do.

    Args:
        leaving: what is added to a node's number for the place where it is left, if that is another than where it is
            entered; otherwise 0.
        inner: nodes that are arcs from the one place to the other.
    """

    def __init__(self, a: np.ndarray, b: np.ndarray, link: np.ndarray, delay_ns: np.ndarray, nodes: int, leaving: int,
                 inner: np.ndarray):  # fmt: skip
        self.places, self._leaving = nodes + leaving, leaving
        self._tail = np.concatenate([a + leaving, b + leaving, inner]).astype(np.int64)
        self._head = np.concatenate([b, a, inner + leaving]).astype(np.int64)
        self._cost = np.concatenate([delay_ns, delay_ns, np.zeros(len(inner))])
        self._link = np.concatenate([link, link, np.full(len(inner), INSIDE)])
        there, beyond = np.arange(len(a)), 2 * len(a)
        self._opposite = np.concatenate([there + len(a), there, np.arange(beyond, beyond + len(inner))])
        self._used = np.zeros(len(self._tail), dtype=bool)
        self._keys, self._arc = self._tail, there  # of the residual: both places as one number, and the arc

    def leaving(self, node: int) -> int:
        """The place where a node is left."""
        return node + self._leaving

    def residual(self, potential: np.ndarray) -> csr_array:
        """The arcs that one more path can use, with their costs relative to the potentials, none negative.

        An arc that is used can be taken back, at what it cost; until then its link is not used the other way.
        """
        from scipy.sparse import csr_array  # noqa: PLC0415

        arc = np.flatnonzero(self._used | ~self._used[self._opposite])
        back = self._used[arc]
        tail, head = np.where(back, (self._head[arc], self._tail[arc]), (self._tail[arc], self._head[arc]))
        cost = np.where(back, -self._cost[arc], self._cost[arc]) + potential[tail] - potential[head]
        keys = tail * self.places + head
        order = np.argsort(keys)
        self._keys, self._arc = keys[order], arc[order]
        first = np.searchsorted(tail[order], np.arange(self.places + 1))
        return csr_array((cost[order], head[order], first), shape=(self.places, self.places))

    def take(self, start: int, end: int, before: np.ndarray) -> None:
        """Use the arcs of a path, given each place's predecessor, and give up those that it takes back."""
        while end != start:
            key = int(before[end]) * self.places + end
            arc = self._arc[np.searchsorted(self._keys, key)]
            self._used[arc] = not self._used[arc]
            end = int(before[end])

    def ways(self, start: int, end: int) -> list[Way]:
        """The paths that the used arcs make, by rising delay."""
        onward: dict[int, list[int]] = {}
        for arc in np.flatnonzero(self._used).tolist():
            onward.setdefault(int(self._tail[arc]), []).append(arc)
        found = []
        while onward.get(start):
            arcs, place = [], start
            while place != end:
                arcs.append(onward[place].pop(0))
                place = int(self._head[arcs[-1]])
            found.append(arcs)
        return [self._way(arcs) for arcs in sorted(found, key=lambda arcs: (self._cost[arcs].sum(), arcs))]

    def _way(self, arcs: list[int]) -> Way:
        crossed = [arc for arc in arcs if self._link[arc] != INSIDE]
        first = int(self._tail[crossed[0]]) - self._leaving
        return (first, *self._head[crossed].tolist()), tuple(self._link[crossed].tolist())
