"""Who sends a file to whom over the lasers, from the satellite that has it first: a ring, a tree, or a swarm.

Each way is a table: satellite -> the satellites that it fetches from, the best one first. It is drawn from the planned
paths at one instant; what the sky does later is met by trying the next one in the list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

NEIGHBOURS = 6  # of a satellite in a swarm, at the most

Way = Literal["ring", "tree", "swarm"]
Sources = dict[str, tuple[str, ...]]
PathOf = Callable[[str, str], "Sequence[str] | None"]  # (from, to) -> the nodes of the planned path


def spread(way: Way, first: str, others: Iterable[str], delay_ns: Callable[[str, str], int | None],
           path: PathOf) -> Sources:  # fmt: skip
    """Whom each of the others fetches from.

    Args:
        delay_ns: of the planned path between two satellites; None where there is none.
        path: the nodes of it.
    """
    others = tuple(others)
    if way == "ring":
        return ring(first, others, delay_ns)
    parents = tree_parents(first, others, path)
    if way == "tree":
        return {name: _upwards(name, parents) for name in others}
    return {name: neighbours(name, parents[name], (first, *others), delay_ns, path) for name in others}


def ring(first: str, others: Sequence[str], delay_ns: Callable[[str, str], int | None]) -> Sources:
    """One after the other, each time the nearest that has not got it; if one fails, the next asks the one before it."""
    order, left = [first], list(others)
    while left:
        nearest = min(left, key=lambda name: _far_if_none(delay_ns(order[-1], name)))
        left.remove(nearest)
        order.append(nearest)
    return {name: tuple(reversed(order[:place])) for place, name in enumerate(order) if place}


def tree_parents(first: str, others: Sequence[str], path: PathOf) -> dict[str, str]:
    """For each satellite the last one before it, on the path from the first, that gets the file too.

    So each laser carries the file once, as in a multicast; one without a path asks the first itself.
    """
    receivers = {first, *others}
    return {name: _last_before(path(first, name), receivers) or first for name in others}


def neighbours(
    name: str, parent: str, receivers: Sequence[str], delay_ns: Callable[[str, str], int | None], path: PathOf
) -> tuple[str, ...]:
    """The satellites that one reaches without passing another that gets the file, the nearest ones; with its parent.

    Then no laser carries a piece to a satellite past another that needs it too.
    """
    near = [other for other in receivers if other != name and _last_before(path(other, name), receivers) == other]
    near.sort(key=lambda other: _far_if_none(delay_ns(other, name)))
    chosen = near[:NEIGHBOURS]
    return tuple(chosen if parent in chosen else [parent, *chosen[: NEIGHBOURS - 1]])


def _last_before(path: Sequence[str] | None, receivers: Iterable[str]) -> str | None:
    """The last node of a path, its end left out, that is a receiver."""
    receivers = set(receivers)
    return next((node for node in reversed((path or ())[:-1]) if node in receivers), None)


def _upwards(name: str, parents: Mapping[str, str]) -> tuple[str, ...]:
    """The way up to the root of a tree."""
    above = []
    while name in parents:
        name = parents[name]
        above.append(name)
    return tuple(above)


def _far_if_none(delay_ns: int | None) -> float:
    return float("inf") if delay_ns is None else delay_ns
