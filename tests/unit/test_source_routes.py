from __future__ import annotations

import struct

import numpy as np
import pytest

from isl_emu.errors import NetworkError, ScenarioError
from isl_emu.network import steering
from isl_emu.network.naming import SEGMENT_IPV4, locator, segment
from isl_emu.network.steering import check_steering, label_wraps, segment_wraps
from isl_emu.routing.forwarding import NO_ROUTE, RoutePlan, plan_routes
from isl_emu.routing.source_routes import MOST_LABELS, SourceRoutes, check_headers, header_byte
from isl_emu.scenario.routing import DisjointPaths, Routing
from tests.plans import MS, make_plan, ring_edges

LINE = make_plan(5, [], [{(0, 1): MS, (1, 2): MS, (2, 3): MS, (3, 4): MS}])  # links are numbered in this order
TO_4 = (np.arange(4), np.full(4, 4), np.arange(4))


def ways_of_line(routes: RoutePlan | None = None) -> SourceRoutes:
    return SourceRoutes(LINE, routes or plan_routes(LINE), "mpls")


def found(way: tuple[np.ndarray, np.ndarray, np.ndarray]) -> dict[tuple[int, int], list[int]]:
    node, destination, links = (part.tolist() for part in way)
    return {(a, b): [link for link in row if link >= 0] for a, b, row in zip(node, destination, links, strict=True)}


def test_a_way_is_all_links_to_the_destination():
    assert found(ways_of_line().change(*TO_4)) == {(0, 4): [0, 1, 2, 3], (1, 4): [1, 2, 3], (2, 4): [2, 3], (3, 4): [3]}


def test_a_next_hop_changes_the_ways_of_all_that_lead_over_it_and_of_no_other():
    ways = ways_of_line()
    ways.change(*TO_4)
    gone = found(ways.change(np.array([1]), np.array([4]), np.array([NO_ROUTE])))
    assert gone == {(0, 4): [], (1, 4): []}  # node 0 still has a next hop, but nobody there knows the way on
    assert found(ways.change(np.array([1]), np.array([4]), np.array([1]))) == {(0, 4): [0, 1, 2, 3], (1, 4): [1, 2, 3]}


def test_all_changes_of_a_plan_together_lead_to_its_paths():
    before, after = ring_edges(6, MS), {(0, 1): MS, (1, 2): MS, (2, 3): MS, (3, 4): MS, (4, 5): MS}
    plan = make_plan(6, [], [before, after])
    routes, all_of = plan_routes(plan), dict[tuple[int, int], list[int]]()
    ways = SourceRoutes(plan, routes, "srv6")
    for k in range(2):
        changes = routes.changes(k)
        all_of |= found(ways.change(changes.node, changes.destination, changes.link))
    assert len(all_of[0, 5]) == 5 and len(all_of[5, 0]) == 5  # the ring is a line now
    assert {len(way) == abs(a - b) for (a, b), way in all_of.items()} == {True}


def test_a_way_to_an_alias_ends_at_its_node():
    plan = make_plan(4, [], [ring_edges(4, MS)])
    routes = plan_routes(plan, Routing(disjoint=DisjointPaths(pairs=(("p00s00", "p00s02"),))))
    changes = routes.changes(0)
    ways = found(SourceRoutes(plan, routes, "srv6").change(changes.node, changes.destination, changes.link))
    both = {tuple(ways[0, 4 + alias]) for alias in routes.aliases.between(0, 2)}
    assert {len(way) for way in both} == {2} and len({link for way in both for link in way}) == 4


def test_next_hops_in_a_loop_are_refused():
    with pytest.raises(ScenarioError, match="are a loop"):
        ways_of_line().change(np.array([0, 1]), np.array([4, 4]), np.array([0, 0]))


def test_headers_are_as_long_as_their_rfcs_say():
    assert header_byte("srv6", 3) == [40 + 8 + 3 * 16] * 3
    assert header_byte("mpls", 3) == [8, 4, 0]  # the last node but one takes the last label off
    assert header_byte("addresses", 2) == [0, 0]


def test_the_longest_packet_is_that_of_the_narrowest_link():
    ways = ways_of_line()
    assert ways.mtu_byte(np.array([[0, 1, NO_ROUTE]])).tolist() == [int(LINE.links.mtu_byte[:2].min())]


def test_ways_that_leave_too_little_for_ipv6_are_refused():
    plan = make_plan(14, [], [{(slot, slot + 1): MS for slot in range(13)}])
    with pytest.raises(ScenarioError, match=r"has 11 links and 224 bytes of headers.*raise mtu .* to 1504 B"):
        check_headers(plan, plan_routes(plan, destinations=[11]), "srv6")
    check_headers(plan, plan_routes(plan), "mpls")


def test_more_labels_than_linux_writes_are_refused():
    count = MOST_LABELS + 3
    plan = make_plan(count, [], [{(slot, slot + 1): MS for slot in range(count - 1)}])
    with pytest.raises(ScenarioError, match="Linux writes at most 30 labels"):
        check_headers(plan, plan_routes(plan, destinations=[count - 1]), "mpls")


def test_a_label_stack_ends_in_the_label_at_its_bottom():
    told = label_wraps(np.array([[1003, 1000]], np.int32))[0].tobytes()
    assert struct.unpack_from("=HH", told) == (12, 1)  # MPLS_IPTUNNEL_DST
    assert [word >> 12 for word in struct.unpack_from("!II", told, 4)] == [1003, 1000]
    assert [word & 0xFFF for word in struct.unpack_from("!II", told, 4)] == [0, 0x100]


def test_a_segment_list_is_written_from_its_end():
    told = segment_wraps(np.array([[1, 70_000]], np.int32), SEGMENT_IPV4)[0].tobytes()
    assert struct.unpack_from("=HHi", told) == (8 + 8 + 32, 1, 1)  # SEG6_IPTUNNEL_SRH, the mode ENCAP
    assert tuple(told[8:14]) == (0, 4, 4, 1, 1, 0)  # RFC 8754, section 2
    words = [segment(int.from_bytes(told[at : at + 8], "big") % 2**32 - 1, told[at + 15]) for at in (16, 32)]
    assert words == [segment(70_000, SEGMENT_IPV4), segment(1, 1)] == ["fc00:0:1:1171::4", "fc00:0:0:2::1"]
    assert locator(70_000) == "fc00:0:1:1171::"


def test_a_kernel_that_lacks_it_is_told_in_one_sentence(monkeypatch):
    monkeypatch.setattr(steering, "in_own_thread", lambda *_: "Operation not supported")
    with pytest.raises(NetworkError, match=r"has no MPLS routes .*Operation not supported.*use --machine guest"):
        check_steering("mpls")
