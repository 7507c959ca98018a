"""A plan in parts: even, deterministic, together what must be, and no link that crosses shorter than it says."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import numpy as np
import pytest

from isl_emu import api
from isl_emu.errors import MachineError, ScenarioError
from isl_emu.linkplan.plan import LinkKind, LinkPlan
from isl_emu.partition.cut import MEETING_S, MOST_UNEVEN_RATIO, NO_LINK, Cut, cut
from isl_emu.partition.load import END_S, HOP_S, LINK_END_S, SETTING_S, Flow, Load, load_of
from isl_emu.routing.forwarding import no_routes, plan_routes
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
def test_parts_are_even_enough_with_a_true_lookahead(grid: LinkPlan, parts: int) -> None:
    found = cut(grid, parts)
    assert found.parts == parts and sorted(set(found.part.tolist())) == list(range(parts))
    assert found.imbalance_ratio <= MOST_UNEVEN_RATIO
    ends = found.part[grid.links.a], found.part[grid.links.b]
    assert found.crossing.tolist() == [link for link, (a, b) in enumerate(zip(*ends, strict=True)) if a != b]
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


def loads(nodes: list[float], links: list[float] | None = None) -> Load:
    return Load(np.zeros(len(nodes)), np.array(nodes), np.array(links if links is not None else [0.0] * len(nodes)))


def test_a_longer_lookahead_is_worth_another_even_cut() -> None:
    """Of a ring in which some links are short, only long ones cross, though as many short ones could."""
    edges = ring_edges(12, 8 * MS) | {(0, 1): MS, (6, 7): MS, (3, 4): 2 * MS, (9, 10): 2 * MS}
    found = cut(make_plan(12, (), [edges]), 2, load=loads([1.0] * 12))
    assert found.lookahead_ns == 8 * MS and len(found.crossing) == 2 and found.load_s.tolist() == [6.0, 6.0]


def test_an_uneven_cut_is_taken_where_that_is_over_sooner() -> None:
    """A ring with two long links that part it 5 to 7: by them where meetings cost much, else evenly."""
    plan = make_plan(12, (), [ring_edges(12, MS) | {(0, 11): 100 * MS, (4, 5): 100 * MS}])
    meetings_s = MEETING_S * plan.grid.duration_ns / MS
    for load_s, sizes in ((meetings_s / 100, {5, 7}), (meetings_s * 100, {6})):
        found = cut(plan, 2, load=loads([load_s] * 12))
        assert set(np.bincount(found.part).tolist()) == sizes
        waiting_s = MEETING_S * plan.grid.duration_ns / found.lookahead_ns
        assert found.wall_s == pytest.approx(max(sizes) * load_s + waiting_s)
        assert found.speed_up == pytest.approx(12 * load_s / found.wall_s)


def test_all_parts_are_built_before_time_runs() -> None:
    """Two nodes have nearly all to do: a part for each of them, and as many to build in both."""
    build_s, run_s = np.ones(12), np.zeros(12)
    run_s[[0, 6]] = 100.0
    found = cut(make_plan(12, (), [ring_edges(12, 5 * MS)]), 2, load=Load(build_s, run_s, np.zeros(12)))
    assert found.build_s.tolist() == [6.0, 6.0] and found.run_s.tolist() == [100.0, 100.0]
    uneven = replace(found, build_s=np.array([3.0, 9.0]), run_s=np.array([106.0, 94.0]))
    assert uneven.wall_s - found.wall_s == pytest.approx(9.0 + 106.0 - 6.0 - 100.0)


def test_load_and_traffic_move_the_cut() -> None:
    """Of a ring, a heavy node is with few others, and links that carry much do not cross."""
    plan = make_plan(12, (), [ring_edges(12, 5 * MS)])
    heavy = cut(plan, 2, load=loads([11.0, *[1.0] * 11]))
    assert heavy.load_s.tolist() == [11.0, 11.0] and (heavy.part == heavy.part[0]).sum() == 1
    messages = np.full(12, 1e6)
    quiet = [link for link in range(12) if (plan.links.a[link], plan.links.b[link]) in ((1, 2), (7, 8))]
    messages[quiet] = 1.0
    light = cut(plan, 2, load=loads([1.0] * 12, messages.tolist()))
    assert light.crossing.tolist() == quiet and light.pair_packets.tolist() == [[0.0, 2.0], [2.0, 0.0]]
    assert light.packets == 2.0


def test_nodes_that_belong_together_are_in_one_part() -> None:
    """Nodes of a ring that are far from each other, with a line to one of them, and others."""
    plan = make_plan(12, (), [ring_edges(12, 5 * MS)])
    kind = plan.links.kind.copy()
    kind[(plan.links.a == 8) & (plan.links.b == 9)] = LinkKind.TERRESTRIAL
    plan = replace(plan, links=replace(plan.links, kind=kind))
    for parts in (2, 3):
        groups = [[plan.nodes.names[node] for node in nodes] for nodes in ((3, 8), (0, 6))]
        found = cut(plan, parts, load=loads([1.0] * 12), together=groups)
        assert len(set(found.part[[3, 8, 9]])) == len(set(found.part[[0, 6]])) == 1 and found.parts == parts
    with pytest.raises(ScenarioError, match="has 1 groups of nodes .* and 7 more being together"):
        cut(plan, 2, together=[plan.nodes.names])


def test_packets_are_expected_on_planned_paths() -> None:
    """Of a ring of 6 whose next hops are the nearer way round, one flow over two links at every instant."""
    plan = make_plan(6, (), [ring_edges(6, 5 * MS)] * 3)
    routes, names = plan_routes(plan), plan.nodes.names
    found, idle = (load_of(plan, routes, flows) for flows in ([Flow(names[1], names[3], 600.0)], []))
    ends = {(int(plan.links.a[link]), int(plan.links.b[link])) for link in np.flatnonzero(found.link_packets)}
    assert ends == {(1, 2), (2, 3)} and found.link_packets.max() == pytest.approx(600.0)
    more_s = found.run_s - idle.run_s
    assert more_s == pytest.approx([0.0, 600 * (END_S + HOP_S), 600 * HOP_S, 600 * END_S, 0.0, 0.0])
    assert not load_of(plan, no_routes(plan), [Flow(names[1], names[3], 600.0)]).link_packets.any()


def test_a_link_costs_what_changes_at_it() -> None:
    """Two links that are up at three instants, one of which has the same delay at two of them."""
    plan = make_plan(3, (), [{(0, 1): MS, (1, 2): MS}, {(0, 1): MS, (1, 2): 2 * MS}, {(0, 1): 2 * MS, (1, 2): 3 * MS}])
    first, second = LINK_END_S + 2 * SETTING_S, LINK_END_S + 3 * SETTING_S
    found = load_of(plan)
    assert found.build_s + found.run_s == pytest.approx([first, first + second, second])


def test_it_is_told_by_part() -> None:
    plan = make_plan(6, (), [ring_edges(6, 5 * MS)])
    found = cut(plan, 2, load=loads([1.0] * 6, [10.0] * 6))
    *lines, expected = found.text(plan).split("\n")
    told = [line.split() for line in lines[1:]]
    assert [row[:2] for row in told] == [["0", "3"], ["1", "3"], ["all", "6"]]
    assert [row[-4:] for row in told] == [["2", "20", "5.000", "ms"]] * 3
    assert "6.0 s on one guest" in expected and "200 an emulated second" in expected
    told = json.loads(json.dumps(found.to_json(plan)))
    assert told["part"] == found.part.tolist() and told["meetings_per_s"] == 200.0
    assert [row["load_share"] for row in told["parts"]] == [0.5, 0.5] and told["expected"]["wall_s"] == found.wall_s
    assert cut(plan, 1).text(plan).endswith("none crosses")


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
