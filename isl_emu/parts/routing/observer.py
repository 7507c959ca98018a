"""What programs in nodes do to routes, and what they send for it: heard in each node while a run is live."""

from __future__ import annotations

import os
import select
import socket
import threading
from contextlib import ExitStack, suppress

import numpy as np

from isl_emu.network.found_routes import RTNLGRP_IPV4_ROUTE, FoundRoute, NodeTable, decode_changes
from isl_emu.network.naming import IPV4_BASE
from isl_emu.nodes.filters import BPF_JEQ, BPF_JGT, BPF_LD_B_ABS, BPF_LD_H_ABS, BPF_LD_W_ABS, BPF_RET, attach_filter
from isl_emu.nodes.namespaces import enter_network, in_own_thread
from isl_emu.nodes.netlink import RECEIVE_BYTE
from isl_emu.parts.activity import Activity
from isl_emu.parts.live_run import LiveRun
from isl_emu.routing.shortest import NO_ROUTE
from isl_emu.runs.clock import RunTimes
from isl_emu.runs.journal import Journal
from isl_emu.tables.found_ways import JOURNAL, SEVERAL

CONTROL_JOURNAL = "control_packets"
HEARING_BYTE = 8 << 20  # of what a kernel may have to tell at once: all routes of a node, some times
SO_RCVBUFFORCE, ETH_P_ALL = 33, 3  # asm-generic/socket.h, linux/if_ether.h
OUTGOING = 4  # linux/if_packet.h PACKET_OUTGOING
PACKET_KIND = 0xFFFFF000 + 4  # linux/filter.h SKF_AD_OFF + SKF_AD_PKTTYPE
LD_W, LD_H, LD_B, EQUAL, ABOVE, GIVE = (  # short, for tables
    BPF_LD_W_ABS, BPF_LD_H_ABS, BPF_LD_B_ABS, BPF_JEQ, BPF_JGT, BPF_RET,
)  # fmt: skip
WHOLE = 0xFFFFFFFF
# After the filter's first two lines: which of what leaves a node is control. Offsets are those of Ethernet frames.
CONTROL = {
    "ospf": ((LD_H, 0, 0, 12), (EQUAL, 0, 3, 0x0800), (LD_B, 0, 0, 23), (EQUAL, 0, 1, 89), (GIVE, 0, 0, WHOLE)),
    "isis": ((LD_H, 0, 0, 12), (ABOVE, 1, 0, 1500), (GIVE, 0, 0, WHOLE)),  # a length instead of a type: IEEE 802.3
    "bgp": (
        (LD_H, 0, 0, 12), (EQUAL, 0, 7, 0x0800), (LD_B, 0, 0, 23), (EQUAL, 0, 5, 6),
        (LD_H, 0, 0, 34), (EQUAL, 2, 0, 179), (LD_H, 0, 0, 36), (EQUAL, 0, 1, 179), (GIVE, 0, 0, WHOLE),
    ),
}  # fmt: skip


