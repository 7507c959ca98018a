"""Who else changes the network: what a kernel tells of changes in the nodes that are not ours, at once.

Whatever changes interfaces, addresses, routes, rules and qdiscs is announced to who listens (rtnetlink(7)). A listener
in a node's namespace hears all but our own, those of taps included: a filter in the kernel drops these by their sender.
"""

from __future__ import annotations

import os
import select
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from isl_emu.network.taps import TAP_PORT
from isl_emu.nodes.filters import BPF_JEQ, BPF_LD_W_ABS, BPF_RET, attach_filter
from isl_emu.nodes.namespaces import enter_network, in_own_thread
from isl_emu.nodes.netlink import HEADER, RECEIVE_BYTE
from isl_emu.nodes.nodespaces import NodeSpace

# linux/rtnetlink.h: link, tc, IPv4 and IPv6 addresses, routes and rules
GROUPS = (1, 4, 5, 7, 8, 9, 11, 19)
LINK_GROUPS = GROUPS[:2]  # where addresses, routes and rules are for others to change
KINDS = {  # by the number of the message
    16: "interfaces",
    20: "addresses",
    24: "routes",
    32: "rules",
    36: "qdiscs",
    44: "filters",
    48: "actions of filters",
}
_LAST_KINDS = 4  # of each kind: new, gone, asked, set
PORT_OFFSET, WHOLE = 12, 0xFFFFFFFF


@dataclass(frozen=True)
class Disturbance:
    """That somebody has changed a node's network.

    Args:
        node: its number.
        t_ns: when the first of the changes came, on the clock.
        kinds: what was changed, of `KINDS`.
        by_process: whether a process did, as far as the kernel tells; else it may be a consequence of something else.
    """

    node: int
    t_ns: int
    kinds: frozenset[str]
    by_process: bool


class Listeners:
    """Hears what others change in namespaces.

    Args:
        spaces: the namespaces of all nodes.
        now_ns: the clock by which a change gets its time.
        groups: of what, as rtnetlink numbers it.
    """

    def __init__(self, spaces: Sequence[NodeSpace], now_ns: Callable[[], int], groups: Sequence[int] = GROUPS):
        self._spaces, self._now_ns, self._groups = spaces, now_ns, groups
        self._heard, self._lock = dict[int, Disturbance](), threading.Lock()
        self._epoll, self._ended = select.epoll(), os.eventfd(0)
        self._epoll.register(self._ended, select.EPOLLIN)
        self._sockets: dict[int, tuple[int, socket.socket]] = {}
        self._listening = [False] * len(spaces)
        self._thread = threading.Thread(target=self._follow, name="interventions", daemon=True)
        self._thread.start()

    def listen_in(self, node: int) -> None:
        """Hear what others change in a node from now on."""
        with self._lock:
            if not self._listening[node]:
                in_own_thread(self._open, node)
                self._listening[node] = True

    @property
    def disturbed(self) -> bool:
        """Whether anything has been heard that was not taken yet."""
        return bool(self._heard)

    def take(self) -> list[Disturbance]:
        """What has been heard since the last call, one for each node."""
        with self._lock:
            heard, self._heard = self._heard, {}
        return [heard[node] for node in sorted(heard)]

    def close(self) -> None:
        """Stop listening."""
        os.eventfd_write(self._ended, 1)
        self._thread.join()
        self._epoll.close()
        os.close(self._ended)
        for _, one in self._sockets.values():
            one.close()

    def _open(self, node: int) -> None:
        space = self._spaces[node]
        enter_network(space.path)
        one = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
        self._sockets[one.fileno()] = node, one
        _leave_out(one, (space.netlink.port, TAP_PORT))
        one.bind((0, sum(1 << (group - 1) for group in self._groups)))
        self._epoll.register(one, select.EPOLLIN)

    def _follow(self) -> None:
        while True:
            ready = [descriptor for descriptor, _ in self._epoll.poll()]
            if self._ended in ready:
                return
            now_ns = self._now_ns()
            for descriptor in ready:
                self._hear(*self._sockets[descriptor], now_ns)

    def _hear(self, node: int, one: socket.socket, now_ns: int) -> None:
        kinds, by_process = set[str](), False
        with suppress(BlockingIOError):
            while True:
                try:
                    data = one.recv(RECEIVE_BYTE)
                except OSError as error:
                    if isinstance(error, BlockingIOError):
                        raise
                    kinds |= set(KINDS.values())  # more than the socket holds: anything may have changed
                    continue
                _, number, _, _, port = HEADER.unpack_from(data)
                kinds.add(KINDS.get(number - number % _LAST_KINDS, "interfaces"))
                by_process = by_process or port != 0
        with self._lock:
            before = self._heard.get(node, Disturbance(node, now_ns, frozenset(), False))
            known = frozenset(before.kinds | kinds)
            self._heard[node] = Disturbance(node, before.t_ns, known, before.by_process or by_process)


def _leave_out(one: socket.socket, ports: tuple[int, int]) -> None:
    """Let a socket not hear what those with these numbers have caused."""
    first, second = map(socket.htonl, ports)
    program = (
        (BPF_LD_W_ABS, 0, 0, PORT_OFFSET),  # nlmsg_pid, which a filter loads in network order
        (BPF_JEQ, 1, 0, first),
        (BPF_JEQ, 0, 1, second),
        (BPF_RET, 0, 0, 0),
        (BPF_RET, 0, 0, WHOLE),
    )
    attach_filter(one, program)
