"""A plan cut into parts for which a run is expected to take the least time.

The sky is a graph: nodes weigh what they are expected to cost, links what they are expected to carry and how long they
last. Parts can go on without each other only for as long as the shortest link between them takes (Chandy and Misra
1979, Bryant 1977: the lookahead). So nodes between which a packet takes next to no time are merged first, in some cuts
more of them than in others, and in some the satellites of a plane too. METIS cuts what is left (Karypis and Kumar
1998), evenly or less so, and the one of all these cuts is taken with which the run is expected to be over first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from isl_emu.arrays import Floats, Ints
from isl_emu.errors import MachineError, ScenarioError
from isl_emu.linkplan.contacts import up_instants
from isl_emu.linkplan.plan import LinkKind, LinkPlan
from isl_emu.partition.load import Load, load_of
from isl_emu.units import NS_PER_MS, NS_PER_S

LEAST_LOOKAHEAD_NS = NS_PER_MS // 10  # 30 km; a shorter link never crosses
NO_LINK = int(np.iinfo(np.int64).max)
MOST_UNEVEN_RATIO = 1.3  # the largest load to the mean one: each guest has the memory of the network in it
IMBALANCES = (1.02, MOST_UNEVEN_RATIO)  # that METIS is allowed
ATTEMPTS = 3  # METIS draws of each
NAMED = 5  # nodes that are together, in an error
LEVEL_RATIO = 1.02  # from one least delay of what may cross to the next; 1.25 costs up to a tenth of the lookahead
MEETING_S = 300e-6  # guests that wait for each other once
CROSSING_S = 10e-6  # a packet over the trunk between two of them
_WEIGHTS = 1e8  # METIS counts in 32 bits: the most that all weights come to


@dataclass(frozen=True)
class Cut:
    """The N nodes and L links of a plan in P parts.

    Args:
        part: of each node, int32 (N,), as in `plan.nodes.names`; no part is empty.
        crossing: the links whose ends are in two parts, int64 (C,), ascending; indices into `plan.links`.
        build_s, run_s: of each part, of a core, to build it and while time runs, float64 (P,). All are built before
            time runs, so the busiest of each counts.
        whole_s: of a core, for what each kernel does for the whole network.
        pair_lookahead_ns: by two parts, int64 (P, P): the least delay that a planned packet has between them, that is,
            of all links that cross, at any instant at which they are up, less their jitter; `NO_LINK` without any.
        pair_packets: by two parts, float64 (P, P): how many packets are expected to cross.
        duration_s: of the run.
    """

    part: np.ndarray
    crossing: np.ndarray
    build_s: np.ndarray
    run_s: np.ndarray
    whole_s: float
    pair_lookahead_ns: np.ndarray
    pair_packets: np.ndarray
    duration_s: float

    @property
    def parts(self) -> int:
        """How many there are."""
        return len(self.run_s)

    @property
    def load_s(self) -> Floats:
        """What each part is expected to take of a core, float64 (P,)."""
        load_s: Floats = self.build_s + self.run_s
        return load_s

    @property
    def lookahead_ns(self) -> int | None:
        """For how long all parts can go on without each other; None if no link crosses: for ever."""
        least = int(self.pair_lookahead_ns.min())
        return None if least == NO_LINK else least

    @property
    def imbalance_ratio(self) -> float:
        """The largest load to the mean one: 1 is even."""
        return float(self.load_s.max() * self.parts / max(self.load_s.sum(), np.finfo(float).tiny))

    @property
    def meetings_per_s(self) -> float:
        """How often in an emulated second the parts wait for each other, at the most."""
        return 0.0 if self.lookahead_ns is None else NS_PER_S / self.lookahead_ns

    @property
    def packets(self) -> float:
        """How many are expected to cross in the run."""
        return float(self.pair_packets.sum()) / 2

    @property
    def one_guest_s(self) -> float:
        """What one guest is expected to take for all parts."""
        return float(self.load_s.sum()) + self.whole_s

    @property
    def wall_s(self) -> float:
        """What the parts are expected to take, each on a core of its own."""
        waiting_s = MEETING_S * self.meetings_per_s * self.duration_s + CROSSING_S * self.packets
        return float(self.build_s.max() + self.run_s.max()) + self.whole_s + waiting_s

    @property
    def speed_up(self) -> float:
        """How many times as fast they are expected to be as one guest."""
        return self.one_guest_s / self.wall_s if self.wall_s else 1.0

    def to_json(self, plan: LinkPlan) -> dict[str, Any]:
        """What is where, and what is expected of it, as a JSON object; docs/guests.md has its keys."""
        ends = self.part[plan.links.a[self.crossing]], self.part[plan.links.b[self.crossing]]
        crossing, planes = np.bincount(np.concatenate(ends), minlength=self.parts), _planes(plan)
        rows = [
            {
                "nodes": int((self.part == part).sum()),
                "planes": len(set(planes[self.part == part].tolist()) - {-1}),
                "build_s": float(self.build_s[part]),
                "run_s": float(self.run_s[part]),
                "load_s": float(load_s),
                "load_share": float(load_s / self.load_s.sum()) if self.load_s.any() else 0.0,
                "crossing_links": int(crossing[part]),
                "crossing_packets_per_s": float(self.pair_packets[part].sum()) / self.duration_s,
                "lookahead_ns": None if least_ns == NO_LINK else int(least_ns),
            }
            for part, (load_s, least_ns) in enumerate(zip(self.load_s, self.pair_lookahead_ns.min(axis=1), strict=True))
        ]
        return {
            "part": self.part.tolist(),
            "parts": rows,
            "crossing_links": len(self.crossing),
            "crossing_packets_per_s": self.packets / self.duration_s,
            "lookahead_ns": self.lookahead_ns,
            "meetings_per_s": self.meetings_per_s,
            "imbalance_ratio": self.imbalance_ratio,
            "expected": {
                "one_guest_s": self.one_guest_s,
                "wall_s": self.wall_s,
                "speed_up": self.speed_up,
                "whole_s": self.whole_s,
                "meeting_s": MEETING_S,
                "crossing_s": CROSSING_S,
            },
        }

    def text(self, plan: LinkPlan) -> str:
        """A line for each part, one for all, and what is expected of them, for readers."""
        found = self.to_json(plan)
        lines = ["part   nodes  planes   load  links that cross  packets/s  lookahead"]
        for number, row in enumerate(found["parts"]):
            lines.append(
                f"{number:4}  {row['nodes']:6,}  {row['planes']:6,}  {row['load_share']:5.1%}  {_crosses(row)}"
            )
        planes = len(set(_planes(plan).tolist()) - {-1})
        lines.append(f" all  {len(self.part):6,}  {planes:6,}         {_crosses(found)}")
        if self.parts > 1:
            meetings = self.meetings_per_s * self.duration_s
            lines.append(
                f"expected: {self.one_guest_s:.1f} s on one guest, {self.wall_s:.1f} s on {self.parts} "
                f"({self.speed_up:.2f} times as fast): {self.build_s.max():.1f} s to build "
                f"and the busiest one's {self.run_s.max():.1f} s to emulate "
                f"+ {self.whole_s:.1f} s for the whole plan "
                f"+ {meetings:,.0f} meetings ({self.meetings_per_s:,.0f} an emulated second) of {MEETING_S * 1e6:g} us "
                f"+ {self.packets:,.0f} packets of {CROSSING_S * 1e6:g} us; each part on a core of its own"
            )
        return "\n".join(lines)


def cut(
    plan: LinkPlan,
    parts: int,
    *,
    load: Load | None = None,
    together: Sequence[Sequence[str]] = (),
    seed: int = 0,
    least_lookahead_ns: int = LEAST_LOOKAHEAD_NS,
) -> Cut:
    """The plan cut into so many parts; the same whenever it is asked for the same.

    Terrestrial lines never cross, nor does a link that at any instant takes less than `least_lookahead_ns`.

    Args:
        load: what a run is expected to take; that of its links alone if None.
        together: groups of nodes by their names; each group is in one part.
        seed: of METIS.

    Raises:
        ScenarioError: there are fewer nodes, or groups of nodes that may be parted, than parts.
        MachineError: pymetis is not installed.
    """
    nodes, least_ns = len(plan.nodes.names), least_delays_ns(plan)
    load = load_of(plan) if load is None else load
    bound = np.array(
        [(plan.nodes.index(name), plan.nodes.index(group[0])) for group in together for name in group], dtype=np.int64
    ).reshape(-1, 2)
    if parts == 1:
        return _cut_of(plan, np.zeros(nodes, dtype=np.int32), load, least_ns)
    if not 1 <= parts <= nodes:
        raise ScenarioError(f"parts: is {parts}, but the plan has {nodes} nodes; choose from 1 to {nodes}")
    near = plan.links.kind == LinkKind.TERRESTRIAL
    weight = (_share(load.link_packets) + _share(_up_ratio(plan))) / np.maximum(least_ns, 1)
    # METIS levels one figure: all that there is to do, or building as much as what comes then
    loads = load.build_s + load.run_s, _share(load.build_s) + _share(load.run_s)
    best: Cut | None = None
    for whole in _groups(plan, near, bound, least_ns, max(least_lookahead_ns, 1)):
        for part in _metis(plan, whole, parts, loads, weight, seed):
            found = _cut_of(plan, part, load, least_ns)
            best = found if best is None else min(best, found, key=_rank)
    if best is None:
        merged = _merged(plan, near | (least_ns < least_lookahead_ns), bound)
        longest = max(together, key=len, default=())
        more = f" and {len(longest) - NAMED} more" if len(longest) > NAMED else ""
        alike = f", {', '.join(longest[:NAMED])}{more} being together" if longest else ""
        raise ScenarioError(
            f"parts: is {parts}, but the plan has {int(merged.max()) + 1} groups of nodes between which "
            f"every packet takes {least_lookahead_ns / NS_PER_MS:g} ms or more{alike}, and parts are made of these; "
            "choose fewer parts"
        )
    return best


def _groups(plan: LinkPlan, near: np.ndarray, bound: Ints, least_ns: Ints, level_ns: float) -> Iterator[Ints]:
    """Groups of nodes that may be parted, (N,), with ever longer links within them; with and without whole planes."""
    seen = set[bytes]()
    while True:
        short = near | (least_ns < level_ns)
        for which in (short | (plan.links.kind == LinkKind.INTRA_PLANE), short):
            group = _merged(plan, which, bound)
            if group.tobytes() not in seen:
                seen.add(group.tobytes())
                yield group
        longer = least_ns[(least_ns >= level_ns) & (least_ns != NO_LINK)]
        if not len(longer) or not group.any():
            return
        level_ns = max(level_ns * LEVEL_RATIO, float(longer.min()) + 1)


def _crosses(row: dict[str, Any]) -> str:
    """How many links cross, what over them, and the least delay, of a part or of all."""
    least_ns = row["lookahead_ns"]
    lookahead = "none crosses" if least_ns is None else f"{least_ns / NS_PER_MS:6.3f} ms"
    return f"{row['crossing_links']:16,}  {row['crossing_packets_per_s']:9,.0f}  {lookahead}"


def _rank(found: Cut) -> tuple[float, float]:
    """How good a cut is, least first: not too uneven, and then over soon."""
    uneven = found.imbalance_ratio if found.imbalance_ratio > MOST_UNEVEN_RATIO else 0.0
    return uneven, found.wall_s


def _planes(plan: LinkPlan) -> Ints:
    """The number of each satellite's plane, as far as lasers along planes tell, (N,); -1 without such a laser."""
    plane = _merged(plan, plan.links.kind == LinkKind.INTRA_PLANE)
    return np.where(np.bincount(plane)[plane] > 1, plane, -1)


