"""Netlink messages, byte for byte where a fixed layout is promised to the kernel."""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct

import numpy as np

from isl_emu.network.desired import END
from isl_emu.network.messages import (
    decode_link,
    interface_address,
    link_up,
    new_trunks,
    new_veths,
    permanent_neighbours,
    veth_ends,
)
from isl_emu.network.naming import (
    NO_END,
    gateway_packed,
    ipv4_address,
    ipv4_packed,
    ipv6_address,
    ipv6_gateway,
    ipv6_packed,
    link_address,
    link_packed,
    mac_address,
    mac_rows,
)
from isl_emu.network.qdiscs import Qdiscs, decode_netems, decode_qdiscs, loss_seeds, netem_messages, root_counters
from isl_emu.network.routes import decode_routes, multipath_messages, route_messages, withdrawal_messages
from isl_emu.nodes.netlink import (
    HEADER,
    _refusal,
    attribute,
    attribute_rows,
    message,
    message_rows,
    repeated,
    split_attributes,
    split_messages,
    u32,
    u32_rows,
)

UP = np.array([(True, 5_000_000, 4_900_000, 100_000_000, 0.25, 0.125, 0.5, 300_000, 0, 12_000)], END)
DOWN = np.array([(False, 5_000_000, 4_900_000, 40_000_000_000, 0.25, 0.125, 0.5, 300_000, 0, 12_000)], END)


def body(rows: np.ndarray) -> bytes:
    """What follows the header of a single message, after a check of its length."""
    data = rows.tobytes()
    assert HEADER.unpack_from(data)[0] == len(data)
    return data[HEADER.size :]


def qdiscs_and_ends(*bodies: bytes, index: int = 1003) -> tuple[Qdiscs, np.ndarray]:
    """Dumped qdiscs of a node, of whom those at an interface are at end 6."""
    qdiscs = decode_qdiscs({0: bodies})
    return qdiscs, np.where(qdiscs.index == index, 6, NO_END)


def test_attributes_are_padded_and_split_again() -> None:
    data = attribute(3, b"abcde") + attribute(7, b"")
    assert len(data) == 12 + 4
    assert split_attributes(data) == {3: b"abcde", 7: b""}


def test_messages_are_split_again() -> None:
    data = message(16, 0, b"12345678") + message(17, 2, b"")
    assert [(kind, flags, part) for kind, flags, part in split_messages(data)] == [(16, 1, b"12345678"), (17, 3, b"")]


