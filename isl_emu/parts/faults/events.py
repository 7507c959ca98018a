"""The faults of a scenario that hit what runs in nodes, done at their instants.

Links are not its matter: the plan cuts them and makes them worse. A computer that loses its power does so a microsecond
after its links are cut, so that its last words get nowhere; it boots as its links come back.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from isl_emu.errors import IslEmuError, WorkloadError
from isl_emu.linkplan.fault_events import Faults, FaultThing
from isl_emu.parts.activity import Activity
from isl_emu.parts.live_run import LiveRun
from isl_emu.parts.node_faults import NodeFaults
from isl_emu.parts.residents import Resident
from isl_emu.runs.clock import RunTimes
from isl_emu.runs.journal import Journal
from isl_emu.units import NS_PER_US

JOURNAL = "fault_events"  # what was done, and undone, of each event that hits what runs in a node
LAST_WORDS_NS = NS_PER_US
LINKS_ALONE = ("cut", "degrade")
STARTING_AT_ONCE = 8


@dataclass(frozen=True)
class Moment:
    """When an event is to be done, or its end."""

    t_ns: int
    event: int
    begins: bool


def moments(faults: Faults, step_ns: int, duration_ns: int) -> Iterator[Moment]:
    """All that is to be done in a run, by time; ends come before beginnings at the same time."""
    found = []
    for event, fault in enumerate(faults.fault.tolist()):
        effect = faults.effects[fault]
        if effect in LINKS_ALONE:
            continue
        from_ns, until_ns = (int(k[event]) * step_ns for k in (faults.k_from, faults.k_until))
        late_ns = LAST_WORDS_NS if effect == "power-off" else 0
        found.append(Moment(from_ns + late_ns, event, True))
        if effect != "flip-bits":
            found.append(Moment(until_ns, event, False))
    ordered = sorted(found, key=lambda moment: (moment.t_ns, moment.begins, moment.event))
    return (moment for moment in ordered if moment.t_ns < duration_ns)


class FaultEvents(Activity):
    """Does what is due in the nodes that are here, in a thread of this process, which holds their containers."""

    def __init__(self, live: LiveRun):
        self._live, self._faults = live, live.plan.faults
        self._doing = NodeFaults(live)
        self._held: dict[int, Sequence[Resident]] = {}  # by event: what it keeps from running
        self._lock = threading.Lock()
        self._failures: list[Exception] = []

    def begin(self, times: RunTimes, ending: ExitStack) -> None:
        journal = ending.enter_context(Journal(self._live.folder.journal / f"{JOURNAL}.jsonl"))
        starting = ThreadPoolExecutor(STARTING_AT_ONCE, thread_name_prefix="mending")
        stop = threading.Event()
        thread = threading.Thread(target=self._follow, args=(times, journal, starting, stop), name="faults")
        thread.start()
        ending.callback(self._let_go)
        ending.callback(starting.shutdown, cancel_futures=True)
        ending.callback(thread.join)
        ending.callback(stop.set)

    def check(self) -> None:
        for failure in self._failures:
            if isinstance(failure, IslEmuError):
                problem = f"faults: {failure}"
                raise WorkloadError(problem)
            raise failure

    def _follow(self, times: RunTimes, journal: Journal, starting: ThreadPoolExecutor, stop: threading.Event) -> None:
        clock, grid = self._live.clock, self._live.plan.grid

        def do(moment: Moment) -> None:
            """Do it, and write down what it was and when it was done."""
            try:
                said = self._begin(moment.event) if moment.begins else self._end(moment.event)
            except Exception as error:  # told by `check` to who watches the run
                self._failures.append(error)
                return
            when, what = ("t_begun_ns", "done") if moment.begins else ("t_ended_ns", "mended")
            now_ns = clock.now_ns() - times.t0_ns
            journal.append({"id": moment.event, "event": moment.event, when: now_ns, what: said})

        for moment in moments(self._faults, grid.step_ns, grid.duration_ns):
            if not self._is_here(moment.event):
                continue
            if clock.wait_until_ns(times.t0_ns + moment.t_ns, stop):
                return
            if moment.begins:
                do(moment)
            else:  # what starts again may take its time
                starting.submit(do, moment)

    def _begin(self, event: int) -> str:
        number = int(self._faults.fault[event])
        effect, node, hit = self._faults.effects[number], self._node(event), self._residents(event)
        if effect == "flip-bits":
            fault = self._live.scenario.fault[number]
            seed = self._live.scenario.seed if fault.seed is None else fault.seed
            instant, target = int(self._faults.k_from[event]), int(self._faults.target[event])
            rng = np.random.default_rng([seed, *fault.name.encode(), target, instant])
            try:
                said = [resident.flip(fault.bits or 1, fault.buffer, rng) for resident in hit]
            except WorkloadError as error:  # what a program keeps is its own matter
                return str(error)
            return "; ".join(said) or "nothing ran there"
        with self._lock:
            self._held[event] = hit
        return self._doing.begin(effect, hit, node)

    def _end(self, event: int) -> str:
        """Mend what no other event holds."""
        effect = self._faults.effects[int(self._faults.fault[event])]
        with self._lock:
            own = self._held.pop(event, ())
            held = [resident for others in self._held.values() for resident in others]
        free = [resident for resident in own if resident not in held]
        if own and not free:
            return "another fault goes on"
        return self._doing.end(effect, free)

    def _is_here(self, event: int) -> bool:
        """Whether what it hits is on this kernel; a workload is where the first of its nodes is."""
        node = self._node(event)
        if node is None:
            node = list(self._live.scenario.own_programs.values())[int(self._faults.target[event])][0]
        return self._live.is_here(node)

    def _node(self, event: int) -> str | None:
        if self._faults.thing[event] == FaultThing.PROGRAM:
            return None
        return self._live.plan.nodes.names[int(self._faults.target[event])]

    def _residents(self, event: int) -> list[Resident]:
        """What an event hits that is there now."""
        thing, node = FaultThing(int(self._faults.thing[event])), self._node(event)
        if thing == FaultThing.PROGRAM:
            name = list(self._live.scenario.own_programs)[int(self._faults.target[event])]
            return [resident for resident in self._live.residents if resident.program == name]
        inside = [resident for resident in self._live.residents if resident.node == node]
        return inside if thing == FaultThing.NODE else [one for one in inside if one.is_server]

    def _let_go(self) -> None:
        """Let what stands still go on, so that it can be ended."""
        for event in list(self._held):
            if self._faults.effects[int(self._faults.fault[event])] == "stop":
                self._doing.end("stop", self._held.pop(event))
