"""Delays and rates between satellites over the lasers of one instant."""

from __future__ import annotations

import numpy as np

from isl_emu.routing.laser_paths import LaserPaths
from tests.plans import MS, make_plan, ring_edges

RATE_BIT_S = 8_000_000


def test_delays_follow_the_lasers_and_never_the_ground() -> None:
    edges = {(0, 1): 5 * MS, (1, 2): 5 * MS, (0, 3): MS, (2, 3): MS}  # 3 is a station that sees 0 and 2
    paths = LaserPaths(make_plan(3, ["gs-oslo"], [edges]), 0, [0, 2])
    assert paths.delay_ns.tolist() == [[0, 10 * MS], [10 * MS, 0]]


def test_where_there_is_no_path_the_delay_is_infinite_and_the_rate_nothing() -> None:
    paths = LaserPaths(make_plan(4, [], [{(0, 1): MS, (2, 3): MS}]), 0, [0, 3])
    assert np.isinf(paths.delay_ns[0, 1])
    assert paths.rates_bit_s([(0, 1)]).tolist() == [0.0]


def test_a_link_is_shared_by_those_who_use_it_in_one_direction() -> None:
    plan = make_plan(6, [], [ring_edges(6, MS)], rate_bit_s=RATE_BIT_S, rate_scale=0.5)
    paths = LaserPaths(plan, 0, range(6))
    around = [(place, (place + 1) % 6) for place in range(6)]
    assert set(paths.rates_bit_s(around)) == {RATE_BIT_S / 2}
    assert paths.rates_bit_s([(0, 1), (0, 2), (1, 0)]).tolist() == [RATE_BIT_S / 4, RATE_BIT_S / 4, RATE_BIT_S / 2]
