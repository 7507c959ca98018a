"""How busy the machine is while a run lasts, once a second, from inside a guest and from outside.

A guest believes that its CPU is always there. The machine's scheduler knows better: for each process it counts how long
it ran, and how long it could have run but had to wait. The guest's processes are those whose current folder is its own.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isl_emu.machine.guardian import processes_in
from isl_emu.timebase import Clock, MonotonicClock
from isl_emu.units import NS_PER_S

SAMPLE_INTERVAL_NS = NS_PER_S
PAUSE_NS = NS_PER_S // 50
PROC = Path("/proc")


@dataclass(frozen=True)
class CpuTimes:
    """What all CPUs together have spent since boot, in clock ticks, and how many CPUs there are."""

    total: int
    idle: int
    steal: int
    cpus: int


@dataclass(frozen=True)
class Counters:
    """The kernel's counters at one time; `waiting_us` is None on a kernel without pressure information."""

    t_ns: int
    machine_ns: int  # CLOCK_MONOTONIC, which no pause stops
    cpu: CpuTimes
    waiting_us: int | None


def parse_stat(text: str) -> CpuTimes:
    """The CPU times in the text of /proc/stat (proc(5)): guest times are within user time, so they are not added."""
    lines = text.splitlines()
    user, nice, system, idle, iowait, irq, softirq, steal = (int(word) for word in lines[0].split()[1:9])
    total = user + nice + system + idle + iowait + irq + softirq + steal
    return CpuTimes(total, idle + iowait, steal, sum(bool(re.match(r"cpu\d", line)) for line in lines))


def parse_pressure(text: str) -> int:
    """The us for which some process waited, in the text of a /proc/pressure file."""
    match = re.search(r"^some .*total=(\d+)", text, re.MULTILINE)
    if not match:
        raise ValueError(f"pressure: the text is {text!r}, but it has a line that begins with some; update the kernel")
    return int(match.group(1))


def load_between(before: Counters, after: Counters) -> dict[str, Any]:
    """The shares of time between two readings; None where there is no counter or no tick passed."""
    ticks = after.cpu.total - before.cpu.total
    record: dict[str, Any] = {"cpus": after.cpu.cpus, "busy_ratio": None, "steal_ratio": None, "pressure_ratio": None}
    if ticks > 0:
        record["busy_ratio"] = 1.0 - (after.cpu.idle - before.cpu.idle) / ticks
        record["steal_ratio"] = (after.cpu.steal - before.cpu.steal) / ticks
    if before.waiting_us is not None and after.waiting_us is not None:
        record["pressure_ratio"] = (after.waiting_us - before.waiting_us) * 1000 / (after.t_ns - before.t_ns)
    return record


def paused_between(before: Counters, after: Counters) -> bool:
    """Whether the run stood for a part of the time: what the machine did then says nothing about the run."""
    return (after.machine_ns - before.machine_ns) - (after.t_ns - before.t_ns) > PAUSE_NS


def read_counters(clock: Clock) -> Counters:
    """The counters now."""
    cpu = parse_stat((PROC / "stat").read_text())
    try:
        waiting_us = parse_pressure((PROC / "pressure" / "cpu").read_text())
    except OSError:
        waiting_us = None
    return Counters(clock.now_ns(), time.monotonic_ns(), cpu, waiting_us)


