"""What the plan says to a training job: in which order to form a ring, and how long a sum takes at least.

In a ring all-reduce of small parts each part travels almost twice around, so the sum of all delays counts
("least-total"). The longest single delay counts where every round waits for the slowest link ("least-longest").

Up to `EXACT_UP_TO` participants the tour is the best one (Held and Karp's dynamic programme); beyond, a tour that no
reversal of a stretch makes better (2-opt), begun at the nearest neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np

from isl_emu.linkplan.plan import LinkPlan
from isl_emu.parts.training.collectives import Pair, Round, Schedule, pairs_of
from isl_emu.routing.laser_paths import LaserPaths
from isl_emu.units import NS_PER_S

EXACT_UP_TO = 11  # 2^10 x 11 x 11 sums: a hundredth of a second

Order = list[int]  # participants by their number, around the ring


class PlannedWays:
    """The ways between a job's satellites, by the shortest delays of the plan, as is known of faults then.

    Args:
        ring: "least-total", "least-longest" or "as-listed".
        listed: the job's satellites as they are listed.
    """

    def __init__(self, plan: LinkPlan, ring: str, listed: Sequence[str]):
        self._plan, self._ring, self._listed = plan.known, ring, list(listed)
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
    order = _held_karp(costs) if len(costs) <= EXACT_UP_TO else _two_opt(costs)
    # Begun at 0, in the direction in which the lower neighbour comes first: one form for each ring
    at = order.index(0)
    order = order[at:] + order[:at]
    return order if order[1] <= order[-1] else [order[0], *order[:0:-1]]


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


def _two_opt(costs: np.ndarray) -> Order:
    """From each to its nearest neighbour; then reverse stretches as long as that shortens the tour."""
    order, left = [0], set(range(1, len(costs)))
    while left:
        order.append(min(left, key=lambda other: (costs[order[-1], other], other)))
        left.remove(order[-1])
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


Rates = Callable[[Sequence[Pair]], np.ndarray]
"""The rate of each of some pairs while all of them send, bit/s, shape (len(pairs),)."""


def predicted_ns(schedule: Schedule, element_byte: int, delay_ns: np.ndarray, rates_bit_s: Rates) -> int:
    """The time from the start of all ranks until the last one has finished its last round.

    A message begins when its rank has finished the round before and the pair's earlier messages are out; it takes its
    size over the pair's rate, and then the pair's delay. A link is shared by ranks that send over it in the same step
    of a schedule whose messages all take equally long; what one rank sends to several at once does not hold itself up,
    since it may send the most urgent first. Headers, TCP's slow start, lost packets and the time that summing takes
    are neglected too, so a measured time is longer.

    Args:
        element_byte: size of an element on the wire.
        delay_ns: from rank to rank, one way, shape (n, n).
        rates_bit_s: what pairs get that send at the same time.
    """
    steps = steps_of(schedule)
    repeated = {rank for rank, own in enumerate(steps) if len(set(own)) < len(own)}  # several rounds in one step
    together: dict[int, dict[Pair, None]] = {}
    for rank, rounds in enumerate(schedule):
        for step, round_ in zip(steps[rank], rounds):
            together.setdefault(step, {}).update({(rank, sending.to): None for sending in round_.sendings})

    @cache
    def rates_of(pairs: tuple[Pair, ...]) -> dict[Pair, float]:
        return dict(zip(pairs, rates_bit_s(pairs).tolist()))

    @cache
    def rates_in(step: int, pair: Pair | None) -> dict[Pair, float]:
        """In a step; with a pair, without what its sender sends to others."""
        return rates_of(tuple(other for other in together[step] if not pair or other[0] != pair[0] or other == pair))

    def message_ns(rank: int, number: int, to: int, elements: int) -> float:
        step, alone = steps[rank][number], len(schedule[rank][number].sendings) == 1 and (rank not in repeated)
        rate_bit_s = rates_in(step, None if alone else (rank, to))[rank, to]
        return 8 * element_byte * elements * NS_PER_S / rate_bit_s

    return round(max((clock.now_ns for clock in _carried_out(schedule, delay_ns, message_ns)), default=0.0))


def steps_of(schedule: Schedule) -> list[list[int]]:
    """In which step each round of each rank begins, when every message takes one step."""
    no_delay = np.zeros((len(schedule), len(schedule)))
    clocks = _carried_out(schedule, no_delay, lambda rank, number, to, elements: 1.0)
    return [[round(begun) for begun in clock.begun_ns] for clock in clocks]


Lasts = Callable[[int, int, int, int], float]  # (rank, number of its round, receiver, elements) -> ns


def _carried_out(schedule: Schedule, delay_ns: np.ndarray, message_ns: Lasts) -> list[_Rank]:
    """The clocks of all ranks at the end."""
    clocks = [_Rank() for _ in schedule]
    progress = True
    while progress:
        progress = False
        for rank, rounds in enumerate(schedule):
            while clocks[rank].advance(rank, rounds, clocks, delay_ns, message_ns):
                progress = True
    return clocks


class _Rank:
    """A rank's clock, and the messages on their way to it."""

    def __init__(self) -> None:
        self.now_ns = 0.0
        self._at = 0  # the round it is in
        self._sent = False  # what this round sends
        self.begun_ns: list[float] = []  # of each round that it was in
        self._free_ns: dict[int, float] = {}  # when the line to a rank is idle again
        self.arrivals_ns: dict[int, list[float]] = {}  # by source, oldest first

    def advance(
        self, rank: int, rounds: Sequence[Round], clocks: Sequence[_Rank], delay_ns: np.ndarray, message_ns: Lasts
    ) -> bool:
        """Finish a round if all that it waits for has been sent; whether it was."""
        if self._at == len(rounds):
            return False
        round_ = rounds[self._at]
        if not self._sent:
            self.begun_ns.append(self.now_ns)
            for sending in round_.sendings:
                begun_ns = max(self.now_ns, self._free_ns.get(sending.to, 0.0))
                elements = sending.part.stop - sending.part.start
                self._free_ns[sending.to] = begun_ns + message_ns(rank, self._at, sending.to, elements)
                arrival_ns = self._free_ns[sending.to] + delay_ns[rank, sending.to]
                clocks[sending.to].arrivals_ns.setdefault(rank, []).append(arrival_ns)
            self._sent = True
        if not all(self.arrivals_ns.get(receiving.source) for receiving in round_.receivings):
            return False
        arrived_ns = [self.arrivals_ns[receiving.source].pop(0) for receiving in round_.receivings]
        self.now_ns = max([self.now_ns, *arrived_ns])
        self._at, self._sent = self._at + 1, False
        return True
