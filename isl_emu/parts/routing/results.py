"""How daemons followed the changes of the sky: time without a route, packets and bytes, against the plan's own routes.

Whether a node reaches another is known at every moment from the routes of all nodes, as they were heard, and from the
links that are up by the plan. The plan's own routes of shortest delay are the oracle: they say who could be reached.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from isl_emu.linkplan.plan import LinkPlan
from isl_emu.parts.finished_run import Row, Rows
from isl_emu.routing.forwarding import RoutePlan
from isl_emu.routing.shortest import GROUP_BASE, NO_ROUTE
from isl_emu.scenario.routing import PROTOCOL_NAMES
from isl_emu.tables.found_ways import FoundWays
from isl_emu.tables.schema import COUNT, NS, RATIO, TEXT, column, schema
from isl_emu.tables.text import Distribution, counted, table, time_text

MOST_CHANGES_TOLD = 20

CONVERGENCE = schema(
    column("k", COUNT, "", "instant of the change; the rows of a run follow each other without a gap"),
    column("t_ns", NS, "ns", "when it was due"),
    column("t_end_ns", NS, "ns", "when the next change was due, or the run ended; all figures are of the time between"),
    column("links_lost", COUNT, "links", "links that went down; 0 at instant 0"),
    column("links_made", COUNT, "links", "links that came up"),
    column("pairs", COUNT, "pairs", "directed pairs of nodes that the plan's own routes joined"),
    column("pairs_cut", COUNT, "pairs", "those without a working route at some time"),
    column("outage_p50_ns", NS, "ns", "time without a working route, median of those pairs; null without one"),
    column("outage_max_ns", NS, "ns", "the longest"),
    column(
        "settled_ns", NS, "ns", "from the change until all pairs had a working route again; null if not until the next"
    ),
    column("stretch_mean", RATIO, "1", "delay of the daemons' paths over the plan's, mean over pairs, at the end"),
    column("route_changes", COUNT, "", "next hops that nodes changed"),
    column("control_packets", COUNT, "packets", "packets of the daemons' protocol, as sent; by whole instants"),
    column("control_byte", NS, "B", "their bytes, with Ethernet headers"),
    column("probes_lost", COUNT, "probes", "probes sent in that time that did not arrive though the plan had a route"),
)
OUTAGES = schema(
    column("k", COUNT, "", "instant of the change that was in force, as in convergence.parquet"),
    column("a", TEXT, "", "node that sends"),
    column("b", TEXT, "", "node that is to be reached"),
    column("outage_ns", NS, "ns", "time without a working route until the next change, though the plan had one"),
)


class Reach:
    """Which nodes reach which others by next hops and links that are up, and how long their ways take."""

    def __init__(self, plan: LinkPlan):
        self._plan, size = plan, len(plan.nodes.names)
        self.hops = np.full((size, size), NO_ROUTE, dtype=np.int64)  # to a destination (row), at a node (column)
        self.delay_ns = np.full((size, size), -1, dtype=np.int64)  # of the way; -1 where nothing arrives
        # of each link, and last of what is no link
        self._link_ns = np.full(len(plan.links.a) + 1, -1, dtype=np.int64)
        self._sum = np.append(plan.links.a.astype(np.int64) + plan.links.b, 0)

    def links(self, delay_ns: np.ndarray) -> None:
        """Take what links are up, with their delays, int64 (L,), -1 of one that is down."""
        self._link_ns[:-1] = delay_ns
        self.follow(np.arange(len(self.hops)))

    def follow(self, destinations: np.ndarray) -> None:
        """Follow the next hops to some destinations, all nodes at once, each time twice as far."""
        if not len(destinations):
            return
        nodes = np.arange(len(self.hops))
        hops = self.hops[destinations]
        hops = np.where(hops < 0, len(self._sum) - 1, hops)
        there = self._link_ns[hops] >= 0
        onward = np.where(there, self._sum[hops] - nodes, nodes)
        taken_ns = np.where(there, self._link_ns[hops], 0)
        for _ in range(max(len(nodes) - 1, 1).bit_length()):
            taken_ns = taken_ns + np.take_along_axis(taken_ns, onward, axis=1)
            onward = np.take_along_axis(onward, onward, axis=1)
        self.delay_ns[destinations] = np.where(onward == destinations[:, np.newaxis], taken_ns, -1)


def link_delays_ns(plan: LinkPlan, k: int) -> np.ndarray:
    """The delay of each link at an instant, int64 (L,), -1 of one that is down."""
    snapshot = plan.snapshot(k)
    delay_ns = np.full(len(plan.links.a), -1, dtype=np.int64)
    delay_ns[snapshot.link] = snapshot.delay_ns
    return delay_ns


class Convergence:
    """Goes through a run's changes of links and of routes in their order, and makes the rows of both tables.

    Args:
        control: by instant, packets and bytes.
        lost: when probes were sent that the plan had a route for, and that did not arrive.
    """

    def __init__(self, plan: LinkPlan, routes: RoutePlan, ways: FoundWays, ended_ns: int,
                 control: Mapping[int, tuple[int, int]], lost: Sequence[int]):  # fmt: skip
        self._plan, self._routes, self._ended_ns = plan, routes, ended_ns
        self._control, self._lost = control, np.array(sorted(lost), dtype=np.int64)
        self._changes = ways.changes
        self._found, self._planned = Reach(plan), Reach(plan)
        self.rows: list[Row] = []
        self.outages: list[Row] = []

    def run(self) -> None:
        """Make the rows."""
        step_ns, count = self._plan.grid.step_ns, self._plan.grid.count
        instants = range(min(count, -(-self._ended_ns // step_ns)))
        up = [link_delays_ns(self._plan, k) for k in instants]
        turns = [k for k in instants if k == 0 or ((up[k] >= 0) != (up[k - 1] >= 0)).any()]
        at = int(np.searchsorted(self._changes[:, 0], 0))
        self._take(self._changes[:at])
        for turn, following in zip(turns, [*turns[1:], len(instants)], strict=True):
            lost, made = (0, 0) if turn == 0 else _turned(up[turn - 1], up[turn])
            at = self._between(turn, following, up, at, lost, made)

    def _between(self, first: int, last: int, up: Sequence[np.ndarray], at: int, lost: int, made: int) -> int:
        """One change of links until the next, from the route change numbered `at`; the number of the next one."""
        step_ns, size = self._plan.grid.step_ns, len(self._plan.nodes.names)
        begin_ns, end_ns = first * step_ns, min(last * step_ns, self._ended_ns)
        without_ns, began_at, joined = np.zeros((size, size), dtype=np.int64), at, np.zeros((size, size), dtype=bool)
        bad_until_ns = begin_ns
        for k in range(first, last):
            t_ns, until_ns = k * step_ns, min((k + 1) * step_ns, end_ns)
            self._plan_of(k, up[k])
            self._found.links(up[k])
            joined |= self._could()
            while True:
                bad = self._could() & (self._found.delay_ns < 0)
                next_ns = int(self._changes[at, 0]) if at < len(self._changes) else until_ns
                next_ns = min(max(next_ns, t_ns), until_ns)
                if bad.any() and next_ns > t_ns:
                    without_ns[bad] += next_ns - t_ns
                    bad_until_ns = next_ns
                t_ns = next_ns
                if t_ns >= until_ns:
                    break
                after = int(np.searchsorted(self._changes[:, 0], t_ns, side="right"))
                self._take(self._changes[at:after])
                at = after
        cut = np.argwhere(without_ns > 0)
        spans = without_ns[without_ns > 0]
        control = np.array([self._control.get(k, (0, 0)) for k in range(first, last)]).sum(axis=0)
        probes = np.searchsorted(self._lost, [begin_ns, end_ns])
        names = self._plan.nodes.names
        self.rows.append({
            "k": first, "t_ns": begin_ns, "t_end_ns": end_ns, "links_lost": lost, "links_made": made,
            "pairs": int(joined.sum()), "pairs_cut": len(cut),
            "outage_p50_ns": int(np.median(spans)) if len(spans) else None,
            "outage_max_ns": int(spans.max()) if len(spans) else None,
            "settled_ns": None if bad_until_ns >= end_ns > begin_ns else bad_until_ns - begin_ns,
            "stretch_mean": self._stretch(),
            "route_changes": at - began_at,
            "control_packets": int(control[0]), "control_byte": int(control[1]),
            "probes_lost": int(probes[1] - probes[0]),
        })  # fmt: skip
        self.outages += [
            {"k": first, "a": names[a], "b": names[b], "outage_ns": int(without_ns[b, a])} for b, a in cut.tolist()
        ]
        return at

    def _could(self) -> np.ndarray:
        """Who could reach whom by the plan's own routes; bool, (to, from)."""
        could: np.ndarray = self._planned.delay_ns >= 0
        np.fill_diagonal(could, val=False)
        return could

    def _take(self, changes: np.ndarray) -> None:
        _, node, destination, link = changes.T
        self._found.hops[destination, node] = link
        self._found.follow(np.unique(destination))

    def _plan_of(self, k: int, delay_ns: np.ndarray) -> None:
        changes = self._routes.changes(k)
        own = changes.destination < len(self._plan.nodes.names)
        links = [self._routes.links_of(hop)[0] if hop >= GROUP_BASE else hop for hop in changes.link[own].tolist()]
        self._planned.hops[changes.destination[own], changes.node[own]] = links
        self._planned.links(delay_ns)

    def _stretch(self) -> float | None:
        both = self._could() & (self._found.delay_ns > 0)
        return float((self._found.delay_ns[both] / self._planned.delay_ns[both]).mean()) if both.any() else None


