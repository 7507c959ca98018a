"""The clock of a live run stops and goes on for every process, and nobody sees it run backwards or past its stop."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from isl_emu.runs.clock import LOOK_AGAIN_S, RunClock, run_clock

S = 1_000_000_000
MS = 1_000_000


class Machine:
    """CLOCK_MONOTONIC as the test sets it; sleeping moves it."""

    def __init__(self) -> None:
        self.ns = 1000 * S

    def sleep(self, duration_s: float) -> None:
        self.ns += round(duration_s * S)


@pytest.fixture
def machine(monkeypatch) -> Machine:
    machine = Machine()
    own, now_ns, sleep = threading.get_ident(), time.monotonic_ns, time.sleep

    def ours() -> bool:
        return threading.get_ident() == own  # another test's thread may still wait

    monkeypatch.setattr(time, "monotonic_ns", lambda: machine.ns if ours() else now_ns())
    monkeypatch.setattr(time, "sleep", lambda duration_s: machine.sleep(duration_s) if ours() else sleep(duration_s))
    return machine


@pytest.mark.parametrize("slowdown", [1.0, 4.0])
def test_it_is_slower_than_the_machine_by_its_factor(tmp_path: Path, machine: Machine, slowdown: float) -> None:
    clock = RunClock.create(tmp_path, slowdown)
    assert clock.now_ns() == 1000 * S / slowdown
    clock.sleep_until_ns(clock.now_ns() + S)
    assert machine.ns == 1000 * S + slowdown * S
    assert (clock.real_s(S), clock.own_ns(4 * S)) == (slowdown, 4 * S / slowdown)


@pytest.mark.parametrize("slowdown", [1.0, 4.0])
def test_a_pause_leaves_no_gap(tmp_path: Path, machine: Machine, slowdown: float) -> None:
    clock = RunClock.create(tmp_path, slowdown)
    stop_ns = clock.now_ns() + S
    clock.stop_at_ns(stop_ns)
    assert not clock.stands
    machine.sleep(100 * slowdown)
    assert clock.stands and clock.now_ns() == stop_ns
    clock.go_on()
    assert not clock.stands and clock.now_ns() == stop_ns
    machine.sleep(2 * slowdown)
    assert clock.now_ns() == stop_ns + 2 * S


def test_a_stop_that_is_taken_back_changes_nothing(tmp_path: Path, machine: Machine) -> None:
    clock = RunClock.create(tmp_path, 1.0)
    clock.stop_at_ns(clock.now_ns() + 2 * S)
    machine.sleep(1)
    clock.go_on()
    machine.sleep(3)
    assert clock.now_ns() == 1004 * S


def test_several_pauses_add_up(tmp_path: Path, machine: Machine) -> None:
    clock = RunClock.create(tmp_path, 1.0)
    for _ in range(3):
        clock.stop_at_ns(clock.now_ns() + S)
        machine.sleep(10)
        clock.go_on()
    assert (clock.now_ns(), machine.ns) == (1003 * S, 1030 * S)


def test_who_waits_waits_through_a_pause_and_is_on_time_after_it(tmp_path: Path, machine: Machine) -> None:
    clock = RunClock.create(tmp_path, 1.0)
    deadline_ns = clock.now_ns() + 2 * S
    clock.stop_at_ns(clock.now_ns() + S)
    stood_s = 0.0
    while clock.now_ns() < deadline_ns:
        if clock.stands and stood_s > 60:
            clock.go_on()
        timeout_s = clock.timeout_s(deadline_ns)
        stood_s += timeout_s
        machine.sleep(timeout_s)
    assert clock.now_ns() == deadline_ns


def test_who_waits_for_an_instant_just_after_the_stop_does_not_spin(tmp_path: Path, machine: Machine) -> None:
    clock = RunClock.create(tmp_path, 1.0)
    stop_ns = clock.now_ns() + S
    clock.stop_at_ns(stop_ns)
    machine.sleep(1)
    assert clock.timeout_s(stop_ns + 1) == LOOK_AGAIN_S
    assert clock.timeout_s(stop_ns - 1) < 1


def test_the_same_clock_without_slow_motion_pauses_too(tmp_path: Path, machine: Machine) -> None:
    clock = RunClock.create(tmp_path, 4.0)
    own = clock.without_slow_motion()
    clock.stop_at_ns(clock.now_ns() + S)
    machine.sleep(100)
    assert own.now_ns() == 1004 * S


def test_an_event_ends_the_waiting(tmp_path: Path) -> None:
    clock, event = RunClock.create(tmp_path, 1.0), threading.Event()
    assert not clock.wait_until_ns(clock.now_ns() + MS, event)
    event.set()
    assert clock.wait_until_ns(clock.now_ns() + 1000 * S, event)


def test_every_process_sees_the_same_clock(tmp_path: Path) -> None:
    clock = RunClock.create(tmp_path, 2.0)
    clock.stop_at_ns(stop_ns := clock.now_ns())
    code = f"from isl_emu.runs.clock import *; print(run_clock(Path({str(tmp_path)!r})).now_ns())"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(found.stdout) == stop_ns == run_clock(tmp_path).now_ns()
