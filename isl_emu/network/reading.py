"""What the kernel holds of link ends and routes, read from the nodes themselves: shaping, counters, next hops.

It is read for many nodes at once, by column (`nodes.dumps`). Nothing is taken on trust: what others made, moved or
removed in a node is found as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from isl_emu.arrays import Bools, Ints
from isl_emu.network import queues
from isl_emu.network.desired import COUNTERS
from isl_emu.network.naming import NO_END, Wiring
from isl_emu.network.qdiscs import RTM_GETQDISC, Qdiscs, decode_netems, decode_qdiscs, qdiscs_question, root_counters
from isl_emu.network.routes import RTM_GETROUTE, NextHops, decode_routes, routes_question
from isl_emu.nodes.nodespaces import NodeSpace


class Reader:
    """Reads the nodes of a plan.

    Args:
        spaces: the nodes that are on this kernel; others may be added later.
        wiring: where the link ends of the plan are.
        managed: which ends have a queue of their own, (2L,).
    """

    def __init__(self, spaces: Mapping[int, NodeSpace], wiring: Wiring, managed: Bools):
        self._spaces, self._wiring, self._managed = spaces, wiring, managed
        self._detouring, self._policing = (frozenset(wiring.node[ends].tolist()) for ends in (managed, ~managed))
        self._passed = np.full(len(wiring.node), -1)  # packets at each end's filters when its policer was asked last
        self._policed = np.zeros(len(wiring.node), np.int64)  # packets that it had dropped then

    def ends(self, nodes: Sequence[int]) -> np.ndarray:
        """The shaping found at the ends of some nodes; desired.FOUND. An end without its netem is not in it."""
        qdiscs = self._qdiscs(nodes)
        found = decode_netems(qdiscs, self._wiring.ends_at(qdiscs.node, qdiscs.index))
        if detouring := self._detouring.intersection(nodes):
            queues.add_queues(found, qdiscs, self._actions(detouring, "mirred"), self._wiring, self._managed)
        queues.add_policers(found, qdiscs, self._policers(nodes), self._wiring)
        return found

    def counters(self, nodes: Sequence[int]) -> np.ndarray:
        """What the ends of some nodes have counted so far; desired.COUNTERS."""
        qdiscs = self._qdiscs(nodes)
        netems = root_counters(qdiscs, self._wiring.ends_at(qdiscs.node, qdiscs.index))
        behind = queues.queue_ends(qdiscs.node, qdiscs.index, self._wiring, self._managed)
        waiting = root_counters(qdiscs, behind)
        counted = np.zeros(len(self._wiring.node), COUNTERS)  # of all ends
        counted["end"] = np.arange(len(counted))
        for field in ("sent_byte", "sent_packets", "backlog_byte", "backlog_packets"):
            counted[field][netems.end] = getattr(netems, field)
        counted["netem"][netems.end], counted["queue"] = netems.dropped, self._policed_at(nodes, qdiscs)
        counted["queue"][waiting.end], counted["waiting_byte"][waiting.end] = waiting.dropped, waiting.backlog_byte
        counted["waiting_packets"][waiting.end] = waiting.backlog_packets
        inside = behind != NO_END
        np.add.at(counted["marked"], behind[inside], queues.marks(qdiscs)[inside])
        found: np.ndarray = counted[netems.end]
        return found

    def _policed_at(self, nodes: Sequence[int], qdiscs: Qdiscs) -> Ints:
        """What the policers of all ends have dropped; those of some nodes are asked if packets have come to them."""
        passed, own = self._passed.copy(), np.isin(self._wiring.node, nodes)
        passed[own] = 0
        end, packets = queues.packets_at_filters(qdiscs, self._wiring)
        passed[end] = packets
        asked = np.unique(self._wiring.node[passed != self._passed]).tolist()
        self._passed = passed
        self._policed[np.isin(self._wiring.node, asked)] = 0
        end, dropped = queues.count_policed(self._policers(asked), self._wiring)
        self._policed[end] = dropped
        return self._policed

    def marked_packets(self, nodes: Sequence[int]) -> int:
        """How many packets the queues of some nodes have marked (ECN) since they were made."""
        return int(queues.marks(self._qdiscs(self._detouring.intersection(nodes))).sum())

    def next_hops(self, family: int, nodes: Sequence[int]) -> tuple[NextHops, Ints]:
        """The next hops of our routes in some nodes, and the link of each, or NO_END where it leads over none."""
        hops = decode_routes(family, self._dumps(nodes, RTM_GETROUTE, routes_question(family)))
        end = self._wiring.ends_at(hops.node, hops.interface_index)
        leads = (end != NO_END) & (np.append(self._wiring.peer, NO_END)[end] == hops.peer)
        return hops, np.where(leads, end // 2, NO_END)

    def _qdiscs(self, nodes: Iterable[int]) -> Qdiscs:
        return decode_qdiscs(self._dumps(nodes, RTM_GETQDISC, qdiscs_question()))

    def _policers(self, nodes: Sequence[int]) -> queues.Actions:
        return self._actions(self._policing.intersection(nodes), "police")

    def _actions(self, nodes: Iterable[int], kind: str) -> queues.Actions:
        return queues.decode_actions(self._dumps(nodes, queues.RTM_GETACTION, queues.actions_question(kind)))

    def _dumps(self, nodes: Iterable[int], kind: int, question: bytes) -> dict[int, list[bytes]]:
        """What the kernel tells of all objects of a kind in each of some nodes."""
        return {node: self._spaces[node].netlink.dump(kind, question) for node in nodes}
