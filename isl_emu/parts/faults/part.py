"""Faults: what a scenario lets break in a run, beside the links that its plan cuts, and what came of each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from isl_emu.parts.activity import Activity
from isl_emu.parts.faults.events import FaultEvents
from isl_emu.parts.faults.results import FAULTS, fault_rows, faults_chapter, faults_section
from isl_emu.parts.finished_run import ConcludedRun, FinishedRun
from isl_emu.parts.live_run import LiveRun
from isl_emu.parts.part import Part
from isl_emu.show.chapter import Chapter


class FaultsPart(Part):
    key = "faults"
    tables = {"faults": FAULTS}

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
