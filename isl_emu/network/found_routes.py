"""Routes that programs in nodes have made, as kernels tell of them: each change by node, prefix and links.

The policy "none" leaves routes to others; what they do is known by listening in every node.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from isl_emu.network.routes import (
    NEXT_HOP,
    RT_TABLE_MAIN,
    RTA_DST,
    RTA_MULTIPATH,
    RTA_OIF,
    RTM_DELROUTE,
    RTM_NEWROUTE,
    RTMSG,
    RTN_UNICAST,
)
from isl_emu.nodes.netlink import NLM_F_REPLACE, split_attributes, split_messages

RTNLGRP_IPV4_ROUTE = 7  # linux/rtnetlink.h, as are the following
RTA_PRIORITY, RTPROT_KERNEL = 6, 2


class FoundRoute(NamedTuple):
    """A change of one node's IPv4 routes.

    Args:
        prefix: the address, as a number, and how many of its bits count.
        metric: of several routes to a prefix, the one with the lowest is used.
        interfaces: the interfaces that it leads over; none where it is gone, or drops what it gets.
        gone: whether it was removed.
        replaces: whether it takes the place of any of this metric.
    """

    prefix: tuple[int, int]
    metric: int
    interfaces: tuple[int, ...]
    gone: bool
    replaces: bool


def decode_changes(data: bytes) -> Iterator[FoundRoute]:
    """The changes of IPv4 routes in what a listener has received, but for those that the kernel makes of addresses."""
    for kind, flags, body in split_messages(data):
        if kind not in (RTM_NEWROUTE, RTM_DELROUTE):
            continue
        family, length, _, _, table, protocol, _, route_kind, _ = RTMSG.unpack_from(body)
        if family != socket.AF_INET or table != RT_TABLE_MAIN or protocol == RTPROT_KERNEL:
            continue
        attributes = split_attributes(body[RTMSG.size :])
        address = int.from_bytes(attributes.get(RTA_DST, b""), "big")
        metric = int.from_bytes(attributes.get(RTA_PRIORITY, b""), "little")
        over = tuple(_interfaces(attributes)) if route_kind == RTN_UNICAST else ()
        yield FoundRoute((address, length), metric, over, kind == RTM_DELROUTE, bool(flags & NLM_F_REPLACE))


def _interfaces(attributes: Mapping[int, bytes]) -> Iterator[int]:
    several, offset = attributes.get(RTA_MULTIPATH), 0
    if several is None:
        if (single := attributes.get(RTA_OIF)) is not None:
            yield struct.unpack("=I", single)[0]
        return
    while offset < len(several):
        length, _, _, interface = NEXT_HOP.unpack_from(several, offset)
        yield interface
        offset += length + -length % 4


class NodeTable:
    """One node's routes: for any address, the interfaces that packets to it take."""

    def __init__(self) -> None:
        self._routes: dict[tuple[int, int], dict[int, tuple[int, ...]]] = {}

    def change(self, found: FoundRoute) -> None:
        """Do what a change has done."""
        metrics = self._routes.setdefault(found.prefix, {})
        if not found.gone:
            if found.replaces or found.metric not in metrics:
                metrics[found.metric] = found.interfaces
        elif metrics.get(found.metric, found.interfaces) == found.interfaces:
            metrics.pop(found.metric, None)
        if not metrics:
            del self._routes[found.prefix]

    def interfaces(self, address: int) -> tuple[int, ...]:
        """What the longest prefix with this address leads over; empty where there is none."""
        for length in range(32, -1, -1):
            prefix = address >> (32 - length) << (32 - length), length
            if metrics := self._routes.get(prefix):
                return metrics[min(metrics)]
        return ()