def least_delays_ns(plan: LinkPlan) -> Ints:
    """The least delay of each link at any instant at which it is up, with faults and without, less its jitter.

    Returns:
        ns, int64, shape (L,); `NO_LINK` of one that never is.
    """
    least: Ints = np.full(len(plan.links.a), NO_LINK, dtype=np.int64)
    for one in (plan, plan.sky):
        for rows in (piece.rows for piece in one.pieces()):
            np.minimum.at(least, one.row_link[rows], np.maximum(one.row_delay_ns[rows] - one.row_jitter_ns[rows], 0))
    return least


def _up_ratio(plan: LinkPlan) -> Floats:
    return up_instants(plan) / plan.grid.count


def _share(weight: Floats) -> Floats:
    """Weights that have a mean of 1, if there are any."""
    total = weight.sum()
    return weight * (len(weight) / total) if total > 0 else weight


def _merged(plan: LinkPlan, which: np.ndarray, bound: Ints | None = None) -> Ints:
    """The number of the group of each node, (N,), where these links and pairs of nodes (M, 2) merge their ends."""
    from scipy.sparse import csr_array  # noqa: PLC0415  scipy is slow to import, and most runs have one part
    from scipy.sparse.csgraph import connected_components  # noqa: PLC0415

    ends, size = np.stack([plan.links.a[which], plan.links.b[which]]).astype(np.int64), len(plan.nodes.names)
    if bound is not None:
        ends = np.concatenate([ends, bound.T], axis=1)
    graph = csr_array((np.ones(len(ends[0])), tuple(ends)), shape=(size, size))
    group: Ints = connected_components(graph, directed=False)[1].astype(np.int64)
    return group


