"""The rtnetlink messages of links, addresses and neighbours, as bytes; a pure module.

These are sent once, when the network is made. What is sent at every instant is in `qdiscs` and `routes`.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
import sys
from collections.abc import Sequence

import numpy as np

from isl_emu.network.desired import HEADER_BYTE
from isl_emu.nodes.netlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REQUEST,
    attribute,
    attribute_rows,
    joined,
    message,
    message_rows,
    split_attributes,
    u32,
    u32_rows,
)

RTM_NEWLINK, RTM_GETLINK, RTM_NEWADDR, RTM_NEWNEIGH = 16, 18, 20, 28  # linux/rtnetlink.h
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINKINFO, IFLA_STATS64, IFLA_NET_NS_FD, IFLA_EXT_MASK = (
    1,
    3,
    4,
    18,
    23,
    28,
    29,
)  # linux/if_link.h
IFLA_NUM_TX_QUEUES, IFLA_NUM_RX_QUEUES, IFLA_GSO_MAX_SEGS, IFLA_GSO_MAX_SIZE, IFLA_GSO_IPV4_MAX_SIZE = (
    31,
    32,
    40,
    41,
    63,
)
IFLA_OPERSTATE, IFLA_LINKMODE = 16, 17
IF_OPER_DORMANT, IF_OPER_UP = 5, 6  # linux/if.h, as is the following
IF_LINK_MODE_DEFAULT, IF_LINK_MODE_DORMANT = 0, 1
RT_SCOPE_LINK = 253  # linux/rtnetlink.h
IFLA_INFO_KIND, IFLA_INFO_DATA, VETH_INFO_PEER = 1, 2, 1
TRUNK_PEER, TRUNK_LINK = 1, 2  # machine/kernel/patches/8-trunks.patch
RTEXT_FILTER_SKIP_STATS = 8
IFF_UP, IFF_RUNNING = 0x1, 0x40  # linux/if.h
IFA_ADDRESS, IFA_LOCAL, IFA_F_NODAD = 1, 2, 0x2  # linux/if_addr.h
NDA_DST, NDA_LLADDR, NUD_PERMANENT = 1, 2, 0x80  # linux/neighbour.h
LOOPBACK_INDEX = 1

IFINFOMSG = struct.Struct("=BxHiII")  # family, type, index, flags, change
IFADDRMSG = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index


def veth_ends(
    name: Sequence[str], index: np.ndarray, mac: np.ndarray, gso_byte: np.ndarray, frame_byte: np.ndarray
) -> np.ndarray:
    """The descriptions of veth ends: an ifinfomsg and its attributes in each row; uint8, (C, bytes).

    An end's longest packet is a frame without header. gso_byte bounds a super-packet in bytes and in segments; kernels
    before 6.3 know no separate bound for IPv4.

    Args:
        mac: uint8, (C, 6); all others (C,).
    """
    return joined(
        _ifinfomsg(index),
        attribute_rows(IFLA_IFNAME, np.array([one.encode() for one in name], "S16")),  # ends in zeros
        attribute_rows(IFLA_ADDRESS, mac),
        u32_rows(IFLA_MTU, frame_byte - HEADER_BYTE),
        u32(IFLA_NUM_TX_QUEUES, 1),
        u32(IFLA_NUM_RX_QUEUES, 1),
        u32_rows(IFLA_GSO_MAX_SEGS, np.maximum(gso_byte // frame_byte, 1)),
        u32_rows(IFLA_GSO_MAX_SIZE, gso_byte),
        u32_rows(IFLA_GSO_IPV4_MAX_SIZE, gso_byte),
    )


def new_veths(ends: np.ndarray, peers: np.ndarray, peer_namespace_fd: np.ndarray | None) -> np.ndarray:
    """Make veth pairs: `ends` where the socket is, `peers` right in their own namespaces (never moved), or there too.

    Args:
        ends, peers: of `veth_ends`, (C, bytes).
        peer_namespace_fd: int, (C,).
    """
    place = b"" if peer_namespace_fd is None else u32_rows(IFLA_NET_NS_FD, peer_namespace_fd)
    far = attribute_rows(VETH_INFO_PEER, peers, place)
    return _new_links(ends, b"veth", attribute_rows(IFLA_INFO_DATA, far))


def new_trunks(ends: np.ndarray, part: np.ndarray, number: np.ndarray) -> np.ndarray:
    """Make the ends (of `veth_ends`) of links to other guests: to guest `part`, which knows each by the same number."""
    data = attribute_rows(IFLA_INFO_DATA, u32_rows(TRUNK_PEER, part), u32_rows(TRUNK_LINK, number))
    return _new_links(ends, b"trunk", data)


def new_ifb(name: str, index: int, gso_byte: int, frame_byte: int) -> bytes:
    """Make an interface that gives back whatever is redirected to it, once its queue lets it go."""
    kind = attribute(IFLA_LINKINFO, attribute(IFLA_INFO_KIND, b"ifb"))
    body = IFINFOMSG.pack(socket.AF_UNSPEC, 0, index, 0, 0) + attribute(IFLA_IFNAME, name.encode() + b"\0")
    body += u32(IFLA_GSO_MAX_SEGS, max(gso_byte // frame_byte, 1)) + u32(IFLA_GSO_MAX_SIZE, gso_byte)
    return message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body + kind)


def link_moved(index: int, name: str, namespace_fd: int) -> bytes:
    """Move an interface into another namespace, where it has this name."""
    body = IFINFOMSG.pack(socket.AF_UNSPEC, 0, index, 0, 0) + attribute(IFLA_IFNAME, name.encode() + b"\0")
    return message(RTM_NEWLINK, 0, body + u32(IFLA_NET_NS_FD, namespace_fd))


def link_up(index: int) -> bytes:
    """Set an interface up."""
    return links_up(np.array([index])).tobytes()


def links_up(index: np.ndarray) -> np.ndarray:
    """Set interfaces up."""
    return message_rows(RTM_NEWLINK, 0, _ifinfomsg(index, IFF_UP))


OPERATION = np.dtype(
    [
        ("length", "u4"), ("type", "u2"), ("flags", "u2"), ("sequence", "u4"), ("port", "u4"),
        ("family", "u4"), ("index", "i4"), ("interface_flags", "u4"), ("change", "u4"),
        ("state_length", "u2"), ("state_type", "u2"), ("state", "u1"), ("state_padding", "u1", 3),
        ("mode_length", "u2"), ("mode_type", "u2"), ("mode", "u1"), ("mode_padding", "u1", 3),
    ]
)  # fmt: skip


def operation_messages(up: np.ndarray, interface_index: np.ndarray) -> np.ndarray:
    """One message per interface that says whether its link is there (RFC 2863); OPERATION, shape (C,).

    Without, it is dormant: it has lost the flag RUNNING, which daemons watch, and keeps its addresses, its qdisc and
    what is in flight there. A veth that lost its carrier would drop that.
    """
    rows = np.zeros(len(interface_index), OPERATION)
    rows["length"], rows["type"], rows["flags"] = OPERATION.itemsize, RTM_NEWLINK, NLM_F_REQUEST
    rows["index"] = interface_index
    rows["state_length"], rows["state_type"] = 4 + 1, IFLA_OPERSTATE
    rows["mode_length"], rows["mode_type"] = 4 + 1, IFLA_LINKMODE
    rows["state"] = np.where(up, IF_OPER_UP, IF_OPER_DORMANT)
    rows["mode"] = np.where(up, IF_LINK_MODE_DEFAULT, IF_LINK_MODE_DORMANT)
    return rows


def loopback_address(address: str) -> bytes:
    """Give the loopback interface an address with a full-length prefix."""
    return interface_address(address, 128 if ":" in address else 32, LOOPBACK_INDEX)


def interface_address(address: str, prefix: int, index: int) -> bytes:
    """Give an interface an address, without asking whether somebody else has it."""
    one = ipaddress.ip_address(address)
    packed, scope = np.frombuffer(one.packed, np.uint8), RT_SCOPE_LINK if one.is_link_local else 0
    return interface_addresses(packed[np.newaxis], prefix, np.array([index]), scope).tobytes()


def interface_addresses(address: np.ndarray, prefix: int, index: np.ndarray, scope: int = 0) -> np.ndarray:
    """Give interfaces addresses, without asking whether somebody else has them.

    Args:
        address: in network order, of 4 or 16 bytes each; (C,) or uint8, (C, bytes).
        index: of the interfaces; (C,).
    """
    family = _family(address)
    head = struct.pack("=BBBB", family, prefix, IFA_F_NODAD if family == socket.AF_INET6 else 0, scope)
    both = attribute_rows(IFA_LOCAL, address), attribute_rows(IFA_ADDRESS, address)
    return message_rows(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, head, index.astype(np.uint32), *both)


def permanent_neighbours(address: np.ndarray, mac: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Say for ever which hardware addresses `address` have, so that nobody asks.

    Args:
        address: in network order, of 4 or 16 bytes each; (C,).
        mac: uint8, (C, 6).
        index: of the interfaces to them; (C,).
    """
    head = struct.pack("=Bxxx", _family(address)), index.astype(np.int32), struct.pack("=HBB", NUD_PERMANENT, 0, 0)
    both = attribute_rows(NDA_DST, address), attribute_rows(NDA_LLADDR, mac)
    return message_rows(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_EXCL, *head, *both)


