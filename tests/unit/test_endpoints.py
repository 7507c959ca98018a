from __future__ import annotations

from datetime import datetime, timezone

from isl_emu.linkplan.build import plan_links
from isl_emu.linkplan.plan import LinkKind
from isl_emu.parts.part import EVERY_NODE_UP_TO
from isl_emu.parts.questions.part import asked_satellites
from isl_emu.parts.registry import active_endpoints
from isl_emu.routing.forwarding import NO_ROUTE, plan_routes
from isl_emu.routing.paths import PathFinder
from isl_emu.scenario.model import Scenario


def scenario(total: int, **more) -> Scenario:
    walker = {"pattern": "delta", "total": total, "planes": total // 20, "phasing": 1}
    shell = {
        "name": "s",
        "walker": walker,
        "altitude": "600 km",
        "inclination": "53 deg",
        "lasers": {"topology": "+grid"},
    }
    sites = [("gs-a", "40 deg", "10 deg"), ("gs-b", "-30 deg", "150 deg")]
    terms = {"min_elevation": "10 deg", "uplink": "1 Gbit/s", "downlink": "1 Gbit/s"}
    stations = tuple({"name": name, "latitude": lat, "longitude": lon, **terms} for name, lat, lon in sites)
    time = {"start": datetime(2026, 3, 20, tzinfo=timezone.utc), "duration": "2 s"}
    return Scenario.model_validate({"name": "x", "time": time, "shell": (shell,), "station": stations, **more})


def test_every_node_of_a_small_network_is_a_destination():
    small = scenario(80)
    assert active_endpoints(small, plan_links(small, "")).tolist() == list(range(82))


def test_in_a_large_network_those_with_traffic_are():
    probes = {"pairs": (("gs-a", "p05s03"), ("p00s02", "p00s01"))}
    large = scenario(400, compute={"satellites": ("p19s19", "p00s02")}, probes=probes)
    plan = plan_links(large, "")
    assert len(plan.nodes.names) > EVERY_NODE_UP_TO
    names = [plan.nodes.names[node] for node in active_endpoints(large, plan)]
    assert names == ["p00s01", "p00s02", "p05s03", "p19s19", "gs-a", "gs-b"]


def test_both_ends_of_a_moving_conversation_have_traffic():
    questions = {"mean_interval": "1 s", "reach": 4, "prompts": ("Why?",)}
    compute = {"satellites": ("p0*", "p19*")}
    alone = scenario(400, compute=compute, questions=questions)
    plan = plan_links(alone, "")
    source, target, *_ = sorted(set(alone.serving_satellites) - set(asked_satellites(alone, plan)))
    move = ({"source": source, "target": target, "tokens": (100,)},)
    moving = scenario(400, compute=compute, questions=questions, kv_handover=move)
    before, after = ({plan.nodes.names[node] for node in active_endpoints(one, plan)} for one in (alone, moving))
    assert after - before == {source, target}


def test_paths_between_endpoints_are_those_of_the_full_tables():
    large = scenario(400, compute={"satellites": ("p19s19",)})
    plan = plan_links(large, "")
    ends = active_endpoints(large, plan)
    few, full = (PathFinder(plan, plan_routes(plan, large.routing, nodes)) for nodes in (ends, None))
    for source in ends:
        for destination in ends:
            assert few.path(source, destination, 1) == full.path(source, destination, 1)
    assert few.next_hop(0, 5, 0) == NO_ROUTE


def test_of_many_that_serve_users_may_ask_some_from_everywhere():
    groups = ({"satellites": ("p19s19",)}, {"satellites": ("p0*", "p10*"), "server": "modelled", "board": "three-body"})
    questions = {"mean_interval": "1 s", "target": "p07s07", "reach": 24, "prompts": ("Why?",)}
    time = {"start": datetime(2026, 3, 20, tzinfo=timezone.utc), "duration": "60 s", "step": "5 s"}
    large = scenario(400, compute=groups, questions=questions, time=time)
    plan = plan_links(large, "")
    asked = asked_satellites(large, plan)
    assert len(asked) == 24 and {"p07s07", "p19s19"} <= set(asked) <= set(large.serving_satellites)
    ground = [link for link in plan.row_link if plan.links.kind[link] == LinkKind.GROUND]
    linked = {plan.nodes.names[plan.links.a[link]] for link in ground}
    overhead = linked & set(large.serving_satellites)
    assert overhead and overhead <= set(asked)
    assert len({name[:3] for name in asked}) >= 8  # of eleven planes that serve
    names = [plan.nodes.names[node] for node in active_endpoints(large, plan)]
    assert names == [*asked, "gs-a", "gs-b"]


def test_all_that_serve_may_be_asked_while_they_are_few():
    few = scenario(400, compute={"satellites": ("p03*",)})
    assert asked_satellites(few, plan_links(few, "")) == few.computing_satellites
