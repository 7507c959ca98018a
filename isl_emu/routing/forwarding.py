"""The route plan: each node's next hop to each destination, instant by instant, stored as changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from isl_emu.errors import ScenarioError
from isl_emu.linkplan.plan import LinkPlan
from isl_emu.routing.shortest import NO_ROUTE, next_links

POLICIES = {"shortest-delay": next_links}  # name in a scenario -> next hops of one instant
__all__ = ["NO_ROUTE", "POLICIES", "RouteChanges", "RoutePlan", "plan_routes"]


@dataclass(frozen=True)
class RouteChanges:
    """Next hops that change at one instant, C of them; all arrays int32, shape (C,)."""

    node: np.ndarray  # the node whose table changes
    destination: np.ndarray  # the node that is reached
    link: np.ndarray  # the link to send on, or NO_ROUTE


@dataclass(frozen=True)
class RoutePlan:
    """All next-hop changes of a run; the changes of instant 0 start from empty tables.

    The rows of instant k are `row_start[k]:row_start[k + 1]`.
    """

    destinations: np.ndarray  # int32 (D,), node indices that have routes
    row_start: np.ndarray  # int64 (K+1,)
    row_node: np.ndarray  # int32 (R,)
    row_destination: np.ndarray  # int32 (R,), node index
    row_link: np.ndarray  # int32 (R,), link index or NO_ROUTE

    def __post_init__(self) -> None:
        for array in (self.destinations, self.row_start, self.row_node, self.row_destination, self.row_link):
            array.setflags(write=False)

    def changes(self, k: int) -> RouteChanges:
        """What changes at instant `k`."""
        rows = slice(self.row_start[k], self.row_start[k + 1])
        return RouteChanges(self.row_node[rows], self.row_destination[rows], self.row_link[rows])


def plan_routes(plan: LinkPlan, policy: str, destinations: Sequence[int] | None = None) -> RoutePlan:
    """The next hops of every node at every instant.

    Holds one table of D x N entries at a time; what it returns follows the number of changes.

    Args:
        plan: the links.
        policy: a key of `POLICIES`.
        destinations: node indices that need to be reached; all nodes if None.

    Raises:
        ScenarioError: an unknown policy.
    """
    if policy not in POLICIES:
        raise ScenarioError(f"routing.policy: is {policy!r}, but must be one of {', '.join(POLICIES)}; choose one")
    nodes = len(plan.nodes.names)
    reached = np.arange(nodes) if destinations is None else np.unique(np.asarray(destinations, dtype=np.int64))
    table = np.full((nodes, len(reached)), NO_ROUTE, dtype=np.int32)
    parts = []
    for k in range(plan.grid.count):
        previous, table = table, np.ascontiguousarray(POLICIES[policy](plan, k, reached).T)
        parts.append(_difference(previous, table, reached))
    sizes = [len(part.node) for part in parts]
    return RoutePlan(
        destinations=reached.astype(np.int32),
        row_start=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        row_node=np.concatenate([part.node for part in parts]),
        row_destination=np.concatenate([part.destination for part in parts]),
        row_link=np.concatenate([part.link for part in parts]),
    )


def _difference(previous: np.ndarray, table: np.ndarray, destinations: np.ndarray) -> RouteChanges:
    """What turns one table of shape (N, D) into the next, ordered by (node, destination)."""
    node, column = np.nonzero(table != previous)
    return RouteChanges(node.astype(np.int32), destinations[column].astype(np.int32), table[node, column])