def _metis(
    plan: LinkPlan, group: Ints, parts: int, loads: Sequence[Floats], weight: Floats, seed: int
) -> Iterator[np.ndarray]:
    """The part of each node, as METIS cuts the groups by each load, with one seed after another; no part is empty."""
    from scipy.sparse import coo_array  # noqa: PLC0415

    try:
        import pymetis  # noqa: PLC0415  of an extra
    except ImportError:
        raise MachineError(
            "pymetis: is not installed, but a plan is cut into parts with it; install it with "
            "`pip install isl-emu[cluster]`"
        ) from None
    groups = int(group.max()) + 1
    if groups < parts:
        return
    a, b = group[plan.links.a], group[plan.links.b]
    ends = np.concatenate([a, b]), np.concatenate([b, a])
    graph = coo_array((np.tile(weight, 2), ends), shape=(groups, groups)).tocsr()
    graph.setdiag(0.0)
    graph.eliminate_zeros()
    adjacency, of_link = pymetis.CSRAdjacency(graph.indptr.tolist(), graph.indices.tolist()), _whole(graph.data)
    weights = [_whole(np.bincount(group, load, groups).astype(np.float64)) for load in loads]
    for of_group, imbalance, number in product(weights, IMBALANCES, range(ATTEMPTS)):
        _, found = pymetis.part_graph(
            parts,
            adjacency,
            vweights=of_group,
            eweights=of_link,
            recursive=True,
            options=pymetis.Options(seed=seed + number, ufactor=round(1000 * (imbalance - 1))),
        )
        part = np.asarray(found, dtype=np.int32)
        if len(np.unique(part)) == parts:
            yield part[group]


