"""What a user's programs and workloads computed: the CPU time of the nodes' containers, second by second.

In exact time, where computing takes none, it is what they have said that they computed.

It is accounted for when the machine's CPUs are full. What other parts have started in the same containers, such as a
model server, accounts for itself, and is taken off.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from isl_emu.nodes.containers import Container
from isl_emu.parts.activity import Activity
from isl_emu.parts.live_run import LiveRun
from isl_emu.parts.serving.modelled_state import PROGRAMS, ModelledState
from isl_emu.runs.clock import RunTimes
from isl_emu.runs.journal import Journal
from isl_emu.units import NS_PER_S

JOURNAL = "program_cpu"
INTERVAL_NS = NS_PER_S
_TICK_NS = NS_PER_S // os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class ProcessTimes:
    """A process, its parent and its session by their ids, and the CPU time of it and of the children it waited for."""

    pid: int
    parent: int
    session: int
    cpu_ns: int

    @classmethod
    def of(cls, pid: int, stat: str) -> ProcessTimes:
        """From the text of /proc/PID/stat; the name in it may hold anything."""
        words = stat.rpartition(")")[2].split()
        return cls(pid, int(words[1]), int(words[3]), sum(map(int, words[11:15])) * _TICK_NS)


class Meter:
    """The CPU time of one container without what others have started in it.

    Args:
        own: the processes that are not taken off; it may grow.
        starter: who starts programs in containers.
    """

    def __init__(self, container: Container, own: Collection[int], starter: int):
        self._container, self._own, self._starter = container, own, starter
        self._others_ns: dict[int, int] = {}  # by session; of one that has ended, what it had when last seen

    def cpu_ns(self) -> int:
        """Since the container was made."""
        processes = [found for pid in self._container.group.pids() if (found := _read(pid)) is not None]
        others = {each.session for each in processes if each.pid == each.session and each.parent == self._starter}
        spent_ns: Counter[int] = Counter()
        for each in processes:
            if each.session in others:
                spent_ns[each.session] += each.cpu_ns
        self._others_ns |= spent_ns
        taken_off_ns = sum(cpu_ns for session, cpu_ns in self._others_ns.items() if session not in self._own)
        return self._container.cpu_ns() - taken_off_ns


class StatedMeter:
    """The CPU time that programs in one node have said, in exact time, that they computed.

    Args:
        row: of the node in `state`.
        cpus: of its container.
    """

    def __init__(self, state: ModelledState, row: int, cpus: float):
        self._state, self._row, self._cpus = state, row, cpus

    def cpu_ns(self) -> int:
        """Since the run's beginning."""
        return round(int(self._state.busy_ns[self._row]) * self._cpus)


def _read(pid: int) -> ProcessTimes | None:
    """None if it has ended meanwhile."""
    try:
        return ProcessTimes.of(pid, Path(f"/proc/{pid}/stat").read_text())
    except OSError:
        return None


class CpuMeter(Activity):
    """Writes down the CPU time of nodes' programs, until the run ends.

    Args:
        containers: of the nodes, by name.
        own: the processes of a user's programs and workloads, as they are started.
    """

    def __init__(self, live: LiveRun, containers: Mapping[str, Container], own: Collection[int]):
        self._live = live
        self._meters: dict[str, Meter | StatedMeter]
        if live.exact:
            state = ModelledState.open(live.folder.journal / PROGRAMS)
            self._meters = {
                name: StatedMeter(state, state.names.index(name), container.cpus)
                for name, container in containers.items()
            }
        else:
            self._meters = {name: Meter(container, own, os.getpid()) for name, container in containers.items()}
        self._stopped = threading.Event()

    def begin(self, times: RunTimes, ending: ExitStack) -> None:
        journal = ending.enter_context(Journal(self._live.folder.journal / f"{JOURNAL}.jsonl"))
        thread = threading.Thread(target=self._follow, args=(times, journal), name="cpu meter", daemon=True)
        thread.start()
        ending.callback(thread.join)
        ending.callback(self._stopped.set)

    def _follow(self, times: RunTimes, journal: Journal) -> None:
        clock, begun_ns, due_ns = self._live.clock, times.t0_ns, times.t0_ns
        clock.wait_until_ns(due_ns, self._stopped)
        before_ns = {name: meter.cpu_ns() for name, meter in self._meters.items()}
        while due_ns < times.until_ns and not self._stopped.is_set():
            due_ns = min(due_ns + INTERVAL_NS, times.until_ns)
            clock.wait_until_ns(due_ns, self._stopped)
            now_ns = clock.now_ns()
            for name, meter in self._meters.items():
                spent_ns = meter.cpu_ns() - before_ns[name]
                if spent_ns > 0 and now_ns > begun_ns:
                    t_ns = now_ns - times.t0_ns
                    journal.append({"node": name, "t_ns": t_ns, "interval_ns": now_ns - begun_ns, "cpu_ns": spent_ns})
                before_ns[name] += max(spent_ns, 0)
            begun_ns = now_ns
