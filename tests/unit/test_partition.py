"""A plan in parts: even, deterministic, together what must be, and no link that crosses shorter than it says."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest

from isl_emu import api
from isl_emu.errors import MachineError, ScenarioError
from isl_emu.linkplan.plan import LinkKind, LinkPlan
from isl_emu.partition.cut import EVEN_RATIO, NO_LINK, Cut, cut
from tests.plans import MS, make_plan, ring_edges
from tests.scenarios import TOPOLOGIES


@pytest.fixture(scope="module")
def grid() -> LinkPlan:
    """A Walker delta of 27 planes of 13, and stations, for half an orbit."""
    scenario = api.load(TOPOLOGIES / "telesat-1015.toml")
    return api.plan(scenario, duration_s=3000, step_s=60).link_plan


def least_delay_ns(plan: LinkPlan, one: Cut, pair: tuple[int, int]) -> int:
    """The same as the lookahead of a pair of parts, row by row."""
    delays = [NO_LINK]
    for k in range(plan.grid.count):
        now = plan.snapshot(k)
        for link, delay_ns in zip(now.link.tolist(), now.delay_ns.tolist(), strict=True):
            if (one.part[plan.links.a[link]], one.part[plan.links.b[link]]) in (pair, pair[::-1]):
                delays.append(delay_ns)
    return min(delays)


@pytest.mark.parametrize("parts", [2, 3, 4])
def test_parts_are_even_with_whole_planes_and_a_true_lookahead(grid: LinkPlan, parts: int) -> None:
    found = cut(grid, parts)
    assert found.parts == parts and sorted(set(found.part.tolist())) == list(range(parts))
    assert found.imbalance_ratio <= EVEN_RATIO
    ends = found.part[grid.links.a], found.part[grid.links.b]
    assert found.crossing.tolist() == [link for link, (a, b) in enumerate(zip(*ends, strict=True)) if a != b]
    assert not (grid.links.kind[found.crossing] == LinkKind.INTRA_PLANE).any()
    assert found.lookahead_ns == found.pair_lookahead_ns.min() >= MS // 10
    for pair in [(one, other) for one in range(parts) for other in range(one + 1, parts)]:
        assert found.pair_lookahead_ns[pair] == found.pair_lookahead_ns[pair[::-1]] == least_delay_ns(grid, found, pair)
    assert (np.diag(found.pair_lookahead_ns) == NO_LINK).all()


def test_it_is_the_same_twice_and_one_part_is_all(grid: LinkPlan) -> None:
    assert (cut(grid, 4, seed=3).part == cut(grid, 4, seed=3).part).all()
    whole = cut(grid, 1)
    assert whole.lookahead_ns is None and not len(whole.crossing) and not whole.part.any()


def test_short_and_terrestrial_links_never_cross() -> None:
    """Of a ring with one short link and one line, both stay within a part, where an even cut could take them."""
    edges = ring_edges(8, 5 * MS) | {(3, 4): 1000}
    plan = make_plan(8, (), [edges, edges | {(0, 7): 5 * MS}])
    kind = plan.links.kind.copy()
    kind[plan.links.b - plan.links.a == 7] = LinkKind.TERRESTRIAL
    plan = replace(plan, links=replace(plan.links, kind=kind))
    found = cut(plan, 2)
    assert found.part[3] == found.part[4] and found.part[0] == found.part[7]
    assert found.lookahead_ns == 5 * MS and len(found.crossing) == 2


def test_jitter_shortens_the_lookahead_and_so_does_the_plan_without_faults() -> None:
    edges = ring_edges(6, 5 * MS)
    plain = make_plan(6, (), [edges])
    jitter = np.full(len(plain.row_link), 2 * MS)
    assert cut(replace(plain, row_jitter_ns=jitter), 2).lookahead_ns == 3 * MS
    assert cut(replace(plain, without_faults=make_plan(6, (), [ring_edges(6, 4 * MS)])), 2).lookahead_ns == 4 * MS


def test_load_and_traffic_move_the_cut() -> None:
    """Of a ring, a heavy node is with few others, and links that carry much do not cross."""
    plan = make_plan(12, (), [ring_edges(12, 5 * MS)])
    heavy = cut(plan, 2, node_load=np.array([11.0, *[1.0] * 11]))
    assert heavy.load.tolist() == [11.0, 11.0] and (heavy.part == heavy.part[0]).sum() == 1
    messages = np.full(12, 100.0)
    quiet = [link for link in range(12) if (plan.links.a[link], plan.links.b[link]) in ((1, 2), (7, 8))]
    messages[quiet] = 1.0
    light = cut(plan, 2, link_messages=messages)
    assert light.crossing.tolist() == quiet and light.pair_messages.tolist() == [[0.0, 2.0], [2.0, 0.0]]


def test_what_cannot_be_cut_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make_plan(4, (), [ring_edges(4, 1000)])
    with pytest.raises(ScenarioError, match="parts: is 5, but the plan has 4 nodes; choose"):
        cut(plan, 5)
    with pytest.raises(ScenarioError, match=r"1 groups of nodes .* 0.1 ms or more, .*; choose fewer parts"):
        cut(plan, 2)
    with pytest.raises(ScenarioError, match="parts: is 0"):
        cut(plan, 0)
    monkeypatch.setitem(sys.modules, "pymetis", None)
    with pytest.raises(MachineError, match=r"pymetis: is not installed, but .*; install it with .*isl-emu\[cluster\]"):
        cut(make_plan(4, (), [ring_edges(4, MS)]), 2)
