"""Terminals: closed forms of slewing and acquisition, and who gets which."""

from __future__ import annotations

import math
import sys
from functools import partial
from typing import Any

import numpy as np
import pytest

from isl_emu.errors import ScenarioError
from isl_emu.geometry.elements import constellation_elements
from isl_emu.geometry.orbits import propagate
from isl_emu.geometry.sightline import grazing_altitude_km
from isl_emu.linkplan import build
from isl_emu.linkplan.acquisition import Acquisition
from isl_emu.linkplan.build import plan_links
from isl_emu.linkplan.plan import LinkKind, LinkState
from isl_emu.linkplan.plan_file import read_plan, write_plan
from isl_emu.planned import in_threads
from isl_emu.scenario.parse import format_scenario, parse_scenario
from tests.scenarios import head, shell, table

RING = shell(12)
GRID = shell(66, 6, 2, name="grid", pattern="star", altitude="780 km", inclination="86.4 deg", lasers="+grid")
TWO_MOUNTS = """
[[shell.lasers.terminal]]
mounts = ["fore", "aft"]
acquisition = "15 s"
"""


def plan_of(body: str, duration: str = "120 s", step: str = "1 s", seed: int = 1, in_order=map):
    scenario = parse_scenario(head(seed=seed, duration=duration, step=step) + body, "test")
    return plan_links(scenario, format_scenario(scenario), in_order)


def rows_up(plan) -> set[tuple[int, int, int]]:
    k = np.repeat(np.arange(plan.grid.count), np.diff(plan.row_start))
    return set(zip(k.tolist(), plan.links.a[plan.row_link].tolist(), plan.links.b[plan.row_link].tolist(), strict=True))


def states_of(plan, link: int) -> list[tuple[int, LinkState]]:
    mine = plan.events.link == link
    return [
        (int(k), LinkState(int(state))) for k, state in zip(plan.events.k[mine], plan.events.state[mine], strict=True)
    ]


def test_terminals_that_track_at_the_start_change_nothing():
    assert rows_up(plan_of(RING + TWO_MOUNTS)) == rows_up(plan_of(RING))


@pytest.mark.parametrize(("step", "first"), [("1 s", 15), ("10 s", 2), ("15 s", 1), ("16 s", 1), ("4 s", 4)])
def test_an_idle_ring_carries_data_from_the_acquisition_time_rounded_up_to_the_step(step, first):
    plan = plan_of(RING + 'at_start = "idle"' + TWO_MOUNTS, step=step)
    up = np.diff(plan.row_start)
    assert up.tolist() == [0] * first + [12] * (plan.grid.count - first)


def test_a_slew_takes_its_angle_over_its_rate():
    """A neighbour 30 deg ahead in a circular orbit is seen 15 deg under the mount's axis; SGP4's orbit is no circle."""
    mounts = TWO_MOUNTS + 'slew_rate = "0.5 deg/s"\n'
    plan = plan_of(RING + 'at_start = "idle"' + mounts, step="100 ms", duration="60 s")
    assert np.flatnonzero(np.diff(plan.row_start) == 12)[0] == pytest.approx(450, abs=5)  # 15 / 0.5 + 15 s
    for link in range(12):
        (begun, slewing), (turned, acquiring), (found, tracking) = states_of(plan, link)
        assert (begun, slewing, acquiring, tracking) == (0, LinkState.SLEWING, LinkState.ACQUIRING, LinkState.TRACKING)
        assert turned == pytest.approx(300, abs=5)
        assert found - turned in (150, 149)


