"""Is the network what the plan says? One sentence for each end or route that is not; a pure module."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from isl_emu.linkplan.plan import LinkPlan, QueueKind
from isl_emu.network.desired import NETEM_LIMIT_PACKETS, UNKNOWN_LINK, expected
from isl_emu.network.naming import Wiring, alias_names
from isl_emu.routing.forwarding import GROUP_BASE, NO_ROUTE, RoutePlan
from isl_emu.units import DURATION_NS, RATE_BIT_S, format_quantity

TOLERANCES = {  # of fields of desired.FOUND, each in its unit
    "delay_ns": 64,  # one psched tick: what kernels without 64-bit latency keep
    "rate_bit_s": 8,  # netem counts whole bytes a second
    "queue_rate_bit_s": 8,
    "loss_ratio": 1e-9,  # netem keeps a loss as a 32-bit fraction, and as such
    "corruption_ratio": 1e-9,
    "duplication_ratio": 1e-9,
    "jitter_ns": 64,
}
EXACT_FIELDS = ("plain", "limit_packets", "aqm", "queue_byte")
ADVICE = "leave tc and ip alone during a run"


def end_mismatches(
    plan: LinkPlan, wiring: Wiring, which: np.ndarray, states: np.ndarray, found: np.ndarray
) -> list[str]:
    """Compare planned ends with those found.

    Args:
        which: the ends to compare, (C,).
        states: what they should be, desired.END, (C,).
        found: what was read, desired.FOUND; ends that are not in `which` are ignored.
    """
    differs = differing_ends(which, states, found)
    by_end, wrong = {int(row["end"]): row for row in found} if differs.any() else {}, []
    for end, should in zip(which[differs].tolist(), expected(which[differs], states[differs]), strict=True):
        where = f"{plan.nodes.names[wiring.node[end]]} {wiring.interface[end]}"
        shown = _shown(by_end[end]) if end in by_end else "no netem"
        wrong.append(f"{where}: the shaping is {shown}, but the plan says {_shown(should)}; {ADVICE}")
    return wrong


def differing_ends(which: np.ndarray, states: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Which of the ends `which` (C,) are not found as `states` (desired.END, (C,)) says; bool, (C,)."""
    planned, differs = expected(which, states), np.ones(len(which), bool)
    _, known, there = np.intersect1d(which, found["end"], assume_unique=True, return_indices=True)
    differs[known] = ~_same(planned[known], found[there])
    return differs


def route_mismatches(
    plan: LinkPlan,
    wiring: Wiring,
    nodes: Sequence[int],
    planned: np.ndarray,
    routes: RoutePlan,
    found: np.ndarray,
    family: str,
) -> list[str]:
    """Compare planned routes with those found.

    Args:
        nodes: whose tables are compared, ascending.
        planned: the next hop to each destination, NO_ROUTE where there is none; (N, D).
        routes: whose destinations the columns of `planned` are, and whose groups its next hops.
        found: what was read at `nodes`, desired.ROUTE.
    """
    hops, order = _hops(found, routes), np.argsort(routes.destinations)
    known = np.isin(hops["destination"], routes.destinations)
    column = order[np.searchsorted(routes.destinations, hops["destination"][known], sorter=order)]
    table = np.full((len(nodes), len(routes.destinations)), NO_ROUTE, planned.dtype)
    table[np.searchsorted(nodes, hops["node"][known]), column] = hops["link"][known]
    should = planned[nodes]
    at, index = np.nonzero(table != should)
    places = np.asarray(nodes)[at], routes.destinations[index]
    differing = zip(*(one.tolist() for one in (*places, table[at, index], should[at, index])), strict=True)
    strange = ((*hop, NO_ROUTE) for hop in hops[~known].tolist())
    return [_route_sentence(plan, wiring, routes, family, *row) for row in (*differing, *strange)]


def _hops(found: np.ndarray, routes: RoutePlan) -> np.ndarray:
    """What was read as next hops, ROUTE, one of a node and destination; several links that are no group are unknown."""
    order = np.lexsort((found["link"], found["destination"], found["node"]))
    ordered = found[order]
    new = (np.diff(ordered["node"], prepend=-1) != 0) | (np.diff(ordered["destination"], prepend=-1) != 0)
    first = np.flatnonzero(new)
    hops, counts = ordered[first], np.diff(first, append=len(ordered))
    group = {several: GROUP_BASE + number for number, several in enumerate(routes.groups)}
    for several in np.flatnonzero(counts > 1).tolist():
        links = tuple(ordered["link"][first[several] : first[several] + counts[several]].tolist())
        hops["link"][several] = group.get(links, UNKNOWN_LINK)
    return hops


def _same(planned: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Where two arrays of desired.FOUND agree, as closely as a kernel keeps each setting."""
    within = (np.abs(found[field] - planned[field]) <= tolerance for field, tolerance in TOLERANCES.items())
    same: np.ndarray = np.logical_and.reduce([*within, *(found[field] == planned[field] for field in EXACT_FIELDS)])
    return same


def _shown(row: np.void) -> str:
    """A row of desired.FOUND in words."""
    delay, rate = (
        format_quantity(int(row["delay_ns"]), DURATION_NS),
        format_quantity(int(row["rate_bit_s"]), RATE_BIT_S),
    )
    limit, loss_ratio = int(row["limit_packets"]), float(row["loss_ratio"])
    shown = f"delay {delay}, rate {rate}, loss {loss_ratio:.4g}"
    for name in ("corruption_ratio", "duplication_ratio"):
        shown += f", {name.removesuffix('_ratio')} {float(row[name]):.4g}" if row[name] else ""
    shown += f", jitter {format_quantity(int(row['jitter_ns']), DURATION_NS)}" if row["jitter_ns"] else ""
    shown += "" if limit == NETEM_LIMIT_PACKETS else f", limit {limit} packets"
    if row["queue_rate_bit_s"]:
        kind = QueueKind(int(row["aqm"])).name.lower() if row["aqm"] else "a policer"
        queue_rate = format_quantity(int(row["queue_rate_bit_s"]), RATE_BIT_S)
        shown += f", behind {kind} at {queue_rate} of {int(row['queue_byte'])} bytes"
    return shown if row["plain"] else f"{shown} and more (reordering, slots)"


def _route_sentence(
    plan: LinkPlan,
    wiring: Wiring,
    routes: RoutePlan,
    family: str,
    node: int,
    destination: int,
    found: int,
    planned: int,
) -> str:
    names = [*plan.nodes.names, *alias_names(plan.nodes.names, routes.aliases)]

    def way(hop: int) -> str:
        if hop == UNKNOWN_LINK:
            return "through something unknown"
        ends = wiring.end(np.array(node), np.array(routes.links_of(hop), dtype=np.int64))
        return " and ".join(wiring.interface[end] for end in ends.tolist()) or "none"

    target = names[destination] if 0 <= destination < len(names) else f"number {destination}"
    return f"{names[node]}: the {family} route to {target} is {way(found)}, but the plan says {way(planned)}; {ADVICE}"
