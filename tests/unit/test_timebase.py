from __future__ import annotations

import math
import threading
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace

import pytest

from isl_emu import timebase
from isl_emu.timebase import ManualClock, MonotonicClock, TimeGrid

START = datetime(2026, 3, 20, 14, tzinfo=timezone.utc)
SECOND_NS = 1_000_000_000


def test_a_begun_step_has_an_instant():
    assert TimeGrid.covering(START, 120 * SECOND_NS, SECOND_NS).count == 120
    assert TimeGrid.covering(START, 120 * SECOND_NS + 1, SECOND_NS).count == 121


def test_start_is_turned_into_utc():
    local = START.astimezone(timezone(timedelta(hours=8)))
    assert TimeGrid.covering(local, SECOND_NS, SECOND_NS).start.tzinfo == timezone.utc


def test_a_state_is_valid_until_the_next_instant():
    grid = TimeGrid(START, SECOND_NS, 3)
    assert [grid.instant_at(t) for t in (-1, 0, SECOND_NS - 1, SECOND_NS, 9 * SECOND_NS)] == [0, 0, 0, 1, 2]


def test_grid_times():
    grid = TimeGrid(START, SECOND_NS // 10, 3)
    assert grid.offsets_ns.tolist() == [0, 100_000_000, 200_000_000]
    assert grid.duration_ns == 300_000_000
    assert grid.utc(1_500_000_000) == START + timedelta(seconds=1.5)


def test_manual_clock_only_moves_forward():
    clock = ManualClock(10)
    clock.sleep_until_ns(5)
    assert clock.now_ns() == 10
    clock.sleep_until_ns(25)
    clock.advance_ns(1)
    assert clock.now_ns() == 26


def test_the_machines_clock_waits_for_an_event_or_a_time():
    clock, event = MonotonicClock(), threading.Event()
    begun_ns = clock.now_ns()
    assert not clock.wait_until_ns(begun_ns + 1_000_000, event)
    assert clock.now_ns() >= begun_ns + 1_000_000
    event.set()
    assert clock.wait_until_ns(begun_ns + 10**15, event)


def test_with_a_manual_clock_nobody_waits():
    clock, event = ManualClock(), threading.Event()
    assert not clock.wait_until_ns(10**15, event)
    assert clock.now_ns() == 10**15


@pytest.mark.parametrize("left_ns", [1, 61, 121, 1000, 1999, 1_234_567_891])
def test_a_sleep_is_not_a_nanosecond_longer_than_what_is_left(monkeypatch, left_ns):
    """Python sleeps for whole nanoseconds, rounded up."""
    clock, slept_ns = MonotonicClock(), []
    now_ns = iter([0, 0, left_ns])
    sleep = lambda duration_s: slept_ns.append(math.ceil(duration_s * 1e9))  # noqa: E731
    of_machine = SimpleNamespace(monotonic_ns=lambda: next(now_ns), sleep=sleep)
    monkeypatch.setattr(timebase, "time", of_machine)  # there only: other threads sleep too
    clock.sleep_until_ns(left_ns)
    assert slept_ns == [left_ns]
