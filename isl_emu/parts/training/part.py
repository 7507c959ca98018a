"""Training: satellites sum gradients over the lasers, real ones by PyTorch or modelled ones of the same size."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from isl_emu.errors import WorkloadError
from isl_emu.linkplan.plan import LinkPlan
from isl_emu.parts.activity import Activity, RunProcess
from isl_emu.parts.finished_run import ConcludedRun, FinishedRun, Rows
from isl_emu.parts.live_run import LiveRun
from isl_emu.parts.part import (
    CpuUse,
    Event,
    Need,
    Pace,
    Part,
    Preparation,
    Source,
    Spells,
    Traffic,
    as_warning,
    transfer_events,
)
from isl_emu.parts.serving.modelled_state import TRAINED, ModelledState
from isl_emu.parts.training.light_job import light_jobs_byte, really_sent_elements
from isl_emu.parts.training.results import ELEMENT_BYTE, JOURNAL, TRAINING, training_section
from isl_emu.parts.training.torch_job import CoordinatedJob, start_ranks
from isl_emu.runs.journal import read_latest
from isl_emu.scenario.model import Scenario
from isl_emu.scenario.training import Training, trainers, training_satellites
from isl_emu.show.chapter import Chapter
from isl_emu.tables.text import counted
from isl_emu.units import NS_PER_S

DONE = ("completed", "handed-over")  # outcomes of a step that need not be repeated
TORCH_RANK_BYTE = 320_000_000  # PyTorch with a small model; measured 263 MB


class TrainingPart(Part):
    key = "training"
    lines = {JOURNAL: TRAINING}
    orders = {JOURNAL: ("t_end_ns", "job", "ring", "step")}
    watched, watched_live = (JOURNAL,), (JOURNAL,)

    def endpoints(self, scenario: Scenario, plan: LinkPlan) -> Iterable[str]:
        return (name for job in scenario.training for name in training_satellites(scenario, job))

    def needs(self, scenario: Scenario) -> Iterable[Need]:
        for job in scenario.training:
            if job.real:
                expected_byte = min(job.real.memory_byte, TORCH_RANK_BYTE)
                for name in training_satellites(scenario, job):
                    yield Need(name, job.real.cpus, job.real.memory_byte, expected_byte)

    def own_byte(self, scenario: Scenario) -> int:
        return light_jobs_byte(scenario)

    def real_time(self, scenario: Scenario) -> Iterable[str]:
        for job in scenario.training:
            if job.real and job.real.compute_time_ns is None and job.real.board is None:
                yield (
                    f"training.real: the steps of {job.name} would take no time to compute; add compute_time, or board "
                    "for as long as their work takes that"
                )

    def checks(self, scenario: Scenario) -> Iterable[Callable[[], object]]:
        return [partial(as_warning, check_torch)] if any(job.real for job in scenario.training) else []

    def traffic(self, scenario: Scenario) -> Iterable[Traffic]:
        """Of modelled gradients; real ones are those of small models."""
        for job in scenario.training:
            if job.modelled:
                members, laser_bit_s = len(training_satellites(scenario, job)), max(scenario.fastest_laser_bit_s, 1)
                shared_byte = 2 * (members - 1) * job.modelled.exchanged_byte  # by all, in a ring or up and down a tree
                sum_s = 8 * shared_byte / members / laser_bit_s
                step_ns = job.modelled.step_ns(job.modelled.parameters, job.modelled.tokens)
                sums = scenario.time.duration_ns / (job.local_steps * step_ns + sum_s * NS_PER_S)
                sums = min(sums, math.inf if job.steps is None else job.steps / job.local_steps)
                sent_byte = 2 * (members - 1) * ELEMENT_BYTE * really_sent_elements(job.modelled, scenario.rate_scale)
                yield Traffic(f"training {job.name}", byte=sums * sent_byte, scaled=True)

    def prepare(self, source: Source, place: str) -> Preparation:
        if any(job.real for job in source.scenario.training):
            check_torch()
        return Preparation()

    def one_guest(self, source: Source) -> Iterable[str]:
        return ()

    def together(self, scenario: Scenario) -> Iterable[Sequence[str]]:
        """One process is in all satellites of a job, or leads theirs."""
        return (training_satellites(scenario, job) for job in scenario.training)

    def start(self, live: LiveRun) -> Iterable[Activity]:
        jobs = {n: job for n, job in enumerate(live.scenario.training) if is_led_here(live, job)}
        if live.scenario.power:
            waiting = trainers(live.scenario, [*jobs.values()], modelled_only=not live.exact)
            ModelledState.create(live.folder.journal / TRAINED, waiting)
        for number, job in jobs.items():
            if job.modelled:
                words = ["isl_emu.parts.training.light_job", "--folder", str(live.folder.path), "--job", str(number)]
                yield RunProcess(f"training-{job.name}", words, live.folder.journal)
        for ranks in start_ranks(live, [number for number, job in jobs.items() if job.real]):
            yield CoordinatedJob(live, ranks)

    def status(self, *journals: Path) -> Iterable[str]:
        records = (record for journal in journals for record in read_latest(journal / f"{JOURNAL}.jsonl"))
        latest = {record["job"]: record for record in records}
        for job, record in latest.items():
            done = record["step"] + (record["outcome"] in DONE)
            last = counted(len(record["participants"]), "satellite")
            yield f"training {job}: {counted(done, 'step')} done, {last} in the last"

    def cpu_use(self, run: FinishedRun, pace: Pace) -> Iterable[CpuUse]:
        yield Spells(learning_spells(run.rows(JOURNAL), run.scenario))

    def sections(self, run: FinishedRun, figures: Mapping[str, Any]) -> Iterator[Iterable[str]]:
        if (trained := run.table(JOURNAL)) is not None:
            yield training_section(trained.to_pylist())

    def events(self, table: str, row: Mapping[str, Any]) -> Iterable[Event]:
        """What each participant sends to the next one of the ring."""
        ring, name = row["participants"] or [], f"{row['job']} {row['ring']}.{row['step']}"
        times_ns = row["t_start_ns"], row["t_end_ns"]
        for number, ends in enumerate(zip(ring, [*ring[1:], *ring[:1]])):
            yield from transfer_events("training", f"{name}.{number}", ends, times_ns, None)

    def chapters(self, run: ConcludedRun) -> Iterator[Chapter]:
        from isl_emu.parts.training.chapters import training_chapters  # which draws; that is slow to import

        return training_chapters(run)


def is_led_here(live: LiveRun, job: Training) -> bool:
    """Whether the satellites of a job are on this kernel."""
    return live.is_here(training_satellites(live.scenario, job)[0])


def check_torch() -> None:
    """Whether PyTorch is there, without loading it.

    Raises:
        WorkloadError: it is not.
    """
    if find_spec("torch") is None:
        raise WorkloadError(
            "training.real: is given, but PyTorch is not installed; install isl-emu with its extra, as in "
            "`pip install 'isl-emu[train]' --extra-index-url https://download.pytorch.org/whl/cpu`, or use "
            "training.modelled"
        )


def learning_spells(rows: Rows, scenario: Scenario) -> Iterator[tuple[int, int, float]]:
    """From when to when each participant of a step computed, and with how many CPUs, from the rows of its table.

    A participant is taken to begin with the first one of its step. Modelled gradients take no computing.
    """
    slowdown = scenario.time.slowdown
    shares = {job.name: min(job.real.cpus / slowdown, 1.0) for job in scenario.training if job.real}
    for row in rows:
        for compute_ns in row["compute_ns"] or ():
            if row["job"] in shares and compute_ns is not None and row["t_start_ns"] is not None:
                yield row["t_start_ns"], row["t_start_ns"] + compute_ns, shares[row["job"]]
