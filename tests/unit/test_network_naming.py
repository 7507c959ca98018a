"""Names, addresses and interface numbers of a run's kernel objects."""

from __future__ import annotations

import ipaddress

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from isl_emu.network.naming import (
    hosts_file,
    interface_name,
    ipv4_address,
    ipv6_address,
    mac_address,
    wire,
)
from isl_emu.nodes.nodespaces import namespace_path
from tests.plans import MS, make_plan, ring_edges

NODE_NAME = st.from_regex(r"[a-z][a-z0-9-]{0,31}", fullmatch=True)


def test_names_carry_run_and_node() -> None:
    assert namespace_path("0a1b2c", "p00s03") == "/run/netns/isl-0a1b2c-p00s03"


def test_addresses_count_from_one() -> None:
    assert (ipv4_address(0), ipv4_address(255), ipv4_address(65_535)) == ("10.0.0.1", "10.0.1.0", "10.1.0.0")
    assert (ipv6_address(0), ipv6_address(65_535)) == ("fd00::1", "fd00::1:0")


def test_hardware_addresses_are_local_unicast() -> None:
    first_octet = int(mac_address(2**31 - 1).split(":")[0], 16)
    assert mac_address(258) == "02:00:00:00:01:02"
    assert first_octet & 0b11 == 0b10


def test_a_name_that_fits_tells_the_neighbour() -> None:
    assert interface_name("gs-chengdu-1", 7) == "to-gs-chengdu-1"
    assert interface_name("gs-berlin-brandenburg", 0x2A) == "to-gs-berlin_2a"


@given(st.lists(st.tuples(NODE_NAME, st.integers(0, 2**31 - 1)), unique_by=lambda pair: pair[1], max_size=20))
def test_no_interface_name_is_too_long(neighbours: list[tuple[str, int]]) -> None:
    names = [interface_name(peer, link) for peer, link in neighbours]
    assert all(len(name) <= 15 and not set(name) & set("/: ") for name in names)
    long_ones = [interface_name(peer, link) for peer, link in neighbours if len(peer) > 12]
    assert len(set(long_ones)) == len(long_ones)


def test_wiring_of_a_ring() -> None:
    wiring = wire(make_plan(4, [], [ring_edges(4, MS)]))  # links 0-1, 0-3, 1-2, 2-3
    assert wiring.node.tolist() == [0, 1, 0, 3, 1, 2, 2, 3]
    assert wiring.peer.tolist() == [1, 0, 3, 0, 2, 1, 3, 2]
    assert wiring.interface[:4] == ("to-p00s01", "to-p00s00", "to-p00s03", "to-p00s00")
    assert [ends.tolist() for ends in wiring.ends_by_node(4)] == [[0, 2], [1, 4], [5, 6], [3, 7]]
    assert wiring.end(np.array([1, 2]), np.array([2, 2])).tolist() == [4, 5]


def test_interface_numbers_differ_within_a_node_and_within_a_pair() -> None:
    wiring = wire(make_plan(12, [], [ring_edges(12, MS)]))
    for ends in wiring.ends_by_node(12):
        assert len(set(wiring.interface_index[ends].tolist())) == len(ends)
    assert (wiring.interface_index[::2] != wiring.interface_index[1::2]).all()


def test_a_node_without_links_has_no_ends() -> None:
    wiring = wire(make_plan(3, ["gs-alone"], [ring_edges(3, MS)]))
    assert [len(ends) for ends in wiring.ends_by_node(4)] == [2, 2, 2, 0]


def test_hosts_file_names_every_node() -> None:
    lines = [line.split() for line in hosts_file(("p00s00", "gs-x")).splitlines()]
    assert ["10.0.0.2", "gs-x"] in lines
    assert ["fd00::2", "gs-x", "gs-x.ip6"] in lines
    assert all(ipaddress.ip_address(line[0]) for line in lines)
