"""The path between two nodes at an instant, by following next hops as the emulated network does."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from isl_emu.errors import ScenarioError
from isl_emu.linkplan.plan import LinkPlan
from isl_emu.routing.forwarding import NO_ROUTE, RoutePlan
from isl_emu.units import NS_PER_S


@dataclass(frozen=True)
class Path:
    """A way through the network: nodes from source to destination, the links between them, and their total delay."""

    nodes: tuple[int, ...]
    links: tuple[int, ...]
    delay_ns: int

    @property
    def hops(self) -> int:
        """How many links the path has."""
        return len(self.links)


class PathFinder:
    """Paths of a run, at any instant in any order.

    Holds the changes of the route plan sorted by table entry, so that the entry valid at an instant is found by
    bisection and no table is ever filled in; memory follows the number of changes.
    """

    def __init__(self, plan: LinkPlan, routes: RoutePlan):
        self._plan = plan
        row_k = np.repeat(np.arange(plan.grid.count, dtype=np.int64), np.diff(routes.row_start))
        moment = self._moment(routes.row_node.astype(np.int64), routes.row_destination.astype(np.int64), row_k)
        order = np.argsort(moment)
        self._moments, self._links = moment[order], routes.row_link[order]

    def path(self, source: int, destination: int, k: int) -> Path | None:
        """The path from one node to another at instant `k`; None when there is no route.

        Raises:
            ScenarioError: the next hops form a loop or use a link that is down.
        """
        nodes, links, delay_ns = [source], [], 0
        while nodes[-1] != destination:
            link = self.next_link(nodes[-1], destination, k)
            if link == NO_ROUTE:
                return None
            delay_ns += self._delay_ns(link, k, source, destination)
            links.append(link)
            nodes.append(self._other_end(link, nodes[-1]))
            if len(nodes) > len(self._plan.nodes.names):
                where = self._where(source, destination, k)
                raise ScenarioError(f"{where} is a loop, but each hop must come nearer; check the routing policy")
        return Path(tuple(nodes), tuple(links), delay_ns)

    def next_link(self, node: int, destination: int, k: int) -> int:
        """The link on which `node` sends towards `destination` at instant `k`, or NO_ROUTE."""
        first, now = self._moment(node, destination, 0), self._moment(node, destination, k)
        at = int(np.searchsorted(self._moments, now, side="right")) - 1
        return int(self._links[at]) if at >= 0 and self._moments[at] >= first else NO_ROUTE

    def _moment(self, node: int | np.ndarray, destination: int | np.ndarray, k: int | np.ndarray) -> int | np.ndarray:
        """One integer that orders table entries, and instants within an entry."""
        return (node * len(self._plan.nodes.names) + destination) * self._plan.grid.count + k

    def _delay_ns(self, link: int, k: int, source: int, destination: int) -> int:
        snapshot = self._plan.snapshot(k)
        at = int(np.searchsorted(snapshot.link, link))
        if at == len(snapshot.link) or snapshot.link[at] != link:
            where = self._where(source, destination, k)
            raise ScenarioError(f"{where} uses link {link}, but that link is down; make plan and routes together")
        return int(snapshot.delay_ns[at])

    def _other_end(self, link: int, node: int) -> int:
        a, b = int(self._plan.links.a[link]), int(self._plan.links.b[link])
        return b if node == a else a

    def _where(self, source: int, destination: int, k: int) -> str:
        names, t_s = self._plan.nodes.names, k * self._plan.grid.step_ns / NS_PER_S
        return f"routes: the path from {names[source]} to {names[destination]} at {t_s:g} s"
