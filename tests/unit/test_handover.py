from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isl_emu.linkplan.handover import (
    POLICIES,
    carrying,
    highest_elevation,
    least_change,
    longest_contact,
    station_policy,
)
from isl_emu.linkplan.sightings import View, find_passes, with_set_times
from isl_emu.scenario.model import GroundStation
from isl_emu.units import NS_PER_S


def view_of(*passes: tuple[int, int, int, float]) -> View:
    """A view of passes given as satellite, first instant, instant after the last, elevation in deg (tent-shaped)."""
    rows = sorted(
        (k, satellite, top - abs(2 * k + 1 - start - end) / 100)
        for satellite, start, end, top in passes
        for k in range(start, end)
    )
    k, satellite, elevation_deg = np.array(rows, dtype=float).reshape(-1, 3).T
    return View(k.astype(np.int64), satellite.astype(np.int64), np.radians(elevation_deg), np.full(len(k), 1000.0))


def linked(view: View, chosen: np.ndarray) -> dict[int, tuple[int, int]]:
    """satellite -> first instant and instant after the last of its only contact."""
    passes = find_passes(view.only(chosen))
    satellites = view.only(chosen).satellite[passes.order[passes.first[:-1]]].tolist()
    assert len(set(satellites)) == len(satellites), "taken once each"
    return dict(zip(satellites, zip(passes.start_k.tolist(), passes.end_k.tolist(), strict=True), strict=True))


def station(**terms) -> GroundStation:
    place = {"latitude": "0 deg", "longitude": "0 deg", "min_elevation": "10 deg"}
    return GroundStation.model_validate({"name": "gs", **place, "uplink": "1 Gbit/s", "downlink": "1 Gbit/s", **terms})


THREE = view_of((0, 0, 20, 30.0), (1, 5, 60, 40.0), (2, 10, 30, 70.0), (3, 25, 80, 20.0), (4, 55, 90, 50.0))


def test_longest_contact_takes_what_stays_and_keeps_it_until_it_sets():
    assert linked(THREE, longest_contact(THREE, 1)) == {0: (0, 20), 1: (20, 60), 4: (60, 90)}


def test_least_change_takes_the_highest_when_the_current_one_has_set():
    assert linked(THREE, least_change(THREE, 1)) == {0: (0, 20), 2: (20, 30), 1: (30, 60), 4: (60, 90)}


def test_the_default_jumps_to_whatever_is_highest():
    by_instant = THREE.satellite[highest_elevation(THREE, 1)].tolist()
    assert by_instant == [0] * 5 + [1] * 5 + [2] * 20 + [1] * 25 + [4] * 35


@pytest.mark.parametrize("policy", [longest_contact, least_change])
@pytest.mark.parametrize("overlap", [1, 4, 7])
def test_make_before_break_overlaps_by_exactly_what_was_asked(policy, overlap):
    contacts = sorted(linked(THREE, policy(THREE, 2, overlap)).values())
    assert contacts[0][0] == 0
    assert contacts[-1][1] == 90
    for (_, end), (begin, _) in zip(contacts, contacts[1:], strict=False):
        assert end - begin == overlap


def test_the_old_highest_stays_for_the_overlap():
    chosen = highest_elevation(THREE, 2, overlap=3)
    up = {satellite: THREE.k[chosen & (THREE.satellite == satellite)].tolist() for satellite in range(5)}
    assert up[0] == [*range(5 + 3)]
    assert up[1] == [*range(5, 10 + 3), *range(30, 55 + 3)]
    assert up[2] == [*range(10, 30)], "it sets when the next takes over: there is nothing to overlap with"
    assert up[3] == []
    assert np.bincount(THREE.k[chosen]).max() == 2


def test_an_overlap_is_shorter_where_the_next_satellite_rises_late():
    late = view_of((0, 0, 20, 30.0), (1, 18, 40, 30.0), (2, 45, 60, 30.0))
    assert linked(late, longest_contact(late, 2, 5)) == {0: (0, 20), 1: (18, 40), 2: (45, 60)}


def test_a_satellite_that_sets_before_the_current_one_is_no_successor():
    short = view_of((0, 0, 20, 30.0), (1, 12, 19, 80.0), (2, 17, 40, 20.0))
    assert linked(short, least_change(short, 2, 6)) == {0: (0, 20), 2: (17, 40)}


def test_one_antenna_is_kept_for_handovers_and_serves_them_in_turn():
    pair = view_of((0, 0, 20, 30.0), (1, 0, 20, 30.0), (2, 5, 50, 30.0), (3, 5, 50, 30.0))
    contacts = linked(pair, least_change(pair, 3, 4))
    assert sorted(contacts.values()) == [(0, 20), (0, 20), (16, 50), (20, 50)]


def test_what_happens_after_the_run_decides_what_is_longest():
    seen = view_of((0, 0, 10, 40.0), (1, 0, 10, 40.0))
    beyond = view_of((0, 0, 3, 40.0), (1, 0, 9, 40.0))
    told = with_set_times(seen, 10, beyond, 9 + 10 * np.arange(20.0))
    assert told.set_k[told.satellite == 0].tolist() == [9 + 25.0] * 10, "half way between two looks"
    assert linked(seen, longest_contact(told, 1)) == {1: (0, 10)}
    assert linked(seen, longest_contact(seen, 1)) == {0: (0, 10)}, "without it the two are equal"


def test_a_satellite_up_at_the_end_of_the_horizon_sets_then():
    seen, beyond = view_of((0, 0, 10, 40.0)), view_of((0, 0, 20, 40.0))
    assert with_set_times(seen, 10, beyond, 9.0 + np.arange(20)).set_k.tolist() == [28.0] * 10


