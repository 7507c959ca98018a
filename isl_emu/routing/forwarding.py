"""The route plan: each node's next hop to each destination, instant by instant, stored as changes.

A next hop is a link, or a group of links among which the kernel spreads flows (see `equal_cost`). A destination is a
node, or an alias: one more address of a node, to which a disjoint path of its own leads (see `aliases`).
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from isl_emu.arrays import Ints
from isl_emu.errors import ScenarioError
from isl_emu.linkplan.plan import LinkPlan
from isl_emu.routing.aliases import NO_ALIASES, Aliases, alias_table, aliases_of
from isl_emu.routing.policies import policy_of
from isl_emu.routing.shortest import GROUP_BASE, NO_ROUTE
from isl_emu.scenario.routing import Routing

__all__ = ["GROUP_BASE", "NO_ROUTE", "Aliases", "RouteChanges", "RoutePlan", "plan_routes"]


@dataclass(frozen=True)
class RouteChanges:
    """Next hops that change at one instant, C of them; all arrays int32, shape (C,)."""

    node: np.ndarray  # the node whose table changes
    destination: np.ndarray  # the node that is reached, or the alias
    link: np.ndarray  # the link to send on, GROUP_BASE + the number of a group of them, or NO_ROUTE


@dataclass(frozen=True)
class RoutePlan:
    """All next-hop changes of a run; the changes of instant 0 start from empty tables.

    The rows of instant k are `row_start[k]:row_start[k + 1]`.
    """

    destinations: np.ndarray  # int32 (D,), nodes and aliases that have routes
    row_start: np.ndarray  # int64 (K+1,)
    row_node: np.ndarray  # int32 (R,)
    row_destination: np.ndarray  # int32 (R,), node or alias
    row_link: np.ndarray  # int32 (R,), link index, GROUP_BASE + group, or NO_ROUTE
    groups: tuple[tuple[int, ...], ...] = ()  # the links of each group, ascending
    aliases: Aliases = NO_ALIASES

    def __post_init__(self) -> None:
        for array in (self.destinations, self.row_start, self.row_node, self.row_destination, self.row_link):
            array.setflags(write=False)

    def changes(self, k: int) -> RouteChanges:
        """What changes at instant `k`."""
        rows = slice(self.row_start[k], self.row_start[k + 1])
        return RouteChanges(self.row_node[rows], self.row_destination[rows], self.row_link[rows])

    def links_of(self, hop: int) -> tuple[int, ...]:
        """The links of a next hop: one, or those of a group, or none."""
        if hop >= GROUP_BASE:
            return self.groups[hop - GROUP_BASE]
        return () if hop == NO_ROUTE else (hop,)


def plan_routes(
    plan: LinkPlan, routing: Routing | None = None, destinations: Sequence[int] | Ints | None = None
) -> RoutePlan:
    """The next hops of every node at every instant.

    They follow what is known of faults: a link that is cut has routes until that is known, and none for as long after
    it is right again. Holds one table of D x N entries at a time; what it returns follows the number of changes.

    Args:
        plan: the links.
        routing: the policy; shortest delay if None.
        destinations: node indices that need to be reached; all nodes if None.

    Raises:
        ScenarioError: a user's policy that cannot be imported or returns something else than next hops.
    """
    routing, plan = routing or Routing(), plan.known
    policy, aliases, nodes = policy_of(routing), aliases_of(plan, routing.disjoint), len(plan.nodes.names)
    reached = np.arange(nodes) if destinations is None else np.asarray(destinations, dtype=np.int64)
    reached = np.union1d(reached, aliases.owner)  # off its path an alias is forwarded like its node
    columns = np.concatenate([reached, nodes + np.arange(len(aliases.owner))])
    table = np.full((nodes, len(columns)), NO_ROUTE, dtype=np.int32)
    parts = []
    for k in range(plan.grid.count):
        before = table[:, : len(reached)].T
        found = _checked(policy(plan, k, reached, before), plan, reached)
        if routing.disjoint and len(aliases.owner):
            owners = found[np.searchsorted(reached, aliases.owner)]
            found = np.concatenate([found, alias_table(plan, k, aliases, routing.disjoint, owners)])
        previous, table = table, np.ascontiguousarray(found.T)
        node, column = np.nonzero(table != previous)
        parts.append(RouteChanges(node.astype(np.int32), columns[column].astype(np.int32), table[node, column]))
    sizes = [len(part.node) for part in parts]
    return RoutePlan(
        destinations=columns.astype(np.int32),
        row_start=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        row_node=np.concatenate([part.node for part in parts]),
        row_destination=np.concatenate([part.destination for part in parts]),
        row_link=np.concatenate([part.link for part in parts]),
        groups=getattr(policy, "groups", ()),
        aliases=aliases,
    )


def no_routes(plan: LinkPlan) -> RoutePlan:
    """No routes to anywhere at any instant of a plan: they are for others to make."""
    none = np.empty(0, dtype=np.int32)
    return RoutePlan(none, np.zeros(plan.grid.count + 1, dtype=np.int64), none.copy(), none.copy(), none.copy())


def _checked(table: np.ndarray, plan: LinkPlan, destinations: np.ndarray) -> np.ndarray:
    """A policy's table, if it has the form of one; loops are found when a path is followed."""
    shape = (len(destinations), len(plan.nodes.names))
    table = np.asarray(table)
    if table.shape != shape or table.dtype.kind != "i":
        raise ScenarioError(
            f"routing.policy: returned {table.dtype} of shape {table.shape}, but next hops are whole numbers of shape "
            f"{shape} (destinations, nodes); mend the function"
        )
    return table.astype(np.int32, copy=False)


