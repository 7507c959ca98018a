from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from isl_emu.errors import ScenarioError
from isl_emu.linkplan.plan import LinkPlan, Nodes
from isl_emu.routing.forwarding import NO_ROUTE, plan_routes
from isl_emu.routing.paths import NodePath, PathFinder
from isl_emu.routing.policies import shortest_delay
from isl_emu.scenario.model import Routing
from tests import plans

Link = tuple[int, int, int]  # a, b, delay in ns


def make_plan(satellites: int, stations: int, instants: list[list[Link]]) -> LinkPlan:
    """A plan of given links; nodes are called n0, n1, ..., and those from `satellites` on are stations."""
    names = tuple(f"n{node}" for node in range(satellites + stations))
    delays = [{(a, b): delay_ns for a, b, delay_ns in links} for links in instants]
    plan = plans.make_plan(satellites, names[satellites:], delays)
    return replace(plan, nodes=Nodes(names, plan.nodes.kind))


def find(plan: LinkPlan, source: int, destination: int, k: int = 0) -> NodePath | None:
    return PathFinder(plan, plan_routes(plan)).path(source, destination, k)


LINE = [(0, 1, 10), (1, 2, 10), (2, 3, 10)]


def test_a_path_follows_the_line():
    path = find(make_plan(4, 0, [LINE]), 0, 3)
    assert path == NodePath((0, 1, 2, 3), (0, 1, 2), 30)
    assert path.hops == 3


def test_a_path_to_itself_has_no_hops():
    assert find(make_plan(4, 0, [LINE]), 2, 2) == NodePath((2,), (), 0)


def test_the_least_delay_wins_not_the_fewest_hops():
    assert find(make_plan(4, 0, [[*LINE, (0, 3, 31)]]), 0, 3).nodes == (0, 1, 2, 3)
    assert find(make_plan(4, 0, [[*LINE, (0, 3, 29)]]), 0, 3).nodes == (0, 3)


def test_of_equal_paths_the_lowest_link_wins_both_ways():
    plan = make_plan(4, 0, [[(0, 1, 10), (0, 2, 10), (1, 3, 10), (2, 3, 10)]])
    assert find(plan, 0, 3).nodes == (0, 1, 3)
    assert find(plan, 3, 0).nodes == (3, 1, 0)


def test_no_path_leads_through_a_station():
    plan = make_plan(4, 2, [[(0, 1, 100), (0, 4, 1), (1, 4, 1), (2, 4, 1), (3, 5, 1)]])
    assert find(plan, 0, 1).nodes == (0, 1), "though over the station it would be 2 ns"
    assert find(plan, 0, 2) is None
    assert find(plan, 4, 1).nodes == (4, 1)
    assert find(plan, 4, 5) is None


def test_two_stations_meet_over_one_satellite():
    assert find(make_plan(1, 2, [[(0, 1, 5), (0, 2, 7)]]), 1, 2) == NodePath((1, 0, 2), (0, 1), 12)


def test_a_station_picks_the_satellite_that_is_nearest_to_the_destination():
    plan = make_plan(3, 1, [[(0, 1, 10), (1, 2, 10), (0, 3, 1), (1, 3, 5)]])
    assert find(plan, 3, 2) == NodePath((3, 1, 2), (3, 2), 15)
    assert find(plan, 3, 0) == NodePath((3, 0), (1,), 1)


def test_links_of_no_length_do_not_make_loops():
    plan = make_plan(3, 0, [[(0, 1, 0), (0, 2, 10), (1, 2, 10)]])
    assert find(plan, 0, 2).nodes == (0, 2)
    assert find(plan, 1, 2).nodes == (1, 2)
    assert find(plan, 0, 1) == NodePath((0, 1), (0,), 0)


def test_only_changes_are_kept():
    plan = make_plan(4, 0, [LINE, [(a, b, delay + 3) for a, b, delay in LINE], [], LINE])
    routes = plan_routes(plan)
    assert np.diff(routes.row_start).tolist() == [12, 0, 12, 12]
    assert set(routes.changes(2).link.tolist()) == {NO_ROUTE}
    finder = PathFinder(plan, routes)
    assert [finder.path(0, 3, k) is not None for k in range(4)] == [True, True, False, True]
    assert finder.path(0, 3, 1).delay_ns == 39


def test_changes_are_ordered_by_node_and_destination():
    changes = plan_routes(make_plan(4, 0, [LINE])).changes(0)
    places = list(zip(changes.node.tolist(), changes.destination.tolist(), strict=True))
    assert places == [(node, destination) for node in range(4) for destination in range(4) if node != destination]


