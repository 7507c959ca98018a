"""Path changes: when the way from a node to another changed, why, what that cost; a table, and a chapter of the report.

A pair is there if a part knows of packets from one to the other; the packets say what was lost and for how long nothing
came. When a way changes, the plan says: in exact time that is when it did.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from isl_emu.linkplan.faults import links_hit
from isl_emu.linkplan.plan import LinkKind
from isl_emu.parts.finished_run import ConcludedRun, FinishedRun, Row, Rows
from isl_emu.parts.registry import PARTS
from isl_emu.routing.paths import NodePath
from isl_emu.runs.journal import INCIDENTS_JOURNAL, INSTANTS_JOURNAL, LINKS_JOURNAL, joined
from isl_emu.show.chapter import Chapter, DataTable, Picture
from isl_emu.tables.schema import COUNT, NAME, NS, PATH, TEXT, column, schema
from isl_emu.tables.text import counted, time_text
from isl_emu.units import NS_PER_S

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TABLE = "path_changes"
PAIRS = 6  # in the picture
CHANGES = 30  # rows of the report's table

PATH_CHANGES = schema(
    column("a", NAME, "", "node that sends"),
    column("b", NAME, "", "node that receives"),
    column("t_ns", NS, "ns", "when the change was due; one by hand, when it was in force"),
    column("t_done_ns", NS, "ns", "when the last of it was in force; null if the run ended first"),
    column(
        "cause", NAME, "", "handover, laser-lost, laser-gained, fault, mended, intervention, restored or better-way"
    ),
    column("what", TEXT, "", "links that went or came, the fault, or what was done by hand; null of a better way"),
    column("before", PATH, "", "planned path from a to b until then, node names; null when there was none"),
    column("after", PATH, "", "the same from then on"),
    column("planned_rtt_before_ns", NS, "ns", "planned propagation delay there and back until then; null without one"),
    column("planned_rtt_after_ns", NS, "ns", "the same from then on; null where no packet would come there or back"),
    column("no_path_ns", NS, "ns", "for how long from then on no packet came from a to b by the plan; null by hand"),
    column(
        "silent_ns", NS, "ns", "the longest around it between two arrivals of known packets; null if none came after"
    ),
    column("usual_ns", NS, "ns", "median time between two arrivals in the whole run; null with less than two"),
    column(
        "lost_packets", COUNT, "packets", "known ones lost, until one came or the next change; null if none is known"
    ),
    column("dropped_packets", NS, "packets", "of anybody, dropped meanwhile by its links as down or cut; see links"),
)

Pair = tuple[str, str]


@dataclass
class _Known:
    """The packets from one node to another that parts know of."""

    arrivals_ns: list[int] = field(default_factory=list)
    sent: list[tuple[int, bool]] = field(default_factory=list)  # those whose start is known: when, and if it arrived


def path_changes(run: FinishedRun) -> list[Row]:
    """A row for each change of the way between two nodes that had traffic, before the end of the run."""
    known = _known_packets(run)
    reader = _Reader(run)
    rows = [row for pair, packets in known.items() for row in reader.rows(pair, packets)]
    return sorted(rows, key=lambda row: (row["t_ns"], row["a"], row["b"]))


def _known_packets(run: ConcludedRun) -> dict[Pair, _Known]:
    known = defaultdict(_Known, {pair: _Known() for pair in pairs_with_traffic(run)})
    for crossing in chain.from_iterable(part.crossings(run) for part in PARTS):
        packets = known[crossing.a, crossing.b]
        if crossing.t_arrival_ns is not None:
            packets.arrivals_ns.append(crossing.t_arrival_ns)
        if crossing.t_send_ns is not None:
            packets.sent.append((crossing.t_send_ns, crossing.t_arrival_ns is not None))
    for packets in known.values():
        packets.arrivals_ns.sort()
        packets.sent.sort()
    return known


def pairs_with_traffic(run: ConcludedRun) -> list[Pair]:
    """Both directions of each pair that is watched or had packets, watched ones first."""
    ends = ((way[0], way[-1]) for part in PARTS for way in part.ways(run) if len(way) > 1)
    return list(dict.fromkeys(one for pair in chain(run.scenario.watched_pairs, ends) for one in (pair, pair[::-1])))


class _Reader:
    """Compares the plan's paths at the instants of a run."""

    def __init__(self, run: FinishedRun):
        plan, routes, faults = run.plan, run.routes, run.plan.faults
        self._run, self._names, self._step_ns = run, plan.nodes.names, plan.grid.step_ns
        self._count = min(-(-run.ended_ns // plan.grid.step_ns), plan.grid.count)
        self._done_ns = {row["k"]: row["t_done_ns"] for row in run.rows(INSTANTS_JOURNAL)}
        self._row_k = np.repeat(np.arange(plan.grid.count), np.diff(routes.row_start))
        self._of_faults = np.unique(np.concatenate([faults.k_from, faults.k_until]))
        self._event, self._hit = links_hit(plan, faults)
        self._drops = _Drops(run)
        self._by_hand = [
            (*change, record)
            for record in joined(run.journal(INCIDENTS_JOURNAL).records)
            if record.get("links")
            for change in ((record["t_ns"], "intervention"), (record["t_end_ns"], "restored"))
            if change[0] is not None and change[0] < run.ended_ns
        ]

    def rows(self, pair: Pair, packets: _Known) -> list[Row]:
        changes = sorted([*self._planned(pair), *self._interventions(pair)], key=lambda row: row["t_ns"])
        if not changes:
            return []
        following = [*(row["t_ns"] for row in changes[1:]), self._run.ended_ns]
        gaps = np.diff(packets.arrivals_ns)
        usual_ns = int(np.median(gaps)) if len(gaps) else None
        for row, next_ns in zip(changes, following, strict=True):
            row |= {"usual_ns": usual_ns, **self._seen(row, next_ns, packets)}
        return changes

    def _planned(self, pair: Pair) -> Iterator[Row]:
        """Where the path takes other links, appears or vanishes, or a fault cuts it or no longer does."""
        before = self._run.paths.at(*pair, 0)
        for k in self._instants(pair):
            after = self._run.paths.at(*pair, k)
            if (before and (before.links, before.cut)) != (after and (after.links, after.cut)):
                cause, what = self._why(k, before, after)
                yield {
                    **self._row(pair, k * self._step_ns, cause, what, k),
                    "before": self._run.paths.names(before),
                    "planned_rtt_before_ns": self._rtt_ns(pair, k - 1),
                    "t_done_ns": self._done_ns.get(k),
                    "no_path_ns": self._without_ns(pair, k),
                }
            before = after

    def _interventions(self, pair: Pair) -> Iterator[Row]:
        """Where somebody changed a link of the path by hand, or took that back: packets still go that way."""
        for t_ns, cause, record in self._by_hand:
            k = self._run.paths.instant(t_ns)
            path = self._run.paths.at(*pair, k)
            if path and set(path.links) & set(record["links"]):
                names, rtt_ns = self._run.paths.names(path), self._rtt_ns(pair, k)
                row = self._row(pair, t_ns, cause, record["cause"], k)
                yield {**row, "before": names, "planned_rtt_before_ns": rtt_ns, "t_done_ns": t_ns}

    def _row(self, pair: Pair, t_ns: int, cause: str, what: str | None, k: int) -> Row:
        after = self._run.paths.names(self._run.paths.at(*pair, k))
        ends = {"a": pair[0], "b": pair[1], "t_ns": t_ns, "cause": cause, "what": what}
        return {**ends, "after": after, "planned_rtt_after_ns": self._rtt_ns(pair, k)}

    def _instants(self, pair: Pair) -> list[int]:
        """Those after the first at which the way may change, as routes to its end or faults do."""
        routes, end = self._run.routes, self._run.plan.nodes.index(pair[1])
        if routes.groups:  # the shortest of several is taken, which delays decide
            return list(range(1, self._count))
        found = np.union1d(self._row_k[routes.row_destination == end], self._of_faults)
        instants: list[int] = found[(found > 0) & (found < self._count)].tolist()
        return instants

    def _rtt_ns(self, pair: Pair, k: int) -> int | None:
        there, back = self._run.paths.at(*pair, k), self._run.paths.at(*pair[::-1], k)
        if there is None or back is None or there.cut or back.cut:
            return None
        return there.delay_ns + back.delay_ns

    def _without_ns(self, pair: Pair, k: int) -> int:
        until = k
        while until < self._count and ((path := self._run.paths.at(*pair, until)) is None or path.cut):
            until += 1
        return max(min(until * self._step_ns, self._run.ended_ns) - k * self._step_ns, 0)

    def _why(self, k: int, before: NodePath | None, after: NodePath | None) -> tuple[str, str | None]:
        plan, faults = self._run.plan, self._run.plan.faults
        old, new = (set(path.links) if path else set() for path in (before, after))
        then, now = (set(plan.snapshot(instant).link.tolist()) for instant in (k - 1, k))
        cut, whole = (set(one.cut) if one else set() for one in (after, before))
        hit = self._faults((old - new) | cut, faults.happening(k) | faults.known(k))
        if hit:
            return "fault", hit
        over = (faults.happening(k - 1) & ~faults.happening(k)) | (faults.known(k - 1) & ~faults.known(k))
        if mended := self._faults((new - old) | whole, over):
            return "mended", mended
        went, came = sorted((old - new) - now), sorted((new - old) - then)
        what = ", ".join(
            [*(f"{self._name(link)} went" for link in went), *(f"{self._name(link)} came" for link in came)]
        )
        if any(plan.links.kind[link] == LinkKind.GROUND for link in (*went, *came)):
            return "handover", what
        if went:
            return "laser-lost", what
        return ("laser-gained", what) if came else ("better-way", None)

    def _faults(self, links: set[int], events: np.ndarray) -> str:
        """The names of the faults among some events that hit one of the links."""
        here = np.isin(self._hit, list(links)) & events[self._event]
        faults = self._run.plan.faults
        return ", ".join(faults.names[number] for number in np.unique(faults.fault[self._event[here]]))

    def _name(self, link: int) -> str:
        links = self._run.plan.links
        return f"{self._names[links.a[link]]} - {self._names[links.b[link]]}"

    def _seen(self, row: Row, next_ns: int, packets: _Known) -> Row:
        """What packets met: how long none arrived, and which were lost."""
        t_ns, done_ns = row["t_ns"], max(row["t_done_ns"] or row["t_ns"], row["t_ns"])
        k = self._run.paths.instant(t_ns)
        ways = [self._run.paths.at(row["a"], row["b"], instant) for instant in (max(k - 1, 0), k)]
        on_the_way_ns = max((way.delay_ns for way in ways if way), default=0)
        first = bisect_right(packets.arrivals_ns, t_ns) - 1
        last = bisect_left(packets.arrivals_ns, done_ns + on_the_way_ns)
        heard = first >= 0 and last < len(packets.arrivals_ns)
        around = packets.arrivals_ns[first : last + 1] if heard else []
        silent_ns = max((b - a for a, b in pairwise(around)), default=None)
        lost = 0
        before_ns = ways[0].delay_ns if ways[0] and not ways[0].cut and row["cause"] != "restored" else 0
        for send_ns, arrived in packets.sent[bisect_left(packets.sent, (t_ns - before_ns, False)) :]:
            if send_ns >= next_ns or (arrived and send_ns >= t_ns):
                break
            lost += not arrived
        until_ns = done_ns + on_the_way_ns if row.get("no_path_ns") == 0 else next_ns
        ends = {2 * link + int(a != self._run.plan.links.a[link]) for way in ways if way for link, a in _sends(way)}
        return {
            "silent_ns": silent_ns,
            "lost_packets": lost if packets.sent else None,
            "dropped_packets": self._drops.between(ends, t_ns, until_ns),
        }


def _sends(way: NodePath) -> Iterable[tuple[int, int]]:
    return zip(way.links, way.nodes[:-1], strict=True)


class _Drops:
    """What link ends have dropped because a link was down or cut, by the samples of their counters."""

    def __init__(self, run: FinishedRun):
        self._there = (table := run.table(LINKS_JOURNAL)) is not None
        self._of: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        if table is None or not len(table):
            return
        plan = run.plan
        link_of = {frozenset(ends): link for link, ends in enumerate(zip(plan.links.a.tolist(), plan.links.b.tolist()))}
        table = table.filter((dropped := _dropped(table)) > 0)
        node, peer = (
            [plan.nodes.index(name) for name in table[key].cast("string").to_pylist()] for key in ("node", "peer")
        )
        links = [link_of[frozenset(ends)] for ends in zip(node, peer)]
        ends = np.array([2 * link + int(a != plan.links.a[link]) for link, a in zip(links, node)], np.int64)
        t_ns, dropped = table["t_ns"].to_numpy(), dropped[dropped > 0]
        for end in np.unique(ends).tolist():
            own = np.flatnonzero(ends == end)
            order = own[np.argsort(t_ns[own], kind="stable")]
            self._of[end] = t_ns[order], np.append(0, dropped[order])

    def between(self, ends: Iterable[int], from_ns: int, until_ns: int) -> int | None:
        """From the last sample until the first time on, to the first one from the second time on."""
        if not self._there:
            return None
        total = 0
        for end in ends:
            if end in self._of:
                t_ns, dropped = self._of[end]
                first = np.searchsorted(t_ns, from_ns, side="right")
                last = min(np.searchsorted(t_ns, until_ns, side="left") + 1, len(t_ns))
                total += int(dropped[max(last, first)] - dropped[first])
        return total


def _dropped(table: Any) -> np.ndarray:
    total: np.ndarray = sum(table[f"dropped_{cause}"].to_numpy() for cause in ("down", "fault"))
    return total


@dataclass(frozen=True)
class _Spell:
    """A time for which a path stayed the same; None without one."""

    path: tuple[str, ...] | None
    from_ns: int
    to_ns: int


def path_changes_chapter(run: ConcludedRun) -> Iterator[Chapter]:
    """Nothing for a run in which no pair had traffic, or whose folder is older than the table."""
    one_way: dict[frozenset[str], Pair] = {}
    for pair in pairs_with_traffic(run):
        one_way.setdefault(frozenset(pair), pair)
    if not one_way or run.table(TABLE) is None:
        return
    changes = [row for row in run.rows(TABLE) if one_way.get(frozenset((row["a"], row["b"]))) == (row["a"], row["b"])]
    shown = list(one_way.values())[:PAIRS]
    spells = {pair: _spells(run, pair, changes) for pair in shown}
    which = "all pairs" if len(shown) == len(one_way) else f"the first {PAIRS} of {len(one_way)} pairs"
    more = f"{len(changes) - CHANGES} more, " if len(changes) > CHANGES else ""
    table = DataTable(
        "Why paths changed, and what that cost. No path: by the plan; silent: the longest time between two arrivals "
        "around it, no less than that between two packets; lost: probes; dropped: packets of anybody, by its links",
        ("from, to", "why", "at", "hops", "round trip", "no path", "silent", "lost", "dropped"),
        [_change_row(row) for row in changes[:CHANGES]],
        left=2,
        rest=f"{more}the paths themselves and the ways back are in {TABLE}.parquet",
    )
    yield Chapter(
        "Path changes",
        [
            f"{counted(len(changes), 'change')} of the paths between {counted(len(one_way), 'pair')} that had traffic"
            + (_causes(changes) if changes else ": every path stayed what it was."),
            Picture(
                "paths",
                partial(_draw, run, spells),
                f"The paths of {which} over time, a row for each; a bar is one path and names its hops, a gap a time "
                "without a path. Another colour is another path.",
                "Bars over time. "
                + " ".join(f"{a} to {b}: {counted(len(own), 'path')}." for (a, b), own in spells.items()),
            ),
            *([table] if changes else []),
        ],
    )


def _causes(changes: Rows) -> str:
    causes = [row["cause"] for row in changes]
    return f": {', '.join(f'{causes.count(cause)} x {cause}' for cause in dict.fromkeys(causes))}."


def _spells(run: ConcludedRun, pair: Pair, changes: Rows) -> list[_Spell]:
    """The paths of a pair one after the other; of one whose path never changed, that on which its packets went."""
    own = [row for row in changes if (row["a"], row["b"]) == pair and row["before"] != row["after"]]
    ways = (tuple(way) for part in PARTS for way in part.ways(run))
    first = own[0]["before"] if own else next((way for way in ways if (way[0], way[-1]) == pair), None)
    paths = [tuple(path) if path else None for path in (first, *(row["after"] for row in own))]
    bounds_ns = [0, *(row["t_ns"] for row in own), run.plan.grid.duration_ns]
    return [_Spell(path, *spell_ns) for path, spell_ns in zip(paths, pairwise(bounds_ns), strict=True)]


def _change_row(row: Mapping[str, Any]) -> tuple[str, ...]:
    hops = ["-" if path is None else str(len(path) - 1) for path in (row["before"], row["after"])]
    trips = [time_text(row[key]) for key in ("planned_rtt_before_ns", "planned_rtt_after_ns")]
    return (
        f"{row['a']} → {row['b']}",
        row["cause"] if row["what"] is None else f"{row['cause']}: {row['what']}",
        f"{row['t_ns'] / NS_PER_S:.3f} s",
        *(" → ".join(both) for both in (hops, trips)),
        *("-" if not row[key] else time_text(row[key]) for key in ("no_path_ns", "silent_ns")),
        *("-" if row[key] is None else f"{row[key]:,}" for key in ("lost_packets", "dropped_packets")),
    )


def _draw(run: ConcludedRun, spells: Mapping[Pair, Sequence[_Spell]]) -> Figure:
    from isl_emu.show.style import CYCLE, DENSE, calm, new_figure, plan_axis  # noqa: PLC0415  slow to import

    on_black = (CYCLE[4], CYCLE[1], CYCLE[3], CYCLE[7], CYCLE[2])  # those on which black text can be read
    figure = new_figure(0.9 + 0.32 * max(len(spells), 2))
    axes, duration_s = figure.subplots(), run.plan.grid.duration_ns / NS_PER_S
    for row, own in enumerate(spells.values()):
        bars = [one for one in own if one.path]
        number = {path: place for place, path in enumerate(dict.fromkeys(one.path for one in bars))}
        spans_s = [(one.from_ns / NS_PER_S, (one.to_ns - one.from_ns) / NS_PER_S) for one in bars]
        many = len(bars) > DENSE / PAIRS
        style: dict[str, Any] = {
            "facecolors": [on_black[number[one.path] % len(on_black)] for one in bars],
            "edgecolor": "white",
            "linewidth": 0.0 if many else 0.6,
            "rasterized": many,
        }
        axes.broken_barh(spans_s, (row - 0.36, 0.72), **style)
        for one, (begin_s, long_s) in zip(bars, spans_s, strict=True):
            name = counted(len(one.path or ()) - 1, "hop")
            if long_s / duration_s > 0.013 * len(name):
                axes.text(begin_s + long_s / 2, row, name, ha="center", va="center", fontsize=6.5, clip_on=True)
    calm(axes)
    axes.grid(False, axis="y")
    axes.set_yticks(range(len(spells)), [f"{a} to {b}" for a, b in spells])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(spells) - 0.4, -0.6)
    plan_axis(axes, run.plan)
    return figure