def _turned(before: np.ndarray, after: np.ndarray) -> tuple[int, int]:
    """How many links went down, and came up."""
    return int(((before >= 0) & (after < 0)).sum()), int(((before < 0) & (after >= 0)).sum())


HEADER = ("at", "links", "pairs", "cut", "p50", "max", "settled", "routes", "control B", "probes lost")


def convergence_table(rows: Rows) -> tuple[list[tuple[str, ...]], str]:
    """The changes after which pairs were without a route for longest, in words; and what of them is left out."""
    told = sorted(rows, key=lambda row: -(row["outage_max_ns"] or 0))[:MOST_CHANGES_TOLD]
    cells: list[tuple[str, ...]] = [
        (
            time_text(row["t_ns"]), f"-{row['links_lost']} +{row['links_made']}",
            str(row["pairs"]), str(row["pairs_cut"]),
            time_text(row["outage_p50_ns"]), time_text(row["outage_max_ns"]), time_text(row["settled_ns"]),
            str(row["route_changes"]), str(row["control_byte"]), str(row["probes_lost"]),
        )
        for row in sorted(told, key=lambda row: row["t_ns"])
    ]  # fmt: skip
    if len(rows) == len(told):
        return cells, ""
    return cells, (f"the {len(told)} of {len(rows)} changes with the longest outages; all are in convergence.parquet")


def convergence_facts(rows: Rows, protocol: str | None) -> Iterator[str]:
    """What the daemons sent in all, and how much longer their paths were."""
    packets, byte = (sum(row[name] for row in rows) for name in ("control_packets", "control_byte"))
    stretch = Distribution.of(row["stretch_mean"] for row in rows if row["stretch_mean"] is not None).p50
    if protocol:
        yield f"control: {counted(packets, 'packet')}, {byte:,} bytes"
    if stretch is not None:
        yield f"delay of their paths over the plan's: {stretch:.3f} (median of the changes)"


def convergence_section(rows: Rows, protocol: str | None) -> Iterator[str]:
    whose = f"by {PROTOCOL_NAMES[protocol]}" if protocol else "by programs in the nodes"
    yield f"ROUTES {whose}  (pairs without a working route though the plan had one, and for how long)"
    cells, rest = convergence_table(rows)
    yield from table(HEADER, cells, left=1)
    if rest:
        yield rest
    yield from convergence_facts(rows, protocol)


def lost_probes(probes: Rows) -> list[int]:
    """When probes were sent that the plan's own routes could have carried, and that did not arrive."""
    return [int(row["t_send_ns"]) for row in probes if row["delay_ns"] is None]
