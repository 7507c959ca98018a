"""Several next hops at once, and disjoint paths: against linear programming and against each other."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from click.testing import CliRunner
from scipy.optimize import linprog

from isl_emu.cli import cli
from isl_emu.errors import ScenarioError
from isl_emu.linkplan.plan import LinkPlan
from isl_emu.network.naming import hosts_file
from isl_emu.parts.probes.results import probe_row
from isl_emu.routing.aliases import DisjointSearch, Way
from isl_emu.routing.forwarding import GROUP_BASE, NO_ROUTE, plan_routes
from isl_emu.routing.paths import Extent, PathFinder
from isl_emu.scenario.model import Routing
from isl_emu.scenario.parse import parse_scenario
from isl_emu.tables.planned_paths import PlannedPaths
from tests.plans import MS
from tests.scenarios import SMALL
from tests.unit.test_forwarding import Link, make_plan

SQUARE = [(0, 1, 100), (0, 2, 101), (1, 3, 100), (2, 3, 100)]
NAMES = [["n0", "n3"]]


def routing(**table: object) -> Routing:
    return Routing.model_validate(_tuples(table))


def _tuples(value: object) -> object:
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def ecmp(**settings: object) -> Routing:
    return routing(policy="ecmp", **settings)


def test_next_hops_within_the_tolerance_form_a_group() -> None:
    plan = make_plan(4, 0, [SQUARE])
    routes = plan_routes(plan, ecmp(tolerance="1 ns"))
    assert set(routes.groups) == {(0, 1), (2, 3), (0, 2), (1, 3)}  # also from corner 1 to corner 2 and back
    finder = PathFinder(plan, routes)
    assert routes.links_of(finder.next_hop(0, 3, 0)) == (0, 1)
    assert finder.next_hop(1, 3, 0) == 2
    assert finder.path(0, 3, 0).nodes == (0, 1, 3)
    assert [path.nodes for path in finder.paths(0, 3, 0, most=9)] == [(0, 1, 3), (0, 2, 3)]
    assert finder.extent(0, 3, 0) == Extent(200, 201, 2, 2)
    assert plan_routes(plan, ecmp(tolerance="0 ns")).groups == ()


def test_without_groups_there_is_one_path_with_narrow_bounds() -> None:
    plan = make_plan(4, 0, [SQUARE])
    finder = PathFinder(plan, plan_routes(plan))
    assert [path.nodes for path in finder.paths(0, 3, 0, most=9)] == [(0, 1, 3)]
    assert finder.extent(0, 3, 0) == Extent(200, 200, 2, 2)
    assert PathFinder(make_plan(4, 0, [[]]), plan_routes(make_plan(4, 0, [[]]))).extent(0, 3, 0) is None


def test_equal_by_hops_whatever_the_delay() -> None:
    plan = make_plan(4, 0, [[(0, 1, 1), (0, 2, 10**7), (1, 3, 1), (2, 3, 10**7)]])
    routes = plan_routes(plan, ecmp(equal_by="hops"))
    assert (0, 1) in routes.groups
    assert PathFinder(plan, routes).extent(0, 3, 0) == Extent(2, 2 * 10**7, 2, 2)


def test_a_group_has_the_best_and_no_more_than_asked_for() -> None:
    fan = [(0, way, 100 - way) for way in range(1, 7)] + [(way, 7, 100) for way in range(1, 7)]
    plan = make_plan(8, 0, [fan])
    finder = PathFinder(plan, plan_routes(plan, ecmp(tolerance="1 us", next_hops=3)))
    assert sorted(path.nodes[1] for path in finder.paths(0, 7, 0, most=99)) == [4, 5, 6]


def test_groups_do_not_change_while_their_links_do_not() -> None:
    plan = make_plan(4, 0, [SQUARE, [(a, b, delay + 1) for a, b, delay in SQUARE], SQUARE[1:]])
    routes = plan_routes(plan, ecmp(tolerance="1 us"))
    assert np.diff(routes.row_start)[1] == 0
    assert PathFinder(plan, routes).extent(0, 3, 2) == Extent(201, 201, 2, 2)


def random_links(seed: int, nodes: int, links: int) -> list[Link]:
    random = np.random.default_rng(seed)
    pairs = list(combinations(range(nodes), 2))
    chosen = random.choice(len(pairs), links, replace=False)
    return [(*pairs[index], int(random.integers(1, 50))) for index in sorted(chosen)]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("by", ["delay", "hops"])
def test_whatever_next_hops_the_nodes_take_every_way_ends_at_the_destination(seed: int, by: str) -> None:
    plan = make_plan(9, 0, [random_links(seed, 9, 18)])
    routes = plan_routes(plan, ecmp(equal_by=by, tolerance="20 ns"))
    finder, plain = PathFinder(plan, routes), PathFinder(plan, plan_routes(plan))
    for source, destination in combinations(range(9), 2):
        shortest, paths = plain.path(source, destination, 0), finder.paths(source, destination, 0, most=1000)
        assert (shortest is None) == (paths == [])
        assert all(len(set(path.nodes)) == len(path.nodes) and path.nodes[-1] == destination for path in paths)
        if paths and by == "delay":
            bounds = finder.extent(source, destination, 0)
            assert paths[0].delay_ns == shortest.delay_ns == bounds.delay_least_ns
            assert paths[-1].delay_ns == bounds.delay_most_ns


def test_equal_next_hops_lead_through_no_station() -> None:
    plan = make_plan(3, 1, [[(0, 1, 10), (1, 2, 10), (0, 3, 1), (2, 3, 1), (1, 3, 1)]])
    finder = PathFinder(plan, plan_routes(plan, ecmp(tolerance="1 ms")))
    assert [path.nodes for path in finder.paths(0, 2, 0, most=9)] == [(0, 1, 2)]
    assert [path.nodes for path in finder.paths(3, 2, 0, most=9)] == [(3, 2), (3, 1, 2), (3, 0, 1, 2)]


# ---------------------------------------------------------------- disjoint paths


def least_total(links: list[Link], nodes: int, count: int, separate_nodes: bool) -> float | None:
    """The least total delay of `count` disjoint paths from the first to the last node, by linear programming."""
    arcs = [(a, b, delay) for a, b, delay in links] + [(b, a, delay) for a, b, delay in links]
    balance = np.zeros((nodes, len(arcs)))
    for number, (a, b, _) in enumerate(arcs):
        balance[a, number] += 1
        balance[b, number] -= 1
    wanted = np.zeros(nodes)
    wanted[[0, -1]] = count, -count
    both = np.array([[number % len(links) == link for number in range(len(arcs))] for link in range(len(links))])
    entered = np.array([[b == node for _, b, _ in arcs] for node in range(1, nodes - 1)])
    limits = np.concatenate([both, entered]) if separate_nodes else both
    cost = [delay for _, _, delay in arcs]
    found = linprog(cost, limits.astype(float), np.ones(len(limits)), balance, wanted, bounds=(0, 1))
    return found.fun if found.success else None


def check_disjoint(ways: list[Way], plan: LinkPlan, separate_nodes: bool) -> None:
    links = [link for _, links in ways for link in links]
    assert len(links) == len(set(links))
    if separate_nodes:
        inner = [node for nodes, _ in ways for node in nodes[1:-1]]
        assert len(inner) == len(set(inner))
    for nodes, way_links in ways:
        for here, there, link in zip(nodes[:-1], nodes[1:], way_links, strict=True):
            assert {here, there} == {int(plan.links.a[link]), int(plan.links.b[link])}


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("separate_nodes", [False, True])
@pytest.mark.parametrize("count", [2, 3])
def test_disjoint_paths_have_the_least_total_delay(seed: int, separate_nodes: bool, count: int) -> None:
    links = random_links(seed, 8, 14)
    plan = make_plan(8, 0, [links])
    ways = DisjointSearch(plan, 0, separate_nodes=separate_nodes).paths(0, 7, count)
    check_disjoint(ways, plan, separate_nodes)
    least = least_total(links, 8, count, separate_nodes)
    assert (len(ways) == count) == (least is not None)
    delays = [sum(int(plan.row_delay_ns[link]) for link in way_links) for _, way_links in ways]
    assert delays == sorted(delays)
    if least is not None:
        assert sum(delays) == pytest.approx(least)


def test_the_shortest_path_is_given_up_where_it_bars_the_second() -> None:
    """The trap of Suurballe's paper: without 1-2 there are two disjoint paths, after taking 0-1-2-3 there are none."""
    trap = [(0, 1, 1), (1, 2, 1), (2, 3, 1), (0, 2, 10), (1, 3, 10)]
    plan = make_plan(4, 0, [trap])
    ways = DisjointSearch(plan, 0, separate_nodes=False).paths(0, 3, 2)
    assert sorted(nodes for nodes, _ in ways) == [(0, 1, 3), (0, 2, 3)]