def test_netem_message_holds_the_whole_state() -> None:
    tcmsg, attributes = body(netem_messages(UP, np.array([1003]), create=False))[:20], None
    assert struct.unpack("=BxxxiIII", tcmsg) == (0, 1003, 0x10000, 0xFFFFFFFF, 0)
    attributes = split_attributes(body(netem_messages(UP, np.array([1003]), create=False))[20:])
    assert attributes[1] == b"netem\0"
    assert struct.unpack_from("=6I", attributes[2]) == (
        *(4_900_000 // 64, 2**31 - 1, 0x40000000, 0, 0x80000000, 300_000 // 64),
    )
    options = split_attributes(attributes[2][24:])
    assert struct.unpack("=IiIi", options[6]) == (12_500_000, 0, 0, 0)
    assert struct.unpack("=Q", options[8]) == (12_500_000,)
    assert struct.unpack("=q", options[10]) == (4_900_000,)
    assert struct.unpack("=q", options[11]) == (300_000,)
    assert struct.unpack("=2I", options[4]) == (0x20000000, 0)


def test_netem_reads_back_what_was_written() -> None:
    for states, loss_ratio in ((UP, 0x40000000 / 0xFFFFFFFF), (DOWN, 1.0)):
        found = decode_netems(*qdiscs_and_ends(body(netem_messages(states, np.array([1003]), create=True))))
        spoilt = 0x20000000 / 0xFFFFFFFF, 0x80000000 / 0xFFFFFFFF, 300_000
        shaped = 4_900_000, states["rate_bit_s"][0], 2**31 - 1, loss_ratio, *spoilt
        assert found.tolist() == [(6, *shaped, True, 0, 0, 0)]


def test_losses_of_each_end_follow_from_the_seed() -> None:
    seeds = loss_seeds(7, 3)
    assert seeds.tolist() == loss_seeds(7, 3).tolist() != loss_seeds(8, 3).tolist()
    assert len(set(seeds.tolist())) == 3
    rows = netem_messages(UP, np.array([1003]), create=True, seeds=seeds[:1])
    options = split_attributes(split_attributes(body(rows)[20:])[2][24:])
    assert struct.unpack("=Q", options[14]) == (seeds[0],)
    assert decode_netems(*qdiscs_and_ends(body(rows)))["plain"].tolist() == [True]


def test_what_a_root_counts_is_told_by_link_end() -> None:
    statistics = attribute(
        7, attribute(1, struct.pack("=QIxxxx", 9_000, 6)) + attribute(3, struct.pack("=5I", 1, 100, 41, 7, 9))
    )
    end = struct.pack("=BxxxiIII", 0, 1003, 0x10000, 0xFFFFFFFF, 0) + attribute(1, b"netem\0") + statistics
    other = struct.pack("=BxxxiIII", 0, 1, 0, 0xFFFFFFFF, 0) + attribute(1, b"noqueue\0") + statistics
    assert np.column_stack(root_counters(*qdiscs_and_ends(end, other))).tolist() == [[6, 9_000, 6, 41, 100, 1]]
    statistics = attribute(7, statistics[4:] + attribute(8, struct.pack("=Q", 2**32 + 6)))
    end = struct.pack("=BxxxiIII", 0, 1003, 0x10000, 0xFFFFFFFF, 0) + attribute(1, b"netem\0") + statistics
    assert root_counters(*qdiscs_and_ends(other, end)).sent_packets.tolist() == [2**32 + 6]


def test_other_qdiscs_and_other_interfaces_are_no_netem() -> None:
    netem = body(netem_messages(UP, np.array([1003]), create=True))
    fifo = struct.pack("=BxxxiIII", 0, 1003, 0, 0xFFFFFFFF, 0) + attribute(1, b"pfifo\0")
    assert len(decode_netems(*qdiscs_and_ends(netem, index=1005))) == 0
    assert len(decode_netems(*qdiscs_and_ends(fifo))) == 0


def test_jitter_and_reordering_set_by_somebody_are_seen() -> None:
    rows = netem_messages(UP, np.array([1003]), create=True)
    rows["jitter64_ns"], rows["gap"] = 10_000, 3
    found = decode_netems(*qdiscs_and_ends(body(rows)))
    assert found[["jitter_ns", "plain"]].tolist() == [(10_000, False)]


def test_netems_are_made_once_and_then_only_changed() -> None:
    assert netem_messages(UP, np.array([1]), create=True)["flags"].tolist() == [0x601]
    assert netem_messages(UP, np.array([1]), create=False)["flags"].tolist() == [0x001]


def test_ipv4_route_goes_onlink_via_the_neighbour() -> None:
    rows = route_messages(socket.AF_INET, *(np.array([value]) for value in (0, 300, 1, 1002)))
    data = body(rows)
    family, dst_len, *_, flags = struct.unpack_from("=BBBBBBBBI", data)
    attributes = split_attributes(data[12:])
    assert (family, dst_len, flags) == (socket.AF_INET, 32, 4)
    assert {kind: value.hex() for kind, value in attributes.items() if kind != 4} == {
        1: "0a00012d",  # 10.0.1.45
        5: "0a000002",
        7: "0a000001",
    }
    assert rows["flags"].tolist() == [0x501]  # request, replace, create


def hops(family: int, bodies: list[bytes]) -> set[tuple[int, ...]]:
    """Node, destination, interface and neighbour of each next hop in the dump of node 9."""
    found = decode_routes(family, {4: [], 9: bodies})
    return set(zip(*(column.tolist() for column in found[:4]), strict=True))


def test_routes_read_back_what_was_written() -> None:
    for family in (socket.AF_INET, socket.AF_INET6):
        rows = route_messages(family, *(np.array(values) for values in ([0, 0], [300, 2], [1, 70_000], [1002, 1004])))
        bodies = [part for _, _, part in split_messages(rows.tobytes())]
        assert hops(family, bodies) == {(9, 300, 1002, 1), (9, 2, 1004, 70_000)}


def test_routes_over_several_neighbours_read_back_too() -> None:
    for family in (socket.AF_INET, socket.AF_INET6):
        peers, indices = np.array([[1, 70_000, 3], [4, 5, 6]]), np.array([[1002, 1004, 1006], [1002, 1005, 1007]])
        rows = multipath_messages(family, np.array([0, 0]), np.array([300, 2]), peers, indices)
        bodies = [part for _, _, part in split_messages(rows.tobytes())]
        assert hops(family, bodies) == {
            *((9, 300, 1002, 1), (9, 300, 1004, 70_000), (9, 300, 1006, 3)),
            *((9, 2, 1002, 4), (9, 2, 1005, 5), (9, 2, 1007, 6)),
        }


def test_a_withdrawal_names_only_the_destination() -> None:
    rows = withdrawal_messages(socket.AF_INET, np.array([5, 6]))
    parts = [part for kind, _, part in split_messages(rows.tobytes()) if kind == 25]
    assert [list(split_attributes(part[12:])) for part in parts] == [[1], [1]]


def test_rows_are_the_messages_that_are_made_one_by_one() -> None:
    values, words = np.array([7, 2**31]), np.array([b"ab", b"cde"], "S3")
    rows = message_rows(16, 4, struct.pack("=I", 9), attribute_rows(3, u32_rows(5, values)), attribute_rows(1, words))
    one_by_one = [
        message(16, 4, struct.pack("=I", 9) + attribute(3, u32(5, value)) + attribute(1, word))
        for value, word in zip(values.tolist(), (b"ab\0", b"cde"), strict=True)
    ]
    assert [row.tobytes() for row in rows] == one_by_one
    assert len(message_rows(16, 4, u32_rows(5, values[:0]))) == 0
    assert [row.tobytes() for row in repeated(one_by_one[0], 2)] == one_by_one[:1] * 2


def test_addresses_are_packed_as_they_are_written() -> None:
    numbers = np.array([0, 254, 70_000])
    for packed, written in (
        (ipv4_packed, ipv4_address), (ipv6_packed, ipv6_address), (gateway_packed, ipv6_gateway),
        (link_packed, link_address),
    ):  # fmt: skip
        assert [ipaddress.ip_address(one.tobytes()).compressed for one in packed(numbers)] == list(
            map(written, numbers.tolist())
        )
    assert [bytes(one).hex(":") for one in mac_rows(numbers)] == list(map(mac_address, numbers.tolist()))


def ends(*names: str) -> np.ndarray:
    byte = np.full(len(names), 1514)
    return veth_ends(names, 1000 + np.arange(len(names)), mac_rows(np.arange(len(names))), byte, byte)


def test_veth_pairs_are_made_in_two_places_at_once() -> None:
    rows = new_veths(ends("to-b", "to-a-longer-one"), ends("to-c", "to-d"), np.array([77, 78]))
    assert [kind for kind, _, _ in split_messages(rows.tobytes())] == [16, 16]
    body_ = rows[1].tobytes()[HEADER.size :]
    assert decode_link(body_)[:2] == (1001, "to-a-longer-one")
    info = split_attributes(split_attributes(body_[16:])[18])
    assert info[1] == b"veth"
    peer = split_attributes(info[2])[1]
    assert decode_link(peer)[:2] == (1001, "to-d")
    told = split_attributes(peer[16:])
    assert (told[1], struct.unpack("=I", told[4]), struct.unpack("=I", told[28])) == (b"\2\0\0\0\0\1", (1500,), (78,))
    here = new_veths(ends("to-b"), ends("to-a"), None).tobytes()
    assert 28 not in split_attributes(split_attributes(split_attributes(split_attributes(here[32:])[18])[2])[1][16:])


def test_a_trunk_names_the_guest_and_the_link() -> None:
    rows = new_trunks(ends("to-b", "to-a"), np.array([1, 2]), np.array([70, 71]))
    info = split_attributes(split_attributes(rows[1].tobytes()[HEADER.size + 16 :])[18])
    assert info[1] == b"trunk"
    assert split_attributes(info[2]) == {1: struct.pack("=I", 2), 2: struct.pack("=I", 71)}


def test_interfaces_come_up_and_neighbours_stay() -> None:
    assert struct.unpack("=BxHiII", link_up(7)[HEADER.size :]) == (0, 0, 7, 1, 1)
    data = permanent_neighbours(ipv4_packed(np.array([1])), mac_rows(np.array([1])), np.array([7])).tobytes()
    assert struct.unpack_from("=BxxxiHBB", data, HEADER.size) == (socket.AF_INET, 7, 0x80, 0, 0)
    assert split_attributes(data[HEADER.size + 12 :]) == {1: bytes([10, 0, 0, 2]), 2: b"\2\0\0\0\0\1"}


def test_an_address_is_the_interfaces_own_and_asks_nobody() -> None:
    for address, family, flags, scope in (
        ("10.0.0.2", socket.AF_INET, 0, 0), ("fd00::2", socket.AF_INET6, 2, 0), ("fe80::2", socket.AF_INET6, 2, 253),
    ):  # fmt: skip
        data = interface_address(address, 31, 7)[HEADER.size :]
        assert struct.unpack_from("=BBBBI", data) == (family, 31, flags, scope, 7)
        both = socket.inet_pton(family, address)
        assert split_attributes(data[8:]) == {1: both, 2: both}


def test_a_refusal_says_which_message_and_why() -> None:
    reported = struct.pack("=i", -errno.ENOENT) + HEADER.pack(16, 36, 1, 42, 0) + attribute(1, b"no such thing\0")
    refusal = _refusal(2, 0x200, reported)
    assert (refusal.sequence, refusal.errno, str(refusal)) == (
        42,
        errno.ENOENT,
        "No such file or directory (no such thing)",
    )
    assert _refusal(2, 0, struct.pack("=i", 0) + HEADER.pack(16, 36, 1, 42, 0)) is None
