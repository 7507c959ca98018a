"""Training with real gradients: a process on each satellite of a job, and a thread here that coordinates them."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from isl_emu.errors import WorkloadError
from isl_emu.nodes.containers import handed
from isl_emu.parts.activity import Activity
from isl_emu.parts.live_run import LiveRun
from isl_emu.parts.serving.modelled_state import TRAINED
from isl_emu.parts.training.collectives import Kind, Schedule, schedule
from isl_emu.parts.training.coordinator import Coordinator
from isl_emu.parts.training.meeting import call_roll, port_of
from isl_emu.parts.training.planned_ways import PlannedWays
from isl_emu.parts.training.results import JOURNAL, StepRecorder
from isl_emu.runs.clock import FILE as CLOCK_FILE
from isl_emu.runs.clock import RunTimes
from isl_emu.runs.endpoints import FIRST_STORE_PORT, STORE_PORTS
from isl_emu.runs.journal import Journal
from isl_emu.runs.process import kill, module_command
from isl_emu.scenario.training import Training, training_satellites

READY_TIMEOUT_S = 900.0  # loading PyTorch takes 4 s of a core in a guest, and each satellite has a share of one


class RankProcesses:
    """The ranks of one job: a process in each satellite's container, spoken to by lines of JSON.

    Args:
        number: of the scenario's training table.
    """

    def __init__(self, live: LiveRun, number: int):
        self.job: Training = live.scenario.training[number]
        self.names = training_satellites(live.scenario, self.job)
        self.events: queue.Queue[tuple[str, dict[str, Any]]] = queue.Queue()
        self.t0_ns = 0  # set before the first order
        self.parameters = 0
        self._live, self._port = live, port_of(number)
        self._containers = {name: live.containers[name] for name in self.names}
        self._addresses = {name: container.address for name, container in self._containers.items()}
        self._store_port = FIRST_STORE_PORT + STORE_PORTS * number
        self._processes: dict[str, subprocess.Popen[str]] = {}

    def start(self) -> None:
        """Start all processes; the end of the live run ends them."""

        def listen(name: str, output: Iterable[str]) -> None:
            """Pass on what a rank tells, until it ends."""
            for line in output:
                self.events.put((name, json.loads(line)))
            status = self._processes[name].wait()
            self.events.put((name, {"event": "gone", "why": f"its process ended with status {status}"}))

        self._live.undo.callback(lambda: kill(self._processes.values()))
        for name in self.names:
            process = self._processes[name] = self._start(name)
            assert process.stdout is not None
            threading.Thread(target=listen, args=(name, process.stdout), name=f"rank {name}", daemon=True).start()

    def await_ready(self) -> None:
        """Wait until all have loaded their model.

        Raises:
            WorkloadError: one has ended instead, or took too long.
        """
        waiting, end_s = set(self.names), time.monotonic() + READY_TIMEOUT_S
        while waiting:
            try:
                name, event = self.events.get(timeout=max(0.0, end_s - time.monotonic()))
            except queue.Empty:
                raise WorkloadError(
                    f"training {self.job.name}: {min(waiting)} is not ready after {READY_TIMEOUT_S:.0f} s, but all "
                    "must be before the run begins; raise training.real.cpus"
                ) from None
            if event["event"] != "ready":
                rank = f"training {self.job.name} on {name}"
                if self._containers[name].oom_kills():
                    raise WorkloadError(
                        f"{rank}: needs more memory than training.real.memory allows, but it must hold PyTorch and the "
                        "model; raise it"
                    )
                text = self._log(name).read_text(errors="replace")
                said = [line.strip() for line in text.splitlines() if line.strip()] or ["it printed nothing"]
                why = f"{event.get('why', event['event'])} ({said[-1]})"
                raise WorkloadError(f"{rank}: {why}, but it must be ready before the run; see journal/")
            self.parameters = event["parameters"]
            waiting.discard(name)

    def train(self, names: Sequence[str], order: Mapping[str, Any]) -> None:
        """Send an order; who is gone does not hear it, and its end is told by another event."""
        line = json.dumps({**order, "t0_ns": self.t0_ns}) + "\n"
        for name in names:
            with suppress(BrokenPipeError):
                _write_line(self._processes[name], line)

    def call(self, caller: str, others: Sequence[str]) -> set[str]:
        """Those of some satellites who answer a call from another over the network."""
        called = {name: self._addresses[name] for name in others}
        timeout_s = self._live.clock.real_s(self.job.timeout_ns)
        return call_roll(self._containers[caller].netns_path, self._addresses[caller], called, self._port, timeout_s)

    def sums(self, members: Sequence[str]) -> tuple[Kind, Schedule]:
        """How gloo sums by default: around the ring of the ranks."""
        return "ring", schedule("ring", self.parameters, [range(len(members))])

    def _start(self, name: str) -> subprocess.Popen[str]:
        journal = self._live.folder.journal
        files = {"--clock": journal / CLOCK_FILE}
        if (journal / TRAINED).exists():
            files["--state"] = journal / TRAINED
        with self._log(name).open("wb") as log, handed(files) as (words, descriptors):
            process = self._containers[name].popen(
                module_command("isl_emu.parts.training.torch_rank", *words),
                text=True,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                pass_fds=descriptors,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
        setting = {
            "name": name,
            "names": self.names,
            "addresses": self._addresses,
            "port": self._port,
            "store_port": self._store_port,
            "seed": self._live.scenario.seed,
            "exact": self._live.exact,
            "job": self.job.model_dump_json(by_alias=True, exclude_none=True),
        }
        with suppress(BrokenPipeError):
            _write_line(process, json.dumps(setting) + "\n")
        return process

    def _log(self, name: str) -> Path:
        return self._live.folder.journal / f"training-{self.job.name}-{name}.log"


def _write_line(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(line)
    process.stdin.flush()


def start_ranks(live: LiveRun, numbers: Iterable[int]) -> list[RankProcesses]:
    """The processes of some jobs with real gradients, by their numbers in the scenario, ready to train."""
    jobs = [RankProcesses(live, number) for number in numbers]
    if jobs:
        count = sum(len(job.names) for job in jobs)
        with live.phase("training", f"loading PyTorch on {count} satellites"):
            for job in jobs:
                job.start()
            for job in jobs:
                job.await_ready()
    return jobs


class CoordinatedJob(Activity):
    """A job with real gradients, led by a thread of this process until it is done or the run ends."""

    def __init__(self, live: LiveRun, ranks: RankProcesses):
        self._live, self._ranks = live, ranks
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None

    def begin(self, times: RunTimes, ending: ExitStack) -> None:
        live, ranks = self._live, self._ranks
        ranks.t0_ns = times.t0_ns
        ways = PlannedWays(live.plan, ranks.job.ring, ranks.names)
        journal = ending.enter_context(Journal(live.folder.journal / f"{JOURNAL}.jsonl"))
        recorder = StepRecorder(ranks.job, ranks.sums, ways, journal, live.clock, times.t0_ns)
        coordinator = Coordinator(ranks.job, ranks.names, ranks, ways, recorder, times, live.clock, self._stopped)

        def lead() -> None:
            try:
                coordinator.run()
            except Exception as error:  # raised again where the run looks after its activities
                self._error = error

        self._thread = threading.Thread(target=lead, name=f"training {ranks.job.name}", daemon=True)
        self._thread.start()
        ending.callback(self._thread.join)
        ending.callback(self._stopped.set)

    def check(self) -> None:
        if self._error is not None:
            raise WorkloadError(str(self._error)) from self._error

    def await_end(self, timeout_s: float) -> None:
        if self._thread is not None:
            self._thread.join(timeout_s)
        self.check()