class RouteObserver(Activity):
    """Writes down each change of a route from a node of this kernel to a node, and counts control packets by instants.

    Args:
        protocol: whose packets count; None counts none.
    """

    def __init__(self, live: LiveRun, protocol: str | None):
        self._live, self._clock = live, live.clock
        wiring, names = live.net.backend.wiring, live.plan.nodes.names
        self._links = [
            {int(wiring.interface_index[end]): int(end) // 2 for end in ends}
            for ends in wiring.ends_by_node(len(names))
        ]
        self._tables = [NodeTable() for _ in names]
        self.next_hops = np.full((len(names), len(names)), NO_ROUTE, dtype=np.int32)  # of node, to node
        self._lock, self._ended = threading.Lock(), os.eventfd(0)
        self._times: RunTimes | None = None
        self._journal: Journal | None = None
        self._sent: dict[int, list[int]] = {}  # by instant: packets, bytes
        self._epoll = select.epoll()
        self._epoll.register(self._ended, select.EPOLLIN)
        self._hearing: dict[int, tuple[int, socket.socket]] = {}
        self._counting: dict[int, socket.socket] = {}
        for node in live.portion.nodes:
            in_own_thread(self._open, node, live.net.get(names[node]).netns_path, protocol)
        self._thread = threading.Thread(target=self._follow, name="routes", daemon=True)
        self._thread.start()
        live.undo.callback(self._close)

    def begin(self, times: RunTimes, ending: ExitStack) -> None:
        journal = ending.enter_context(Journal(self._live.folder.journal / f"{JOURNAL}.jsonl"))
        with self._lock:
            self._times, self._journal = times, journal
            for node, destination in zip(*np.nonzero(self.next_hops != NO_ROUTE), strict=True):
                self._write(int(node), int(destination), self._clock.now_ns())
        ending.callback(self._end)

    def _end(self) -> None:
        """Write down what was counted; what comes later is the end of the daemons, and not of the run."""
        with self._lock:
            self._journal = None
            with Journal(self._live.folder.journal / f"{CONTROL_JOURNAL}.jsonl") as journal:
                for k, (packets, byte) in sorted(self._sent.items()):
                    journal.append({"k": k, "packets": packets, "byte": byte})

    def _close(self) -> None:
        os.eventfd_write(self._ended, 1)
        self._thread.join()
        self._epoll.close()
        os.close(self._ended)
        for one in (*(one for _, one in self._hearing.values()), *self._counting.values()):
            one.close()

    def _open(self, node: int, netns_path: str, protocol: str | None) -> None:
        enter_network(netns_path)
        hearing = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
        hearing.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, HEARING_BYTE)
        hearing.bind((0, 1 << (RTNLGRP_IPV4_ROUTE - 1)))
        self._hearing[hearing.fileno()] = node, hearing
        self._epoll.register(hearing, select.EPOLLIN)
        if protocol is not None:
            counting = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.htons(ETH_P_ALL))
            outgoing = (LD_W, 0, 0, PACKET_KIND), (EQUAL, 1, 0, OUTGOING), (GIVE, 0, 0, 0)
            attach_filter(counting, (*outgoing, *CONTROL[protocol], (GIVE, 0, 0, 0)))  # and nothing else
            self._counting[counting.fileno()] = counting
            self._epoll.register(counting, select.EPOLLIN)

    def _follow(self) -> None:
        frame = bytearray(1)
        while True:
            ready = [descriptor for descriptor, _ in self._epoll.poll()]
            if self._ended in ready:
                return
            now_ns = self._clock.now_ns()
            with self._lock:
                for descriptor in ready:
                    with suppress(BlockingIOError):
                        while descriptor in self._counting:
                            byte = self._counting[descriptor].recv_into(frame, 1, socket.MSG_TRUNC)
                            self._count(byte, now_ns)
                        while descriptor in self._hearing:
                            node, one = self._hearing[descriptor]
                            for found in decode_changes(one.recv(RECEIVE_BYTE)):
                                self._change(node, found, now_ns)

    def _count(self, byte: int, now_ns: int) -> None:
        if self._times is not None and now_ns >= self._times.t0_ns:
            k = self._live.plan.grid.instant_at(now_ns - self._times.t0_ns)
            before = self._sent.setdefault(k, [0, 0])
            self._sent[k] = [before[0] + 1, before[1] + byte]

    def _change(self, node: int, found: FoundRoute, now_ns: int) -> None:
        table = self._tables[node]
        table.change(found)
        address, length = found.prefix
        first = address - IPV4_BASE - 1
        covered = range(max(first, 0), min(first + (1 << (32 - length)), len(self._tables)))
        for destination in covered:
            over = table.interfaces(IPV4_BASE + destination + 1)
            links = {self._links[node].get(interface, NO_ROUTE) for interface in over}
            hop = links.pop() if len(links) == 1 else SEVERAL if links else NO_ROUTE
            if destination != node and hop != self.next_hops[node, destination]:
                self.next_hops[node, destination] = hop
                self._write(node, destination, now_ns)

    def _write(self, node: int, destination: int, now_ns: int) -> None:
        if self._journal is not None and self._times is not None:
            hop = int(self.next_hops[node, destination])
            record = {"t_ns": now_ns - self._times.t0_ns, "node": node, "destination": destination, "link": hop}
            self._journal.append(record)
