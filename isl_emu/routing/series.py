"""Paths between two nodes over time, without the routes of all the others."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np

from isl_emu.linkplan.events import no_events
from isl_emu.linkplan.plan import LinkPlan
from isl_emu.routing.forwarding import plan_routes
from isl_emu.routing.paths import NodePath, PathFinder
from isl_emu.scenario.routing import Routing
from isl_emu.timebase import TimeGrid

WITHOUT_MEMORY = {"shortest-delay", "fewest-hops", "ecmp"}  # policies whose routes depend on one instant alone


def paths_to(plan: LinkPlan, routing: Routing, destination: int) -> PathFinder:
    """Paths to one node from any other, at any instant: one search an instant, whatever the number of nodes."""
    return PathFinder(plan, plan_routes(plan, routing.model_copy(update={"disjoint": None}), [destination]))


def path_at(plan: LinkPlan, routing: Routing, source: int, destination: int, k: int) -> NodePath | None:
    """The path from one node to another at instant `k`, searched for at this instant alone if the
    policy allows; None when there is no route."""
    finder, instant = _finder_at(plan, routing, destination, k)
    return finder.path(source, destination, instant)


def paths_at(plan: LinkPlan, routing: Routing, source: int, destination: int, k: int, most: int) -> list[NodePath]:
    """All paths (the first `most`) that packets from one node to another may take at instant `k`, by rising delay."""
    finder, instant = _finder_at(plan, routing, destination, k)
    return finder.paths(source, destination, instant, most)


def disjoint_paths_at(plan: LinkPlan, routing: Routing, source: int, destination: int, k: int) -> list[NodePath | None]:
    """The disjoint paths of a pair at instant `k`, None where there is none; empty for pairs that have none planned."""
    if routing.disjoint is None:
        return []
    now = _instant(plan, k)
    names = {plan.nodes.names[source], plan.nodes.names[destination]}
    pairs = tuple(pair for pair in routing.disjoint.pairs if set(pair) == names)
    this_pair = routing.model_copy(
        update={"policy": "shortest-delay", "disjoint": routing.disjoint.model_copy(update={"pairs": pairs})}
    )
    if not pairs:
        return []
    return PathFinder(now, plan_routes(now, this_pair, [destination])).disjoint_paths(source, destination, 0)


def _finder_at(plan: LinkPlan, routing: Routing, destination: int, k: int) -> tuple[PathFinder, int]:
    """What finds the paths to a node at instant `k`, and the number that this instant has there."""
    if routing.policy not in WITHOUT_MEMORY:
        return paths_to(plan, routing, destination), k
    return paths_to(_instant(plan, k), routing, destination), 0


def delays_ns(finder: PathFinder, source: int, destination: int, instants: int) -> np.ma.MaskedArray:
    """The one-way delay from one node to another at K instants, int64, masked where there is no route, shape (K,)."""
    paths = (finder.path(source, destination, k) for k in range(instants))
    found = np.array([-1 if path is None else path.delay_ns for path in paths], dtype=np.int64)
    return np.ma.masked_less(found, 0)


def _instant(plan: LinkPlan, k: int) -> LinkPlan:
    """The plan of one of its instants."""
    rows = slice(plan.row_start[k], plan.row_start[k + 1])
    columns = [field.name for field in fields(plan) if field.name.startswith("row_") and field.name != "row_start"]
    return replace(
        plan,
        grid=TimeGrid(plan.grid.utc(k * plan.grid.step_ns), plan.grid.step_ns, 1),
        row_start=np.array([0, rows.stop - rows.start], dtype=np.int64),
        events=no_events(),
        **{name: getattr(plan, name)[rows] for name in columns},
    )
