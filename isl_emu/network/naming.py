"""What the interfaces and addresses of a run are; a pure function of the plan.

Node i of the plan has the loopback addresses 10.0.0.0 + (i + 1) and fd00:: + (i + 1), and so has alias i, which is
numbered on from the nodes: one more address of a node, for a path of its own. Links are unnumbered; those that are left
to routing daemons can have numbers: end e is then 172.16.0.0 + e, so a link is a /31. The two ends of link l are the
ends 2 l (at the link's node a) and 2 l + 1 (at its node b); an end's hardware address and interface index follow from
that number, so nothing that is made in the kernel has to be asked for its name again. Segments of node i begin with
fc00:: + (i + 1) in the first 64 bits; an end's MPLS label, in its node, is its interface's index.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from isl_emu.linkplan.plan import LinkPlan
from isl_emu.routing.aliases import NO_ALIASES, Aliases

INTERFACE_NAME_LENGTH = 15  # IFNAMSIZ is 16 with the closing zero, linux/if.h
FIRST_INTERFACE_INDEX = 1000  # far above what a new namespace may hold by itself (lo, sit0, gre0, ...)
IPV4_BASE = int(ipaddress.IPv4Address("10.0.0.0"))
LINK_BASE = int(ipaddress.IPv4Address("172.16.0.0"))
MOST_LINK_ENDS = 1 << 20  # of 172.16.0.0/12, RFC 1918
IPV6_BASE = int(ipaddress.IPv6Address("fd00::"))
IPV6_GATEWAY_BASE = int(ipaddress.IPv6Address("fe80::"))
LOCATOR_BASE = int(ipaddress.IPv6Address("fc00::"))
SEGMENT_END, SEGMENT_IPV4, SEGMENT_IPV6 = 1, 4, 6  # send on to the next segment; unwrap what is for the node itself
IPV4_FIRST = "precedence ::ffff:0:0/96 100\n"  # gai.conf(5): of a name's two addresses programs take this one first
BOTH_FAMILIES = "multi on\n"  # host.conf(5): a name may stand in several lines of /etc/hosts
NO_END = -1
MAC_BASE = 0x02_00_00_00_00_00  # the bit that says: locally administered (IEEE 802, section 8.4)


def ipv4_address(node: int) -> str:
    """The IPv4 loopback address of node `node`."""
    return str(ipaddress.IPv4Address(IPV4_BASE + node + 1))


def ipv6_address(node: int) -> str:
    """The IPv6 loopback address of node `node`."""
    return str(ipaddress.IPv6Address(IPV6_BASE + node + 1))


def link_address(end: int) -> str:
    """The IPv4 address of link end `end` where links are numbered; it shares a /31 with the other end (RFC 3021)."""
    return str(ipaddress.IPv4Address(LINK_BASE + end))


def ipv6_gateway(node: int) -> str:
    """The link-local address by which neighbours route to node `node`."""
    return str(ipaddress.IPv6Address(IPV6_GATEWAY_BASE + node + 1))


def locator(node: int) -> str:
    """The prefix of 64 bits that all segments of node `node` have, by which its neighbours route to it."""
    return str(ipaddress.IPv6Address(LOCATOR_BASE + (node + 1 << 64)))


def segment(node: int, function: int) -> str:
    """The segment identifier of what node `node` does with a packet (RFC 8986): `SEGMENT_END` and the like."""
    return str(ipaddress.IPv6Address(LOCATOR_BASE + (node + 1 << 64) + function))


def packed(base: int, numbers: np.ndarray, layout: np.dtype | str) -> np.ndarray:
    """Addresses base + number in network order, of a type of 4 or 16 bytes; shape as `numbers`, (C,).

    The base ends in 32 zero bits or the sum stays within them.
    """
    size = np.dtype(layout).itemsize
    rows = np.zeros((len(numbers), size // 4), ">u4")
    rows[:] = np.frombuffer(base.to_bytes(size, "big"), ">u4")
    rows[:, -1] += np.asarray(numbers, np.int64).astype(">u4")
    return rows.view(layout).ravel()


def ipv4_packed(nodes: np.ndarray) -> np.ndarray:
    """The IPv4 loopback addresses of nodes (C,), in network order."""
    return packed(IPV4_BASE, nodes + 1, "V4")


def ipv6_packed(nodes: np.ndarray) -> np.ndarray:
    """The IPv6 loopback addresses of nodes (C,), in network order."""
    return packed(IPV6_BASE, nodes + 1, "V16")


def gateway_packed(nodes: np.ndarray) -> np.ndarray:
    """The link-local addresses by which neighbours route to nodes (C,), in network order."""
    return packed(IPV6_GATEWAY_BASE, nodes + 1, "V16")


def link_packed(ends: np.ndarray) -> np.ndarray:
    """The IPv4 addresses of link ends (C,) where links are numbered, in network order."""
    return packed(LINK_BASE, ends, "V4")


def mac_address(end: int) -> str:
    """The hardware address of the interface at link end `end`."""
    return ":".join(f"{byte:02x}" for byte in mac_bytes(end))


def mac_bytes(end: int) -> bytes:
    """The hardware address of the interface at link end `end`, 6 bytes."""
    return (MAC_BASE + end).to_bytes(6, "big")


def mac_rows(ends: np.ndarray) -> np.ndarray:
    """The hardware addresses of the interfaces at link ends (C,); uint8, (C, 6)."""
    return (MAC_BASE + ends.astype(np.int64)).astype(">u8").view(np.uint8).reshape(-1, 8)[:, 2:]


def interface_name(peer: str, link: int) -> str:
    """The name of the interface that leads to `peer` over `link`: telling where it fits into 15 characters.

    A longer name is cut and made unique by the link's number; the underscore keeps it apart from every node name.
    """
    name = f"to-{peer}"
    if len(name) <= INTERFACE_NAME_LENGTH:
        return name
    number = f"_{link:x}"
    return name[: INTERFACE_NAME_LENGTH - len(number)] + number


@dataclass(frozen=True)
class Wiring:
    """Where the 2L link ends sit; the index of each array is the end.

    Args:
        node: int32 (2L,), the node at this end.
        peer: int32 (2L,), the node at the other end.
        interface_index: int32 (2L,), the interface's number in its node's namespace.
        interface: name of each end's interface.
    """

    node: np.ndarray
    peer: np.ndarray
    interface_index: np.ndarray
    interface: tuple[str, ...]

    def end(self, node: np.ndarray, link: np.ndarray) -> np.ndarray:
        """The end of `link` that is at `node`, for arrays of both."""
        end: np.ndarray = 2 * link + (self.node[2 * link] != node)
        return end

    def ends_at(self, node: np.ndarray, interface_index: np.ndarray) -> np.ndarray:
        """The ends whose interfaces have these numbers in these nodes, NO_END where there is none; int64, (C,)."""
        order, keys = self._by_interface
        asked = _interface_keys(node, interface_index)
        place = np.searchsorted(keys, asked).clip(max=max(len(keys) - 1, 0))
        return np.where(keys[place] == asked, order[place], NO_END) if len(keys) else np.full(len(asked), NO_END)

    @cached_property
    def _by_interface(self) -> tuple[np.ndarray, np.ndarray]:
        keys = _interface_keys(self.node, self.interface_index)
        order = np.argsort(keys)
        return order, keys[order]

    def ends_by_node(self, nodes: int) -> list[np.ndarray]:
        """The ends at each of `nodes` nodes, in the order of their interface indices."""
        order = np.argsort(self.node, kind="stable")
        return np.split(order, np.searchsorted(self.node[order], np.arange(1, nodes)))


def _interface_keys(node: np.ndarray, interface_index: np.ndarray) -> np.ndarray:
    keys: np.ndarray = node.astype(np.int64) << 32 | interface_index
    return keys


def wire(plan: LinkPlan) -> Wiring:
    """Place the ends of all links of a plan."""
    links, names = plan.links, plan.nodes.names
    node = np.stack([links.a, links.b], axis=1).ravel().astype(np.int32)
    peer = np.stack([links.b, links.a], axis=1).ravel().astype(np.int32)
    interface = tuple(interface_name(names[other], end // 2) for end, other in enumerate(peer))
    order = np.argsort(node, kind="stable")
    rank = np.empty(len(node), np.int32)  # how many ends before it are at the same node
    rank[order] = np.arange(len(node)) - np.searchsorted(node[order], node[order], side="left")
    # Both ends of a pair with the same index look to the kernel like no pair, and it takes a second to see the carrier.
    index = FIRST_INTERFACE_INDEX + 2 * rank + np.arange(len(node), dtype=np.int32) % 2
    return Wiring(node, peer, index, interface)


def alias_names(names: Sequence[str], aliases: Aliases) -> list[str]:
    """What each alias is called: `gs-berlin.from-gs-chengdu.2` is gs-berlin by the second path from gs-chengdu."""
    rows = zip(aliases.owner.tolist(), aliases.user.tolist(), aliases.path.tolist(), strict=True)
    return [f"{names[owner]}.from-{names[user]}.{path + 1}" for owner, user, path in rows]


def hosts_file(names: Sequence[str], aliases: Aliases = NO_ALIASES) -> str:
    """The text of an /etc/hosts: nodes and aliases by name, and by name with `.ip6` appended by IPv6 alone."""
    lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback"]
    for node, name in enumerate([*names, *alias_names(names, aliases)]):
        lines += [f"{ipv4_address(node)} {name}", f"{ipv6_address(node)} {name} {name}.ip6"]
    return "\n".join(lines) + "\n"