def test_disjoint_paths_lead_through_no_other_station() -> None:
    plan = make_plan(3, 2, [[(0, 1, 10), (1, 2, 10), (0, 3, 1), (2, 3, 1), (0, 4, 5), (2, 4, 5)]])
    ways = DisjointSearch(plan, 0, separate_nodes=False).paths(0, 2, 2)
    assert [nodes for nodes, _ in ways] == [(0, 1, 2)]
    assert len(DisjointSearch(plan, 0, separate_nodes=False).paths(3, 4, 2)) == 2


GRID = [*SQUARE, (1, 2, 5), (3, 4, 7)]


def disjoint(**settings: object) -> Routing:
    return routing(disjoint={"pairs": NAMES, **settings})


def test_each_path_has_an_address_at_either_end_and_the_same_links_both_ways() -> None:
    plan = make_plan(5, 0, [GRID])
    routes = plan_routes(plan, disjoint())
    aliases = routes.aliases
    assert routes.destinations.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8]
    assert aliases.owner.tolist() == [3, 0, 3, 0]
    assert aliases.between(0, 3) == [0, 2]
    assert aliases.between(3, 0) == [1, 3] == [aliases.back(alias) for alias in (0, 2)]
    finder = PathFinder(plan, routes)
    there, back = finder.disjoint_paths(0, 3, 0), finder.disjoint_paths(3, 0, 0)
    assert [path.nodes for path in there] == [(0, 1, 3), (0, 2, 3)]
    assert [path.nodes[::-1] for path in back] == [(0, 1, 3), (0, 2, 3)]


