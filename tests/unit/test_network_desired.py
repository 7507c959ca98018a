"""The shaping that link ends should have."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from isl_emu.linkplan.plan import AQM, QueueKind
from isl_emu.network.desired import (
    changed_ends,
    ends_at,
    frame_byte,
    gso_byte,
    initial_ends,
    policed_byte,
    policed_ticks,
    queue_kinds,
    shaped_rate_bit_s,
)
from tests.plans import MS, make_plan


def test_before_the_run_all_is_down_with_the_first_state_to_come() -> None:
    plan = make_plan(2, ["gs"], [{(0, 1): 5 * MS}, {(0, 1): 6 * MS, (0, 2): 3 * MS}])
    ends = initial_ends(plan, 0)
    assert not ends["up"].any()
    assert ends["delay_ns"].tolist() == [5 * MS, 5 * MS, 3 * MS, 3 * MS]


def test_a_link_that_goes_down_keeps_its_delay() -> None:
    plan = make_plan(3, [], [{(0, 1): 5 * MS, (1, 2): MS}, {(1, 2): MS}])
    first = ends_at(plan, 0, initial_ends(plan, 0), 0)
    second = ends_at(plan, 1, first, 0)
    assert second["up"].tolist() == [False, False, True, True]
    assert second["delay_ns"].tolist() == [5 * MS, 5 * MS, MS, MS]
    assert changed_ends(first, second).tolist() == [0, 1]


def test_only_what_changes_is_named() -> None:
    plan = make_plan(3, [], [{(0, 1): 5 * MS, (1, 2): MS}, {(0, 1): 5 * MS + 1001, (1, 2): MS}])
    first = ends_at(plan, 0, initial_ends(plan, 0), 0)
    assert changed_ends(first, ends_at(plan, 1, first, 0)).tolist() == [0, 1]
    assert changed_ends(first, first).tolist() == []


def test_small_changes_of_a_delay_wait_until_they_add_up_to_a_microsecond() -> None:
    plan = make_plan(2, [], [{(0, 1): 5 * MS + 400 * k} for k in range(7)] + [{}, {(0, 1): 5 * MS + 3001}])
    ends, delays_ns, planned_ns = initial_ends(plan, 0), [], []
    for k in range(plan.grid.count):
        ends = ends_at(plan, k, ends, 0)
        delays_ns.append(int(ends["delay_ns"][0]) - 5 * MS)
        planned_ns.append(int(ends["planned_delay_ns"][0]) - 5 * MS)
    assert delays_ns == [0, 0, 0, 1200, 1200, 1200, 2400, 2400, 3001]  # a link that comes up is set exactly
    assert planned_ns == [0, 400, 800, 1200, 1600, 2000, 2400, 2400, 3001]


def test_bias_is_taken_off_but_never_below_zero() -> None:
    plan = make_plan(3, [], [{(0, 1): 5 * MS, (1, 2): 1_000}])
    ends = ends_at(plan, 0, initial_ends(plan, 200_000), 200_000)
    assert ends["delay_ns"].tolist() == [4_800_000, 4_800_000, 0, 0]
    assert ends["planned_delay_ns"].tolist() == [5 * MS, 5 * MS, 1_000, 1_000]


def test_rates_are_scaled_to_whole_bytes() -> None:
    physical = np.array([100_000_000_000, 1_001, 1])
    assert shaped_rate_bit_s(physical, 0.001).tolist() == [100_000_000, 8, 8]
    assert shaped_rate_bit_s(physical, 1.0).tolist() == [100_000_000_000, 1_000, 8]


def test_each_direction_has_its_own_rate() -> None:
    plan = make_plan(2, [], [{(0, 1): MS}], rate_bit_s=1_000_000)
    plan.row_rate_ba_bit_s.setflags(write=True)
    plan.row_rate_ba_bit_s[:] = 4_000_000
    assert ends_at(plan, 0, initial_ends(plan, 0), 0)["rate_bit_s"].tolist() == [1_000_000, 4_000_000]


def test_losses_of_both_directions_are_shaped_and_a_change_is_seen() -> None:
    plan = replace(make_plan(2, [], [{(0, 1): MS}, {(0, 1): MS}]), row_loss_ratio=np.array([0.0, 0.125]))
    first = ends_at(plan, 0, initial_ends(plan, 0), 0)
    second = ends_at(plan, 1, first, 0)
    assert (first["loss_ratio"].tolist(), second["loss_ratio"].tolist()) == ([0.0, 0.0], [0.125, 0.125])
    assert changed_ends(first, second).tolist() == [0, 1]


def test_a_policed_queue_reads_back_as_it_was_set_to_a_tick() -> None:
    rate_bit_s, byte = np.array([1_000, 20_000_000, 100_000_000_000]), np.array([12_112, 50_000, 250_000_000])
    back = policed_byte(policed_ticks(byte, rate_bit_s), rate_bit_s)
    assert (back >= byte).all()
    assert (back - byte <= rate_bit_s * 64e-9 / 8 + 1).all()


def test_a_queue_of_a_varying_rate_is_in_a_bucket() -> None:
    """A policer would forget what waits at each change."""
    plan = make_plan(3, [], [{(0, 1): MS, (1, 2): MS}] * 2)
    rates = plan.row_rate_ba_bit_s.copy()
    rates[3] += 8_000
    plan = replace(plan, row_rate_ba_bit_s=rates)
    assert queue_kinds(plan).tolist() == [QueueKind.NONE, QueueKind.BFIFO]
    assert ends_at(plan, 0, initial_ends(plan, 0), 0)["aqm"].tolist() == [0, 0, 1, 1]
    managed = replace(plan, links=replace(plan.links, aqm=np.array([(QueueKind.CAKE, True, 1, 2)] * 2, AQM)))
    assert queue_kinds(managed).tolist() == [QueueKind.CAKE] * 2


def test_a_queue_before_losses_is_in_a_bucket() -> None:
    """A policer would count what the netem loses without serialising it."""
    plan = make_plan(3, [], [{(0, 1): MS, (1, 2): MS}] * 2)
    plan = replace(plan, row_loss_ratio=np.array([0.0, 0.0, 0.1, 0.0]))
    assert queue_kinds(plan).tolist() == [QueueKind.BFIFO, QueueKind.NONE]


def test_long_packets_make_long_frames_and_queues() -> None:
    plan = make_plan(2, [], [{(0, 1): MS}], rate_bit_s=1_000_000, queue_ns=MS)
    plan = replace(plan, links=replace(plan.links, mtu_byte=np.array([9_000], np.int32)))
    assert gso_byte(plan).tolist() == frame_byte(plan).tolist() == [9_014] * 2
    assert ends_at(plan, 0, initial_ends(plan, 0), 0)["queue_byte"].tolist() == [8 * 9_014] * 2


@pytest.mark.parametrize(
    ("rate_bit_s", "byte"), [(100_000_000, 1514), (1_000_000_000, 12_500), (100_000_000_000, 65_536)]
)
def test_a_super_packet_takes_100_us_at_most(rate_bit_s: int, byte: int) -> None:
    assert gso_byte(make_plan(2, [], [{(0, 1): MS}], rate_bit_s=rate_bit_s)).tolist() == [byte, byte]


def test_slow_motion_keeps_the_packets_in_flight_and_waiting():
    plan = make_plan(2, (), [{(0, 1): 10 * MS}], rate_bit_s=800_000_000)
    real, slow = (ends_at(plan, 0, initial_ends(plan, 0), 50_000, slowdown) for slowdown in (1.0, 4.0))
    assert slow["delay_ns"].tolist() == [40 * MS - 50_000] * 2
    assert slow["rate_bit_s"].tolist() == [200_000_000] * 2
    assert slow["queue_byte"].tolist() == real["queue_byte"].tolist()
    assert slow["planned_delay_ns"].tolist() == [10 * MS] * 2
