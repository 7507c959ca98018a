"""A network in memory that keeps the contract of a back end; the kernel passes the same suite."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from isl_emu.errors import NetworkError
from isl_emu.linkplan.plan import LinkPlan
from isl_emu.network.desired import COUNTERS, END, ROUTE, expected, initial_ends
from isl_emu.network.interventions import Disturbance
from isl_emu.network.naming import wire
from isl_emu.routing.forwarding import NO_ROUTE
from isl_emu.runs.portion import Portion


class FakeBackend:
    """Link ends and routes of a plan, as a kernel would hold them."""

    def __init__(self, plan: LinkPlan):
        self.wiring = wire(plan)
        self.portion = Portion.whole(len(plan.nodes.names))
        self.ends = initial_ends(plan, 0)
        self.routes: dict[tuple[int, int], tuple[int, ...]] = {}
        self.dropped = np.zeros((len(self.ends), 2), np.int64)
        self.log: list[str] = []  # what was asked for, in order

    def change_ends(self, which: np.ndarray, states: np.ndarray) -> None:
        assert states.dtype == END and len(which) == len(states)
        self.ends[which] = states
        self.log.append(f"ends up {int(states['up'].sum())} down {int((~states['up']).sum())}")

    def change_routes(self, routes: np.ndarray) -> None:
        assert routes.dtype == ROUTE
        wanted: dict[tuple[int, int], tuple[int, ...]] = {}
        for node, destination, link in routes.tolist():
            wanted[node, destination] = (*wanted.get((node, destination), ()), link)
        for (node, destination), links in wanted.items():
            if links != (NO_ROUTE,):
                self.routes[node, destination] = links
            elif self.routes.pop((node, destination), None) is None:
                raise NetworkError(f"node {node}: there is no route to {destination}, but it should be withdrawn")
        self.log.append(f"routes {len(routes)}")

    def read_ends(self, nodes: Sequence[int]) -> np.ndarray:
        which = np.flatnonzero(np.isin(self.wiring.node, nodes))
        return expected(which, self.ends[which])

    disturbed = False

    def counters(self, nodes: Iterable[int]) -> np.ndarray:
        """As a test sets them."""
        which = np.flatnonzero(np.isin(self.wiring.node, list(nodes)))
        found = np.zeros(len(which), COUNTERS)
        found["end"] = which
        found["netem"], found["queue"] = self.dropped[which].T
        return found

    def listen(self, now_ns: Callable[[], int]) -> None:
        """Nobody else is there."""

    def disturbances(self) -> list[Disturbance]:
        return []

    def interfaces_down(self, node: int) -> list[str]:
        return []

    def restore(self, node: int, ends: np.ndarray, routes: np.ndarray) -> list[int]:
        which = np.flatnonzero(self.wiring.node == node)
        self.ends[which] = ends[which]
        self.change_routes(routes)
        return []

    def read_routes(self, nodes: Sequence[int]) -> dict[str, np.ndarray]:
        wanted = set(nodes)
        kept = [(place, links) for place, links in self.routes.items() if place[0] in wanted]
        rows = [(*place, link) for place, links in kept for link in links]
        return {"IPv4": np.array(rows, ROUTE)}
