"""The governor: while the sky moves it lets Sun, batteries and radiators decide how fast satellites may compute.

It sees their computers by how much they do, and sets how fast they may."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Protocol

import numpy as np

from isl_emu.energy.fleet import Fleet, scenario_fleet
from isl_emu.energy.ledger import Ledger
from isl_emu.energy.sky import Sunshine, find_sunshine
from isl_emu.errors import WorkloadError
from isl_emu.nodes.containers import Container
from isl_emu.parts.activity import Activity
from isl_emu.parts.live_run import LiveRun
from isl_emu.parts.serving.modelled_state import FILES, ModelledState
from isl_emu.runs.clock import RunTimes
from isl_emu.runs.journal import Journal
from isl_emu.timebase import Clock, TimeGrid
from isl_emu.units import NS_PER_S

FINEST_PACE = 0.01  # smaller changes are not worth a change of the kernel's limits


class Computers(Protocol):
    """Some satellites' computers."""

    def busy_ratio(self, span_ns: int) -> np.ndarray:
        """Which share of its full work each did in the emulated `span_ns` since the last call."""

    def set_pace(self, pace_ratio: np.ndarray) -> None:
        """Let each work at this share of its full pace from now on; 0 switches it off."""


class ContainerComputers:
    """Computers whose programs run in containers: their work is CPU time, their pace a CPU limit.

    All of a container's CPU share, used all the time, is its full work. A program with one thread never uses more than
    one CPU, whatever its share.

    Args:
        slowdown: of the run's clock; a container's share is smaller by that.
        counted: whether its CPU time says what they do; in exact time computing takes none, and they are only switched
            on and off: what they pretend to do is told otherwise.
    """

    def __init__(self, containers: Sequence[Container], slowdown: float, counted: bool = True):
        self._containers, self._counted = containers, counted
        self._full_cpus = np.array([container.cpus * slowdown for container in containers])
        self._pace = np.ones(len(containers))
        self._used_ns = self._read()

    def busy_ratio(self, span_ns: int) -> np.ndarray:
        used_ns = self._read()
        spent_ns, self._used_ns = used_ns - self._used_ns, used_ns
        busy_ratio: np.ndarray = np.clip(spent_ns / (self._full_cpus * span_ns), 0.0, 1.0)
        return busy_ratio

    def set_pace(self, pace_ratio: np.ndarray) -> None:
        coarse = np.where(pace_ratio > 0.0, np.maximum(np.round(pace_ratio / FINEST_PACE), 1.0) * FINEST_PACE, 0.0)
        for container, before, now in zip(self._containers, self._pace.tolist(), coarse.tolist(), strict=True):
            if now == 0.0:
                container.suspend()  # again if it was off before: something may have been started since
            elif now != before:
                container.set_cpus(container.cpus * now)
                container.resume()
        self._pace = coarse

    def _read(self) -> np.ndarray:
        return np.array([container.cpu_ns() * self._counted for container in self._containers], dtype=np.int64)


class ModelledComputers:
    """Computers of which only the pace is modelled: their servers read it, and say how much they worked at full pace.

    A server counts a prompt or a token when it is done, so work may be told all at once: what does not fit into a span
    at the pace that held in it is counted in the next ones.

    Args:
        rows: of `state`.
    """

    def __init__(self, state: ModelledState, rows: np.ndarray):
        self._state, self._rows = state, rows
        self._pace = state.pace_ratio[rows].copy()
        self._counted_ns = state.busy_ns[rows].astype(float)

    def busy_ratio(self, span_ns: int) -> np.ndarray:
        told_ns = self._state.busy_ns[self._rows] - self._counted_ns
        counted_ns: np.ndarray = np.minimum(told_ns, self._pace * span_ns)
        self._counted_ns += counted_ns
        return counted_ns / span_ns

    def set_pace(self, pace_ratio: np.ndarray) -> None:
        self._state.pace_ratio[self._rows] = self._pace = pace_ratio.copy()


JOURNAL = "energy"  # also the table's name
INTERVAL_NS = NS_PER_S  # of emulated time, between two looks at what the computers did
Kind = tuple[np.ndarray, Computers]  # numbers of satellites in the fleet, and their computers


