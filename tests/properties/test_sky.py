"""What holds for every constellation, station and graph."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from isl_emu.geometry.elements import EARTH_RADIUS_KM, constellation_elements
from isl_emu.geometry.frames import itrs_to_teme, sidereal_angle_rad, site_itrs_km, zenith_itrs
from isl_emu.geometry.orbits import propagate
from isl_emu.geometry.sightline import elevation_rad, grazing_altitude_km, one_way_delay_ns, range_km
from isl_emu.geometry.walker import phase_spacing_rad, plane_spacing_rad, walker_angles
from isl_emu.linkplan.build import plan_links
from isl_emu.linkplan.candidates import inter_plane_pairs, ring_pairs, shell_pairs
from isl_emu.linkplan.plan import LinkKind, LinkState, NodeKind
from isl_emu.linkplan.plan_file import read_plan, write_plan
from isl_emu.routing.forwarding import plan_routes
from isl_emu.routing.paths import PathFinder
from isl_emu.scenario.model import Routing
from isl_emu.units import NS_PER_S, SPEED_OF_LIGHT_KM_S
from tests.orbits import circular_elements
from tests.plans import make_plan
from tests.strategies import START, scenarios, walkers

ONE_METRE_KM = 1e-3
ONE_NS_KM = SPEED_OF_LIGHT_KM_S / NS_PER_S

coordinates = st.tuples(*[st.floats(-10_000, 10_000)] * 3).map(np.array)


@given(coordinates, coordinates)
def test_sight_lines_are_symmetric_and_delay_is_range_over_c(a_km, b_km):
    assert range_km(a_km, b_km) == range_km(b_km, a_km)
    assert abs(grazing_altitude_km(a_km, b_km) - grazing_altitude_km(b_km, a_km)) < ONE_METRE_KM
    assert abs(one_way_delay_ns(range_km(a_km, b_km)) * ONE_NS_KM - range_km(a_km, b_km)) <= 0.5001 * ONE_NS_KM
    assert grazing_altitude_km(a_km, b_km) <= min(np.linalg.norm(a_km), np.linalg.norm(b_km)) - 6378 + ONE_METRE_KM


@settings(deadline=None, max_examples=40)
@given(walkers("delta"), st.floats(0.0, math.pi))
def test_a_delta_turned_by_a_plane_and_advanced_by_its_phasing_is_itself(walker, inclination_rad):
    raan_rad, u_rad = (angle.ravel() for angle in walker_angles(walker))
    names = [str(n) for n in range(walker.total)]
    offsets_ns = np.array([0, 1_000]) * NS_PER_S
    same = circular_elements(names, START, EARTH_RADIUS_KM + 1000, inclination_rad, raan_rad, u_rad)
    moved = replace(
        same,
        raan_rad=same.raan_rad + plane_spacing_rad(walker),
        mean_anomaly_rad=same.mean_anomaly_rad + phase_spacing_rad(walker),
    )
    plane, slot = np.divmod(np.arange(walker.total), walker.slots)
    wrapped = plane == walker.planes - 1
    image = (plane + 1) % walker.planes * walker.slots + (slot + walker.phasing * wrapped) % walker.slots
    difference_km = propagate(moved, START, offsets_ns) - propagate(same, START, offsets_ns)[:, image]
    assert np.abs(difference_km).max() < ONE_METRE_KM


@given(walkers(), st.floats(0.0, math.pi))
def test_candidates_never_repeat_and_never_exceed_four_terminals(walker, inclination_rad):
    pairs = np.sort(np.concatenate([ring_pairs(walker), inter_plane_pairs(walker, inclination_rad)]), axis=1)
    assert len(np.unique(pairs, axis=0)) == len(pairs)
    assert (pairs[:, 0] < pairs[:, 1]).all()
    assert np.bincount(pairs.ravel(), minlength=walker.total).max() <= 4


@settings(deadline=None, max_examples=30)
@given(scenarios())
def test_every_row_of_a_plan_keeps_the_rules(scenario):
    plan = plan_links(scenario, "text")
    r_km = propagate(constellation_elements(scenario), START, plan.grid.offsets_ns)
    k = np.repeat(np.arange(plan.grid.count), np.diff(plan.row_start))
    a, b, kind = (values[plan.row_link] for values in (plan.links.a, plan.links.b, plan.links.kind))
    satellites = len(scenario.satellite_names)
    sidereal_rad = sidereal_angle_rad(START, plan.grid.offsets_ns)
    for number, station in enumerate(scenario.station, start=satellites):
        rows = b == number
        place = (station.latitude_rad, station.longitude_rad)
        site_km = itrs_to_teme(site_itrs_km(*place, station.height_km), sidereal_rad)[k[rows]]
        zenith = itrs_to_teme(zenith_itrs(*place), sidereal_rad)[k[rows]]
        seen_km = r_km[k[rows], a[rows]]
        assert (elevation_rad(site_km, zenith, seen_km) >= station.min_elevation_rad - 1e-9).all()
        assert (plan.row_delay_ns[rows] >= range_km(site_km, seen_km) / ONE_NS_KM - 1).all()
        assert np.bincount(k[rows], minlength=1).max() <= station.antennas
    lasers = kind != LinkKind.GROUND
    a_km, b_km = r_km[k[lasers], a[lasers]], r_km[k[lasers], b[lasers]]
    assert (grazing_altitude_km(a_km, b_km) >= 80.0 - 1e-6).all()
    assert (plan.row_delay_ns[lasers] >= range_km(a_km, b_km) / ONE_NS_KM - 1).all()
    wanted = set(zip(*(ends.tolist() for ends in shell_pairs(scenario.shell[0])[:2]), strict=True))
    assert set(zip(a[lasers].tolist(), b[lasers].tolist(), strict=True)) <= wanted


@settings(deadline=None, max_examples=30)
@given(scenarios())
def test_events_replay_to_the_links_of_every_instant(scenario):
    plan = plan_links(scenario, "text")
    events, links = plan.events, len(plan.links.a)
    states = np.full(links, LinkState.IDLE)
    for k in range(plan.grid.count):
        now = events.k == k
        assert (states[events.link[now]] != events.state[now]).all(), "what does not change is no event"
        states[events.link[now]] = events.state[now]
        assert np.flatnonzero(states == LinkState.TRACKING).tolist() == plan.snapshot(k).link.tolist()
        assert (plan.events.states(k, links) == states).all()
    moments = events.k * links + events.link
    assert (np.diff(moments) > 0).all(), "ordered, and one of a link at an instant"


@settings(deadline=None, max_examples=15)
@given(scenarios())
def test_equal_scenarios_give_equal_plans_byte_for_byte(tmp_path_factory, scenario):
    folder = tmp_path_factory.mktemp("plans")
    for name in ("one", "two"):
        write_plan(plan_links(scenario, "text"), folder / name)
    assert (folder / "one").read_bytes() == (folder / "two").read_bytes()
    assert read_plan(folder / "one").digest() == plan_links(scenario, "text").digest()


@st.composite
def graphs(draw):
    """Plans of random links over few instants; delays are small, so equal paths are common."""
    satellites, stations = draw(st.integers(1, 7)), draw(st.integers(0, 3))
    pairs = [(a, b) for a in range(satellites) for b in range(a + 1, satellites + stations)]
    links_up = st.dictionaries(st.sampled_from(pairs), st.integers(0, 4)) if pairs else st.just({})
    instants = draw(st.lists(links_up, min_size=1, max_size=4))
    return make_plan(satellites, [f"gs-{number}" for number in range(stations)], instants)


def _least_delays(plan, k):
    """Floyd and Warshall's shortest delays with stations as ends only; inf where there is no path."""
    size = len(plan.nodes.names)
    least = np.full((size, size), np.inf)
    np.fill_diagonal(least, 0.0)
    up = plan.snapshot(k)
    a, b = plan.links.a[up.link], plan.links.b[up.link]
    least[a, b] = least[b, a] = np.maximum(up.delay_ns, 1)
    for via in np.flatnonzero(plan.nodes.kind == NodeKind.SATELLITE):
        least = np.minimum(least, least[:, [via]] + least[[via], :])
    return least


