"""Ways in headers, as Linux is told: segment routing over IPv6 and MPLS, and what nodes do with such packets.

The node that sends a packet has a route whose headers name its way (`wrapping`). With "srv6" each node has segments of
its own: at one it sends a packet on to the next segment, which is a neighbour's; at two others it takes the headers off
a packet for itself. With "mpls" each node has a label for each of its links: it takes the label off and sends the
packet over the link.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np

from isl_emu.errors import NetworkError
from isl_emu.network.messages import LOOPBACK_INDEX, link_up
from isl_emu.network.naming import (
    LOCATOR_BASE,
    SEGMENT_END,
    SEGMENT_IPV4,
    SEGMENT_IPV6,
    Wiring,
    ipv4_address,
    ipv6_gateway,
    locator,
    segment,
)
from isl_emu.network.routes import (
    RT_TABLE_MAIN,
    RTA_DST,
    RTA_ENCAP,
    RTA_ENCAP_TYPE,
    RTA_GATEWAY,
    RTA_OIF,
    RTM_NEWROUTE,
    RTMSG,
    RTN_UNICAST,
    Wrapping,
)
from isl_emu.nodes.namespaces import CLONE_NEWNET, enter_network, in_own_thread, unshare
from isl_emu.nodes.netlink import NLM_F_CREATE, NLM_F_REPLACE, Netlink, attribute, message, u32

AF_MPLS = 28  # linux/socket.h; the following are of linux/lwtunnel.h, seg6_iptunnel.h, seg6_local.h, rtnetlink.h
WRAP_MPLS, WRAP_SEGMENTS, LOCAL_SEGMENT = 1, 5, 7
LABELS, SEGMENTS, ENCAPSULATE, ROUTING_TYPE = 1, 1, 1, 4
LOCAL_ACTION, LOCAL_TABLE, LOCAL_IPV4, ACTION_END, ACTION_IPV4, ACTION_TABLE6 = 1, 3, 4, 1, 6, 7
RTA_VIA, RTPROT_STATIC, RT_TABLE_LOCAL = 18, 4, 255  # what is told once is none of the routes that are read back
LABEL_BITS, LABEL_SHIFT, BOTTOM = 20, 12, 0x100  # RFC 3032
MPLS_FOLDER = Path("/proc/sys/net/mpls")
SEGMENT_HEADER = np.dtype(
    [
        ("inner_length", "u2"), ("inner_type", "u2"), ("mode", "i4"),
        ("next", "u1"), ("length", "u1"), ("type", "u1"), ("left", "u1"), ("last", "u1"), ("flags", "u1"),
        ("tag", "u2"),
    ]
)  # fmt: skip


def label_wraps(labels: np.ndarray) -> np.ndarray:
    """What the kernel is told of label stacks, the first label on top; of labels (C, H), shape (C,)."""
    told = np.zeros(len(labels), [("length", "u2"), ("type", "u2"), ("labels", ">u4", labels.shape[1:])])
    told["length"], told["type"] = told.dtype.itemsize, LABELS
    told["labels"] = labels << LABEL_SHIFT
    told["labels"][:, -1] |= BOTTOM
    return told


def segment_wraps(nodes: np.ndarray, function: int) -> np.ndarray:
    """What the kernel is told of segment lists: the nodes of each in the order of the way (C, H); shape (C,).

    Args:
        function: of the segment of the last node.
    """
    count = nodes.shape[1]
    layout = [(name, SEGMENT_HEADER[name]) for name in SEGMENT_HEADER.names or ()]
    told = np.zeros(len(nodes), [*layout, ("segments", ">u4", (count, 4))])
    told["inner_length"], told["inner_type"], told["mode"] = told.dtype.itemsize, SEGMENTS, ENCAPSULATE
    told["length"], told["type"] = 2 * count, ROUTING_TYPE  # in 8 bytes, without the first 8
    told["left"] = told["last"] = count - 1
    segments = told["segments"]
    segments[..., 0] = LOCATOR_BASE >> 96
    segments[..., 1] = nodes[:, ::-1] + 1  # the first segment comes last (RFC 8754, section 2)
    segments[..., 3] = SEGMENT_END
    segments[:, 0, 3] = function
    return told


def wrapping(
    forwarding: str, family: int, wiring: Wiring, node: np.ndarray, ways: np.ndarray, mtu_byte: np.ndarray
) -> Wrapping:
    """The headers of some ways of the same number of links.

    Args:
        node: that sends, (C,).
        ways: its links, (C, H).
        mtu_byte: as in `Wrapping`.
    """
    peers, labels, at = np.empty_like(ways), np.empty_like(ways), node
    for place in range(ways.shape[1]):
        end = wiring.end(at, ways[:, place])
        labels[:, place], peers[:, place] = wiring.interface_index[end], wiring.peer[end]
        at = peers[:, place]
    if forwarding == "mpls":
        return Wrapping(WRAP_MPLS, label_wraps(labels[:, 1:]), mtu_byte)
    function = SEGMENT_IPV4 if family == socket.AF_INET else SEGMENT_IPV6
    return Wrapping(WRAP_SEGMENTS, segment_wraps(peers, function), mtu_byte)


def node_messages(forwarding: str, node: int, ends: list[int], wiring: Wiring) -> Iterator[bytes]:
    """What a node does with packets whose headers name their way.

    Args:
        ends: its link ends.
    """
    for end in ends:
        peer, index = int(wiring.peer[end]), int(wiring.interface_index[end])
        if forwarding == "mpls":
            via = struct.pack("=H", socket.AF_INET) + socket.inet_aton(ipv4_address(peer))
            label = struct.pack("!I", index << LABEL_SHIFT | BOTTOM)
            yield _route(AF_MPLS, LABEL_BITS, label, index, attribute(RTA_VIA, via))
        else:
            gateway = attribute(RTA_GATEWAY, socket.inet_pton(socket.AF_INET6, ipv6_gateway(peer)))
            yield _route(socket.AF_INET6, 64, socket.inet_pton(socket.AF_INET6, locator(peer)), index, gateway)
    if forwarding == "srv6" and ends:
        yield from _own_segments(node, int(wiring.interface_index[ends[0]]))


def _own_segments(node: int, index: int) -> Iterator[bytes]:
    """A node's own segments; Linux wants them at an interface, and does not use it.

    Of the ways to take headers off IPv6, that with a table (End.DT6) alone delivers to the node itself.
    """
    own4 = attribute(LOCAL_IPV4, socket.inet_aton(ipv4_address(node)))
    own6 = u32(LOCAL_TABLE, RT_TABLE_LOCAL)
    does = (SEGMENT_END, ACTION_END, b""), (SEGMENT_IPV4, ACTION_IPV4, own4), (SEGMENT_IPV6, ACTION_TABLE6, own6)
    for function, action, target in does:
        local = attribute(RTA_ENCAP, u32(LOCAL_ACTION, action) + target)
        local += attribute(RTA_ENCAP_TYPE, struct.pack("=H", LOCAL_SEGMENT))
        yield _route(socket.AF_INET6, 128, socket.inet_pton(socket.AF_INET6, segment(node, function)), index, local)


def _route(family: int, bits: int, address: bytes, index: int, more: bytes) -> bytes:
    body = RTMSG.pack(family, bits, 0, 0, RT_TABLE_MAIN, RTPROT_STATIC, 0, RTN_UNICAST, 0)
    body += attribute(RTA_DST, address) + u32(RTA_OIF, index) + more
    return message(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, body)


def allow_labels(netns_path: str, interfaces: dict[str, int]) -> None:
    """Let a node take labelled packets from its interfaces, whose labels are their indices."""

    def allow() -> None:
        enter_network(netns_path)
        _allow_labels(max(interfaces.values(), default=0))
        for name in interfaces:
            (MPLS_FOLDER / "conf" / name / "input").write_text("1")

    in_own_thread(allow)


def _allow_labels(last: int) -> None:
    (MPLS_FOLDER / "platform_labels").write_text(str(last + 1))


def check_steering(forwarding: str) -> None:
    """Refuse a run whose way of forwarding this kernel lacks; found by trying, in a throw-away namespace.

    Raises:
        NetworkError: it does.
    """
    with suppress(OSError):
        socket.socket(AF_MPLS, socket.SOCK_DGRAM).close()  # makes a kernel load its module
    if refused := in_own_thread(_refused, forwarding):
        what = {"srv6": "segment routing over IPv6 (seg6)", "mpls": "MPLS routes (mpls_router, mpls_iptunnel)"}
        raise NetworkError(
            f"routing.forwarding: this kernel has no {what[forwarding]} ({refused}), but the scenario asks for "
            f'"{forwarding}"; use --machine guest, or forwarding = "addresses"'
        )


def _refused(forwarding: str) -> str:
    unshare(CLONE_NEWNET)
    netlink, address = Netlink(), socket.inet_aton(ipv4_address(1))
    try:
        told = label_wraps(np.array([[1]])) if forwarding == "mpls" else segment_wraps(np.array([[1]]), SEGMENT_IPV4)
        kind = WRAP_MPLS if forwarding == "mpls" else WRAP_SEGMENTS
        way = attribute(RTA_ENCAP, told.tobytes()) + attribute(RTA_ENCAP_TYPE, struct.pack("=H", kind))
        needs = [link_up(LOOPBACK_INDEX), _route(socket.AF_INET, 32, address, LOOPBACK_INDEX, way)]
        if forwarding == "srv6":
            needs += _own_segments(0, LOOPBACK_INDEX)
        elif not MPLS_FOLDER.is_dir():
            return "AF_MPLS"
        netlink.send(needs)
        return ", ".join(str(refusal) for refusal in netlink.refusals() if refusal.errno != errno.EINVAL)
    finally:
        netlink.close()