def test_a_handover_due_after_the_run_is_prepared_in_it():
    seen = view_of((0, 0, 10, 40.0), (1, 5, 10, 40.0))
    beyond = view_of((0, 0, 2, 40.0), (1, 0, 50, 40.0))
    told = with_set_times(seen, 10, beyond, 9.0 + np.arange(60))
    assert linked(seen, least_change(told, 2, 4)) == {0: (0, 10), 1: (7, 10)}, "0 sets at 10.5, counted as 11"


def test_an_antenna_takes_its_time_to_turn_and_to_acquire():
    seen = view_of((0, 0, 10, 30.0), (1, 10, 20, 30.0), (2, 30, 40, 30.0))
    assert linked(seen, carrying(seen, 1, gap=3, acquisition=0)) == {0: (0, 10), 1: (13, 20), 2: (30, 40)}
    assert linked(seen, carrying(seen, 1, gap=3, acquisition=2)) == {0: (0, 10), 1: (15, 20), 2: (32, 40)}
    assert linked(seen, carrying(seen, 2, gap=3, acquisition=0)) == {0: (0, 10), 1: (10, 20), 2: (30, 40)}
    assert linked(seen, carrying(seen, 1, gap=12, acquisition=0)) == {0: (0, 10), 2: (32, 40)}


def test_acquisition_is_part_of_the_overlap():
    terms = {"antennas": 2, "make_before_break": "5 s", "acquisition": "6 s", "handover": "longest-contact"}
    policy = station_policy(station(**terms), NS_PER_S)
    chosen = THREE.only(policy(THREE, 2))
    contacts = sorted(linked(chosen, carrying(chosen, 2, 0, 6)).values())
    assert [before[1] - after[0] for before, after in zip(contacts, contacts[1:], strict=False)] == [5, 5, 5]


@st.composite
def views(draw):
    one = st.tuples(st.integers(0, 12), st.integers(0, 60), st.integers(1, 30), st.floats(20, 90))
    passes, busy = [], set()
    for satellite, start, length, top in draw(st.lists(one, max_size=14)):
        span = {(satellite, k) for k in range(start - 1, start + length + 1)}
        if not span & busy:
            busy |= span
            passes.append((satellite, start, start + length, top))
    return view_of(*passes)


@settings(deadline=None)
@given(views(), st.sampled_from(sorted(POLICIES)), st.integers(1, 4), *[st.integers(0, 8)] * 3)
def test_no_policy_ever_exceeds_the_antennas(view, name, antennas, overlap, gap, acquisition):
    overlap = overlap if antennas > 1 else 0
    chosen = POLICIES[name](view, antennas, overlap)
    assert np.bincount(view.k[chosen], minlength=1).max() <= antennas
    steady = antennas - (overlap > 0)
    linked_now, seen_now = (np.bincount(k, minlength=100) for k in (view.k[chosen], view.k))
    if not overlap:
        assert (linked_now == np.minimum(steady, seen_now)).all(), "no antenna idles while a satellite is free"
    else:
        assert (linked_now[seen_now > 0] >= 1).all(), "something is linked whenever something is seen"
    carried = view.only(chosen)
    carried = carried.only(carrying(carried, antennas, gap, acquisition))
    assert np.bincount(carried.k, minlength=1).max() <= antennas


@settings(deadline=None)
@given(views(), st.sampled_from(["longest-contact", "least-change"]), st.integers(1, 3))
def test_policies_with_memory_keep_a_satellite_until_it_sets(view, name, antennas):
    chosen = POLICIES[name](view, antennas)
    every, kept = find_passes(view), find_passes(view.only(chosen))
    ends = set(zip(view.satellite[every.order[every.first[1:] - 1]].tolist(), every.end_k.tolist(), strict=True))
    chosen_view = view.only(chosen)
    last = chosen_view.satellite[kept.order[kept.first[1:] - 1]].tolist()
    assert set(zip(last, kept.end_k.tolist(), strict=True)) <= ends


@settings(deadline=None)
@given(views(), st.sampled_from(sorted(POLICIES)), st.integers(1, 4), st.integers(0, 8), st.data())
def test_a_satellite_is_avoided_while_it_is_known_to_be_dead_and_nobody_foresees_it(
    view, name, antennas, overlap, data
):
    overlap = overlap if antennas > 1 else 0
    stretch = st.tuples(st.integers(0, 12), st.integers(0, 80), st.integers(0, 80))
    avoided = np.zeros(len(view.k), dtype=bool)
    for satellite, begun, until in data.draw(st.lists(stretch, max_size=8)):
        avoided |= (view.satellite == satellite) & (begun <= view.k) & (view.k < until)

    def chosen(dead: np.ndarray) -> np.ndarray:
        return POLICIES[name](replace(view, avoided=dead), antennas, overlap)

    found = chosen(avoided)
    assert not (found & avoided).any()
    linked_now, alive_now = (np.bincount(k, minlength=100) for k in (view.k[found], view.k[~avoided]))
    assert linked_now.max() <= antennas
    if not overlap:
        assert (linked_now == np.minimum(antennas, alive_now)).all(), "no antenna idles while a living one is free"
    else:
        assert (linked_now[alive_now > 0] >= 1).all()
    now = view.k < data.draw(st.integers(0, 100))
    assert (chosen(avoided & now) == found)[now].all(), "what happens later changes nothing before"
    assert (chosen(np.zeros_like(avoided)) == POLICIES[name](view, antennas, overlap)).all()
