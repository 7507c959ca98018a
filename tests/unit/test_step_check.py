from __future__ import annotations

import numpy as np
import pytest

from isl_emu.linkplan.build import plan_links
from isl_emu.linkplan.contacts import find_contacts
from isl_emu.linkplan.step_check import check_step, step_sentences
from isl_emu.scenario.parse import parse_scenario
from tests.plans import MS, SECOND, make_plan
from tests.scenarios import head, shell, station

LASER = (0, 1)
TWENTY_STATIONS_UNDER_A_STAR = (
    head(start="2026-03-20T12:00:00Z", duration="24000 s", step="4 s")
    + shell(66, 6, 2, pattern="star", altitude="780 km", inclination="86.4 deg", lasers="none")
    + "".join(
        station(f"gs-{n}", latitude=f"{6 * n - 57} deg", longitude=f"{17 * n - 170} deg", min_elevation="50 deg")
        for n in range(20)
    )
)


def _plan_of(shape: str, step_ns: int = SECOND):
    """A plan of one link that is up where the text has a #."""
    return make_plan(2, [], [{LASER: MS} if mark == "#" else {} for mark in shape], step_ns=step_ns)


def test_only_what_begins_and_ends_within_the_plan_counts():
    check = check_step(_plan_of("#.##..###.#"))
    assert (check.contacts.count, check.contacts.shortest_ns, check.contacts.once) == (2, 2 * SECOND, 0)
    assert (check.gaps.count, check.gaps.shortest_ns, check.gaps.once) == (3, SECOND, 2)
    assert check.gaps.missed == 1.0
    assert check.gaps.missed_ratio == 0.25


def test_the_largest_change_of_a_delay_is_found_with_its_link_and_time():
    other = (1, 2)
    plan = make_plan(3, [], [{LASER: 5 * MS, other: 1 * MS}, {LASER: 3 * MS}, {LASER: 4 * MS, other: 90 * MS}])
    check = check_step(plan)
    assert (check.delay_change_max_ns, check.delay_change_link, check.delay_change_k) == (2 * MS, 0, 0)
    assert "2000.0 us (p00s00 - p00s01 at 0 s)" in step_sentences(check, plan)[0]


def test_a_step_that_fits_gives_no_warning():
    assert check_step(_plan_of("##.." + "####...###" * 3)).warnings == ()
    assert check_step(make_plan(2, [], [{}, {}])).warnings == ()


def test_a_step_that_misses_contacts_is_a_warning_and_names_one_that_does_not():
    (warning,) = check_step(_plan_of("##..#..####....###...#..#####")).warnings
    assert warning.startswith(
        "time.step: is 1 s, but 2 contacts and 0 gaps last a single step, so up to about 1 shorter"
    )
    assert "with 200 ms none" in warning


def test_where_nearly_all_contacts_last_one_step_nothing_can_be_told():
    (warning,) = check_step(_plan_of("..#...#.....#...#...")).warnings
    assert "more may be missed than can be told; choose a step of 100 ms" in warning


@pytest.mark.parametrize(("power", "low", "high"), [(1.0, 0.95, 1.05), (0.5, 2.7, 3.3)])
def test_the_estimate_is_right_for_even_lengths_and_on_the_safe_side_for_rising_ones(power, low, high):
    random = np.random.default_rng(1)
    length = 5 * random.random(200_000) ** power  # density constant, or rising like the length, up to 5 steps
    begin = random.random(length.size)
    seen = np.floor(begin + length) - np.ceil(begin) + 1  # instants in [begin, begin + length]
    missed, once = (seen == 0).sum(), (seen == 1).sum()
    assert low < 0.5 * once / missed < high


def test_against_a_fifteen_times_finer_plan():
    """Twenty stations under a star, cones of 40 deg: many contacts last no longer than a step of a minute."""
    fine = parse_scenario(TWENTY_STATIONS_UNDER_A_STAR, "test")
    coarse = parse_scenario(TWENTY_STATIONS_UNDER_A_STAR.replace('"4 s"', '"60 s"'), "test")
    contacts, step_ns = find_contacts(plan_links(fine, "")), coarse.time.step_ns
    inside = (contacts.start_ns > 0) & (contacts.end_ns < fine.time.duration_ns)
    first_instant_ns = -(-contacts.start_ns // step_ns) * step_ns
    missed = int((inside & (first_instant_ns >= contacts.end_ns)).sum())
    expected = check_step(plan_links(coarse, "")).contacts.missed
    assert missed >= 5, "else it tells nothing"
    assert missed <= expected <= 4 * missed, (missed, expected)
