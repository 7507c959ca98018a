"""Laws of whole link plans: symmetries of the sky, and what must not change the answer."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from isl_emu.geometry.elements import constellation_elements
from isl_emu.geometry.frames import itrs_to_teme, sidereal_angle_rad, site_itrs_km, zenith_itrs
from isl_emu.geometry.orbits import propagate
from isl_emu.geometry.sightline import elevation_rad, range_km
from isl_emu.linkplan import build
from isl_emu.linkplan.build import SpaceSegment, plan_links, plan_segments
from isl_emu.linkplan.candidates import constellation_candidates, shell_pairs
from isl_emu.linkplan.contacts import find_contacts
from isl_emu.linkplan.plan import LinkKind
from isl_emu.routing.forwarding import plan_routes
from isl_emu.routing.paths import PathFinder
from isl_emu.scenario.model import Scenario, Shell
from isl_emu.scenario.parse import format_scenario, parse_scenario
from isl_emu.timebase import TimeGrid
from isl_emu.units import NS_PER_S, SPEED_OF_LIGHT_KM_S
from tests.strategies import START, scenarios, walkers

FEW = settings(deadline=None, max_examples=25)
ONE_MILLIMETRE_KM = 1e-6
ONE_NS_KM = SPEED_OF_LIGHT_KM_S / NS_PER_S
EARTH_TURN_RAD_S = 7.292115e-5  # IERS Conventions 2010
# near-Earth SGP4 is symmetric about the axis to the last digits
moments = st.datetimes(START.replace(year=1995, tzinfo=None), START.replace(year=2045, tzinfo=None))


def _with_time(scenario: Scenario, step_ns: int, duration_ns: int) -> Scenario:
    time = scenario.time.model_copy(update={"step_ns": step_ns, "duration_ns": duration_ns})
    return scenario.model_copy(update={"time": time})


def _up(plan, k: int) -> dict[tuple[int, int], int]:
    """Delay of each link that is up."""
    now = plan.snapshot(k)
    ends = zip(plan.links.a[now.link].tolist(), plan.links.b[now.link].tolist(), strict=True)
    return dict(zip(ends, now.delay_ns.tolist(), strict=True))


def _space(scenario: Scenario) -> SpaceSegment:
    return SpaceSegment(constellation_elements(scenario), constellation_candidates(scenario.shell))


def _as_shell(walker, topology: str, inclination_deg: float = 53.0) -> Shell:
    orbit = {"altitude": "900 km", "inclination": f"{inclination_deg} deg"}
    return Shell.model_validate({"name": "s", "walker": walker, "lasers": {"topology": topology}, **orbit})


@FEW
@given(scenarios())
def test_a_finer_step_says_the_same_at_the_same_moment(scenario):
    coarse = plan_links(_with_time(scenario, 60 * NS_PER_S, 240 * NS_PER_S), "")
    fine = plan_links(_with_time(scenario, 20 * NS_PER_S, 240 * NS_PER_S), "")
    for k in range(coarse.grid.count):
        assert _up(coarse, k) == _up(fine, 3 * k)


@FEW
@given(scenarios(), st.integers(1, 3))
def test_a_plan_that_starts_later_is_the_rest_of_one_that_starts_earlier(scenario, skipped):
    space, grid = _space(scenario), scenario.time.grid
    whole = plan_segments(space, scenario.station, grid)
    later = TimeGrid(grid.start + timedelta(seconds=60 * skipped), grid.step_ns, grid.count - skipped)
    rest = plan_segments(space, scenario.station, later)
    for k in range(rest.grid.count):
        assert _up(rest, k).keys() == _up(whole, k + skipped).keys()
        for ends, delay_ns in _up(rest, k).items():
            assert abs(delay_ns - _up(whole, k + skipped)[ends]) <= 1, "a ns may be rounded otherwise"


@FEW
@given(scenarios(), st.integers(1, 200))
def test_how_many_positions_are_held_at_once_does_not_show(scenario, at_once):
    expected = plan_links(scenario, "").digest()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(build, "POSITIONS_AT_ONCE", at_once)
        assert plan_links(scenario, "").digest() == expected


@FEW
@given(scenarios(), st.floats(-math.pi, math.pi))
def test_turning_orbits_and_sites_together_changes_nothing(scenario, turn_rad):
    """The Earth that SGP4 knows is a solid of revolution, so only differences of longitude count."""
    elements = constellation_elements(scenario)
    turned = replace(elements, raan_rad=(elements.raan_rad + turn_rad) % (2 * math.pi))
    offsets_ns = scenario.time.grid.offsets_ns
    cos, sin = math.cos(turn_rad), math.sin(turn_rad)
    about_the_axis = np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])
    expected_km = propagate(elements, START, offsets_ns) @ about_the_axis.T
    assert np.abs(propagate(turned, START, offsets_ns) - expected_km).max() < ONE_MILLIMETRE_KM
    sidereal_rad = sidereal_angle_rad(START, offsets_ns)
    for station in scenario.station:
        here = itrs_to_teme(site_itrs_km(station.latitude_rad, station.longitude_rad, 0.0), sidereal_rad)
        there = itrs_to_teme(site_itrs_km(station.latitude_rad, station.longitude_rad + turn_rad, 0.0), sidereal_rad)
        assert np.abs(there - here @ about_the_axis.T).max() < ONE_MILLIMETRE_KM


@FEW
@given(scenarios())
def test_contacts_say_exactly_when_each_link_is_up(scenario):
    plan = plan_links(scenario, "")
    contacts = find_contacts(plan)
    for k in range(plan.grid.count):
        t_ns = k * plan.grid.step_ns
        open_now = (contacts.start_ns <= t_ns) & (t_ns < contacts.end_ns)
        assert sorted(contacts.link[open_now].tolist()) == plan.snapshot(k).link.tolist()
    same = contacts.link[1:] == contacts.link[:-1]
    assert (contacts.start_ns[1:][same] > contacts.end_ns[:-1][same]).all(), "contacts of a link never touch"


@FEW
@given(scenarios())
def test_no_path_is_faster_than_light_or_longer_one_way_than_the_other(scenario):
    plan = plan_links(scenario, "")
    assume(len(scenario.station) >= 2)
    finder = PathFinder(plan, plan_routes(plan))
    r_km = propagate(constellation_elements(scenario), START, plan.grid.offsets_ns)
    sidereal_rad = sidereal_angle_rad(START, plan.grid.offsets_ns)
    sites_km = [
        itrs_to_teme(site_itrs_km(station.latitude_rad, station.longitude_rad, station.height_km), sidereal_rad)
        for station in scenario.station
    ]
    places_km = np.concatenate([r_km, np.stack(sites_km, axis=1)], axis=1)
    first_site = r_km.shape[1]
    for k in range(plan.grid.count):
        for source in range(first_site, places_km.shape[1]):
            for destination in range(places_km.shape[1]):
                path, back = finder.path(source, destination, k), finder.path(destination, source, k)
                assert (path is None) == (back is None)
                if path:
                    assert path.delay_ns == back.delay_ns
                    straight_ns = range_km(places_km[k, source], places_km[k, destination]) / ONE_NS_KM
                    assert path.delay_ns >= straight_ns - path.hops


@FEW
@given(scenarios())
def test_a_scenario_survives_being_written_down(scenario):
    assert parse_scenario(format_scenario(scenario), "text") == scenario


@given(walkers(most_planes=12, most_slots=12), st.floats(1.0, 120.0))
def test_a_grid_has_as_many_links_as_it_should(walker, inclination_deg):
    """2t on a delta with three planes and slots or more; a star lacks those over its seam."""
    planes, slots = walker.planes, walker.slots
    a, b, kind = shell_pairs(_as_shell(walker, "+grid", inclination_deg))
    intra = planes * {1: 0, 2: 1}.get(slots, slots)
    adjacent = {1: 0, 2: 1}.get(planes, planes if walker.pattern == "delta" else planes - 1)
    assert (kind == LinkKind.INTRA_PLANE).sum() == intra
    assert (kind == LinkKind.INTER_PLANE).sum() == adjacent * slots
    assert len(set(zip(a.tolist(), b.tolist(), strict=True))) == len(a)
    planes_apart = (b // slots - a // slots)[kind == LinkKind.INTER_PLANE]
    assert set(planes_apart.tolist()) <= ({1, planes - 1} if walker.pattern == "delta" else {1})


@given(walkers(most_planes=12, most_slots=12))
def test_a_ring_never_leaves_its_plane(walker):
    a, b, _ = shell_pairs(_as_shell(walker, "ring"))
    assert (a // walker.slots == b // walker.slots).all()
    degrees = np.bincount(np.concatenate([a, b]), minlength=walker.total)
    assert set(degrees.tolist()) == {{1: 0, 2: 1}.get(walker.slots, 2)}


@given(moments, st.integers(0, 86_400 * NS_PER_S))
def test_the_earth_turns_evenly_and_one_way_only(moment, offset_ns):
    start = moment.replace(tzinfo=START.tzinfo)
    before, after = sidereal_angle_rad(start, np.array([offset_ns, offset_ns + 10 * NS_PER_S]))
    turned_rad = (after - before) % (2 * math.pi)
    # a leap second in between makes it eleven, or the ten of a day that is longer by milliseconds
    tens = [10.0, 11.0]
    assert min(abs(turned_rad - seconds * EARTH_TURN_RAD_S) for seconds in tens) < 1e-8


@given(st.floats(-math.pi / 2, math.pi / 2), st.floats(-4 * math.pi, 4 * math.pi), st.floats(-0.5, 10.0))
def test_a_site_is_where_its_zenith_says_and_turns_of_longitude_are_none(latitude_rad, longitude_rad, height_km):
    here_km, zenith = site_itrs_km(latitude_rad, longitude_rad, height_km), zenith_itrs(latitude_rad, longitude_rad)
    around_km = site_itrs_km(latitude_rad, longitude_rad + 2 * math.pi, height_km)
    assert np.abs(around_km - here_km).max() < ONE_MILLIMETRE_KM
    higher_km = site_itrs_km(latitude_rad, longitude_rad, height_km + 1.0)
    assert np.abs(higher_km - here_km - zenith).max() < ONE_MILLIMETRE_KM
    assert elevation_rad(here_km, zenith, here_km + 500 * zenith) == pytest.approx(math.pi / 2, abs=1e-5)
    assert elevation_rad(here_km, zenith, here_km - 500 * zenith) == pytest.approx(-math.pi / 2, abs=1e-5)
    mirrored_km = site_itrs_km(-latitude_rad, longitude_rad, height_km)
    assert np.abs(mirrored_km - here_km * [1, 1, -1]).max() < ONE_MILLIMETRE_KM