def write_routes(routes: RoutePlan, plan: LinkPlan, path: Path) -> None:
    """Write a route plan to `path`: it is planned once, applied by the live part, and looked up for the results.

    Args:
        plan: whose routes they are.
    """
    with path.open("wb") as file:
        np.savez(
            file,
            plan=np.frombuffer(plan.digest().encode(), dtype=np.uint8),
            **{name: getattr(routes, name) for name in _ARRAYS},
            group_size=np.array([len(group) for group in routes.groups], dtype=np.int64),
            group_link=np.array([link for group in routes.groups for link in group], dtype=np.int64),
            **{f"alias_{name}": getattr(routes.aliases, name) for name in _ALIASES},
        )


def read_routes(path: Path, plan: LinkPlan) -> RoutePlan:
    """The route plan in a file that `write_routes` wrote for this plan; nothing in the file is executed.

    Raises:
        ScenarioError: there is no such file, it is none, or it belongs to another plan.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = dict(stored)
    except (OSError, EOFError, ValueError, LookupError, RuntimeError, MemoryError, BadZipFile, zlib.error) as error:
        raise _unusable(path, getattr(error, "strerror", None) or str(error)) from None
    missing = {"plan", "group_size", "group_link", *_ARRAYS, *(f"alias_{name}" for name in _ALIASES)} - set(arrays)
    if missing:
        raise _unusable(path, f"it has no {min(missing)}")
    if arrays["plan"].tobytes() != plan.digest().encode():
        raise _unusable(path, "it belongs to another plan")
    ends = np.cumsum(arrays["group_size"])
    return RoutePlan(
        **{name: arrays[name] for name in _ARRAYS},
        groups=tuple(tuple(links.tolist()) for links in np.split(arrays["group_link"], ends[:-1])) if len(ends) else (),
        aliases=Aliases(*(arrays[f"alias_{name}"] for name in _ALIASES)),
    )


_ARRAYS = ("destinations", "row_start", "row_node", "row_destination", "row_link")
_ALIASES = ("owner", "user", "path")


def _unusable(path: Path, found: str) -> ScenarioError:
    return ScenarioError(f"{path}: cannot be read ({found}), but holds the routes of the run; run the scenario again")
