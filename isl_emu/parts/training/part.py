"""Training: satellites sum gradients over the lasers, real ones by PyTorch or modelled ones of the same size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from isl_emu.linkplan.plan import LinkPlan
from isl_emu.parts.activity import Activity, RunProcess
from isl_emu.parts.cpu_use import Spells
from isl_emu.parts.finished_run import FinishedRun
from isl_emu.parts.live_run import LiveRun
from isl_emu.parts.needs import Need
from isl_emu.parts.part import CpuUse, Pace, Part, Preparation
from isl_emu.parts.source import Source
from isl_emu.parts.training.cpu_use import learning_spells
from isl_emu.parts.training.extras import check_torch
from isl_emu.parts.training.light_job import light_jobs_byte
from isl_emu.parts.training.ranks import CoordinatedJob, start_ranks
from isl_emu.parts.training.report import training_section
from isl_emu.parts.training.tables import TRAINING
from isl_emu.scenario.model import Scenario
from isl_emu.scenario.training import training_satellites

TORCH_RANK_BYTE = 320_000_000  # PyTorch with a small model; measured 263 MB


class TrainingPart(Part):
    key = "training"
    lines = {"training": TRAINING}

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
            if job.real:
                yield f"training: the steps of {job.name} would take no time to compute"

    def prepare(self, source: Source, place: str) -> Preparation:
        if any(job.real for job in source.scenario.training):
            check_torch()
        return Preparation()

    def start(self, live: LiveRun) -> Iterable[Activity]:
        for number, job in enumerate(live.scenario.training):
            if job.modelled:
                words = ["isl_emu.parts.training.light_job", "--folder", str(live.folder.path), "--job", str(number)]
                yield RunProcess(f"training-{job.name}", words, live.folder.journal)
        for ranks in start_ranks(live):
            yield CoordinatedJob(live, ranks)

    def cpu_use(self, run: FinishedRun, pace: Pace) -> Iterable[CpuUse]:
        yield Spells(learning_spells(run.rows("training"), run.scenario))

    def sections(self, run: FinishedRun, figures: Mapping[str, Any]) -> Iterator[Iterable[str]]:
        if (trained := run.table("training")) is not None:
            yield training_section(trained.to_pylist())
