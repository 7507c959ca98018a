"""What sends while the sky moves: activities, each begun before instant 0 and ended with the run.

An activity is a process of ours or a thread in this one; `activities` says which a scenario needs.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Protocol

from isl_emu.errors import WorkloadError
from isl_emu.network.net import IslNet
from isl_emu.nodes.containers import Container
from isl_emu.parts.kv_handover.start import kv_words
from isl_emu.parts.live_run import Stage
from isl_emu.parts.power.governor import governing
from isl_emu.parts.programs.run_programs import programs

LAST_WORDS_S = 15.0  # for an activity to finish its records after the end


class Activity(Protocol):
    """Something that makes traffic; a context manager begins it and ends it at the latest with its block."""

    def check(self) -> None:
        """Raise a WorkloadError if it has failed."""

    def await_end(self, timeout_s: float) -> None:
        """Let it come to its own end, which is that of the run; return after `timeout_s` in any case."""


class ProcessActivity:
    """A process of ours.

    Args:
        log: where its output goes.
    """

    def __init__(self, name: str, process: subprocess.Popen, log: Path):
        self._name = name
        self._process = process
        self._log = log

    def check(self) -> None:
        if status := self._process.poll():
            raise WorkloadError(
                f"{self._name}: it ended with status {status}, but must end with 0; see journal/{self._log.name}"
            )

    def await_end(self, timeout_s: float) -> None:
        with suppress(subprocess.TimeoutExpired):  # then it is told to stop, and writes what it has
            self._process.wait(timeout_s)
        self.check()


def activities(
    stage: Stage, net: IslNet, containers: Mapping[str, Container], t0_ns: int
) -> Iterator[AbstractContextManager[Activity]]:
    """What the scenario lets send, not begun yet.

    Args:
        containers: of the satellites that run programs, by name.
        t0_ns: instant 0 on the run's clock.
    """
    end_ns = t0_ns + stage.plan.grid.duration_ns
    times = ["--journal", str(stage.folder.journal), "--t0-ns", str(t0_ns), "--until-ns", str(end_ns)]
    if stage.scenario.questions:
        yield _process(["isl_emu.parts.questions.client", *times], "client", stage)
    if pairs := ",".join(f"{a}:{b}" for a, b in stage.scenario.probes.pairs):
        rhythm = ["--interval-ns", str(stage.scenario.probes.interval_ns), "--step-ns", str(stage.plan.grid.step_ns)]
        yield _process(["isl_emu.parts.probes.prober", *times, "--pairs", pairs, *rhythm], "prober", stage)
    if stage.scenario.power:
        yield governing(stage, containers, t0_ns)
    for workload in stage.scenario.workload:
        words = [
            "isl_emu.parts.programs.user_workload",
            *times,
            "--folder",
            str(stage.folder.path),
            "--name",
            workload.name,
        ]
        yield _process(words, workload.name, stage)
    for number, job in enumerate(stage.scenario.training):
        if job.modelled:
            words = ["isl_emu.parts.training.light_job", *times, "--folder", str(stage.folder.path)]
            yield _process([*words, "--job", str(number)], f"training-{job.name}", stage)
    for number, handover in enumerate(stage.scenario.kv_handover):
        yield _process([*kv_words(handover, containers), *times], f"kv-handover-{number}", stage)
    if stage.scenario.program:
        yield programs(stage, net, t0_ns)


@contextmanager
def _process(words: Sequence[str], name: str, stage: Stage) -> Iterator[ProcessActivity]:
    """A process of ours, ended at the latest with this block, and by the kernel if this process dies."""
    log = stage.folder.journal / f"{name}.log"
    command = ["setpriv", "--pdeathsig", "TERM", sys.executable, "-m", *words]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield ProcessActivity(name, process, log)
    finally:
        process.terminate()
        try:
            process.wait(LAST_WORDS_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
