"""The ways that packets really took where programs in nodes make the routes, by what was heard of their changes."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from isl_emu.linkplan.plan import LinkPlan
from isl_emu.routing.paths import NodePath
from isl_emu.routing.shortest import NO_ROUTE
from isl_emu.runs.folder import RunFolder
from isl_emu.runs.journal import read_journal
from isl_emu.runs.merging import Records
from isl_emu.runs.portion import Portion, journals_here
from isl_emu.tables.schema import COUNT, NS, column, schema

SEVERAL = -2
"""A next hop that is several links, among which the kernel's hash chooses for each flow."""
JOURNAL = TABLE = "route_changes"
LAG_NS = 500_000_000  # a crowded machine may let who listens wait; a probe in that time says nothing


ROUTES = schema(
    column("t_ns", NS, "ns", "when the kernel told of it, since instant 0; before it is what nodes had at instant 0"),
    column("node", COUNT, "", "number of the node in the plan whose route changed"),
    column("destination", COUNT, "", "number of the node that the route leads to"),
    column("link", COUNT, "", "number of the link that it leads over; -1: there is none now, -2: over several links"),
)


class FoundWays:
    """The next hops of all nodes at any time of a run.

    Args:
        records: of the journal of route changes: when (ns since instant 0), at which node, to which node, over which
            link; in order of time.
        exact: whether a change was heard at once; else it may have been up to `LAG_NS` before.
    """

    def __init__(self, plan: LinkPlan, records: Iterable[Mapping[str, Any]], *, exact: bool = True):
        self._plan, self._lag_ns = plan, 0 if exact else LAG_NS
        self._index = {name: index for index, name in enumerate(plan.nodes.names)}
        rows = [(int(r["t_ns"]), int(r["node"]), int(r["destination"]), int(r["link"])) for r in records]
        self.changes = np.array(rows, dtype=np.int64).reshape(-1, 4)
        self._times: dict[tuple[int, int], list[int]] = {}
        self._hops: dict[tuple[int, int], list[int]] = {}
        for t_ns, node, destination, link in rows:
            self._times.setdefault((node, destination), []).append(t_ns)
            self._hops.setdefault((node, destination), []).append(link)

    def next_hop(self, node: int, destination: int, t_ns: int) -> int:
        """The link on which a node sends to another at a time, `SEVERAL` or `NO_ROUTE`."""
        before = bisect_right(self._times.get((node, destination), ()), t_ns)
        return self._hops[node, destination][before - 1] if before else NO_ROUTE

    def path(self, a: str, b: str, t_ns: int) -> NodePath | None:
        """The way from one node to another by all nodes' routes of one time; None where it ends, loops or splits.

        Links on it that are down by the plan are `cut`, and add nothing to its delay.
        """
        nodes, links = self.follow(a, b, t_ns)
        if nodes[-1] != self._index[b]:
            return None
        snapshot = self._plan.snapshot(self._plan.grid.instant_at(t_ns))
        row = np.searchsorted(snapshot.link, links)
        up = [place < len(snapshot.link) and snapshot.link[place] == link for place, link in zip(row, links)]
        delay_ns = sum(int(snapshot.delay_ns[place]) for place, there in zip(row, up, strict=True) if there)
        cut = tuple(link for link, there in zip(links, up, strict=True) if not there)
        return NodePath(tuple(nodes), tuple(links), delay_ns, cut)

    def follow(self, a: str, b: str, t_ns: int) -> tuple[list[int], list[int]]:
        """The nodes and links that the routes of one time lead a packet over, to its end or as far as they do."""
        nodes, links = [self._index[a]], list[int]()
        while nodes[-1] != self._index[b] and len(nodes) <= len(self._plan.nodes.names):
            link = self.next_hop(nodes[-1], self._index[b], t_ns)
            if link < 0:
                break
            links.append(link)
            nodes.append(int(self._plan.links.a[link] + self._plan.links.b[link]) - nodes[-1])
        return nodes, links

    def no_path(self, a: str, b: str, t_ns: int) -> str:
        """Why there is no way from one node to another by the routes of one time: a sentence without end."""
        nodes, _ = self.follow(a, b, t_ns)
        names, last = self._plan.nodes.names, self.next_hop(nodes[-1], self._index[b], t_ns)
        if len(nodes) > len(names):
            return f"the routes to {b} are a loop"
        where = f"{names[nodes[-1]]} {'spreads flows' if last == SEVERAL else 'has no route'} to {b}"
        return where if len(nodes) == 1 else f"{where}, {len(nodes) - 1} links from {a}"

    def unsure(self, a: str, b: str, path: NodePath | None, from_ns: int, to_ns: int) -> bool:
        """Whether nobody can say which way a packet took in that time.

        A route on its way changed, or a link, or where it has no way a route to its end anywhere; or a node spreads
        flows.
        """
        end, late_ns = self._index[b], to_ns + self._lag_ns
        nodes = range(len(self._plan.nodes.names)) if path is None else path.nodes
        for node in nodes:
            times = self._times.get((node, end), ())
            if bisect_right(times, late_ns) > bisect_right(times, from_ns - 1):
                return True
        if path is None:
            return self._spread(self._index[a], end, from_ns)
        first, last = (self._plan.grid.instant_at(t_ns) for t_ns in (from_ns, to_ns))
        states = [self._links_at(path, k) for k in range(first, last + 1)]
        return any(state != states[0] for state in states)

    def _spread(self, node: int, end: int, t_ns: int) -> bool:
        """Whether the way leads to a node that spreads flows over several links."""
        seen = set[int]()
        while node != end and node not in seen:
            seen.add(node)
            link = self.next_hop(node, end, t_ns)
            if link < 0:
                return link == SEVERAL
            node = int(self._plan.links.a[link] + self._plan.links.b[link]) - node
        return False

    def _links_at(self, path: NodePath, k: int) -> tuple[list[int], list[int]]:
        snapshot = self._plan.snapshot(k)
        there = np.isin(snapshot.link, path.links)
        return snapshot.link[there].tolist(), snapshot.delay_ns[there].tolist()


def found_ways(folder: RunFolder, plan: LinkPlan) -> FoundWays | None:
    """The ways of a run, live or over, by its table or what it has written so far; None where nobody else routes."""
    if (table := folder.table(TABLE)).is_file():
        return FoundWays(plan, pq.read_table(table).to_pylist())
    portion = Portion.read(folder.path, folder.part, len(plan.nodes.names))
    journals = [journal / f"{JOURNAL}.jsonl" for journal in journals_here(folder, portion)]
    heard = [read_journal(path).records for path in journals if path.is_file()]
    return FoundWays(plan, merged_changes(heard)) if heard else None


def merged_changes(parts: Sequence[Records]) -> Records:
    """The changes that several guests of a run have heard of, each at its own nodes, by time and node."""
    return sorted((record for part in parts for record in part), key=itemgetter("t_ns", "node"))