def links_question() -> bytes:
    """The body of a dump request for all interfaces, without their statistics."""
    return IFINFOMSG.pack(socket.AF_UNSPEC, 0, 0, 0, 0) + u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS)


def counters_question() -> bytes:
    """The body of a dump request for all interfaces with what they have carried."""
    return IFINFOMSG.pack(socket.AF_UNSPEC, 0, 0, 0, 0)


def decode_sent_byte(body: bytes) -> tuple[int, int]:
    """Index of an interface, and how many bytes have left it."""
    counters = split_attributes(body[IFINFOMSG.size :])[IFLA_STATS64]
    return IFINFOMSG.unpack_from(body)[2], int.from_bytes(counters[24:32], sys.byteorder)  # rtnl_link_stats64.tx_bytes


def decode_flags(body: bytes) -> tuple[int, int]:
    """Index and flags of an interface, which are in front of all that takes time to decode."""
    _, _, index, flags, _ = IFINFOMSG.unpack_from(body)
    return index, flags


def decode_link(body: bytes) -> tuple[int, str, int]:
    """Index, name and flags of an interface."""
    _, _, index, flags, _ = IFINFOMSG.unpack_from(body)
    return index, split_attributes(body[IFINFOMSG.size :])[IFLA_IFNAME].rstrip(b"\0").decode(), flags


def _ifinfomsg(index: np.ndarray, flags: int = 0) -> np.ndarray:
    """What messages about interfaces begin with, in each row; all `flags` are set, others stay as they are."""
    return joined(struct.pack("=BxH", socket.AF_UNSPEC, 0), index.astype(np.int32), struct.pack("=II", flags, flags))


def _new_links(ends: np.ndarray, kind: bytes, data: np.ndarray) -> np.ndarray:
    info = attribute_rows(IFLA_LINKINFO, attribute(IFLA_INFO_KIND, kind), data)
    return message_rows(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, ends, info)


def _family(address: np.ndarray) -> int:
    return socket.AF_INET if joined(address).shape[1] == 4 else socket.AF_INET6
