"""The load: parsers on real texts, and shares between two readings."""

from __future__ import annotations

from dataclasses import replace

import pytest

from isl_emu.machine.load import (
    Counters,
    CpuTimes,
    LoadSampler,
    load_between,
    next_deadline_ns,
    parse_pressure,
    parse_stat,
    paused_between,
    read_counters,
)
from isl_emu.timebase import ManualClock, MonotonicClock

S = 1_000_000_000

# from a virtual machine with two CPUs, kernel 6.18
VM_STAT = """\
cpu  6603 0 2911 360798 510 0 64 10 0 0
cpu0 1400 0 912 183100 24 0 17 3 0 0
cpu1 5203 0 1998 177697 485 0 46 7 0 0
intr 194072 0 0 0 0 0 0 0 0 0 0 0
ctxt 2018296
btime 1795391505
processes 17131
procs_running 3
procs_blocked 0
softirq 162268 0 26251 4 10086 44118 0 3 42634 0 39172
"""
# from a User-mode Linux guest, kernel 6.1, before and after one second of a busy loop
UML_BEFORE = "cpu  134 0 10 0 0 0 0 0 0 0\ncpu0 134 0 10 0 0 0 0 0 0 0\nintr 146 146 0\n"
UML_AFTER = "cpu  236 0 10 0 0 0 0 0 0 0\ncpu0 236 0 10 0 0 0 0 0 0 0\nintr 251 249 0\n"
PRESSURE = "some avg10=6.23 avg60=1.87 avg300=0.99 total=17488888\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"


def test_stat_of_a_virtual_machine() -> None:
    total = 6603 + 2911 + 360798 + 510 + 64 + 10
    assert parse_stat(VM_STAT) == CpuTimes(total, 360798 + 510, steal=10, cpus=2)


def test_guest_time_is_not_counted_twice() -> None:
    assert parse_stat("cpu  50 0 0 50 0 0 0 0 30 0\ncpu0 50 0 0 50 0 0 0 0 30 0\n").total == 100


def test_pressure_total() -> None:
    assert parse_pressure(PRESSURE) == 17_488_888


def test_text_without_pressure_is_refused() -> None:
    with pytest.raises(ValueError, match="begins with some"):
        parse_pressure("full avg10=0.00\n")


def counters(t_ns: int, stat: str, waiting_us: int | None = None) -> Counters:
    return Counters(t_ns, t_ns, parse_stat(stat), waiting_us)


def test_busy_loop_fills_the_only_cpu() -> None:
    record = load_between(counters(0, UML_BEFORE), counters(S, UML_AFTER))
    assert record == {"cpus": 1, "busy_ratio": 1.0, "steal_ratio": 0.0, "pressure_ratio": None}


def test_shares_of_two_cpus() -> None:
    later = VM_STAT.replace("cpu  6603 0 2911 360798 510 0 64 10", "cpu  6643 0 2911 360940 518 0 64 20")
    record = load_between(counters(0, VM_STAT, 1_000), counters(2 * S, later, 501_000))
    assert record["busy_ratio"] == pytest.approx(50 / 200)
    assert record["steal_ratio"] == pytest.approx(10 / 200)
    assert record["pressure_ratio"] == pytest.approx(0.25)


def test_no_tick_between_two_readings_is_a_gap() -> None:
    assert load_between(counters(0, VM_STAT), counters(1, VM_STAT))["busy_ratio"] is None


def test_a_second_in_which_the_run_stood_is_left_out() -> None:
    before, after = counters(0, VM_STAT), counters(S, VM_STAT)
    assert not paused_between(before, after)
    assert paused_between(before, replace(after, machine_ns=3 * S))


def test_this_kernel_can_be_read() -> None:
    now = read_counters(ManualClock(5))
    assert now.t_ns == 5 and now.cpu.cpus >= 1 and 0 < now.cpu.idle < now.cpu.total


def test_sampling_times_do_not_drift_and_skip_what_was_missed() -> None:
    assert next_deadline_ns(10 * S, 10 * S + 3) == 11 * S
    assert next_deadline_ns(10 * S, 13 * S + 5) == 14 * S


def test_sampler_that_is_stopped_before_the_start_writes_nothing() -> None:
    records: list[dict[str, object]] = []
    clock = MonotonicClock()  # a clock of one's own would jump to the start as soon as the sampler waits for it
    sampler = LoadSampler(records.append, t0_ns=clock.now_ns() + 1000 * S, clock=clock)
    sampler.start()
    sampler.stop()
    assert records == [] and not sampler.is_alive()
