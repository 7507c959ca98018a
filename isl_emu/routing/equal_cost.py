"""Equal-cost multipath: every next hop that is about as good as the best, and comes nearer to the destination.

What is left to go falls at each hop, so whatever next hops the nodes take, no path is a loop. A set of several next
hops is a group, and is written in tables as GROUP_BASE + its number; a single one as its link, as ever.
"""

from __future__ import annotations

import numpy as np

from isl_emu.arrays import Ints
from isl_emu.linkplan.plan import LinkPlan
from isl_emu.routing.shortest import NO_ROUTE, Search

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
        kept = self._among_the_best(place, total, link)
        place, link = place[kept], link[kept]
        first, counts = _runs(place)
        several = np.repeat(counts > 1, counts)
        flat = table.ravel()
        flat[place[first]] = link[first]
        self._write_groups(flat, place[several], link[several])
        return table

    def _among_the_best(self, place: np.ndarray, total: np.ndarray, link: np.ndarray) -> np.ndarray:
        """Which arcs are in the group of their place; bool, shape (C,) like all, which are ordered by place."""
        _, counts = _runs(place)
        crowded = np.flatnonzero(np.repeat(counts > self._most, counts))
        order = crowded[np.lexsort((link[crowded], total[crowded], place[crowded]))]
        kept = np.ones(len(place), dtype=bool)
        kept[order] = _rank(place[order]) < self._most
        return kept

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