class Governor:
    """Follows the energy and heat of a fleet over a run, and sets the pace of its computers; an activity.

    Each step it takes what the computers really did since the last, and the Sun at that step's beginning. A step that
    comes late is so much longer.

    Args:
        sunshine: at the instants of `grid`.
        kinds: the computers of those satellites of the fleet that have one.
        write: takes the rows of the table.
    """

    def __init__(
        self,
        fleet: Fleet,
        sunshine: Sunshine,
        grid: TimeGrid,
        kinds: Sequence[Kind],
        clock: Clock,
        write: Callable[[Mapping[str, Any]], None],
    ):
        self._fleet, self._sunshine, self._grid, self._kinds = fleet, sunshine, grid, kinds
        self._clock, self._write = clock, write
        self._ledger = Ledger(fleet)
        self._failure: Exception | None = None

    def run(self, t0_ns: int, stop: threading.Event) -> None:
        """Govern from instant 0 to the end of the plan, or until `stop`.

        Args:
            t0_ns: instant 0 on the clock.
        """
        try:
            sun = self._sunshine
            state = self._fleet.begin(sun.incidence[0], INTERVAL_NS / NS_PER_S)
            self._set_pace(state.pace_ratio)
            self._clock.wait_until_ns(t0_ns, stop)
            self._busy_ratio(INTERVAL_NS)  # what was done before instant 0 does not count
            begun_ns, step, end_ns = t0_ns, 0, t0_ns + self._grid.duration_ns
            while begun_ns < end_ns and not stop.is_set():
                step += 1
                self._clock.wait_until_ns(min(t0_ns + step * INTERVAL_NS, end_ns), stop)
                now_ns = self._clock.now_ns()
                if now_ns > begun_ns:
                    k, span_ns = self._grid.instant_at(begun_ns - t0_ns), now_ns - begun_ns
                    busy_ratio = self._busy_ratio(span_ns)
                    sunlight = sun.incidence[k], sun.albedo[k]
                    after, flow = self._fleet.advance(state, *sunlight, busy_ratio, span_ns / NS_PER_S)
                    self._set_pace(after.pace_ratio)
                    self._ledger.add(state, flow, sun.sunlit[k], busy_ratio, span_ns)
                    state = after
                    self._write_rows(self._ledger.rows(step, now_ns - t0_ns, state))
                    begun_ns = now_ns
            self._write_rows(self._ledger.rows(step, begun_ns - t0_ns, state, last=True))
        except Exception as error:  # told by `check` to who watches the run
            self._failure = error

    def check(self) -> None:
        """Raise a WorkloadError if it has failed."""
        if self._failure is not None:
            raise WorkloadError(
                f"energy: its governor ended ({self._failure}), but must last to the end; see its message"
            )

    def _write_rows(self, rows: Iterator[Mapping[str, Any]]) -> None:
        for row in rows:
            self._write(row)

    def _busy_ratio(self, span_ns: int) -> np.ndarray:
        found = np.zeros(len(self._fleet.names))
        for numbers, computers in self._kinds:
            found[numbers] += computers.busy_ratio(span_ns)
        return np.minimum(found, 1.0)

    def _set_pace(self, pace_ratio: np.ndarray) -> None:
        for numbers, computers in self._kinds:
            computers.set_pace(pace_ratio[numbers])


class Governing(Activity):
    """The governor of a run, in a thread of this process, which holds the containers.

    It reckons with the whole fleet wherever it is, and writes down the satellites that are on this kernel: so what
    numpy does for one of them does not depend on which others are here.

    At the end all computers are on and at their full pace again: servers that stand still would not end either.
    """

    def __init__(self, live: LiveRun):
        self._live, self._fleet = live, scenario_fleet(live.scenario)
        self._governor: Governor | None = None
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()

    def begin(self, times: RunTimes, ending: ExitStack) -> None:
        live, grid, fleet = self._live, self._live.plan.grid, self._fleet
        sunshine = find_sunshine(live.scenario, grid.start, grid.offsets_ns, fleet.chosen, fleet.pointing)
        kinds = list(_kinds(fleet, live))
        journal = ending.enter_context(Journal(live.folder.journal / f"{JOURNAL}.jsonl"))
        here = {name for name in fleet.names if live.is_here(name)}

        def write(row: Mapping[str, Any]) -> None:
            if row["satellite"] in here:
                journal.append(row)

        for numbers, computers in kinds:
            ending.callback(computers.set_pace, np.ones(len(numbers)))
        self._governor = Governor(fleet, sunshine, grid, kinds, live.clock, write)
        self._thread = threading.Thread(target=self._governor.run, args=(times.t0_ns, self._stop), name="governor")
        self._thread.start()
        ending.callback(self._thread.join)
        ending.callback(self._stop.set)

    def check(self) -> None:
        if self._governor is not None:
            self._governor.check()

    def await_end(self, timeout_s: float) -> None:
        """Let it come to the end of the run."""
        if self._thread is not None:
            self._thread.join(timeout_s)
        self.check()


def _kinds(fleet: Fleet, live: LiveRun) -> Iterator[Kind]:
    """The computers of a fleet by how they are held to a pace; a satellite may have several kinds of work."""
    inside = [n for n, name in enumerate(fleet.names) if name in live.containers]
    if inside:
        chosen = [live.containers[fleet.names[n]] for n in inside]
        yield np.array(inside), ContainerComputers(chosen, live.scenario.time.slowdown, counted=not live.exact)
    for path in (live.folder.journal / name for name in FILES):
        if path.exists():
            state = ModelledState.open(path)
            rows = {name: row for row, name in enumerate(state.names)}
            shared = [n for n, name in enumerate(fleet.names) if name in rows]
            if shared:
                yield np.array(shared), ModelledComputers(state, np.array([rows[fleet.names[n]] for n in shared]))