def test_every_acquisition_of_a_polar_cutoff_takes_its_time():
    cut = 'polar_cutoff = "60 deg"\n'
    free = plan_of(GRID + cut, duration="6000 s", step="10 s")
    along = '[[shell.lasers.terminal]]\nmounts = ["fore", "aft"]\nfield_of_regard = "40 deg"\n'
    aside = '[[shell.lasers.terminal]]\nmounts = ["free", "free"]\nacquisition = "25 s"\nslew_rate = "1000 deg/s"'
    plan = plan_of(GRID + cut + along + aside, "6000 s", "10 s")
    possible, carrying = (_by_pair(which) for which in (free, plan))
    acquisitions = 0
    for pair, could in possible.items():
        does = carrying.get(pair, np.zeros_like(could))
        begins = np.flatnonzero(could[1:] & ~could[:-1]) + 1
        for begin in begins:
            end = begin + int(np.argmin(np.append(could[begin:], False)))
            inter = pair[0] // 11 != pair[1] // 11
            assert inter
            # 25 s, and a slew of at most 0.18 s: from the third instant on
            delay = int(np.argmax(np.append(does[begin:end], True)))
            assert delay == min(3, end - begin)
            acquisitions += 1
    assert acquisitions > 50
    assert (np.isin(plan.events.state, [LinkState.LOST]).sum()) > 50


def _by_pair(plan) -> dict[tuple[int, int], np.ndarray]:
    table: dict[tuple[int, int], np.ndarray] = {}
    for k, a, b in rows_up(plan):
        table.setdefault((a, b), np.zeros(plan.grid.count, dtype=bool))[k] = True
    return table


def test_one_terminal_makes_pairs_of_a_ring():
    plan = plan_of(RING + '[[shell.lasers.terminal]]\nmounts = ["free"]')
    assert {(a, b) for _, a, b in rows_up(plan)} == {(0, 1), (2, 3), (4, 5), (6, 7), (8, 9), (10, 11)}


def test_a_field_of_regard_that_does_not_reach_the_neighbour_links_nobody():
    mounts = '\n[[shell.lasers.terminal]]\nmounts = ["fore", "aft"]\nfield_of_regard = '
    narrow, wide = f'{mounts}"14 deg"', f'{mounts}"16 deg"'
    assert rows_up(plan_of(RING + narrow)) == set()
    assert rows_up(plan_of(RING + wide)) == rows_up(plan_of(RING))


@pytest.mark.parametrize("half_angle", ["10 deg", "90 deg"])
def test_a_free_terminal_looks_everywhere_whatever_its_field_of_regard(half_angle):
    mounts = f'\n[[shell.lasers.terminal]]\nmounts = ["free", "free"]\nfield_of_regard = "{half_angle}"'
    assert rows_up(plan_of(RING + mounts)) == rows_up(plan_of(RING))


def test_side_mounts_serve_planes_and_fore_and_aft_the_plane():
    sides = '\n[[shell.lasers.terminal]]\nmounts = ["port", "starboard"]\nfield_of_regard = "80 deg"'
    along = '\n[[shell.lasers.terminal]]\nmounts = ["fore", "aft"]\nfield_of_regard = "40 deg"'
    only_along = plan_of(GRID + along)
    assert set(only_along.links.kind.tolist()) == {LinkKind.INTRA_PLANE}
    assert len(only_along.links.a) == 66
    both = plan_of(GRID + along + sides)
    assert (both.links.kind == LinkKind.INTER_PLANE).sum() > 30


def test_a_list_of_pairs_is_what_is_linked():
    listed = shell(12, lasers={"topology": "pairs", "pairs": [["p00s03", "p00s02"], ["p00s00", "p00s11"]]})
    for terminals in ("", TWO_MOUNTS):
        plan = plan_of(listed + terminals)
        assert list(zip(plan.links.a.tolist(), plan.links.b.tolist(), strict=True)) == [(0, 11), (2, 3)]
        assert set(plan.links.kind.tolist()) == {LinkKind.INTRA_PLANE}


def every_second(names, r_km, v_km_s):
    assert r_km.shape == v_km_s.shape == (len(names), 3)
    return np.array([(number, number + 1) for number in range(0, len(names), 2)])


def too_far(names, r_km, v_km_s):
    return np.array([(0, len(names))])


