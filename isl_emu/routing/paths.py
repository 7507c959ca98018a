"""The paths between two nodes, by following next hops as the emulated network does, at an instant or over time.

Where next hops are groups, the kernel's hash decides for each flow which of several paths it takes; nobody knows
beforehand which. The path that is planned is then the one with the least delay, and its `Extent` says how much more the
others may take.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import islice
from typing import overload

import numpy as np

from isl_emu.arrays import Bools, Ints
from isl_emu.errors import ScenarioError
from isl_emu.linkplan.events import no_events
from isl_emu.linkplan.fault_events import no_faults
from isl_emu.linkplan.plan import LinkPlan, Snapshot
from isl_emu.routing.forwarding import GROUP_BASE, NO_ROUTE, RoutePlan, plan_routes
from isl_emu.routing.policies import remembers
from isl_emu.scenario.routing import Routing
from isl_emu.timebase import TimeGrid
from isl_emu.units import NS_PER_S

MOST_LINKS = 255


@dataclass(frozen=True)
class NodePath:
    """A way through the network: nodes from source to destination, the links between them, and their total delay.

    Packets that take it are lost at a link that is `cut`: by a fault that those who chose the routes do not know.
    """

    nodes: tuple[int, ...]
    links: tuple[int, ...]
    delay_ns: int
    cut: tuple[int, ...] = ()  # those of its links that a fault has cut

    @property
    def hops(self) -> int:
        """How many links the path has."""
        return len(self.links)


@dataclass(frozen=True)
class Extent:
    """Between which bounds all the paths lie that a packet may take from one node to another."""

    delay_least_ns: int
    delay_most_ns: int
    hops_least: int
    hops_most: int

    @classmethod
    def of_any(cls, parts: Sequence[Extent]) -> Extent:
        """The bounds of what takes one of several ways."""
        return cls(
            min(part.delay_least_ns for part in parts),
            max(part.delay_most_ns for part in parts),
            min(part.hops_least for part in parts),
            max(part.hops_most for part in parts),
        )

    def longer(self, delay_ns: int) -> Extent:
        """The same with one more link before."""
        delays = self.delay_least_ns + delay_ns, self.delay_most_ns + delay_ns
        return Extent(*delays, self.hops_least + 1, self.hops_most + 1)


class PathFinder:
    """Paths of a run, at any instant in any order.

    Holds the changes of the route plan sorted by table entry, so that the entry valid at an instant is found by
    bisection and no table is ever filled in; memory follows the number of changes.
    """

    def __init__(self, plan: LinkPlan, routes: RoutePlan):
        self._plan, self._routes = plan, routes
        self._stride = len(plan.nodes.names) + len(routes.aliases.owner)
        row_k = np.repeat(np.arange(plan.grid.count, dtype=np.int64), np.diff(routes.row_start))
        moment = self._moment(routes.row_node.astype(np.int64), routes.row_destination.astype(np.int64), row_k)
        order = np.argsort(moment)
        self._moments, self._links = moment[order], routes.row_link[order]

    @property
    def one_way_each(self) -> bool:
        """Whether no next hop is a group, so that there is one path at most."""
        return not self._routes.groups

    def path(self, source: int, destination: int, k: int) -> NodePath | None:
        """The path from one node to another, or to an alias, at instant `k`; None when no packet is sent all the way.

        There is no route, or it has more links than IP carries a packet over (RFC 791, 3.2: the TTL is a byte).
        Of several paths it is the one with the least delay, then the fewest hops.

        Raises:
            ScenarioError: the next hops form a loop or use a link that is down.
        """
        route = self.route(source, destination, k)
        return route if route and route.hops <= MOST_LINKS else None

    def spells(self, source: int, destination: int) -> Iterator[tuple[int, int, tuple[int, ...], tuple[int, ...]]]:
        """The path over a whole run, where no next hop is a group: from which instant until which, its nodes and links.

        Without a path, as of `path`, there are none. The next one may be the same.

        Raises:
            ScenarioError: the next hops form a loop.
        """
        k = 0
        while k < self._plan.grid.count:
            nodes, links, until_k = [source], list[int](), self._plan.grid.count
            while nodes[-1] != self._end(destination):
                until_k = min(until_k, self._next_change(nodes[-1], destination, k))
                link = self.next_hop(nodes[-1], destination, k)
                if link == NO_ROUTE:
                    nodes.clear()
                    break
                links.append(link)
                nodes.append(self._other_end(link, nodes[-1]))
                self._check_end(nodes, source, destination, k)
            found = (tuple(nodes), tuple(links)) if nodes and len(links) <= MOST_LINKS else ((), ())
            yield k, until_k, *found
            k = until_k

    def route(self, source: int, destination: int, k: int) -> NodePath | None:
        """As `path`, also where it has too many links for IP."""
        nodes, links = [source], list[int]()
        while nodes[-1] != self._end(destination):
            link = self.next_hop(nodes[-1], destination, k)
            if link == NO_ROUTE:
                return None
            if link >= GROUP_BASE:
                known: dict[int, Extent] = {}
                ways = self.ways_on(nodes[-1], destination, k)
                over = [self._extent_over(way, nodes[-1], destination, k, known) for way in ways]
                link = min((rest.delay_least_ns, rest.hops_least, way) for rest, way in zip(over, ways))[-1]
            links.append(link)
            nodes.append(self._other_end(link, nodes[-1]))
            self._check_end(nodes, source, destination, k)
        return self._path(tuple(nodes), tuple(links), k)

    def paths(self, source: int, destination: int, k: int, most: int) -> list[NodePath]:
        """All the paths that a packet may take from one node to another, or to an alias, or the first `most` of them.

        By rising delay; empty when there is no route.
        """
        if self.path(source, destination, k) is None:
            return []
        found = islice(self._onward((source,), (), destination, k), most)
        made = [self._path(nodes, links, k) for nodes, links in found]
        return sorted(made, key=lambda path: (path.delay_ns, path.links))

    def extent(self, source: int, destination: int, k: int) -> Extent | None:
        """The bounds of all the paths from one node to another at instant `k`; None when there is no route."""
        path = self.path(source, destination, k)
        if path is None:
            return None
        if not self._routes.groups:
            return Extent(path.delay_ns, path.delay_ns, path.hops, path.hops)
        return self._extents(source, destination, k, {})

    def ends_on_the_way(self, source: int, destination: int, k: int) -> set[int]:
        """The link ends from which a packet may be sent, on any of its ways at instant `k`; end 2 x link is a's."""
        found: set[int] = set()
        reached, ahead = {source}, [source]
        while ahead:
            node = ahead.pop()
            for link in () if node == self._end(destination) else self.ways_on(node, destination, k):
                found.add(2 * link + int(node != self._plan.links.a[link]))
                following = self._other_end(link, node)
                if following not in reached:
                    reached.add(following)
                    ahead.append(following)
        return found

    def disjoint_paths(self, source: int, destination: int, k: int) -> list[NodePath | None]:
        """The disjoint paths that the pair has addresses for, None where there is none now; empty if it has none."""
        first = len(self._plan.nodes.names)
        return [self.path(source, first + alias, k) for alias in self._routes.aliases.between(source, destination)]

    def _onward(
        self, nodes: tuple[int, ...], links: tuple[int, ...], destination: int, k: int
    ) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
        """Every way on to a destination."""
        if nodes[-1] == self._end(destination):
            yield nodes, links
            return
        for link in self._routes.links_of(self.next_hop(nodes[-1], destination, k)):
            yield from self._onward((*nodes, self._other_end(link, nodes[-1])), (*links, link), destination, k)

    def _extents(self, node: int, destination: int, k: int, known: dict[int, Extent]) -> Extent:
        """The bounds from a node on; `known` are those of nodes that were looked at before."""
        if node == self._end(destination):
            return Extent(0, 0, 0, 0)
        if node not in known:
            links = self.ways_on(node, destination, k)
            known[node] = Extent.of_any([self._extent_over(link, node, destination, k, known) for link in links])
        return known[node]

    def _extent_over(self, link: int, node: int, destination: int, k: int, known: dict[int, Extent]) -> Extent:
        """The bounds from a node on, over one of its links."""
        rest = self._extents(self._other_end(link, node), destination, k, known)
        return rest.longer(int(self._rows_of([link], k, node, destination)[0].delay_ns[0]))

    def ways_on(self, node: int, destination: int, k: int) -> tuple[int, ...]:
        """The links on one of which `node` sends towards `destination` at instant `k`; none without a route."""
        return self._routes.links_of(self.next_hop(node, destination, k))

    def _end(self, destination: int) -> int:
        """The node that a destination is, or belongs to."""
        alias = destination - len(self._plan.nodes.names)
        return destination if alias < 0 else int(self._routes.aliases.owner[alias])

    def next_hop(self, node: int, destination: int, k: int) -> int:
        """On what `node` sends towards `destination` at instant `k`: a link, a group of them, or NO_ROUTE."""
        first, now = self._moment(node, destination, 0), self._moment(node, destination, k)
        at = int(np.searchsorted(self._moments, now, side="right")) - 1
        return int(self._links[at]) if at >= 0 and self._moments[at] >= first else NO_ROUTE

    def _next_change(self, node: int, destination: int, k: int) -> int:
        """The first instant after `k` at which a table entry changes; the end of the run if it stays."""
        first, now = self._moment(node, destination, 0), self._moment(node, destination, k)
        at = int(np.searchsorted(self._moments, now, side="right"))
        changes_k = int(self._moments[at]) - first if at < len(self._moments) else self._plan.grid.count
        return min(changes_k, self._plan.grid.count)

    def _check_end(self, nodes: Sequence[int], source: int, destination: int, k: int) -> None:
        if len(nodes) > len(self._plan.nodes.names):
            where = self._where(source, destination, k)
            raise ScenarioError(f"{where} is a loop, but each hop must come nearer; check the routing policy")

    @overload
    def _moment(self, node: int, destination: int, k: int) -> int: ...

    @overload
    def _moment(self, node: Ints, destination: Ints, k: Ints) -> Ints: ...

    def _moment(self, node: int | Ints, destination: int | Ints, k: int | Ints) -> int | Ints:
        """One integer that orders table entries, and instants within an entry."""
        return (node * self._stride + destination) * self._plan.grid.count + k

    def _path(self, nodes: tuple[int, ...], links: tuple[int, ...], k: int) -> NodePath:
        """A path with its delay, and what of it is cut."""
        found, cut = self._rows_of(links, k, nodes[0], nodes[-1])
        return NodePath(nodes, links, int(found.delay_ns.sum()), tuple(found.link[cut].tolist()))

    def _rows_of(self, links: Sequence[int], k: int, source: int, destination: int) -> tuple[Snapshot, Bools]:
        try:
            return self._plan.rows_of(k, links)
        except KeyError as error:
            where = self._where(source, destination, k)
            raise ScenarioError(
                f"{where} uses link {error}, but that link is down; make plan and routes together"
            ) from None

    def _other_end(self, link: int, node: int) -> int:
        a, b = int(self._plan.links.a[link]), int(self._plan.links.b[link])
        return b if node == a else a

    def _where(self, source: int, destination: int, k: int) -> str:
        names, t_s = self._plan.nodes.names, k * self._plan.grid.step_ns / NS_PER_S
        return f"routes: the path from {names[source]} to {names[self._end(destination)]} at {t_s:g} s"


