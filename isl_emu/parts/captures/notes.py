"""What the plan says of packets, for the first of each pair of nodes at a link end after each change of the plan."""

from __future__ import annotations

import struct

import numpy as np

from isl_emu.errors import ScenarioError
from isl_emu.linkplan.plan import LinkPlan
from isl_emu.network.naming import IPV4_BASE, IPV6_BASE
from isl_emu.routing.forwarding import RoutePlan
from isl_emu.routing.paths import NodePath, PathFinder
from isl_emu.units import NS_PER_S

IPV4, IPV6, MPLS = 0x0800, 0x86DD, 0x8847  # ethertypes
ETHERNET_BYTE, IPV6_BYTE, LABEL_BYTE = 14, 40, 4
ROUTING, SEGMENTS = b"\x2b", b"\x04"  # next header, and type of a routing header (RFC 8754)
NEVER = -1


def labels_of(frame: bytes) -> int:
    """How many MPLS labels an Ethernet frame has (RFC 3032)."""
    if frame[12:14] != MPLS.to_bytes(2, "big"):
        return 0
    last = next((at for at in range(ETHERNET_BYTE + 2, len(frame), LABEL_BYTE) if frame[at] & 1), len(frame))
    return (last - ETHERNET_BYTE) // LABEL_BYTE + 1


def without_way(frame: bytes) -> bytes:
    """An Ethernet frame without the labels or segments that name its way; as it is where it has none."""
    at, kind = ETHERNET_BYTE + LABEL_BYTE * labels_of(frame), frame[12:14]
    routing = ETHERNET_BYTE + IPV6_BYTE
    segmented = kind == IPV6.to_bytes(2, "big") and frame[ETHERNET_BYTE + 6 : ETHERNET_BYTE + 7] == ROUTING
    if segmented and frame[routing + 2 : routing + 3] == SEGMENTS:
        at = routing + 8 * (frame[routing + 1] + 1)
    if at == ETHERNET_BYTE or at >= len(frame):
        return frame
    return frame[:12] + (IPV6 if frame[at] >> 4 == 6 else IPV4).to_bytes(2, "big") + frame[at:]


def addresses_of(frame: bytes) -> tuple[int, int] | None:
    """The source and destination of an Ethernet frame with IP, each as its number among nodes; None without IP.

    Where headers name its way, they are those of the packet inside. Addresses that are no node's give numbers that no
    node has.
    """
    frame = without_way(frame)
    if len(frame) < 34:
        return None
    (kind,) = struct.unpack_from("!H", frame, 12)
    if kind == IPV4:
        source, destination = struct.unpack_from("!II", frame, 26)
        return source - IPV4_BASE - 1, destination - IPV4_BASE - 1
    if kind == IPV6 and len(frame) >= 54:
        source, destination = (int.from_bytes(frame[at : at + 16], "big") for at in (22, 38))
        return source - IPV6_BASE - 1, destination - IPV6_BASE - 1
    return None


class PlanNotes:
    """The comments on packets of one capture.

    Each tells of the state of the link in the packet's direction, and of the planned path of the packet from its source
    to its destination; it stands on the first packet after either has changed. The plan knows nothing done by hand.
    """

    def __init__(self, plan: LinkPlan, routes: RoutePlan):
        self._plan, self._names = plan, plan.nodes.names
        self._finder, self._owner = PathFinder(plan, routes), routes.aliases.owner
        self._told: dict[tuple[int, int, int], tuple[int, str]] = {}  # at which instant what was said last, and what

    def on(self, end: int, outbound: bool, t_ns: int, frame: bytes) -> str | None:
        """The comment on a packet that passes link end `end`; None if nothing has changed since the last one.

        Args:
            t_ns: since instant 0.
        """
        found = addresses_of(frame)
        sender = end if outbound else end ^ 1
        key = (2 * end + outbound, *(found or (NEVER, NEVER)))
        k, before = self._plan.grid.instant_at(t_ns), self._told.get(key)
        if before is not None and before[0] == k:
            return None
        text = self._link(sender, k) + (self._path(*found, k) if found else "")
        self._told[key] = k, text
        if before is not None and before[1] == text:
            return None
        step_ns = self._plan.grid.step_ns
        return f"instant {k}, t = {k * step_ns / NS_PER_S:.3f} s; {text}"

    def _link(self, sender: int, k: int) -> str:
        plan, link = self._plan, sender // 2
        ends = (int(plan.links.a[link]), int(plan.links.b[link]))[:: -1 if sender % 2 else 1]
        where = " > ".join(self._names[node] for node in ends)
        up = plan.snapshot(k)
        row = int(np.searchsorted(up.link, link))
        if row == len(up.link) or up.link[row] != link:
            return f"link {where}: planned down"
        physical = (up.rate_ab_bit_s, up.rate_ba_bit_s)[sender % 2][row]
        rate_bit_s = int(physical * plan.rate_scale)
        loss = f", loss {up.loss_ratio[row]:.6g}" if up.loss_ratio[row] else ""
        return f"link {where}: planned delay {up.delay_ns[row]} ns, rate {rate_bit_s} bit/s{loss}"

    def _path(self, source: int, destination: int, k: int) -> str:
        nodes, count = len(self._names), len(self._names) + len(self._owner)
        if not (0 <= source < count and 0 <= destination < count):
            return ""
        source = source if source < nodes else int(self._owner[source - nodes])
        try:
            path = self._finder.path(source, destination, k)
        except ScenarioError:  # a loop, of which the run's own figures tell
            path = None
        return f"; path {self._shown(path)}"

    def _shown(self, path: NodePath | None) -> str:
        if path is None:
            return "none planned"
        way = " > ".join(self._names[node] for node in path.nodes)
        cut = ", cut by a fault" if path.cut else ""
        return f"{way}: planned delay {path.delay_ns} ns{cut}"