@pytest.fixture
def our_module(monkeypatch):
    monkeypatch.setitem(sys.modules, "our_pairs", sys.modules[__name__])


@pytest.mark.usefixtures("our_module")
def test_a_function_of_the_users_pairs():
    for terminals in ("", TWO_MOUNTS):
        plan = plan_of(shell(12, lasers="our_pairs:every_second") + terminals)
        assert {(a, b) for _, a, b in rows_up(plan)} == {(0, 1), (2, 3), (4, 5), (6, 7), (8, 9), (10, 11)}


@pytest.mark.usefixtures("our_module")
@pytest.mark.parametrize(
    ("function", "complaint"),
    [
        ("our_pairs:too_far", "the function returned"),
        ("our_pairs:missing", "cannot be imported"),
        ("no_such:x", "cannot be"),
    ],
)
def test_a_function_that_does_not_pair_is_named(function, complaint):
    with pytest.raises(ScenarioError, match=complaint):
        plan_of(shell(12, lasers=function))


def nearest(**keys: Any) -> str:
    """A low and a high shell whose satellites look for the nearest."""
    low = shell(24, 4, 1, name="low", altitude="550 km", inclination="53 deg", lasers={"topology": "nearest", **keys})
    low += table("[shell.lasers.terminal]", mounts=["free"] * 3, acquisition="15 s", slew_rate="2 deg/s")
    high = shell(12, 3, name="high", altitude="1000 km", inclination="70 deg", lasers="none")
    high += table("[shell.lasers.terminal]", mounts=["free", "free"], acquisition="20 s")
    return low + high + table("[inter_shell]", between=["low", "high"], links=2, at_start="idle")


def test_a_terminal_serves_one_link_and_shells_are_joined():
    plan = plan_of(nearest(), "600 s", "2 s")
    assert {LinkKind.INTER_SHELL} < set(plan.links.kind.tolist())
    most = np.repeat([3, 2], [24, 12])
    for k in range(plan.grid.count):
        engaged = plan.events.states(k, len(plan.links.a))
        busy = np.isin(engaged, [LinkState.SLEWING, LinkState.ACQUIRING, LinkState.TRACKING])
        served = np.bincount(np.concatenate([plan.links.a[busy], plan.links.b[busy]]), minlength=36)
        assert (served <= most).all()
        assert np.flatnonzero(engaged == LinkState.TRACKING).tolist() == plan.snapshot(k).link.tolist()


def test_nothing_between_shells_carries_data_before_the_slower_acquisition():
    plan = plan_of(nearest(), "60 s")
    between = plan.links.kind[plan.row_link] == LinkKind.INTER_SHELL
    k = np.repeat(np.arange(plan.grid.count), np.diff(plan.row_start))
    assert k[between].min() >= 20
    assert k[~between].min() == 0


def test_no_two_satellites_would_rather_have_each_other():
    """At the first instant, of every possible pair that is not linked one end has only links that are not longer."""
    crowd = shell(120, 10, 3, altitude="550 km", inclination="53 deg", lasers="nearest")
    crowd += 'max_range = "4000 km"\n' + table("[shell.lasers.terminal]", mounts=["free"] * 3)
    scenario = parse_scenario(head(seed=1, duration="1 s") + crowd, "test")
    plan = plan_links(scenario, "")
    r_km = propagate(constellation_elements(scenario), scenario.time.start, np.array([0]))[0]
    range_km = np.linalg.norm(r_km[:, np.newaxis] - r_km, axis=2)
    grazing_km = grazing_altitude_km(r_km[:, np.newaxis], r_km)
    linked = np.zeros((120, 120), dtype=bool)
    linked[plan.links.a, plan.links.b] = linked[plan.links.b, plan.links.a] = True
    assert linked.sum(axis=1).max() == 3
    assert linked.sum() > 300
    longest_km = np.where(linked.sum(axis=1) == 3, np.where(linked, range_km, 0).max(axis=1), np.inf)
    wanted = ~linked & (range_km <= 4000) & (grazing_km >= 80) & ~np.eye(120, dtype=bool)
    assert wanted.any()
    assert not (wanted & (range_km < longest_km[:, np.newaxis]) & (range_km < longest_km)).any()