def test_only_the_destinations_asked_for_have_routes():
    plan = make_plan(4, 0, [LINE])
    routes = plan_routes(plan, destinations=[3, 1, 3])
    assert routes.destinations.tolist() == [1, 3]
    assert set(routes.row_destination.tolist()) == {1, 3}
    assert PathFinder(plan, routes).path(0, 2, 0) is None
    assert PathFinder(plan, routes).path(0, 3, 0).hops == 3


def test_a_plan_without_links_has_no_routes():
    routes = plan_routes(make_plan(3, 1, [[], []]))
    assert routes.row_start.tolist() == [0, 0, 0]
    empty = np.full((4, 4), NO_ROUTE)
    assert shortest_delay(make_plan(3, 1, [[]]), 0, np.arange(4), empty).tolist() == empty.tolist()


def policy(name: str, **settings: str) -> Routing:
    return Routing.model_validate({"policy": name, **settings})


def nodes_at(plan: LinkPlan, routing: Routing, source: int, destination: int) -> list[tuple[int, ...]]:
    """The path at every instant."""
    finder = PathFinder(plan, plan_routes(plan, routing))
    return [finder.path(source, destination, k).nodes for k in range(plan.grid.count)]


def test_fewest_hops_wins_over_delay_and_delay_among_equals():
    square = [(0, 1, 10), (1, 2, 10), (0, 2, 10**9), (0, 3, 5), (2, 3, 10**9)]
    assert nodes_at(make_plan(4, 0, [square]), policy("fewest-hops"), 0, 2) == [(0, 2)]
    equal = make_plan(4, 0, [[(0, 1, 9), (0, 2, 5), (1, 3, 1), (2, 3, 6)]])
    assert nodes_at(equal, policy("fewest-hops"), 0, 3) == [(0, 1, 3)]


DIAMOND = [(0, 1, 100), (0, 2, 101), (1, 3, 100), (2, 3, 100)]


def test_a_stable_path_stays_until_another_is_better_by_more_than_the_hysteresis():
    slowly = [[(0, 1, 100 + 2 * k), (0, 2, 101), (1, 3, 100), (2, 3, 100)] for k in range(8)]
    plan = make_plan(4, 0, slowly)
    assert nodes_at(plan, policy("shortest-delay"), 0, 3) == [(0, 1, 3)] + [(0, 2, 3)] * 7
    assert nodes_at(plan, policy("stable", hysteresis="5 ns"), 0, 3) == [(0, 1, 3)] * 4 + [(0, 2, 3)] * 4
    assert nodes_at(plan, policy("stable", hysteresis="0 ns"), 0, 3) == [(0, 1, 3)] + [(0, 2, 3)] * 7


def test_a_stable_path_is_given_up_when_its_link_is():
    plan = make_plan(4, 0, [DIAMOND, DIAMOND[1:], DIAMOND])
    assert nodes_at(plan, policy("stable", hysteresis="1 ms"), 0, 3) == [(0, 1, 3), (0, 2, 3), (0, 2, 3)]


def first_link(plan: LinkPlan, k: int, destinations: np.ndarray, before: np.ndarray) -> np.ndarray:
    """A user's policy: what it was, or the shortest at the beginning."""
    return before if k else shortest_delay(plan, k, destinations, before)


def wrong_shape(plan: LinkPlan, k: int, destinations: np.ndarray, before: np.ndarray) -> np.ndarray:
    return before[:1]


def test_a_users_own_policy_decides():
    plan = make_plan(4, 0, [DIAMOND, [(0, 1, 900), *DIAMOND[1:]]])
    assert nodes_at(plan, policy(f"{__name__}:first_link"), 0, 3) == [(0, 1, 3)] * 2


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("no.such:policy", "cannot be imported"),
        ("math:nothing", "cannot be imported"),
        (f"{__name__}:wrong_shape", "shape"),
    ],
)
def test_an_unusable_policy_of_a_user_is_refused(name, complaint):
    with pytest.raises(ScenarioError, match=complaint):
        plan_routes(make_plan(4, 0, [DIAMOND]), policy(name))


def _with_next_link(plan, node, destination, link):
    """The shortest routes with one entry of the first instant turned."""
    routes = plan_routes(plan)
    turned = (routes.row_node == node) & (routes.row_destination == destination)
    return PathFinder(plan, replace(routes, row_link=np.where(turned, link, routes.row_link)))


def test_a_loop_is_an_error():
    plan = make_plan(4, 0, [LINE])
    with pytest.raises(ScenarioError, match=r"routes: the path from n0 to n3 at 0 s is a loop"):
        _with_next_link(plan, 1, 3, 0).path(0, 3, 0)


def test_routes_of_another_plan_are_an_error():
    plan = make_plan(4, 0, [[*LINE, (0, 3, 99)], LINE])
    with pytest.raises(ScenarioError, match=r"at 1 s uses link 1, but that link is down"):
        _with_next_link(plan, 0, 3, 1).path(0, 3, 1)