def test_off_its_path_an_alias_is_forwarded_like_its_node() -> None:
    plan = make_plan(5, 0, [GRID])
    finder = PathFinder(plan, plan_routes(plan, disjoint()))
    for alias in range(5, 9):
        assert all(finder.path(node, alias, 0) is not None for node in range(5))
    assert finder.path(4, 6, 0).nodes == (4, 3, 1, 0)
    assert finder.path(4, 8, 0).nodes == (4, 3, 2, 0)


def test_a_path_that_is_not_there_has_no_route() -> None:
    plan = make_plan(5, 0, [GRID, [link for link in GRID if link[:2] not in ((0, 2), (1, 2))], GRID])
    routes = plan_routes(plan, disjoint())
    finder = PathFinder(plan, routes)
    assert [path and path.nodes for path in finder.disjoint_paths(0, 3, 1)] == [(0, 1, 3), None]
    assert finder.next_hop(4, 7, 1) == NO_ROUTE
    assert finder.disjoint_paths(0, 3, 2)[1].nodes == (0, 2, 3)


def test_owners_are_reached_even_if_nobody_asked_for_them() -> None:
    routes = plan_routes(make_plan(5, 0, [GRID]), disjoint(separate="nodes"), destinations=[4])
    assert routes.destinations.tolist() == [0, 3, 4, 5, 6, 7, 8]