class LoadSampler(threading.Thread):
    """Samples the load once a second, at absolute times, until it is stopped.

    Args:
        append: receives each record, for example `Journal.append`.
        t0_ns: start of the run on the clock; records count from it.
        clock: the machine's, or the same less pauses.
    """

    def __init__(self, append: Callable[[dict[str, Any]], None], t0_ns: int, clock: Clock | None = None):
        super().__init__(name="load-sampler", daemon=True)
        self._append = append
        self._t0_ns = t0_ns
        self._clock = clock or MonotonicClock()
        self._stopped = threading.Event()

    def run(self) -> None:
        deadline_ns = max(self._clock.now_ns(), self._t0_ns)
        if self._stopped_before(deadline_ns):
            return
        before = read_counters(self._clock)
        while not self._stopped_before(deadline_ns := next_deadline_ns(deadline_ns, before.t_ns)):
            lateness_ns = self._clock.now_ns() - deadline_ns
            after = read_counters(self._clock)
            if not paused_between(before, after):
                t_ns = after.t_ns - self._t0_ns
                self._append({"t_ns": t_ns, **load_between(before, after), "wakeup_lateness_ns": lateness_ns})
            before = after

    def _stopped_before(self, deadline_ns: int) -> bool:
        """Wait until the deadline; True as soon as the sampler is stopped."""
        return self._clock.wait_until_ns(deadline_ns, self._stopped)

    def stop(self) -> None:
        """End the sampling and wait for the thread."""
        self._stopped.set()
        self.join()


def next_deadline_ns(deadline_ns: int, now_ns: int) -> int:
    """The first sampling time after now; those that passed meanwhile are skipped, never caught up in a burst."""
    missed = max(0, now_ns - deadline_ns) // SAMPLE_INTERVAL_NS
    return deadline_ns + (missed + 1) * SAMPLE_INTERVAL_NS


INTERVAL_S = 1.0

Spent = dict[str, tuple[int, int]]
"""By task: ns for which it ran, and ns for which it waited for a CPU, since it began."""


@dataclass(frozen=True)
class Outside:
    """One look at the machine and at the guest's processes."""

    utc_ns: int
    counters: Counters
    spent: Spent


def outside_between(before: Outside, after: Outside) -> dict[str, Any]:
    """The shares of time between two looks; None where the machine does not count.

    A guest's processes run one at a time, so together they cannot have waited for longer than they did not run: when
    one wakes another, both are runnable for a moment.
    """
    load = load_between(before.counters, after.counters)
    elapsed_ns = after.counters.t_ns - before.counters.t_ns
    record: dict[str, Any] = {"utc_ns": after.utc_ns, "guest_busy_ratio": None, "guest_waiting_ratio": None}
    record |= {"steal_ratio": load["steal_ratio"], "pressure_ratio": load["pressure_ratio"]}
    if after.spent and elapsed_ns > 0:
        ran_ns, waited_ns = (
            sum(spent[kind] - before.spent.get(task, (0, 0))[kind] for task, spent in after.spent.items())
            for kind in (0, 1)
        )
        busy = min(ran_ns / elapsed_ns, 1.0)
        record |= {"guest_busy_ratio": busy, "guest_waiting_ratio": min(waited_ns / elapsed_ns, 1.0 - busy)}
    return record


def parse_schedstat(text: str) -> tuple[int, int]:
    """The ns that a task ran and waited, in the text of its schedstat file (Linux Documentation, sched-stats)."""
    ran_ns, waited_ns, _ = map(int, text.split())
    return ran_ns, waited_ns


def look(folder: str) -> Outside:
    """Look at the machine and at the guest in a folder."""
    return Outside(time.time_ns(), read_counters(MonotonicClock()), dict(_tasks(folder)))


@contextmanager
def watched_guest(folder: Path, append: Callable[[dict[str, Any]], None], number: int = 0) -> Iterator[None]:
    """Look at the guest whose control folder this is once a second while the block runs; `append` gets the records.

    Args:
        number: the guest's.
    """
    stopped = threading.Event()
    watcher = threading.Thread(target=_watch, args=(str(folder), append, number, stopped), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        stopped.set()
        watcher.join()


def _watch(folder: str, append: Callable[[dict[str, Any]], None], number: int, stopped: threading.Event) -> None:
    before = look(folder)
    while not stopped.wait(INTERVAL_S):
        after = look(folder)
        append({"guest": number, **outside_between(before, after)})
        before = after


def _tasks(folder: str) -> Iterator[tuple[str, tuple[int, int]]]:
    """The guest's tasks that are there now; a machine that does not count has none."""
    for pid in processes_in(folder):
        for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            try:
                yield str(path), parse_schedstat(path.read_text())
            except OSError:  # it has ended
                continue
