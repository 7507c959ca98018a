"""How paths are chosen: the policy for all traffic, and disjoint paths beside it for named pairs."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Literal

from pydantic import Field

from isl_emu.scenario.matching import repeated, unpaired
from isl_emu.scenario.quantities import Delay, NodeName, Record, UserFunction


class DisjointPaths(Record):
    """Paths between named pairs that share no link, or no node either; each has an address of its own.

    `paths`: how many for each pair, the first being a shortest one together with the others.
    """

    pairs: tuple[tuple[NodeName, NodeName], ...] = Field(min_length=1)
    paths: int = Field(ge=2, le=8, default=2)
    separate: Literal["links", "nodes"] = "links"


class Routing(Record):
    """How paths are chosen at each instant: a policy of ours, or a user's function as ``package.module:function``.

    `hysteresis`: of "stable". `equal_by`, `tolerance`, `next_hops`: of "ecmp".
    """

    policy: Literal["shortest-delay", "fewest-hops", "stable", "ecmp"] | UserFunction = "shortest-delay"
    hysteresis_ns: Delay = Field(alias="hysteresis", default=1_000_000)
    equal_by: Literal["delay", "hops"] = "delay"
    tolerance_ns: Delay = Field(alias="tolerance", default=1_000_000)
    next_hops: int = Field(ge=2, le=16, default=4)
    disjoint: DisjointPaths | None = None


def routing_contradictions(routing: Routing, nodes: Collection[str]) -> Iterator[str]:
    """Problems of the disjoint pairs that show beside the nodes, and beside each other."""
    if routing.disjoint:
        yield from unpaired("routing.disjoint.pairs", "a path", routing.disjoint.pairs, nodes)
        yield from repeated("routing.disjoint: pair", [" and ".join(sorted(pair)) for pair in routing.disjoint.pairs])