@settings(deadline=None)
@given(graphs())
def test_next_hops_lead_along_shortest_paths_without_loops(plan):
    finder = PathFinder(plan, plan_routes(plan))
    for k in range(plan.grid.count):
        least, up = _least_delays(plan, k), plan.snapshot(k)
        delay_ns = dict(zip(up.link.tolist(), np.maximum(up.delay_ns, 1).tolist(), strict=True))
        for source, destination in np.ndindex(least.shape):
            path = finder.path(source, destination, k)
            assert (path is None) == math.isinf(least[source, destination])
            if path:
                assert len(set(path.nodes)) == len(path.nodes)
                assert sum(delay_ns[link] for link in path.links) == least[source, destination]
                assert (plan.nodes.kind[list(path.nodes[1:-1])] == NodeKind.SATELLITE).all()


@settings(deadline=None)
@given(graphs())
def test_route_changes_replay_to_the_tables_of_every_instant(plan):
    routes = plan_routes(plan)
    size = len(plan.nodes.names)
    table = np.full((size, size), -1)
    finder = PathFinder(plan, routes)
    for k in range(plan.grid.count):
        changes = routes.changes(k)
        assert (table[changes.node, changes.destination] != changes.link).all(), "what does not change is not listed"
        table[changes.node, changes.destination] = changes.link
        for node, destination in np.ndindex(size, size):
            assert finder.next_hop(node, destination, k) == table[node, destination]
        assert set(table[table >= 0].tolist()) <= set(plan.snapshot(k).link.tolist()), "only links that are up"


@settings(deadline=None)
@given(graphs(), st.integers(0, 50), st.sampled_from(["fewest-hops", "stable"]))
def test_no_policy_ever_makes_a_loop_or_loses_a_reachable_node(plan, hysteresis_ns, name):
    routing = Routing.model_validate({"policy": name, "hysteresis": f"{hysteresis_ns} ns"})
    shortest, chosen = PathFinder(plan, plan_routes(plan)), PathFinder(plan, plan_routes(plan, routing))
    size = len(plan.nodes.names)
    for k in range(plan.grid.count):
        for source, destination in np.ndindex(size, size):
            least, path = shortest.path(source, destination, k), chosen.path(source, destination, k)
            assert (path is None) == (least is None)
            if path and name == "stable":
                no_shorter_than_ns = 1  # is what routes take a link for
                least_ns = least.delay_ns + no_shorter_than_ns * least.hops
                assert path.delay_ns <= least_ns + hysteresis_ns * path.hops
            if path and name == "fewest-hops":
                assert path.hops <= least.hops
