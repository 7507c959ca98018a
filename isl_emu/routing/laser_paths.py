"""The shortest ways between some satellites at one instant: how long each takes, and how fast each is.

For those who choose partners by the sky (a ring of satellites that train together); the routes that packets really take
follow the scenario's policy.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from isl_emu.linkplan.plan import LinkPlan

Pair = tuple[int, int]
NOWHERE = -9999  # scipy's sign for a node without one before it


class LaserPaths:
    """Shortest paths over the lasers that are up at instant `k`, between the satellites `nodes` of a plan.

    Args:
        nodes: node indices, n of them; a pair counts in these.
    """

    def __init__(self, plan: LinkPlan, k: int, nodes: Sequence[int]):
        from scipy.sparse import csr_array  # noqa: PLC0415  scipy is slow to import, and most runs need no such paths
        from scipy.sparse.csgraph import dijkstra  # noqa: PLC0415

        snapshot = plan.snapshot(k)
        laser = plan.links.laser[snapshot.link]
        a, b = plan.links.a[snapshot.link[laser]], plan.links.b[snapshot.link[laser]]
        delay_ns = np.maximum(snapshot.delay_ns[laser], 1).astype(np.float64)
        size = len(plan.nodes.names)
        graph = csr_array((delay_ns, (a, b)), shape=(size, size))
        self._nodes = np.asarray(nodes, dtype=np.int64)
        found, self._before = dijkstra(graph, directed=False, indices=self._nodes, return_predecessors=True)
        self.delay_ns: np.ndarray = found[:, self._nodes]  # one way, inf without a path, shape (n, n)
        there, back = snapshot.rate_ab_bit_s[laser].tolist(), snapshot.rate_ba_bit_s[laser].tolist()
        a, b = a.tolist(), b.tolist()
        self._rate_bit_s = {**dict(zip(zip(a, b), there)), **dict(zip(zip(b, a), back))}
        self._rate_scale = plan.rate_scale

    def rates_bit_s(self, pairs: Sequence[Pair]) -> np.ndarray:
        """The shaped rate that each of some pairs gets when all of them send at the same time; 0 without a path.

        A link that several pairs use is shared evenly; that a pair which is slower elsewhere leaves some of its share
        to others is neglected.

        Returns:
            bit/s, float64, shape (len(pairs),).
        """
        ways: list[list[Pair]] = []  # the links of each path, each as (sender, receiver) in node indices
        for source, destination in pairs:
            hops, here = [], int(self._nodes[destination])
            while (sender := int(self._before[source, here])) != NOWHERE:
                hops.append((sender, here))
                here = sender
            ways.append(hops)
        users = Counter(hop for way in ways for hop in way)
        rates = [min((self._rate_bit_s[hop] / users[hop] for hop in way), default=0.0) for way in ways]
        return np.array(rates, dtype=np.float64) * self._rate_scale
