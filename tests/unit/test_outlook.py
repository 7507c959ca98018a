"""What stations can reach: the same as by following each path alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from isl_emu import api
from isl_emu.linkplan.contacts import find_contacts
from isl_emu.routing import outlook
from isl_emu.routing.forwarding import RoutePlan, plan_routes
from isl_emu.routing.paths import PathFinder

ROOT = Path(__file__).parents[2]
STATIONS = ("gs-sanya", "gs-miyun")


@pytest.fixture(scope="module")
def plan() -> api.Plan:
    return api.plan(api.load(ROOT / "topologies" / "three-body.toml"), duration_s=60)


@pytest.fixture(scope="module")
def routes(plan: api.Plan) -> RoutePlan:
    return plan_routes(plan.link_plan)


def test_it_agrees_with_every_path_and_contact(plan: api.Plan, routes: RoutePlan, tmp_path: Path) -> None:
    links, satellites = plan.link_plan, plan.nodes[3:10]
    outlook.plan_outlook(links, routes, STATIONS, satellites).save(tmp_path / "o.npz")
    seen, finder, contacts = outlook.open_outlook(tmp_path / "o.npz"), PathFinder(links, routes), find_contacts(links)
    for k in range(0, links.grid.count, 7):
        t_ns = k * links.grid.step_ns
        for station in STATIONS:
            start, found = links.nodes.index(station), {}
            for name in satellites:
                node = links.nodes.index(name)
                path = finder.path(start, node, k)
                own = np.flatnonzero((links.links.a == node) & (links.links.b == start))
                now = np.isin(contacts.link, own) & (contacts.start_ns <= t_ns) & (t_ns < contacts.end_ns)
                until_ns = int(contacts.end_ns[now][0]) if now.any() else outlook.NOBODY
                if path:
                    found[name] = (path.delay_ns, path.hops, until_ns)
            assert {name: tuple(rest) for name, *rest in seen.seen_from(station, t_ns)} == found


def test_where_it_would_grow_too_large_the_nearest_and_those_overhead_stay(
    plan: api.Plan, routes: RoutePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = outlook.plan_outlook(plan.link_plan, routes, STATIONS, plan.nodes[:12])
    monkeypatch.setattr(outlook, "MOST_ENTRIES", plan.link_plan.grid.count * len(STATIONS) * 3)
    few = outlook.plan_outlook(plan.link_plan, routes, STATIONS, plan.nodes[:12])
    assert few.satellite.shape[-1] == 3
    assert np.array_equal(few.satellite, whole.satellite[..., :3])
    assert [name for name, *_ in whole.seen_from("gs-sanya", 0)][:3] == [n for n, *_ in few.seen_from("gs-sanya", 0)]


def test_what_cannot_be_reached_is_not_seen(plan: api.Plan) -> None:
    nowhere = plan_routes(plan.link_plan, destinations=[])
    seen = outlook.plan_outlook(plan.link_plan, nowhere, STATIONS, plan.nodes[:2])
    assert list(seen.seen_from("gs-miyun", 0)) == []