def _whole(weights: Floats) -> list[int]:
    """Weights as METIS counts: whole numbers, at least 1."""
    total = float(weights.sum())
    scaled = weights * (_WEIGHTS / total) if total > 0 else np.ones(len(weights))
    whole: list[int] = np.maximum(np.rint(scaled), 1).astype(np.int64).tolist()
    return whole


def _cut_of(plan: LinkPlan, part: np.ndarray, load: Load, least_ns: Ints) -> Cut:
    """What follows from the part of each node; parts are numbered by their first node."""
    _, begin = np.unique(part, return_index=True)
    part = np.argsort(np.argsort(begin)).astype(np.int32)[part]
    ends = part[plan.links.a], part[plan.links.b]
    crossing = np.flatnonzero(ends[0] != ends[1])
    size = len(begin)
    lookahead_ns, crossed = np.full((size, size), NO_LINK, dtype=np.int64), np.zeros((size, size))
    for one, other in (ends, ends[::-1]):
        np.minimum.at(lookahead_ns, (one[crossing], other[crossing]), least_ns[crossing])
        np.add.at(crossed, (one[crossing], other[crossing]), load.link_packets[crossing])
    build_s, run_s = (np.bincount(part, of_node, size) for of_node in (load.build_s, load.run_s))
    return Cut(part, crossing, build_s, run_s, load.whole_s, lookahead_ns, crossed, plan.grid.duration_ns / NS_PER_S)
