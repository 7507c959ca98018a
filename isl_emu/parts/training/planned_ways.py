"""What the plan says to a training job: in which order to form a ring, and how long a sum takes at least.

In a ring all-reduce of small parts each part travels almost twice around, so the sum of all delays counts
("least-total"). The longest single delay counts where every round waits for the slowest link ("least-longest").

Up to `EXACT_UP_TO` participants the tour is the best one (Held and Karp's dynamic programme); beyond, a tour that no
reversal of a stretch makes better (2-opt), begun at the nearest neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from isl_emu.linkplan.plan import LinkPlan
from isl_emu.parts.training.collectives import Schedule, pairs_of
from isl_emu.parts.training.prediction import predicted_ns
from isl_emu.routing.laser_paths import LaserPaths

EXACT_UP_TO = 11  # 2^10 x 11 x 11 sums: a hundredth of a second

Order = list[int]  # participants by their number, around the ring


class PlannedWays:
    """The ways between a job's satellites, by the shortest delays of the plan.

    Args:
        ring: "least-total", "least-longest" or "as-listed".
        listed: the job's satellites as they are listed.
    """

    def __init__(self, plan: LinkPlan, ring: str, listed: Sequence[str]):
        self._plan, self._ring, self._listed = plan, ring, list(listed)
        self._node = {name: plan.nodes.index(name) for name in listed}
        self._last: tuple[tuple[int, tuple[str, ...]], LaserPaths] | None = None

    def ring(self, names: Sequence[str], t_ns: int) -> list[str]:
        """The order in which these satellites form a ring."""
        names = sorted(names, key=self._listed.index)
        if self._ring == "as-listed":
            return names
        solve = least_total if self._ring == "least-total" else least_longest
        return [names[index] for index in solve(self._paths(names, t_ns).delay_ns)]

    def predicted_ns(self, plan: Schedule, members: Sequence[str], element_byte: int, t_ns: int) -> int | None:
        """What a schedule takes at least between these satellites; None if two that must talk have no path."""
        paths = self._paths(members, t_ns)
        if not paths.rates_bit_s(pairs_of(plan)).all():
            return None
        return predicted_ns(plan, element_byte, paths.delay_ns, paths.rates_bit_s)

    def _paths(self, names: Sequence[str], t_ns: int) -> LaserPaths:
        """Those of the last call are kept: steps are often shorter than instants."""
        key = self._plan.grid.instant_at(t_ns), tuple(names)
        if self._last is None or self._last[0] != key:
            self._last = key, LaserPaths(self._plan, key[0], [self._node[name] for name in names])
        return self._last[1]


def least_total(delay_ns: np.ndarray) -> Order:
    """The tour whose delays have the least sum, beginning with 0.

    Args:
        delay_ns: between participants, one way; inf where there is no path; shape (n, n).

    Returns:
        The participants' numbers in the order of the ring.
    """
    costs = _finite(delay_ns)
    if len(costs) < 4:
        return list(range(len(costs)))
    return _directed(_held_karp(costs) if len(costs) <= EXACT_UP_TO else _two_opt(costs, _nearest_neighbours(costs)))


def least_longest(delay_ns: np.ndarray) -> Order:
    """Of the tours whose longest delay is the least one whose sum is the least; arguments as for `least_total`."""
    costs = _finite(delay_ns)
    thresholds = np.unique(costs[~np.eye(len(costs), dtype=bool)])
    low, high = 0, max(len(thresholds) - 1, 0)
    best = least_total(costs)
    while low < high:
        middle = (low + high) // 2
        tour = least_total(np.where(costs > thresholds[middle], _forbidden(costs), costs))
        if longest_ns(costs, tour) <= thresholds[middle]:
            best, high = tour, middle
        else:
            low = middle + 1
    return best


def longest_ns(delay_ns: np.ndarray, order: Order) -> float:
    """The longest delay of a ring."""
    return float(delay_ns[order, np.roll(order, -1)].max())


def _finite(delay_ns: np.ndarray) -> np.ndarray:
    """Symmetric costs, with one where there is no path that a tour avoids if it can."""
    costs = np.maximum(delay_ns, delay_ns.T).astype(np.float64)
    np.fill_diagonal(costs, 0.0)
    return np.where(np.isfinite(costs), costs, _forbidden(np.where(np.isfinite(costs), costs, 0.0)))


def _forbidden(costs: np.ndarray) -> float:
    """More than any tour without such an edge costs."""
    return float(costs.max()) * len(costs) + 1.0


def _directed(order: Order) -> Order:
    """The same ring begun at 0, in the direction in which the lower neighbour comes first: one form for each ring."""
    at = order.index(0)
    order = order[at:] + order[:at]
    return order if order[1] <= order[-1] else [order[0], *order[:0:-1]]


def _held_karp(costs: np.ndarray) -> Order:
    """Least cost of a path from 0 through a set of others to one of them, set by set."""
    count = len(costs) - 1  # the others, as bits
    cost = np.full((1 << count, count), np.inf)
    before = np.zeros((1 << count, count), dtype=np.int64)
    cost[1 << np.arange(count), np.arange(count)] = costs[0, 1:]
    between = costs[1:, 1:]
    for members in range(1, 1 << count):
        for last in range(count):
            rest = members & ~(1 << last)
            if rest != members and rest:
                through = cost[rest] + between[:, last]
                before[members, last] = np.argmin(through)
                cost[members, last] = through[before[members, last]]
    members, last = (1 << count) - 1, int(np.argmin(cost[-1] + costs[1:, 0]))
    order = []
    while members:
        order.append(last + 1)
        members, last = members & ~(1 << last), int(before[members, last])
    return [0, *reversed(order)]


def _nearest_neighbours(costs: np.ndarray) -> Order:
    order, left = [0], set(range(1, len(costs)))
    while left:
        order.append(min(left, key=lambda other: (costs[order[-1], other], other)))
        left.remove(order[-1])
    return order


def _two_opt(costs: np.ndarray, order: Order) -> Order:
    """Reverse stretches as long as that shortens the tour."""
    tour, count, improved = np.array(order), len(order), True
    while improved:
        improved = False
        for first in range(count - 2):
            a, b = tour[first], tour[first + 1]
            ends = np.arange(first + 2, count if first else count - 1)
            c, d = tour[ends], tour[(ends + 1) % count]
            gain = costs[a, b] + costs[c, d] - costs[a, c] - costs[b, d]
            if len(ends) and gain.max() > 1e-6:  # less is rounding, and could go on for ever
                last = ends[np.argmax(gain)]
                tour[first + 1 : last + 1] = tour[first + 1 : last + 1][::-1]
                improved = True
    shortened: Order = tour.tolist()
    return shortened
