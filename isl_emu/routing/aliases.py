"""Aliases: more addresses of a node, to each of which a path of its own leads from one other node.

For each pair of nodes a, b and each of their k disjoint paths there are two: an address at b that a reaches by this
path, and one at a that b reaches by the same path backwards. Each is the source address of packets to the other, so a
connection to an alias stays on its path both ways, and an application (or Multipath TCP) picks a path by its address.

Nodes that are not on an alias's path forward to it as to the node that has it. So there is a route everywhere at any
time, also while the path changes; and no loop, as what comes onto the path stays on it.

The disjoint paths are those with the least total delay, by successive shortest paths with potentials. This is
Suurballe's algorithm for any number of paths, on links that can be used either way (J. W. Suurballe, Disjoint paths in
a network, Networks 4, 1974; R. Bhandari, Survivable Networks, 1999). Each search may take back what an earlier one
used, so no choice of the first path hides a better set.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from isl_emu.linkplan.plan import LinkPlan
from isl_emu.routing.shortest import NO_ROUTE
from isl_emu.scenario.routing import DisjointPaths

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
        self._end_only = ~plan.nodes.forwards
        self._separate_nodes = separate_nodes

    def paths(self, source: int, destination: int, count: int) -> list[Way]:
        """Up to `count` disjoint paths, as many as there are, by rising delay; none leads through ends."""
        from scipy.sparse.csgraph import dijkstra  # noqa: PLC0415  scipy is slow to import, and a live run needs none

        barred = self._end_only.copy()
        barred[[source, destination]] = False
        usable = ~(barred[self._a] | barred[self._b])  # both directions of a link that such a path may use are arcs
        a, b, link, delay_ns = (array[usable] for array in (self._a, self._b, self._link, self._delay_ns))
        nodes, inner = len(barred), np.empty(0, dtype=np.int64)
        if self._separate_nodes:
            # each node but the two ends is an arc too, from where it is entered to where it is left
            inner = np.setdiff1d(np.arange(nodes), (source, destination))
        arcs = _Arcs(a, b, link, delay_ns, nodes, nodes if self._separate_nodes else 0, inner)
        start, potential = arcs.leaving(source), np.zeros(arcs.places)
        for _ in range(count):
            graph = arcs.residual(potential)
            distance, before = dijkstra(graph, indices=start, return_predecessors=True)
            if not np.isfinite(distance[destination]):
                break
            potential += np.minimum(distance, distance[destination])
            arcs.take(start, destination, before)
        return arcs.ways(start, destination)


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
        ways: list[Way] = []
        for arcs in sorted(found, key=lambda arcs: (self._cost[arcs].sum(), arcs)):
            crossed = [arc for arc in arcs if self._link[arc] != INSIDE]
            first = int(self._tail[crossed[0]]) - self._leaving
            ways.append(((first, *self._head[crossed].tolist()), tuple(self._link[crossed].tolist())))
        return ways


@dataclass(frozen=True)
class Aliases:
    """A aliases; alias i is the destination N + i, beyond the N nodes. The two directions of a path are neighbours."""

    owner: np.ndarray  # int32 (A,), the node that has the address
    user: np.ndarray  # int32 (A,), the node that reaches it by the path
    path: np.ndarray  # int32 (A,), which of the pair's paths, from 0

    def back(self, alias: int | np.ndarray) -> int | np.ndarray:
        """The alias of the same path in the other direction; of one or of an array."""
        return alias ^ 1

    def between(self, source: int, destination: int) -> list[int]:
        """The aliases by which `source` reaches `destination`, in the order of the paths."""
        found: list[int] = np.flatnonzero((self.user == source) & (self.owner == destination)).tolist()
        return found


NO_ALIASES = Aliases(*(np.empty(0, dtype=np.int32) for _ in range(3)))


def aliases_of(plan: LinkPlan, disjoint: DisjointPaths | None) -> Aliases:
    """The aliases of all pairs that have disjoint paths."""
    if disjoint is None:
        return NO_ALIASES
    pairs = [(plan.nodes.index(a), plan.nodes.index(b)) for a, b in disjoint.pairs]
    ways = [(a, b, path) for a, b in pairs for path in range(disjoint.paths)]
    rows = [row for a, b, path in ways for row in ((b, a, path), (a, b, path))]
    return Aliases(*np.array(rows, dtype=np.int32).T.copy())


def alias_table(plan: LinkPlan, k: int, aliases: Aliases, disjoint: DisjointPaths, owners: np.ndarray) -> np.ndarray:
    """The next hops to every alias at instant `k`; int32, shape (A, N).

    A path that does not exist now has no route anywhere.

    Args:
        owners: the next hops to the node that has each alias; (A, N).
    """
    table = np.full_like(owners, NO_ROUTE)
    search = DisjointSearch(plan, k, separate_nodes=disjoint.separate == "nodes")
    for first in range(0, len(table), 2 * disjoint.paths):
        ways = search.paths(int(aliases.user[first]), int(aliases.owner[first]), disjoint.paths)
        for alias, way in zip(range(first, len(table), 2), ways, strict=False):
            table[alias : alias + 2] = owners[alias : alias + 2]
            _lay(table[alias], way)
            _lay(table[alias + 1], (way[0][::-1], way[1][::-1]))
    return table


def _lay(row: np.ndarray, way: Way) -> None:
    nodes, links = way
    row[list(nodes[:-1])] = links
    row[nodes[-1]] = NO_ROUTE
