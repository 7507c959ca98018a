"""Aliases: more addresses of a node, to each of which a path of its own leads from one other node.

For each pair of nodes a, b and each of their k disjoint paths there are two: an address at b that a reaches by this
path, and one at a that b reaches by the same path backwards. Each is the source address of packets to the other, so a
connection to an alias stays on its path both ways, and an application (or Multipath TCP) picks a path by its address.

Nodes that are not on an alias's path forward to it as to the node that has it. So there is a route everywhere at any
time, also while the path changes; and no loop, as what comes onto the path stays on it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from isl_emu.linkplan.plan import LinkPlan
from isl_emu.routing.disjoint import DisjointSearch, Way
from isl_emu.routing.shortest import NO_ROUTE
from isl_emu.scenario.routing import DisjointPaths


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
