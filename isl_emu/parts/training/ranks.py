"""Training with real gradients: a process on each satellite of a job, and a thread here that coordinates them."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from isl_emu.errors import WorkloadError
from isl_emu.nodes.containers import Container
from isl_emu.parts.live_run import Stage
from isl_emu.parts.training.collectives import Kind, Schedule, schedule
from isl_emu.parts.training.coordinator import Coordinator
from isl_emu.parts.training.meeting import call_roll, port_of
from isl_emu.parts.training.records import StepRecorder
from isl_emu.parts.training.sky import PlannedSky
from isl_emu.runs.clock import FILE as CLOCK_FILE
from isl_emu.runs.journal import Journal
from isl_emu.scenario.training import Training
from isl_emu.scenario.training_groups import training_satellites

READY_TIMEOUT_S = 900.0  # loading PyTorch takes 4 s of a core in a guest, and each satellite has a share of one
FIRST_STORE_PORT, STORE_PORT_STEP = 20_000, 1_000


class RankProcesses:
    """The ranks of one job: a process in each satellite's container, spoken to by lines of JSON.

    Args:
        number: of the scenario's training table.
    """

    def __init__(self, stage: Stage, containers: Mapping[str, Container], number: int):
        self.job: Training = stage.scenario.training[number]
        self.names = training_satellites(stage.scenario, self.job)
        self.events: queue.Queue[tuple[str, dict[str, Any]]] = queue.Queue()
        self.t0_ns = 0  # set before the first order
        self.parameters = 0
        self._stage, self._port = stage, port_of(number)
        self._containers = {name: containers[name] for name in self.names}
        self._addresses = {name: container.address for name, container in self._containers.items()}
        self._store_port = FIRST_STORE_PORT + STORE_PORT_STEP * number
        self._processes: dict[str, subprocess.Popen[str]] = {}

    def start(self, undo: ExitStack) -> None:
        """Start all processes; `undo` ends them."""
        undo.callback(self._end)
        for name in self.names:
            self._processes[name] = self._start(name)
            threading.Thread(target=self._listen, args=(name,), name=f"rank {name}", daemon=True).start()

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
                raise WorkloadError(self._unready(name, event))
            self.parameters = event["parameters"]
            waiting.discard(name)

    def train(self, names: Sequence[str], order: Mapping[str, Any]) -> None:
        """Send an order; who is gone does not hear it, and its end is told by another event."""
        line = json.dumps({**order, "t0_ns": self.t0_ns}) + "\n"
        for name in names:
            with suppress(BrokenPipeError):
                self._processes[name].stdin.write(line)
                self._processes[name].stdin.flush()

    def call(self, caller: str, others: Sequence[str]) -> set[str]:
        """Those of some satellites who answer a call from another over the network."""
        called = {name: self._addresses[name] for name in others}
        timeout_s = self._stage.clock.real_s(self.job.timeout_ns)
        return call_roll(self._containers[caller].netns_path, self._addresses[caller], called, self._port, timeout_s)

    def sums(self, members: Sequence[str]) -> tuple[Kind, Schedule]:
        """How gloo sums by default: around the ring of the ranks."""
        return "ring", schedule("ring", self.parameters, [range(len(members))])

    def _start(self, name: str) -> subprocess.Popen[str]:
        clock = os.open(self._stage.folder.journal / CLOCK_FILE, os.O_RDWR)
        module = ["-m", "isl_emu.parts.training.torch_rank", "--clock", f"/proc/self/fd/{clock}"]
        try:
            with self._log(name).open("wb") as log:
                pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": log, "text": True}
                environment = {**os.environ, "OMP_NUM_THREADS": "1"}
                process = self._containers[name].popen(
                    [sys.executable, *module], pass_fds=(clock,), env=environment, **pipes
                )
        finally:
            os.close(clock)
        with suppress(BrokenPipeError):
            process.stdin.write(json.dumps(self._setting(name)) + "\n")
            process.stdin.flush()
        return process

    def _setting(self, name: str) -> dict[str, Any]:
        return {
            "name": name,
            "names": self.names,
            "addresses": self._addresses,
            "port": self._port,
            "store_port": self._store_port,
            "seed": self._stage.scenario.seed,
            "job": self.job.model_dump_json(by_alias=True, exclude_none=True),
        }

    def _listen(self, name: str) -> None:
        """Pass on what a rank tells, until it ends."""
        process = self._processes[name]
        for line in process.stdout:
            self.events.put((name, json.loads(line)))
        self.events.put((name, {"event": "gone", "why": f"its process ended with status {process.wait()}"}))

    def _log(self, name: str) -> Path:
        return self._stage.folder.journal / f"training-{self.job.name}-{name}.log"

    def _unready(self, name: str, event: Mapping[str, Any]) -> str:
        if self._containers[name].usage().oom_kills:
            return (
                f"training {self.job.name} on {name}: needs more memory than training.real.memory allows, but it must "
                "hold PyTorch and the model; raise it"
            )
        said = [line.strip() for line in self._log(name).read_text(errors="replace").splitlines() if line.strip()]
        why = f"{event.get('why', event['event'])} ({said[-1] if said else 'it printed nothing'})"
        return f"training {self.job.name} on {name}: {why}, but it must be ready before the run; see journal/"

    def _end(self) -> None:
        for process in self._processes.values():
            process.kill()
        for process in self._processes.values():
            process.wait()


def start_training(stage: Stage, containers: Mapping[str, Container], undo: ExitStack) -> list[RankProcesses]:
    """The processes of all jobs with real gradients, ready to train."""
    numbers = [number for number, job in enumerate(stage.scenario.training) if job.real]
    jobs = [RankProcesses(stage, containers, number) for number in numbers]
    if jobs:
        count = sum(len(job.names) for job in jobs)
        with stage.phase("training", f"loading PyTorch on {count} satellites"):
            for job in jobs:
                job.start(undo)
            for job in jobs:
                job.await_ready()
    return jobs


class CoordinatorActivity:
    """A thread that leads a job."""

    def __init__(self, name: str, coordinator: Coordinator):
        self._coordinator, self._error = coordinator, None
        self.thread = threading.Thread(target=self._lead, name=f"training {name}", daemon=True)

    def check(self) -> None:
        if self._error is not None:
            raise WorkloadError(str(self._error)) from self._error

    def await_end(self, timeout_s: float) -> None:
        self.thread.join(timeout_s)
        self.check()

    def _lead(self) -> None:
        try:
            self._coordinator.run()
        except Exception as error:  # raised again where the run looks after its activities
            self._error = error


@contextmanager
def coordinated(stage: Stage, ranks: RankProcesses, t0_ns: int) -> Iterator[CoordinatorActivity]:
    """A job that trains until it is done or the run ends."""
    stopped, sky = threading.Event(), PlannedSky(stage.plan, ranks.job.ring, ranks.names)
    ranks.t0_ns, until_ns = t0_ns, t0_ns + stage.plan.grid.duration_ns
    with Journal(stage.folder.journal / "training.jsonl") as journal:
        recorder = StepRecorder(ranks.job, ranks.sums, sky, journal, stage.clock, t0_ns)
        times = stage.clock, t0_ns, until_ns, stopped
        coordinator = Coordinator(ranks.job, ranks.names, ranks, sky, recorder, *times)
        activity = CoordinatorActivity(ranks.job.name, coordinator)
        activity.thread.start()
        try:
            yield activity
        finally:
            stopped.set()
            activity.thread.join()
