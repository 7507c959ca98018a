"""A plan cut into parts of about the same load, with little traffic and no short link between them.

The sky is a graph: nodes weigh what they cost, links what they carry and how long they last. Nodes between which a
packet takes next to no time are merged first, because parts can go on without each other only for as long as the
shortest link between them takes (Chandy and Misra 1979, Bryant 1977: the lookahead). So are the satellites of a plane,
as long as the parts come out even. METIS cuts what is left (Karypis and Kumar 1998).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from isl_emu.arrays import Floats, Ints
from isl_emu.errors import MachineError, ScenarioError
from isl_emu.linkplan.plan import LinkKind, LinkPlan
from isl_emu.units import NS_PER_MS

LEAST_LOOKAHEAD_NS = NS_PER_MS // 10  # 30 km; a shorter link never crosses
NO_LINK = int(np.iinfo(np.int64).max)
EVEN_RATIO = 1.1  # the largest load to the mean one, up to which planes stay whole
ATTEMPTS = 8  # METIS draws; the best of so many
_WEIGHTS = 1e8  # METIS counts in 32 bits: the most that all weights come to


@dataclass(frozen=True)
class Cut:
    """The N nodes and L links of a plan in P parts.

    Args:
        part: of each node, int32 (N,), as in `plan.nodes.names`; no part is empty.
        crossing: the links whose ends are in two parts, int64 (C,), ascending; indices into `plan.links`.
        load: of each part, float64 (P,), in the unit of the nodes' load.
        pair_lookahead_ns: by two parts, int64 (P, P): the least delay that a planned packet has between them, that is,
            of all links that cross, at any instant at which they are up, less their jitter; `NO_LINK` without any.
        pair_messages: by two parts, float64 (P, P): what is expected to cross, in the unit of the links' messages.
    """

    part: np.ndarray
    crossing: np.ndarray
    load: np.ndarray
    pair_lookahead_ns: np.ndarray
    pair_messages: np.ndarray

    @property
    def parts(self) -> int:
        """How many there are."""
        return len(self.load)

    @property
    def lookahead_ns(self) -> int | None:
        """For how long all parts can go on without each other; None if no link crosses: for ever."""
        least = int(self.pair_lookahead_ns.min())
        return None if least == NO_LINK else least

    @property
    def imbalance_ratio(self) -> float:
        """The largest load to the mean one: 1 is even."""
        return float(self.load.max() * self.parts / max(self.load.sum(), np.finfo(float).tiny))


def cut(
    plan: LinkPlan,
    parts: int,
    *,
    node_load: Floats | None = None,
    link_messages: Floats | None = None,
    seed: int = 0,
    least_lookahead_ns: int = LEAST_LOOKAHEAD_NS,
) -> Cut:
    """The plan cut into so many parts; the same whenever it is asked for the same.

    Terrestrial lines never cross, nor does a link that at any instant takes less than `least_lookahead_ns`.

    Args:
        node_load: what each node costs in a run, in any unit, (N,); all the same if None.
        link_messages: how many packets each link is expected to carry, (L,); None if nobody knows.
        seed: of METIS.

    Raises:
        ScenarioError: there are fewer nodes, or groups of nodes that may be parted, than parts.
        MachineError: pymetis is not installed.
    """
    nodes, links = len(plan.nodes.names), len(plan.links.a)
    load = np.ones(nodes) if node_load is None else np.maximum(np.asarray(node_load, dtype=np.float64), 0.0)
    messages = np.zeros(links) if link_messages is None else np.asarray(link_messages, dtype=np.float64)
    least_ns, up_ratio = least_delays_ns(plan), _up_ratio(plan)
    if parts == 1:
        return _cut_of(plan, np.zeros(nodes, dtype=np.int32), load, messages, least_ns)
    if not 1 <= parts <= nodes:
        raise ScenarioError(f"parts: is {parts}, but the plan has {nodes} nodes; choose from 1 to {nodes}")
    near = (plan.links.kind == LinkKind.TERRESTRIAL) | (least_ns < least_lookahead_ns)
    weight = _share(messages) + _share(up_ratio)
    best: tuple[tuple[bool, float, float], Cut] | None = None
    for merged in (near | (plan.links.kind == LinkKind.INTRA_PLANE), near):
        group = _merged(plan, merged)
        if (groups := int(group.max()) + 1) < parts:
            continue
        for part in _metis(plan, group, groups, parts, load, weight, seed):
            found = _cut_of(plan, part, load, messages, least_ns)
            uneven = found.imbalance_ratio > EVEN_RATIO
            rank = uneven, found.imbalance_ratio if uneven else 0.0, float(weight[found.crossing].sum())
            if best is None or rank < best[0]:
                best = rank, found
        if best is not None and not best[0][0]:
            break
    if best is None:
        raise ScenarioError(
            f"parts: is {parts}, but the plan has {int(_merged(plan, near).max()) + 1} groups of nodes between which "
            f"every packet takes {least_lookahead_ns / NS_PER_MS:g} ms or more, and parts are made of these; choose "
            "fewer parts"
        )
    return best[1]


def least_delays_ns(plan: LinkPlan) -> Ints:
    """The least delay of each link at any instant at which it is up, with faults and without, less its jitter.

    Returns:
        ns, int64, shape (L,); `NO_LINK` of one that never is.
    """
    least: Ints = np.full(len(plan.links.a), NO_LINK, dtype=np.int64)
    for one in (plan, plan.sky):
        np.minimum.at(least, one.row_link, np.maximum(one.row_delay_ns - one.row_jitter_ns, 0))
    return least


def _up_ratio(plan: LinkPlan) -> Floats:
    return np.bincount(plan.row_link, minlength=len(plan.links.a)) / plan.grid.count


def _share(weight: Floats) -> Floats:
    """Weights that have a mean of 1, if there are any."""
    total = weight.sum()
    return weight * (len(weight) / total) if total > 0 else weight


def _merged(plan: LinkPlan, which: np.ndarray) -> Ints:
    """The number of the group of each node, where these links merge their ends; (N,)."""
    from scipy.sparse import csr_array  # noqa: PLC0415  scipy is slow to import, and most runs have one part
    from scipy.sparse.csgraph import connected_components  # noqa: PLC0415

    ends, size = (plan.links.a[which], plan.links.b[which]), len(plan.nodes.names)
    graph = csr_array((np.ones(len(ends[0])), ends), shape=(size, size))
    group: Ints = connected_components(graph, directed=False)[1].astype(np.int64)
    return group


def _metis(
    plan: LinkPlan, group: Ints, groups: int, parts: int, load: Floats, weight: Floats, seed: int
) -> Iterator[np.ndarray]:
    """The part of each node, as METIS cuts the groups, with one seed after another; none with an empty part."""
    from scipy.sparse import coo_array  # noqa: PLC0415

    try:
        import pymetis  # noqa: PLC0415  of an extra
    except ImportError:
        raise MachineError(
            "pymetis: is not installed, but a plan is cut into parts with it; install it with "
            "`pip install isl-emu[cluster]`"
        ) from None
    a, b = group[plan.links.a], group[plan.links.b]
    ends = np.concatenate([a, b]), np.concatenate([b, a])
    graph = coo_array((np.tile(weight, 2), ends), shape=(groups, groups)).tocsr()
    graph.setdiag(0.0)
    graph.eliminate_zeros()
    of_group: Floats = np.bincount(group, load, groups).astype(np.float64)
    for number in range(ATTEMPTS):
        _, found = pymetis.part_graph(
            parts,
            pymetis.CSRAdjacency(graph.indptr.tolist(), graph.indices.tolist()),
            vweights=_whole(of_group),
            eweights=_whole(graph.data),
            recursive=True,
            options=pymetis.Options(seed=seed + number),
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


def _cut_of(plan: LinkPlan, part: np.ndarray, load: Floats, messages: Floats, least_ns: Ints) -> Cut:
    """What follows from the part of each node; parts are numbered by their first node."""
    _, first = np.unique(part, return_index=True)
    part = np.argsort(np.argsort(first)).astype(np.int32)[part]
    ends = part[plan.links.a], part[plan.links.b]
    crossing = np.flatnonzero(ends[0] != ends[1])
    size = len(first)
    lookahead_ns, crossed = np.full((size, size), NO_LINK, dtype=np.int64), np.zeros((size, size))
    for one, other in (ends, ends[::-1]):
        np.minimum.at(lookahead_ns, (one[crossing], other[crossing]), least_ns[crossing])
        np.add.at(crossed, (one[crossing], other[crossing]), messages[crossing])
    return Cut(part, crossing, np.bincount(part, load, size), lookahead_ns, crossed)
