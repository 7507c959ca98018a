"""Source routing: the whole way of a packet, which the node that sends it writes into its headers.

A route plan says each node's next hop. Followed to its end, that is a way for each node and destination; a next hop
that changes anywhere on it changes what the sender writes. With segment routing over IPv6 (RFC 8754, RFC 8986) the
headers name each node on the way; with MPLS (RFC 8660) they name, by a label, each link after the first, and the node
before a link takes its label off.
"""

from __future__ import annotations

import numpy as np

from isl_emu.errors import ScenarioError
from isl_emu.linkplan.plan import LinkPlan
from isl_emu.routing.forwarding import NO_ROUTE, RoutePlan

IPV6_BYTE, SEGMENTS_BYTE, SEGMENT_BYTE = 40, 8, 16  # RFC 8200, section 3; RFC 8754, section 2
LABEL_BYTE = 4  # RFC 3032
MOST_LABELS = 30  # Source: MAX_NEW_LABELS in net/mpls/internal.h
LEAST_MTU_BYTE = 1_280  # what IPv6 needs (RFC 8200, section 5)


def header_byte(forwarding: str, hops: int) -> list[int]:
    """How many bytes of a frame on each link of a way of `hops` links are for its forwarding alone; length `hops`."""
    if forwarding == "srv6":
        return [IPV6_BYTE + SEGMENTS_BYTE + SEGMENT_BYTE * hops] * hops
    if forwarding == "mpls":
        return [LABEL_BYTE * (hops - 1 - place) for place in range(hops)]
    return [0] * hops


class SourceRoutes:
    """All ways of a run as they are now, and which of them a change of next hops changes.

    Args:
        routes: whose destinations they lead to.
        forwarding: "srv6" or "mpls".
    """

    def __init__(self, plan: LinkPlan, routes: RoutePlan, forwarding: str):
        self.forwarding, nodes = forwarding, len(plan.nodes.names)
        self._plan, self._destinations = plan, routes.destinations
        self._sum = plan.links.a.astype(np.int64) + plan.links.b  # less one end it is the other one
        self._column = np.full(nodes + len(routes.aliases.owner), -1, dtype=np.int64)
        self._column[routes.destinations] = np.arange(len(routes.destinations))
        owner = np.concatenate([np.arange(nodes), routes.aliases.owner])
        self._end: np.ndarray = owner[routes.destinations]  # (D,), the node at which a way ends
        self._table = np.full((nodes, len(routes.destinations)), NO_ROUTE, dtype=np.int32)

    def change(
        self, node: np.ndarray, destination: np.ndarray, link: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Take next hops, or NO_ROUTE, of some nodes to some destinations; all of shape (C,).

        Returns:
            Node (W,), destination (W,) and links (W, H) of each way that is new, or whose next hop was among those;
            after its last link, and where there is no way any more, NO_ROUTE.

        Raises:
            ScenarioError: the next hops form a loop.
        """
        column = self._column[destination]
        self._table[node, column] = link
        changed = np.zeros(self._table.shape, dtype=bool)
        changed[node, column] = True
        columns = np.unique(column)
        if len(columns):
            changed[:, columns] = self._upstream(columns, changed[:, columns])
        nodes, where = np.nonzero(changed)
        return nodes, self._destinations[where], self._ways(nodes, where)

    def _upstream(self, columns: np.ndarray, changed: np.ndarray) -> np.ndarray:
        """Which nodes' ways lead over a change, for some destinations; bool (N, D)."""
        table = self._table[:, columns]
        here = np.arange(len(table))[:, np.newaxis]
        following = np.where(table >= 0, self._sum[table] - here, here)
        while True:
            more = changed | np.take_along_axis(changed, following, axis=0)
            if (more == changed).all():
                return changed
            changed = more

    def _ways(self, node: np.ndarray, column: np.ndarray) -> np.ndarray:
        """The links of each way, (W, H)."""
        ways, at, on = list[np.ndarray](), node.astype(np.int64), np.ones(len(node), dtype=bool)
        whole = np.zeros(len(node), dtype=bool)
        while on.any():
            if len(ways) > len(self._table):
                raise ScenarioError(
                    f"routes: the next hops to {self._plan.nodes.names[self._end[column[on][0]]]} are a loop, but each "
                    "must come nearer; check the routing policy"
                )
            link = np.where(on, self._table[at, column], NO_ROUTE)
            on = link >= 0
            ways.append(link)
            at = np.where(on, self._sum[link] - at, at)
            whole |= on & (at == self._end[column])
            on &= ~whole
        found = np.stack(ways, axis=1) if ways else np.empty((len(node), 0), dtype=np.int32)
        found[~whole] = NO_ROUTE  # whoever is on it further on has no route, so it leads nowhere
        return found

    def end_of(self, destination: int) -> int:
        """The node that a destination is, or belongs to."""
        return int(self._end[self._column[destination]])

    def mtu_byte(self, ways: np.ndarray) -> np.ndarray:
        """The longest frame that all links of each way carry, headers for its forwarding included; int64 (W,)."""
        mtu = np.where(ways >= 0, self._plan.links.mtu_byte[ways], np.iinfo(np.int32).max)
        least: np.ndarray = mtu.min(axis=1, initial=np.iinfo(np.int32).max).astype(np.int64)
        return least


def check_headers(plan: LinkPlan, routes: RoutePlan, forwarding: str) -> None:
    """Refuse a plan that has ways which are too long to be written into headers.

    Raises:
        ScenarioError: one needs more labels than Linux writes, or leaves less than IPv6 needs.
    """
    steered = SourceRoutes(plan, routes, forwarding)
    for k in range(plan.grid.count):
        changes = routes.changes(k)
        node, destination, ways = steered.change(changes.node, changes.destination, changes.link)
        hops, mtu = (ways >= 0).sum(axis=1), steered.mtu_byte(ways)
        for count in np.unique(hops[hops > 0]).tolist():
            which = np.flatnonzero(hops == count)
            row = int(which[np.argmin(mtu[which])])
            byte = header_byte(forwarding, count)[0]
            names = [plan.nodes.names[int(node[row])], plan.nodes.names[steered.end_of(destination[row])]]
            where = f"routing.forwarding: the path from {names[0]} to {names[1]} has {count} links"
            if forwarding == "mpls" and count - 1 > MOST_LABELS:
                raise ScenarioError(
                    f"{where}, but Linux writes at most {MOST_LABELS} labels; use a policy or network with shorter "
                    'paths, or forwarding = "srv6"'
                )
            if mtu[row] - byte < LEAST_MTU_BYTE:
                raise ScenarioError(
                    f"{where} and {byte} bytes of headers, but of its mtu of {mtu[row]} bytes that leaves less than "
                    f"the {LEAST_MTU_BYTE:,} that IPv6 needs; raise mtu of lasers and stations to "
                    f"{LEAST_MTU_BYTE + byte} B"
                )