def test_a_hysteresis_saves_handovers():
    changes = {}
    for hysteresis in (0.0, 0.5):
        plan = plan_of(nearest(hysteresis=hysteresis), "1800 s", "10 s")
        changes[hysteresis] = (plan.events.state == LinkState.IDLE).sum()
    assert changes[0.5] < changes[0.0]


def test_links_given_up_for_nearer_ones_are_idle_and_their_interval_is_kept():
    plan = plan_of(nearest(hysteresis=0.0, interval="40 s"), "1800 s", "10 s")
    within = plan.links.kind[plan.events.link] != LinkKind.INTER_SHELL
    given_up = plan.events.k[within & (plan.events.state == LinkState.IDLE)]
    assert len(given_up)
    assert (given_up % 4 == 0).all()


@pytest.mark.parametrize("body", [nearest(), GRID + 'polar_cutoff = "60 deg"' + TWO_MOUNTS])
def test_chunks_of_time_leave_no_trace_in_terminals(body, monkeypatch):
    whole = plan_of(body, "900 s", "10 s")
    monkeypatch.setattr(build, "POSITIONS_AT_ONCE", 66 * 7)
    assert plan_of(body, "900 s", "10 s").digest() == whole.digest()
    assert plan_of(body, "900 s", "10 s", in_order=partial(in_threads, 3)).digest() == whole.digest()


def test_plans_with_terminals_come_back_from_their_files(tmp_path):
    plan = plan_of(nearest(), "120 s", "5 s")
    write_plan(plan, tmp_path / "plan.parquet")
    assert read_plan(tmp_path / "plan.parquet").digest() == plan.digest()


def test_outages_cost_an_acquisition_each():
    random = 'outages = { mean_time_to_failure = "5 min", mean_time_to_repair = "20 s" }\n'
    ideal, real = plan_of(RING + random, "1800 s", "1 s"), plan_of(RING + random + TWO_MOUNTS, "1800 s", "1 s")
    assert rows_up(real) < rows_up(ideal)
    could, does = _by_pair(ideal), _by_pair(real)
    repairs = sum(int((up[1:] & ~up[:-1]).sum()) for up in could.values())
    lost_s = sum(int(up.sum()) for up in could.values()) - sum(int(up.sum()) for up in does.values())
    assert repairs > 20
    # 15 s for each repair, and for each link that was out of order at the start; less what a new outage cuts short
    late_s = 15 * (repairs + sum(not up[0] for up in could.values()))
    assert 0.8 * late_s < lost_s <= late_s


def test_uptime_of_real_lasers():
    """SpaceX, Photonics West 2024: 30 acquisitions a day of 12 s leave 99.58 %, one minus 30 x 12 / 86,400."""
    random = 'outages = { mean_time_to_failure = "48 min", mean_time_to_repair = "1 ms" }\n'
    body = shell(24) + random + TWO_MOUNTS.replace("15 s", "12 s")
    plan = plan_of(body, "43200 s", "6 s")
    expected = 1 - 30 * 12 / 86_400
    spread = 12 / (48 * 60) / math.sqrt(24 * 15)
    assert len(plan.row_link) / (24 * plan.grid.count) == pytest.approx(expected, abs=5 * spread)


def star(topology: str, **keys: Any) -> str:
    """Planes with a seam, on which five lasers could go anywhere."""
    lasers = {"topology": topology, "max_range": "5000 km", **keys}
    planes = shell(66, 6, 2, name="grid", pattern="star", altitude="780 km", inclination="86.4 deg", lasers=lasers)
    return planes + table("[shell.lasers.terminal]", mounts=["free"] * 5)


