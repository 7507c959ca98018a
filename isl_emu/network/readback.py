"""Is the network what the plan says? One sentence for each end or route that is not; a pure module."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from isl_emu.linkplan.plan import LinkPlan, QueueKind
from isl_emu.network.backend import UNKNOWN_LINK
from isl_emu.network.desired import serialiser_bit_s
from isl_emu.network.naming import Wiring, alias_names
from isl_emu.routing.forwarding import GROUP_BASE, NO_ROUTE, RoutePlan
from isl_emu.units import DURATION_NS, RATE_BIT_S, format_quantity

DELAY_TOLERANCE_NS = 64  # one psched tick: what kernels without 64-bit latency keep
RATE_TOLERANCE_BIT_S = 8  # netem counts whole bytes a second
LOSS_TOLERANCE_RATIO = 1e-9  # netem keeps a loss as a 32-bit fraction
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
    read = {int(row["end"]): row for row in found}
    return [
        f"{plan.nodes.names[wiring.node[end]]} {wiring.interface[end]}: the shaping is "
        f"{_shown_found(read.get(end))}, but the plan says {_shown_planned(state)}; {ADVICE}"
        for end, state in zip(which.tolist(), states, strict=True)
        if not _same(state, read.get(end))
    ]


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
        nodes: whose tables are compared.
        planned: the next hop to each destination, NO_ROUTE where there is none; (N, D).
        routes: whose destinations the columns of `planned` are, and whose groups its next hops.
        found: what was read at `nodes`, backend.ROUTE.
    """
    column = {int(destination): index for index, destination in enumerate(routes.destinations)}
    table = np.full_like(planned, NO_ROUTE)
    strange = []
    for (node, destination), hop in _hops(found, routes).items():
        if destination in column:
            table[node, column[destination]] = hop
        else:
            strange.append((node, destination, hop, NO_ROUTE))
    wrong = [(node, int(index)) for node in nodes for index in np.flatnonzero(table[node] != planned[node])]
    differing = [
        (node, int(routes.destinations[index]), int(table[node, index]), int(planned[node, index]))
        for node, index in wrong
    ]
    return [_route_sentence(plan, wiring, routes, family, *row) for row in (*differing, *strange)]


def _hops(found: np.ndarray, routes: RoutePlan) -> dict[tuple[int, int], int]:
    """What was read as next hops by node and destination; several links that are no group are something unknown."""
    links: dict[tuple[int, int], tuple[int, ...]] = {}
    for node, destination, link in found.tolist():
        links[node, destination] = (*links.get((node, destination), ()), link)
    group = {several: GROUP_BASE + number for number, several in enumerate(routes.groups)}
    return {
        place: several[0] if len(several) == 1 else group.get(tuple(sorted(several)), UNKNOWN_LINK)
        for place, several in links.items()
    }


def _same(state: np.void, found: np.void | None) -> bool:
    return (
        found is not None
        and bool(found["plain"])
        and abs(float(found["loss_ratio"]) - _planned_loss_ratio(state)) <= LOSS_TOLERANCE_RATIO
        and abs(int(found["delay_ns"]) - int(state["delay_ns"])) <= DELAY_TOLERANCE_NS
        and abs(int(found["rate_bit_s"]) - int(serialiser_bit_s(state))) <= RATE_TOLERANCE_BIT_S
        and found["limit_packets"] == state["limit_packets"]
        and _same_queue(state, found)
    )


def _same_queue(state: np.void, found: np.void) -> bool:
    if state["aqm"] == QueueKind.NONE:
        return found["queue_rate_bit_s"] == 0
    return (
        found["aqm"] == state["aqm"]
        and abs(int(found["queue_rate_bit_s"]) - int(state["rate_bit_s"])) <= RATE_TOLERANCE_BIT_S
        and found["queue_byte"] == state["queue_byte"]
    )


def _planned_loss_ratio(state: np.void) -> float:
    return float(state["loss_ratio"]) if state["up"] else 1.0


def _shown_planned(state: np.void) -> str:
    queue_bit_s = 0 if state["aqm"] == QueueKind.NONE else int(state["rate_bit_s"])
    return _shown(state, int(serialiser_bit_s(state)), _planned_loss_ratio(state), queue_bit_s)


def _shown_found(found: np.void | None) -> str:
    if found is None:
        return "no netem"
    more = "" if found["plain"] else " and more (jitter, reordering, ...)"
    return _shown(found, int(found["rate_bit_s"]), float(found["loss_ratio"]), int(found["queue_rate_bit_s"])) + more


def _shown(row: np.void, rate_bit_s: int, loss_ratio: float, queue_bit_s: int) -> str:
    delay = format_quantity(int(row["delay_ns"]), DURATION_NS)
    rate = format_quantity(rate_bit_s, RATE_BIT_S)
    netem = f"delay {delay}, rate {rate}, limit {int(row['limit_packets'])} packets, loss {loss_ratio:.4g}"
    return netem + (_shown_queue(row, queue_bit_s) if queue_bit_s else "")


def _shown_queue(row: np.void, rate_bit_s: int) -> str:
    kind, rate = QueueKind(int(row["aqm"])).name.lower(), format_quantity(rate_bit_s, RATE_BIT_S)
    return f", behind {kind} at {rate} of {int(row['queue_byte'])} bytes"


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