def paths_to(plan: LinkPlan, routing: Routing, destination: int) -> PathFinder:
    """Paths to one node from any other, at any instant: one search an instant, whatever the number of nodes."""
    return PathFinder(plan, plan_routes(plan, routing.model_copy(update={"disjoint": None}), [destination]))


def path_at(plan: LinkPlan, routing: Routing, source: int, destination: int, k: int) -> NodePath | None:
    """The path from one node to another at instant `k`, searched for at this instant alone if the
    policy allows; None when there is no route."""
    finder, instant = _finder_at(plan, routing, destination, k)
    return finder.path(source, destination, instant)


def route_at(plan: LinkPlan, routing: Routing, source: int, destination: int, k: int) -> NodePath | None:
    """As `path_at`, also where it has too many links for IP."""
    finder, instant = _finder_at(plan, routing, destination, k)
    return finder.route(source, destination, instant)


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
    if k and remembers(routing):
        return paths_to(plan, routing, destination), k
    return paths_to(_instant(plan, k), routing, destination), 0


def delays_ns(finder: PathFinder, source: int, destination: int, instants: int) -> np.ma.MaskedArray:
    """The one-way delay from one node to another at K instants, int64, masked where nothing arrives, shape (K,)."""
    paths = (finder.path(source, destination, k) for k in range(instants))
    found = np.array([-1 if path is None or path.cut else path.delay_ns for path in paths], dtype=np.int64)
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
        faults=no_faults(),
        without_faults=_instant(plan.sky, k) if plan.without_faults else None,
        as_known=_instant(plan.known, k) if plan.as_known else None,
        **{name: getattr(plan, name)[rows] for name in columns},
    )
