"""All-reduce as a schedule: which part of a vector each rank sends to whom, round by round.

A schedule is data, so the same one is carried out over sockets, checked with arrays and timed without either. Ranks
count from 0 in the order of the ring; every rank ends with the sum of all vectors.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["ring", "tree", "hierarchical"]
Part = slice  # of the vector: elements start to stop


@dataclass(frozen=True)
class Sending:
    """A part that goes to another rank."""

    to: int
    part: Part


@dataclass(frozen=True)
class Receiving:
    """A part that comes from another rank, and is added to what is there or takes its place."""

    source: int
    part: Part
    adds: bool


@dataclass(frozen=True)
class Round:
    """What a rank sends and receives at the same time; what it sends is not what it receives."""

    sendings: tuple[Sending, ...] = ()
    receivings: tuple[Receiving, ...] = ()


Schedule = tuple[tuple[Round, ...], ...]  # for each rank its rounds
Pair = tuple[int, int]  # who sends to whom


def schedule(kind: Kind, elements: int, planes: Sequence[Sequence[int]]) -> Schedule:
    """The rounds of an all-reduce.

    "ring" is the bandwidth-optimal one: n - 1 rounds in which parts are summed on their way around, n - 1 in which the
    sums go around. "tree" adds whole vectors up a binomial tree and sends the sum back down: few rounds, many bytes.
    "hierarchical" sums each part around the planes, then between equal places of all planes, then sends it around the
    planes.

    Args:
        elements: length of the vector.
        planes: the ranks by plane, each plane in the order of its ring; only "hierarchical" tells them apart.

    Raises:
        ValueError: "hierarchical", and planes of different sizes.

    Source: Patarasuk and Yuan 2009, Bandwidth optimal all-reduce algorithms for clusters of workstations (ring);
        Thakur, Rabenseifner and Gropp 2005, Optimization of collective communication operations in MPICH (tree);
        Mikami et al. 2018, Massively distributed SGD, section 3.2 (2D torus: the hierarchical one).
    """
    ranks = sorted(rank for plane in planes for rank in plane)
    whole = slice(0, elements)
    if kind == "ring":
        return _by_rank(ranks, _ring(ranks, whole))
    if kind == "tree":
        return _by_rank(ranks, _tree(ranks, whole))
    if len({len(plane) for plane in planes}) != 1:
        raise ValueError("the planes have different numbers of ranks, but hierarchical needs equal ones; choose ring")
    parts = split(whole, len(planes[0]))
    within = _merged(_reduce_scatter(plane, parts) for plane in planes)
    places = zip(*planes)
    between = _merged(_ring(equals, parts[(place + 1) % len(parts)]) for place, equals in enumerate(places))
    return _by_rank(ranks, _joined(within, between, _merged(_all_gather(plane, parts) for plane in planes)))


def hand_on(elements: int, ranks: Sequence[int]) -> Schedule:
    """The rounds in which the first rank's vector takes the place of all others': part by part from each to the next.

    Args:
        ranks: in the order in which it passes them, all numbers from 0 on.
    """
    parts = split(slice(0, elements), len(ranks))
    rounds: Rounds = {rank: [] for rank in ranks}
    for before, here, after in zip([None, *ranks], ranks, [*ranks[1:], None]):
        for number in range(len(parts) + 1):
            came = None if before is None or number == len(parts) else Receiving(before, parts[number], False)
            ready = number if before is None else number - 1
            goes = Sending(after, parts[ready]) if after is not None and 0 <= ready < len(parts) else None
            rounds[here].append(Round((goes,) if goes else (), (came,) if came else ()))
    return _by_rank(sorted(ranks), rounds)


def sent_elements(rounds: Sequence[Round]) -> int:
    """How many elements a rank sends in all its rounds."""
    return sum(sending.part.stop - sending.part.start for round_ in rounds for sending in round_.sendings)


def pairs_of(schedule: Schedule) -> list[Pair]:
    """Who sends to whom, each pair once."""
    pairs = {(rank, sending.to): None for rank, rounds in enumerate(schedule) for round_ in rounds
             for sending in round_.sendings}  # fmt: skip
    return list(pairs)


def split(part: Part, count: int) -> list[Part]:
    """A part cut into `count` parts whose lengths differ by at most one."""
    length = part.stop - part.start
    edges = [part.start + length * index // count for index in range(count + 1)]
    return [slice(start, stop) for start, stop in zip(edges, edges[1:])]


Rounds = dict[int, list[Round]]  # of the ranks that take part


def _by_rank(ranks: Sequence[int], rounds: Rounds) -> Schedule:
    return tuple(tuple(rounds.get(rank, ())) for rank in ranks)


def _ring(ranks: Sequence[int], part: Part) -> Rounds:
    parts = split(part, len(ranks))
    return _joined(_reduce_scatter(ranks, parts), _all_gather(ranks, parts))


def _reduce_scatter(ranks: Sequence[int], parts: Sequence[Part]) -> Rounds:
    """Afterwards the rank at place i has the sum of part i + 1."""
    return _around(ranks, parts, first=0, adds=True)


def _all_gather(ranks: Sequence[int], parts: Sequence[Part]) -> Rounds:
    """Beforehand the rank at place i has part i + 1, afterwards all."""
    return _around(ranks, parts, first=1, adds=False)


def _around(ranks: Sequence[int], parts: Sequence[Part], first: int, adds: bool) -> Rounds:
    """Each part goes on by one place a round; the rank at place i begins with part i + `first`."""
    count = len(ranks)

    def round_at(place: int, number: int) -> Round:
        mine, theirs = (place + first - number) % count, (place + first - number - 1) % count
        sending = Sending(ranks[(place + 1) % count], parts[mine])
        return Round((sending,), (Receiving(ranks[place - 1], parts[theirs], adds),))

    return {rank: [round_at(place, number) for number in range(count - 1)] for place, rank in enumerate(ranks)}


def _tree(ranks: Sequence[int], part: Part) -> Rounds:
    """A binomial tree over the places: at distance d each odd multiple of d sends to the even one before it."""
    up: Rounds = {rank: [] for rank in ranks}
    down: Rounds = {rank: [] for rank in ranks}
    distance = 1
    while distance < len(ranks):
        for place in range(distance, len(ranks), 2 * distance):
            child, parent = ranks[place], ranks[place - distance]
            up[child].append(Round((Sending(parent, part),)))
            up[parent].append(Round((), (Receiving(child, part, True),)))
            down[parent].insert(0, Round((Sending(child, part),)))
            down[child].insert(0, Round((), (Receiving(parent, part, False),)))
        distance *= 2
    return _joined(up, down)


def _merged(groups: Iterable[Rounds]) -> Rounds:
    """The rounds of groups that share no rank."""
    return {rank: rounds for group in groups for rank, rounds in group.items()}


def _joined(*phases: Rounds) -> Rounds:
    """The rounds of phases one after the other."""
    return {rank: [round_ for phase in phases for round_ in phase.get(rank, ())] for rank in phases[0]}
