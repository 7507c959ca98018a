"""What the machine around a guest kernel does to it: seen from outside, because a guest cannot see it.

A guest believes that its CPU is always there. The machine's scheduler knows better: for each process it counts how long
it ran, and how long it could have run but had to wait. The guest's processes are those whose current folder is its own.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isl_emu.machine.guardian import processes_in
from isl_emu.machine.load import Counters, load_between, read_counters
from isl_emu.timebase import MonotonicClock

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
def watched_guest(folder: Path, append: Callable[[dict[str, Any]], None]) -> Iterator[None]:
    """Look at the guest whose control folder this is once a second while the block runs; `append` gets the records."""
    stopped = threading.Event()
    watcher = threading.Thread(target=_watch, args=(str(folder), append, stopped), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        stopped.set()
        watcher.join()


def _watch(folder: str, append: Callable[[dict[str, Any]], None], stopped: threading.Event) -> None:
    before = look(folder)
    while not stopped.wait(INTERVAL_S):
        after = look(folder)
        append(outside_between(before, after))
        before = after


def _tasks(folder: str) -> Iterator[tuple[str, tuple[int, int]]]:
    """The guest's tasks that are there now; a machine that does not count has none."""
    for pid in processes_in(folder):
        for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            try:
                yield str(path), parse_schedstat(path.read_text())
            except OSError:  # it has ended
                continue
