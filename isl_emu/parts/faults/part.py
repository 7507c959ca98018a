"""Faults: what a scenario lets break in a run, beside the links that its plan cuts, and what came of each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from isl_emu.linkplan.fault_events import FaultThing
from isl_emu.parts.activity import Activity
from isl_emu.parts.faults.events import FaultEvents
from isl_emu.parts.faults.results import FAULTS, fault_rows, faults_chapter, faults_section
from isl_emu.parts.finished_run import ConcludedRun, FinishedRun
from isl_emu.parts.live_run import LiveRun
from isl_emu.parts.part import Part, Preparation, Source
from isl_emu.progress import Steps
from isl_emu.runs.folder import RunFolder
from isl_emu.scenario.training import training_satellites
from isl_emu.show.chapter import Chapter


class FaultsPart(Part):
    key = "faults"
    tables = {"faults": FAULTS}

    def prepare(self, source: Source, place: str) -> Preparation:
        def leave(folder: RunFolder, steps: Steps) -> None:
            """What does not start again is told of before the run."""
            for warning in lost_for_good(source):
                steps.note(f"Warning: {warning}")

        return Preparation(leave=leave)

    def one_guest(self, source: Source) -> Iterable[str]:
        return ()

    def start(self, live: LiveRun) -> Iterable[Activity]:
        if live.plan.faults.names:
            yield FaultEvents(live)

    def conclude(self, run: FinishedRun) -> None:
        if run.plan.faults.names:
            run.write("faults", FAULTS, fault_rows(run))

    def chapters(self, run: ConcludedRun) -> Iterator[Chapter]:
        if rows := run.rows("faults"):
            yield faults_chapter(rows)

    def sections(self, run: FinishedRun, figures: Mapping[str, Any]) -> Iterator[Iterable[str]]:
        if rows := run.rows("faults"):
            yield faults_section(rows)


def lost_for_good(source: Source) -> Iterator[str]:
    """What faults take the power of something that does not start again; a sentence each."""
    scenario, plan = source.scenario, source.plan
    real = [job for job in scenario.training if job.real]
    kinds = {
        "its part of a split model": {
            name for split in scenario.split for name in split.members(scenario.satellite_names)
        },
        "its training with PyTorch": {name for job in real for name in training_satellites(scenario, job)},
    }
    for number, (fault, effect) in enumerate(zip(plan.faults.names, plan.faults.effects, strict=True)):
        hit = (plan.faults.fault == number) & (plan.faults.thing == FaultThing.NODE)
        names = {plan.nodes.names[target] for target in plan.faults.target[hit].tolist()}
        for what, members in kinds.items():
            if effect == "power-off" and (lost := names & members):
                yield (
                    f"fault {fault}: takes {min(lost)}{f' and {len(lost) - 1} more' * (len(lost) > 1)} the power, but "
                    f"{what} does not start again afterwards; cut its links instead if it is to go on"
                )
