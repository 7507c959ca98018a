"""Routes by netlink: next hops as one buffer of messages, and back.

Every route leads to one loopback address, over one neighbour or several. IPv4 goes `via` the neighbour's loopback
address with `onlink`; IPv6 goes via a link-local address that only the permanent neighbour entry knows, because the
kernel checks any other gateway against the routes that it has at that moment. Routes are replaced in place, so that
there is never none.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from isl_emu.arrays import Ints
from isl_emu.network.naming import IPV4_BASE, IPV6_BASE, IPV6_GATEWAY_BASE, packed
from isl_emu.nodes.dumps import Pieces, joined_dumps
from isl_emu.nodes.netlink import (
    ATTRIBUTE,
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    NLM_F_REQUEST,
    attribute,
    message,
    u32,
)

RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26  # linux/rtnetlink.h, as are the following
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PREFSRC, RTA_METRICS, RTA_MULTIPATH = 1, 4, 5, 7, 8, 9
RTA_ENCAP_TYPE, RTA_ENCAP, RTAX_MTU = 21, 22, 2
RT_TABLE_MAIN, RTN_UNICAST, RTN_UNREACHABLE, RTNH_F_ONLINK = 254, 1, 7, 4
RTPROT_BEYOND = 152  # marks those to networks that are no nodes', which follow the routes to a node
RTPROT_ISL_EMU = 151  # marks our routes; the kernel leaves 5..255 to users (rtnetlink.h), and no known daemon has it

RTMSG = struct.Struct("=BBBBBBBBI")  # family, dst len, src len, tos, table, protocol, scope, type, flags
NEXT_HOP = struct.Struct("=HBBi")  # rtnexthop: length, flags, weight less 1, interface
NOBODY = -1


_REQUEST: list[Any] = [
    ("length", "u4"), ("type", "u2"), ("flags", "u2"), ("sequence", "u4"), ("port", "u4"),
    ("family", "u1"), ("dst_len", "u1"), ("src_len", "u1"), ("tos", "u1"),
    ("table", "u1"), ("protocol", "u1"), ("scope", "u1"), ("kind", "u1"), ("route_flags", "u4"),
]  # fmt: skip
_ADDRESS: dict[int, str] = {socket.AF_INET: "V4", socket.AF_INET6: "V16"}
_BASE: dict[int, int] = {socket.AF_INET: IPV4_BASE, socket.AF_INET6: IPV6_BASE}
_GATEWAY_BASE: dict[int, int] = {socket.AF_INET: IPV4_BASE, socket.AF_INET6: IPV6_GATEWAY_BASE}


@dataclass(frozen=True)
class Wrapping:
    """The headers that packets get which take some routes.

    Args:
        kind: LWTUNNEL_ENCAP_* of linux/lwtunnel.h.
        told: what the kernel is told of them; shape (C,), of a type of a multiple of 4 bytes.
        mtu_byte: the longest packet of each route, those headers included; shape (C,).
    """

    kind: int
    told: np.ndarray
    mtu_byte: np.ndarray


def route_messages(
    family: int,
    source: np.ndarray,
    destination: np.ndarray,
    peer: np.ndarray,
    interface_index: np.ndarray,
    wrapping: Wrapping | None = None,
) -> np.ndarray:
    """One message per route that makes or replaces it.

    Args:
        source: the node or alias whose address packets from here get; shape (C,) like all.
        destination: the node or alias that is reached.
        peer: the neighbour that it is reached through.
        interface_index: of the interface to that neighbour.
    """
    through = [*_attribute("oif", "u4"), *_attribute("gateway", _ADDRESS[family])]
    if wrapping:
        metric = np.dtype([("length", "u2"), ("type", "u2"), ("value", "u4")])
        through += [*_attribute("metric", metric), *_attribute("wrap", wrapping.told.dtype)]
        through += [*_attribute("wrap_kind", "u2"), ("padding", "u2")]
    rows = _new_routes(family, source, destination, through)
    rows["route_flags"] = RTNH_F_ONLINK if family == socket.AF_INET else 0
    _put(rows, "oif", RTA_OIF, interface_index)
    _put(rows, "gateway", RTA_GATEWAY, packed(_GATEWAY_BASE[family], peer + 1, rows["gateway"].dtype))
    if wrapping:
        rows["metric_length"], rows["metric_type"] = 4 + metric.itemsize, RTA_METRICS
        metrics = rows["metric"]
        metrics["length"], metrics["type"], metrics["value"] = metric.itemsize, RTAX_MTU, wrapping.mtu_byte
        _put(rows, "wrap", RTA_ENCAP, wrapping.told)
        _put(rows, "wrap_kind", RTA_ENCAP_TYPE, np.uint16(wrapping.kind))
    return rows


def multipath_messages(
    family: int, source: np.ndarray, destination: np.ndarray, peer: np.ndarray, interface_index: np.ndarray
) -> np.ndarray:
    """The same for routes over several neighbours, among which flows are spread evenly.

    Args:
        peer: the neighbours, as many for each route; shape (C, H).
        interface_index: of the interfaces to them; shape (C, H).
    """
    next_hop = np.dtype(
        [("length", "u2"), ("flags", "u1"), ("weight", "u1"), ("index", "i4"), *_attribute("gateway", _ADDRESS[family])]
    )
    rows = _new_routes(family, source, destination, _attribute("hops", next_hop, peer.shape[1:]))
    rows["hops_length"], rows["hops_type"] = 4 + rows.dtype["hops"].itemsize, RTA_MULTIPATH
    hops = rows["hops"]
    hops["length"], hops["index"] = next_hop.itemsize, interface_index
    hops["flags"] = RTNH_F_ONLINK if family == socket.AF_INET else 0
    gateway = packed(_GATEWAY_BASE[family], peer.ravel() + 1, next_hop["gateway"])
    _put(hops, "gateway", RTA_GATEWAY, gateway.reshape(peer.shape))
    return rows


def _new_routes(family: int, source: np.ndarray, destination: np.ndarray, through: list[Any]) -> np.ndarray:
    rows = _route_rows(family, destination, [*_attribute("source", _ADDRESS[family]), *through])
    rows["type"], rows["flags"] = RTM_NEWROUTE, NLM_F_REQUEST | NLM_F_REPLACE | NLM_F_CREATE
    _put(rows, "source", RTA_PREFSRC, packed(_BASE[family], source + 1, rows["source"].dtype))
    return rows


def led_on(rows: np.ndarray, network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> np.ndarray:
    """The same messages for a network of their family that lies beyond their destination; they are marked as such."""
    rows = rows.copy()
    rows["dst"], rows["dst_len"] = np.void(network.network_address.packed), network.prefixlen
    rows["protocol"] = RTPROT_BEYOND
    return rows


def beyond_route(
    network: ipaddress.IPv4Network | ipaddress.IPv6Network, gateway: str = "", interface_index: int = 0
) -> bytes:
    """Make a route to a network beyond the nodes: through somebody at an interface, or without: there is no way."""
    kind = RTN_UNICAST if gateway else RTN_UNREACHABLE
    family = socket.AF_INET if network.version == 4 else socket.AF_INET6
    body = RTMSG.pack(family, network.prefixlen, 0, 0, RT_TABLE_MAIN, RTPROT_BEYOND, 0, kind, 0)
    body += attribute(RTA_DST, network.network_address.packed)
    if gateway:
        body += attribute(RTA_GATEWAY, socket.inet_pton(family, gateway)) + u32(RTA_OIF, interface_index)
    return message(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, body)


def withdrawal_messages(family: int, destination: np.ndarray) -> np.ndarray:
    """One message per route that removes it, whatever it leads through."""
    rows = _route_rows(family, destination, [])
    rows["type"], rows["flags"] = RTM_DELROUTE, NLM_F_REQUEST
    return rows


def routes_question(family: int) -> bytes:
    """The body of a dump request for our routes of a family."""
    return RTMSG.pack(family, 0, 0, 0, 0, RTPROT_ISL_EMU, 0, 0, 0)


class NextHops(NamedTuple):
    """Where our routes among dumped ones lead, a row for each next hop; arrays have the shape (C,).

    Args:
        node: whose table it is in.
        destination: the node or alias that is reached, NOBODY where the address is none's.
        interface_index: of the interface that it leads over.
        peer: the neighbour that it leads through, NOBODY likewise.
        wrap: what it says of headers that packets get; empty where nothing.
    """

    node: Ints
    destination: Ints
    interface_index: Ints
    peer: Ints
    wrap: Pieces


def decode_routes(family: int, dumps: Mapping[int, Sequence[bytes]]) -> NextHops:
    """Our routes in the dumps of some nodes."""
    node, bodies = joined_dumps(dumps)
    ours = (bodies.values("u1", 4) == RT_TABLE_MAIN) & (bodies.values("u1", 5) == RTPROT_ISL_EMU)
    node, bodies = node[ours], bodies[ours]
    to, oif, gateway, several, wrap = bodies.attributes(
        RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_MULTIPATH, RTA_ENCAP, skip=RTMSG.size
    )
    gateways = _GATEWAY_BASE[family]
    one = np.flatnonzero(several.stop <= several.start)
    of, hops = several.parts()  # each with its length in front, as attributes
    (through,) = hops.attributes(RTA_GATEWAY, skip=NEXT_HOP.size - ATTRIBUTE.size)
    route = np.append(one, of)
    index = np.append(oif[one].values("u4", otherwise=0), hops.values("u4"))
    peer = np.append(_nodes(gateways, gateway[one], family), _nodes(gateways, through, family))
    destination = _nodes(_BASE[family], to, family)
    return NextHops(node[route], destination[route], index.astype(np.int64), peer, wrap[route])


def _attribute(name: str, *form: object) -> list[Any]:
    """The fields of an attribute: its length, its type and what it holds, which `_put` fills."""
    return [(f"{name}_length", "u2"), (f"{name}_type", "u2"), (name, *form)]


def _put(rows: np.ndarray, name: str, kind: int, values: np.ndarray | np.uint16) -> None:
    rows[f"{name}_length"], rows[f"{name}_type"], rows[name] = 4 + rows.dtype[name].itemsize, kind, values


def _route_rows(family: int, destination: np.ndarray, more: list[Any]) -> np.ndarray:
    """Messages about routes to destinations, still without what to do and without what is in `more`."""
    rows = np.zeros(len(destination), [*_REQUEST, *_attribute("dst", _ADDRESS[family]), *more])
    layout = rows.dtype
    rows["length"], rows["sequence"] = layout.itemsize, np.arange(len(destination))
    rows["family"], rows["dst_len"], rows["table"] = family, 8 * layout["dst"].itemsize, RT_TABLE_MAIN
    rows["protocol"], rows["kind"] = RTPROT_ISL_EMU, RTN_UNICAST
    _put(rows, "dst", RTA_DST, packed(_BASE[family], destination + 1, layout["dst"]))
    return rows


def _nodes(base: int, addresses: Pieces, family: int) -> Ints:
    """Whose addresses some are, NOBODY where nobody's; (C,)."""
    size = np.dtype(_ADDRESS[family]).itemsize
    node = addresses.values(">u4", size - 4, otherwise=0).astype(np.int64) - (base & 0xFFFF_FFFF) - 1
    front = Pieces(addresses.data, addresses.start, addresses.stop - 4)
    known = front.are(base.to_bytes(size, "big")[:-4]) & (node >= 0) & (node <= np.iinfo(np.int32).max)
    return np.where(known, node, NOBODY)