def test_nothing_crosses_the_seam_unless_asked():
    def crossing(plan) -> int:
        planes = plan.links.a // 11, plan.links.b // 11
        return int(((planes[0] == 0) & (planes[1] == 5)).sum())

    for topology in ("+grid", "nearest"):
        assert crossing(plan_of(star(topology, cross_seam=True), "1200 s", "10 s")) > 0
    assert crossing(plan_of(star("+grid"), "1200 s", "10 s")) == 0


BROKEN = nearest()


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (shell(12, lasers="nearest"), "but no terminals"),
        (RING + 'at_start = "idle"', "but no terminals"),
        (RING + 'pairs = [["p00s00", "p00s01"]]', "pairs but another topology"),
        (shell(12, lasers="pairs"), 'topology "pairs" but no pairs'),
        (shell(12, lasers={"topology": "pairs", "pairs": [["p00s00", "p00s12"]]}), "no such satellite"),
        (shell(12, lasers={"topology": "pairs", "pairs": [["p00s00", "p00s00"]]}), "a link has two ends"),
        (BROKEN.replace('["low", "high"]', '["low", "hi"]'), "there is no such shell"),
        (BROKEN.replace('["low", "high"]', '["low", "low"]'), "it joins two shells"),
        (BROKEN + '\n[[inter_shell]]\nbetween = ["high", "low"]', "one table describes their links"),
        (RING + "cross_seam = true" + TWO_MOUNTS, 'nearest" know a seam'),
        (RING + '[[shell.lasers.terminal]]\nmounts = ["top"]', "mounts"),
        (RING + "[[shell.lasers.terminal]]\nmounts = []", "mounts"),
    ],
)
def test_mistakes_are_named(body, complaint):
    with pytest.raises(ScenarioError, match=complaint):
        parse_scenario(head(seed=1) + body, "test")


@pytest.mark.parametrize("body", [nearest(), star("+grid", cross_seam=True), RING + TWO_MOUNTS])
def test_terminals_survive_being_written_and_read(body):
    scenario = parse_scenario(head(seed=1) + body, "test")
    assert parse_scenario(format_scenario(scenario), "again") == scenario


def test_satellites_without_a_position_are_linked_with_nobody():
    """A TLE-like orbit that decays within the run, masked: its neighbours keep the rest of the ring."""
    falling = """
[orbits]
on_bad = "mask"
[[shell]]
name = "mixed"
satellite = [
    { name = "falling", mean_motion = "16.5 rev/day", inclination = "53 deg", bstar = 0.5 },
    { name = "one", altitude = "550 km", inclination = "53 deg", mean_anomaly = "10 deg" },
    { name = "two", altitude = "550 km", inclination = "53 deg", mean_anomaly = "20 deg" },
]
[shell.lasers]
topology = "nearest"
[[shell.lasers.terminal]]
mounts = ["free", "free"]
"""
    plan = plan_of(falling, duration="86400 s", step="3600 s")
    last = plan.snapshot(plan.grid.count - 1)
    ends = {plan.nodes.names[int(end)] for link in last.link for end in (plan.links.a[link], plan.links.b[link])}
    assert ends == {"one", "two"}
    assert "falling" in {plan.nodes.names[int(end)] for end in np.concatenate([plan.links.a, plan.links.b])}


def test_memory_follows_what_changes_and_not_how_often_terminals_choose():
    scenario = parse_scenario(head(seed=1, duration="3000 s", step="10 s") + nearest(), "test")
    space = build.space_segment(scenario)
    pointed = Acquisition(space.terminals, space.pairings, 1, scenario.time.grid.duration_ns, scenario.time.step_ns)
    sky = build._sky(space, scenario.time.grid, 0)
    pointed.rows(sky, pointed.ahead(sky), 0)
    begun = np.isin(pointed.events()[2], [LinkState.SLEWING, LinkState.ACQUIRING, LinkState.TRACKING]).sum()
    assert len(pointed.engagements()[0]) <= begun
    assert len(pointed.links().terms) == len(space.pairings)
    assert all(pool.engaged.all() for pool in pointed._pools)
