"""Taps: a copy of whatever is handed to some link ends of a node, at that very instant, for who captures packets.

A packet socket on an interface sees what leaves it behind its queue discipline, and here the link's whole delay is in
that: it would see a packet leave when it arrives. So a filter before the queue gives a copy to an interface that only
swallows packets, and there the socket listens.

    sent to the interface -> clsact: copy to the tap, then what the queue is made of -> netem

Nothing waits for the copy, and the packet goes its way as it would without.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np

from isl_emu.errors import NetworkError
from isl_emu.network.messages import IFF_UP, IFINFOMSG, IFLA_IFNAME, IFLA_LINKINFO, IFLA_MTU, RTM_NEWLINK
from isl_emu.network.messages import IFLA_INFO_KIND as KIND_OF_LINK
from isl_emu.network.qdiscs import TCA_KIND, TCA_OPTIONS, TCMSG
from isl_emu.network.queues import (
    CLSACT_EGRESS,
    ETH_P_ALL,
    MIRRED,
    PREFERENCE,
    RTM_NEWTFILTER,
    TCA_ACT_KIND,
    TCA_ACT_OPTIONS,
    TCA_MATCHALL_ACT,
    TCA_MIRRED_PARMS,
)
from isl_emu.nodes.namespaces import enter_network, in_own_thread
from isl_emu.nodes.netlink import NLM_F_CREATE, NLM_F_EXCL, Netlink, attribute, message, u32

TAP_PORT = 0x7461_7021  # of the sockets that make taps, so that who hears of changes knows ours
RTM_DELLINK, RTM_DELTFILTER = 17, 45  # linux/rtnetlink.h
TC_ACT_UNSPEC, TCA_EGRESS_MIRROR = (
    0xFFFF_FFFF,
    2,
)  # linux/pkt_cls.h: go on with the next filter; linux/tc_act/tc_mirred.h
LEAST_MTU = 68  # less than IPv6 needs: so an interface has no addresses and sends nothing of its own
TRIES, PAUSE_S = 100, 0.01  # another process may be making its taps


class Tap:
    """A tap in a node, on some of its interfaces.

    Args:
        netns_path: the node's namespace.
        interfaces: numbers of the interfaces.

    Raises:
        NetworkError: the kernel refuses it.
    """

    def __init__(self, netns_path: str, interfaces: Iterable[int]):
        self._netns_path, self._interfaces = netns_path, tuple(interfaces)
        self._preference = 1 + os.getpid() % (PREFERENCE - 1)  # before the queue's, and other than other processes'
        self.name = f"tap-{os.getpid()}"
        in_own_thread(self._make)

    def close(self) -> bool:
        """Remove it; False if somebody else had removed it, or a part of it, before."""
        return in_own_thread(self._remove)

    def _make(self) -> None:
        enter_network(self._netns_path)
        with _speaking() as netlink:
            where = f"tap {self._netns_path}"
            netlink.demand([_new_dummy(self.name)], where)
            tap = socket.if_nametoindex(self.name)
            try:
                netlink.demand((_copying(one, self._preference, tap) for one in self._interfaces), where)
            except BaseException:
                netlink.demand([_no_link(tap)], where)
                raise

    def _remove(self) -> bool:
        try:
            enter_network(self._netns_path)
            with _speaking() as netlink:
                netlink.send(_no_copying(one, self._preference) for one in self._interfaces)
                refused = netlink.refusals()
                netlink.send([_no_link(socket.if_nametoindex(self.name))])
                return not refused and not netlink.refusals()
        except OSError:  # the node or the tap is gone
            return False


@contextmanager
def _speaking() -> Iterator[Netlink]:
    for left in reversed(range(TRIES)):
        try:
            netlink = Netlink(TAP_PORT)
            break
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not left:
                raise NetworkError(
                    f"tap: a socket for it cannot be had ({error.strerror}), but it is made by one; capture again later"
                ) from None
            time.sleep(PAUSE_S)
    try:
        yield netlink
    finally:
        netlink.close()


def _new_dummy(name: str) -> bytes:
    kind = attribute(IFLA_LINKINFO, attribute(KIND_OF_LINK, b"dummy"))
    body = IFINFOMSG.pack(socket.AF_UNSPEC, 0, 0, IFF_UP, IFF_UP) + attribute(IFLA_IFNAME, name.encode() + b"\0")
    return message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body + u32(IFLA_MTU, LEAST_MTU) + kind)


def _no_link(index: int) -> bytes:
    return message(RTM_DELLINK, 0, IFINFOMSG.pack(socket.AF_UNSPEC, 0, index, 0, 0))


def _copying(interface: int, preference: int, tap: int) -> bytes:
    """What copies each packet that is sent to an interface to another."""
    copy = np.array([(0, 0, TC_ACT_UNSPEC, 0, 0, TCA_EGRESS_MIRROR, tap)], MIRRED)
    parms = attribute(TCA_MIRRED_PARMS, copy.tobytes())
    doing = attribute(1, attribute(TCA_ACT_KIND, b"mirred\0") + attribute(TCA_ACT_OPTIONS, parms))
    options = attribute(TCA_OPTIONS, attribute(TCA_MATCHALL_ACT, doing))
    return message(RTM_NEWTFILTER, NLM_F_CREATE | NLM_F_EXCL, _filter(interface, preference) + options)


def _no_copying(interface: int, preference: int) -> bytes:
    return message(RTM_DELTFILTER, 0, _filter(interface, preference))


def _filter(interface: int, preference: int) -> bytes:
    head = TCMSG.pack(0, interface, 0, CLSACT_EGRESS, preference << 16 | ETH_P_ALL)
    return head + attribute(TCA_KIND, b"matchall\0")
