from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest

from isl_emu.errors import ScenarioError
from isl_emu.linkplan import build
from isl_emu.linkplan.build import plan_links
from isl_emu.linkplan.plan import LinkKind, NodeKind
from isl_emu.planned import in_threads
from isl_emu.scenario.parse import parse_scenario
from isl_emu.units import SPEED_OF_LIGHT_KM_S
from tests.scenarios import head, shell, station

OSCULATING_KM = 11.0  # what J2 and J3 add to or take from the mean radius of low orbits
RING = head("ring", rate_scale=0.25, duration="5700 s", step="30 s") + shell(
    12, inclination="sun-synchronous", ltan="22:30", lasers={"topology": "ring", "rate": "100 Gbit/s", "queue": "20 ms"}
)
STATIONS = station(
    "gs-chengdu", latitude="30.66 deg", longitude="104.06 deg", height="500 m", antennas=2, downlink="3 Gbit/s",
    queue="40 ms",
) + station(
    "gs-troll", latitude="-72.01 deg", longitude="2.53 deg", min_elevation="0 deg", uplink="2 Gbit/s",
    downlink="4 Gbit/s",
)  # fmt: skip


def plan_of(text: str, in_order=map):
    return plan_links(parse_scenario(text, "test"), text, in_order)


@pytest.fixture(scope="module")
def plan():
    return plan_of(RING + STATIONS)


def test_a_ring_of_twelve_has_twelve_chords_at_every_instant(plan):
    laser = plan.links.kind[plan.row_link] == LinkKind.INTRA_PLANE
    assert (plan.links.kind == LinkKind.INTRA_PLANE).sum() == 12
    assert laser.sum() == 12 * plan.grid.count
    chord_ratio = 2 * math.sin(math.pi / 12)
    range_km = plan.row_delay_ns[laser] * SPEED_OF_LIGHT_KM_S / 1e9
    assert np.abs(range_km - (6378.137 + 525) * chord_ratio).max() < OSCULATING_KM * chord_ratio


def test_the_plan_holds_the_invariants_of_its_records(plan):
    links, row = plan.links, plan.row_link
    assert plan.row_start[0] == 0
    assert plan.row_start[-1] == len(row)
    assert (links.a < links.b).all()
    assert (np.diff(links.a.astype(np.int64) * 100 + links.b) > 0).all(), "ordered by (a, b), none twice"
    for k in range(plan.grid.count):
        assert (np.diff(plan.snapshot(k).link) > 0).all(), "ordered by link, none twice"
    assert set(row.tolist()) == set(range(len(links.a))), "every link is up at least once"
    ground = links.kind == LinkKind.GROUND
    assert (plan.nodes.kind[links.b] == np.where(ground, NodeKind.STATION, NodeKind.SATELLITE)).all()
    assert (plan.nodes.kind[links.a] == NodeKind.SATELLITE).all()
    assert [array.dtype for array in (links.a, links.b, links.kind, links.queue_ns)] == ["i4", "i4", "u1", "i8"]
    assert [array.dtype for array in (plan.row_start, row, plan.row_delay_ns)] == ["i8", "i4", "i8"]
    assert not plan.row_delay_ns.flags.writeable


def test_rates_and_queues_are_those_of_shell_and_station(plan):
    chengdu, troll = plan.nodes.index("gs-chengdu"), plan.nodes.index("gs-troll")
    far_end = plan.links.b[plan.row_link]
    for node, down_bit_s, up_bit_s in ((chengdu, 3e9, 1e9), (troll, 4e9, 2e9)):
        assert set(plan.row_rate_ab_bit_s[far_end == node].tolist()) == {down_bit_s}
        assert set(plan.row_rate_ba_bit_s[far_end == node].tolist()) == {up_bit_s}
    assert set(plan.row_rate_ab_bit_s[far_end < 12].tolist()) == {100_000_000_000}
    assert set(plan.links.queue_ns[plan.links.b == chengdu].tolist()) == {40_000_000}
    assert set(plan.links.queue_ns[plan.links.b < 12].tolist()) == {20_000_000}
    assert plan.rate_scale == 0.25
    assert plan.scenario_toml == RING + STATIONS


def test_no_station_exceeds_its_antennas(plan):
    for name, antennas in (("gs-chengdu", 2), ("gs-troll", 1)):
        of_station = plan.links.b[plan.row_link] == plan.nodes.index(name)
        counts = np.add.reduceat(of_station, plan.row_start[:-1])
        assert counts.max() == antennas


def test_chunks_of_time_leave_no_trace(plan, monkeypatch):
    monkeypatch.setattr(build, "POSITIONS_AT_ONCE", 12 * 7)
    assert plan_of(RING + STATIONS).digest() == plan.digest()
    assert plan_of(RING + STATIONS, partial(in_threads, 3)).digest() == plan.digest()


def test_a_range_limit_takes_links_down():
    limited = plan_of(RING.replace('queue = "20 ms"', 'max_range = "3573 km"'))
    up = np.diff(limited.row_start)
    assert 0 < up.sum() < 12 * limited.grid.count
    assert limited.row_delay_ns.max() <= 3573 / SPEED_OF_LIGHT_KM_S * 1e9


def test_the_earth_takes_links_down():
    assert len(plan_of(RING.replace("total = 12", "total = 4")).links.a) == 0


def test_a_plan_without_links_is_a_plan():
    empty = plan_of(RING.replace('topology = "ring"', 'topology = "none"'))
    assert len(empty.links.a) == len(empty.row_link) == 0
    assert empty.row_start.tolist() == [0] * (empty.grid.count + 1)
    assert empty.digest() != plan_of(RING).digest()


def test_stations_see_the_satellites_of_all_shells():
    second = RING[RING.index("[[shell]]") :].replace('"ring"\nwalker', '"high"\nwalker').replace("525 km", "1200 km")
    both = plan_of(RING + second + STATIONS)
    assert both.nodes.names[12] == "high-p00s00"
    linked = both.links.a[both.links.kind == LinkKind.GROUND]
    assert linked.min() < 12 <= linked.max()
    assert not ((both.links.a < 12) & (both.links.b >= 12) & (both.links.b < 24)).any(), "shells are not linked"


def test_an_impossible_orbit_names_its_shell():
    with pytest.raises(ScenarioError, match="shell ring: altitude is 7000 km"):
        plan_of(RING.replace("525 km", "7000 km"))