def test_single_routes_stay_as_they_were() -> None:
    plan = make_plan(5, 0, [GRID])
    plain, more = plan_routes(plan), plan_routes(plan, disjoint())
    own = more.row_destination < 5
    assert more.row_link[own].tolist() == plain.row_link.tolist()
    assert plain.groups == () and plain.row_link.max() < GROUP_BASE


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        ('pairs = [["p00s00", "p00s99"]]', "routing.disjoint.pairs[0] names 'p00s99', but there is no such node"),
        ('pairs = [["p00s00", "p00s00"]]', "names 'p00s00' twice, but a path needs two nodes"),
        ('pairs = [["p00s00", "p00s01"], ["p00s01", "p00s00"]]', "pair 'p00s00 and p00s01' occurs 2 times"),
        ("pairs = []", "routing.disjoint.pairs"),
        ('pairs = [["p00s00", "p00s01"]]\npaths = 1', "routing.disjoint.paths is 1"),
    ],
)
def test_pairs_that_cannot_be_are_refused(table: str, complaint: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        parse_scenario(f"{SMALL}\n[routing.disjoint]\n{table}\n", "some.toml")
    assert complaint in str(caught.value)


# ---------------------------------------------------------------- what users see


def test_probes_are_right_anywhere_between_the_shortest_and_the_longest_path() -> None:
    plan = make_plan(4, 0, [[(0, 1, MS), (0, 2, 3 * MS // 2), (1, 3, MS), (2, 3, 3 * MS // 2)]])
    finder = PathFinder(plan, plan_routes(plan, ecmp(tolerance="10 ms")))
    paths = PlannedPaths(plan, finder, {0: 0})

    def error_ns(delay_ns: int) -> int:
        """Of a probe that took so long, besides its time on the links."""
        record = {"a": "n0", "b": "n3", "t_send_ns": 0, "hops_seen": 2}
        serialised_ns = probe_row(record, paths)["planned_serialisation_ns"]
        row = probe_row({**record, "delay_ns": delay_ns + serialised_ns}, paths)
        assert (row["planned_delay_ns"], row["planned_delay_most_ns"]) == (2 * MS, 3 * MS)
        assert (row["hops_least"], row["hops_most"]) == (2, 2)
        return row["error_ns"]

    assert [error_ns(half * MS // 2) for half in (3, 4, 5, 6, 7)] == [-MS // 2, 0, 0, 0, MS // 2]


def test_the_command_line_prints_all_paths(tmp_path) -> None:
    disjoint_table = '[routing.disjoint]\npairs = [["p00s00", "p00s03"]]\n'
    (tmp_path / "ring.toml").write_text(f'{SMALL}\n[routing]\npolicy = "ecmp"\ntolerance = "1 s"\n{disjoint_table}')
    result = CliRunner().invoke(cli, ["path", str(tmp_path / "ring.toml"), "p00s00", "p00s03", "--at", "0 s"])
    assert result.exit_code == 0, result.output
    assert "from p00s00 to p00s03, 3 hops, one way, at 0 ns\n" in result.output
    assert "3 hops, one way, at 0 ns, disjoint path 1: p00s03.from-p00s00.1" in result.output
    assert "9 hops, one way, at 0 ns, disjoint path 2: p00s03.from-p00s00.2" in result.output
    other = CliRunner().invoke(cli, ["path", str(tmp_path / "ring.toml"), "p00s00", "p00s06", "--at", "0 s"])
    assert "6 hops, one way, at 0 ns, equal path 2 of 2" in other.output
    assert "disjoint" not in other.output


def test_every_alias_has_a_name_of_its_own_in_the_hosts_file() -> None:
    routes = plan_routes(make_plan(5, 0, [GRID]), disjoint())
    lines = hosts_file(["n0", "n1", "n2", "n3", "n4"], routes.aliases).splitlines()
    assert "10.0.0.6 n3.from-n0.1" in lines
    assert "10.0.0.9 n0.from-n3.2" in lines
    assert "fd00::9 n0.from-n3.2 n0.from-n3.2.ip6" in lines
