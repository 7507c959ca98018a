"""A training job without a model: one process with a thread for each satellite, and their coordinator.

Run as ``python -m isl_emu.parts.training.light_job``. Each step leaves a line in training.jsonl.
"""

from __future__ import annotations

import queue
import signal
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from isl_emu.linkplan.plan_file import read_plan
from isl_emu.parts.serving.modelled_state import TRAINED, UNLIMITED, Allowance
from isl_emu.parts.training.collectives import Kind, Schedule
from isl_emu.parts.training.coordinator import Coordinator
from isl_emu.parts.training.light_rank import Formation, LightRank, Task, form
from isl_emu.parts.training.meeting import Reception, call_roll, open_listener, port_of
from isl_emu.parts.training.planned_ways import PlannedWays
from isl_emu.parts.training.results import ELEMENT_BYTE, JOURNAL, StepRecorder
from isl_emu.runs.clock import RunTimes, run_clock, run_parser
from isl_emu.runs.endpoints import Endpoint, read_endpoints
from isl_emu.runs.journal import Journal
from isl_emu.scenario.model import Scenario
from isl_emu.scenario.parse import load_scenario
from isl_emu.scenario.training import Modelled, Training, planes_of, training_satellites
from isl_emu.timebase import Clock

PROCESS_BYTE = 200_000_000  # Python, its libraries and the plan
RANK_ELEMENT_BYTE = 10  # of memory for an element: the vector, a summand and a comparison


def really_sent_elements(modelled: Modelled, rate_scale: float) -> int:
    """The length of the vector that is summed: scaled as the rates are, so that it takes as long as the whole would."""
    return max(1, round(modelled.exchanged_byte * rate_scale / ELEMENT_BYTE))


def light_jobs_byte(scenario: Scenario) -> int:
    """What the processes of a scenario's modelled jobs take: mostly their vectors."""
    return sum(
        PROCESS_BYTE
        + RANK_ELEMENT_BYTE
        * len(training_satellites(scenario, job))
        * really_sent_elements(job.modelled, scenario.rate_scale)
        for job in scenario.training
        if job.modelled
    )


class LightRanks:
    """The ranks of a job, as the coordinator sees them.

    Args:
        endpoints: where each node is.
    """

    def __init__(self, task: Task, endpoints: Mapping[str, Endpoint]):
        self.events: queue.Queue[tuple[str, dict[str, Any]]] = queue.Queue()
        self._task, self._endpoints = task, endpoints
        self._formations: dict[Any, Formation] = {}

    def __enter__(self) -> LightRanks:
        task = self._task
        with ExitStack() as undo:
            places = [(name, self._endpoints[name].netns) for name in task.names]
            listeners = {
                number: open_listener(task.addresses[name], task.port, netns)
                for number, (name, netns) in enumerate(places)
            }
            reception = undo.enter_context(Reception(listeners))
            self._ranks = {
                name: LightRank(name, netns, task, reception, lambda name, event: self.events.put((name, event)))
                for name, netns in places
            }
            for rank in self._ranks.values():
                rank.start()
                undo.callback(rank.end)
            undo.callback(task.stopped.set)
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    def train(self, names: Sequence[str], order: Mapping[str, Any]) -> None:
        formation = self.formation(order["members"], order["source"])
        for name in names:
            self._ranks[name].orders.put({**order, "formation": formation})

    def formation(self, members: Sequence[str], source: str | None) -> Formation:
        """How these members form their sum; the last two are kept."""
        key = tuple(members), source
        if key not in self._formations:
            kept = list(self._formations.items())[-1:]
            self._formations = {**dict(kept), key: form(self._task, members, source)}
        return self._formations[key]

    def call(self, caller: str, others: Sequence[str]) -> set[str]:
        task, called = self._task, {name: self._task.addresses[name] for name in others}
        timeout_s = task.clock.real_s(task.timeout_ns)
        return call_roll(self._endpoints[caller].netns, task.addresses[caller], called, task.port, timeout_s)


def task_of(
    scenario: Scenario,
    number: int,
    addresses: Mapping[str, str],
    clock: Clock,
    t0_ns: int,
    stopped: threading.Event,
    allowance: Allowance = UNLIMITED,
) -> Task:
    """What the ranks of a scenario's training job `number` have in common."""
    job = scenario.training[number]
    assert job.modelled is not None, "only modelled jobs have such ranks"
    names = training_satellites(scenario, job)
    return Task(
        names=names,
        addresses={name: addresses[name] for name in names},
        port=port_of(number),
        kind=job.collective,
        planes=planes_of(scenario),
        elements=really_sent_elements(job.modelled, scenario.rate_scale),
        compute_ns=job.local_steps * job.modelled.step_ns(job.modelled.parameters, job.modelled.tokens),
        timeout_ns=job.timeout_ns,
        clock=clock,
        t0_ns=t0_ns,
        stopped=stopped,
        allowance=allowance,
    )


def lead(job: Training, task: Task, ranks: LightRanks, ways: PlannedWays, journal: Journal, until_ns: int) -> None:
    """Train until the job is done or the run ends."""

    def sums(members: Sequence[str]) -> tuple[Kind, Schedule]:
        formation = ranks.formation(members, None)
        return formation.kind, formation.rounds

    recorder = StepRecorder(job, sums, ways, journal, task.clock, task.t0_ns)
    times = RunTimes(task.t0_ns, until_ns)
    Coordinator(job, task.names, ranks, ways, recorder, times, task.clock, task.stopped).run()


def main() -> None:
    """Train to the end of the job or of the run; SIGTERM ends it early, with every record written."""
    parser = run_parser("isl_emu.parts.training.light_job", __doc__)
    parser.add_argument("--folder", type=Path, required=True, help="the run folder")
    parser.add_argument("--job", type=int, required=True, help="number of the scenario's training table")
    options = parser.parse_args()
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    scenario = load_scenario(options.folder / "scenario.toml")
    endpoints = read_endpoints(options.journal)
    addresses = {name: endpoint.address for name, endpoint in endpoints.items()}
    job, clock = scenario.training[options.job], run_clock(options.journal)
    allowance = Allowance.of(options.journal / TRAINED)
    task = task_of(scenario, options.job, addresses, clock, options.t0_ns, stopped, allowance)
    ways = PlannedWays(read_plan(options.folder / "plan.parquet"), job.ring, task.names)
    with Journal(options.journal / f"{JOURNAL}.jsonl") as journal, LightRanks(task, endpoints) as ranks:
        lead(job, task, ranks, ways, journal, options.until_ns)


if __name__ == "__main__":
    main()
